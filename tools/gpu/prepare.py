"""Gathers what a machine with a GPU and without a network needs: wheels, the repository and data, in parts to transfer.

    python tools/gpu/prepare.py --data polyp kvasir_seg kvasir_seg/split_train880.txt kvasir_seg/split_val120.txt

The parts, their index and the scripts for the other machine are in build/gpu/parts; README.md tells what to do there.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from parts import split
from PIL import Image

from condseg_sdk import CondsegError, Predictor, open_dataset
from condseg_sdk.data import CachedPairs, Pair
from condseg_sdk.preprocessing import Preprocessing

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
PYTHON, PLATFORM = "3.12", "x86_64-manylinux_2_28"
GLIBC = 28  # of the platform; wheels for older versions of glibc fit, too
TESTS = ("pytest", "filelock", "onnx-ir", "pydicom")  # what `pytest -m gpu` imports beyond condseg_sdk[train]
NEVER = re.compile(
    r"(torch|triton|onnxruntime|nvidia-.*|cuda-.*)=="
)  # comes with PyTorch for CUDA, or must not be there
JPEG_QUALITY = 95
ROOT_FILES = ("run.py", "parts.py")


class PreparationError(Exception):
    """A reason to stop, with its remedy."""


def called(*command: str | Path) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run([str(word) for word in command], cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PreparationError(f"{Path(command[0]).name} {command[1]} failed:\n{done.stderr.strip() or done.stdout}")
    return done.stdout


def requirements(machine: Path) -> list[str]:
    """Return the pinned packages that condseg_sdk[train] and its tests need and the machine lacks.

    Args:
        machine: Requirements that the machine has; what they depend on is there, too.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise PreparationError("uv is missing, which resolves packages for another machine: pip install uv")
    compiled = (uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate")
    target = ("--python-version", PYTHON, "--python-platform", PLATFORM)
    with tempfile.TemporaryDirectory() as folder:
        given, there, tests = (Path(folder, name) for name in ("given.txt", "there.txt", "tests.txt"))
        given.write_text(
            re.sub(r"\+[\w.]+", "", machine.read_text(encoding="utf-8")), encoding="utf-8"
        )  # no 2.11+cu130
        there.write_text(called(*compiled, *target, given), encoding="utf-8")
        tests.write_text("\n".join(TESTS), encoding="utf-8")
        wanted = called(*compiled, *target, "--constraint", there, "--extra", "train", "pyproject.toml", tests)
        has = set(there.read_text(encoding="utf-8").split())
    return without_display(line for line in wanted.split() if line not in has and not NEVER.match(line))


def without_display(pins: Iterable[str]) -> list[str]:
    """Replace OpenCV by its edition for servers, which needs no libraries of a desktop."""
    return [re.sub(r"^opencv-python==", "opencv-python-headless==", pin) for pin in pins]


def download(pins: Sequence[str], folder: Path) -> None:
    """Download the wheels of pinned packages for the other machine, and delete those of an earlier call."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(5, GLIBC + 1)]
    options = [word for name in (*platforms, "manylinux2014_x86_64") for word in ("--platform", name)]
    target = ("--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", *options)
    called(sys.executable, "-m", "pip", "download", "--quiet", *target, "--dest", folder, *pins)
    names = {wheel_name(pin.replace("==", "-")) for pin in pins}
    for wheel in folder.glob("*.whl"):
        if wheel_name("-".join(wheel.name.split("-")[:2])) not in names:
            wheel.unlink()


def wheel_name(text: str) -> str:
    """Return a name and version as they are compared: in lower case, with "_" for "-" and "."."""
    return re.sub(r"[-_.]+", "_", text).lower()


def save_pairs(pairs: Sequence[Pair], preprocessing: Preprocessing, folder: Path) -> None:
    """Write pairs at the network's size: images as JPEG, masks as PNG with 0 and 255."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for number, (image, mask) in enumerate(CachedPairs(pairs, preprocessing)):
        name = f"{number:05d}_{Path(pairs[number].name).stem}"
        pixels = np.ascontiguousarray(image.numpy().transpose(1, 2, 0))
        Image.fromarray(pixels).save(images / f"{name}.jpg", quality=JPEG_QUALITY, subsampling=0)
        Image.fromarray(mask[0].numpy() * np.uint8(255)).save(masks / f"{name}.png")


def save_dataset(given: Sequence[str], preprocessing: Preprocessing, options: argparse.Namespace, folder: Path) -> str:
    """Write a dataset at the network's size, with its splits, and some images as they are; return a line about it.

    Args:
        given: Name, folder and perhaps lists of the training and validation split.
        preprocessing: Preprocessing of the network, which crops and resizes.
        options: Options of the command line, of which `most` and `frames` are used.
        folder: Folder for the dataset.
    """
    if len(given) not in (2, 4):
        raise PreparationError(f"--data {' '.join(given)}: give NAME FOLDER, or NAME FOLDER TRAIN_LIST VAL_LIST")
    name, source, *lists = given
    train_list, val_list = lists or (None, None)
    dataset = open_dataset(source, train_list=train_list, val_list=val_list)
    train, validation = dataset.train[: options.most], dataset.validation[: options.most]
    for split_name, pairs in (("train", train), ("val", validation)):
        save_pairs(pairs, preprocessing, folder / name / split_name)
    frames = folder.with_name("frames") / name
    frames.mkdir(parents=True)
    for pair in dataset.validation[: options.frames]:
        shutil.copyfile(pair.image, frames / Path(pair.image).name)
    return f"{name}: {len(train)} pairs to train on, {len(validation)} for validation"


def archive(folder: Path, file: Path) -> Path:
    """Write a folder to a tar archive without compression, which wheels and JPEG files have had."""
    with tarfile.open(file, "w") as tar:
        tar.add(folder, folder.name)
    return file


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", nargs="+", action="append", required=True, metavar="NAME FOLDER [TRAIN_LIST VAL_LIST]",
        help="dataset of any layout of docs/data.md; can be repeated",
    )  # fmt: skip
    parser.add_argument("--size", type=int, default=256, help="height and width of the images (default: %(default)s)")
    parser.add_argument(
        "--base", default="condseg-lite-polyp", help="checkpoint whose field of view is cropped (default: %(default)s)"
    )
    parser.add_argument("--most", type=int, help="maximum number of pairs of a split, for a rehearsal (default: all)")
    parser.add_argument(
        "--frames", type=int, default=200,
        help="maximum number of unchanged images of a dataset, for the throughput (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--machine", type=Path, default=HERE / "machine.txt", help="what the machine has (default: machine.txt here)"
    )
    parser.add_argument("--part-mb", type=int, default=55, help="maximum size of a part in MB (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=PROJECT / "build" / "gpu")
    options = parser.parse_args()
    out: Path = options.out.absolute()
    try:
        pins = requirements(options.machine.absolute())
        print(f"{len(pins)} packages: {' '.join(pins)}", flush=True)
        wheels = out / "wheels"
        download(pins, wheels)
        if called("git", "status", "--porcelain", "--untracked-files=no"):
            print("the repository has changes that are not committed: they are left out", flush=True)
        repository = out / "repository.tar.gz"
        called("git", "archive", "--format=tar.gz", f"--output={repository}", "HEAD")
        size = (options.size, options.size)
        preprocessing = replace(Predictor.from_pretrained(options.base, device="cpu").preprocessing, size=size)
        data = out / "data"
        for old in (data, out / "frames"):
            shutil.rmtree(old, ignore_errors=True)
        for given in options.data:
            print(save_dataset(given, preprocessing, options, data), flush=True)
    except (CondsegError, PreparationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    archives = [archive(folder, folder.with_suffix(".tar")) for folder in (wheels, data, out / "frames")]
    files = [repository, *archives]
    folder = out / "parts"
    folder.mkdir(exist_ok=True)
    parts = split(files, folder, most=options.part_mb * 1_000_000)
    for name in ROOT_FILES:
        shutil.copyfile(HERE / name, folder / name)
    for file in files:
        print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")
        file.unlink()
    print(
        f"{len(parts)} parts of at most {options.part_mb} MB in {folder}, with parts.json, {' and '.join(ROOT_FILES)}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
