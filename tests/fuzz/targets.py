"""The targets: every kind of file that the package reads."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import pydicom
import torch
from PIL import Image, features
from pycocotools import mask as coco_mask
from pydicom.data import get_testdata_file
from safetensors.torch import save_file

from condseg_sdk import OnnxOptions, Predictor
from condseg_sdk.checkpoints.onnx_metadata import CONFIG_KEY, EXPORT_KEY
from condseg_sdk.cli.models import run as list_models_command
from condseg_sdk.data import CachedPairs, check_dataset, open_dataset
from condseg_sdk.images.load import load_image
from condseg_sdk.weights.convert import convert_checkpoint
from condseg_sdk.weights.hub import resolve
from condseg_sdk.weights.manifest import list_models
from tests.helpers.dicom import make_dataset, make_region, save_dataset

from .formats import mutate_image, mutate_numpy, mutate_onnx, mutate_safetensors, mutate_torch
from .mutations import FOREIGN, mutate_bytes, mutate_json, mutate_lines
from .small_models import (
    PREPROCESSING,
    finish_run,
    make_checkpoint,
    make_onnx,
    make_run,
    make_set,
    photo,
    predictor,
    region,
)
from .target import Case, Target

__all__ = ["TARGETS"]


def _link(source: str | Path, target: str | Path) -> None:
    """Link a file instead of copying it; readers must not write to it."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _pick(rng: Random, folder: Path) -> tuple[Path, bytes, list[bytes]]:
    """Choose a file of a corpus; return its path, its bytes, and those of two other files to splice with."""
    files = _files(folder)
    chosen = rng.choice(files)
    return chosen, chosen.read_bytes(), [rng.choice(files).read_bytes() for _ in range(2)]


# Images ---------------------------------------------------------------------------------------------------------------


def _make_images(folder: Path) -> None:
    rgb = Image.fromarray(photo(0))
    gray, palette = rgb.convert("L"), rgb.quantize(16)
    alpha = Image.merge("RGBA", (*rgb.split(), gray))
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    saved: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "rgb.png": (rgb, {}),
        "alpha.png": (alpha, {}),
        "palette.png": (palette, {"transparency": 3}),
        "gray.png": (gray, {}),
        "bilevel.png": (gray.convert("1"), {}),
        "deep.png": (deep, {}),
        "turned.jpg": (rgb, {"exif": exif, "quality": 80}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "rgb.bmp": (rgb, {}),
        "palette.bmp": (palette, {}),
        "one.gif": (palette, {}),
        "two.gif": (palette, {"save_all": True, "append_images": [palette.rotate(180)]}),
        "plain.tif": (rgb, {}),
        "lzw.tif": (rgb, {"compression": "tiff_lzw"}),
        "jpeg.tif": (rgb, {"compression": "jpeg"}),
        "deep.tif": (deep, {}),
        "float.tif": (Image.fromarray(np.asarray(gray).astype(np.float32) / 255), {}),
        "pages.tif": (rgb, {"save_all": True, "append_images": [rgb]}),
        "lossy.webp": (rgb, {}),
        "lossless.webp": (alpha, {"lossless": True}),
        "rgb.ppm": (rgb, {}),
        "deep.pgm": (deep, {}),
        "bilevel.pbm": (gray.convert("1"), {}),
    }
    if features.check("jpg_2000"):
        saved["rgb.jp2"] = (rgb, {})
    if features.check("avif"):
        saved["rgb.avif"] = (rgb, {})
    for name, (image, options) in saved.items():
        image.save(folder / name, **options)
    # Pillow writes no run lengths: one line of 40 pixels, then the end, in a file that claims 30 of them.
    runs = b"".join(bytes((40, row)) + b"\0\0" for row in range(30)) + b"\0\1"
    palette_bytes = bytes(value for level in range(256) for value in (level, level, level, 0))
    sizes = np.array([14 + 40 + 1024 + len(runs), 0, 14 + 40 + 1024], "<u4").tobytes()
    info = np.array([40, 40, 30], "<u4").tobytes() + np.array([1, 8], "<u2").tobytes()
    info += np.array([1, len(runs), 2835, 2835, 256, 0], "<u4").tobytes()
    (folder / "runs.bmp").write_bytes(b"BM" + sizes + info + palette_bytes + runs)


