"""A user name for a process whose user has none, as in a container started with `--user 4242`.

MONAI asks for the name when it is imported, PyTorch for its folder of temporary files. Both fail without a user name.
"""

from __future__ import annotations

import getpass
import os

__all__ = ["ensure_user_name"]


def ensure_user_name() -> None:
    """Make `getpass.getuser` return a name in this process and in those it starts."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # KeyError until Python 3.12, ImportError on Windows
        getuid = getattr(os, "getuid", None)
        os.environ["LOGNAME"] = f"uid_{getuid()}" if getuid else "unknown"
