"""Images per second of a local Ray cluster and of one process, on the same images in the same run.

    python benchmarks/ray_throughput.py examples/images --repeat 20

Both write the masks. The time of Ray includes starting the cluster and its workers, which is also given alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from condseg_sdk import Predictor
from condseg_sdk.distributed import ClusterOptions, OutputFiles, segment_files
from condseg_sdk.images.load import find_images


def one_process(model: str, images: list[OutputFiles]) -> Iterable[object]:
    predictor = Predictor.from_pretrained(model, device="cpu")
    for seg, item in zip(predictor.stream([item.source for item in images]), images, strict=True):
        seg.save(item.files["mask"])
        yield seg


def measure(run: Callable[[], Iterable[object]], count: int) -> tuple[float, float]:
    """Return the seconds until the first result, and the images per second of the whole run."""
    start = time.perf_counter()
    first = 0.0
    for number, _ in enumerate(run()):
        if number == 0:
            first = time.perf_counter() - start
    return first, count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--model", default="condseg-lite-polyp", help="name, folder or file (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, help="use each image so many times (default: %(default)s)")
    parser.add_argument("--cpus", type=int, default=1, help="CPUs of each worker (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        for name in ("one process", "local Ray"):
            images = [
                OutputFiles(Path(path), {"mask": Path(out) / f"{name}_{number}_{index}.png"})
                for number in range(options.repeat)
                for index, path in enumerate(map(str, find_images(options.images)))
            ]
            if name == "one process":
                first, rate = measure(lambda images=images: one_process(options.model, images), len(images))
            else:
                cluster = ClusterOptions("local", options.cpus)
                first, rate = measure(
                    lambda images=images: segment_files(images, options.model, cluster=cluster, device="cpu"),
                    len(images),
                )
            print(f"{name}: {len(images)} images, {rate:.2f} images/s, the first after {first:.1f} s")


if __name__ == "__main__":
    main()
