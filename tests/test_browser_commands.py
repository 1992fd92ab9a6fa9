"""The commands that examples/browser/README.md and docs/app.md give for the static page, run as they are written."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from urllib.request import urlopen

import onnx
import pytest

from condseg_sdk.cli import main
from tests.helpers.browser import running

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "examples" / "browser"


def commands(page: Path) -> list[str]:
    """The lines of the block of shell commands that prepares and serves the page."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if "npm ci" in block).strip().splitlines()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the commands need, as the current folder."""
    shutil.copytree(PAGE, tmp_path / "examples/browser", ignore=shutil.ignore_patterns("node_modules", "ort", "*.onnx"))
    shutil.copytree(ROOT / "examples/images", tmp_path / "examples/images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_and_the_site_give_the_same_three_commands() -> None:
    assert commands(PAGE / "README.md") == commands(ROOT / "docs" / "app.md")
    install, export, serve = commands(PAGE / "README.md")
    assert install == "(cd examples/browser && npm ci)"
    assert (export.split()[:2], serve.split()[0]) == (["condseg", "export"], "python")


def test_the_command_that_serves_sends_the_page_with_the_headers_for_threads(checkout: Path) -> None:
    _, script = shlex.split(commands(PAGE / "README.md")[2])
    with running([script, "0"], checkout / "log.txt") as address, urlopen(f"{address}/index.html") as answer:
        assert b"condseg in the browser" in answer.read()
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        with urlopen(f"{address}/model.js") as module:
            assert module.headers["Content-Type"] == "text/javascript"


@pytest.mark.slow
def test_the_command_that_exports_writes_the_model_where_the_page_looks_for_it(checkout: Path) -> None:
    assert main(shlex.split(commands(PAGE / "README.md")[1])[1:]) == 0
    model = onnx.load(checkout / "examples/browser/model.onnx")
    assert model.graph.input[0].name == "image"
    config = {entry.key: entry.value for entry in model.metadata_props}["condseg_config"]
    assert 0 < json.loads(config)["threshold"] < 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_npm_installs_the_pinned_runtime_and_copies_what_the_page_loads(checkout: Path) -> None:
    done = subprocess.run(commands(PAGE / "README.md")[0], shell=True, capture_output=True, text=True, check=False)
    if done.returncode and ("ENOTFOUND" in done.stderr or "ECONN" in done.stderr or "ETIMEDOUT" in done.stderr):
        pytest.skip("needs a network")
    assert done.returncode == 0, done.stderr
    pinned = json.loads((PAGE / "package.json").read_text())["dependencies"]["onnxruntime-web"]
    installed = checkout / "examples/browser/node_modules/onnxruntime-web/package.json"
    assert json.loads(installed.read_text())["version"] == pinned
    needed = re.findall(r'"(ort[^"]+)"', (PAGE / "copy.mjs").read_text())
    assert {path.name for path in (checkout / "examples/browser/ort").iterdir()} == {*needed} - {"ort"}
    assert (checkout / "examples/browser/example.jpg").is_file()
