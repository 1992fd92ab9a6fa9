"""Files from the Hugging Face Hub, checked before they are used; every failure is reported in one line.

Only huggingface_hub uses the network: cache, resuming, tokens and offline mode work as in other programs with it.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import huggingface_hub  # its functions load when they are used: a local file needs none of them

from condseg_sdk.checksums import SHA256, check_sha256, sha256_of
from condseg_sdk.errors import CheckpointError, CondsegError, HubError, ModelNotFoundError, OutputError
from condseg_sdk.files import real_path, write_text

__all__ = [
    "COMMIT",
    "CONFIG_FILE",
    "DIGESTS_FILE",
    "REPOSITORY",
    "WEIGHTS_FILE",
    "HubOptions",
    "HubSource",
    "download_checkpoint",
    "download_file",
    "is_plain_path",
    "translate_hub_errors",
]

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
DIGESTS_FILE = "training_images.json"
"""Digests of the images that a checkpoint was trained on; a checkpoint may lack them."""
COMMIT = re.compile("[0-9a-f]{40}")
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
PLAIN_PATH = re.compile(r"[\w-][\w.+-]*(/[\w-][\w.+-]*)*")  # no part begins with a dot: no "..", nothing hidden

PROXY_LOGIN, TOO_MANY_REQUESTS = 407, 429  # HTTP status codes
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")

logger = logging.getLogger("condseg_sdk")


class HubOptions(TypedDict, total=False):
    """How the Hugging Face Hub is reached: keyword arguments of everything that may download.

    Attributes:
        cache_dir: Folder for downloads. The default is Hugging Face's own cache.
        token: Token for private repositories. The default is the token of the current login.
        local_files_only: Whether to use only cached files, without the network.
    """

    cache_dir: str | os.PathLike[str] | None
    token: str | bool | None
    local_files_only: bool


@dataclass(frozen=True)
class HubSource:
    """A repository on the Hub, and how to reach it.

    Args:
        repo_id: "org/name".
        revision: Branch, tag or commit. The default is the main branch.
        cache_dir: As in `HubOptions`.
        token: As in `HubOptions`.
        local_files_only: As in `HubOptions`.
        force_download: Whether to download files that are already in the cache.

    Raises:
        ModelNotFoundError: The name or the revision is not valid.
    """

    repo_id: str
    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    force_download: bool = False

    def __post_init__(self) -> None:
        if not REPOSITORY.fullmatch(self.repo_id):
            raise ModelNotFoundError(
                f"{self.repo_id} is neither a local folder nor 'org/name' on the Hub: check the spelling",
                repo_id=self.repo_id,
            )
        if self.revision is not None and not is_plain_path(self.revision):
            raise ModelNotFoundError(
                f"{self.repo_id} cannot have a revision {self.revision!r}: check the spelling", repo_id=self.repo_id
            )

    def __str__(self) -> str:
        return self.repo_id if self.revision is None else f"{self.repo_id}@{self.revision}"

    def fetch(self, filename: str) -> tuple[Path, str]:
        """Download a file, given by its path in the repository, without checking its content.

        Returns:
            The path in the cache, and the commit.

        Raises:
            CheckpointError: A link leads out of the cache.
        """
        path = Path(
            huggingface_hub.hf_hub_download(
                self.repo_id,
                filename,
                revision=self.revision,
                cache_dir=Path(self.cache_dir) if self.cache_dir else None,
                token=self.token,
                local_files_only=self.local_files_only,
                force_download=self.force_download,
            )
        )
        # The cache names the folder of a snapshot after its commit; a file in a subfolder is below it.
        snapshot = path.parents[filename.count("/")]
        repository = snapshot.parents[1]
        # The cache, or a repository in it, may be on another disk; a single file has no reason to be.
        if not any(real_path(path).is_relative_to(real_path(home)) for home in (repository, repository.parent)):
            raise CheckpointError(
                f"{path} leads out of the cache: delete {repository} and download it again", path=path
            )
        return path, snapshot.name


def download_checkpoint(source: HubSource, filename: str = WEIGHTS_FILE, *, sha256: str | None = None) -> Path:
    """Download a checkpoint's weights, and config.json and the digests beside them, all of the same commit.

    The digests are asked for only when the weights are new, since predictions do not need them.

    Args:
        source: The repository.
        filename: Path of the weights in the repository.
        sha256: SHA-256 of the weights. The default is the one that the Hub reports.

    Returns:
        The path of the weights in the cache; config.json is in the same folder.

    Raises:
        ModelNotFoundError: The repository or revision does not exist, or is private.
        HubError: The Hub denies access or cannot be reached, and the file is not in the cache.
        CheckpointError: A file is missing, or the SHA-256 of the weights is wrong.
    """
    folder = filename.rpartition("/")[0]
    config = f"{folder}/{CONFIG_FILE}".lstrip("/")
    with translate_hub_errors(source, config, filename):
        _, commit = source.fetch(config)
    pinned = replace(source, revision=commit)
    was_cached = _is_cached(pinned, filename)
    path = download_file(pinned, filename, sha256=sha256, asked=source, also=(config,))
    if not was_cached:  # later, without a network, the client would try again for half a minute
        _fetch_digests(pinned, f"{folder}/{DIGESTS_FILE}".lstrip("/"))
    return path


def _is_cached(source: HubSource, filename: str) -> bool:
    cache = Path(source.cache_dir) if source.cache_dir else None
    found = huggingface_hub.try_to_load_from_cache(source.repo_id, filename, cache_dir=cache, revision=source.revision)
    return isinstance(found, str) and not source.force_download


def _fetch_digests(source: HubSource, filename: str) -> None:
    """Download the digests of the training images, which a checkpoint works without."""
    from huggingface_hub import errors  # not at the top: it loads the network's libraries

    try:
        source.fetch(filename)
    except (errors.EntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        logger.debug("%s: no digests of training images (%s)", source, error)


def download_file(
    source: HubSource,
    filename: str,
    *,
    sha256: str | None = None,
    asked: HubSource | None = None,
    also: tuple[str, ...] = (),
) -> Path:
    """Download a large file, such as weights or an ONNX file, and check its SHA-256.

    Args:
        source: The repository.
        filename: Path of the file in the repository.
        sha256: SHA-256 of the file. The default is the one that the Hub reports.
        asked: Repository that the user asked for, if `source` was derived from it.
        also: Files that belong to this one and are also named in error messages.

    Returns:
        The path of the file in the cache.

    Raises:
        ModelNotFoundError, HubError, CheckpointError: As `download_checkpoint`.
    """
    asked = asked or source
    if not is_plain_path(filename):
        raise ModelNotFoundError(
            f"{source} cannot have a file {filename!r}: pass a plain path inside the repository", repo_id=source.repo_id
        )
    with translate_hub_errors(asked, *also, filename):
        path, commit = source.fetch(filename)
        expected = sha256 or _known_sha256(path, filename)
        if expected is None and not path.is_symlink():
            try:
                expected = _sha256_on_the_hub(path, replace(source, revision=commit), filename)
            except OSError as error:
                if not _is_unreachable(error):
                    raise
                logger.info(
                    "%s: the Hub cannot be reached for its SHA-256; %s is not checked, like a local file", asked, path
                )
                return path
    if expected is not None:
        cache = path.parents[filename.count("/") + 2]
        check_sha256(path, expected, remedy=f"delete {cache} and download it again")
    elif asked.revision != commit:
        raise CheckpointError(
            f"the Hub has no SHA-256 of {filename} in {source.repo_id}: "
            f"pin the commit, revision={commit!r}, to trust it",
            repo_id=source.repo_id,
        )
    return path


def is_plain_path(path: str) -> bool:
    """Return whether a path is relative, has forward slashes, and cannot lead out of the folder that it is joined to.

    Example:
        >>> is_plain_path("polyp/model.safetensors"), is_plain_path("../model.safetensors"), is_plain_path("/etc")
        (True, False, False)
    """
    return PLAIN_PATH.fullmatch(path) is not None


def _known_sha256(path: Path, filename: str) -> str | None:
    """Return the SHA-256 that a file in the cache should have, or None where this machine does not know it.

    The cache names a large file after its SHA-256 and links to it. A cache without links (copied with `cp -rL`, on a
    USB stick, on Windows) may still contain that file, or a note with the SHA-256 beside its copy.
    """
    if path.is_symlink():
        name = path.readlink().name
        return name if SHA256.fullmatch(name) else None
    with suppress(OSError, ValueError):
        noted = _note(path).read_text(encoding="ascii").strip()
        if SHA256.fullmatch(noted):
            return noted
    blobs = path.parents[filename.count("/") + 2] / "blobs"
    size = path.stat().st_size
    same_size = {blob.name for blob in blobs.glob("*") if SHA256.fullmatch(blob.name) and blob.stat().st_size == size}
    if not same_size:
        return None
    found = sha256_of(path)
    return found if found in same_size else min(same_size)


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _is_unreachable(error: BaseException) -> bool:
    """Return whether there was no response at all, as without a network, in contrast to a refusal."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"NetworkError", "TimeoutException", "ConnectionError", "OfflineModeIsEnabled"})


