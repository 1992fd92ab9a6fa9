"""What can be said about a training run. Loading this module does not load the training stack."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from condseg_sdk.checkpoints.config import as_json
from condseg_sdk.errors import OptionError
from condseg_sdk.field_of_view import FieldOfView
from condseg_sdk.images.bit_depth import check_bits
from condseg_sdk.models import NETWORKS
from condseg_sdk.options import check_choice, check_flags, check_seed, check_text
from condseg_sdk.preprocessing import MAX_SIDE

__all__ = ["HELP", "Augmentation", "FinetuneSettings", "Precision", "Schedule"]

Schedule = Literal["one-cycle", "cosine"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
Augmentation = Literal["full", "endoscopy", "upright", "none"]
"""full: any rotation and mirroring; endoscopy: black corners, overlay boxes, highlights and poor recordings besides;
upright: a little rotation, mirrored left and right; none: pictures as they are."""


@dataclass(frozen=True)
class FinetuneSettings:
    """Everything that decides the result of a run besides the data. None means: chosen from data and machine.

    `finetune` takes each of these as a keyword argument; `docs/training.md` explains them.

    Raises:
        OptionError: a value is not allowed, or two do not go together.
    """

    # What is trained
    base: str | None = None
    network: str | Mapping[str, Any] | None = None
    image_size: int | None = None
    field_of_view: FieldOfView | None = None
    # How long
    epochs: int | None = None
    stage1_epochs: int | None = None
    patience: int | None = None
    train_size: int | None = None
    finish_epochs: int = 0
    # Steps
    batch_size: int | None = None
    learning_rate: float | None = None
    encoder_learning_rate: float | None = None
    weight_decay: float = 1e-2
    schedule: Schedule = "one-cycle"
    gradient_clip: float = 1.0
    ema_decay: float | None = None
    freeze_encoder: bool = False
    freeze_batchnorm: bool = False
    # What is shown
    augmentation: Augmentation = "full"
    oversample: float | None = None
    balanced_loss: bool = False
    validation: float | None = None
    bits: int | None = None
    # Machine
    precision: Precision = "auto"
    workers: int | None = None
    accelerator: str = "auto"
    devices: int | str = "auto"
    strategy: str = "auto"
    num_nodes: int = 1
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.network, Mapping):  # lists for tuples, as settings.json has it
            object.__setattr__(self, "network", as_json("network", dict(self.network)))
        if isinstance(self.network, str) and self.network not in NETWORKS:
            raise OptionError(f"unknown network {self.network!r}: choose one of {', '.join(NETWORKS)}")
        for name, choices in (("schedule", Schedule), ("precision", Precision), ("augmentation", Augmentation)):
            check_choice(name, getattr(self, name), choices)
        if self.field_of_view is not None:
            check_choice("field_of_view", self.field_of_view, FieldOfView)
        check_seed(self.seed)
        check_flags(**{name: getattr(self, name) for name in _FLAGS})
        for name in ("accelerator", "strategy", *(["base"] if self.base is not None else [])):
            check_text(name, getattr(self, name))
        check_bits(self.bits)
        for name, low in _LEAST.items():
            value = getattr(self, name)
            if value is None:
                continue
            if type(value) is not int and (type(value) is not float or name in _WHOLE):
                raise OptionError(f"{name}={value!r} must be a {'whole ' if name in _WHOLE else ''}number")
            if not low <= value < math.inf:
                raise OptionError(f"{name}={value!r} must be at least {low}, and finite")
            if name in _SIDES and value > MAX_SIDE:
                raise OptionError(f"{name}={value!r} must be at most {MAX_SIDE}: it is the side of the input in pixels")
        for name in ("validation", "ema_decay", "oversample"):
            value = getattr(self, name)
            if value is not None and not (0 < value < 1 or (value == 0 and name != "validation")):
                raise OptionError(f"{name}={value!r} must lie between 0 and 1")
        if self.freeze_encoder and self.stage1_epochs:
            raise OptionError("stage 1 trains the encoder: leave out freeze_encoder or stage1_epochs")
        if self.finish_epochs and (self.train_size is None):
            raise OptionError(
                "finish_epochs says how long to train at image_size after train_size: give train_size, too"
            )
        if self.epochs is not None and self.finish_epochs > self.epochs:
            raise OptionError(f"finish_epochs={self.finish_epochs} are more than epochs={self.epochs}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def given(self) -> dict[str, Any]:
        """What is not at its default."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


