"""The smallest files with weights of each kind: a checkpoint folder, an .onnx file, and the folder of a run."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from condseg_sdk import ConDSeg, Predictor, Preprocessing
from condseg_sdk.checkpoints.onnx_metadata import ExportInfo, write_metadata
from condseg_sdk.weights.checkpoint import CheckpointConfig, save_checkpoint

__all__ = [
    "NETWORK",
    "PREPROCESSING",
    "finish_run",
    "make_checkpoint",
    "make_onnx",
    "make_run",
    "make_set",
    "photo",
    "predictor",
]

NETWORK: dict[str, Any] = {
    "encoder": "efficientnet_lite0",
    "channels": 8,
    "heads": 2,
    "sid_channels": 8,
    "aux_channels": [8],
    "output_channels": [8, 8],
    "full_resolution": False,
}
PREPROCESSING = Preprocessing((64, 64), scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)
CONFIG = CheckpointConfig(
    network=NETWORK,
    preprocessing=PREPROCESSING,
    threshold=0.4,
    provenance={"data": "noise", "license": "mit", "metrics": {"mIoU": 0.5}, "date": "2026-01-01"},
)


def photo(number: int, size: tuple[int, int] = (30, 40)) -> np.ndarray:
    """Make coarse noise, uint8 (H, W, 3), different for each number."""
    cells = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return np.array(Image.fromarray(cells).resize(size[::-1], Image.Resampling.BILINEAR))


def region(size: tuple[int, int] = (30, 40)) -> np.ndarray:
    """Make a mask of a rectangle, uint8 (H, W), 0 and 255."""
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 4 : size[0] // 2, size[1] // 3 : size[1] * 2 // 3] = 255
    return mask


def make_set(folder: Path, count: int = 5) -> Path:
    """Write images/N.png and masks/N.png, and val.txt with two of them."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(1, count + 1):
        Image.fromarray(photo(number)).save(folder / "images" / f"{number}.png")
        Image.fromarray(region()).save(folder / "masks" / f"{number}.png")
    (folder / "train.txt").write_text("".join(f"{number}\n" for number in range(1, count - 1)))
    (folder / "val.txt").write_text("".join(f"{number}\n" for number in range(count - 1, count + 1)))
    return folder


def make_checkpoint(folder: Path) -> Path:
    """Write a checkpoint folder with random weights."""
    torch.manual_seed(0)
    return save_checkpoint(folder, ConDSeg(**NETWORK), CONFIG)


@cache
def predictor(checkpoint: Path) -> Predictor:
    """One for the whole process."""
    return Predictor.from_pretrained(checkpoint, device="cpu")


def make_onnx(path: Path) -> Path:
    """Write a graph of a dozen nodes with the inputs, outputs and metadata of an export, which opens in milliseconds."""
    rng = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["images", "w1", "b1"], ["a"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Clip", ["a", "low", "high"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "w2"], ["d"], kernel_shape=[3, 3], pads=[2] * 4, dilations=[2, 2], group=4),
        helper.make_node("Resize", ["d", "", "scales"], ["e"], mode="linear"),
        helper.make_node("Concat", ["b", "e"], ["f"], axis=1),
        helper.make_node("Conv", ["f", "w3"], ["g"], kernel_shape=[1, 1]),
        helper.make_node("Resize", ["g", "", "scales"], ["mask"], mode="linear"),
        helper.make_node("Neg", ["mask"], ["branch_uncertainty"]),
    ]
    maps = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, "height", "width"])
        for name in ("mask", "branch_uncertainty")
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    constants = {"low": np.float32(0), "high": np.float32(6), "scales": np.array([1, 1, 2, 2], np.float32)}
    initializers = [weights("w1", 4, 3, 3, 3), weights("b1", 4), weights("w2", 4, 1, 3, 3), weights("w3", 1, 8, 1, 1)]
    initializers += [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", [images], maps, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    info = ExportInfo(
        "float32", dynamic=True, branch_uncertainty=True, preprocessing=False, opset=18, package_version="0"
    )
    helper.set_model_props(model, write_metadata(CONFIG, info))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def make_run(folder: Path, data: Path) -> Path:
    """Write the folder of a run that was interrupted in the second of two epochs of stage 2, after one of stage 1."""
    from lightning.pytorch.loggers import Logger

    from condseg_sdk import finetune

    class Interrupt(Logger):
        """Interrupt the run when the metrics of the second epoch are logged."""

        name, version = "interrupt", 0

        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
            """Ignore hyperparameters."""

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            if "stage2/val_iou" in metrics and metrics.get("epoch") == 1:
                raise KeyboardInterrupt

    try:
        finetune(
            data,
            output_dir=folder,
            network=NETWORK,
            base="random",
            image_size=64,
            epochs=2,
            stage1_epochs=1,
            batch_size=2,
            logger=Interrupt(),
            progress=False,
            report=False,
            accelerator="cpu",
            num_workers=0,
            precision="float32",
        )
    except KeyboardInterrupt:
        return folder
    raise RuntimeError("the run was not interrupted")


def finish_run(folder: Path, data: Path) -> Path:
    """Resume a run to its end."""
    from condseg_sdk import finetune

    finetune(data, output_dir=folder, resume=True, progress=False, report=False, accelerator="cpu", num_workers=0)
    return folder
