"""Encoders: four feature maps of falling resolution from an image. A new one is a module and a registry line."""

from __future__ import annotations

import reprlib
from collections.abc import Callable

from condseg_sdk.errors import OptionError
from condseg_sdk.models.encoders.base import Encoder
from condseg_sdk.models.encoders.efficientnet_lite import efficientnet_lite0
from condseg_sdk.models.encoders.pvt_v2 import pvt_v2_b2
from condseg_sdk.models.encoders.resnet import resnet50

ENCODERS: dict[str, Callable[[], Encoder]] = {
    "resnet50": resnet50,
    "pvt_v2_b2": pvt_v2_b2,
    "efficientnet_lite0": efficientnet_lite0,
}


def build_encoder(name: str) -> Encoder:
    """A new encoder with random weights.

    Args:
        name: a key of `ENCODERS`.

    Raises:
        OptionError: unknown name.
    """
    if not isinstance(name, str) or name not in ENCODERS:
        raise OptionError(f"unknown encoder {reprlib.repr(name)}: choose one of {', '.join(ENCODERS)}")
    return ENCODERS[name]()


__all__ = ["ENCODERS", "Encoder", "build_encoder"]
