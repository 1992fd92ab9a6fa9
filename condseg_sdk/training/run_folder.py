"""The folder of a run: settings.json is written before the first step, result.json after the last."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from condseg_sdk.data import Dataset, DatasetReport
from condseg_sdk.data.pairs import SPLITS
from condseg_sdk.data.recorded_split import SETTINGS_FILE as SETTINGS
from condseg_sdk.data.recorded_split import names_by_split
from condseg_sdk.environment import describe_environment
from condseg_sdk.errors import OptionError, OutputError, TrainingError
from condseg_sdk.files import make_folder, write_text
from condseg_sdk.json_files import read_json_object, write_json
from condseg_sdk.provenance import is_ours, seal_json
from condseg_sdk.training.config import MACHINE, FinetuneConfig, settings
from condseg_sdk.training.plan import TrainingPlan
from condseg_sdk.words import pluralize

__all__ = ["RunFolder"]

RESULT, CHECKPOINT, REPORT = "result.json", "checkpoint", "report.html"
WRITTEN = (RESULT, "check.txt", REPORT, "per_image.csv", "summary.json")  # in addition to settings.json
LOCK = ".lock"
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
logger = logging.getLogger("condseg_sdk")
DIGEST = "sha256"  # key in settings.json for the digest of its other values


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run and the content of its JSON files.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Folder of the checkpoint."""
        return self.path / CHECKPOINT

    @property
    def report(self) -> Path:
        """File of the report."""
        return self.path / REPORT

    def resumed(self, config: FinetuneConfig, *, resume: bool, first: bool) -> FinetuneConfig:
        """Return the settings to train with: the settings of the run in this folder, or the given ones for a new run.

        Settings of the machine may change when a run is resumed; the given ones are used.

        Args:
            config: Settings of this call.
            resume: Whether to continue the run in this folder.
            first: Whether this is the first process of the run; the others find the run that the first has begun.

        Raises:
            OptionError: There is a run and `resume` is False, or it is True and the settings differ.
            OutputError: The folder contains files that a run would replace but did not write.
            TrainingError: settings.json is damaged.
        """
        if not self.is_begun:
            if first:
                self._check_is_free()
            return config
        if not first and not resume:
            return config
        if not resume:
            raise self._refused("contains a run: continue it with resume=True (--resume), or choose another output_dir")
        saved = self._saved_config()
        machine = {name for name, setting in settings().items() if setting.section == MACHINE}
        changed = [
            name for name, value in config.changed().items() if name not in machine and value != getattr(saved, name)
        ]
        if changed:
            raise self._refused(
                f"contains a run with other values of {', '.join(changed)}: use those it was started with, or "
                "choose another output_dir"
            )
        return saved.override(**{name: getattr(config, name) for name in machine})

    def _check_is_free(self) -> None:
        """Refuse a folder with files that no run wrote, or with the files of a run without settings.json."""
        for name in ("stage1", "stage2", CHECKPOINT):
            if (self.path / name).exists():
                raise self._refused(f"contains {name} of a run without {SETTINGS}: choose another output_dir")
        for name in WRITTEN:
            path = self.path / name
            if os.path.lexists(path) and not is_ours(path):
                raise OutputError(
                    f"{path} was not written by condseg_sdk, and a run would replace it: choose another output_dir",
                    path=path,
                )

    def _refused(self, reason: str) -> OptionError:
        """Return the error for a folder that this call cannot use."""
        return OptionError(f"{self.path} {reason}", option="output_dir", path=self.path)

    def _saved_config(self) -> FinetuneConfig:
        try:
            return FinetuneConfig.from_dict(self._begun()["settings"])
        except OptionError as error:  # damaged, or of a later version of this package
            path = self.path / SETTINGS
            raise TrainingError(
                f"{path} is not the settings.json of a run ({error}); {self._remedy()}", path=path
            ) from error

    def check_data(self, dataset: Dataset, content: str) -> None:
        """Refuse to resume with other data.

        Args:
            dataset: Dataset of this call.
            content: Digest of its images and masks, from its check.

        Raises:
            OptionError: The pairs, their splits or their content differ from those that the run began with.
        """
        values = self._begun()
        saved = values["split"]
        for split, names in names_by_split(dataset).items():
            if saved[split] != names:
                raise self._refused(
                    f"contains a run on different data: its {split} split had "
                    f"{pluralize(len(saved[split]), 'pair')}, not these {len(names)}; restore the data, or choose "
                    "another output_dir"
                )
        if values.get("content") != content:
            raise self._refused(
                "contains a run on different data: images or masks with the same names have changed; restore them, or "
                "choose another output_dir"
            )

    @contextmanager
    def alone(self, *, first: bool) -> Iterator[None]:
        """Keep other calls of `finetune` out of the folder during a block.

        Args:
            first: Whether this is the first process of the run, which holds the lock.

        Raises:
            OptionError: Another call is using the folder.
            OutputError: The folder cannot be written to.
        """
        make_folder(self.path)
        if not first:
            yield
            return
        lock = FileLock(self.path / LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise self._refused("is in use by another process: choose another output_dir") from error
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise OutputError(
                    f"{self.path} cannot be written ({error.strerror}): choose another output_dir", path=self.path
                ) from error
            logger.warning(
                "The file system of %s does not support locks: a second run in the same folder would go unnoticed.",
                self.path,
            )
        try:
            yield
        finally:
            lock.release()
            with suppress(OSError):
                (self.path / LOCK).unlink()

    def begin(self, plan: TrainingPlan, dataset: Dataset, report: DatasetReport, provenance: dict[str, Any]) -> None:
        """Write settings.json and check.txt, before the first step."""
        make_folder(self.path)
        values = {
            "settings": plan.config.to_dict(),
            "reasons": plan.reasons,
            "split": {"layout": dataset.layout, **names_by_split(dataset)},
            "content": report.content,
            "environment": describe_environment(),
            "provenance": provenance,
        }
        # First, so that the other files are known to belong to a run.
        write_json(self.path / SETTINGS, {**values, DIGEST: _digest(values)})
        write_text(self.path / "check.txt", f"{report}\n")

    def provenance(self) -> dict[str, Any]:
        """Return the provenance that was passed when the run began."""
        values: dict[str, Any] = self._begun()["provenance"]
        return values

    @property
    def is_begun(self) -> bool:
        """Whether there is a run in the folder."""
        return (self.path / SETTINGS).exists()

    @property
    def is_finished(self) -> bool:
        """Whether the run in the folder is finished."""
        return (self.path / RESULT).exists()

    def finish(self, result: dict[str, Any]) -> None:
        """Write metrics and history, the last step of a run."""
        history = [
            {name: value if math.isfinite(value) else None for name, value in row.items()} for row in result["history"]
        ]
        write_json(self.path / RESULT, seal_json({**result, "history": history}))

    def result(self) -> dict[str, Any]:
        """Return what `finish` wrote.

        Raises:
            TrainingError: result.json is damaged.
        """
        path = self.path / RESULT
        remedy = "delete it and resume (resume=True, --resume): it is recreated from the other files of the run"
        values = read_json_object(path, error=TrainingError, remedy=remedy)
        metrics, history = values.get("metrics"), values.get("history")
        if not isinstance(history, list) or not all(isinstance(row, dict) for row in [metrics, *history]):
            raise TrainingError(f"{path} lacks metrics or history; {remedy}", path=path)
        # JSON has no NaN; `finish` wrote null.
        history = [{name: math.nan if value is None else value for name, value in row.items()} for row in history]
        return {**values, "history": history}

    def _begun(self) -> dict[str, Any]:
        """Return what `begin` wrote."""
        path = self.path / SETTINGS
        values = read_json_object(path, error=TrainingError, remedy=self._remedy())
        digest = values.pop(DIGEST, None)  # older releases did not write it
        kinds = {"settings": dict, "split": dict, "content": str, "provenance": dict}
        if digest not in (None, _digest(values)):
            raise TrainingError(f"{path} has been changed or is damaged; {self._remedy()}", path=path)
        if not all(isinstance(values.get(name), kind) for name, kind in kinds.items()) or not all(
            isinstance(values["split"].get(split), list) for split in SPLITS
        ):
            raise TrainingError(f"{path} is not the settings.json of a run; {self._remedy()}", path=path)
        return values

    def _remedy(self) -> str:
        """What to do about a damaged settings.json."""
        trained = self.checkpoint if self.checkpoint.exists() else None
        saved = f"the trained network in {trained} is not affected; to train again, " if trained else ""
        return f"{saved}choose another output_dir"


def _digest(values: dict[str, Any]) -> str:
    """SHA-256 of the values of settings.json, independent of its formatting."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
