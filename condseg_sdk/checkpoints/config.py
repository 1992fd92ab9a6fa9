"""config.json of a checkpoint: arguments of the network, preprocessing, threshold, score and provenance."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from condseg_sdk.errors import CheckpointError, OptionError
from condseg_sdk.json_files import parse_json
from condseg_sdk.options import check_threshold
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.region_score import ScoreCalibration

__all__ = ["FORMAT_VERSION", "CheckpointConfig", "as_json"]

FORMAT_VERSION = (
    2  # version 1 lacks VERSION_2_KEYS; configs without them are still written as version 1, for older releases
)
VERSION_2_KEYS = ("field_of_view", "bits")  # of the preprocessing; `score` belongs to version 2, too
KEYS = ("format_version", "network", "preprocessing", "threshold", "provenance")


@dataclass(frozen=True)
class CheckpointConfig:
    """Everything about a checkpoint besides its weights.

    Args:
        network: Arguments of `ConDSeg`. Tuples become lists, as in JSON.
        preprocessing: The input that the network expects.
        threshold: Lowest probability at which a pixel belongs to the mask, above 0 and below 1.
        provenance: Origin of the weights, as JSON. The model card shows `data`, `license`, `attribution`, `datasets`
            (names on the Hub), `metrics`, `validation`, `command` and `date`, and the texts `intended_use`,
            `out_of_scope`, `sites`, `groups`, `known_failures`, `subgroups` and `calibration`.
        score: Calibration of `Segmentation.score`; None if it is not calibrated.

    Raises:
        OptionError: A value is out of range or cannot be written as JSON.

    Example:
        >>> config = CheckpointConfig({"heads": (1, 2, 4, 4)}, Preprocessing((256, 256)), 0.5, {"license": "mit"})
        >>> CheckpointConfig.from_dict(config.to_dict()) == config
        True
    """

    network: dict[str, Any]
    preprocessing: Preprocessing
    threshold: float
    provenance: dict[str, Any]
    score: ScoreCalibration | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", check_threshold(self.threshold))
        if not isinstance(self.preprocessing, Preprocessing):
            raise OptionError(f"preprocessing={reprlib.repr(self.preprocessing)} must be a Preprocessing")
        if not isinstance(self.score, ScoreCalibration | None):
            raise OptionError(f"score={reprlib.repr(self.score)} must be a ScoreCalibration")
        for name in ("network", "provenance"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise OptionError(f"{name}={reprlib.repr(value)} must be a dictionary")
            object.__setattr__(
                self, name, as_json(name, dict(value))
            )  # a copy, so that later changes of the argument have no effect

    def to_dict(self) -> dict[str, Any]:
        """Return the content of config.json; `from_dict` reads it back."""
        preprocessing = self.preprocessing.to_dict()
        values = {key: value for key, value in asdict(self).items() if value is not None}  # a score may be missing
        version = FORMAT_VERSION if "score" in values or any(key in preprocessing for key in VERSION_2_KEYS) else 1
        return {"format_version": version, **values, "preprocessing": preprocessing}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CheckpointConfig:
        """Read what `to_dict` returned.

        Raises:
            CheckpointError: A key is missing or unknown, a value is not allowed, or the format is newer.
        """
        if not isinstance(values, Mapping):
            raise CheckpointError(f"the config must be a JSON object, not {reprlib.repr(values)}")
        version = values.get("format_version")
        if type(version) is int and version > FORMAT_VERSION:
            raise CheckpointError(
                f"format version {version} is newer than this release reads ({FORMAT_VERSION}): "
                f"install condseg_sdk {_writer(values)} or later"
            )
        if type(version) is not int or version not in (1, FORMAT_VERSION) or set(values) - {"score"} != set(KEYS):
            raise CheckpointError(
                f"the keys must be {', '.join(KEYS)} with format_version 1 or {FORMAT_VERSION}, "
                f"not {reprlib.repr(list(values))} with {reprlib.repr(version)}"
            )
        preprocessing = values["preprocessing"]
        within = [key for key in VERSION_2_KEYS if isinstance(preprocessing, Mapping) and key in preprocessing]
        newer = [*(f"preprocessing with {key}" for key in within), *(key for key in values if key == "score")]
        if version == 1 and newer:
            raise CheckpointError(f"format_version 1 does not support {newer[0]}: save the checkpoint again")
        try:
            return cls(
                network=values["network"],
                preprocessing=Preprocessing.from_dict(values["preprocessing"]),
                threshold=values["threshold"],
                provenance=values["provenance"],
                score=ScoreCalibration.from_dict(values["score"]) if "score" in values else None,
            )
        except OptionError as error:
            raise CheckpointError(str(error)) from error


def _writer(values: Mapping[str, Any]) -> str:
    """Name the release that wrote a config.json, which any format contains."""
    provenance = values.get("provenance")
    version = provenance.get("package_version") if isinstance(provenance, Mapping) else None
    return reprlib.repr(version).strip("'") if version else "in the version its author used"


def as_json(name: str, value: Any) -> Any:
    """Return a deep copy of an argument's value as JSON would give it back: lists for tuples, strings for keys.

    Raises:
        OptionError: The value cannot be written as JSON.

    Example:
        >>> as_json("network", {"heads": (1, 2)})
        {'heads': [1, 2]}
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"{name} must contain plain JSON values: {error}") from error
    return parse_json(text, name=name, error=OptionError, remedy="pass plain values")
