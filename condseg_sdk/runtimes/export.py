"""From a trained network to one self-contained ONNX file, verified before it takes its place."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from condseg_sdk.errors import ExportError, OptionError, check_choice
from condseg_sdk.files import atomic_write
from condseg_sdk.models import ConDSeg
from condseg_sdk.models.config import CheckpointConfig
from condseg_sdk.runtimes.inference_form import inference_form
from condseg_sdk.runtimes.metadata import ExportInfo, OnnxPrecision, write_metadata

__all__ = ["OPSETS", "ExportReport", "export_onnx"]

OPSETS = range(18, 24)  # the exporter writes 18 and up; ONNX Runtime 1.22, the oldest that we allow, reads up to 23
TOLERANCE = {"float32": 1e-4}  # of probabilities


@dataclass(frozen=True)
class ExportReport:
    """What was written and how far it is from PyTorch.

    Attributes:
        path: of the file.
        bytes: its size.
        info: how it was exported.
        max_difference: largest difference of a probability from float32 PyTorch; None without verification.
        dice: mean Dice of its masks against float32 PyTorch's; None without verification.
    """

    path: Path
    bytes: int
    info: ExportInfo
    max_difference: float | None
    dice: float | None

    def __str__(self) -> str:
        text = f"{self.path}: {self.bytes / 1e6:.1f} MB, {self.info.precision}, opset {self.info.opset}"
        if self.max_difference is None:
            return f"{text}, not verified"
        return f"{text}, largest difference {self.max_difference:.1e}, Dice of masks {self.dice:.4f}"


def export_onnx(
    network: ConDSeg,
    config: CheckpointConfig,
    path: str | os.PathLike[str],
    *,
    precision: OnnxPrecision = "float32",
    dynamic: bool = True,
    uncertainty: bool = False,
    opset: int = 18,
    verify: bool = True,
    images: Sequence[NDArray[np.uint8]] = (),
) -> ExportReport:
    """Write a network as ONNX.

    The graph takes "images", float32 (N, 3, H, W), normalised as the config's preprocessing says, and gives "mask" and,
    if asked for, "uncertainty": logits, float32 (N, 1, H, W). The checkpoint's config travels in the metadata.

    Args:
        network: trained, float32; not changed.
        config: of its checkpoint.
        path: ends in .onnx; an existing file is replaced, once the new one is whole and verified.
        precision: "float32".
        dynamic: leave the number of images, height and width free; otherwise one image at the checkpoint's size, which
            some compilers want.
        uncertainty: give the graph the uncertainty map, too.
        opset: of ONNX, in `OPSETS`.
        verify: compare with PyTorch before the file takes its place.
        images: RGB uint8 (H, W, 3), what the network is meant for, for verification, which otherwise uses noise and
            gradients.

    Raises:
        OptionError: an argument's value is not allowed, or the file cannot be written.
        ExportError: the exporter failed, or the file answers differently than the network.
    """
    check_choice("precision", precision, OnnxPrecision)
    path = Path(path)
    if path.suffix != ".onnx":
        raise OptionError(f"{path} must end in .onnx")
    if opset not in OPSETS:
        raise OptionError(f"opset={opset!r} must be from {OPSETS.start} to {OPSETS.stop - 1}")
    if not path.parent.is_dir():
        raise OptionError(f"{path} cannot be written: the folder {path.parent} does not exist")
    from condseg_sdk import __version__  # not at the top: the package imports this module

    info = ExportInfo(precision, dynamic, uncertainty, opset, __version__)
    samples = [config.preprocessing(image) for image in images] or _synthetic(config.preprocessing.size)
    figures: list[tuple[float, float]] = []

    def write(part: Path) -> None:
        model = _graph(network, config, info)
        model.metadata_props.update(write_metadata(config, info))
        model.producer_name, model.producer_version = "condseg_sdk", __version__
        model.doc_string = "ConDSeg segmentation. Not a medical device: for research and development only."
        _save(model, part)
        if verify:
            figures.append(_verify(network, part, info, samples, config.threshold))

    atomic_write(path, write)
    difference, dice = figures[0] if figures else (None, None)
    return ExportReport(path, path.stat().st_size, info, difference, dice)


def _graph(network: ConDSeg, config: CheckpointConfig, info: ExportInfo) -> Any:
    """The network as an onnx-ir model."""
    height, width = config.preprocessing.size
    form: nn.Module = inference_form(
        network, uncertainty=info.uncertainty, size=None if info.dynamic else (height, width), graph=True
    ).cpu()
    batch = 2 if info.dynamic else 1  # the exporter takes sizes of 1 for constants
    shapes = None
    if info.dynamic:
        free = torch.export.Dim.DYNAMIC
        shapes = ({0: free, 2: free, 3: free},)
    with _silence():
        try:
            program = torch.onnx.export(
                form,
                (torch.zeros(batch, 3, height, width),),
                dynamo=True,
                input_names=["images"],
                output_names=["mask", "uncertainty"][: 1 + info.uncertainty],
                dynamic_shapes=shapes,
                opset_version=info.opset,
                verbose=False,
            )
        except Exception as error:
            raise ExportError(f"the network cannot be exported ({type(error).__name__}: {error})") from error
    assert program is not None
    return program.model


def _save(model: Any, part: Path) -> None:
    import onnx
    import onnx_ir

    proto = onnx_ir.to_proto(model)
    for node in proto.graph.node:  # the exporter's notes on every node: stack traces with paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.metadata_props[:]
    for value in proto.graph.value_info:
        del value.metadata_props[:]
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, part)


def _verify(
    network: ConDSeg, part: Path, info: ExportInfo, samples: Sequence[NDArray[np.float32]], threshold: float
) -> tuple[float, float]:
    """Largest difference of probabilities and mean Dice of masks over the samples, in tolerance."""
    import onnxruntime

    session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
    differences, dices = [], []
    device = next(network.parameters()).device
    for sample in samples[:8]:
        batch = sample[None]
        with torch.inference_mode():
            output = network.eval()(torch.from_numpy(batch).to(device), aux=info.uncertainty)
        expected = [x.cpu().sigmoid().numpy() for x in (output.mask, output.uncertainty) if x is not None]
        wanted = expected[:1] + expected[-1:] if info.uncertainty else expected
        answers = [1 / (1 + np.exp(-x.astype(np.float64))) for x in session.run(None, {"images": batch})]
        differences += [float(np.abs(a - b).max()) for a, b in zip(answers, wanted, strict=True)]
        mask, truth = answers[0] >= threshold, wanted[0] >= threshold
        total = int(mask.sum() + truth.sum())
        dices.append(2 * int((mask & truth).sum()) / total if total else 1.0)
    difference, dice = max(differences), float(np.mean(dices))
    if not difference <= TOLERANCE[info.precision]:
        raise ExportError(
            f"the {info.precision} graph differs from the network: by up to {difference:.1e} in probability, Dice of "
            f"masks {dice:.3f}; verify=False writes it all the same"
        )
    return difference, dice


def _synthetic(size: tuple[int, int]) -> list[NDArray[np.float32]]:
    """Inputs to compare on where the user gave none: noise, and smooth gradients as in a picture."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    smooth = np.stack([np.sin(rows / 17 + k) * np.cos(columns / 23 - k) for k in range(3)])
    return [rng.standard_normal((3, *size), dtype=np.float32), smooth.astype(np.float32)]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress lines, warnings and log messages from the user; errors are raised, not printed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
