"""condseg_sdk: medical image segmentation with ConDSeg.

Example:
    >>> from condseg_sdk import Predictor
    >>> predictor = Predictor.from_pretrained("condseg-lite-polyp")
    >>> predictor("frame.jpg").overlay().save("overlay.png")

Not a medical device: for research and development, not for diagnosis or treatment.
"""

from __future__ import annotations

from importlib import import_module

from condseg_sdk._version import __version__
from condseg_sdk.privacy import disable_telemetry

TYPE_CHECKING = False  # typing takes a while to load
if TYPE_CHECKING:
    from typing import Any

    from condseg_sdk.data import Dataset, check_dataset, open_dataset
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
    from condseg_sdk.evaluation.evaluate import evaluate
    from condseg_sdk.labels.write import save_labels
    from condseg_sdk.models import ConDSeg
    from condseg_sdk.predictor import Predictor
    from condseg_sdk.preprocessing import Preprocessing
    from condseg_sdk.runtimes.options import OnnxOptions, TorchOptions
    from condseg_sdk.segmentation import Region, Segmentation
    from condseg_sdk.training.config import FinetuneConfig
    from condseg_sdk.training.finetune import FinetuneResult, finetune
    from condseg_sdk.weights.manifest import list_models

__all__ = [
    "CheckpointError",
    "ConDSeg",
    "CondsegError",
    "Dataset",
    "DatasetError",
    "DeviceError",
    "ExportError",
    "FinetuneConfig",
    "FinetuneResult",
    "HubError",
    "ImageError",
    "InstallationError",
    "ModelNotFoundError",
    "OnnxOptions",
    "OptionError",
    "OutputError",
    "Predictor",
    "Preprocessing",
    "Region",
    "Segmentation",
    "TorchOptions",
    "TrainingError",
    "__version__",
    "check_dataset",
    "evaluate",
    "finetune",
    "list_models",
    "open_dataset",
    "save_labels",
]

disable_telemetry()  # before any of the libraries below is loaded

_MODULES = {
    "ConDSeg": "condseg_sdk.models",
    "Dataset": "condseg_sdk.data",
    "FinetuneConfig": "condseg_sdk.training.config",
    "FinetuneResult": "condseg_sdk.training.finetune",
    "OnnxOptions": "condseg_sdk.runtimes.options",
    "Predictor": "condseg_sdk.predictor",
    "Preprocessing": "condseg_sdk.preprocessing",
    "Region": "condseg_sdk.segmentation",
    "Segmentation": "condseg_sdk.segmentation",
    "TorchOptions": "condseg_sdk.runtimes.options",
    "check_dataset": "condseg_sdk.data",
    "evaluate": "condseg_sdk.evaluation.evaluate",
    "finetune": "condseg_sdk.training.finetune",
    "list_models": "condseg_sdk.weights.manifest",
    "open_dataset": "condseg_sdk.data",
    "save_labels": "condseg_sdk.labels.write",
}
"""Module of each public name; the others are errors."""

_NEED_TRAINING = ("condseg_sdk.data", "condseg_sdk.evaluation", "condseg_sdk.training")


def __getattr__(name: str) -> Any:
    """Import the module of a name on first use, so that errors need no PyTorch and a predictor no training stack.

    The command line handles signals before it loads anything slow.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from condseg_sdk.collector import collector_paused

    module = _MODULES.get(name, "condseg_sdk.errors")
    try:
        with collector_paused():
            value = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        extra = "[train]" if module.startswith(_NEED_TRAINING) else ""
        from condseg_sdk.errors import InstallationError

        raise InstallationError(f"{name} needs {error.name}: pip install 'condseg_sdk{extra}'") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
