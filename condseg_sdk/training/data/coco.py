"""COCO JSON (instances): its images, and masks drawn from polygons and run lengths by pycocotools."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import DatasetError
from condseg_sdk.training.data.names import split_word, twins, unique_names
from condseg_sdk.training.data.pairs import CocoMask, Found, Pair, Part, Problem, problems_of

__all__ = ["draw", "is_coco", "read_coco"]

FAR_OUTSIDE = 1.0  # image sizes a polygon may reach over the edge: drawn ones do, by a few pixels


def draw(mask: CocoMask) -> NDArray[np.bool_]:
    """All regions of an image as one mask, bool (H, W).

    Raises:
        DatasetError: A region is no polygon and no run-length code, or lies outside the image.
    """
    height, width = mask.size
    result = np.zeros(mask.size, np.bool_)
    if not mask.regions:
        return result
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise DatasetError(f"{mask.file}: COCO regions need pycocotools; pip install 'condseg_sdk[train]'") from error
    for region in mask.regions:
        _check_region(region, mask)
        try:
            code = region
            if not isinstance(region, Mapping) or isinstance(region["counts"], list):
                code = coco_mask.frPyObjects(region, height, width)
            drawn = coco_mask.decode(code)
        except (TypeError, ValueError, UnicodeEncodeError) as error:
            raise DatasetError(f"{mask}: a run-length code is damaged ({error}); export the file again") from error
        result |= drawn.any(axis=2) if drawn.ndim == 3 else drawn.astype(bool)
    return result


def _check_region(region: Any, mask: CocoMask) -> None:
    """Refuse what pycocotools would draw wrong, or crash on."""
    if isinstance(region, Mapping):
        counts = region.get("counts")
        if not isinstance(counts, (str, list)) or list(region.get("size", ())) != list(mask.size):
            raise DatasetError(
                f"{mask}: a run-length code of size {region.get('size')} in an image of {list(mask.size)} (height, "
                "width); both must be one size and 'counts' a list or a string"
            )
        whole = not isinstance(counts, list) or all(type(n) is int and n >= 0 for n in counts)
        if not whole or (isinstance(counts, list) and sum(counts) != math.prod(mask.size)):
            raise DatasetError(f"{mask}: the counts of a run-length code must be whole numbers that sum to its pixels")
        return
    if not isinstance(region, list) or not region or not all(isinstance(polygon, list) for polygon in region):
        raise DatasetError(f"{mask}: an annotation has no usable 'segmentation'; it must be polygons or run lengths")
    limits = ((1 + FAR_OUTSIDE) * mask.size[1], (1 + FAR_OUTSIDE) * mask.size[0])
    for polygon in region:
        numbers = all(type(value) in (int, float) and math.isfinite(value) for value in polygon)
        if not numbers or len(polygon) < 6 or len(polygon) % 2:
            raise DatasetError(f"{mask}: a polygon needs three or more points [x1, y1, x2, y2, ...] in finite numbers")
        if any(not -limits[i % 2] <= value <= limits[i % 2] for i, value in enumerate(polygon)):
            raise DatasetError(f"{mask}: a polygon lies far outside the image; its points must be pixels of that image")


def is_coco(path: Path) -> bool:
    """Whether a JSON file looks like COCO's: an object with "images" and "annotations"."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def read_coco(files: Sequence[Path], *, folder: Path, images: Path | None = None) -> Found:
    """Pairs of one or several COCO files.

    Args:
        files: JSON files. Where there are several, each is the part that its path below `folder` names (train, ...).
        folder: what the user gave, or holds it.
        images: where the images are; None to look beside each file.

    Raises:
        DatasetError: A file is no COCO file, or its images are not found.
    """
    found: dict[Part | None, list[Pair]] = defaultdict(list)
    problems: list[Problem] = []
    for file in files:
        content = _load(file)
        part = split_word((*file.relative_to(folder).parts[:-1], file.stem)) if len(files) > 1 else None
        entries = [_check_image(entry, file) for entry in content["images"]]
        regions = _regions(content, entries, file)
        root = images or _image_folder(file, [entry["file_name"] for entry in entries])
        names = unique_names([Path(entry["file_name"]) for entry in entries])
        for name, entry in zip(names, entries, strict=True):
            size = (entry["height"], entry["width"])
            source = CocoMask(file, entry["file_name"], size, tuple(regions[entry["id"]]))
            found[part].append(Pair(name, root / entry["file_name"], source))
        problems += _remarks(content, file)
    paths = [str(pair.image) for pairs in found.values() for pair in pairs]
    again = [second for _, second in twins(paths)]
    problems += problems_of("error", "image", "described twice in the COCO files; keep one entry of each", again)
    missing = [path for path in paths if not Path(path).is_file()]
    problems += problems_of("error", "image", "of the COCO file that does not exist; add it or take it out", missing)
    return Found(dict(found), f"COCO: {', '.join(str(file.relative_to(folder)) for file in files)}", tuple(problems))


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file} cannot be read as JSON ({error}); export it again") from error
    lists = ("images", "annotations")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in lists):
        raise DatasetError(f"{file} is no COCO file: it needs the lists 'images' and 'annotations'")
    if not content["images"]:
        raise DatasetError(f"{file} lists no images; export it again with images")
    return content


