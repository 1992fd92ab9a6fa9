"""The image and video formats that are read: names in Pillow, suffixes, and the memory that decoding needs."""

from __future__ import annotations

import struct
from importlib.util import find_spec

from PIL import Image

__all__ = [
    "DICOM_REMEDY",
    "DICOM_SUFFIXES",
    "HAS_DICOM",
    "HEIF_REMEDY",
    "HEIF_SUFFIXES",
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "bytes_per_pixel",
    "identify",
    "identify_video",
    "register_heif",
    "webp_size",
]

# Not all formats that Pillow knows: some of its readers start other programs (EPS starts Ghostscript), some recognize
# nearly anything (TGA has no signature), some are written in Python and take minutes for a few bytes (QOI, DDS).
_SUFFIXES: dict[str, tuple[str, ...]] = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jfif", ".jif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    "JPEG2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
    "PNG": (".apng", ".png"),
    "PPM": (".pbm", ".pfm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_HAS_HEIF = find_spec("pillow_heif") is not None
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
HAS_DICOM = find_spec("pydicom") is not None
"""Whether pydicom is installed, which reads DICOM files."""

HEIF_REMEDY = "pip install pillow-heif"
DICOM_REMEDY = "pip install 'condseg_sdk[dicom]'"
IMAGE_SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes).union(
    HEIF_SUFFIXES if _HAS_HEIF else (), DICOM_SUFFIXES if HAS_DICOM else ()
)
"""Suffixes of image files in folders and patterns: HEIC if pillow-heif is installed, DICOM if pydicom is."""

VIDEO_SUFFIXES = frozenset(
    {".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"}
)

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

# Bytes per pixel that the decoder needs besides the decoded image, measured on images of 50 million pixels.
_DECODER_BYTES = {"AVIF": 12, "HEIF": 12, "JPEG2000": 12, "WEBP": 13}
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 6, "I;16B": 6, "I;16L": 6, "I;16N": 6, "I": 12, "F": 12}


def identify(head: bytes) -> str | None:
    r"""Identify the format of an image file by its first bytes.

    Args:
        head: First bytes of a file, at least 16 if it has that many.

    Returns:
        Pillow's name of the format, "HEIF" for HEIC files whether or not they can be read, or None.

    Example:
        >>> identify(b"\x89PNG\r\n\x1a\n" + bytes(8))
        'PNG'
    """
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and b"avif" not in head[:32]:
        return "HEIF"
    Image.init()
    for name in _SUFFIXES:
        accept = Image.OPEN[name][1]
        if accept is not None and accept(head[:16]) is True:
            return name
    return None


_MP4_BRANDS = frozenset({b"avc1", b"dash", b"f4v ", b"M4V ", b"M4VH", b"M4VP", b"mmp4", b"mp41", b"mp42", b"MSNV"})


def identify_video(head: bytes) -> str | None:
    """Identify the usual suffix of a video file by its first bytes.

    Args:
        head: First bytes of a file, at least 64 if it has that many.

    Returns:
        One of `VIDEO_SUFFIXES`, or None for other files and for transport streams.

    Example:
        >>> identify_video(b"RIFF" + bytes(4) + b"AVI LIST")
        '.avi'
    """
    brand = head[8:12]
    if head[:4] == b"RIFF" and brand == b"AVI ":
        return ".avi"
    if head[:4] == b"\x1aE\xdf\xa3":
        return ".webm" if b"webm" in head[:64] else ".mkv"
    if head[:16] == bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"):
        return ".wmv"
    if head[:4] == b"\0\0\1\xba":
        return ".mpg"
    if head[4:8] == b"ftyp":  # sound files and raw images of cameras have it, too
        if brand == b"qt  ":
            return ".mov"
        return ".mp4" if brand in _MP4_BRANDS or brand[:3] in (b"iso", b"3gp", b"3g2") else None
    return ".mov" if head[4:8] in (b"moov", b"mdat", b"wide") else None


def register_heif() -> bool:
    """Register the reader of pillow-heif; return False if it is not installed."""
    if not _HAS_HEIF:
        return False
    import pillow_heif  # type: ignore[import-not-found, unused-ignore]

    pillow_heif.register_heif_opener()
    return True


def webp_size(head: bytes) -> tuple[int, int] | None:
    """Read the (width, height) of a WebP file, which Pillow reports only after it has allocated the pixels.

    Args:
        head: First 30 bytes of the file.
    """
    if len(head) < 30:
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (size & 0x3FFF for size in struct.unpack("<HH", head[26:30]))
    else:
        return None
    return width, height


def bytes_per_pixel(image: Image.Image, *, is_deep_color: bool = False) -> int:
    """Estimate how many bytes of memory a pixel of an opened image needs while it is decoded.

    Args:
        image: Image of which only the header has been read.
        is_deep_color: Whether it has several channels of more than 8 bits.
    """
    decoder = _DECODER_BYTES.get(image.format or "", 0)
    if image.format == "JPEG" and "progressive" in image.info:
        decoder = 6  # its coefficients are kept, 16 bits each
    if is_deep_color:
        decoder += 8
    return _MODE_BYTES.get(image.mode, 4) + max(decoder, 3)  # 3 for the array that is returned
