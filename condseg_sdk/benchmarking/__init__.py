"""Measuring networks side by side: `condseg benchmark`, and `benchmarks/latency.py` in the repository.

subjects -> worker (a process for each) -> measure (in turn) -> table, plot.
"""
