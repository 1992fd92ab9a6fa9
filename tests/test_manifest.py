"""The manifest: what it lists can be loaded, and a name that is not in it gets the nearest ones."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from condseg_sdk import CheckpointError, ModelNotFoundError, OptionError, list_models
from condseg_sdk.checksums import sha256_of
from condseg_sdk.models import NETWORKS
from condseg_sdk.models.encoders import ENCODERS, build_encoder
from condseg_sdk.weights import manifest
from condseg_sdk.weights.checkpoint import load_checkpoint
from condseg_sdk.weights.hub import resolve
from condseg_sdk.weights.imagenet import load_imagenet_encoder
from condseg_sdk.weights.manifest import BUNDLED, ManifestEntry, find_entry

ENTRY: dict[str, Any] = {
    "name": "condseg-lite-circles",
    "kind": "checkpoint",
    "network": "condseg-lite",
    "sha256": "0" * 64,
    "bytes": 12,
    "license": "cc0-1.0",
    "attribution": "nobody",
    "data": "drawn circles",
    "preprocessing": {
        "size": [256, 256],
        "color_order": "rgb",
        "scale": 1.0,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "interpolation": "antialias",
    },
    "file": "condseg-lite-circles",
    "threshold": 0.5,
    "metrics": {"dataset": "circles", "split": "test", "mIoU": 0.5},
}


def test_every_listed_checkpoint_is_there_and_is_what_its_entry_says() -> None:
    for entry in list_models():
        assert entry.network in NETWORKS
        folder = resolve(entry.name)
        weights = folder / "model.safetensors"
        assert (sha256_of(weights), weights.stat().st_size) == (entry.sha256, entry.bytes)
        assert entry.bytes <= 20e6
        _, config = load_checkpoint(folder)
        assert (config.preprocessing, config.threshold) == (entry.preprocessing, entry.threshold)
        assert {"dataset", "split", "mIoU", "mDSC"} <= entry.metrics.keys()
        assert entry.name in (folder / "README.md").read_text()


def test_every_bundled_folder_is_listed() -> None:
    folders = {path.name for path in BUNDLED.iterdir()} if BUNDLED.is_dir() else set()
    assert folders == {entry.file for entry in list_models()}


def test_every_listed_encoder_loads() -> None:
    for entry in list_models("encoder"):
        assert entry.network in ENCODERS
        assert entry.package is not None
        path = Path(str(resources.files(entry.package.module) / entry.package.path))
        assert path.stat().st_size == entry.bytes
        load_imagenet_encoder(build_encoder(entry.network))


def test_a_name_that_is_not_there_gets_the_nearest_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = tuple(
        ManifestEntry.from_dict({**ENTRY, "name": name}) for name in ("condseg-lite-polyp", "condseg-r50-skin")
    )
    monkeypatch.setattr(manifest, "_entries", lambda: entries)
    assert find_entry("condseg-r50-skin") is entries[1]
    with pytest.raises(ModelNotFoundError, match="'condseg-lite-polip'.* nearest are condseg-lite-polyp"):
        find_entry("condseg-lite-polip")
    with pytest.raises(ModelNotFoundError, match="known are condseg-lite-polyp, condseg-r50-skin"):
        find_entry("zzz")
    with pytest.raises(OptionError, match="kind='model'"):
        list_models("model")  # type: ignore[arg-type]


def test_an_entry_survives_json() -> None:
    hub = {"repo_id": "org/name", "filename": "model.safetensors", "revision": "a" * 40}
    package = {"distribution": "a-b", "module": "a_b", "path": "models/x.pth"}
    for extra in ({}, {"hub": hub}, {"package": package}, {"date": "2026-11-23"}):
        values = {**ENTRY, **extra}
        assert json.loads(json.dumps(ManifestEntry.from_dict(values).to_dict())) == values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "XYZ"}, "sha256='XYZ'"),
        ({"kind": "model"}, "kind='model'"),
        ({"file": None}, "one of file, hub and package"),
        ({"file": "../secrets"}, "plain relative path"),
        ({"file": "/etc"}, "plain relative path"),
        ({"hub": {"repo_id": "a/b", "filename": "x/../../y", "revision": "m"}}, "plain relative path"),
        ({"hub": {"repo_id": "a/b"}}, "filename"),
        ({"threshold": None}, "a checkpoint has a threshold"),
        ({"colour": "red"}, r"unknown \['colour'\]"),
        ({"preprocessing": {}}, "preprocessing must have exactly"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        ManifestEntry.from_dict({**ENTRY, **changes})
    with pytest.raises(CheckpointError, match="missing .*license"):
        ManifestEntry.from_dict({key: value for key, value in ENTRY.items() if key != "license"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format_version": 2, "entries": []}, "format version 1"),
        ({"format_version": 1, "entries": [ENTRY, ENTRY]}, "names an entry twice"),
        ([], "no JSON object"),
    ],
)
def test_a_wrong_manifest_is_refused(
    content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights_manifest.json"
    path.write_text(json.dumps(content))
    monkeypatch.setattr(manifest, "manifest_path", lambda: path)
    with pytest.raises(CheckpointError, match=message):
        manifest._entries.__wrapped__()
