"""Describes versions and hardware, so that results can be reproduced later."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from condseg_sdk._version import __version__

__all__ = ["describe_environment"]

PACKAGES = ("numpy", "pillow", "opencv-python", "onnxruntime-gpu", "onnxruntime", "lightning", "monai")


def describe_environment() -> dict[str, str]:
    """Return versions and hardware as text by name; packages that are not installed are left out.

    Example:
        >>> describe_environment()["condseg_sdk"] == __version__
        True
    """
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "condseg_sdk": __version__,
        "torch": torch.__version__,
        **found,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": f"{torch.get_num_threads()} threads of {platform.machine()}",
        "gpu": ", ".join(gpus) or "none",
    }
