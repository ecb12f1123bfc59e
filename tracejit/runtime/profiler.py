"""The profiler: where the time of jitted functions goes, and what would pay.

Nothing runs on a caller's path for it. Native entries count their calls and time a sample of them
themselves, programs count what the interpreter does for them, and a report reads both. In the
background ``runtime/analysis.py`` reads the counters, for rates and for what would pay.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tracejit.runtime import analysis, entry, events, inside, registry, ticks
from tracejit.runtime.costs import model
from tracejit.runtime.specialise import Stage

if TYPE_CHECKING:
    from tracejit.runtime.entry import NativeForm
    from tracejit.runtime.report import Candidate as Candidate
    from tracejit.runtime.report import FunctionProfile as FunctionProfile
    from tracejit.runtime.report import Regression as Regression
    from tracejit.runtime.report import Report as Report
    from tracejit.runtime.report import SignatureProfile as SignatureProfile
    from tracejit.runtime.tiers import Program

__all__ = [
    "Candidate",
    "Event",
    "FunctionProfile",
    "Regression",
    "Report",
    "SignatureProfile",
    "costs",
    "report",
    "subscribe",
]

Event = events.Event
subscribe = events.subscribe
# Runs in Python for which the time inside them is measured: the first ones, then one of so many.
_SAMPLED_RUNS = 16


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tracejit.runtime import report as reports  # for those who ask for one

    return getattr(reports, name)


class Ranges(Protocol):
    """A plan for ranges of sizes: the form of its function's entry, and what Python drove."""

    native: NativeForm | None
    driven_ns: int

    @property
    def calls(self) -> int: ...


def signature_profile(program: Program, arguments: str) -> SignatureProfile:
    """Return what is known of one program, with what its native forms have counted."""
    from tracejit.runtime.report import SignatureProfile

    analysis.update(program)
    executable, special = program.executable, program.specialisation
    counted = entry.total(()) if executable is None else executable.counters()
    driven = 0.0 if executable is None else executable.driven_ns * 1e-9
    interpreted = program.interpreted_ns * 1e-9
    saving = program.saving_ns() * 1e-9 if not program.tier else 0.0
    if program.tier == 1 and (special is None or special.stage is Stage.GENERIC):
        saving = analysis.expected_saving(program)
    reason = program.reason or (None if special is None else special.reason)
    return SignatureProfile(
        arguments=arguments,
        tier=program.tier,
        state=program.state.value,
        native_calls=0 if executable is None else executable.runs,
        interpreted_calls=program.interpreted_runs,
        seconds=interpreted + driven + _native_seconds(counted),
        compile_seconds=program.compile_seconds,
        interpreted_seconds=interpreted,
        least_seconds=_least_seconds(counted),
        rate=program.activity.rate,
        expected_saving=saving,
        specialised=None if special is None else special.stage.value,
        gain=None if special is None else special.gain,
        reason=None if reason is None else str(reason),
        failure=None if program.failure is None else str(program.failure),
    )


def ranged_profile(plans: Sequence[Ranges], arguments: str) -> SignatureProfile:
    """Return what is known of plans for ranges of sizes, which share kernels of tier 1."""
    from tracejit.runtime.report import SignatureProfile

    counted = entry.total([plan.native.counters() for plan in plans if plan.native is not None])
    return SignatureProfile(
        arguments=arguments,
        tier=1,
        state="compiled for many sizes",
        native_calls=sum(plan.calls for plan in plans),
        interpreted_calls=0,
        seconds=_native_seconds(counted) + sum(plan.driven_ns for plan in plans) * 1e-9,
        compile_seconds=0.0,
        least_seconds=_least_seconds(counted),
    )


def _native_seconds(counted: entry.Counters) -> float:
    """Return the time of all native calls."""
    return max(counted.ticks * ticks.seconds_per_tick(), 0.0) if counted.ticks else 0.0


def _least_seconds(counted: entry.Counters) -> float | None:
    return None if counted.least is None else counted.least * ticks.seconds_per_tick()


class PythonTime:
    """The time of a function's runs in Python, and how much of it jitted functions took inside.

    The latter is measured for some runs only, on the thread of the run.
    """

    __slots__ = ("_inside", "_sampled", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._sampled = 0.0
        self._inside = 0.0

    @property
    def exclusive(self) -> float:
        """The seconds without what jitted functions took inside."""
        share = self._inside / self._sampled if self._sampled else 0.0
        return self.seconds * (1.0 - share)

    def add(self, seconds: float, within: float | None) -> None:
        """Take one run; ``within`` is None where it was not measured."""
        seconds = max(seconds, 0.0)
        self.seconds += seconds
        if within is not None:
            self._sampled += seconds
            self._inside += min(max(within, 0.0), seconds)


class python_timer:  # noqa: N801 - a stop watch
    """Times one run in Python from now on. ``number`` says which of the function's runs it is."""

    __slots__ = ("_before", "_outermost", "_started")

    def __init__(self, number: int):
        sampled = number <= _SAMPLED_RUNS or number % _SAMPLED_RUNS == 0
        self._outermost = sampled and inside.watch()
        self._before = inside.spent()
        self._started = time.perf_counter()

    def stop(self, total: PythonTime) -> None:
        """Add the run to ``total``."""
        elapsed, before = time.perf_counter() - self._started, self._before
        now = None if before is None else inside.spent()
        total.add(elapsed, None if now is None or before is None else now - before)
        # To the one that called this function, all of it was inside.
        inside.took(elapsed, before)
        if self._outermost:
            inside.unwatch()


def report() -> Report:
    """Return what every jitted function that is alive has cost so far."""
    from tracejit.runtime.report import Report

    found = [function.profile() for function in registry.profiled()]
    return Report(sorted((f for f in found if f.calls), key=lambda f: -f.seconds))


def costs() -> dict[str, float]:
    """Return the cost model's present figures: seconds to plan a node, corrections, …"""
    return {
        "plan_seconds_per_node": model.plan_node_s,
        "compile_scale_of_loops": model.compile_scale["loop"],
        "compile_scale_of_products": model.compile_scale["product"],
        "kernels_per_node": model.kernels_per_node,
        "kernel_scale": model.kernel_scale,
        "loop_entry_seconds": model.entry_ns["loop"] * 1e-9,
        "product_tile_seconds": model.entry_ns["product"] * 1e-9,
    }
