"""Publishing: the real client uploads to a stand-in for the Hub, and what comes back is what was sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, PyTorchModelHubMixin
from safetensors.torch import load

from condseg_sdk import (
    CheckpointError,
    ConDSeg,
    CondsegError,
    HubError,
    ModelNotFoundError,
    OptionError,
    Predictor,
    Preprocessing,
)
from condseg_sdk.checkpoints.card import evaluation_in, with_evaluation
from condseg_sdk.checkpoints.manifest_entry import ManifestEntry
from condseg_sdk.checksums import sha256_of
from condseg_sdk.cli import main
from condseg_sdk.data.training_digests import TrainingDigests
from condseg_sdk.models import NETWORKS
from condseg_sdk.publish import PushResult, _network_name, push_checkpoint
from condseg_sdk.weights.checkpoint import CheckpointConfig, load_checkpoint, save_checkpoint
from condseg_sdk.weights.hub import resolve, resolve_onnx
from tests.helpers.hub_server import SECRET, HubServer, Repository

REPO = "org/circles"
FACTS = {
    "data": "circles we drew",
    "license": "cc0-1.0",
    "attribution": "nobody",
    "date": "2026-11-24",
    "datasets": ["org/drawings"],
    "metrics": {"dataset": "Drawn Circles", "split": "test", "mIoU": 0.81234, "mDSC": 0.9, "command": "python m.py"},
}


@pytest.fixture
def described(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint folder with a full provenance, as fine-tuning leaves it: called "checkpoint"."""
    network, config = load_checkpoint(checkpoint)
    config = CheckpointConfig(config.network, config.preprocessing, config.threshold, FACTS)
    return save_checkpoint(tmp_path / "run" / "checkpoint", network, config)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


def push(folder: Path, repo_id: str, **options: Any) -> PushResult:
    network, config = load_checkpoint(folder)
    return push_checkpoint(network, config, repo_id, folder=folder, **options)


def same_weights(a: Path, b: Path) -> bool:
    states = [ConDSeg.from_pretrained(path).state_dict() for path in (a, b)]
    return states[0].keys() == states[1].keys() and all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_what_is_pushed_comes_back_bit_identical_and_predicts_the_same(
    server: HubServer, described: Path, options: dict[str, Any], image: np.ndarray
) -> None:
    predictor = Predictor.from_pretrained(described, device="cpu")
    result = predictor.push_to_hub(REPO, token=SECRET)
    repository = server.repositories[REPO]
    assert set(repository.files) == {"config.json", "model.safetensors", "README.md"}
    assert (result.commit, result.pr_url) == (repository.commit, None)
    assert result.url.endswith(f"{REPO}/commit/{result.commit}")
    folder = resolve(REPO, **options)
    assert folder.name == result.commit
    assert same_weights(folder, described)
    again = Predictor.from_pretrained(f"{REPO}@{result.commit}", device="cpu", **options)
    np.testing.assert_allclose(again(image).probability, predictor(image).probability, atol=1e-6)
    assert again._config.provenance["metrics"] == FACTS["metrics"]


def test_the_digests_of_training_images_go_along_and_come_back(
    server: HubServer, described: Path, options: dict[str, Any]
) -> None:
    values = np.arange(48, dtype=np.uint8).reshape(3, 16)
    TrainingDigests(b"salt", values).save(described / "training_images.json")
    push(described, REPO, token=SECRET)
    assert "training_images.json" in server.repositories[REPO].files
    digests = Predictor.from_pretrained(REPO, device="cpu", **options).training_images
    assert digests is not None
    assert np.array_equal(digests.values, values)


def test_the_entry_pins_what_was_pushed(
    server: HubServer, described: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    entry = push(described, REPO, token=SECRET).entry
    assert ManifestEntry.from_dict(json.loads(json.dumps(entry.to_dict()))) == entry
    assert (entry.name, entry.network, entry.license, entry.data) == ("circles", "custom", "cc0-1.0", "circles we drew")
    assert entry.metrics == FACTS["metrics"]
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"format_version": 1, "entries": [entry.to_dict()]}))
    folder = resolve("circles", manifest=manifest, **options)
    assert sha256_of(folder / "model.safetensors") == entry.sha256
    # Somebody pushes other weights later: the entry still means the first ones, and finds them.
    swapped = b"\0" * int(entry.bytes or 0)
    server.repositories[REPO].served = {"model.safetensors": swapped}
    with pytest.raises(CheckpointError, match=str(entry.sha256)):
        resolve("circles", manifest=manifest, **{**options, "cache_dir": tmp_path / "empty"})


