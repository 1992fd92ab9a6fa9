"""condseg_sdk: ConDSeg for medical image segmentation, from a photo to its mask.

Example:
    >>> from condseg_sdk import Predictor
    >>> predictor = Predictor.from_pretrained("condseg-lite-polyp")  # doctest: +SKIP
    >>> predictor("frame.jpg").overlay().save("overlay.png")  # doctest: +SKIP

Not a medical device: for research and development, not for diagnosis or treatment.
"""

from __future__ import annotations

from importlib import import_module

from condseg_sdk.privacy import disable_telemetry

TYPE_CHECKING = False  # typing takes a while to load
if TYPE_CHECKING:
    from typing import Any

    from condseg_sdk.data import check_dataset, open_dataset
    from condseg_sdk.errors import (
        CheckpointError,
        CondsegError,
        DatasetError,
        DeviceError,
        ExportError,
        HubError,
        ImageError,
        InstallationError,
        ModelNotFoundError,
        OptionError,
        OutputError,
        TrainingError,
    )
    from condseg_sdk.models import ConDSeg
    from condseg_sdk.predictor import Predictor
    from condseg_sdk.preprocessing import Preprocessing
    from condseg_sdk.segmentation import Segmentation
    from condseg_sdk.training.config import FinetuneConfig
    from condseg_sdk.training.finetune import FinetuneResult, finetune
    from condseg_sdk.weights.manifest import list_models

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConDSeg",
    "CondsegError",
    "DatasetError",
    "DeviceError",
    "ExportError",
    "FinetuneConfig",
    "FinetuneResult",
    "HubError",
    "ImageError",
    "InstallationError",
    "ModelNotFoundError",
    "OptionError",
    "OutputError",
    "Predictor",
    "Preprocessing",
    "Segmentation",
    "TrainingError",
    "check_dataset",
    "finetune",
    "list_models",
    "open_dataset",
]

disable_telemetry()  # before any of the libraries below is loaded

_MODULES = {
    "CheckpointError": "condseg_sdk.errors",
    "CondsegError": "condseg_sdk.errors",
    "DatasetError": "condseg_sdk.errors",
    "DeviceError": "condseg_sdk.errors",
    "ExportError": "condseg_sdk.errors",
    "HubError": "condseg_sdk.errors",
    "ImageError": "condseg_sdk.errors",
    "InstallationError": "condseg_sdk.errors",
    "ModelNotFoundError": "condseg_sdk.errors",
    "OptionError": "condseg_sdk.errors",
    "OutputError": "condseg_sdk.errors",
    "TrainingError": "condseg_sdk.errors",
    "ConDSeg": "condseg_sdk.models",
    "FinetuneResult": "condseg_sdk.training.finetune",
    "FinetuneConfig": "condseg_sdk.training.config",
    "Predictor": "condseg_sdk.predictor",
    "Preprocessing": "condseg_sdk.preprocessing",
    "Segmentation": "condseg_sdk.segmentation",
    "check_dataset": "condseg_sdk.data",
    "open_dataset": "condseg_sdk.data",
    "finetune": "condseg_sdk.training.finetune",
    "list_models": "condseg_sdk.weights.manifest",
}


def __getattr__(name: str) -> Any:
    """Load a name's module when it is asked for: errors need no PyTorch or OpenCV, a predictor no training stack.

    The command line takes care of signals before anything that takes time is loaded.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        extra = "[train]" if _MODULES[name] in ("condseg_sdk.data", "condseg_sdk.training.finetune") else ""
        from condseg_sdk.errors import InstallationError

        raise InstallationError(f"{name} needs {error.name}: pip install 'condseg_sdk{extra}'") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
