"""From a name to a checked folder: bundled, the user's own, and the Hub by the real client against a stand-in."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from condseg_sdk import CheckpointError, ConDSeg, CondsegError, HubError, ModelNotFoundError, OptionError, Predictor
from condseg_sdk.checkpoints.manifest_entry import HubFile, ManifestEntry
from condseg_sdk.download import HubSource, download_checkpoint
from condseg_sdk.weights import manifest
from condseg_sdk.weights.checkpoint import load_checkpoint
from condseg_sdk.weights.hub import resolve
from tests.helpers.hub_server import HubServer, Repository

REPO = "org/tiny"
OLD = "b" * 40


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def files(checkpoint: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.iterdir()}


@pytest.fixture(autouse=True)
def repository(request: pytest.FixtureRequest, files: dict[str, bytes]) -> Repository | None:
    """`REPO` on the server of a test that has one."""
    if "server" not in request.fixturenames:
        return None
    server: HubServer = request.getfixturevalue("server")
    server.repositories[REPO] = Repository(dict(files))
    return server.repositories[REPO]


def one_line(error: CondsegError) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 600
    return text


def downloads(server: HubServer) -> list[str]:
    return [line.rpartition("/")[2] for line in server.requests if line.startswith("GET") and "/resolve/" in line]


# A folder, a bundled name


def test_a_local_folder_is_returned_without_a_check(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(checkpoint) == checkpoint
    assert resolve(str(checkpoint)) == checkpoint
    monkeypatch.chdir(checkpoint.parent)
    assert resolve(checkpoint.name).samefile(checkpoint)


def test_a_wrong_path_says_what_to_give_instead(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("./missing", str(tmp_path / "missing"), "a/b/c", "~/missing", r"C:\models\mine"):
        with pytest.raises(ModelNotFoundError, match="does not exist"):
            resolve(name)
    with pytest.raises(CheckpointError, match="is a file: pass the folder"):
        resolve(checkpoint / "config.json")
    with pytest.raises(ModelNotFoundError, match="no checkpoint is called 'condseg-lite-poly'"):
        resolve("condseg-lite-poly")
    for revision_less in (checkpoint, "condseg-lite-poly"):
        with pytest.raises(CondsegError):
            resolve(revision_less, revision="main")
    with pytest.raises(OptionError, match="leave it out"):
        resolve(checkpoint, revision="main")


def test_a_folder_without_a_checkpoint_does_not_hide_a_model(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as one with an earlier call's masks, made by `--out condseg-lite-polyp`."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "condseg_sdk")
    bundled = resolve("condseg-lite-polyp")
    here = tmp_path / "condseg-lite-polyp"
    here.mkdir()
    (here / "frame_mask.png").touch()
    assert resolve("condseg-lite-polyp") == bundled
    assert "is not a checkpoint, so the known model is used" in caplog.text
    assert Predictor.from_pretrained("condseg-lite-polyp", device="cpu").model_id == "condseg-lite-polyp"
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        resolve("./condseg-lite-polyp"), resolve(here)
    shutil.copytree(checkpoint, here, dirs_exist_ok=True)
    assert resolve("condseg-lite-polyp").samefile(here)
    (tmp_path / "org" / "name").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="for the repository of that name on the Hub pass hf://org/name"):
        resolve("org/name")


def test_links_are_taken_by_their_own_names(checkpoint: Path, tmp_path: Path) -> None:
    """As the Hub's cache has them, whose files have no ending; and links to these links."""
    snapshot, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    snapshot.mkdir()
    blobs.mkdir()
    for path in checkpoint.iterdir():
        (blobs / sha256(path.read_bytes())).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("..", "blobs", sha256(path.read_bytes())))
    (tmp_path / "polyps.safetensors").symlink_to(snapshot / "model.safetensors")
    (tmp_path / "polyps").symlink_to("polyps.safetensors")
    for name in ("snapshot", "snapshot/model.safetensors", "polyps.safetensors", "polyps"):
        predictor = Predictor.from_pretrained(tmp_path / name, device="cpu")
        assert predictor.threshold == 0.4
        assert predictor.model_id == str(tmp_path / name)


