"""Every device of ONNX Runtime predicts as the CPU does, or is refused with a reason and a remedy."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from condseg_sdk import DeviceError, OnnxOptions, OptionError, Predictor
from condseg_sdk.runtimes import openvino_session, providers, session
from condseg_sdk.runtimes.onnx_runtime import OnnxRuntime
from condseg_sdk.runtimes.providers import PROVIDERS, Plugin, find_provider, preferred_devices

IMAGES = [np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8) for seed in range(4)]
PLUGINS = [name for name, provider in PROVIDERS.items() if provider.plugin is not None]


@pytest.fixture(scope="module")
def files(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    predictor = Predictor.from_pretrained(checkpoint, device="cpu")
    kinds: dict[str, dict[str, Any]] = {
        "free": {"branch_uncertainty": True},
        "fixed": {"dynamic": False},
    }
    return {
        name: predictor.export_onnx(folder / f"{name}.onnx", verify=False, **options).path
        for name, options in kinds.items()
    }


@pytest.fixture(scope="module", params=["cpu", "openvino"])
def device(request: pytest.FixtureRequest) -> str:
    """A device of this machine; OpenVINO, for example, is an extra."""
    name: str = request.param
    try:
        find_provider(name)[0].check(name)
    except DeviceError as error:
        pytest.skip(str(error))
    return name


@pytest.fixture(scope="module")
def opened(device: str, files: dict[str, Path]) -> dict[str, Predictor]:
    return {name: Predictor.from_pretrained(path, device=device) for name, path in files.items()}


@pytest.fixture(scope="module")
def expected(files: dict[str, Path]) -> dict[str, Predictor]:
    return {name: Predictor.from_pretrained(path, device="cpu") for name, path in files.items()}


@pytest.mark.parametrize("kind", ["free", "fixed"])
def test_a_device_predicts_as_the_cpu_does(
    opened: dict[str, Predictor], expected: dict[str, Predictor], kind: str
) -> None:
    for batch_size in (1, 3):
        ours, theirs = (x[kind].predict(IMAGES, batch_size=batch_size) for x in (opened, expected))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.probability, b.probability, atol=1e-4)
    again = pickle.loads(pickle.dumps(opened[kind]))
    assert again.device == opened[kind].device
    np.testing.assert_allclose(again(IMAGES[0]).probability, opened[kind](IMAGES[0]).probability, atol=1e-5)


@pytest.mark.slow
def test_a_device_runs_int8_files(device: str, checkpoint: Path, tmp_path: Path) -> None:
    if device == "cpu":
        return  # tests/export compares it with PyTorch
    options: dict[str, Any] = {"precision": "int8", "dynamic": False, "calibration": IMAGES, "verify": False}
    path = Predictor.from_pretrained(checkpoint, device="cpu").export_onnx(tmp_path / "int8.onnx", **options).path
    ours, theirs = (Predictor.from_pretrained(path, device=name)(IMAGES[0]).probability for name in (device, "cpu"))
    np.testing.assert_allclose(ours, theirs, atol=0.2)


def test_device_and_providers_say_what_runs(opened: dict[str, Predictor], device: str) -> None:
    provider, _ = find_provider(device)
    for predictor in opened.values():
        assert predictor.device == provider.device
        assert predictor.providers[0] == provider.name


def test_batch_height_and_width_are_free_on_a_device(files: dict[str, Path], device: str) -> None:
    ours, theirs = (OnnxRuntime(files["free"], device=name) for name in (device, "cpu"))
    for shape in ((1, 3, 64, 64), (3, 3, 96, 64), (2, 3, 64, 160), (1, 3, 64, 64)):
        batch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        pairs = zip(*(x.run(batch, branch_uncertainty=True) for x in (ours, theirs)), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-3)


def test_threads_share_a_predictor(opened: dict[str, Predictor]) -> None:
    wanted = [opened["free"](image).logits for image in IMAGES]
    found: dict[int, Any] = {}

    def predict(number: int) -> None:
        found[number] = opened["free"](IMAGES[number % len(IMAGES)]).logits

    threads = [threading.Thread(target=predict, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, logits in found.items():
        np.testing.assert_allclose(logits, wanted[number % len(IMAGES)], atol=1e-4)
    assert len(found) == 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_predicts_or_refuses(files: dict[str, Path], device: str) -> None:
    options = OnnxOptions(threads=1)
    predictor = Predictor.from_pretrained(files["fixed"], device=device, runtime=options)
    wanted = predictor(IMAGES[0]).logits

    def child() -> bool:
        if device == "cpu":
            return bool(np.abs(predictor(IMAGES[0]).logits - wanted).max() < 1e-4)
        with pytest.raises(DeviceError, match="load the predictor in each process"):
            predictor(IMAGES[0])
        with pytest.raises(DeviceError, match="load the predictor in each process"):
            Predictor.from_pretrained(files["fixed"], device=device)
        return Predictor.from_pretrained(files["fixed"], device="auto", runtime=options).device == "cpu"

    assert in_fork(child)


def in_fork(work: Callable[[], bool]) -> bool:
    """Whether the work in a forked child returns True."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def test_a_lower_precision_is_used_where_it_is_requested(device: str, files: dict[str, Path]) -> None:
    def predict(name: str, options: OnnxOptions) -> Any:
        return Predictor.from_pretrained(files["fixed"], device=name, runtime=options)(IMAGES[0]).probability

    lower = OnnxOptions(precision="bfloat16")
    provider, _ = find_provider(device)
    core = openvino_session.load_core(device) if provider.openvino else None
    if core is None or "BF16" not in openvino_session.supported_precisions(core, provider.openvino):
        with pytest.raises(OptionError, match="precision='bfloat16'.*use"):
            predict(device, lower)
        return
    difference = np.abs(predict(device, lower) - predict("cpu", OnnxOptions())).max()
    assert 1e-5 < difference < 0.2


