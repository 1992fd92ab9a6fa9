"""The integrity check: every mistake in a set, provoked, with the message naming files and remedy."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from condseg_sdk.data import Dataset, DatasetReport, Pair, check_dataset, find_pairs, open_dataset
from condseg_sdk.data.duplicates import fingerprint, near_duplicates
from condseg_sdk.errors import DatasetError, OptionError
from condseg_sdk.images.load import find_bits
from tests.helpers.datasets import add_pair, make_set, picture, region, save

ORIENTATION = 0x0112
NAMES = [f"n{i:02}" for i in range(30)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good set: 24 pairs to train on, 6 to validate."""
    make_set(tmp_path, NAMES)
    (tmp_path / "train.txt").write_text("\n".join(NAMES[:24]))
    (tmp_path / "val.txt").write_text("\n".join(NAMES[24:]))
    return tmp_path


def check(folder: Path) -> DatasetReport:
    return check_dataset(open_dataset(folder))


def only(report: DatasetReport) -> str:
    """The one problem of a report, as "severity: line"."""
    (problem,) = report.problems
    return f"{problem.severity}: {problem.line()}"


def test_a_good_dataset_has_no_problems(folder: Path) -> None:
    report = check(folder)
    assert report.problems == ()
    report.raise_if_wrong()
    assert (report.splits["train"].pairs, report.splits["validation"].pairs, report.splits["test"].pairs) == (24, 6, 0)
    assert report.splits["train"].foreground == pytest.approx(96 / 600)
    assert report.splits["test"].foreground is None
    assert report.image_sizes == ((20, 30), (20, 30))
    assert report.mask_kinds == {"two values": 30}


def test_the_report_shows_a_table_of_the_splits(folder: Path) -> None:
    (folder / "masks" / "n03.png").unlink()
    for name in NAMES[4:12]:
        save(folder / "masks" / f"{name}.png", np.zeros((20, 30), np.uint8))
    save(folder / "images" / "n20.png", picture("x", (50, 75)))
    save(folder / "masks" / "n20.png", region((50, 75)))
    (folder / "train.txt").unlink()
    (folder / "val.txt").unlink()
    lines = str(check_dataset(open_dataset(folder, group_by=r"n(\d)"))).splitlines()
    assert lines[0].startswith("folders images/ with masks in masks/; ")
    assert lines[2].split() == ["split", "pairs", "groups", "empty", "masks", "median", "foreground"]
    assert [line.split()[0] for line in lines[3:6]] == ["train", "validation", "test"]
    assert sum(int(line.split()[1]) for line in lines[3:6]) == 29
    assert sum(int(line.split()[3]) for line in lines[3:6]) == 8
    assert "images   30x20 to 75x50" in lines
    assert "masks    29 by two values" in lines
    assert any(
        line.startswith("error    1 image without a mask with the same name; add an all-black") for line in lines
    )
    assert f"           {folder / 'images' / 'n03.png'}" in lines
    assert any(line.startswith("warning  8 masks without foreground") for line in lines)
    assert "           ... and 3 more" in lines
    assert lines[-1].startswith("1 error, ")


def test_an_error_names_the_first_files_and_counts_the_others(folder: Path) -> None:
    for name in NAMES[3:8]:
        (folder / "masks" / f"{name}.png").write_bytes(b"broken")
    save(folder / "masks" / "n00.png", region((9, 9)))
    with pytest.raises(DatasetError) as caught:
        check(folder).raise_if_wrong()
    message = str(caught.value)
    assert message.startswith("5 pairs with a file that cannot be used; repair it or remove the pair: ")
    assert "n03.png is not an image that can be read" in message
    assert "and 2 more" in message
    assert message.endswith("(and 1 other error; `condseg finetune DATA --check` lists all)")


def test_problems_of_the_layout_are_in_the_report(folder: Path) -> None:
    (folder / "train.txt").write_text("\n".join([*NAMES[:24], "n99"]))
    assert only(check(folder)).startswith("error: 1 name in ")


# Files


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_unreadable_files_are_reported(folder: Path, kind: str, damage: str) -> None:
    path = folder / kind / "n03.png"
    if damage == "cut":
        pixels = np.random.default_rng(0).integers(0, 255, (200, 300), np.uint8)
        save(path, pixels)
        path.write_bytes(path.read_bytes()[:3000])
    else:
        path.write_bytes(b"" if damage == "empty" else b"hello")
    line = only(check(folder))
    assert line.startswith("error: 1 pair with a file that cannot be used; repair it or remove the pair")
    assert str(path) in line


