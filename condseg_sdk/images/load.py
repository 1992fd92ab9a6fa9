"""Loads any image as RGB uint8 (H, W, 3), upright, as a viewer shows it.

`files.py` opens files, `bit_depth.py` handles the bits of 16-bit values, `sources.py` lists the images of a folder or
pattern, and `video.py` reads videos. `preprocessing.py` resizes images to the network's input.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from condseg_sdk.errors import ImageError, OptionError, errors_about
from condseg_sdk.images.bit_depth import (
    DARK,
    FEW,
    BitDepth,
    bits_in_use,
    check_bits,
    common_depth,
    scale_to_uint8,
    share_above,
)
from condseg_sdk.images.dicom import DicomFile, DicomFrame, is_dicom
from condseg_sdk.images.files import (
    StoredBits,
    is_deep_color,
    is_white_zero,
    load_pixels,
    open_encoded,
    open_file,
    open_image,
    orientation_of,
    read_deep_color,
    read_rare_tiff,
    states_range,
    stored_bits,
)
from condseg_sdk.images.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from condseg_sdk.images.limits import MAX_PIXELS, image_errors, source_path
from condseg_sdk.images.sources import find_images, is_single
from condseg_sdk.images.spacing import PixelSpacing
from condseg_sdk.images.types import ColorOrder, ImageLike
from condseg_sdk.images.video import video_frames
from condseg_sdk.options import check_choice
from condseg_sdk.prefetch import DECODERS, prefetch_map, worker_threads
from condseg_sdk.words import pluralize

if TYPE_CHECKING:
    import torch

__all__ = [
    "ALPHA_BACKGROUND",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "VIDEO_SUFFIXES",
    "ColorOrder",
    "ImageLike",
    "LoadedImage",
    "find_bits",
    "find_images",
    "is_single",
    "load_image",
    "open_image",
    "read_file_object",
    "read_image",
    "source_name",
    "video_frames",
]

logger = logging.getLogger("condseg_sdk")

ALPHA_BACKGROUND = (0, 0, 0)
"""RGB color that shows through transparent pixels: black, like the frame around an endoscope's image."""

STRIP_PIXELS = 4_000_000  # converted at a time, so that a large image is in memory once and not three times


@dataclass(frozen=True)
class LoadedImage:
    """An image and how its values were read.

    Attributes:
        pixels: Image, RGB uint8 (H, W, 3), contiguous, upright.
        depth: Bits in use in an image with 16-bit values; None for others, and for DICOM.
        spacing: Distance between the pixels, if the file contains it: one for the whole image, or one for each
            calibrated region.
    """

    pixels: NDArray[np.uint8]
    depth: BitDepth | None
    spacing: tuple[PixelSpacing, ...] = ()


def load_image(source: ImageLike, *, color_order: ColorOrder = "rgb", bits: int | None = None) -> NDArray[np.uint8]:
    """Load one image from a file, bytes, a file object, a PIL image, an array or a tensor.

    EXIF orientation is applied. Palettes, CMYK, gray and bilevel images become RGB. Transparent pixels show
    `ALPHA_BACKGROUND`. 16-bit values are scaled so that the largest value of the bits in use is white.

    Args:
        source: Image in one of these forms:

            - a path to an AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PNM, TIFF or WebP file (HEIC with pillow-heif, DICOM
              with pydicom) with one page and at most `MAX_PIXELS` pixels, the bytes of such a file, or a file object
              opened in binary mode;
            - a frame of a DICOM file, `condseg_sdk.images.dicom.DicomFrame`;
            - a PIL image of any mode and size, or the current page of one with several pages;
            - a NumPy array (H, W), (H, W, 1), (H, W, 3) or, alpha last, (H, W, 4): uint8, uint16, or float
              in [0, 1];
            - a torch tensor (3, H, W) or (1, H, W), RGB or gray, of the same types.
        color_order: Channel order of a NumPy array: "bgr" for arrays that OpenCV read. Other sources have a known
            order.
        bits: Number of bits in use, 8 to 16, of images with 16-bit values; others are unaffected, and so are files that
            declare it exactly (TIFF of packed bits; PNM and JPEG 2000 with fewer than 16 bits). Default: as the file
            declares (TIFF's MaxSampleValue, PNG's sBIT), otherwise the smallest of 8, 10, 12, 14 and 16 bits that holds
            the image's values except for a few pixels, such as small text, with a warning in the log if these are not
            16.

    Returns:
        Image, RGB uint8 (H, W, 3), contiguous, at the size that a viewer shows. It may share memory with `source`.

    Raises:
        ImageError: The source is missing, damaged, too large, not an image, or of a kind that is not
            supported (several pages or frames, video); the message names it and the remedy.
        OptionError: `color_order` is neither "rgb" nor "bgr", or "bgr" for anything but a NumPy array; `bits` is out of
            range.

    Example:
        >>> import numpy as np
        >>> load_image(np.zeros((480, 640), np.uint16)).shape
        (480, 640, 3)
    """
    with read_image(source, color_order=color_order, bits=bits) as image:
        if image.depth is not None and (image.depth.is_guess or image.depth.clipped):
            logger.warning("%s: %s", source_name(source), image.depth.describe())
        return image.pixels