def _mutate_image(rng: Random, corpus: Path, folder: Path) -> Case:
    source, data, others = _pick(rng, corpus / "images")
    suffix = source.suffix if rng.random() < 0.95 else rng.choice((".png", ".jpg", ".tif", ".dcm", ".svg", ""))
    path = folder / f"case-image{suffix}"
    path.write_bytes(mutate_image(rng, data, others))
    return Case(path, (path.name,))


def _predict_image(case: Case, corpus: Path) -> None:
    seg = predictor(corpus / "checkpoint")(case.path)
    height, width = load_image(case.path).shape[:2]
    assert seg.mask.shape == (height, width)
    assert seg.mask.dtype == np.bool_


# DICOM ----------------------------------------------------------------------------------------------------------------


def _make_dicom(folder: Path) -> None:
    rgb = photo(0)
    gray, size = rgb[..., 0], (rgb.shape[0], rgb.shape[1])
    encoded = io.BytesIO()
    Image.fromarray(rgb).save(encoded, "JPEG")
    jpeg = encoded.getvalue() + b"\0" * (len(encoded.getvalue()) % 2)
    palette = make_dataset(gray // 64, "PALETTE COLOR")
    for color in ("Red", "Green", "Blue"):
        setattr(palette, f"{color}PaletteColorLookupTableDescriptor", [4, 0, 16])
        palette[f"{color}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(palette, f"{color}PaletteColorLookupTableData", bytes(range(8)))
    window = {"BitsStored": 12, "WindowCenter": 1000, "WindowWidth": 900, "RescaleSlope": 2, "RescaleIntercept": -5}
    region = make_region((2, 2, size[1] - 4, size[0] - 4), 0.2)
    made = {
        "rgb": make_dataset(rgb, "RGB", PixelSpacing=[0.1, 0.2]),
        "ybr": make_dataset(rgb, "YBR_FULL"),
        "inverse": make_dataset(gray, "MONOCHROME1", PixelPaddingValue=0),
        "window": make_dataset(gray.astype(np.uint16) * 16, **window),
        "palette": palette,
        "jpeg": make_dataset([jpeg], "YBR_FULL_422", size=size, SequenceOfUltrasoundRegions=[region]),
        "frames": make_dataset(np.stack([rgb, rgb[::-1]]), "RGB"),
        "cine": make_dataset([jpeg] * 3, "YBR_FULL_422", size=size),
    }
    for kind in ("jp2klossless", "jpeg_ls_lossless", "RLE", "bigendian", "implicit"):
        made[kind] = pydicom.dcmread(get_testdata_file(f"MR_small_{kind}.dcm", download=False))
    for name, ds in made.items():
        save_dataset(ds, folder / f"{name}.dcm")


def _mutate_dicom(rng: Random, corpus: Path, folder: Path) -> Case:
    _, data, others = _pick(rng, corpus / "dicom")
    path = folder / "case-scan.dcm"
    path.write_bytes(mutate_bytes(rng, data, others))
    return Case(path, (path.name,))


def _predict_dicom(case: Case, corpus: Path) -> None:
    for seg in predictor(corpus / "checkpoint").stream(case.path):
        assert seg.mask.shape == seg.size
        assert seg.to_dict()["area_mm2"] is None or seg.spacing


# Masks and images of a training set -----------------------------------------------------------------------------------


def _make_masks(folder: Path) -> None:
    make_set(folder / "set")
    masks = folder / "files"
    masks.mkdir()
    mask = region()
    binary = Image.fromarray(mask)
    labels = Image.fromarray((mask // 255 * np.arange(1, 41, dtype=np.uint8)[None] // 9).astype(np.uint8))
    palette = Image.fromarray(mask // 255).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    for name, image in {
        "binary.png": binary,
        "bilevel.png": binary.convert("1"),
        "labels.png": labels,
        "palette.png": palette,
        "color.png": Image.merge("RGBA", (binary, labels, binary, binary)),
        "deep.png": Image.fromarray(mask.astype(np.uint16) * 257),
        "gray.jpg": binary,
        "binary.bmp": binary,
        "palette.gif": palette,
        "float.tif": Image.fromarray(mask.astype(np.float32) / 255),
    }.items():
        image.save(masks / name)
    for name, values in {"bool": mask > 0, "float": mask / 255, "deep": mask.astype(np.uint16)[None]}.items():
        np.save(masks / f"{name}.npy", values)
    np.savez(masks / "plain.npz", mask=mask)
    np.savez_compressed(masks / "several.npz", mask=mask, image=photo(1))


def _mutate_mask(rng: Random, corpus: Path, folder: Path) -> Case:
    data = folder / "case-set"
    for file in _files(corpus / "masks" / "set"):
        _link(file, data / file.relative_to(corpus / "masks" / "set"))
    (data / "masks" / "1.png").unlink()
    if rng.random() < 0.2:
        source, content, others = _pick(rng, corpus / "images")
        (data / "images" / "1.png").unlink()
        path = data / "images" / f"1{source.suffix}"
        path.write_bytes(mutate_image(rng, content, others))
        _link(corpus / "masks" / "files" / "binary.png", data / "masks" / "1.png")
        return Case(data, (path.name, "train.txt"))
    source, content, others = _pick(rng, corpus / "masks" / "files")
    path = data / "masks" / f"1{source.suffix}"
    numpy = source.suffix in (".npy", ".npz")
    path.write_bytes(mutate_numpy(rng, content) if numpy else mutate_image(rng, content, others))
    return Case(data, (path.name, "1.png", "train.txt"))


def _read_set(case: Case, corpus: Path) -> None:
    """Read a dataset as `finetune` does, up to its first batch."""
    dataset = open_dataset(case.path)
    report = check_dataset(dataset)
    lines = [problem.line() for problem in report.problems]
    assert all(len(line.splitlines()) == 1 for line in lines), f"a problem of several lines: {lines}"
    assert str(report)
    report.raise_if_wrong()
    for pairs in (dataset.train, dataset.validation):
        CachedPairs(pairs, PREPROCESSING)


# Annotation tables ----------------------------------------------------------------------------------------------------


def _make_tables(folder: Path) -> None:
    make_set(folder / "set")
    box = [13, 7, 26, 7, 26, 15, 13, 15]
    counts = [30 * 13 + 7, *[8, 22] * 13]
    counts[-1] += 1200 - sum(counts)
    regions: list[Any] = [
        [box],
        [box, [1, 1, 5, 1, 5.5, 6]],
        {"size": [30, 40], "counts": counts},
        {"size": [30, 40], "counts": coco_mask.encode(np.asfortranarray(region()))["counts"].decode()},
        [box],
    ]
    coco = {
        "info": {"description": "noise", "version": "1.0"},
        "licenses": [{"id": 1, "name": "CC0"}],
        "images": [{"id": n, "file_name": f"{n}.png", "height": 30, "width": 40} for n in range(1, 6)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1 + n % 2, "segmentation": regions[n - 1], "area": 104, "iscrowd": 0,
             "bbox": [13, 7, 13, 8]}
            for n in range(1, 6)
        ],
        "categories": [{"id": 1, "name": "polyp"}, {"id": 2, "name": "lesion"}],
    }  # fmt: skip
    (folder / "coco.json").write_text(json.dumps(coco))
    pairs = [[x, y] for x, y in zip(box[::2], box[1::2], strict=True)]
    labelme = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {"label": "polyp", "points": pairs, "group_id": None, "shape_type": "polygon", "flags": {}},
            {"label": "polyp", "points": [[20, 10], [22, 14]], "group_id": None, "shape_type": "circle", "flags": {}},
            {"label": "polyp", "points": [[3, 3], [7, 8]], "group_id": None, "shape_type": "rectangle", "flags": {}},
        ],
        "imagePath": "1.png",
        "imageData": None,
        "imageHeight": 30,
        "imageWidth": 40,
    }
    (folder / "labelme.json").write_text(json.dumps(labelme))
    polygon = {"name": "polygon", "all_points_x": box[::2], "all_points_y": box[1::2]}
    shapes = [
        polygon,
        {"name": "rect", "x": 3, "y": 3, "width": 9, "height": 8},
        {"name": "circle", "cx": 9, "cy": 9, "r": 4},
    ]
    via = {
        f"{n}.png1234": {
            "filename": f"{n}.png",
            "size": 1234,
            "regions": [{"shape_attributes": shape, "region_attributes": {}} for shape in shapes],
            "file_attributes": {},
        }
        for n in range(1, 6)
    }
    (folder / "via.json").write_text(json.dumps(via))
    (folder / "cvat.xml").write_text(_cvat(box))
    ring = [*pairs, pairs[0]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring, [[15, 9], [17, 9], [17, 11], [15, 9]]]},
    }
    feature["properties"] = {"classification": {"name": "polyp"}}
    several = {
        **feature,
        "geometry": {"type": "MultiPolygon", "coordinates": [[ring], [[[1, 1], [5, 1], [5, 6], [1, 1]]]]},
    }
    collection = {
        "type": "FeatureCollection",
        "features": [feature, several],
        "image": "1.png",
        "height": 30,
        "width": 40,
    }
    (folder / "shapes.geojson").write_text(json.dumps(collection))
    labels = {"background": 0, "polyp": 255, "lesions": [1, 255]}
    nnunet = {"channel_names": {"0": "R"}, "labels": labels, "numTraining": 5, "file_ending": ".png"}
    (folder / "dataset.json").write_text(json.dumps(nnunet))
    yolo = ["names: [polyp, lesion]", "train: [images/1.png, images/2.png, images/3.png]"]
    (folder / "data.yaml").write_text("\n".join([*yolo, "val:", "  - images/4.png", "  - images/5.png"]) + "\n")
    (folder / "label.txt").write_text("0 0.3 0.2 0.6 0.2 0.6 0.5\n1 0.1 0.1 0.2 0.1 0.2 0.3 0.1 0.3\n")
    rows = [("image", "mask", "patient", "split")]
    rows += [(f"images/{n}.png", f"masks/{n}.png", f"p{n}", "train" if n < 4 else "val") for n in range(1, 6)]
    for name, delimiter in (("table.csv", ","), ("semicolon.csv", ";"), ("table.tsv", "\t")):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows(rows)
    (folder / "train.txt").write_text("1\n2\nimages/3.png\n")


