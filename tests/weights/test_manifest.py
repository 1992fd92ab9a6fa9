"""The manifest: what it lists can be loaded, and a name that is not in it gets similar names."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from condseg_sdk import CheckpointError, ModelNotFoundError, OptionError, Predictor, list_models
from condseg_sdk.checkpoints.manifest_entry import ManifestEntry
from condseg_sdk.checksums import sha256_of
from condseg_sdk.cli import main
from condseg_sdk.models import NETWORKS
from condseg_sdk.weights import manifest
from condseg_sdk.weights.checkpoint import load_checkpoint
from condseg_sdk.weights.hub import resolve
from condseg_sdk.weights.manifest import BUNDLED, find_entry

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


def test_every_listed_checkpoint_exists_and_matches_its_entry() -> None:
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


def test_a_name_that_is_not_there_gets_the_nearest_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = tuple(
        ManifestEntry.from_dict({**ENTRY, "name": name}) for name in ("condseg-lite-polyp", "condseg-r50-skin")
    )
    monkeypatch.setattr(manifest, "_entries", lambda _: entries)
    assert find_entry("condseg-r50-skin") is entries[1]
    with pytest.raises(ModelNotFoundError, match="'condseg-lite-polip'.* similar names are condseg-lite-polyp"):
        find_entry("condseg-lite-polip")
    with pytest.raises(ModelNotFoundError, match="known names are condseg-lite-polyp, condseg-r50-skin"):
        find_entry("zzz")
    with pytest.raises(OptionError, match="kind='model'"):
        list_models("model")  # type: ignore[arg-type]


def test_an_entry_survives_json() -> None:
    for entry in GOOD:
        assert json.loads(json.dumps(ManifestEntry.from_dict(entry).to_dict())) == entry


def without(entry: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in keys}


HUB = {"repo_id": "org/name", "filename": "model.safetensors", "revision": "a" * 40}
PACKAGE = {"distribution": "a-b", "module": "a_b", "path": "models/x.pth"}
ENCODER = {**without(ENTRY, "file", "threshold", "metrics"), "kind": "encoder"}
GOOD = [
    ENTRY,
    {**ENTRY, "date": "2026-11-23"},
    {**ENTRY, "hub": HUB},
    {**without(ENTRY, "file", "sha256", "bytes"), "hub": HUB},
    {**without(ENTRY, "file"), "hub": {**HUB, "filename": "polyp/best.safetensors"}},
    {**ENCODER, "package": PACKAGE},
    {**ENCODER, "hub": {**HUB, "revision": "b" * 40}},
    {**without(ENCODER, "sha256", "bytes"), "hub": without(HUB, "revision")},
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({**ENTRY, "sha256": "XYZ"}, "sha256='XYZ'"),
    ({**ENTRY, "kind": "model"}, "kind='model'"),
    (without(ENTRY, "file"), "file or hub must say where"),
    (ENCODER, "hub or package must say where"),
    ({**ENTRY, "file": "../secrets"}, "plain relative path"),
    ({**ENTRY, "file": "/etc"}, "plain relative path"),
    ({**ENTRY, "file": "a/../../b"}, "plain relative path"),
    ({**ENTRY, "file": ".ssh"}, "plain relative path"),
    ({**ENTRY, "file": "C:\\models"}, "plain relative path"),
    ({**ENTRY, "sha256": None}, "are needed for all files except those on the Hub"),
    (without(ENTRY, "sha256"), "are needed for all files except those on the Hub"),
    ({**ENTRY, "bytes": None}, "are needed for all files except those on the Hub"),
    ({**ENTRY, "bytes": 0}, "bytes=0"),
    ({**ENTRY, "hub": {**HUB, "filename": "x/../../y.safetensors"}}, "plain relative path"),
    ({**ENTRY, "hub": {**HUB, "filename": "/x.safetensors"}}, "plain relative path"),
    ({**ENTRY, "hub": {**HUB, "filename": "model.bin"}}, "must end in .safetensors"),
    ({**ENTRY, "hub": {**HUB, "repo_id": "../name"}}, "must be 'org/name'"),
    ({**ENTRY, "hub": {**HUB, "repo_id": "name"}}, "must be 'org/name'"),
    ({**ENTRY, "hub": {**HUB, "revision": "../../main"}}, "must be a commit"),
    ({**ENTRY, "hub": without(HUB, "revision")}, "needs a commit"),
    ({**ENTRY, "hub": without(HUB, "filename")}, "filename"),
    ({**ENTRY, "package": PACKAGE}, "package for encoders"),
    ({**ENCODER, "hub": HUB, "file": "x"}, "file is for checkpoints"),
    ({**ENCODER, "hub": HUB, "package": PACKAGE}, "make two entries"),
    ({**ENCODER, "package": {**PACKAGE, "path": "../x.pth"}}, "plain relative path"),
    ({**ENCODER, "hub": HUB, "threshold": 0.5}, "a checkpoint has a threshold"),
    ({**ENTRY, "threshold": 1}, "threshold=1"),
    (without(ENTRY, "threshold"), "a checkpoint has a threshold"),
    ({**ENTRY, "color": "red"}, r"unknown \['color'\]"),
    ({**ENTRY, "root": "/"}, r"unknown \['root'\]"),
    ({**ENTRY, "date": 2026}, "date=2026 must be text"),
    ({**ENTRY, "metrics": [0.5]}, "metrics=.* must map names to strings and numbers"),
    ({**ENTRY, "metrics": {"mIoU": [0.5]}}, "metrics=.* must map names to strings and numbers"),
    ({**ENTRY, "metrics": {"mIoU": "0.5"}}, "mIoU='0.5' must be a number"),
    ({**ENTRY, "file": "x" * 256}, "at most 255 characters"),
    ({**ENTRY, "name": ""}, "must be a name such as"),
    ({**ENTRY, "name": "/dev/zero"}, "not a path"),
    ({**ENTRY, "name": "../ours"}, "not a path"),
    ({**ENTRY, "name": "hf://org/name"}, "not a path or an address"),
    ({**ENTRY, "sha256": 5}, "string"),
    ({**ENTRY, "file": 5}, "string"),
    ({**ENTRY, "hub": 5}, "mapping"),
    ({**ENTRY, "license": 3}, "license=3 must be text"),
    ({**ENTRY, "preprocessing": {}}, "preprocessing must have exactly"),
    (without(ENTRY, "license"), "missing .*license"),
]


@pytest.mark.parametrize(("entry", "message"), BAD)
def test_a_wrong_entry_is_refused_by_name(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        ManifestEntry.from_dict(entry)
    assert repr(entry["name"]) in str(caught.value)


SCHEMA = json.loads((Path(manifest.__file__).parent / "weights_manifest.schema.json").read_text())


def fits_schema(*entries: dict[str, Any]) -> bool:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return validator.is_valid({"format_version": 1, "entries": list(entries)})


def test_the_bundled_manifest_fits_its_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(manifest.manifest_path().read_text()))


def test_the_schema_and_the_reader_agree_on_what_is_an_entry() -> None:
    assert fits_schema(*GOOD)
    for entry, message in BAD:
        assert not fits_schema(entry), message


def test_the_command_shows_what_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "NETWORK", "MB", "WHERE", "DATA", "mIoU", "mDSC", "LICENSE"]
    polyp = next(row for row in rows if row.startswith("condseg-lite-polyp "))
    entry = next(entry for entry in list_models() if entry.name == "condseg-lite-polyp")
    figures = [f"{entry.metrics[name]:.4f}" for name in ("mIoU", "mDSC")]
    for cell in ("condseg-lite", f"{entry.bytes / 1e6:.1f}", "Kvasir-SEG", *figures, "cc-by-4.0"):
        assert cell in polyp
    assert main(["models", "--encoders"]) == 0
    text = capsys.readouterr().out
    assert "mIoU" not in text, "a column that contains nothing"
    assert "Hub timm/resnet50.tv_in1k" in text
    assert main(["models", "--encoders", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [ManifestEntry.from_dict(entry) for entry in entries] == list_models("encoder")


# A user's own manifest


@pytest.fixture
def own(checkpoint: Path, tmp_path: Path) -> Path:
    """A manifest with one checkpoint in a folder beside it."""
    shutil.copytree(checkpoint, tmp_path / "mine" / "tiny")
    weights = tmp_path / "mine" / "tiny" / "model.safetensors"
    config = load_checkpoint(checkpoint)[1]
    entry = {
        **ENTRY,
        "name": "our-tiny",
        "network": "custom",
        "file": "tiny",
        "sha256": sha256_of(weights),
        "bytes": weights.stat().st_size,
        "preprocessing": config.preprocessing.to_dict(),
        "threshold": config.threshold,
    }
    path = tmp_path / "mine" / "manifest.json"
    path.write_text(json.dumps({"format_version": 1, "entries": [entry]}))
    return path


def edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    values["entries"][0].update(changes)
    path.write_text(json.dumps(values))


def test_a_users_manifest_adds_names_by_argument(own: Path) -> None:
    assert [entry.name for entry in list_models(manifest=own)] == [*(e.name for e in list_models()), "our-tiny"]
    assert find_entry("our-tiny", manifest=own).root == own.parent
    assert resolve("our-tiny", manifest=own) == own.parent / "tiny"
    predictor = pickle.loads(pickle.dumps(Predictor.from_pretrained("our-tiny", device="cpu", manifest=own)))
    assert predictor.threshold == 0.4
    with pytest.raises(ModelNotFoundError, match="no checkpoint is called 'our-tiny'"):
        Predictor.from_pretrained("our-tiny")


def test_a_users_manifest_adds_names_by_the_environment(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"format_version": 1, "entries": [{**ENCODER, "name": "our-encoder", "hub": HUB}]}))
    monkeypatch.setenv("CONDSEG_MANIFEST", os.pathsep.join(map(str, (own, other, own))))
    assert resolve("our-tiny") == own.parent / "tiny"
    assert "our-encoder" in [entry.name for entry in list_models("encoder")]
    assert main(["models"]) == 0
    assert "our-tiny" in capsys.readouterr().out
    monkeypatch.setenv("CONDSEG_MANIFEST", str(tmp_path / "missing.json"))
    assert main(["models"]) == 2
    assert "missing.json does not exist" in capsys.readouterr().err


def test_entries_of_a_users_manifest_are_checked_and_never_replace_others(own: Path) -> None:
    edit(own, name="condseg-lite-polyp")
    with pytest.raises(CheckpointError, match="another entry is already called 'condseg-lite-polyp'"):
        list_models(manifest=own)
    edit(own, name="our-tiny", sha256="0" * 64)
    with pytest.raises(CheckpointError, match="expected 0000.*restore the file"):
        resolve("our-tiny", manifest=own)
    edit(own, file="../tiny")
    with pytest.raises(CheckpointError, match=r"manifest.json: manifest entry 'our-tiny': '../tiny' must be a plain"):
        resolve("our-tiny", manifest=own)
    edit(own, file="missing")
    with pytest.raises(CheckpointError, match=f"cannot be read .*restore the file that {own} describes"):
        resolve("our-tiny", manifest=own)


@pytest.mark.parametrize("what", ["folder", "config.json", "model.safetensors"])
def test_links_do_not_lead_out_of_the_folder_of_a_users_manifest(what: str, own: Path, checkpoint: Path) -> None:
    inside = own.parent / "tiny"
    if what == "folder":
        shutil.rmtree(inside)
        inside.symlink_to(checkpoint)
    else:
        (inside / what).unlink()
        (inside / what).symlink_to(checkpoint / what)
    with pytest.raises(CheckpointError, match="leads out of"):
        resolve("our-tiny", manifest=own)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format_version": 2, "entries": []}, "format version 1"),
        ({"format_version": 1, "entries": [ENTRY, ENTRY]}, "lists an entry twice"),
        ([], "not a JSON object"),
    ],
)
def test_a_wrong_manifest_is_refused(
    content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights_manifest.json"
    path.write_text(json.dumps(content))
    monkeypatch.setattr(manifest, "manifest_path", lambda: path)
    with pytest.raises(CheckpointError, match=message):
        manifest._entries.__wrapped__("checkpoint")
