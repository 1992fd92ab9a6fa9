"""Exported files: their content, their agreement with PyTorch, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from condseg_sdk import (
    CheckpointError,
    DeviceError,
    ExportError,
    ModelNotFoundError,
    OnnxOptions,
    OptionError,
    OutputError,
    Predictor,
    Preprocessing,
    TorchOptions,
)
from condseg_sdk.checkpoints.onnx_metadata import CONFIG_KEY, EXPORT_KEY
from condseg_sdk.cli import main
from condseg_sdk.export import onnx as export
from condseg_sdk.export import verify
from condseg_sdk.export.preprocessing import add_preprocessing
from condseg_sdk.export.quantize import to_float16
from condseg_sdk.export.trace import trace
from condseg_sdk.preprocessing import resize_logits
from condseg_sdk.runtimes import onnx_runtime
from tests.helpers.networks import narrow_network

IMAGES = [np.random.default_rng(seed).integers(0, 256, (50, 70, 3), np.uint8) for seed in range(3)]


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.from_pretrained(checkpoint, device="cpu")


KINDS: dict[str, dict[str, Any]] = {
    "float32": {"branch_uncertainty": True},
    "static": {"dynamic": False},
    "float16": {"dynamic": False, "precision": "float16"},
    "int8": {"dynamic": False, "precision": "int8", "calibration": IMAGES, "verify": False},
    "preprocessing": {"preprocessing": True, "images": IMAGES},
}


class Exports(dict[str, Path]):
    """Exports of the tiny network by their kind, each made when a test first asks for it."""

    def __init__(self, predictor: Predictor, folder: Path) -> None:
        super().__init__()
        self.predictor, self.folder = predictor, folder

    def __missing__(self, kind: str) -> Path:
        self[kind] = self.predictor.export_onnx(self.folder / f"{kind}.onnx", **KINDS[kind]).path
        return self[kind]


@pytest.fixture(scope="module")
def files(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return Exports(predictor, tmp_path_factory.mktemp("onnx"))


@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 1e-4), ("static", 1e-4), ("float16", 0.05), ("int8", 0.6)])
def test_an_exported_file_alone_predicts_as_the_checkpoint_does(
    kind: str, tolerance: float, files: dict[str, Path], predictor: Predictor
) -> None:
    opened = Predictor.from_pretrained(files[kind], device="cpu")
    assert opened.providers == ("CPUExecutionProvider",)
    assert (opened.device, opened.threshold, opened.preprocessing) == ("cpu", 0.4, predictor.preprocessing)
    for ours, theirs in zip(opened.predict(IMAGES, batch_size=2), predictor.predict(IMAGES), strict=True):
        np.testing.assert_allclose(ours.probability, theirs.probability, atol=tolerance)
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_allclose(again(IMAGES[0]).probability, opened(IMAGES[0]).probability, atol=1e-6)


def test_batch_height_and_width_are_free(files: dict[str, Path], predictor: Predictor) -> None:
    batch = np.random.default_rng(0).standard_normal((3, 3, 96, 33)).astype(np.float32)
    ours = onnx_runtime.OnnxRuntime(files["float32"], device="cpu").run(batch, branch_uncertainty=True)
    theirs = predictor._runtime.run(batch, branch_uncertainty=True)
    for a, b in zip(ours, theirs, strict=True):
        assert a is not None
        assert b is not None
        np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["float32", "static", "float16", "int8"])
def test_graphs_hold_nothing_that_gpus_lack_and_nothing_of_this_machine(kind: str, files: dict[str, Path]) -> None:
    model = onnx.load(files[kind])
    assert not {"Col2Im", "Im2Col"} & {node.op_type for node in model.graph.node}
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}
    assert str(Path(export.__file__).parent).encode() not in files[kind].read_bytes()
    assert [i.type.tensor_type.elem_type for i in (*model.graph.input, *model.graph.output)] == [1] * (
        1 + len(model.graph.output)
    )


def test_a_missing_uncertainty_output_is_refused_before_the_first_image(files: dict[str, Path]) -> None:
    assert (
        Predictor.from_pretrained(files["float32"])(IMAGES[0], branch_uncertainty=True).branch_uncertainty is not None
    )
    with pytest.raises(OptionError, match="export with branch_uncertainty=True"):
        Predictor.from_pretrained(files["static"]).stream(iter(()), branch_uncertainty=True)


def test_a_foreign_onnx_file_ends_in_one_line(files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["static"].read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("text", b"hello"), ("empty", b"")):
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name}.onnx .*export"):
            Predictor.from_pretrained(tmp_path / f"{name}.onnx")
    model = onnx.load(files["static"])
    foreign, newer = onnx.ModelProto(), onnx.ModelProto()
    foreign.CopyFrom(model)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match="not an export of condseg_sdk"):
        Predictor.from_pretrained(tmp_path / "foreign.onnx")
    newer.CopyFrom(model)
    props = {entry.key: entry.value for entry in model.metadata_props}
    assert set(props) >= {CONFIG_KEY, EXPORT_KEY}
    props[EXPORT_KEY] = json.dumps({**json.loads(props[EXPORT_KEY]), "format_version": 3})
    onnx.helper.set_model_props(newer, props)
    onnx.save(newer, tmp_path / "newer.onnx")
    with pytest.raises(CheckpointError, match="newer than this release"):
        Predictor.from_pretrained(tmp_path / "newer.onnx")
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        Predictor.from_pretrained(tmp_path / "none.onnx")


def test_an_export_of_format_1_opens_and_has_its_uncertainty_branch(files: dict[str, Path], tmp_path: Path) -> None:
    """Until version 0.1.0 the second output and its metadata key were called "uncertainty"."""
    model = onnx.load(files["float32"])
    for node in model.graph.node:
        node.output[:] = ["uncertainty" if name == "branch_uncertainty" else name for name in node.output]
    model.graph.output[1].name = "uncertainty"
    props = {prop.key: prop.value for prop in model.metadata_props}
    info = json.loads(props[EXPORT_KEY])
    props[EXPORT_KEY] = json.dumps({"uncertainty": info.pop("branch_uncertainty"), **info, "format_version": 1})
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, props)
    onnx.save(model, tmp_path / "old.onnx")
    old, new = (
        Predictor.from_pretrained(path, device="cpu")(IMAGES[0], branch_uncertainty=True)
        for path in (tmp_path / "old.onnx", files["float32"])
    )
    np.testing.assert_array_equal(old.branch_uncertainty, new.branch_uncertainty)
    np.testing.assert_array_equal(old.probability, new.probability)


def test_options_that_do_not_fit_the_model_are_refused(files: dict[str, Path], checkpoint: Path) -> None:
    with pytest.raises(OptionError, match="has its own"):
        Predictor.from_pretrained(files["static"], preprocessing=Preprocessing((64, 64)))
    with pytest.raises(OptionError, match="exported from"):
        Predictor.from_pretrained(files["static"], runtime="torch")
    with pytest.raises(OptionError, match="exported from"):
        Predictor.from_pretrained(files["static"], runtime=TorchOptions(execution="compiled"))
    with pytest.raises(DeviceError, match="needs a CUDA device"):
        Predictor.from_pretrained(checkpoint, device="cpu", runtime=TorchOptions(execution="cuda-graph"))
    with pytest.raises(OptionError, match="tensorrt"):
        Predictor.from_pretrained(files["static"], device="gpu")


def test_an_export_cannot_be_exported_or_published(files: dict[str, Path]) -> None:
    opened = Predictor.from_pretrained(files["static"])
    for use in (lambda: opened.model, lambda: opened.export_onnx("again.onnx"), lambda: opened.push_to_hub("a/b")):
        with pytest.raises(CheckpointError, match="open the checkpoint that it was exported from") as caught:
            use()
        assert caught.value.path == files["static"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 17}, "from 18 to 23"),
        ({"opset": 99}, "from 18 to 23"),
        ({"precision": "int4"}, "'float32'"),
        ({"precision": "int8"}, "needs calibration images"),
        ({"calibration": IMAGES}, "are for precision='int8'"),
    ],
)
def test_wrong_options_leave_no_file(
    options: dict[str, object], message: str, predictor: Predictor, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        predictor.export_onnx(tmp_path / "model.onnx", **options)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"must end in \.onnx"):
        predictor.export_onnx(tmp_path / "model.pt")
    with pytest.raises(OutputError, match="does not exist"):
        predictor.export_onnx(tmp_path / "none" / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_differs_is_not_left_behind(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verify.PRECISIONS, "float32", replace(verify.PRECISIONS["float32"], max_difference=0.0))
    with pytest.raises(ExportError, match="differs from the network"):
        predictor.export_onnx(tmp_path / "model.onnx", dynamic=False)
    assert not list(tmp_path.iterdir())


def test_a_machine_without_a_gpu_stays_quiet(files: dict[str, Path]) -> None:
    code = f"from condseg_sdk import Predictor; print(Predictor.from_pretrained({str(files['static'])!r}).device)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.split(":")[0].strip() in ("cpu", "cuda")


def test_an_onnx_file_needs_no_pytorch_and_no_client_of_the_hub(files: dict[str, Path], tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "image.png")
    model, image, out = str(files["static"]), str(tmp_path / "image.png"), str(tmp_path / "out")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['huggingface_hub.file_download'] = None; from condseg_sdk import Predictor, list_models; "
        f"list_models(); print(Predictor.from_pretrained({model!r})({image!r}).mask.shape); "
        "from condseg_sdk.cli import main; "
        f"print(main(['models']), main(['predict', {image!r}, '--model', {model!r}, '--out', {out!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "(40, 50)"
    assert done.stdout.splitlines()[-1] == "0 0"


def test_export_works_on_the_command_line(checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.onnx"
    assert main(["export", str(checkpoint), str(out), "--static"]) == 0
    shown = capfd.readouterr()
    assert "largest difference" in shown.out
    assert shown.err == ""
    assert main(["export", str(checkpoint), str(tmp_path / "model.pt")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.gpu
def test_cuda_predicts_as_the_cpu_does(files: dict[str, Path]) -> None:
    gpu = Predictor.from_pretrained(files["float32"], device="cuda")
    assert gpu.providers[0] == "CUDAExecutionProvider"
    expected = Predictor.from_pretrained(files["float32"], device="cpu").predict(IMAGES)
    for ours, theirs in zip(gpu.predict(IMAGES), expected, strict=True):
        np.testing.assert_allclose(ours.probability, theirs.probability, atol=1e-3)


def test_metadata_that_is_damaged_ends_in_one_line() -> None:
    from condseg_sdk.checkpoints.onnx_metadata import read_metadata

    with pytest.raises(CheckpointError, match="damaged metadata"):
        read_metadata({CONFIG_KEY: "{}", EXPORT_KEY: "[1]"}, source=SimpleNamespace())


def change_graph(change: Any) -> Any:
    def write(model: onnx.ModelProto, path: Path) -> None:
        change(model.graph)
        path.write_bytes(model.SerializeToString())

    return write


def change_metadata(key: str, value: Any) -> Any:
    def write(model: onnx.ModelProto, path: Path) -> None:
        (entry,) = (entry for entry in model.metadata_props if entry.key == key)
        entry.value = value(entry.value) if callable(value) else value
        path.write_bytes(model.SerializeToString())

    return write


def edit_json(**changes: Any) -> Any:
    return lambda text: json.dumps({**json.loads(text), **changes})


def add_constant(op: str, inputs: dict[str, np.ndarray[Any, Any]], **attributes: Any) -> Any:
    """Operations that make gigabytes of a few numbers when ONNX Runtime opens the file."""

    def change(graph: onnx.GraphProto) -> None:
        graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in inputs.items())
        graph.node.insert(0, onnx.helper.make_node(op, list(inputs), ["huge"], **attributes))
        graph.node.insert(1, onnx.helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0))
        graph.node.append(onnx.helper.make_node("Add", [graph.output[0].name, "most"], ["sum"]))

    return change_graph(change)


def widen_initializer(graph: onnx.GraphProto) -> None:
    graph.initializer[0].dims[0] = 2**31


def move_initializer(graph: onnx.GraphProto) -> None:
    tensor = graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def break_convolution(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if node.op_type == "Conv")
    next(attribute for attribute in node.attribute if attribute.name == "group").i = 7


DAMAGED_FILES: dict[str, tuple[Any, str]] = {
    "empty": (lambda _, path: path.write_bytes(b""), "is not an export of condseg_sdk"),
    "no protobuf": (lambda _, path: path.write_bytes(b"\xff" * 100), "is not an ONNX file"),
    "truncated": (lambda m, path: path.write_bytes(m.SerializeToString()[:-20_000]), "cannot be opened|not an export"),
    "nested metadata": (change_metadata(CONFIG_KEY, "[" * 100_000), "condseg_config is JSON that is nested too deep"),
    "metadata of 5,000 digits": (change_metadata(EXPORT_KEY, "1" * 5000), "of 5000 digits is too large"),
    "metadata in a list": (change_metadata(CONFIG_KEY, "[1]"), "must be a JSON object"),
    "opset in text": (change_metadata(EXPORT_KEY, edit_json(opset="18")), "condseg_export must have the keys"),
    "unknown precision": (change_metadata(EXPORT_KEY, edit_json(precision="int2")), "precision='int2' is unknown"),
    "newer": (
        change_metadata(EXPORT_KEY, edit_json(format_version=9, package_version="7.1")),
        "install condseg_sdk 7.1",
    ),
    "another size": (change_metadata(EXPORT_KEY, edit_json(dynamic=True)), "its metadata says"),
    "promised output": (
        change_metadata(EXPORT_KEY, edit_json(branch_uncertainty=True)),
        "'branch_uncertainty', which is not in its graph",
    ),
    "no output": (change_graph(lambda graph: graph.output.pop()), "the output 'mask', which is not in its graph"),
    "another input": (
        change_graph(lambda graph: setattr(graph.input[0], "name", "pixels")),
        "its inputs are .'pixels'",
    ),
    "a name in Latin-1": (
        lambda m, path: path.write_bytes(m.SerializeToString().replace(b"Conv", b"Con\xe4")),
        "in it is not UTF-8 text",
    ),
    "layers that do not fit": (change_graph(break_convolution), "cannot be opened|cannot be run"),
    "initializer without data": (change_graph(widen_initializer), "is incomplete"),
    "data in another file": (change_graph(move_initializer), "is in another file"),
    "gigabytes of a constant": (
        add_constant("ConstantOfShape", {"shape": np.array([40_000, 40_000], np.int64)}),
        "'ConstantOfShape' would need more than 1024 MiB",
    ),
    "gigabytes of a tile": (
        add_constant("Tile", {"one": np.ones(8, np.float32), "times": np.array([2**28], np.int64)}),
        "'Tile' would need more than 1024 MiB",
    ),
    "gigabytes of unknown size": (
        add_constant("NonZero", {"ones": np.ones((8, 8), np.float32)}),
        "the size of the constant 'huge' is unknown",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED_FILES)
def test_a_damaged_file_is_refused_when_it_is_opened(damage: str, files: dict[str, Path], tmp_path: Path) -> None:
    write, message = DAMAGED_FILES[damage]
    path = tmp_path / "model.onnx"
    write(onnx.load(files["static"]), path)
    with pytest.raises(CheckpointError, match=message) as caught:
        Predictor.from_pretrained(path, device="cpu", runtime=OnnxOptions(threads=1))
    text = str(caught.value)
    assert text.startswith(str(path))
    assert len(text.splitlines()) == 1
    assert len(text) < 700


def test_what_onnxruntime_raises_in_a_prediction_names_the_file(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Predictor.from_pretrained(files["static"], device="cpu", runtime=OnnxOptions(threads=1))
    reasons = {
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code": (
            CheckpointError,
            r"cannot be run \(Non-zero status code\)",
        ),
        "BFCArena::AllocateRawInternal Available memory": (OptionError, "lower batch_size"),
    }
    for text, (kind, message) in reasons.items():

        def fail(*_: object, text: str = text) -> None:
            raise RuntimeError(text)

        monkeypatch.setattr(opened._runtime, "_run", fail)
        with pytest.raises(kind, match=message) as caught:
            opened(IMAGES[0])
        assert str(files["static"]) in str(caught.value)


def test_a_file_is_found_under_any_name(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(files["static"].read_bytes())
    (tmp_path / "model.onnx").symlink_to("blob")
    (tmp_path / "polyps").symlink_to("model.onnx")
    for name in ("model.onnx", "polyps", "blob"):
        opened = Predictor.from_pretrained(tmp_path / name, device="cpu", runtime=OnnxOptions(threads=1))
        assert opened.model_id == str(tmp_path / name)
        assert pickle.loads(pickle.dumps(opened)).providers == opened.providers


def test_a_graph_with_preprocessing_predicts_as_the_predictor_does(
    files: dict[str, Path], predictor: Predictor
) -> None:
    session = onnxruntime.InferenceSession(files["preprocessing"], providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("image", "tensor(uint8)", ["height", "width", 3])
    ]
    for image in (*IMAGES, np.zeros((9, 200, 3), np.uint8)):
        (probability,) = session.run(None, {"image": image})
        assert probability.dtype == np.float32
        # Pillow rounds between the passes of a resize, the graph once.
        np.testing.assert_allclose(probability, predictor(image).probability, atol=0.03)
    with pytest.raises(CheckpointError, match="for programs without this package"):
        Predictor.from_pretrained(files["preprocessing"])


@pytest.mark.parametrize("color_order", ["rgb", "bgr"])
@pytest.mark.parametrize("interpolation", ["antialias", "linear"])
def test_preprocessing_nodes_do_what_preprocessing_does(color_order: Any, interpolation: Any) -> None:
    wanted = Preprocessing(
        (20, 24),
        color_order=color_order,
        scale=1 / 64,  # small numbers: a sigmoid tells large ones from nothing
        mean=(1.0, 2.0, 3.0),
        std=(1.0, 2.0, 4.0),
        interpolation=interpolation,
    )
    # A network that gives its input's first channel.
    node = onnx.helper.make_node("Slice", ["images", "from", "to", "axis"], ["mask"])
    ends = [onnx.numpy_helper.from_array(np.array([n], np.int64), k) for k, n in (("from", 0), ("to", 1), ("axis", 1))]
    maps = [
        onnx.helper.make_tensor_value_info(name, 1, [1, count, 20, 24]) for name, count in (("images", 3), ("mask", 1))
    ]
    graph = onnx.helper.make_graph([node], "first", maps[:1], maps[1:], ends)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    add_preprocessing(model, wanted)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for size in ((20, 24), (41, 60), (10, 12)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        (got,) = session.run(None, {"image": image})
        expected = 1 / (1 + np.exp(-resize_logits(wanted(image)[0], size).astype(np.float64)))
        level = wanted.scale / min(wanted.std)  # of a pixel, in the network's input; a sigmoid's slope is at most 1/4
        assert np.abs(got - expected).max() <= level / 4 + 1e-6


def test_the_field_of_view_is_an_input_of_a_graph_with_preprocessing(checkpoint: Path, tmp_path: Path) -> None:
    own = Predictor.from_pretrained(checkpoint, device="cpu")
    wanted = replace(own.preprocessing, field_of_view="endoscopy")
    predictor = Predictor.from_pretrained(checkpoint, device="cpu", preprocessing=wanted)
    frame = np.zeros((90, 160, 3), np.uint8)
    coarse = np.random.default_rng(0).integers(90, 255, (6, 6, 3), np.uint8)
    frame[10:80, 60:150] = cv2.resize(coarse, (90, 70), interpolation=cv2.INTER_CUBIC)
    predictor.export_onnx(tmp_path / "box.onnx", preprocessing=True, branch_uncertainty=True, images=[frame])
    session = onnxruntime.InferenceSession(tmp_path / "box.onnx", providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()][1] == ("field_of_view", "tensor(int64)", [4])
    assert "x0, y0, x1, y1" in session.get_modelmeta().custom_metadata_map["condseg_field_of_view"]
    seg = predictor(frame, branch_uncertainty=True)
    assert seg.field_of_view is not None
    boxes = {"found": (seg, seg.field_of_view), "whole": (own(frame, branch_uncertainty=True), (0, 0, 160, 90))}
    for expected, box in boxes.values():
        maps = session.run(None, {"image": frame, "field_of_view": np.array(box, np.int64)})
        for got, values in zip(maps, (expected.probability, expected.branch_uncertainty), strict=True):
            np.testing.assert_allclose(got, values, atol=0.03)
            assert (got[values == 0] == 0).all()

    predictor.export_onnx(tmp_path / "plain.onnx", dynamic=False)  # here this package cuts and fills up
    again = Predictor.from_pretrained(tmp_path / "plain.onnx", device="cpu")
    assert again.preprocessing == wanted
    np.testing.assert_allclose(again(frame).probability, seg.probability, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dynamic"),
    [
        pytest.param("condseg-r50", False, marks=pytest.mark.slow),
        pytest.param("condseg-r50", True, marks=pytest.mark.slow),
        pytest.param("condseg-pvt", True, marks=pytest.mark.slow),
    ],
)
def test_the_papers_networks_have_their_numbers_of_parameters(name: str, dynamic: bool) -> None:
    """Narrow, but with their encoders and their output at full resolution, which is computed in parts."""
    source = narrow_network(name)
    model = trace(source, size=(64, 96), dynamic=dynamic, uncertainty=False, opset=18)
    assert not missing_on_cuda(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in [(2, 3, 96, 64), (1, 3, 50, 70), (1, 3, 64, 96)] if dynamic else [(1, 3, 64, 96)]:
        images = torch.randn(shape)
        (mask,) = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            expected = source(images).mask
        assert (torch.from_numpy(mask).sigmoid() - expected.sigmoid()).abs().max() <= 1e-4


def test_preprocessing_without_an_onnx_operator_is_refused() -> None:
    with pytest.raises(OptionError, match="'area'"):
        add_preprocessing(onnx.ModelProto(), Preprocessing((8, 8), interpolation="area"))


def test_float16_refuses_weights_it_cannot_hold() -> None:
    weight = onnx.numpy_helper.from_array(np.float32([1e5]), "w")
    model = onnx.ModelProto(graph=onnx.GraphProto(initializer=[weight]))
    with pytest.raises(ExportError, match="w has weights beyond"):
        to_float16(model)


def test_int8_quantizes_convolutions_per_channel_and_behind_their_activation(files: dict[str, Path]) -> None:
    model = onnx.load(files["int8"])
    makers = {output: node for node in model.graph.node for output in node.output}
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantized = [
        node
        for node in model.graph.node
        if node.op_type == "Conv" and makers.get(node.input[1]) and makers[node.input[1]].op_type == "DequantizeLinear"
    ]
    assert len(quantized) > 50
    for conv in quantized:
        weight, scale = (constants[name] for name in makers[conv.input[1]].input[:2])
        assert weight.dtype == np.int8
        assert scale.size == weight.shape[0]
    early = [node for node in model.graph.node if node.op_type == "Conv" and "stem" in node.input[1]]
    assert early  # under its own name still: not quantized


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_leaves_nothing(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", mounted], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with pytest.raises(OutputError, match="No space left"):
            predictor.export_onnx(mounted / "model.onnx", dynamic=False, verify=False)
        assert not list(mounted.iterdir())
    finally:
        subprocess.run(["umount", mounted], check=True)


@pytest.mark.parametrize("kind", ["float32", "static", "float16"])
def test_cuda_implements_every_operator(kind: str, files: dict[str, Path]) -> None:
    assert not missing_on_cuda(onnx.load(files[kind]))


def missing_on_cuda(model: Any) -> set[tuple[str, int, str | None]]:
    """Each (operator, opset, type) that ONNX Runtime's own list of CUDA's kernels lacks (data/cuda_kernels.json)."""
    listed = json.loads((Path(__file__).parents[1] / "assets" / "cuda_kernels.json").read_text())["kernels"]
    names = {1: "float", 2: "uint8", 7: "int64", 9: "bool", 10: "float16"}
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    known = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    types = {value.name: names[value.type.tensor_type.elem_type] for value in known}
    types |= {tensor.name: names[tensor.data_type] for tensor in model.graph.initializer}
    missing = set()
    for node in model.graph.node:
        if node.op_type in ("Constant", "Shape"):  # folded, or computed by the host
            continue
        since = onnx.defs.get_schema(node.op_type, opset).since_version
        kernels = [
            row
            for row in listed.get(node.op_type, [])
            # A kernel without an end is for the version of the operator that it begins with, and for no later one.
            if (row["since"] == since if row["until"] is None else row["since"] <= since <= row["until"])
        ]
        data = types.get(node.input[1 if node.op_type == "Where" else 0])
        if not any(data in row["types"] for row in kernels):
            missing.add((node.op_type, opset, data))
    return missing
