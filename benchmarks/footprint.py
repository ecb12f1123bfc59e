"""How much memory a call takes at its peak: tracejit's against NumPy's, and PyTorch's.

    python -m benchmarks.footprint [ROW…]

Each measurement is a process of its own. The code is compiled beforehand; then everything that
the library keeps for later calls (plans, arenas, recycled results) is dropped, the kernel's
high-water mark of resident memory is reset, and one call is made. The figure is how far resident
memory rose above what it was: temporaries, arena and results, and nothing of the arguments.
Linux only (``/proc/self/clear_refs``).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

import tracejit as tj
from tracejit.errors import ValueArgumentError

from .implementations import LOADERS, Unavailable
from .rows import ROWS, Row
from .rows.base import arguments_of

LIBRARIES = ("tracejit", "numpy", "torch")
# A program with fewer intermediates has little to save.
FEW = 3
GOAL = 0.30


def intermediates(row: type[Row]) -> int:
    """Return how many values the traced program computes beside its results."""
    graph = tj.trace(row.tracejit(tj), *arguments_of(row)).graph
    return sum(1 for n in graph.nodes if n.inputs and n.size > 1 and n not in graph.outputs)


def resident(field: str) -> int:
    """Return a figure of /proc/self/status in bytes: "VmRSS", or "VmHWM" (its peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no {field} in /proc/self/status")


def rise(row: type[Row], library: str) -> int:
    """Return by how many bytes one call raises this process's resident memory at its peak."""
    arguments = arguments_of(row)
    if library == "tracejit":
        jitted: Any = tj.jit(row.tracejit(tj), compile="now")
        jitted(*arguments)
        jitted.clear()  # with the plans go their arenas; the code stays

        def call() -> Any:
            return jitted(*arguments)
    else:
        call = LOADERS[library](1).bind(row, arguments)
        call()
    _give_back()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    kept = call()
    peak = resident("VmHWM")
    del kept
    return max(0, peak - before)


def _give_back() -> None:
    """Give all free memory back to the system."""
    from tracejit.runtime import memory

    gc.collect()
    if memory.available():
        memory.trim()
    ctypes.CDLL(None).malloc_trim(0)


def measured(row: type[Row], library: str) -> int | None:
    """Return ``rise`` in a fresh process; None where the library or the row's form is missing."""
    if library != "tracejit" and getattr(row, library, None) is None:
        return None
    command = [sys.executable, "-m", "benchmarks.footprint", "--one", library, row.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


class Footprint(NamedTuple):
    """A row's values between its arguments and results, and the rise of each library in bytes."""

    name: str
    between: int
    risen: dict[str, int | None]

    @property
    def saved(self) -> float | None:
        """The part of NumPy's rise that tracejit does without."""
        ours, numpys = self.risen["tracejit"], self.risen["numpy"]
        return None if not ours or not numpys else 1 - ours / numpys

    @property
    def kept(self) -> bool:
        """Whether a program with intermediates saves enough."""
        return self.between < FEW or self.saved is None or self.saved >= GOAL

    def cells(self) -> list[str]:
        """Return the row of a table."""
        return [
            self.name,
            str(self.between),
            *("·" if r is None else f"{r / 2**20:.1f}" for r in self.risen.values()),
            "·" if self.saved is None else f"{self.saved:.0%}",
        ]


def header(libraries: Sequence[str]) -> list[str]:
    return ["row", "values between", *(f"{x}, MiB" for x in libraries), "less than NumPy"]


def footprint(name: str, libraries: Sequence[str] = LIBRARIES) -> Footprint:
    row = ROWS[name]
    risen = {library: measured(row, library) for library in libraries}
    return Footprint(name, intermediates(row), risen)


def report(names: list[str]) -> bool:
    """Print the table; return whether every program with intermediates saves enough."""
    table = Table(*header(LIBRARIES))
    found = [footprint(name) for name in names]
    for one in found:
        table.add_row(*one.cells())
    Console(width=100).print(table)
    return all(one.kept for one in found)


def main() -> None:
    """Run the command; exit with 1 where a program misses the goal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint")
    parser.add_argument("rows", nargs="*", help="rows; all that have a NeuralScript kernel")
    parser.add_argument("--one", metavar="LIBRARY", help="measure one row here, print bytes")
    given = parser.parse_args()
    for name in given.rows:
        if name not in ROWS:
            raise ValueArgumentError(f"no row is called {name}", hint=f"one of {', '.join(ROWS)}")
    if given.one:
        try:
            print(rise(ROWS[given.rows[0]], given.one))
        except Unavailable as reason:
            sys.exit(str(reason))
        return
    rows = given.rows or [n for n, row in ROWS.items() if row.group in ("table", "kernels")]
    sys.exit(not report(rows))


if __name__ == "__main__":
    main()
