"""The notebooks of examples/ as pages.

A notebook whose cells take seconds runs while the site is built, so that its page has pictures. Its outputs are not in
the repository (`tests/test_notebooks.py`).
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

EXAMPLES = Path(__file__).parents[2] / "examples"
EXECUTED = ("predict_and_plot",)
NOTEBOOKS = (*EXECUTED, "finetune_on_your_masks")
BESIDE = {"finetune_on_your_masks": "synthetic_endoscopy.py"}  # what the cells import

PICTURES = {"finetune_on_your_masks": "![Image, ground truth, before and after training](../assets/finetune.jpg)\n"}

LINKS = "\n[Download the notebook]({name}.ipynb){{ .md-button download }}{beside}\n"
BESIDE_LINK = ", and beside it [{file}](../examples/{file}){{ download }}"


def files() -> dict[str, str | bytes]:
    """Return the pages, their images, and the notebooks to download, by name."""
    made: dict[str, str | bytes] = {}
    for name in NOTEBOOKS:
        source = (EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8")
        made[f"notebooks/{name}.ipynb"] = source
        notebook = nbformat.reads(source, as_version=4)
        if name in EXECUTED:
            _execute(notebook)
        page, resources = MarkdownExporter().from_notebook_node(notebook)
        for image, content in resources["outputs"].items():
            made[f"notebooks/{name}_{image}"] = content
            page = page.replace(f"]({image})", f"]({name}_{image})")
        beside = BESIDE.get(name)
        title, _, rest = page.lstrip().partition("\n")
        links = LINKS.format(name=name, beside="" if beside is None else BESIDE_LINK.format(file=beside))
        made[f"notebooks/{name}.md"] = f"{title}\n{links}\n{PICTURES.get(name, '')}{rest}"
    return made


def _execute(notebook: nbformat.NotebookNode) -> None:
    """Run the cells. What they write to stderr is left out: it names folders of this machine."""
    where = {"metadata": {"path": str(EXAMPLES)}}
    NotebookClient(notebook, resources=where, startup_timeout=300, extra_arguments=["--log-level=ERROR"]).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
