"""Images of 8, 10, 12 or 14 bits that are stored in 16 are read as bright as they are."""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from condseg_sdk.errors import ImageError, OptionError
from condseg_sdk.images.bit_depth import bits_needed, check_bits, scale_to_uint8
from condseg_sdk.images.load import find_bits, load_image, read_image

BITS = (8, 10, 12, 14, 16)


def gradient(channels: int = 3) -> NDArray[np.uint8]:
    """Every gray level once, and white."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    return np.dstack([values, values[::-1], values.T][:channels]) if channels > 1 else values


def stored(image: NDArray[np.uint8], bits: int) -> NDArray[np.uint16]:
    """The values of a camera of so many bits: white is 2**bits - 1."""
    return np.rint(image / 255 * (2**bits - 1)).astype(np.uint16)


def encoded(values: NDArray[np.uint16], suffix: str) -> bytes:
    return cv2.imencode(suffix, values[..., ::-1] if values.ndim == 3 else values)[1].tobytes()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("channels", [1, 3])
def test_sources_of_few_bits_are_read_like_8_bit_images(bits: int, channels: int, tmp_path: Path) -> None:
    image = gradient(channels)
    values = stored(image, bits)
    wanted = load_image(image)
    tensor = torch.from_numpy(np.moveaxis(np.atleast_3d(values), -1, 0).copy())
    sources: list[object] = [values, values.astype(">u2"), tensor]
    for suffix in (".png", ".tif"):
        path = tmp_path / f"image{suffix}"
        path.write_bytes(encoded(values, suffix))
        sources += [path, path.read_bytes(), Image.open(path)]
    for source in sources:
        np.testing.assert_array_equal(load_image(source), wanted)  # type: ignore[arg-type]
        np.testing.assert_array_equal(load_image(source, bits=bits), wanted)  # type: ignore[arg-type]


def test_a_guess_is_logged_with_a_remedy(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "condseg_sdk"):
        load_image(np.full((2, 2), 900, np.uint16))
        assert "array (2, 2) uint16: 16-bit values up to 900 were read as 10 bits" in caplog.text
        assert "bits=16" in caplog.text
        caplog.clear()
        load_image(np.full((2, 2), 900, np.uint16), bits=16)
        load_image(np.full((2, 2), 40_000, np.uint16))
        load_image(np.zeros((2, 2), np.uint16))
        load_image(np.full((2, 2), 200, np.uint8))
    assert not caplog.text


def test_the_bits_of_a_set_hold_its_largest_value(tmp_path: Path) -> None:
    dark, bright = np.full((4, 4), 200, np.uint16), np.full((4, 4), 4000, np.uint16)
    (tmp_path / "dark.png").write_bytes(encoded(dark, ".png"))
    (tmp_path / "bright.tif").write_bytes(encoded(bright, ".tif"))
    Image.new("RGB", (4, 4)).save(tmp_path / "eight.jpg")
    depth = find_bits(
        [tmp_path / "dark.png", tmp_path / "eight.jpg", tmp_path / "bright.tif", tmp_path / "missing.png"]
    )
    assert depth is not None
    assert (depth.bits, depth.greatest, depth.is_guess) == (12, 4000, True)
    assert find_bits([tmp_path / "eight.jpg", np.zeros((2, 2), np.uint8)]) is None


def test_a_value_above_the_given_bits_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ImageError, match=r"array \(2, 2\) uint16 has values up to 4095.*bits=10.*pass bits=12"):
        load_image(np.full((2, 2), 4095, np.uint16), bits=10)


@pytest.mark.parametrize("bits", [7, 17, True, "12", 12.0, [12]])
def test_a_wrong_number_of_bits_is_refused(bits: object) -> None:
    with pytest.raises(OptionError, match="bits="):
        check_bits(bits)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="bits="):
        load_image(np.zeros((2, 2), np.uint8), bits=bits)  # type: ignore[arg-type]


def test_a_tiff_file_can_state_its_largest_value() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 4095  # MaxSampleValue
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), 700, np.uint16)).save(file, "TIFF", tiffinfo=tags)
    with read_image(file.getvalue()) as image:
        assert image.depth is not None
        assert (image.depth.bits, image.depth.is_guess) == (12, False)
        assert image.pixels.max() == round(700 / 4095 * 255)


def png16(values: NDArray[np.uint16], significant: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            header,
            chunk(b"sBIT", bytes([significant])),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def test_a_png_file_can_state_its_significant_bits() -> None:
    plain = load_image(png16(np.array([[0, 501, 701]], np.uint16), 12))  # in the lower bits, as cameras' programs do
    assert plain[0, :, 0].tolist() == [0, round(501 / 4095 * 255), round(701 / 4095 * 255)]
    shifted = load_image(
        png16(np.array([[0, 501 << 4, 201 << 4]], np.uint16), 12)
    )  # in the upper ones, as the standard
    assert shifted[0, :, 0].tolist() == [0, round((501 << 4) / 257), round((201 << 4) / 257)]


def test_files_that_state_white_are_read_by_it() -> None:
    values = np.array([[0, 500, 1023]], ">u2")
    pgm = b"P5 3 1 1023\n" + values.tobytes()
    for bits in (None, 16, 12):
        assert load_image(pgm, bits=bits)[0, :, 0].tolist() == [0, 125, 255]


def test_alpha_may_use_the_full_range_beside_colors_of_few_bits() -> None:
    rgba = np.array([[[4095, 2048, 0, 65535], [4095, 2048, 0, 0]]], np.uint16)
    assert load_image(rgba)[0].tolist() == [[255, 128, 0], [0, 0, 0]]
    rgba[0, :, 3] = [4095, 0]
    assert load_image(rgba)[0].tolist() == [[255, 128, 0], [0, 0, 0]]


def test_tiff_files_with_white_as_zero_are_inverted() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(file, "TIFF", tiffinfo={262: 0})
    assert load_image(file.getvalue())[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("bits", range(8, 17))
def test_scaling_rounds_to_the_nearest_value(bits: int) -> None:
    white = 2**bits - 1
    values = np.arange(0, white + 1, 7, dtype=np.uint16)[None]
    np.testing.assert_array_equal(scale_to_uint8(values, bits, "x"), np.floor(values / white * 255 + 0.5))
    assert bits_needed(white) == next(common for common in BITS if common >= bits)


def test_finding_bits_decodes_no_8_bit_file_and_consumes_no_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.zeros((4, 5, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    files = sorted(tmp_path.iterdir())
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("an image was decoded"))
    assert find_bits([*files, *(path.read_bytes() for path in files)]) is None

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    pipe = Pipe(files[0].read_bytes())
    assert find_bits([pipe]) is None
    assert pipe.tell() == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_finding_bits_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert find_bits([tmp_path / "pipe.png"]) is None


@pytest.mark.parametrize("suffix", [".pgm", ".ppm", ".jp2"])
def test_declaring_all_16_bits_does_not_state_the_bits_in_use(suffix: str, tmp_path: Path) -> None:
    values = np.zeros((64, 64) if suffix == ".pgm" else (64, 64, 3), np.uint16)
    values[:, 20:40], values[:, 40:] = 2000, 4095
    shapes = [values] if suffix != ".jp2" else [values, values[..., 0]]
    for index, shown in enumerate(shapes):
        path = tmp_path / f"{index}{suffix}"
        assert cv2.imwrite(str(path), shown, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if suffix == ".jp2" else [])
        for bits, white in ((None, 255), (12, 255), (14, 64), (16, 16)):
            for source in (path, path.read_bytes(), Image.open(path)):
                read = load_image(source, bits=bits)
                assert read[0, [0, -1], 0].tolist() == [0, white]
        depth = find_bits([path])
        assert depth is not None
        assert (depth.bits, depth.greatest, depth.is_guess) == (12, 4095, True)


def test_a_text_color_file_that_declares_all_bits_is_read_with_those_in_use() -> None:
    ppm = b"P3 2 1 65535\n0 2048 4095 4095 4095 4095"
    assert load_image(ppm)[0].tolist() == [[0, 128, 255], [255, 255, 255]]
    assert load_image(ppm, bits=16)[0].tolist() == [[0, 8, 16], [16, 16, 16]]


@pytest.mark.parametrize("magic", [b"P5", b"P6", b"P2", b"P3"])
def test_a_smaller_maximum_of_a_pnm_file_is_white(magic: bytes) -> None:
    channels = 3 if magic in (b"P3", b"P6") else 1
    values = np.repeat([0, 500, 1000], channels).astype(">u2")
    data = values.tobytes() if magic in (b"P5", b"P6") else " ".join(map(str, values)).encode()
    for bits in (None, 12, 16):
        read = load_image(magic + b" 3 1 4095\n" + data, bits=bits)
        assert read[0, :, 0].tolist() == [0, 31, 62]


def marked(spot: int, size: int = 128) -> NDArray[np.uint16]:
    """An image of 12 bits with a square burnt in at 65535."""
    values = np.full((size, size), 2048, np.uint16)
    values[-8:] = 4095
    values[:spot, :spot] = 65535
    return values


def test_a_small_text_in_the_image_does_not_change_the_bits(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(encoded(marked(3), ".png"))
    for bits in (None, 12):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "condseg_sdk"):
            pixels = load_image(path, bits=bits)
        assert pixels[[0, 64, -1], [0, 64, -1], 0].tolist() == [255, 128, 255]
        assert len(caplog.records) == 1
        assert "scan.png: " in caplog.text
        assert "0.05% of the pixels are above 4095, up to 65535" in caplog.text
    depth = find_bits([path, marked(0)])
    assert depth is not None
    assert (depth.bits, depth.greatest, depth.is_guess) == (12, 65535, True)


def test_pixels_above_the_bits_are_logged_or_refused() -> None:
    with read_image(marked(10)) as image:  # 0.6 %: too much to be passed over unasked, and little enough to be clipped
        assert image.depth is not None
        assert (image.depth.bits, image.depth.is_guess) == (16, True)
        assert "most pixels are below 4096" in image.depth.describe()
        assert "such as bits=12" in image.depth.describe()
    assert load_image(marked(10), bits=12)[64, 64, 0] == 128
    with pytest.raises(ImageError, match=r"65535 in 2.4% of its pixels.*bits=12 can hold.*pass bits=16, or .* 4095"):
        load_image(marked(20), bits=12)
    depth = find_bits([marked(10), np.full((8, 8), 60_000, np.uint16)])
    assert depth is not None
    assert (depth.bits, depth.is_guess) == (16, False)


def test_a_large_mark_in_a_12_bit_image_is_reported_and_not_read_silently_as_16_bits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scan = np.full((100, 100), 3000, np.uint16)
    scan[:5] = 65535  # 5 % of the pixels
    load_image(scan)
    assert (
        "were read as 16 bits (white is 65535), and most pixels are below 4096; if that is almost black" in caplog.text
    )
    caplog.clear()
    scan[:50] = 65535
    load_image(scan)
    assert caplog.text == ""
