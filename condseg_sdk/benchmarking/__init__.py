"""Comparison of networks: `condseg benchmark`, and `benchmarks/latency.py` in the repository.

`subjects` says what is measured, `worker` runs each subject in a process, `measure` lets them take turns, and `table`
and `plot` show the rows.
"""