def _cvat(box: list[int]) -> str:
    points = ";".join(f"{x}.5,{y}.00" for x, y in zip(box[::2], box[1::2], strict=True))
    shapes = [
        f'<polygon label="polyp" source="manual" occluded="0" points="{points}" z_order="0"></polygon>',
        '<mask label="lesion" occluded="0" rle="1, 2, 3, 3" left="30" top="20" width="3" height="3" z_order="0"></mask>',
        '<ellipse label="polyp" cx="20" cy="12" rx="5" ry="4" rotation="30"></ellipse>',
    ]
    images = "\n".join(
        f'<image id="{n}" name="{n}.png" width="40" height="30">\n{shapes[n % 3]}\n</image>' for n in range(1, 6)
    )
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta></meta>'
    return f"{head}\n{images}\n</annotations>\n"


TABLES = ("coco.json",) * 4 + (
    *("labelme.json", "via.json", "data.yaml", "label.txt", "cvat.xml", "shapes.geojson", "dataset.json"),
    *("table.csv", "semicolon.csv", "table.tsv", "train.txt"),
)


def _mutate_table(rng: Random, corpus: Path, folder: Path) -> Case:
    data = folder / "case-set"
    shutil.copytree(corpus / "tables" / "set", data, copy_function=_link)
    name = rng.choice(TABLES)
    content = (corpus / "tables" / name).read_bytes()
    if name.endswith("json"):
        mutated = mutate_json(rng, json.loads(content)) if rng.random() < 0.9 else mutate_bytes(rng, content)
    else:
        mutated = mutate_lines(rng, content.decode()) if rng.random() < 0.7 else mutate_bytes(rng, content)
    path = data / name
    if name == "labelme.json":  # a file beside each image instead of a mask
        shutil.rmtree(data / "masks")
        for number in range(2, 6):
            intact = content.replace(b"1.png", b"%d.png" % number)
            (data / "images" / f"{number}.json").write_bytes(intact)
        path = data / "images" / "1.json"
    if name == "shapes.geojson":
        shutil.rmtree(data / "masks")
        for number in range(2, 6):
            (data / "images" / f"{number}.geojson").write_bytes(content.replace(b"1.png", b"%d.png" % number))
        path = data / "images" / "1.geojson"
    if name == "dataset.json":
        (data / "images").rename(data / "imagesTr")
        (data / "masks").rename(data / "labelsTr")
    if name in ("data.yaml", "label.txt"):
        shutil.rmtree(data / "masks")
        (data / "labels").mkdir()
        for number in range(1, 6):
            _link(corpus / "tables" / "label.txt", data / "labels" / f"{number}.txt")
        _link(corpus / "tables" / "data.yaml", data / "data.yaml")
        path = data / "data.yaml" if name == "data.yaml" else data / "labels" / "1.txt"
    path.unlink(missing_ok=True)  # it may be a link
    path.write_bytes(mutated)
    return Case(
        data if name in ("train.txt", "labelme.json", "label.txt", "shapes.geojson") else path, (path.name, "case-set")
    )


