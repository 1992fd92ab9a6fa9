"""Time of one step of stage 2: compared with the published form, or part by part with the data pipeline.

    python benchmarks/training_step.py published --network condseg-r50 --size 256 --batch 2
    python benchmarks/training_step.py parts --network condseg-lite --size 192 --batch 8

A step is forward, loss, backward and optimizer. Steps of the two forms alternate, so that a drift of the machine
affects both alike. Times are medians; compare ratios within one run. Peak memory (resident set) is measured in a
process for each form, since one form could use memory that the other left to the allocator.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from published import PublishedForm
from torch import Tensor, nn
from torch.utils.data import DataLoader

from condseg_sdk.models import NETWORKS, ConDSeg, ConDSegOutput
from condseg_sdk.training.augmentation import TrainingAugmentation
from condseg_sdk.training.loaders import _Batches, _identity_collate
from condseg_sdk.training.losses import segmentation_loss
from condseg_sdk.training.randomness import uniforms

FORMS = ("published", "ours")


def build(form: str, options: argparse.Namespace) -> Callable[[], float]:
    """Build a function that takes one step and returns its seconds."""
    torch.manual_seed(0)
    network = ConDSeg(**NETWORKS[options.network])
    images = torch.rand(options.batch, 3, options.size, options.size)
    masks = (torch.rand(options.batch, 1, options.size, options.size) > 0.5).float()
    if form == "published":
        trained: nn.Module = PublishedForm(network, trainable=True)
        forward: Callable[[], Any] = lambda: ConDSegOutput(*trained(images))  # noqa: E731
    else:
        trained = network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.contiguous(memory_format=torch.channels_last)
        forward = lambda: network(images, aux=True)  # noqa: E731
    optimizer = torch.optim.AdamW(trained.parameters())

    def step() -> float:
        start = time.perf_counter()
        segmentation_loss(forward(), masks).backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    return step


def against_published(options: argparse.Namespace) -> None:
    """Compare both forms and print their times and memory."""
    # First, since a process begins with the peak of the one that started it.
    peaks = {form: peak_memory(form, options) for form in FORMS}
    steps = {form: build(form, options) for form in FORMS}
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    for repetition in range(options.repetitions + 1):
        for form, step in steps.items():
            seconds = step()
            if repetition:  # the first warms up
                times[form].append(seconds)
    medians = {form: statistics.median(values) for form, values in times.items()}
    for form in FORMS:
        speed, memory = medians["published"] / medians[form], peaks[form] / peaks["published"]
        print(
            f"{form:10} {medians[form]:7.2f} s ({speed:.2f} times as fast)  {peaks[form]:6.2f} GB ({memory:.2f} times)"
        )


def peak_memory(form: str, options: argparse.Namespace) -> float:
    """Measure the peak resident set of a process that takes two steps, in GB."""
    size = ["--network", options.network, "--size", str(options.size), "--batch", str(options.batch)]
    command = [sys.executable, __file__, "memory", "--form", form, *size]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory(options: argparse.Namespace) -> None:
    """Take two steps and print the peak resident set in GB."""
    step = build(options.form, options)
    for _ in range(2):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def kornia_chain() -> nn.Module:
    """Build the same augmentation as a chain of kornia transforms, for comparison."""
    import kornia.augmentation as K

    return K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(degrees=180, translate=(0.1, 0.1), scale=(0.7, 1.4), shear=(-8, 8, -8, 8), p=1.0),
        K.ColorJitter(0.3, 0.3, 0.3, 0.04, p=1.0),
        K.RandomGaussianBlur((3, 3), (0.5, 1.0), p=0.1),
        data_keys=["input", "mask"],
    )


class _Values:
    """Random pairs in memory, to measure the loader with."""

    def __init__(self, count: int, size: int) -> None:
        self.values = torch.randint(0, 2, (count, 4, size, size), dtype=torch.uint8)


def parts(options: argparse.Namespace) -> None:
    """Measure the parts of a step and print their times."""
    torch.manual_seed(0)
    network = ConDSeg(**NETWORKS[options.network]).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters())
    pairs: Any = _Values(options.batch * (options.repetitions + 2), options.size)
    loader = DataLoader(_Batches(pairs), batch_size=options.batch, shuffle=True, collate_fn=_identity_collate)
    ours, chain = TrainingAugmentation((options.size, options.size)), kornia_chain()
    times: dict[str, list[float]] = {}
    now = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal now
        times.setdefault(name, []).append(time.perf_counter() - now)
        now = time.perf_counter()

    for planes, truth, samples in loader:
        lap("loader")
        images, masks = planes / 255, truth.float()
        augmented, target = ours(images, masks, uniforms((0, 2, 0), samples, ours.numbers))
        augmented = ((augmented * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)
        lap("augmentation")
        loss: Tensor = segmentation_loss(network(augmented, aux=True), target)
        lap("forward and loss")
        loss.backward()
        lap("backward")
        optimizer.step()
        optimizer.zero_grad()
        lap("optimizer")
        chain(images, masks)
        lap("kornia chain")
    medians = {name: statistics.median(values[2:]) for name, values in times.items()}
    whole = sum(value for name, value in medians.items() if name != "kornia chain")
    for name, value in medians.items():
        print(f"{name:18} {1e3 * value:8.1f} ms  {value / whole:6.1%} of the step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = {"published": against_published, "parts": parts, "memory": memory}
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--network", default="condseg-r50", choices=NETWORKS)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--form", choices=FORMS, default="ours", help="for the mode memory")
    options = parser.parse_args()
    if options.mode != "memory":
        print(
            f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; {options.network}, ",
            end="",
        )
        print(f"batch {options.batch} at {options.size}x{options.size}, {options.repetitions} repetitions")
    modes[options.mode](options)


if __name__ == "__main__":
    main()
