"""Metrics against numbers worked out by hand, brute force and other libraries, on random and degenerate masks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from numpy.typing import NDArray
from torchmetrics.functional import classification as tm

from condseg_sdk.metrics import ImageScores, mean_scores, score
from condseg_sdk.metrics.calibration import calibration_bins, expected_calibration_error
from condseg_sdk.metrics.error_detection import score_error_detection
from condseg_sdk.metrics.intervals import estimate, estimate_auroc, estimate_mean, estimate_share
from condseg_sdk.metrics.ranking import auroc
from condseg_sdk.metrics.surface import boundary_iou, surface_scores

Mask = NDArray[np.bool_]
SIZE = (13, 17)
close = lambda value: pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True)  # noqa: E731


def blob(rows: slice, columns: slice) -> Mask:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


DEGENERATE = {
    "empty": blob(slice(0), slice(0)),
    "full": blob(slice(None), slice(None)),
    "one pixel": blob(slice(4, 5), slice(7, 8)),
    "corner": blob(slice(0, 1), slice(0, 1)),
    "other corner": blob(slice(12, 13), slice(16, 17)),
    "line": blob(slice(6, 7), slice(None)),
    "box": blob(slice(2, 11), slice(3, 15)),
    "all but one": ~blob(slice(4, 5), slice(7, 8)),
}
CASES = list(itertools.product(DEGENERATE, repeat=2))
random_masks = hnp.arrays(np.bool_, SIZE)


def on_random_and_degenerate(check: object) -> object:
    """Run `check(prediction, target)` on every two of the degenerate masks, and on random ones."""

    @pytest.mark.parametrize("names", [None, *CASES], ids=lambda n: "random" if n is None else f"{n[0]}-{n[1]}")
    def test(names: tuple[str, str] | None) -> None:
        if names is None:
            settings(deadline=None, max_examples=60)(given(random_masks, random_masks)(check))()
        else:
            check(DEGENERATE[names[0]].copy(), DEGENERATE[names[1]].copy())

    return test


# Overlap


def brute_overlap(prediction: Mask, target: Mask) -> ImageScores:
    """By sets of pixels, from the definitions."""
    p, t = ({(int(y), int(x)) for y, x in np.argwhere(mask)} for mask in (prediction, target))
    if not p and not t:
        return ImageScores(1, 1, 1, 1, 1, 1)
    precision = len(p & t) / len(p) if p else 0.0
    recall = len(p & t) / len(t) if t else 0.0
    f2 = 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0
    accuracy = 1 - len(p ^ t) / prediction.size
    return ImageScores(len(p & t) / len(p | t), 2 * len(p & t) / (len(p) + len(t)), precision, recall, f2, accuracy)


def _overlap(prediction: Mask, target: Mask) -> None:
    scores = score(prediction, target)
    assert vars(scores) == close(vars(brute_overlap(prediction, target)))
    if prediction.any() and target.any():
        pair = torch.from_numpy(prediction).int().flatten(), torch.from_numpy(target).int().flatten()
        assert scores.iou == close(float(tm.binary_jaccard_index(*pair)))
        assert scores.dice == close(float(tm.binary_f1_score(*pair)))
        assert scores.precision == close(float(tm.binary_precision(*pair)))
        assert scores.recall == close(float(tm.binary_recall(*pair)))
        assert scores.f2 == close(float(tm.binary_fbeta_score(*pair, beta=2.0)))
        assert scores.accuracy == close(float(tm.binary_accuracy(*pair)))


test_overlap = on_random_and_degenerate(_overlap)


def test_overlap_metrics_equal_values_computed_by_hand() -> None:
    # 3 right, 1 too many, 2 missed, 4 rejected
    prediction = np.array([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]], bool)
    target = np.array([[1, 1, 1, 0, 1], [1, 0, 0, 0, 0]], bool)
    expected = ImageScores(iou=3 / 6, dice=6 / 9, precision=3 / 4, recall=3 / 5, f2=15 / (15 + 8 + 1), accuracy=7 / 10)
    assert vars(score(prediction, target)) == close(vars(expected))


def test_mean_scores_are_means_over_images() -> None:
    full, half = np.ones((2, 2), bool), np.array([[True, True], [False, False]])
    assert mean_scores([score(full, full), score(half, full)]) == {"mIoU": 0.75, "mDSC": close(5 / 6)}


# Contours


def contour(mask: Mask) -> NDArray[np.int64]:
    """Pixels with one of four neighbors outside of the mask or the image, one by one."""
    height, width = mask.shape
    found = []
    for y, x in np.argwhere(mask):
        neighbors = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        if any(not (0 <= r < height and 0 <= c < width and mask[r, c]) for r, c in neighbors):
            found.append((y, x))
    return np.array(found).reshape(-1, 2)


def brute_surface(prediction: Mask, target: Mask, spacing: tuple[float, float]) -> tuple[float, float]:
    if not prediction.any() or not target.any():
        worst = math.hypot(SIZE[0] * spacing[0], SIZE[1] * spacing[1])
        return (0.0, 0.0) if prediction.any() == target.any() else (worst, worst)
    a, b = contour(prediction) * np.array(spacing), contour(target) * np.array(spacing)
    apart = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    there, back = apart.min(1), apart.min(0)
    percentile = lambda d: np.interp(0.95 * (len(d) - 1), np.arange(len(d)), np.sort(d))  # noqa: E731
    return max(percentile(there), percentile(back)), (there.sum() + back.sum()) / (len(there) + len(back))


def _surface(prediction: Mask, target: Mask) -> None:
    for spacing in ((1.0, 1.0), (0.7, 0.25)):
        scores = surface_scores(prediction, target, spacing=spacing)
        assert (scores.hd95, scores.assd) == close(brute_surface(prediction, target, spacing))
        if prediction.any() and target.any():
            pair = [torch.from_numpy(mask).int()[None, None] for mask in (prediction, target)]
            hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=list(spacing))
            assert scores.hd95 == pytest.approx(float(hd95), abs=1e-5)  # MONAI takes the percentile in float32
            assd = compute_average_surface_distance(
                *pair, include_background=True, symmetric=True, spacing=list(spacing)
            )
            assert scores.assd == close(float(assd))


test_surface = pytest.mark.filterwarnings("ignore::FutureWarning")(on_random_and_degenerate(_surface))


def test_surface_distances_equal_those_computed_by_hand() -> None:
    one, other = DEGENERATE["corner"], blob(slice(3, 4), slice(4, 5))
    assert vars(surface_scores(one, other)) == {"hd95": 5.0, "assd": 5.0}  # 3, 4, 5
    assert surface_scores(one, other, spacing=(2.0, 0.0625)).hd95 == close(math.hypot(6.0, 0.25))
    diagonal = math.hypot(*SIZE)
    for masks in ((one, DEGENERATE["empty"]), (DEGENERATE["empty"], one)):
        assert vars(surface_scores(*masks)) == {"hd95": diagonal, "assd": diagonal}
    assert surface_scores(DEGENERATE["empty"], DEGENERATE["empty"]).hd95 == 0


def brute_boundary_iou(prediction: Mask, target: Mask, distance: int) -> float:
    def boundary(mask: Mask) -> set[tuple[int, int]]:
        outside = np.argwhere(~np.pad(mask, distance)) - distance  # a frame of background around the image
        return {(int(y), int(x)) for y, x in np.argwhere(mask) if np.abs(outside - (y, x)).max(1).min() <= distance}

    a, b = boundary(prediction), boundary(target)
    return len(a & b) / len(a | b) if a | b else 1.0


def _boundary_iou(prediction: Mask, target: Mask) -> None:
    assert boundary_iou(prediction, target) == close(brute_boundary_iou(prediction, target, 1))


test_boundary_iou = on_random_and_degenerate(_boundary_iou)


def test_the_boundary_is_2_percent_of_the_diagonal_wide() -> None:
    large = [np.random.default_rng(seed).random((4, 5)).repeat(20, 0).repeat(20, 1) > 0.3 for seed in (0, 1)]
    assert boundary_iou(*large) == close(brute_boundary_iou(*large, 3))  # the diagonal is 128


def test_the_boundary_iou_equals_one_computed_by_hand() -> None:
    # 10x10 squares, one shifted by one column; d = 1, so that boundaries are rings of 36 pixels. They share the upper
    # and lower edge but for one column (9 each); 18 / (36 + 36 - 18).
    a, b = np.zeros((2, 30, 30), bool)
    a[5:15, 5:15] = b[5:15, 6:16] = True
    assert boundary_iou(a, b) == close(18 / 54)


# Probabilities

probabilities = hnp.arrays(np.float32, SIZE, elements=st.floats(0, 1, width=32, exclude_max=True))


@settings(deadline=None, max_examples=60)
@given(probabilities, random_masks)
def test_the_calibration_error_equals_that_of_torchmetrics(probability: NDArray[np.float32], target: Mask) -> None:
    # A probability on the border of two bins may fall in either: take it off the border.
    position = probability.astype(np.float64) * 15
    probability = np.where(np.abs(position - np.rint(position)) < 1e-4, np.float32(0.51), probability)
    ours = float(expected_calibration_error(calibration_bins(probability, target)))
    theirs = tm.binary_calibration_error(
        torch.from_numpy(probability.astype(np.float64)).flatten(), torch.from_numpy(target).int().flatten(), n_bins=15
    )
    assert ours == close(float(theirs))


@pytest.mark.parametrize(
    ("probability", "target", "error"),
    [(0.0, False, 0), (1.0, True, 0), (0.0, True, 1), (1.0, False, 1), (0.5, True, 0.5)],
)
def test_the_calibration_error_of_one_probability_is_its_distance_from_the_share(
    probability: float, target: bool, error: float
) -> None:
    bins = calibration_bins(np.full(SIZE, probability, np.float32), np.full(SIZE, target))
    assert float(expected_calibration_error(bins)) == close(error)


def test_calibration_bins_of_images_add_up() -> None:
    rng = np.random.default_rng(0)
    p, t = rng.random((2, 8, 8), np.float32), rng.random((2, 8, 8)) > 0.5
    together = calibration_bins(p.reshape(16, 8), t.reshape(16, 8))
    np.testing.assert_allclose(calibration_bins(p[0], t[0]) + calibration_bins(p[1], t[1]), together, rtol=1e-12)


uncertainties = hnp.arrays(np.float32, (6, 10), elements=st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.7, 0.99]))


@settings(deadline=None, max_examples=60)
@given(uncertainties, hnp.arrays(np.bool_, (6, 10)))
def test_error_detection_equals_brute_force(uncertainty: NDArray[np.float32], wrong: Mask) -> None:
    found = score_error_detection(uncertainty, wrong)
    bad, good = uncertainty[wrong], uncertainty[~wrong]
    if not len(bad):
        assert math.isnan(found.auroc)
        assert math.isnan(found.in_top5)
        return
    if len(good):
        pairs = [(b > g) + 0.5 * (b == g) for b in bad for g in good]
        assert found.auroc == close(sum(pairs) / len(pairs))
        area = tm.binary_auroc(torch.from_numpy(uncertainty).flatten(), torch.from_numpy(wrong).flatten().int())
        assert found.auroc == close(float(area))
    else:
        assert math.isnan(found.auroc)
    # 5 % of 60 pixels are 3: the mean over all orders of pixels that are of equal uncertainty, by drawing places one by one
    expected, places = 0.0, 3.0
    for level in sorted(set(uncertainty.flatten().tolist()), reverse=True):
        here = uncertainty == np.float32(level)
        taken = min(places, here.sum())
        expected += taken * wrong[here].mean()
        places -= taken
    assert found.in_top5 == close(expected / wrong.sum())


def test_error_detection_equals_values_computed_by_hand() -> None:
    uncertainty = np.arange(40, dtype=np.float32).reshape(5, 8)  # the top are 38 and 39
    wrong = np.zeros((5, 8), bool)
    wrong.flat[[39, 37]] = True
    found = score_error_detection(uncertainty, wrong)
    assert found.in_top5 == 0.5
    assert found.auroc == close((38 + 37) / (2 * 38))


# Intervals


def test_an_interval_is_determined_by_the_seed() -> None:
    values = np.random.default_rng(0).random(50)
    assert estimate_mean(values, seed=3) == estimate_mean(values, seed=3)
    assert estimate_mean(values, seed=3) != estimate_mean(values, seed=4)


def test_an_interval_has_the_width_of_theory() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, 400)
    found = estimate_mean(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.value == close(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_an_interval_has_the_percentiles_of_resampled_means() -> None:
    values = np.random.default_rng(1).random(30)
    drawn = np.random.default_rng(2).integers(0, 30, (20000, 30))
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    found = estimate_mean(values)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.005)


def test_images_without_a_value_are_left_out() -> None:
    found = estimate_mean([0.25, math.nan, 0.75])
    assert (found.value, found.images) == (0.5, 2)
    assert estimate_mean([math.nan]).images == 0
    alone = estimate_mean([0.5])
    assert alone.value == 0.5
    assert alone.to_dict() == {"value": 0.5, "low": None, "high": None, "images": 1}
    assert (str(alone), str(estimate_mean([math.nan]))) == ("0.5000", "-")


def test_the_interval_of_a_ratio_resamples_images_and_not_pixels() -> None:
    rows = np.array([[1.0, 10.0], [9.0, 10.0]])
    found = estimate(rows, lambda sums: sums[..., 0] / sums[..., 1])
    assert (found.value, found.low, found.high) == (0.5, close(0.1), close(0.9))


def test_the_interval_of_the_calibration_error_is_biased_upwards() -> None:
    """As docs/evaluation.md says: what cancels over the set's images does not over those of a resample."""
    rng = np.random.default_rng(0)
    probability = rng.random((10, 64, 64)).astype(np.float32)
    leans = np.tile([-0.2, 0.2], 5)[:, None, None]  # half of the images overconfident, half underconfident
    target = rng.random(probability.shape) < probability + leans
    rows = np.stack([calibration_bins(p, t).ravel() for p, t in zip(probability, target, strict=True)])
    found = estimate(rows, lambda sums: expected_calibration_error(sums.reshape(*sums.shape[:-1], 3, -1)))
    assert found.high - found.value > 5 * abs(found.value - found.low)