def test_what_a_device_lacks_is_refused(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"precision": "bfloat16"}, {"cache_compiled": True}):
        with pytest.raises(OptionError, match="device='cpu'") as caught:
            Predictor.from_pretrained(files["fixed"], device="cpu", runtime=OnnxOptions(**options))
        assert caught.value.option in options
    for name in ("gpu", "cpu:0", "cuda:", "cuda:x", "openvino:1", "openvino:tpu", "auto:1"):
        with pytest.raises(OptionError, match="'openvino:gpu', 'openvino:npu'; for a GPU by its number 'cuda:1'"):
            Predictor.from_pretrained(files["fixed"], device=name)


def test_a_missing_gpu_is_refused(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "has_nvidia_driver", lambda: False)
    for name in ("cuda", "cuda:1", "tensorrt"):
        with pytest.raises(DeviceError, match="use 'cpu'"):
            Predictor.from_pretrained(files["fixed"], device=name)


def test_a_requested_provider_that_is_not_used_is_an_error(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if CUDA's libraries were missing: ONNX Runtime would go on with the CPU and say so on stderr alone."""
    monkeypatch.setattr(providers, "has_nvidia_driver", lambda: True)
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda **_: None, raising=False)
    real = onnxruntime.InferenceSession

    def quiet_fallback(path: str, options: object, providers: object, **_: object) -> object:
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", quiet_fallback)
    with pytest.raises(DeviceError, match="runs on CPUExecutionProvider instead of CUDAExecutionProvider"):
        Predictor.from_pretrained(files["fixed"], device="cuda")
    assert Predictor.from_pretrained(files["fixed"], device="auto").device == "cpu"


TOO_OLD = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static onnxruntime::"
    "CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const onnxruntime::"
    "ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse Failed to parse provider option "
    '"device_id": CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ;'
)
NO_TENSORRT = (
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void onnxruntime::python::RegisterTensorRT"
    "PluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) Please install TensorRT libraries"
)


