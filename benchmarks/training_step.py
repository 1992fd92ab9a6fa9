"""Where the time of a training step goes, and what the same augmentation costs as a chain of kornia transforms.

python benchmarks/training_step.py --size 192 --batch 8
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from condseg_sdk.models import NETWORKS, ConDSeg
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
    options = parser.parse_args()
    medians = run_steps(options)
    size = f"{options.size}x{options.size}"
    print(f"{options.network}, batch {options.batch} at {size}, {torch.get_num_threads()} threads")
    for name, value in medians.items():
        print(f"{name:18} {1e3 * value:8.0f} ms  {value / medians['step']:6.1%} of the step")


if __name__ == "__main__":
    main()