def test_a_truncated_jpeg_is_found_although_it_is_read_at_a_small_size(folder: Path) -> None:
    path = folder / "images" / "n03.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (1600, 2400, 3), np.uint8)
    save(path, pixels)
    save(folder / "masks" / "n03.png", region((1600, 2400)))
    (folder / "images" / "n03.png").unlink()
    assert check(folder).problems == ()
    path.write_bytes(path.read_bytes()[:-5000])
    assert "n03.jpg is damaged or incomplete" in only(check(folder))


def test_a_dataset_of_only_damaged_files_is_reported(folder: Path) -> None:
    for name in NAMES:
        (folder / "images" / f"{name}.png").write_bytes(b"broken")
    report = check(folder)
    assert report.errors[0].message.startswith("30 pairs with a file that cannot be used")
    assert len(report.errors[0].files) == 30
    assert "median foreground" in str(report)


def test_an_image_given_as_its_own_mask_is_an_error(folder: Path) -> None:
    pairs = find_pairs(folder)
    pairs[0] = Pair("own", pairs[0].image, pairs[0].image)
    report = check_dataset(open_dataset(pairs))
    assert (
        report.errors[0].line() == f"1 image given as its own mask; pass the mask's file: {folder / 'images/n00.png'}"
    )


# Sizes and orientation


def test_masks_of_other_sizes_are_errors_or_warnings(folder: Path) -> None:
    save(folder / "masks" / "n01.png", region((9, 9)))
    save(folder / "masks" / "n02.png", region((30, 20)))
    save(folder / "masks" / "n03.png", region((10, 15)))
    different, scaled = check(folder).problems
    assert different.severity == "error"
    assert different.message == "2 masks with another aspect ratio than the image; export it at the image's size"
    assert different.files[0] == f"{folder / 'images/n01.png'} is 30x20, its mask 9x9"
    assert scaled.severity == "warning"
    assert scaled.message == "1 mask of a different size than the image, resized to fit"
    assert scaled.files == (f"{folder / 'images/n03.png'} is 30x20, its mask 15x10",)


