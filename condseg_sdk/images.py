"""Anything a user has -> RGB uint8 (H, W, 3), upright, as a viewer would show it.

Also: which images a path, folder, glob pattern or list means, and the frames of a video. Resizing to a
network's input is `preprocessing.py`.
"""

from __future__ import annotations

import glob
import io
import logging
import os
import stat
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from condseg_sdk.errors import CondsegError, ImageError, OptionError, check_choice
from condseg_sdk.walk import Walk, is_hidden, is_system_folder, left_out_kind, walk_folder, walk_folders

if TYPE_CHECKING:
    import torch

__all__ = [
    "ALPHA_BACKGROUND",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "VIDEO_SUFFIXES",
    "ColorOrder",
    "ImageSource",
    "find_images",
    "is_single",
    "load_image",
    "open_image",
    "source_name",
    "video_frames",
]

logger = logging.getLogger("condseg_sdk")

ColorOrder = Literal["rgb", "bgr"]
ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any] | torch.Tensor"
)

ALPHA_BACKGROUND = (0, 0, 0)
"""RGB colour that shows through transparent pixels: black, like the frame around an endoscope's picture."""

MAX_PIXELS = 178_956_970
"""Files of more pixels are refused before they are decoded: Pillow's own limit for decompression bombs."""

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})


# Not all that Pillow has: some of its readers start other programs (EPS starts Ghostscript).
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def load_image(source: ImageSource, *, color_order: ColorOrder = "rgb") -> NDArray[np.uint8]:
    """Load one image from whatever a user has.

    EXIF orientation is applied. 16-bit values are scaled by 1/257 (Pillow itself keeps only the high byte of
    16-bit colour files). Palettes, CMYK, gray and bilevel images become RGB. Transparent pixels show
    `ALPHA_BACKGROUND`.

    Args:
        source: One of

            - a path to a BMP, GIF, JPEG, JPEG 2000, PNG, PNM, TIFF or WebP file with one page and at most
              `MAX_PIXELS` pixels, or such a file's bytes;
            - a PIL image, of any mode and size (of several pages: the current one);
            - a NumPy array (H, W), (H, W, 1), (H, W, 3) or, alpha last, (H, W, 4): uint8, uint16, or float
              in [0, 1];
            - a torch tensor (3, H, W) or (1, H, W), RGB or gray, of the same types.
        color_order: Channel order of a NumPy array; "bgr" for those OpenCV reads. Others know their own.

    Returns:
        uint8 (H, W, 3), RGB, contiguous, at the size a viewer displays. It may share memory with `source`.

    Raises:
        ImageError: The source is missing, damaged, too large, not an image, or of a kind that is not
            supported (DICOM, several pages, video); the message names it and the remedy.
        OptionError: `color_order` is neither "rgb" nor "bgr", or "bgr" for anything but a NumPy array.

    Example:
        >>> import numpy as np
        >>> load_image(np.zeros((480, 640), np.uint16)).shape
        (480, 640, 3)
    """
    check_choice("color_order", color_order, ColorOrder)
    name = source_name(source)
    if isinstance(source, np.ndarray):
        return _from_array(source, name, color_order)
    if color_order == "bgr":
        raise OptionError(f"{name}: color_order='bgr' is for NumPy arrays only; leave it out here")
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_file(io.BytesIO(source), name)
    if isinstance(source, Image.Image):
        return _from_pil(source, name)
    if _is_tensor(source):
        return _from_tensor(source, name)
    raise ImageError(f"{name} is no image; give a path, bytes, a PIL image, a NumPy array or a torch tensor")


