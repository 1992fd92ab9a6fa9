"""Agreement of an exported file's masks with those of float32 PyTorch, on real images.

    python benchmarks/agreement.py condseg-lite-polyp kvasir_seg/images --precision int8 --count 50 --calibration 24
    python benchmarks/agreement.py condseg-lite-polyp kvasir_seg/images --device openvino --arithmetic bfloat16

Calibration images, for int8, come after the measured images: no image is in both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import get_args

import numpy as np

from condseg_sdk import CondsegError, OnnxOptions, Predictor
from condseg_sdk.errors import OptionError
from condseg_sdk.export.precisions import PRECISIONS
from condseg_sdk.images.load import find_images
from condseg_sdk.metrics import score
from condseg_sdk.runtimes.options import Precision


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name or folder of a checkpoint")
    parser.add_argument("images", help="folder or pattern of images")
    parser.add_argument("--precision", choices=PRECISIONS, default="int8")
    parser.add_argument("--static", action="store_true", help="export with fixed sizes")
    parser.add_argument("--device", default="cpu", help="device of the exported file (default: %(default)s)")
    parser.add_argument("--arithmetic", choices=get_args(Precision), help="precision of the arithmetic of the device")
    parser.add_argument("--list", type=Path, help="text file with the names of the images to compare on, one per line")
    parser.add_argument("--count", type=int, default=50, help="number of images to compare on (default: %(default)s)")
    parser.add_argument(
        "--calibration", type=int, default=24, help="number of calibration images, for int8 (default: %(default)s)"
    )
    options = parser.parse_args()
    try:
        paths = find_images(options.images)
        if options.list is not None:
            names = options.list.read_text(encoding="utf-8").split()
            paths = sorted(paths, key=lambda path: path.stem not in names)
            options.count = sum(path.stem in names for path in paths)
        compared, others = paths[: options.count], []
        if PRECISIONS[options.precision].needs_calibration:
            others = paths[options.count :][: options.calibration]
            if not others:
                raise OptionError(f"{options.images}: {len(paths)} images leave none for calibration: lower --count")
        predictor = Predictor.from_pretrained(options.model, device="cpu")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.onnx")
            predictor.export_onnx(
                file,
                precision=options.precision,
                dynamic=not options.static,
                verify=False,
                calibration=others or None,
            )
            runtime = OnnxOptions(precision=options.arithmetic)
            exported = Predictor.from_pretrained(file, device=options.device, runtime=runtime)
            predictions = list(zip(predictor.predict(compared), exported.predict(compared), strict=True))
    except CondsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    dice = [score(exported_one.mask, reference.mask).dice for reference, exported_one in predictions]
    largest = max(
        float(np.abs(exported_one.probability - reference.probability).max()) for reference, exported_one in predictions
    )
    calibrated = f", {len(others)} others for calibration" if others else ""
    arithmetic = f", {options.arithmetic}" if options.arithmetic else ""
    print(f"{options.model}, {options.precision}, {options.device}{arithmetic}, {len(predictions)} images{calibrated}")
    print(f"Dice of masks with float32 PyTorch: mean {np.mean(dice):.4f}, least {min(dice):.4f}")
    print(f"largest difference of a probability: {largest:.2e}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
