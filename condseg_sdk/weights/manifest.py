"""The checkpoints and encoders that can be loaded by name: the package's own, and the ones in your own manifests.

`weights_manifest.schema.json` beside this module describes a manifest for editors and other programs.
"""

from __future__ import annotations

import difflib
import os
from functools import cache
from pathlib import Path

from condseg_sdk.checkpoints.manifest_entry import Kind, ManifestEntry
from condseg_sdk.errors import CheckpointError, ModelNotFoundError
from condseg_sdk.json_files import read_json_object
from condseg_sdk.options import check_choice

__all__ = [
    "BUNDLED",
    "ENVIRONMENT",
    "FORMAT_VERSION",
    "ManifestEntry",
    "ManifestPath",
    "find_entry",
    "list_models",
    "manifest_path",
]

ManifestPath = str | os.PathLike[str]

PACKAGE = Path(__file__).resolve().parents[1]
BUNDLED = PACKAGE / "weights" / "bundled"
MANIFEST = "weights_manifest.json"
ENVIRONMENT = "CONDSEG_MANIFEST"  # paths of further manifests, separated as in PATH
FORMAT_VERSION = 1


def manifest_path() -> Path:
    """Return the path of the package's manifest: inside the package in a wheel, beside it in a checkout."""
    inside = PACKAGE / MANIFEST
    return inside if inside.is_file() else PACKAGE.parent / MANIFEST


@cache
def _entries(kind: Kind) -> tuple[ManifestEntry, ...]:
    """Return the package's own entries: checkpoints from its manifest, encoders from the modules of their networks."""
    if kind == "encoder":
        from condseg_sdk.models.encoders import ENCODERS  # loads torch, which checkpoints can do without

        return tuple(entry for spec in ENCODERS.values() for entry in spec.imagenet)
    return _read(manifest_path(), BUNDLED, remedy="reinstall condseg_sdk")


def _read(path: Path, root: Path, *, remedy: str) -> tuple[ManifestEntry, ...]:
    values = read_json_object(path, error=CheckpointError, remedy=remedy)
    if values.get("format_version") != FORMAT_VERSION or not isinstance(values.get("entries"), list):
        raise CheckpointError(f"{path} is not a manifest of format version {FORMAT_VERSION}: {remedy}")
    try:
        entries = tuple(ManifestEntry.from_dict(entry, root=root, manifest=path) for entry in values["entries"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}; {remedy}") from error
    names = [entry.name for entry in entries]
    if len(names) != len(set(names)):
        raise CheckpointError(f"{path} lists an entry twice: {remedy}")
    return entries


def _own_manifests(manifest: ManifestPath | None) -> list[Path]:
    """Return the paths of further manifests: the ones in CONDSEG_MANIFEST, then the argument."""
    named = [part for part in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if part]
    paths = [*named, *([] if manifest is None else [manifest])]
    return list(dict.fromkeys(Path(path).expanduser().resolve() for path in paths))


def list_models(kind: Kind = "checkpoint", *, manifest: ManifestPath | None = None) -> list[ManifestEntry]:
    """List the models that can be loaded by name.

    Args:
        kind: "checkpoint" for `Predictor.from_pretrained`, "encoder" for ImageNet weights to start `finetune` from.
        manifest: Path of your own manifest, in addition to the package's and to those in the environment variable
            CONDSEG_MANIFEST (several are separated as in PATH).

    Returns:
        The entries, the package's first.

    Raises:
        OptionError: `kind` is neither of the two.
        CheckpointError: A manifest cannot be read, or repeats a name.

    Example:
        >>> [entry.name for entry in list_models("encoder")][0]
        'imagenet:efficientnet_lite0'
    """
    check_choice("kind", kind, Kind)
    entries = list(_entries(kind))
    for path in _own_manifests(manifest):
        own = [entry for entry in _read(path, path.parent, remedy="see docs/weights.md") if entry.kind == kind]
        taken = {entry.name for entry in entries} & {entry.name for entry in own}
        if taken:
            raise CheckpointError(f"{path}: another entry is already called {min(taken)!r}; choose another name")
        entries += own
    return entries


def find_entry(name: str, kind: Kind = "checkpoint", *, manifest: ManifestPath | None = None) -> ManifestEntry:
    """Find the entry of a name.

    Args:
        name: Name in a manifest, or of an encoder's ImageNet weights.
        kind: As in `list_models`.
        manifest: As in `list_models`.

    Raises:
        ModelNotFoundError: No entry has this name; the message lists similar names.

    Example:
        >>> find_entry("condseg-lite-polyp").threshold
        0.65
    """
    names = {entry.name: entry for entry in list_models(kind, manifest=manifest)}
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        known = f"similar names are {', '.join(near)}" if near else f"known names are {', '.join(names) or 'none'}"
        others = "; or pass a folder, or 'org/name' on the Hugging Face Hub" if kind == "checkpoint" else ""
        raise ModelNotFoundError(f"no {kind} is called {name!r}: {known}{others}")
    return names[name]
