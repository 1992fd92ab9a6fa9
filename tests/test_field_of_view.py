"""The endoscopic view in recorded frames: found where a recorder put it, and nothing cut where it put nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from condseg_sdk.field_of_view import Box, FieldOfViewTracker, crop, find_field_of_view, scale_box

Image = NDArray[np.uint8]

HEIGHT, WIDTH = 360, 640
PICTURE: Box = (220, 20, 600, 340)


def tissue(size: tuple[int, int], *, seed: int = 0, light: float = 1.0) -> Image:
    """Smooth, reddish, brighter and darker in places, with some texture; `light` makes it darker or overexposed."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(60, 200, (6, 8)).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    texture = cv2.GaussianBlur(rng.normal(0, 25, size).astype(np.float32), (0, 0), 2)
    gray = (coarse + texture)[..., None]
    return np.clip(light * gray * np.array([1.2, 0.75, 0.6], np.float32), 0, 255).astype(np.uint8)


def shape(kind: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The view's outline in its rectangle."""
    height, width = size
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    if kind == "rectangle":
        return np.ones(size, bool)
    if kind == "circle":
        return x**2 + y**2 <= 1
    if kind == "octagon":
        return np.abs(x) + np.abs(y) <= 1.5
    assert kind == "circle cut above and below"
    return x**2 + (0.8 * y) ** 2 <= 1


def recorded(
    box: Box = PICTURE,
    *,
    kind: str = "octagon",
    margin: tuple[int, int, int] = (0, 0, 0),
    size: tuple[int, int] = (HEIGHT, WIDTH),
    light: float = 1.0,
    seed: int = 0,
) -> Image:
    """A frame with a view in a margin."""
    left, top, right, bottom = box
    frame = np.full((*size, 3), margin, np.uint8)
    inner = (bottom - top, right - left)
    outline = shape(kind, inner)
    frame[top:bottom, left:right][outline] = np.maximum(tissue(inner, seed=seed, light=light), 8)[outline]
    return frame


def with_jpeg(frame: Image, quality: int = 75) -> Image:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1), np.uint8)


