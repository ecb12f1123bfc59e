"""Schedules run in stages: NumPy steps, and the *stretches* of kernels between them.

A stretch runs by the driver, its pointers filled in by Python: the first time, where a profile
times each kernel, and where native entries do not serve. After that it has a native entry of its
own, which takes the arrays that are there so far, and the scratch memory, and returns the outputs
that are new. What does not depend on a call is laid out once, so that a NumPy step costs little
more than NumPy does.

A schedule with symbolic sizes runs the same way: what varies of its shapes, places and attributes
is a formula of the numbers of a call, and its stretches have forms with a program.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

import numpy as np

from tracejit.codegen.forms import Base
from tracejit.ops.table import Array
from tracejit.runtime import entry, memory, spans
from tracejit.runtime.calls import I64Array, NativeCall, Segment
from tracejit.runtime.interpreter import apply
from tracejit.runtime.native import driver
from tracejit.runtime.plan import NativePlan, pool_cell, runs_long, scratch_bytes
from tracejit.runtime.slots import Slots
from tracejit.runtime.threads import pool_address
from tracejit.schedule.arena import aligned
from tracejit.schedule.buffers import Buffer, OpaqueStep, Placement, View
from tracejit.schedule.index import contiguous_strides
from tracejit.sizes import Family

if TYPE_CHECKING:
    from tracejit.runtime.numbers import Formula, Geometry, Numbers, Values

# What a call has, by buffer; then the scratch memory, and the numbers of symbolic sizes.
Held = list[Any]
Read = Callable[[Held], Array]
Make = Callable[[Held], Array]
Run = Callable[[Held], None]


class Unfit(Exception):
    """A stretch cannot run natively; the call runs again in another way."""


class OutOfRange(Exception):
    """A position was out of range: what has been computed is of no use."""


class Symbols(NamedTuple):
    """What is symbolic of a schedule: the sizes of its inputs, by number, and what follows."""

    family: Family
    numbers: Numbers
    arrays: Mapping[int, Geometry]


class Stretches:
    """A schedule ready to run on arrays of one signature; safe from many threads.

    With ``symbols`` for a range of sizes, and natively only; it has to be made while their family
    is open.
    """

    def __init__(
        self,
        schedule: Placement,
        stages: Sequence[OpaqueStep | Segment] | Sequence[OpaqueStep | Sequence[NativeCall]],
        symbols: Symbols | None = None,
    ):
        buffers, layout = schedule.buffers, _Layout(schedule, symbols)
        self._template: Held = [buffer.value for buffer in buffers] + [None, ()]
        self._inputs = [(i, b.number) for i, b in enumerate(buffers) if b.kind == "input"]
        self._stages: list[tuple[Run, Run]] = []  # natively, and by the driver
        returned = {view.buffer for view in schedule.outputs}
        made: set[int] = set()
        calls: list[NativeCall] = []
        for stage in stages:
            if isinstance(stage, OpaqueStep):
                step = _numpy_stage(layout, stage, stage.buffer in returned)
                self._stages.append((step, step))
                continue
            if isinstance(stage, Segment):
                kernels: _Kernels = _Fixed(layout, stage, made)
            else:
                kernels = _Varying(layout, stage, made)
            calls += kernels.calls
            made.update(kernels.makes)
            self._stages.append((kernels, kernels.drive))
        nbytes = scratch_bytes(schedule, calls)
        self._block = None if type(nbytes) is int and not nbytes else layout.block(nbytes)
        outputs = [i for i, b in enumerate(buffers) if b.kind == "output" and i not in made]
        self._made = [(i, layout.maker(buffers[i])) for i in outputs]  # by no kernel: empty
        taken: set[int] = set()
        self._collect = [_collector(layout, view, taken) for view in schedule.outputs]

    def run(self, arrays: Sequence[Array], values: Values = ()) -> list[Array]:
        """Return the outputs; ``values`` are those of the numbers. Raises Unfit, see there."""
        return self._run(arrays, values, 0)

    def drive(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the outputs, without native entries. Raises OutOfRange."""
        return self._run(arrays, (), 1)

    def _run(self, arrays: Sequence[Array], values: Values, way: int) -> list[Array]:
        held = self._template.copy()
        held[-1] = values
        for i, number in self._inputs:
            held[i] = arrays[number]
        for i, make in self._made:
            held[i] = make(held)
        if self._block is not None:
            held[-2] = self._block(held)
        with np.errstate(all="ignore"):
            for stage in self._stages:
                stage[way](held)
        return [collect(held) for collect in self._collect]


