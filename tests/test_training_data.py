"""Datasets and augmentation: pairs, masks as people store them, image and mask moving together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from condseg_sdk.errors import DatasetError
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.training.augmentation import TrainingAugmentation, random_affine, random_color, seed_batch
from condseg_sdk.training.datasets import (
    CachedPairs,
    EpochSampler,
    find_pairs,
    hold_out,
    load_mask,
    load_pair,
    read_names,
    resize_mask,
)


def write_pair(folder: Path, name: str, *, size: tuple[int, int] = (20, 30), mask_name: str | None = None) -> None:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(name)).integers(0, 255, (*size, 3), np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[5:15, 10:20] = 255
    Image.fromarray(pixels).save(folder / "images" / f"{name}.jpg")
    Image.fromarray(mask).save(folder / "masks" / (mask_name or f"{name}.png"))


def test_pairs_match_by_name_and_known_mask_suffixes(tmp_path: Path) -> None:
    write_pair(tmp_path, "b")
    write_pair(tmp_path, "a", mask_name="a_segmentation.png")
    assert [(p.name, p.mask.name) for p in find_pairs(tmp_path)] == [("a", "a_segmentation.png"), ("b", "b.png")]


def test_an_unmatched_image_a_missing_folder_and_an_unknown_name_are_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    with pytest.raises(DatasetError, match="lack an image or a mask, such as 'zz'"):
        find_pairs(tmp_path, names=["a", "zz"])
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(DatasetError, match="1 images or masks without a partner, such as a"):
        find_pairs(tmp_path)
    with pytest.raises(DatasetError, match="is not a folder"):
        find_pairs(tmp_path / "nowhere")


def test_a_list_keeps_its_last_name_without_a_newline_and_drops_extensions(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("images/a.jpg\n\nb\nv1.2")
    assert read_names(path) == ["a", "b", "v1.2"]
    with pytest.raises(DatasetError, match=r"missing\.txt"):
        read_names(tmp_path / "missing.txt")


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0, 1), (False, True)), ((0, 255), (False, True)), ((7, 250), (False, True)), ((0, 0), (False, False))],
)
def test_masks_of_zero_one_and_of_noisy_bytes(
    tmp_path: Path, values: tuple[int, int], expected: tuple[bool, bool]
) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([values], np.uint8)).save(path)
    assert load_mask(path).tolist() == [list(expected)]


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DatasetError, match=r"30x20.*9x9"):
        load_pair(find_pairs(tmp_path)[0])


def test_resized_masks_keep_pixels_covered_by_half() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:2, 0] = mask[0, 2] = True
    assert resize_mask(mask, (2, 2)).tolist() == [[True, False], [False, False]]


def test_cached_items_are_the_preprocessed_pair(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    preprocessing = Preprocessing((10, 15))
    image, mask = CachedPairs(find_pairs(tmp_path), preprocessing)[0]
    assert image.shape == (3, 10, 15)
    assert mask.shape == (1, 10, 15)
    assert mask.sum() == 6 * 5  # rows 2.5 to 7.5: half a row counts at both ends
    pixels, _ = load_pair(find_pairs(tmp_path)[0])
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), preprocessing.resize(pixels))


@given(count=st.integers(2, 60), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 9))
@settings(max_examples=30)
def test_hold_out_is_a_partition_that_follows_from_the_seed(count: int, fraction: float, seed: int) -> None:
    pairs = [object() for _ in range(count)]
    training, held_out = hold_out(pairs, fraction, seed=seed)  # type: ignore[type-var, arg-type]
    assert training
    assert held_out
    assert {*map(id, training), *map(id, held_out)} == {*map(id, pairs)}
    assert len(training) + len(held_out) == count
    assert hold_out(pairs, fraction, seed=seed) == (training, held_out)  # type: ignore[type-var, arg-type]


def test_the_sampler_follows_from_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(50, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert sorted(order(0, 0)) == list(range(50))
    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def test_image_and_mask_move_together() -> None:
    seed_batch(0, 0, 0)
    masks = torch.zeros(16, 1, 64, 64)
    masks[:, :, 16:40, 20:50] = 1
    images, moved = TrainingAugmentation((48, 48))(masks.expand(-1, 3, -1, -1), masks)
    assert images.shape == (16, 3, 48, 48)
    assert set(moved.unique().tolist()) <= {0.0, 1.0}
    # Colour changes a bright region to another bright one: what is bright must be where the mask is.
    for image, mask in zip(images, moved, strict=True):
        bright = image.amax(0) > image.max() / 2
        assert ((bright == (mask[0] > 0)).float().mean()) > 0.97


def test_augmentation_follows_from_seed_epoch_and_batch() -> None:
    images, masks = torch.rand(2, 3, 32, 32), (torch.rand(2, 1, 32, 32) > 0.5).float()

    def augmented(*key: int) -> torch.Tensor:
        seed_batch(*key)
        result: torch.Tensor = TrainingAugmentation((32, 32))(images, masks)[0]
        return result

    assert torch.equal(augmented(1, 2, 3), augmented(1, 2, 3))
    assert not torch.equal(augmented(1, 2, 3), augmented(1, 2, 4))


def test_affine_matrices_stay_within_their_ranges() -> None:
    torch.manual_seed(0)
    determinant = torch.linalg.det(random_affine(500)[:, :, :2]).abs()
    assert 1 / 1.4**2 - 1e-3 <= determinant.min() <= determinant.max() <= 1 / 0.7**2 + 1e-3


def test_color_of_gray_images_stays_gray_and_in_range() -> None:
    torch.manual_seed(0)
    gray = torch.rand(8, 1, 16, 16).expand(-1, 3, -1, -1)
    changed = random_color(gray)
    assert 0 <= changed.min() <= changed.max() <= 1
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed), atol=2e-3, rtol=0)
