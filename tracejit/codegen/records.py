"""Whole records to and from memory: their fields are taken apart and put together in registers.

    r g b r g b r g b …   ⇄   r r r …, g g g …, b b b …

A gather would take an element at a time; the shuffles take a vector or two for each field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracejit.codegen.builder import I64, Builder, Type, Value, const
from tracejit.codegen.elementwise import splat_to
from tracejit.codegen.scope import Scope, Values, Vector
from tracejit.codegen.types import from_memory, memory_type, to_memory
from tracejit.schedule.kernel import NO_FIELD, Record

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter


def load_field(emitter: KernelEmitter, number: int, scope: Scope) -> Values | None:
    """Load access ``number`` with the other fields of its record; None where it is of none."""
    vector = scope.vector
    assert vector is not None
    for record in emitter.kernel.records:
        if number in record.fields and record.axis == vector.axis and _check(emitter, record):
            if number not in scope.fields:
                loaded = _load(emitter, record, scope)
                scope.fields.update(zip(record.fields, loaded, strict=True))
            return scope.fields[number]
    return None


def _check(emitter: KernelEmitter, record: Record) -> bool:
    """Whether what is not read of a record can be masked out: it may lie behind the array."""
    itemsize = emitter.kernel.accesses[record.fields[0]].dtype.itemsize
    target = emitter.b.target
    return NO_FIELD not in record.fields or target.masks or (target.fma and itemsize >= 4)


def _load(emitter: KernelEmitter, record: Record, scope: Scope) -> list[Values]:
    b, vector, count = emitter.b, scope.vector, len(record.fields)
    assert vector is not None
    dtype = emitter.kernel.accesses[record.fields[0]].dtype
    type = memory_type(dtype, count * vector.lanes)
    mask = _mask(b, vector, record)
    fields: list[Values] = [[] for _ in record.fields]
    for part in range(vector.unroll):
        address = _address(b, scope.pointers[record.fields[0]], part * type.lanes, type)
        whole = b.load(address, type) if mask is None else b.masked_load(address, mask, type)
        for place, (number, values) in enumerate(zip(record.fields, fields, strict=True)):
            if number != NO_FIELD:
                field = b.shuffle(whole, None, range(place, type.lanes, count))
                values.append(from_memory(b, field, dtype))
    return fields


def _mask(b: Builder, vector: Vector, record: Record) -> Value | None:
    """Return which elements are accessed; None where all are."""
    count = len(record.fields)
    if NO_FIELD not in record.fields:
        return None if vector.mask is None else _for_fields(b, vector.mask, count)
    bits = [number != NO_FIELD for number in record.fields] * vector.lanes
    type = Type("i1", len(bits))
    mask = Value(f"<{', '.join(f'i1 {int(bit)}' for bit in bits)}>", type)
    return mask if vector.mask is None else b.and_(mask, _for_fields(b, vector.mask, count))


def store_records(emitter: KernelEmitter, scope: Scope) -> set[int]:
    """Store the records that the kernel's block stores as a whole; return their accesses."""
    values = {s.access: s.value for s in emitter.kernel.stores}
    for record in emitter.kernel.stored_records:
        _store(emitter, record, [emitter.value(scope, values[f]) for f in record.fields], scope)
    return {f for record in emitter.kernel.stored_records for f in record.fields}


def _store(emitter: KernelEmitter, record: Record, fields: list[Values], scope: Scope) -> None:
    b, vector, count = emitter.b, scope.vector, len(record.fields)
    assert vector is not None
    dtype, mask = emitter.kernel.accesses[record.fields[0]].dtype, _mask(b, vector, record)
    lanes = vector.lanes
    places = [i % count * lanes + i // count for i in range(count * lanes)]
    for part in range(vector.unroll):
        parts = [values[part if len(values) > 1 else 0] for values in fields]
        parts = [to_memory(b, splat_to(b, value, lanes), dtype) for value in parts]
        whole = b.shuffle(b.join([*parts, parts[-1]] if count == 3 else parts), None, places)
        address = _address(b, scope.pointers[record.fields[0]], part * whole.type.lanes, whole.type)
        if mask is None:
            b.store(whole, address)
        else:
            b.masked_store(whole, address, mask)


def _for_fields(b: Builder, mask: Value, count: int) -> Value:
    """Return the mask of all fields of the records that ``mask`` has."""
    return b.shuffle(mask, None, [i // count for i in range(count * mask.type.lanes)])


def _address(b: Builder, pointer: Value, elements: int, type: Type) -> Value:
    return b.element(pointer, const(elements, I64), type) if elements else pointer