# Checkpoints ----------------------------------------------------------------------------------------------------------


def _mutate_checkpoint(rng: Random, corpus: Path, folder: Path) -> Case:
    source, target = corpus / "checkpoint", folder / "case-checkpoint"
    damaged = "config.json" if rng.random() < 0.8 else "model.safetensors"
    for file in _files(source):
        if file.name != damaged:
            _link(file, target / file.name)
    content = (source / damaged).read_bytes()
    if rng.random() < 0.02:
        mutated = rng.choice(FOREIGN)
    elif damaged == "model.safetensors":
        mutated = mutate_safetensors(rng, content)
    else:
        mutated = mutate_json(rng, json.loads(content))
    (target / damaged).write_bytes(mutated)
    return Case(target, (target.name,))


def _predict_with_checkpoint(case: Case, corpus: Path) -> None:
    assert Predictor.from_pretrained(case.path, device="cpu")(photo(0)).mask.shape == (30, 40)


# ONNX files -----------------------------------------------------------------------------------------------------------


def _make_onnx(folder: Path) -> None:
    make_onnx(folder / "small.onnx")


def _mutate_onnx(rng: Random, corpus: Path, folder: Path) -> Case:
    path = folder / "case-model.onnx"
    path.write_bytes(mutate_onnx(rng, (corpus / "onnx" / "small.onnx").read_bytes(), (CONFIG_KEY, EXPORT_KEY)))
    return Case(path, (path.name,))


