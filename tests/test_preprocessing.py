"""What a checkpoint expects of its input, and the way back, by hand and by other libraries."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condseg_sdk.errors import CheckpointError, OptionError
from condseg_sdk.preprocessing import OUTSIDE, Preprocessing, resize_logits

SIDES = st.one_of(st.integers(1, 60), st.sampled_from([1, 7, 500]))
SIZES = st.tuples(SIDES, SIDES)
# A change of every default, so that a value that is lost on the way shows.
UNUSUAL = Preprocessing(
    size=(192, 256),
    color_order="bgr",
    scale=0.5,
    mean=(1.0, 2.0, 3.0),
    std=(4.0, 5.0, 6.0),
    interpolation="area",
    field_of_view="endoscopy",
)


def pixels(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def pytorch_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """PyTorch's antialiased resize of (H, W), one direction after the other.

    PyTorch 2.13 on CPUs does the vertical direction wrong where the new width is 1: it only gets rows here.
    """

    def widen(rows: torch.Tensor, width: int) -> torch.Tensor:
        lines = rows[:, None, None].contiguous()
        wide = torch.nn.functional.interpolate(lines, (1, width), mode="bilinear", antialias=True)
        return wide[:, 0, 0]

    return widen(widen(torch.tensor(image).float(), size[1]).T, size[0]).T.numpy()


class TestNormalize:
    def test_network_input_equals_that_computed_by_hand(self) -> None:
        preprocessing = Preprocessing(size=(1, 2), scale=0.5, mean=(10, 20, 30), std=(1, 2, 4))
        image = np.array([[[20, 40, 60], [0, 80, 100]]], np.uint8)
        # Red (20/2 - 10)/1 = 0 and -10/1 = -10; green (40/2 - 20)/2 = 0 and 20/2 = 10; blue 0 and 20/4 = 5.
        assert preprocessing(image).tolist() == [[[0, -10]], [[0, 10]], [[0, 5]]]

    def test_mean_and_std_are_in_the_networks_channel_order(self) -> None:
        preprocessing = Preprocessing(size=(1, 1), color_order="bgr", scale=1, mean=(30, 20, 10))
        assert preprocessing(np.array([[[10, 20, 33]]], np.uint8)).tolist() == [[[3]], [[0]], [[0]]]

    def test_the_lite_network_has_its_own_preprocessing(self) -> None:
        preprocessing = Preprocessing(size=(1, 3), scale=1, mean=(127, 127, 127), std=(128, 128, 128))
        image = np.repeat(np.array([[[0], [127], [255]]], np.uint8), 3, 2)
        assert preprocessing(image)[0].tolist() == [[-127 / 128, 0, 1]]

    def test_a_batch_is_its_images(self) -> None:
        preprocessing = Preprocessing(size=(5, 7), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
        batch = np.stack([pixels((5, 7), seed) for seed in range(3)])
        result = preprocessing.normalize(batch)
        assert (result.shape, result.dtype, result.flags.c_contiguous) == ((3, 3, 5, 7), np.float32, True)
        np.testing.assert_array_equal(result, np.stack([preprocessing(image) for image in batch]))


class TestResize:
    @given(size=SIZES, target=SIZES)
    @settings(deadline=None, max_examples=80)
    def test_antialias_equals_the_interpolation_of_pytorch(
        self, size: tuple[int, int], target: tuple[int, int]
    ) -> None:
        image = pixels(size)
        wanted = np.stack([pytorch_resize(image[..., channel], target) for channel in range(3)], -1)
        result = Preprocessing(size=target).resize(image)
        assert (result.shape, result.dtype) == ((*target, 3), np.uint8)
        # Pillow rounds to whole numbers after each of the two directions.
        assert np.abs(result - wanted).max() <= 1.01

    def test_the_area_equals_one_computed_by_hand(self) -> None:
        image = np.repeat(np.array([[[10], [20], [50], [70]]], np.uint8), 3, 2)
        result = Preprocessing(size=(1, 2), interpolation="area").resize(image)
        assert result[0, :, 0].tolist() == [15, 60]

    def test_linear_does_not_antialias(self) -> None:
        image = np.repeat(np.array([[[0], [0], [0], [80], [100], [0], [0], [0]]], np.uint8), 3, 2)
        result = Preprocessing(size=(1, 2), interpolation="linear").resize(image)
        # Centers at 1.5 and 5.5 of the old pixels: the mean of pixels 1 and 2, and of pixels 5 and 6.
        assert result[0, :, 0].tolist() == [0, 0]
        assert Preprocessing(size=(1, 2)).resize(image).min() > 0

    def test_linear_is_opencvs(self) -> None:
        image = pixels((33, 57))
        result = Preprocessing(size=(20, 24), interpolation="linear").resize(image)
        np.testing.assert_array_equal(result, cv2.resize(image, (24, 20), interpolation=cv2.INTER_LINEAR))

    def test_an_image_of_the_right_size_stays(self) -> None:
        image = pixels((8, 9))
        assert Preprocessing(size=(8, 9)).resize(image) is image


class TestFieldOfView:
    FRAME = np.zeros((120, 200, 3), np.uint8)
    FRAME[10:110, 60:180] = np.random.default_rng(0).integers(60, 255, (100, 120, 3), np.uint8)

    def test_the_network_sees_only_the_field_of_view(self) -> None:
        preprocessing = Preprocessing((32, 32), field_of_view="endoscopy")
        box = preprocessing.find_field_of_view(self.FRAME)
        assert box == (60, 10, 180, 110)
        inside = np.ascontiguousarray(self.FRAME[10:110, 60:180])
        np.testing.assert_array_equal(preprocessing(self.FRAME), Preprocessing((32, 32))(inside))

    def test_without_a_field_of_view_the_network_sees_everything(self) -> None:
        preprocessing = Preprocessing((32, 32))
        assert preprocessing.find_field_of_view(self.FRAME) is None
        np.testing.assert_array_equal(
            preprocessing(self.FRAME), preprocessing.normalize(preprocessing.resize(self.FRAME))
        )


class TestConfig:
    @pytest.mark.parametrize("preprocessing", [Preprocessing(size=(256, 256)), UNUSUAL])
    def test_values_survive_a_round_trip_through_json(self, preprocessing: Preprocessing) -> None:
        assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing

    @pytest.mark.parametrize("key", sorted(set(UNUSUAL.to_dict()) - {"field_of_view", "bits"}))
    def test_no_key_may_be_missing(self, key: str) -> None:
        values = UNUSUAL.to_dict()
        del values[key]
        with pytest.raises(CheckpointError, match=key):
            Preprocessing.from_dict(values)

    def test_without_a_field_of_view_older_releases_can_read_it(self) -> None:
        values = Preprocessing((8, 8)).to_dict()
        assert "field_of_view" not in values
        assert Preprocessing.from_dict(values).field_of_view == "none"
        assert UNUSUAL.to_dict()["field_of_view"] == "endoscopy"

    @pytest.mark.parametrize("values", [{**UNUSUAL.to_dict(), "letterbox": True}, None, "rgb", {}])
    def test_unknown_keys_are_refused(self, values: object) -> None:
        with pytest.raises(CheckpointError, match="must have exactly the keys"):
            Preprocessing.from_dict(values)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("size", (256,)),
            ("size", (256, 0)),
            ("size", (256.5, 256)),
            ("size", 256),
            ("size", "ab"),
            ("color_order", "gbr"),
            ("color_order", ["rgb"]),
            ("scale", 0),
            ("scale", "1/255"),
            ("scale", float("nan")),
            ("scale", True),
            ("mean", (0, 0)),
            ("mean", (0, 0, float("inf"))),
            ("mean", None),
            ("std", (1, 1, 0)),
            ("std", (1, 1, -1)),
            ("interpolation", "cubic"),
            ("field_of_view", "ultrasound"),
            ("field_of_view", None),
        ],
    )
    def test_invalid_values_are_refused(self, key: str, value: object) -> None:
        values = {**UNUSUAL.to_dict(), key: value}
        with pytest.raises(OptionError, match=f"{key}="):
            Preprocessing(**values)
        with pytest.raises(CheckpointError, match=f"preprocessing: {key}="):
            Preprocessing.from_dict(values)


class TestRestore:
    def test_resized_logits_equal_those_computed_by_hand(self) -> None:
        # New centers at -0.25, 0.25, 0.75, 1.25 of the old pixels; it is flat beyond the outermost centers.
        assert resize_logits(np.array([[0, 4]], np.float32), (1, 4)).tolist() == [[0, 1, 3, 4]]
        assert resize_logits(np.array([[-3]], np.float32), (2, 3)).tolist() == [[-3] * 3] * 2

    @given(size=SIZES, target=SIZES)
    @settings(deadline=None, max_examples=80)
    def test_is_pytorchs_antialiased_resize(self, size: tuple[int, int], target: tuple[int, int]) -> None:
        logits = np.random.default_rng(0).normal(0, 8, size).astype(np.float32)
        result = resize_logits(logits, target)
        assert (result.shape, result.dtype) == (target, np.float32)
        np.testing.assert_allclose(result, pytorch_resize(logits, target), atol=2e-4)

    def test_logits_of_very_long_images_are_resized(self) -> None:
        result = resize_logits(np.ones((64, 64), np.float32), (3, 40_000))
        assert result.shape == (3, 40_000)
        assert result.min() == result.max() == 1

    def test_outside_of_the_field_of_view_there_is_nothing(self) -> None:
        result = resize_logits(np.array([[0, 4]], np.float32), (3, 7), (2, 1, 6, 2))
        assert result[1, 2:6].tolist() == [0, 1, 3, 4]
        result[1, 2:6] = OUTSIDE
        assert (result == OUTSIDE).all()

    @given(size=SIZES, target=SIZES, box=st.tuples(*[st.floats(0, 1)] * 4))
    @settings(deadline=None, max_examples=80)
    def test_the_field_of_view_is_where_it_was_at_another_size(
        self, size: tuple[int, int], target: tuple[int, int], box: tuple[float, ...]
    ) -> None:
        left, right = sorted(edge * target[1] for edge in box[:2])
        top, bottom = sorted(edge * target[0] for edge in box[2:])
        result = resize_logits(np.full(size, 3, np.float32), target, (left, top, right, bottom))
        x, y = np.arange(target[1]) + 0.5, np.arange(target[0]) + 0.5
        inside = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None]
        assert (result.shape, result.dtype) == (target, np.float32)
        np.testing.assert_allclose(result, np.where(inside, 3, OUTSIDE), atol=1e-4)

    def test_edges_between_pixels_equal_those_computed_by_hand(self) -> None:
        # Steps of one from pixel to pixel; the field of view begins a quarter of a pixel further right.
        ramp = np.arange(8, dtype=np.float32)[None]
        assert resize_logits(ramp, (1, 12), (2, 0, 10, 1))[0, 2:10].tolist() == list(range(8))
        np.testing.assert_allclose(
            resize_logits(ramp, (1, 12), (2.25, 0, 10.25, 1))[0, 3:10], np.arange(7) + 0.75, atol=1e-5
        )
