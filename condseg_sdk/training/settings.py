"""The settings of a training run. Loading this module does not load the training stack."""

from __future__ import annotations

from dataclasses import dataclass

from condseg_sdk.errors import OptionError
from condseg_sdk.models import NETWORKS
from condseg_sdk.preprocessing import Preprocessing


@dataclass(frozen=True)
class FinetuneSettings:
    """Everything that decides the result of a run besides the data; saved as settings.json in its folder.

    Args:
        network: name in `NETWORKS`.
        base: "imagenet" (encoder with ImageNet weights, the rest random), "random", or a checkpoint of this network to
            go on from: a name from `list_models()`, a folder or "org/name".
        image_size: side in pixels of the checkpoint's input.
        train_size: side to train at before the last `finish_epochs` epochs; None for `image_size` throughout.
        finish_epochs: epochs of stage 2 at `image_size` when `train_size` is smaller.
        epochs: of stage 2.
        stage1_epochs: of stage 1; 0 skips it.
        batch_size: images a step.
        learning_rate, encoder_learning_rate, weight_decay: of AdamW, peaks of a one-cycle schedule, both stages.
        ema_decay: of the moving average of the weights, which is what is validated and kept.
        validation: share of the training list held out to choose epoch and threshold.
        seed: of everything random.
    """

    network: str = "condseg-lite"
    base: str = "imagenet"
    image_size: int = 256
    train_size: int | None = None
    finish_epochs: int = 0
    epochs: int = 40
    stage1_epochs: int = 5
    batch_size: int = 8
    learning_rate: float = 1e-3
    encoder_learning_rate: float = 2e-4
    weight_decay: float = 1e-2
    ema_decay: float = 0.998
    validation: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise OptionError(f"unknown network {self.network!r}: choose one of {', '.join(NETWORKS)}")
        if min(self.epochs, self.batch_size, self.image_size) < 1 or min(self.stage1_epochs, self.finish_epochs) < 0:
            raise OptionError("epochs, batch_size and image_size must be at least 1, stage1_epochs and finish_epochs 0")
        if not 0 < self.validation < 1:
            raise OptionError(f"validation={self.validation} must lie between 0 and 1")

    @property
    def stage2_size(self) -> int:
        """Side that stage 2 starts at."""
        return self.train_size or self.image_size

    def preprocessing(self) -> Preprocessing:
        """Input of the checkpoint: EfficientNet-Lite's own scale for every network trained here from scratch."""
        return Preprocessing((self.image_size, self.image_size), scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)
