"""The notebooks of examples/: they run from the first cell to the last, and no output of them is in the repository."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_no_outputs_and_nothing_of_the_machine_that_wrote_it(path: Path) -> None:
    for cell in code_cells(path):
        assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {})
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
    assert metadata["kernelspec"]["name"] == "python3"
    assert metadata["language_info"] == {"name": "python"}


def test_the_cells_of_predict_and_plot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    (tmp_path / "images").mkdir()
    for name in ("synthetic_0.jpg", "unrelated_retina.jpg"):
        shutil.copy(EXAMPLES / "images" / name, tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"mkdtemp": lambda: tmp_path}
    for cell in code_cells(EXAMPLES / "predict_and_plot.ipynb"):
        code = "".join(cell["source"]).replace("from tempfile import mkdtemp\n", "")
        exec(compile(code, "predict_and_plot.ipynb", "exec"), names)
    assert names["seg"].area > 0
    assert (tmp_path / "overlay.png").is_file()
    assert (tmp_path / "labels" / "coco.json").is_file()
    pyplot.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_jupyter(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    from nbclient import NotebookClient

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(EXAMPLES)}}
    NotebookClient(notebook, timeout=900, startup_timeout=300, resources=where).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    if path.stem == "finetune_on_your_masks":
        text = "".join(output.get("text", "") for output in outputs)
        before = float(re.findall(r"^mIoU before training: ([\d.]+)", text, re.MULTILINE)[0])
        after = float(re.findall(r"^mIoU +([\d.]+)", text, re.MULTILINE)[0])
        print(f"mIoU before {before}, after {after}")
        assert after > before + 0.3