class _Layout:
    """Where the values of a schedule are, for any call: plain numbers, or formulas of symbols."""

    def __init__(self, schedule: Placement, symbols: Symbols | None):
        self.schedule = schedule
        self.buffers = schedule.buffers
        self.symbols = symbols
        self.scratch = len(schedule.buffers)
        self.arena = aligned(schedule.arena_bytes)

    def formula(self, value: Any) -> Formula | None:
        """Return how ``value`` follows from the numbers of a call; None where nothing varies."""
        return None if self.symbols is None else self.symbols.numbers.formula(value)

    def maker(self, buffer: Buffer) -> Make:
        """Return a function that makes an output."""
        dtype = np.dtype(buffer.dtype.type)
        varying = self.formula((buffer.shape, buffer.nbytes))
        if varying is None:
            make = memory.maker(buffer.shape, dtype, buffer.nbytes)
            return lambda held: make()

        def made(held: Held) -> Array:
            shape, nbytes = varying(held[-1])
            return memory.empty(shape, dtype, nbytes)

        return made

    def block(self, nbytes: int) -> Make:
        """Return a function that makes scratch memory."""
        varying = self.formula(nbytes)
        if varying is None:
            make = memory.block_maker(nbytes)
            return lambda held: make()
        return lambda held: memory.block_maker(varying(held[-1]))()


class _Kernels:
    """A stretch of kernels: what it reads, and which outputs it is the first to touch."""

    def __init__(self, layout: _Layout, calls: Sequence[NativeCall], made: set[int]):
        self.calls = calls
        self._layout = layout
        buffers, scratch = layout.buffers, layout.scratch
        self._touched = sorted({number for call in calls for number, _ in call.pointers})
        kinds = {n: buffers[n].kind if n < scratch else "temp" for n in self._touched}
        self.makes = [n for n in self._touched if kinds[n] == "output" and n not in made]
        there = [n for n in self._touched if kinds[n] in ("input", "opaque", "output")]
        self._reads = [n for n in there if n not in self.makes]
        if "temp" in kinds.values():
            self._reads.append(scratch)
        self._function: Callable[..., list[Array]] | None = None

    def __call__(self, held: Held) -> None:
        """Run natively. Raises Unfit."""
        given = [held[i] for i in self._reads]
        function = self._function or self._enter(given)
        for i, array in zip(self.makes, function(*given), strict=True):
            held[i] = array

    def drive(self, held: Held) -> None:
        """Run by the driver. Raises OutOfRange."""
        raise Unfit

    def _enter(self, given: Sequence[Array]) -> Callable[..., list[Array]]:
        raise NotImplementedError

    def _plan(self, records: Any) -> NativePlan:
        buffers, calls = self._layout.buffers, self.calls
        faults = next((b.value for b in buffers if b.kind == "faults"), None)
        return NativePlan(
            records=records,
            calls=len(calls),
            pointers=[self._pointer(*pointer) for call in calls for pointer in call.pointers],
            pool_cell=pool_cell(calls),
            scratch=0,
            long=runs_long(calls),
            faults=0 if faults is None else faults.ctypes.data,
            outputs=[buffers[i] for i in self.makes],
            kept=[],
        )

    def _pointer(self, number: int, offset: int) -> tuple[int, int, int]:
        scratch = self._layout.scratch
        if number == scratch:
            return Base.ARGUMENT_0, self._reads.index(scratch), self._layout.arena + offset
        buffer = self._layout.buffers[number]
        if buffer.kind == "temp":
            return Base.ARGUMENT_0, self._reads.index(scratch), buffer.offset + offset
        if number in self.makes:
            return Base.OUTPUT_0, self.makes.index(number), offset
        if number in self._reads:
            return Base.ARGUMENT_0, self._reads.index(number), offset
        return Base.FIXED, 0, cast(Array, buffer.value).ctypes.data + offset


