"""Masks as people store them: every kind of file, the rule that reads it, and its warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from condseg_sdk.data import load_mask, resize_mask
from condseg_sdk.data.masks import read_mask, size_agreement
from condseg_sdk.errors import DatasetError, ImageError
from tests.helpers.datasets import region, save

TRUTH = region((40, 60)) > 0


def agreement(mask: NDArray[np.bool_], truth: NDArray[np.bool_] = TRUTH) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def instances(count: int, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint16]:
    """Squares numbered 1, 2, ... in rows, with background between them."""
    labels = np.zeros(size, np.uint16)
    columns = size[1] // 4
    for i in range(count):
        y, x = 4 * (i // columns), 4 * (i % columns)
        labels[y : y + 3, x : x + 3] = i + 1
    return labels


def values(path: Path, array: NDArray[Any], **options: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
        return path
    if path.suffix == ".npz":
        np.savez(path, array)
        return path
    return save(path, array, **options)


@pytest.mark.parametrize(
    ("suffix", "dtype", "low", "high"),
    [
        ("png", np.uint8, 0, 1),
        ("png", np.uint8, 0, 255),
        ("bmp", np.uint8, 0, 255),
        ("gif", np.uint8, 0, 255),
        ("png", np.uint8, 0, 38),
        ("tif", np.uint8, 0, 1),
        ("png", np.uint16, 0, 1),  # black to a reader that scales 16 bits to 8
        ("png", np.uint16, 0, 255),
        ("png", np.uint16, 0, 65535),
        ("tif", np.uint16, 0, 1),
        ("tif", np.int32, 0, 1),
        ("tif", np.int32, 0, 100_000),
        ("tif", np.float32, 0, 1),
        ("tif", np.float32, 0, 255),
        ("png", np.bool_, 0, 1),
        ("tif", np.bool_, 0, 1),
        ("npy", np.bool_, 0, 1),
        ("npy", np.int64, 0, 1),
        ("npz", np.float64, 0, 1),
    ],
)
def test_zero_is_background_and_the_other_value_foreground(
    tmp_path: Path, suffix: str, dtype: Any, low: int, high: int
) -> None:
    path = values(tmp_path / f"mask.{suffix}", np.where(TRUTH, high, low).astype(dtype))
    reading = read_mask(path)
    np.testing.assert_array_equal(reading.mask, TRUTH)
    assert reading.mask.dtype == np.bool_
    assert reading.kind == "two values"
    assert reading.remark is None


@pytest.mark.parametrize("value", [0, 1, 7, 255])
def test_a_single_value_is_empty_or_full(tmp_path: Path, value: int) -> None:
    mask = load_mask(save(tmp_path / "mask.png", np.full((4, 5), value, np.uint8)))
    assert mask.tolist() == [[value > 0] * 5] * 4


@given(truth=arrays(np.bool_, (5, 7)), high=st.integers(1, 65535))
@settings(max_examples=40, deadline=None)
def test_any_two_values_are_distinguished(
    tmp_path_factory: pytest.TempPathFactory, truth: NDArray[np.bool_], high: int
) -> None:
    dtype = np.uint8 if high < 256 else np.uint16
    path = save(tmp_path_factory.getbasetemp() / "any" / "mask.png", (truth * high).astype(dtype))
    np.testing.assert_array_equal(load_mask(path), truth)


# JPEG


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_noise_does_not_matter(tmp_path: Path, quality: int, mode: str) -> None:
    path = tmp_path / "mask.jpg"
    Image.fromarray(TRUTH.astype(np.uint8) * 255).convert(mode).save(path, quality=quality)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2  # there is noise
    reading = read_mask(path)
    assert agreement(reading.mask) > 0.97
    assert reading.remark is None
    again = tmp_path / "again.png"  # noise and all, in a format that keeps it
    Image.open(path).save(again)
    assert read_mask(again).kind == "gray levels"
    assert agreement(read_mask(again).mask) > 0.97


def test_masks_damaged_by_jpeg_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "mask.jpg"
    Image.fromarray(np.full((16, 16), 1, np.uint8)).save(path, quality=100)
    assert "of the values 0 and 1 as JPEG" in str(read_mask(path).remark)
    assert load_mask(path).all()
    Image.fromarray(TRUTH.astype(np.uint8) * 100).save(path)
    assert "nothing above 127" in str(read_mask(path).remark)
    assert not load_mask(path).any()
    Image.fromarray(np.where(TRUTH, 255, 60).astype(np.uint8)).save(path)
    assert "with much gray" in str(read_mask(path).remark)


# Labels and gray


@pytest.mark.parametrize("count", [2, 3, 20, 127, 128, 190])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_all_instance_labels_are_foreground(tmp_path: Path, count: int, dtype: Any) -> None:
    labels = instances(count)
    reading = read_mask(save(tmp_path / "mask.png", labels.astype(dtype)))
    np.testing.assert_array_equal(reading.mask, labels > 0)
    assert reading.kind == "labels"
    assert reading.remark is None


def test_hundreds_of_16_bit_instance_labels_are_foreground(tmp_path: Path) -> None:
    labels = instances(700, (200, 200))
    np.testing.assert_array_equal(load_mask(save(tmp_path / "mask.png", labels)), labels > 0)


def test_smooth_edges_are_thresholded_in_the_middle(tmp_path: Path) -> None:
    soft = Image.fromarray(TRUTH.astype(np.uint8) * 255).resize((240, 160), Image.Resampling.BICUBIC)
    truth = np.asarray(soft) > 127
    reading = read_mask(save(tmp_path / "mask.png", np.asarray(soft)))
    assert reading.kind == "gray levels"
    np.testing.assert_array_equal(reading.mask, truth)
    deep = np.asarray(soft).astype(np.uint16) * 257
    np.testing.assert_array_equal(load_mask(save(tmp_path / "deep.png", deep)), truth)
    blurred = np.asarray(soft.filter(ImageFilter.GaussianBlur(2)))
    np.testing.assert_array_equal(load_mask(save(tmp_path / "blurred.png", blurred)), blurred > 127)


def test_probabilities_are_thresholded_at_a_half(tmp_path: Path) -> None:
    probability = np.array([[0, 0.2, 0.49], [0.5, 0.7, 1]], np.float32)
    for name in ("p.npy", "p.tif"):
        reading = read_mask(values(tmp_path / name, probability))
        assert reading.mask.tolist() == [[False] * 3, [True] * 3]
        assert reading.kind == "probabilities"


@pytest.mark.parametrize(
    ("levels", "expected", "remark"),
    [
        ((0, 127, 255), (0, 1, 1), "several gray levels in flat areas"),  # a trimap
        ((0, 1, 255), (0, 1, 1), "several gray levels in flat areas"),  # VOC: a class and the void around it
        ((84, 253, 253), (0, 1, 1), "the lower one was read as background"),
        ((1, 2, 2), (1, 1, 1), "without a pixel of 0"),
        ((1, 2, 3), (1, 1, 1), "without a pixel of 0"),
    ],
)
def test_suspicious_values_are_read_by_the_rule_and_reported(
    tmp_path: Path, levels: tuple[int, ...], expected: tuple[int, ...], remark: str
) -> None:
    stripes = np.repeat(np.array(levels, np.uint8), 8)[None].repeat(16, axis=0)
    reading = read_mask(save(tmp_path / "mask.png", stripes))
    assert reading.mask[5, ::8].tolist() == [bool(e) for e in expected]
    assert remark in str(reading.remark)


def test_single_pixels_are_noise_and_not_a_label(tmp_path: Path) -> None:
    noisy = TRUTH.astype(np.uint8) * 255
    noisy[::7, ::9] ^= 1  # 0 -> 1, 255 -> 254
    reading = read_mask(save(tmp_path / "mask.png", noisy))
    np.testing.assert_array_equal(reading.mask, TRUTH)
    assert reading.kind == "gray levels"


def test_much_gray_is_reported(tmp_path: Path) -> None:
    ramp = np.arange(8)[:, None] % 2 + np.arange(255)
    reading = read_mask(save(tmp_path / "mask.png", ramp.astype(np.uint8)))
    assert "with much gray" in str(reading.remark)


# Colors


def palette(indices: NDArray[np.uint8], colors: list[tuple[int, int, int]]) -> Image.Image:
    paletted = Image.new("P", indices.shape[::-1])
    paletted.putdata([int(i) for i in indices.ravel()])
    paletted.putpalette([value for color in colors for value in color])
    return paletted


@pytest.mark.parametrize(
    ("colors", "remark"),
    [
        ([(0, 0, 0), (128, 0, 0)], None),
        ([(0, 0, 0), (0, 0, 64)], None),
        ([(0, 0, 0), (255, 255, 255)], None),
        ([(0, 0, 0), (1, 1, 1)], None),
        ([(68, 1, 84), (253, 231, 36)], "palette without black"),
        ([(0, 0, 0), (0, 0, 0)], "one color for several indices"),
    ],
)
def test_palettes_are_read_by_their_colors(
    tmp_path: Path, colors: list[tuple[int, int, int]], remark: str | None
) -> None:
    path = tmp_path / "mask.png"
    palette(TRUTH.astype(np.uint8), colors).save(path)
    assert Image.open(path).mode == "P"
    reading = read_mask(path)
    np.testing.assert_array_equal(reading.mask, TRUTH)
    assert (reading.remark is None) if remark is None else (remark in str(reading.remark))


def test_a_palette_may_have_white_first(tmp_path: Path) -> None:
    palette((~TRUTH).astype(np.uint8), [(255, 255, 255), (0, 0, 0)]).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "mask.png"), TRUTH)
    palette(np.zeros((4, 4), np.uint8), [(255, 255, 255)]).save(tmp_path / "full.png")
    assert load_mask(tmp_path / "full.png").all()


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 0, 90), (255, 255, 255), (10, 200, 30)])
def test_a_region_of_any_color_on_black_is_foreground(tmp_path: Path, color: tuple[int, int, int]) -> None:
    pixels = TRUTH[..., None] * np.array(color, np.uint8)
    np.testing.assert_array_equal(load_mask(save(tmp_path / "mask.png", pixels)), TRUTH)


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ((255, 255, 255, 255), (0, 0, 0, 255)),  # alpha says nothing
        ((255, 0, 0, 255), (0, 0, 0, 0)),  # cut out
        ((255, 255, 255, 255), (255, 255, 255, 0)),  # alpha says it all, over white
        ((0, 0, 0, 255), (0, 0, 0, 0)),  # and over black
    ],
)
def test_transparent_pixels_are_background(tmp_path: Path, inside: tuple[int, ...], outside: tuple[int, ...]) -> None:
    pixels = np.where(TRUTH[..., None], np.array(inside, np.uint8), np.array(outside, np.uint8))
    np.testing.assert_array_equal(load_mask(save(tmp_path / "mask.png", pixels)), TRUTH)
    np.testing.assert_array_equal(load_mask(save(tmp_path / "mask.webp", pixels, lossless=True, exact=True)), TRUTH)


def test_gray_with_alpha_is_read(tmp_path: Path) -> None:
    pixels = np.dstack((TRUTH.astype(np.uint8) * 255, np.full(TRUTH.shape, 255, np.uint8)))
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert Image.open(tmp_path / "mask.png").mode == "LA"
    np.testing.assert_array_equal(load_mask(tmp_path / "mask.png"), TRUTH)


# Orientation, shapes, sizes, errors


def test_the_exif_orientation_of_a_mask_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    stored = np.rot90(TRUTH).astype(np.uint8) * 255
    reading = read_mask(save(tmp_path / "mask.png", stored, exif=exif))
    np.testing.assert_array_equal(reading.mask, TRUTH)
    assert reading.turned


@pytest.mark.parametrize("shape", [(1, 40, 60), (40, 60, 1), (1, 40, 60, 1)])
def test_arrays_may_have_axes_of_length_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "mask.npy", TRUTH.reshape(shape))
    np.testing.assert_array_equal(load_mask(tmp_path / "mask.npy"), TRUTH)


def test_an_archive_of_arrays_needs_one_named_mask(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros((2, 2)), mask=TRUTH)
    np.testing.assert_array_equal(load_mask(tmp_path / "a.npz"), TRUTH)
    np.savez(tmp_path / "b.npz", x=TRUTH, y=TRUTH)
    with pytest.raises(DatasetError, match=r"b\.npz contains the arrays \['x', 'y'\]: rename the array"):
        load_mask(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[0.0, np.nan]]), "NaN or infinite"),
        (np.array([[0, -1]]), "values below 0, such as -1"),
        (np.zeros((2, 3, 3)), "shape \\(2, 3, 3\\)"),
        (np.zeros((0, 3)), "shape \\(0, 3\\)"),
        (np.array([["a", "b"]]), "type <U1"),
        (np.array([[None, {}]], dtype=object), "type object"),
    ],
)
def test_arrays_that_are_not_masks_are_refused(tmp_path: Path, array: NDArray[Any], message: str) -> None:
    np.save(tmp_path / "mask.npy", array)
    with pytest.raises(DatasetError, match=f"mask.npy.*{message}"):
        load_mask(tmp_path / "mask.npy")


@pytest.mark.parametrize(
    ("name", "error"), [("mask.npy", DatasetError), ("mask.npz", DatasetError), ("m.png", ImageError)]
)
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and so on", b"\x93NUMPY\x01\x00"])
def test_damaged_masks_are_named_in_the_error(
    tmp_path: Path, name: str, error: type[Exception], content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=name):
        load_mask(tmp_path / name)
    with pytest.raises((DatasetError, ImageError), match="missing"):
        load_mask(tmp_path / f"missing_{name}")


def test_a_file_of_several_pages_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(TRUTH), Image.fromarray(~TRUTH)]
    pages[0].save(tmp_path / "mask.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match=r"mask\.tif has 2 pages"):
        load_mask(tmp_path / "mask.tif")


def test_resized_masks_keep_pixels_that_are_half_covered() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:2, 0] = mask[0, 2] = True
    assert resize_mask(mask, (2, 2)).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(
    ("image", "mask", "answer"),
    [
        ((480, 640), (480, 640), "same"),
        ((480, 640), (240, 320), "scaled"),
        ((480, 640), (960, 1280), "scaled"),
        ((522, 775), (174, 258), "scaled"),  # 258.3: rounded
        ((522, 775), (522, 774), "scaled"),
        ((480, 640), (640, 480), "different"),
        ((480, 640), (256, 256), "different"),
        ((20, 30), (9, 9), "different"),
    ],
)
def test_sizes_of_one_image_at_several_scales_agree(image: tuple[int, int], mask: tuple[int, int], answer: str) -> None:
    assert size_agreement(image, mask) == answer