_FLAGS = ("freeze_encoder", "freeze_batchnorm", "balanced_loss", "deterministic")
_SIDES = {"image_size", "train_size"}
_LEAST: dict[str, float] = {
    "image_size": 16, "epochs": 1, "stage1_epochs": 0, "patience": 1, "train_size": 16, "finish_epochs": 0,
    "batch_size": 1, "learning_rate": 0, "encoder_learning_rate": 0, "weight_decay": 0, "gradient_clip": 0,
    "ema_decay": 0, "oversample": 0, "validation": 0, "workers": 0, "num_nodes": 1,
}  # fmt: skip
_WHOLE = {
    "image_size", "epochs", "stage1_epochs", "patience", "train_size", "finish_epochs", "batch_size", "workers",
    "num_nodes",
}  # fmt: skip


AUTO = "chosen from data and machine"
HELP: dict[str, str] = {
    "base": "where weights come from: a model's name, a folder, org/name, imagenet:ENCODER, random; default: "
    "condseg-lite-polyp, for other networks than condseg-lite imagenet: with their encoder",
    "network": f"one of {', '.join(NETWORKS)}; default: the base's",
    "image_size": f"side of the checkpoint's input in pixels; default: {AUTO}",
    "field_of_view": "what images are cut to, from training on: endoscopy: the endoscope's picture, without "
    "margins, text and small pictures beside it; none; default: that of the base named with --base",
    "epochs": f"epochs of stage 2; default: {AUTO}",
    "stage1_epochs": "epochs of stage 1, 0 leaves it out",
    "patience": "stop stage 2 after so many epochs without a better validation IoU; default: never",
    "train_size": "side to train at before the last --finish-epochs epochs; default: --image-size",
    "finish_epochs": "epochs of stage 2 at --image-size where --train-size is smaller",
    "batch_size": f"images a step, over all devices; default: {AUTO}",
    "learning_rate": "peak for all but the encoder; default: the network's",
    "encoder_learning_rate": "peak for the encoder; default: the network's",
    "weight_decay": "AdamW's, of weights only",
    "schedule": "of the learning rates, both after a warm-up",
    "gradient_clip": "greatest norm of the gradient, 0 for no limit",
    "ema_decay": "of the moving average of the weights, 0 for none; default: from the steps",
    "freeze_encoder": "leave the encoder as it is",
    "freeze_batchnorm": "leave all BatchNorm layers as they are, their statistics included",
    "augmentation": "full: any rotation; endoscopy: and black corners, boxes, highlights, poor recordings; "
    "upright: small ones, mirrored sideways; none",
    "oversample": f"share of an epoch's images that show foreground, at least; default: {AUTO}",
    "balanced_loss": "weigh foreground pixels up, for regions of a few pixels",
    "validation": f"share held out where the data names no validation part; default: {AUTO}",
    "precision": "bfloat16 on GPUs that have it, else float32",
    "bits": "number of bits in use in 16-bit images, 8 to 16; default: what the greatest value of all of them needs",
    "workers": f"processes that read data; default: {AUTO}",
    "accelerator": "Lightning's: auto, cpu, gpu, mps",
    "devices": "how many devices a machine, or which (0,2)",
    "strategy": "Lightning's: auto, ddp, ...",
    "num_nodes": "machines",
    "seed": "of everything random, 0 to 4294967295",
    "deterministic": "the same bits every time on the same machine and number of threads, slower on GPUs",
}
"""A line on each setting, for the command line."""
