"""One body of tests for every network and every encoder.

Shapes and sizes are asked of the real networks on PyTorch's meta device, which computes shapes only; values of
networks with the same parts but few channels.
"""

from __future__ import annotations

import copy
import pickle
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from condseg_sdk.errors import OptionError
from condseg_sdk.models import NETWORKS, ConDSeg, ConsistencyNetwork, network_arguments
from condseg_sdk.models.condseg import pad_to_stride
from condseg_sdk.models.encoders import ENCODERS, build_encoder

SMALL = {"channels": 8, "heads": 2, "sid_channels": 8, "aux_channels": (8, 4), "output_channels": (8, 4)}
SIZES = [(1, 1), (33, 65), (32, 64), (64, 1), (100, 31)]


def small(encoder: str, **options: Any) -> ConDSeg:
    torch.manual_seed(0)
    return ConDSeg(encoder=encoder, **{**SMALL, **options}).eval()


def images(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@cache
def on_meta(name: str) -> ConDSeg:
    with torch.device("meta"):
        return ConDSeg(**NETWORKS[name]).eval()


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_logits_have_the_images_size(name: str, size: tuple[int, int]) -> None:
    network, batch = on_meta(name), torch.empty(2, 3, *size, device="meta")
    output = network(batch, aux=True)
    assert {tuple(logits.shape) for logits in output} == {(2, 1, *size)}
    output = network(batch)
    assert output.mask.shape == (2, 1, *size)
    assert output[1:] == (None, None, None)


@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.inference_mode()
def test_odd_sizes_are_padded_by_repetition_and_cropped(encoder: str, size: tuple[int, int]) -> None:
    network = small(encoder)
    height, width = size
    stride = network.encoder.strides[-1]
    odd = images(height, width)
    padded = F.pad(odd, (0, -width % stride, 0, -height % stride), mode="replicate")
    for ours, whole in zip(network(odd, aux=True), network(padded, aux=True), strict=True):
        torch.testing.assert_close(ours, whole[..., :height, :width], atol=1e-5, rtol=0)
        assert ours.isfinite().all()


def test_multiples_of_the_stride_are_untouched() -> None:
    batch = images(64, 96)
    assert pad_to_stride(batch, 32) is batch


@torch.inference_mode()
def test_auxiliary_maps_change_nothing_in_the_mask(encoder: str) -> None:
    network = small(encoder)
    batch = images(64, 32, batch=2)
    torch.testing.assert_close(network(batch).mask, network(batch, aux=True).mask, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_an_image_gets_the_same_prediction_alone_and_in_a_batch(encoder: str) -> None:
    network = small(encoder)
    batch = images(64, 64, batch=3)
    torch.testing.assert_close(network(batch).mask[1:2], network(batch[1:2]).mask, atol=1e-5, rtol=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
@torch.inference_mode()
def test_copies_and_state_dicts_carry_everything(encoder: str, copied: Any) -> None:
    network, batch = small(encoder), images(32, 32)
    expected = network(batch).mask
    torch.testing.assert_close(copied(network)(batch).mask, expected, atol=1e-5, rtol=0)
    other = ConDSeg(encoder=encoder, **SMALL).eval()
    other.load_state_dict(network.state_dict(), strict=True)
    torch.testing.assert_close(other(batch).mask, expected, atol=1e-5, rtol=0)
    assert network.arguments == other.arguments == copied(network).arguments


def test_every_parameter_learns_from_the_four_maps(encoder: str) -> None:
    network = small(encoder).train()
    output = network(images(64, 64, batch=2), aux=True)
    sum(logits.square().mean() for logits in output).backward()
    untouched = [name for name, value in network.named_parameters() if value.grad is None]
    assert not untouched
    assert all(value.grad.isfinite().all() for value in network.parameters())


@torch.inference_mode()
def test_encoders_have_the_channels_and_strides_they_name(encoder: str) -> None:
    with torch.device("meta"):
        built = build_encoder(encoder)
        features = built(torch.empty(1, 3, 64, 128))
    assert tuple(x.shape[1] for x in features) == built.channels
    assert [tuple(x.shape[2:]) for x in features] == [(64 // s, 128 // s) for s in built.strides]


def test_an_encoder_without_a_named_network_takes_the_arguments_of_a_relative() -> None:
    assert network_arguments("resnet50") == NETWORKS["condseg-r50"]
    assert network_arguments("efficientnet_lite2") == {**NETWORKS["condseg-lite"], "encoder": "efficientnet_lite2"}


@pytest.mark.parametrize("full_resolution", [True, False])
@torch.inference_mode()
def test_the_stage_one_network_shares_the_encoder(encoder: str, full_resolution: bool) -> None:
    light = ConsistencyNetwork(encoder=encoder, full_resolution=full_resolution).eval()
    assert light(images(33, 65)).shape == (1, 1, 33, 65)
    assert light.encoder.state_dict().keys() == small(encoder).encoder.state_dict().keys()


def parameters(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def test_the_networks_have_the_documented_sizes() -> None:
    assert parameters(on_meta("condseg-r50")) == 45_552_786
    lite = on_meta("condseg-lite")
    flops = FlopCounterMode(display=False)
    with flops, torch.inference_mode():
        lite(torch.empty(1, 3, 256, 256, device="meta"))
    # The counter knows convolutions, not the aggregation: two times 25 multiply-adds a value.
    strides, modules = lite.encoder.strides, lite.cdfa
    aggregation = sum(
        2 * 2 * 25 * module.values.out_channels * (256 // stride) ** 2
        for stride, module in zip(strides, modules, strict=True)
    )
    total = flops.get_total_flops() + aggregation
    print(f"condseg-lite: {total / 1e9:.2f} GFLOP at 256x256, {parameters(lite) / 1e6:.2f} M parameters")
    assert total <= 12e9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "vgg"}, "unknown encoder 'vgg': choose one of efficientnet_lite0"),
        ({"channels": 10, "heads": 4}, "multiples of heads"),
        ({"channels": (8, 8, 8)}, "one for each of 4 levels"),
        ({"heads": 0}, "positive"),
        ({"dilations": ((1, 2),)}, "dilations"),
        ({"output_channels": (8,)}, "two numbers"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(OptionError, match=message):
        ConDSeg(**{**SMALL, **options})
