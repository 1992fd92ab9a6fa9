"""Names of files and folders: which belong together, and which words in them mean images, masks, train or test.

Names are compared regardless of case and Unicode form (macOS writes é as two characters), so that a dataset is read
alike on every file system.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Literal

from condseg_sdk.data.pairs import Split
from condseg_sdk.data.text_files import read_text
from condseg_sdk.errors import DatasetError
from condseg_sdk.images.load import IMAGE_SUFFIXES

__all__ = [
    "duplicate_names",
    "folder_role",
    "is_mask_word",
    "loosely_numbered",
    "normalize_name",
    "numbered",
    "read_names",
    "split_of_folders",
    "split_of_name",
    "split_of_word",
    "unique_names",
    "without_image_word",
    "without_mask_word",
]

MASK_WORDS = (
    *("mask", "masks", "label", "labels", "gt", "gts", "groundtruth", "groundtruths", "truth", "truths"),
    *("annotation", "annotations", "annot", "annots", "anno", "annos", "seg", "segmentation", "segmentations"),
    *("manual", "target", "targets"),
)
IMAGE_WORDS = (
    *("image", "images", "img", "imgs", "original", "originals", "input", "inputs", "data", "frame", "frames"),
    *("photo", "photos", "picture", "pictures", "scan", "scans", "raw"),
)
SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
STRAY_BYTES = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}
"""Python's placeholders for bytes of file names that are not UTF-8, and their letters in Latin 1."""

FILE_MASK_WORDS = "segmentation|segm|seg|masks?|labels?|gt|ground_?truth|anno|annot|annotations?|lesion"
FILE_IMAGE_WORDS = "image|img|original|orig|input|photo|frame|raw"


def normalize_name(name: str) -> str:
    """Return the form in which two names are compared.

    Bytes that are not UTF-8 are read as Latin 1, so that a name from an old system is the same in a list and on disk.
    """
    return unicodedata.normalize("NFC", name.translate(STRAY_BYTES)).casefold()


def duplicate_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Find names that are equal when normalized, each with the first of its kind in front."""
    first: dict[str, str] = {}
    found = []
    for name in names:
        key = normalize_name(name)
        if key in first:
            found.append((first[key], name))
        else:
            first[key] = name
    return found


def _words(name: str) -> list[str]:
    """Split a name into words: "ISIC-2017_Part1_GroundTruth" -> isic, 2017, part, 1, ground, truth."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+", name)]


def folder_role(name: str) -> Literal["images", "masks"] | None:
    """Return what a folder contains, judging by its name; a word for masks outweighs one for images ("image_masks").

    Example:
        >>> folder_role("Ground Truth"), folder_role("JPEGImages"), folder_role("patient7")
        ('masks', 'images', None)
    """
    words = {*_words(name), name.lower()}
    if words & {*MASK_WORDS}:
        return "masks"
    return "images" if words & {*IMAGE_WORDS} else None


def split_of_word(word: str) -> Split | None:
    """Return the split that a single word stands for: "valid" -> "validation"."""
    return SPLIT_WORDS.get(word.strip().lower())


def split_of_folders(names: Sequence[str]) -> Split | None:
    """Return the split that the names of nested folders stand for; the innermost folder counts first.

    Example:
        >>> split_of_folders(["TrainDataset", "images"]), split_of_folders(["images"])
        ('train', None)
    """
    return next((SPLIT_WORDS[word] for name in reversed(names) for word in _words(name) if word in SPLIT_WORDS), None)


def split_of_name(stem: str) -> Split | None:
    """Return the split that a file's name begins with: "train_01", "testA_3", "val-7"."""
    found = re.match(r"((?i:train|training|val|valid|validation|test))[A-Z]?(?=[_\-. ]|\d)", stem)
    return SPLIT_WORDS[found[1].lower()] if found else None


def without_mask_word(stem: str) -> str:
    """Remove the word for masks from a mask's name: "a_segmentation", "mask_a" -> "a"."""
    return _without(stem, FILE_MASK_WORDS)


def without_image_word(stem: str) -> str:
    """Remove the word for images from an image's name: "a_image", "img_a" -> "a"."""
    return _without(stem, FILE_IMAGE_WORDS)


def _without(stem: str, words: str) -> str:
    shorter = re.sub(rf"[_\-. ]+({words})$", "", stem, flags=re.IGNORECASE)
    if shorter == stem:
        shorter = re.sub(rf"^({words})(?=[_\-. \d])[_\-. ]*", "", stem, flags=re.IGNORECASE)
    return shorter or stem


def numbered(stem: str) -> tuple[str, str] | None:
    """Split the name of one of several masks into the image's name and its number, if it has a word for masks.

    Example:
        >>> numbered("benign (2)_mask_1"), numbered("a-mask2"), numbered("a_2")
        (('benign (2)', '1'), ('a', '2'), None)
    """
    found = re.fullmatch(rf"(.+?)[_\-. ]+(?:{FILE_MASK_WORDS})[_\-. ]*\(?(\d{{1,3}})\)?", stem, re.IGNORECASE)
    return (found[1], found[2]) if found else None


def loosely_numbered(stem: str) -> tuple[str, str] | None:
    """Like `numbered`, but without a word for masks or with it elsewhere: "a_1", "a_1_mask", "mask_a_1" -> a, 1."""
    found = re.fullmatch(r"(.+?)[_\-. ]+\(?(\d{1,3})\)?", without_mask_word(stem))
    return (found[1], found[2]) if found else None


def is_mask_word(stem: str) -> bool:
    """Return whether a name is only a word for masks, perhaps with a number: "mask", "mask_1", "GT"."""
    return re.fullmatch(rf"(?:{FILE_MASK_WORDS})[_\-. ]*\(?\d*\)?", stem, re.IGNORECASE) is not None


def unique_names(paths: Sequence[PurePath]) -> list[str]:
    """Name each file by its stem; if stems are not unique, with folders, and if need be with the extension."""
    if len(paths) < 2:
        return [path.stem for path in paths]
    parents = [path.parent.parts for path in paths]
    shared = 0
    while all(len(parts) > shared and parts[shared] == parents[0][shared] for parts in parents):
        shared += 1
    below = [PurePath(*path.parts[shared:]) for path in paths]
    choices = ([path.stem for path in paths], [_without_suffix(path).as_posix() for path in below])
    return next((names for names in choices if not duplicate_names(names)), [path.as_posix() for path in below])


def _without_suffix(path: PurePath) -> PurePath:
    return path.with_suffix("") if path.name else path  # "." and "/", which a damaged table may list, have no name


def read_names(path: Path) -> list[str]:
    """Read a list of names, one per line, without extensions of images, blank lines and comments (#).

    Raises:
        DatasetError: The file cannot be read as text, or lists no names.
    """
    lines = read_text(path, remedy="write text, one name per line").splitlines()
    entries = [re.sub(r"(^|\s)#.*", "", line).strip().replace("\\", "/") for line in lines]
    names = [PurePath(entry) for entry in entries if entry]
    if not names:
        raise DatasetError(f"{path} lists no names; write one per line")
    return [(name.with_suffix("") if name.suffix.lower() in IMAGE_SUFFIXES else name).as_posix() for name in names]