class _Fixed(_Kernels):
    """A stretch of plain sizes."""

    def __init__(self, layout: _Layout, segment: Segment, made: set[int]):
        super().__init__(layout, segment.calls, made)
        self._segment = segment
        self._run = driver()
        self._make = [(i, layout.maker(layout.buffers[i])) for i in self.makes]
        counters = [b.value for b in layout.buffers if b.kind == "faults"]
        # Counts positions that were out of range; kernels go on with position 0.
        self._faults = counters[0] if counters else None

    def drive(self, held: Held) -> None:
        for i, make in self._make:
            held[i] = make(held)
        buffers, scratch = self._layout.buffers, self._layout.scratch
        bases = np.zeros(scratch + 1, np.int64)
        start = 0 if held[scratch] is None else held[scratch].ctypes.data
        for i in self._touched:
            if i == scratch:
                bases[i] = start + self._layout.arena
            elif buffers[i].kind == "temp":
                bases[i] = start + buffers[i].offset
            else:
                bases[i] = held[i].ctypes.data
        before = 0 if self._faults is None else int(self._faults)
        self._segment.run(self._run, bases)
        if self._faults is not None and int(self._faults) != before:
            raise OutOfRange

    def _enter(self, given: Sequence[Array]) -> Callable[..., list[Array]]:
        plan, result = self._plan(self._segment.address), entry.listed(len(self.makes))
        builder = entry.FormBuilder(plan, Slots.of(given), result)
        words = builder.words()
        if words is None:
            raise Unfit
        self._function = _entered(words, builder.kept)
        return self._function


class _Varying(_Kernels):
    """A stretch of symbolic sizes, which its entry reads off the inputs of the schedule."""

    def __init__(self, layout: _Layout, calls: Sequence[NativeCall], made: set[int]):
        from tracejit.runtime.dynamic import dynamic_form

        super().__init__(layout, calls, made)
        symbols = layout.symbols
        assert symbols is not None
        inputs = {b.number: i for i, b in enumerate(layout.buffers) if b.kind == "input"}
        carry = [inputs[n] for n in symbols.arrays if n in inputs]
        self._reads += [i for i in carry if i not in self._reads]
        arrays = {slot: self._geometry(number) for slot, number in enumerate(self._reads)}
        examples = [self._example(number) for number in self._reads]
        self._shareable = bool(pool_cell(calls))
        form = dynamic_form(
            symbols.family, calls, self._plan, Slots.of(examples), arrays,
            entry.listed(len(self.makes)), guarded=False,
        )  # fmt: skip
        if form is None:
            raise Unfit
        self._form = form

    def _geometry(self, number: int) -> Geometry:
        from tracejit.runtime.numbers import Geometry

        if number == self._layout.scratch:
            return Geometry((scratch_bytes(self._layout.schedule, self.calls),), None)
        buffer = self._layout.buffers[number]
        given = cast(Symbols, self._layout.symbols).arrays
        if buffer.kind == "input" and buffer.number in given:
            return given[buffer.number]
        return Geometry(buffer.shape, None)

    def _example(self, number: int) -> Array:
        """Return an array of the dtype and rank of one that the stretch reads."""
        if number == self._layout.scratch:
            return np.empty(1, np.uint8)
        buffer = self._layout.buffers[number]
        return np.empty((1,) * len(buffer.shape), buffer.dtype)

    def __call__(self, held: Held) -> None:
        if self._shareable:
            pool_address()  # starts the pool, where that is to be done
        super().__call__(held)

    def _enter(self, given: Sequence[Array]) -> Callable[..., list[Array]]:
        self._function = _entered(self._form.words, self._form.kept, stressed=False)
        return self._function


