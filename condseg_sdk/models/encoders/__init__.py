"""Encoders, which compute four feature maps of decreasing resolution from an image.

Each module of this folder registers its encoders; a new encoder is a new module.
"""

from importlib import import_module
from pkgutil import iter_modules

from condseg_sdk.models.encoders.base import ENCODERS, Encoder, EncoderSpec, build_encoder

__all__ = ["ENCODERS", "Encoder", "EncoderSpec", "build_encoder"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