def test_the_card_has_the_hubs_metadata_and_names_the_repository(server: HubServer, described: Path) -> None:
    push(described, REPO, token=SECRET)
    card = ModelCard(server.repositories[REPO].files["README.md"].decode())
    assert (card.data.pipeline_tag, card.data.library_name) == ("image-segmentation", "condseg_sdk")
    assert (card.data.license, card.data.datasets, card.data.model_name) == ("cc0-1.0", ["org/drawings"], "circles")
    assert {(r.metric_type, r.metric_value) for r in card.data.eval_results} == {("mIoU", 0.81234), ("mDSC", 0.9)}
    assert {(r.dataset_name, r.dataset_split) for r in card.data.eval_results} == {("Drawn Circles", "test")}
    assert 'from_pretrained("org/circles")' in card.text
    assert "model.onnx" not in card.text
    assert "POST /api/validate-yaml" in server.requests


def test_without_measured_metrics_the_card_has_those_of_validation(
    server: HubServer, checkpoint: Path, tmp_path: Path
) -> None:
    network, config = load_checkpoint(checkpoint)
    facts = {"data": "our clinic", "validation": {"mIoU": 0.7, "mDSC": 0.8, "threshold": 0.4}}
    config = CheckpointConfig(config.network, config.preprocessing, config.threshold, facts)
    push(save_checkpoint(tmp_path / "one", network, config), REPO, token=SECRET)
    card = ModelCard(server.repositories[REPO].files["README.md"].decode())
    assert {(r.metric_type, r.dataset_name, r.dataset_split) for r in card.data.eval_results} == {
        ("mIoU", "our clinic", "validation"),
        ("mDSC", "our clinic", "validation"),
    }


def test_the_card_of_a_run_gets_the_hubs_name_and_keeps_its_evaluation(server: HubServer, described: Path) -> None:
    """`finetune` adds its metrics to the card, which does not count as an edit."""
    path = described / "README.md"
    section = "## Evaluation\n\nMeasured on 3 images.\n\n| mIoU | 0.7 |\n"
    path.write_text(with_evaluation(path.read_text(), section))
    push(described, REPO, token=SECRET)
    text = server.repositories[REPO].files["README.md"].decode()
    assert f"\n# {REPO}\n" in text
    assert f'from_pretrained("{REPO}")' in text
    assert f'from_pretrained("{described.name}")' not in text
    assert text.index("## Use") < text.index(section.strip()) < text.index("## Citation")
    assert evaluation_in(text).strip() == section.strip()


def test_an_edited_card_is_published_unchanged(server: HubServer, described: Path) -> None:
    text = (described / "README.md").read_text() + "\nAsk us before use.\n"
    (described / "README.md").write_text(text)
    push(described, REPO, token=SECRET)
    assert server.repositories[REPO].files["README.md"].decode() == text


@pytest.mark.slow
def test_onnx_goes_along_and_opens_from_the_hub(
    server: HubServer, described: Path, options: dict[str, Any], image: np.ndarray
) -> None:
    push(described, REPO, onnx=True, token=SECRET)
    repository = server.repositories[REPO]
    assert "model.onnx" in repository.files
    assert 'from_pretrained("hf://org/circles/model.onnx")' in repository.files["README.md"].decode()
    fast = Predictor.from_pretrained("hf://org/circles/model.onnx", device="cpu", **options)
    assert "torch" not in fast.providers
    exact = Predictor.from_pretrained(described, device="cpu")
    assert np.abs(fast(image).probability - exact(image).probability).max() < 1e-4
    assert resolve_onnx(REPO, **options) == resolve("hf://org/circles/model.onnx", **options)
    with pytest.raises(CheckpointError, match="open the checkpoint that it was exported from"):
        fast.push_to_hub(REPO, token=SECRET)