@contextmanager
def read_image(source: ImageLike, *, color_order: ColorOrder = "rgb", bits: int | None = None) -> Iterator[LoadedImage]:
    """Load an image as `load_image` does, but return how its values were read instead of logging a warning.

    The memory of a large file stays reserved for the duration of the block; other threads that need to decode
    large files wait meanwhile.

    Raises:
        ImageError: As in `load_image`.
        OptionError: As in `load_image`.
    """
    check_choice("color_order", color_order, ColorOrder)
    check_bits(bits)
    with ExitStack() as reservations:
        with errors_about(source):
            loaded = _read(source, color_order, bits, reservations)
        yield loaded


def find_bits(sources: Iterable[ImageLike]) -> BitDepth | None:
    """Find the bits in use in a set of images, so that all of them are read alike.

    Only the headers of 8-bit files are read. 16-bit files are decoded, in several threads, until one of them uses all
    16 bits.

    Args:
        sources: Images as in `load_image`. Those that cannot be read are ignored here, and so are file objects that can
            be read only once.

    Returns:
        The smallest of 8, 10, 12, 14 and 16 bits that holds the 16-bit values of all images except for a few pixels of
        each; None if no image has 16-bit values, or all of them declare their range.

    Example:
        >>> import numpy as np
        >>> find_bits([np.full((2, 2), 1000, np.uint16), np.full((2, 2), 4095, np.uint16)]).bits
        12
    """
    depths = []
    with worker_threads(DECODERS) as pool:
        # Objects may occur twice and cannot be read in two threads at once; files can.
        jobs = (source if isinstance(source, (str, os.PathLike)) else _depth_of(source) for source in sources)
        for depth in prefetch_map(_finish_depth, jobs, pool=pool, ahead=2 * DECODERS):
            if depth is not None:
                depths.append(depth)
                if depth.bits == 16 and not depth.is_guess:
                    break
    return common_depth(depths)


def _finish_depth(job: str | os.PathLike[str] | BitDepth | None) -> BitDepth | None:
    return _depth_of(job) if isinstance(job, (str, os.PathLike)) else job


def _depth_of(source: Any) -> BitDepth | None:
    try:
        if isinstance(source, np.ndarray) or _is_tensor(source):
            values = source if isinstance(source, np.ndarray) else _tensor_values(source, source_name(source))
            is_deep = values.dtype.kind == "u" and values.dtype.itemsize == 2
            return _depth(values, None, None) if is_deep and values.ndim in (2, 3) and values.size else None
        with ExitStack() as reservations:
            if not isinstance(source, Image.Image):
                if hasattr(source, "read") and not isinstance(source, os.PathLike):
                    if not source.seekable():  # what is read here would be missing later
                        return None
                    source = read_file_object(source)
                with _encoded(source, source_name(source)) as file:
                    if not _may_have_16_bits(file):
                        return None
            return _read(source, "rgb", None, reservations).depth
    except (ImageError, OSError, ValueError, AttributeError):  # AttributeError: an object that only looks like a file
        return None


_MAY_HAVE_16_BITS = (
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # TIFF
    *(b"P2", b"P3", b"P5", b"P6"),  # PNM
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),  # JPEG 2000
)


