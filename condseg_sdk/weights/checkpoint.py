"""A checkpoint: a folder with config.json, model.safetensors and README.md that is all one needs to use the weights."""

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

DEFAULT_THRESHOLD = 0.5  # of a network for which nobody chose one


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
        OptionError: `config` is another network's.
        OutputError: the folder holds other files or cannot be written.
        CheckpointError: weights that are not finite at this precision.
    """
    name = Path(folder).resolve().name
    return write_checkpoint(folder, network, config, card=card or model_card(config, name=name), dtype=dtype)


def load_checkpoint(
    path: str | Path, *, preprocessing: Preprocessing | None = None
) -> tuple[ConDSeg, CheckpointConfig]:
    """Read a checkpoint whose files are known to be the right ones (`hub.resolve` sees to that).

    Args:
        path: a folder as `save_checkpoint` writes it, or a .safetensors file with its config.json beside it.
        preprocessing: instead of the checkpoint's own. A repository that holds nothing but a network's arguments needs
            it; its threshold is then 0.5.

    Returns:
        The network on the CPU, float32, in eval mode, and everything else about it.

    Raises:
        CheckpointError: a file is missing or damaged, tensors do not fit, the format is a newer one, or there is no
            preprocessing.
    """
    path = Path(path)
    if not path.is_dir() and path.suffix != ".safetensors":
        raise CheckpointError(f"{path} is no folder: give one with config.json and model.safetensors")
    network = ConDSeg.from_pretrained(path)
    config = network.checkpoint_config
    if preprocessing is None:
        if config is None:
            raise CheckpointError(
                f"{path} says nothing about preprocessing and threshold: pass preprocessing=Preprocessing(...), or "
                "save it again with ConDSeg.from_pretrained(...).save_pretrained(folder, config=CheckpointConfig(...))"
            )
    elif config is None:
        config = CheckpointConfig(network.arguments, preprocessing, DEFAULT_THRESHOLD, {})
    else:
        config = replace(config, preprocessing=preprocessing)
    return network, config
