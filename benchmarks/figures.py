"""What an import, a trace, a compilation and a call cost, each against its bound.

    python -m benchmarks.figures

Every figure is the minimum of several rounds: other work on the machine only ever adds. Where two
things are compared their rounds alternate, so that a slow spell hits both. What one thread does
alone (import, plan, compile) is measured in processor time, calls in elapsed time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import tracejit as tj
from tracejit import config
from tracejit.frontend.compiled import trace_function
from tracejit.frontend.signature import leaf_key
from tracejit.frontend.trees import flatten
from tracejit.runtime import code, cpu, engine


class Figure(NamedTuple):
    """A measured value, and the bound it should keep (``at_least`` says on which side)."""

    name: str
    value: float
    unit: str
    bound: float
    at_least: bool = False

    @property
    def kept(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound


Clock = Callable[[], float]


def seconds(call: Callable[[], Any], clock: Clock) -> float:
    """Return how long one call takes."""
    start = clock()
    call()
    return clock() - start


def alternate(rounds: int, *calls: Callable[[], Any], clock: Clock) -> list[float]:
    """Return the least seconds of each call, one round after the other."""
    times = [[seconds(call, clock) for call in calls] for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]


def import_cost() -> Figure:
    """The processor time of ``import tracejit`` after ``import numpy``, from bytecode."""
    script = (
        "import numpy, time; start = time.process_time(); import tracejit; "
        "print(time.process_time() - start)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environ = os.environ | {"PYTHONPYCACHEPREFIX": folder}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        times = [
            float(subprocess.check_output([sys.executable, "-c", script], env=environ))
            for _ in range(6)
        ]
    return Figure("import, beyond NumPy's", min(times) * 1e3, "ms", 60)


def planning_cost() -> Figure:
    """Trace, passes, fusion and schedule of a program of 10,000 nodes, for each node."""
    leaves, tree = flatten(((np.linspace(0, 1, 64, dtype=np.float32),), {}))
    keys = [leaf_key(leaf, "program") for leaf in leaves]

    def program(x: Any) -> Any:
        y = x
        for step in range(3333):
            y = y * x + np.float32(step)
        return y

    def plan() -> int:
        graph = trace_function(program, leaves, keys, tree).graph
        engine.plan_graph(graph, [None])
        return len(graph.nodes)

    nodes = plan()
    (least,) = alternate(5, plan, clock=time.process_time)
    return Figure(f"plan {nodes:,} nodes, each", least / nodes * 1e6, "µs", 100)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def compile_cost() -> Figure:
    """Softmax from Python source to machine code and through its first run, LLVM being loaded."""
    x = np.ones((8, 1024), np.float32)
    tj.jit(lambda x: x + 1, compile="now")(x)

    def first_call() -> None:
        code.clear()  # equal kernels compile once in a process
        with config.override(disk_cache=0):
            tj.jit(softmax, compile="now")(x)

    (least,) = alternate(7, first_call, clock=time.process_time)
    return Figure("softmax, source to first result", least * 1e3, "ms", 60)


def chain(x: Any) -> Any:
    """Ten elementwise operations."""
    y = x * np.float32(2) + np.float32(1)
    y = y * y - x
    y = np.maximum(y, np.float32(0)) / (x * x + np.float32(1))
    return np.sqrt(y) + x


def ratio(name: str, function: Callable[[Any], Any], x: Any, bound: float) -> Figure:
    """Time ``function`` in NumPy against the same function jitted."""
    jitted = tj.jit(function, compile="now")
    np.testing.assert_allclose(jitted(x), function(x), rtol=1e-5, atol=1e-6)
    numpy_time, our_time = alternate(
        15, lambda: function(x), lambda: jitted(x), clock=time.perf_counter
    )
    label = f"{name}: NumPy {numpy_time * 1e3:.2f} ms, ours {our_time * 1e3:.2f} ms"
    return Figure(label, numpy_time / our_time, "×", bound, at_least=True)


def figures() -> list[Figure]:
    """Measure everything (about half a minute)."""
    rng = np.random.default_rng(0)
    vector = rng.normal(size=1_000_000).astype(np.float32)
    rows = rng.normal(size=(4096, 1024)).astype(np.float32)
    return [
        import_cost(),
        planning_cost(),
        compile_cost(),
        ratio("10-operation chain, 1M f32", chain, vector, 5),
        ratio("softmax, 4096×1024 f32", softmax, rows, 1),
    ]


def main() -> None:
    """Print the table; exit with 1 if a bound is not kept."""
    table = Table(
        "figure", "measured", "bound", "", title=f"{cpu.host().brand}, {cpu.target().name}"
    )
    measured = figures()
    for figure in measured:
        side = "≥" if figure.at_least else "≤"
        table.add_row(
            figure.name,
            f"{figure.value:.1f} {figure.unit}",
            f"{side} {figure.bound:g} {figure.unit}",
            "" if figure.kept else "missed",
        )
    Console(width=100).print(table)
    sys.exit(not all(figure.kept for figure in measured))


if __name__ == "__main__":
    main()
