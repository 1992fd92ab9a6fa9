"""condseg_sdk: ConDSeg for medical image segmentation, from a photo to its mask.

Example:
    >>> from condseg_sdk import Predictor
    >>> predictor = Predictor.from_pretrained("condseg-lite-polyp")  # doctest: +SKIP
    >>> predictor("frame.jpg").overlay().save("overlay.png")  # doctest: +SKIP

Not a medical device: for research and development, not for diagnosis or treatment.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from condseg_sdk.training.finetune import FinetuneResult, finetune
    from condseg_sdk.training.settings import FinetuneSettings
    from condseg_sdk.weights.manifest import list_models

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

# Loaded when somebody asks for them: `condseg --help` needs no PyTorch, a predictor no training stack.
_HOMES = {
    **dict.fromkeys(
        (
            "CheckpointError",
            "CondsegError",
            "DatasetError",
            "DeviceError",
            "ExportError",
            "ImageError",
            "ModelNotFoundError",
            "OptionError",
        ),
        "errors",
    ),
    "ConDSeg": "models",
    "FinetuneResult": "training.finetune",
    "FinetuneSettings": "training.settings",
    "Predictor": "predictor",
    "Preprocessing": "preprocessing",
    "Segmentation": "segmentation",
    "finetune": "training.finetune",
    "list_models": "weights.manifest",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{home}")
    except ModuleNotFoundError as error:
        if home != "training.finetune":
            raise
        from condseg_sdk.errors import CondsegError

        raise CondsegError(f"{name} needs {error.name}: pip install 'condseg_sdk[train]'") from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
