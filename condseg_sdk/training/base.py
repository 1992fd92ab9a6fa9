"""The start of a run: a network with initial weights, and the preprocessing that these expect."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from condseg_sdk.data.training_digests import TrainingDigests
from condseg_sdk.errors import OptionError
from condseg_sdk.models import NETWORKS, ConDSeg, network_arguments
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.training.config import FinetuneConfig
from condseg_sdk.weights.checkpoint import load_checkpoint, load_digests
from condseg_sdk.weights.hub import resolve
from condseg_sdk.weights.imagenet import load_imagenet_encoder
from condseg_sdk.weights.manifest import list_models

__all__ = ["Base", "base_images", "open_base"]

IMAGENET = "imagenet:"
DEFAULT_NETWORK = "condseg-lite"
# A better start than ImageNet's encoder on glands, which look nothing like polyps (docs/training.md).
DEFAULT_BASE = "condseg-lite-polyp"
DEFAULT_SIZE = (256, 256)
LITE_PIXELS = Preprocessing(DEFAULT_SIZE, scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)


@dataclass(frozen=True)
class Base:
    """A network to start from.

    Attributes:
        network: The network on the CPU, float32, in eval mode.
        preprocessing: Preprocessing that the weights expect; a run changes only its size, field of view and bits.
        name: Origin of the weights, for messages.
        is_checkpoint: Whether the whole network is trained, and not only its encoder.
        data: Data that a checkpoint was trained on, in words.
        attribution: Credit that the license of a checkpoint requires, and that license.
    """

    network: ConDSeg
    preprocessing: Preprocessing
    name: str
    is_checkpoint: bool
    data: str | None = None
    attribution: str | None = None


def base_images(base: str | os.PathLike[str] | None, network: str | Mapping[str, Any] | None) -> TrainingDigests | None:
    """Return the digests of the images that the base of a run was trained on, if it is a checkpoint with digests.

    Args:
        base: `FinetuneConfig.base`.
        network: `FinetuneConfig.network`.

    Raises:
        ModelNotFoundError: The base does not exist.
        CheckpointError: The digests are damaged.
    """
    name = os.fspath(base) if base else _default(_arguments(network))
    if name == "random" or name.startswith(IMAGENET):
        return None
    return load_digests(resolve(name))


def open_base(config: FinetuneConfig) -> Base:
    """Load the weights and the network that `config.base` and `config.network` name.

    Raises:
        OptionError: The weights do not fit the network.
        ModelNotFoundError: The weights do not exist.
        CheckpointError: The weights are damaged.
    """
    start = _open(config)
    # The default base was trained on endoscopy, but it is used for any images, so only a base that the user names
    # decides.
    default = start.preprocessing.field_of_view if config.base else "none"
    preprocessing = replace(start.preprocessing, field_of_view=config.field_of_view or default)
    return replace(start, preprocessing=preprocessing)


def _open(config: FinetuneConfig) -> Base:
    arguments = _arguments(config.network)
    base = os.fspath(config.base) if config.base else _default(arguments)
    if base == "random":
        network = _new(arguments or NETWORKS[DEFAULT_NETWORK], config.seed)
        return Base(network, LITE_PIXELS, "random weights", is_checkpoint=False)
    if base.startswith(IMAGENET):
        return _imagenet(base, arguments, config.seed)
    network, saved = load_checkpoint(resolve(base))
    if arguments is not None and network.arguments != _new(arguments, 0).arguments:
        raise OptionError(f"base={base!r} is not the network={config.network!r}: leave network out", option="base")
    seen = str(saved.provenance.get("data", "not recorded"))
    names, license_ = saved.provenance.get("attribution"), saved.provenance.get("license")
    attribution = None if names is None else f"{names}{'' if license_ is None else f' ({license_})'}"
    return Base(network, saved.preprocessing, base, is_checkpoint=True, data=seen, attribution=attribution)


def _default(arguments: Mapping[str, Any] | None) -> str:
    """Return the default base of a network."""
    if arguments is None or _new(arguments, 0).arguments == _new(NETWORKS[DEFAULT_NETWORK], 0).arguments:
        return DEFAULT_BASE
    return f"{IMAGENET}{arguments.get('encoder', 'resnet50')}"


def _imagenet(base: str, arguments: Mapping[str, Any] | None, seed: int) -> Base:
    encoders = {entry.name: entry.network for entry in list_models("encoder")}
    if base not in encoders:
        raise OptionError(f"base={base!r}: choose one of {', '.join(encoders)}", option="base")
    network = _new(arguments or network_arguments(encoders[base]), seed)
    if network.arguments["encoder"] != encoders[base]:
        raise OptionError(
            f"base={base!r} does not fit a network with encoder {network.arguments['encoder']}", option="base"
        )
    pixels = replace(load_imagenet_encoder(network.encoder, name=base), size=DEFAULT_SIZE)
    return Base(network, pixels, base, is_checkpoint=False)


def _arguments(network: str | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return NETWORKS[network] if isinstance(network, str) else network


def _new(arguments: Mapping[str, Any], seed: int) -> ConDSeg:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return ConDSeg(**arguments).eval()
        except TypeError as error:
            raise OptionError(
                f"network={dict(arguments)}: {error}; pass arguments of ConDSeg", option="network"
            ) from error
