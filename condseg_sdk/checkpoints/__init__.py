"""Checkpoints on disk: config.json, tensors, model card, and the metadata of exported files."""
