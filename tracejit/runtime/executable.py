"""An executable: a schedule with its machine code, ready to run on arrays.

Everything that does not depend on a call is laid out once: the records for the driver, the sizes,
and for each pointer its buffer and byte offset. A call then fills in the addresses of inputs,
outputs and arena, and makes one native call per stretch between opaque steps.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tracejit.codegen.driver import MOST_CHUNKS, RECORD
from tracejit.codegen.target import Target
from tracejit.ops.table import Array
from tracejit.runtime import entry, inside, memory, monitor, perf, spans
from tracejit.runtime.code import Code
from tracejit.runtime.interpreter import evaluate_node, run_graph
from tracejit.runtime.native import driver
from tracejit.runtime.plan import NativePlan, native_plan, scratch_bytes
from tracejit.runtime.slots import Slots
from tracejit.runtime.stretches import Stretches, Unfit, strided
from tracejit.runtime.threads import pool_address
from tracejit.schedule.arena import aligned
from tracejit.schedule.kernel import Kernel
from tracejit.schedule.schedule import OpaqueStep, Schedule, View
from tracejit.schedule.steps import kernel_title

if TYPE_CHECKING:
    from tracejit.runtime.entry import Counters, NativeForm

UNKNOWN_NS = 10**9
Run = Callable[[Sequence[Array]], list[Array]]

I64Array = np.ndarray[Any, np.dtype[np.int64]]


class NativeCall:
    """One record: code, pointers as (buffer, byte offset), sizes, trip count and grain.

    With ``workspace`` bytes of private memory for each thread, its address is pointer ``private``;
    ``shared`` bytes follow them, for all threads.
    ``ns`` is a rough time of the call on one thread; ``kernel`` is what the code was made from,
    with ``reader`` where that is a product and a kernel that reads it.
    """

    def __init__(
        self,
        code: Code,
        pointers: Sequence[tuple[int, int]],
        sizes: Sequence[int],
        end: int,
        grain: int,
        workspace: int = 0,
        ns: int = UNKNOWN_NS,
        private: int = -1,
        *,
        shared: int = 0,
        kernel: Kernel,
        reader: Kernel | None = None,
    ):
        self.code = code
        self.kernel = kernel
        self.reader = reader
        self.pointers = tuple(pointers)
        self.numbers = tuple(sizes)
        self.end = end
        self.grain = max(grain, -(-end // MOST_CHUNKS))
        self.workspace = aligned(workspace)
        self.ns = ns
        self.private = private if workspace else -1
        self.shared = shared

    @cached_property
    def sizes(self) -> I64Array:
        """The sizes as the driver wants them."""
        return np.array(self.numbers, np.int64)

    def record(self, first: int, sizes: Any) -> list[Any]:
        """Return the driver's record; the pointers start at ``first``, ``sizes`` is an address."""
        return [
            self.code.address, first, sizes, 0, self.end, self.grain, self.private, self.workspace,
            len(self.pointers), self.ns,
        ]  # fmt: skip


class _Segment:
    """Native calls between two opaque steps, laid out for the driver."""

    def __init__(self, calls: Sequence[NativeCall]):
        self.calls = tuple(calls)
        self.buffers: I64Array = np.array([p[0] for c in calls for p in c.pointers], np.int64)
        self.offsets: I64Array = np.array([p[1] for c in calls for p in c.pointers], np.int64)
        self.records: I64Array = np.zeros((len(calls), RECORD), np.int64)
        first = 0
        for row, call in zip(self.records, calls, strict=True):
            row[:] = call.record(first, call.sizes.ctypes.data)
            first += len(call.pointers)
        self.address = self.records.ctypes.data
        # The first word of each record.
        self.code: I64Array = self.records[:, 0]
        self.shareable = any(c.end > c.grain for c in calls)

    def run(self, run: Callable[..., int], bases: I64Array) -> None:
        pointers = bases[self.buffers]
        pointers += self.offsets
        pool = pool_address() if self.shareable else 0
        if spans.active is not None:
            self._run_timed(run, pointers, pool)
            return
        first, count = 0, len(self.calls)
        while first < count:  # the interpreter looks for signals here
            first = run(self.address, first, count, pointers.ctypes.data, pool, 1)

    def _run_timed(self, run: Callable[..., int], pointers: I64Array, pool: int) -> None:
        """Run one native call at a time, and note what each takes."""
        for number, call in enumerate(self.calls):
            started = time.perf_counter()
            run(self.address, number, number + 1, pointers.ctypes.data, pool, 0)
            kernel = call.kernel
            spans.add(kernel_title(kernel), "kernel", started, lines=list(kernel.lines))


