"""condseg_sdk: ConDSeg for medical image segmentation, from a photo to its mask.

Example:
    >>> from condseg_sdk import Predictor
    >>> predictor = Predictor.from_pretrained("condseg-lite-polyp")  # doctest: +SKIP
    >>> predictor("frame.jpg").overlay().save("overlay.png")  # doctest: +SKIP

Not a medical device: for research and development, not for diagnosis or treatment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from condseg_sdk.errors import (
    CheckpointError,
    CondsegError,
    DatasetError,
    DeviceError,
    ExportError,
    ImageError,
    ModelNotFoundError,
    OptionError,
)
from condseg_sdk.models import ConDSeg
from condseg_sdk.predictor import Predictor
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.segmentation import Segmentation
from condseg_sdk.training.settings import FinetuneSettings
from condseg_sdk.weights.manifest import list_models

if TYPE_CHECKING:
    from condseg_sdk.training.finetune import FinetuneResult, finetune

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConDSeg",
    "CondsegError",
    "DatasetError",
    "DeviceError",
    "ExportError",
    "FinetuneResult",
    "FinetuneSettings",
    "ImageError",
    "ModelNotFoundError",
    "OptionError",
    "Predictor",
    "Preprocessing",
    "Segmentation",
    "finetune",
    "list_models",
]

_TRAINING = ("finetune", "FinetuneResult")


def __getattr__(name: str) -> Any:
    """Load the training stack (Lightning, kornia) only when somebody asks for it."""
    if name not in _TRAINING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from condseg_sdk.training import finetune as module
    except ModuleNotFoundError as error:
        raise CondsegError(f"{name} needs {error.name}: pip install 'condseg_sdk[train]'") from error
    return getattr(module, name)