def find_images(source: Any) -> list[Any]:
    """List the images that a source means, in a stable order.

    Args:
        source: A path, a folder (searched recursively), a glob pattern ("scans/**/*.png"), any source
            `load_image` takes, or a list or tuple of these. In folders and patterns only files with a suffix
            in `IMAGE_SUFFIXES` count, hidden ones do not, and the order is that of their sorted paths.

    Returns:
        Paths for what was named by a path, the objects themselves for the rest. Files named one by one are
        not checked here: `load_image` says what is wrong with each.

    Raises:
        ImageError: There is no image in a folder, a pattern or a list.

    Example:
        >>> find_images(["a.png", "b.png"]) == [Path("a.png"), Path("b.png")]
        True
    """
    if isinstance(source, (list, tuple)):
        if not source:
            raise ImageError("an empty list holds no image; give at least one")
        return [image for item in source for image in find_images(item)]
    if not isinstance(source, (str, os.PathLike)):
        return [source]
    if is_single(source):
        return [Path(source)]
    name = os.fspath(source)
    found = walk_folder(name, suffixes=IMAGE_SUFFIXES) if Path(name).is_dir() else _expand_pattern(name)
    left_out = found.summary()
    if not found.files:
        detail = f" (left out: {left_out})" if left_out else ""
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ImageError(f"{name} holds no image{detail}; images are files named {suffixes}")
    if left_out:
        logger.warning("%s: left out %s", name, left_out)
    return list(found.files)


def _expand_pattern(pattern: str) -> Walk:
    """List the images that a glob pattern means; `**` is any number of folders, each of them visited once."""
    parts = Path(pattern).parts
    literal = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    literal = min(literal, len(parts) - 1)
    wanted = list(parts[literal:])
    left_out: Counter[str] = Counter()
    if "**" in wanted:
        # Every part before the first ** names folders one by one; from there on the folders are walked.
        start = literal + wanted.index("**")
        bases = [base for base in _globbed(parts[:start]) if base.is_dir()]
        hidden = any(part.startswith(".") for part in parts[start:])
        walked = walk_folders(bases, hidden=hidden)
        files = [file for file in walked.files if _matches(file.parts[start:], parts[start:])]
        left_out += walked.left_out
    else:
        files = [file for file in _globbed(parts) if file.is_file()]
    images = []
    for file in files:
        if any(is_system_folder(part) for part in file.parts[literal:-1]):
            left_out["file in a folder of the system"] += 1
        elif file.suffix.lower() in IMAGE_SUFFIXES:
            images.append(file)
        else:
            left_out[left_out_kind(file.name)] += 1
    return Walk(sorted(images), left_out)


