"""The Python blocks of README.md and docs/ run, page by page, beside the files of the fixture `example_files`.

A block that needs a network or more has `<!-- not run: why -->` above it.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import condseg_sdk
from condseg_sdk import FinetuneResult, finetune
from condseg_sdk.cli.command import make_parser

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^(<!-- not run: [^\n]* -->\n+)?```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```(?:bash|sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))) if "```python" in page.read_text()
]


@pytest.fixture(scope="module")
def short_finetune(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FinetuneResult]:
    """`finetune` of the tiny network for one epoch; a run that an earlier block left there is removed.

    Pages train on the same folder with the same settings. The second time, a copy of the first run is resumed.
    """
    folder, kept = tmp_path_factory.mktemp("runs"), dict[str, Path]()

    def short_finetune(data: Any, *, output_dir: str, **options: Any) -> FinetuneResult:
        shutil.rmtree(output_dir, ignore_errors=True)
        shorter = {"base": "condseg-lite-polyp", "epochs": 1, "image_size": 64, "report": False, "progress": False}
        settings = {**options, **shorter}
        call = repr((data, sorted(settings.items())))  # that of a Dataset lists its files, which are in another folder
        if call in kept:
            shutil.copytree(kept[call], output_dir)
            return finetune(data, output_dir=output_dir, resume=True, **settings)
        result = finetune(data, output_dir=output_dir, **settings)
        kept[call] = Path(shutil.copytree(output_dir, folder / str(len(kept))))
        return result

    return short_finetune


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem == "onnx" else []) for page in PAGES],
)
def test_the_examples_of_a_page_run(
    page: Path,
    example_names: dict[str, Any],
    short_finetune: Callable[..., FinetuneResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(condseg_sdk, "finetune", short_finetune)
    text = page.read_text(encoding="utf-8")
    names = {**example_names, "__name__": "example"}
    for block in BLOCK.finditer(text):
        if block[1] is None:
            lines_above = "\n" * text.count("\n", 0, block.start(2))  # so that a failure names the page's line
            exec(compile(lines_above + block[2], str(page), "exec"), names)


def commands_of(page: Path) -> list[str]:
    """The condseg commands in the shell blocks of a page, without comments."""
    blocks = re.findall(
        r"^```(?:bash|sh|console)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"(\w+=\S+ )*condseg ", line)]


def is_accepted(arguments: list[str]) -> bool:
    try:
        make_parser(arguments).parse_args(arguments)
    except SystemExit as stopped:
        return stopped.code == 0  # of --help
    return True


def test_the_commands_of_every_page_have_the_arguments_that_their_parsers_take() -> None:
    found = 0
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))):
        for line in commands_of(page):
            words = shlex.split(line, comments=True)
            arguments = words[words.index("condseg") + 1 :]
            assert is_accepted(arguments), f"{page.name}: {line}"
            found += 1
    assert found > 50


def test_every_public_name_has_an_entry_in_the_reference() -> None:
    reference = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    listed = set(re.findall(r"^::: condseg_sdk\.(\w+)$", reference, re.MULTILINE))
    errors = {name for name in condseg_sdk.__all__ if name.endswith("Error")}  # they have the page of their module
    assert set(condseg_sdk.__all__) - {"__version__"} - errors == listed - {"errors"}
