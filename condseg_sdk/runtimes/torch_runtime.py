"""PyTorch as a runtime."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from condseg_sdk.errors import DeviceError, OptionError, check_choice
from condseg_sdk.models import ConDSeg
from condseg_sdk.runtimes.base import Maps
from condseg_sdk.runtimes.inference_form import inference_form

Precision = Literal["float32", "float16", "bfloat16"]

logger = logging.getLogger("condseg_sdk")


@cache
def _say_cpu() -> None:
    logger.info("no GPU can be used: running on the CPU")


def resolve_device(device: str) -> torch.device:
    """The torch device for a user's word.

    Args:
        device: "auto" (a GPU if one can be used, otherwise the CPU), "cpu", "cuda", "cuda:1", "mps", ...

    Raises:
        DeviceError: the device does not exist here; only "auto" falls back.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        if torch.backends.mps.is_available():
            return torch.device("mps")
        _say_cpu()
        return torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DeviceError(
            f"device={device!r} cannot be used here ({reason}): choose 'auto' or 'cpu', or a PyTorch built for it"
        ) from error
    if chosen.type == "cuda" and chosen.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return chosen


class TorchRuntime:
    """A `ConDSeg` in eager PyTorch, in its inference form.

    Args:
        network: a copy of it is rewritten (`inference_form`), with channels last, which CPUs and GPUs are faster with.
        device: see `resolve_device`.
        precision: "float32", or on a GPU "float16" or "bfloat16"; input and logits stay float32.

    Raises:
        DeviceError: the device cannot be used.
        OptionError: unknown precision, or half precision on the CPU, where it only costs time and accuracy.
    """

    providers = ("torch",)

    def __init__(self, network: ConDSeg, *, device: str = "auto", precision: Precision = "float32") -> None:
        check_choice("precision", precision, Precision)
        self._device = resolve_device(device)
        if precision != "float32" and self._device.type == "cpu":
            raise OptionError(f"precision={precision!r} needs a GPU: use precision='float32' on the CPU")
        self._dtype: torch.dtype = getattr(torch, precision)
        # One form for both requests: what the uncertainty needs runs only when it is asked for.
        form = inference_form(network, uncertainty=True).to(self._device)
        self._form = form.to(memory_format=torch.channels_last)

    @property
    def device(self) -> str:
        """Where it runs, such as "cpu" or "cuda:0"."""
        return str(self._device)

    def check_uncertainty(self) -> None:
        """Every checkpoint has the uncertainty map."""

    def _numerics(self) -> AbstractContextManager[object]:
        if self._dtype != torch.float32:
            return torch.autocast(self._device.type, self._dtype)
        if self._device.type == "cuda":
            # TF32, cuDNN's default, would make a float32 answer depend on the batch in the third decimal.
            return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        return nullcontext()

    def run(self, batch: NDArray[np.float32], *, uncertainty: bool) -> Maps:
        """Logits for a batch of normalised images, float32 (B, 3, h, w)."""
        with torch.inference_mode(), self._numerics():
            images = torch.from_numpy(batch).to(self._device, memory_format=torch.channels_last)
            maps = [x[:, 0].float().cpu().numpy() for x in self._form(images, uncertainty=uncertainty)]
        return Maps(maps[0], maps[1] if uncertainty else None)
