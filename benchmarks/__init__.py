"""Measurements: run ``python -m benchmarks`` or ``make bench``."""