def test_what_cannot_be_a_model_says_what_to_give_instead(checkpoint: Path, tmp_path: Path) -> None:
    run, begun, alone = tmp_path / "run", tmp_path / "begun", tmp_path / "alone"
    for folder in (run / "stage2", begun / "stage2", alone, tmp_path / "images"):
        folder.mkdir(parents=True)
    shutil.copytree(checkpoint, run / "checkpoint")
    shutil.copy(checkpoint / "model.safetensors", alone / "w.safetensors")
    (alone / "model.onnx").write_bytes(b"\x08\x0a")
    for name in ("run/settings.json", "begun/settings.json", "run/stage2/last.ckpt", "begun/stage2/best.ckpt", "a.pth"):
        (tmp_path / name).write_bytes(b"\x80\x04.")
    (tmp_path / "a.zip").write_bytes(b"PK")
    for name, message in {
        "run": f"pass its checkpoint, {run / 'checkpoint'}$",
        "run/stage2/last.ckpt": f"pass its checkpoint {run / 'checkpoint'}$",
        "begun": "has not finished: continue it with `condseg finetune ... --resume`",
        "begun/stage2/best.ckpt": f"finish the run with `condseg finetune ... --resume`, then pass {begun / 'checkpoint'}",
        "alone": f"pass its model.onnx itself, {alone / 'model.onnx'}$",
        "alone/w.safetensors": "put the config.json of its checkpoint there",
        "images": "has no config.json: pass a folder with config.json and model.safetensors",
        "a.pth": f"`condseg convert {tmp_path / 'a.pth'} FOLDER --network r50 --color-order rgb`",
        "a.zip": "is an archive: unpack it",
    }.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            resolve(tmp_path / name)
        assert one_line(caught.value).startswith(str(tmp_path / name))
    assert resolve(run / "checkpoint") == run / "checkpoint"


def entry(content: bytes, **place: Any) -> ManifestEntry:
    from condseg_sdk import Preprocessing

    return ManifestEntry(
        name="condseg-tiny",
        kind="checkpoint",
        network="condseg-lite",
        sha256=sha256(content),
        bytes=len(content),
        license="mit",
        attribution="",
        data="noise",
        preprocessing=Preprocessing((64, 64)),
        threshold=0.5,
        **place,
    )


def test_a_bundled_file_is_checked_before_it_is_read(
    checkpoint: Path, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = entry(files["model.safetensors"], file="tiny", root=tmp_path)
    monkeypatch.setattr(manifest, "_entries", lambda _: (known,))
    with pytest.raises(CheckpointError, match="cannot be read"):
        resolve("condseg-tiny")
    (tmp_path / "tiny").mkdir()
    for name, content in files.items():
        (tmp_path / "tiny" / name).write_bytes(content)
    assert resolve("condseg-tiny") == tmp_path / "tiny"
    damaged = files["model.safetensors"][:-1] + b"\x01"
    (tmp_path / "tiny" / "model.safetensors").write_bytes(damaged)
    with pytest.raises(CheckpointError, match="restore the file") as caught:
        Predictor.from_pretrained("condseg-tiny", device="cpu")
    text = one_line(caught.value)
    assert known.sha256 in text
    assert sha256(damaged) in text


# The Hub


def test_a_repository_is_fetched_once_and_then_used_without_a_network(
    server: HubServer, files: dict[str, bytes], options: dict[str, Any]
) -> None:
    folder = resolve(REPO, **options)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: files[name] for name in ("config.json", "model.safetensors")
    }
    assert load_checkpoint(folder)[1].threshold == 0.4
    assert downloads(server) == ["config.json", "model.safetensors"]
    assert resolve(REPO, **options) == folder
    assert downloads(server) == ["config.json", "model.safetensors"]
    asked = len(server.requests)
    assert resolve(REPO, local_files_only=True, **options) == folder
    assert len(server.requests) == asked
    assert Predictor.from_pretrained(REPO, device="cpu", **options).threshold == 0.4