def _check_image(entry: Any, file: Path) -> dict[str, Any]:
    kinds = {"id": (int, str), "file_name": (str,), "height": (int,), "width": (int,)}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in kinds.items()):
        raise DatasetError(f"{file}: an image lacks one of id, file_name, height, width: {json.dumps(entry)[:100]}")
    if min(entry["height"], entry["width"]) < 1:
        raise DatasetError(
            f"{file}: {entry['file_name']} is {entry['width']}x{entry['height']}; give its size in pixels"
        )
    return entry


def _regions(content: dict[str, Any], entries: Iterable[dict[str, Any]], file: Path) -> dict[Any, list[Any]]:
    """The segmentations by image id."""
    regions: dict[Any, list[Any]] = {}
    for entry in entries:
        if entry["id"] in regions:
            raise DatasetError(f"{file}: two images have the id {entry['id']!r}; ids must differ")
        regions[entry["id"]] = []
    for annotation in content["annotations"]:
        identity = annotation.get("image_id") if isinstance(annotation, dict) else None
        if identity not in regions:
            raise DatasetError(f"{file}: an annotation belongs to image {identity!r}, which is not in 'images'")
        region = annotation.get("segmentation")
        if not region:
            raise DatasetError(
                f"{file}: annotation {annotation.get('id')} has no segmentation; export masks or polygons, not boxes"
            )
        # Some tools write one polygon without the list around it.
        is_flat = isinstance(region, list) and isinstance(region[0], (int, float))
        regions[identity].append([region] if is_flat else region)
    return regions


def _image_folder(file: Path, names: Sequence[str]) -> Path:
    """The folder below which the images are: where most of them exist."""
    candidates = list(dict.fromkeys(_candidates(file)))
    best = max(candidates, key=lambda folder: sum((folder / name).is_file() for name in names))
    if not any((best / name).is_file() for name in names):
        looked = ", ".join(str(folder) for folder in candidates)
        raise DatasetError(
            f"{file}: none of its images, such as {names[0]}, was found (looked in {looked}); "
            "give the folder of images as data and this file as masks"
        )
    return best


def _candidates(file: Path) -> Iterator[Path]:
    # annotations/instances_train2017.json describes train2017/, or images/train2017/.
    word = file.stem.removeprefix("instances_")
    for folder in (file.parent, file.parent.parent):
        yield folder
        yield folder / "images"
        yield folder / word
        yield folder / "images" / word


def _remarks(content: dict[str, Any], file: Path) -> Iterator[Problem]:
    used = Counter(annotation.get("category_id") for annotation in content["annotations"])
    if len(used) > 1:
        categories = content.get("categories")
        known = {c.get("id"): str(c.get("name")) for c in categories or () if isinstance(c, dict)}
        yield Problem(
            "warning",
            f"{file.name} has {len(used)} categories, all of which were taken for the one region to learn; "
            "if some are not, export the file without them",
            tuple(sorted(known.get(key, str(key)) for key in used)),
        )
