"""Reads and writes model.safetensors: exactly the tensors of a network, or an error that names the differences."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from condseg_sdk.errors import CheckpointError
from condseg_sdk.files import is_utf8

__all__ = ["WeightsDtype", "list_names", "load_weights", "read_tensors", "tensors_to_bytes"]

NAMES_SHOWN = 5
MAX_HEADER = 4 * 2**20  # size of a safetensors header; the networks here need a hundred kilobytes
MAX_FILE = 2**30  # four times the largest published network
GREATEST_WEIGHT = 1e12  # a flipped bit of an exponent exceeds it; a trained network stays below 1e6

WeightsDtype = Literal["float32", "float16"]


def list_names(**groups: Sequence[str]) -> str:
    """Describe groups of names in one line: the first few names of each and their number, without empty groups.

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
    """Read all tensors of a safetensors file.

    Raises:
        CheckpointError: The file is missing, damaged, or not a safetensors file.
    """
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)


def load_weights(network: nn.Module, path: Path) -> None:
    """Give a network the weights of a safetensors file, in place.

    The file's header is compared with the network first, so that a damaged file allocates nothing.

    Args:
        network: Every parameter and buffer is replaced. It may be on the meta device, where it takes no memory.
        path: The file; floating-point tensors of any width become float32.

    Raises:
        CheckpointError: The file is missing or damaged, or has tensors that are missing, unknown, of the wrong shape or
            kind, or contain values that training never produces; the message names them.
    """
    expected = network.state_dict()
    with _open(path) as file:
        found = {name: _describe(file, name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        _check_layout(found, {name: _kind_and_shape(value) for name, value in expected.items()}, path)
        state = {
            # A copy, since the tensors may be views of a file that somebody replaces later.
            name: file.get_tensor(name).to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
            for name, value in expected.items()
        }
    _check_values(state, path)
    network.load_state_dict(state, assign=True)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Open a safetensors file; only its header is read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
            if length > MAX_HEADER or size > MAX_FILE:
                raise ValueError("it is too large for ConDSeg")
            # The library only takes names in UTF-8; other names exist only on systems that have /dev/fd.
            name = path if is_utf8(path) else f"/dev/fd/{file.fileno()}"
            with safe_open(name, framework="pt") as tensors:
                yield tensors
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        remedy = "download or save the checkpoint again"
        raise CheckpointError(f"{path} cannot be read as safetensors ({reason}); {remedy}") from error


def _describe(file: Any, name: str) -> str:
    part = file.get_slice(name)
    dtype = str(part.get_dtype())
    kind = "float" if dtype.startswith(("F", "BF")) else "boolean" if dtype == "BOOL" else "integer"
    return f"{kind} {tuple(part.get_shape())}"


def _kind_and_shape(tensor: Tensor) -> str:
    return f"{'float' if tensor.is_floating_point() else 'integer'} {tuple(tensor.shape)}"


def _check_layout(found: Mapping[str, str], expected: Mapping[str, str], source: object) -> None:
    misfits = list_names(
        missing=[name for name in expected if name not in found],
        unknown=sorted(found.keys() - expected.keys()),
        misshapen=[
            f"{name} {found[name]}, not {expected[name]}"
            for name in sorted(expected.keys() & found.keys())
            if found[name] != expected[name]
        ],
    )
    if misfits:
        remedy = "load it with the network it was made for"
        raise CheckpointError(f"{source} does not contain this network's weights: {misfits}; {remedy}")


def tensors_to_bytes(network: nn.Module, dtype: WeightsDtype) -> bytes:
    """Write a network's weights as the content of model.safetensors.

    With "float16", vectors (biases and the values of BatchNorm) stay float32: they take half a percent of the bytes,
    and a running variance may exceed 65504, the largest number of float16.

    Raises:
        CheckpointError: Weights are not finite at this precision.
    """
    state = {
        name: (value.to(getattr(torch, dtype)) if value.is_floating_point() and value.ndim > 1 else value)
        .cpu()
        .contiguous()
        for name, value in network.state_dict().items()
    }
    _check_values(state, f"the network as {dtype}", remedy="train it again with a lower learning rate")
    return save(state, metadata={"format": "pt"})


def _check_values(
    state: Mapping[str, Tensor], source: object, *, remedy: str = "download or save the checkpoint again"
) -> None:
    """Refuse values that training never produces, such as NaN."""
    floats = {name: value for name, value in state.items() if value.is_floating_point()}
    extremes = {name: value.aminmax() for name, value in floats.items()}
    problems = list_names(
        tensors=[name for name, (low, high) in extremes.items() if not (low.isfinite() and high.isfinite())]
    )
    if problems:
        raise CheckpointError(f"{source} has weights that are not finite: {problems}; {remedy}")
    problems = list_names(
        tensors=[
            name
            for name, (low, high) in extremes.items()
            if max(-low, high) > GREATEST_WEIGHT or (name.endswith("running_var") and low < 0)
        ]
    )
    if problems:
        raise CheckpointError(f"{source} is damaged, it has weights that training never produces: {problems}; {remedy}")
