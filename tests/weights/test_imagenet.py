"""ImageNet encoders from the Hub: timm's names and shapes, every value in its place, timm's own features.

`data/timm` holds, for each network, the names and shapes of timm 1.0.31's state dict and what timm's own network answers
with synthetic weights (every eighth channel of its feature maps).
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from condseg_sdk import CheckpointError, ConDSeg, HubError, OptionError, list_models
from condseg_sdk.models.encoders import ENCODERS, build_encoder
from condseg_sdk.weights.imagenet import imagenet_entry, load_imagenet_encoder
from condseg_sdk.weights.timm import encoder_state
from tests.helpers.hub_server import HubServer, Repository

DATA = Path(__file__).parents[1] / "assets" / "timm"
# Encoder of ours -> (timm's network, entry in the manifest, how many of its tensors we use)
CASES = {
    "resnet50": ("resnet50", "imagenet:resnet50", 258),
    "pvt_v2_b2": ("pvt_v2_b2", "imagenet:pvt_v2_b2", 332),
    "efficientnet_lite0": ("tf_efficientnet_lite0", "imagenet:tf_efficientnet_lite0", 288),
}


def described(encoder: str) -> dict[str, Any]:
    return json.loads((DATA / f"{CASES[encoder][0]}.json").read_text())


def synthetic(name: str, shape: list[int]) -> Tensor:
    """One random stream a name, scaled so that features neither vanish nor explode."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    n = np.random.Generator(np.random.Philox(key=[zlib.crc32(name.encode()), 0])).standard_normal(shape)
    if name.endswith("running_var"):
        values = np.exp(0.2 * n)
    elif name.endswith(("running_mean", "bias")):
        values = 0.1 * n
    elif len(shape) == 1:
        values = 1 + 0.1 * n
    else:
        values = n * np.sqrt(1.5 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, np.float32))


@cache
def _timm_state(encoder: str) -> dict[str, Tensor]:
    return {name: synthetic(name, shape) for name, shape in described(encoder)["tensors"].items()}


def timm_state(encoder: str) -> dict[str, Tensor]:
    return dict(_timm_state(encoder))


@pytest.mark.parametrize("encoder", CASES)
def test_the_features_are_timms(encoder: str) -> None:
    network = build_encoder(encoder).eval()
    network.load_state_dict(encoder_state(timm_state(encoder), encoder))
    generator = np.random.Generator(np.random.Philox(key=[1, 0]))
    images = torch.from_numpy(generator.standard_normal((1, 3, 64, 96)).astype(np.float32))
    with torch.inference_mode():
        features = network(images)
    with np.load(DATA / f"{CASES[encoder][0]}_features.npz") as theirs:
        for level, ours in enumerate(features, start=1):
            expected = theirs[f"x{level}"]
            difference = np.abs(ours[0, ::8].numpy() - expected).max() / expected.std()
            assert difference < 1e-4, (level, difference)


@pytest.mark.parametrize("encoder", CASES)
def test_every_tensor_goes_to_one_place_and_what_is_left_out_is_named(encoder: str) -> None:
    """Each tensor is filled with a number of its own; each number that we use must come out once, in its shape."""
    shapes = described(encoder)["tensors"]
    state = {name: torch.full(shape, float(number)) for number, (name, shape) in enumerate(shapes.items())}
    ours = encoder_state(state, encoder)
    numbers = [value.flatten()[0].item() for value in ours.values()]
    assert len(set(numbers)) == len(numbers) == CASES[encoder][2]
    assert all((value == value.flatten()[0]).all() for value in ours.values())
    names = list(shapes)
    for name, number in zip(ours, numbers, strict=True):
        theirs = names[int(number)]
        assert name.rpartition(".")[2] == theirs.rpartition(".")[2]
        assert list(ours[name].shape) == shapes[theirs]
    left_out = {name.split(".")[0] for number, name in enumerate(names) if float(number) not in set(numbers)}
    assert (
        left_out
        == {
            "resnet50": {"layer4", "fc"},
            "pvt_v2_b2": {"head"},
            "efficientnet_lite0": {"conv_head", "bn2", "classifier"},
        }[encoder]
    )


def test_the_lite_encoder_is_the_one_of_the_package() -> None:
    """Google's weights under timm's names: the package's, renamed by their order, which is the same in both."""
    expected = build_encoder("efficientnet_lite0")
    load_imagenet_encoder(expected)
    in_order = [value for name, value in expected.state_dict().items()]
    names = [
        name for name in described("efficientnet_lite0")["tensors"] if not name.startswith(("conv_head", "bn2.", "cl"))
    ]
    ours = encoder_state(dict(zip(names, in_order, strict=True)), "efficientnet_lite0")
    assert all(torch.equal(ours[name], value) for name, value in expected.state_dict().items())