def _predict_with_onnx(case: Case, corpus: Path) -> None:
    opened = Predictor.from_pretrained(case.path, device="cpu", runtime=OnnxOptions(threads=1))
    assert opened(photo(0)).mask.shape == (30, 40)
    if opened._runtime.info.branch_uncertainty:
        assert opened(photo(0), branch_uncertainty=True).mask.shape == (30, 40)


# Manifests ------------------------------------------------------------------------------------------------------------


def _make_manifest(folder: Path) -> None:
    (folder / "mine").mkdir()
    weights = b"weights of the manifest's checkpoint"
    (folder / "mine" / "model.safetensors").write_bytes(weights)
    (folder / "mine" / "config.json").write_text("{}")
    common: dict[str, Any] = {
        "license": "mit",
        "attribution": "nobody",
        "data": "noise",
        "preprocessing": PREPROCESSING.to_dict(),
        "date": "2026-01-01",
    }
    here = {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)}
    hub = {"repo_id": "org/name", "filename": "model.safetensors", "revision": "0" * 40}
    package = {"distribution": "numpy", "module": "numpy", "path": "version.py"}
    checkpoint = {"kind": "checkpoint", "network": "custom", "threshold": 0.5, "metrics": {"mIoU": 0.5, "split": "all"}}
    encoder = {"kind": "encoder", "network": "resnet50"}
    entries = [
        {"name": "mine", "file": "mine", **checkpoint, **common, **here},
        {"name": "remote", "hub": hub, **checkpoint, **common, "sha256": None, "bytes": None},
        {"name": "imagenet:mine", "package": package, **encoder, **common, **here},
    ]
    (folder / "manifest.json").write_text(json.dumps({"format_version": 1, "entries": entries}))


