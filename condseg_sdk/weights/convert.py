"""Converts checkpoints of the authors' code. Only this module reads pickles, and it never executes them."""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from condseg_sdk.checkpoints.tensors import read_tensors
from condseg_sdk.errors import CheckpointError, ModelNotFoundError
from condseg_sdk.images.load import ColorOrder
from condseg_sdk.models import NETWORKS, ConDSeg
from condseg_sdk.options import check_choice
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.weights.checkpoint import DEFAULT_THRESHOLD, CheckpointConfig, save_checkpoint
from condseg_sdk.weights.upstream import UpstreamNetwork, convert_state_dict

__all__ = ["PUBLISHED_NETWORKS", "convert_checkpoint"]

PublishedNetwork = Literal["r50", "pvt"]
PUBLISHED_NETWORKS: tuple[str, ...] = get_args(PublishedNetwork)
_NAMES: dict[PublishedNetwork, UpstreamNetwork] = {"r50": "condseg-r50", "pvt": "condseg-pvt"}

PUBLISHED_SIZE = 256
MAX_FILE = 2**30  # a published network with its optimizer needs half of that
# Training scripts store their best score with the weights, often as a NumPy number, which is harmless.
_NUMBERS: list[Any] = [
    np.dtype,
    *{type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)},
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
]


def convert_checkpoint(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    network: PublishedNetwork,
    color_order: ColorOrder,
    size: int = PUBLISHED_SIZE,
    threshold: float = DEFAULT_THRESHOLD,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Convert a checkpoint of the authors' code to a checkpoint folder.

    Args:
        source: A file of `torch.save`: a state dict, or a larger dictionary that contains one, with or without the
            prefix of DataParallel. A .safetensors file with the same tensor names works as well.
        folder: A new or empty folder, or one with an older checkpoint, which is replaced.
        network: "r50" for ResNet-50, "pvt" for PVTv2-b2.
        color_order: Order of the channels in training: "bgr" before November 2025, "rgb" since. The file does not say
            which, and the wrong order costs accuracy without an error. Pixels are divided by 255 in both.
        size: Height and width of the training images in pixels.
        threshold: Lowest probability at which a pixel belongs to the mask.
        provenance: "license", "data", "attribution", "metrics" and the like, for config.json and the model card.

    Returns:
        The full path of the folder.

    Raises:
        ModelNotFoundError: The file does not exist.
        CheckpointError: The file is damaged, contains objects other than tensors and plain values (none of them is
            executed), or its tensors do not fit the network; the message names them.
        OptionError: The value of an argument is not allowed.
        OutputError: The folder cannot be written.

    Example:
        >>> convert_checkpoint("ConDSeg.pth", "condseg-r50", network="r50", color_order="bgr")  # doctest: +SKIP
        PosixPath('/home/me/condseg-r50')
    """
    check_choice("network", network, PublishedNetwork)
    check_choice("color_order", color_order, ColorOrder)
    path = Path(source).expanduser()
    name = _NAMES[network]
    config = CheckpointConfig(
        network=NETWORKS[name],
        # The authors' code uses cv2.resize and divides by 255, without mean and standard deviation.
        preprocessing=Preprocessing((size, size), color_order=color_order, interpolation="linear"),
        threshold=threshold,
        provenance={"data": "not recorded", **(provenance or {}), "converted_from": path.name},
    )
    with torch.device("meta"):
        built = ConDSeg(**NETWORKS[name])
    try:
        built.load_state_dict(convert_state_dict(_read(path), name), assign=True)
        return save_checkpoint(Path(folder), built, config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is not a file: pass the .pth file written by torch.save", path=path)
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if not _is_saved_by_torch(path):
        raise CheckpointError("it cannot be read as a file of torch.save (its signature is wrong); pass a .pth file")
    if _unpacked_size(path) > MAX_FILE:
        raise CheckpointError(f"it contains more than {MAX_FILE // 2**20} MiB, too much for a published network")
    try:
        with torch.serialization.safe_globals(_NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # multi-line warnings about the version of the pickle
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)|(?:instruction|class|type) (\S+)", str(error))
        what = next(filter(None, found.groups()), "") if found else ""
        raise CheckpointError(
            f"it contains more than tensors{f' ({what})' if what else ''} and was not executed: if you trust it, save "
            "only its state dict, torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:  # a damaged file makes pickle, zipfile and PyTorch raise almost anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"it cannot be read as a file of torch.save ({reason}); download it again") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"it contains a {type(content).__name__}, not the state dict of a network")
    return content


def _is_saved_by_torch(path: Path) -> bool:
    """Return whether a file begins as an archive or, as PyTorch wrote it before version 1.6, as a pickle."""
    try:
        with path.open("rb") as file:
            return file.read(2).startswith((b"PK", b"\x80"))
    except OSError:  # torch.load gives the reason
        return True


def _unpacked_size(path: Path) -> int:
    """Return the size of a file in bytes, or of its content: torch.save writes an archive, which may be compressed."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            return max(size, sum(part.file_size for part in archive.infolist()))
    except Exception:  # noqa: BLE001 (not an archive, or a damaged one, which torch.load explains)
        return size
