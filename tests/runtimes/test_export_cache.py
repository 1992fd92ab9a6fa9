"""A checkpoint without an ONNX file is exported once, and again only when something has changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from condseg_sdk import Predictor, Preprocessing
from condseg_sdk.errors import HubError, OutputError
from condseg_sdk.export.onnx import STEPS
from condseg_sdk.runtimes import export_cache
from condseg_sdk.runtimes.export_cache import exported_once
from tests.helpers.hub_server import HubServer, Repository

IMAGE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
CACHE = "huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("assets")


@pytest.fixture(scope="module")
def kept(checkpoint: Path, cache: Path) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(CACHE, str(cache))
        return exported_once(checkpoint)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch, cache: Path, kept: Path) -> list[Path]:
    """The files that are exported from here on, each a copy of the real one."""
    made: list[Path] = []
    whole = kept.read_bytes()

    def export(checkpoint: Path, preprocessing: Any, dynamic: bool, path: Path) -> None:
        path.write_bytes(whole)
        made.append(path)

    monkeypatch.setattr(CACHE, str(cache))
    monkeypatch.setattr(export_cache, "_export", export)
    return made


def test_the_kept_file_predicts_as_the_checkpoint_does(checkpoint: Path, exports: list[Path]) -> None:
    opened = Predictor.from_pretrained(checkpoint, device="cpu", runtime="onnx")
    assert opened.providers == ("CPUExecutionProvider",)
    expected = Predictor.from_pretrained(checkpoint, device="cpu")(IMAGE)
    np.testing.assert_allclose(opened(IMAGE).probability, expected.probability, atol=1e-4)
    assert exports == []


@pytest.mark.parametrize("bars", [True, False])
def test_an_export_shows_its_steps_unless_progress_bars_are_off(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bars: bool
) -> None:
    def export(*_: object, progress: Callable[[str], object], **__: object) -> None:
        for step in STEPS:
            progress(step)

    monkeypatch.setattr("condseg_sdk.export.onnx.export_onnx", export)
    if not bars:
        disable_progress_bars()
    try:
        export_cache._export(checkpoint, None, False, Path("model.onnx"))
    finally:
        enable_progress_bars()
    text = capsys.readouterr().err
    assert ("loading PyTorch" in text, "comparing it with PyTorch: 100%" in text, "4/4" in text) == (bars,) * 3


def test_a_damaged_file_is_made_again(checkpoint: Path, kept: Path, exports: list[Path]) -> None:
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert exported_once(checkpoint) == kept
    assert exports == [kept]


def test_other_content_preprocessing_or_sizes_are_another_file(
    checkpoint: Path, kept: Path, exports: list[Path], tmp_path: Path
) -> None:
    other = Preprocessing((64, 64), scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    assert exported_once(copy) == kept
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"threshold": 0.4', '"threshold": 0.3'))
    paths = {kept, exported_once(copy), exported_once(checkpoint, preprocessing=other)}
    assert len(paths | {exported_once(checkpoint, dynamic=True)}) == 4
    assert len(exports) == 3


def test_a_repository_without_an_onnx_file_is_exported_with_and_without_a_network(
    checkpoint: Path, exports: list[Path], server: HubServer, options: dict[str, Any]
) -> None:
    server.repositories["org/tiny"] = Repository({path.name: path.read_bytes() for path in checkpoint.iterdir()})
    opened = Predictor.from_pretrained("org/tiny", device="cpu", runtime="onnx", **options)
    again = Predictor.from_pretrained("org/tiny", device="cpu", runtime="onnx", local_files_only=True, **options)
    assert opened.providers == again.providers == ("CPUExecutionProvider",)
    assert exports == []  # the file of the folder with the same content
    with pytest.raises(HubError, match="org/other is neither a local folder nor cached"):
        Predictor.from_pretrained("org/other", device="cpu", runtime="onnx", local_files_only=True, **options)


def test_a_cache_that_cannot_be_written_causes_an_error_of_one_line(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(CACHE, str(tmp_path / "file"))
    with pytest.raises(
        OutputError, match="cannot be stored .*set HF_ASSETS_CACHE to a folder that can be written to and has space"
    ):
        exported_once(checkpoint)


def test_a_full_disk_names_the_variable_that_moves_the_cache(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OutputError("model.onnx cannot be written (No space left on device)")

    monkeypatch.setattr(CACHE, str(tmp_path))
    monkeypatch.setattr(export_cache, "_export", full)
    with pytest.raises(OutputError, match="No space left on device.*set HF_ASSETS_CACHE to a folder .* has space"):
        exported_once(checkpoint)