def _may_have_16_bits(file: IO[bytes]) -> bool:
    """Return whether the header of an encoded image allows 16-bit values; nothing is decoded."""
    head = file.read(132)
    if is_dicom(head):  # some begin like a TIFF file; their values are scaled by their own header
        return False
    if head.startswith(b"\x89PNG"):
        return head[24:25] == b"\x10"
    if not head.startswith(_MAY_HAVE_16_BITS):
        return False
    file.seek(0)
    try:
        with ExitStack() as reservations, open_encoded(file, "image", reservations) as image:
            return image.mode.startswith("I") or is_deep_color(image)
    except ImageError:  # also a TIFF file that Pillow has no mode for
        return True


def _read(source: Any, color_order: ColorOrder, bits: int | None, reservations: ExitStack) -> LoadedImage:
    name = source_name(source)
    if isinstance(source, np.ndarray):
        return _from_array(source, name, bits, color_order)
    if color_order == "bgr":
        raise OptionError(
            f"{name}: color_order='bgr' is for NumPy arrays only; leave it out here", option="color_order"
        )
    if isinstance(source, Image.Image):
        data = _undecoded(source)
        if data is None:
            return _from_pil(source, name, bits)
        source = data
    if _is_tensor(source):
        return _from_array(_tensor_values(source, name), name, bits)
    if isinstance(source, DicomFrame):
        return LoadedImage(source.decode(), None, source.spacing)
    with _encoded(source, name) as file:
        if is_dicom(file.read(132)):
            is_path = isinstance(source, (str, os.PathLike))
            frame = DicomFile(source if is_path else cast("io.BytesIO", file).getvalue()).only_frame()
            return LoadedImage(frame.decode(), None, frame.spacing)
        file.seek(0)
        try:
            with open_encoded(file, name, reservations) as image:
                return _from_pil(image, name, bits)
        except ImageError as error:
            rare = read_rare_tiff(file, name) if isinstance(error.__cause__, SyntaxError) else None
            if rare is None:
                raise
            values, orientation = rare
            return _from_array(_upright(values, orientation), name, bits)


def _undecoded(image: Image.Image) -> bytes | None:
    """Return the file behind an image that was opened but not decoded, if it has more bits than Pillow would keep."""
    file = getattr(image, "fp", None)
    if file is None or file.closed or not getattr(image, "tile", None) or not is_deep_color(image):
        return None
    position = file.tell()
    file.seek(0)
    data: bytes = file.read()
    file.seek(position)
    return data


@contextmanager
def _encoded(source: Any, name: str) -> Iterator[IO[bytes]]:
    """Open what contains an encoded image: a path, bytes, or a file object, whose position is kept."""
    if isinstance(source, (str, os.PathLike)):
        with open_file(source_path(source)) as file:
            yield file
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source)
    elif hasattr(source, "read"):
        yield io.BytesIO(read_file_object(source))
    else:
        remedy = "pass a path, bytes, a file object, a PIL image, a NumPy array or a torch tensor"
        raise ImageError(f"{name} is not an image; {remedy}")


def read_file_object(file: IO[bytes]) -> bytes:
    """Read an encoded image from a file object, and restore its position if it has one.

    Raises:
        ImageError: The file object was closed, opened in text mode, or cannot be read.
    """
    name = source_name(file)
    try:
        position = file.tell() if hasattr(file, "seekable") and file.seekable() else None
        data = file.read()
        if position is not None:
            file.seek(position)
    except Exception as error:
        remedy = "open it in binary mode ('rb') and use it before it is closed"
        raise ImageError(f"{name} cannot be read ({error}); {remedy}") from error
    if not isinstance(data, (bytes, bytearray)):
        raise ImageError(f"{name} returns {type(data).__name__} instead of bytes; open it in binary mode ('rb')")
    if not data:
        raise ImageError(f"{name} is empty or was already read to its end; call seek(0) first")
    return bytes(data)


