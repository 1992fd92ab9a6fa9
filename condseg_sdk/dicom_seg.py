"""DICOM segmentations (SEG): masks with references to the images and frames that they were made from.

highdicom writes them. For a source without a position in the patient, such as an endoscopic or ultrasound recording,
highdicom writes single frames only; this module then adds the other frames, each with its number in the source.
"""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import CondsegError, ImageError, OptionError, OutputError
from condseg_sdk.images.dicom import DicomFile, without_pydicom_messages
from condseg_sdk.images.limits import image_errors
from condseg_sdk.images.memory_budget import MAX_DECODE_BYTES
from condseg_sdk.origin import Origin
from condseg_sdk.provenance import seal_dicom
from condseg_sdk.words import pluralize

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Code", "SegmentKind", "default_segment", "encode_dicom_seg", "make_dicom_seg"]

Code: TypeAlias = tuple[str, str, str]
"""A coded term: value, coding scheme and meaning, such as ("68496003", "SCT", "Polyp of colon")."""

MAX_TEXT = 64
"""Largest number of characters of a label, or of a part of a code."""

_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")

ALTERED: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")


@dataclass(frozen=True)
class SegmentKind:
    """What a segment shows.

    Args:
        label: Name of the segment, at most 64 characters.
        type: Coded type of the structure.
        category: Coded category of the structure.

    Raises:
        OptionError: A text is empty, too long, or has a backslash or a control character, as no text in DICOM has.
    """

    label: str = "Lesion"
    type: Code = ("52988006", "SCT", "Lesion")
    category: Code = ALTERED

    def __post_init__(self) -> None:
        _check_texts("segment label", self.label)
        for option, code in (("segment type", self.type), ("segment category", self.category)):
            if not isinstance(code, (tuple, list)) or len(code) != 3:
                raise OptionError(f"{option}={code!r} must be a code, its scheme and its meaning", option=option)
            _check_texts(option, *code)


def _check_texts(option: str, *texts: str) -> None:
    """Check texts for DICOM."""
    for text in texts:
        if not isinstance(text, str) or not 0 < len(text.strip()) <= len(text) <= MAX_TEXT or _NO_TEXT.search(text):
            remedy = f"give 1 to {MAX_TEXT} characters without backslashes and control characters"
            raise OptionError(f"{option}: {text!r} cannot be written to DICOM; {remedy}", option=option)


_KINDS = {
    "condseg-lite-polyp": SegmentKind("Polyp", ("68496003", "SCT", "Polyp of colon")),
    "condseg-lite-skin": SegmentKind("Skin lesion", ("95324001", "SCT", "Skin lesion")),
    "condseg-lite-breast": SegmentKind("Breast lesion"),
}
_REFERENCED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_MAY_BE_EMPTY = (  # attributes that every object of a study has, with or without a value
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
_POSITION = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "FrameOfReferenceUID")


def default_segment(model: str) -> SegmentKind:
    """Return the kind of region that a bundled model segments; for any other model it is a lesion.

    Example:
        >>> default_segment("condseg-lite-polyp").label, default_segment("mine/checkpoint").label
        ('Polyp', 'Lesion')
    """
    return _KINDS.get(model, SegmentKind())