def _sha256_on_the_hub(path: Path, source: HubSource, filename: str) -> str | None:
    """Ask the Hub for the SHA-256 of a file; None for a file that it keeps in git and not in its large-file store.

    The Hub's ETag of a large file is its SHA-256. It is written beside the file, for later use without a network.
    """
    from huggingface_hub import errors  # not at the top: it loads the network's libraries

    if source.local_files_only:
        raise errors.OfflineModeIsEnabled("local_files_only=True")
    url = huggingface_hub.hf_hub_url(source.repo_id, filename, revision=source.revision)
    etag = huggingface_hub.get_hf_file_metadata(url, token=source.token).etag or ""
    if not SHA256.fullmatch(etag):
        return None
    with suppress(OutputError):  # the cache may be read-only
        write_text(_note(path), etag)
    return etag


@contextmanager
def translate_hub_errors(source: HubSource, *filenames: str) -> Iterator[None]:
    """Translate the errors of huggingface_hub to ours, which name the repository and the files that are needed.

    Raises:
        ModelNotFoundError, HubError, CheckpointError: See `download_checkpoint`.
    """
    try:
        yield
    except CondsegError:
        raise
    except Exception as error:  # raised by the client, the network or a proxy: there is no complete list
        raise _explain(error, source, filenames) from error


