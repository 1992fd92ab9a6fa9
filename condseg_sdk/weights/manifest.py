"""weights_manifest.json: every checkpoint and encoder that can be loaded by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, MISSING, asdict, dataclass, field, fields
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from condseg_sdk.errors import CheckpointError, ModelNotFoundError, OptionError, check_choice
from condseg_sdk.models.config import read_json
from condseg_sdk.preprocessing import Preprocessing

__all__ = ["BUNDLED", "HubFile", "Kind", "ManifestEntry", "PackageFile", "find_entry", "list_models"]

Kind = Literal["checkpoint", "encoder"]

PACKAGE = Path(__file__).resolve().parents[1]
MANIFEST = "weights_manifest.json"
BUNDLED = PACKAGE / "weights" / "bundled"
FORMAT_VERSION = 1
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face Hub at one commit."""

    repo_id: str
    filename: str
    revision: str


@dataclass(frozen=True)
class PackageFile:
    """A file that comes with another Python package.

    Attributes:
        distribution: what to `pip install`.
        module: what to import.
        path: inside the module, with forward slashes.
    """

    distribution: str
    module: str
    path: str


@dataclass(frozen=True)
class ManifestEntry:
    """One line of the manifest.

    Attributes:
        name: what `Predictor.from_pretrained` takes (a checkpoint), or training's `base` (an encoder).
        kind: "checkpoint" or "encoder".
        network: a key of `NETWORKS`, or of `ENCODERS`.
        sha256: of the file with the weights.
        bytes: its size.
        license: SPDX identifier in lower case, as on the Hub.
        attribution: whom the licence or good manners ask to name.
        data: what the weights have seen.
        preprocessing: what the network expects of its input.
        date: of the training, ISO 8601, where known.
        file: folder below condseg_sdk/weights/bundled, for a bundled checkpoint.
        hub: where it stands on the Hub.
        package: the Python package it comes with.
        threshold: of the probability; None for an encoder.
        metrics: as measured by benchmarks/: dataset, split, mIoU, mDSC and more.
    """

    name: str
    kind: Kind
    network: str
    sha256: str
    bytes: int
    license: str
    attribution: str
    data: str
    _: KW_ONLY
    preprocessing: Preprocessing
    date: str | None = None
    file: str | None = None
    hub: HubFile | None = None
    package: PackageFile | None = None
    threshold: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, Kind)
        if not SHA256.fullmatch(self.sha256):
            raise OptionError(f"sha256={self.sha256!r} must be 64 lower-case hexadecimal digits")
        if self.file is None and self.hub is None and self.package is None:
            raise OptionError("one of file, hub and package must say where the weights are")
        inside = (self.file, self.hub.filename if self.hub else None, self.package.path if self.package else None)
        for path in inside:
            if path is None:
                continue
            if PurePosixPath(path).is_absolute() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", path):
                raise OptionError(f"{path!r} must be a plain relative path")
        if (self.kind == "checkpoint") != (self.threshold is not None):
            raise OptionError("a checkpoint has a threshold, an encoder has none")

    def to_dict(self) -> dict[str, Any]:
        """The entry as it stands in the manifest, without what it has not."""
        values = {**asdict(self), "preprocessing": self.preprocessing.to_dict()}
        return {key: value for key, value in values.items() if value not in (None, {})}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ManifestEntry:
        """Read what `to_dict` wrote.

        Raises:
            CheckpointError: a key is missing or unknown, or a value is not allowed.
        """
        known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(cls)}
        missing = [name for name, required in known.items() if required and name not in values]
        unknown = [name for name in values if name not in known]
        if missing or unknown:
            raise CheckpointError(f"manifest entry {values.get('name')!r}: missing {missing}, unknown {unknown}")
        parts: dict[str, Any] = {"preprocessing": Preprocessing.from_dict(values["preprocessing"])}
        try:
            for key, kind in (("hub", HubFile), ("package", PackageFile)):
                if key in values:
                    parts[key] = kind(**values[key])
            return cls(**{**values, **parts})
        except (TypeError, OptionError) as error:
            raise CheckpointError(f"manifest entry {values['name']!r}: {error}") from error


def manifest_path() -> Path:
    """Inside the package in a wheel, beside it in a checkout."""
    inside = PACKAGE / MANIFEST
    return inside if inside.is_file() else PACKAGE.parent / MANIFEST


@cache
def _entries() -> tuple[ManifestEntry, ...]:
    path = manifest_path()
    values = read_json(path)
    if values.get("format_version") != FORMAT_VERSION or not isinstance(values.get("entries"), list):
        raise CheckpointError(f"{path} is no manifest of format version {FORMAT_VERSION}: reinstall condseg_sdk")
    entries = tuple(map(ManifestEntry.from_dict, values["entries"]))
    names = [entry.name for entry in entries]
    if len(names) != len(set(names)):
        raise CheckpointError(f"{path} names an entry twice: reinstall condseg_sdk")
    return entries


def list_models(kind: Kind = "checkpoint") -> list[ManifestEntry]:
    """What can be loaded by name.

    Args:
        kind: "checkpoint" for `Predictor.from_pretrained`, "encoder" for what training can start from.

    Raises:
        OptionError: another kind.

    Example:
        >>> [entry.network for entry in list_models("encoder")]
        ['efficientnet_lite0']
    """
    check_choice("kind", kind, Kind)
    return [entry for entry in _entries() if entry.kind == kind]


def find_entry(name: str, kind: Kind = "checkpoint") -> ManifestEntry:
    """The entry of a name.

    Raises:
        ModelNotFoundError: there is none; the message lists the nearest names.
    """
    names = {entry.name: entry for entry in list_models(kind)}
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        known = f"the nearest are {', '.join(near)}" if near else f"known are {', '.join(names) or 'none'}"
        others = "; a folder or 'org/name' on the Hugging Face Hub will do, too" if kind == "checkpoint" else ""
        raise ModelNotFoundError(f"no {kind} is called {name!r}: {known}{others}")
    return names[name]
