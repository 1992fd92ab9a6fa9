"""`condseg app`: a page to segment images and videos in the browser, on this machine."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from typing import get_args

from condseg_sdk.app.settings import AppSettings
from condseg_sdk.cli import interrupts
from condseg_sdk.cli.device import add_device
from condseg_sdk.cli.types import integer
from condseg_sdk.errors import OptionError
from condseg_sdk.runtimes.options import RuntimeName

PASSWORD = "CONDSEG_APP_PASSWORD"
DEFAULTS = AppSettings()


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description = (
        "Segment images and videos on a page in the browser. Needs the extra [app]. Only this machine can open the "
        "page unless --host is given."
    )
    parser.add_argument("--model", default=DEFAULTS.model, help="name, folder or org/name (default: %(default)s)")
    parser.add_argument(
        "--runtime",
        choices=get_args(RuntimeName),
        help="library that runs the network (default: torch, onnx for an .onnx file)",
    )
    add_device(parser)
    parser.add_argument("--host", default=DEFAULTS.host, help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=integer,
        default=DEFAULTS.port,
        help="port to listen on, 0 for any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--user", help=f"name for a login; its password is the environment variable {PASSWORD}, or is asked for"
    )
    parser.add_argument(
        "--max-upload",
        type=integer,
        metavar="MB",
        default=DEFAULTS.max_upload,
        help="largest file in megabytes (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pixels",
        type=integer,
        metavar="PIXELS",
        default=DEFAULTS.max_pixels,
        help="largest number of pixels of an image or frame (default: %(default)s)",
    )
    parser.add_argument(
        "--max-frames",
        type=integer,
        metavar="FRAMES",
        default=DEFAULTS.max_frames,
        help="largest number of frames of a video (default: %(default)s)",
    )
    parser.add_argument(
        "--queue",
        type=integer,
        metavar="REQUESTS",
        default=DEFAULTS.queue,
        help="number of requests that may wait (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command until it is interrupted."""
    settings = AppSettings(
        model=options.model,
        device=options.device,
        runtime=options.runtime,
        host=options.host,
        port=options.port,
        user=options.user,
        password=None if options.user is None else _password(options.user),
        max_upload=options.max_upload,
        max_pixels=options.max_pixels,
        max_frames=options.max_frames,
        queue=options.queue,
    )
    from condseg_sdk.app.server import serve

    def ready(url: str, is_local: bool) -> None:
        print(f"condseg app: {url} (Ctrl-C stops it)", flush=True)
        if not is_local and settings.user is None:
            print(
                "condseg: anyone who reaches this address can use the page; --user asks for a password", file=sys.stderr
            )

    with interrupts.raising():
        serve(settings, ready=ready)
    return 0


def _password(user: str) -> str:
    """Return the password from the environment, or ask for it; an argument could be read by other users."""
    password = os.environ.get(PASSWORD)
    if not password and sys.stdin is not None and sys.stdin.isatty():
        password = getpass.getpass(f"Password for {user}: ")
    if not password:
        raise OptionError(
            f"--user {user} needs a password: set {PASSWORD}, or run in a terminal to be asked", option="user"
        )
    return password
