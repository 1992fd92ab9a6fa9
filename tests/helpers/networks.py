"""Small networks that several test modules share."""

from __future__ import annotations

import torch
from torch import nn

from condseg_sdk.models import NETWORKS, ConDSeg

TINY = {
    "encoder": "efficientnet_lite0",
    "channels": 8,
    "heads": 2,
    "sid_channels": 8,
    "aux_channels": (8,),
    "output_channels": (8, 8),
    "full_resolution": False,
}


def narrow_network(name: str) -> ConDSeg:
    """A named network, narrow for speed, with weights and BatchNorm statistics that leave nothing neutral."""
    torch.manual_seed(0)
    narrow = {"sid_channels": 16, "aux_channels": (8, 8), "output_channels": (16, 8)}
    if name != "condseg-lite":
        narrow |= {"channels": 32, "heads": 2}
    result = ConDSeg(**{**NETWORKS[name], **narrow}).eval()
    for module in result.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return result
