"""The machine of a measurement: processor, GPU, threads and versions."""

from __future__ import annotations

import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path

from condseg_sdk._version import __version__
from condseg_sdk.cores import available_cores

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp")
PACKAGES = ("torch", "onnxruntime", "onnx", "numpy")


def processor() -> str:
    """Return the model of the processor and its vector instructions, if the system reports them."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in info.read_text().splitlines())}
    known = set(fields.get("flags", fields.get("Features", "")).split())
    flags = [flag for flag in FLAGS if flag in known]
    return f"{fields.get('model name', platform.machine())} ({', '.join(flags) or 'no vector extensions known'})"


def machine_lines(threads: int | None) -> list[str]:
    """Return the facts about the machine for the header of a table, one per line.

    Args:
        threads: Number of threads; None for the defaults of PyTorch and ONNX Runtime.
    """
    import onnxruntime
    import torch

    gpu = "no CUDA device"
    if torch.cuda.is_available():
        gpu = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    found = {"onnxruntime": onnxruntime.__version__}  # its distribution has one of two names
    versions = ", ".join(f"{name} {found.get(name) or version(name)}" for name in PACKAGES)
    return [
        f"{date.today().isoformat()}, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        f"CPU: {processor()}, {available_cores()} cores, threads: "
        f"{threads or f'PyTorch {torch.get_num_threads()}, ONNX Runtime its default'}",
        f"GPU: {gpu}",
        f"condseg_sdk {__version__}, {versions}",
    ]