def _mutate_manifest(rng: Random, corpus: Path, folder: Path) -> Case:
    for file in ("model.safetensors", "config.json"):
        _link(corpus / "manifest" / "mine" / file, folder / "mine" / file)
    content = (corpus / "manifest" / "manifest.json").read_bytes()
    path = folder / "case-manifest.json"
    path.write_bytes(mutate_json(rng, json.loads(content)) if rng.random() < 0.9 else mutate_bytes(rng, content))
    return Case(path, (path.name, "mine"))


def _list_manifest(case: Case, corpus: Path) -> None:
    for encoders in (False, True):
        for as_json in (False, True):
            printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
            with redirect_stdout(printed):
                list_models_command(argparse.Namespace(encoders=encoders, manifest=str(case.path), json=as_json))
    for entry in list_models(manifest=case.path):
        if entry.file is not None and not entry.name.startswith("condseg-"):
            resolve(entry.name, manifest=case.path, local_files_only=True)


# Files of torch.save for `condseg convert` ----------------------------------------------------------------------------


def _make_torch_files(folder: Path) -> None:
    torch.manual_seed(0)
    state = {
        "layer0.0.weight": torch.randn(64, 3, 7, 7),
        "layer0.1.weight": torch.ones(64),
        "layer0.1.running_var": torch.ones(64),
        "layer0.1.num_batches_tracked": torch.tensor(5),
        "cdfa1.v.weight": torch.randn(8, 8),
        "head.bias": torch.zeros(3, dtype=torch.float16),
    }
    wrapped = {
        "epoch": 3,
        "best": np.float64(0.8),
        "args": {"lr": 1e-4, "size": [256, 256], "name": "run"},
        "state_dict": {f"module.{name}": value for name, value in state.items()},
    }
    torch.save(state, folder / "plain.pth")
    torch.save(wrapped, folder / "wrapped.pth")
    torch.save(wrapped, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "plain.safetensors")


def _mutate_torch_file(rng: Random, corpus: Path, folder: Path) -> Case:
    source, content, _ = _pick(rng, corpus / "convert")
    path = folder / f"case-file{source.suffix}"
    path.write_bytes((mutate_safetensors if source.suffix == ".safetensors" else mutate_torch)(rng, content))
    return Case(path, (path.name,))


def _convert(case: Case, corpus: Path) -> None:
    convert_checkpoint(case.path, case.path.parent / "converted", network="r50", color_order="bgr")


# Videos ---------------------------------------------------------------------------------------------------------------


def _make_videos(folder: Path) -> None:
    for name, code in (("motion-jpeg.avi", "MJPG"), ("mpeg4.mp4", "mp4v"), ("mpeg4.mkv", "mp4v"), ("vp8.webm", "VP80")):
        writer = cv2.VideoWriter(str(folder / name), cv2.VideoWriter.fourcc(*code), 25, (64, 48))
        for number in range(5):
            writer.write(photo(number, (48, 64)))
        writer.release()
        if not (folder / name).is_file() or (folder / name).stat().st_size == 0:
            (folder / name).unlink(missing_ok=True)  # this OpenCV has no such encoder


def _mutate_video(rng: Random, corpus: Path, folder: Path) -> Case:
    source, content, others = _pick(rng, corpus / "video")
    path = folder / f"case-video{source.suffix}"
    path.write_bytes(mutate_bytes(rng, content, others))
    return Case(path, (path.name,))


def _predict_video(case: Case, corpus: Path) -> None:
    for seg in predictor(corpus / "checkpoint").stream(case.path):
        assert seg.mask.shape == seg.source.shape[:2]


