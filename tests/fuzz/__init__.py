"""A fuzzer for everything that reads: mutated files in, and each must end in a prediction or in one CondsegError line.

`python -m tests.fuzz` (or `make fuzz`) runs a campaign; docs/contributing.md says how to replay a case and how to add a
target. The unit suite runs a small sample (`tests/fuzz/test_fuzz.py`).
"""
