"""Exports a trained network to one self-contained ONNX file, which is verified before it takes its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condseg_sdk._version import __version__
from condseg_sdk.checkpoints.config import CheckpointConfig
from condseg_sdk.checkpoints.onnx_metadata import ExportInfo, OnnxPrecision, write_metadata
from condseg_sdk.errors import ExportError, OptionError, OutputError
from condseg_sdk.export.precisions import PRECISIONS
from condseg_sdk.export.preprocessing import BOX_HELP, BOX_KEY, add_preprocessing
from condseg_sdk.export.trace import trace
from condseg_sdk.export.verify import Agreement, verify_export
from condseg_sdk.files import atomic_write
from condseg_sdk.models import ConDSeg
from condseg_sdk.options import check_choice, check_flags, check_integer, check_path
from condseg_sdk.provenance import seal_onnx

__all__ = ["OPSETS", "STEPS", "ExportReport", "check_export_options", "export_onnx"]

STEPS = ("tracing the network", "checking the graph", "comparing it with PyTorch")
"""What an export does, in order, for progress bars; conversion to a lower precision belongs to the first step."""
OPSETS = range(18, 24)  # the exporter writes 18 and later; ONNX Runtime 1.24, the oldest allowed, reads up to 23


@dataclass(frozen=True)
class ExportReport:
    """The written file, and its difference from PyTorch.

    Attributes:
        path: Path of the file.
        bytes: Size of the file.
        info: How it was exported.
        agreement: Difference from float32 PyTorch; None without verification.
    """

    path: Path
    bytes: int
    info: ExportInfo
    agreement: Agreement | None

    def __str__(self) -> str:
        text = f"{self.path}: {self.bytes / 1e6:.1f} MB, {self.info.precision}, opset {self.info.opset}"
        if self.agreement is None:
            return f"{text}, not verified"
        largest, dice = self.agreement.max_difference, self.agreement.dice
        return f"{text}, largest difference in probability {largest:.1e}, Dice of masks {dice:.4f}"


def export_onnx(
    network: ConDSeg,
    config: CheckpointConfig,
    path: str | os.PathLike[str],
    *,
    precision: OnnxPrecision = "float32",
    dynamic: bool = True,
    branch_uncertainty: bool = False,
    preprocessing: bool = False,
    opset: int = 18,
    verify: bool = True,
    images: Sequence[NDArray[np.uint8]] = (),
    calibration: Sequence[NDArray[np.uint8]] = (),
    progress: Callable[[str], object] = lambda _: None,
) -> ExportReport:
    """Export a network to ONNX.

    The graph takes "images", float32 (N, 3, H, W), normalized as the config's preprocessing says, and returns logits
    "mask" and, if requested, "branch_uncertainty", float32 (N, 1, H, W). With `preprocessing=True` it takes "image",
    uint8 RGB (height, width, 3), and returns "probability", float32 (height, width). If the checkpoint crops images to
    their field of view, it also takes "field_of_view", int64 (4), since no operator finds it. The checkpoint's config
    is in the metadata.

    `Predictor.export_onnx` describes the options; images are uint8 RGB (H, W, 3), and the network is not changed.
    `progress` is called with each of `STEPS` when it begins.

    Raises:
        OptionError: The value of an argument is not allowed.
        OutputError: The file cannot be written.
        ExportError: The exporter failed, or the file differs from the network.
    """
    check_export_options(
        path,
        precision,
        opset,
        dynamic=dynamic,
        branch_uncertainty=branch_uncertainty,
        preprocessing=preprocessing,
        verify=verify,
    )
    _check_calibration(precision, calibration)
    path = Path(path)

    dynamic = dynamic and not preprocessing
    info = ExportInfo(precision, dynamic, branch_uncertainty, preprocessing, opset, __version__)
    agreements: list[Agreement] = []

    def write(part: Path) -> None:
        model = _model(network, config, info, calibration, progress)
        if verify:
            progress(STEPS[2])
            agreements.append(verify_export(network, config, model, info, list(images) or list(calibration)))
        part.write_bytes(seal_onnx(model.SerializeToString()))

    atomic_write(path, write)
    return ExportReport(path, path.stat().st_size, info, agreements[0] if agreements else None)


def check_export_options(path: object, precision: object, opset: object, **flags: object) -> None:
    """Refuse invalid options before minutes of work.

    Raises:
        OptionError: The value of an argument is not allowed.
        OutputError: The file cannot be written there.
    """
    path = check_path("path", path)
    check_flags(**flags)
    check_choice("precision", precision, OnnxPrecision)
    if path.suffix != ".onnx":
        raise OptionError(f"{path} must end in .onnx", option="path")
    check_integer("opset", opset, least=OPSETS.start, most=OPSETS.stop - 1)
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: the folder {path.parent} does not exist", path=path)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path} cannot be written: choose a file in a folder that can be written to", path=path)


def _check_calibration(precision: OnnxPrecision, calibration: Sequence[NDArray[np.uint8]]) -> None:
    needs = PRECISIONS[precision].needs_calibration
    if needs and not calibration:
        raise OptionError(
            f"precision={precision!r} needs calibration images: calibration=a folder, pattern or list of a few dozen "
            "images like those to be segmented",
            option="calibration",
        )
    if calibration and not needs:
        calibrated = " and ".join(repr(name) for name, spec in PRECISIONS.items() if spec.needs_calibration)
        raise OptionError(
            f"calibration images are for precision={calibrated}, not {precision!r}: leave them out",
            option="calibration",
        )


def _model(
    network: ConDSeg,
    config: CheckpointConfig,
    info: ExportInfo,
    calibration: Sequence[NDArray[np.uint8]],
    progress: Callable[[str], object],
) -> Any:
    """Build the finished onnx.ModelProto."""
    import onnx

    progress(STEPS[0])
    model = trace(
        network,
        size=config.preprocessing.size,
        dynamic=info.dynamic,
        uncertainty=info.branch_uncertainty,
        opset=info.opset,
    )
    convert = PRECISIONS[info.precision].convert
    if convert is not None:
        model = convert(model, [config.preprocessing(image) for image in calibration])
    if info.preprocessing:
        add_preprocessing(model, config.preprocessing)
    asks = info.preprocessing and config.preprocessing.field_of_view != "none"
    onnx.helper.set_model_props(model, write_metadata(config, info) | ({BOX_KEY: BOX_HELP} if asks else {}))
    model.producer_name, model.producer_version = "condseg_sdk", info.package_version
    model.doc_string = "ConDSeg segmentation. Not a medical device: for research and development only."
    progress(STEPS[1])
    try:
        onnx.checker.check_model(model, full_check=convert is None)
    except Exception as error:
        raise ExportError(f"the graph does not pass ONNX's checker ({error})") from error
    return model
