"""Opens a model in the runtime that fits it: ONNX Runtime for .onnx files, PyTorch for checkpoints."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Unpack, get_args

from condseg_sdk.checkpoints.config import CheckpointConfig
from condseg_sdk.collector import collector_paused
from condseg_sdk.download import WEIGHTS_FILE
from condseg_sdk.errors import HubError, ModelNotFoundError, OptionError, errors_about
from condseg_sdk.forking import fork_safe
from condseg_sdk.origin import ModelFile
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.runtimes.base import Runtime
from condseg_sdk.runtimes.export_cache import exported_once
from condseg_sdk.runtimes.options import ONNX_DEVICES, OnnxOptions, RuntimeName, TorchOptions
from condseg_sdk.runtimes.providers import find_provider, preferred_devices
from condseg_sdk.weights.hub import ResolveOptions, is_onnx, resolve, resolve_onnx

__all__ = ["OpenedModel", "choose_options", "open_runtime"]


class OpenedModel(NamedTuple):
    """A model that is ready to run.

    Attributes:
        runtime: Executes the network.
        config: Config of the checkpoint.
        path: Checkpoint folder, or .safetensors or .onnx file, that was opened.
        weights: File whose SHA-256 identifies the model: the checkpoint's weights, or an .onnx file that was opened by
            name.
    """

    runtime: Runtime
    config: CheckpointConfig
    path: Path
    weights: ModelFile


def open_runtime(
    model: str | os.PathLike[str],
    *,
    device: str,
    runtime: RuntimeName | TorchOptions | OnnxOptions | None = None,
    preprocessing: Preprocessing | None = None,
    **where: Unpack[ResolveOptions],
) -> OpenedModel:
    """Open a model with the arguments of `Predictor.from_pretrained`.

    Raises:
        OptionError: The model's runtime does not support one of the options.
        ModelNotFoundError: The model does not exist.
        HubError: The Hub denies access or cannot be reached.
        CheckpointError: The model is incomplete or damaged.
        DeviceError: The device cannot be used.
    """
    options = choose_options(model, device, runtime)
    if isinstance(options, TorchOptions):
        if is_onnx(model):
            raise OptionError(
                f"runtime={runtime!r}: {model} is an ONNX file; pass the checkpoint that it was exported from",
                option="runtime",
            )
        return _open_torch(resolve(model, **where), preprocessing, device=device, options=options)
    first = preferred_devices()[0] if device == "auto" else device
    provider, _ = find_provider(first)
    if device != "auto":  # before the export, which takes long
        provider.check(device)
    path, weights = _onnx_file(model, preprocessing, batches=provider.batches, **where)
    with errors_about(path), collector_paused():
        # Not at the top: loading it takes a while and only .onnx files need it.
        from condseg_sdk.runtimes.onnx_runtime import OnnxRuntime

        opened = OnnxRuntime(path, device=device, options=options)
    return OpenedModel(opened, opened.config, path, ModelFile(weights))


def _onnx_file(
    model: str | os.PathLike[str],
    preprocessing: Preprocessing | None,
    *,
    batches: bool,
    **where: Unpack[ResolveOptions],
) -> tuple[Path, Path]:
    """Return an .onnx file, the model.onnx of a checkpoint, or an export of a checkpoint that has none.

    Args:
        model: As in `open_runtime`.
        preprocessing: As in `open_runtime`.
        batches: Whether the device gains from several images at once.
        where: As in `open_runtime`.

    Returns:
        The file, and the file that identifies the model: for an export, the weights that it was made from.
    """
    if is_onnx(model):
        if preprocessing is None:
            path = resolve(model, **where)
            return path, path
        raise OptionError(
            f"preprocessing={preprocessing!r}: {model} has its own; export it again to change it",
            option="preprocessing",
        )
    if preprocessing is None:
        # Without a network the checkpoint may still be in the cache; if it is not, `resolve` says so.
        with suppress(ModelNotFoundError, HubError):
            path = resolve_onnx(model, **where)
            return path, path
    checkpoint = resolve(model, **where)
    return exported_once(checkpoint, preprocessing=preprocessing, dynamic=batches), _weights_of(checkpoint)


def _weights_of(checkpoint: Path) -> Path:
    return checkpoint / WEIGHTS_FILE if checkpoint.is_dir() else checkpoint


def choose_options(
    model: str | os.PathLike[str], device: str, runtime: RuntimeName | TorchOptions | OnnxOptions | None
) -> TorchOptions | OnnxOptions:
    """Return the options of the runtime that opens a model, from the arguments of `Predictor.from_pretrained`.

    Raises:
        OptionError: `runtime` has another value.
    """
    if isinstance(runtime, (TorchOptions, OnnxOptions)):
        return runtime
    names = get_args(RuntimeName)
    if runtime is not None and runtime not in names:
        raise OptionError(
            f"runtime={runtime!r} must be {', '.join(map(repr, names))}, TorchOptions(...) or OnnxOptions(...)",
            option="runtime",
        )
    needs_onnx = is_onnx(model) or device.partition(":")[0] in ONNX_DEVICES
    return OnnxOptions() if runtime == "onnx" or (runtime is None and needs_onnx) else TorchOptions()


@fork_safe
@collector_paused()
def _open_torch(path: Path, preprocessing: Preprocessing | None, *, device: str, options: TorchOptions) -> OpenedModel:
    # Not at the top: an .onnx file needs no PyTorch, which takes seconds to load.
    from condseg_sdk.runtimes.torch_runtime import TorchRuntime
    from condseg_sdk.weights.checkpoint import load_checkpoint

    with errors_about(path):
        network, config = load_checkpoint(path, preprocessing=preprocessing)
    runtime = TorchRuntime(network, device=device, options=options)
    return OpenedModel(runtime, config, path, ModelFile(_weights_of(path)))
