"""Where a run starts: a network with its first weights, and the pixels it expects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from condseg_sdk.errors import OptionError
from condseg_sdk.models import NETWORKS, ConDSeg, network_arguments
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.training.config import FinetuneSettings
from condseg_sdk.weights.checkpoint import load_checkpoint
from condseg_sdk.weights.hub import resolve
from condseg_sdk.weights.imagenet import load_imagenet_encoder
from condseg_sdk.weights.manifest import list_models

__all__ = ["Base", "open_base"]

IMAGENET = "imagenet:"
DEFAULT_NETWORK = "condseg-lite"
# A better start than ImageNet's encoder on glands, which look nothing like polyps (docs/training.md).
DEFAULT_BASE = "condseg-lite-polyp"
DEFAULT_SIZE = (256, 256)
LITE_PIXELS = Preprocessing(DEFAULT_SIZE, scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)


@dataclass(frozen=True)
class Base:
    """A network to go on from.

    Attributes:
        network: on the CPU, float32, eval mode.
        preprocessing: what its weights expect; a run changes nothing of it but the size and the field of view.
        name: of where the weights come from, for people.
        is_checkpoint: whether all of the network is trained, and not its encoder alone.
        data: what a checkpoint was trained on, in words.
        attribution: whom a checkpoint's license says to name, and that license.
    """

    network: ConDSeg
    preprocessing: Preprocessing
    name: str
    is_checkpoint: bool
    data: str | None = None
    attribution: str | None = None


def open_base(settings: FinetuneSettings) -> Base:
    """Load what `settings.base` and `settings.network` name.

    Raises:
        OptionError: the two do not go together.
        ModelNotFoundError, CheckpointError: no such weights, or damaged ones.
    """
    start = _open(settings)
    # The default base comes from endoscopy, whoever starts from it: only a base that is named decides.
    default = start.preprocessing.field_of_view if settings.base else "none"
    preprocessing = replace(start.preprocessing, field_of_view=settings.field_of_view or default)
    return replace(start, preprocessing=preprocessing)


def _open(settings: FinetuneSettings) -> Base:
    arguments = _arguments(settings.network)
    base = settings.base or _default(arguments)
    if base == "random":
        network = _new(arguments or NETWORKS[DEFAULT_NETWORK], settings.seed)
        return Base(network, LITE_PIXELS, "random weights", is_checkpoint=False)
    if base.startswith(IMAGENET):
        return _imagenet(base, arguments, settings.seed)
    network, config = load_checkpoint(resolve(base))
    if arguments is not None and network.arguments != _new(arguments, 0).arguments:
        raise OptionError(f"base={base!r} is another network than network={settings.network!r}: leave network out")
    seen = str(config.provenance.get("data", "not recorded"))
    names, license_ = config.provenance.get("attribution"), config.provenance.get("license")
    attribution = None if names is None else f"{names}{'' if license_ is None else f' ({license_})'}"
    return Base(network, config.preprocessing, base, is_checkpoint=True, data=seen, attribution=attribution)


def _default(arguments: Mapping[str, Any] | None) -> str:
    """The base of a network for which none is named."""
    if arguments is None or _new(arguments, 0).arguments == _new(NETWORKS[DEFAULT_NETWORK], 0).arguments:
        return DEFAULT_BASE
    return f"{IMAGENET}{arguments.get('encoder', 'resnet50')}"


def _imagenet(base: str, arguments: Mapping[str, Any] | None, seed: int) -> Base:
    encoders = {entry.name: entry.network for entry in list_models("encoder")}
    if base not in encoders:
        raise OptionError(f"base={base!r}: choose one of {', '.join(encoders)}")
    network = _new(arguments or network_arguments(encoders[base]), seed)
    if network.arguments["encoder"] != encoders[base]:
        raise OptionError(f"base={base!r} does not fit a network with encoder {network.arguments['encoder']}")
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
            raise OptionError(f"network={dict(arguments)}: {error}; give arguments of ConDSeg") from error


def at_size(preprocessing: Preprocessing, side: int) -> Preprocessing:
    """The same pixels at another size, square."""
    return replace(preprocessing, size=(side, side))
