"""The files behind the name of a model, downloaded if needed and checked before they are read."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Unpack

from condseg_sdk.checkpoints.manifest_entry import ManifestEntry
from condseg_sdk.checksums import check_sha256
from condseg_sdk.download import (
    CONFIG_FILE,
    REPOSITORY,
    WEIGHTS_FILE,
    HubOptions,
    HubSource,
    download_checkpoint,
    download_file,
    is_plain_path,
)
from condseg_sdk.errors import CheckpointError, ModelNotFoundError, OptionError
from condseg_sdk.weights.manifest import BUNDLED, ManifestPath, find_entry, list_models

__all__ = ["ONNX_FILE", "ResolveOptions", "is_onnx", "local_path", "resolve", "resolve_onnx"]

ONNX_FILE = "model.onnx"
SETTINGS, CHECKPOINT = "settings.json", "checkpoint"  # in the folder of a training run
WEIGHTS_SUFFIX, ONNX_SUFFIX = ".safetensors", ".onnx"
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")
FILES = (WEIGHTS_SUFFIX, ONNX_SUFFIX, *PICKLES)
logger = logging.getLogger("condseg_sdk")

# hf://[models/]org/name[@revision][/path]; a revision contains no slash, except in refs/pr/1.
URL = re.compile(
    r"hf://(?:models/)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>refs/[^/]+/[^/]+|[^/]+))?(?:/(?P<path>.*))?"
)


class ResolveOptions(HubOptions, total=False):
    """Where a model is looked for: keyword arguments of `resolve` and `resolve_onnx`.

    Attributes:
        revision: Branch, tag or commit, for a repository on the Hub only.
        manifest: Path of your own manifest, in addition to the package's and to the ones in CONDSEG_MANIFEST.
    """

    revision: str | None
    manifest: ManifestPath | None


class _HubName(NamedTuple):
    """A place on the Hub, as a name describes it."""

    repo_id: str
    revision: str | None
    path: str = ""  # path of a file or of a checkpoint folder; "" for the top level


def resolve(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    manifest: ManifestPath | None = None,
    **hub: Unpack[HubOptions],
) -> Path:
    """Find a checkpoint or an ONNX file, and download it if it is on the Hub.

    Args:
        model: What to look for, in this order:
            - a folder with config.json and model.safetensors, a .safetensors file with its config.json beside it, or an
              .onnx file, links included; a folder without a checkpoint does not hide a model of that name;
            - "hf://org/name" or "hf://org/name@revision", with "/path" after it for a subfolder or a .safetensors or
              .onnx file;
            - "org/name" or "org/name@revision" on the Hugging Face Hub;
            - a name from `list_models()`.
        revision: Branch, tag or commit, for a repository on the Hub only.
        manifest: Path of your own manifest, in addition to the package's and to the ones in CONDSEG_MANIFEST.
        hub: As in `HubOptions`.

    Returns:
        An existing folder with a checkpoint, or a .safetensors or .onnx file. The SHA-256 of files from a
        manifest or the Hub has been checked; your own files are not checked.

    Raises:
        ModelNotFoundError: No model has that name; the message lists similar names.
        HubError: The Hub cannot be reached.
        CheckpointError: The SHA-256 of the file is wrong, or is of a kind that cannot be loaded.
        OptionError: `revision` is given for something that has none, or there are two revisions.

    Example:
        >>> resolve("condseg-lite-polyp").name
        'condseg-lite-polyp'
    """
    path = local_path(model, manifest=manifest)
    if path is not None:
        _refuse_revision(model, revision)
        return _own_folder(path) if path.is_dir() else _own_file(path)
    name = os.fspath(model)
    if _path(model) is not None:
        logger.info("%s: the folder or file of that name here is not a checkpoint, so the known model is used", name)
    place = _hub_name(name, revision)
    if place is not None:
        source = HubSource(place.repo_id, place.revision, **hub)
        if place.path.endswith(ONNX_SUFFIX):
            return download_file(source, place.path)
        return _checkpoint(download_checkpoint(source, _weights_in(place)))
    entry = _entry(name, revision, manifest)
    if entry.hub is None or (entry.file is not None and entry.folder.is_dir()):
        return _bundled(entry)
    source = HubSource(entry.hub.repo_id, entry.hub.revision, **hub)
    return _checkpoint(download_checkpoint(source, entry.hub.filename, sha256=entry.sha256))


def resolve_onnx(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    manifest: ManifestPath | None = None,
    **hub: Unpack[HubOptions],
) -> Path:
    """Find the ONNX file of a model: model.onnx of a folder or a repository, or the .onnx file that is given.

    The arguments are the same as for `resolve`.

    Raises:
        ModelNotFoundError: No model has that name, or there is no model.onnx.
        HubError: The Hub cannot be reached.
        CheckpointError: The SHA-256 of the file is wrong.
        OptionError: `revision` is given for something that has none, or there are two revisions.
    """
    path = local_path(model, manifest=manifest)
    name = os.fspath(model)
    if path is not None and path.is_dir():
        _refuse_revision(model, revision)
        return _onnx_in(path, name)
    place = None if path is not None else _hub_name(name, revision)
    if place is None and path is None:
        entry = _entry(name, revision, manifest)
        if entry.hub is None:
            return _onnx_in(entry.folder, name)
        folder = entry.hub.filename.rpartition("/")[0]
        place = _HubName(entry.hub.repo_id, entry.hub.revision, folder)
    if place is not None and not place.path.endswith(FILES):
        source = HubSource(place.repo_id, place.revision, **hub)
        try:
            return download_file(source, f"{place.path}/{ONNX_FILE}".lstrip("/"))
        except CheckpointError as error:
            from huggingface_hub.errors import RemoteEntryNotFoundError  # not at the top: a local file needs none of it

            if isinstance(error.__cause__, RemoteEntryNotFoundError):
                raise _without_onnx(source, name) from error
            raise
    if is_onnx(model):
        return resolve(model, revision=revision, **hub)
    remedy = f"make one with `condseg export {name} {ONNX_FILE}`"
    raise ModelNotFoundError(f"{name} is not an .onnx file: {remedy}", path=path)


def local_path(model: str | os.PathLike[str], *, manifest: ManifestPath | None = None) -> Path | None:
    """Return the local file or folder of a model, or None for a name in a manifest or on the Hub.

    A name in a manifest means that model, unless a local folder of that name is a checkpoint: a folder of predictions
    or images never hides the model. The arguments are the same as for `resolve`.

    Example:
        >>> local_path("condseg-r50") is None
        True
    """
    path = _path(model)
    if path is None or _holds_model(path) or Path(model).name != os.fspath(model):
        return path
    names = {entry.name for entry in list_models(manifest=manifest)}
    return None if os.fspath(model) in names else path


def is_onnx(model: str | os.PathLike[str]) -> bool:
    """Return whether a model is an ONNX file, by its name, by the name of the file it links to, or by its content."""
    if os.fspath(model).lower().endswith(ONNX_SUFFIX):
        return True
    path = _path(model)
    return path is not None and path.is_file() and _suffix(path) == ONNX_SUFFIX


def _path(model: str | os.PathLike[str]) -> Path | None:
    try:
        path = Path(model).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, with a null character, or of an unknown user
        return None


def _holds_model(path: Path) -> bool:
    return (
        any((path / name).is_file() for name in (CONFIG_FILE, ONNX_FILE)) if path.is_dir() else _suffix(path) in FILES
    )


def _suffix(path: Path) -> str:
    """Return the suffix that a file has, that a file it links to has, or that fits its content.

    The Hub's cache keeps files under names without a suffix, and links to them.
    """
    for link in _links(path):
        suffix = link.suffix.lower()
        if suffix in (WEIGHTS_SUFFIX, ONNX_SUFFIX):
            return suffix
    head = b""
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(9)
    if head[:1] == b"\x08":  # ONNX begins with its version, field 1 of the message
        return ONNX_SUFFIX
    return WEIGHTS_SUFFIX if head[8:] == b"{" else path.suffix.lower()


def _links(path: Path) -> Iterator[Path]:
    """Yield a path and the paths that its links lead to."""
    for _ in range(40):  # operating systems do not follow more
        yield path
        if not path.is_symlink():
            return
        path = path.parent / path.readlink()


def _own_folder(path: Path) -> Path:
    """Return the folder of a checkpoint, or raise an error that names the right one."""
    if (path / CONFIG_FILE).is_file():
        return path
    if (path / CHECKPOINT / CONFIG_FILE).is_file():
        raise CheckpointError(f"{path} is the folder of a training run: pass its checkpoint, {path / CHECKPOINT}")
    if (path / SETTINGS).is_file():
        raise CheckpointError(
            f"{path} is the folder of a training run that has not finished: continue it with "
            "`condseg finetune ... --resume`, then pass its folder checkpoint"
        )
    if (path / ONNX_FILE).is_file():
        raise CheckpointError(f"{path} has no {CONFIG_FILE}: pass its {ONNX_FILE} itself, {path / ONNX_FILE}")
    on_hub = ""
    if REPOSITORY.fullmatch(os.fspath(path)):
        on_hub = f"; for the repository of that name on the Hub pass hf://{path}"
    raise CheckpointError(
        f"{path} has no {CONFIG_FILE}: pass a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, as save_pretrained writes "
        f"it{on_hub}"
    )


def _own_file(path: Path) -> Path:
    suffix = _suffix(path)
    if suffix == ONNX_SUFFIX:
        return path
    if suffix == WEIGHTS_SUFFIX:
        for weights in _links(path):
            if (weights.parent / CONFIG_FILE).is_file():
                return _checkpoint(weights)
        raise CheckpointError(
            f"{path} has no {CONFIG_FILE} beside it, which describes its network: put the {CONFIG_FILE} of its "
            "checkpoint there, or use condseg convert for a file of the authors' code"
        )
    run = path.parents[1] if len(path.parents) > 1 else path.parent
    if suffix == ".ckpt" and (run / SETTINGS).is_file():
        finished = (run / CHECKPOINT / CONFIG_FILE).is_file()
        remedy = "pass its checkpoint" if finished else "finish the run with `condseg finetune ... --resume`, then pass"
        raise CheckpointError(f"{path} is the saved state of a training run, not a model: {remedy} {run / CHECKPOINT}")
    if suffix in PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, which is never loaded: make a checkpoint of the authors' file with `condseg convert "
            f"{path} FOLDER --network r50 --color-order rgb`, and pass that folder"
        )
    if suffix == ".zip":
        raise CheckpointError(f"{path} is an archive: unpack it, and pass the folder that contains {CONFIG_FILE}")
    raise CheckpointError(f"{path} is a file: pass the folder that contains {CONFIG_FILE} and {WEIGHTS_FILE}")


def _checkpoint(weights: Path) -> Path:
    """Return the folder of weights that have the usual name, and the file of others."""
    return weights.parent if weights.name == WEIGHTS_FILE else weights


def _hub_name(name: str, revision: str | None) -> _HubName | None:
    """Return the place on the Hub, or None for what can only be a name in a manifest."""
    if name.startswith(("http://", "https://")):
        raise ModelNotFoundError(f"{name} is a web address: pass 'org/name' or 'hf://org/name/file' alone")
    if name.startswith("hf://"):
        match = URL.fullmatch(name)
        if match is None or match["repo"].startswith(("datasets/", "spaces/", "buckets/")):
            raise ModelNotFoundError(f"{name} is not a model on the Hub: pass hf://org/name[@revision][/path]")
        place = _HubName(match["repo"], match["revision"], (match["path"] or "").rstrip("/"))
        if place.path and not is_plain_path(place.path):
            raise ModelNotFoundError(f"{name}: {place.path!r} must be a plain path inside the repository")
    else:
        repo_id, _, pinned = name.partition("@")
        if _looks_like_a_path(repo_id):
            export = ", or make it with export_onnx" if name.lower().endswith(ONNX_SUFFIX) else ""
            raise ModelNotFoundError(f"{name} does not exist: check the path{export}", path=name)
        if "/" not in repo_id:
            return None
        place = _HubName(repo_id, pinned or None)
    if place.revision and revision not in (None, place.revision):
        raise OptionError(f"{name} and revision={revision!r} name two revisions: pass one")
    return place._replace(revision=place.revision or revision)


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or name.lower().endswith(FILES)


def _weights_in(place: _HubName) -> str:
    if place.path.endswith(PICKLES):
        raise CheckpointError(
            f"{place.path} in {place.repo_id} is a pickle, which is never loaded: download it and use condseg convert"
        )
    return place.path if place.path.endswith(WEIGHTS_SUFFIX) else f"{place.path}/{WEIGHTS_FILE}".lstrip("/")


def _entry(name: str, revision: str | None, manifest: ManifestPath | None) -> ManifestEntry:
    entry = find_entry(name, manifest=manifest)
    _refuse_revision(name, revision)
    return entry


def _refuse_revision(model: object, revision: str | None) -> None:
    if revision is not None:
        raise OptionError(
            f"revision={revision!r} is for repositories on the Hub, and {model} is not one: leave it out",
            option="revision",
        )


def _bundled(entry: ManifestEntry) -> Path:
    assert entry.sha256 is not None  # only files on the Hub may lack it
    remedy = "reinstall condseg_sdk" if entry.root == BUNDLED else f"restore the file that {entry.manifest} describes"
    check_sha256(entry.folder / WEIGHTS_FILE, entry.sha256, remedy=remedy)
    return entry.folder


def _without_onnx(place: Path | HubSource, name: str) -> ModelNotFoundError:
    remedy = f"make one with `condseg export {name} {ONNX_FILE}`, and pass from_pretrained that file"
    path, repo_id = (place, None) if isinstance(place, Path) else (None, place.repo_id)
    return ModelNotFoundError(f"{place} has no {ONNX_FILE}: {remedy}", path=path, repo_id=repo_id)


def _onnx_in(folder: Path, name: str) -> Path:
    path = folder / ONNX_FILE
    if not path.is_file():
        raise _without_onnx(folder, name)
    return path
