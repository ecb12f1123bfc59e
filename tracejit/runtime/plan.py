"""What a native entry needs to know of a schedule and its calls, to run them without Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from tracejit.codegen.forms import Base
from tracejit.record import replace
from tracejit.runtime.threads import available, pool_cell_address
from tracejit.schedule.arena import aligned
from tracejit.schedule.buffers import Buffer, Placement, View
from tracejit.schedule.index import contiguous_strides

if TYPE_CHECKING:
    from tracejit.runtime.calls import NativeCall

# From this estimate on a run lets other Python threads work, and looks for signals.
LONG_NS = 100_000


class NativePlan(NamedTuple):
    """What a native entry needs to run an executable without Python.

    ``records`` is the address of the driver's records, or stands for it. ``pointers`` are (base,
    number of the input or output, offset), with bases as ``codegen.forms.Base`` has them;
    ``pool_cell`` is the address of the cell that holds the thread pool's address, 0 where no kernel
    is worth sharing; ``scratch`` is the size of the memory that a call needs beside its outputs;
    ``long`` says that other threads should run meanwhile; ``faults`` is the address of the counter
    of positions out of range, 0 where there is none; ``kept`` holds what a form's words point at.
    """

    records: Any
    calls: int
    pointers: list[tuple[int, int, int]]
    pool_cell: int
    scratch: int
    long: bool
    faults: int
    outputs: list[Buffer]
    kept: list[Any]


def scratch_bytes(schedule: Placement, calls: Sequence[NativeCall]) -> int:
    """Return the size of the memory of a call beside its outputs: the arena, then workspaces."""
    workspace = max((available() * c.workspace + c.shared for c in calls), default=0)
    return aligned(schedule.arena_bytes) + workspace


def pool_cell(calls: Sequence[NativeCall]) -> int:
    """Return the address of the thread pool's cell; 0 where no kernel is worth sharing."""
    return pool_cell_address() if any(c.end > c.grain for c in calls) else 0


def runs_long(calls: Sequence[NativeCall]) -> bool:
    """Whether other Python threads should run meanwhile."""
    return any(c.end > c.grain for c in calls) or sum(c.ns for c in calls) > LONG_NS


def native_plan(
    schedule: Placement, calls: Sequence[NativeCall], records: Any
) -> NativePlan | None:
    """Return how to run ``calls``, all that ``schedule`` does, natively.

    None where an output has no buffer of its own.
    """
    buffers = schedule.buffers
    places: dict[int, int] = {}
    for number, view in enumerate(schedule.outputs):
        buffer = buffers[view.buffer]
        if buffer.kind != "output" or view.buffer in places or not _whole(view, buffer):
            return None
        places[view.buffer] = number
    if len(places) != sum(buffer.kind == "output" for buffer in buffers):
        return None
    pointers = [_address(schedule, *pointer, places) for call in calls for pointer in call.pointers]
    outputs = [buffers[view.buffer] for view in schedule.outputs]
    faults = [b.value.ctypes.data for b in buffers if b.kind == "faults" and b.value is not None]
    return NativePlan(
        records,
        len(calls),
        pointers,
        pool_cell(calls),
        scratch_bytes(schedule, calls),
        runs_long(calls),
        faults[0] if faults else 0,
        [replace(b, shape=v.shape) for b, v in zip(outputs, schedule.outputs, strict=True)],
        [],
    )


def _address(
    schedule: Placement, number: int, offset: int, outputs: Mapping[int, int]
) -> tuple[int, int, int]:
    """Return where a pointer comes from; ``outputs`` are the numbers of the output buffers."""
    buffers = schedule.buffers
    if number == len(buffers):
        return Base.SCRATCH_BASE, 0, aligned(schedule.arena_bytes) + offset
    buffer = buffers[number]
    match buffer.kind:
        case "input":
            return Base.ARGUMENT_0, buffer.number, offset
        case "output":
            return Base.OUTPUT_0, outputs[number], offset
        case "temp":
            return Base.SCRATCH_BASE, 0, buffer.offset + offset
        case _:
            assert buffer.value is not None
            return Base.FIXED, 0, buffer.value.ctypes.data + offset


def _whole(view: View, buffer: Buffer) -> bool:
    """True where ``view`` is all of ``buffer``, in its order."""
    wanted = contiguous_strides(view.shape)
    in_order = all(
        n <= 1 or s == w for n, s, w in zip(view.shape, view.strides, wanted, strict=True)
    )
    same_size = prod(view.shape) == prod(buffer.shape) and view.dtype == buffer.dtype
    return view.offset == 0 and same_size and in_order
