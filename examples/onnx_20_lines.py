"""A mask with ONNX Runtime, NumPy and Pillow alone, without condseg_sdk.

condseg export condseg-lite-polyp model.onnx --preprocessing  # once, where condseg_sdk is installed
python examples/onnx_20_lines.py model.onnx frame.jpg mask.png
"""

import json
import os
import sys

import numpy as np
from PIL import Image, ImageOps

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import (docs/privacy.md)
import onnxruntime

model, source, target = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
image = np.asarray(ImageOps.exif_transpose(Image.open(source)).convert("RGB"))  # uint8 (height, width, 3)
inputs = {"image": image}
if "field_of_view" in [each.name for each in session.get_inputs()]:  # of networks that see a part of the image
    inputs["field_of_view"] = np.array([0, 0, image.shape[1], image.shape[0]], np.int64)  # all of it; docs/onnx.md
(probability,) = session.run(["probability"], inputs)  # float32 (height, width) in [0, 1]
threshold = json.loads(session.get_modelmeta().custom_metadata_map["condseg_config"])["threshold"]
mask = np.uint8(255) * (probability >= threshold)
Image.fromarray(mask).save(target)
