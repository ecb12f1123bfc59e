"""Schedules with NumPy steps, run in stretches.

The kernels between two NumPy steps are a *stretch*. Each has a native entry of its own, which takes
the arrays that are there so far, and the scratch memory, and returns the outputs that are new. What
does not depend on a call is laid out once, so that a NumPy step costs little more than NumPy does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

import numpy as np

from tracejit.codegen.forms import Base
from tracejit.ops.table import Array
from tracejit.runtime import entry, memory
from tracejit.runtime.interpreter import apply
from tracejit.runtime.plan import NativePlan, pool_cell, runs_long
from tracejit.runtime.slots import Slots
from tracejit.schedule.arena import aligned
from tracejit.schedule.index import contiguous_strides
from tracejit.schedule.schedule import OpaqueStep, Schedule, View

if TYPE_CHECKING:
    from tracejit.runtime.executable import NativeCall

# What a call has, by buffer; the scratch memory comes last.
Held = list[Any]
Read = Callable[[Held], Array]


class Unfit(Exception):
    """A stretch cannot run natively; the call runs again in another way."""


class Segment(Protocol):
    """Native calls in a row, and the address of their records."""

    calls: tuple[NativeCall, ...]
    address: int


class Stretches:
    """A schedule ready to run on arrays of one signature; safe from many threads."""

    def __init__(
        self,
        schedule: Schedule,
        stages: Sequence[OpaqueStep | Segment],
        make_block: Callable[[], Array] | None,
        owner: Any,
    ):
        buffers = schedule.buffers
        self._template: Held = [buffer.value for buffer in buffers] + [None]
        self._inputs = [(i, b.number) for i, b in enumerate(buffers) if b.kind == "input"]
        self._make_block = make_block
        self._stages: list[Callable[[Held], None]] = []
        returned = {view.buffer for view in schedule.outputs}
        made: set[int] = set()
        for stage in stages:
            if isinstance(stage, OpaqueStep):
                self._stages.append(_numpy_stage(schedule, stage, stage.buffer in returned))
            else:
                kernels = _Kernels(schedule, stage, made, owner)
                made.update(kernels.makes)
                self._stages.append(kernels)
        outputs = [i for i, b in enumerate(buffers) if b.kind == "output" and i not in made]
        self._made = [  # by no kernel: they are empty
            (i, memory.maker(b.shape, b.dtype, b.nbytes)) for i in outputs for b in [buffers[i]]
        ]
        taken: set[int] = set()
        self._collect = [_collector(schedule, view, taken) for view in schedule.outputs]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the outputs. Raises Unfit where that takes another way."""
        held = self._template.copy()
        for i, number in self._inputs:
            held[i] = arrays[number]
        for i, make in self._made:
            held[i] = make()
        if self._make_block is not None:
            held[-1] = self._make_block()
        with np.errstate(all="ignore"):
            for stage in self._stages:
                stage(held)
        return [collect(held) for collect in self._collect]


class _Kernels:
    """A stretch of kernels: what it reads, and which outputs it is the first to touch."""

    def __init__(self, schedule: Schedule, segment: Segment, made: set[int], owner: Any):
        buffers, scratch = schedule.buffers, len(schedule.buffers)
        touched = sorted({number for call in segment.calls for number, _ in call.pointers})
        kinds = {n: buffers[n].kind if n < scratch else "temp" for n in touched}
        self.makes = [n for n in touched if kinds[n] == "output" and n not in made]
        there = [n for n in touched if kinds[n] in ("input", "opaque", "output")]
        self._reads = [n for n in there if n not in self.makes]
        if "temp" in kinds.values():
            self._reads.append(scratch)
        self._owner = owner
        self._schedule = schedule
        self._segment = segment
        self._function: Callable[..., list[Array]] | None = None

    def __call__(self, held: Held) -> None:
        given = [held[i] for i in self._reads]
        function = self._function or self._enter(given)
        for i, array in zip(self.makes, function(*given), strict=True):
            held[i] = array

    def _enter(self, given: Sequence[Array]) -> Callable[..., list[Array]]:
        builder = entry.FormBuilder(self._plan(), Slots.of(given), entry.listed(len(self.makes)))
        words = builder.words()
        if words is None:
            raise Unfit
        native = entry.NativeEntry("stretch", _refuse)
        native.add_words(None, words, builder.kept)
        self._function = native.function
        return native.function

    def _plan(self) -> NativePlan:
        schedule, calls = self._schedule, self._segment.calls
        faults = next((b.value for b in schedule.buffers if b.kind == "faults"), None)
        return NativePlan(
            records=self._segment.address,
            calls=len(calls),
            pointers=[self._pointer(*pointer) for call in calls for pointer in call.pointers],
            pool_cell=pool_cell(calls),
            scratch=0,
            long=runs_long(calls),
            faults=0 if faults is None else faults.ctypes.data,
            outputs=[schedule.buffers[i] for i in self.makes],
            kept=[],
        )

    def _pointer(self, number: int, offset: int) -> tuple[int, int, int]:
        buffers = self._schedule.buffers
        if number == len(buffers):
            arena = aligned(self._schedule.arena.nbytes)
            return Base.ARGUMENT_0, self._reads.index(number), arena + offset
        buffer = buffers[number]
        if buffer.kind == "temp":
            return Base.ARGUMENT_0, self._reads.index(len(buffers)), buffer.offset + offset
        if number in self.makes:
            return Base.OUTPUT_0, self.makes.index(number), offset
        if number in self._reads:
            return Base.ARGUMENT_0, self._reads.index(number), offset
        return Base.FIXED, 0, cast(Array, buffer.value).ctypes.data + offset


