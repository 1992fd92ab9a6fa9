"""Opens image files and encoded bytes after a check of their header, with every error in one line."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, PngImagePlugin, TiffImagePlugin

from condseg_sdk.errors import ImageError, errors_about
from condseg_sdk.images.dicom import DicomFile, is_dicom
from condseg_sdk.images.formats import (
    HEIF_REMEDY,
    VIDEO_SUFFIXES,
    bytes_per_pixel,
    identify,
    identify_video,
    register_heif,
    webp_size,
)
from condseg_sdk.images.limits import DECODE_BUDGET, check_size, image_errors, require_file
from condseg_sdk.opencv import cv2

__all__ = [
    "StoredBits",
    "is_deep_color",
    "is_white_zero",
    "load_pixels",
    "open_encoded",
    "open_image",
    "orientation_of",
    "read_deep_color",
    "read_rare_tiff",
    "states_range",
    "stored_bits",
]

logger = logging.getLogger("condseg_sdk")

MISSING_ROWS = 0.05
"""Share of an image's rows that may be missing at the end of a truncated file, which viewers show as well."""

# Pillow's own blocks of 16 MB stay in the heap of each thread that decoded a large image; glibc gives blocks of more
# than 32 MB back to the system. Small images take no more than they need.
Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]
_MAX_RUN_LENGTH_PIXELS = 20_000_000  # Pillow decodes run-length BMP files in Python, byte by byte
_JPEG2000_HEAD = 2**20  # bytes in which a JPEG 2000 file's codestream begins, after color profiles and the like
_HEAD = 132  # bytes; a DICOM file has its signature at the end of them
_SEQUENTIAL = frozenset({"BMP", "JPEG", "PNG", "PPM", "TIFF"})  # formats that are stored row by row
_PLAIN_TIFF = frozenset({1, 5, 8, 32773, 32946})  # compressions that OpenCV reads: none, LZW, deflate, PackBits
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _MAX_SAMPLE_VALUE, _PLANAR = 258, 259, 262, 281, 284
_SEPARATE_PLANES = 2


def open_file(path: Path) -> IO[bytes]:
    """Open a file that may contain an encoded image.

    Raises:
        ImageError: The file is missing, empty, a folder or a video, or cannot be read.
    """
    require_file(path)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise ImageError(f"{path} is a video, not an image; use predictor.stream({str(path)!r})")
    try:
        return path.open("rb")
    except OSError as error:
        raise ImageError(f"{path} cannot be opened ({error.strerror}); check its permissions") from error


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file to read its stored values, orientation or size.

    The header is read, and the same files are refused as in `load_image`. Pixels are decoded on demand inside the
    `with` block, where Pillow's errors become ImageErrors as well. For a DICOM file the image is RGB.

    Raises:
        ImageError: The file is missing, damaged, too large, not an image, or of a kind that is not supported.

    Example:
        >>> with open_image(Path("frame.jpg")) as image:
        ...     print(image.mode, image.size)
        RGB (120, 90)
    """
    with errors_about(path), ExitStack() as reservations, open_file(path) as file:
        if is_dicom(file.read(_HEAD)):
            yield Image.fromarray(DicomFile(path).only_frame().decode())
            return
        file.seek(0)
        yield reservations.enter_context(open_encoded(file, str(path), reservations))


@contextmanager
def open_encoded(file: IO[bytes], name: str, reservations: ExitStack) -> Iterator[ImageFile.ImageFile]:
    """Open an encoded image after a check of its header.

    Args:
        file: Encoded image, at its beginning, seekable.
        name: Name of the image for messages.
        reservations: Releases the memory reserved for decoding when it is closed.
    """
    with image_errors(name):
        head = file.read(_HEAD)
    if not head:
        raise ImageError(f"{name} is empty; read the file again")
    format = identify(head)
    if format is None:
        if (suffix := identify_video(head)) is not None:
            raise ImageError(f"{name} is a video, not an image; {_video_remedy(file, suffix)}")
        remedy = "save it as PNG, JPEG, TIFF, BMP or WebP"
        raise ImageError(f"{name} is not an image that can be read; {remedy}")
    if format == "HEIF" and not register_heif():
        raise ImageError(f"{name} is a HEIC image, which needs pillow-heif; {HEIF_REMEDY}, or save it as PNG or JPEG")
    if format == "WEBP" and (size := webp_size(head)) is not None:
        check_size(size, 17, name)  # Pillow allocates its pixels at opening
    with image_errors(name), _opened_as_viewers_do(file, format, name) as image:
        is_deep = image._condseg_is_deep = is_deep_color(image)  # type: ignore[attr-defined]
        cost = bytes_per_pixel(image, is_deep_color=is_deep)
        check_size(image.size, cost, name)
        if (
            any(tile.codec_name == "bmp_rle" for tile in image.tile)
            and image.width * image.height > _MAX_RUN_LENGTH_PIXELS
        ):
            remedy = "save it as PNG, or as BMP without compression"
            raise ImageError(
                f"{name} is a run-length BMP file of more than {_MAX_RUN_LENGTH_PIXELS:,} pixels; {remedy}"
            )
        # Phones store a photo with a preview or a gain map as MPO, whose first image is the photo.
        pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if pages > 1:
            remedy = "open it with PIL.Image.open, seek() to one and pass that"
            raise ImageError(f"{name} has {pages} pages or frames; {remedy}")
        reservations.enter_context(DECODE_BUDGET.reserve(cost * image.width * image.height))
        yield image


def _video_remedy(file: IO[bytes], suffix: str) -> str:
    """Say what to do with a video that is named like an image, or has no name."""
    path = getattr(file, "name", None)
    if not isinstance(path, str):
        return f"write it to a {suffix} file and pass its path to predictor.stream"
    renamed = Path(path).with_suffix(suffix)
    while renamed.exists():
        renamed = renamed.with_stem(f"{renamed.stem}-video")
    return f"rename it to {renamed.name}"


def _opened_as_viewers_do(file: IO[bytes], format: str, name: str) -> ImageFile.ImageFile:
    """Open with Pillow's reader; a PNG file that it refuses is opened again with only its pixels."""
    try:
        return _opened(file, format)
    except Exception as error:
        if format == "PNG":
            file.seek(0)
            return _opened(io.BytesIO(_essential_png(file.read())), format)
        if format == "TIFF" and (isinstance(error, KeyError) or "unknown pixel mode" in str(error)):
            remedy = "save it with 8 or 16 bits per channel, gray or RGB, uncompressed or with LZW compression"
            raise ImageError(f"{name} is a TIFF file of a kind that is not supported ({error}); {remedy}") from error
        raise