def _globbed(parts: Sequence[str]) -> list[Path]:
    pattern = os.path.join(*parts) if parts else os.curdir  # noqa: PTH118
    return [Path(file) for file in glob.glob(pattern)]  # noqa: PTH207 - may be absolute


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a glob pattern, in which `**` is any number of folders."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        if len(pattern) == 1:
            return bool(path)
        return _matches(path, pattern[1:]) or (len(path) > 1 and _matches(path[1:], pattern))
    if not path or (is_hidden(path[0]) and not is_hidden(pattern[0])):
        return False
    return fnmatch(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


def is_single(source: Any) -> bool:
    """Whether a source means one image, not a list, a folder or a glob pattern.

    A path that exists is never read as a pattern, whatever brackets its name has.

    Example:
        >>> is_single("frame.jpg"), is_single("frames/*.jpg")
        (True, False)
    """
    if isinstance(source, (str, os.PathLike)):
        # Unlike pathlib's, these answer for any string, however long.
        is_file, is_folder = os.path.isfile(source), os.path.isdir(source)  # noqa: PTH112, PTH113
        return is_file or not (is_folder or glob.has_magic(os.fspath(source)))
    return not isinstance(source, (list, tuple))


def video_frames(path: str | os.PathLike[str]) -> Iterator[NDArray[np.uint8]]:
    """Read a video frame by frame, as OpenCV's FFmpeg decodes it; one frame is in memory at a time.

    Args:
        path: A video file; `VIDEO_SUFFIXES` lists the usual ones.

    Yields:
        uint8 (H, W, 3), RGB, upright.

    Raises:
        ImageError: On the first frame: the file is missing or cannot be decoded.

    Example:
        >>> for frame in video_frames("colonoscopy.mp4"):  # doctest: +SKIP
        ...     print(frame.shape)
    """
    _require_file(Path(path))
    video = cv2.VideoCapture(str(path))
    try:
        decoded, frame = video.read()
        if not decoded:
            raise ImageError(f"{path} cannot be decoded as a video; convert it to H.264 in an .mp4 file")
        while decoded:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
            decoded, frame = video.read()
    finally:
        video.release()


def source_name(source: object) -> str:
    """Name a source for a message: "frame.jpg" as it was given, "array (480, 640, 3) uint8", ...

    Example:
        >>> source_name(b"abc")
        'image data of 3 bytes'
    """
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"image data of {len(source)} bytes"
    if isinstance(source, Image.Image):
        return f"PIL image {source.mode} {source.width}x{source.height}"
    if isinstance(source, np.ndarray) or _is_tensor(source):
        kind = "array" if isinstance(source, np.ndarray) else "tensor"
        return f"{kind} {tuple(source.shape)} {str(source.dtype).removeprefix('torch.')}"
    return f"an object of type {type(source).__name__}"


def _require_file(path: Path) -> None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"{path} does not exist; check the path (we are in {Path.cwd()})") from error
    except (OSError, ValueError) as error:  # no permission, name too long, a null byte in it
        raise ImageError(f"{path} cannot be opened ({error}); check its name and permissions") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path} is a folder where a file is wanted; give one of the files in it")
    if status.st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes); copy or download it again")


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file for whoever needs more than its colours (a mask's own values, orientation, size).

    The header is read and the same files are refused as by `load_image`; the pixels are decoded when asked for, inside
    the `with` block, where Pillow's errors become ImageErrors too.

    Raises:
        ImageError: The file is missing, damaged, too large, not an image, or of a kind that is not supported.

    Example:
        >>> with open_image(Path("mask.png")) as image:  # doctest: +SKIP
        ...     print(image.mode, image.size)
    """
    _require_file(path)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise ImageError(f"{path} is a video, not an image; use predictor.stream({str(path)!r})")
    try:
        file = path.open("rb")
    except OSError as error:
        raise ImageError(f"{path} cannot be opened ({error.strerror}); check its permissions") from error
    with file, _opened(file, str(path)) as image:
        yield image


def _from_path(path: Path) -> NDArray[np.uint8]:
    with open_image(path) as image:
        return _from_pil(image, str(path))


def _from_file(file: IO[bytes], name: str) -> NDArray[np.uint8]:
    with _opened(file, name) as image:
        return _from_pil(image, name)


@contextmanager
def _opened(file: IO[bytes], name: str) -> Iterator[Image.Image]:
    """Open an encoded image, after a look at its header."""
    head = file.read(132)
    if not head:
        raise ImageError(f"{name} is empty; read the file again")
    if head[128:] == b"DICM":
        remedy = "read it with pydicom and give an array in [0, 1]"
        raise ImageError(f"{name} is a DICOM file, which is not supported; {remedy}")
    file.seek(0)
    with _pillow_errors(name), Image.open(file, formats=_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        # Phones store a photo with a preview or a gain map as MPO: its first picture is the photo.
        pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if pages > 1:
            remedy = "open it with PIL.Image.open, seek() to one and give that"
            raise ImageError(f"{name} has {pages} pages or frames; {remedy}")
        yield image


@contextmanager
def _pillow_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises into an ImageError."""
    try:
        yield
    except CondsegError:
        raise
    except Image.DecompressionBombError as error:
        remedy = "make it smaller, or decode it yourself and give the array"
        raise ImageError(f"{name} has more than {MAX_PIXELS:,} pixels; {remedy}") from error
    except UnidentifiedImageError as error:
        remedy = "save it as PNG, JPEG, TIFF, BMP or WebP"
        raise ImageError(f"{name} is no image we can read, whatever its name; {remedy}") from error
    except Exception as error:  # OSError, ValueError, SyntaxError, struct.error, EOFError, ...
        raise ImageError(f"{name} is damaged or incomplete ({error}); copy or export it again") from error


def _from_pil(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if 0 in image.size:
        raise ImageError(f"{name} has no pixels; give an image of at least 1x1")
    with _pillow_errors(name):  # an image that was opened lazily is decoded here
        image.load()  # some formats have their orientation after the pixels
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        upright = ImageOps.exif_transpose(image) if turned else image  # which copies in any case
        if upright.mode[0] in "IF":  # 16-bit, 32-bit and float gray, which Pillow would clip at 255
            return _from_array(_narrow(np.asarray(upright), name), name, "rgb")
        return np.array(_flatten(upright))


def _narrow(gray: NDArray[Any], name: str) -> NDArray[Any]:
    """Pillow's mode "I" is int32, in which it keeps 16-bit gray; other arrays stay."""
    if gray.dtype.kind != "i":
        return gray
    if gray.min() < 0 or gray.max() > 65535:
        remedy = "bring them to [0, 1] and give a float array"
        raise ImageError(f"{name} has values from {gray.min()} to {gray.max()}; {remedy}")
    return gray.astype(np.uint16)


def _flatten(image: Image.Image) -> Image.Image:
    """To RGB, transparent pixels onto `ALPHA_BACKGROUND`."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    background = Image.new("RGBA", image.size, (*ALPHA_BACKGROUND, 255))
    return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")


def _from_array(array: NDArray[Any], name: str, color_order: ColorOrder) -> NDArray[np.uint8]:
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise ImageError(f"{name} has the wrong shape; give one image (H, W), (H, W, 3) or (H, W, 4)")
    if array.size == 0:
        raise ImageError(f"{name} has no pixels; give an image of at least 1x1")
    pixels = _to_uint8(array, name)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    if color_order == "bgr":
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    pixels = np.ascontiguousarray(pixels)
    return pixels if pixels.shape[2] == 3 else np.array(_flatten(Image.fromarray(pixels)))


def _to_uint8(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    kind, width = array.dtype.kind, array.dtype.itemsize
    if kind == "u" and width == 1:
        return array
    if kind == "u" and width == 2:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # v / 257, rounded
    if kind != "f":
        raise ImageError(f"{name} has the wrong type; give uint8, uint16 or float in [0, 1]")
    if not np.isfinite(array).all():
        raise ImageError(f"{name} holds NaN or infinite values; replace them, e.g. with numpy.nan_to_num")
    if array.min() < 0 or array.max() > 1:
        raise ImageError(f"{name} has values from {array.min():g} to {array.max():g}; bring floats to [0, 1]")
    return np.rint(array.astype(np.float32) * 255).astype(np.uint8)


def _is_tensor(source: object) -> TypeGuard[torch.Tensor]:
    """Whether it is a torch tensor, without importing torch: who has a tensor has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _from_tensor(tensor: torch.Tensor, name: str) -> NDArray[np.uint8]:
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ImageError(f"{name} has the wrong shape; give one image (3, H, W) or (1, H, W)")
    values = tensor.detach().cpu()
    array = (values.float() if values.is_floating_point() else values).numpy()  # NumPy has no bfloat16
    return _from_array(np.moveaxis(array, 0, -1), name, "rgb")


def _warn_of_two_opencvs() -> None:
    """Two packages that install the same folder: whose files are there is chance, and removing one breaks both."""
    names = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
    installed = [name for name in names if any(metadata.distributions(name=name))]
    if len(installed) > 1:
        both = " and ".join(installed)
        warnings.warn(f"{both} write into the same folder: uninstall them all, then install one", stacklevel=2)


_warn_of_two_opencvs()
