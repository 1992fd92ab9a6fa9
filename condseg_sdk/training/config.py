"""The settings of a training run. Importing this module does not load the training stack.

Type, default, range and description of a setting are written here and nowhere else: the keyword arguments of
`finetune`, the flags of `condseg finetune`, settings.json and the tables in docs/training.md are derived from
`FinetuneConfig`.
"""

# ruff: noqa: RUF009 - `_setting` is a dataclass field

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from condseg_sdk.checkpoints.config import as_json
from condseg_sdk.errors import OptionError
from condseg_sdk.field_of_view import FieldOfView
from condseg_sdk.models import NETWORKS
from condseg_sdk.options import MAX_SEED, check_choice, check_flags, check_text
from condseg_sdk.preprocessing import MAX_SIDE

__all__ = ["MACHINE", "Augmentation", "FinetuneConfig", "Precision", "Schedule", "Setting", "settings"]

Schedule = Literal["one-cycle", "cosine"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
Augmentation = Literal["full", "endoscopy", "upright", "none"]

MODEL, DURATION, OPTIMIZATION, DATA = "Model", "Duration", "Optimization", "Data"
REPRODUCIBILITY, MACHINE = "Reproducibility", "Machine"
SIDE = f"[16, {MAX_SIDE}]"
PREVIOUS_NAMES = {
    "train_size": "train_image_size",
    "validation": "val_fraction",
    "workers": "num_workers",
    "gradient_clip": "max_grad_norm",
    "patience": "early_stopping_patience",
}
"""Names in settings.json that version 0.1.0 wrote."""
SHORT_NAMES = {
    **{"lr": "learning_rate", "encoder_lr": "encoder_learning_rate", "wd": "weight_decay", "clip": "max_grad_norm"},
    **{"bs": "batch_size", "size": "image_size", "imgsz": "image_size", "workers": "num_workers", "gpus": "devices"},
    **{"aug": "augmentation", "ema": "ema_decay", "scheduler": "schedule", "amp": "precision"},
}
"""Names that other libraries and scripts use, and the setting to suggest for each."""
MISSING: dict[str, object] = {"field_of_view": "none"}
"""Values of settings that a settings.json lacks because it is older than they are: images were not cropped then."""


@dataclass(frozen=True)
class Setting:
    """A setting: its type, default, range and description.

    Attributes:
        name: Name of the field, the argument and, with hyphens, the flag.
        default: Default value.
        types: Types of allowed values, `NoneType` included; one `Literal` type for a choice.
        section: Heading of its table in docs/training.md. Settings in the section `MACHINE` may change when a run is
            resumed.
        help: Description, one sentence without the default.
        auto: Meaning of the default None.
        range: Interval in which numbers must lie, such as "[0, 1)"; empty for any.
    """

    name: str
    default: object
    types: tuple[Any, ...]
    section: str
    help: str
    auto: str = "chosen from data and machine"
    range: str = ""

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed strings, empty where any string is allowed."""
        return get_args(self.types[0]) if get_origin(self.types[0]) is Literal else ()

    @property
    def description(self) -> str:
        """The description with the default."""
        return f"{self.help} (default: {self.auto if self.default is None else self.default})"

    def check(self, value: Any) -> Any:
        """Return a value in the form that settings.json has: paths as strings, tuples as lists.

        Raises:
            OptionError: The value has a wrong type or is out of range.
        """
        if value is None and NoneType in self.types:
            return None
        if self.choices:
            check_choice(self.name, value, self.types[0])
        elif bool in self.types:
            check_flags(**{self.name: value})
        elif Mapping in self.types and isinstance(value, Mapping):
            return as_json(self.name, dict(value))
        elif str in self.types and (isinstance(value, str) or int not in self.types):
            return check_text(self.name, os.fspath(value) if isinstance(value, os.PathLike) else value)
        else:
            self._check_number(value)
        return value

    def _check_number(self, value: Any) -> None:
        kind = (int, float) if float in self.types else int
        if isinstance(value, bool) or not isinstance(value, kind) or not self._contains(value):
            whole = "" if float in self.types else "whole "
            within = f" in {self.range}" if self.range else ""
            raise OptionError(f"{self.name}={value!r} must be a {whole}number{within}", option=self.name)

    def _contains(self, value: float) -> bool:
        """Return whether a number lies in the range; NaN is outside every range."""
        if not self.range:
            return True
        low, high = map(float, self.range[1:-1].split(","))
        is_above = low <= value if self.range[0] == "[" else low < value
        return is_above and (value <= high if self.range[-1] == "]" else value < high)


def _setting(default: Any, section: str, text: str, **about: str) -> Any:
    return field(default=default, metadata={"section": section, "help": text, **about})


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of a training run: everything but the data that affects its result.

    Most settings that are None are chosen from data and machine. docs/training.md lists all settings.

    Raises:
        OptionError: A value is not allowed, or two values contradict each other.

    Example:
        >>> config = FinetuneConfig(epochs=20, augmentation="endoscopy")
        >>> config.override(batch_size=4).batch_size
        4
    """

    # fmt: off
    base: str | os.PathLike[str] | None = _setting(
        None, MODEL,
        "Initial weights: name of a model, checkpoint folder, org/name on the Hub, imagenet:ENCODER, or random.",
        auto="condseg-lite-polyp; ImageNet weights of the encoder for networks other than condseg-lite"
    )
    network: str | Mapping[str, object] | None = _setting(
        None, MODEL, f"Network: {', '.join(NETWORKS)}, or arguments of ConDSeg (on the command line in a JSON file).",
        auto="the network of the base"
    )
    image_size: int | None = _setting(
        None, MODEL, "Side of the checkpoint's input in pixels.",
        auto="the base's, if one is named; otherwise 256, or less for small images", range=SIDE
    )
    field_of_view: FieldOfView | None = _setting(
        None, MODEL,
        "Part of the image that the network sees, in training and in the checkpoint: endoscopy is the endoscope's view "
        "without margins, text and inset images; none is the whole image.",
        auto="the base's, if one is named; otherwise none"
    )
    freeze_encoder: bool = _setting(False, MODEL, "Keep the weights of the encoder as they are.")
    freeze_batchnorm: bool = _setting(
        False, MODEL, "Keep weights and statistics of all BatchNorm layers as they are."
    )
    epochs: int | None = _setting(
        None, DURATION, "Number of epochs of stage 2.", auto="10 to 100, about 1000 steps on a CPU, 4000 on a GPU",
        range="[1, inf)"
    )
    stage1_epochs: int | None = _setting(
        None, DURATION, "Number of epochs of stage 1; 0 skips it.", auto="0", range="[0, inf)"
    )
    early_stopping_patience: int | None = _setting(
        None, DURATION, "Number of epochs without a better validation IoU after which stage 2 ends.",
        auto="no early stopping", range="[1, inf)"
    )
    train_image_size: int | None = _setting(
        None, DURATION, "Side of the training images in pixels, except in the last finish_epochs epochs of stage 2.",
        auto="image_size", range=SIDE
    )
    finish_epochs: int = _setting(
        0, DURATION, "Number of last epochs of stage 2 at image_size instead of train_image_size.", range="[0, inf)"
    )
    batch_size: int | None = _setting(
        None, OPTIMIZATION, "Number of images per step, over all devices.",
        auto="4 or 8 on a CPU, chosen by memory on a GPU, fewer for small sets", range="[1, inf)"
    )
    learning_rate: float | None = _setting(
        None, OPTIMIZATION, "Peak learning rate of everything but the encoder.",
        auto="the encoder's: 0.001 for condseg-lite, 0.0001 as in the paper for condseg-r50 and condseg-pvt",
        range="[0, inf)"
    )
    encoder_learning_rate: float | None = _setting(
        None, OPTIMIZATION, "Peak learning rate of the encoder.",
        auto="the encoder's: 0.0002 for condseg-lite, 0.00001 as in the paper for condseg-r50 and condseg-pvt",
        range="[0, inf)"
    )
    schedule: Schedule = _setting(
        "one-cycle", OPTIMIZATION, "Schedule of the learning rates, after a warm-up over a tenth of the steps."
    )
    weight_decay: float = _setting(
        0.01, OPTIMIZATION, "Weight decay of AdamW; norms and biases are not decayed.", range="[0, inf)"
    )
    max_grad_norm: float = _setting(
        1.0, OPTIMIZATION, "Norm to which larger gradients are clipped; 0 for no limit.", range="[0, inf)"
    )
    ema_decay: float | None = _setting(
        None, OPTIMIZATION,
        "Decay of the moving average of the weights, which is validated and saved; it begins at 2/11. 0 for none.",
        auto="an average over a tenth of the steps of stage 2", range="[0, 1)"
    )
    balanced_loss: bool = _setting(
        False, OPTIMIZATION,
        "Weight foreground pixels by the square root of background to foreground, at most 10, for tiny regions."
    )
    augmentation: Augmentation = _setting(
        "full", DATA,
        "Random changes: full is any rotation, mirroring, zoom and colors; endoscopy adds black corners, boxes, "
        "highlights, noise, low resolution and JPEG; upright has small rotations and mirrors left and right only."
    )
    oversample: float | None = _setting(
        None, DATA, "Smallest share of images with foreground in an epoch.",
        auto="0.5 if fewer than half of the masks have foreground, otherwise 0", range="[0, 1)"
    )
    val_fraction: float | None = _setting(
        None, DATA, "Share of the training pairs to hold out for validation, if the data defines no validation split.",
        auto="0.2 if there are fewer than 200 pairs, otherwise 0.1", range="(0, 1)"
    )
    bits: int | None = _setting(
        None, DATA, "Number of bits in use in 16-bit images; stored in the checkpoint.",
        auto="the smallest of 8, 10, 12, 14, 16 that represents the values of all images, except for a few pixels each",
        range="[8, 16]"
    )
    precision: Precision = _setting(
        "auto", REPRODUCIBILITY,
        "Number format of the computation; weights stay float32. auto is bfloat16 on GPUs that support it, else "
        "float32."
    )
    seed: int = _setting(0, REPRODUCIBILITY, "Seed of all random numbers.", range=f"[0, {MAX_SEED}]")
    deterministic: bool = _setting(
        False, REPRODUCIBILITY,
        "Bit-identical results on the same machine with the same number of threads; slower on GPUs."
    )
    accelerator: str = _setting("auto", MACHINE, "Lightning accelerator: auto, cpu, gpu, mps.")
    devices: int | str = _setting("auto", MACHINE, "Number of devices per machine, or their indices (0,2).")
    strategy: str = _setting("auto", MACHINE, "Lightning strategy: auto, ddp and others.")
    num_nodes: int = _setting(1, MACHINE, "Number of machines.", range="[1, inf)")
    num_workers: int | None = _setting(
        None, MACHINE, "Number of processes that load data.", auto="0, or a few for a dataset above 4 GiB",
        range="[0, inf)"
    )
    # fmt: on

    def __post_init__(self) -> None:
        for name, setting in settings().items():
            object.__setattr__(self, name, setting.check(getattr(self, name)))
        if isinstance(self.network, str) and self.network not in NETWORKS:
            raise OptionError(f"network={self.network!r} is not one of {', '.join(NETWORKS)}", option="network")
        if self.freeze_encoder and self.stage1_epochs:
            raise OptionError(
                "stage 1 trains the encoder: leave out freeze_encoder or stage1_epochs", option="stage1_epochs"
            )
        if self.finish_epochs and self.train_image_size is None:
            raise OptionError("finish_epochs has no effect without train_image_size: pass both", option="finish_epochs")
        if self.epochs is not None and self.finish_epochs > self.epochs:
            raise OptionError(
                f"finish_epochs={self.finish_epochs} must be at most epochs={self.epochs}", option="finish_epochs"
            )

    def override(self, **overrides: object) -> Self:
        """Return a copy in which some settings have other values.

        Args:
            **overrides: New values by the name of the setting.

        Returns:
            The new settings; the existing ones are not changed.

        Raises:
            OptionError: A setting does not exist (the message suggests similar names), or a value is not allowed.

        Example:
            >>> FinetuneConfig(epochs=20).override(epochs=40).epochs
            40
        """
        for name in overrides:
            if name not in settings():
                known = {**SHORT_NAMES, **PREVIOUS_NAMES}
                near = [known[name]] if name in known else get_close_matches(name, settings())
                remedy = f"did you mean {' or '.join(near)}?" if near else "docs/training.md lists all settings"
                raise OptionError(f"{name!r} is not a setting of a training run; {remedy}", option=name)
        given: dict[str, Any] = {**self.to_dict(), **overrides}
        return type(self)(**given)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Read what `to_dict` of this or an earlier version returned.

        Args:
            values: Settings by name; settings that are missing have their defaults.

        Returns:
            The settings.

        Raises:
            OptionError: A setting does not exist, or a value is not allowed.

        Example:
            >>> FinetuneConfig.from_dict({"epochs": 20}).epochs
            20
        """
        return cls().override(**MISSING | {PREVIOUS_NAMES.get(name, name): value for name, value in values.items()})

    def to_dict(self) -> dict[str, object]:
        """Return all settings in the form of settings.json.

        Example:
            >>> FinetuneConfig(epochs=20).to_dict()["epochs"]
            20
        """
        return asdict(self)

    def changed(self) -> dict[str, object]:
        """Return the settings that differ from their defaults.

        Example:
            >>> FinetuneConfig(epochs=20).changed()
            {'epochs': 20}
        """
        return {name: value for name, value in self.to_dict().items() if value != settings()[name].default}


@cache
def settings() -> dict[str, Setting]:
    """Return the fields of `FinetuneConfig` by name, in their order."""
    hints = get_type_hints(FinetuneConfig)
    return {
        each.name: Setting(each.name, each.default, _types(hints[each.name]), **each.metadata)
        for each in fields(FinetuneConfig)
    }


def _types(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union; generic types without their arguments."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(kind if get_origin(kind) in (None, Literal) else get_origin(kind) for kind in members)


# For help(FinetuneConfig): the descriptions are written once, in the fields.
FinetuneConfig.__doc__ = "\n".join(
    [
        str(FinetuneConfig.__doc__),
        "    Attributes:",
        *(f"        {name}: {each.description}" for name, each in settings().items()),
    ]
)