def source_name(source: object) -> str:
    """Name a source for messages: "frame.jpg" as given, "array (480, 640, 3) uint8", ...

    Example:
        >>> source_name(b"abc")
        'image data of 3 bytes'
    """
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"image data of {pluralize(len(source), 'byte')}"
    if isinstance(source, Image.Image):
        return f"PIL image {source.mode} {source.width}x{source.height}"
    if isinstance(source, np.ndarray) or _is_tensor(source):
        kind = "array" if isinstance(source, np.ndarray) else "tensor"
        return f"{kind} {tuple(source.shape)} {str(source.dtype).removeprefix('torch.')}"
    name = getattr(source, "name", None)
    if isinstance(name, str) and (isinstance(source, DicomFrame) or hasattr(source, "read")):
        return name
    return f"an object of type {type(source).__name__}"


def _from_pil(image: Image.Image, name: str, bits: int | None) -> LoadedImage:
    if 0 in image.size:
        raise ImageError(f"{name} has no pixels; pass an image of at least 1x1")
    file = getattr(image, "fp", None)
    if getattr(image, "tile", None) and (file is None or file.closed):
        raise ImageError(f"{name} was closed before it was decoded; use it inside its with block, or load() it there")
    with image_errors(name):  # an image that was opened lazily is decoded here
        if isinstance(image, ImageFile.ImageFile) and getattr(image, "fp", None) and is_deep_color(image):
            loaded = _from_array(read_deep_color(image, name), name, bits, stored=stored_bits(image))
            pixels, depth = loaded.pixels, loaded.depth
        elif image.mode[0] in "IF":  # 16-bit, 32-bit and float gray, which Pillow would clip at 255
            stored, white_zero = stored_bits(image), is_white_zero(image)
            is_scaled = image.format in ("JPEG2000", "PPM") and states_range(image)
            load_pixels(image, name)
            values = _narrow(np.asarray(image), name)
            if is_scaled and values.dtype == np.uint16:
                bits = 16
            elif _packed_bits(image) is not None:
                bits = _packed_bits(image)
            loaded = _from_array(values, name, bits, stored=stored)
            pixels, depth = (255 - loaded.pixels if white_zero else loaded.pixels), loaded.depth
        else:
            load_pixels(image, name)
            return LoadedImage(_colors(image, orientation_of(image)), None)
        return LoadedImage(_upright(pixels, orientation_of(image)), depth)


def _packed_bits(image: Image.Image) -> int | None:
    """Return the bits of a TIFF file with packed values of fewer than 16 bits, which Pillow does not scale."""
    tags = getattr(image, "tag_v2", {})
    bits = max(tags.get(258, (16,))) if image.mode.startswith("I;16") else 16
    return bits if 8 <= bits < 16 else None