@pytest.mark.parametrize(
    ("device", "message", "reason"),
    [
        (
            "cuda",
            TOO_OLD,
            r'\(Failed to parse provider option "device_id": CUDA failure 35: CUDA driver version is insuff',
        ),
        ("tensorrt", NO_TENSORRT, r"\(Please install TensorRT libraries\)"),
    ],
)
def test_the_reason_why_a_gpu_cannot_be_used_is_told(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, device: str, message: str, reason: str
) -> None:
    monkeypatch.setattr(providers, "has_nvidia_driver", lambda: True)
    wanted = PROVIDERS[device].name
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [wanted, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda **_: None, raising=False)
    real = onnxruntime.InferenceSession

    def refuse(path: str, options: object, providers: list[Any], enable_fallback: int = 1) -> object:
        if providers[0] == "CPUExecutionProvider":
            return real(path, options, providers=providers)
        assert not enable_fallback
        raise RuntimeError(message)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(DeviceError, match=reason):
        Predictor.from_pretrained(files["fixed"], device=device)


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has registered and loaded nothing."""
    monkeypatch.setattr(providers, "_owners", {})
    monkeypatch.setattr(openvino_session, "_core", None)
    monkeypatch.setattr(openvino_session, "_owner", None)


@pytest.mark.parametrize("name", PLUGINS)
def test_a_missing_plugin_is_refused_with_what_to_install(
    files: dict[str, Path], no_plugins: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(Plugin, "is_installed", lambda _: False)
    plugin = PROVIDERS[name].plugin
    assert plugin is not None
    with pytest.raises(
        DeviceError, match=f"needs a plug-in of ONNX Runtime: pip install '{plugin.install}'".replace("[", r"\[")
    ) as caught:
        Predictor.from_pretrained(files["fixed"], device=name)
    assert caught.value.option == "device"


def test_a_device_that_only_onnx_runtime_has_is_checked_before_a_checkpoint_is_exported(
    checkpoint: Path, no_plugins: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_session, "is_installed", lambda: False)
    monkeypatch.setattr("condseg_sdk.runtimes.open.exported_once", pytest.fail)
    with pytest.raises(DeviceError, match=r"pip install 'condseg_sdk\[openvino\]'"):
        Predictor.from_pretrained(checkpoint, device="openvino")


@pytest.mark.parametrize("name", PLUGINS)
def test_a_damaged_plugin_is_refused(
    files: dict[str, Path], no_plugins: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    library = tmp_path / "plugin.so"
    library.write_bytes(b"not a library")
    monkeypatch.setattr(Plugin, "is_installed", lambda _: True)
    monkeypatch.setattr(providers, "import_module", lambda _: SimpleNamespace(get_library_path=lambda: str(library)))
    for _ in range(2):  # nothing is remembered of the first attempt
        with pytest.raises(
            DeviceError, match=r"cannot be loaded \(.*\): install what is missing, .* or use device='cpu'"
        ):
            Predictor.from_pretrained(files["fixed"], device=name)


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_without_a_processor_is_refused_and_registered_once(
    files: dict[str, Path], no_plugins: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    registered: list[str] = []
    monkeypatch.setattr(Plugin, "is_installed", lambda _: True)
    monkeypatch.setattr(providers, "import_module", lambda _: SimpleNamespace(get_library_path=lambda: "library"))
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", lambda *names: registered.append(names[0]))
    monkeypatch.setattr(onnxruntime, "get_ep_devices", list)
    refused: list[str] = []

    def attempt() -> None:
        try:
            Predictor.from_pretrained(files["fixed"], device=name)
        except DeviceError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registered) == 1
    assert len(refused) == 4
    assert f"its plug-in finds no {PROVIDERS[name].processor} on this machine; use 'cpu' or 'auto'" in refused[0]


def processor(vendor: str) -> SimpleNamespace:
    kind = onnxruntime.OrtHardwareDeviceType.CPU
    return SimpleNamespace(
        ep_name="CPUExecutionProvider", ep_metadata={}, device=SimpleNamespace(type=kind, vendor=vendor)
    )


@pytest.mark.parametrize(
    ("vendor", "installed", "driver", "order"),
    [
        ("Intel", True, False, ["openvino", "cpu"]),
        ("Intel", False, False, ["cpu"]),
        ("AMD", True, False, ["cpu"]),
        ("Intel", True, True, ["cuda", "openvino", "cpu"]),
    ],
)
def test_auto_prefers_what_is_fast(
    no_plugins: None, monkeypatch: pytest.MonkeyPatch, vendor: str, installed: bool, driver: bool, order: list[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [processor(vendor)])
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(openvino_session, "is_installed", lambda: installed)
    monkeypatch.setattr(providers, "has_nvidia_driver", lambda: driver)
    assert preferred_devices() == order
    assert preferred_devices("int8") == [name for name in order if name != "openvino"]  # it rounds differently


def test_auto_goes_on_with_the_cpu_and_says_so(
    files: dict[str, Path], no_plugins: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "preferred_devices", lambda _: ["openvino", "cpu"])
    monkeypatch.setattr(openvino_session, "is_installed", lambda: False)
    assert Predictor.from_pretrained(files["fixed"]).device == "cpu"
    assert "not on openvino (device='openvino' needs OpenVINO: pip install 'condseg_sdk[openvino]'" in caplog.text


@pytest.mark.parametrize("name", ["openvino", "openvino:gpu", "openvino:npu"])
def test_a_damaged_openvino_is_refused(
    files: dict[str, Path], no_plugins: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(openvino_session, "is_installed", lambda: True)
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace())  # has no Core
    with pytest.raises(DeviceError, match=r"OpenVINO cannot be loaded \(.*\): pip install .* or use device='cpu'"):
        Predictor.from_pretrained(files["fixed"], device=name)


@pytest.mark.parametrize("name", ["openvino:gpu", "openvino:npu"])
def test_openvino_without_a_processor_is_refused(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(openvino_session, "load_core", lambda _: SimpleNamespace(available_devices=["CPU", "TPU.0"]))
    with pytest.raises(DeviceError, match=r"OpenVINO finds no .* of Intel on this machine; use 'cpu' or 'auto'"):
        Predictor.from_pretrained(files["fixed"], device=name)


def test_session_options_belong_to_onnx_runtime(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    options = OnnxOptions(session_options={"session.intra_op.allow_spinning": "0"})
    if openvino_session.is_installed():
        with pytest.raises(OptionError, match="session_options=.* belong to ONNX Runtime") as caught:
            Predictor.from_pretrained(files["fixed"], device="openvino", runtime=options)
        assert caught.value.option == "session_options"
    monkeypatch.setattr(session, "preferred_devices", lambda _: ["openvino", "cpu"])
    assert Predictor.from_pretrained(files["fixed"], runtime=options).device == "cpu"


def test_bound_outputs_are_those_of_a_run_without_binding(files: dict[str, Path]) -> None:
    runtime = OnnxRuntime(files["free"], device="cpu")  # a GPU's memory is not there to bind to
    batch = np.random.default_rng(0).standard_normal((3, 3, 64, 96), np.float32)
    names = list(runtime.info.outputs)
    for bound, plain in zip(runtime._run_bound(names, batch), runtime._run(names, batch), strict=True):
        np.testing.assert_array_equal(bound, plain)


def test_an_input_that_is_too_small_for_a_provider_is_refused(files: dict[str, Path]) -> None:
    runtime = OnnxRuntime(files["free"], device="cpu")
    runtime._provider = PROVIDERS["openvino:cpu"]
    with pytest.raises(OptionError, match=r"64x32 is too small for it, which needs 64x64: use device='cpu'"):
        runtime.run(np.zeros((1, 3, 32, 64), np.float32), branch_uncertainty=False)


def test_batches_reach_every_gpu_whole() -> None:
    assert {name for name, provider in PROVIDERS.items() if not provider.batches} == {
        "cpu",
        "openvino:cpu",
        "openvino:npu",
    }


def test_a_precision_that_a_processor_lacks_is_refused() -> None:
    old = ["WINOGRAD", "FP32", "INT8", "BIN", "EXPORT_IMPORT"]
    provider = PROVIDERS["openvino:cpu"]
    assert provider.choose_precision(None, old) == "float32"
    with pytest.raises(OptionError, match="this processor has no instructions for it; use precision='float32'"):
        provider.choose_precision("bfloat16", old)
    assert PROVIDERS["openvino:npu"].choose_precision(None) == "float16"
