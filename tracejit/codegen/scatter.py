"""Stores at computed positions: whole pieces of a row, lanes that lie apart, or lane by lane.

Lanes along an axis of the target store to places of their own, all at once. Lanes along an ordered
axis may share a place: values and positions are computed in vectors, and then each lane in turn
reads, combines and stores, as NumPy's ``ufunc.at`` and assignment do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tracejit.codegen.access import lane_offsets, load_from, store_values
from tracejit.codegen.builder import Value
from tracejit.codegen.elementwise import Loop, lower, splat_to
from tracejit.codegen.positions import beyond
from tracejit.codegen.scope import Scope, Values, Vector
from tracejit.codegen.types import from_memory, memory_type, to_memory
from tracejit.schedule.kernel import Store

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter


def scatter_values(emitter: KernelEmitter, store: Store, scope: Scope) -> None:
    """Write ``store``, which has places, for what ``scope`` computes."""
    access, vector = emitter.kernel.accesses[store.access], scope.vector
    offsets = beyond(emitter, scope, store.places, store.steps)
    values = emitter.value(scope, store.value)
    if vector is None:
        _element(emitter, store, scope, values[0], offsets[0])
    elif not access.strides[vector.axis]:
        _lane_by_lane(emitter, store, scope, vector, values, offsets)
    elif offsets[0].type.lanes == 1:
        _piece(emitter, store, scope, vector, values, offsets[0])
    else:
        _apart(emitter, store, scope, vector, values, offsets)


def _combined(emitter: KernelEmitter, store: Store, old: Value, new: Value) -> Value:
    if not store.op:
        return new
    dtype = emitter.kernel.accesses[store.access].dtype
    loop = Loop((dtype, dtype), dtype, {})
    return lower(emitter.b, store.op, (old, splat_to(emitter.b, new, old.type.lanes)), loop)


def _element(
    emitter: KernelEmitter, store: Store, scope: Scope, value: Value, offset: Value
) -> None:
    """Store one value ``offset`` elements beyond the pointer."""
    b, dtype = emitter.b, emitter.kernel.accesses[store.access].dtype
    type = memory_type(dtype)
    address = b.element(scope.pointers[store.access], offset, type)
    if store.op:
        value = _combined(emitter, store, from_memory(b, b.load(address, type), dtype), value)
    b.store(to_memory(b, value, dtype), address)


def _lane_by_lane(
    emitter: KernelEmitter,
    store: Store,
    scope: Scope,
    vector: Vector,
    values: Values,
    offsets: Values,
) -> None:
    b = emitter.b

    def lane(of: Values, part: int, number: int) -> Value:
        value = of[part if len(of) > 1 else 0]
        return value if value.type.lanes == 1 else b.extract(value, number)

    for part in range(vector.unroll):
        for number in range(vector.lanes):

            def write(part: int = part, number: int = number) -> Sequence[Value]:
                value, offset = lane(values, part, number), lane(offsets, part, number)
                _element(emitter, store, scope, value, offset)
                return ()

            if vector.mask is None:
                write()
            else:
                b.if_(b.extract(vector.mask, number), write)


def _piece(
    emitter: KernelEmitter,
    store: Store,
    scope: Scope,
    vector: Vector,
    values: Values,
    offset: Value,
) -> None:
    """Store a piece of one slice of the target."""
    b, access = emitter.b, emitter.kernel.accesses[store.access]
    address = b.element(scope.pointers[store.access], offset, memory_type(access.dtype))
    if store.op:
        old = load_from(emitter, address, store.access, vector)
        new = values if len(values) > 1 else values * len(old)
        values = [_combined(emitter, store, *pair) for pair in zip(old, new, strict=True)]
    inner = Scope(scope, {}, vector, pointers={**scope.pointers, store.access: address})
    store_values(emitter, store.access, values, inner)


def _apart(
    emitter: KernelEmitter,
    store: Store,
    scope: Scope,
    vector: Vector,
    values: Values,
    offsets: Values,
) -> None:
    """Store lanes to different slices of the target."""
    b, access = emitter.b, emitter.kernel.accesses[store.access]
    pointer = scope.pointers[store.access]
    for part, offset in enumerate(offsets):
        index = b.add(offset, lane_offsets(emitter, store.access, vector, part))
        value = splat_to(b, values[part if len(values) > 1 else 0], vector.lanes)
        if store.op:
            type = memory_type(access.dtype, vector.lanes)
            old = from_memory(b, b.gather(pointer, index, type, vector.mask), access.dtype)
            value = _combined(emitter, store, old, value)
        b.scatter(to_memory(b, value, access.dtype), pointer, index, vector.mask)
