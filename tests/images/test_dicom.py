"""DICOM files as images: what a viewer shows, the spacing of the pixels, frames, folders, and what is refused."""

from __future__ import annotations

import io
import logging
import pickle
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import MPEG4HP41

from condseg_sdk.data import check_dataset, open_dataset
from condseg_sdk.errors import ImageError
from condseg_sdk.images import dicom
from condseg_sdk.images.dicom import DicomFile, may_be_dicom
from condseg_sdk.images.load import find_images, load_image, open_image, read_image
from condseg_sdk.images.spacing import PixelSpacing, resize_spacing, spacing_in
from tests.helpers.dicom import (
    ULTRASOUND_MULTI_FRAME,
    gradient,
    make_dataset,
    make_region,
    save_dataset,
)


def shown(ds: Dataset) -> np.ndarray:
    """The image of a data set, as uint8 (H, W, 3)."""
    file = io.BytesIO()
    pydicom.dcmwrite(file, ds, enforce_file_format=True)
    return load_image(file.getvalue())


def shipped(name: str) -> str:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return path


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=95)
    data = file.getvalue()
    return data + b"\0" * (len(data) % 2)


class TestValues:
    def test_eight_bit_gray_is_shown_as_it_is_stored(self) -> None:
        gray = gradient((4, 256))
        np.testing.assert_array_equal(shown(make_dataset(gray)), np.repeat(gray[..., None], 3, axis=2))
        np.testing.assert_array_equal(shown(make_dataset(gray, "MONOCHROME1"))[..., 0], 255 - gray)
        inverse = make_dataset(gray, PresentationLUTShape="INVERSE")
        np.testing.assert_array_equal(shown(inverse)[..., 0], 255 - gray)

    def test_fewer_bits_than_eight_use_the_full_range(self) -> None:
        assert shown(make_dataset(gradient((2, 64), largest=63), BitsStored=6)).max() == 255

    def test_a_linear_window_follows_the_formula_of_the_standard(self) -> None:
        values = gradient((3, 300), np.uint16, 4095)
        found = shown(make_dataset(values, BitsStored=12, WindowCenter=[1000, 50], WindowWidth=[400, 10]))
        center, width = 1000, 400  # the first of the two windows; PS3.3 C.11.2.1.2.1
        wanted = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
        np.testing.assert_array_equal(found[..., 0], np.rint(wanted.clip(0, 255)).astype(np.uint8))

    def test_exact_and_sigmoid_windows(self) -> None:
        values = gradient((3, 300), np.uint16, 4095).astype(np.float64)
        window = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 800}
        exact = shown(make_dataset(values.astype(np.uint16), VOILUTFunction="LINEAR_EXACT", **window))
        wanted = ((values - 2000) / 800 + 0.5) * 255
        np.testing.assert_allclose(exact[..., 0], wanted.clip(0, 255), atol=0.51)
        sigmoid = shown(make_dataset(values.astype(np.uint16), VOILUTFunction="SIGMOID", **window))
        np.testing.assert_allclose(sigmoid[..., 0], 255 / (1 + np.exp(-4 * (values - 2000) / 800)), atol=0.51)

    def test_the_window_applies_to_rescaled_values(self) -> None:
        stored = gradient((3, 300), np.int16, 2000)
        ds = make_dataset(stored, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
        wanted = ((stored * 2.0 - 1024 - 39.5) / 399 + 0.5) * 255
        np.testing.assert_allclose(shown(ds)[..., 0], wanted.clip(0, 255), atol=0.51)

    def test_a_table_of_values_of_interest_takes_the_place_of_a_window(self) -> None:
        table = Dataset()
        table.LUTDescriptor, table.LUTData = [4, 0, 16], [0, 65535, 32768, 0]
        ds = make_dataset(np.array([[0, 1, 2, 3]], np.uint8), VOILUTSequence=[table])
        ds.WindowCenter, ds.WindowWidth = 1, 1
        table["LUTData"].VR = table["LUTDescriptor"].VR = "US"
        assert shown(ds)[0, :, 0].tolist() == [0, 255, 128, 0]

    @pytest.mark.parametrize("window", [(None, None), (100, 0), (100, -5)])
    def test_without_a_valid_window_deep_values_are_shown_from_smallest_to_largest(
        self, window: tuple[int | None, int | None]
    ) -> None:
        values = np.array([[100, 600, 1100]], np.uint16)
        ds = make_dataset(values, BitsStored=12)
        if window[1] is not None:
            ds.WindowCenter, ds.WindowWidth = window
        assert shown(ds)[0, :, 0].tolist() == [0, 128, 255]

    def test_padding_is_black_and_no_part_of_the_range(self) -> None:
        values = np.array([[-2000, 100, 600, 1100]], np.int16)
        assert shown(make_dataset(values, PixelPaddingValue=-2000))[0, :, 0].tolist() == [0, 0, 128, 255]
        inverse = make_dataset(values, "MONOCHROME1", PixelPaddingValue=-2000)
        assert shown(inverse)[0, :, 0].tolist() == [0, 255, 127, 0]
        span = make_dataset(values, PixelPaddingValue=-2000, PixelPaddingRangeLimit=100)
        assert shown(span)[0, :, 0].tolist() == [0, 0, 0, 255]

    def test_a_constant_deep_image_is_black(self) -> None:
        assert not shown(make_dataset(np.full((2, 2), 77, np.uint16))).any()

    def test_rgb_is_read_by_pixel_and_by_plane(self) -> None:
        rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
        np.testing.assert_array_equal(shown(make_dataset(rgb, "RGB")), rgb)
        planes = make_dataset(rgb, "RGB")
        planes.PixelData, planes.PlanarConfiguration = rgb.transpose(2, 0, 1).tobytes(), 1
        np.testing.assert_array_equal(shown(planes), rgb)

    def test_colors_of_more_than_eight_bits_are_scaled(self) -> None:
        rgb = np.array([[[0, 2048, 4095]]], np.uint16)
        assert shown(make_dataset(rgb, "RGB", BitsStored=12)).tolist() == [[[0, 128, 255]]]

    def test_full_ybr_follows_the_equations_of_the_standard(self) -> None:
        ybr = np.random.default_rng(1).integers(60, 200, (5, 6, 3), np.uint8)
        y, b, r = (ybr[..., i].astype(np.float64) for i in range(3))
        rgb = [y + 1.402 * (r - 128), y - 0.344136 * (b - 128) - 0.714136 * (r - 128), y + 1.772 * (b - 128)]
        np.testing.assert_allclose(shown(make_dataset(ybr, "YBR_FULL")), np.stack(rgb, axis=-1).clip(0, 255), atol=1.01)

    @pytest.mark.parametrize("bits", [8, 16])
    def test_a_palette_is_read(self, bits: int) -> None:
        ds = make_dataset(np.array([[0, 1, 2, 3]], np.uint8), "PALETTE COLOR")
        white = 2**bits - 1
        for color, values in {
            "Red": [0, white, 0, 0],
            "Green": [0, 0, white, 0],
            "Blue": [0, white, white // 2, 0],
        }.items():
            setattr(ds, f"{color}PaletteColorLookupTableDescriptor", [4, 0, bits])
            ds[f"{color}PaletteColorLookupTableDescriptor"].VR = "US"
            table = np.array(values, np.uint16 if bits == 16 else np.uint8)
            setattr(ds, f"{color}PaletteColorLookupTableData", table.tobytes())
        assert shown(ds)[0].tolist() == [[0, 0, 0], [255, 0, 255], [0, 255, 127], [0, 0, 0]]

    def test_float_pixel_data_is_read(self) -> None:
        ds = make_dataset(np.zeros((1, 3), np.uint32))
        del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
        ds.FloatPixelData = np.array([[-1, 0, 1]], np.float32).tobytes()
        assert shown(ds)[0, :, 0].tolist() == [0, 128, 255]

    @pytest.mark.parametrize(
        "name",
        [
            "SC_rgb_rle.dcm",
            "SC_rgb_jpeg_gdcm.dcm",
            "SC_rgb_jpeg.dcm",
            "SC_rgb_dcmtk_+eb+cy+np.dcm",
            "SC_rgb_gdcm_KY.dcm",
            "SC_rgb_jls_lossy_line.dcm",
            "SC_ybr_full_422_uncompressed.dcm",
            "ExplVR_BigEnd.dcm",
            "image_dfl.dcm",
        ],
    )
    def test_transfer_syntaxes(self, name: str) -> None:
        wanted = pixel_array(pydicom.dcmread(shipped(name)))  # pydicom's own conversion to RGB
        if wanted.ndim == 2:
            wanted = np.repeat(wanted[..., None], 3, axis=2)
        np.testing.assert_array_equal(load_image(shipped(name)), wanted)

    def test_lossless_compressions_of_one_image_are_read_alike(self) -> None:
        plain = load_image(shipped("MR_small.dcm"))
        for kind in ("RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian", "implicit"):
            np.testing.assert_array_equal(load_image(shipped(f"MR_small_{kind}.dcm")), plain)


class TestSources:
    def test_path_bytes_file_object_and_frame_are_read_alike(self) -> None:
        path = shipped("examples_rgb_color.dcm")
        wanted = load_image(path)
        data = Path(path).read_bytes()
        for source in (Path(path), data, io.BytesIO(data), DicomFile(path).frames[0]):
            np.testing.assert_array_equal(load_image(source), wanted)
        with open_image(Path(path)) as image:
            np.testing.assert_array_equal(np.asarray(image), wanted)

    def test_several_frames_are_decoded_one_by_one(self) -> None:
        file = DicomFile(shipped("examples_ybr_color.dcm"))
        assert (file.num_frames, file.size) == (30, (240, 320))
        whole = pydicom.dcmread(file.source).pixel_array
        for number in (0, 17, 29):
            np.testing.assert_array_equal(file.decode(number), whole[number])
        assert file.frames[17].name == f"{file.source} frame 17"
        assert pickle.loads(pickle.dumps(file.frames[3])).decode().shape == (240, 320, 3)

    def test_a_frame_in_several_fragments_is_read(self, tmp_path: Path) -> None:
        rgb = np.random.default_rng(2).integers(0, 256, (16, 16, 3), np.uint8)
        data = jpeg(rgb)
        ds = make_dataset([data], "YBR_FULL_422", size=(16, 16))
        ds.PixelData = pydicom.encaps.encapsulate([data], fragments_per_frame=3)
        plain = np.asarray(Image.open(io.BytesIO(data)))
        np.testing.assert_allclose(shown(ds).astype(int), plain, atol=10)

    def test_a_file_with_several_frames_is_no_single_image(self) -> None:
        for source in (shipped("SC_rgb_rle_2frame.dcm"), Path(shipped("SC_rgb_rle_2frame.dcm")).read_bytes()):
            with pytest.raises(ImageError, match=r"has 2 frames; use predictor\.stream"):
                load_image(source)

    def test_files_without_a_suffix_are_recognized_by_their_content(self, tmp_path: Path) -> None:
        ds = make_dataset(gradient((4, 4)))
        names = ["IM000001", "1.2.840.113619.2.55", "a.dcm", "sub/B.DCM"]
        for name in names:
            save_dataset(ds, tmp_path / name)
        save_dataset(ds, tmp_path / "DICOMDIR")
        save_dataset(ds, tmp_path / "other.bin")
        (tmp_path / "notes").write_text("no image")
        found = [tmp_path / name for name in sorted(names)]
        assert find_images(tmp_path) == found
        assert find_images(f"{tmp_path}/**") == found
        assert not may_be_dicom(tmp_path / "missing")

    def test_images_of_a_dataset_may_be_dicom(self, tmp_path: Path) -> None:
        for name in ("a", "b", "c"):
            save_dataset(make_dataset(gradient((24, 32))), tmp_path / "images" / f"{name}.dcm")
            (tmp_path / "masks").mkdir(exist_ok=True)
            mask = np.zeros((24, 32), np.uint8)
            mask[4:12, 6:20] = 255
            Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
        dataset = open_dataset(tmp_path)
        report = check_dataset(dataset)
        assert not report.errors
        assert report.image_sizes == ((24, 32), (24, 32))


class TestSpacing:
    @pytest.mark.parametrize(
        ("attributes", "wanted"),
        [
            ({}, ()),
            ({"PixelSpacing": [0.25, 0.5]}, (PixelSpacing(0.25, 0.5, "patient"),)),
            ({"ImagerPixelSpacing": [0.1, 0.2]}, (PixelSpacing(0.1, 0.2, "detector"),)),
            (
                {"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.1, 0.1]},
                (PixelSpacing(0.1, 0.1, "detector"),),
            ),
            (
                {"PixelSpacing": [0.08, 0.08], "ImagerPixelSpacing": [0.1, 0.1]},
                (PixelSpacing(0.08, 0.08, "patient"),),
            ),
            ({"NominalScannedPixelSpacing": [0.3, 0.3]}, (PixelSpacing(0.3, 0.3, "scanned"),)),
            ({"PixelSpacing": [0, 0.5]}, ()),
            ({"PixelSpacing": None}, ()),
        ],
    )
    def test_attributes_give_the_spacing(
        self, attributes: dict[str, list[float]], wanted: tuple[PixelSpacing, ...], tmp_path: Path
    ) -> None:
        path = save_dataset(make_dataset(gradient((4, 4)), **attributes), tmp_path / "a.dcm")
        assert DicomFile(path).spacing() == wanted
        with read_image(path) as image:
            assert image.spacing == wanted

    def test_regions_of_an_ultrasound_image_give_the_spacing(self, tmp_path: Path) -> None:
        regions = [
            make_region((0, 0, 39, 49), 0.2),
            make_region((50, 0, 89, 49), 0.4),
            make_region((0, 60, 89, 79), 1.0, units=4),  # seconds: a Doppler curve
            make_region((50, 50, 300, 79), 0.5),  # beyond the image: of one that was cropped
        ]
        ds = make_dataset(gradient((80, 100)), sop_class=ULTRASOUND_MULTI_FRAME, SequenceOfUltrasoundRegions=regions)
        ds.PixelSpacing = [9, 9]  # the regions come before it
        found = DicomFile(save_dataset(ds, tmp_path / "us.dcm")).spacing()
        assert [(round(s.row, 9), s.kind, s.box) for s in found] == [
            (0.2, "ultrasound", (0, 0, 40, 50)),
            (0.4, "ultrasound", (50, 0, 90, 50)),
        ]

    def test_functional_groups_of_each_frame_are_read(self, tmp_path: Path) -> None:
        ds = make_dataset(np.zeros((2, 4, 4), np.uint16), BitsStored=12)
        groups = []
        for millimeters, center in ((0.5, 100), (0.25, 200)):
            group, measures, window = Dataset(), Dataset(), Dataset()
            measures.PixelSpacing = [millimeters, millimeters]
            window.WindowCenter, window.WindowWidth = center, 50
            group.PixelMeasuresSequence, group.FrameVOILUTSequence = [measures], [window]
            groups.append(group)
        ds.PerFrameFunctionalGroupsSequence = groups
        ds.PixelData = np.full((2, 4, 4), 100, np.uint16).tobytes()
        file = DicomFile(save_dataset(ds, tmp_path / "a.dcm"))
        assert [file.spacing(number)[0].row for number in range(2)] == [0.5, 0.25]
        assert [int(file.decode(number)[0, 0, 0]) for number in range(2)] == [130, 0]

    def test_a_box_has_a_spacing_only_inside_of_one_region(self) -> None:
        left = PixelSpacing(0.1, 0.1, "ultrasound", (0, 0, 50, 100))
        right = PixelSpacing(0.2, 0.2, "ultrasound", (50, 0, 100, 100))
        assert spacing_in((left, right), (10, 10, 50, 90)) == left
        assert spacing_in((left, right), (40, 10, 60, 90)) is None
        assert spacing_in((left, right), (90, 10, 101, 90)) is None
        assert spacing_in((), (0, 0, 1, 1)) is None
        assert resize_spacing(left, (100, 100), (200, 50)) == PixelSpacing(0.05, 0.2, "ultrasound", (0, 0, 25, 200))


class TestWhatIsRefused:
    def refused(self, ds: Dataset, path: Path) -> str:
        save_dataset(ds, path)
        with pytest.raises(ImageError) as caught:
            load_image(path)
        assert str(path) in str(caught.value)
        assert caught.value.path == path
        return str(caught.value)

    def test_objects_that_are_no_image(self, tmp_path: Path) -> None:
        for name in ("reportsi.dcm", "test-SR.dcm", "rtplan.dcm", "waveform_ecg.dcm"):
            with pytest.raises(ImageError, match=rf"{name} is a DICOM file without an image \(.*; pass the files"):
                load_image(shipped(name))
        with pytest.raises(ImageError, match="is a DICOM segmentation, not an image"):
            load_image(shipped("liver_1frame.dcm"))
        with pytest.raises(ImageError, match="not an image that can be read"):
            load_image(shipped("no_meta.dcm"))

    def test_a_video_inside_of_a_dicom_file_is_refused(self, tmp_path: Path) -> None:
        ds = make_dataset([jpeg(np.zeros((8, 8, 3), np.uint8))], "YBR_PARTIAL_420", size=(8, 8))
        ds.file_meta.TransferSyntaxUID = MPEG4HP41
        message = self.refused(ds, tmp_path / "a.dcm")
        assert "MPEG-4" in message
        assert "export it as .mp4" in message

    def test_a_missing_extra_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dicom, "HAS_DICOM", False)
        with pytest.raises(ImageError, match=r"needs pydicom; pip install 'condseg_sdk\[dicom\]'"):
            load_image(shipped("CT_small.dcm"))

    def test_a_missing_plug_in_is_reported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from pydicom.pixels.decoders.base import JPEG2000LosslessDecoder

        monkeypatch.setattr(type(JPEG2000LosslessDecoder), "is_available", False)
        with pytest.raises(ImageError, match=r"needs a plug-in of pydicom; pip install"):
            load_image(shipped("GDCMJ2K_TextGBR.dcm"))

    def test_pixel_data_that_is_missing_or_too_short(self, tmp_path: Path) -> None:
        ds = make_dataset(np.zeros((3, 8, 8), np.uint8))
        ds.PixelData = bytes(8 * 8 * 2)
        assert "it contains 2 of its 3 frames" in self.refused(ds, tmp_path / "short.dcm")
        del ds.PixelData
        assert "without pixel data" in self.refused(ds, tmp_path / "none.dcm")
        cut = make_dataset([jpeg(np.zeros((8, 8, 3), np.uint8))] * 2, "YBR_FULL_422", size=(8, 8), NumberOfFrames=5)
        assert "declares 5 frames, but contains 2" in self.refused(cut, tmp_path / "frames.dcm")

    def test_sizes_are_checked_before_decoding(self, tmp_path: Path) -> None:
        small = jpeg(np.zeros((8, 8, 3), np.uint8))
        place = small.index(b"\xff\xc0")
        bomb = small[: place + 5] + (60000).to_bytes(2, "big") * 2 + small[place + 9 :]
        ds = make_dataset([bomb], "YBR_FULL_422", size=(8, 8))
        assert "declares frames of 8x8 pixels, but frame 0 has 60000x60000" in self.refused(ds, tmp_path / "a.dcm")
        ds.Rows = ds.Columns = 60000
        assert "pixels" in self.refused(ds, tmp_path / "b.dcm")
        ds.Rows = 0
        assert "has no pixels" in self.refused(ds, tmp_path / "c.dcm")

    def test_a_file_that_inflates_to_too_much(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dicom, "MAX_DECODE_BYTES", 2**17)
        with pytest.raises(ImageError, match="save it uncompressed"):
            load_image(shipped("image_dfl.dcm"))

    def test_kinds_of_pixels_that_no_viewer_shows(self, tmp_path: Path) -> None:
        ds = make_dataset(np.zeros((4, 4, 3), np.uint8), "RGB", PhotometricInterpretation="CMYK")
        assert "is CMYK with 3 samples per pixel, which is not supported" in self.refused(ds, tmp_path / "a.dcm")
        signed = make_dataset(np.zeros((4, 4, 3), np.int16), "RGB")
        assert "signed colors" in self.refused(signed, tmp_path / "b.dcm")

    def test_a_damaged_frame_is_one_line_and_no_traceback_is_logged(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        ds = make_dataset([b"\xff\xd8" + bytes(40)], "YBR_FULL_422", size=(8, 8))
        with caplog.at_level(logging.DEBUG):
            assert "is damaged or incomplete" in self.refused(ds, tmp_path / "a.dcm")
        assert not caplog.records
        assert "Traceback" not in "".join(capfd.readouterr())