def _explain(error: Exception, source: HubSource, filenames: tuple[str, ...]) -> CondsegError:
    """Choose the first error of the table that fits; special cases come before general ones."""
    from huggingface_hub import errors

    at = f" --revision {source.revision}" if source.revision else ""
    fetch = f"hf download {source.repo_id} {' '.join(filenames)}{at}"
    gated = f"{source} is gated: accept its terms on its page on the Hub, then `hf auth login`"
    missing = f"{source} is not on the Hub, or private: check the spelling, or `hf auth login`, or pass token="
    revision = f"{source.repo_id} has no revision {source.revision!r}: check the branch, tag or commit"
    invalid = f"{source} is not a valid name on the Hub: it must be 'org/name'"
    table: list[tuple[type[Exception], type[CondsegError], str]] = [
        (errors.GatedRepoError, HubError, gated),
        (errors.RepositoryNotFoundError, ModelNotFoundError, missing),
        (errors.DisabledRepoError, HubError, f"{source} has been disabled on the Hub: choose another model"),
        (errors.RevisionNotFoundError, ModelNotFoundError, revision),
        (errors.HFValidationError, ModelNotFoundError, invalid),
    ]
    for kind, ours, message in table:
        if isinstance(error, kind):
            return ours(message, repo_id=source.repo_id)
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return CheckpointError(
            f"{source} lacks {' or '.join(filenames)}, which is needed to load it", repo_id=source.repo_id
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        cause, known = error.__cause__, _remedy(error.__cause__)
        remedy = (
            f"{known}, then run `{fetch}`" if known else f"check the path, or run `{fetch}` on a machine with a network"
        )
        return HubError(
            f"{source} is neither a local folder nor cached, and the Hub cannot be reached{_reason(cause)}; {remedy}",
            repo_id=source.repo_id,
        )
    remedy = f"{_remedy(error) or 'try again later'}, or run `{fetch}`"
    return HubError(f"{source} could not be downloaded{_reason(error)}; {remedy}", repo_id=source.repo_id)


def _remedy(error: BaseException | None) -> str | None:
    """Return the remedy for a failure of the machine or the network, or None if only trying again may help."""
    from huggingface_hub import errors

    kinds = {kind.__name__ for link in _chain(error) for kind in type(link).__mro__}
    text = " ".join(str(link) for link in _chain(error)).lower()
    status = next(
        (link.response.status_code for link in _chain(error) if isinstance(link, errors.HfHubHTTPError)),
        0,
    )
    numbers = {link.errno for link in _chain(error) if isinstance(link, OSError) and "SSLError" not in kinds}
    proxy = "check the environment variables HTTPS_PROXY, HTTP_PROXY and ALL_PROXY"
    if numbers & {errno.ENOSPC, errno.EDQUOT}:
        return "free some space, or choose another disk with cache_dir= or HF_HOME"
    if numbers & {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}:
        return "choose a cache folder that can be written to with cache_dir= or HF_HOME"
    if "socks" in text:
        return "for a SOCKS proxy install socksio (pip install socksio), or unset ALL_PROXY"
    if status == TOO_MANY_REQUESTS:
        return "the Hub limits the number of requests: wait a few minutes, or log in with `hf auth login`"
    if "certificate" in text:
        return "if your network has its own certificates, set SSL_CERT_FILE to their file"
    if kinds & {"JSONDecodeError", "FileMetadataError", "TooManyRedirects", "RemoteProtocolError", "DecodingError"}:
        return "the response is not from the Hub: check HF_ENDPOINT, and whether this network needs a login first"
    if kinds & {"InvalidURL", "UnsupportedProtocol", "SSLError"}:
        return f"{proxy}, and HF_ENDPOINT, each of the form http://host:port"
    if "LocalProtocolError" in kinds or "UnicodeEncodeError" in kinds:
        return "check the token (token=, HF_TOKEN, `hf auth login`): it must consist of plain letters and digits"
    has_proxy = any(name.upper() in PROXIES and value for name, value in os.environ.items())
    unreachable = has_proxy and error is not None and _is_unreachable(error)
    if "ProxyError" in kinds or "proxy url" in text or status == PROXY_LOGIN or unreachable:
        return f"{proxy}, with user and password if the proxy needs them"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException | None) -> str:
    text = str(error).strip().splitlines()
    return "" if error is None else f" ({text[0][:200] if text else type(error).__name__})"
