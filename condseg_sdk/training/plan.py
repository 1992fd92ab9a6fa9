"""Values for the settings that a user has left open: chosen from the data and the machine, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from condseg_sdk.cores import available_cores
from condseg_sdk.data import DatasetReport
from condseg_sdk.data.cache import MEMORY_LIMIT
from condseg_sdk.errors import DatasetError, OptionError
from condseg_sdk.models.encoders import ENCODERS
from condseg_sdk.training.base import Base
from condseg_sdk.training.config import FinetuneConfig
from condseg_sdk.training.distributed import quiet_lightning

__all__ = ["DatasetStats", "Machine", "TrainingPlan", "check_precision", "dataset_stats", "detect_machine", "make_plan"]

SIZES = (64, 256)  # the paper trains at 256; enlarging smaller images gains nothing
EMA_SHARE = 0.1  # share of the steps of a stage over which weights are averaged
EMA_BOUNDS = (0.5, 0.9995)
STEPS = {"cpu": 1000, "gpu": 4000}
EPOCHS = (10, 100)
FEW_FOREGROUND = 0.5


@dataclass(frozen=True)
class Machine:
    """Hardware to train on.

    Attributes:
        kind: "cpu", "gpu" or "mps".
        devices: Number of devices, over all machines.
        memory: Memory of one GPU in GB, 0 for other devices.
        bfloat16: Whether the device has fast matrix products in bfloat16.
        cores: Number of CPU cores of this machine.
    """

    kind: str
    devices: int
    memory: float
    bfloat16: bool
    cores: int


@dataclass(frozen=True)
class DatasetStats:
    """Properties of the data on which choices depend.

    Attributes:
        train: Number of training pairs.
        validation: Number of validation pairs.
        max_side: Longest side of the largest image, in pixels.
        foreground_share: Share of the training masks with foreground, in [0, 1].
        bits: Number of bits in use in 16-bit images, None without such images.
    """

    train: int
    validation: int
    max_side: int
    foreground_share: float
    bits: int | None = None


@dataclass(frozen=True)
class TrainingPlan:
    """Settings in which all open values have been chosen.

    Attributes:
        config: The settings.
        reasons: Reason of each choice, by the name of the setting.
    """

    config: FinetuneConfig
    reasons: dict[str, str]

    def lines(self) -> list[str]:
        """Return one line of text per choice."""
        values = self.config.to_dict()
        shown = {name: _shown(values[name]) for name in self.reasons}
        width = max(map(len, shown.values())) + 2
        return [f"{name:<23}{shown[name]:<{width}}{reason}" for name, reason in self.reasons.items()]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"with {value.get('encoder', 'resnet50')}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def detect_machine(config: FinetuneConfig) -> Machine:
    """Return the hardware that the run may use according to its settings.

    Raises:
        OptionError: The machine does not have this accelerator or these devices, or Lightning lacks this strategy.
    """
    cores = available_cores()
    choice = {name: getattr(config, name) for name in ("accelerator", "devices", "strategy", "num_nodes")}
    try:
        with quiet_lightning():
            trainer = L.Trainer(**choice, barebones=True)
    except (MisconfigurationException, ValueError, RuntimeError, TypeError, ImportError) as error:
        asked = ", ".join(f"{name}={value!r}" for name, value in choice.items() if value not in ("auto", 1))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        remedy = "leave it out, or train with accelerator='cpu' (--accelerator cpu)"
        raise OptionError(
            f"{asked} cannot be used on this machine ({reason}); {remedy}", option="accelerator"
        ) from error
    if isinstance(trainer.accelerator, CUDAAccelerator):
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return Machine("gpu", trainer.world_size, memory, fast, cores)
    kind = "mps" if isinstance(trainer.accelerator, MPSAccelerator) else "cpu"
    return Machine(kind, trainer.world_size, 0, bfloat16=False, cores=cores)


def dataset_stats(report: DatasetReport) -> DatasetStats:
    """Return the properties of a dataset from the report of its check."""
    train = report.splits["train"]
    largest = report.image_sizes[1] if report.image_sizes else (SIZES[1], SIZES[1])
    shown = 1 - train.empty_masks / train.pairs
    return DatasetStats(train.pairs, report.splits["validation"].pairs, max(largest), shown, report.bits)


def make_plan(config: FinetuneConfig, base: Base, stats: DatasetStats, machine: Machine) -> TrainingPlan:
    """Choose all settings that were left open.

    Raises:
        DatasetError: There are fewer training pairs than images in a batch.
        OptionError: A batch cannot be divided among the devices.
    """
    arguments = base.network.arguments
    encoder = ENCODERS[arguments["encoder"]]
    chosen: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    def choose(name: str, value: Any, reason: str) -> Any:
        given = getattr(config, name)
        is_open = given is None or given == "auto"
        chosen[name] = value if is_open else given
        reasons[name] = reason if is_open else "as given"
        return chosen[name]

    choose("base", base.name, "the default for this network")
    choose("network", arguments, "as in the base")
    # The default base was not chosen for its size: small images stay small.
    size, reason = _image_size(base, stats, keep=base.is_checkpoint and config.base is not None)
    image_size = choose("image_size", size, reason)
    batch, reason = _batch_size(stats, machine, light=encoder.is_light)
    batch_size = choose("batch_size", batch, reason)
    if machine.devices > stats.train:
        raise OptionError(
            f"{stats.train} training pairs are fewer than the {machine.devices} devices: use fewer devices",
            option="devices",
        )
    if batch_size > stats.train:
        raise DatasetError(f"{stats.train} training pairs are fewer than batch_size={batch_size}: lower batch_size")
    if batch_size % machine.devices:
        raise OptionError(
            f"batch_size={batch_size} must be a multiple of the {machine.devices} devices that share it",
            option="batch_size",
        )
    if stats.bits is not None:
        of_base = base.preprocessing.bits or 0
        reason = "as in the base" if of_base >= stats.bits else "needed for the largest value of the 16-bit images"
        choose("bits", max(of_base, stats.bits), reason)
    steps = stats.train // batch_size
    low, high = EPOCHS
    epochs = min(max(round(STEPS["cpu" if machine.kind == "cpu" else "gpu"] / steps), low), high)
    epochs = choose("epochs", epochs, f"{steps} steps per epoch on {machine.kind}: {epochs * steps} steps in all")
    reason = "the encoder is frozen" if config.freeze_encoder else "no gain measured (docs/experiments/training.md)"
    choose("stage1_epochs", 0, reason)
    rates = encoder.learning_rates
    choose("learning_rate", rates.decoder, rates.source)
    choose("encoder_learning_rate", rates.encoder, rates.source)
    decay = min(max(1 - 1 / max(EMA_SHARE * epochs * steps, 1), EMA_BOUNDS[0]), EMA_BOUNDS[1])
    choose("ema_decay", round(decay, 4), f"an average over {EMA_SHARE:.0%} of stage 2's steps")
    few = stats.foreground_share < FEW_FOREGROUND
    choose(
        "oversample",
        FEW_FOREGROUND if few else 0.0,
        f"{stats.foreground_share:.0%} of the training masks have foreground",
    )
    precision, reason = _precision(machine)
    choose("precision", precision, reason)
    size_in_bytes = stats.train * 4 * image_size**2
    in_memory = size_in_bytes <= MEMORY_LIMIT
    reason = "the dataset fits into memory" if in_memory else f"the dataset is read from a file; {machine.cores} cores"
    choose("num_workers", 0 if in_memory else min(4, max(machine.cores // max(machine.devices, 1) - 1, 0)), reason)
    complete = replace(config, **chosen)
    return TrainingPlan(complete, {"network": reasons.pop("network"), **reasons})


def check_precision(config: FinetuneConfig, machine: Machine) -> None:
    """Refuse a precision with which the machine computes wrong gradients.

    On CPUs, oneDNN (PyTorch 2.13) leaves parts of the bfloat16 weight gradient of dilated convolutions uninitialized.

    Raises:
        OptionError: The precision is lower than float32 on a CPU.
    """
    if config.precision != "float32" and machine.kind == "cpu":
        raise OptionError(
            f"precision={config.precision!r} is for GPUs: on a CPU it makes the gradients of dilated convolutions "
            "NaN. Leave precision out; resume a run that was started on a GPU on a GPU",
            option="precision",
        )


def _image_size(base: Base, stats: DatasetStats, *, keep: bool) -> tuple[int, str]:
    if keep:
        return max(base.preprocessing.size), "as in the base"
    low, high = SIZES
    size = min(max(math.ceil(stats.max_side / 32) * 32, low), high)
    return (
        size,
        "as in the paper" if size == high else f"the largest image has {stats.max_side} pixels on its longer side",
    )


def _batch_size(stats: DatasetStats, machine: Machine, *, light: bool) -> tuple[int, str]:
    if machine.kind == "gpu":
        wanted = (32 if machine.memory > 20 else 16) if light else (16 if machine.memory > 40 else 4)
        reason = f"{machine.memory:.0f} GB on the GPU"
    else:
        wanted, reason = 8 if light else 4, f"for {machine.kind}"
    # For small datasets more steps matter more than large batches.
    few = max(stats.train // 15, 2)
    if few < wanted:
        wanted, reason = max(few, min(4, stats.train)), f"{stats.train} pairs to train on"
    wanted = min(wanted * machine.devices, stats.train)
    return max(wanted // machine.devices, 1) * machine.devices, reason


def _precision(machine: Machine) -> tuple[str, str]:
    if machine.bfloat16:
        return "bfloat16", "this GPU supports it"
    return "float32", "other precisions need a GPU" if machine.kind == "cpu" else "this device has no bfloat16"
