"""ONNX files: the inference form of a network, its graph and its verification. Start reading at `onnx.py`."""
