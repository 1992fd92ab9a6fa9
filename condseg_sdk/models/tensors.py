"""model.safetensors of a checkpoint: all tensors of a network, no other ones, or an error that names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from condseg_sdk.errors import CheckpointError
from condseg_sdk.files import is_utf8

__all__ = ["WeightsDtype", "fill", "list_names", "read_tensors", "tensors_to_bytes"]

NAMES_SHOWN = 5

WeightsDtype = Literal["float32", "float16"]


def list_names(**groups: Sequence[str]) -> str:
    """One line over groups of names: the first few by name, the rest by number; empty groups are left out.

    Example:
        >>> list_names(missing=["a", "b"], unknown=[])
        '2 missing (a, b)'
    """
    return ", ".join(
        f"{len(names)} {problem} ({', '.join(names[:NAMES_SHOWN])}{', ...' if len(names) > NAMES_SHOWN else ''})"
        for problem, names in groups.items()
        if names
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        CheckpointError: the file is missing, damaged, or no safetensors file.
    """
    try:
        # By its content where the library cannot be given the name, which it takes as UTF-8.
        return load_file(path) if is_utf8(path) else load(path.read_bytes())
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        remedy = "download or save the checkpoint again"
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); {remedy}") from error


def fill(network: nn.Module, tensors: Mapping[str, Tensor], *, source: object) -> None:
    """Give a network its weights, in place; it may stand on the meta device, where it takes no memory of its own.

    Args:
        network: every parameter and buffer is replaced.
        tensors: from `read_tensors`; floating-point ones of any width become float32.
        source: where the tensors come from, for messages.

    Raises:
        CheckpointError: tensors that are missing, unknown, of the wrong shape or kind, or not finite, by name.
    """
    expected = network.state_dict()
    shared = expected.keys() & tensors.keys()
    misfits = list_names(
        missing=[name for name in expected if name not in tensors],
        unknown=sorted(tensors.keys() - expected.keys()),
        misshapen=[
            f"{name} {_describe(tensors[name])}, not {_describe(expected[name])}"
            for name in sorted(shared)
            if _describe(tensors[name]) != _describe(expected[name])
        ],
    )
    if misfits:
        remedy = "load it with the network it was made for"
        raise CheckpointError(f"{source} does not hold this network's weights: {misfits}; {remedy}")
    # A copy, since the tensors may be views of a file that somebody replaces later.
    state = {
        name: value.to(torch.float32 if value.is_floating_point() else expected[name].dtype, copy=True)
        for name, value in tensors.items()
    }
    _check_finite(state, source)
    network.load_state_dict(state, assign=True)


def tensors_to_bytes(network: nn.Module, dtype: WeightsDtype) -> bytes:
    """A network's state as the content of model.safetensors.

    With "float16" vectors (biases and BatchNorm's numbers) stay float32: they are half a percent of the bytes, and a
    running variance may well exceed 65504, float16's largest number.

    Raises:
        CheckpointError: weights that are not finite, or not any more at this precision.
    """
    state = {
        name: (value.to(getattr(torch, dtype)) if value.is_floating_point() and value.ndim > 1 else value)
        .cpu()
        .contiguous()
        for name, value in network.state_dict().items()
    }
    _check_finite(state, f"the network as {dtype}")
    return save(state, metadata={"format": "pt"})


def _check_finite(state: Mapping[str, Tensor], source: object) -> None:
    names = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if names:
        raise CheckpointError(f"{source} has weights that are not finite: {list_names(tensors=names)}; train it again")


def _describe(tensor: Tensor) -> str:
    return f"{'float' if tensor.is_floating_point() else 'integer'} {tuple(tensor.shape)}"
