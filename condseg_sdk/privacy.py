"""No telemetry: the reports of the libraries that the package uses are switched off before they are loaded.

ONNX Runtime, for example, creates a database in the user's cache folder and looks up a host of its vendor when it is
imported. `condseg_sdk/__init__.py` calls `disable_telemetry` before anything else; child processes inherit the
variables.
"""

from __future__ import annotations

import os
import sys

__all__ = ["OPT_OUTS", "block_openvino_telemetry", "disable_telemetry"]

OPT_OUTS = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime reads it at its import; `disable_telemetry_events()` is too late
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub and hf_xet: installed libraries, and how transfers went
    "GRADIO_ANALYTICS_ENABLED": "False",  # only this spelling works
    "RAY_USAGE_STATS_ENABLED": "0",  # read where a cluster is started, such as by `condseg predict --ray local`
}
"""Environment variables, and the values that switch the reports of a library off. Lightning, MONAI, kornia and PyTorch
send none in the versions of constraints.txt. OpenVINO has no variable: see `block_openvino_telemetry`."""


def disable_telemetry() -> None:
    """Set each variable of `OPT_OUTS` that the user has not set.

    Example:
        >>> disable_telemetry()
        >>> "ORT_DISABLE_TELEMETRY" in os.environ
        True
    """
    for name, value in OPT_OUTS.items():
        os.environ.setdefault(name, value)


def block_openvino_telemetry() -> None:
    """Make the import of the package `openvino_telemetry` fail in this process, before OpenVINO is imported.

    Each import of OpenVINO would report to Google Analytics, unless the user has run a script that refuses it. Without
    the package, OpenVINO reports nothing.

    Example:
        >>> block_openvino_telemetry()
        >>> import openvino_telemetry
        Traceback (most recent call last):
        ModuleNotFoundError: import of openvino_telemetry halted; None in sys.modules
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
