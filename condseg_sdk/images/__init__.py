"""Anything a user has becomes an RGB array: files, videos, arrays, folders. Start reading at `load.py`."""
