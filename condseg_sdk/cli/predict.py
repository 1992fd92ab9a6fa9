"""`condseg predict`: images, folders and videos in, masks, overlays or outlines out."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from condseg_sdk.ahead import map_ahead, worker_threads
from condseg_sdk.errors import CondsegError, OptionError
from condseg_sdk.files import make_folder
from condseg_sdk.images import VIDEO_SUFFIXES, find_images, is_single

if TYPE_CHECKING:
    from condseg_sdk.segmentation import SaveKind, Segmentation

HELP = "segment images, folders or videos"
SAVERS = min(4, os.cpu_count() or 1)
DEFAULT_MODEL = "condseg-lite-polyp"
SUFFIXES = {
    "mask": "_mask.png",
    "overlay": "_overlay.png",
    "probability": "_probability.png",
    "doubt": "_doubt.png",
    "json": ".json",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Segment images and save masks, overlays or outlines, each file named after its image."
    parser.add_argument("source", nargs="+", help="image, folder, glob pattern or video")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name, folder or org/name (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("condseg-out"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument(
        "--save", default="mask,overlay", metavar="KINDS", help=f"some of {','.join(SUFFIXES)} (default: %(default)s)"
    )
    parser.add_argument("--threshold", type=float, help="probability in (0, 1) (default: the checkpoint's)")
    parser.add_argument("--batch-size", type=int, default=8, help="images at once (default: %(default)s)")
    parser.add_argument("--tta", action="store_true", help="average over four mirror images: slower, a little better")
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="cut large images into tiles of this side")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    parser.add_argument(
        "--on-error", choices=("raise", "skip"), default="raise", help="what to do with an unreadable image"
    )


def run(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from condseg_sdk.predictor import Predictor

    kinds = _save_kinds(options.save)
    videos, outputs = _plan_outputs(options.source, options.out, kinds)
    make_folder(options.out)  # before the work, so that a wrong folder costs none
    predictor = Predictor.from_pretrained(options.model, device=options.device)
    skipped: list[CondsegError] = []
    request = {
        "threshold": options.threshold,
        "batch_size": options.batch_size,
        "tta": options.tta,
        "tile": options.tile,
        "on_error": (lambda _, error: skipped.append(error)) if options.on_error == "skip" else "raise",
    }

    def answers() -> Iterator[tuple[Path, Segmentation]]:
        if outputs:
            for seg in predictor.stream(list(outputs), **request):
                yield outputs[Path(seg.name)], seg
        for video, base in videos.items():
            for number, seg in enumerate(predictor.stream(video, **request)):
                yield base.with_name(f"{base.name}_{number:06d}"), seg

    def save(answer: tuple[Path, Segmentation]) -> bool:
        base, seg = answer
        make_folder(base.parent)
        for kind in kinds:
            seg.save(base.with_name(base.name + SUFFIXES[kind]), kind=kind)
        return not seg.is_empty

    done, found = 0, 0
    total = None if videos else len(outputs)
    with worker_threads(SAVERS) as savers:  # compressing pictures must not keep the network waiting
        saved = map_ahead(save, answers(), pool=savers, ahead=2 * SAVERS)
        for has_region in tqdm(saved, total=total, unit="image", disable=total == 1):
            done += 1
            found += has_region
    print(f"{done} segmented on {predictor.device}, {found} with a region; files in {options.out}")
    for error in skipped:
        print(f"skipped: {error}", file=sys.stderr)
    return 1 if skipped else 0


def _save_kinds(text: str) -> list[SaveKind]:
    kinds = [kind.strip() for kind in text.split(",")]
    unknown = [kind for kind in kinds if kind not in SUFFIXES]
    if unknown:
        raise OptionError(f"--save {text}: {unknown[0]!r} is none of {', '.join(SUFFIXES)}")
    return cast("list[SaveKind]", kinds)


def _found(source: str, out: Path) -> list[Path]:
    """The source's images, without what an earlier call wrote into it."""
    found: list[Path] = find_images(source)
    target = out.resolve()
    if is_single(source) or Path(source).resolve().is_relative_to(target):
        return found
    images = [image for image in found if not image.resolve().is_relative_to(target)]
    if not images:
        raise OptionError(f"{source} holds nothing but what stands in {out}, where answers go; choose another --out")
    return images


def _plan_outputs(
    sources: Sequence[str], out: Path, kinds: Sequence[SaveKind]
) -> tuple[dict[Path, Path], dict[Path, Path]]:
    """Where each video's and each image's files go: paths without suffix, no two the same.

    Images in a folder keep their place in it. Where names differ by their suffix alone, it stays in the name. An answer
    that would replace one of the images, such as a mask drawn by hand beside it, is an OptionError.
    """
    videos: dict[Path, Path] = {}
    images: dict[Path, Path] = {}
    for source in sources:
        if Path(source).suffix.lower() in VIDEO_SUFFIXES:
            videos[Path(source)] = out / Path(source).name
            continue
        for image in _found(source, out):
            images[image] = out / (image.relative_to(source) if Path(source).is_dir() else image.name)
    bare = Counter(path.with_suffix("") for path in (*videos.values(), *images.values()))
    for plan in (videos, images):
        for path, target in plan.items():
            plan[path] = target if bare[target.with_suffix("")] > 1 else target.with_suffix("")
    taken = Counter((*videos.values(), *images.values()))
    for path, target in {**videos, **images}.items():
        if taken[target] > 1:
            raise OptionError(f"{path}: another source would write {target}, too; give their common folder instead")
    sources_at = {path.resolve() for path in images}
    for path, target in images.items():
        for answer in (target.with_name(target.name + SUFFIXES[kind]) for kind in kinds):
            if answer.resolve() in sources_at:
                raise OptionError(
                    f"{answer} is one of the images, and {path}'s answer would replace it; choose another --out"
                )
    return videos, images
