"""Averages over the frames of a video, with numbers worked out by hand, and motion that is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from condseg_sdk.errors import OptionError
from condseg_sdk.segmentation import Segmentation
from condseg_sdk.smoothing import LogitSmoother, smooth_predictions

SIDE = 64


def texture(seed: int = 0) -> NDArray[np.uint8]:
    """A smooth pattern that optical flow can follow."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 12), np.uint8)
    rows = np.linspace(0, 10.99, SIDE + 16)
    low = rows.astype(int)
    part = rows - low
    image = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
    image = image[:, low] * (1 - part) + image[:, low + 1] * part
    return np.repeat(image.astype(np.uint8)[..., None], 3, axis=2)


def frame(shift: int = 0, seed: int = 0) -> NDArray[np.uint8]:
    return np.ascontiguousarray(texture(seed)[8 : 8 + SIDE, 8 - shift : 8 - shift + SIDE])


def full(value: float) -> NDArray[np.float32]:
    return np.full((SIDE, SIDE), value, np.float32)


def test_the_average_of_a_still_image_is_what_one_works_out_by_hand() -> None:
    smoother = LogitSmoother(weight=0.25)
    values = [float(smoother(full(value), frame())[30, 30]) for value in (4, 8, -4, 0)]
    # 4; 0.25 * 8 + 0.75 * 4 = 5; 0.25 * -4 + 0.75 * 5 = 2.75; 0.75 * 2.75 = 2.0625
    assert values == pytest.approx([4, 5, 2.75, 2.0625], abs=1e-6)


def test_the_average_moves_along_with_the_image() -> None:
    logits = [full(-5), full(-5)]
    logits[0][20:40, 20:40] = 5
    logits[1][20:40, 23:43] = 5  # three pixels to the right, as the image
    smoother = LogitSmoother(weight=0.2)
    smoother(logits[0], frame(0))
    moved = smoother(logits[1], frame(3))
    assert np.mean((moved > 0) == (logits[1] > 0)) > 0.99
    still = LogitSmoother(weight=0.2)
    still(logits[0], frame(0))
    assert np.mean((still(logits[1], frame(0)) > 0) == (logits[1] > 0)) < 0.98


def test_a_new_scene_and_another_size_start_the_average_anew() -> None:
    smoother = LogitSmoother(weight=0.25)
    smoother(full(4), frame())
    assert smoother(full(8), frame(seed=1))[0, 0] == 8
    small = np.full((32, 32), 2, np.float32)
    assert smoother(small, frame(seed=1))[0, 0] == 2


def test_brightness_is_no_new_scene() -> None:
    smoother = LogitSmoother(weight=0.25)
    smoother(full(4), frame())
    darker = (frame() * 0.7).astype(np.uint8)
    assert smoother(full(8), darker)[30, 30] == pytest.approx(5, abs=1e-5)


def test_black_frames_are_one_scene_and_an_image_after_them_another() -> None:
    smoother = LogitSmoother(weight=0.25)
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    assert [float(smoother(full(value), black)[0, 0]) for value in (4, 8)] == [4, 5]
    assert smoother(full(1), frame())[0, 0] == 1


@pytest.mark.parametrize("weight", [0, -0.1, 1.01, float("nan")])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(OptionError, match="weight"):
        LogitSmoother(weight)


def test_a_weight_of_one_changes_nothing() -> None:
    smoother = LogitSmoother(weight=1)
    assert [float(smoother(full(value), frame())[5, 5]) for value in (4, 8)] == [4, 8]


def seg(value: float, number: int | None, box: tuple[float, float, float, float] | None = None) -> Segmentation:
    return Segmentation(
        full(value), (SIDE, SIDE), threshold=0.5, source=frame(), name="film", frame=number, field_of_view=box
    )


def test_predictions_keep_everything_but_their_logits() -> None:
    found = [*smooth_predictions([seg(4, 0), seg(8, 1)], LogitSmoother(0.25))]
    assert [float(item.logits[30, 30]) for item in found] == pytest.approx([4, 5])
    assert [(item.frame, item.name, item.size) for item in found] == [(0, "film", (SIDE, SIDE)), (1, "film", (64, 64))]


def test_the_next_video_and_another_field_of_view_start_the_average_anew() -> None:
    box = (0.0, 0.0, 40.0, 40.0)
    items = [seg(4, 0), seg(8, 1), seg(1, 0), seg(5, 1, box), seg(9, 2, box)]
    found = [float(item.logits[30, 30]) for item in smooth_predictions(items, LogitSmoother(0.25))]
    assert found == pytest.approx([4, 5, 1, 5, 6])
