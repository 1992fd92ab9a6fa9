"""The authors' .pth files: converted strictly, never executed."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from condseg_sdk import CheckpointError, ConDSeg, CondsegError, ModelNotFoundError, OptionError, Predictor
from condseg_sdk.cli import main
from condseg_sdk.weights.checkpoint import load_checkpoint
from condseg_sdk.weights.convert import convert_checkpoint
from condseg_sdk.weights.upstream import convert_state_dict

KIT = Path(__file__).parents[1] / "assets" / "parity"


def theirs(network: str) -> dict[str, Tensor]:
    """Names and shapes of the authors' state dict, values small and different."""
    torch.manual_seed(0)
    shapes = json.loads((KIT / f"{network}_state_dict.json").read_text())
    shapes = shapes.get("tensors", shapes)
    return {name: _tensor(name, shape) for name, shape in _pairs(shapes)}


def _pairs(shapes: Any) -> list[tuple[str, list[int]]]:
    items = shapes.items() if isinstance(shapes, dict) else ((entry["name"], entry) for entry in shapes)
    return [(name, value["shape"] if isinstance(value, dict) else value) for name, value in items]


def _tensor(name: str, shape: list[int]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    return torch.rand(shape) * 0.01 + 0.01


@pytest.fixture(scope="module")
def r50() -> dict[str, Tensor]:
    return theirs("r50")


def plain(state: dict[str, Tensor]) -> Any:
    return state


def data_parallel(state: dict[str, Tensor]) -> Any:
    return {f"module.{name}": value for name, value in state.items()}


def in_training(state: dict[str, Tensor]) -> Any:
    """What a training script leaves: wrapped, from two GPUs, with optimizer, arguments and a NumPy score."""
    optimizer_state = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}},
        "param_groups": [{"lr": 1e-4}],
    }
    return {"epoch": 9, "best_dice": np.float64(0.9), "optimizer": optimizer_state, "state_dict": data_parallel(state)}


def compiled(state: dict[str, Tensor]) -> Any:
    return {"model": {f"_orig_mod.{name}": value for name, value in state.items()}}


@pytest.mark.parametrize(
    ("wrap", "color_order"), [(plain, "bgr"), (in_training, "rgb")], ids=["before November 2025", "since"]
)
def test_both_generations_of_files_are_converted(
    wrap: Callable[[dict[str, Tensor]], Any], color_order: Any, r50: dict[str, Tensor], tmp_path: Path
) -> None:
    source = tmp_path / "ConDSeg.pth"
    torch.save(wrap(r50), source)
    folder = convert_checkpoint(source, tmp_path / "out", network="r50", color_order=color_order)
    network, config = load_checkpoint(folder)
    expected = convert_state_dict(r50, "condseg-r50")
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    preprocessing = config.preprocessing
    assert (preprocessing.color_order, preprocessing.size) == (color_order, (256, 256))
    assert (preprocessing.mean, preprocessing.std, preprocessing.interpolation) == ((0.0,) * 3, (1.0,) * 3, "linear")
    assert preprocessing.scale == pytest.approx(1 / 255)
    assert config.provenance["converted_from"] == "ConDSeg.pth"
    assert (network.arguments["encoder"], config.threshold) == ("resnet50", 0.5)


@pytest.mark.parametrize("wrap", [data_parallel, in_training, compiled, lambda s: {"net": {"model": data_parallel(s)}}])
def test_wrapped_state_dicts_are_unwrapped(wrap: Callable[[dict[str, Tensor]], Any], r50: dict[str, Tensor]) -> None:
    expected = convert_state_dict(r50, "condseg-r50")
    unwrapped = convert_state_dict(wrap(r50), "condseg-r50")
    assert unwrapped.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in unwrapped.items())


@pytest.mark.slow
def test_the_command_converts_pvt_from_safetensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "pvt.safetensors"
    save_file(theirs("pvt"), source)
    out = tmp_path / "condseg-pvt"
    arguments = ["convert", str(source), str(out), "--network", "pvt", "--color-order", "rgb"]
    assert main([*arguments, "--size", "352", "--threshold", "0.4", "--data", "Kvasir-SEG", "--license", "mit"]) == 0
    assert f"condseg predict IMAGE --model {out}" in capsys.readouterr().out
    network, config = load_checkpoint(out)
    assert isinstance(network, ConDSeg)
    assert (config.preprocessing.size, config.threshold) == ((352, 352), 0.4)
    assert (config.provenance["data"], config.provenance["license"]) == ("Kvasir-SEG", "mit")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert Predictor.from_pretrained(out, device="cpu")(image).mask.shape == (64, 64)


# What is refused


class Bomb:
    """Would write a file if anybody unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


class EvalBomb(Bomb):
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, (f"__import__('pathlib').Path({str(self.path)!r}).touch()",))


def _saved(content: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


def _zip_bomb(target: Path, owned: Path) -> None:
    """The pickle inside torch.save's zip, replaced."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(1)}, buffer)
    with zipfile.ZipFile(buffer) as good, zipfile.ZipFile(target, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, pickle.dumps(Bomb(owned)) if name.endswith("data.pkl") else good.read(name))


