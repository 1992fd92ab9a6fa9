"""What an exported file says about itself: the checkpoint's config and how it was exported, in the model's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from condseg_sdk.errors import CheckpointError
from condseg_sdk.json_files import parse_json
from condseg_sdk.models.config import CheckpointConfig

__all__ = ["CONFIG_KEY", "EXPORT_KEY", "ExportInfo", "OnnxPrecision", "read_metadata", "write_metadata"]

CONFIG_KEY = "condseg_config"
EXPORT_KEY = "condseg_export"
FORMAT_VERSION = 1

OnnxPrecision = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class ExportInfo:
    """How a file was exported.

    Args:
        precision: of weights and arithmetic; inputs and outputs are float32 always.
        dynamic: whether batch, height and width are free; otherwise they are one image at the checkpoint's size.
        uncertainty: whether there is a second output.
        preprocessing: whether it takes an image as it is, for programs without this package.
        opset: of the standard ONNX operators.
        package_version: of the exporting condseg_sdk.
    """

    precision: OnnxPrecision
    dynamic: bool
    uncertainty: bool
    preprocessing: bool
    opset: int
    package_version: str
    format_version: int = FORMAT_VERSION


def write_metadata(config: CheckpointConfig, info: ExportInfo) -> dict[str, str]:
    """The metadata of an exported model; `read_metadata` reads it back."""
    return {CONFIG_KEY: json.dumps(config.to_dict()), EXPORT_KEY: json.dumps(asdict(info))}


def read_metadata(metadata: Mapping[str, str], *, source: object) -> tuple[CheckpointConfig, ExportInfo]:
    """Config and export of a file.

    Args:
        metadata: the model's metadata.
        source: the file, for messages.

    Raises:
        CheckpointError: the file was not exported by condseg_sdk, or by a release with a newer format.
    """
    if CONFIG_KEY not in metadata or EXPORT_KEY not in metadata:
        raise CheckpointError(
            f"{source} is not an export of condseg_sdk, so its preprocessing is unknown: make one with export_onnx"
        )
    try:
        values, config = (
            parse_json(metadata[key], name=f"its {key}", error=CheckpointError, remedy="export it again")
            for key in (EXPORT_KEY, CONFIG_KEY)
        )
        version = values.get("format_version")
        if type(version) is int and version > FORMAT_VERSION:
            raise CheckpointError(
                f"{source} has export format {version}, newer than this release reads ({FORMAT_VERSION}): "
                f"install condseg_sdk {values.get('package_version', 'in a newer version')} or later"
            )
        return CheckpointConfig.from_dict(config), ExportInfo(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{source} has damaged metadata ({error}): export it again") from error
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
