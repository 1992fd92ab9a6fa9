"""Exported files: what is in them, that they answer as PyTorch does, and what is refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from condseg_sdk import CheckpointError, DeviceError, ExportError, ModelNotFoundError, OptionError, Predictor
from condseg_sdk.cli import main
from condseg_sdk.runtimes import export, onnx_runtime
from condseg_sdk.runtimes.metadata import CONFIG_KEY, EXPORT_KEY

IMAGES = [np.random.default_rng(seed).integers(0, 256, (50, 70, 3), np.uint8) for seed in range(3)]


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.from_pretrained(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def files(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exports of the tiny network, made once."""
    folder = tmp_path_factory.mktemp("onnx")
    kinds: dict[str, dict[str, object]] = {
        "float32": {"uncertainty": True},
        "static": {"dynamic": False},
    }
    for name, options in kinds.items():
        predictor.export_onnx(folder / f"{name}.onnx", **options)  # type: ignore[arg-type]
    return {name: folder / f"{name}.onnx" for name in kinds}


@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 1e-4), ("static", 1e-4)])
def test_a_file_alone_answers_as_the_checkpoint_does(
    kind: str, tolerance: float, files: dict[str, Path], predictor: Predictor
) -> None:
    opened = Predictor.from_pretrained(files[kind], device="cpu")
    assert opened.providers == ("CPUExecutionProvider",)
    assert (opened.device, opened.threshold, opened.preprocessing) == ("cpu", 0.4, predictor.preprocessing)
    for ours, theirs in zip(opened(IMAGES, batch_size=2), predictor(IMAGES), strict=True):
        np.testing.assert_allclose(ours.probability, theirs.probability, atol=tolerance)
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(again(IMAGES[0]).probability, opened(IMAGES[0]).probability)


def test_batch_height_and_width_are_free(files: dict[str, Path], predictor: Predictor) -> None:
    batch = np.random.default_rng(0).standard_normal((3, 3, 96, 33)).astype(np.float32)
    ours = onnx_runtime.OnnxRuntime(files["float32"], device="cpu").run(batch, uncertainty=True)
    theirs = predictor._runtime.run(batch, uncertainty=True)
    for a, b in zip(ours, theirs, strict=True):
        assert a is not None
        assert b is not None
        np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["float32", "static"])
def test_graphs_hold_nothing_that_gpus_lack_and_nothing_of_this_machine(kind: str, files: dict[str, Path]) -> None:
    model = onnx.load(files[kind])
    assert not {"Col2Im", "Im2Col"} & {node.op_type for node in model.graph.node}
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}
    assert str(Path(export.__file__).parent).encode() not in files[kind].read_bytes()
    assert [i.type.tensor_type.elem_type for i in (*model.graph.input, *model.graph.output)] == [1] * (
        1 + len(model.graph.output)
    )


def test_uncertainty_is_there_or_refused_at_once(files: dict[str, Path]) -> None:
    assert Predictor.from_pretrained(files["float32"])(IMAGES[0], uncertainty=True).uncertainty is not None
    with pytest.raises(OptionError, match="export with uncertainty=True"):
        Predictor.from_pretrained(files["static"]).stream(iter(()), uncertainty=True)


def test_what_is_no_export_of_ours_is_one_line(files: dict[str, Path], tmp_path: Path) -> None:
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
    props[EXPORT_KEY] = json.dumps({**json.loads(props[EXPORT_KEY]), "format_version": 2})
    onnx.helper.set_model_props(newer, props)
    onnx.save(newer, tmp_path / "newer.onnx")
    with pytest.raises(CheckpointError, match="newer than this release"):
        Predictor.from_pretrained(tmp_path / "newer.onnx")
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        Predictor.from_pretrained(tmp_path / "none.onnx")


def test_options_of_the_other_runtime_are_refused(files: dict[str, Path], checkpoint: Path) -> None:
    with pytest.raises(OptionError, match="has its own"):
        Predictor.from_pretrained(files["static"], precision="float32")
    with pytest.raises(OptionError, match="set_num_threads"):
        Predictor.from_pretrained(checkpoint, threads=1)
    with pytest.raises(OptionError, match="at least 1"):
        Predictor.from_pretrained(files["static"], threads=0)
    with pytest.raises(OptionError, match="tensorrt"):
        Predictor.from_pretrained(files["static"], device="gpu")
    with pytest.raises(OptionError, match="runs an export already"):
        Predictor.from_pretrained(files["static"]).export_onnx("again.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 17}, "from 18 to 23"),
        ({"opset": 99}, "from 18 to 23"),
        ({"precision": "int8"}, "'float32'"),
    ],
)
def test_wrong_options_leave_nothing(
    options: dict[str, object], message: str, predictor: Predictor, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        predictor.export_onnx(tmp_path / "model.onnx", **options)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"must end in \.onnx"):
        predictor.export_onnx(tmp_path / "model.pt")
    with pytest.raises(OptionError, match="does not exist"):
        predictor.export_onnx(tmp_path / "none" / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_differs_is_not_left_behind(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(export.TOLERANCE, "float32", 0.0)
    with pytest.raises(ExportError, match="differs from the network"):
        predictor.export_onnx(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_not_there_is_refused(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "_has_nvidia_driver", lambda: False)
    for device in ("cuda", "cuda:1", "tensorrt"):
        with pytest.raises(DeviceError, match="use 'cpu'"):
            Predictor.from_pretrained(files["static"], device=device)
    assert Predictor.from_pretrained(files["static"], device="auto").device == "cpu"


def test_a_provider_that_is_named_and_not_used_is_an_error(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if CUDA's libraries were missing: ONNX Runtime would go on with the CPU and say so on stderr alone."""
    wanted = [("CUDAExecutionProvider", {"device_id": 0}), ("CPUExecutionProvider", {})]
    monkeypatch.setattr(onnx_runtime, "choose_providers", lambda _: wanted)
    import onnxruntime

    real = onnxruntime.InferenceSession

    def quiet_fallback(path: str, options: object, providers: object) -> object:
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", quiet_fallback)
    with pytest.raises(DeviceError, match="runs on CPUExecutionProvider instead of CUDAExecutionProvider"):
        Predictor.from_pretrained(files["static"], device="cuda")


def test_a_machine_without_a_gpu_stays_quiet(files: dict[str, Path]) -> None:
    code = f"from condseg_sdk import Predictor; print(Predictor.from_pretrained({str(files['static'])!r}).device)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.split(":")[0].strip() in ("cpu", "cuda")


def test_export_on_the_command_line(checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.onnx"
    assert main(["export", str(checkpoint), str(out), "--static"]) == 0
    shown = capfd.readouterr()
    assert "largest difference" in shown.out
    assert shown.err == ""
    assert main(["export", str(checkpoint), str(tmp_path / "model.pt")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.gpu
def test_cuda_answers_as_the_cpu_does(files: dict[str, Path]) -> None:
    gpu = Predictor.from_pretrained(files["float32"], device="cuda")
    assert gpu.providers[0] == "CUDAExecutionProvider"
    expected = Predictor.from_pretrained(files["float32"], device="cpu")(IMAGES)
    for ours, theirs in zip(gpu(IMAGES), expected, strict=True):
        np.testing.assert_allclose(ours.probability, theirs.probability, atol=1e-3)


def test_metadata_that_is_damaged_is_one_line() -> None:
    from condseg_sdk.runtimes.metadata import read_metadata

    with pytest.raises(CheckpointError, match="damaged metadata"):
        read_metadata({CONFIG_KEY: "{}", EXPORT_KEY: "[1]"}, source=SimpleNamespace())
