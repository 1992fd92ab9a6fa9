"""Saving, loading and pushing a network with the methods of huggingface_hub's `PyTorchModelHubMixin`, but strictly.

`PyTorchModelHubMixin` loads the tensors that fit and leaves the others random, accepts a repository without a config,
and falls back to pickle. Here every tensor must fit, a config is needed, and pickle is never read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import nn

from condseg_sdk._version import __version__
from condseg_sdk.checkpoints.card import model_card
from condseg_sdk.checkpoints.config import CheckpointConfig, as_json
from condseg_sdk.checkpoints.tensors import WeightsDtype, load_weights, tensors_to_bytes
from condseg_sdk.data.training_digests import TrainingDigests
from condseg_sdk.download import CONFIG_FILE, DIGESTS_FILE, WEIGHTS_FILE, HubSource, download_checkpoint
from condseg_sdk.errors import CheckpointError, OptionError
from condseg_sdk.files import atomic_folder, real_path
from condseg_sdk.json_files import read_json_object, write_json

__all__ = ["PretrainedNetwork", "save_checkpoint"]

CARD_FILE = "README.md"
CHECKPOINT_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, DIGESTS_FILE)


class PretrainedNetwork(nn.Module, PyTorchModelHubMixin):
    """Base class of networks that can be saved and loaded by their arguments.

    Attributes:
        checkpoint_config: Config of the checkpoint that the network was loaded from, which `save_pretrained` and
            `push_to_hub` write again. None for a new network, and for a repository that contains only its arguments.
    """

    checkpoint_config: CheckpointConfig | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments that the network was built with, including defaults, as JSON values."""
        return dict(as_json("arguments", self._hub_mixin_config))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        map_location: str | torch.device = "cpu",
        **model_kwargs: Any,
    ) -> Self:
        """Load a network from a folder or from the Hugging Face Hub, in eval mode, float32.

        Args:
            pretrained_model_name_or_path: A folder with config.json and model.safetensors, a .safetensors file with its
                config.json beside it, or "org/name".
            force_download: Whether to download files that are already in the cache.
            token: Token for private repositories. The default is the token of the current login.
            cache_dir: Folder for downloads. The default is Hugging Face's own cache.
            local_files_only: Whether to use only cached files, without the network.
            revision: Branch, tag or commit on the Hub.
            map_location: Device of the network.
            model_kwargs: Arguments of the network that replace those in config.json.

        Raises:
            ModelNotFoundError: There is neither such a folder nor such a repository.
            HubError: The Hub cannot be reached.
            CheckpointError: The checkpoint is incomplete or damaged, or does not fit the network.
            OptionError: The network does not have one of `model_kwargs`.
        """
        path = Path(pretrained_model_name_or_path)
        if not path.exists():
            source = HubSource(
                str(pretrained_model_name_or_path),
                revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
                force_download=force_download,
            )
            path = download_checkpoint(source)
        weights = path / WEIGHTS_FILE if path.is_dir() else path
        return cls._from_files(weights, model_kwargs).to(map_location).eval()

    @classmethod
    def _from_files(cls, weights: Path, overrides: Mapping[str, Any]) -> Self:
        folder = weights.parent
        arguments, config = _read_config(folder)
        unknown = set(overrides) - set(cls._hub_mixin_init_parameters)
        if unknown:
            raise OptionError(f"{cls.__name__} has no argument {', '.join(sorted(unknown))}")
        arguments = {**arguments, **overrides}
        try:
            with torch.device("meta"):  # random weights are not needed
                network = cls(**arguments)
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError, IndexError) as error:
            raise CheckpointError(f"{folder / CONFIG_FILE}: no network can be built from it ({error})") from error
        load_weights(network, _existing(folder, weights.name))
        network.checkpoint_config = replace(config, network=arguments) if config else None
        return network

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: CheckpointConfig | dict[str, Any] | None = None,  # type: ignore[override]
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write config.json, model.safetensors (float32) and README.md: the whole folder or nothing.

        Args:
            save_directory: A new or empty folder, or one with an older checkpoint, which is replaced.
            config: Config of the checkpoint. The default is `checkpoint_config`. Without either, config.json contains
                only the network's arguments, which `ConDSeg.from_pretrained` can load and `Predictor` cannot.
            repo_id: Name on the Hub with `push_to_hub=True`. The default is the name of the folder.
            push_to_hub: Whether to push the network after saving it.
            model_card_kwargs: Keyword arguments of `model_card`, such as `name`.
            push_to_hub_kwargs: Keyword arguments of `push_to_hub`.

        Returns:
            The URL of the commit with `push_to_hub=True`, otherwise None.

        Raises:
            OptionError: `config` belongs to another network.
            OutputError: The folder contains other files or cannot be written.
            CheckpointError: `config` is a dictionary with wrong keys, or the weights are not finite.
        """
        if isinstance(config, dict):
            config = CheckpointConfig.from_dict(config)
        config = config or self.checkpoint_config
        folder = real_path(save_directory)
        card = model_card(config, **{"name": folder.name, **(model_card_kwargs or {})})
        save_checkpoint(folder, self, config, card=card)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or folder.name, config=config, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs
        )

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Save the network and push it, as `PyTorchModelHubMixin` does, with a card that names the repository.

        Args:
            repo_id: "org/name"; created if it does not exist.
            kwargs: Keyword arguments of `PyTorchModelHubMixin.push_to_hub`: config, commit_message, private, token,
                branch, create_pr, allow_patterns, ignore_patterns, delete_patterns, model_card_kwargs.

        Returns:
            The URL of the commit.

        Raises:
            huggingface_hub.errors.HfHubHTTPError: The Hub denies access; `Predictor.push_to_hub` explains it in one
            line.
        """
        card = {"name": repo_id, **(kwargs.pop("model_card_kwargs", None) or {})}
        return str(super().push_to_hub(repo_id, model_card_kwargs=card, **kwargs))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the card that `save_pretrained` writes; it takes the arguments of `model_card` except the first."""
        return ModelCard(model_card(self.checkpoint_config, *args, **kwargs))


def save_checkpoint(
    folder: str | Path,
    network: PretrainedNetwork,
    config: CheckpointConfig | None,
    *,
    card: str | None = None,
    digests: TrainingDigests | None = None,
    dtype: WeightsDtype = "float32",
) -> Path:
    """Write a checkpoint, config.json, model.safetensors, README.md and digests: the whole folder or nothing.

    Args:
        folder: A new or empty folder, or one with an older checkpoint, which is replaced.
        network: Network on any device. All of its arguments are written, since defaults may change.
        config: Config of the checkpoint. Without one, config.json contains only the network's arguments.
        card: Content of README.md. The default is `model_card(config)`.
        digests: Digests of the images that it was trained on, for training_images.json. Without them there is none.
        dtype: Type of the floating-point weights in the file; "float16" is for bundled weights.

    Returns:
        The full path of the folder.

    Raises:
        OptionError: `config` belongs to another network.
        OutputError: The folder contains other files or cannot be written.
        CheckpointError: Weights are not finite at this precision.
    """
    values = network.arguments
    if config is not None:
        _check_same_network(network, config)
        values = _with_version(replace(config, network=network.arguments)).to_dict()
    weights = tensors_to_bytes(network, dtype)
    text = card or model_card(config, name=real_path(folder).name)

    def write(part: Path) -> None:
        write_json(part / CONFIG_FILE, values, indent=2)
        (part / WEIGHTS_FILE).write_bytes(weights)
        (part / CARD_FILE).write_text(text, encoding="utf-8")
        if digests is not None:
            digests.save(part / DIGESTS_FILE)

    return atomic_folder(folder, write, replaces=CHECKPOINT_FILES)


def _read_config(folder: Path) -> tuple[dict[str, Any], CheckpointConfig | None]:
    """Read a network's arguments, and its config unless the repository contains only the arguments."""
    path = _existing(folder, CONFIG_FILE)
    values = read_json_object(path, error=CheckpointError, remedy="download or save the checkpoint again")
    if "network" not in values and "format_version" not in values:
        return values, None
    try:
        config = CheckpointConfig.from_dict(values)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return config.network, config


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        needed = f"{CONFIG_FILE} and {WEIGHTS_FILE}"
        raise CheckpointError(f"{folder} has no {name}: pass a folder with {needed}, as save_pretrained writes it")
    return path


def _check_same_network(network: PretrainedNetwork, config: CheckpointConfig) -> None:
    """Refuse to write a config that would be loaded as another network."""
    promised = as_json("network", {**network._hub_mixin_jsonable_default_values, **config.network})
    built = network.arguments
    wrong = [name for name in sorted({*promised, *built}) if promised.get(name) != built.get(name)]
    if wrong:
        differences = ", ".join(f"{name}={promised.get(name)!r}, not {built.get(name)!r}" for name in wrong)
        raise OptionError(f"config.network is not what the network was built with: {differences}; pass its arguments")


def _with_version(config: CheckpointConfig) -> CheckpointConfig:
    """Add the version of this release, which a release that cannot read the format names in its error."""
    return replace(config, provenance={**config.provenance, "package_version": __version__})
