"""Reads the frames of DICOM files as RGB arrays, with the spacing of their pixels.

pydicom and its plug-ins decode the pixels; `dicom_values.py` turns gray values, palettes and 16-bit colors into what a
viewer shows, and `dicom_spacing.py` reads the spacing. Only the image's attributes are read from the header; names and
other data of the patient are not.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import ImageError, errors_about
from condseg_sdk.images.dicom_spacing import read_spacing
from condseg_sdk.images.dicom_values import bytes_per_pixel, to_rgb
from condseg_sdk.images.formats import DICOM_REMEDY, DICOM_SUFFIXES, HAS_DICOM
from condseg_sdk.images.limits import DECODE_BUDGET, MAX_PIXELS, check_size, image_errors, require_file
from condseg_sdk.images.memory_budget import MAX_DECODE_BYTES
from condseg_sdk.images.spacing import PixelSpacing
from condseg_sdk.words import pluralize

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.pixels.decoders.base import Decoder

__all__ = [
    "DicomFile",
    "DicomFrame",
    "is_dicom",
    "is_dicom_source",
    "may_be_dicom",
    "multi_frame",
    "without_pydicom_messages",
]

_PREAMBLE = 128  # bytes before the signature of a DICOM file
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PIXEL_DATA = {(0x7FE0, 0x0008): "FloatPixelData", (0x7FE0, 0x0009): "DoubleFloatPixelData"}
_PALETTE = tuple(
    f"{segmented}{color}PaletteColorLookupTable{part}"
    for color in ("Red", "Green", "Blue")
    for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)
_TAGS = [
    *("SOPClassUID", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape", *_PALETTE),
    *("PixelSpacing", "PixelSpacingCalibrationType", "ImagerPixelSpacing", "NominalScannedPixelSpacing"),
    *("SequenceOfUltrasoundRegions", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
]


def is_dicom(head: bytes) -> bool:
    """Return whether a file that begins with these bytes, at least 132 of them, is a DICOM file.

    Example:
        >>> is_dicom(bytes(128) + b"DICM")
        True
    """
    return head[_PREAMBLE : _PREAMBLE + 4] == b"DICM"


def is_dicom_source(source: str | os.PathLike[str] | bytes) -> bool:
    """Return whether a file or bytes are DICOM, judging by their content.

    Example:
        >>> is_dicom_source("scan.dcm"), is_dicom_source("frame.jpg")
        (True, False)
    """
    if isinstance(source, bytes):
        return is_dicom(source)
    try:
        path = Path(source)
        if not path.is_file():  # reading a pipe might never end
            return False
        with path.open("rb") as file:
            return is_dicom(file.read(_PREAMBLE + 4))
    except (OSError, ValueError):
        return False


def may_be_dicom(path: Path) -> bool:
    """Return whether a path is a DICOM file by its suffix, or by its content if it has no suffix or ends in a number.

    Archives name files by numbers, such as "IM000001" or "1.2.840.113619.2.55.3".
    """
    suffix = path.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        return True
    if (suffix and not suffix[1:].isdigit()) or path.name.upper() == "DICOMDIR":
        return False
    return is_dicom_source(path)


def multi_frame(source: object) -> DicomFile | None:
    """Return the DICOM file behind a path or bytes, if it has several frames.

    Returns:
        The file; None for everything else, including files that cannot be read.
    """
    if not HAS_DICOM:
        return None
    if not (isinstance(source, bytes) and is_dicom(source)) and not (isinstance(source, Path) and may_be_dicom(source)):
        return None
    try:
        file = DicomFile(source)
        return file if file.num_frames > 1 else None
    except ImageError:
        return None


@dataclass(frozen=True)
class DicomFrame:
    """One frame of a DICOM file, which is decoded when it is needed.

    Attributes:
        file: The file.
        number: Position of the frame in the file, from 0.
    """

    file: DicomFile
    number: int

    @property
    def name(self) -> str:
        """Name for messages and predictions: the file's name, with the frame number if there are several."""
        return self.file.name if self.file.num_frames == 1 else f"{self.file.name} frame {self.number}"

    @property
    def spacing(self) -> tuple[PixelSpacing, ...]:
        """Spacing of the frame's pixels, as `DicomFile.spacing` returns it."""
        return self.file.spacing(self.number)

    def decode(self) -> NDArray[np.uint8]:
        """Decode the frame: RGB uint8 (H, W, 3), as `DicomFile.decode` does."""
        return self.file.decode(self.number)


