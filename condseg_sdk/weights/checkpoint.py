"""A checkpoint: a folder with config.json, model.safetensors and README.md that is all one needs to use the weights."""

from __future__ import annotations

from pathlib import Path

from condseg_sdk.errors import CheckpointError
from condseg_sdk.models import ConDSeg
from condseg_sdk.models.card import model_card
from condseg_sdk.models.config import CheckpointConfig
from condseg_sdk.models.pretrained import write_checkpoint
from condseg_sdk.models.tensors import WeightsDtype

__all__ = ["CheckpointConfig", "load_checkpoint", "save_checkpoint"]


def save_checkpoint(
    folder: str | Path,
    network: ConDSeg,
    config: CheckpointConfig,
    *,
    card: str | None = None,
    dtype: WeightsDtype = "float32",
) -> Path:
    """Write a checkpoint: the whole folder or nothing.

    Args:
        folder: new, empty, or with an older checkpoint, which is replaced.
        network: on any device.
        config: of this network.
        card: content of README.md; default: `model_card(config)`.
        dtype: of the floating-point weights in the file, "float16" for bundled ones only.

    Returns:
        The folder's full path.

    Raises:
        OptionError: the folder holds other files or cannot be written, or `config` is another network's.
        CheckpointError: weights that are not finite at this precision.
    """
    name = Path(folder).resolve().name
    return write_checkpoint(folder, network, config, card=card or model_card(config, name=name), dtype=dtype)


def load_checkpoint(folder: str | Path) -> tuple[ConDSeg, CheckpointConfig]:
    """Read a checkpoint whose files are known to be the right ones (`hub.resolve` sees to that).

    Args:
        folder: as `save_checkpoint` writes it.

    Returns:
        The network on the CPU, float32, in eval mode, and everything else about it.

    Raises:
        CheckpointError: a file is missing or damaged, tensors do not fit, the format is a newer one, or there is no
            preprocessing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder: give one with config.json and model.safetensors")
    network = ConDSeg.from_pretrained(folder)
    if network.checkpoint_config is None:
        raise CheckpointError(
            f"{folder} says nothing about preprocessing and threshold: load it with ConDSeg.from_pretrained and "
            "save it with save_pretrained(folder, config=CheckpointConfig(...))"
        )
    return network, network.checkpoint_config
