"""Augmentation changes image and mask together, and depends on the sample alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from condseg_sdk.training.artifacts import RandomArtifacts
from condseg_sdk.training.augmentation import MILD, STRONG, StrongPhotometric, TrainingAugmentation, affine, recolor
from condseg_sdk.training.loaders import EpochSampler, epoch_order
from condseg_sdk.training.randomness import epoch_seed, permutation, uniforms

SIZE = (48, 48)


def numbers(count: int, columns: int = TrainingAugmentation.numbers, seed: int = 0) -> Tensor:
    return uniforms((seed, 2, 0), torch.arange(count), columns)


def test_image_and_mask_move_together() -> None:
    masks = torch.zeros(16, 1, 64, 64)
    masks[:, :, 16:40, 20:50] = 1
    images, moved = TrainingAugmentation(SIZE)(masks.expand(-1, 3, -1, -1), masks, numbers(16))
    assert images.shape == (16, 3, *SIZE)
    assert set(moved.unique().tolist()) <= {0.0, 1.0}
    # Color changes a bright region to another bright one: what is bright must be where the mask is.
    for image, mask in zip(images, moved, strict=True):
        bright = image.amax(0) > image.max() / 2
        assert ((bright == (mask[0] > 0)).float().mean()) > 0.97


@pytest.mark.parametrize("kind", ["full", "endoscopy", "upright", "none"])
def test_augmentation_does_not_depend_on_the_batch(kind: str) -> None:
    """In any order and any batch, up to rounding: two processes together see what one process sees.

    Rounding may carry a coordinate over the border between two pixels of a mask, or a coefficient of a JPEG over a step.
    """
    images = torch.rand(6, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    masks = (images[:, :1] > 0.5).float()
    u = numbers(6, TrainingAugmentation.numbers + StrongPhotometric.numbers)
    augment, strong = TrainingAugmentation(SIZE, kind), StrongPhotometric()  # type: ignore[arg-type]

    def run(rows: list[int]) -> tuple[Tensor, Tensor]:
        inputs = images[rows].clone(), masks[rows].clone(), u[rows][:, : TrainingAugmentation.numbers]
        augmented, moved = augment(*inputs)
        return strong(augmented, u[rows][:, TrainingAugmentation.numbers :]), moved

    together = run([0, 1, 2, 3, 4, 5])
    for rows in ([3], [5, 0], [4, 2, 1]):
        for whole, part in zip(together, run(rows), strict=True):
            assert ((whole[rows] - part).abs() > 1e-3).float().mean() < 0.01


def test_upright_stays_upright_and_none_changes_nothing() -> None:
    u = numbers(500)
    matrices = affine(u[:, :6], upright=True)
    assert (matrices[:, 1, 1] > 0.5).all()  # down stays down
    assert 0.3 < (matrices[:, 0, 0] < 0).float().mean() < 0.7  # left and right change places in half of them
    assert (affine(u[:, :6])[:, 1, 1] < 0).any()
    images, masks = torch.rand(2, 3, *SIZE), torch.ones(2, 1, *SIZE)
    same, same_masks = TrainingAugmentation(SIZE, "none")(images, masks, u[:2])
    assert torch.equal(same, images)
    assert torch.equal(same_masks, masks)


def test_affine_matrices_stay_within_their_ranges() -> None:
    determinant = torch.linalg.det(affine(numbers(500)[:, :6])[:, :, :2]).abs()
    assert 1 / 1.4**2 - 1e-3 <= determinant.min() <= determinant.max() <= 1 / 0.7**2 + 1e-3


@pytest.mark.parametrize("limits", [MILD, STRONG])
def test_color_of_gray_images_stays_gray_and_in_range(limits: object) -> None:
    gray = torch.rand(8, 1, 16, 16).expand(-1, 3, -1, -1)
    changed = recolor(gray, numbers(8, 4), limits)  # type: ignore[arg-type]
    assert 0 <= changed.min() <= changed.max() <= 1
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed), atol=2e-3, rtol=0)


def test_color_in_the_middle_of_each_range_is_unchanged_and_gray_has_no_color() -> None:
    images = torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(recolor(images, torch.full((3, 4), 0.5), STRONG), images, atol=1e-4, rtol=0)
    gray = recolor(images, torch.full((3, 4), 0.5), STRONG, gray=torch.tensor([True, False, True]))
    spread, before = (x.amax(1) - x.amin(1) for x in (gray, images))
    assert spread[[0, 2]].max() < 3e-3
    torch.testing.assert_close(spread[1], before[1], atol=1e-3, rtol=0)


def test_strong_photometric_augmentation_keeps_geometry_and_range() -> None:
    images = torch.zeros(32, 3, *SIZE)
    images[:, :, 10:30, 10:30] = 0.8
    changed = StrongPhotometric()(images.clone(), numbers(32, StrongPhotometric.numbers))
    assert 0 <= changed.min() <= changed.max() <= 1
    inside, outside = changed[:, :, 14:26, 14:26].mean((1, 2, 3)), changed[:, :, 36:, 36:].mean((1, 2, 3))
    assert (inside > outside).all()
    assert inside.std() > 0.05


@given(st.integers(0, 2**31), st.integers(0, 500), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_random_numbers_follow_from_seed_epoch_and_sample_alone(seed: int, epoch: int, sample: int) -> None:
    one = uniforms((seed, 2, epoch), torch.tensor([sample]), 5)
    assert torch.equal(one, uniforms((seed, 2, epoch), torch.tensor([7, sample]), 5)[1:])
    assert ((one >= 0) & (one < 1)).all()
    for other in ((seed + 1, 2, epoch), (seed, 1, epoch), (seed, 2, epoch + 1)):
        assert not torch.equal(one, uniforms(other, torch.tensor([sample]), 5))
    assert not torch.equal(one, uniforms((seed, 2, epoch), torch.tensor([sample + 1]), 5))
    assert epoch_seed((seed, 2, epoch)) == epoch_seed((seed, 2, epoch))


def test_random_numbers_are_uniform() -> None:
    u = numbers(4000, 4)
    assert u.mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.02)
    assert u.var(0).tolist() == pytest.approx([1 / 12] * 4, abs=0.005)
    assert torch.corrcoef(u.T).fill_diagonal_(0).abs().max() < 0.06


# The order of an epoch


def test_an_order_follows_from_its_key() -> None:
    assert sorted(permutation((0, 2, 0), 50)) == list(range(50))
    orders = [tuple(permutation(key, 50)) for key in ((0, 2, 0), (0, 2, 1), (1, 2, 0), (0, 1, 0))]
    assert len(set(orders)) == 4
    assert orders[0] == tuple(permutation((0, 2, 0), 50))


@given(st.integers(1, 40), st.sampled_from([1, 2, 4]), st.integers(1, 4), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_processes_divide_the_batches_of_one_process(count: int, world: int, each: int, epoch: int) -> None:
    def order(rank: int, world: int) -> list[int]:
        sampler = EpochSampler((0, 2), [True] * count, batch_size=each * world_size, rank=rank, world=world)
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)
        return list(sampler)

    world_size = world
    alone = order(0, 1)
    shares = [order(rank, world) for rank in range(world)]
    for batch in range(len(alone) // (each * world)):
        together = [share[batch * each : (batch + 1) * each] for share in shares]
        whole = alone[batch * each * world : (batch + 1) * each * world]
        assert sorted(itertools.chain(*together)) == sorted(whole)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.sampled_from([0.0, 0.3, 0.5, 0.9]))
@settings(max_examples=80, deadline=None)
def test_oversampling_repeats_foreground_with_new_random_numbers(shows: list[bool], share: float) -> None:
    count = len(shows)
    order = epoch_order((0, 2, 3), shows, share)
    assert len(order) == len(set(order)) == count
    foreground = sum(shows[i % count] for i in order)
    if any(shows):
        assert foreground >= min(share * count, count)
    if foreground == sum(shows):
        assert sorted(order) == list(range(count))
    assert order == epoch_order((0, 2, 3), shows, share)


def test_artifacts_cover_image_and_mask_alike() -> None:
    """Gray images, all foreground: what is covered becomes background, a highlight does not change the mask."""
    count = 400
    gray = torch.full((count, 3, *SIZE), 0.5)
    images, masks = RandomArtifacts()(gray, torch.ones(count, 1, *SIZE), numbers(count, RandomArtifacts.numbers))
    assert 0 <= images.min() <= images.max() <= 1
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    untouched = (images == 0.5).all(1, keepdim=True)
    assert (masks[untouched] == 1).all()
    kept = (masks > 0).expand_as(images)
    assert (images[kept] >= 0.5).all()  # under what is kept there is tissue or light, never black or a box's color
    assert (images[kept] > 0.9).any()
    touched = (~untouched).flatten(1).any(1).float().mean()
    assert 0.55 < touched < 0.8  # 1 - 0.65 * 0.7 * 0.7 = 0.68, less the apertures outside of the image's cornerss
    assert (masks.mean((1, 2, 3)) > 0.4).all()  # most of each image stays


def test_random_numbers_above_every_share_draw_no_artifacts() -> None:
    images, masks = torch.rand(3, 3, *SIZE), torch.ones(3, 1, *SIZE)
    same, same_masks = RandomArtifacts()(images, masks, torch.full((3, RandomArtifacts.numbers), 0.99))
    assert torch.equal(same, images)
    assert torch.equal(same_masks, masks)
