"""timm's state dicts of ImageNet networks -> our encoders: one table of names for each.

Every name of theirs is either in a table or among those that are dropped on purpose; anything else is an error. Reading
files is not done here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from condseg_sdk.checkpoints.tensors import list_names
from condseg_sdk.errors import CheckpointError
from condseg_sdk.models.encoders import build_encoder
from condseg_sdk.models.encoders.efficientnet_lite import STAGES

__all__ = ["encoder_state"]

Table = dict[str, str]  # prefix of theirs -> prefix of ours; what follows the prefix is the same

BATCH_COUNTER = "num_batches_tracked"  # counts training steps and enters no result; older files lack it


def encoder_state(state: Mapping[str, Tensor], encoder: str) -> dict[str, Tensor]:
    """Rename timm's tensors to ours; what our encoder does not have (classifier, ResNet's layer 4) is left out.

    Args:
        state: of timm's resnet50, pvt_v2_b2 or tf_efficientnet_lite0, as its safetensors file has it.
        encoder: a key of `ENCODERS`.

    Returns:
        A state dict for that encoder's strict `load_state_dict`; floating-point tensors are float32.

    Raises:
        OptionError: no such encoder.
        CheckpointError: tensors that are unknown, missing, of the wrong shape or not finite, by name.

    Example:
        >>> try:
        ...     encoder_state({"fc.weight": torch.zeros(1), "stem.weight": torch.zeros(1)}, "resnet50")
        ... except CheckpointError as error:
        ...     print(str(error)[:80])
        not timm's weights of resnet50: 215 missing (conv1.weight, bn1.weight, bn1.bias,
    """
    with torch.device("meta"):
        ours = build_encoder(encoder).state_dict()
    table, dropped = _TABLES[encoder]
    converted: dict[str, Tensor] = {}
    unknown, misshapen, infinite = [], [], []
    for theirs, value in state.items():
        if theirs.startswith(dropped):
            continue
        name = _renamed(theirs, table)
        if name not in ours:
            unknown.append(theirs)
        elif value.shape != ours[name].shape:
            misshapen.append(f"{theirs} {tuple(value.shape)}, not {tuple(ours[name].shape)}")
        elif not value.isfinite().all():
            infinite.append(theirs)
        else:
            converted[name] = value.to(ours[name].dtype)
    seen = {_renamed(theirs, table) for theirs in state}
    missing = [name for name in ours if name not in seen and not name.endswith(BATCH_COUNTER)]
    problems = list_names(missing=missing, unknown=unknown, misshapen=misshapen, infinite=infinite)
    if problems:
        raise CheckpointError(f"not timm's weights of {encoder}: {problems}; choose the encoder they belong to")
    counters = {name: torch.tensor(0) for name in ours if name.endswith(BATCH_COUNTER)}
    return {**counters, **converted}


def _renamed(name: str, table: Table) -> str:
    """Our name for one of theirs, by its longest prefix in the table; "" for none."""
    prefix = name
    while prefix:
        if prefix in table:
            return table[prefix] + name[len(prefix) :]
        prefix = prefix.rpartition(".")[0]
    return ""


def _resnet() -> Table:
    return {part: part for part in ("conv1", "bn1", "layer1", "layer2", "layer3")}


def _pvt() -> Table:
    """Theirs shrinks the map at the start of a stage, except for the first, whose patches are cut before the stages."""
    table = {"patch_embed": "stages.0.patch_embed"}
    for stage in range(4):
        table |= {f"stages.{stage}.{part}": f"stages.{stage}.{part}" for part in ("blocks", "norm")}
        if stage:
            table[f"stages.{stage}.downsample"] = f"stages.{stage}.patch_embed"
    return table


def _efficientnet_lite() -> Table:
    """Theirs numbers norms by place: "bn2" is the second norm of a block, whichever convolution it follows."""
    table = {"conv_stem": "stem.0", "bn1": "stem.1"}
    for stage, (repeats, _, _, expansion, _) in enumerate(STAGES):
        parts = ["depthwise", "project"] if expansion == 1 else ["expand", "depthwise", "project"]
        convolutions = ["conv_dw", "conv_pw"] if expansion == 1 else ["conv_pw", "conv_dw", "conv_pwl"]
        for block in range(repeats):
            for place, (part, convolution) in enumerate(zip(parts, convolutions, strict=True), start=1):
                table[f"blocks.{stage}.{block}.{convolution}"] = f"stages.{stage}.{block}.{part}.0"
                table[f"blocks.{stage}.{block}.bn{place}"] = f"stages.{stage}.{block}.{part}.1"
    return table


_TABLES: dict[str, tuple[Table, tuple[str, ...]]] = {
    "resnet50": (_resnet(), ("layer4.", "fc.")),
    "pvt_v2_b2": (_pvt(), ("head.",)),
    "efficientnet_lite0": (_efficientnet_lite(), ("conv_head.", "bn2.", "classifier.")),
}
