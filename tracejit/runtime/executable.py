"""An executable: a schedule with its machine code, ready to run on arrays.

Everything that does not depend on a call is laid out once. A call runs by stages
(``runtime/stretches.py``), and from the second on, where all of it is kernels, by a native entry.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from tracejit.codegen.target import Target
from tracejit.ops.table import Array
from tracejit.runtime import entry, inside, monitor, perf, spans
from tracejit.runtime.calls import NativeCall, Segment
from tracejit.runtime.code import Code
from tracejit.runtime.interpreter import run_graph
from tracejit.runtime.plan import NativePlan, native_plan
from tracejit.runtime.slots import Slots
from tracejit.runtime.stretches import OutOfRange, Stretches, Unfit
from tracejit.schedule.buffers import OpaqueStep, Placement
from tracejit.schedule.titles import kernel_title

if TYPE_CHECKING:
    from tracejit.runtime.entry import Counters, NativeForm
    from tracejit.schedule.schedule import Schedule

Run = Callable[[Sequence[Array]], list[Array]]


def map_kernels(stages: Sequence[Sequence[NativeCall] | OpaqueStep]) -> None:
    """Give the code of native calls its lines in the map for perf, where that is wanted."""
    if perf.wanted():
        for call in (c for s in stages if not isinstance(s, OpaqueStep) for c in s):
            perf.note(call.code.loaded, f"tracejit {kernel_title(call.kernel)}")


class Executable:
    """A compiled graph. ``run(arrays)`` returns fresh arrays; safe from many threads.

    It runs ``placement``: a schedule, or the part of one that is kept on disk, and then ``planned``
    returns the schedule. ``fresh`` counts the kernels that had to be compiled for it, in
    ``fresh_seconds``; ``name`` is for people.
    """

    def __init__(
        self,
        placement: Placement,
        stages: Sequence[Sequence[NativeCall] | OpaqueStep],
        target: Target,
        *,
        planned: Callable[[], Schedule] | None = None,
        fresh: int = 0,
        fresh_seconds: float = 0.0,
    ):
        self.placement = placement
        self._planned = planned
        self.name = "a graph"
        self.target = target
        self.fresh = fresh
        self.fresh_seconds = fresh_seconds
        self._stages = [s if isinstance(s, OpaqueStep) else Segment(s) for s in stages]
        map_kernels(stages)
        self._stretches = Stretches(placement, self._stages)
        self._native: Callable[..., list[Array]] | None = None
        self._runs = 0
        self._entered = False
        # Native forms that run this, as long as their entries live; an item for each run by
        # ``_run`` that has not ended, and how many there were.
        self.forms: list[weakref.ref[NativeForm]] = []
        self._inside: list[None] = []
        self._begun = 0
        # The time of runs that Python drove: those with NumPy steps, and those of no native entry.
        self.driven_ns = 0
        self._special: tuple[Code, ...] = ()
        self._given_back: list[Code] = []

    @property
    def schedule(self) -> Schedule:
        """The schedule that it runs; planned again where its placement came from disk."""
        return cast("Schedule", self.placement) if self._planned is None else self._planned()

    @property
    def codes(self) -> list[Code]:
        """The machine code of each native call, in order."""
        return [c.code for s in self._stages if isinstance(s, Segment) for c in s.calls]

    @property
    def step_codes(self) -> list[Code]:
        """The machine code of each step that is not opaque, in order; it may be called twice."""
        calls = (c for s in self._stages if isinstance(s, Segment) for c in s.calls)
        return [call.code for call in calls if not call.again]

    @property
    def _steps(self) -> int:
        return len(self.step_codes) + sum(isinstance(s, OpaqueStep) for s in self._stages)

    @property
    def kernels(self) -> int:
        """The number of distinct compiled kernels."""
        return len({id(c) for c in self.codes})

    @property
    def compile_seconds(self) -> float:
        """What compiling these kernels cost, whenever that was."""
        return sum(c.seconds for c in {id(c): c for c in self.codes}.values())

    @property
    def calls(self) -> Sequence[NativeCall]:
        """The native calls, where one stretch of them is all there is to run; else none."""
        segment = self._stages[0] if len(self._stages) == 1 else None
        return segment.calls if isinstance(segment, Segment) else ()

    # -- specialised code --------------------------------------------------------------------------

    def use(self, codes: Sequence[Code]) -> None:
        """Run ``codes`` in place of the code compiled for any size; with none, that again.

        There is one for each of ``calls``, made for these very sizes. Calls that are running go on
        with what they have begun: it is kept until they have ended.
        """
        segment = self._stages[0]
        assert isinstance(segment, Segment)
        for place, code in enumerate(codes or self.codes):
            segment.code[place] = code.address
        before, self._special = self._special, tuple(codes)
        self._given_back += before
        self.release()

    @property
    def specialised(self) -> tuple[Code, ...]:
        """The specialised code that runs now, if any."""
        return self._special

    def release(self) -> bool:
        """Let go of replaced code if no call is running; return whether none is left."""
        if self._given_back:
            counted = self.counters()
            if counted.calls == counted.ended and not self._inside:
                self._given_back.clear()
        return not self._given_back

    def living_forms(self) -> list[NativeForm]:
        """Return the native forms that run this."""
        found = (reference() for reference in tuple(self.forms))
        return [form for form in found if form is not None]

    def counters(self) -> Counters:
        """Return what all native calls of this have counted together."""
        return entry.total([form.counters() for form in self.living_forms()])

    @property
    def runs(self) -> int:
        """How many runs of it have begun, by whatever way."""
        return self._begun + self.counters().calls

    # -- running -----------------------------------------------------------------------------------

    def native_plan(self) -> NativePlan | None:
        """Return how to run natively; None where that takes Python."""
        segment = self._stages[0] if len(self._stages) == 1 else None
        if not isinstance(segment, Segment):
            return None
        return native_plan(self.placement, segment.calls, segment.address)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the outputs for ``arrays``, of the dtypes, shapes and layouts compiled for."""
        recording = monitor.active
        if recording is None:
            # Where possible a C function does what ``_run`` does, in a tenth of its time.
            return (self._native or self._enter(arrays))(*arrays)
        started = time.perf_counter()
        results = self._run(arrays)
        recording.add(self, time.perf_counter() - started)
        spans.add(self.name, "run", started, steps=self._steps)
        return results

    def _enter(self, arrays: Sequence[Array]) -> Callable[..., list[Array]]:
        """Return a function of the arrays that runs this: native where that serves ``arrays``.

        The first run is ``_run`` itself: making entries costs as much as several of them. So are
        those before the entry's code is there, which is made in the background.
        """
        self._runs += 1
        if entry.coming():
            entry.approach()
        if self._runs < 2 or self._entered or entry.coming() or not entry.supported():
            return self._run_all
        self._entered = True
        self._native = self._entry_for(arrays)
        return self._native or self._run_all

    def _entry_for(self, arrays: Sequence[Array]) -> Callable[..., list[Array]] | None:
        # Weakly, so that code is freed with its executable and not by a search for cycles.
        this = weakref.proxy(self)
        if any(isinstance(stage, OpaqueStep) for stage in self._stages):
            return lambda *arrays: this._run_stretches(arrays)
        made = entry.NativeEntry("run", lambda *arrays: this._run(arrays))
        fits = made.add(this, Slots.of(arrays), entry.listed(len(self.placement.outputs)))
        return None if fits is None else made.function

    def _run_stretches(self, arrays: Sequence[Array]) -> list[Array]:
        try:
            return self._driven(self._stretches.run, arrays)
        except Unfit:
            return self._run(arrays)

    def _run_all(self, *arrays: Array) -> list[Array]:
        return self._run(arrays)

    def _run(self, arrays: Sequence[Array]) -> list[Array]:
        return self._driven(self._by_driver, arrays)

    def _driven(self, run: Run, arrays: Sequence[Array]) -> list[Array]:
        """Return ``run(arrays)``, counted and timed."""
        before, started = inside.spent(), time.perf_counter_ns()
        self._inside.append(None)
        try:
            results = run(arrays)
        finally:
            self._inside.pop()
        elapsed = max(0, time.perf_counter_ns() - started)
        self._begun += 1
        self.driven_ns += elapsed
        inside.took(elapsed * 1e-9, before)
        return results

    def _by_driver(self, arrays: Sequence[Array]) -> list[Array]:
        try:
            return self._stretches.drive(arrays)
        except OutOfRange:
            return self._interpret(arrays)

    def _interpret(self, arrays: Sequence[Array]) -> list[Array]:
        """Run again by NumPy, which raises the error of a position out of range.

        It does not where the position was another call's, which ran at the same time.
        """
        return [np.array(result) for result in run_graph(self.schedule.graph, arrays)]