@contextmanager
def _nameless_errors(name: str) -> Iterator[None]:
    """Like `image_errors`, but without the words of pydicom and highdicom, which quote patients' data."""
    with image_errors(name):
        try:
            yield
        except (CondsegError, MemoryError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - of any kind, and with a name that must not be quoted
            raise ImageError(
                f"{name}: no segmentation can refer to it, since an attribute of its patient, study or equipment is "
                f"not valid ({type(error).__name__}); correct it, or save masks instead"
            ) from None


def encode_dicom_seg(made: Dataset, name: str) -> bytes:
    """Return the bytes of what `make_dicom_seg` made, with a seal at their end.

    Args:
        made: The segmentation.
        name: Name of the image that it was made from, for messages.
    """
    content = io.BytesIO()
    with _nameless_errors(name), without_pydicom_messages():
        made.save_as(content)
    return seal_dicom(content.getvalue())


def make_dicom_seg(
    file: DicomFile,
    masks: Mapping[int, NDArray[np.bool_]],
    *,
    origin: Origin,
    threshold: float,
    segment: SegmentKind,
    min_score: float | None = None,
) -> Dataset:
    """Make a DICOM segmentation of one segment.

    Args:
        file: The image that the masks were made from.
        masks: The masks, bool (H, W), by the number of their frame in the file, from 0. Frames without a mask, or
            with an empty one, are not stored, unless all are empty.
        origin: What made the masks.
        threshold: Lowest probability at which a pixel belongs to the mask.
        segment: What the segment shows.
        min_score: Score below which the masks are empty; None for no such limit.

    Returns:
        highdicom's Segmentation, a pydicom data set.

    Raises:
        ImageError: The file can no longer be read, lacks a UID that a segmentation refers to, or has attributes that
            are not valid.
        OutputError: The masks need too much memory.
    """
    try:
        import highdicom  # noqa: F401 - loads for seconds
    except ImportError as error:
        raise OutputError("a DICOM segmentation needs highdicom; pip install 'condseg_sdk[dicom]'") from error
    if sum(mask.size for mask in masks.values()) > MAX_DECODE_BYTES:
        raise OutputError(
            f"{file.name}: a segmentation of {pluralize(len(masks), 'frame')} needs too much memory; split the file"
        )
    limits = {"threshold": threshold} | ({} if min_score is None else {"min_score": min_score})
    with _nameless_errors(file.name), without_pydicom_messages():
        source = _read_source(file)
        shown = {number: mask for number, mask in sorted(masks.items()) if mask.any()} or dict(masks)
        if _has_position(source):
            frames = np.zeros((file.num_frames, *file.size), bool)
            for number, mask in shown.items():
                frames[number] = mask
            made = _make(source, frames, origin, limits, segment)
        else:
            _remove_position(source)
            made = _make(source, next(iter(shown.values()))[None], origin, limits, segment)
            _set_spacing(made, file)
            if file.num_frames > 1:
                _set_frames(made, shown)
        _set_identity(made, source, origin, limits, segment)
        return made


def _read_source(file: DicomFile) -> Dataset:
    """Read the whole header of the source, including patient and study, which a SEG repeats."""
    from pydicom import dcmread

    with file.open() as opened:
        source = dcmread(opened, stop_before_pixels=True)
    missing = [name for name in _REFERENCED if not source.get(name)]
    if missing:
        raise ImageError(f"{file.name} has no {missing[0]}, which a segmentation refers to; add it to the file")
    for name in _MAY_BE_EMPTY:
        if name not in source:
            setattr(source, name, "")
    return source


def _has_position(source: Dataset) -> bool:
    """Return whether each frame has a position in the patient."""
    if all(source.get(name) for name in _POSITION):
        return "NumberOfFrames" not in source
    shared = (source.get("SharedFunctionalGroupsSequence") or [{}])[0]
    own = (source.get("PerFrameFunctionalGroupsSequence") or [{}])[0]
    groups = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    return bool(source.get("FrameOfReferenceUID")) and all(name in shared or name in own for name in groups)


def _remove_position(source: Dataset) -> None:
    """Reduce a source without positions to one frame that highdicom accepts."""
    from pydicom import Dataset

    for name in ("FrameOfReferenceUID", "PixelSpacing"):
        source.pop(name, None)
    shared, measures = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1, 1], 1  # highdicom copies it; `_set_spacing` replaces it
    shared.PixelMeasuresSequence = [measures]
    source.SharedFunctionalGroupsSequence, source.PerFrameFunctionalGroupsSequence = [shared], [Dataset()]
    if "NumberOfFrames" in source:
        source.NumberOfFrames = 1


def _set_spacing(made: Dataset, file: DicomFile) -> None:
    """Add the spacing of the pixels if it was measured in the patient and is valid for the whole image."""
    from pydicom import Dataset

    groups = made.SharedFunctionalGroupsSequence[0]
    groups.pop("PixelMeasuresSequence", None)
    spacings = file.spacing()
    if len(spacings) == 1 and spacings[0].kind == "patient":
        measures = Dataset()
        measures.PixelSpacing = [spacings[0].row, spacings[0].column]
        measures.SliceThickness = None  # unknown, but expected by readers
        groups.PixelMeasuresSequence = [measures]


