"""Predictions for DICOM files: areas in millimeters, frames, and segmentations (SEG) that other readers open."""

from __future__ import annotations

import io
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Literal

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from condseg_sdk import Predictor, Segmentation
from condseg_sdk.checksums import sha256_of
from condseg_sdk.dicom_seg import SegmentKind, encode_dicom_seg, make_dicom_seg
from condseg_sdk.errors import ImageError, OptionError
from condseg_sdk.images.dicom import DicomFile, without_pydicom_messages
from condseg_sdk.images.spacing import PixelSpacing
from condseg_sdk.origin import ModelFile, Origin
from condseg_sdk.provenance import is_ours
from condseg_sdk.segmentation import encode_dicom_seg as encode_all
from tests.helpers.dicom import (
    PATIENT,
    ULTRASOUND_MULTI_FRAME,
    VL_ENDOSCOPIC,
    make_dataset,
    make_region,
    save_dataset,
)

SIZE = (40, 50)


def pictures(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (number, *SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.from_pretrained(checkpoint, device="cpu")


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    (tmp_path / "weights").write_bytes(b"weights")
    date = "2026-01-02T03:04:05.678+00:00"
    return Origin("condseg-lite-polyp", ModelFile(tmp_path / "weights"), "torch", "cpu", date)


@pytest.fixture
def endoscopy(tmp_path: Path) -> Path:
    return save_dataset(make_dataset(pictures(1)[0], "RGB", sop_class=VL_ENDOSCOPIC), tmp_path / "endoscopy.dcm")


@pytest.fixture
def cine(tmp_path: Path) -> Path:
    ds = make_dataset(pictures(4), "RGB", sop_class=ULTRASOUND_MULTI_FRAME)
    ds.SequenceOfUltrasoundRegions = [make_region((0, 0, 49, 39), 0.3)]
    return save_dataset(ds, tmp_path / "cine.dcm")


def mask(*rows: int) -> np.ndarray:
    made = np.zeros(SIZE, bool)
    for row in rows:
        made[row, 3 : 3 + row] = True
    return made


def make(path: Path, masks: dict[int, np.ndarray], origin: Origin, segment: SegmentKind | None = None) -> bytes:
    kind = segment or SegmentKind()
    file = DicomFile(path)
    return encode_dicom_seg(make_dicom_seg(file, masks, origin=origin, threshold=0.65, segment=kind), file.name)


class TestMillimeters:
    def test_areas_and_diameters_follow_from_the_spacing_of_the_file(
        self, predictor: Predictor, tmp_path: Path
    ) -> None:
        ds = make_dataset(pictures(1)[0], "RGB", PixelSpacing=["0.123456789", "0.25"])
        seg = predictor(save_dataset(ds, tmp_path / "a.dcm"))
        assert seg.spacing == (PixelSpacing(0.123456789, 0.25, "patient"),)
        assert seg.area > 0
        area = seg.area_mm2()
        assert area == pytest.approx(seg.area * 0.123456789 * 0.25, rel=1e-9)
        assert area == pytest.approx(seg.area_mm2((0.123456789, 0.25)), rel=1e-9)
        values = seg.to_dict()
        assert values["area_mm2"] == area
        assert sum(region["area_mm2"] for region in values["regions"]) == pytest.approx(area)
        assert seg.resized((80, 25)).area_mm2() == pytest.approx(
            seg.resized((80, 25)).area * 0.123456789 / 2 * 0.5, rel=1e-9
        )

    def test_the_diameter_is_the_greatest_distance_in_the_outline(self) -> None:
        logits = np.full((10, 10), -9, np.float32)
        logits[2:6, 1:4] = 9  # 4 rows of 3 columns
        spacing = (PixelSpacing(2.0, 0.5, "patient"),)
        seg = Segmentation(logits, (10, 10), threshold=0.5, source=b"", name="a", spacing=spacing)
        assert [(region.area_mm2, region.diameter_mm) for region in seg.regions()] == [
            (12.0, pytest.approx(np.hypot(4 * 2.0, 3 * 0.5)))
        ]

    def test_without_a_spacing_there_are_no_millimeters(self, predictor: Predictor, endoscopy: Path) -> None:
        seg = predictor(endoscopy)
        assert seg.area > 0
        assert seg.area_mm2() is None
        values = seg.to_dict()
        assert (values["area_mm2"], values["spacing"], values["regions"][0]["diameter_mm"]) == (None, [], None)

    def test_a_region_outside_of_the_calibrated_ones_has_no_area(self) -> None:
        logits = np.full((10, 20), -9, np.float32)
        logits[2:5, 2:5] = logits[2:5, 12:15] = 9
        left = PixelSpacing(0.5, 0.5, "ultrasound", (0, 0, 10, 10))
        right = PixelSpacing(1.0, 1.0, "ultrasound", (10, 0, 20, 10))

        def segment(*spacing: PixelSpacing) -> Segmentation:
            return Segmentation(logits, (10, 20), threshold=0.5, source=b"", name="a", spacing=spacing)

        assert segment(left).area_mm2() is None
        assert sorted(region.area_mm2 or 0 for region in segment(left).regions()) == [0, 2.25]
        assert segment(left, right).area_mm2() == 2.25 + 9


class TestFrames:
    def test_stream_and_predict_number_the_frames_and_a_call_refuses_several(
        self, predictor: Predictor, cine: Path, endoscopy: Path
    ) -> None:
        segs = list(predictor.stream(cine, batch_size=3))
        assert [(seg.frame, seg.name) for seg in segs] == [(n, f"{cine} frame {n}") for n in range(4)]
        together = predictor.predict([endoscopy, cine.read_bytes()])
        assert [seg.frame for seg in together] == [None, 0, 1, 2, 3]
        for one, other in zip(segs, together[1:], strict=True):
            np.testing.assert_array_equal(one.mask, other.mask)
        assert segs[2].overlay().size == (50, 40)
        assert segs[0].spacing[0].kind == "ultrasound"
        with pytest.raises(ImageError, match=r"has 4 frames; use predictor\.stream"):
            predictor(cine)


class TestSegmentationFiles:
    def test_a_single_frame_is_read_back_by_highdicom_and_by_pydicom_alone(
        self, endoscopy: Path, origin: Origin, tmp_path: Path
    ) -> None:
        drawn, source = mask(5, 20, 31), pydicom.dcmread(endoscopy)
        path = tmp_path / "seg.dcm"
        path.write_bytes(
            make(endoscopy, {0: drawn}, origin, SegmentKind("Polyp", ("68496003", "SCT", "Polyp of colon")))
        )
        plain = pydicom.dcmread(path)
        bits = np.unpackbits(np.frombuffer(plain.PixelData, np.uint8), bitorder="little")[: drawn.size]
        np.testing.assert_array_equal(bits.reshape(SIZE), drawn)
        assert (plain.Modality, plain.StudyInstanceUID) == ("SEG", source.StudyInstanceUID)
        assert plain.PatientName == PATIENT  # it is part of the patient's study
        assert plain.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
        assert (plain.ContentDate, plain.ContentTime) == ("20260102", "030405.678000")
        assert plain.ManufacturerModelName == "condseg_sdk"
        seg = highdicom.seg.segread(path)
        np.testing.assert_array_equal(seg.get_pixels_by_source_instance([source.SOPInstanceUID])[0, ..., 0], drawn)
        [segment] = [seg.get_segment_description(1)]
        assert segment.segment_label == "Polyp"
        assert segment.segmented_property_type.value == "68496003"
        [algorithm] = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("condseg-lite-polyp", origin.version)
        sha256 = sha256_of(tmp_path / "weights")
        assert algorithm.AlgorithmParameters == f"threshold=0.65,model_sha256={sha256}"
        assert "PixelMeasuresSequence" not in plain.SharedFunctionalGroupsSequence[0]

    def test_frames_of_a_recording_keep_their_numbers(self, cine: Path, origin: Origin, tmp_path: Path) -> None:
        masks = {0: mask(9), 1: mask(), 2: mask(11, 12), 3: mask(30)}
        path = tmp_path / "seg.dcm"
        path.write_bytes(make(cine, masks, origin))
        seg, uid = highdicom.seg.segread(path), pydicom.dcmread(cine).SOPInstanceUID
        assert seg.NumberOfFrames == 3  # without the empty one
        found = seg.get_pixels_by_source_frame(
            uid, [1, 2, 3, 4], assert_missing_frames_are_empty=True, ignore_spatial_locations=True
        )
        for number, drawn in masks.items():
            np.testing.assert_array_equal(found[number, ..., 0], drawn)
        plain = pydicom.dcmread(path)
        numbers = [
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
            for group in plain.PerFrameFunctionalGroupsSequence
        ]
        assert numbers == [1, 3, 4]
        np.testing.assert_array_equal(plain.pixel_array, np.stack([masks[number - 1] for number in numbers]))
        empty = pydicom.dcmread(io.BytesIO(make(cine, {1: mask(), 2: mask()}, origin)))
        assert empty.NumberOfFrames == 2
        assert not empty.pixel_array.any()

    @pytest.mark.parametrize("has_position", [False, True])
    def test_the_spacing_is_kept(self, has_position: bool, origin: Origin, tmp_path: Path) -> None:
        ds = make_dataset(pictures(1)[0], "RGB", PixelSpacing=["0.123456789", "0.25"])
        if has_position:
            ds.ImagePositionPatient, ds.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
            ds.SliceThickness, ds.FrameOfReferenceUID = 2, ds.StudyInstanceUID
        data = make(save_dataset(ds, tmp_path / "a.dcm"), {0: mask(9)}, origin)
        seg = highdicom.seg.segread(io.BytesIO(data))
        [measures] = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        assert [float(value) for value in measures.PixelSpacing] == pytest.approx([0.123456789, 0.25], rel=1e-6)
        assert ("FrameOfReferenceUID" in seg) == has_position

    def test_the_same_prediction_gives_the_same_file_and_its_seal_breaks_with_any_change(
        self, cine: Path, origin: Origin, tmp_path: Path
    ) -> None:
        data = make(cine, {0: mask(9), 2: mask(8)}, origin)
        assert data == make(cine, {0: mask(9), 2: mask(8)}, origin)
        path = tmp_path / "seg.dcm"
        for changed, ours in [
            (data, True),
            (data[:-1], False),
            (data + b"\0\0", False),
            (data.replace(b"SEG", b"SEX"), False),
        ]:
            path.write_bytes(changed)
            assert is_ours(path) == ours
        assert not is_ours(cine)

    def test_a_lowest_score_is_stated_and_makes_another_series(self, predictor: Predictor, cine: Path) -> None:
        seg = predictor.predict(cine)[0]
        plain, limited = (replace(seg, min_score=limit).to_dicom_seg() for limit in (None, 0.25))
        stated = limited.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
        assert "min_score=0.25" in stated
        assert plain.SeriesInstanceUID != limited.SeriesInstanceUID

    def test_predictions_name_their_model_and_the_default_segment(
        self, predictor: Predictor, cine: Path, endoscopy: Path, tmp_path: Path
    ) -> None:
        ds = predictor(endoscopy).to_dicom_seg()
        assert ds.SegmentSequence[0].SegmentLabel == "Lesion"
        path = predictor(endoscopy.read_bytes()).save(tmp_path / "a.dcm", kind="dicom-seg")
        assert is_ours(path)
        segs = predictor.predict(cine)
        together = pydicom.dcmread(io.BytesIO(encode_all(segs, SegmentKind("Mass"))))
        assert together.SegmentSequence[0].SegmentLabel == "Mass"
        np.testing.assert_array_equal(together.pixel_array.astype(bool), np.stack([seg.mask for seg in segs]))
        single = pydicom.dcmread(io.BytesIO(segs[3].encode("dicom-seg")))
        assert single.SeriesInstanceUID == pydicom.dcmread(io.BytesIO(encode_all(segs))).SeriesInstanceUID

    def test_no_name_of_a_patient_gets_into_json_or_png(self, predictor: Predictor, cine: Path) -> None:
        for seg in predictor.predict(cine):
            for kind in ("json", "mask", "overlay"):
                data = seg.encode(kind)
                assert PATIENT.encode() not in data
                assert b"4711" not in data

    def test_what_a_segmentation_cannot_be_made_from(
        self, predictor: Predictor, endoscopy: Path, cine: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ImageError, match="is not a DICOM file, which a DICOM segmentation refers to; save 'mask'"):
            predictor(np.zeros((8, 8), np.uint8)).to_dicom_seg()
        by_hand = Segmentation(np.zeros((2, 2), np.float32), SIZE, threshold=0.5, source=endoscopy, name="a")
        with pytest.raises(OptionError, match="its origin is unknown"):
            by_hand.to_dicom_seg()
        with pytest.raises(OptionError, match="are for several files"):
            encode_all([predictor(endoscopy), *predictor.predict(cine)])
        ds: Dataset = pydicom.dcmread(endoscopy)
        del ds.StudyInstanceUID
        with pytest.raises(ImageError, match="has no StudyInstanceUID, which a segmentation refers to"):
            predictor(save_dataset(ds, tmp_path / "b.dcm")).to_dicom_seg()
        ds.StudyInstanceUID = "1.2.3"
        del ds.PatientID, ds.StudyTime
        assert predictor(save_dataset(ds, tmp_path / "c.dcm")).to_dicom_seg().PatientID == ""


def test_the_json_of_a_dicom_file_is_plain(predictor: Predictor, cine: Path) -> None:
    values = json.loads(predictor.predict(cine)[1].encode("json"))
    assert values["spacing"] == [
        {"row": pytest.approx(0.3), "column": pytest.approx(0.3), "kind": "ultrasound", "box": [0, 0, 50, 40]}
    ]


@pytest.mark.parametrize("label", ["\u00fcber", "\u75c5\u5909", "1 polyp", "_"])
def test_a_label_in_any_script_is_read_back_from_a_valid_file(label: str, tmp_path: Path, origin: Origin) -> None:
    name = "M\u00fcller^J\u00f6rg"
    source = make_dataset(pictures(1)[0], "RGB", SpecificCharacterSet="ISO_IR 100", PatientName=name)
    data = make(save_dataset(source, tmp_path / "a.dcm"), {0: mask(5)}, origin, SegmentKind(label))
    read = pydicom.dcmread(io.BytesIO(data))
    assert read.SegmentSequence[0].SegmentLabel == label
    assert str(read.PatientName) == name
    assert re.fullmatch("[A-Z][A-Z0-9_ ]{0,15}", read.ContentLabel)


@pytest.mark.parametrize("text", ["", " ", "x" * 65, "a\\b", "a\nb", 5, None])
def test_texts_that_dicom_cannot_hold_are_refused_by_their_option(text: object) -> None:
    with pytest.raises(OptionError, match="segment label: .* cannot be written to DICOM"):
        SegmentKind(text)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="segment type: .* cannot be written to DICOM"):
        SegmentKind(type=("1", "SCT", text))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientBirthDate": "Doe-born-1970"},
        {"StudyDate": "Doe20260101"},
        {"StudyTime": "Doe12"},
        {"PatientSex": "DoeX"},
        {"SpecificCharacterSet": "Doe"},
    ],
)
@pytest.mark.parametrize("action", ["always", "error"])
def test_an_invalid_attribute_of_a_patient_is_not_quoted_in_errors_warnings_and_logs(
    predictor: Predictor,
    tmp_path: Path,
    attributes: dict[str, str],
    action: Literal["always", "error"],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = save_dataset(make_dataset(pictures(1)[0], "RGB", **attributes), tmp_path / "c.dcm")
    caplog.clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter(action)
        seg = predictor(file)
        with pytest.raises(ImageError, match="save masks instead") as caught:
            encode_all([seg])
    assert "Doe" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert [str(warning.message) for warning in warned] == []
    assert "Doe" not in caplog.text


def test_warnings_of_pydicom_outside_of_the_package_are_shown() -> None:
    with without_pydicom_messages():
        warnings.warn("ours", stacklevel=1)
    with pytest.warns(UserWarning, match="the user's"):
        warnings.warn("the user's", stacklevel=1)


def test_a_source_that_vanishes_is_not_called_an_invalid_attribute(
    predictor: Predictor, cine: Path, endoscopy: Path
) -> None:
    for file in (endoscopy, cine):
        segs = predictor.predict(file)
        file.unlink()
        with pytest.raises(ImageError, match=rf"{file.name} does not exist"):
            encode_all(segs)
