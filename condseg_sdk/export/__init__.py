"""What writes an ONNX file: the inference form of a network, its graph, its checks. Start reading at `onnx.py`."""
