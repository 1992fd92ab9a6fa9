"""Where weights come from: the manifest, bundled files, folders; nothing that is damaged gets read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from condseg_sdk import CheckpointError, ConDSeg, ModelNotFoundError, Predictor, list_models
from condseg_sdk.checksums import sha256_of
from condseg_sdk.weights import hub, manifest
from condseg_sdk.weights.checkpoint import load_checkpoint, save_checkpoint
from condseg_sdk.weights.imagenet import _package_file, imagenet_entry, load_imagenet_encoder


def test_every_bundled_entry_loads_and_has_its_hash_size_and_preprocessing() -> None:
    entries = list_models()
    assert "condseg-lite-polyp" in [entry.name for entry in entries]
    for entry in entries:
        folder = hub.resolve(entry.name)
        network, config = load_checkpoint(folder)
        weights = folder / "model.safetensors"
        assert sha256_of(weights) == entry.sha256
        assert weights.stat().st_size == entry.bytes <= 20_000_000
        assert (config.preprocessing, config.threshold) == (entry.preprocessing, entry.threshold)
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
        assert {"mIoU", "mDSC", "command"} <= entry.metrics.keys()


def test_bundled_weights_of_another_hash_are_refused_with_both_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(manifest.BUNDLED, tmp_path / "bundled")
    weights = tmp_path / "bundled" / "condseg-lite-polyp" / "model.safetensors"
    expected = sha256_of(weights)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    entries = tuple(replace(entry, root=tmp_path / "bundled") for entry in manifest._entries("checkpoint"))
    monkeypatch.setattr(manifest, "_entries", lambda _: entries)
    with pytest.raises(CheckpointError) as caught:
        Predictor.from_pretrained("condseg-lite-polyp")
    assert expected in str(caught.value)
    assert sha256_of(weights) in str(caught.value)


def test_unknown_names_come_with_the_nearest() -> None:
    with pytest.raises(ModelNotFoundError, match="similar names are condseg-lite-polyp"):
        hub.resolve("condseg-lite-polip")
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        hub.resolve("./nowhere")


def test_a_checkpoint_survives_the_round_trip_without_a_changed_bit(checkpoint: Path, tmp_path: Path) -> None:
    network, config = load_checkpoint(checkpoint)
    save_checkpoint(tmp_path / "copy", network, config)
    again, config_again = load_checkpoint(tmp_path / "copy")
    assert config_again == config
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    loaded = again.state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, loaded[name]), name


def _without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _absurd_header(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(b"\xff" * 8 + weights.read_bytes()[8:])


def _another_network(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["network"]["channels"] = 12
    (folder / "config.json").write_text(json.dumps(config))


def _newer_format(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format_version": 99}))


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_without_config, "config.json"),
        (_without_weights, "model.safetensors"),
        (_truncated, "model.safetensors"),
        (_absurd_header, "model.safetensors"),
        (_another_network, "condseg"),
        (_newer_format, "99"),
        (_no_json, "config.json"),
    ],
)
def test_damaged_checkpoints_are_one_line_that_names_the_file(
    damage: object, named: str, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "condseg"
    shutil.copytree(checkpoint, folder)
    damage(folder)  # type: ignore[operator]
    with pytest.raises(CheckpointError) as caught:
        Predictor.from_pretrained(folder)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_imagenet_weights_fill_the_encoder_and_land_in_the_right_place() -> None:
    encoder = ConDSeg(encoder="efficientnet_lite0", channels=8, heads=1, sid_channels=8, aux_channels=(8,)).encoder
    load_imagenet_encoder(encoder)
    theirs = torch.load(_package_file(imagenet_entry("efficientnet_lite0")), weights_only=True)
    ours = encoder.state_dict()
    for name, source in {
        "stem.0.weight": "_conv_stem.weight",
        "stages.0.0.depthwise.0.weight": "_blocks.0._depthwise_conv.weight",
        "stages.1.1.expand.1.running_var": "_blocks.2._bn0.running_var",
        "stages.6.0.project.1.bias": "_blocks.15._bn2.bias",
    }.items():
        assert torch.equal(ours[name], theirs[source]), name
