"""Serves the page: the address it listens on, who may use it, and what a browser may load for it."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from condseg_sdk.app.models import Models
from condseg_sdk.app.page import STYLE, make_page
from condseg_sdk.app.settings import AppSettings
from condseg_sdk.errors import InstallationError, OptionError

__all__ = ["listen", "make_server", "serve"]

# A browser loads nothing from another host, whatever the page asks for. Gradio's page has scripts and styles in it.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
SECONDS_TO_CLOSE = 2  # open pages hold a connection, which would never end by itself


def serve(settings: AppSettings, *, ready: Callable[[str, bool], object] = lambda _url, _is_local: None) -> None:
    """Serve the page until the process is interrupted. Uploads and files are removed at the end.

    Args:
        settings: Options and limits of the app.
        ready: Called when the page can be opened, with its address and whether only this machine can reach it.

    Raises:
        InstallationError: The extra [app] is not installed.
        OptionError: The app cannot listen on the address.
        CondsegError: The model cannot be opened.
    """
    with tempfile.TemporaryDirectory(prefix="condseg-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # Gradio's place for uploads and results, which its import reads
        try:
            import gradio  # noqa: F401
            import uvicorn
        except ImportError as error:
            raise InstallationError(f"the app needs {error.name}: pip install 'condseg_sdk[app]'") from error
        with listen(settings.host, settings.port) as listener:
            server = make_server(settings, Models(settings), Path(folder))
            config = uvicorn.Config(server, log_level="warning", timeout_graceful_shutdown=SECONDS_TO_CLOSE)
            ready(address_of(listener), is_local(listener))
            uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of the server.

    Args:
        host: Address or name of this machine.
        port: Port; 0 for any free one.

    Raises:
        OptionError: It cannot listen there.
    """
    unknown = OptionError(f"--host {host} is not an address of this machine; leave it out, or give one", option="host")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((str(address[0]), port), family=family)
    except socket.gaierror as error:
        raise unknown from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise unknown from error
        if error.errno == errno.EADDRINUSE:
            remedy = "close the other program, or use --port 0 for any free one"
            raise OptionError(f"--port {port} is in use; {remedy}", option="port") from error
        remedy = "use a --port above 1023, or 0 for any free one"
        raise OptionError(f"--port {port} cannot be opened ({error.strerror}); {remedy}", option="port") from error


def is_local(listener: socket.socket) -> bool:
    """Return whether only this machine can reach a socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def address_of(listener: socket.socket) -> str:
    """Return the address of the page."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(settings: AppSettings, models: Models, folder: Path) -> Any:
    """Make the ASGI application.

    Args:
        settings: Options and limits of the app.
        models: The models that can be chosen.
        folder: Folder for the files that are made.
    """
    import gradio as gr
    from fastapi import FastAPI

    system = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        make_page(settings, models, folder),
        path="/",
        auth=None if settings.user is None else (settings.user, settings.password),
        max_file_size=settings.max_upload_bytes,
        theme=gr.themes.Default(primary_hue="teal", font=system[0], font_mono=system[1]),
        css=STYLE,
        footer_links=[],
        run_history=False,  # it keeps earlier images in the browser
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
    )
    return _Guard(app, settings.host)


class _Guard:
    """Adds `HEADERS` to responses, and refuses requests that address a local server by another host name.

    The refusal prevents DNS rebinding: a foreign page whose host name resolves to this machine cannot read this page.

    Args:
        app: The ASGI application.
        host: Address that the server listens on.
    """

    def __init__(self, app: Any, host: str) -> None:
        self.app = app
        self.names = {"localhost", "127.0.0.1", "[::1]", host} if _is_local_name(host) else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = dict(scope["headers"]).get(b"host", b"").decode("latin-1").rsplit(":", 1)[0]
        if self.names is not None and name not in self.names:
            body = b"This page is only for this machine: open it as localhost.\n"
            await send({"type": "http.response.start", "status": 421, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": body})
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _is_local_name(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