def test_float16_weights_are_published_as_float32(server: HubServer, described: Path, tmp_path: Path) -> None:
    network, config = load_checkpoint(described)
    half = save_checkpoint(tmp_path / "half", network, config, dtype="float16")
    push(half, REPO, token=SECRET)
    sent = load(server.repositories[REPO].files["model.safetensors"])
    assert {value.dtype for value in sent.values() if value.is_floating_point()} == {torch.float32}
    loaded = load_checkpoint(half)[0].state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in sent.items())


def test_a_private_repository_needs_its_token(server: HubServer, described: Path, options: dict[str, Any]) -> None:
    Predictor.from_pretrained(described, device="cpu").push_to_hub(REPO, private=True, token=SECRET)
    assert server.repositories[REPO].private
    with pytest.raises(ModelNotFoundError, match="is not on the Hub, or private"):
        resolve(REPO, **options)
    assert resolve(REPO, **{**options, "token": SECRET})


def test_a_push_can_go_to_a_branch_or_a_pull_request(
    server: HubServer, described: Path, options: dict[str, Any]
) -> None:
    first = push(described, REPO, token=SECRET, branch="trial", commit_message="First try")
    assert server.messages[first.commit] == "First try"
    assert server.repositories[REPO].files == {}
    assert same_weights(resolve(f"{REPO}@trial", **options), described)
    asked = push(described, REPO, token=SECRET, create_pr=True)
    assert asked.pr_url is not None
    assert asked.pr_url.endswith("/discussions/1")
    assert same_weights(resolve(f"hf://{REPO}@refs/pr/1", **options), described)


def test_pushing_again_replaces_and_pushing_the_same_changes_nothing(server: HubServer, described: Path) -> None:
    first = push(described, REPO, token=SECRET)
    assert push(described, REPO, token=SECRET).commit == first.commit
    network, config = load_checkpoint(described)
    with torch.no_grad():
        network.output.logits.bias.add_(1)
    second = push(save_checkpoint(described, network, config), REPO, token=SECRET)
    assert second.commit != first.commit
    assert second.entry.sha256 != first.entry.sha256
    assert first.commit in server.repositories[REPO].history


