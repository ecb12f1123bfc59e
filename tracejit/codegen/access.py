"""Loads and stores of a kernel: along contiguous memory, by lane where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracejit.codegen.builder import I64, Builder, Type, Value, const
from tracejit.codegen.elementwise import splat_to
from tracejit.codegen.prefetch import down_columns, straight_ahead
from tracejit.codegen.records import load_field
from tracejit.codegen.scope import Scope, Values, Vector
from tracejit.codegen.types import from_memory, memory_type, to_memory
from tracejit.schedule.kernel import SCRATCH, Access, Load

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter


def load_values(emitter: KernelEmitter, expr: Load, scope: Scope) -> Values:
    """Load what ``expr`` is in ``scope``: vectors, or one scalar for all lanes."""
    b, access = emitter.b, emitter.kernel.accesses[expr.access]
    pointer = scope.pointers[expr.access]
    if not scope.is_vector(expr.axes):
        return [from_memory(b, b.load(pointer, memory_type(access.dtype)), access.dtype)]
    assert scope.vector is not None
    down_columns(emitter, expr.access, scope)
    straight_ahead(emitter, expr.access, scope)
    field = load_field(emitter, expr.access, scope)
    return load_from(emitter, pointer, expr.access, scope.vector) if field is None else field


def load_from(emitter: KernelEmitter, pointer: Value, number: int, vector: Vector) -> Values:
    """Load the vectors of access ``number`` whose first element is at ``pointer``."""
    b, access = emitter.b, emitter.kernel.accesses[number]
    type = memory_type(access.dtype, vector.lanes)
    loaded: Values = []
    for part in range(vector.unroll):
        if access.strides[vector.axis] == 1:
            address = _advance(b, pointer, part * vector.lanes, type)
            value = (
                b.load(address, type)
                if vector.mask is None
                else b.masked_load(address, vector.mask, type)
            )
        else:
            value = b.gather(
                pointer, lane_offsets(emitter, number, vector, part), type, vector.mask
            )
        loaded.append(from_memory(b, value, access.dtype))
    return loaded


def _has_room(access: Access, vector: Vector) -> bool:
    """Whether a whole vector may be stored where a row of scratch ends.

    It is read back at once, and the processor forwards whole stores to loads only. Each value
    starts on a cache line, so where the row is all of it the line is its own.
    """
    row = all(not s for axis, s in enumerate(access.strides) if axis != vector.axis)
    return access.buffer == SCRATCH and row and vector.lanes * access.dtype.itemsize <= 64


def _advance(b: Builder, pointer: Value, elements: int, type: Type) -> Value:
    return b.element(pointer, const(elements, I64), type) if elements else pointer


def lane_offsets(emitter: KernelEmitter, access: int, vector: Vector, part: int) -> Value:
    """Return how far the lanes of a vector are from the first one, in elements."""
    b = emitter.b
    stride = b.splat(emitter.strides[access][vector.axis], vector.lanes)
    lane = b.lane_index(I64.vector(vector.lanes))
    if part:
        lane = b.add(lane, const(part * vector.lanes, lane.type))
    return b.mul(lane, stride)


def store_values(
    emitter: KernelEmitter, number: int, values: Values, scope: Scope, *, stream: bool = False
) -> None:
    """Store to access ``number``; ``stream`` past the caches, where the loop is aligned."""
    b, access = emitter.b, emitter.kernel.accesses[number]
    pointer, vector = scope.pointers[number], scope.vector
    if vector is None or not access.strides[vector.axis]:
        b.store(to_memory(b, values[0], access.dtype), pointer)
        return
    down_columns(emitter, number, scope)
    type = memory_type(access.dtype, vector.lanes)
    for part in range(vector.unroll):
        value = splat_to(b, values[part if len(values) > 1 else 0], vector.lanes)
        value = to_memory(b, value, access.dtype)
        if access.strides[vector.axis] != 1:
            b.scatter(value, pointer, lane_offsets(emitter, number, vector, part), vector.mask)
        elif stream and vector.aligned:
            place = _advance(b, pointer, part * vector.lanes, type)
            b.store(value, place, align=b.target.vector_bits // 8, stream=True)
        elif vector.mask is None or _has_room(access, vector):
            b.store(value, _advance(b, pointer, part * vector.lanes, type))
        else:
            b.masked_store(value, pointer, vector.mask)
