"""Evaluates a model on images with ground truth. Start reading at `evaluate.py`."""