class Executable:
    """A compiled graph. ``run(arrays)`` returns fresh arrays; safe from many threads.

    ``fresh`` counts the kernels that had to be compiled for it, in ``fresh_seconds``; ``name`` is
    for people.
    """

    def __init__(
        self,
        schedule: Schedule,
        stages: Sequence[Sequence[NativeCall] | OpaqueStep],
        target: Target,
        *,
        fresh: int = 0,
        fresh_seconds: float = 0.0,
    ):
        self.schedule = schedule
        self.name = "a graph"
        self.target = target
        self.fresh = fresh
        self.fresh_seconds = fresh_seconds
        self._driver = driver()
        self._stages = [s if isinstance(s, OpaqueStep) else _Segment(s) for s in stages]
        if perf.wanted():
            for call in (c for s in stages if not isinstance(s, OpaqueStep) for c in s):
                perf.note(call.code.loaded, f"tracejit {kernel_title(call.kernel)}")
        buffers = schedule.buffers
        self._static = [b.value for b in buffers if b.value is not None]
        self._template: I64Array = np.zeros(len(buffers) + 1, np.int64)
        self._temps = [
            (i, b.offset) for i, b in enumerate(buffers) if b.kind == "temp" and b.host is None
        ]
        self._inputs = [(i, b.number) for i, b in enumerate(buffers) if b.kind == "input"]
        self._made = [
            (i, memory.maker(b.shape, np.dtype(b.dtype.type), b.nbytes))
            for i, b in enumerate(buffers)
            if b.kind == "output"
        ]
        for i, buffer in enumerate(buffers):
            if buffer.value is not None:
                self._template[i] = buffer.value.ctypes.data
        counters = [b.value for b in buffers if b.kind == "faults"]
        # Counts positions that were out of range; kernels go on with position 0.
        self._faults = counters[0] if counters else None
        calls = [c for s in stages if not isinstance(s, OpaqueStep) for c in s]
        self._arena = aligned(schedule.arena.nbytes)
        self._scratch = scratch_bytes(schedule, calls)
        self._block = memory.block_maker(self._scratch) if self._scratch else None
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
    def codes(self) -> list[Code]:
        """The machine code of each native call, in order."""
        return [c.code for s in self._stages if isinstance(s, _Segment) for c in s.calls]

    @property
    def step_codes(self) -> list[Code]:
        """The machine code of each step that is not opaque, in order; it may be called twice."""
        calls = (c for s in self._stages if isinstance(s, _Segment) for c in s.calls)
        return [next(group).code for _, group in groupby(calls, key=lambda c: id(c.kernel))]

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
        return segment.calls if isinstance(segment, _Segment) else ()

    # -- specialised code --------------------------------------------------------------------------

    def use(self, codes: Sequence[Code]) -> None:
        """Run ``codes`` in place of the code compiled for any size; with none, that again.

        There is one for each of ``calls``, made for these very sizes. Calls that are running go on
        with what they have begun: it is kept until they have ended.
        """
        segment = self._stages[0]
        assert isinstance(segment, _Segment)
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
        if not isinstance(segment, _Segment):
            return None
        return native_plan(self.schedule, segment.calls, segment.address)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the outputs for ``arrays``, of the dtypes, shapes and layouts compiled for."""
        recording = monitor.active
        if recording is None:
            # Where possible a C function does what ``_run`` does, in a tenth of its time.
            return (self._native or self._enter(arrays))(*arrays)
        started = time.perf_counter()
        results = self._run(arrays)
        recording.add(self, time.perf_counter() - started)
        spans.add(self.name, "run", started, steps=len(self.schedule.steps))
        return results

    def _enter(self, arrays: Sequence[Array]) -> Callable[..., list[Array]]:
        """Return a function of the arrays that runs this: native where that serves ``arrays``.

        The first run is ``_run`` itself: making entries costs as much as several of them. So are
        those before the entry's code is there that somebody makes meanwhile.
        """
        self._runs += 1
        if self._runs < 2 or self._entered or entry.coming() or not entry.supported():
            return self._run_all
        self._entered = True
        self._native = self._entry_for(arrays)
        return self._native or self._run_all

    def _entry_for(self, arrays: Sequence[Array]) -> Callable[..., list[Array]] | None:
        # Weakly, so that code is freed with its executable and not by a search for cycles.
        this = weakref.proxy(self)
        if any(isinstance(stage, OpaqueStep) for stage in self._stages):
            stretches = Stretches(self.schedule, self._stages, self._block, this)
            return lambda *arrays: this._run_stretches(stretches, arrays)
        made = entry.NativeEntry("run", lambda *arrays: this._run(arrays))
        fits = made.add(this, Slots.of(arrays), entry.listed(len(self.schedule.outputs)))
        return None if fits is None else made.function

    def _run_stretches(self, stretches: Stretches, arrays: Sequence[Array]) -> list[Array]:
        try:
            return self._driven(stretches.run, arrays)
        except Unfit:
            return self._run(arrays)

    def _run_all(self, *arrays: Array) -> list[Array]:
        return self._run(arrays)

    def _run(self, arrays: Sequence[Array]) -> list[Array]:
        return self._driven(self._run_stages, arrays)

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

    def _run_stages(self, arrays: Sequence[Array]) -> list[Array]:
        bases = self._template.copy()
        held: dict[int, Array] = {}
        for i, number in self._inputs:
            array = held[i] = arrays[number]
            bases[i] = array.ctypes.data
        for i, make in self._made:
            array = held[i] = make()
            bases[i] = array.ctypes.data
        block = self._block() if self._block is not None else None
        if block is not None:
            start = block.ctypes.data
            bases[-1] = start + self._arena
            for i, offset in self._temps:
                bases[i] = start + offset
        faults = 0 if self._faults is None else int(self._faults)
        for stage in self._stages:
            if not isinstance(stage, _Segment):
                self._run_opaque(stage, bases, held, block)
                continue
            stage.run(self._driver, bases)
            if self._faults is not None and int(self._faults) != faults:
                return self._interpret(arrays)
        return self._collect(held, block)

    def _interpret(self, arrays: Sequence[Array]) -> list[Array]:
        """Run again by NumPy, which raises the error of a position out of range.

        It does not where the position was another call's, which ran at the same time.
        """
        return [np.array(result) for result in run_graph(self.schedule.graph, arrays)]

    def _run_opaque(
        self, step: OpaqueStep, bases: I64Array, held: dict[int, Array], block: Array | None
    ) -> None:
        started = time.perf_counter() if spans.active is not None else 0.0
        operands = [self._array(view, held, block) for view in step.operands]
        result = np.ascontiguousarray(evaluate_node(step.node, operands))
        if not result.flags.owndata:  # a view of an operand, which may be returned
            result = result.copy()
        if started:
            spans.add_op(step.node, started)
        result = result.reshape(step.node.shape)
        held[step.buffer] = result
        bases[step.buffer] = result.ctypes.data

    def _array(self, view: View, held: dict[int, Array], block: Array | None) -> Array:
        """Return a NumPy view of a stored value."""
        if 0 in view.shape:
            return np.empty(view.shape, view.dtype)
        buffer = self.schedule.buffers[view.buffer]
        if buffer.value is not None:
            base = buffer.value
        elif view.buffer in held:
            base = held[view.buffer]
        else:
            raw = cast(Array, block)[buffer.offset : buffer.offset + buffer.nbytes]
            base = raw.view(buffer.dtype).reshape(buffer.shape)
        return strided(base, view)

    def _collect(self, held: dict[int, Array], block: Array | None) -> list[Array]:
        """Return the outputs as arrays of their own."""
        results: list[Array] = []
        taken: set[int] = set()
        for view in self.schedule.outputs:
            kind = self.schedule.buffers[view.buffer].kind
            array = self._array(view, held, block)
            fresh = kind in ("output", "opaque") and view.buffer not in taken
            if fresh:
                base = held[view.buffer]
                whole = array.flags.c_contiguous and array.size == base.size
                array = base.reshape(view.shape) if whole else array.copy()
            else:
                array = array.copy()
            taken.add(view.buffer)
            results.append(array)
        return results
