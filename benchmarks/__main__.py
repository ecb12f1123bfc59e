"""``python -m benchmarks``: measure the figures and print them as a table."""

from __future__ import annotations

from benchmarks.figures import main

main()
