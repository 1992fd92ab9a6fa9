"""The PyInstaller hook: a frozen program gets every file that is no module, and the commands that are found by name."""

from __future__ import annotations

import runpy
import shutil
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import condseg_sdk
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
    assert (frozen / "training" / "report" / "page.html.j2").exists()
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


def test_the_commands_are_hidden_imports(hook: dict[str, object]) -> None:
    names: list[str] = hook["hiddenimports"]  # type: ignore[assignment]
    modules = {path.stem for path in (Path(condseg_sdk.__file__).parent / "cli").glob("[!_]*.py")}
    assert {name.removeprefix("condseg_sdk.cli.") for name in names} <= modules
    assert "condseg_sdk.cli.predict" in names
    for name in names:
        assert import_module(name) is sys.modules[name]
