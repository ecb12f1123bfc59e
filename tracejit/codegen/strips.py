"""Strips: a parallel axis in lanes, with loops inside that walk down from line to line of memory.

Reductions down columns take the columns in strips, which the passes over a strip (mean, variance,
normalise) find in the second cache. Rows are fetched ahead (prefetch.py). What limits them is not
the passes that read: storing 4000 rows in strips takes 0.8 ms on one thread where a copy of whole
rows stores them in 0.5. Strips of 128 bytes take 1.6 times as long in all, since neighbouring lines
come in pairs; a strip that is copied to where it is contiguous 1.2 times, but 0.8 times where rows
are 4096 bytes apart and share few sets of the caches (measured in C, 4000×1000 and ×1024 f32). So
columns of many rows are reduced by blocks of these, and stored by rows (schedule/blocks.py).

A strip of lanes that is read often is first copied to where it is contiguous (schedule/pack.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tracejit.codegen.access import load_values, store_values
from tracejit.codegen.builder import I64, Value, const
from tracejit.codegen.scope import Scope, Values, Vector
from tracejit.codegen.steps import vector_steps
from tracejit.codegen.target import Target
from tracejit.codegen.turn import Turn
from tracejit.schedule.blocks import STRIP_BYTES
from tracejit.schedule.kernel import SCRATCH, Kernel, Load
from tracejit.schedule.pack import check_turn

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter


def strip_vectors(kernel: Kernel, target: Target, operations: int) -> int:
    """Return how many vectors wide a strip is whose body has so many operations."""
    most = 8 if operations <= 8 else 4
    return min(most, STRIP_BYTES * 8 // target.vector_bits) if kernel.down_columns else most


def strips(kernel: Kernel) -> set[int]:
    """Return the accesses to scratch that stay where they are from strip to strip."""
    copies = {target for _, target in kernel.copies}
    scratch = (n for n, access in enumerate(kernel.accesses) if access.buffer == SCRATCH)
    return {n for n in scratch if n not in copies}


def pack_strip(emitter: KernelEmitter, scope: Scope) -> None:
    """Copy the rows of a strip of lanes to where they lie side by side."""
    kernel = emitter.kernel
    streamed = {kernel.stores[number].access for number in kernel.streamed}
    results = [target for _, target in kernel.unpacks if target not in streamed]
    for source, target in emitter.kernel.packs:
        inner = _inner(emitter.kernel, source)
        if _turns(emitter.kernel, source, scope):
            Turn(emitter, source, target, inner[0], scope).pack(results)
            results = []
        else:
            _copy(emitter, source, target, inner, scope)


def unpack_strip(emitter: KernelEmitter, scope: Scope) -> None:
    """Copy the rows of a strip of lanes from where they lie side by side to the result."""
    kernel = emitter.kernel
    streamed = {kernel.stores[number].access for number in kernel.streamed}
    for source, target in kernel.unpacks:
        inner = _inner(kernel, target)
        if _turns(kernel, target, scope):
            turn = Turn(emitter, target, source, inner[0], scope)
            turn.unpack(stream=target in streamed)
        else:
            _copy(emitter, source, target, inner, scope)


def _turns(kernel: Kernel, rows: int, scope: Scope) -> bool:
    """Whether rows are turned in registers: not the last ones of all, which fill no square."""
    whole = scope.vector is not None and scope.vector.mask is None
    inner = _inner(kernel, rows)
    return whole and len(inner) == 1 and check_turn(kernel, kernel.accesses[rows], inner[0])


def _inner(kernel: Kernel, access: int) -> list[int]:
    """Return the axes of the inner loops that an access moves along."""
    return sorted(_moved(kernel, access) - set(kernel.parallel))


def copy_apart(emitter: KernelEmitter, scope: Scope) -> None:
    """Copy what all loops inside ``scope`` share to where it is contiguous (interleaved.py)."""
    for source, target in emitter.kernel.copies:
        strides = emitter.kernel.accesses[target].strides
        along = [axis for axis, stride in enumerate(strides) if stride]
        fixed = _moved(emitter.kernel, source) - set(along)
        if not fixed <= scope.bound or (scope.parent and fixed <= scope.parent.bound):
            continue
        along.sort(key=lambda axis: strides[axis] == 1)
        _copy(emitter, source, target, along, scope)


def _moved(kernel: Kernel, access: int) -> set[int]:
    return {axis for axis, stride in enumerate(kernel.accesses[access].strides) if stride}


def _copy(
    emitter: KernelEmitter, source: int, target: int, axes: Sequence[int], scope: Scope
) -> Values:
    """Write loops over ``axes`` around a load from one access and a store to the other.

    Without lanes in ``scope``, the last of the axes runs in them.
    """
    kernel, zero = emitter.kernel, const(0, I64)
    if not axes:
        load = Load(kernel.accesses[source].dtype, frozenset(_moved(kernel, source)), source)
        store_values(emitter, target, load_values(emitter, load, scope), scope)
        return []
    axis, *rest = axes
    stop = emitter.extents[axis]

    def step(vector: Vector | None, index: Value) -> Values:
        return _copy(emitter, source, target, rest, emitter.enter(scope, {axis: index}, vector))

    if scope.vector is None and not rest:
        one = [Vector(axis, emitter.lanes, 1)]
        return vector_steps(emitter, one, zero, stop, stop, [], lambda v, i, _: step(v, i))
    return emitter.b.loop(zero, stop, 1, [], lambda i, _: step(scope.vector, i))
