"""One entry of the weights manifest: what a checkpoint or an encoder is, where it is, and its SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from condseg_sdk.checksums import SHA256
from condseg_sdk.download import COMMIT, CONFIG_FILE, REPOSITORY, WEIGHTS_FILE, is_plain_path
from condseg_sdk.errors import CheckpointError, OptionError
from condseg_sdk.options import check_choice, check_threshold
from condseg_sdk.preprocessing import Preprocessing

__all__ = ["HubFile", "Kind", "ManifestEntry", "PackageFile"]

Kind = Literal["checkpoint", "encoder"]


@dataclass(frozen=True)
class HubFile:
    """A safetensors file on the Hugging Face Hub.

    Attributes:
        repo_id: "org/name".
        filename: Path in the repository; the config.json of a checkpoint is beside it.
        revision: The commit. None means the main branch and is allowed for an encoder only.

    Raises:
        OptionError: A value is not allowed.
    """

    repo_id: str
    filename: str
    revision: str | None = None

    def __post_init__(self) -> None:
        if not REPOSITORY.fullmatch(self.repo_id):
            raise OptionError(f"repo_id={self.repo_id!r} must be 'org/name'")
        if not is_plain_path(self.filename):
            raise OptionError(f"{self.filename!r} must be a plain relative path")
        if not self.filename.endswith(".safetensors"):
            raise OptionError(f"filename={self.filename!r} must end in .safetensors: nothing else is read from the Hub")
        if self.revision is not None and not COMMIT.fullmatch(self.revision):
            raise OptionError(f"revision={self.revision!r} must be a commit, 40 lower-case hexadecimal digits")


@dataclass(frozen=True)
class PackageFile:
    """A file that comes with another Python package.

    Attributes:
        distribution: Name for `pip install`.
        module: Name for `import`.
        path: Path inside the module, with forward slashes.
    """

    distribution: str
    module: str
    path: str


MAX_NAME = 255  # characters, as in file systems
SHOWN_METRICS = ("mIoU", "mDSC")
"""The metrics that the list of models shows."""


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """One entry of a manifest.

    Attributes:
        name: Name for `Predictor.from_pretrained` (a checkpoint), or for the `base` of `finetune` (an encoder).
        kind: "checkpoint" or "encoder".
        network: Name in `NETWORKS`, or "custom" for other arguments; for an encoder its name in `ENCODERS`.
        license: SPDX identifier in lower case, as on the Hub.
        attribution: Credit that the license requires.
        data: Data that the weights were trained on.
        preprocessing: The input that the network expects.
        sha256: SHA-256 of the file with the weights. Without one, on the Hub only, the file is compared with the
            SHA-256 that the Hub's large-file store names.
        bytes: Size of that file; None where `sha256` is None.
        date: Date of the training, ISO 8601.
        file: Folder of a checkpoint, below condseg_sdk/weights/bundled or beside your own manifest.
        hub: File on the Hub.
        package: File of a Python package, for an encoder.
        threshold: Lowest probability at which a pixel belongs to the mask; None for an encoder.
        metrics: Measured metrics: dataset, split, mIoU, mDSC and more.
        root: Folder that `file` is relative to; not written into the manifest.
        manifest: Manifest that the entry was read from, for messages; not written either.

    Raises:
        OptionError: A value is not allowed, or values do not fit together.
    """

    name: str
    kind: Kind
    network: str
    license: str
    attribution: str
    data: str
    preprocessing: Preprocessing
    sha256: str | None = None
    bytes: int | None = None
    date: str | None = None
    file: str | None = None
    hub: HubFile | None = None
    package: PackageFile | None = None
    threshold: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    root: Path = field(default=Path(), compare=False, repr=False)
    manifest: Path | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, Kind)
        for name in ("name", "network", "license", "attribution", "data"):
            if not isinstance(getattr(self, name), str):
                raise OptionError(f"{name}={getattr(self, name)!r} must be text")
        if any(isinstance(text, str) and len(text) > MAX_NAME for text in (self.name, self.file)):
            raise OptionError(f"name and file must have at most {MAX_NAME} characters")
        if not self.name.strip() or self.name[0] in "/.~" or "\\" in self.name or "://" in self.name:
            raise OptionError("its name must be a name such as our-polyps, not a path or an address")
        if self.date is not None and not isinstance(self.date, str):
            raise OptionError(f"date={self.date!r} must be text")
        values = self.metrics.values() if isinstance(self.metrics, Mapping) else [None]
        if any(type(value) not in (str, int, float) for value in values):
            raise OptionError(f"metrics={self.metrics!r} must map names to strings and numbers")
        for name in SHOWN_METRICS:
            if type(self.metrics.get(name, 0)) not in (int, float):
                raise OptionError(f"metrics: {name}={self.metrics[name]!r} must be a number")
        if self.sha256 is not None and not SHA256.fullmatch(self.sha256):
            raise OptionError(f"sha256={self.sha256!r} must be 64 lower-case hexadecimal digits")
        if self.bytes is not None and (type(self.bytes) is not int or self.bytes < 1):
            raise OptionError(f"bytes={self.bytes!r} must be a whole number above 0")
        if (self.kind == "checkpoint") != (self.threshold is not None):
            raise OptionError("a checkpoint has a threshold, an encoder has none")
        if self.threshold is not None:
            check_threshold(self.threshold)
        self._check_place()

    def _check_place(self) -> None:
        for path in (self.file, self.package.path if self.package else None):
            if path is not None and not is_plain_path(path):
                raise OptionError(f"{path!r} must be a plain relative path")
        checkpoint = self.kind == "checkpoint"
        if not (self.hub or (self.file if checkpoint else self.package)):
            raise OptionError(f"{'file or hub' if checkpoint else 'hub or package'} must say where the weights are")
        if self.package if checkpoint else self.file:
            raise OptionError("file is for checkpoints, package for encoders")
        if self.hub and self.package:
            raise OptionError("hub and package refer to two files with different SHA-256: make two entries")
        if (self.sha256 is None or self.bytes is None) and (self.file or self.package):
            raise OptionError(
                "sha256 and bytes are needed for all files except those on the Hub, which reports a SHA-256 itself"
            )
        if checkpoint and self.hub and self.hub.revision is None:
            raise OptionError("a checkpoint on the Hub needs a commit as revision, which also fixes its config.json")

    @property
    def folder(self) -> Path:
        """The folder `file`.

        Raises:
            CheckpointError: A link leads out of the manifest's own folder.
        """
        assert self.file is not None
        folder = self.root / self.file
        for path in (folder, folder / CONFIG_FILE, folder / WEIGHTS_FILE):
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise CheckpointError(f"{path} leads out of {self.root}: put the file itself there")
        return folder

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as it is written in a manifest, without empty values."""
        values = {**asdict(self), "preprocessing": self.preprocessing.to_dict()}
        del values["root"], values["manifest"]
        if self.hub is not None and self.hub.revision is None:
            del values["hub"]["revision"]
        return {key: value for key, value in values.items() if value not in (None, {})}

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, root: Path = Path(), manifest: Path | None = None
    ) -> ManifestEntry:
        """Read what `to_dict` returned.

        Raises:
            CheckpointError: A key is missing or unknown, or a value is not allowed.
        """
        if not isinstance(values, Mapping):
            raise CheckpointError(f"a manifest entry must be an object, not {values!r}")
        known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(cls)}
        del known["root"], known["manifest"]
        missing = [name for name, required in known.items() if required and name not in values]
        unknown = [name for name in values if name not in known]
        if missing or unknown:
            raise CheckpointError(f"manifest entry {values.get('name')!r}: missing {missing}, unknown {unknown}")
        try:
            parts: dict[str, Any] = {"preprocessing": Preprocessing.from_dict(values["preprocessing"])}
            parts |= {"root": root, "manifest": manifest}
            for key, kind in (("hub", HubFile), ("package", PackageFile)):
                if key in values:
                    parts[key] = kind(**values[key])
            return cls(**{**values, **parts})
        except (TypeError, OptionError, CheckpointError) as error:
            raise CheckpointError(f"manifest entry {values['name']!r}: {error}") from error
