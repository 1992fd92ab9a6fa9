"""Dataset formats, one file each: how people lay images and masks out on disk."""
