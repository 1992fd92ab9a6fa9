"""Model repositories for Triton, checked against the rules of its documentation.

From docs/user_guide/model_configuration.md of triton-inference-server/server: the name is that of the folder; names,
types and shapes are those of the graph; the shape is [-1] + dims with max_batch_size above 0 and dims with 0; it is
above 0 only where all inputs and outputs begin with a dimension of any size; shapes have at least one dimension;
dynamic_batching needs batches. From docs/user_guide/model_repository.md: NAME/config.pbtxt and NAME/VERSION/model.onnx,
where VERSION is a number that does not begin with 0.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from condseg_sdk.cli import main
from condseg_sdk.provenance import is_ours

TYPES = {"TYPE_UINT8": np.uint8, "TYPE_INT64": np.int64, "TYPE_FP32": np.float32}  # the table "Datatypes"
TOKEN = re.compile(r'\s+|#[^\n]*|(?P<word>"[^"\n]*"|[\w.-]+|[][{}:,])')


def parse(text: str) -> dict[str, Any]:
    """Read the text format of protocol buffers, as far as a configuration of a model needs it."""
    tokens = []
    place = 0
    while place < len(text):
        match = TOKEN.match(text, place)
        assert match is not None, f"not a protocol buffer in text format: {text[place : place + 40]!r}"
        place = match.end()
        if match["word"]:
            tokens.append(match["word"])
    tokens.reverse()
    message = read_message(tokens)
    assert not tokens
    return message


def read_message(tokens: list[str]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    while tokens and tokens[-1] != "}":
        name = tokens.pop()
        assert re.fullmatch(r"[a-z_]+", name)
        assert name not in message
        if tokens[-1] == ":":
            tokens.pop()
        message[name] = read_value(tokens)
    return message


def read_value(tokens: list[str]) -> Any:
    token = tokens.pop()
    if token == "{":
        message = read_message(tokens)
        assert tokens.pop() == "}"
        return message
    if token == "[":
        values = [read_value(tokens)]
        while tokens[-1] == ",":
            tokens.pop()
            values.append(read_value(tokens))
        assert tokens.pop() == "]"
        return values
    if token.startswith('"'):
        return token[1:-1]
    return int(token) if re.fullmatch(r"-?\d+", token) else token


def shapes(tensors: Any) -> dict[str, list[int]]:
    """Return the shapes of a graph's inputs or outputs, -1 for dimensions of any size."""
    return {
        tensor.name: [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.type.tensor_type.shape.dim]
        for tensor in tensors
    }


@pytest.mark.parametrize(
    ("options", "max_batch_size", "dims"),
    [([], 8, [3, -1, -1]), (["--static"], 0, [1, 3, 64, 64]), (["--preprocessing"], 0, [-1, -1, 3])],
)
def test_the_repository_follows_the_rules_and_its_graph_takes_what_the_configuration_says(
    options: list[str], max_batch_size: int, dims: list[int], checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "polyp"
    command = ["export", str(checkpoint), str(folder), "--triton", "--no-verify", *options]
    assert main(command) == 0
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert found == ["1/model.onnx", "config.pbtxt"]
    assert all(is_ours(folder / name) for name in found)
    config = parse((folder / "config.pbtxt").read_text())
    assert config["name"] == folder.name
    assert config["platform"] == "onnxruntime_onnx"
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (max_batch_size, dims)
    assert ("dynamic_batching" in config) == (max_batch_size > 0)
    graph = onnx.load(folder / "1" / "model.onnx").graph
    for field, tensors in (("input", graph.input), ("output", graph.output)):
        batch = [-1] if max_batch_size else []
        assert {tensor["name"]: batch + tensor["dims"] for tensor in config[field]} == shapes(tensors)
        assert all(tensor["dims"] for tensor in config[field])
        kinds = [onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type) for tensor in tensors]
        assert [np.dtype(TYPES[tensor["data_type"]]) for tensor in config[field]] == kinds
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    shape = [size if size > 0 else 64 for size in ([2, *dims] if max_batch_size else dims)]
    image = np.zeros(shape, TYPES[config["input"][0]["data_type"]])
    (result,) = session.run([config["output"][0]["name"]], {config["input"][0]["name"]: image})
    assert result.dtype == TYPES[config["output"][0]["data_type"]]
    assert result.ndim == len(config["output"][0]["dims"]) + (max_batch_size > 0)


def test_a_changed_configuration_is_kept_and_a_folder_is_not_named_like_a_file(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "polyp"
    folder.mkdir()
    (folder / "config.pbtxt").write_text("max_batch_size: 64\n")
    assert main(["export", str(checkpoint), str(folder), "--triton", "--no-verify"]) == 2
    assert "config.pbtxt was not written by condseg" in capsys.readouterr().err
    assert not (folder / "1").exists()
    assert main(["export", str(checkpoint), str(tmp_path / "polyp.onnx"), "--triton"]) == 2
    assert "--triton writes a folder" in capsys.readouterr().err
