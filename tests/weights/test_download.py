"""Downloads that fail: the real client against a stand-in for the Hub with the faults of networks and servers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants

from condseg_sdk import CheckpointError, CondsegError, HubError, ModelNotFoundError, OptionError, OutputError, Predictor
from condseg_sdk.checksums import sha256_of
from condseg_sdk.download import HubSource, download_checkpoint, download_file, is_plain_path
from condseg_sdk.weights.checkpoint import load_checkpoint
from condseg_sdk.weights.hub import resolve, resolve_onnx
from tests.helpers.hub_server import HubServer, Repository

REPO = "org/tiny"
CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def files(checkpoint: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.iterdir()}


@pytest.fixture
def repository(server: HubServer, files: dict[str, bytes]) -> Repository:
    """A checkpoint, the same again in a folder, under another name, and an .onnx file that is none."""
    weights, config = files["model.safetensors"], files["config.json"]
    server.repositories[REPO] = Repository(
        {
            **files,
            "polyp/config.json": config,
            "polyp/model.safetensors": weights,
            "polyp/best.safetensors": weights,
            "model.onnx": CONTENT,
            "polyp/model.onnx": CONTENT[1:],
            "old.pth": b"\x80\x04.",
        }
    )
    return server.repositories[REPO]


def one_line(error: CondsegError) -> str:
    assert "\n" not in str(error)
    assert len(str(error)) < 700
    return str(error)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# hf:// addresses, files of one's own


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("hf://org/tiny", ""),
        ("hf://models/org/tiny", ""),
        (f"hf://org/tiny@{'a' * 40}", ""),
        ("hf://org/tiny@main/", ""),
        ("hf://org/tiny/model.safetensors", ""),
        ("hf://org/tiny/polyp", "polyp"),
        ("hf://org/tiny@main/polyp/model.safetensors", "polyp"),
        ("hf://org/tiny/polyp/best.safetensors", "polyp/best.safetensors"),
        ("hf://org/tiny/model.onnx", "model.onnx"),
        (f"hf://org/tiny@{'a' * 40}/polyp/model.onnx", "polyp/model.onnx"),
    ],
)
def test_addresses_name_repositories_folders_and_files(
    name: str, end: str, repository: Repository, options: dict[str, Any]
) -> None:
    path = resolve(name, **options)
    assert str(path).endswith(str(Path("snapshots") / ("a" * 40) / end).rstrip("/"))
    if path.suffix != ".onnx":
        assert load_checkpoint(path)[1].threshold == 0.4
    else:
        assert path.read_bytes() in (CONTENT, CONTENT[1:])
    assert resolve(name, local_files_only=True, **options) == path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf://tiny", "pass hf://org/name"),
        ("hf://datasets/org/tiny", "is not a model on the Hub"),
        ("hf://org/tiny/../../x.safetensors", "must be a plain path"),
        ("hf://org/tiny//etc/passwd", "must be a plain path"),
        ("hf://org/tiny/.git/model.safetensors", "must be a plain path"),
        ("hf://org/tiny@../../x/model.safetensors", "plain path|no revision|spelling"),
        ("hf://org/tiny@refs/../x", "cannot have a revision"),
        ("hf://../tiny", "neither a local folder nor 'org/name'"),
        ("hf://org/tiny/old.pth", "is a pickle, which is never loaded"),
        ("hf://org/tiny/missing.onnx", "lacks missing.onnx"),
        ("hf://org/tiny/missing", "lacks missing/config.json or missing/model.safetensors"),
        ("https://huggingface.co/org/tiny", "pass 'org/name'"),
        ("model.onnx", "does not exist: check the path, or make it with export_onnx"),
        ("runs/best.safetensors", "does not exist: check the path"),
        ("org/tiny@../x", "cannot have a revision '../x'"),
    ],
)
def test_invalid_addresses_are_refused_and_leave_no_file(
    name: str, message: str, repository: Repository, server: HubServer, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises((ModelNotFoundError, CheckpointError), match=message) as caught:
        resolve(name, **options)
    one_line(caught.value)
    assert tree(tmp_path) <= {"cache"} | {path for path in tree(tmp_path) if path.startswith("cache/")}


@pytest.mark.parametrize("name", ["./polyps", "runs/best.safetensors", "model.onnx"])
def test_the_error_for_a_missing_path_has_its_path(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="does not exist") as caught:
        resolve(name)
    assert caught.value.path == Path(name)


def test_an_address_with_another_revision_is_refused(repository: Repository, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="name two revisions"):
        resolve("hf://org/tiny@main", revision="v1", **options)


def test_a_local_safetensors_file_loads_with_its_config(checkpoint: Path, tmp_path: Path) -> None:
    assert resolve(checkpoint / "model.safetensors") == checkpoint
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    best = tmp_path / "best.safetensors"
    best.write_bytes((checkpoint / "model.safetensors").read_bytes())
    assert resolve(best) == best
    assert Predictor.from_pretrained(best, device="cpu").threshold == 0.4
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"best.safetensors has no config.json beside it"):
        Predictor.from_pretrained(best)
    with pytest.raises(CheckpointError, match="condseg convert"):
        resolve(_touch(tmp_path / "theirs.pth"))
    with pytest.raises(OptionError, match="leave it out"):
        resolve(_touch(tmp_path / "model.onnx"), revision="v1")


def _touch(path: Path) -> Path:
    path.touch()
    return path


def test_the_onnx_file_of_a_folder_or_repository_is_found(
    repository: Repository, options: dict[str, Any], tmp_path: Path, checkpoint: Path
) -> None:
    assert resolve_onnx(REPO, **options).read_bytes() == CONTENT
    assert resolve_onnx("hf://org/tiny/polyp", **options).read_bytes() == CONTENT[1:]
    assert resolve_onnx("hf://org/tiny/model.onnx", **options) == resolve_onnx(REPO, **options)
    own = _touch(tmp_path / "model.onnx")
    assert resolve_onnx(own) == resolve_onnx(tmp_path) == own
    for without in (checkpoint, "condseg-lite-polyp"):
        with pytest.raises(
            ModelNotFoundError,
            match=r"has no model.onnx: make one with `condseg export .* pass from_pretrained that file",
        ):
            resolve_onnx(without)
    with pytest.raises(ModelNotFoundError, match="is not an .onnx file"):
        resolve_onnx(checkpoint / "model.safetensors")
    with pytest.raises(ModelNotFoundError, match="no checkpoint is called 'polyp'"):
        resolve_onnx("polyp")
    repository.files.pop("model.onnx")
    repository.commit = "b" * 40
    with pytest.raises(ModelNotFoundError, match="org/tiny has no model.onnx: make one with `condseg export org/tiny"):
        resolve_onnx(REPO, **options)


# Networks and servers that fail


def resumed_at(server: HubServer) -> int:
    (requested,) = server.ranges
    return int(requested.removeprefix("bytes=").removesuffix("-"))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """The client keeps what it has in whole chunks, of 10 MB in earnest."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)
    return 1 << 14


