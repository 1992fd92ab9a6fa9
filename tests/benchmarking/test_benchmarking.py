"""The benchmark: arithmetic by hand, tables, rows of missing devices, and real worker processes on a tiny network."""

from __future__ import annotations

import csv
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from condseg_sdk import DeviceError, OptionError
from condseg_sdk.benchmarking import machine, plot, table
from condseg_sdk.benchmarking.flops import graph_flops
from condseg_sdk.benchmarking.measure import Row, Setting, agreement, measure, percentiles
from condseg_sdk.benchmarking.run import BenchmarkConfig, network_inputs, synthetic_images
from condseg_sdk.benchmarking.subjects import Run, Subject, onnx_subjects, run_trained_form, torch_subjects
from condseg_sdk.benchmarking.worker import Worker
from condseg_sdk.cli import main
from condseg_sdk.predictor import Predictor
from condseg_sdk.runtimes.base import uses_all_cores
from condseg_sdk.weights.checkpoint import load_checkpoint

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import published

SIZE = 64


def weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def test_the_flops_of_a_graph_equal_those_computed_by_hand(tmp_path: Path) -> None:
    nodes = [
        # 6x4 -> 3x2 positions, 8 outputs of 3 / 1 inputs and 3x3 taps: 2 * (8 * 3 * 2) * (3 * 9) = 2592
        helper.make_node("Conv", ["x", "dense"], ["a"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        # depthwise: 2 * (8 * 3 * 2) * (1 * 9) = 864
        helper.make_node("Conv", ["a", "depthwise"], ["b"], kernel_shape=[3, 3], group=8, pads=[1, 1, 1, 1]),
        # each of 8 * 3 * 2 inputs meets 5 outputs of 2x2 taps: 2 * 48 * 20 = 1920
        helper.make_node("ConvTranspose", ["b", "up"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        # (5, 6, 4) times (4, 7): 2 * (5 * 6 * 7) * 4 = 1680
        helper.make_node("MatMul", ["d", "right"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),  # (1, 210)
        # (1, 210) times (210, 2) transposed: 2 * 2 * 210 = 840
        helper.make_node("Gemm", ["f", "linear"], ["g"], transB=1),
    ]
    initializers = [
        weights("dense", 8, 3, 3, 3),
        weights("depthwise", 8, 1, 3, 3),
        weights("up", 8, 5, 2, 2),
        weights("right", 4, 7),
        weights("linear", 2, 210),
    ]
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])
    output = helper.make_tensor_value_info("g", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "by hand", [images], [output], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "m.onnx")
    assert graph_flops(tmp_path / "m.onnx", (1, 3, 6, 4)) == 2592 + 864 + 1920 + 1680 + 840


def test_flops_agree_with_pytorchs_counter(checkpoint: Path, exported: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from condseg_sdk.export.inference_form import inference_form

    form = inference_form(load_checkpoint(checkpoint)[0], size=(SIZE, SIZE), graph=True)
    with FlopCounterMode(display=False) as counter:
        form(torch.zeros(1, 3, SIZE, SIZE))
    assert graph_flops(exported, (1, 3, SIZE, SIZE)) == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_percentiles_and_agreement_equal_values_computed_by_hand() -> None:
    assert percentiles([0.3, 0.1, 0.2]) == pytest.approx((0.2, 0.29, 0.298))
    assert percentiles([0.5]) == (0.5, 0.5, 0.5)
    reference = np.array([[[9.0, 9.0], [-9.0, 0.0]], [[-9.0, -9.0], [-9.0, -9.0]]], np.float32)
    ours = reference.copy()
    ours[0, 1, 1] = np.log(3)  # 0.75 instead of 0.5
    ours[0, 0, 1] = -9  # 1 / (1 + e^9) instead of the rest
    difference, dice = agreement({0: ours[0], 1: ours[1]}, reference, 0.6)
    assert difference == pytest.approx(1 - 2 / (1 + np.exp(9)))
    assert dice == pytest.approx((2 * 1 / (2 + 2) + 1) / 2)  # two empty masks agree


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    Predictor.from_pretrained(checkpoint, device="cpu").export_onnx(path, dynamic=False, verify=False)
    return path


def breaks() -> Run:
    raise ValueError("cannot be built")


def dies() -> Run:
    import os

    os._exit(3)


def sleeper(seconds: float) -> Run:
    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(seconds)
        return np.zeros((len(batch), SIZE, SIZE), np.float32)

    return run


@pytest.fixture(scope="module")
def inputs(checkpoint: Path) -> NDArray[np.float32]:
    return network_inputs(load_checkpoint(checkpoint)[1].preprocessing, SIZE, synthetic_images())


@pytest.fixture(scope="module")
def saved() -> list[list[Row]]:
    """The rows after each round."""
    return []


@pytest.fixture(scope="module")
def rows(checkpoint: Path, exported: Path, inputs: NDArray[np.float32], saved: list[list[Row]]) -> list[Row]:
    config = load_checkpoint(checkpoint)[1]
    reference = run_trained_form(checkpoint)(inputs)
    subjects = [
        Subject("PyTorch", "sleeper", "float32", "cpu", partial(sleeper, 0.05)),
        Subject("PyTorch", "published", "float32", "cpu", partial(published.torch_form, checkpoint)),
        *onnx_subjects({"float32": exported, "int8": "no images to calibrate with"}, threads=1),
        Subject("PyTorch", "broken", "float32", "cpu", breaks),
        Subject("PyTorch", "dying", "float32", "cpu", dies),
    ]
    setting = Setting("tiny", 1, SIZE, 1, config.threshold)
    ceiling = Subject("ONNX Runtime", "MatMul 2048", "float32", "cpu", partial(sleeper, 0.05))
    return measure(
        subjects, setting, inputs, reference,
        budget=0, ceiling=ceiling, finished=saved.append, progress=lambda _: None,
    )  # fmt: skip


@pytest.mark.slow
def test_rows_are_measured_in_real_processes(rows: list[Row]) -> None:
    sleeping, published_row, ours = rows[0], rows[1], rows[2]
    assert sleeping.speedup == 1
    assert sleeping.p50_ms is not None
    assert 50 <= sleeping.p50_ms < 100
    assert sleeping.images_per_second == pytest.approx(1000 / sleeping.p50_ms)
    assert (sleeping.rounds, sleeping.repetitions) >= (5, 5)
    for row in (published_row, ours):
        assert row.rounds == 5
        assert row.compared == 8
        assert row.max_difference is not None
        assert row.max_difference < 1e-4
        assert row.dice is not None
        assert row.dice > 0.99
        assert row.memory_mb is not None
        assert row.memory_mb > 0
        assert row.p50_ms is not None
        assert row.p99_ms is not None
        assert row.p50_ms <= row.p99_ms
    assert ours.file_mb is not None
    assert ours.floor is not None  # with a pretended rate of 2 * 2048**3 in 50 ms
    assert published_row.floor is None


@pytest.mark.slow
def test_rows_can_be_saved_as_soon_as_they_are_measured(rows: list[Row], saved: list[list[Row]]) -> None:
    assert all(len(table) == len(rows) for table in saved)
    assert (saved[0][0].rounds, saved[0][1].rounds) == (1, 0)  # before the second one is loaded
    assert saved[0][0].p50_ms is not None
    assert saved[0][1].p50_ms is None
    assert [table[0].rounds for table in saved[-5:]] == [1, 2, 3, 4, 5]
    assert [row.note for row in saved[-5]] == [row.note for row in rows]


def test_batches_go_through_all_images_and_begin_again(checkpoint: Path, inputs: NDArray[np.float32]) -> None:
    subject = Subject("PyTorch", "as trained", "float32", "cpu", partial(run_trained_form, checkpoint))
    with Worker(subject, inputs, batch=3, threads=1) as worker:
        assert min(worker.load()) > 0
        assert len(worker.run(2, warm=False)) == 2
        outputs = worker.report()[1]
    assert sorted(outputs) == list(range(8))  # 3 + 3 + 2, and the first one again
    expected = run_trained_form(checkpoint)(inputs)
    np.testing.assert_allclose(np.stack([outputs[n] for n in range(8)]), expected, atol=1e-3)


@pytest.mark.slow
def test_what_cannot_be_measured_keeps_its_row_and_its_reason(rows: list[Row]) -> None:
    notes = {(row.form, row.precision, row.device): row.note for row in rows}
    if not torch.cuda.is_available():
        assert notes["ours", "float32", "cuda"] == notes["ours", "float32", "tensorrt"] == "no CUDA device"
    assert notes["ours", "int8", "cpu"] == "no images to calibrate with"
    assert notes["broken", "float32", "cpu"] == "ValueError: cannot be built"
    assert notes["dying", "float32", "cpu"] == "its process ended with 3, perhaps out of memory"
    assert all(row.p50_ms is None for row in rows if row.note)


def test_gpu_subjects_are_listed_without_a_gpu(checkpoint: Path, exported: Path) -> None:
    subjects = [
        *torch_subjects(checkpoint),
        *onnx_subjects({"float32": exported, "float16": exported, "int8": exported}),
    ]
    gpu = {(s.runtime, s.form, s.precision, s.device) for s in subjects if not uses_all_cores(s.device)}
    forms = ("inference form", "compiled", "CUDA graph")
    expected = {("PyTorch", f, p, "cuda") for f in forms for p in ("float32", "float16", "bfloat16")}
    expected |= {("ONNX Runtime", "ours", p, d) for p in ("float32", "float16") for d in ("cuda", "tensorrt")}
    assert gpu == expected
    if not torch.cuda.is_available():
        assert {s.missing for s in subjects if not uses_all_cores(s.device)} == {"no CUDA device"}
    openvino = {s.precision: s.missing for s in subjects if s.device == "openvino:cpu"}
    assert openvino.keys() == {"float32", "int8", "bfloat16"}
    assert all("OpenVINO" in reason for reason in openvino.values() if reason)


@pytest.mark.slow
def test_rows_are_written_as_csv_markdown_and_plot(rows: list[Row], tmp_path: Path) -> None:
    with table.write_rows(rows, tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(rows)
    assert float(read[0]["p50_ms"]) == rows[0].p50_ms
    assert read[-1]["p50_ms"] == ""
    text = table.markdown(rows, machine.machine_lines(1), command="condseg benchmark")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    measured = [row for row in rows if row.p50_ms is not None]
    assert len(lines) == 2 + len(measured)
    assert {line.count("|") for line in lines} == {len(table.COLUMNS) + 1}
    assert "### tiny, batch 1, 64x64" in text
    assert "Not measured: " in text
    assert "no images to calibrate with (ONNX Runtime ours on cpu, OpenVINO ours on openvino:cpu)" in text
    picture = plot.plot(rows, tmp_path / "a.png", title="title")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(OptionError, match="nothing was measured"):
        plot.plot([row for row in rows if row.note], tmp_path / "b.png", title="title")


def test_numbers_keep_three_digits() -> None:
    row = Row(
        "n", 1, 64, "PyTorch", "f", "float32", "cpu", 5, 5, p50_ms=1234.5, p95_ms=12.34, p99_ms=0.1234,
        images_per_second=0.81, speedup=2.345, max_difference=0.00012, dice=0.98765, floor=1.314,
    )  # fmt: skip
    shown = dict(zip(table.COLUMNS, table.cells(row), strict=True))
    assert [shown[x] for x in ("p50 ms", "p95", "p99", "images/s")] == ["1234", "12.3", "0.12", "0.81"]
    assert (shown["speed"], shown["max diff"], shown["Dice"], shown["floor"]) == ("2.35x", "1e-04", "0.9877", "1.31")
    assert (shown["memory MB"], shown["n"]) == ("", "5")


def test_the_summary_divides_by_pytorch_and_puts_the_ratio_first() -> None:
    def row(network: str, runtime: str, form: str, precision: str, device: str, p50: float | None, dice: float) -> Row:
        return Row(network, 1, 256, runtime, form, precision, device, p50_ms=p50, dice=dice)

    text = table.summary(
        [
            row("lite", "PyTorch", "published", "float32", "cpu", 200, 1),
            row("lite", "PyTorch", "inference form", "float32", "cpu", 100, 1),
            row("r50", "PyTorch", "inference form", "float32", "cpu", 1000, 1),
            row("lite", "OpenVINO", "ours", "bfloat16", "openvino:cpu", 25, 0.9962),
            row("r50", "OpenVINO", "ours", "bfloat16", "openvino:cpu", None, 1),
            row("lite", "ONNX Runtime", "ours", "float32", "cuda", 2, 0.9999),
        ]
    )
    assert text.splitlines() == [
        "|  | lite | r50 |",
        "| --- | ---: | ---: |",
        "| PyTorch float32 | **1.00x** (100 ms) | **1.00x** (1000 ms) |",
        "| OpenVINO bfloat16 | **4.00x** (25.0 ms, Dice 0.996) |  |",
        "| ONNX Runtime float32 on cuda | **50.00x** (2.00 ms) |  |",
    ]


def test_the_marked_part_of_a_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.include(page, "new")
    table.include(page, "newer")
    assert page.read_text() == f"before\n{table.BEGIN}\n\nnewer\n\n{table.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(OptionError, match="must have the lines"):
        table.include(page, "new")
    with pytest.raises(OptionError, match="cannot be read"):
        table.include(tmp_path / "none.md", "new")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": (0,)}, "batch=0"),
        ({"sizes": (100,)}, "size=100"),
        ({"threads": 0}, "threads=0"),
        ({"seconds": -1.0}, "seconds=-1.0"),
        ({"compiled": "some"}, "compiled='some'"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        BenchmarkConfig(**options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_command_measures_and_writes(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--batch", "1", "--seconds", "0", "--threads", "1", "--out", str(tmp_path / "out"), "--plot"]
    assert main(["benchmark", str(checkpoint), *arguments]) == 0
    captured = capsys.readouterr()
    assert "### tiny, batch 1, 64x64" in captured.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "benchmark.csv",
        "benchmark.md",
        "benchmark.png",
    ]
    with (tmp_path / "out" / "benchmark.csv").open(newline="", encoding="utf-8") as file:
        measured = {(r["runtime"], r["form"], r["precision"]) for r in csv.DictReader(file) if r["p50_ms"]}
    assert measured >= {
        ("PyTorch", "as trained", "float32"),
        ("PyTorch", "inference form", "float32"),
        ("ONNX Runtime", "ours", "float32"),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.onnx"], "pass the checkpoint"),
        (["--plot"], "--plot needs --out"),
        (["--size", "250"], "multiple of 32"),
        (["--calibration", "0"], "at least 1"),
        (["--images", "nowhere/*.png"], "contains no image"),
    ],
)
def test_the_command_refuses_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_the_published_form_exports_and_agrees(checkpoint: Path, tmp_path: Path, inputs: NDArray[np.float32]) -> None:
    file = published.export(checkpoint, tmp_path / "published.onnx", batch=2, size=SIZE)
    assert [p.name for p in tmp_path.iterdir()] == ["published.onnx"]  # weights inside
    assert "Col2Im" in {node.op_type for node in onnx.load(file).graph.node}  # the baseline is what it says it is
    run = published.onnx_form(file, threads=1)
    np.testing.assert_allclose(run(inputs[:2]), run_trained_form(checkpoint)(inputs[:2]), atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("form", ["inference form", "compiled", "CUDA graph"])
def test_pytorch_predicts_on_a_gpu(checkpoint: Path, inputs: NDArray[np.float32], form: str, precision: str) -> None:
    subject = next(
        s for s in torch_subjects(checkpoint) if (s.form, s.precision, s.device) == (form, precision, "cuda")
    )
    assert subject.build is not None
    run = subject.build()
    for batch in (inputs[:2], inputs[2:4]):  # a CUDA graph must not repeat its first output
        expected = 1 / (1 + np.exp(-run_trained_form(checkpoint)(batch)))
        output = 1 / (1 + np.exp(-run(batch)))
        assert np.abs(output - expected).mean() < (1e-4 if precision == "float32" else 0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_onnx_runtime_predicts_on_a_gpu(
    checkpoint: Path, exported: Path, inputs: NDArray[np.float32], device: str
) -> None:
    subject = next(s for s in onnx_subjects({"float32": exported}) if s.device == device)
    if subject.missing:
        pytest.skip(subject.missing)
    assert subject.build is not None
    try:
        run = subject.build()
    except DeviceError as error:  # the wheel of ONNX Runtime has its provider and not TensorRT itself
        if device == "tensorrt":
            pytest.skip(str(error))
        raise
    output = 1 / (1 + np.exp(-run(inputs[:2])))
    expected = 1 / (1 + np.exp(-run_trained_form(checkpoint)(inputs[:2])))
    assert np.abs(output - expected).mean() < 1e-2  # TensorRT may use TF32


@pytest.mark.gpu
def test_the_published_form_runs_on_a_gpu(checkpoint: Path, inputs: NDArray[np.float32]) -> None:
    expected = run_trained_form(checkpoint)(inputs[:1])
    output = published.torch_form(checkpoint, device="cuda")(inputs[:1])
    np.testing.assert_allclose(output, expected, atol=5e-2)
