"""OpenCV, imported in one place for the whole package: `from condseg_sdk.opencv import cv2`.

The wheel of opencv-python is the only dependency that needs system libraries (X11, OpenGL, GLib), which servers
and containers often lack. Four packages install the same folder `cv2`, and removing one of them breaks the others.
"""

from __future__ import annotations

import warnings

from condseg_sdk.errors import InstallationError

__all__ = ["cv2"]

DEBIAN_PACKAGES = "libgl1 libglib2.0-0"
PACKAGES = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


def _installed() -> dict[str, str]:
    """Return the version of each installed package that contains the folder `cv2`, by name."""
    from importlib import metadata  # not at the top: only errors need it

    found = {name: next(iter(metadata.distributions(name=name)), None) for name in PACKAGES}
    return {name: distribution.version for name, distribution in found.items() if distribution is not None}


def _explain(error: ImportError | None) -> InstallationError:
    """Make the error that says what is wrong with the installed OpenCV, and which commands repair it.

    Args:
        error: Error of its import; None if there is a folder `cv2` without a module inside.
    """
    installed = _installed()
    names = " ".join(installed)
    if not installed:
        return InstallationError("OpenCV is not installed: pip install opencv-python")
    name, version = next(iter(installed.items()))
    if len(installed) > 1:
        return InstallationError(
            f"OpenCV cannot be loaded ({error}): {names} share a folder and damage each other; "
            f"pip uninstall -y {names} && pip install opencv-python-headless=={version}"
        )
    if error is None or isinstance(error, ModuleNotFoundError) or name.endswith("headless"):
        reason = f" ({error})" if error else ""
        return InstallationError(
            f"OpenCV is damaged{reason}: pip install --force-reinstall --no-deps {name}=={version}"
        )
    return InstallationError(
        f"OpenCV cannot be loaded ({error}): install the system libraries that it needs (on Debian and Ubuntu: "
        f"apt-get install {DEBIAN_PACKAGES}), or use the headless build, which needs none: "
        f"pip uninstall -y {name} && pip install {name}-headless=={version}"
    )


def _warn_of_two_packages() -> None:
    """Warn where two packages have installed the same folder: removing one of them breaks the other."""
    installed = _installed()
    if len(installed) > 1:
        both = " and ".join(installed)
        warnings.warn(f"{both} write into the same folder: uninstall them all, then install one", stacklevel=2)


try:
    import cv2
except ImportError as error:
    raise _explain(error) from error
if cv2.__file__ is None:  # a namespace: files that an uninstallation left behind
    raise _explain(None)
_warn_of_two_packages()
