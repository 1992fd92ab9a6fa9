"""Publishing a checkpoint on the Hugging Face Hub, in one commit, with the manifest entry that pins it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, errors

from condseg_sdk.checkpoints.card import evaluation_in, model_card, with_evaluation
from condseg_sdk.checkpoints.config import CheckpointConfig, as_json
from condseg_sdk.checkpoints.manifest_entry import HubFile, ManifestEntry
from condseg_sdk.checksums import sha256_of
from condseg_sdk.download import REPOSITORY, WEIGHTS_FILE, HubSource, is_plain_path, translate_hub_errors
from condseg_sdk.errors import CheckpointError, HubError, ModelNotFoundError, OptionError
from condseg_sdk.export.onnx import export_onnx
from condseg_sdk.files import real_path
from condseg_sdk.models import NETWORKS, ConDSeg
from condseg_sdk.options import check_flags, check_text
from condseg_sdk.weights.checkpoint import load_digests, save_checkpoint
from condseg_sdk.weights.hub import ONNX_FILE

__all__ = ["PushResult", "push_checkpoint"]


@dataclass(frozen=True)
class PushResult:
    """A published checkpoint.

    Attributes:
        url: URL of the commit.
        commit: Hash of the commit.
        pr_url: URL of the pull request, with `create_pr=True`.
        entry: Entry for a weights manifest, which pins the commit and the weights.
    """

    url: str
    commit: str
    pr_url: str | None
    entry: ManifestEntry

    def __str__(self) -> str:
        return f"{self.pr_url or self.url} ({self.entry.hub.repo_id if self.entry.hub else ''}@{self.commit})"


def push_checkpoint(
    network: ConDSeg,
    config: CheckpointConfig,
    repo_id: str,
    *,
    folder: Path | None = None,
    onnx: bool = False,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload checkpoint with condseg_sdk",
) -> PushResult:
    """Publish a checkpoint: config.json, model.safetensors (float32), README.md and, if asked for, model.onnx.

    If the folder has digests of the training images (training_images.json), they are published, too.

    The arguments are the same as for `Predictor.push_to_hub`, and `folder`, the checkpoint folder (or the .safetensors
    file in it) that the network was loaded from. If somebody has edited the README.md there, it is published; otherwise
    a new model card is written with the name on the Hub, and the metrics measured in training are kept.

    Raises:
        OptionError: The value of an argument is not allowed.
        CheckpointError: README.md cannot be read.
        HubError: The Hub cannot be reached, or denies write access; the message says what to do.
        ExportError: The ONNX file differs from the network; nothing is published.

    Example:
        >>> from condseg_sdk.weights.checkpoint import load_checkpoint
        >>> network, config = load_checkpoint("runs/mine/checkpoint")  # doctest: +SKIP
        >>> push_checkpoint(network, config, "org/polyps").entry.sha256  # doctest: +SKIP
        'b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9'
    """
    for name, text in (("repo_id", repo_id), ("commit_message", commit_message)):
        check_text(name, text)
    if branch is not None:
        check_text("branch", branch)
    if token is not None and not isinstance(token, bool):
        check_text("token", token)
    check_flags(onnx=onnx, create_pr=create_pr, **({} if private is None else {"private": private}))
    if not REPOSITORY.fullmatch(repo_id):
        raise OptionError(f"repo_id={repo_id!r} must be 'org/name', the repository to publish to", option="repo_id")
    if branch is not None and not is_plain_path(branch):
        raise OptionError(f"branch={branch!r} is not a valid branch: choose a plain name", option="branch")
    card = model_card(config, name=repo_id, onnx=onnx)
    if folder is not None:
        card = _card(folder, config, card)
    with tempfile.TemporaryDirectory() as temporary:
        part = Path(temporary) / "checkpoint"
        save_checkpoint(part, network, config, card=card, digests=None if folder is None else load_digests(folder))
        if onnx:
            export_onnx(network, config, part / ONNX_FILE)
        api = HfApi(token=token)
        with translate_push_errors(repo_id):
            api.create_repo(repo_id, private=private, exist_ok=True)
            if branch is not None:
                api.create_branch(repo_id, branch=branch, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=part, revision=branch, create_pr=create_pr, commit_message=commit_message
            )
        entry = _entry(repo_id, commit.oid, part / WEIGHTS_FILE, network, config)
    return PushResult(str(commit.commit_url), commit.oid, commit.pr_url, entry)


def _card(folder: Path, config: CheckpointConfig, new: str) -> str:
    """Return README.md if it was edited, otherwise the new card with the evaluation of the old one."""
    folder = folder if folder.is_dir() else folder.parent
    path = folder / "README.md"
    if not path.is_file():
        return new
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): save it as UTF-8 text, or delete it") from error
    evaluation = evaluation_in(text)
    is_ours = text == with_evaluation(model_card(config, name=real_path(folder).name), evaluation)
    return with_evaluation(new, evaluation) if is_ours else text


@contextmanager
def translate_push_errors(repo_id: str) -> Iterator[None]:
    remedy = "log in with a token that has write access (`hf auth login`, or token=), or choose your own repository"
    try:
        with translate_hub_errors(HubSource(repo_id)):
            yield
    except (HubError, ModelNotFoundError) as error:
        cause = error.__cause__
        status = cause.response.status_code if isinstance(cause, errors.HfHubHTTPError) else None
        if status in (401, 403) or isinstance(cause, errors.LocalTokenNotFoundError):
            raise HubError(
                f"{repo_id} cannot be written to ({status or 'no token'}): {remedy}", repo_id=repo_id
            ) from cause
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise HubError(f"{repo_id} could not be published ({reason}); try again later", repo_id=repo_id) from cause


def _entry(repo_id: str, commit: str, weights: Path, network: ConDSeg, config: CheckpointConfig) -> ManifestEntry:
    facts = config.provenance
    metrics = facts.get("metrics")
    return ManifestEntry(
        name=repo_id.rpartition("/")[2],
        kind="checkpoint",
        network=_network_name(network),
        sha256=sha256_of(weights),
        bytes=weights.stat().st_size,
        license=str(facts.get("license", "unknown")),
        attribution=str(facts.get("attribution", "")),
        data=str(facts.get("data", "not recorded")),
        preprocessing=config.preprocessing,
        date=str(facts["date"]) if "date" in facts else None,
        hub=HubFile(repo_id, WEIGHTS_FILE, commit),
        threshold=config.threshold,
        metrics=_plain(metrics) if isinstance(metrics, Mapping) else {},
    )


def _network_name(network: ConDSeg) -> str:
    for name, arguments in NETWORKS.items():
        if as_json("arguments", {**network._hub_mixin_jsonable_default_values, **arguments}) == network.arguments:
            return name
    return "custom"


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if type(value) in (int, float, str)}
