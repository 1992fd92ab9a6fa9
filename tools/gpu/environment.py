"""Prints what a machine has for a GPU: driver, versions, and whether ONNX Runtime can load its libraries for CUDA."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import torch

from condseg_sdk.runtimes.cuda_libraries import preload_cuda

LIBRARIES = (
    "libonnxruntime_providers_shared.so",
    "libonnxruntime_providers_cuda.so",
    "libonnxruntime_providers_tensorrt.so",
)


def main() -> None:
    import onnxruntime  # after condseg_sdk, which switches its telemetry off

    print(f"Python {sys.version}, torch {torch.__version__} for CUDA {torch.version.cuda}, {torch.__file__}")
    try:
        print(subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False).stdout)
    except FileNotFoundError:
        print("no nvidia-smi")
    if torch.cuda.is_available():
        print(torch.cuda.get_device_properties(0), f"cuDNN {torch.backends.cudnn.version()}")
    print(f"onnxruntime {onnxruntime.__version__} for CUDA {onnxruntime.cuda_version}, {onnxruntime.__file__}")
    print(f"built with {', '.join(onnxruntime.get_available_providers())}")
    preload_cuda()
    for name in LIBRARIES:
        try:
            ctypes.CDLL(str(Path(onnxruntime.__file__).parent / "capi" / name), ctypes.RTLD_GLOBAL)
            print(f"{name} can be loaded")
        except OSError as error:  # ONNX Runtime would say it at a level of logging that predictors switch off
            print(error)


if __name__ == "__main__":
    main()
