"""A name for the user who has none, such as in a container started with `--user 4242`.

Libraries ask for it while they are imported (MONAI) or to name a folder for temporary files, and fail without one.
"""

from __future__ import annotations

import getpass
import os

__all__ = ["ensure_user_name"]


def ensure_user_name() -> None:
    """Make `getpass.getuser` answer in this process and those it starts."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # KeyError until Python 3.12, ImportError on Windows
        getuid = getattr(os, "getuid", None)
        os.environ["LOGNAME"] = f"uid_{getuid()}" if getuid else "unknown"