BOMBS: dict[str, Callable[[Path, Path], object]] = {
    "in the state dict": lambda path, owned: torch.save({"conv.weight": Bomb(owned)}, path),
    "beside the state dict": lambda path, owned: torch.save({"state_dict": {}, "arguments": EvalBomb(owned)}, path),
    "legacy format": lambda path, owned: torch.save(Bomb(owned), path, _use_new_zipfile_serialization=False),
    "bare pickle": lambda path, owned: path.write_bytes(pickle.dumps(EvalBomb(owned))),
    "swapped into the zip": _zip_bomb,
    "protocol 0": lambda path, owned: path.write_bytes(pickle.dumps(EvalBomb(owned), protocol=0)),
}


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("suffix", [".pth", ".tar"])
def test_pickle_bombs_are_refused_unexecuted(kind: str, suffix: str, tmp_path: Path) -> None:
    source, owned = tmp_path / f"model{suffix}", tmp_path / "owned"
    BOMBS[kind](source, owned)
    with pytest.raises(CheckpointError, match="was not executed|cannot be read as a file of torch.save") as caught:
        convert_checkpoint(source, tmp_path / "out", network="r50", color_order="rgb")
    assert not owned.exists()
    assert not (tmp_path / "out").exists()
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    for load in (Predictor.from_pretrained, ConDSeg.from_pretrained):
        with pytest.raises(CondsegError):
            load(source)  # type: ignore[operator]
    assert not owned.exists()


def test_the_bombs_would_go_off(tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    pickle.loads(pickle.dumps(EvalBomb(owned)))
    assert owned.exists()


def test_a_whole_pickled_network_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"more than tensors \(torch.nn.modules.linear.Linear\).*state_dict"):
        convert_checkpoint(tmp_path / "model.pth", tmp_path / "out", network="r50", color_order="rgb")


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "is not a file"),
    "empty": (lambda path: path.touch(), "its signature is wrong"),
    "a web page": (lambda path: path.write_text("<html>404</html>"), "its signature is wrong"),
    "text": (
        lambda path: path.write_text("item 1"),
        r"read as a file of torch.save \(its signature is wrong\); pass",
    ),
    "truncated": (
        lambda path: path.write_bytes(_bytes({"a": torch.zeros(9)})[:-60]),
        "cannot be read|was not executed",
    ),
    "a list": (_saved([torch.zeros(1)]), "contains a list, not the state dict"),
    "a tensor": (_saved(torch.zeros(1)), "contains a Tensor, not the state dict"),
    "nothing": (_saved({}), "not the weights of condseg-r50: .* missing"),
    "keys that are no names": (_saved({1: torch.zeros(1)}), "1 unknown"),
    "values that are no tensors": (_saved({"layer0.0.weight": "x"}), "1 unknown"),
}


def _bytes(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", DAMAGED)
def test_files_that_are_no_checkpoints(kind: str, tmp_path: Path) -> None:
    make, message = DAMAGED[kind]
    make(tmp_path / "model.pth")
    with pytest.raises((CheckpointError, ModelNotFoundError), match=message) as caught:
        convert_checkpoint(tmp_path / "model.pth", tmp_path / "out", network="r50", color_order="rgb")
    assert str(tmp_path / "model.pth") in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_named(r50: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = dict(r50)
    first = next(name for name in state if name.endswith("weight"))
    last = list(state)[-1]
    state["surprise.weight"] = state.pop(last)
    state[first] = torch.zeros(3)
    torch.save(state, tmp_path / "model.pth")
    arguments = ["convert", str(tmp_path / "model.pth"), str(tmp_path / "out"), "--network", "r50"]
    assert main([*arguments, "--color-order", "rgb"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "1 missing (" in error
    assert "1 unknown (surprise.weight)" in error
    assert f"1 misshapen ({first} (3,), not " in error
    assert not (tmp_path / "out").exists()


def test_another_network_and_wrong_options_are_refused(r50: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(r50, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="not the weights of condseg-pvt: .*missing.*unknown"):
        convert_checkpoint(tmp_path / "model.pth", tmp_path / "out", network="pvt", color_order="rgb")
    wrong: list[dict[str, Any]] = [{"network": "vit"}, {"color_order": "gbr"}, {"size": 0}, {"threshold": 1.5}]
    for change in wrong:
        options: dict[str, Any] = {"network": "r50", "color_order": "rgb", **change}
        with pytest.raises(OptionError):
            convert_checkpoint(tmp_path / "model.pth", tmp_path / "out", **options)


def test_infinite_weights_are_refused(r50: dict[str, Tensor], tmp_path: Path) -> None:
    name = next(name for name in r50 if name.endswith("bias"))
    torch.save({**r50, name: torch.full_like(r50[name], float("nan"))}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="1 infinite"):
        convert_checkpoint(tmp_path / "model.pth", tmp_path / "out", network="r50", color_order="rgb")


def test_the_command_requires_network_and_color_order(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["convert", "a.pth", "out", "--network", "r50"])
    assert caught.value.code == 2
    assert "--color-order" in capsys.readouterr().err
