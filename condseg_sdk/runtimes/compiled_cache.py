"""Compiled models in Hugging Face's cache, for execution providers that compile when they open a file.

A provider does not notice a damaged cache: its predictions would be wrong. The files are therefore written to a
temporary folder and renamed, and their SHA-256 is checked before each use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import huggingface_hub

from condseg_sdk._version import __version__
from condseg_sdk.checksums import sha256_of
from condseg_sdk.errors import CondsegError, OutputError
from condseg_sdk.files import atomic_folder
from condseg_sdk.json_files import read_json, write_json

__all__ = ["compiled_once"]

T = TypeVar("T")

CHECKSUMS = "sha256.json"
REMEDY = "set HF_ASSETS_CACHE to a folder that can be written to, or leave cache_compiled out"


def compiled_once(model: Path, identity: object, open_with: Callable[[Path], T]) -> T:
    """Open a model with the folder of its compiled form; the first call with this content compiles it.

    Args:
        model: The .onnx file.
        identity: Everything else that the compiled form depends on, such as provider, processor and options.
        open_with: Opens the model with a folder to read the compiled form from, or to write it to if it is empty.

    Returns:
        What `open_with` returns.

    Raises:
        OutputError: The compiled model cannot be kept. Exceptions of `open_with` are raised unchanged.
    """
    key = hashlib.sha256(repr((__version__, sha256_of(model), identity)).encode()).hexdigest()
    try:
        folder = huggingface_hub.cached_assets_path("condseg_sdk", namespace="compiled", subfolder=key)
    except (OSError, ValueError) as error:
        raise OutputError(f"the compiled form of {model} cannot be stored ({error}); {REMEDY}", path=model) from error
    if _is_whole(folder):
        return open_with(folder)
    opened: list[T] = []

    def compile_into(temporary: Path) -> None:
        opened.append(open_with(temporary))
        write_json(temporary / CHECKSUMS, _checksums(temporary))

    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    atomic_folder(folder, compile_into, replaces=names)
    return opened[0]


def _checksums(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != CHECKSUMS}


def _is_whole(folder: Path) -> bool:
    """Return whether the folder has the files that were written, and nothing else."""
    try:
        recorded = read_json(folder / CHECKSUMS, error=CondsegError, remedy="compile it again")
        return bool(recorded) and recorded == _checksums(folder)
    except (CondsegError, OSError):
        return False
