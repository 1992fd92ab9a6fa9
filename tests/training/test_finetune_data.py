"""`finetune` trains on all layouts of data, and errors in the data stop it before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from condseg_sdk import Predictor, finetune, open_dataset
from condseg_sdk.cli import main
from condseg_sdk.errors import DatasetError
from tests.helpers.datasets import SIZE, add_pair, make_set, picture, region, save

NAMES = [f"n{i}" for i in range(10)]
Data = dict[str, Any]


# Layouts


def folders(images: str, masks: str) -> Callable[[Path], Data]:
    return lambda folder: {"data": make_set(folder, NAMES, images, masks)}


def parts(folder: Path) -> Data:
    for part, names in (("train", NAMES[:7]), ("val", NAMES[7:9]), ("test", NAMES[9:])):
        make_set(folder / part, names)
    return {"data": folder}


def lists(folder: Path) -> Data:
    make_set(folder, NAMES)
    (folder / "train.txt").write_text("\n".join(NAMES[:8]))
    (folder / "val.txt").write_text("\n".join(f"{name}.png" for name in NAMES[8:]))
    return {"data": folder}


def table(folder: Path) -> Data:
    make_set(folder, NAMES)
    rows = [f"images/{name}.png,masks/{name}.png,p{i // 2}" for i, name in enumerate(NAMES)]
    (folder / "set.csv").write_text("\n".join(["image,mask,patient", *rows]))
    return {"data": folder / "set.csv", "group_by": "patient"}


def coco(region_of: Callable[[], Any]) -> Callable[[Path], Data]:
    def build(folder: Path) -> Data:
        for name in NAMES:
            save(folder / f"{name}.png", picture(name))
        images = [
            {"id": i, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]} for i, name in enumerate(NAMES)
        ]
        annotations = [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": region_of()} for i in range(len(NAMES))
        ]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "polyp"}]}
        (folder / "set.json").write_text(json.dumps(content))
        return {"data": folder / "set.json"}

    return build


def run_lengths() -> dict[str, Any]:
    coded = coco_masks.encode(np.asfortranarray(region() // 255))
    return {"size": list(SIZE), "counts": coded["counts"].decode()}


def python(folder: Path) -> Data:
    return {"data": [add_pair(folder / f"{name}.png", folder / f"{name}_x.png") for name in NAMES]}


def kvasir(folder: Path) -> Data:
    for name in NAMES:
        save(folder / "images" / f"{name}.jpg", picture(name))
        save(folder / "masks" / f"{name}.jpg", region(), quality=60)
    (folder / "kavsir_bboxes.json").write_text("{}")
    return {"data": folder}


def glas(folder: Path) -> Data:
    labels = region() // 255
    labels[:, 15:] *= 2  # two glands
    for stem in (*(f"train_{i}" for i in range(1, 10)), "testA_1", "testB_1"):
        save(folder / f"{stem}.bmp", picture(stem))
        save(folder / f"{stem}_anno.bmp", labels)
    (folder / "Grade.csv").write_text("name,grade\n")
    return {"data": folder}


def isic(folder: Path) -> Data:
    for part, names in (("Training", NAMES[:7]), ("Validation", NAMES[7:9]), ("Test_v2", NAMES[9:])):
        data, masks = folder / f"ISIC-2017_{part}_Data", folder / f"ISIC-2017_{part}_Part1_GroundTruth"
        for name in names:
            add_pair(data / f"ISIC_{name}.jpg", masks / f"ISIC_{name}_segmentation.png")
            save(data / f"ISIC_{name}_superpixels.png", picture(name))
    return {"data": folder}


def elsewhere(folder: Path) -> Data:
    make_set(folder, NAMES, "pictures", "drawn/by me")
    return {"data": folder / "pictures", "masks": folder / "drawn" / "by me"}


def masks_as(write: Callable[[Path], object]) -> Callable[[Path], Data]:
    def build(folder: Path) -> Data:
        make_set(folder, NAMES)
        for name in NAMES:
            write(folder / "masks" / f"{name}.png")
        return {"data": folder}

    return build


def palette(path: Path) -> None:
    image = Image.fromarray(region() // 255, "P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(path)


def rgba(path: Path) -> None:
    alpha = region()
    save(path, np.dstack([np.full((*SIZE, 3), 255, np.uint8), alpha]))


@pytest.mark.filterwarnings("ignore:.*mode.*parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "build",
    [
        pytest.param(folders("images", "masks"), id="images-masks"),
        pytest.param(folders("img", "labels"), id="img-labels", marks=pytest.mark.slow),
        pytest.param(folders("images", "annotations"), id="images-annotations", marks=pytest.mark.slow),
        pytest.param(folders("Original", "Ground Truth"), id="CVC-ClinicDB", marks=pytest.mark.slow),
        pytest.param(parts, id="train-val-test", marks=pytest.mark.slow),
        pytest.param(lists, id="lists", marks=pytest.mark.slow),
        pytest.param(table, id="csv", marks=pytest.mark.slow),
        pytest.param(coco(lambda: [[10, 5, 20, 5, 20, 15, 10, 15]]), id="coco-polygons", marks=pytest.mark.slow),
        pytest.param(coco(run_lengths), id="coco-rle"),
        pytest.param(python, id="python", marks=pytest.mark.slow),
        pytest.param(kvasir, id="Kvasir-SEG", marks=pytest.mark.slow),
        pytest.param(glas, id="GlaS", marks=pytest.mark.slow),
        pytest.param(isic, id="ISIC", marks=pytest.mark.slow),
        pytest.param(elsewhere, id="masks-elsewhere", marks=pytest.mark.slow),
        pytest.param(masks_as(lambda path: save(path, region() // 255)), id="zero-one", marks=pytest.mark.slow),
        pytest.param(masks_as(palette), id="palette", marks=pytest.mark.slow),
        pytest.param(masks_as(rgba), id="rgba", marks=pytest.mark.slow),
    ],
)
def test_finetune_trains_on_every_layout(build: Callable[[Path], Data], base: Path, tmp_path: Path) -> None:
    data = build(tmp_path / "data")
    options = {"epochs": 1, "stage1_epochs": 1, "batch_size": 4, "progress": False, "report": False}
    dataset = open_dataset(data.pop("data"), **data)
    result = finetune(dataset, base=base, output_dir=tmp_path / "run", **options)
    assert [row["stage"] for row in result.history] == [1, 2]
    image = next(path for path in (tmp_path / "data").rglob("*") if path.suffix in (".png", ".jpg", ".bmp"))
    assert result.predictor(image).mask.shape == SIZE
    assert isinstance(result.predictor, Predictor)
    split = json.loads((tmp_path / "run" / "settings.json").read_text())["split"]
    assert split["train"]
    assert split["validation"]


# Mistakes


def unmatched(folder: Path) -> list[str]:
    for name in NAMES[:2]:
        (folder / "masks" / f"{name}.png").unlink()
    return ["2 images without a mask with the same name; add an all-black mask", "n0.png", "n1.png"]


def stray_mask(folder: Path) -> list[str]:
    (folder / "images" / "n3.png").unlink()
    return ["1 mask without an image with the same name; add the image", "n3.png"]


def other_size(folder: Path) -> list[str]:
    save(folder / "masks" / "n1.png", region((9, 9)))
    return [
        "1 mask with another aspect ratio than the image; export it at the image's size",
        "n1.png is 30x20, its mask 9x9",
    ]


def unreadable(kind: str, content: bytes) -> Callable[[Path], list[str]]:
    def spoil(folder: Path) -> list[str]:
        (folder / kind / "n2.png").write_bytes(content)
        return ["1 pair with a file that cannot be used; repair it or remove the pair", f"{kind}/n2.png"]

    return spoil


def empty(folder: Path) -> list[str]:
    for name in NAMES:
        save(folder / "masks" / f"{name}.png", np.zeros(SIZE, np.uint8))
    return ["no mask of the train split has foreground; masks must be 0 outside the region and not 0 inside it"]


def full(folder: Path) -> list[str]:
    for name in NAMES:
        save(folder / "masks" / f"{name}.png", np.full(SIZE, 255, np.uint8))
    return ["every mask of the train split is full; masks must be 0 outside"]


def leak(folder: Path) -> list[str]:
    (folder / "val.txt").write_text("n8\nn9\n")
    shutil.copy(folder / "images" / "n0.png", folder / "images" / "n9.png")
    return [
        "1 image copied into another split, which makes metrics too optimistic; keep one",
        "n9.png (validation)",
        "n0.png",
    ]


def twice(folder: Path) -> list[str]:
    save(folder / "images" / "n0.jpg", picture("other"))
    return ["1 name of several files", "keep one", "n0.jpg", "n0.png"]


def listed(folder: Path) -> list[str]:
    (folder / "train.txt").write_text("\n".join([*NAMES[:8], "n99"]))
    return ["1 name in", "train.txt without an image with a mask; add the files or remove the name", "n99"]


def in_two_lists(folder: Path) -> list[str]:
    (folder / "train.txt").write_text("\n".join(NAMES[:8]))
    (folder / "val.txt").write_text("n7\nn8\n")
    return ["1 name in the lists of two splits; remove it from one: n7"]


def turned(folder: Path) -> list[str]:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "images" / "n1.png", picture("n1"), exif=exif)
    return ["1 mask drawn on the image as stored, while an EXIF tag rotates it; rotate the mask, or", "n1.png"]


def no_masks(folder: Path) -> list[str]:
    shutil.rmtree(folder / "masks")
    return ["no masks were recognized: put them into a folder named masks/"]


MISTAKES: Sequence[Any] = [
    unmatched,
    stray_mask,
    other_size,
    pytest.param(unreadable("images", b"broken"), id="unreadable image"),
    pytest.param(unreadable("masks", b""), id="empty file"),
    empty,
    full,
    leak,
    twice,
    listed,
    in_two_lists,
    turned,
    no_masks,
]


@pytest.mark.parametrize("spoil", MISTAKES)
def test_an_error_in_the_data_stops_the_call_and_the_check(
    spoil: Callable[[Path], list[str]], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_set(tmp_path / "data", NAMES)
    expected = spoil(folder)
    with pytest.raises(DatasetError) as caught:
        finetune(folder, base=base, output_dir=tmp_path / "run", epochs=1, progress=False)
    for text in expected:
        assert text in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert main(["finetune", str(folder), "--check"]) == 2
    output = "".join(capsys.readouterr())
    for text in expected:
        assert text.split(": ")[0] in output


SUSPICIONS: Sequence[Any] = [
    pytest.param(
        lambda folder: save(folder / "masks" / "n1.png", np.zeros(SIZE, np.uint8)),
        "1 mask without foreground",
        id="empty",
    ),
    pytest.param(
        lambda folder: save(folder / "masks" / "n1.png", 255 - region()),
        "1 mask covering the image's edges",
        id="inverted",
    ),
    pytest.param(
        lambda folder: save(
            folder / "masks" / "n1.png", np.repeat(np.array([0, 127, 255], np.uint8), 10)[None].repeat(20, 0)
        ),
        "1 mask of several gray levels in flat areas",
        id="values",
    ),
    pytest.param(
        lambda folder: (
            (folder / "val.txt").write_text("n8\nn9\n"),
            save(folder / "images" / "n9.png", np.clip(picture("x") * 0.9 + 9, 0, 255).astype(np.uint8)),
            save(folder / "images" / "n0.png", picture("x")),
        ),
        "1 image nearly identical to one of another split",
        id="near-duplicates",
    ),
]


@pytest.mark.parametrize(("change", "message"), SUSPICIONS)
def test_suspicious_data_causes_a_warning_with_its_file(
    change: Callable[[Path], object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_set(tmp_path / "data", NAMES)
    change(folder)
    assert main(["finetune", str(folder), "--check"]) == 0
    output = capsys.readouterr().out
    assert f"warning  {message}" in output
    assert ".png" in output


def test_groups_are_never_divided(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_set(tmp_path / "data", [f"p{i // 3}_{i}" for i in range(12)])
    options = {"epochs": 1, "stage1_epochs": 0, "batch_size": 4, "progress": False, "report": False}
    grouped = open_dataset(folder, group_by=r"^(p\d)_")
    finetune(grouped, base=base, output_dir=tmp_path / "run", **options)  # type: ignore[arg-type]
    split = json.loads((tmp_path / "run" / "settings.json").read_text())["split"]
    groups = [{name[:2] for name in split[part]} for part in ("train", "validation")]
    assert not groups[0] & groups[1]
    for part, numbers in (("train", range(8)), ("val", range(8, 12))):
        make_set(tmp_path / "parts" / part, [f"p{i // 3}_{i}" for i in numbers])
    assert main(["finetune", str(tmp_path / "parts"), "--check", "--group-by", r"(p\d)_"]) == 2
    assert "1 group divided between splits" in capsys.readouterr().out
