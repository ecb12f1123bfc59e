"""What counting and timing calls costs them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tracejit as tj
from tracejit.runtime import entry
from tracejit.runtime.slots import Slots

from .figures import Figure
from .section import Section

# A call of this takes about 10 µs on one thread.
TARGET_S = 10e-6
# Calls in a sample.
CALLS = 100


def waves(x: Any) -> Any:
    return np.sin(x) * np.cos(x) + np.exp(-x)


def polynomial(x: Any) -> Any:
    return ((x * 0.5 + 1.0) * x - 2.0) * x + 3.0


# Of kernels for one thread every eighth call is timed, of those that threads share each.
PROGRAMS = {"a kernel for one thread": waves, "a kernel that threads may share": polynomial}


def native(
    function: Callable[[Any], Any], elements: int
) -> tuple[entry.NativeEntry, np.ndarray[Any, Any]]:
    """Return a native entry of its own for ``function``, and an argument."""
    x = np.linspace(0, 1, elements, dtype=np.float32)
    executable = tj.trace(function, x).executable
    # What finds no thread pool yet comes this way.
    made = entry.NativeEntry(function.__name__, lambda x: executable.run([x]))
    assert made.add(executable, Slots.of([x]), entry.listed(1)) is not None
    return made, x


def seconds(call: Callable[[Any], Any], x: Any) -> float:
    """Return what a call takes, of ``CALLS`` in a row."""
    started = time.perf_counter()
    for _ in range(CALLS):
        call(x)
    return (time.perf_counter() - started) / CALLS


def pair(made: entry.NativeEntry, x: Any, first: bool) -> tuple[float, float]:
    """Return what a call takes without time stamps, and with; ``first`` says which comes first."""
    taken = [0.0, 0.0]
    for timed in (first, not first):
        made.timed = timed
        seconds(made.function, x)
        taken[timed] = seconds(made.function, x)
    return taken[0], taken[1]


def figure(name: str, function: Callable[[Any], Any], rounds: int) -> Figure:
    """Return how much longer calls take with time stamps, in percent."""
    elements = 4096
    for _ in range(6):  # towards a call of 10 µs
        made, x = native(function, elements)
        taken = min(seconds(made.function, x) for _ in range(20))
        elements = max(256, int(elements * TARGET_S / taken)) // 16 * 16
    made, x = native(function, elements)
    pairs = np.array([pair(made, x, number % 2 == 0) for number in range(rounds)])
    ratios = pairs[:, 1] / pairs[:, 0]
    drawn = np.random.default_rng(0).choice(ratios, (2000, rounds))
    low, high = 100 * (np.percentile(np.median(drawn, axis=1), [2.5, 97.5]) - 1)
    label = f"time stamps in a call of {1e6 * np.median(pairs[:, 0]):.1f} µs, {name}"
    return Figure(
        f"{label} ({low:+.2f} to {high:+.2f})", 100 * (float(np.median(ratios)) - 1), "%", 1.0
    )


def measure(rounds: int) -> Section:
    with tj.num_threads(1):
        figures = [figure(name, function, rounds) for name, function in PROGRAMS.items()]
    return Section(
        "Profiler",
        f"{CALLS} calls with time stamps and as many without, {rounds} pairs in turn: the median "
        "of the pairs' ratios less 1, and its 95 % interval. The two counters of a call, which "
        "are always on, are in both.",
        figures,
    )
