"""Where the time of a training step goes, and what the memory settings and the augmentation save.

    python benchmarks/training_step.py --size 192 --batch 8

Runs itself twice in fresh processes, with and without `keep_freed_memory`, in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

from condseg_sdk.models import NETWORKS, ConDSeg
from condseg_sdk.training.allocator import keep_freed_memory
from condseg_sdk.training.augmentation import TrainingAugmentation
from condseg_sdk.training.losses import segmentation_loss


def kornia_chain() -> torch.nn.Module:
    """The same augmentation as a chain of kornia transforms, for comparison."""
    import kornia.augmentation as K

    return K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(degrees=180, translate=(0.1, 0.1), scale=(0.7, 1.4), shear=(-8, 8, -8, 8), p=1.0),
        K.ColorJitter(0.3, 0.3, 0.3, 0.04, p=1.0),
        K.RandomGaussianBlur((3, 3), (0.5, 1.0), p=0.1),
        data_keys=["input", "mask"],
    )


def run_steps(options: argparse.Namespace) -> dict[str, float]:
    """Medians in seconds of the parts of a step."""
    torch.manual_seed(0)
    network = ConDSeg(**NETWORKS[options.network]).train()
    optimizer = torch.optim.AdamW(network.parameters())
    size = (options.size, options.size)
    images = torch.rand(options.batch, 3, *size)
    masks = (torch.rand(options.batch, 1, *size) > 0.5).float()
    ours, chain = TrainingAugmentation(size), kornia_chain()
    times: dict[str, list[float]] = {}

    def lap(name: str, start: float) -> float:
        now = time.perf_counter()
        times.setdefault(name, []).append(now - start)
        return now

    for _ in range(options.repetitions + 2):
        start = now = time.perf_counter()
        augmented, target = ours(images, masks)
        now = lap("augmentation", now)
        loss = segmentation_loss(network(augmented, aux=True), target)
        now = lap("forward and loss", now)
        loss.backward()
        now = lap("backward", now)
        optimizer.step()
        optimizer.zero_grad()
        now = lap("optimizer", now)
        times.setdefault("step", []).append(now - start)
        chain(images, masks)
        lap("kornia chain", now)
    return {name: statistics.median(values[2:]) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="condseg-lite", choices=NETWORKS)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="of both processes in turn")
    parser.add_argument("--child", choices=("keep", "return"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        if options.child == "keep":
            keep_freed_memory()
        print(json.dumps(run_steps(options)))
        return
    results: dict[str, list[dict[str, float]]] = {"keep": [], "return": []}
    for _ in range(options.rounds):
        for mode, rows in results.items():
            command = [sys.executable, *sys.argv, "--child", mode]
            rows.append(json.loads(subprocess.check_output(command, text=True).splitlines()[-1]))
    kept = {name: statistics.median(row[name] for row in results["keep"]) for name in results["keep"][0]}
    returned = statistics.median(row["step"] for row in results["return"])
    print(
        f"{options.network}, batch {options.batch} at {options.size}x{options.size}, {torch.get_num_threads()} threads"
    )
    for name, value in kept.items():
        print(f"{name:18} {1e3 * value:8.0f} ms  {value / kept['step']:6.1%} of the step")
    print(f"a step that returns freed memory to the kernel takes {returned / kept['step']:.2f} times as long")


if __name__ == "__main__":
    main()
