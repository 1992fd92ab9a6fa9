"""Pages of the site that are made from the package: models, commands, messages, gallery, notebooks, changelog.

MkDocs calls `on_files` before it reads the pages (`hooks:` in mkdocs.yml).
"""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path[:0] = [str(Path(__file__).parent)]  # MkDocs loads this file by its path

import command_line  # noqa: E402
import gallery  # noqa: E402
import messages  # noqa: E402
import models  # noqa: E402
import notebooks  # noqa: E402

ROOT = Path(__file__).parents[2]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and images."""
    pages: dict[str, str | bytes] = {
        "models.md": models.page(),
        "reference/cli.md": command_line.page(),
        "troubleshooting.md": messages.page(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        **gallery.files(),
        **notebooks.files(),
        **{f"examples/{path.name}": path.read_bytes() for path in (ROOT / "examples").glob("*.py")},  # to download
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files
