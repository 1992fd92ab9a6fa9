"""Loads the libraries of CUDA that ONNX Runtime needs, where PyTorch or pip have put them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["preload_cuda"]


def preload_cuda() -> None:
    """Load CUDA and cuDNN from the wheels that pip installed, if any.

    ONNX Runtime looks for them only beside itself. In a virtual environment that sees the packages of the system, they
    are often in the other folder, where PyTorch installed them.
    """
    import onnxruntime

    toolkit = f"cu{(onnxruntime.cuda_version or '').partition('.')[0]}"
    nvidia = importlib.util.find_spec("nvidia")  # a namespace package: all folders of this name
    folders = [Path(folder) for folder in (nvidia.submodule_search_locations or ())] if nvidia else []
    beside = Path(onnxruntime.__file__).parents[1] / "nvidia"
    elsewhere = [folder for folder in folders if (folder / toolkit / "lib").is_dir()]
    if (beside / toolkit).is_dir() or not elsewhere:
        onnxruntime.preload_dlls()
        return
    onnxruntime.preload_dlls(cudnn=False, directory=str(elsewhere[0] / toolkit / "lib"))
    for folder in folders:
        if (folder / "cudnn" / "lib").is_dir():
            onnxruntime.preload_dlls(cuda=False, directory=str(folder / "cudnn" / "lib"))
            return
