"""Whatever a user gives becomes upright RGB uint8, or a one-line error with a remedy."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from condseg_sdk.errors import CondsegError, ImageError, OptionError
from condseg_sdk.images.files import open_encoded
from condseg_sdk.images.load import find_images, is_single, load_image, source_name
from condseg_sdk.images.video import Video

FORMATS = {
    "1": ["PNG", "TIFF", "BMP"],
    "L": ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF"],
    "LA": ["PNG", "TIFF"],
    "P": ["PNG", "GIF", "TIFF", "BMP"],
    "RGB": ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "JPEG2000"],
    "RGBA": ["PNG", "TIFF", "WEBP"],
    "I;16": ["PNG", "TIFF"],
    "CMYK": ["JPEG", "TIFF"],
}
SIZES = st.one_of(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from([(1, 1), (5000, 7), (7, 5000)]))
# The eight orientations of the EXIF standard: what to do to the stored rows and columns to display them.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def picture(mode: str, size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Random pixels in any mode; (width, height)."""
    width, height = size
    random = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 65536, (height, width), np.uint16))
    if mode in ("1", "P"):
        rgb = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
        return rgb.convert(mode) if mode == "1" else rgb.quantize(16)
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = random.integers(0, 256, (height, width, bands), np.uint8)
    return Image.frombytes(mode, size, pixels.tobytes())


def encode(image: Image.Image, format: str, orientation: int | None = None) -> bytes:
    file = io.BytesIO()
    options = {"lossless": True} if format == "WEBP" else {}
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(file, format, **options)
    return file.getvalue()


def tiny_jpeg() -> bytes:
    return encode(picture("RGB", (64, 48)), "JPEG")


