"""From what a user calls a model to a folder with its files, fetched if need be and checked before they are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from condseg_sdk.checksums import check_sha256
from condseg_sdk.download import WEIGHTS_FILE, download_checkpoint
from condseg_sdk.errors import CheckpointError, ModelNotFoundError, OptionError
from condseg_sdk.weights.manifest import BUNDLED, ManifestEntry, find_entry

__all__ = ["resolve"]


def resolve(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder with a checkpoint's config.json and model.safetensors.

    Args:
        model: a folder, a name from `list_models()`, or "org/name" or "org/name@revision" on the Hugging Face Hub,
            looked for in this order.
        revision: branch, tag or commit, for a repository on the Hub only.
        cache_dir: where downloads are kept; default: Hugging Face's own cache.
        token: for private repositories; default: the one the user is logged in with.
        local_files_only: never go to the network.

    Returns:
        An existing folder. Weights from the manifest and from the Hub have the hash they should; a user's own folder
        is taken as it is.

    Raises:
        ModelNotFoundError: nothing of that name; the message lists the nearest ones.
        CheckpointError: found, but not the file its hash promises, or a file where a folder is wanted.
        OptionError: `revision` with something that has none, or two revisions.

    Example:
        >>> resolve("condseg-lite-polyp").name  # doctest: +SKIP
        'condseg-lite-polyp'
    """
    path = Path(model).expanduser()
    if path.exists():
        if not path.is_dir():
            raise CheckpointError(f"{path} is a file: give the folder that holds config.json and {WEIGHTS_FILE}")
        _refuse_revision(model, revision)
        return path
    name = os.fspath(model)
    if _looks_like_a_path(name):
        raise ModelNotFoundError(f"{name} does not exist: check the path")
    repo_id, _, pinned = name.partition("@")
    if pinned and revision not in (None, pinned):
        raise OptionError(f"{name} and revision={revision!r} name two revisions: give one")
    options: dict[str, Any] = {
        "cache_dir": Path(cache_dir) if cache_dir else None,
        "token": token,
        "local_files_only": local_files_only,
    }
    if "/" in repo_id:
        return download_checkpoint(repo_id, revision=pinned or revision, **options)
    entry = find_entry(name)
    _refuse_revision(model, revision)
    if entry.file is not None:
        return _bundled(entry)
    assert entry.hub is not None  # a checkpoint in the manifest is bundled or on the Hub
    return download_checkpoint(entry.hub.repo_id, revision=entry.hub.revision, sha256=entry.sha256, **options)


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or "\\" in name


def _refuse_revision(model: object, revision: str | None) -> None:
    if revision is not None:
        raise OptionError(f"revision={revision!r} is for repositories on the Hub, {model} is none: leave it out")


def _bundled(entry: ManifestEntry) -> Path:
    assert entry.file is not None
    folder = BUNDLED / entry.file
    check_sha256(folder / WEIGHTS_FILE, entry.sha256, remedy="the file is damaged; reinstall condseg_sdk")
    return folder
