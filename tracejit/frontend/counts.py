"""What a jitted function counts of itself, beside what its programs and native forms do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tracejit.frontend.compiled import Answer, Compiled
from tracejit.runtime import profiler
from tracejit.runtime.reasons import Reason
from tracejit.runtime.tiers import Program


class Counts:
    """Traces, fallbacks and why signatures did not fit; and what signatures had that are gone."""

    __slots__ = (
        "evicted",
        "fallbacks",
        "kernels",
        "python",
        "reasons",
        "recompiled",
        "seconds",
        "traces",
        "tracing",
    )

    def __init__(self) -> None:
        self.traces = 0
        self.tracing = 0.0
        self.fallbacks = 0
        # Calls that found no signature, and guard failures of signatures that are gone.
        self.reasons: Counter[Reason] = Counter()
        self.python = profiler.PythonTime()
        self.evicted = 0
        self.kernels = 0
        self.recompiled = 0
        self.seconds = 0.0

    def evict(self, compiled: Compiled) -> None:
        """Keep the counts of a signature that is dropped."""
        program = compiled.program
        self.kernels += program.kernels
        self.seconds += program.compile_seconds
        self.reasons += compiled.guard_failures
        if program.specialisation is not None:
            self.reasons[Reason.SIZES] += program.specialisation.guard_failures
        if self.evicted:  # the first signature's kernels are not recompiled ones
            self.recompiled += program.compiled_kernels > 0
        self.evicted += 1

    def recompiles(self, programs: Sequence[Program]) -> int:
        """Return how many signatures but the first needed kernels that had to be compiled."""
        first = 0 if self.evicted else 1
        return self.recompiled + sum(p.compiled_kernels > 0 for p in programs[first:])

    def guard_failures(self, kept: Sequence[Compiled], plans: Sequence[Answer]) -> dict[str, int]:
        """Return the calls that compiled code was not there for as they came, by reason."""
        found = Counter(self.reasons)
        for answer in (*kept, *plans):
            found.update(answer.guard_failures)
        for compiled in kept:
            found[Reason.SIZES] += compiled.program.guard_failures
        return {str(reason): count for reason, count in found.items() if count}
