"""The division of a dataset as a training run records it in its folder."""

from __future__ import annotations

from pathlib import Path

from condseg_sdk.data.pairs import SPLITS, Dataset, Split
from condseg_sdk.errors import DatasetError
from condseg_sdk.files import real_path
from condseg_sdk.json_files import read_json_object

__all__ = ["SETTINGS_FILE", "names_by_split", "recorded_split"]

SETTINGS_FILE = "settings.json"


def names_by_split(dataset: Dataset) -> dict[str, list[str]]:
    """Return the names of the pairs in each split of a dataset."""
    return {split: [pair.name for pair in pairs] for split, pairs in dataset.splits.items()}


def recorded_split(checkpoint: Path | None) -> dict[Split, list[str]]:
    """Return the names in each split of the training run that wrote a checkpoint.

    Args:
        checkpoint: Path of RUN/checkpoint or of a file in it; None for a checkpoint that is not on this machine.

    Returns:
        Names of images by split; empty if the checkpoint is not in the folder of a run.
    """
    if checkpoint is None:
        return {}
    path = real_path(checkpoint)
    folder = path if path.is_dir() else path.parent
    try:
        run = read_json_object(folder.parent / SETTINGS_FILE, error=DatasetError, remedy="")
        return {split: [str(name) for name in run["split"][split]] for split in SPLITS}
    except (DatasetError, LookupError, TypeError):  # missing, or a file of another program
        return {}
