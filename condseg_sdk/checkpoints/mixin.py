"""Saving, loading and pushing a network with the methods people know from huggingface_hub, without its soft spots.

`PyTorchModelHubMixin` loads what fits and leaves the rest random, takes a repository without a config for one with
default arguments, and falls back to pickle. Here all tensors must fit, there must be a config, and there is no pickle.
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
from condseg_sdk.download import CONFIG_FILE, WEIGHTS_FILE, HubSource, download_checkpoint
from condseg_sdk.errors import CheckpointError, OptionError
from condseg_sdk.files import atomic_folder
from condseg_sdk.json_files import read_json_object, write_json

__all__ = ["PretrainedNetwork", "write_checkpoint"]

CARD_FILE = "README.md"
CHECKPOINT_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)


class PretrainedNetwork(nn.Module, PyTorchModelHubMixin):
    """Base of networks that can be saved and loaded by their arguments.

    Attributes:
        checkpoint_config: of the checkpoint the network was loaded from; it travels along with `save_pretrained` and
            `push_to_hub`. None for a new network and for a repository that holds nothing but its arguments.
    """

    checkpoint_config: CheckpointConfig | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What the network was built with, defaults included, as JSON has it."""
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
            pretrained_model_name_or_path: a folder with config.json and model.safetensors, a .safetensors file with its
                config.json beside it, or "org/name".
            force_download: fetch the files even if they are in the cache.
            token: for private repositories; default: the one you are logged in with.
            cache_dir: where downloads are kept; default: Hugging Face's own cache.
            local_files_only: never go to the network.
            revision: branch, tag or commit on the Hub.
            map_location: the device to put the network on.
            model_kwargs: arguments of the network that replace those in config.json.

        Raises:
            ModelNotFoundError: no such folder, and no such repository that can be reached.
            CheckpointError: found but incomplete, damaged, or not fitting the network.
            OptionError: `model_kwargs` that the network does not have.
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
            with torch.device("meta"):  # random weights would be made only to be thrown away
                network = cls(**arguments)
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError, IndexError) as error:
            raise CheckpointError(f"{folder / CONFIG_FILE}: no network can be built of it ({error})") from error
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
            save_directory: a new or empty folder, or one with an older checkpoint, which is replaced.
            config: default: `checkpoint_config`. Without either, config.json holds the network's arguments alone, and
                `ConDSeg.from_pretrained` can load it but `Predictor` cannot.
            repo_id: name on the Hub with `push_to_hub=True`; default: the folder's name.
            push_to_hub: push the network after saving it.
            model_card_kwargs: keyword arguments of `model_card`, such as `name`.
            push_to_hub_kwargs: keyword arguments of `push_to_hub`.

        Returns:
            The commit's URL with `push_to_hub=True`, otherwise None.

        Raises:
            OptionError: `config` is another network's.
            OutputError: the folder holds other files or cannot be written.
            CheckpointError: `config` is a dictionary with wrong keys, or the weights are not finite.
        """
        if isinstance(config, dict):
            config = CheckpointConfig.from_dict(config)
        config = config or self.checkpoint_config
        folder = Path(save_directory).resolve()
        card = model_card(config, **{"name": folder.name, **(model_card_kwargs or {})})
        write_checkpoint(folder, self, config, card=card)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or folder.name, config=config, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs
        )

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Save the network and push it, as `PyTorchModelHubMixin` does, with a card that names the repository.

        Args:
            repo_id: "org/name"; made if it does not exist.
            kwargs: of `PyTorchModelHubMixin.push_to_hub`: config, commit_message, private, token, branch, create_pr,
                allow_patterns, ignore_patterns, delete_patterns, model_card_kwargs.

        Returns:
            The commit's URL.

        Raises:
            huggingface_hub.errors.HfHubHTTPError: the Hub refuses; `Predictor.push_to_hub` says in one line why.
        """
        card = {"name": repo_id, **(kwargs.pop("model_card_kwargs", None) or {})}
        return str(super().push_to_hub(repo_id, model_card_kwargs=card, **kwargs))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that `save_pretrained` writes; the arguments are `model_card`'s after its first."""
        return ModelCard(model_card(self.checkpoint_config, *args, **kwargs))


def write_checkpoint(
    folder: str | Path,
    network: PretrainedNetwork,
    config: CheckpointConfig | None,
    *,
    card: str,
    dtype: WeightsDtype = "float32",
) -> Path:
    """Write a checkpoint's three files: the whole folder or nothing.

    Args:
        folder: new, empty, or with an older checkpoint, which is replaced.
        network: whose weights and, without a `config`, whose arguments are written.
        config: of the checkpoint. The file gets all of the network's arguments: defaults may change one day.
        card: content of README.md.
        dtype: of the floating-point weights in the file.

    Returns:
        The folder's full path.

    Raises:
        OptionError: `config` is another network's.
        OutputError: the folder holds other files or cannot be written.
        CheckpointError: weights that are not finite at this precision.
    """
    values = network.arguments
    if config is not None:
        _check_same_network(network, config)
        values = _with_version(replace(config, network=network.arguments)).to_dict()
    weights = tensors_to_bytes(network, dtype)

    def write(part: Path) -> None:
        write_json(part / CONFIG_FILE, values, indent=2)
        (part / WEIGHTS_FILE).write_bytes(weights)
        (part / CARD_FILE).write_text(card, encoding="utf-8")

    return atomic_folder(folder, write, replaces=CHECKPOINT_FILES)


def _read_config(folder: Path) -> tuple[dict[str, Any], CheckpointConfig | None]:
    """A network's arguments, and all of its config unless the repository has nothing but these."""
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
        raise CheckpointError(f"{folder} has no {name}: give a folder with {needed}, as save_pretrained writes it")
    return path


def _check_same_network(network: PretrainedNetwork, config: CheckpointConfig) -> None:
    """Refuse to write what could not be loaded, or would be loaded as another network."""
    promised = as_json("network", {**network._hub_mixin_jsonable_default_values, **config.network})
    built = network.arguments
    wrong = [name for name in sorted({*promised, *built}) if promised.get(name) != built.get(name)]
    if wrong:
        differences = ", ".join(f"{name}={promised.get(name)!r}, not {built.get(name)!r}" for name in wrong)
        raise OptionError(f"config.network is not what the network was built with: {differences}; pass its arguments")


def _with_version(config: CheckpointConfig) -> CheckpointConfig:
    """With the release that writes it, which a release that cannot read the format will name."""

    return replace(config, provenance={**config.provenance, "package_version": __version__})
