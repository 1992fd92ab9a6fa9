"""DICOM files for tests, made with pydicom alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

PATIENT = "Doe^Jane"
ULTRASOUND_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.3.1"
VL_ENDOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def make_dataset(
    pixels: NDArray[Any] | list[bytes],
    photometric: str = "MONOCHROME2",
    *,
    size: tuple[int, int] | None = None,
    sop_class: str = SECONDARY_CAPTURE,
    **attributes: Any,
) -> Dataset:
    """Make a file of one frame (H, W[, 3]), of several ((N, H, W[, 3])), or of JPEG frames of (height, width) `size`."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if isinstance(pixels, list) else ExplicitVRLittleEndian
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientName, ds.PatientID = PATIENT, "4711"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "F"
    ds.StudyID, ds.AccessionNumber, ds.StudyDate, ds.StudyTime = "1", "", "20260101", "120000"
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "OT", 1, 1
    ds.Manufacturer, ds.Laterality, ds.PatientOrientation, ds.ReferringPhysicianName = "test", "", "", ""
    ds.PhotometricInterpretation = photometric
    if isinstance(pixels, list):
        assert size is not None
        frames, (ds.Rows, ds.Columns), bits, ds.SamplesPerPixel = len(pixels), size, 8, 3
        ds.PixelData = encapsulate(pixels)
        ds["PixelData"].VR = "OB"
        is_signed = False
    else:
        color = photometric not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
        shape = pixels.shape[:-1] if color else pixels.shape
        frames, (ds.Rows, ds.Columns) = (shape[0] if len(shape) == 3 else 1), shape[-2:]
        bits, is_signed, ds.SamplesPerPixel = pixels.dtype.itemsize * 8, pixels.dtype.kind == "i", 3 if color else 1
        data = pixels.tobytes()
        ds.PixelData = data + b"\0" * (len(data) % 2)
        ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    if frames > 1:
        ds.NumberOfFrames = frames
    if ds.SamplesPerPixel == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = bits
    ds.PixelRepresentation = int(is_signed)
    for name, value in attributes.items():
        setattr(ds, name, value)
    ds.HighBit = ds.BitsStored - 1
    return ds


def save_dataset(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def make_region(box: tuple[int, int, int, int], millimeters: float, *, units: int = 3) -> Dataset:
    """Make a calibrated region of an ultrasound image; the corners of the box belong to it."""
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = box[:2]
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = box[2:]
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = units
    region.PhysicalDeltaX = region.PhysicalDeltaY = millimeters / 10
    return region


def gradient(size: tuple[int, int], dtype: type = np.uint8, largest: int = 255) -> NDArray[Any]:
    """Make an image whose values grow from 0 to `largest` along its rows."""
    return np.tile(np.linspace(0, largest, size[1]).round().astype(dtype), (size[0], 1))