def test_a_connection_cut_in_the_middle_is_resumed(
    server: HubServer, repository: Repository, files: dict[str, bytes], options: dict[str, Any], small_chunks: int
) -> None:
    server.faults.cuts = 1
    folder = resolve(REPO, **options)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert 0 <= len(files["model.safetensors"]) // 2 - resumed_at(server) < small_chunks


def test_a_server_that_stalls_times_out_and_is_asked_again_for_the_rest(
    server: HubServer,
    repository: Repository,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    small_chunks: int,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    server.faults.stalls, server.faults.stall_s = 1, 3.0
    path = download_file(HubSource(REPO, **options), "model.onnx")
    assert path.read_bytes() == CONTENT
    assert 0 <= len(CONTENT) // 3 - resumed_at(server) < small_chunks


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_temporary_refusal_is_retried(
    status: int, server: HubServer, repository: Repository, options: dict[str, Any]
) -> None:
    server.faults.statuses = [status]
    assert resolve(REPO, **options).is_dir()


def test_a_refusal_with_everything_in_the_cache_does_no_harm(
    server: HubServer, repository: Repository, options: dict[str, Any]
) -> None:
    folder = resolve(REPO, **options)
    server.faults.statuses = [500]
    assert resolve(REPO, **options) == folder
    server.faults.statuses = [429]
    assert resolve(REPO, **options) == folder


@pytest.mark.slow
def test_lasting_refusals_and_a_silent_server_are_one_line(
    repository: Repository, server: HubServer, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client asks five more times, and here does not wait between them."""
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))
    for status in (429, 500):
        server.faults.statuses = [status] * 20
        with pytest.raises(HubError, match=rf"{status}.*hf download org/tiny config.json") as caught:
            resolve(REPO, **options)
        one_line(caught.value)
    server.faults.statuses = []
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    server.faults.stalls, server.faults.stall_s, server.faults.mute = 100, 1.0, True
    with pytest.raises(HubError, match=r"could not be downloaded .*try again later"):
        download_file(HubSource(REPO, **options), "model.onnx")


def test_an_unreachable_hub_ends_in_one_line(
    repository: Repository, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "http://127.0.0.1:9"
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    folder = resolve(REPO, **options)
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert resolve(REPO, **options) == folder


@pytest.mark.parametrize("served", [CONTENT[:-1], CONTENT + b"!", b"", CONTENT[:-1] + b"!"])
def test_what_is_not_the_file_the_hub_names_is_refused(
    served: bytes, repository: Repository, options: dict[str, Any], tmp_path: Path
) -> None:
    """Truncated, padded, emptied, swapped: another size is noticed by the client, another content by us."""
    repository.served = {"model.onnx": served}
    with pytest.raises((CheckpointError, HubError)) as caught:
        download_file(HubSource(REPO, **options), "model.onnx")
    text = one_line(caught.value)
    if len(served) == len(CONTENT):
        assert hashlib.sha256(CONTENT).hexdigest() in text
        assert hashlib.sha256(served).hexdigest() in text
    else:
        assert str(len(CONTENT)) in text
    repository.served = {}
    if len(served) != len(CONTENT):
        assert download_file(HubSource(REPO, **options), "model.onnx").read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["truncated", "swapped", "emptied"])
def test_a_file_damaged_in_the_cache_is_refused_with_both_hashes(
    change: str, repository: Repository, options: dict[str, Any], files: dict[str, bytes]
) -> None:
    good = files["model.safetensors"]
    weights = (resolve(REPO, **options) / "model.safetensors").resolve()
    bad = {"truncated": good[:-1], "swapped": good[:-1] + bytes([good[-1] ^ 1]), "emptied": b""}[change]
    weights.write_bytes(bad)
    for more in ({}, {"local_files_only": True}):
        with pytest.raises(CheckpointError, match="delete .*models--org--tiny and download it again") as caught:
            resolve(REPO, **options, **more)
        assert hashlib.sha256(good).hexdigest() in one_line(caught.value)
        assert hashlib.sha256(bad).hexdigest() in one_line(caught.value)


def test_without_links_the_hash_is_kept_for_the_next_time_without_a_network(
    server: HubServer, repository: Repository, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where the cache contains the files themselves."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    folder = resolve(REPO, **options)
    assert not (folder / "model.safetensors").is_symlink()
    asked = len(server.requests)
    assert resolve(REPO, local_files_only=True, **options) == folder
    assert len(server.requests) == asked
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="its sha256 is"):
        resolve(REPO, local_files_only=True, **options)
    (folder / ".model.safetensors.sha256").unlink()
    assert resolve(REPO, local_files_only=True, **options) == folder, "as a folder of the user's own"
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        Predictor.from_pretrained(REPO, local_files_only=True, **options)


@pytest.mark.parametrize("kept", ["links resolved", "blobs, too", "snapshots alone"])
@pytest.mark.parametrize("offline", ["by setting", "by argument", "no response"])
def test_a_copied_cache_without_links_is_used_without_a_network(
    kept: str,
    offline: str,
    repository: Repository,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `cp -rL`, a USB stick, an archive or Windows leave it."""
    commit = resolve(REPO, **options).name
    copy = shutil.copytree(options["cache_dir"], tmp_path / "stick")  # follows links
    (stored,) = copy.glob("models--*")
    if kept == "snapshots alone":
        shutil.rmtree(stored / "blobs")
    options = {**options, "cache_dir": copy}
    if offline == "by setting":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif offline == "by argument":
        options["local_files_only"] = True
    else:
        nowhere = "http://127.0.0.1:9"
        monkeypatch.setattr(constants, "ENDPOINT", nowhere)
        template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("condseg_sdk.download._sha256_on_the_hub", unreachable)
    for name in (f"{REPO}@{commit}", *([] if offline == "no response" else [REPO])):
        assert Predictor.from_pretrained(name, device="cpu", **options).threshold == 0.4
    if kept == "snapshots alone":
        return
    weights = stored / "snapshots" / commit / "model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(CheckpointError, match="is damaged, .*: delete"):
        resolve(f"{REPO}@{commit}", **options)


def unreachable(*_: object) -> str:
    raise ConnectionError("[Errno 111] Connection refused")


def test_the_cache_may_be_read_only(
    repository: Repository, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without links there is a note to write, which is no reason to fail."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)

    def refuse(path: Path, text: str) -> None:
        raise OutputError(f"{path} cannot be written")

    monkeypatch.setattr("condseg_sdk.download.write_text", refuse)
    assert resolve(REPO, **options).is_dir()


class InvalidURL(Exception):  # noqa: N818
    """As httpx names it; the client's httpx may be another copy than the tests' own."""


class ProxyError(OSError):
    """Likewise."""


class LocalProtocolError(OSError):
    """Likewise."""


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(28, "No space left on device"), "free some space, or choose another disk with cache_dir= or HF_HOME"),
        (PermissionError(13, "Permission denied"), "choose a cache folder that can be written to"),
        (ImportError("Using SOCKS proxy, but the 'socksio' package is not installed."), "pip install socksio"),
        (InvalidURL("Invalid port: 'port'"), "HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, and HF_ENDPOINT"),
        (ProxyError("407 Proxy Authentication Required"), "with user and password if the proxy needs"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "set SSL_CERT_FILE to their file"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "and HF_ENDPOINT, each of the form http://host:port"),
        (LocalProtocolError("Illegal header value"), "check the token"),
        (UnicodeEncodeError("ascii", "hf_\xe4", 3, 4, "ordinal not in range"), "check the token"),
        (json.JSONDecodeError("Expecting value", "<html>", 0), "the response is not from the Hub: check HF_ENDPOINT"),
        (socket.gaierror(-2, "Name or service not known"), "try again later"),
        (RuntimeError("client has been closed"), "try again later"),
        (KeyError("commit_hash"), "try again later"),
        (RecursionError("maximum recursion depth exceeded"), "try again later"),
    ],
)
def test_whatever_the_network_stack_raises_ends_in_one_line_with_a_remedy(
    error: Exception, remedy: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(HubError, match="^org/tiny could not be downloaded") as caught:
        resolve(REPO, **options)
    assert remedy in one_line(caught.value)
    assert caught.value.__cause__ is error
    assert caught.value.repo_id == REPO


# Tricks


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//b", "a\\b", "", ".", "..", ".ssh/x", "a/", "~/x"])
def test_paths_that_leave_the_folder_are_refused(name: str, options: dict[str, Any]) -> None:
    assert not is_plain_path(name)
    with pytest.raises(ModelNotFoundError, match="cannot have a file"):
        download_file(HubSource(REPO, **options), name)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Repo-Commit": "../../../outside"},
        {"X-Repo-Commit": "/outside"},
        {"X-Repo-Commit": ".."},
    ],
)
def test_a_forged_commit_does_not_lead_out_of_the_cache(
    headers: dict[str, str], repository: Repository, options: dict[str, Any], tmp_path: Path
) -> None:
    repository.headers = headers
    with pytest.raises(CondsegError) as caught:
        resolve(REPO, **options)
    one_line(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_link_in_the_cache_does_not_lead_out_of_it(
    name: str, repository: Repository, options: dict[str, Any], tmp_path: Path, checkpoint: Path
) -> None:
    folder = resolve(REPO, **options)
    (folder / name).unlink()
    (folder / name).symlink_to(checkpoint / name)
    for more in ({}, {"local_files_only": True}):
        with pytest.raises(CheckpointError, match=f"{name} leads out of the cache: delete"):
            resolve(REPO, **options, **more)


def test_a_cache_or_a_repository_on_another_disk_works(
    repository: Repository, options: dict[str, Any], tmp_path: Path
) -> None:
    resolve(REPO, **options)
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    moved = (options["cache_dir"] / "models--org--tiny").rename(elsewhere / "tiny")
    (options["cache_dir"] / "models--org--tiny").symlink_to(moved)
    assert load_checkpoint(resolve(REPO, **options))[1].threshold == 0.4
    options["cache_dir"].rename(elsewhere / "cache")
    options["cache_dir"].symlink_to(elsewhere / "cache")
    assert load_checkpoint(resolve(REPO, **options))[1].threshold == 0.4


def test_a_config_that_does_not_fit_its_weights_is_refused(
    repository: Repository, files: dict[str, bytes], options: dict[str, Any]
) -> None:
    """config.json has no hash of its own here: it comes from the same commit, and the tensors must fit what it says."""
    config = json.loads(files["config.json"])
    config["network"]["channels"] = 4
    repository.files["config.json"] = json.dumps(config).encode()
    with pytest.raises(CheckpointError, match="does not contain this network's weights"):
        Predictor.from_pretrained(REPO, device="cpu", **options)


def _safetensors(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _tensor(shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


HOSTILE = {
    "absurd header": struct.pack("<Q", 2**63) + b"{}",
    "header longer than the file": struct.pack("<Q", 10**6) + b"{}",
    "header that is no JSON": struct.pack("<Q", 4) + b"\xff\xfe{}",
    "deep header": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "overlapping tensors": _safetensors({"a": _tensor([2], 0, 8), "b": _tensor([2], 4, 12)}, bytes(12)),
    "tensors past the end": _safetensors({"a": _tensor([2], 0, 8), "b": _tensor([2], 8, 16)}, bytes(8)),
    "negative offsets": _safetensors({"a": _tensor([2], -8, 0)}, bytes(8)),
    "shape larger than the data": _safetensors({"a": _tensor([1000, 1000], 0, 8)}, bytes(8)),
    "shape that overflows": _safetensors({"a": _tensor([2**40, 2**40], 0, 8)}, bytes(8)),
    "a hole in the data": _safetensors({"a": _tensor([2], 8, 16)}, bytes(16)),
    "unknown dtype": _safetensors({"a": {"dtype": "P7", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "nothing": b"",
    "a pickle": b"\x80\x04cposix\nsystem\n(S'touch owned'\ntR.",
    "a zip": b"PK\x03\x04" + bytes(100),
    "another network's": _safetensors({"a": _tensor([2], 0, 8)}, bytes(8)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_weights_are_one_line_wherever_they_come_from(
    kind: str, repository: Repository, checkpoint: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    """The Hub's hash only says that it is the file the author pushed."""
    repository.files["model.safetensors"] = HOSTILE[kind]
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    (own / "model.safetensors").write_bytes(HOSTILE[kind])
    for model in (REPO, own):
        with pytest.raises(CheckpointError, match="cannot be read as safetensors|does not contain this") as caught:
            Predictor.from_pretrained(model, device="cpu", **options)
        assert "model.safetensors" in one_line(caught.value)
    assert not Path("owned").exists()


# Many at once

ANSWER = """
import os, sys
from condseg_sdk.weights.checkpoint import load_checkpoint
from condseg_sdk.weights.hub import resolve
from condseg_sdk.checksums import sha256_of

def answer():
    folder = resolve(sys.argv[1], cache_dir=sys.argv[2], token=False)
    threshold = load_checkpoint(folder)[1].threshold
    return f"{sha256_of(folder / 'model.safetensors')} {threshold} {folder}\\n"
"""
ONE = ANSWER + "print(answer(), end='')"
MANY = f"""{ANSWER}
children = []
for _ in range(int(sys.argv[3])):
    child = os.fork()
    if child == 0:
        line, code = "", 1
        try:
            line, code = answer(), 0
        except BaseException as error:
            line = f"{{type(error).__name__}}: {{error}}\\n"
        finally:
            os.write(1, line.encode())
            os._exit(code)
    children.append(child)
raise SystemExit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_twenty_processes_can_start_at_once_on_an_empty_cache(
    server: HubServer, repository: Repository, files: dict[str, bytes], tmp_path: Path
) -> None:
    """Each of the 20 fetches (or waits for) the files and loads them; forked, so that torch is imported once."""
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", MANY, REPO, str(cache), "20"]
    environment = {**os.environ, **server.environment, "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    digest = hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert done.stdout.splitlines() == [f"{digest} 0.4 {cache / 'models--org--tiny' / 'snapshots' / ('a' * 40)}"] * 20
    blobs = list((cache / "models--org--tiny" / "blobs").iterdir())
    assert {sha256_of(path) for path in blobs if path.name == digest} == {digest}
    assert len(blobs) == 2  # config.json and the weights, and no part of a file


def test_offline_mode_works_in_a_new_process(
    server: HubServer, repository: Repository, options: dict[str, Any], tmp_path: Path
) -> None:
    resolve(REPO, **options)
    asked = len(server.requests)
    environment = {**os.environ, **server.environment, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    for cache, works in ((options["cache_dir"], True), (tmp_path / "empty", False)):
        command = [sys.executable, "-c", ONE, REPO, str(cache)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
        assert (done.returncode == 0) == works, done.stderr
        if not works:
            assert "run `hf download org/tiny config.json model.safetensors`" in done.stderr.splitlines()[-1]
    assert len(server.requests) == asked


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_killed_in_the_middle_of_a_download_leaves_a_cache_that_works(
    server: HubServer, repository: Repository, files: dict[str, bytes], options: dict[str, Any], tmp_path: Path
) -> None:
    server.faults.stalls, server.faults.stall_s = 1, 30.0
    command = [sys.executable, "-c", ONE, REPO, str(options["cache_dir"])]
    environment = {**os.environ, **server.environment, "HF_HOME": str(tmp_path / "hf")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        stalled = threading.Event()
        for _ in range(600):
            if any("/store/" in line for line in server.requests):
                break
            stalled.wait(0.1)
        stalled.wait(0.3)
        process.kill()
    folder = resolve(REPO, **options)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_download_is_checked_before_anything_in_it_is_read(
    repository: Repository, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.served = {"model.safetensors": bytes(len(repository.files["model.safetensors"]))}
    monkeypatch.setattr("condseg_sdk.checkpoints.mixin.load_weights", lambda *_: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match="its sha256 is"):
        Predictor.from_pretrained(REPO, device="cpu", **options)
    with pytest.raises(CheckpointError, match="its sha256 is"):
        download_checkpoint(HubSource(REPO, **options))