def bomb() -> bytes:
    """A PNG of a few bytes whose header announces 60000x60000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def refused(source: object, error: type[CondsegError] = ImageError, **options: str) -> str:
    with pytest.raises(error) as caught:
        load_image(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message, "what was wrong; what to do about it"
    return message


class TestWhatIsRead:
    @given(
        mode_format=st.sampled_from([(mode, format) for mode, formats in FORMATS.items() for format in formats]),
        size=SIZES,
        orientation=st.integers(1, 8),
        seed=st.integers(0, 99),
    )
    @settings(deadline=None, max_examples=150)
    def test_any_mode_size_and_orientation_is_read_as_a_viewer_shows_it(
        self, mode_format: tuple[str, str], size: tuple[int, int], orientation: int, seed: int
    ) -> None:
        mode, format = mode_format
        has_exif = format in ("JPEG", "PNG", "TIFF", "WEBP")
        data = encode(picture(mode, size, seed), format, orientation if has_exif else None)
        shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))

        pixels = load_image(data)

        assert (pixels.shape, pixels.dtype) == ((shown.height, shown.width, 3), np.uint8)
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, load_image(Image.open(io.BytesIO(data))))
        if shown.mode in ("1", "L", "RGB", "CMYK"):
            np.testing.assert_array_equal(pixels, np.asarray(shown.convert("RGB")))

    @pytest.mark.parametrize("orientation", UPRIGHT)
    @pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
    def test_orientation_follows_the_exif_standard(self, orientation: int, format: str) -> None:
        stored = picture("RGB", (5, 3))
        pixels = load_image(encode(stored, format, orientation))
        np.testing.assert_array_equal(pixels, UPRIGHT[orientation](np.asarray(stored)))

    def test_path_bytes_pil_and_array_give_the_same_image(self, tmp_path: Path) -> None:
        image = picture("RGB", (9, 4))
        path = tmp_path / "a.png"
        image.save(path)
        data = path.read_bytes()
        for source in (path, str(path), data, bytearray(data), memoryview(data), image):
            np.testing.assert_array_equal(load_image(source), np.asarray(image))

    def test_the_format_is_recognized_by_content_and_not_by_suffix(self, tmp_path: Path) -> None:
        path = tmp_path / "photo.png"
        path.write_bytes(tiny_jpeg())
        assert load_image(path).shape == (48, 64, 3)

    @pytest.mark.parametrize("format", FORMATS["I;16"])
    def test_16_bit_is_divided_by_257_and_rounded(self, format: str) -> None:
        values = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
        wanted = [0, 0, 1, 1, 128, 255]  # 128 / 257 = 0.498, 129 / 257 = 0.502, 32896 / 257 = 128
        for source in (
            values,
            encode(Image.fromarray(values), format),
            Image.fromarray(values.astype(np.int32)),
        ):
            assert load_image(source)[0, :, 1].tolist() == wanted

    def test_big_endian_16_bit_is_read(self) -> None:
        assert load_image(np.array([[257 * 7]], ">u2"), bits=16).tolist() == [[[7, 7, 7]]]

    def test_16_bit_color_files_are_read_to_within_one_level(self) -> None:
        values = np.random.default_rng(0).integers(0, 65536, (20, 20, 3), np.uint16)
        for suffix in (".png", ".tif"):
            data = cv2.imencode(suffix, values[..., ::-1])[1].tobytes()
            assert np.abs(load_image(data).astype(int) - np.rint(values / 257)).max() <= 1

    def test_transparent_pixels_are_black(self) -> None:
        # 200 * 128 / 255 = 100.4, 100 * 128 / 255 = 50.2, 50 * 128 / 255 = 25.1
        rgba = np.array([[[200, 100, 50, 128], [200, 100, 50, 255], [200, 100, 50, 0]]], np.uint8)
        wanted = [[[100, 50, 25], [200, 100, 50], [0, 0, 0]]]
        for source in (rgba, Image.fromarray(rgba), encode(Image.fromarray(rgba), "PNG")):
            assert load_image(source).tolist() == wanted
        assert load_image(Image.new("LA", (1, 1), (200, 128))).tolist() == [[[100, 100, 100]]]

    def test_a_palette_with_a_transparent_entry_is_read(self) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([255, 0, 0, 0, 255, 0])
        image.putpixel((1, 0), 1)
        file = io.BytesIO()
        image.save(file, "PNG", transparency=1)
        assert load_image(file.getvalue()).tolist() == [[[255, 0, 0], [0, 0, 0]]]

    def test_bilevel_and_cmyk_are_read(self) -> None:
        assert load_image(Image.new("1", (1, 1), 1)).tolist() == [[[255, 255, 255]]]
        assert load_image(Image.new("CMYK", (1, 1), (0, 255, 255, 0))).tolist() == [[[255, 0, 0]]]

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_floats_from_0_to_1_are_read(self, dtype: type) -> None:
        array = np.array([[0, 0.2, 0.6, 1]], dtype)
        assert load_image(array)[0, :, 0].tolist() == [0, 51, 153, 255]

    @given(kind=st.sampled_from(["uint8", "float32", "bfloat16"]), channels=st.sampled_from([1, 3]), size=SIZES)
    @settings(deadline=None, max_examples=30)
    def test_a_tensor_is_read_like_its_array(self, kind: str, channels: int, size: tuple[int, int]) -> None:
        values = torch.randint(0, 256, (channels, *size), dtype=torch.uint8)
        tensor = values if kind == "uint8" else (values / 255).to(getattr(torch, kind))
        rounding = 1 if kind == "bfloat16" else 0
        wanted = load_image(values.permute(1, 2, 0).numpy())
        assert np.abs(load_image(tensor).astype(int) - wanted).max() <= rounding

    @pytest.mark.parametrize("channels", [3, 4])
    def test_bgr_arrays_are_converted_to_rgb(self, channels: int) -> None:
        rgba = np.array([[[1, 2, 3, 255]]], np.uint8)[..., :channels]
        bgra = rgba[..., [2, 1, 0, 3][:channels]]
        assert load_image(bgra, color_order="bgr").tolist() == [[[1, 2, 3]]]
        assert load_image(rgba).tolist() == [[[1, 2, 3]]]

    def test_strided_arrays_become_contiguous(self) -> None:
        array = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
        pixels = load_image(array[::-2, ::3])
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, array[::-2, ::3])

    def test_a_phone_photo_with_a_preview_is_one_image(self) -> None:
        file = io.BytesIO()
        photo, preview = picture("RGB", (32, 24)), picture("RGB", (8, 6))
        photo.save(file, "MPO", save_all=True, append_images=[preview])
        assert Image.open(file).format == "MPO"
        assert load_image(file.getvalue()).shape == (24, 32, 3)

    def test_the_current_page_of_several_is_read(self) -> None:
        pages = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
        file = io.BytesIO()
        pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
        image = Image.open(file)
        image.seek(1)
        assert load_image(image)[0, 0].tolist() == [0, 0, 255]

    def test_damaged_exif_data_is_ignored(self) -> None:
        file = io.BytesIO()
        picture("RGB", (5, 3)).save(file, "JPEG", exif=b"Exif\0\0not a TIFF header")
        assert load_image(file.getvalue()).shape == (3, 5, 3)


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    """A chunk of a PNG file, with a checksum of its own if one is given."""
    check = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def with_chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    """A PNG file with one more chunk before its pixels."""
    png = encode(picture("RGB", (64, 48)), "PNG")
    return png[:33] + chunk(kind, data, crc) + png[33:]


def with_segment(segment: bytes) -> bytes:
    jpeg = tiny_jpeg()
    return jpeg[:2] + segment + jpeg[2:]


SHOWN_BY_VIEWERS = {
    "text with a wrong checksum": with_chunk(b"tEXt", b"a\0b", 1),
    "damaged color profile": with_chunk(b"iCCP", b"x\0\0garbage", 1),
    "damaged EXIF": with_chunk(b"eXIf", b"garbage"),
    "damaged resolution": with_chunk(b"pHYs", b"a"),
    "damaged gamma": with_chunk(b"gAMA", b""),
    "damaged chromaticities": with_chunk(b"cHRM", b"123"),
    "damaged sRGB": with_chunk(b"sRGB", b""),
    "damaged animation": with_chunk(b"acTL", b"1"),
    "a large compressed text": with_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000))),
    "a large color profile": with_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(5_000_000))),
    "unknown chunk": with_chunk(b"abCd", b"xx", 5),
    "PNG with bytes behind it": encode(picture("RGB", (64, 48)), "PNG") + b"xyz" * 100,
    "PNG without its last chunk": encode(picture("RGB", (64, 48)), "PNG")[:-12],
    "JPEG with bytes behind it": tiny_jpeg() + bytes(5000),
    "JPEG with a damaged Adobe segment": with_segment(b"\xff\xee\x00\x06Adob"),
    "JPEG with a damaged color profile": with_segment(b"\xff\xe2\x00\x14ICC_PROFILE\0\x01\x05xx"),
    "BMP with a wrong size": (lambda bmp: bmp[:2] + bytes(4) + bmp[6:])(encode(picture("RGB", (64, 48)), "BMP")),
    "GIF without its end": encode(picture("L", (64, 48)), "GIF")[:-1],
    "WebP with bytes behind it": encode(picture("RGB", (64, 48)), "WEBP") + b"0" * 99,
}


class TestWhatViewersShow:
    @pytest.mark.parametrize("data", SHOWN_BY_VIEWERS.values(), ids=list(SHOWN_BY_VIEWERS))
    def test_an_image_that_viewers_show_is_read(self, data: bytes) -> None:
        pixels = load_image(data)
        assert pixels.shape == (48, 64, 3)
        assert pixels.std() > 20

    def test_a_few_missing_rows_are_black_and_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        jpeg = encode(picture("RGB", (64, 480)), "JPEG")
        with caplog.at_level(logging.WARNING, "condseg_sdk"):
            pixels = load_image(jpeg[: int(len(jpeg) * 0.985)])
        assert "of its 480 rows are missing" in caplog.text
        assert (pixels[:450] > 0).any(axis=(1, 2)).all()
        assert not pixels[-1].any()

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM"])
    def test_half_a_file_is_an_error(self, format: str) -> None:
        data = encode(picture("RGB" if format != "GIF" else "L", (64, 480)), format)
        assert "damaged or incomplete" in refused(data[: len(data) // 2])

    @pytest.mark.parametrize(
        "compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma", "jpeg"]
    )
    def test_compressed_tiff_files_are_read(self, compression: str | None) -> None:
        image, file = picture("RGB", (64, 48)), io.BytesIO()
        image.save(file, "TIFF", compression=compression)
        difference = np.abs(load_image(file.getvalue()).astype(int) - np.asarray(image))
        assert difference.mean() < (60 if compression == "jpeg" else 1e-9)

    @pytest.mark.parametrize("compression", ["group3", "group4"])
    def test_fax_images_are_read(self, compression: str) -> None:
        image, file = picture("1", (64, 48)), io.BytesIO()
        image.save(file, "TIFF", compression=compression)
        np.testing.assert_array_equal(load_image(file.getvalue())[..., 0], np.asarray(image) * 255)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_float_tiff_files_are_read(self, dtype: type, channels: int) -> None:
        rgb = np.asarray(picture("RGB", (9, 4)))
        image = rgb if channels == 3 else rgb[..., 0]
        values = (image / 255).astype(dtype)
        data = cv2.imencode(".tif", values[..., ::-1] if channels == 3 else values)[1].tobytes()
        np.testing.assert_array_equal(load_image(data), load_image(image))
        too_bright = cv2.imencode(".tif", (values * 255)[..., ::-1] if channels == 3 else values * 255)[1].tobytes()
        assert "bring them to [0, 1] and pass the array" in refused(too_bright)

    def test_pillow_does_not_warn_about_a_hundred_million_pixels(self, recwarn: pytest.WarningsRecorder) -> None:
        file = io.BytesIO()
        Image.new("1", (10_000, 10_000)).save(file, "PNG")
        with open_encoded(io.BytesIO(file.getvalue()), "large.png", ExitStack()) as image:
            assert image.size == (10_000, 10_000)
        assert not [warning for warning in recwarn if "ecompression" in str(warning.message)]

    @pytest.mark.parametrize(
        ("suffix", "format"), [(".jfif", "JPEG"), (".jpe", "JPEG"), (".pbm", "PPM"), (".avif", "AVIF")]
    )
    def test_files_of_other_suffixes_are_refused(self, suffix: str, format: str, tmp_path: Path) -> None:
        picture("1" if suffix == ".pbm" else "RGB", (64, 48)).save(tmp_path / f"a{suffix}", format)
        (found,) = find_images(tmp_path)
        assert load_image(found).shape == (48, 64, 3)

    def test_heic_without_pillow_heif_names_the_package(self) -> None:
        heic = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(100)
        message = refused(heic)
        assert "pip install pillow-heif" in message or "damaged" in message


def webp_of(width: int, height: int) -> bytes:
    """34 bytes that are a lossless WebP image of one color and of any size."""
    data = b"\x2f" + struct.pack("<I", (width - 1) | ((height - 1) << 14)) + bytes(9)
    body = b"WEBPVP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def run_length_bmp(width: int, height: int) -> bytes:
    data = b"\1\0\0\0" * 200 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 2835, 2835, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(data), 0, 0, 14 + len(header)) + header + data


class TestBudgets:
    @pytest.mark.parametrize(
        "data",
        [
            webp_of(16_383, 16_383),
            webp_of(13_000, 13_000),
            run_length_bmp(100_000, 1_000),
            b"GIF89a"
            + struct.pack("<HHHB", 65_535, 65_535, 0, 0)
            + b","
            + struct.pack("<4H", 0, 0, 65_535, 65_535)
            + b"\0\2\0;",
        ],
        ids=["webp", "smaller webp", "bmp", "gif"],
    )
    def test_a_huge_image_in_a_small_file_is_refused_by_its_header(self, data: bytes) -> None:
        began = time.monotonic()
        assert "pixels" in refused(data)
        assert time.monotonic() - began < 2

    @pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG"])
    def test_twenty_million_black_pixels_are_read(self, format: str) -> None:
        file = io.BytesIO()
        Image.new("L", (5_000, 4_000)).save(file, format)
        assert load_image(file.getvalue()).shape == (4_000, 5_000, 3)

    def test_conversion_in_strips_equals_conversion_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for mode in ("RGB", "RGBA", "P", "CMYK", "1"):
            for orientation in UPRIGHT:
                image = picture(mode, (31, 17))
                image.getexif()[0x0112] = orientation
                whole = load_image(image)
                monkeypatch.setattr("condseg_sdk.images.load.STRIP_PIXELS", 100)
                np.testing.assert_array_equal(load_image(image), whole)
                monkeypatch.undo()


class TestOddSourcesInMemory:
    def test_a_file_object_keeps_its_position(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        picture("RGB", (9, 4)).save(path)
        with path.open("rb") as file:
            assert load_image(file).shape == load_image(file).shape == (4, 9, 3)
        assert str(path) in refused(file)
        with path.open("r", encoding="latin-1") as text:
            assert "'rb'" in refused(text)
        assert "seek(0)" in refused(io.BytesIO())

    def test_a_closed_pil_image_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        picture("RGB", (9, 4)).save(path)
        with Image.open(path) as image:
            pass
        assert "closed" in refused(image)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: np.ma.masked_array(np.zeros((2, 2), np.uint8), mask=True),
            lambda: np.zeros((2, 2), object),
            lambda: np.zeros((2, 2), [("r", np.uint8), ("g", np.uint8)]),
            lambda: np.zeros((2, 2), complex),
            lambda: np.array(5, np.uint8),
            lambda: torch.zeros(3, 2, 2).to_sparse(),
            lambda: torch.zeros(3, 2, 2, device="meta"),
            lambda: torch.quantize_per_tensor(torch.zeros(3, 2, 2), 1.0, 0, torch.quint8),
            lambda: torch.zeros(3, 2, 2, dtype=torch.complex64),
        ],
    )
    @pytest.mark.filterwarnings("ignore")
    def test_arrays_and_tensors_that_are_not_images_are_refused(self, make: Callable[[], object]) -> None:
        refused(make())

    def test_tensors_without_values_are_refused(self) -> None:
        values = torch.rand(3, 4, 5)
        wanted = load_image(values)
        np.testing.assert_array_equal(load_image(values.clone().requires_grad_()), wanted)
        np.testing.assert_array_equal(load_image(values.permute(0, 2, 1).contiguous().permute(0, 2, 1)), wanted)
        np.testing.assert_array_equal(load_image(values.double()), wanted)


class TestWhatIsRefused:
    def test_files_that_are_not_images(self, tmp_path: Path) -> None:
        def file(name: str, data: bytes) -> Path:
            (tmp_path / name).write_bytes(data)
            return tmp_path / name

        refusals = {
            file("empty.png", b""): "empty",
            file("text.png", b"this is no image"): "not an image that can be read",
            file("cut.jpg", tiny_jpeg()[:-300]): "damaged or incomplete",
            file("header.jpg", tiny_jpeg()[:60]): "",
            file("bomb.png", bomb()): "178,956,970 pixels",
            file("scan.dcm", b"\0" * 128 + b"DICM" + b"\0" * 64): "DICOM",
            file("film.mp4", b"ftyp"): "predictor.stream",
            file("drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"): "not an image that can be read",
            tmp_path / "missing.png": "does not exist",
            tmp_path / "empty.png" / "below_a_file.png": "does not exist",
            tmp_path: "folder",
            tmp_path / ("x" * 300): "cannot be opened",
            tmp_path / "null\0byte": "cannot be opened",
        }
        for path, reason in refusals.items():
            message = refused(path)
            assert path.name.replace("\0", " ") in message
            assert reason in message

    @pytest.mark.parametrize(
        ("suffix", "codec"),
        [
            (".avi", "MJPG"),
            (".mkv", "mp4v"),
            (".mov", "mp4v"),
            (".mp4", "mp4v"),
            (".mpg", "mpg2"),
            (".webm", "VP80"),
            (".wmv", "WMV2"),
        ],
    )
    @pytest.mark.parametrize("name", ["clip.jpg", "clip"])
    def test_a_video_with_another_suffix_is_refused_with_a_remedy(
        self, suffix: str, codec: str, name: str, tmp_path: Path
    ) -> None:
        made = tmp_path / f"made{suffix}"
        writer = cv2.VideoWriter(str(made), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
        if not writer.isOpened():
            pytest.skip(f"this OpenCV writes no {suffix}")
        for _ in range(5):
            writer.write(np.full((48, 64, 3), 90, np.uint8))
        writer.release()
        path = made.rename(tmp_path / name)
        assert refused(path) == f"{path} is a video, not an image; rename it to clip{suffix}"
        assert f"write it to a {suffix} file and pass its path to predictor.stream" in refused(path.read_bytes())
        (tmp_path / f"clip{suffix}").write_text("another file, which keeps its name")
        renamed = f"clip-video{suffix}"
        assert refused(path).endswith(f"; rename it to {renamed}")
        assert len(list(Video(path.rename(tmp_path / renamed)))) == 5

    def test_files_that_begin_like_a_video_are_refused(self, tmp_path: Path) -> None:
        for brand in (b"crx ", b"M4A "):  # a camera's raw image, and sound
            (tmp_path / "file.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(100))
            assert "not an image that can be read" in refused(tmp_path / "file.jpg")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_a_file_without_permission_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.png"
        path.write_bytes(tiny_jpeg())
        path.chmod(0)
        assert "cannot be opened" in refused(path)

    @pytest.mark.parametrize("format", ["TIFF", "GIF", "PNG", "WEBP"])
    def test_files_of_several_pages_are_refused(self, format: str) -> None:
        file = io.BytesIO()
        pages = [picture("RGB", (4, 4), seed) for seed in range(3)]
        pages[0].save(file, format, save_all=True, append_images=pages[1:])
        assert "3 pages" in refused(file.getvalue())

    @pytest.mark.parametrize(
        ("array", "reason"),
        [
            (np.full((2, 2), np.nan), "NaN"),
            (np.full((2, 2), np.inf), "NaN or infinite"),
            (np.full((2, 2), 255.0), "from 255 to 255"),
            (np.full((2, 2), -0.1), "from -0.1"),
            (np.zeros((2, 2), np.int64), "int64"),
            (np.zeros((2, 2), bool), "bool"),
            (np.array([["a"]]), "wrong type"),
            (np.zeros(5, np.uint8), "wrong shape"),
            (np.zeros((3, 2, 2), np.uint8), "(3, 2, 2)"),
            (np.zeros((1, 4, 4, 3), np.uint8), "(1, 4, 4, 3)"),
            (np.zeros((0, 4, 3), np.uint8), "no pixels"),
            (torch.zeros(1, 3, 4, 4), "tensor (1, 3, 4, 4) float32"),
            (torch.zeros(4, 4, 3), "tensor (4, 4, 3)"),
            (torch.full((3, 2, 2), 2.0), "from 2 to 2"),
            (Image.new("I", (2, 2), 70_000), "70000"),
            (Image.new("F", (2, 2), 3.0), "from 3 to 3"),
            (Image.new("RGB", (0, 2)), "no pixels"),
            (Image.new("La", (2, 2)), "conversion"),
            (b"", "empty"),
            (7, "type int"),
            (None, "NoneType"),
        ],
    )
    def test_wrong_values_in_memory_are_refused(self, array: object, reason: str) -> None:
        assert reason in refused(array)

    def test_a_color_order_for_other_sources_than_arrays_is_refused(self, tmp_path: Path) -> None:
        assert "photo.jpg" in refused(tmp_path / "photo.jpg", OptionError, color_order="bgr")
        with pytest.raises(OptionError, match="'rgb', 'bgr'"):
            load_image(np.zeros((2, 2), np.uint8), color_order="RGB")  # type: ignore[arg-type]

    @given(
        format=st.sampled_from(["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000"]),
        keep=st.floats(0, 1),
        noise=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
    )
    @settings(deadline=None, max_examples=300)
    @pytest.mark.filterwarnings("ignore")
    def test_damaged_files_never_raise_an_error_of_pillow(
        self, format: str, keep: float, noise: list[tuple[float, int]]
    ) -> None:
        data = bytearray(encode(picture("RGB", (24, 18)), format))
        for position, value in noise:
            data[int(position * len(data))] = value
        with contextlib.suppress(ImageError):
            assert load_image(bytes(data[: int(keep * len(data))])).ndim == 3


class TestWhichImagesAreMeant:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in (
            "b.png",
            "a.JPG",
            "sub/c.tiff",
            "notes.txt",
            ".hidden.png",
            ".cache/d.png",
            "odd[1].png",
        ):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    def test_a_folder_means_its_images(self, folder: Path) -> None:
        names = [path.relative_to(folder).as_posix() for path in find_images(folder)]
        assert names == ["a.JPG", "b.png", "odd[1].png", "sub/c.tiff"]
        assert find_images(str(folder)) == find_images(folder)

    def test_a_folder_with_brackets_in_its_name_is_not_a_pattern(self, folder: Path) -> None:
        odd = folder / "[x]"
        odd.mkdir()
        (odd / "e.png").touch()
        assert find_images(odd) == [odd / "e.png"]

    def test_a_pattern_means_the_images_that_it_matches(self, folder: Path) -> None:
        assert [path.name for path in find_images(f"{folder}/*.png")] == ["b.png", "odd[1].png"]
        assert [path.name for path in find_images(f"{folder}/**/*.tiff")] == ["c.tiff"]
        assert [path.name for path in find_images(f"{folder}/*")] == ["a.JPG", "b.png", "odd[1].png"]

    def test_an_existing_file_is_not_a_pattern(self, folder: Path) -> None:
        assert find_images(folder / "odd[1].png") == [folder / "odd[1].png"]

    def test_a_list_keeps_its_order_and_its_objects(self, folder: Path) -> None:
        array = np.zeros((2, 2), np.uint8)
        found = find_images(["z.png", array, folder / "sub", folder / "b.png"])
        assert found[0] == Path("z.png")
        assert found[1] is array
        assert found[2:] == [folder / "sub" / "c.tiff", folder / "b.png"]

    @pytest.mark.parametrize("source", ["nothing/*.png", [], (), "empty"])
    def test_a_source_without_images_is_an_error(
        self, source: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty").mkdir()
        with pytest.raises(ImageError, match="no image;"):
            find_images(source)

    def test_single_images_and_several_are_distinguished(self, folder: Path) -> None:
        for one in (
            folder / "odd[1].png",
            "missing.png",
            "x" * 5000,
            b"data",
            np.zeros((2, 2)),
            Image.new("L", (1, 1)),
        ):
            assert is_single(one)
        for many in (folder, f"{folder}/*.png", ["a.png"], ()):
            assert not is_single(many)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (Path("scans/frame.jpg"), "scans/frame.jpg"),
        (np.zeros((480, 640, 3), np.uint8), "array (480, 640, 3) uint8"),
        (torch.zeros(3, 4, 5), "tensor (3, 4, 5) float32"),
        (Image.new("L", (640, 480)), "PIL image L 640x480"),
        (b"abc", "image data of 3 bytes"),
    ],
)
def test_sources_are_named_in_messages(source: object, name: str) -> None:
    assert source_name(source) == name


@pytest.mark.parametrize("address", ["https://example.org/a.png", "file:///data/a.png"])
def test_a_url_is_not_a_path(address: str) -> None:
    with pytest.raises(ImageError, match="is a URL, not a path; download the file and pass its path"):
        load_image(address)


@pytest.mark.parametrize("read", [load_image, find_images, Video, lambda path: find_images([path])])
def test_an_empty_path_is_not_the_current_folder(read: Callable[[str], object]) -> None:
    with pytest.raises(ImageError, match="the path is an empty string; pass the path of an image"):
        read("")
