"""Computed positions: an index array's elements, checked, and the loads that they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tracejit.codegen.access import lane_offsets, load_from
from tracejit.codegen.builder import I64, Value, const
from tracejit.codegen.elementwise import splat_to
from tracejit.codegen.scope import Scope, Values
from tracejit.codegen.types import from_memory, memory_type
from tracejit.schedule.kernel import Bound, Gather, Kernel, Natural, operands

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter


def position_exprs(kernel: Kernel) -> set[int]:
    """Return the expressions that only serve to find positions: they do not choose the lanes."""
    found = set(range(len(kernel.exprs))) - {s.value for s in kernel.stores}
    for number in reversed(range(len(kernel.exprs))):
        expr = kernel.exprs[number]
        if number not in found and not isinstance(expr, Bound | Gather):
            found -= set(operands(expr))
        elif isinstance(expr, Gather):
            found.discard(number)
    return found


def bound(emitter: KernelEmitter, expr: Bound, scope: Scope) -> Values:
    """Return positions in range; those that are not become 0, and one is added to the faults."""
    b = emitter.b
    (extent,) = emitter.value(scope, expr.extent)
    moved: Values = []
    fits: Values = []
    for value in emitter.value(scope, expr.arg):
        zero, size = const(0, value.type), splat_to(b, extent, value.type.lanes)
        moved.append(b.add(value, b.select(b.compare("lt", value, zero), size, zero)))
        fits.append(b.and_(b.compare("ge", moved[-1], zero), b.compare("lt", moved[-1], size)))
    return _zero_unless(emitter, scope, moved, fits, expr.faults)


def natural(emitter: KernelEmitter, expr: Natural, scope: Scope) -> Values:
    """Return numbers that are not negative; for others 0, and one is added to the faults."""
    values = emitter.value(scope, expr.arg)
    fits = [emitter.b.compare("ge", v, const(0, v.type)) for v in values]
    return _zero_unless(emitter, scope, values, fits, expr.faults)


def _zero_unless(
    emitter: KernelEmitter, scope: Scope, values: Values, fits: Values, faults: int
) -> Values:
    """Return ``values`` where they fit, else 0; count in access ``faults`` whether any does not."""
    b, vector = emitter.b, scope.vector
    wrong = b.not_(fits[0])
    for other in fits[1:]:
        wrong = b.or_(wrong, b.not_(other))
    if wrong.type.lanes > 1 and vector is not None and vector.mask is not None:
        wrong = b.and_(wrong, vector.mask)

    def count() -> Sequence[Value]:
        b.emit(I64, f"atomicrmw add ptr {scope.pointers[faults].text}, i64 1 monotonic")
        return ()

    b.if_(b.any(wrong), count)
    return [b.select(f, v, const(0, v.type)) for f, v in zip(fits, values, strict=True)]


def beyond(
    emitter: KernelEmitter, scope: Scope, places: Sequence[int], steps: Sequence[int]
) -> Values:
    """Return Σ place·step in elements: vectors side by side, or one number for all lanes."""
    b = emitter.b
    found = [emitter.value(scope, p) for p in places]
    factors = [emitter.value(scope, s)[0] for s in steps]
    result: Values = []
    for part in range(max(len(p) for p in found)):
        mine = [p[part if len(p) > 1 else 0] for p in found]
        lanes = max(p.type.lanes for p in mine)
        total = const(0, I64.vector(lanes) if lanes > 1 else I64)
        for place, step in zip(mine, factors, strict=True):
            moved = place if step.text == "1" else b.mul(place, splat_to(b, step, place.type.lanes))
            total = b.add(total, splat_to(b, moved, lanes))
        result.append(total)
    return result


def gather(emitter: KernelEmitter, expr: Gather, scope: Scope) -> Values:
    """Load at computed positions: along contiguous memory, where lanes share them, else by lane."""
    b, vector = emitter.b, scope.vector
    access = emitter.kernel.accesses[expr.access]
    pointer = scope.pointers[expr.access]
    offsets = beyond(emitter, scope, expr.places, expr.steps)
    if vector is None or vector.axis not in expr.axes:
        address = b.element(pointer, offsets[0], memory_type(access.dtype))
        return [from_memory(b, b.load(address, memory_type(access.dtype)), access.dtype)]
    if offsets[0].type.lanes == 1:
        address = b.element(pointer, offsets[0], memory_type(access.dtype))
        return load_from(emitter, address, expr.access, vector)
    type = memory_type(access.dtype, vector.lanes)
    result: Values = []
    for part in range(vector.unroll):
        index = offsets[part]
        if access.strides[vector.axis]:
            index = b.add(index, lane_offsets(emitter, expr.access, vector, part))
        value = b.gather(pointer, index, type, vector.mask)
        result.append(from_memory(b, value, access.dtype))
    return result
