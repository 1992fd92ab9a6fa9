"""A checkpoint's files from the Hugging Face Hub, checked before they are used; every failure is one line.

Only huggingface_hub talks to the network: cache, resuming, tokens and offline mode are as its users know them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

from condseg_sdk.checksums import check_sha256
from condseg_sdk.errors import CheckpointError, CondsegError, ModelNotFoundError

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "download_checkpoint"]

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
SHA256 = re.compile("[0-9a-f]{64}")
COMMIT = re.compile("[0-9a-f]{40}")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

# What a broken connection raises: httpx's error, of whichever httpx the client was built on.
_TransportError: type[Exception] = next(c for c in errors.HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")


def download_checkpoint(
    repo_id: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    sha256: str | None = None,
) -> Path:
    """config.json and model.safetensors of a repository, both of the same commit.

    Args:
        repo_id: "org/name".
        revision: branch, tag or commit; default: the main branch.
        cache_dir: where downloads are kept; default: Hugging Face's own cache.
        token: for private repositories; default: the one the user is logged in with.
        local_files_only: never go to the network.
        force_download: fetch the files even if they are in the cache.
        sha256: of model.safetensors, where somebody knows it; default: what the Hub says.

    Returns:
        The folder in the cache that holds the two.

    Raises:
        ModelNotFoundError: the repository or revision does not exist, is closed to this user, or is neither in the
            cache nor within reach.
        CheckpointError: it has not both files, or the weights are not those the Hub names.
    """
    if not REPOSITORY.fullmatch(repo_id):
        raise ModelNotFoundError(f"{repo_id} is no folder here and no 'org/name' on the Hub: check the spelling")

    def fetch(name: str, at: str | None) -> Path:
        return Path(
            hf_hub_download(
                repo_id,
                name,
                revision=at,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
                force_download=force_download,
            )
        )

    with _told_in_one_line(repo_id, revision):
        folder = fetch(CONFIG_FILE, revision).parent
        commit = folder.name  # the cache names a snapshot's folder after its commit
        weights = fetch(WEIGHTS_FILE, commit)
        expected = sha256 or _sha256_on_the_hub(weights, repo_id, commit, token)
    if expected is not None:
        check_sha256(
            weights, expected, remedy=f"the download is damaged; delete {folder.parents[1]} and fetch it again"
        )
    elif revision != commit:
        raise CheckpointError(
            f"the Hub knows no sha256 of {WEIGHTS_FILE} in {repo_id}: pin the commit, revision={commit!r}, to trust it"
        )
    return folder


def _sha256_on_the_hub(weights: Path, repo_id: str, commit: str, token: str | bool | None) -> str | None:
    """What the Hub says is the SHA-256 of a file; None for a file it keeps in git, not in its large-file store.

    The Hub's ETag of a large file is its SHA-256, and the cache names the file after it where links exist.
    """
    if weights.is_symlink():
        etag = weights.readlink().name
    else:
        url = hf_hub_url(repo_id, WEIGHTS_FILE, revision=commit)
        etag = get_hf_file_metadata(url, token=token).etag or ""
    return etag if SHA256.fullmatch(etag) else None


@contextmanager
def _told_in_one_line(repo_id: str, revision: str | None) -> Iterator[None]:
    try:
        yield
    except (errors.HFValidationError, errors.EntryNotFoundError, _TransportError, OSError, ValueError) as error:
        raise _explain(error, repo_id, revision) from error


def _explain(error: Exception, repo_id: str, revision: str | None) -> CondsegError:
    """The first line of the table that fits; what is more special stands before what is more general."""
    place = repo_id if revision is None else f"{repo_id}@{revision}"
    fetch = f"hf download {repo_id} {CONFIG_FILE} {WEIGHTS_FILE}" + (f" --revision {revision}" if revision else "")
    table: list[tuple[type[Exception], str]] = [
        (errors.GatedRepoError, f"{place} is gated: accept its terms on its page on the Hub, then `hf auth login`"),
        (
            errors.RepositoryNotFoundError,
            f"{place} is not on the Hub, or private: check the spelling, or `hf auth login`, or pass token=",
        ),
        (errors.DisabledRepoError, f"{place} has been disabled on the Hub: choose another model"),
        (errors.RevisionNotFoundError, f"{repo_id} has no revision {revision!r}: check the branch, tag or commit"),
        (errors.HFValidationError, f"{place} is no valid name on the Hub: it must be 'org/name'"),
    ]
    for kind, message in table:
        if isinstance(error, kind):
            return ModelNotFoundError(message)
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return CheckpointError(f"{place} lacks {CONFIG_FILE} or {WEIGHTS_FILE}: it is no checkpoint of condseg_sdk")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return ModelNotFoundError(
            f"{place} is not in the cache and the Hub cannot be reached{_reason(error.__cause__)}; "
            f"where there is a network, run `{fetch}`"
        )
    return ModelNotFoundError(f"{place} could not be fetched{_reason(error)}; try again later, or run `{fetch}`")


def _reason(error: BaseException | None) -> str:
    text = str(error).strip().splitlines()
    return f" ({text[0]})" if error is not None and text else ""
