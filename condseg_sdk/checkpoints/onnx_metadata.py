"""Metadata of an exported file: the config of its checkpoint, and how it was exported."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from condseg_sdk.checkpoints.config import CheckpointConfig
from condseg_sdk.errors import CheckpointError
from condseg_sdk.json_files import parse_json

__all__ = ["CONFIG_KEY", "EXPORT_KEY", "ExportInfo", "OnnxPrecision", "read_metadata", "write_metadata"]

CONFIG_KEY = "condseg_config"
EXPORT_KEY = "condseg_export"
FORMAT_VERSION = 2
BRANCH_OUTPUT = {1: "uncertainty", 2: "branch_uncertainty"}  # name of the second output, by format version

OnnxPrecision = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class ExportInfo:
    """How a file was exported.

    Args:
        precision: Precision of weights and arithmetic; inputs and outputs are always float32.
        dynamic: Whether batch, height and width are dynamic. Otherwise the input is one image at the checkpoint's size.
        branch_uncertainty: Whether there is a second output, of the uncertainty branch.
        preprocessing: Whether the graph takes images of any size, for programs without this package.
        opset: Version of the ONNX operators.
        package_version: Version of condseg_sdk that exported the file.
        format_version: Version of this metadata.
    """

    precision: OnnxPrecision
    dynamic: bool
    branch_uncertainty: bool
    preprocessing: bool
    opset: int
    package_version: str
    format_version: int = FORMAT_VERSION

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        return ("mask", BRANCH_OUTPUT[self.format_version]) if self.branch_uncertainty else ("mask",)

    @classmethod
    def from_dict(cls, values: Any) -> ExportInfo:
        """Read what `write_metadata` wrote.

        Raises:
            CheckpointError: A key is missing or unknown, a value has another type, or the format is newer.
        """
        version = values.get("format_version") if isinstance(values, Mapping) else None
        if type(version) is int and version > FORMAT_VERSION:
            writer = reprlib.repr(values.get("package_version", "in a newer version")).strip("'")
            raise CheckpointError(
                f"export format {version} is newer than this release reads ({FORMAT_VERSION}): "
                f"install condseg_sdk {writer} or later"
            )
        types = {"precision": str, "package_version": str, "opset": int, "format_version": int}
        expected = {field.name: types.get(field.name, bool) for field in fields(cls)}
        if version == 1:  # written until condseg_sdk 0.1.0
            values = {BRANCH_OUTPUT[2] if key == BRANCH_OUTPUT[1] else key: value for key, value in values.items()}
        if (
            type(version) is not int
            or version not in BRANCH_OUTPUT
            or {key: type(value) for key, value in values.items()} != expected
        ):
            raise CheckpointError(f"{EXPORT_KEY} must have the keys {', '.join(expected)} and values of their types")
        if values["precision"] not in get_args(OnnxPrecision):
            raise CheckpointError(f"precision={reprlib.repr(values['precision'])} is unknown")
        return cls(**values)


def write_metadata(config: CheckpointConfig, info: ExportInfo) -> dict[str, str]:
    """Return the metadata of an exported model; `read_metadata` reads it back."""
    return {CONFIG_KEY: json.dumps(config.to_dict()), EXPORT_KEY: json.dumps(asdict(info))}


def read_metadata(metadata: Mapping[str, str], *, source: object) -> tuple[CheckpointConfig, ExportInfo]:
    """Read the config and the export from the metadata of a model; messages name the file `source`.

    Raises:
        CheckpointError: The file was not exported by condseg_sdk, or by a release with a newer format.
    """
    if CONFIG_KEY not in metadata or EXPORT_KEY not in metadata:
        raise CheckpointError(
            f"{source} is not an export of condseg_sdk, so its preprocessing is unknown: make one with export_onnx"
        )
    remedy = "export it again"
    config, values = (
        parse_json(
            metadata[key], name=f"{source} has damaged metadata: its {key}", error=CheckpointError, remedy=remedy
        )
        for key in (CONFIG_KEY, EXPORT_KEY)
    )
    try:
        info = ExportInfo.from_dict(values)
        return CheckpointConfig.from_dict(config), info
    except CheckpointError as error:
        raise CheckpointError(f"{source} has damaged metadata ({error}): {remedy}") from error