def test_offline_mode_uses_the_cache_and_otherwise_says_what_to_fetch(
    server: HubServer, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve(REPO, **options)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve(REPO, **options) == folder
    for empty in ({"cache_dir": tmp_path / "empty"}, {"cache_dir": tmp_path / "empty", "local_files_only": True}):
        with pytest.raises(HubError, match="hf download org/tiny config.json model.safetensors") as caught:
            resolve(REPO, **{**options, **empty})
        assert "neither a local folder nor cached" in one_line(caught.value)


def test_a_revision_is_a_branch_a_tag_or_a_commit_in_either_spelling(
    server: HubServer, files: dict[str, bytes], options: dict[str, Any]
) -> None:
    server.repositories[REPO].history = {OLD: files, "v1": files}
    assert resolve(f"{REPO}@{OLD}", **options).name == OLD
    assert resolve(REPO, revision=OLD, **options).name == OLD
    assert resolve(f"{REPO}@v1", revision="v1", **options)
    with pytest.raises(OptionError, match="two revisions"):
        resolve(f"{REPO}@v1", revision="v2", **options)
    with pytest.raises(ModelNotFoundError, match="org/tiny has no revision 'v9'"):
        resolve(REPO, revision="v9", **options)


def test_both_files_come_from_one_commit(server: HubServer, files: dict[str, bytes], options: dict[str, Any]) -> None:
    """Somebody pushes between the two downloads."""
    repository = server.repositories[REPO]

    class Pushed(dict[str, bytes]):
        def __getitem__(self, name: str) -> bytes:
            repository.commit, repository.history = "c" * 40, {"a" * 40: files}
            return super().__getitem__(name)

    repository.files = Pushed(files)
    folder = resolve(REPO, **options)
    assert folder.name == "a" * 40
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_weights_that_are_not_what_the_hub_names_are_refused(
    server: HubServer, files: dict[str, bytes], options: dict[str, Any]
) -> None:
    good = files["model.safetensors"]
    swapped = good[:-1] + bytes([good[-1] ^ 1])
    server.repositories[REPO].served = {"model.safetensors": swapped}
    with pytest.raises(CheckpointError, match="download it again") as caught:
        resolve(REPO, **options)
    text = one_line(caught.value)
    assert sha256(good) in text
    assert sha256(swapped) in text


def test_weights_damaged_in_the_cache_are_refused_and_can_be_downloaded_again(
    server: HubServer, options: dict[str, Any]
) -> None:
    weights = resolve(REPO, **options) / "model.safetensors"
    good = weights.read_bytes()
    weights.resolve().write_bytes(b"\0" * len(good))
    with pytest.raises(CheckpointError, match=sha256(good)):
        resolve(REPO, local_files_only=True, **options)
    weights = download_checkpoint(HubSource(REPO, force_download=True, **options))
    assert weights.read_bytes() == good


def test_weights_without_a_hash_need_a_pinned_commit(server: HubServer, options: dict[str, Any]) -> None:
    repository = server.repositories[REPO]
    repository.large_in_git = True
    with pytest.raises(CheckpointError, match=f"revision='{repository.commit}'"):
        resolve(REPO, **options)
    assert resolve(REPO, revision=repository.commit, **options).name == repository.commit


def test_a_manifest_entry_on_the_hub_is_checked_against_the_manifest(
    server: HubServer, files: dict[str, bytes], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = HubFile(REPO, "model.safetensors", "a" * 40)
    for content, fits in ((files["model.safetensors"], True), (b"another file", False)):
        monkeypatch.setattr(manifest, "_entries", lambda _, known=entry(content, hub=place): (known,))
        if fits:
            assert resolve("condseg-tiny", **options).name == "a" * 40
        else:
            with pytest.raises(CheckpointError, match=sha256(content)):
                resolve("condseg-tiny", **options)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ((401, "RepoNotFound"), ModelNotFoundError, "is not on the Hub, or private: .*hf auth login"),
        ((404, "RepoNotFound"), ModelNotFoundError, "is not on the Hub, or private"),
        ((403, "GatedRepo"), HubError, "is gated: accept its terms"),
        ((403, ""), HubError, r"could not be downloaded \(.*403.*\); try again later|cannot be reached"),
    ],
)
def test_a_gated_or_private_repository_ends_in_one_line_with_the_remedy(
    server: HubServer, options: dict[str, Any], error: tuple[int, str], kind: type[CondsegError], message: str
) -> None:
    server.repositories[REPO].error = error
    with pytest.raises(kind, match=message) as caught:
        resolve(REPO, **options)
    assert REPO in one_line(caught.value)
    assert caught.value.repo_id == REPO


def test_a_repository_without_a_checkpoint_and_invalid_names_are_refused(
    server: HubServer, options: dict[str, Any]
) -> None:
    server.repositories["org/other"] = Repository({"README.md": b"hello"})
    with pytest.raises(CheckpointError, match="org/other lacks config.json or model.safetensors"):
        resolve("org/other", **options)
    with pytest.raises(ModelNotFoundError, match="org/missing is not on the Hub"):
        resolve("org/missing", **options)
    for name in ("org/two words", "org/--", "org/"):
        with pytest.raises(ModelNotFoundError):
            resolve(name, **options)


def test_a_token_goes_to_the_hub_and_nowhere_else(server: HubServer, options: dict[str, Any]) -> None:
    resolve(REPO, **{**options, "token": "hf_secret"})
    assert any(path.startswith(f"/{REPO}/resolve/") for path in server.authorized)
    assert not any(path.startswith("/store/") for path in server.authorized)
    server.repositories[REPO].error = (401, "RepoNotFound")
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(REPO, **{**options, "token": "hf_secret", "revision": "v1"})
    assert "hf_secret" not in one_line(caught.value)


def test_the_network_is_loaded_from_the_hub_like_the_predictor(server: HubServer, options: dict[str, Any]) -> None:
    network = ConDSeg.from_pretrained(REPO, **options)
    assert network.checkpoint_config is not None
    assert network.checkpoint_config.threshold == 0.4
    with pytest.raises(ModelNotFoundError, match="neither a local folder nor 'org/name'"):
        ConDSeg.from_pretrained("condseg-lite-polyp", **options)