def _make(
    source: Dataset, frames: NDArray[np.bool_], origin: Origin, limits: Mapping[str, float], segment: SegmentKind
) -> Dataset:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    sha256 = origin.weights.sha256
    parameters = {name: f"{value:g}" for name, value in limits.items()} | ({"model_sha256": sha256} if sha256 else {})
    algorithm = AlgorithmIdentificationSequence(
        name=origin.model[-64:],
        family=codes.cid7162.ArtificialIntelligence,
        version=origin.version,
        source="condseg_sdk",
        parameters=parameters,
    )
    description = SegmentDescription(
        segment_number=1,
        segment_label=segment.label,
        segmented_property_category=CodedConcept(*segment.category),
        segmented_property_type=CodedConcept(*segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
    )
    series, instance = (_uid(source, origin, limits, segment, name) for name in ("series", "instance"))
    return Segmentation(
        source_images=[source],
        pixel_array=frames,
        segmentation_type="BINARY",
        segment_descriptions=[description],
        series_instance_uid=series,
        series_number=int(source.get("SeriesNumber") or 0) + 1000,
        sop_instance_uid=instance,
        instance_number=int(source.get("InstanceNumber") or 1),
        manufacturer="condseg_sdk contributors",
        manufacturer_model_name="condseg_sdk",
        software_versions=origin.version,
        device_serial_number=sha256 or "unknown",
        content_label=re.sub(r"[^A-Z0-9_ ]", "_", segment.label.upper()).lstrip("0123456789_ ")[:16] or "SEGMENT",
        content_description=segment.label,
        omit_empty_frames=bool(frames.any()),
    )


def _uid(source: Dataset, origin: Origin, limits: Mapping[str, float], segment: SegmentKind, level: str) -> str:
    """Return a UID that is the same for the same input, so that the images of a series and a model share a series."""
    what = [level, source.SeriesInstanceUID, origin.model, origin.weights.sha256, origin.version]
    what += [*limits.values(), segment]
    if level != "series":
        what += [source.SOPInstanceUID, origin.date]
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, repr(what)).int}"


def _set_frames(made: Dataset, masks: Mapping[int, NDArray[np.bool_]]) -> None:
    """Extend a single-frame segmentation to several frames, for a source without positions."""
    from pydicom import Dataset
    from pydicom.pixels.utils import pack_bits

    position = Dataset()
    position.DimensionOrganizationUID = made.DimensionIndexSequence[0].DimensionOrganizationUID
    position.DimensionIndexPointer = 0x00209128  # Temporal Position Index
    position.FunctionalGroupPointer = 0x00209111  # Frame Content Sequence
    position.DimensionDescriptionLabel = "Temporal Position Index"
    made.DimensionIndexSequence.append(position)
    template = made.PerFrameFunctionalGroupsSequence[0]
    groups = []
    for index, number in enumerate(masks):
        group = deepcopy(template)
        content = group.FrameContentSequence[0]
        content.DimensionIndexValues = [1, index + 1]
        content.TemporalPositionIndex = number + 1
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = number + 1
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    made.NumberOfFrames = len(groups)
    made.PixelData = pack_bits(np.stack([*masks.values()]).astype(np.uint8))


def _set_identity(
    made: Dataset, source: Dataset, origin: Origin, limits: Mapping[str, float], segment: SegmentKind
) -> None:
    """Replace the values that highdicom takes from the clock or chooses at random."""
    time = datetime.fromisoformat(origin.date)
    made.SeriesDescription = f"condseg_sdk {segment.label}"[:64]
    if not all(text.isascii() for text in (segment.label, *segment.type, *segment.category)):
        made.SpecificCharacterSet = "ISO_IR 192"  # UTF-8; without it such characters become question marks
    made.ContentDate = made.InstanceCreationDate = time.strftime("%Y%m%d")
    made.ContentTime = made.InstanceCreationTime = time.strftime("%H%M%S.%f")
    made.TimezoneOffsetFromUTC = "+0000"
    for equipment in made.get("ContributingEquipmentSequence", []):
        if "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = time.strftime("%Y%m%d%H%M%S.%f")
    organization = _uid(source, origin, limits, segment, "dimensions")
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
