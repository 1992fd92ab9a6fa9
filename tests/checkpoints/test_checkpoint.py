"""Checkpoints: what is saved comes back, and what is incomplete, damaged or another network's does not load."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from safetensors.torch import load_file, save_file
from torch import nn

from condseg_sdk import CheckpointError, ConDSeg, OptionError, OutputError, Preprocessing, __version__
from condseg_sdk.weights.checkpoint import CheckpointConfig, load_checkpoint, save_checkpoint

FILES = {"config.json", "model.safetensors", "README.md"}
SMALL: dict[str, Any] = {
    "encoder": "efficientnet_lite0",
    "channels": (8, 8, 16, 16),
    "heads": 2,
    "sid_channels": 8,
    "aux_channels": (8,),
    "output_channels": (8, 8),
    "full_resolution": False,
}
PREPROCESSING = Preprocessing((64, 96), color_order="bgr", mean=(1.0, 2.0, 3.0), interpolation="area")


def config(**changes: Any) -> CheckpointConfig:
    values: dict[str, Any] = {"network": SMALL, "preprocessing": PREPROCESSING, "threshold": 0.35, "provenance": {}}
    return CheckpointConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def network() -> ConDSeg:
    torch.manual_seed(0)
    return ConDSeg(**SMALL).eval()


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    states = a.state_dict(), b.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_a_pushed_checkpoint_is_loaded_unchanged(network: ConDSeg, tmp_path: Path) -> None:
    saved = config(provenance={"data": "drawn", "steps": [1, 2]})
    folder = save_checkpoint(tmp_path / "new" / "one", network, saved)
    assert {path.name for path in folder.iterdir()} == FILES
    loaded, read = load_checkpoint(folder)
    assert same_weights(loaded, network)
    assert not loaded.training
    assert (read.preprocessing, read.threshold) == (PREPROCESSING, 0.35)
    assert read.provenance == {"data": "drawn", "steps": [1, 2], "package_version": __version__}
    assert read.network["channels"] == [8, 8, 16, 16]
    assert read.network["dilations"] == [6, 12, 18], "defaults are written, too: they may change one day"
    assert json.loads((folder / "config.json").read_text())["format_version"] == 1


def test_float16_files_load_as_float32(network: ConDSeg, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "half", network, config(), dtype="float16")
    written = load_file(folder / "model.safetensors")
    assert {value.dtype for value in written.values() if value.ndim > 1} == {torch.float16}
    assert {value.dtype for value in written.values() if value.ndim <= 1} == {torch.float32, torch.int64}
    loaded, _ = load_checkpoint(folder)
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    expected = {k: v.half().float() if v.ndim > 1 else v for k, v in network.state_dict().items()}
    assert all(torch.equal(v, expected[k]) for k, v in loaded.state_dict().items())


def test_weights_that_float16_cannot_represent_are_refused(tmp_path: Path) -> None:
    network = ConDSeg(**SMALL)
    nn.init.constant_(network.output.logits.weight, 1e6)
    with pytest.raises(CheckpointError, match=r"not finite: 1 tensors \(output.logits.weight\)"):
        save_checkpoint(tmp_path / "half", network, config(), dtype="float16")
    assert not list(tmp_path.iterdir())


def test_saving_replaces_an_older_checkpoint_and_nothing_else(network: ConDSeg, folder: Path) -> None:
    save_checkpoint(folder, network, config())
    assert load_checkpoint(folder)[1].threshold == 0.35
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"has other files, such as notes.txt"):
        save_checkpoint(folder, network, config())
    assert {path.name for path in folder.iterdir()} == {*FILES, "notes.txt"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_failed_save_leaves_the_old_files(network: ConDSeg, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
        save_checkpoint(folder, network, config())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_config_of_another_network_is_refused(network: ConDSeg, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="heads=1, not 2"):
        save_checkpoint(tmp_path / "a", network, config(network={**SMALL, "heads": 1}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 0}, "threshold=0"),
        ({"threshold": 1.0}, "threshold=1.0"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"threshold": "0.5"}, "threshold='0.5'"),
        ({"network": []}, "network=.* must be a dictionary"),
        ({"preprocessing": {}}, "must be a Preprocessing"),
        ({"provenance": {"path": Path()}}, "provenance must contain plain JSON"),
        ({"provenance": {"loss": float("inf")}}, "provenance must contain plain JSON"),
    ],
)
def test_config_values_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        config(**changes)


def test_a_config_keeps_its_own_copy() -> None:
    provenance = {"data": ["a"]}
    made = config(provenance=provenance)
    provenance["data"].append("b")
    assert made.provenance == {"data": ["a"]}
    assert CheckpointConfig.from_dict(made.to_dict()) == made


def edit_config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return edit


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors = {name: value.clone() for name, value in tensors.items()}
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return edit


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content)


def overwrite_number(key: str, digits: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(path.read_text().replace(f'"{key}": [', f'"{key}": [{digits}, '))

    return edit


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def from_the_future(values: dict[str, Any]) -> None:
    values.update(format_version=99, ensemble=3)
    values["provenance"]["package_version"] = "7.1.0"


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json: pass a folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors: pass a folder"),
    "config is text": (overwrite("config.json", b"hello"), "config.json is not JSON"),
    "config is bytes": (overwrite("config.json", b"\xff\xfe\x00"), "config.json is not JSON"),
    "config is deep": (overwrite("config.json", b"[" * 100_000), "config.json is JSON that is nested too deep"),
    "config is a list": (overwrite("config.json", b"[]"), "is not a JSON object"),
    "config lacks a key": (edit_config(lambda v: v.pop("threshold")), "the keys must be"),
    "config has another key": (edit_config(lambda v: v.update(extra=1)), "the keys must be .*extra"),
    "newer format": (edit_config(from_the_future), r"format version 99 is newer .* install condseg_sdk 7.1.0 or later"),
    "a field of view in format 1": (
        edit_config(lambda v: v["preprocessing"].update(field_of_view="endoscopy")),
        "format_version 1 does not support preprocessing with field_of_view",
    ),
    "bits in format 1": (
        edit_config(lambda v: v["preprocessing"].update(bits=12)),
        "format_version 1 does not support preprocessing with bits",
    ),
    "format is text": (edit_config(lambda v: v.update(format_version="1")), "with '1'"),
    "bad threshold": (edit_config(lambda v: v.update(threshold=2)), "threshold=2"),
    "bad preprocessing": (edit_config(lambda v: v["preprocessing"].pop("mean")), "preprocessing must have exactly"),
    "unknown argument": (edit_config(lambda v: v["network"].update(depth=5)), "no network can be built .*depth"),
    "bad argument": (edit_config(lambda v: v["network"].update(channels="many")), "no network can be built"),
    "negative width": (edit_config(lambda v: v["network"].update(sid_channels=-4)), "no network can be built"),
    "absurd width": (edit_config(lambda v: v["network"].update(sid_channels=10**9)), "no network can be built"),
    "narrower than one": (edit_config(lambda v: v["network"].update(heads=0)), "heads must be .* from 1 to 32"),
    "dilation of nothing": (
        edit_config(lambda v: v["network"].update(dilations=[6, 0, 18])),
        "dilations must be .* from 1 to",
    ),
    "dilation beyond the map": (
        edit_config(lambda v: v["network"].update(dilations=[6, 10**6, 18])),
        "dilations must be",
    ),
    "dilation in text": (edit_config(lambda v: v["network"].update(dilations=[6, "12", 18])), "dilations must be"),
    "dilation in fractions": (edit_config(lambda v: v["network"].update(dilations=[[6.5]] * 4)), "dilations must be"),
    "resolution in text": (edit_config(lambda v: v["network"].update(full_resolution="no")), "must be True or False"),
    "encoder in a list": (edit_config(lambda v: v["network"].update(encoder=["resnet50"])), "unknown encoder"),
    "a thousand layers": (
        edit_config(lambda v: v["network"].update(aux_channels=[8] * 1000)),
        "must be 1 to 8 numbers",
    ),
    "too many weights": (
        edit_config(lambda v: v["network"].update(channels=1024, sid_channels=1024)),
        "weights, more than 200,000,000: lower the channels",
    ),
    "size without end": (edit_config(lambda v: v["preprocessing"].update(size=[256, 25600])), "from 1 to 2048"),
    "size beyond a float": (overwrite_number("size", "1" * 400), "of 400 digits is too large"),
    "mean beyond float32": (
        edit_config(lambda v: v["preprocessing"].update(mean=[1e39, 0, 0])),
        "mean=.*three numbers",
    ),
    "std next to nothing": (edit_config(lambda v: v["preprocessing"].update(std=[1e-300, 1, 1])), "std=.*above 0"),
    "threshold in a list": (edit_config(lambda v: v.update(threshold=[0.5])), "threshold="),
    "a config of a megabyte": (edit_config(lambda v: v.update(threshold="9" * 10**6)), "threshold="),
    "empty weights": (overwrite("model.safetensors", b""), "cannot be read as safetensors"),
    "truncated weights": (truncate, "cannot be read as safetensors"),
    "absurd header": (
        overwrite("model.safetensors", struct.pack("<Q", 2**62) + b"{}"),
        "cannot be read as safetensors",
    ),
    "pickle": (overwrite("model.safetensors", b"\x80\x04K\x01."), "cannot be read as safetensors"),
    "missing tensor": (edit_tensors(lambda t: t.pop("output.logits.bias")), r"1 missing \(output.logits.bias\)"),
    "unknown tensor": (edit_tensors(lambda t: t.update(extra=torch.ones(1))), r"1 unknown \(extra\)"),
    "wrong shape": (
        edit_tensors(lambda t: t.update({"output.logits.bias": torch.ones(2)})),
        r"1 misshapen \(output.logits.bias float \(2,\), not float \(1,\)\)",
    ),
    "wrong kind": (
        edit_tensors(lambda t: t.update({"output.logits.bias": torch.ones(1, dtype=torch.int8)})),
        r"integer \(1,\), not float \(1,\)",
    ),
    "weights of another dtype": (
        edit_tensors(lambda t: t.update({"output.logits.bias": torch.ones(1, dtype=torch.bool)})),
        r"boolean \(1,\), not float \(1,\)",
    ),
    "a flipped exponent": (
        edit_tensors(lambda t: t.update({"output.logits.bias": torch.full((1,), 1e30)})),
        r"is damaged, it has weights that training never produces: 1 tensors \(output.logits.bias\)",
    ),
    "a negative variance": (
        edit_tensors(lambda t: t["encoder.stem.1.running_var"].neg_()),
        r"it has weights that training never produces: 1 tensors \(encoder.stem.1.running_var\)",
    ),
    "header of a hundred megabytes": (
        overwrite("model.safetensors", struct.pack("<Q", 10**8) + b"{" + b" " * 1000),
        "too large for ConDSeg",
    ),
    "not finite": (
        edit_tensors(lambda t: t.update({"output.logits.bias": torch.full((1,), float("nan"))})),
        r"not finite: 1 tensors \(output.logits.bias\)",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_in_one_line(damage: str, folder: Path) -> None:
    break_it, message = DAMAGES[damage]
    break_it(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(folder)
    text = str(caught.value)
    assert str(folder) in text
    assert "\n" not in text
    assert len(text) < 1000


def test_a_file_and_a_missing_folder_are_not_checkpoints(folder: Path) -> None:
    for path in (folder / "config.json", folder / "missing"):
        with pytest.raises(CheckpointError, match="is not a folder"):
            load_checkpoint(path)


def test_a_network_does_not_depend_on_the_file_it_came_from(folder: Path) -> None:
    network, _ = load_checkpoint(folder)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = folder / "model.safetensors"
    weights.write_bytes(b"\0" * weights.stat().st_size)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# What people know from huggingface_hub


def test_save_pretrained_and_from_pretrained_carry_the_whole_config(folder: Path, tmp_path: Path) -> None:
    network = ConDSeg.from_pretrained(folder)
    assert network.checkpoint_config == load_checkpoint(folder)[1]
    assert network.save_pretrained(tmp_path / "again") is None
    again, read = load_checkpoint(tmp_path / "again")
    assert same_weights(again, network)
    assert read == network.checkpoint_config
    changed = config(network=network.arguments, threshold=0.7)
    network.save_pretrained(tmp_path / "again", config=changed)
    assert load_checkpoint(tmp_path / "again")[1].threshold == 0.7
    network.save_pretrained(tmp_path / "again", config=changed.to_dict())
    assert load_checkpoint(tmp_path / "again")[1].preprocessing == PREPROCESSING


def test_a_repository_of_the_plain_mixin_loads_as_a_network_only(network: ConDSeg, tmp_path: Path) -> None:
    """Its config.json contains the arguments of the network and nothing else."""
    PyTorchModelHubMixin._save_pretrained(network, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    loaded = ConDSeg.from_pretrained(tmp_path)
    assert same_weights(loaded, network)
    assert loaded.checkpoint_config is None
    with pytest.raises(CheckpointError, match="has neither preprocessing nor threshold"):
        load_checkpoint(tmp_path)
    loaded.save_pretrained(tmp_path / "again")
    assert ConDSeg.from_pretrained(tmp_path / "again").checkpoint_config is None


def test_arguments_given_to_from_pretrained_replace_those_in_the_file(folder: Path) -> None:
    plain, full = ConDSeg.from_pretrained(folder), ConDSeg.from_pretrained(folder, full_resolution=True)
    assert (plain.full_resolution, full.full_resolution) == (False, True)
    assert full.checkpoint_config is not None
    assert full.checkpoint_config.network["full_resolution"] is True
    with pytest.raises(OptionError, match="ConDSeg has no argument strict"):
        ConDSeg.from_pretrained(folder, strict=False)


def test_from_pretrained_puts_the_network_on_the_requested_device(folder: Path) -> None:
    network = ConDSeg.from_pretrained(folder, map_location="meta")
    assert {value.device.type for value in network.parameters()} == {"meta"}


def test_the_card_describes_the_checkpoint_for_people_and_the_hub(network: ConDSeg, tmp_path: Path) -> None:
    metrics = {
        "dataset": "Drawn Circles",
        "split": "test",
        "mIoU": 0.81234,
        "mDSC": 0.9,
        "command": "python measure.py",
    }
    facts = {"data": "circles we drew", "license": "cc-by-4.0", "datasets": ["org/circles"], "metrics": metrics}
    folder = save_checkpoint(tmp_path / "circles", network, config(provenance=facts))
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "condseg_sdk"
    assert card.data.pipeline_tag == "image-segmentation"
    assert card.data.license == "cc-by-4.0"
    assert card.data.datasets == ["org/circles"]
    assert {(r.metric_type, r.metric_value) for r in card.data.eval_results} == {("mIoU", 0.81234), ("mDSC", 0.9)}
    for words in ("Not a medical device", "circles we drew", "| 0.8123 | 0.9 |", "python measure.py", "96x64", "BGR"):
        assert words in card.text, words
    assert 'from_pretrained("circles")' in card.text
    save_checkpoint(tmp_path / "own", network, config(), card="# mine\n")
    assert (tmp_path / "own" / "README.md").read_text() == "# mine\n"
