"""Renames the tensors of state dicts from other projects."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from condseg_sdk.checkpoints.tensors import list_names
from condseg_sdk.errors import CheckpointError

__all__ = ["rename_tensors"]

BATCH_COUNTER = "num_batches_tracked"  # counts training steps and does not affect results; older files do not have it


def rename_tensors(
    state: Mapping[str, object],
    expected: Mapping[str, Tensor],
    names: Mapping[str, str],
    *,
    left_out: tuple[str, ...] = (),
    what: str,
) -> dict[str, Tensor]:
    """Rename the tensors of a state dict and check that each one is expected.

    Args:
        state: The published state dict.
        expected: State dict of the network that takes the tensors, possibly on the meta device.
        names: Prefixes of the published names, mapped to prefixes of the network's. The longest prefix is used.
        left_out: Prefixes of published tensors that the network does not have.
        what: Name of the network, for the error message.

    Returns:
        A state dict for the network's strict `load_state_dict`, with floating-point tensors in float32. A linear layer
        over channels becomes a 1x1 convolution, and missing batch counters become 0.

    Raises:
        CheckpointError: Tensors are unknown, missing, not finite, or of the wrong shape or dtype; the message names
            them.

    Example:
        >>> rename_tensors({"fc.bias": torch.ones(2)}, {"head.bias": torch.zeros(2)}, {"fc": "head"}, what="a network")
        {'head.bias': tensor([1., 1.])}
    """
    renamed: dict[str, Tensor] = {}
    unknown, misshapen, infinite, found = [], [], [], set()
    for published, value in state.items():
        if published.startswith(left_out):
            continue
        name = _rename(published, names)
        if name not in expected or not isinstance(value, Tensor):
            unknown.append(published)
            continue
        found.add(name)
        target = expected[name]
        # Shapes first: a damaged file may contain a tensor that takes terabytes once anything is computed from it.
        if value.shape != target.shape and (*value.shape, 1, 1) != target.shape:
            misshapen.append(f"{published} {tuple(value.shape)}, not {tuple(target.shape)}")
        elif not _is_alike(value, target):
            misshapen.append(f"{published} of {value.dtype}, not {target.dtype}")
        elif not value.isfinite().all():
            infinite.append(published)
        else:
            dtype = torch.float32 if value.is_floating_point() else target.dtype
            renamed[name] = value.reshape(target.shape).to(dtype, copy=True)
    missing = [name for name in expected if name not in found and not name.endswith(BATCH_COUNTER)]
    problems = list_names(missing=missing, unknown=unknown, misshapen=misshapen, infinite=infinite)
    if problems:
        raise CheckpointError(f"not the weights of {what}: {problems}; choose the network they belong to")
    return {name: renamed.get(name, torch.tensor(0)) for name in expected}


def _rename(name: str, names: Mapping[str, str]) -> str:
    """Return the new name by the longest prefix in the table, or "" if there is none."""
    prefix = name
    while prefix:
        if prefix in names:
            return names[prefix] + name[len(prefix) :]
        prefix = prefix.rpartition(".")[0]
    return ""


def _is_alike(value: Tensor, target: Tensor) -> bool:
    """Return whether a tensor is dense, real and on the CPU, and floating-point exactly if the target is."""
    ordinary = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    return ordinary and value.is_floating_point() == target.is_floating_point() and not value.is_complex()
