"""A compiled model is used again only if nothing about it has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from condseg_sdk.errors import CheckpointError, OutputError
from condseg_sdk.runtimes.compiled_cache import compiled_once

CACHE = "huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE"


class Compiler:
    """Stands in for a provider: it compiles into an empty folder, and reads what is there."""

    def __init__(self) -> None:
        self.compiled = 0

    def __call__(self, folder: Path) -> bytes:
        blob = folder / "1.blob"
        if not blob.exists():
            self.compiled += 1
            blob.write_bytes(b"compiled" * 100)
        return blob.read_bytes()


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(CACHE, str(tmp_path / "assets"))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model")
    return path


def test_a_model_is_compiled_once(model: Path) -> None:
    compiler = Compiler()
    assert {compiled_once(model, "cpu", compiler) for _ in range(3)} == {b"compiled" * 100}
    assert compiler.compiled == 1
    compiled_once(model, "another processor", compiler)
    model.write_bytes(b"another model")
    compiled_once(model, "cpu", compiler)
    assert compiler.compiled == 3


@pytest.mark.parametrize("damage", ["changed", "shortened", "another file", "no checksums"])
def test_a_damaged_compiled_model_is_made_again(model: Path, damage: str) -> None:
    compiler = Compiler()
    compiled_once(model, "cpu", compiler)
    (blob,) = model.parent.rglob("*.blob")
    if damage == "changed":
        blob.write_bytes(b"damaged!" * 100)
    elif damage == "shortened":
        blob.write_bytes(b"compiled")
    elif damage == "another file":
        (blob.parent / "2.blob").write_bytes(b"")
    else:
        (blob.parent / "sha256.json").unlink()
    assert compiled_once(model, "cpu", compiler) == b"compiled" * 100
    assert compiler.compiled == 2
    compiled_once(model, "cpu", compiler)
    assert compiler.compiled == 2


def test_a_model_that_cannot_be_opened_leaves_nothing(model: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.blob").write_bytes(b"")
        raise CheckpointError("cannot be opened")

    with pytest.raises(CheckpointError):
        compiled_once(model, "cpu", fail)
    assert not list(model.parent.rglob("*.blob"))


def test_a_cache_that_cannot_be_written_causes_an_error_of_one_line(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CACHE, str(model))  # a file
    with pytest.raises(OutputError, match="set HF_ASSETS_CACHE to a folder that can be written to, or leave"):
        compiled_once(model, "cpu", Compiler())
