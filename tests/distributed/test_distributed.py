"""Work on a cluster: what a worker writes and recognizes, and, on a local Ray, that a killed worker costs nothing."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from condseg_sdk import InstallationError, OptionError, Predictor
from condseg_sdk.checksums import sha256_of
from condseg_sdk.cli import main
from condseg_sdk.distributed import ClusterOptions, ImageResult, OutputFiles, segment_files
from condseg_sdk.distributed.write import WriteFiles, row_of
from condseg_sdk.provenance import is_ours, read_statement
from tests.helpers.datasets import picture, save

SETTINGS: dict[str, Any] = {"runtime": None, "threshold": None, "tta": False, "tile": None, "bits": None}


def outputs(images: Path, out: Path, count: int) -> list[OutputFiles]:
    """Make images and plan a mask and a JSON file for each."""
    planned = []
    for number in range(count):
        path = images / f"{number:03}.png"
        save(path, picture(path.stem, (20, 24)))
        planned.append(OutputFiles(path, {"mask": out / f"{path.stem}_mask.png", "json": out / f"{path.stem}.json"}))
    return planned


def batch_of(items: list[OutputFiles]) -> dict[str, np.ndarray]:
    rows = [row_of(number, item) for number, item in enumerate(items)]
    return {name: np.array([row[name] for row in rows], object) for name in rows[0]}


@pytest.fixture(scope="module")
def write(checkpoint: Path) -> WriteFiles:
    """A worker that opens the model once for all tests."""
    return WriteFiles(model=checkpoint, batch_size=4, overwrite=False, device="cpu", threads=1, **SETTINGS)


def changed(write: WriteFiles, *, overwrite: bool = False, **settings: Any) -> WriteFiles:
    """Return the worker with other settings."""
    other = copy.copy(write)
    other.overwrite, other.segmenter = overwrite, copy.copy(write.segmenter)
    vars(other.segmenter).update(settings)
    return other


def statuses(write: WriteFiles, items: list[OutputFiles]) -> list[str]:
    return [str(status) for status in write(batch_of(items))["status"]]


def mask_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image) > 0


@pytest.fixture
def planned(tmp_path: Path) -> list[OutputFiles]:
    return outputs(tmp_path / "images", tmp_path / "out", 3)


def test_a_worker_writes_the_masks_of_the_predictor_and_states_source_and_settings(
    write: WriteFiles, planned: list[OutputFiles]
) -> None:
    assert statuses(changed(write, tta=True), planned) == ["done"] * 3
    predictor = write.segmenter.predictor
    for item in planned:
        np.testing.assert_array_equal(mask_of(item.files["mask"]), predictor(item.source, tta=True).mask)
        job = {"source_sha256": sha256_of(item.source), "tta": True, "tile": None, "bits": None}
        for path in item.files.values():
            assert is_ours(path)
            stated = read_statement(path)
            assert (stated["job"], stated["model_sha256"]) == (job, predictor.model_sha256)


def test_a_second_call_leaves_finished_images_and_makes_what_is_missing_or_of_other_settings(
    write: WriteFiles, planned: list[OutputFiles]
) -> None:
    statuses(write, planned)
    assert statuses(write, planned) == ["unchanged"] * 3
    planned[0].files["json"].unlink()
    save(planned[1].source, picture("another image", (20, 24)))
    assert statuses(write, planned) == ["done", "done", "unchanged"]
    for settings in ({"threshold": 0.7}, {"min_score": 0.2}, {"tta": True}, {"tile": 32}, {"bits": 12}):
        other = changed(write, **settings)
        assert statuses(other, planned) == ["done"] * 3
        assert statuses(other, planned) == ["unchanged"] * 3


def test_an_image_that_fails_costs_that_image_and_names_it(write: WriteFiles, planned: list[OutputFiles]) -> None:
    planned[1].source.write_bytes(b"not an image")
    planned[2].source.unlink()
    results = write(batch_of(planned))
    assert [*results["status"]] == ["done", "failed", "failed"]
    for number in (1, 2):
        assert str(planned[number].source) in results["error"][number]
        assert not planned[number].files["mask"].exists()


def test_a_corrected_mask_is_replaced_only_on_request(write: WriteFiles, planned: list[OutputFiles]) -> None:
    statuses(write, planned)
    mask = planned[0].files["mask"]
    Image.new("L", (24, 20)).save(mask)
    results = write(batch_of(planned))
    assert [*results["status"]] == ["failed", "unchanged", "unchanged"]
    assert "--overwrite" in results["error"][0]
    assert statuses(changed(write, overwrite=True), planned) == ["done", "unchanged", "unchanged"]
    assert is_ours(mask)


def test_a_batch_comes_back_with_a_column_for_each_kind_and_one_for_errors(
    write: WriteFiles, planned: list[OutputFiles]
) -> None:
    segment = copy.copy(write.segmenter)
    segment.kinds = ("mask", "json")
    planned[1].source.write_bytes(b"not an image")
    paths = np.array([str(item.source) for item in planned], object)
    batch = segment({"path": paths, "patient": np.arange(3)})
    assert [*batch] == ["path", "patient", "mask", "json", "error"]
    assert json.loads(batch["json"][0])["name"] == paths[0]
    assert (batch["mask"][1], batch["error"][0]) == (None, None)
    assert str(batch["error"][1]).startswith(str(paths[1]))


def test_a_missing_ray_and_addresses_outside_the_cluster_are_reported(
    checkpoint: Path, planned: list[OutputFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InstallationError, match=r"pip install 'condseg_sdk\[ray\]'"):
        list(segment_files(planned, checkpoint))
    with pytest.raises(OptionError, match="ray job submit"):
        ClusterOptions("ray://head:10001")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--save", "mask,coco"], "--save coco"),
        (["--save", "dicom-seg"], "--save dicom-seg"),
        (["--log", "run.jsonl"], "--log"),
    ],
)
def test_the_command_refuses_what_workers_do_not_write(
    arguments: list[str],
    words: str,
    planned: list[OutputFiles],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    folder = str(planned[0].source.parent)
    assert main(["predict", folder, "--out", str(tmp_path / "out"), "--ray", "local", *arguments]) == 2
    assert words in capsys.readouterr().err


def workers_of(process: int) -> list[int]:
    """Find the actors of the Ray that a process has started."""
    parents, names = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                names[int(folder.name)] = (folder / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
    found = []
    for number, name in names.items():
        above = number
        while above in parents and above != process:
            above = parents[above]
        if above == process and name.startswith(b"ray::MapWorker"):
            found.append(number)
    return found


@pytest.fixture(scope="module")
def small_ray() -> Iterator[None]:
    import ray

    ray.init(
        "local", num_cpus=2, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    yield
    ray.shutdown()


def times_of(items: list[OutputFiles]) -> Mapping[Path, int]:
    files = [path for item in items for path in item.files.values()]
    return {path: path.stat().st_mtime_ns for path in files if path.exists()}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the worker in /proc")
@pytest.mark.usefixtures("small_ray")
def test_a_killed_worker_costs_no_image_and_none_is_written_twice(checkpoint: Path, tmp_path: Path) -> None:
    items = outputs(tmp_path / "images", tmp_path / "out", 500)
    items[250].source.write_bytes(b"not an image")
    results: list[ImageResult] = []
    before: Mapping[Path, int] = {}
    for result in segment_files(items, checkpoint, device="cpu"):
        results.append(result)
        if len(results) == 100:
            os.kill(workers_of(os.getpid())[0], signal.SIGKILL)
            before = times_of(items)
    assert before
    assert Counter(result.source for result in results) == Counter(item.source for item in items)
    failed = [result for result in results if result.status == "failed"]
    assert [result.source for result in failed] == [items[250].source]
    after = times_of(items)
    assert len(after) == 2 * 499
    assert {path: after[path] for path in before} == before
    good = [item for item in items if item is not items[250]]
    for seg, item in zip(
        Predictor.from_pretrained(checkpoint, device="cpu").predict([item.source for item in good]), good, strict=True
    ):
        np.testing.assert_array_equal(mask_of(item.files["mask"]), seg.mask)
    again = Counter(result.status for result in segment_files(items, checkpoint, device="cpu"))
    assert again == {"unchanged": 499, "failed": 1}
    assert times_of(items) == after


KILLED_BY_AN_IMAGE = """
import hashlib, os
digest = hashlib.file_digest
def kill(file, name):
    if "poison" in str(getattr(file, "name", "")):
        os._exit(1)
    return digest(file, name)
hashlib.file_digest = kill
"""


@pytest.mark.slow
def test_the_command_writes_all_images_but_the_one_that_kills_its_worker(checkpoint: Path, tmp_path: Path) -> None:
    outputs(tmp_path / "images", tmp_path / "out", 5)
    save(tmp_path / "images" / "poison.png", picture("poison", (20, 24)))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(KILLED_BY_AN_IMAGE)
    paths = os.pathsep.join([str(tmp_path / "site"), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-m", "condseg_sdk.cli", "predict", "images", "--model", str(checkpoint), "--out", "masks",
         "--save", "mask", "--ray", "local", "--device", "cpu"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "5 segmented" in done.stdout
    assert "skipped: images/poison.png: the worker ended each time" in done.stderr
    assert len([*(tmp_path / "masks").iterdir()]) == 5
