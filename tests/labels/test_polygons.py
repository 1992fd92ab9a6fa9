"""Polygons give their mask back to the pixel, whatever the mask looks like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from condseg_sdk.labels.polygons import one_polygon, simple_polygons
from condseg_sdk.segmentation import find_regions

Mask = NDArray[np.bool_]
MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans())


def drawn(polygon: NDArray[np.int32], size: tuple[int, int]) -> Mask:
    """Draw a polygon with pycocotools, an independent program."""
    codes = coco_mask.frPyObjects([polygon.ravel().astype(float).tolist()], *size)
    return np.asarray(coco_mask.decode(coco_mask.merge(codes)), np.bool_)


@settings(max_examples=80, deadline=None)
@given(mask=MASKS)
def test_one_polygon_of_each_region_gives_the_mask_back(mask: Mask) -> None:
    covered = np.zeros(mask.shape, int)
    for region in find_regions(mask):
        pixels = drawn(one_polygon(region), mask.shape)
        assert pixels.sum() == region.area
        covered += pixels
    np.testing.assert_array_equal(covered, mask)


@settings(max_examples=80, deadline=None)
@given(mask=MASKS)
def test_simple_polygons_give_the_mask_back_and_never_touch_themselves(mask: Mask) -> None:
    covered = np.zeros(mask.shape, int)
    for region in find_regions(mask):
        for outline, *holes in simple_polygons(region):
            covered += drawn(outline, mask.shape)
            for hole in holes:
                covered -= drawn(hole, mask.shape)
            for ring in (outline, *holes):
                assert len(np.unique(ring, axis=0)) == len(ring)
    np.testing.assert_array_equal(covered, mask)


@pytest.mark.parametrize(
    ("rows", "corners"),
    [
        (["#"], 4),
        (["#.", ".#"], 8),
        (["###", "#.#", "###"], 11),
        (["#####", "#.#.#", "#####"], 17),
    ],
    ids=["one pixel", "two pixels that touch at a corner", "a hole", "two holes, one behind the other"],
)
def test_a_region_becomes_one_polygon_of_few_corners(rows: list[str], corners: int) -> None:
    mask = np.array([[c == "#" for c in row] for row in rows])
    (region,) = find_regions(mask)
    polygon = one_polygon(region)
    assert len(polygon) == corners
    np.testing.assert_array_equal(drawn(polygon, mask.shape), mask)


def test_regions_inside_the_hole_of_another_stay_apart() -> None:
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    outer, inner = find_regions(mask)
    assert [len(rings) for rings in simple_polygons(outer)] == [2]
    np.testing.assert_array_equal(drawn(one_polygon(outer), mask.shape) | drawn(one_polygon(inner), mask.shape), mask)


def test_a_thousand_holes_take_moments() -> None:
    mask = np.ones((81, 81), bool)
    mask[1::2, 1::2] = False
    (region,) = find_regions(mask)
    np.testing.assert_array_equal(drawn(one_polygon(region), mask.shape), mask)
    assert len(region.holes) == 1600
