"""What a checkpoint is on disk: its config.json, its tensors, its model card. Knows no network address."""