def _entered(
    words: I64Array, kept: Sequence[Any], *, stressed: bool = True
) -> Callable[..., list[Array]]:
    """Return the native function of one form, which raises Unfit where that does not fit."""
    native = entry.NativeEntry("stretch", _refuse)
    if not stressed:  # a symbolic stretch has no other way to run
        native.deoptimise_every(0)
    native.add_words(None, words, kept)
    return native.function


def _refuse(*_: Any) -> NoReturn:
    raise Unfit


def _numpy_stage(layout: _Layout, step: OpaqueStep, returned: bool) -> Run:
    """Return a function that computes the step; a result that is returned is nobody else's."""
    node, buffer = step.node, step.buffer
    readers = [reader(layout, view) for view in step.operands]
    reference = node.op.reference
    varying = layout.formula((dict(node.attrs), node.shape))

    def run(held: Held) -> None:
        started = time.perf_counter() if spans.active is not None else 0.0
        attrs, shape = (node.attrs, node.shape) if varying is None else varying(held[-1])
        result = apply(node, reference, [read(held) for read in readers], attrs, shape)
        if not result.flags.c_contiguous or (returned and not result.flags.owndata):
            result = result.copy()
        held[buffer] = result
        if started:
            spans.add_op(node, started)

    return run


def reader(layout: _Layout, view: View) -> Read:
    """Return a function that makes a NumPy array of a stored value."""
    number, (shape, dtype) = view.buffer, (view.shape, view.dtype)
    buffer = layout.buffers[number]
    strides = tuple(s * dtype.itemsize for s in view.strides)
    offset = view.offset * dtype.itemsize
    if buffer.kind == "temp":
        number, offset = layout.scratch, offset + buffer.offset
    varying = layout.formula((shape, strides, offset))
    if varying is not None:
        return lambda held: _placed(held[number], dtype, *varying(held[-1]))
    if 0 in shape:
        return lambda held: np.empty(shape, dtype)
    if buffer.value is not None:
        array = _placed(buffer.value, dtype, shape, strides, offset)
        return lambda held: array
    if buffer.kind == "input":
        return lambda held: _placed(held[number], dtype, shape, strides, offset)
    whole = offset == 0 and shape == buffer.shape and view.strides == contiguous_strides(shape)
    if whole and buffer.kind != "temp" and dtype == buffer.dtype:
        return lambda held: held[number]
    return lambda held: _at(held[number], dtype, shape, strides, offset)


def _placed(
    base: Array, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> Array:
    """Return the array of ``shape`` that starts ``offset`` bytes into ``base``."""
    if 0 in shape:
        return np.empty(shape, dtype)
    if base.strides == strides and base.shape == shape and base.dtype == dtype:
        return base
    return _at(base, dtype, shape, strides, offset)


def _at(
    base: Array, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> Array:
    if base.dtype == np.uint8:
        return np.ndarray(shape, dtype, base, offset, strides)
    interface = {
        "shape": shape,
        "strides": strides,
        "typestr": dtype.str,
        "data": (base.ctypes.data + offset, True),
        "version": 3,
    }
    # The interface has no name for bfloat16.
    return np.asarray(_Holder(interface, base)).view(dtype)


class _Holder:
    """Presents memory through the array interface and keeps its owner alive."""

    def __init__(self, interface: dict[str, Any], owner: Array):
        self.__array_interface__ = interface
        self.owner = owner


def _collector(layout: _Layout, view: View, taken: set[int]) -> Read:
    """Return a function that makes an output of its own of ``view``; buffers serve once."""
    buffer, read = layout.buffers[view.buffer], reader(layout, view)
    whole = view.offset == 0 and view.strides == contiguous_strides(view.shape)
    if (
        not whole
        or prod(view.shape) != prod(buffer.shape)
        or view.dtype != buffer.dtype
        or buffer.kind not in ("output", "opaque")
        or view.buffer in taken
    ):
        return lambda held: read(held).copy()
    taken.add(view.buffer)
    number, shape = view.buffer, view.shape
    if shape == buffer.shape:
        return lambda held: held[number]
    varying = layout.formula(shape)
    if varying is not None:
        return lambda held: held[number].reshape(varying(held[-1]))
    return lambda held: held[number].reshape(shape)
