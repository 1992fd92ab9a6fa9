"""Checkpoints: folders with config.json, model.safetensors and README.md, complete for prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from condseg_sdk.checkpoints.card import model_card
from condseg_sdk.checkpoints.config import CheckpointConfig
from condseg_sdk.checkpoints.mixin import write_checkpoint
from condseg_sdk.checkpoints.tensors import WeightsDtype
from condseg_sdk.errors import CheckpointError
from condseg_sdk.models import ConDSeg
from condseg_sdk.preprocessing import Preprocessing

__all__ = ["DEFAULT_THRESHOLD", "CheckpointConfig", "load_checkpoint", "save_checkpoint"]

DEFAULT_THRESHOLD = 0.5  # for a network without a chosen one


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
        folder: A new or empty folder, or one with an older checkpoint, which is replaced.
        network: The network, on any device.
        config: Config of this network.
        card: Content of README.md. The default is `model_card(config)`.
        dtype: Type of the floating-point weights in the file; "float16" is for bundled weights.

    Returns:
        The full path of the folder.

    Raises:
        OptionError: `config` belongs to another network.
        OutputError: The folder holds other files or cannot be written.
        CheckpointError: Weights are not finite at this precision.
    """
    name = Path(folder).resolve().name
    return write_checkpoint(folder, network, config, card=card or model_card(config, name=name), dtype=dtype)


def load_checkpoint(
    path: str | Path, *, preprocessing: Preprocessing | None = None
) -> tuple[ConDSeg, CheckpointConfig]:
    """Load a checkpoint; `weights.hub.resolve` has already checked its SHA-256.

    Args:
        path: A folder as `save_checkpoint` writes it, or a .safetensors file with its config.json beside it.
        preprocessing: Preprocessing in place of the checkpoint's. A repository that holds only the arguments of a
            network needs it; its threshold is then 0.5.

    Returns:
        The network on the CPU, float32, in eval mode, and its config.

    Raises:
        CheckpointError: A file is missing or damaged, tensors do not fit, the format is newer, or there is no
            preprocessing.
    """
    path = Path(path)
    if not path.is_dir() and path.suffix != ".safetensors":
        raise CheckpointError(f"{path} is not a folder: give one with config.json and model.safetensors")
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
