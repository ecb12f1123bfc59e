"""The processor's counter, which generated code stamps calls with: cheap, and in unknown units.

A tick is what ``codegen/driver.py``'s ``ticks`` counts: the time-stamp counter on x86-64, the
system counter on AArch64. Both run at a constant rate whatever the clock frequency, and 0 stands
still where a machine has neither. ``seconds_per_tick`` finds the rate against the system's clock.
"""

from __future__ import annotations

import ctypes
import time
from functools import lru_cache
from typing import NamedTuple

from tracejit.codegen.pool import TICKS
from tracejit.runtime.native import runtime_function

# The two clocks are read within about 0.1 µs of each other: over 10 ms that is 0.001 %.
_APART_NS = 10_000_000


class _Moment(NamedTuple):
    ns: int
    ticks: int


def now() -> int:
    """Return the counter."""
    return runtime_function(TICKS, ctypes.c_int64)()


def _moment() -> _Moment:
    """Return both clocks, read as close to each other as the best of three."""
    best = (1 << 62, _Moment(0, 0))
    for _ in range(3):
        before = time.perf_counter_ns()
        ticks = now()
        after = time.perf_counter_ns()
        best = min(best, (after - before, _Moment((before + after) // 2, ticks)))
    return best[1]


@lru_cache(maxsize=1)
def start() -> _Moment:
    """Remember a first reading of both clocks; the further back it lies the better."""
    return _moment()


def seconds_per_tick() -> float:
    """Return the length of a tick, 0.0 where there is no counter. May sleep up to 10 ms, once."""
    first = start()
    wait = first.ns + _APART_NS - time.perf_counter_ns()
    if wait > 0:
        time.sleep(wait / 1e9)
    last = _moment()
    return (last.ns - first.ns) / 1e9 / (last.ticks - first.ticks) if last.ticks else 0.0
