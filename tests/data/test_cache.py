"""From pairs to tensors in memory."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from condseg_sdk.data import CachedPairs, Pair, cache, find_pairs, load_pair
from condseg_sdk.errors import DatasetError, ImageError, OutputError
from condseg_sdk.preprocessing import Preprocessing
from tests.helpers.datasets import make_set, picture, region, save


def test_a_pair_is_loaded_at_the_size_of_the_image(tmp_path: Path) -> None:
    (pair,) = find_pairs(make_set(tmp_path, ["a"]))
    image, mask = load_pair(pair)
    np.testing.assert_array_equal(image, picture(str(pair.image)))
    np.testing.assert_array_equal(mask, region() > 0)
    save(tmp_path / "masks" / "a.png", region((40, 60)))
    np.testing.assert_array_equal(load_pair(pair)[1], region() > 0)


def test_a_mask_of_other_proportions_is_refused_with_both_sizes(tmp_path: Path) -> None:
    (pair,) = find_pairs(make_set(tmp_path, ["a"]))
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DatasetError, match=r"30x20.*9x9"):
        load_pair(pair)


def test_cached_items_are_the_preprocessed_pair(tmp_path: Path) -> None:
    pairs = find_pairs(make_set(tmp_path, ["a", "b"]))
    preprocessing = Preprocessing((10, 15))
    items = CachedPairs(pairs, preprocessing)
    assert len(items) == 2
    for pair, (image, mask) in zip(pairs, items, strict=False):
        assert (image.shape, image.dtype) == ((3, 10, 15), torch.uint8)
        assert (mask.shape, mask.dtype) == ((1, 10, 15), torch.uint8)
        pixels, truth = load_pair(pair)
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), preprocessing.resize(pixels))
        assert truth.sum() == 10 * 10 - 2 * 2
        assert mask.sum() == 6 * 5 - 1  # rows 2.5 to 7.5: half a row counts at both ends; a corner is missing


def test_a_large_dataset_is_mapped_from_a_file_that_disappears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = find_pairs(make_set(tmp_path / "set", [f"{i}" for i in range(9)]))
    in_memory = CachedPairs(pairs, Preprocessing((16, 16)))
    monkeypatch.setattr(cache, "MEMORY_LIMIT", 1000)
    folder = tmp_path / "run"
    folder.mkdir()
    mapped = CachedPairs(pairs, Preprocessing((16, 16)), folder=folder)
    assert [*folder.iterdir()] == []
    torch.testing.assert_close(mapped.values, in_memory.values, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(mapped[3], in_memory[3], strict=True))


def test_a_full_disk_gives_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(io.BytesIO):
        def __init__(self, **options: Any) -> None:
            super().__init__()

        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "MEMORY_LIMIT", 0)
    monkeypatch.setattr(cache.tempfile, "TemporaryFile", FullDisk)
    with pytest.raises(OutputError, match=r"has no space for .* \(No space left on device\); free it, choose another"):
        CachedPairs(find_pairs(make_set(tmp_path, ["a"])), Preprocessing((16, 16)), folder=tmp_path)


def test_an_unreadable_file_is_named_in_the_error(tmp_path: Path) -> None:
    make_set(tmp_path, [f"{i}" for i in range(5)])
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"images/3\.png"):
        CachedPairs(find_pairs(tmp_path), Preprocessing((16, 16)))


def test_sixteen_bit_masks_of_zero_and_one_reach_the_network(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", picture("a"))
    mask = save(tmp_path / "a_mask.png", (region() > 0).astype(np.uint16))
    assert CachedPairs([Pair("a", image, mask)], Preprocessing((20, 30)))[0][1].sum() == 96


class TestFieldOfView:
    """Two recorded frames; the region of the second one lies in the second picture."""

    @pytest.fixture
    def pairs(self, tmp_path: Path) -> list[Pair]:
        frame, mask = np.zeros((120, 200, 3), np.uint8), np.zeros((120, 200), np.uint8)
        frame[10:110, 60:180] = np.random.default_rng(0).integers(60, 255, (100, 120, 3), np.uint8)
        for name, columns in (("inside", slice(60, 120)), ("outside", slice(10, 40))):
            truth = mask.copy()
            truth[10:60, columns] = 255
            save(tmp_path / "images" / f"{name}.png", frame)
            save(tmp_path / "masks" / f"{name}.png", truth)
        return find_pairs(tmp_path)

    def test_images_and_masks_are_cropped_alike(self, pairs: list[Pair]) -> None:
        preprocessing = Preprocessing((20, 24), field_of_view="endoscopy")
        image, mask = CachedPairs(pairs, preprocessing)[0]
        pixels, truth = load_pair(pairs[0])
        np.testing.assert_array_equal(
            image.permute(1, 2, 0).numpy(), preprocessing.resize(np.ascontiguousarray(pixels[10:110, 60:180]))
        )
        wanted = np.zeros((20, 24), np.uint8)
        wanted[:10, :12] = 1
        np.testing.assert_array_equal(mask[0].numpy(), wanted)
        assert truth.sum() == 50 * 60

    def test_images_with_cropped_foreground_are_reported(
        self, pairs: list[Pair], caplog: pytest.LogCaptureFixture
    ) -> None:
        items = CachedPairs(pairs, Preprocessing((20, 24), field_of_view="endoscopy"))
        assert items[1][1].sum() == 0
        assert [record.message for record in caplog.records] == [
            "in 1 of 2 images part of the foreground is outside of the detected field of view and is ignored, "
            "first in outside: check them, and train with field_of_view='none' if there are many"
        ]
        caplog.clear()
        CachedPairs(pairs, Preprocessing((20, 24)))
        assert not caplog.records
