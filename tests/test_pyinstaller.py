"""The PyInstaller hook: a frozen program gets all data files, and the modules that are imported by name."""

from __future__ import annotations

import runpy
import shutil
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from condseg_sdk import Predictor
from condseg_sdk.weights import hub, manifest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hook() -> dict[str, object]:
    """The hook's names, after the way PyInstaller takes to them: entry point, folder, file."""
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pyinstaller40"]
    module, function = entry_points["hook-dirs"].split(":")
    (folder,) = getattr(import_module(module), function)()
    return runpy.run_path(str(Path(folder) / "hook-condseg_sdk.py"))


def test_a_frozen_package_finds_its_manifest_and_its_weights(
    hook: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files laid out as PyInstaller lays them out, with no module beside them."""
    for file, folder in hook["datas"]:  # type: ignore[attr-defined]
        assert Path(file).is_file()
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / folder)
    frozen = tmp_path / "condseg_sdk"
    assert (frozen / "report" / "page.html.j2").exists()
    assert (frozen / "weights" / "weights_manifest.schema.json").exists()
    assert not list(frozen.rglob("*.py"))
    monkeypatch.setattr(manifest, "PACKAGE", frozen)
    monkeypatch.setattr(manifest, "BUNDLED", frozen / "weights" / "bundled")
    manifest._entries.cache_clear()
    try:
        assert manifest.manifest_path() == frozen / "weights_manifest.json"
        assert hub.resolve("condseg-lite-polyp").is_relative_to(frozen)
        Predictor.from_pretrained("condseg-lite-polyp", device="cpu")
    finally:
        manifest._entries.cache_clear()


def test_modules_that_are_imported_by_name_are_named(hook: dict[str, object]) -> None:
    names: list[str] = hook["hiddenimports"]  # type: ignore[assignment]
    assert {"condseg_sdk.cli.predict", "condseg_sdk.models.encoders.resnet"} <= set(names)
    for name in names:
        assert import_module(name) is sys.modules[name]
