"""The prediction for one image, compared with numbers worked out by hand and with simple rasterization."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from condseg_sdk.errors import CondsegError, ImageError, OptionError, OutputError
from condseg_sdk.segmentation import Region, Segmentation

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def from_mask(mask: np.ndarray, **options: object) -> Segmentation:
    logits = np.where(mask, np.float32(4), np.float32(-4))
    source = np.zeros((*mask.shape, 3), np.uint8)
    return Segmentation(logits, mask.shape, **{"threshold": 0.5, "source": source, "name": "test"} | options)  # type: ignore[arg-type]


def disc(size: tuple[int, int], center: tuple[int, int], radius: int) -> np.ndarray:
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius**2


def rasterise(region: Region, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centers an outline encloses an odd number of times, less those of its holes."""

    def inside(outline: np.ndarray) -> np.ndarray:
        rows, columns = np.arange(size[0])[:, None] + 0.5, np.arange(size[1]) + 0.5
        odd = np.zeros(size, bool)
        for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, 0), strict=True):
            if x0 == x1:  # a ray to the left crosses the upright sides only
                odd ^= (columns > x0) & (min(y0, y1) < rows) & (rows < max(y0, y1))
        return odd

    pixels = inside(region.outline)
    for hole in region.holes:
        pixels &= ~inside(hole)
    return pixels


class TestMaps:
    def test_probability_and_mask_equal_those_computed_by_hand(self) -> None:
        seg = Segmentation(np.array([[0, np.log(3)]], np.float32), (1, 4), threshold=0.7, source=b"", name="test")
        # Logits 0, log(3)/4, 3 log(3)/4, log(3); odds of 3 to 1 are 0.75.
        np.testing.assert_allclose(seg.probability, [[0.5, 0.5682, 0.6951, 0.75]], atol=1e-4)
        assert seg.mask.tolist() == [[False, False, False, True]]
        assert (seg.mask.dtype, seg.probability.dtype) == (bool, np.float32)

    @given(
        size=st.one_of(
            st.tuples(st.integers(1, 80), st.integers(1, 80)), st.sampled_from([(1, 1), (5000, 7), (7, 5000)])
        ),
        threshold=st.floats(0.01, 0.99),
    )
    @settings(deadline=None, max_examples=50)
    def test_the_mask_is_where_the_probability_reaches_the_threshold(
        self, size: tuple[int, int], threshold: float
    ) -> None:
        logits = np.random.default_rng(0).normal(0, 3, (16, 16)).astype(np.float32)
        seg = Segmentation(logits, size, threshold=threshold, source=b"", name="test")
        assert seg.mask.shape == seg.probability.shape == size
        clear = np.abs(seg.probability - threshold) > 1e-6
        np.testing.assert_array_equal(seg.mask[clear], (seg.probability >= threshold)[clear])

    def test_large_logits_do_not_overflow(self) -> None:
        seg = Segmentation(np.array([[-1e30, 1e30]], np.float32), (1, 2), threshold=0.5, source=b"", name="")
        with np.errstate(all="raise", under="ignore"):
            assert seg.probability.tolist() == [[pytest.approx(0, abs=1e-30), 1]]

    def test_branch_uncertainty_is_computed_only_on_request(self) -> None:
        mask = np.ones((2, 2), bool)
        with pytest.raises(OptionError, match="branch_uncertainty=True"):
            _ = from_mask(mask).branch_uncertainty
        seg = from_mask(mask, branch_logits=np.zeros((1, 1), np.float32))
        assert seg.branch_uncertainty.tolist() == [[0.5, 0.5], [0.5, 0.5]]

    @pytest.mark.parametrize("threshold", [0, 1, -1, float("nan"), "0.5", None])
    def test_invalid_thresholds_are_refused(self, threshold: object) -> None:
        with pytest.raises(OptionError, match="threshold="):
            from_mask(np.ones((2, 2), bool), threshold=threshold)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("field", ["logits", "branch_logits"])
    def test_nan_logits_are_an_error_and_not_an_empty_mask(self, field: str, value: float) -> None:
        maps = {"logits": np.zeros((2, 2), np.float32), field: np.full((2, 2), value, np.float32)}
        with pytest.raises(OptionError, match="NaN or infinity"):
            Segmentation(size=(2, 2), threshold=0.5, source=b"", name="test", **maps)

    @pytest.mark.parametrize("logits", [np.zeros((2, 2)), np.zeros((1, 2, 2), np.float32)])
    def test_logits_of_the_wrong_type_are_refused(self, logits: np.ndarray) -> None:
        with pytest.raises(OptionError, match="float32"):
            Segmentation(logits, (2, 2), threshold=0.5, source=b"", name="test")