@pytest.mark.parametrize(
    ("token", "repo_id", "error", "message"),
    [
        (False, REPO, HubError, r"org/circles cannot be written to \(401\): log in with a token"),
        ("hf_reader", REPO, HubError, r"org/circles cannot be written to \(403\): log in with a token"),
        (SECRET, "circles", OptionError, "'circles' must be 'org/name'"),
        (SECRET, "../../x", OptionError, "must be 'org/name'"),
    ],
)
def test_a_token_without_the_right_to_write_ends_in_one_line(
    token: Any, repo_id: str, error: type[CondsegError], message: str, server: HubServer, described: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        push(described, repo_id, token=token)
    assert "\n" not in str(caught.value)
    assert REPO not in server.repositories


def test_an_invalid_branch_and_a_failing_server_are_one_line(server: HubServer, described: Path) -> None:
    with pytest.raises(OptionError, match="branch='../x'"):
        push(described, REPO, token=SECRET, branch="../x")
    server.repositories[REPO] = Repository({}, error=(500, ""))
    server.faults.statuses = [501]
    with pytest.raises(HubError, match=r"org/circles could not be published \(.*501"):
        push(described, REPO, token=SECRET)


def test_a_damaged_checkpoint_is_not_published(server: HubServer, described: Path) -> None:
    weights = described / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        push(described, REPO, token=SECRET)
    assert REPO not in server.repositories


def test_named_networks_are_recognized() -> None:
    with torch.device("meta"):
        assert {_network_name(ConDSeg(**arguments)) for arguments in NETWORKS.values()} == set(NETWORKS)


# What people know from huggingface_hub


def test_the_network_can_be_pushed_without_a_predictor(
    server: HubServer, described: Path, options: dict[str, Any]
) -> None:
    network = ConDSeg.from_pretrained(described)
    network.push_to_hub(REPO, token=SECRET, private=True, commit_message="By hand")
    repository = server.repositories[REPO]
    assert repository.private
    assert server.messages[repository.commit] == "By hand"
    assert 'from_pretrained("org/circles")' in repository.files["README.md"].decode()
    assert same_weights(resolve(REPO, **{**options, "token": SECRET}), described)


@pytest.fixture
def plain(server: HubServer, checkpoint: Path) -> ConDSeg:
    """A repository that PyTorchModelHubMixin made alone: the network's arguments, its weights and a card."""

    class Plain(ConDSeg):
        save_pretrained = PyTorchModelHubMixin.save_pretrained  # type: ignore[assignment]
        push_to_hub = PyTorchModelHubMixin.push_to_hub  # type: ignore[assignment]
        generate_model_card = PyTorchModelHubMixin.generate_model_card  # type: ignore[assignment]

    network, config = load_checkpoint(checkpoint)
    bare = Plain(**config.network)
    bare.load_state_dict(network.state_dict())
    bare.push_to_hub(REPO, token=SECRET)
    assert "preprocessing" not in json.loads(server.repositories[REPO].files["config.json"])
    return bare.eval()


def test_a_repository_of_the_plain_mixin_needs_a_preprocessing(
    plain: ConDSeg, options: dict[str, Any], image: np.ndarray, checkpoint: Path
) -> None:
    network = ConDSeg.from_pretrained(REPO, **options)
    expected = plain.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    with pytest.raises(CheckpointError, match="has neither preprocessing .*pass preprocessing="):
        Predictor.from_pretrained(REPO, device="cpu", **options)
    preprocessing = Preprocessing((64, 64), scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)
    predictor = Predictor.from_pretrained(REPO, device="cpu", preprocessing=preprocessing, **options)
    assert (predictor.preprocessing, predictor.threshold) == (preprocessing, 0.5)
    described = Predictor.from_pretrained(checkpoint, device="cpu")
    np.testing.assert_allclose(predictor(image).probability, described(image).probability, atol=1e-6)
    pushed = predictor.push_to_hub("org/complete", token=SECRET)
    assert Predictor.from_pretrained("org/complete", device="cpu", **options).preprocessing == preprocessing
    assert pushed.entry.license == "unknown"


def test_preprocessing_replaces_a_checkpoints_own_but_not_an_exports(described: Path, tmp_path: Path) -> None:
    larger = Preprocessing((96, 96), scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)
    assert Predictor.from_pretrained(described, device="cpu", preprocessing=larger).preprocessing.size == (96, 96)
    with pytest.raises(OptionError, match="has its own"):
        Predictor.from_pretrained(tmp_path / "model.onnx", preprocessing=larger)


def test_the_hub_lists_the_pushed_files(server: HubServer, described: Path) -> None:
    """The large file is in the Hub's large-file store under the SHA-256 of the entry."""
    result = push(described, REPO, token=SECRET)
    api = HfApi(token=SECRET)
    assert api.model_info(REPO).sha == result.commit
    tree = {file.path: file for file in api.list_repo_tree(REPO)}
    assert tree["model.safetensors"].lfs.sha256 == result.entry.sha256
    assert tree["config.json"].lfs is None


# The command, in a process of its own


@pytest.fixture
def environment(server: HubServer, tmp_path: Path) -> dict[str, str]:
    return {**os.environ, **server.environment, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": SECRET}


def test_the_command_prints_the_entry(
    server: HubServer, described: Path, environment: dict[str, str], options: dict[str, Any]
) -> None:
    command = [sys.executable, "-m", "condseg_sdk.cli", "push", str(described), REPO, "--private"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    entry = ManifestEntry.from_dict(json.loads(done.stdout))
    assert entry.hub is not None
    assert entry.hub.revision == server.repositories[REPO].commit
    assert f"published: {server.endpoint}/{REPO}/commit/{entry.hub.revision}" in done.stderr


def test_the_command_tells_errors_in_one_line(
    server: HubServer, described: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(described), REPO, "--token", "hf_reader"]) == 2
    assert capsys.readouterr().err.startswith("condseg: error: org/circles cannot be written to (403)")
    assert main(["push", str(described.parent), REPO]) == 2
    assert f"pass its checkpoint, {described}" in capsys.readouterr().err
