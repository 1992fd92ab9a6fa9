"""Size and speed of the networks in eager PyTorch, as ratios within one run.

    python benchmarks/latency.py --size 256 --batch 1 --repetitions 15

Repetitions are interleaved, so that a drift of the machine meets all networks alike; figures are medians.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from condseg_sdk.models import NETWORKS, ConDSeg

REFERENCE = "condseg-r50"


def gflop(network: ConDSeg, images: torch.Tensor) -> float:
    """Floating-point operations of convolutions and matrix products, two for a multiply-add, in 1e9."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(images)
    return float(counter.get_total_flops()) / 1e9


def seconds(network: ConDSeg, images: torch.Tensor) -> float:
    """Wall time of one forward pass for a mask alone."""
    start = time.perf_counter()
    with torch.inference_mode():
        network(images)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()
    torch.manual_seed(0)
    networks = {name: ConDSeg(**arguments).eval() for name, arguments in NETWORKS.items()}
    images = torch.rand(options.batch, 3, options.size, options.size)
    for network in networks.values():
        seconds(network, images)  # warm-up
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(options.repetitions):
        for name, network in networks.items():
            times[name].append(seconds(network, images))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()}, {platform.machine()}")
    print(f"batch {options.batch} at {options.size}x{options.size}, {options.repetitions} interleaved repetitions")
    print(f"{'network':14} {'M parameters':>12} {'GFLOP':>7} {'median ms':>10} {'times ' + REFERENCE:>18}")
    for name, network in networks.items():
        parameters = sum(p.numel() for p in network.parameters()) / 1e6
        work = gflop(network, images[:1])
        speed = medians[REFERENCE] / medians[name]
        print(f"{name:14} {parameters:12.2f} {work:7.1f} {1e3 * medians[name]:10.1f} {speed:18.2f}")


if __name__ == "__main__":
    main()
