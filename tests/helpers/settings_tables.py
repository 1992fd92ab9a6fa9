"""The tables of settings in docs/training.md. `python -m tests.helpers.settings_tables` writes them anew."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from condseg_sdk.training.config import Setting, settings

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BEGIN, END = "<!-- settings: written by tests/helpers/settings_tables.py -->\n", "<!-- end of settings -->\n"


def page_with_tables() -> str:
    """Return the text of docs/training.md with today's settings."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    tables = [_table(section, list(rows)) for section, rows in groupby(settings().values(), lambda each: each.section)]
    return before + BEGIN + "\n".join(tables) + END + rest.partition(END)[2]


def _table(section: str, rows: list[Setting]) -> str:
    lines = [f"| {section} | Type | Default | |", "|---|---|---|---|"]
    for setting in rows:
        default = setting.auto if setting.default is None else f"`{setting.default}`"
        lines.append(f"| `{setting.name}` | {_type(setting)} | {default} | {setting.help} |")
    return "\n".join(lines) + "\n"


def _type(setting: Setting) -> str:
    if setting.choices:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    names = {"PathLike": "path", "Mapping": "dict", "NoneType": ""}
    shown = " or ".join(filter(None, (names.get(kind.__name__, kind.__name__) for kind in setting.types)))
    return f"{shown} in {setting.range}" if setting.range else shown


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(), encoding="utf-8")
