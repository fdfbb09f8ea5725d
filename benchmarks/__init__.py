"""Benchmarks of speed and accuracy; see `python -m benchmarks --help`."""