def with_text(frame: Image) -> Image:
    """A name and a date in the margin, and a line that runs into the view."""
    frame = frame.copy()
    for row, text in enumerate(("NAME: X", "01/02/2020", "12:34:56")):
        cv2.putText(frame, text, (12, 60 + 24 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (230, 230, 230), 1)
    cv2.putText(frame, "CENTER ONE, ROOM 4", (60, 150), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (230, 230, 230), 1)
    return frame


def with_guide(frame: Image, box: Box = (40, 230, 250, 350)) -> Image:
    """A green box with a line in it, which shows the position of the endoscope."""
    frame = frame.copy()
    left, top, right, bottom = box
    frame[top:bottom, left:right] = (45, 183, 142)
    cv2.line(frame, (left + 20, bottom - 10), (right - 50, top + 30), (20, 60, 50), 2)
    return frame


def with_second_picture(frame: Image, corner: tuple[int, int] = (20, 20)) -> Image:
    """The last still, apart from the view."""
    frame = frame.copy()
    left, top = corner
    frame[top : top + 100, left : left + 120] = tissue((100, 120), seed=9)
    return frame


def with_second_picture_touching(frame: Image) -> Image:
    """The last still, at the edge of the view."""
    return with_second_picture(frame, (140, 200))


def with_noise(frame: Image) -> Image:
    """As an analog recorder has it, in the margin, too."""
    noise = np.random.default_rng(1).normal(0, 3, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def unchanged(frame: Image) -> Image:
    return frame


def assert_near(found: Box | None, wanted: Box, size: tuple[int, int] = (HEIGHT, WIDTH), share: float = 0.02) -> None:
    assert found is not None
    limits = (share * size[1], share * size[0]) * 2
    assert all(abs(a - b) <= limit for a, b, limit in zip(found, wanted, limits, strict=True)), (found, wanted)


@pytest.mark.parametrize("kind", ["rectangle", "circle", "octagon", "circle cut above and below"])
@pytest.mark.parametrize("margin", [(0, 0, 0), (16, 16, 16), (128, 128, 128), (20, 30, 120), (255, 255, 255)], ids=str)
def test_outlines_and_colors_of_the_margin_are_recognized(kind: str, margin: tuple[int, int, int]) -> None:
    assert_near(find_field_of_view(recorded(kind=kind, margin=margin)), PICTURE)


@pytest.mark.parametrize(
    "change", [with_text, with_guide, with_second_picture, with_second_picture_touching, with_jpeg, with_noise]
)
@pytest.mark.parametrize("kind", ["rectangle", "octagon", "circle"])
def test_text_boxes_and_views_beside_the_view_are_cut(kind: str, change: Callable[[Image], Image]) -> None:
    assert_near(find_field_of_view(change(recorded(kind=kind))), PICTURE, share=0.03)


def test_everything_beside_the_view_is_cropped_at_once() -> None:
    frame = with_jpeg(with_second_picture(with_guide(with_text(recorded(margin=(16, 16, 16))))))
    assert_near(find_field_of_view(frame), PICTURE)


@pytest.mark.parametrize("margin", [(0, 0, 0), (70, 70, 70), (230, 230, 230)], ids=str)
def test_noise_and_jpeg_in_the_margin_do_not_hide_it(margin: tuple[int, int, int]) -> None:
    frame = with_jpeg(with_noise(recorded(margin=margin)), quality=50)
    assert_near(find_field_of_view(frame), PICTURE)


def test_a_guide_box_in_front_of_the_view_stays() -> None:
    frame = with_guide(recorded(kind="rectangle"), (230, 230, 400, 330))
    assert_near(find_field_of_view(frame), PICTURE)


def test_a_line_along_the_edge_of_the_image_belongs_to_the_margin() -> None:
    frame = recorded()
    frame[0], frame[:, -1] = 60, 110
    assert_near(find_field_of_view(frame), PICTURE)


def test_a_margin_within_a_margin_is_cropped() -> None:
    window = np.full((HEIGHT + 120, WIDTH + 160, 3), 240, np.uint8)
    window[60:-60, 80:-80] = recorded(kind="circle")
    assert_near(find_field_of_view(window), (300, 80, 680, 400), window.shape[:2])


@pytest.mark.parametrize("light", [0.25, 1.7])
def test_margins_with_little_and_much_light_are_found(light: float) -> None:
    frame = recorded(kind="octagon", light=light)
    assert_near(find_field_of_view(frame), PICTURE, share=0.03)


def full_frames() -> dict[str, Image]:
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    whole = tissue((HEIGHT, WIDTH))
    corners = whole.copy()
    corners[np.abs(x) + np.abs(y) > 1.7] = 0
    overlay = corners.copy()
    overlay[240:, :160] = 0
    lamp = np.clip(1.2 - np.hypot(x, y), 0, 1)[..., None]
    lumen = np.clip(1.5 * np.hypot(x + 0.6, y), 0, 1)[..., None]
    glare = np.clip(np.hypot(x, y) - 0.2, 0, 1)[..., None]
    return {
        "tissue": whole,
        "corners cut off": corners,
        "a black box in front": overlay,
        "dark": (0.08 * whole).astype(np.uint8),
        "light in the middle alone": (whole * lamp).astype(np.uint8),
        "the way ahead lies in the dark": (whole * lumen).astype(np.uint8),
        "too much light around": np.clip(whole + 400 * glare, 0, 255).astype(np.uint8),
        "too much light on the left": np.clip(whole + 500 * np.clip(-x, 0, 1)[..., None], 0, 255).astype(np.uint8),
        "black": np.zeros_like(whole),
        "white": np.full_like(whole, 255),
        "one color": np.full_like(whole, 90),
        "noise": np.random.default_rng(0).integers(0, 256, whole.shape, np.uint8),
        "a thin margin": recorded((3, 2, WIDTH - 3, HEIGHT - 2), kind="rectangle"),
        "a view too small to be the main one": recorded((20, 20, 160, 140), kind="rectangle"),
    }


@pytest.mark.parametrize("name", full_frames())
@pytest.mark.parametrize("change", [unchanged, with_jpeg])
def test_nothing_is_cut_where_nothing_is_certain(name: str, change: Callable[[Image], Image]) -> None:
    assert find_field_of_view(change(full_frames()[name])) is None


@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    box=st.tuples(*[st.floats(0, 1)] * 4),
    margin=st.tuples(*[st.integers(0, 255)] * 3),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_the_rectangle_is_in_the_image_and_never_empty(
    size: tuple[int, int], box: tuple[float, ...], margin: tuple[int, int, int], seed: int
) -> None:
    frame = np.full((*size, 3), margin, np.uint8)
    left, right = sorted(int(edge * size[1]) for edge in box[:2])
    top, bottom = sorted(int(edge * size[0]) for edge in box[2:])
    if right > left and bottom > top:
        frame[top:bottom, left:right] = tissue((bottom - top, right - left), seed=seed)
    before = frame.copy()
    found = find_field_of_view(frame)
    np.testing.assert_array_equal(frame, before)
    if found is not None:
        assert 0 <= found[0] < found[2] <= size[1]
        assert 0 <= found[1] < found[3] <= size[0]
        share = (found[2] - found[0]) * (found[3] - found[1]) / (size[0] * size[1])
        assert 0.15 < share < 1
        # Nothing that is shown is lost but for thin slivers.
        assert found[0] <= left + 0.03 * size[1] + 2
        assert found[2] >= right - 0.03 * size[1] - 2


@pytest.mark.parametrize("height", [257, 356, 408, 409, 434, 463, 491, 640])
def test_a_view_at_the_edge_ends_there_at_every_size(height: int) -> None:
    """For most of these heights the height divided by the small copy's, times that, is more than the height."""
    frame = np.zeros((height, 640, 3), np.uint8)
    frame[:, 130:] = tissue((height, 510))
    found = find_field_of_view(frame)
    assert found is not None
    assert (found[1], found[2], found[3]) == (0, 640, height)


@given(
    before=st.tuples(st.integers(0, 120), st.integers(0, 120)),
    after=st.tuples(st.integers(0, 120), st.integers(0, 120)),
    kind=st.sampled_from(["rectangle", "octagon", "circle"]),
)
@settings(deadline=None, max_examples=30)
def test_more_margin_only_moves_the_rectangle(before: tuple[int, int], after: tuple[int, int], kind: str) -> None:
    frame = recorded((60, 40, 440, 320), kind=kind, size=(HEIGHT, 500))
    padded = np.pad(frame, ((before[0], after[0]), (before[1], after[1]), (0, 0)))
    moved = (60 + before[1], 40 + before[0], 440 + before[1], 320 + before[0])
    assert_near(find_field_of_view(padded), moved, padded.shape[:2])


def test_the_rectangle_does_not_depend_on_the_resolution() -> None:
    frame = with_guide(recorded(kind="circle"))
    for factor in (0.5, 2, 3.7):
        size = (round(HEIGHT * factor), round(WIDTH * factor))
        other = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
        found = find_field_of_view(np.asarray(other, np.uint8))
        assert found is not None
        assert_near(tuple(round(edge / factor) for edge in found), PICTURE)  # type: ignore[arg-type]


def test_the_view_in_a_mirrored_image_is_found() -> None:
    found = find_field_of_view(np.ascontiguousarray(with_guide(recorded())[:, ::-1]))
    assert_near(found, (WIDTH - PICTURE[2], PICTURE[1], WIDTH - PICTURE[0], PICTURE[3]))


def test_a_dim_part_behind_a_shadow_belongs_to_the_view() -> None:
    frame = recorded((20, 10, 420, 350), kind="rectangle")
    frame[:, 300:340] = 0  # between them it is as dark as the margin
    frame[:, 340:420] = frame[:, 340:420] // 5
    found = find_field_of_view(frame)
    assert found is not None
    assert found[2] >= 410


class TestCrop:
    def test_images_and_masks_are_cropped(self) -> None:
        image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
        np.testing.assert_array_equal(crop(image, (1, 2, 4, 4)), image[2:4, 1:4])
        assert crop(image[..., 0] > 3, (1, 2, 4, 4)).shape == (2, 3)
        assert crop(image, None) is image

    def test_scaled_boxes_equal_those_computed_by_hand(self) -> None:
        assert scale_box((10, 20, 30, 40), (40, 60), (20, 120)) == (20, 10, 60, 20)
        assert scale_box(None, (40, 60), (20, 120)) is None


class TestTracker:
    def test_a_still_video_has_the_rectangle_of_its_images(self) -> None:
        track = FieldOfViewTracker()
        frames = [recorded(seed=seed) for seed in range(6)]
        for frame in frames:
            found = find_field_of_view(frame)
            assert found is not None
            assert_near(track(frame), found, share=0.02)

    def test_the_rectangle_is_steady_while_the_view_is(self) -> None:
        track = FieldOfViewTracker()
        boxes = [track(with_jpeg(recorded(seed=seed, light=light))) for seed, light in enumerate((1, 0.4, 1.5, 0.3, 1))]
        assert all(one == other for one, other in pairwise(boxes))

    def test_dark_frames_keep_the_previous_rectangle(self) -> None:
        track = FieldOfViewTracker()
        frame = recorded()
        boxes = [track(frame), *(track(np.zeros_like(frame)) for _ in range(20)), track(frame)]
        assert boxes == [find_field_of_view(frame)] * 22

    def test_one_odd_frame_changes_nothing(self) -> None:
        track = FieldOfViewTracker()
        frame, odd = recorded(), recorded((300, 60, 560, 300))
        boxes = [track(item) for item in (frame, odd, odd, odd, odd, frame, odd, frame)]
        assert boxes == [find_field_of_view(frame)] * 8

    def test_another_layout_is_used_after_some_frames(self) -> None:
        track = FieldOfViewTracker(patience=3)
        first, second = recorded(), recorded((40, 60, 300, 300))
        boxes = [track(item) for item in (first, second, second, second, second)]
        before, after = find_field_of_view(first), find_field_of_view(second)
        assert boxes == [before, before, before, after, after]

    def test_a_video_that_starts_dark(self) -> None:
        track = FieldOfViewTracker()
        assert track(np.zeros((HEIGHT, WIDTH, 3), np.uint8)) is None
        assert track(recorded()) == find_field_of_view(recorded())

    def test_frames_of_another_size_start_again(self) -> None:
        track = FieldOfViewTracker()
        track(recorded())
        whole = tissue((200, 300))
        assert track(whole) is None