def test_files_without_batch_counters_load() -> None:
    encoder = "resnet50"
    state = {name: value for name, value in timm_state(encoder).items() if not name.endswith("num_batches_tracked")}
    loaded = encoder_state(state, encoder)
    assert loaded["bn1.num_batches_tracked"] == 0
    build_encoder(encoder).load_state_dict(loaded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer2.3.bn1.bias"), r"1 missing \(layer2.3.bn1.bias\)"),
        (lambda s: s.update({"attention.weight": torch.ones(1)}), r"1 unknown \(attention.weight\)"),
        (
            lambda s: s.update({"conv1.weight": torch.ones(64, 4, 7, 7)}),
            r"conv1.weight \(64, 4, 7, 7\), not \(64, 3, 7, 7\)",
        ),
        (lambda s: s.update({"bn1.bias": torch.full((64,), float("inf"))}), r"1 infinite \(bn1.bias\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: Any, message: str) -> None:
    state = timm_state("resnet50")
    change(state)
    with pytest.raises(CheckpointError, match=message):
        encoder_state(state, "resnet50")


def test_another_networks_weights_are_refused() -> None:
    with pytest.raises(CheckpointError, match="not timm's weights of resnet50: .*missing.*unknown"):
        encoder_state(timm_state("efficientnet_lite0"), "resnet50")
    with pytest.raises(OptionError, match="unknown encoder"):
        encoder_state({}, "vgg")


@pytest.mark.parametrize("encoder", CASES)
def test_the_hub_fills_the_encoder_of_a_network(encoder: str, server: HubServer, options: dict[str, Any]) -> None:
    _, entry, _ = CASES[encoder]
    repo_id = described(encoder)["repo_id"]
    state = timm_state(encoder)
    server.repositories[repo_id] = Repository({"model.safetensors": save(state)})
    built = build_encoder(encoder)
    preprocessing = load_imagenet_encoder(built, name=entry, **options)
    expected = encoder_state(state, encoder)
    assert all(torch.equal(value, expected[name]) for name, value in built.state_dict().items())
    assert preprocessing == imagenet_entry(encoder, name=entry).preprocessing
    asked = len(server.requests)
    load_imagenet_encoder(build_encoder(encoder), name=entry, local_files_only=True, **options)
    assert len(server.requests) == asked


def test_resnet50_is_found_by_its_encoder_alone(server: HubServer, options: dict[str, Any]) -> None:
    server.repositories["timm/resnet50.tv_in1k"] = Repository({"model.safetensors": save(timm_state("resnet50"))})
    network = ConDSeg(encoder="resnet50", channels=8, heads=1, sid_channels=8, aux_channels=(8,))
    preprocessing = load_imagenet_encoder(network.encoder, **options)
    assert (preprocessing.color_order, preprocessing.mean) == ("rgb", (0.485, 0.456, 0.406))
    assert preprocessing.scale == pytest.approx(1 / 255)


def test_a_swapped_file_and_a_name_of_another_encoder(server: HubServer, options: dict[str, Any]) -> None:
    good = save({"conv1.weight": torch.zeros(1)})
    repository = server.repositories["timm/resnet50.tv_in1k"] = Repository({"model.safetensors": good})
    with pytest.raises(CheckpointError, match=r"model.safetensors: not timm's weights of resnet50"):
        load_imagenet_encoder(build_encoder("resnet50"), **options)
    repository.commit = "e" * 40
    repository.files = {"model.safetensors": good + b"1"}
    repository.served = {"model.safetensors": good + b"2"}
    with pytest.raises(CheckpointError, match="has sha256 .*, expected .*fetch it again"):
        load_imagenet_encoder(build_encoder("resnet50"), **options)
    with pytest.raises(OptionError, match="imagenet:pvt_v2_b2 is for the encoder pvt_v2_b2, not resnet50"):
        load_imagenet_encoder(build_encoder("resnet50"), name="imagenet:pvt_v2_b2", **options)
    with pytest.raises(HubError, match="hf download timm/pvt_v2_b2.in1k model.safetensors"):
        load_imagenet_encoder(build_encoder("pvt_v2_b2"), local_files_only=True, **options)


def test_every_encoder_has_an_entry_that_says_how_it_is_pinned() -> None:
    entries = list_models("encoder")
    assert {entry.network for entry in entries} == set(ENCODERS)
    assert next(entry for entry in entries if entry.network == "efficientnet_lite0").package is not None
    for entry in entries:
        assert (entry.hub is None) == (entry.sha256 is not None)
