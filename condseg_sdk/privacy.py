"""Nothing is reported to anyone: the telemetry of the libraries underneath is switched off before they are loaded.

ONNX Runtime, for one, begins a database in the user's cache folder and looks up a host of its vendor when it is
imported. `condseg_sdk/__init__.py` calls this before anything else, so that every way into the package passes here;
child processes inherit the variables.
"""

from __future__ import annotations

import os

__all__ = ["OPT_OUTS", "disable_telemetry"]

OPT_OUTS = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime reads it at its import; `disable_telemetry_events()` is too late
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub and hf_xet: which libraries ask, and how transfers went
    "GRADIO_ANALYTICS_ENABLED": "False",  # this word and no other
}
"""Environment variable to the value that switches a library's reports off. Lightning, MONAI, kornia, PyTorch and the
OpenVINO plug-in of ONNX Runtime send none (looked up in the versions of constraints.txt)."""


def disable_telemetry() -> None:
    """Set each of `OPT_OUTS` that the user has not set.

    Example:
        >>> disable_telemetry()
        >>> "ORT_DISABLE_TELEMETRY" in os.environ
        True
    """
    for name, value in OPT_OUTS.items():
        os.environ.setdefault(name, value)
