"""``tracejit tune``: times ways to cut products on this machine, and keeps the fastest.

One number of the ``Blocking`` after the other, each of a few values, on all programs at once:
least times of interleaved rounds against the blocking so far. What seems faster is measured again
before it is believed. A value counts by the geometric mean over the programs, so that none pays
much for another. ``depth``, ``ahead_rows`` and ``ahead_columns`` decide how the terms of a sum are
grouped, and so the last bits of a product; these depend on none of the others, nor on how many
threads there are.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tracejit.codegen.target import Blocking, Target
from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import placeholder
from tracejit.ops.table import Array
from tracejit.runtime import engine
from tracejit.runtime.executable import Executable
from tracejit.runtime.tuning import Tuned
from tracejit.schedule.schedule import Schedule

CANDIDATES: dict[str, tuple[int, ...]] = {
    "ahead_rows": (128, 384, 768),
    "ahead_columns": (256, 512, 1024),
    "depth": (1, 2, 3),
    "tile_panels": (9, 18, 27),
    "share_panels": (6, 9, 18),
    "direct_panels": (4, 16, 32),
    "tile_work": (1 << 19, 1 << 20, 1 << 22),
    "prefetch": (8, 16, 32),
}
# A value has to be so much faster, twice: less is noise.
LEAST_GAIN = 1.02
# A sample runs for at least so long.
_SAMPLE_NS = 100_000

Shape = tuple[int, int, int]


class Program(NamedTuple):
    """What is timed: a schedule, and arrays to run it on."""

    name: str
    schedule: Schedule
    arrays: Sequence[Array]


class Trial(NamedTuple):
    """One value of one number, how much faster it was, and whether it was taken."""

    knob: str
    value: int
    gain: float
    taken: bool


def product(shape: Shape, dtype: Any) -> Program:
    """Return the program of one product, shape m × n × k."""
    m, n, k = shape
    nodes = [placeholder(i, np.dtype(dtype), s) for i, s in enumerate(((m, k), (k, n)))]
    schedule = engine.plan_graph(Graph(nodes, [Emit().matmul(*nodes)]), [None] * 2)
    return on_examples(f"{m}x{n}x{k} {np.dtype(dtype)}", schedule)


def on_examples(name: str, schedule: Schedule) -> Program:
    """Return a program that runs ``schedule`` on numbers of its inputs' shapes."""
    rng = np.random.default_rng(0)
    inputs = sorted((b for b in schedule.buffers if b.kind == "input"), key=lambda b: b.number)
    arrays: list[Array] = []
    for buffer in inputs:
        if buffer.dtype.kind == "f":
            arrays.append(rng.standard_normal(buffer.shape).astype(buffer.dtype))
        else:  # positions too, which must be in range
            arrays.append(np.zeros(buffer.shape, buffer.dtype))
    return Program(name, schedule, arrays)


def search(programs: Sequence[Program], target: Target, seconds: float) -> Iterator[Trial | Tuned]:
    """Yield each trial, and at last what to keep; about ``seconds`` for each comparison."""
    best, gain = target.blocking, 1.0
    for knob, values in CANDIDATES.items():
        others = [v for v in values if v != getattr(best, knob)]
        tried = [best, *(best._replace(**{knob: v}) for v in others)]
        gains = _compare(programs, target, tried, seconds)[1:]
        top = max(range(len(gains)), key=gains.__getitem__)
        confirmed = gains[top]
        if confirmed >= LEAST_GAIN:
            again = _compare(programs, target, [best, tried[top + 1]], seconds)[1]
            confirmed = min(confirmed, again)
        taken = confirmed >= LEAST_GAIN
        for i, value in enumerate(others):
            yield Trial(knob, value, confirmed if i == top else gains[i], taken and i == top)
        if taken:
            best, gain = tried[top + 1], gain * confirmed
    yield Tuned(best, gain)


def _compare(
    programs: Sequence[Program], target: Target, tried: Sequence[Blocking], seconds: float
) -> list[float]:
    """Return how many times faster than with ``tried[0]`` the programs run with each."""
    each = seconds / len(programs)
    ratios: list[list[float]] = [[] for _ in tried]
    for program in programs:
        runs = [
            _runner(engine.compile_schedule(program.schedule, target.with_blocking(b)), program)
            for b in tried
        ]
        least = _least(runs, each)
        for own, value in zip(ratios, least, strict=True):
            own.append(least[0] / value)
    return [statistics.geometric_mean(own) for own in ratios]


def _runner(executable: Executable, program: Program) -> Callable[[int], int]:
    """Return a function that runs a program so many times and returns the nanoseconds of one."""

    def run(times: int) -> int:
        start = time.perf_counter_ns()
        for _ in range(times):
            executable.run(program.arrays)
        return (time.perf_counter_ns() - start) // times

    for _ in range(3):  # the native entry comes with the second run
        run(1)
    return run


def _least(runs: Sequence[Callable[[int], int]], seconds: float) -> list[int]:
    """Return the least time of each, of rounds in which all take turns."""
    times = [max(1, _SAMPLE_NS // max(1, run(1))) for run in runs]
    least = [1 << 62] * len(runs)
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        rounds += 1
        for i, (run, count) in enumerate(zip(runs, times, strict=True)):
            least[i] = min(least[i], max(1, run(count)))
    return least