class TestArea:
    def test_the_area_is_given_in_pixels_and_square_millimeters(self) -> None:
        seg = from_mask(disc((9, 9), (4, 4), 0) | disc((9, 9), (0, 0), 1))
        assert seg.area == 4
        assert seg.area_mm2(0.5) == 1
        assert seg.area_mm2((0.5, 2)) == seg.area_mm2(np.array([0.5, 2])) == 4

    @pytest.mark.parametrize("spacing", [0, -1, (1, 0), (1, 2, 3), "wide", float("inf"), float("nan")])
    def test_invalid_spacings_are_refused(self, spacing: object) -> None:
        with pytest.raises(OptionError, match="spacing="):
            from_mask(np.ones((2, 2), bool)).area_mm2(spacing)  # type: ignore[arg-type]

    def test_an_empty_mask_has_no_regions(self) -> None:
        seg = from_mask(np.zeros((3, 4), bool))
        assert seg.is_empty
        assert seg.area == 0
        assert seg.boxes().shape == (0, 4)
        assert seg.polygons() == []
        assert seg.to_dict()["mean_probability"] is None
        assert not from_mask(np.ones((1, 1), bool)).is_empty


class TestRegions:
    def test_regions_equal_those_computed_by_hand(self) -> None:
        mask = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 1], [0, 0, 0, 0, 0]], bool)
        ring, dot = from_mask(mask).regions()
        assert (ring.area, ring.box) == (8, (0, 0, 3, 3))
        assert sorted(map(tuple, ring.outline.tolist())) == [(0, 0), (0, 3), (3, 0), (3, 3)]
        assert sorted(map(tuple, ring.holes[0].tolist())) == [(1, 1), (1, 2), (2, 1), (2, 2)]
        assert (dot.area, dot.box, dot.holes) == (1, (4, 2, 5, 3), ())
        assert from_mask(mask).boxes().tolist() == [[0, 0, 3, 3], [4, 2, 5, 3]]
        assert from_mask(mask).boxes(min_area=2).tolist() == [[0, 0, 3, 3]]
        assert len(from_mask(mask).polygons(min_area=9)) == 0

    def test_an_island_in_a_hole_is_a_region_of_its_own(self) -> None:
        mask = np.ones((7, 7), bool)
        mask[1:6, 1:6] = False
        mask[3, 3] = True
        ring, island = from_mask(mask).regions()
        assert (ring.area, len(ring.holes)) == (24, 1)
        assert (island.area, island.box) == (1, (3, 3, 4, 4))

    def test_pixels_that_touch_at_a_corner_are_one_region(self) -> None:
        assert from_mask(np.eye(3, dtype=bool)).boxes().tolist() == [[0, 0, 3, 3]]

    @given(mask=MASKS)
    @settings(deadline=None, max_examples=300)
    def test_the_outlines_enclose_the_mask_exactly(self, mask: np.ndarray) -> None:
        regions = from_mask(mask).regions()
        covered = np.zeros(mask.shape, int)
        for region in regions:
            pixels = rasterise(region, mask.shape)
            covered += pixels
            assert region.area == pixels.sum()
            rows, columns = np.nonzero(pixels)
            assert region.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_array_equal(covered, mask)
        areas = [region.area for region in regions]
        assert areas == sorted(areas, reverse=True)

    @given(mask=MASKS)
    @settings(deadline=None, max_examples=100)
    def test_outlines_turn_at_every_corner(self, mask: np.ndarray) -> None:
        for outline in from_mask(mask).polygons():
            assert outline.dtype == np.int32
            sides = np.roll(outline, -1, 0) - outline
            assert ((sides == 0).sum(1) == 1).all(), "horizontal or vertical, and of some length"
            assert ((sides * np.roll(sides, 1, 0)).sum(1) == 0).all(), "each at a right angle to the one before"

    def test_agrees_with_pillows_polygons(self) -> None:
        mask = disc((90, 120), (40, 60), 30)
        canvas = Image.new("L", (120 * 4, 90 * 4))
        corners = [(x * 4, y * 4) for x, y in from_mask(mask).polygons()[0].tolist()]
        ImageDraw.Draw(canvas).polygon(corners, fill=1)
        centers = np.asarray(canvas)[2::4, 2::4].astype(bool)
        np.testing.assert_array_equal(centers, mask)


