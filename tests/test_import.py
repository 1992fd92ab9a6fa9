"""What importing the package loads, and what its names are."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import condseg_sdk

LAZY = ("torch", "onnx", "onnxruntime", "cv2", "numpy", "PIL", "huggingface_hub", "safetensors", "lightning", "scipy")
TRAINING = ("lightning", "kornia", "monai", "matplotlib", "torchmetrics", "onnxruntime", "ray")


def loaded_by(code: str) -> set[str]:
    """Return the modules that a new interpreter has loaded after some code."""
    show = f"{code}; import sys; print(*sys.modules)"
    return {*subprocess.check_output([sys.executable, "-c", show], text=True).split()}


def test_importing_the_package_loads_two_small_modules_of_it_and_no_library() -> None:
    modules = loaded_by("import condseg_sdk")
    own = {name for name in modules if name.startswith("condseg_sdk")}
    assert own == {"condseg_sdk", "condseg_sdk._version", "condseg_sdk.privacy"}
    assert not modules & {*LAZY}


def test_errors_and_options_need_no_library() -> None:
    assert not loaded_by("from condseg_sdk import CondsegError, OnnxOptions, TorchOptions") & {*LAZY}


def test_the_predictor_and_the_command_line_load_no_training_stack() -> None:
    assert not loaded_by("from condseg_sdk import Predictor; import condseg_sdk.cli") & {*TRAINING}


def test_every_public_name_exists() -> None:
    for name in condseg_sdk.__all__:
        assert getattr(condseg_sdk, name) is not None
    assert {*condseg_sdk.__all__} <= {*dir(condseg_sdk)}


def public_functions() -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield the public functions of the package and the public methods of its classes."""
    for name in condseg_sdk.__all__:
        value = getattr(condseg_sdk, name)
        members = vars(value) if inspect.isclass(value) else {"": value}
        for member, function in members.items():
            function = function.fget if isinstance(function, property) else getattr(function, "__func__", function)
            function = inspect.unwrap(function) if callable(function) else function
            if inspect.isfunction(function) and (member in ("__call__", "__init__") or not member.startswith("_")):
                yield f"{name}.{member}", function


def test_no_public_signature_has_any() -> None:
    found = {
        name: annotation
        for name, function in public_functions()
        for annotation in function.__annotations__.values()
        if re.search(r"\bAny\b", str(annotation))
    }
    assert not found
