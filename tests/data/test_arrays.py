"""NumPy files as masks: damaged, hostile and huge ones are refused in one line, before anything is allocated."""

from __future__ import annotations

import io
import random
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from condseg_sdk.data import check_dataset, load_mask, open_dataset
from condseg_sdk.data.arrays import array_bytes, read_array
from condseg_sdk.errors import DatasetError
from tests.helpers.datasets import make_set, region


def header(shape: tuple[int, ...], descr: object = "|u1") -> bytes:
    """The header of a .npy file, and nothing behind it."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": descr})
    return file.getvalue()


def archive(path: Path, content: bytes, name: str = "mask.npy", method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr(name, content)
    return path


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["?", "u1", ">u2", "<i4", "f2", "f8"])
def test_arrays_are_read_back(tmp_path: Path, dtype: str, order: str) -> None:
    array = np.asarray(region() > 0, dtype=dtype, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", array)
    np.savez_compressed(tmp_path / "c.npz", other=np.zeros(3), mask=array)
    for name in ("a.npy", "b.npz", "c.npz"):
        np.testing.assert_array_equal(load_mask(tmp_path / name), region() > 0)
        assert array_bytes(tmp_path / name) == array.nbytes


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    ("shape", "descr"),
    [
        ((45_000, 45_000), "|u1"),
        ((21_500, 21_500), "<f8"),
        ((2**40, 2**40), "<f8"),
        ((-3, 4), "<f8"),
        ((10**18,), "|u1"),
    ],
)
def test_an_announced_size_of_gigabytes_is_refused_before_reading(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], descr: str
) -> None:
    path = tmp_path / f"mask{suffix}"
    if suffix == ".npy":
        path.write_bytes(header(shape, descr))
    else:
        archive(path, header(shape, descr))
    tracemalloc.start()
    with pytest.raises(
        DatasetError, match=rf"mask\{suffix} is an array of shape .* GiB; a mask may have 512 MiB: save"
    ):
        load_mask(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}, None], object))
    np.savez(tmp_path / "b.npz", np.array([{}, None], object))
    (tmp_path / "c.npy").write_bytes(b"\x80\x04\x95N.")
    for name, message in (("a.npy", "type object"), ("b.npz", "type object"), ("c.npy", "not a readable NumPy array")):
        with pytest.raises(DatasetError, match=message):
            load_mask(tmp_path / name)


@pytest.mark.parametrize("descr", ["|V3", "<U4", "<M8[s]", "<c8", [("a", "<f8")]], ids=str)
def test_arrays_of_other_types_than_numbers_are_refused(tmp_path: Path, descr: object) -> None:
    (tmp_path / "mask.npy").write_bytes(header((4, 5), descr) + bytes(1000))
    with pytest.raises(DatasetError, match=r"mask\.npy is an array of type"):
        load_mask(tmp_path / "mask.npy")


def test_damaged_archives_are_refused_in_one_line(tmp_path: Path) -> None:
    content = header((4, 5)) + bytes(20)
    path = archive(tmp_path / "mask.npz", content)
    raw = bytearray(path.read_bytes())
    for offset, value in ((8, 99), (raw.rindex(b"PK\x01\x02") + 10, 99)):  # a method nobody has, in both headers
        raw[offset] = value
    path.write_bytes(raw)
    with pytest.raises(DatasetError, match=r"mask\.npz is not a readable NumPy array \(.*compression"):
        load_mask(path)
    path.write_bytes(b"PK")
    with pytest.raises(DatasetError, match="not a readable NumPy array"):
        load_mask(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(DatasetError, match=r"contains the arrays \[\]"):
        load_mask(path)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_mutated_files_are_read_or_refused(tmp_path: Path, suffix: str, seed: int) -> None:
    """Whatever NumPy, zipfile and zlib raise on a damaged file is one error that names the file."""
    rng = random.Random(seed)
    path = tmp_path / f"mask{suffix}"
    (np.save if suffix == ".npy" else np.savez_compressed)(path, region())
    whole = path.read_bytes()
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 3, 20])):
            place = rng.randrange(len(content) if rng.random() < 0.3 else min(len(content), 128))
            content[place] = rng.choice([0, 255, rng.randrange(256), *b"({[,:'9"])
        if rng.random() < 0.2:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
        try:
            assert load_mask(path).ndim == 2
        except DatasetError as error:
            assert str(path) in str(error)  # noqa: PT017 - most are refused, some are still whole


def test_a_damaged_array_is_one_error_of_the_check(tmp_path: Path) -> None:
    make_set(tmp_path, "abcdef")
    (tmp_path / "masks" / "c.png").unlink()
    (tmp_path / "masks" / "c.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': (" + bytes(100))
    (problem,) = check_dataset(open_dataset(tmp_path)).errors
    assert problem.message.startswith("1 pair with a file that cannot be used")
    assert "c.npy is not a readable NumPy array" in problem.line()


def test_a_truncated_array_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mask.npy").write_bytes(header((40, 50)) + bytes(1000))
    with pytest.raises(DatasetError, match=r"mask\.npy is not a readable NumPy array"):
        read_array(tmp_path / "mask.npy")


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64, np.uint64])
def test_the_largest_integers_do_not_overflow(tmp_path: Path, dtype: type) -> None:
    top = np.iinfo(dtype).max
    for low, expected in ((0, 96), (top // 3, 96), (top - 1, 600)):
        np.save(tmp_path / "mask.npy", np.where(region() > 0, top, low).astype(dtype))
        assert load_mask(tmp_path / "mask.npy").sum() == expected