@dataclass(frozen=True)
class _Header:
    """The header of a file, and how its pixels are decoded.

    Attributes:
        attributes: Attributes of the image; none of the patient.
        options: Arguments for pydicom's decoder.
        decoder: pydicom's decoder for the file's compression.
        offset: Position of the pixel data in the file.
        inflated: The pixel data, if the whole file is compressed (deflate); otherwise None.
    """

    attributes: Dataset
    options: dict[str, Any]
    decoder: Decoder
    offset: int
    inflated: bytes | None


class DicomFile:
    """A DICOM file with one or more frames, which are decoded one at a time.

    Args:
        source: Path of the file, or its bytes.

    Attributes:
        source: The path or the bytes.

    Raises:
        ImageError: The file is missing, damaged, too large, not an image, or compressed in a way that cannot be
            decoded; or pydicom is not installed. Raised at the first access.

    Example:
        >>> file = DicomFile("cine.dcm")
        >>> file.num_frames, file.decode(1).shape, file.spacing(1)
        (3, (90, 120, 3), ())
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        self.source = source if isinstance(source, bytes) else Path(source)

    def __reduce__(self) -> tuple[type[DicomFile], tuple[Path | bytes]]:
        return type(self), (self.source,)  # the header is read again where it is needed

    def __repr__(self) -> str:
        return f"DicomFile({self.name!r})"

    @property
    def name(self) -> str:
        """Name for messages: the path, or the number of bytes."""
        return (
            str(self.source)
            if isinstance(self.source, Path)
            else f"image data of {pluralize(len(self.source), 'byte')}"
        )

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return int(self._header.options["number_of_frames"])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames in pixels."""
        return self._header.options["rows"], self._header.options["columns"]

    @property
    def frames(self) -> list[DicomFrame]:
        """All frames in order; none is decoded."""
        return [DicomFrame(self, number) for number in range(self.num_frames)]

    def decode(self, number: int = 0) -> NDArray[np.uint8]:
        """Decode a frame as a viewer shows it.

        Gray values go through the file's rescale and its first window; docs/dicom.md has the rules. Other threads
        that need much memory for decoding wait meanwhile.

        Args:
            number: Number of the frame, from 0.

        Returns:
            Image, RGB uint8 (H, W, 3), contiguous.
        """
        with errors_about(self.source), ExitStack() as reservations:
            header = self._header
            pixels = header.options["rows"] * header.options["columns"]
            reservations.enter_context(DECODE_BUDGET.reserve(pixels * _cost(header)))
            with image_errors(self.name), without_pydicom_messages():
                values, properties = self._decode(header, number)
                photometric = str(properties["photometric_interpretation"])
                return to_rgb(values, photometric, _attributes_of(header.attributes, number), self.name)

    def spacing(self, number: int = 0) -> tuple[PixelSpacing, ...]:
        """Return the spacing of the pixels of a frame.

        Args:
            number: Number of the frame, from 0.

        Returns:
            One spacing for the whole frame, one for each calibrated region of an ultrasound image, or none if the file
            contains no spacing.
        """
        with errors_about(self.source), image_errors(self.name), without_pydicom_messages():
            return read_spacing(_attributes_of(self._header.attributes, number), self.size)

    def only_frame(self) -> DicomFrame:
        """Return the frame of a file with one frame.

        Raises:
            ImageError: The file has several frames, or cannot be read as an image.
        """
        with errors_about(self.source):
            if self.num_frames > 1:
                shown = repr(str(self.source)) if isinstance(self.source, Path) else "it"
                remedy = f"use predictor.stream({shown}), or pass one of condseg_sdk.images.dicom.DicomFile(...).frames"
                raise ImageError(f"{self.name} has {self.num_frames} frames; {remedy}")
            return DicomFrame(self, 0)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the file for reading."""
        if isinstance(self.source, bytes):
            yield io.BytesIO(self.source)
            return
        require_file(self.source)
        try:
            with self.source.open("rb") as file:
                yield file
        except OSError as error:
            raise ImageError(f"{self.source} cannot be read ({error.strerror}); check its permissions") from error

    @cached_property
    def _header(self) -> _Header:
        if not HAS_DICOM:
            raise ImageError(f"{self.name} is a DICOM file, which needs pydicom; {DICOM_REMEDY}")
        with errors_about(self.source), image_errors(self.name), without_pydicom_messages(), self.open() as file:
            header = _read_header(file, self.name)
            _check_header(header, file, self.name)
            return header

    def _decode(self, header: _Header, number: int) -> tuple[NDArray[Any], dict[str, Any]]:
        from pydicom.encaps import encapsulate, get_frame

        options = header.options
        if header.inflated is not None:
            return header.decoder.as_array(header.inflated, index=number, **options)
        with self.open() as file:
            file.seek(header.offset)
            if not header.decoder.is_encapsulated:
                return header.decoder.as_array(file, index=number, **options)
            frames = options["number_of_frames"]
            data = get_frame(file, number, number_of_frames=frames, extended_offsets=options.get("extended_offsets"))
        size = _codestream_size(data)
        if size is not None and size != (options["columns"], options["rows"]):
            stated = f"{options['columns']}x{options['rows']}"
            found = f"frame {number} has {size[0]}x{size[1]}"
            raise ImageError(f"{self.name} declares frames of {stated} pixels, but {found}; export it again")
        single = {key: value for key, value in options.items() if key != "extended_offsets"} | {"number_of_frames": 1}
        return header.decoder.as_array(encapsulate([data]), index=0, **single)


def _read_header(file: BinaryIO, name: str) -> _Header:
    """Read the attributes of the image, and find the pixel data."""
    from pydicom import dcmread
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import as_pixel_options
    from pydicom.uid import UID

    is_deflated = _is_deflated(file, name)
    tags: list[Any] = [*_TAGS, "PixelData"] if is_deflated else [*_TAGS]
    attributes = dcmread(file, stop_before_pixels=not is_deflated, specific_tags=tags)
    if "Rows" not in attributes or "BitsAllocated" not in attributes:
        kind = attributes.get("SOPClassUID")
        kind = f" ({kind.name})" if kind else ""
        raise ImageError(f"{name} is a DICOM file without an image{kind}; pass the files with the images")
    if attributes.get("SOPClassUID") in _SEGMENTATIONS:
        raise ImageError(f"{name} is a DICOM segmentation, not an image; pass the image that it was made from")
    syntax = UID(attributes.file_meta.TransferSyntaxUID)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        remedy = "convert it to JPEG or uncompressed frames; if it is a video, export it as .mp4"
        raise ImageError(f"{name} is compressed as {syntax.name}, which cannot be decoded; {remedy}") from error
    if not decoder.is_available:
        raise ImageError(f"{name} is compressed as {syntax.name}, which needs a plug-in of pydicom; {DICOM_REMEDY}")
    options = as_pixel_options(attributes)
    options |= {"transfer_syntax_uid": syntax, "pixel_keyword": "PixelData"}
    if is_deflated:
        pixels = attributes.PixelData
        return _Header(attributes, options | {"pixel_vr": attributes["PixelData"].VR}, decoder, 0, pixels)
    order: Literal["little", "big"] = "little" if syntax.is_little_endian else "big"
    element = file.read(8)
    if len(element) < 8:
        raise ImageError(f"{name} is a DICOM file without pixel data; export it again with its pixels")
    tag = (int.from_bytes(element[:2], order), int.from_bytes(element[2:4], order))
    options["pixel_keyword"] = _PIXEL_DATA.get(tag, "PixelData")
    # Not by the transfer syntax, which some files contradict.
    if element[4:6] in (b"OB", b"OW", b"OF", b"OD", b"UN"):
        options["pixel_vr"] = element[4:6].decode("ascii")
        file.seek(4, os.SEEK_CUR)
    return _Header(attributes, options, decoder, file.tell(), None)


def _is_deflated(file: BinaryIO, name: str) -> bool:
    """Return whether the whole file is compressed; refuse it if it would inflate to more memory than allowed."""
    from pydicom.filereader import read_dataset

    file.seek(_PREAMBLE + 4)
    meta = read_dataset(  # group 2, which is never compressed
        file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2
    )
    syntax = meta.get("TransferSyntaxUID")
    if syntax == _DEFLATED:
        inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while block := file.read(2**16):
            while block:
                size += len(inflater.decompress(block, 2**22))
                block = inflater.unconsumed_tail
                if size > MAX_DECODE_BYTES:
                    raise ImageError(f"{name} needs more than {MAX_DECODE_BYTES / 1e9:.1f} GB; save it uncompressed")
    file.seek(0)
    return bool(syntax == _DEFLATED)


def _check_header(header: _Header, file: BinaryIO, name: str) -> None:
    """Check what the header declares before anything is decoded: size, type, and number of frames."""
    from pydicom.encaps import parse_basic_offsets, parse_fragments

    options = header.options
    rows, columns, frames = options["rows"], options["columns"], options["number_of_frames"]
    if not (isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0):
        raise ImageError(f"{name} has no pixels ({columns}x{rows}); export it again")
    if not 0 < frames <= MAX_PIXELS:
        raise ImageError(f"{name} declares {frames} frames; export it again")
    check_size((columns, rows), _cost(header), name)
    if header.decoder.is_encapsulated:
        file.seek(header.offset)
        parse_basic_offsets(file)
        found = parse_fragments(file)[0]
        if found < frames:
            raise ImageError(f"{name} declares {frames} frames, but contains {found}; copy or export it again")
        return
    available = len(header.inflated) if header.inflated is not None else file.seek(0, os.SEEK_END) - header.offset
    samples = 2 if options["photometric_interpretation"] == "YBR_FULL_422" else options["samples_per_pixel"]
    length = rows * columns * samples * options["bits_allocated"] / 8
    if available < length * frames:
        found = int(available // length)
        raise ImageError(f"{name} is incomplete: it contains {found} of its {frames} frames; copy or export it again")


def _cost(header: _Header) -> int:
    return bytes_per_pixel(header.attributes, is_encapsulated=header.decoder.is_encapsulated)


def _attributes_of(attributes: Dataset, number: int) -> Dataset:
    """Return the attributes of a frame: its own and the shared functional groups take the place of the general ones."""
    from pydicom import Dataset

    merged = Dataset()
    merged.update(attributes)
    shared = attributes.get("SharedFunctionalGroupsSequence") or []
    own = attributes.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (*shared[:1], *own[number : number + 1]):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence", "PixelMeasuresSequence"):
            for item in (groups.get(name) or [])[:1]:
                merged.update(item)
    return merged


def _codestream_size(data: bytes) -> tuple[int, int] | None:
    """Return the (width, height) that a JPEG, JPEG-LS or JPEG 2000 codestream declares; None for others.

    Decoders allocate it, whatever the DICOM header says.
    """
    start = data.find(b"\xff\x4f\xff\x51", 0, 2**12)  # JPEG 2000: start of the codestream, and its SIZ segment
    if start >= 0 and not data.startswith(b"\xff\xd8"):
        x1, y1, x0, y0 = (int.from_bytes(data[start + 8 + 4 * i : start + 12 + 4 * i], "big") for i in range(4))
        return x1 - x0, y1 - y0
    if not data.startswith(b"\xff\xd8"):
        return None
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # filling
            place += 1
        elif (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:  # start of a frame
            return int.from_bytes(data[place + 7 : place + 9], "big"), int.from_bytes(
                data[place + 5 : place + 7], "big"
            )
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


class _Muted(logging.Filter):
    """Drops log records and warnings of threads that read a file: what matters of them is in our own errors.

    It is a filter of `logging`, and stands for the name of a module in a filter of `warnings`.
    `warnings.catch_warnings` would change the filters of all threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - what logging calls
        return not self.match()

    def match(self, _module: str = "") -> bool:
        return getattr(self.state, "reads", False)

    def install(self) -> None:
        """Put the filters before all others; again, since other code may have replaced them."""
        for name in ("pydicom", "pydicom.pixels.decoders.base", "highdicom"):
            logging.getLogger(name).addFilter(self)  # which adds it once
        ignore: Any = ("ignore", None, Warning, self, 0)
        if not warnings.filters or warnings.filters[0] is not ignore:
            warnings.filters.insert(0, ignore)  # type: ignore[attr-defined]  # typed as a sequence


_muted = _Muted()


@contextmanager
def without_pydicom_messages() -> Iterator[None]:
    """Keep pydicom and highdicom from logging and warning about plug-ins and values of the header in this thread.

    Those values may be data of the patient.
    """
    _muted.install()
    before = getattr(_muted.state, "reads", False)
    _muted.state.reads = True
    try:
        yield
    finally:
        _muted.state.reads = before