def _refuse(*_: Any) -> NoReturn:
    raise Unfit


def _numpy_stage(schedule: Schedule, step: OpaqueStep, returned: bool) -> Callable[[Held], None]:
    """Return a function that computes the step; a result that is returned is nobody else's."""
    node, buffer = step.node, step.buffer
    readers = [reader(schedule, view) for view in step.operands]
    reference = node.op.reference

    def run(held: Held) -> None:
        result = apply(node, reference, [read(held) for read in readers])
        if not result.flags.c_contiguous or (returned and not result.flags.owndata):
            result = result.copy()
        held[buffer] = result

    return run


def reader(schedule: Schedule, view: View) -> Read:
    """Return a function that makes a NumPy array of a stored value."""
    number, (shape, dtype) = view.buffer, (view.shape, view.dtype)
    buffer = schedule.buffers[number]
    if 0 in shape:
        return lambda held: np.empty(shape, dtype)
    if buffer.value is not None:
        array = strided(buffer.value, view)
        return lambda held: array
    strides = tuple(s * dtype.itemsize for s in view.strides)
    if buffer.kind == "input":
        if view.offset:
            return lambda held: strided(held[number], view)

        def read(held: Held) -> Array:
            base: Array = held[number]
            whole = base.strides == strides and base.shape == shape
            return base if whole else strided(base, view)

        return read
    offset = view.offset * dtype.itemsize
    if buffer.kind == "temp":
        number, offset = len(schedule.buffers), offset + buffer.offset
    elif offset == 0 and shape == buffer.shape and view.strides == contiguous_strides(shape):
        return lambda held: held[number]
    return lambda held: np.ndarray(shape, dtype, held[number], offset, strides)


def _collector(schedule: Schedule, view: View, taken: set[int]) -> Read:
    """Return a function that makes an output of its own of ``view``; buffers serve once."""
    buffer, read = schedule.buffers[view.buffer], reader(schedule, view)
    whole = view.offset == 0 and view.strides == contiguous_strides(view.shape)
    if (
        not whole
        or prod(view.shape) != prod(buffer.shape)
        or buffer.kind not in ("output", "opaque")
        or view.buffer in taken
    ):
        return lambda held: read(held).copy()
    taken.add(view.buffer)
    number, shape = view.buffer, view.shape
    if shape == buffer.shape:
        return lambda held: held[number]
    return lambda held: held[number].reshape(shape)


def strided(base: Array, view: View) -> Array:
    """Return ``base``'s memory from element ``view.offset`` on, under the view's strides."""
    itemsize = view.dtype.itemsize
    strides = tuple(s * itemsize for s in view.strides)
    interface = {
        "shape": view.shape,
        "strides": strides,
        "typestr": base.dtype.str,
        "data": (base.ctypes.data + view.offset * itemsize, True),
        "version": 3,
    }
    # The interface has no name for bfloat16.
    return np.asarray(_Holder(interface, base)).view(base.dtype)


class _Holder:
    """Presents memory through the array interface and keeps its owner alive."""

    def __init__(self, interface: dict[str, Any], owner: Array):
        self.__array_interface__ = interface
        self.owner = owner
