"""Verifies an exported model: compares its probabilities and masks with the network's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from condseg_sdk.checkpoints.config import CheckpointConfig
from condseg_sdk.checkpoints.onnx_metadata import ExportInfo
from condseg_sdk.errors import ExportError
from condseg_sdk.export.precisions import PRECISIONS
from condseg_sdk.export.preprocessing import BOX, IMAGE, whole_image
from condseg_sdk.export.trace import IMAGES
from condseg_sdk.metrics import score
from condseg_sdk.models import ConDSeg
from condseg_sdk.preprocessing import resize_logits, sigmoid

__all__ = ["Agreement", "verify_export"]

# Graphs with preprocessing may differ by this much in any precision: Pillow rounds to whole pixel values between the
# two passes of a resize.
MAX_DIFFERENCE_WITH_PREPROCESSING = 0.05
SAMPLES = 8


@dataclass(frozen=True)
class Agreement:
    """Difference of a model from float32 PyTorch on a few images.

    Attributes:
        max_difference: Largest difference in probability.
        dice: Mean Dice of the masks.
        images: Number of compared images.
    """

    max_difference: float
    dice: float
    images: int


def verify_export(
    network: ConDSeg, config: CheckpointConfig, model: Any, info: ExportInfo, images: Sequence[NDArray[np.uint8]]
) -> Agreement:
    """Compare a model with its network.

    Args:
        network: The exported network.
        config: Config of its checkpoint.
        model: An onnx.ModelProto.
        info: How it was exported.
        images: Images uint8 (H, W, 3), RGB, of which the first `SAMPLES` are used. Without any, the models are compared
            on noise and gradients.

    Raises:
        ExportError: The model cannot be run, or differs by more than its precision allows.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        pairs = [
            (_expected(network, config, info, image), _computed(session, config, info, image))
            for image in (list(images) or _synthetic(config.preprocessing.size))[:SAMPLES]
        ]
    except Exception as error:
        raise ExportError(f"the graph cannot be run ({type(error).__name__}: {str(error)[:300]})") from error
    difference = max(float(np.abs(a - b).max()) for expected, got in pairs for a, b in zip(expected, got, strict=True))
    masks = [(expected[0] >= config.threshold, got[0] >= config.threshold) for expected, got in pairs]
    dice = float(np.mean([score(*pair).dice for pair in masks]))
    spec = PRECISIONS[info.precision]
    allowed = max(spec.max_difference, MAX_DIFFERENCE_WITH_PREPROCESSING if info.preprocessing else 0)
    if not (difference <= allowed and (dice >= spec.min_dice or not images)):
        raise ExportError(
            f"the {info.precision} graph differs from the network: by up to {difference:.1e} in probability, Dice of "
            f"masks {dice:.3f}; verify=False writes it anyway"
        )
    return Agreement(difference, dice, len(pairs))


def _expected(
    network: ConDSeg, config: CheckpointConfig, info: ExportInfo, image: NDArray[np.uint8]
) -> list[NDArray[np.float32]]:
    """Compute the network's probabilities, mask first, at the size of the model's outputs."""
    batch = torch.from_numpy(config.preprocessing(image)[None]).to(next(network.parameters()).device)
    with torch.inference_mode():
        output = network.eval()(batch, aux=info.branch_uncertainty)
    maps = [output.mask, output.uncertainty] if info.branch_uncertainty else [output.mask]
    logits = [x[0, 0].cpu().numpy() for x in maps if x is not None]
    if info.preprocessing:
        box = config.preprocessing.find_field_of_view(image)
        logits = [resize_logits(x, (image.shape[0], image.shape[1]), box) for x in logits]
    return [sigmoid(x) for x in logits]


def _computed(
    session: Any, config: CheckpointConfig, info: ExportInfo, image: NDArray[np.uint8]
) -> list[NDArray[np.float32]]:
    if info.preprocessing:
        inputs: dict[str, Any] = {IMAGE: image}
        if config.preprocessing.field_of_view != "none":
            box = config.preprocessing.find_field_of_view(image) or whole_image((image.shape[0], image.shape[1]))
            inputs[BOX] = np.array(box, np.int64)
        return list(session.run(None, inputs))
    return [sigmoid(x[0, 0]) for x in session.run(None, {IMAGES: config.preprocessing(image)[None]})]


def _synthetic(size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Make images for the comparison if none are given: noise, and smooth gradients as in a photo."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    smooth = np.stack([np.sin(rows / 17 + k) * np.cos(columns / 23 - k) for k in range(3)], -1)
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return [noise, ((smooth + 1) * 127.5).astype(np.uint8)]
