"""Loads files, videos, arrays and folders as RGB arrays. Start reading at `load.py`."""
