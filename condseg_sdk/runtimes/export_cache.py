"""Exports a checkpoint that has no ONNX file once, verifies the file and keeps it in Hugging Face's cache."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import huggingface_hub
from huggingface_hub.utils import are_progress_bars_disabled  # type: ignore[attr-defined]  # documented as public

from condseg_sdk._version import __version__
from condseg_sdk.checksums import sha256_of
from condseg_sdk.collector import collector_paused
from condseg_sdk.download import CONFIG_FILE, WEIGHTS_FILE
from condseg_sdk.errors import OutputError
from condseg_sdk.forking import fork_safe
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.provenance import is_ours

__all__ = ["exported_once"]

logger = logging.getLogger("condseg_sdk")


def exported_once(checkpoint: Path, *, preprocessing: Preprocessing | None = None, dynamic: bool = False) -> Path:
    """Return the ONNX file of a checkpoint; the first call with this content and version of the package exports it.

    Args:
        checkpoint: Checkpoint folder, or a .safetensors file with its config.json beside it.
        preprocessing: As in `load_checkpoint`.
        dynamic: Whether batch, height and width are dynamic. Fixed sizes are faster on devices that gain nothing from
            batches.

    Raises:
        CheckpointError: The checkpoint is incomplete or damaged.
        ExportError: The export failed or differs from the network.
        OutputError: The file cannot be kept.
    """
    path = _place(checkpoint, preprocessing, dynamic)
    if not is_ours(path):  # its seal tells whether the file is whole
        logger.warning("%s: exporting to ONNX once; kept in %s", checkpoint, path.parent)
        try:
            _export(checkpoint, preprocessing, dynamic, path)
        except OutputError as error:
            raise _cannot_be_stored(checkpoint, error) from error
    return path


def _place(checkpoint: Path, preprocessing: Preprocessing | None, dynamic: bool) -> Path:
    weights = checkpoint / WEIGHTS_FILE if checkpoint.is_dir() else checkpoint
    config = weights.parent / CONFIG_FILE
    content = [sha256_of(path) for path in (weights, config) if path.is_file()]
    key = hashlib.sha256(repr((__version__, preprocessing, dynamic, content)).encode()).hexdigest()
    try:
        return huggingface_hub.cached_assets_path("condseg_sdk", namespace="onnx", subfolder=key) / "model.onnx"
    except (OSError, ValueError) as error:
        raise _cannot_be_stored(checkpoint, error) from error


def _cannot_be_stored(checkpoint: Path, error: Exception) -> OutputError:
    return OutputError(
        f"the ONNX file of {checkpoint} cannot be stored ({error}); set HF_ASSETS_CACHE to a folder that can be "
        "written to and has space, or make the file with `condseg export`",
        path=checkpoint,
    )


@fork_safe
@collector_paused()
def _export(checkpoint: Path, preprocessing: Preprocessing | None, dynamic: bool, path: Path) -> None:
    # Not at the top: once the file is there, PyTorch is not needed any more.
    from tqdm import tqdm

    # HF_HUB_DISABLE_PROGRESS_BARS applies to the export as to downloads.
    with tqdm(total=1, desc="loading PyTorch", unit="step", disable=are_progress_bars_disabled()) as bar:
        from condseg_sdk.export.onnx import STEPS, export_onnx
        from condseg_sdk.weights.checkpoint import load_checkpoint

        bar.total += len(STEPS)

        def begin(step: str) -> None:
            bar.update()
            bar.set_description(step)

        network, config = load_checkpoint(checkpoint, preprocessing=preprocessing)
        export_onnx(network, config, path, dynamic=dynamic, progress=begin)
        bar.update()
