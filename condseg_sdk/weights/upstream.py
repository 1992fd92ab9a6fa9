"""The names of tensors in the authors' state dicts: one table for each of their three networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from condseg_sdk.errors import CheckpointError
from condseg_sdk.models import NETWORKS, ConDSeg, ConsistencyNetwork
from condseg_sdk.options import check_choice
from condseg_sdk.weights.rename import rename_tensors

__all__ = ["UpstreamNetwork", "convert_state_dict"]

UpstreamNetwork = Literal["condseg-r50", "condseg-pvt", "stage1"]
Table = dict[str, str]  # prefix of the published name -> prefix of the name here

LEVELS = range(1, 5)  # the published names count from 1, the names here from 0
PVT_DEPTHS = (3, 4, 6, 3)
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
PREFIXES = ("module.", "_orig_mod.")  # added by DataParallel and torch.compile


def convert_state_dict(state: Mapping[str, Any], network: UpstreamNetwork) -> dict[str, Tensor]:
    """Rename the tensors of a published network.

    Args:
        state: The published state dict, or a dictionary that contains it under a key such as "state_dict" or "model",
            with or without the "module." that DataParallel puts before each name.
        network: The network it belongs to: "condseg-r50" and "condseg-pvt" for `ConDSeg` with the arguments in
            `NETWORKS`, "stage1" for `ConsistencyNetwork()`.

    Returns:
        A state dict for that network's strict `load_state_dict`, with floating-point tensors in float32.

    Raises:
        OptionError: `network` is none of the three.
        CheckpointError: Tensors are unknown, missing, not finite or of the wrong shape; the message names them.

    Example:
        >>> from condseg_sdk.errors import CheckpointError
        >>> try:
        ...     convert_state_dict({"fc.weight": torch.zeros(1)}, "stage1")
        ... except CheckpointError as error:
        ...     print(str(error)[:64])
        not the weights of stage1: 236 missing (encoder.conv1.weight, en
    """
    check_choice("network", network, UpstreamNetwork)
    build, table = _NETWORKS[network]
    with torch.device("meta"):
        ours = build().state_dict()
    try:
        tensors = _unwrapped(state)
    except RecursionError:
        raise CheckpointError(f"not the weights of {network}: its dictionaries contain each other") from None
    return rename_tensors(tensors, ours, table, what=network)


def _unwrapped(state: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = next((state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)), None)
    if inner is not None:
        return _unwrapped(inner)
    for prefix in PREFIXES:
        if state and all(str(name).startswith(prefix) for name in state):
            return _unwrapped({name.removeprefix(prefix): value for name, value in state.items()})
    return {str(name): value for name, value in state.items()}


def _resnet() -> Table:
    return {
        "layer0.0": "encoder.conv1",
        "layer0.1": "encoder.bn1",
        "layer1.1": "encoder.layer1",
        "layer2": "encoder.layer2",
        "layer3": "encoder.layer3",
    }


def _pvt() -> Table:
    table = {}
    for n, depth in zip(LEVELS, PVT_DEPTHS, strict=True):
        stage = f"encoder.stages.{n - 1}"
        table[f"backbone.patch_embed{n}"] = f"{stage}.patch_embed"
        table[f"backbone.norm{n}"] = f"{stage}.norm"
        for block in range(depth):
            table[f"backbone.block{n}.{block}"] = f"{stage}.blocks.{block}"
            table[f"backbone.block{n}.{block}.mlp.dwconv.dwconv"] = f"{stage}.blocks.{block}.mlp.dwconv"
    return table


def _head(aux_convs: int) -> Table:
    """Return the names outside the encoder; `aux_convs` is the number of 3x3 convolutions in an auxiliary head."""
    table = {
        "output_block.fuse.conv": "output.fuse",
        "output_block.c1.conv": "output.refine.0",
        "output_block.c2.conv": "output.refine.1",
        "output_block.c3": "output.logits",
    }
    for n in LEVELS:
        table |= _dilated(n) | _cdfa(n)
        table |= _guide(f"preprocess_fg{n}", f"guide_foreground.{n - 1}", upsamplings=4 - n)
        table |= _guide(f"preprocess_bg{n}", f"guide_background.{n - 1}", upsamplings=4 - n)
    for part, ours in (("fg", "foreground"), ("bg", "background"), ("uc", "uncertainty")):
        table |= {f"decouple_layer.cbr_{part}.{i}.conv": f"sid.{ours}.{i}" for i in range(3)}
        # Upsamplings are numbered, too: one follows each convolution but the last.
        table |= {f"aux_head.branch_{part}.{2 * i}.conv": f"aux_{ours}.convs.{i}" for i in range(aux_convs)}
        table[f"aux_head.branch_{part}.{2 * aux_convs - 1}"] = f"aux_{ours}.logits"
    for size in ("small", "middle", "large"):
        table |= _size_decoder(f"decoder_{size}", f"decoder.{size}")
    return table


def _dilated(n: int) -> Table:
    published, ours = f"dconv{n}", f"dilated.{n - 1}"
    table = {
        f"{published}.c5.conv": f"{ours}.fuse",
        f"{published}.c6.conv": f"{ours}.shortcut",
        f"{published}.sa.conv1": f"{ours}.attention.conv",
    }
    for i in range(4):
        table[f"{published}.c{i + 1}.0.conv"] = f"{ours}.branches.{i}.0"
        table |= _channel_attention(f"{published}.c{i + 1}.1", f"{ours}.branches.{i}.1")
    return table


def _channel_attention(published: str, ours: str) -> Table:
    return {f"{published}.fc1": f"{ours}.squeeze", f"{published}.fc2": f"{ours}.excite"}


def _guide(published: str, ours: str, *, upsamplings: int) -> Table:
    """Return the names of a guide: c1 runs first, then conv_0, conv_1, ..., each after an upsampling."""
    table = {f"{published}.preprocess.conv_{i}.conv": f"{ours}.convs.{i + 1}" for i in range(upsamplings)}
    return table | {f"{published}.c1.conv": f"{ours}.convs.0"}


def _cdfa(n: int) -> Table:
    published, ours = f"cdfa{n}", f"cdfa.{n - 1}"
    return {
        f"{published}.input_cbr.0.conv": f"{ours}.inputs.0",
        f"{published}.input_cbr.1.conv": f"{ours}.inputs.1",
        f"{published}.v": f"{ours}.values",
        f"{published}.attn_fg": f"{ours}.attention_foreground",
        f"{published}.attn_bg": f"{ours}.attention_background",
        f"{published}.proj": f"{ours}.projection",
        f"{published}.output_cbr.0.conv": f"{ours}.outputs.0",
        f"{published}.output_cbr.1.conv": f"{ours}.outputs.1",
    }


def _size_decoder(published: str, ours: str) -> Table:
    table = {f"{published}.c1.conv": f"{ours}.merge", f"{published}.sa.conv1": f"{ours}.spatial_attention.conv"}
    table |= {f"{published}.c{i + 2}.conv": f"{ours}.steps.{i}" for i in range(3)}
    return table | _channel_attention(f"{published}.ca", f"{ours}.channel_attention")


def _stage1_head() -> Table:
    return {f"head.conv{n}.conv": f"convs.{n - 1}" for n in LEVELS} | {"head.conv_fuse": "fuse"}


_NETWORKS: dict[UpstreamNetwork, tuple[Callable[[], nn.Module], Table]] = {
    "condseg-r50": (lambda: ConDSeg(**NETWORKS["condseg-r50"]), _resnet() | _head(aux_convs=5)),
    "condseg-pvt": (lambda: ConDSeg(**NETWORKS["condseg-pvt"]), _pvt() | _head(aux_convs=6)),
    "stage1": (ConsistencyNetwork, _resnet() | _stage1_head()),
}
