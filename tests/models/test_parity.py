"""Parity with the published networks: tests/assets/parity contains their logits with synthetic weights.

Weights and inputs come from random streams named in the kit: one per tensor of THEIR state dict, so that the
converter's table is tested together with the networks.
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condseg_sdk.errors import CheckpointError, OptionError
from condseg_sdk.models import NETWORKS, ConDSeg, ConsistencyNetwork
from condseg_sdk.weights.upstream import convert_state_dict

KIT = Path(__file__).parents[1] / "assets" / "parity"
SEED = 0
TOLERANCE = 1e-4
NETWORK_OF = {"r50": "condseg-r50", "pvt": "condseg-pvt", "stage1": "stage1"}
SIZES = [(256, 256), (192, 320)]


def generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=list(key)))


def synthetic_tensor(name: str, shape: list[int]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    n = generator(zlib.crc32(name.encode()), SEED).standard_normal(shape)
    if name.endswith("running_var"):
        values = np.exp(0.2 * n)
    elif name.endswith(("running_mean", "bias")):
        values = 0.1 * n
    elif len(shape) == 1:
        values = 1 + 0.1 * n
    else:
        values = n * np.sqrt(gain(name) / prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def gain(name: str) -> float:
    module, _, rest = name.partition(".")
    if module.startswith("cdfa") and rest.startswith(("attn_fg.", "attn_bg.")):
        return 8.0
    if module.startswith("cdfa") and rest.startswith(("v.", "proj.")):
        return 0.06
    return 1.5


def synthetic_images(height: int, width: int) -> Tensor:
    g = generator(7, SEED)
    coarse = torch.from_numpy(g.random((1, 3, 8, 8)))
    coarse = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return (0.8 * coarse + 0.2 * torch.from_numpy(g.random((1, 3, height, width)))).float()


@cache
def shapes(kit: str) -> dict[str, list[int]]:
    return json.loads((KIT / f"{kit}_state_dict.json").read_text())


@cache
def network(kit: str) -> nn.Module:
    state = {name: synthetic_tensor(name, shape) for name, shape in shapes(kit).items()}
    built = ConsistencyNetwork() if kit == "stage1" else ConDSeg(**NETWORKS[NETWORK_OF[kit]])
    built.load_state_dict(convert_state_dict(state, NETWORK_OF[kit]), strict=True)
    return built.eval()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("kit", NETWORK_OF)
@torch.inference_mode()
def test_logits_equal_those_of_the_published_network(kit: str, size: tuple[int, int]) -> None:
    images = synthetic_images(*size)
    maps = {"mask": network(kit)(images)} if kit == "stage1" else network(kit)(images, aux=True)._asdict()
    expected = np.load(KIT / f"{kit}_seed0_logits.npz")
    for name, logits in maps.items():
        ours = logits[0, 0].numpy()
        if name != "mask":
            ours = ours[::4, ::4]
        difference = np.abs(ours - expected[f"{name}_{size[0]}x{size[1]}"]).max()
        print(f"parity {kit} {name} {size[0]}x{size[1]}: {difference:.1e}")
        assert difference < TOLERANCE, (name, difference)


def empty_state(kit: str) -> dict[str, Tensor]:
    """Every tensor at its shape, without memory behind it."""
    return {name: torch.zeros(1).expand(shape) if shape else torch.tensor(0) for name, shape in shapes(kit).items()}


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}, lambda s: s])
def test_wrappers_and_dataparallel_names_are_accepted(wrap) -> None:
    state = {f"module.{name}": value for name, value in empty_state("stage1").items()}
    assert convert_state_dict(wrap(state), "stage1").keys() == ConsistencyNetwork().state_dict().keys()


def test_half_precision_becomes_float32() -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in empty_state("stage1").items()}
    assert {v.dtype for v in convert_state_dict(state, "stage1").values()} == {torch.float32, torch.int64}


def test_every_kind_of_misfit_is_named() -> None:
    state = empty_state("stage1")
    del state["head.conv_fuse.weight"]
    state["fc.weight"] = torch.zeros(2)
    state["layer0.0.weight"] = torch.zeros(64, 3, 3, 3)
    with pytest.raises(CheckpointError) as caught:
        convert_state_dict(state, "stage1")
    message = str(caught.value)
    assert "1 missing (fuse.weight)" in message
    assert "1 unknown (fc.weight)" in message
    assert "1 misshapen (layer0.0.weight (64, 3, 3, 3), not (64, 3, 7, 7))" in message


def test_the_wrong_network_is_refused_in_one_short_line() -> None:
    with pytest.raises(CheckpointError, match="not the weights of condseg-pvt") as caught:
        convert_state_dict(empty_state("r50"), "condseg-pvt")
    assert len(str(caught.value)) < 1000


def test_values_that_are_no_tensors_and_unknown_networks_are_refused() -> None:
    with pytest.raises(CheckpointError, match="1 unknown"):
        convert_state_dict({**empty_state("stage1"), "head.conv_fuse.weight": "no tensor"}, "stage1")
    with pytest.raises(CheckpointError, match="missing"):
        convert_state_dict({}, "stage1")
    with pytest.raises(OptionError, match="stage1"):
        convert_state_dict({}, "stage3")