# Whole images


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12),
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12),
)
def test_auroc_agrees_with_counting_pairs_and_with_torchmetrics(positives: list[float], negatives: list[float]) -> None:
    """With many ties, as empty and full predictions give them."""
    wins = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
    value = float(auroc(np.array(positives), np.array(negatives)))
    assert value == close(sum(wins) / len(wins))
    labels = torch.tensor([1] * len(positives) + [0] * len(negatives))
    assert value == close(float(tm.binary_auroc(torch.tensor(positives + negatives), labels)))


def test_the_interval_of_an_auroc_contains_it_and_shrinks_with_more_images() -> None:
    rng = np.random.default_rng(0)
    few, many = (estimate_auroc(rng.normal(1, 1, n), rng.normal(0, 1, n)) for n in (20, 500))
    for found, count in ((few, 40), (many, 1000)):
        assert found.low < found.value < found.high
        assert found.images == count
    assert many.high - many.low < (few.high - few.low) / 2
    assert math.isnan(estimate_auroc([0.5], []).value)
    assert math.isnan(estimate_auroc([0.9], [0.1]).low)


@pytest.mark.parametrize(("count", "total"), [(0, 81), (38, 81), (81, 81), (3, 4)])
def test_the_interval_of_a_share_is_wilsons(count: int, total: int) -> None:
    p, z = count / total, 1.959964
    center, half = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    found = estimate_share(count, total)
    assert (found.value, found.images) == (p, total)
    assert found.low == close((center - half) / (1 + z * z / total))
    assert found.high == close((center + half) / (1 + z * z / total))
    assert math.isnan(estimate_share(0, 0).value)
