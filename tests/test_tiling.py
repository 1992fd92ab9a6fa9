"""Tiles cover everything, and blend without seams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condseg_sdk.errors import OptionError
from condseg_sdk.tiling import Tile, merge, plan_tiles

SIZES = st.tuples(st.integers(1, 300), st.integers(1, 300))


def test_tiles_equal_those_planned_by_hand() -> None:
    tiles = plan_tiles((100, 250), tile=100, overlap=0.25)
    assert tiles == [Tile(0, left, 100, 100) for left in (0, 75, 150)]
    assert plan_tiles((100, 260), tile=100, overlap=0.25)[-1] == Tile(0, 160, 100, 100)  # shifted inwards


def test_an_image_smaller_than_a_tile_is_one_tile() -> None:
    assert plan_tiles((30, 40), tile=64) == [Tile(0, 0, 30, 40)]
    assert plan_tiles((64, 64), tile=64) == [Tile(0, 0, 64, 64)]


@given(size=SIZES, tile=st.integers(1, 120), overlap=st.sampled_from([0, 0.25, 0.5]))
@settings(deadline=None, max_examples=60)
def test_every_pixel_is_covered_and_no_tile_sticks_out(size: tuple[int, int], tile: int, overlap: float) -> None:
    tile = max(tile, max(size) // 10)
    covered = np.zeros(size, int)
    for part in plan_tiles(size, tile=tile, overlap=overlap):
        window = part.crop(covered)
        assert window.shape == (min(tile, size[0]), min(tile, size[1]))
        covered[part.top : part.top + part.height, part.left : part.left + part.width] += 1
    assert covered.min() >= 1


@given(size=SIZES, tile=st.integers(8, 120), overlap=st.sampled_from([0, 0.25, 0.5]))
@settings(deadline=None, max_examples=40)
def test_cutting_and_merging_restores_the_map(size: tuple[int, int], tile: int, overlap: float) -> None:
    tile = max(tile, max(size) // 8)
    whole = np.random.default_rng(0).normal(0, 8, size).astype(np.float32)
    tiles = plan_tiles(size, tile=tile, overlap=overlap)
    merged = merge(tiles, (part.crop(whole) for part in tiles), size=size)
    assert merged.dtype == np.float32
    np.testing.assert_allclose(merged, whole, atol=1e-4)


def test_row_weights_equal_those_computed_by_hand() -> None:
    # Two tiles of 4 pixels that share 2. Pixels' centers lie at -3/8, -1/8, 1/8, 3/8 of a tile's side, which
    # is 3, 1, 1 and 3 standard deviations off. In the overlap exp(-1/2) meets exp(-9/2): exp(-4) of it.
    tiles = plan_tiles((4, 6), tile=4, overlap=0.5)
    assert [part.left for part in tiles] == [0, 2]
    merged = merge(tiles, [np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)], size=(4, 6))
    other = np.exp(-4) / (1 + np.exp(-4))
    np.testing.assert_allclose(merged[1], [0, 0, other, 1 - other, 1, 1], atol=1e-6)


def test_logits_of_the_networks_size_are_resized() -> None:
    tiles = plan_tiles((64, 96), tile=64)
    merged = merge(tiles, [np.full((16, 20), -2.5, np.float32) for _ in tiles], size=(64, 96))
    np.testing.assert_allclose(merged, np.full((64, 96), -2.5), atol=1e-5)


def test_crops_are_contiguous_pixels_of_the_image() -> None:
    image = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    crop = Tile(top=1, left=2, height=3, width=4).crop(image)
    assert crop.flags.c_contiguous
    np.testing.assert_array_equal(crop, image[1:4, 2:6])


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0.25), (-4, 0.25), (64, 1), (64, -0.1), (64, 25)])
def test_invalid_tiles_and_overlaps_are_refused(tile: int, overlap: float) -> None:
    with pytest.raises(OptionError, match="="):
        plan_tiles((100, 100), tile=tile, overlap=overlap)


def test_missing_logits_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        merge(plan_tiles((64, 96), tile=64), [np.zeros((64, 64), np.float32)], size=(64, 96))