# A run's own files, read again when it is resumed ---------------------------------------------------------------------

RUN_FILES = (
    # the state of the run, and a file that is read when it is resumed
    ("finished", "settings.json"),
    ("finished", "result.json"),
    ("finished", "stage1/metrics.csv"),
    ("finished", "stage2/metrics.csv"),
    ("interrupted", "settings.json"),
    ("interrupted", "stage1/finished.json"),
    ("interrupted", "stage1/last.ckpt"),
    ("interrupted", "stage1/metrics.csv"),
    ("interrupted", "stage2/last.ckpt"),
    ("interrupted", "stage2/metrics.csv"),
    ("without a result", "stage2/best.ckpt"),
    ("without a result", "stage2/finished.json"),
)
MOST_EPOCHS = 3


def _make_runs(folder: Path) -> None:
    data = make_set(folder / "set")
    interrupted = make_run(folder / "interrupted", data)
    shutil.rmtree(interrupted / "tensorboard")
    finished = folder / "finished"
    shutil.copytree(interrupted, finished)
    finish_run(finished, data)
    shutil.rmtree(finished / "tensorboard")
    shutil.copytree(finished, folder / "without a result")
    (folder / "without a result" / "result.json").unlink()


def _mutate_run(rng: Random, corpus: Path, folder: Path) -> Case:
    state, damaged = rng.choice(RUN_FILES)
    source, target = corpus / "resume" / state, folder / "case-run"
    for file in _files(source):
        path = target / file.relative_to(source)
        if file.suffix in (".ckpt", ".safetensors"):
            _link(file, path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, path)
    content = (source / damaged).read_bytes()
    mutate: Callable[[Random, bytes], bytes] = mutate_bytes
    if rng.random() < 0.8:
        mutate = {".json": _mutate_json_bytes, ".csv": _mutate_csv_bytes, ".ckpt": mutate_torch}[Path(damaged).suffix]
    path = target / damaged
    path.unlink()  # it may be a link
    path.write_bytes(mutate(rng, content))
    if path.name == "settings.json" and _trains_for_long(path):
        path.write_bytes(content[: rng.randrange(len(content))])
    return Case(target, (target.name,))


def _mutate_json_bytes(rng: Random, data: bytes) -> bytes:
    return mutate_json(rng, json.loads(data))


def _mutate_csv_bytes(rng: Random, data: bytes) -> bytes:
    return mutate_lines(rng, data.decode())


def _trains_for_long(path: Path) -> bool:
    """Whether a file asks for many epochs, which cannot be recognized as damage."""
    try:
        settings = json.loads(path.read_bytes())["settings"]
        return any(settings[name] > MOST_EPOCHS for name in ("epochs", "stage1_epochs", "finish_epochs"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _resume(case: Case, corpus: Path) -> None:
    from condseg_sdk import finetune  # loads Lightning, which no other target needs

    finetune(
        corpus / "resume" / "set",
        output_dir=case.path,
        resume=True,
        progress=False,
        report=False,
        accelerator="cpu",
        num_workers=0,
    )


TARGETS = {
    target.name: target
    for target in (
        Target("images", _make_images, _mutate_image, _predict_image, weight=12),
        Target("dicom", _make_dicom, _mutate_dicom, _predict_dicom, weight=4),
        Target("masks", _make_masks, _mutate_mask, _read_set, weight=9),
        Target("tables", _make_tables, _mutate_table, _read_set, weight=9),
        Target("manifest", _make_manifest, _mutate_manifest, _list_manifest, weight=6),
        Target("checkpoint", make_checkpoint, _mutate_checkpoint, _predict_with_checkpoint, weight=3),
        Target("onnx", _make_onnx, _mutate_onnx, _predict_with_onnx, weight=6),
        Target("convert", _make_torch_files, _mutate_torch_file, _convert, weight=3),
        Target("video", _make_videos, _mutate_video, _predict_video, weight=2),
        Target("resume", _make_runs, _mutate_run, _resume, weight=0.1),
    )
}
