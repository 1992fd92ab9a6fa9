"""What PyInstaller cannot find in this package by itself: its data files, and the commands that are imported by name.

PyInstaller finds this folder by the entry point `pyinstaller40` (pyproject.toml) and runs `hook-condseg_sdk.py` in it.
Nothing here needs PyInstaller, and nothing else imports it.
"""

from __future__ import annotations

from pathlib import Path

from condseg_sdk.cli.command import COMMANDS

__all__ = ["get_data_files", "get_hidden_imports", "get_hook_dirs"]

PACKAGE = Path(__file__).parents[1]
MANIFEST = "weights_manifest.json"


def get_hook_dirs() -> list[str]:
    """Return the folders with hooks, as PyInstaller expects."""
    return [str(Path(__file__).parent)]


def get_data_files() -> list[tuple[str, str]]:
    """Return every file of the package that is not a module, with its folder in the frozen program.

    These are the manifest, the bundled weights, the schema and the template of the report. In a checkout the manifest
    is beside the package; in a frozen program it is inside, as in a wheel.

    Returns:
        Pairs of file and folder, as PyInstaller's `datas`.
    """
    inside = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    files = [(str(path), str(path.parent.relative_to(PACKAGE.parent))) for path in inside]
    if PACKAGE / MANIFEST not in inside:
        files.append((str(PACKAGE.parent / MANIFEST), PACKAGE.name))
    return sorted(files)


def get_hidden_imports() -> list[str]:
    """Return the modules that are imported by name: the commands, and the encoders that register themselves."""
    encoders = sorted(path.stem for path in (PACKAGE / "models" / "encoders").glob("[!_]*.py"))
    return [
        *(f"condseg_sdk.cli.{command}" for command in COMMANDS),
        *(f"condseg_sdk.models.encoders.{encoder}" for encoder in encoders),
    ]