def _opened(file: IO[bytes], format: str) -> ImageFile.ImageFile:
    # Not by Image.open, which warns about every image of more than 89 million pixels.
    file.seek(0)
    image: ImageFile.ImageFile = Image.OPEN[format][0](file, "")
    return image


def _essential_png(data: bytes) -> bytes:
    """Keep only the chunks of the pixels, since viewers show an image whose other chunks are damaged."""
    kept, position = [data[:8]], 8
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            kept.append(data[position : position + 12 + length])
        position += 12 + length
    return b"".join(kept)


def load_pixels(image: Image.Image, name: str) -> None:
    """Decode an opened image; a few rows of a truncated file may be missing, which is logged as a warning.

    Raises:
        OSError: More rows than `MISSING_ROWS` are missing, or the image is damaged otherwise.
    """
    try:
        image.load()
    except OSError as error:
        missing = _missing_rows(image) if "truncated" in str(error).lower() else image.height
        if missing > MISSING_ROWS * image.height:
            raise
        image_rows = f"{missing} of its {image.height} rows are missing and were read as black"
        logger.warning("%s is truncated: %s; copy or export it again", name, image_rows)


def _missing_rows(image: Image.Image) -> int:
    """Count the rows that were not decoded, and keep those that were."""
    if not isinstance(image, ImageFile.ImageFile) or image.format not in _SEQUENTIAL or image.info.get("interlace"):
        return image.height
    image.tile = []  # stops decoding, so that the decoded part can be used
    box = image.getbbox()
    return image.height if box is None else image.height - (box[3] - box[1])


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, from 1 (as stored) to 8; damaged EXIF data is ignored.

    Some formats store it after the pixels, so the image must be decoded first.
    """
    try:
        value = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - Pillow may raise any exception for damaged EXIF data
        return 1
    return value if 1 <= value <= 8 else 1


def is_deep_color(image: Image.Image) -> bool:
    """Return whether a file has several channels of 16 bits, of which Pillow keeps only the upper 8.

    `open_encoded` checks it before decoding, since Pillow does not report it for a decoded PNG file.
    """
    known: bool | None = getattr(image, "_condseg_is_deep", None)
    if known is not None:
        return known
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) == 16
    if isinstance(image, PngImagePlugin.PngImageFile):
        return any("16" in str(tile.args) for tile in image.tile)
    return image.format in ("PPM", "JPEG2000") and not states_range(image)


def states_range(image: Image.Image) -> bool:
    """Return whether an opened PNM or JPEG 2000 file declares a white level below 65535, to which Pillow scales.

    A white level of 65535 means nothing, since OpenCV and others declare it for any values. A decoded file no longer
    shows it.
    """
    if image.format == "JPEG2000":
        bits = _jpeg2000_bits(image)
        return bits is not None and bits < 16
    for tile in getattr(image, "tile", ()):
        white = tile.args[1] if isinstance(tile.args, tuple) and len(tile.args) == 2 else None
        if white is None:  # values that Pillow takes as they are: of 16 bits in mode I only
            return bool(image.mode != "I")
        return bool(white < 65535)
    return False


def _jpeg2000_bits(image: Image.Image) -> int | None:
    """Return the bits that a JPEG 2000 file declares for its channels, at most."""
    file: IO[bytes] | None = getattr(image, "fp", None)
    if file is None or file.closed:
        return None
    position = file.tell()
    file.seek(0)
    head = file.read(_JPEG2000_HEAD)
    file.seek(position)
    start = head.find(b"\xff\x4f\xff\x51")  # start of the codestream, and its SIZ segment
    if start < 0 or len(head) < start + 42:
        return None
    channels = int.from_bytes(head[start + 40 : start + 42], "big")
    return max(((value & 127) + 1 for value in head[start + 42 : start + 42 + 3 * channels : 3]), default=None)


@dataclass(frozen=True)
class StoredBits:
    """The bits in use that a 16-bit file declares.

    Attributes:
        bits: Number of bits in use.
        may_be_shifted: Whether these may be the upper bits, so that white is still 65535.
    """

    bits: int
    may_be_shifted: bool


def stored_bits(image: Image.Image) -> StoredBits | None:
    """Return the bits in use that a 16-bit file declares: TIFF's MaxSampleValue, or PNG's sBIT chunk."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        greatest = image.tag_v2.get(_MAX_SAMPLE_VALUE)
        values = greatest if isinstance(greatest, tuple) else (greatest,)
        known = [value for value in values if isinstance(value, int) and 255 <= value <= 65535]
        return StoredBits(max(known).bit_length(), may_be_shifted=False) if known else None
    file: IO[bytes] | None = getattr(image, "fp", None)
    if isinstance(image, PngImagePlugin.PngImageFile) and file is not None:
        position = file.tell()
        file.seek(33)  # after the signature and IHDR
        bits = _significant_bits(file)
        file.seek(position)
        # The PNG standard requires the upper bits; many programs write the lower ones.
        return None if bits is None else StoredBits(bits, may_be_shifted=True)
    return None


