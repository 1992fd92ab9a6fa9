"""The `condseg` command. Each subcommand is one function; what they do is in the modules they call."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, cast

from condseg_sdk.errors import CondsegError, OptionError
from condseg_sdk.files import make_folder
from condseg_sdk.images import VIDEO_SUFFIXES, find_images
from condseg_sdk.training.settings import FinetuneSettings

if TYPE_CHECKING:
    from condseg_sdk.segmentation import SaveKind, Segmentation

DEFAULT_MODEL = "condseg-lite-polyp"
SUFFIXES = {"mask": "_mask.png", "overlay": "_overlay.png", "probability": "_probability.png", "json": ".json"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; default: those of the process.

    Returns:
        The exit code: 0 all done, 1 done but images were skipped (`predict --on-error skip`), 2 an error, told in one
        line on stderr.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="condseg: %(message)s", level=logging.WARNING)
    try:
        code: int = options.run(options)
        return code
    except CondsegError as error:
        print(f"condseg: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `condseg models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("condseg: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="condseg", description="Segment medical images with ConDSeg. Not a medical device: for research only."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_predict(commands.add_parser("predict", help="segment images, folders or videos"))
    _add_models(commands.add_parser("models", help="list the checkpoints this version knows"))
    _add_finetune(commands.add_parser("finetune", help="train on a folder of images and masks"))
    return parser


def _add_predict(parser: argparse.ArgumentParser) -> None:
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
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from condseg_sdk.predictor import Predictor

    kinds = _save_kinds(options.save)
    videos, outputs = _plan_outputs(options.source, options.out)
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

    done, found = 0, 0
    total = None if videos else len(outputs)
    for base, seg in tqdm(answers(), total=total, unit="image", disable=total == 1):
        make_folder(base.parent)
        for kind in kinds:
            seg.save(base.with_name(base.name + SUFFIXES[kind]), kind=kind)
        done += 1
        found += not seg.is_empty
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


def _plan_outputs(sources: Sequence[str], out: Path) -> tuple[dict[Path, Path], dict[Path, Path]]:
    """Where each video's and each image's files go: paths without suffix, no two the same.

    Images in a folder keep their place in it. Where names differ by their suffix alone, it stays in the name.
    """
    videos: dict[Path, Path] = {}
    images: dict[Path, Path] = {}
    for source in sources:
        if Path(source).suffix.lower() in VIDEO_SUFFIXES:
            videos[Path(source)] = out / Path(source).name
            continue
        for image in find_images(source):
            images[image] = out / (image.relative_to(source) if Path(source).is_dir() else image.name)
    bare = Counter(path.with_suffix("") for path in (*videos.values(), *images.values()))
    for plan in (videos, images):
        for path, target in plan.items():
            plan[path] = target if bare[target.with_suffix("")] > 1 else target.with_suffix("")
    taken = Counter((*videos.values(), *images.values()))
    for path, target in {**videos, **images}.items():
        if taken[target] > 1:
            raise OptionError(f"{path}: another source would write {target}, too; give their common folder instead")
    return videos, images


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the checkpoints that can be loaded by name."
    parser.add_argument("--json", action="store_true", help="everything the manifest says, as JSON")
    parser.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> int:
    from condseg_sdk.weights.manifest import list_models

    entries = list_models()
    if options.json:
        print(json.dumps([entry.to_dict() for entry in entries], indent=2))
        return 0
    rows: list[tuple[str, ...]] = [("NAME", "NETWORK", "MB", "DATA", "mIoU", "mDSC", "LICENSE")]
    for entry in entries:
        figures = [f"{entry.metrics[key]:.4f}" if key in entry.metrics else "-" for key in ("mIoU", "mDSC")]
        rows.append((entry.name, entry.network, f"{entry.bytes / 1e6:.1f}", entry.data, *figures, entry.license))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a network on images/ and masks/ in a folder; run again to continue after an interruption."
    )
    parser.add_argument("data", help="folder with images/ and masks/, same names")
    parser.add_argument("--out", required=True, help="folder of the run; the checkpoint appears in OUT/checkpoint")
    parser.add_argument("--train-list", help="text file with the names to train on, one a line (default: all)")
    for field in fields(FinetuneSettings):
        kind = {"str": str, "float": float}.get(str(field.type), int)
        help_text = f"(default: {'--image-size' if field.default is None else field.default})"
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default, help=help_text)
    parser.set_defaults(run=_finetune)


def _finetune(options: argparse.Namespace) -> int:
    from condseg_sdk import finetune

    settings = FinetuneSettings(**{field.name: getattr(options, field.name) for field in fields(FinetuneSettings)})
    result = finetune(options.data, output_dir=options.out, train_list=options.train_list, settings=settings)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items())
    print(f"{result.checkpoint_dir}: {figures} (on the held-out part)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