class TestOverlay:
    def test_marks_the_region_and_leaves_the_rest(self) -> None:
        mask = disc((200, 300), (100, 150), 50)
        image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
        overlay = from_mask(mask, source=image).overlay(color=(0, 255, 0), alpha=0.5)
        drawn = np.asarray(overlay)
        assert (overlay.mode, overlay.size) == ("RGB", (300, 200))
        far, deep = ~disc((200, 300), (100, 150), 56), disc((200, 300), (100, 150), 44)
        np.testing.assert_array_equal(drawn[far], image[far])
        np.testing.assert_allclose(drawn[deep], image[deep] * 0.5 + np.array([0, 127.5, 0]), atol=1)
        edge = disc((200, 300), (100, 150), 50) & ~disc((200, 300), (100, 150), 49)
        assert (drawn[edge, 1] - drawn[edge].astype(int)[:, 0]).mean() > 150, "the contour is green"

    def test_alpha_0_is_the_contour_alone(self) -> None:
        mask = disc((60, 60), (30, 30), 20)
        drawn = np.asarray(from_mask(mask).overlay(alpha=0))
        assert not drawn[disc((60, 60), (30, 30), 14)].any()
        assert drawn[30, 10].any()

    def test_an_empty_mask_leaves_the_image(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
        overlay = from_mask(np.zeros((5, 7), bool), source=image).overlay()
        np.testing.assert_array_equal(np.asarray(overlay), image)

    @given(mask=MASKS)
    @settings(deadline=None, max_examples=50)
    def test_any_mask_can_be_drawn_and_the_source_is_not_touched(self, mask: np.ndarray) -> None:
        source = np.full((*mask.shape, 3), 9, np.uint8)
        assert from_mask(mask, source=source).overlay().size == mask.shape[::-1]
        assert (source == 9).all()

    def test_colors_of_bgr_arrays_are_right(self) -> None:
        source = np.zeros((2, 2, 3), np.uint8)
        source[..., 0] = 200  # blue, in OpenCV's order
        overlay = from_mask(np.zeros((2, 2), bool), source=source, color_order="bgr").overlay()
        assert overlay.getpixel((0, 0)) == (0, 0, 200)

    def test_another_image_of_the_same_size_is_accepted(self) -> None:
        seg = from_mask(np.zeros((2, 3), bool), color_order="bgr")
        assert seg.overlay(Image.new("RGB", (3, 2), (1, 2, 3))).getpixel((0, 0)) == (1, 2, 3)
        with pytest.raises(ImageError, match=r"\(3, 2\)"):
            seg.overlay(Image.new("RGB", (2, 3)))

    def test_an_overlay_of_a_missing_source_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"gone\.png"):
            from_mask(np.ones((2, 2), bool), source=tmp_path / "gone.png").overlay()

    @pytest.mark.parametrize("options", [{"alpha": 2}, {"color": (0, 0)}, {"color": (0, 0, 256)}])
    def test_invalid_colors_and_alphas_are_refused(self, options: dict) -> None:
        with pytest.raises(OptionError, match=next(iter(options))):
            from_mask(np.ones((2, 2), bool)).overlay(**options)


class TestSaving:
    @pytest.fixture
    def seg(self) -> Segmentation:
        return from_mask(disc((30, 40), (10, 20), 6), name="frame.jpg")

    def test_a_mask_survives_exactly(self, seg: Segmentation, tmp_path: Path) -> None:
        path = seg.save(tmp_path / "mask.png")
        saved = np.asarray(Image.open(path))
        assert np.unique(saved).tolist() == [0, 255]
        np.testing.assert_array_equal(saved > 127, seg.mask)
        np.testing.assert_array_equal(np.asarray(seg.to_pil()), saved)

    def test_uncertainty_is_largest_at_one_half(self, seg: Segmentation, tmp_path: Path) -> None:
        expected = 1 - np.abs(2 * seg.probability - 1)
        np.testing.assert_array_equal(seg.uncertainty, expected)
        assert (seg.uncertainty.dtype, seg.uncertainty.shape) == (np.float32, seg.size)
        saved = np.asarray(Image.open(seg.save(tmp_path / "d.png", kind="uncertainty")))
        np.testing.assert_allclose(saved / 65535, expected, atol=1e-5)

    def test_a_probability_survives_to_16_bit(self, seg: Segmentation, tmp_path: Path) -> None:
        saved = np.asarray(Image.open(seg.save(tmp_path / "p.png", kind="probability")))
        assert saved.dtype == np.uint16
        np.testing.assert_allclose(saved / 65535, seg.probability, atol=1e-5)

    @pytest.mark.parametrize("name", ["overlay.png", "overlay.JPG", "overlay.jpeg"])
    def test_an_overlay_has_the_size_of_the_image(self, seg: Segmentation, tmp_path: Path, name: str) -> None:
        assert Image.open(seg.save(tmp_path / name, kind="overlay")).size == (40, 30)

    def test_json_contains_the_dictionary(self, seg: Segmentation, tmp_path: Path) -> None:
        saved = json.loads(seg.save(tmp_path / "a.json", kind="json").read_text())
        assert saved.pop("software").startswith("condseg_sdk ")
        assert saved == seg.to_dict()
        assert saved["name"] == "frame.jpg"
        assert saved["size"] == [30, 40]
        assert saved["area"] == sum(region["area"] for region in saved["regions"]) == seg.mask.sum()
        assert saved["mean_probability"] == pytest.approx(1 / (1 + np.exp(-4)))
        assert saved["regions"][0]["box"] == [14, 4, 27, 17]

    @pytest.mark.parametrize(
        ("name", "kind", "reason"),
        [
            ("mask.jpg", "mask", r"end in \.png"),
            ("mask", "mask", r"end in \.png"),
            ("a.txt", "json", r"end in \.json"),
            ("a.png", "picture", "kind='picture'"),
        ],
    )
    def test_a_name_that_does_not_fit_the_kind_is_refused(
        self, seg: Segmentation, tmp_path: Path, name: str, kind: str, reason: str
    ) -> None:
        with pytest.raises(OptionError, match=reason):
            seg.save(tmp_path / name, kind=kind)  # type: ignore[arg-type]
        assert not any(tmp_path.iterdir())

    def test_a_missing_folder_is_an_output_error(self, seg: Segmentation, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="cannot be written") as caught:
            seg.save(tmp_path / "missing" / "mask.png")
        assert caught.value.path == tmp_path / "missing" / "mask.png"

    def test_a_failed_overlay_leaves_no_file(self, seg: Segmentation, tmp_path: Path) -> None:
        broken = from_mask(seg.mask, source=tmp_path / "gone.png")
        with pytest.raises(CondsegError):
            broken.save(tmp_path / "overlay.png", kind="overlay")
        assert not any(tmp_path.iterdir())