def turned(path: Path, orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    save(path, picture(path.name, size), exif=exif)


def test_a_mask_of_the_image_as_stored_is_an_error_if_exif_rotates_it(folder: Path) -> None:
    turned(folder / "images" / "n01.png", 6, (20, 30))  # 30x20 as stored, 20x30 as shown
    line = only(check(folder))
    assert line.startswith(
        "error: 1 mask drawn on the image as stored, while an EXIF tag rotates it; rotate the mask, or"
    )
    assert line.endswith("n01.png is 20x30, its mask 30x20")
    turned(folder / "images" / "n01.png", 6, (30, 20))  # shown as the mask is
    assert check(folder).problems == ()


@pytest.mark.parametrize(("orientation", "size"), [(3, (20, 30)), (2, (20, 30)), (6, (20, 20))])
def test_an_orientation_that_sizes_cannot_check_causes_a_warning(
    folder: Path, orientation: int, size: tuple[int, int]
) -> None:
    turned(folder / "images" / "n01.png", orientation, size)
    save(folder / "masks" / "n01.png", region(size))
    assert only(check(folder)).startswith(
        "warning: 1 image rotated by an EXIF tag that the mask does not have; check that"
    )


# Regions and values


@pytest.mark.parametrize(("value", "word"), [(0, "without foreground"), (255, "without background")])
def test_empty_and_full_masks_are_warnings(folder: Path, value: int, word: str) -> None:
    save(folder / "masks" / "n01.png", np.full((20, 30), value, np.uint8))
    assert only(check(folder)).startswith(f"warning: 1 mask {word}; fine if ")
    for name in NAMES[:24]:
        save(folder / "masks" / f"{name}.png", np.full((20, 30), value, np.uint8))
    report = check(folder)
    (problem,) = report.errors
    assert "of the train split" in problem.message
    assert "masks must be 0 outside the region and not 0 inside it" in problem.message


def test_a_validation_split_without_foreground_is_an_error(folder: Path) -> None:
    for name in NAMES[24:]:
        save(folder / "masks" / f"{name}.png", np.zeros((20, 30), np.uint8))
    assert check(folder).errors[0].message.startswith("no mask of the validation split has foreground")


def test_inverted_masks_cause_a_warning(folder: Path) -> None:
    save(folder / "masks" / "n01.png", 255 - region())
    save(folder / "masks" / "n02.png", np.pad(np.full((18, 28), 255, np.uint8), 1))  # large, but not inverted
    line = only(check(folder))
    assert line.startswith("warning: 1 mask covering the image's edges and most of it; if that is the background, swap")
    assert line.endswith("n01.png")


def test_suspicious_values_and_single_label_masks_are_warnings(folder: Path) -> None:
    stripes = np.repeat(np.array([0, 127, 255], np.uint8), 10)[None].repeat(20, axis=0)
    stripes[:2, 10:12] = 0  # no box
    save(folder / "masks" / "n01.png", stripes)
    save(folder / "masks" / "n02.png", stripes // 127)
    first, second = check(folder).warnings
    assert first.line() == (
        f"1 mask of several gray levels in flat areas: all above 0 was read as foreground: {folder / 'masks/n01.png'}"
    )
    assert second.message.startswith("2 masks with several labels, unlike the rest")
    for name in NAMES:
        save(folder / "masks" / f"{name}.png", stripes // 127)
    assert check(folder).problems == ()


def test_images_of_a_single_color_cause_a_warning(folder: Path) -> None:
    for name in NAMES[20:28]:  # alike, but no leak
        save(folder / "images" / f"{name}.png", np.full((20, 30, 3), int(name[1:]), np.uint8))
    assert only(check(folder)).startswith("warning: 8 images of a single color; remove it if it is broken")


# Counts


def test_few_pairs_cause_a_warning(tmp_path: Path) -> None:
    make_set(tmp_path, NAMES[:8])
    few, fewer = check(tmp_path).warnings
    assert few.message == "only 6 pairs to train on; 20 or more are recommended"
    assert fewer.message.startswith("only 2 pairs to validate on")


# Leaks


def test_copies_across_splits_are_an_error_and_within_a_split_a_warning(folder: Path) -> None:
    shutil.copy(folder / "images" / "n00.png", folder / "images" / "n25.png")
    line = only(check(folder))
    assert line == (
        "error: 1 image copied into another split, which makes metrics too optimistic; keep one, or pass group_by: "
        f"{folder / 'images/n25.png'} (validation) and {folder / 'images/n00.png'} (train)"
    )
    make_set(folder, ["n25"])
    shutil.copy(folder / "images" / "n00.png", folder / "images" / "n05.png")
    assert only(check(folder)).startswith("warning: 1 image copied within one split; keep one")


def noisy(size: tuple[int, int]) -> Image.Image:
    """A smooth random scene."""
    cells = np.random.default_rng(3).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(cells).resize(size[::-1], Image.Resampling.BICUBIC)


@pytest.mark.parametrize("change", ["jpeg", "half", "brighter", "gray", "tinted", "crop"])
def test_an_image_saved_again_is_found_in_another_split(folder: Path, change: str) -> None:
    original = noisy((200, 300))
    save(folder / "images" / "n00.png", np.asarray(original))
    save(folder / "masks" / "n00.png", region((200, 300)))
    other = {
        "jpeg": lambda: original,
        "half": lambda: original.resize((150, 100)),
        "brighter": lambda: ImageEnhance.Brightness(original).enhance(0.7),
        "gray": lambda: original.convert("L"),
        "tinted": lambda: Image.merge("RGB", (original.getchannel(0).point(lambda v: v * 0.8), *original.split()[1:])),
        "crop": lambda: original.crop((4, 3, 296, 198)),
    }[change]()
    suffix = ".jpg" if change == "jpeg" else ".png"
    (folder / "images" / "n25.png").unlink()
    path = save(folder / "images" / f"n25{suffix}", np.asarray(other), **({"quality": 40} if change == "jpeg" else {}))
    save(folder / "masks" / "n25.png", region((other.height, other.width)))
    line = only(check(folder))
    assert line.startswith("warning: 1 image nearly identical to one of another split")
    assert "with group_by" in line
    assert line.endswith(f"{path} (validation) and {folder / 'images/n00.png'} (train)")


def test_different_images_of_one_kind_are_not_duplicates() -> None:
    """A bright blob somewhere on a dark ground with a vignette: alike, but not the same."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:120, :160]
    ground = 90 - 60 * np.hypot(rows - 60, columns - 80) / 100

    def scene() -> np.ndarray:
        y, x, r = rng.uniform(30, 90), rng.uniform(40, 120), rng.uniform(10, 30)
        texture = cv2.resize(rng.normal(0, 12, (12, 16)), (160, 120), interpolation=cv2.INTER_CUBIC)
        blob = 120 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / r**2)
        return np.clip(ground + blob + texture, 0, 255).astype(np.uint8)

    prints = [fingerprint(scene()) for _ in range(120)]
    assert near_duplicates(prints[:60], prints[60:]) == []
    assert near_duplicates(prints, prints) == [(i, i) for i in range(120)]
    assert near_duplicates([], prints) == []


def test_the_content_digest_depends_on_pixels_and_not_on_names(tmp_path: Path) -> None:
    pairs = [add_pair(tmp_path / f"{name}.png", tmp_path / f"{name}_m.png") for name in NAMES]
    before = check_dataset(open_dataset(pairs, val_fraction=0.2)).content
    assert check_dataset(open_dataset(pairs, val_fraction=0.2)).content == before
    save(pairs[0][1], ~region())
    assert check_dataset(open_dataset(pairs, val_fraction=0.2)).content != before


def test_many_fingerprints_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from condseg_sdk.data import duplicates

    prints = [fingerprint(np.random.default_rng(i).integers(0, 256, (32, 34), np.uint8)) for i in range(20)]
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    assert near_duplicates(prints[::2], prints) == [(i, 2 * i) for i in range(10)]


# Other sources


def test_pairs_in_python_with_16_bit_images_are_checked(tmp_path: Path) -> None:
    pairs = []
    for name in NAMES:
        deep = picture(name)[..., 0].astype(np.uint16) * 257
        pairs.append((save(tmp_path / f"{name}.png", deep), save(tmp_path / f"{name}_m.png", region())))
    assert check_dataset(open_dataset(pairs, val_fraction=0.2)).problems == ()
    for image, _ in pairs:
        save(image, np.asarray(Image.open(image)) // 16)  # twelve bits in sixteen
    (problem,) = check_dataset(open_dataset(pairs, val_fraction=0.2)).problems
    assert problem.severity == "warning"
    assert "16-bit values up to 4095 were read as 12 bits" in problem.message
    assert check_dataset(open_dataset(pairs, val_fraction=0.2)).bits == 12
    assert check_dataset(open_dataset(pairs, val_fraction=0.2), bits=12).problems == ()
    save(pairs[0][0], picture(NAMES[0])[..., 0].astype(np.uint16) * 257)  # one image of 16 bits among the others
    (problem,) = check_dataset(open_dataset(pairs, val_fraction=0.2)).problems
    assert "almost black" in problem.message
    assert len(problem.files) == len(NAMES) - 1


def test_palette_images_with_transparency_give_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image, mask = add_pair(tmp_path / "a.png", tmp_path / "a_m.png")
    Image.fromarray(picture("a")).convert("P").save(image, transparency=bytes([0, 255, 128]))
    pairs = [Pair("a", image, mask)]
    check_dataset(Dataset(pairs, pairs, [], "two lists"))
    assert not [str(w.message) for w in recwarn if "transparency" in str(w.message).lower()]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_twelve_bits_are_found_in_gray_and_color_files(channels: int, suffix: str, tmp_path: Path) -> None:
    pairs = []
    for name in NAMES:
        deep = picture(name).astype(np.uint16) << 4
        path = tmp_path / f"{name}{suffix}"
        assert cv2.imwrite(str(path), deep if channels == 3 else deep[..., 0])
        pairs.append((path, save(tmp_path / f"{name}_m.png", region())))
    report = check_dataset(open_dataset(pairs, val_fraction=0.2))
    assert report.bits == 12
    assert ["read as 12 bits" in problem.message for problem in report.problems] == [True]
    depth = find_bits(path for path, _ in pairs)
    assert depth is not None
    assert depth.bits == 12


def test_anything_but_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"must be a Dataset: use check_dataset\(open_dataset\(...\)\)"):
        check_dataset(tmp_path)  # type: ignore[arg-type]