def _colors(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """Convert to RGB, upright, strip by strip."""
    width, height = image.size
    upright = np.empty((height, width, 3) if orientation < 5 else (width, height, 3), np.uint8)
    as_stored = _AS_STORED.get(orientation, np.asarray)(upright)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = image if rows >= height else image.crop((0, top, width, min(top + rows, height)))
        as_stored[top : top + rows] = np.asarray(_flatten(strip))
    return upright


_AS_STORED: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda upright: upright[::-1, ::-1],
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""Views of an upright image in the order in which a file with that EXIF orientation stores its rows and columns."""


def _upright(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Rotate or mirror an image from the order in its file to the upright one."""
    back = {6: 8, 8: 6}.get(orientation, orientation)  # all others are their own inverse
    return np.ascontiguousarray(_AS_STORED[back](stored)) if back in _AS_STORED else stored


def _narrow(gray: NDArray[Any], name: str) -> NDArray[Any]:
    """Convert Pillow's mode "I", int32 that contains 16-bit gray, to uint16; other arrays stay."""
    if gray.dtype.kind != "i":
        return gray
    if gray.min() < 0 or gray.max() > 65535:
        remedy = "bring them to [0, 1] and pass a float array"
        raise ImageError(f"{name} has values from {gray.min()} to {gray.max()}; {remedy}")
    return gray.astype(np.uint16)


def _flatten(image: Image.Image) -> Image.Image:
    """Convert to RGB, with transparent pixels on `ALPHA_BACKGROUND`."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    background = Image.new("RGBA", image.size, (*ALPHA_BACKGROUND, 255))
    return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")


def _from_array(
    array: NDArray[Any],
    name: str,
    bits: int | None,
    color_order: ColorOrder = "rgb",
    *,
    stored: StoredBits | None = None,
) -> LoadedImage:
    """Convert an array; `stored` are the bits in use that its file declares."""
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise ImageError(f"{name} has the wrong shape; pass one image (H, W), (H, W, 3) or (H, W, 4)")
    if array.size == 0:
        raise ImageError(f"{name} has no pixels; pass an image of at least 1x1")
    if isinstance(array, np.ma.MaskedArray):
        raise ImageError(f"{name} is a masked array; pass its values, such as array.filled(0)")
    pixels, depth = _to_uint8(array, name, bits, stored)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return LoadedImage(np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2), depth)
    if color_order == "bgr":
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    pixels = np.ascontiguousarray(pixels)
    return LoadedImage(pixels if pixels.shape[2] == 3 else np.array(_flatten(Image.fromarray(pixels))), depth)


def _to_uint8(
    array: NDArray[Any], name: str, bits: int | None, stored: StoredBits | None
) -> tuple[NDArray[np.uint8], BitDepth | None]:
    kind, width = array.dtype.kind, array.dtype.itemsize
    if kind == "u" and width == 1:
        return array, None
    if kind == "u" and width == 2:
        depth = _depth(array, bits, stored)
        return scale_to_uint8(array, depth.bits, name), depth
    if kind != "f":
        raise ImageError(f"{name} has the wrong type; pass uint8, uint16 or float in [0, 1]")
    if not np.isfinite(array).all():
        raise ImageError(f"{name} contains NaN or infinite values; replace them, e.g. with numpy.nan_to_num")
    if array.min() < 0 or array.max() > 1:
        remedy = "bring them to [0, 1] and pass the array"
        raise ImageError(f"{name} has float values from {array.min():g} to {array.max():g}; {remedy}")
    return np.rint(array.astype(np.float32) * 255).astype(np.uint8), None


def _depth(values: NDArray[Any], bits: int | None, stored: StoredBits | None) -> BitDepth:
    """Choose the bits of 16-bit values: the given ones, the ones that the file declares, or what the values need."""
    color = values[..., :3] if values.ndim == 3 and values.shape[2] == 4 else values
    greatest, needed = int(color.max(initial=0)), bits_in_use(color)
    if bits is not None:
        return _clipping(color, bits, greatest, needed, is_guess=False)
    if stored is not None and stored.may_be_shifted:
        unused = np.asarray((1 << 16 - stored.bits) - 1, color.dtype)  # lower bits, if the upper ones are in use
        is_shifted = greatest >= 2**stored.bits or not np.any(color & unused)
        return BitDepth(16 if is_shifted else stored.bits, greatest, is_guess=False, needed=needed)
    if stored is not None and share_above(color, stored.bits) <= FEW:
        return _clipping(color, stored.bits, greatest, needed, is_guess=False)
    is_dark = needed < 16 or share_above(color, 12) <= DARK
    return _clipping(color, needed, greatest, needed, is_guess=greatest > 0 and is_dark)


def _clipping(color: NDArray[Any], bits: int, greatest: int, needed: int, *, is_guess: bool) -> BitDepth:
    clipped = share_above(color, bits) if greatest >= 2**bits else 0.0
    return BitDepth(bits, greatest, is_guess, clipped, needed)


def _is_tensor(source: object) -> TypeGuard[torch.Tensor]:
    """Return whether a source is a torch tensor, without importing torch: a program with tensors has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _tensor_values(tensor: torch.Tensor, name: str) -> NDArray[Any]:
    """Return the values (H, W, C) of a tensor."""
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ImageError(f"{name} has the wrong shape; pass one image (3, H, W) or (1, H, W)")
    try:
        values = tensor.detach().cpu()
        array = (values.float() if values.is_floating_point() else values).numpy()  # NumPy has no bfloat16
    except Exception as error:
        remedy = "convert it with to_dense() or dequantize()"
        raise ImageError(
            f"{name} is a tensor without values of its own (sparse, quantized or meta); {remedy}"
        ) from error
    return np.moveaxis(array, 0, -1)