def test_a_prediction_with_any_source_can_be_pickled(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 3), (9, 9, 9))
    image.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    lazy = Image.open(tmp_path / "a.png")
    for source in (tmp_path / "a.png", data, memoryview(data), image, lazy, np.asarray(image)):
        seg = from_mask(np.eye(3, 4, dtype=bool), source=source)
        copy = pickle.loads(pickle.dumps(seg))
        np.testing.assert_array_equal(copy.mask, seg.mask)
        np.testing.assert_array_equal(np.asarray(copy.overlay()), np.asarray(seg.overlay()))


def test_repr_is_short() -> None:
    text = repr(from_mask(np.zeros((300, 400), bool), name="frame.jpg"))
    assert text == "Segmentation(size=(300, 400), threshold=0.5, name='frame.jpg')"


class TestFieldOfView:
    SEG = Segmentation(
        np.array([[-4, 4]], np.float32),
        (4, 8),
        threshold=0.5,
        source=np.zeros((4, 8), np.uint8),
        name="frame",
        branch_logits=np.ones((1, 2), np.float32),
        field_of_view=(2, 1, 6, 3),
    )

    def test_every_map_is_zero_outside_of_the_field_of_view(self) -> None:
        outside = np.ones((4, 8), bool)
        outside[1:3, 2:6] = False
        for values in (self.SEG.probability, self.SEG.uncertainty, self.SEG.branch_uncertainty):
            assert (values[outside] == 0).all()
            assert (values[~outside] > 0).all()
        assert not self.SEG.mask[outside].any()

    def test_outlines_are_in_the_pixels_of_the_image(self) -> None:
        assert self.SEG.area == 4
        assert self.SEG.boxes().tolist() == [[4, 1, 6, 3]]
        assert self.SEG.to_dict()["field_of_view"] == [2, 1, 6, 3]
        assert self.SEG.to_dict()["regions"][0]["polygon"] == [[4, 1], [4, 3], [6, 3], [6, 1]]

    def test_a_pickle_keeps_the_field_of_view(self) -> None:
        copy = pickle.loads(pickle.dumps(self.SEG))
        np.testing.assert_array_equal(copy.probability, self.SEG.probability)

    def test_resizing_scales_the_field_of_view(self) -> None:
        other = self.SEG.resized((12, 16))
        assert other.field_of_view == (4, 3, 12, 9)
        assert other.boxes().tolist() == [[8, 3, 12, 9]]
        assert replace(self.SEG, field_of_view=None).resized((12, 16)).field_of_view is None

    @pytest.mark.parametrize("box", [(0, 0, 9, 4), (-1, 0, 8, 4), (3, 0, 3, 4), (0, 3, 8, 2)])
    def test_a_field_of_view_outside_of_the_image_is_refused(self, box: tuple[int, int, int, int]) -> None:
        with pytest.raises(OptionError, match="frame: field_of_view"):
            replace(self.SEG, field_of_view=box)
