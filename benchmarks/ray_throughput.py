"""Images per second of a local Ray cluster and of one process, on the same images in the same run.

    python benchmarks/ray_throughput.py examples/images --repeat 20

Both write the masks. Times include loading the model and, with Ray, the start of the cluster: the seconds until the
first result.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from condseg_sdk import Predictor
from condseg_sdk.distributed import ClusterOptions, OutputFiles, segment_files
from condseg_sdk.images.load import find_images


def one_process(model: str, images: list[OutputFiles]) -> Iterable[object]:
    predictor = Predictor.from_pretrained(model, device="cpu")
    for seg, item in zip(predictor.stream([item.source for item in images]), images, strict=True):
        seg.save(item.files["mask"])
        yield seg


def cluster(model: str, images: list[OutputFiles], cpus: int) -> Iterable[object]:
    return segment_files(images, model, cluster=ClusterOptions("local", cpus), device="cpu")


def measure(name: str, results: Iterable[object]) -> None:
    """Print the images per second of a run, and the seconds until its first result."""
    start = time.perf_counter()
    seconds = [time.perf_counter() - start for _ in results]
    print(
        f"{name}: {len(seconds)} images, {len(seconds) / seconds[-1]:.2f} images/s, the first after {seconds[0]:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--model", default="condseg-lite-polyp", help="name, folder or file (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, help="use each image so many times (default: %(default)s)")
    parser.add_argument("--cpus", type=int, default=1, help="CPUs of each worker (default: %(default)s)")
    options = parser.parse_args()
    paths = [Path(str(path)) for path in find_images(options.images)] * options.repeat
    with tempfile.TemporaryDirectory() as out:
        alone, shared = (
            [OutputFiles(path, {"mask": Path(out, f"{name}{number}.png")}) for number, path in enumerate(paths)]
            for name in ("alone", "shared")
        )
        measure("one process", one_process(options.model, alone))
        measure("local Ray", cluster(options.model, shared, options.cpus))


if __name__ == "__main__":
    main()
