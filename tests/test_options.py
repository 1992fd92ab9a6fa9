"""Options are checked by the public functions, and a bool is not a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from condseg_sdk import OnnxOptions, Predictor, TorchOptions
from condseg_sdk.errors import DeviceError, OptionError
from condseg_sdk.options import check_choice, check_integer, check_number, check_spacing
from condseg_sdk.runtimes import torch_runtime

IMAGE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.from_pretrained(checkpoint, device="cpu")


CALL: list[dict[str, Any]] = [
    {"batch_size": "8"}, {"batch_size": True}, {"batch_size": 2.0}, {"batch_size": 0}, {"batch_size": None},
    {"batch_size": 10**9}, {"threshold": "0.5"}, {"threshold": float("nan")}, {"threshold": 1}, {"threshold": True},
    {"threshold": np.array([0.1, 0.2])}, {"tile": True}, {"tile": "256"}, {"tile": 256.0}, {"tile": 5}, {"tta": 1},
    {"tta": "yes"}, {"branch_uncertainty": None}, {"color_order": "grb"}, {"color_order": []},
]  # fmt: skip


@pytest.mark.parametrize("options", CALL, ids=str)
def test_invalid_options_of_a_prediction_are_refused(options: dict[str, Any], predictor: Predictor) -> None:
    name = next(iter(options))
    for call, source in ((predictor, IMAGE), (predictor.predict, [IMAGE]), (predictor.stream, [IMAGE])):
        with pytest.raises(OptionError, match=name) as caught:
            call(source, **options)
        assert caught.value.option == name


@pytest.mark.parametrize("wrong", ["ignore", None])
def test_invalid_error_handlers_are_refused(wrong: Any, predictor: Predictor) -> None:
    for call in (predictor.predict, predictor.stream):
        with pytest.raises(OptionError, match="on_error"):
            call([IMAGE], on_error=wrong)


OPEN: list[dict[str, Any]] = [
    {"device": 0}, {"device": None}, {"device": ""}, {"runtime": "tf"}, {"runtime": 1}, {"runtime": {}}, {"revision": 3},
    {"cache_dir": 5}, {"token": 7}, {"local_files_only": "yes"}, {"preprocessing": {}}, {"manifest": 1},
]  # fmt: skip


@pytest.mark.parametrize("options", OPEN, ids=str)
def test_invalid_options_of_from_pretrained_are_refused(options: dict[str, Any], checkpoint: Path) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        Predictor.from_pretrained(checkpoint, **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (TorchOptions, {"precision": 16}),
        (TorchOptions, {"precision": "half"}),
        (TorchOptions, {"execution": True}),
        (OnnxOptions, {"threads": 0}),
        (OnnxOptions, {"precision": "int8"}),
        (OnnxOptions, {"cache_compiled": "yes"}),
        (OnnxOptions, {"threads": "4"}),
        (OnnxOptions, {"session_options": {"a": 1}}),
        (OnnxOptions, {"session_options": "fast"}),
    ],
    ids=str,
)
def test_invalid_options_of_a_runtime_are_refused(kind: type, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))) as caught:
        kind(**options)
    assert caught.value.option == next(iter(options))


@pytest.mark.parametrize("model", [None, 5, "", "a\0b", True, b"name"])
def test_invalid_model_names_are_refused(model: Any) -> None:
    with pytest.raises(OptionError, match="model="):
        Predictor.from_pretrained(model)


def test_a_name_too_long_for_a_file_system_gives_a_short_message() -> None:
    with pytest.raises(OptionError, match="too long"):
        Predictor.from_pretrained("x" * 5000)


EXPORT: list[dict[str, Any]] = [
    {"opset": "18"}, {"opset": True}, {"opset": 5}, {"dynamic": 1}, {"verify": "no"}, {"branch_uncertainty": None},
    {"preprocessing": "yes"}, {"precision": "int4"}, {"path": 5}, {"path": ""}, {"path": None},
]  # fmt: skip


@pytest.mark.parametrize("options", EXPORT, ids=str)
def test_invalid_options_of_an_export_are_refused(
    options: dict[str, Any], predictor: Predictor, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        predictor.export_onnx(**{"path": tmp_path / "a.onnx", **options})
    assert list(tmp_path.iterdir()) == []


PUSH: list[dict[str, Any]] = [
    {"repo_id": None}, {"onnx": 1}, {"private": "yes"}, {"create_pr": 0}, {"branch": 5}, {"commit_message": ""},
    {"token": 3},
]  # fmt: skip


@pytest.mark.parametrize("options", PUSH, ids=str)
def test_invalid_options_of_a_push_are_refused(options: dict[str, Any], predictor: Predictor) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        predictor.push_to_hub(**{"repo_id": "org/name", **options})


def test_numpy_numbers_are_accepted(predictor: Predictor) -> None:
    assert check_integer("n", np.int64(8), least=1) == 8
    assert check_number("t", np.float32(0.5), above=0, below=1) == 0.5
    segs = predictor.predict([IMAGE], batch_size=np.int32(2), threshold=np.float64(0.25))
    assert segs[0].threshold == 0.25


def test_a_missing_device_gives_a_short_message(checkpoint: Path) -> None:
    with pytest.raises(DeviceError, match="has cpu") as caught:
        Predictor.from_pretrained(checkpoint, device="xpu:7")
    assert len(str(caught.value)) < 200


def test_a_missing_compiler_is_an_error_at_loading(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder

    def none() -> str:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(DeviceError, match="apt install g"):
        Predictor.from_pretrained(checkpoint, device="cpu", runtime=TorchOptions(execution="compiled"))
    assert Predictor.from_pretrained(checkpoint, device="cpu", runtime=TorchOptions(execution="eager")).device == "cpu"


def test_an_error_of_the_compiler_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CppCompileError: C++ compile error\nand forty lines more")

    monkeypatch.setattr(torch_runtime.torch, "compile", lambda _: broken)
    with pytest.raises(DeviceError, match=r"torch\.compile failed .*use execution='eager'"):
        torch_runtime._Compiled(lambda x: (x,))(None, uncertainty=False)  # type: ignore[arg-type]


def test_a_choice_lists_what_is_allowed_and_the_error_names_the_option() -> None:
    check_choice("color_order", "bgr", Literal["rgb", "bgr"])
    with pytest.raises(OptionError, match="color_order='grb' is not one of 'rgb', 'bgr'") as caught:
        check_choice("color_order", "grb", Literal["rgb", "bgr"])
    assert caught.value.option == "color_order"


@pytest.mark.parametrize("spacing", [0.5, [0.5], (0.5, 0.5), np.float32(0.5), np.array([0.5, 0.5])])
def test_a_spacing_is_one_or_two_numbers(spacing: Any) -> None:
    assert check_spacing(spacing) == (0.5, 0.5)


@pytest.mark.parametrize("spacing", [0, -1, "0.5", "12", [1, 2, 3], [], None, [1, None], float("inf"), np.ones((2, 2))])
def test_other_spacings_are_refused(spacing: Any) -> None:
    with pytest.raises(OptionError, match="spacing=") as caught:
        check_spacing(spacing)
    assert caught.value.option == "spacing"
