"""Checkpoints: folders with config.json, model.safetensors and README.md, complete for prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from condseg_sdk.checkpoints.config import CheckpointConfig
from condseg_sdk.checkpoints.mixin import save_checkpoint
from condseg_sdk.data.training_digests import TrainingDigests
from condseg_sdk.download import DIGESTS_FILE
from condseg_sdk.errors import CheckpointError
from condseg_sdk.models import ConDSeg
from condseg_sdk.preprocessing import Preprocessing

__all__ = ["DEFAULT_THRESHOLD", "CheckpointConfig", "load_checkpoint", "load_digests", "save_checkpoint"]

DEFAULT_THRESHOLD = 0.5  # for networks whose threshold was not chosen in training


def load_checkpoint(
    path: str | Path, *, preprocessing: Preprocessing | None = None
) -> tuple[ConDSeg, CheckpointConfig]:
    """Load a checkpoint; `weights.hub.resolve` has already checked its SHA-256.

    Args:
        path: A folder as `save_checkpoint` writes it, or a .safetensors file with its config.json beside it.
        preprocessing: Preprocessing in place of the checkpoint's. A repository that contains only the arguments of a
            network needs it; its threshold is then 0.5.

    Returns:
        The network on the CPU, float32, in eval mode, and its config.

    Raises:
        CheckpointError: A file is missing or damaged, tensors do not fit, the format is newer, or there is no
            preprocessing.
    """
    path = Path(path)
    if not path.is_dir() and path.suffix != ".safetensors":
        raise CheckpointError(f"{path} is not a folder: pass one with config.json and model.safetensors")
    network = ConDSeg.from_pretrained(path)
    config = network.checkpoint_config
    if preprocessing is None:
        if config is None:
            raise CheckpointError(
                f"{path} has neither preprocessing nor threshold: pass preprocessing=Preprocessing(...), or "
                "save it again with ConDSeg.from_pretrained(...).save_pretrained(folder, config=CheckpointConfig(...))"
            )
    elif config is None:
        config = CheckpointConfig(network.arguments, preprocessing, DEFAULT_THRESHOLD, {})
    else:
        config = replace(config, preprocessing=preprocessing)
    return network, config


def load_digests(path: Path) -> TrainingDigests | None:
    """Load the digests of the images that a checkpoint was trained on; None if it has none.

    Args:
        path: The checkpoint's folder, or a file in it.

    Raises:
        CheckpointError: training_images.json is damaged.
    """
    file = (path if path.is_dir() else path.parent) / DIGESTS_FILE
    return TrainingDigests.load(file) if file.is_file() else None