def _significant_bits(file: IO[bytes]) -> int | None:
    """Read the sBIT chunk of a PNG file, which is after the first chunk and before the pixels."""
    while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"sBIT":
            bits = max(file.read(min(length, 4)), default=0)
            return bits if 8 <= bits <= 16 else None
        file.seek(length + 4, io.SEEK_CUR)
    return None


def is_white_zero(image: Image.Image) -> bool:
    """Return whether a TIFF file stores white as 0, which Pillow ignores in 16-bit files."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0


def read_deep_color(image: ImageFile.ImageFile, name: str) -> NDArray[np.uint16]:
    """Read the values of a file for which `is_deep_color` is true: uint16 (H, W, 3) or (H, W, 4), alpha last.

    Raises:
        ImageError: The file is damaged, or of a kind that is read neither with 16 nor with 8 bits.
    """
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if tags.get(_PLANAR, 1) == _SEPARATE_PLANES:
        remedy = "save it with the channels of a pixel together (PlanarConfiguration 1)"
        raise ImageError(f"{name} stores its 16-bit channels in separate planes, which is not supported; {remedy}")
    if tags.get(_COMPRESSION, 1) in _PLAIN_TIFF and image.fp is not None:
        image.fp.seek(0)
        data = image.fp.read() + b"\n"  # OpenCV needs a line break after the last number of a text PNM file
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is not None and values.dtype == np.uint16 and values.shape[:2] == image.size[::-1]:
            return _as_rgb(values.astype(np.uint16, copy=False))
    # The upper 8 bits, as Pillow keeps them, are enough if all 16 are in use.
    load_pixels(image, name)
    upper = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    if upper[..., :3].max() < 64:
        remedy = "save it uncompressed, or as 16-bit PNG"
        raise ImageError(f"{name} is a very dark 16-bit color image in an unsupported compression; {remedy}")
    return upper.astype(np.uint16) * 257


def _as_rgb(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Convert gray, BGR or BGRA values from OpenCV to RGB or RGBA."""
    if values.ndim == 2:
        return np.repeat(values[..., None], 3, axis=2)
    return values[..., [2, 1, 0, 3][: values.shape[2]]]


def read_rare_tiff(file: IO[bytes], name: str) -> tuple[NDArray[np.generic], int] | None:
    """Read a TIFF file for which Pillow has no mode, such as floating-point RGB or packed 12-bit values.

    Returns:
        The values, RGB or gray, and the EXIF orientation; None if the file cannot be read here either.
    """
    file.seek(0)
    head = file.read(8)
    if identify(head + bytes(8)) != "TIFF":
        return None
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        size = (int(tags[256]), int(tags[257]))
        channels, bits = int(tags.get(277, 1)), max(tags.get(_BITS_PER_SAMPLE, (1,)))
        can_read = (
            tags.get(_COMPRESSION, 1) in _PLAIN_TIFF
            and tags.get(_PLANAR, 1) != _SEPARATE_PLANES
            and channels in (1, 3, 4)
        )
        orientation = int(tags.get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - damaged tags, of any kind
        return None
    if not can_read or bits not in (10, 12, 14, 32, 64):
        return None
    check_size(size, channels * max(bits // 8, 2) + 8, name)
    file.seek(0)
    values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.shape[:2] != size[::-1]:
        return None
    if values.ndim == 3:
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    return values, orientation
