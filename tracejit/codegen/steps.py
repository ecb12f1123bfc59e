"""Vector loops: unrolled steps, single steps, and one masked step for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tracejit.codegen.builder import I64, Value, const
from tracejit.codegen.scope import Scope, Values, Vector
from tracejit.codegen.types import memory_type
from tracejit.schedule.kernel import Kernel

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter

# Writes one step: its vector, its index, what the loop carries → what the next step gets.
Body = Callable[[Vector, Value, Values], Values]


def vector_loop(
    emitter: KernelEmitter,
    axis: int,
    start: Value,
    stop: Value,
    carried: Values,
    body: Body,
    streamed: Sequence[Value] = (),
) -> Values:
    """Write a loop in vector steps: unrolled, single, then one masked step.

    A long body is not written a third time: masked steps do for single ones.
    ``streamed`` are the addresses that streamed stores start at; then nothing is carried.
    """
    seams = [place for along, place in emitter.seams if along == axis]
    if seams:
        return _from_seam_to_seam(emitter, axis, start, stop, seams, carried, body, streamed)
    if streamed:
        assert not carried
        _from_alignment(emitter, axis, start, stop, body, streamed)
        return []
    return vector_steps(emitter, _steps(emitter, axis), start, stop, stop, carried, body)


def _steps(emitter: KernelEmitter, axis: int) -> list[Vector]:
    """Return the steps of a loop without masks, the widest first."""
    widths = [emitter.unroll] if emitter.long else [emitter.unroll, 1]
    if axis == emitter.kernel.vector_parallel and emitter.kernel.down_columns:
        # A strip of one vector walks down as many lines of memory as a wide one.
        widths.insert(1, max(1, emitter.unroll // 2))
    return [Vector(axis, emitter.lanes, n) for n in dict.fromkeys(widths)]


def _from_seam_to_seam(
    emitter: KernelEmitter,
    axis: int,
    start: Value,
    stop: Value,
    seams: Sequence[Value],
    carried: Values,
    body: Body,
    streamed: Sequence[Value],
) -> Values:
    """Write a vector loop whose steps cross no seam: what they access jumps there."""
    b, steps = emitter.b, _steps(emitter, axis)

    def part(state: Values) -> tuple[Value, Values]:
        begin, *values = state
        end = stop
        for place in seams:
            ahead = b.and_(b.compare("gt", place, begin), b.compare("lt", place, end))
            end = b.select(ahead, place, end)
        if streamed:
            passed = b.mul(b.sub(begin, start), const(_stream_itemsize(emitter.kernel), I64))
            places = [b.offset(place, passed) for place in streamed]
            _from_alignment(emitter, axis, begin, end, body, places)
        else:
            values = vector_steps(emitter, steps, begin, end, end, values, body)
        return b.compare("lt", end, stop), [end, *values]

    return b.repeat([start, *carried], part)[1:]


def _from_alignment(
    emitter: KernelEmitter,
    axis: int,
    start: Value,
    stop: Value,
    body: Body,
    streamed: Sequence[Value],
) -> None:
    """Write a vector loop with streamed stores: they only go to whole vectors.

    The loop runs over two parts: up to the place where the first store is aligned (one masked
    step), and from there. Where another store is not aligned then, none is streamed.
    """
    b = emitter.b
    itemsize = _stream_itemsize(emitter.kernel)
    step = emitter.lanes * itemsize
    below = const(step - 1, I64)
    ahead = b.and_(b.neg(b.address(streamed[0])), below)
    middle = b.add(start, b.lshr(ahead, const(itemsize.bit_length() - 1, I64)))
    middle = b.intrinsic("smin", I64, middle, stop)
    moved = b.mul(b.sub(middle, start), const(itemsize, I64))
    ends = b.add(b.address(streamed[0]), moved)
    for other in streamed[1:]:
        ends = b.or_(ends, b.add(b.address(other), moved))
    fits = b.compare("eq", b.and_(ends, below), const(0, I64))
    widths = dict.fromkeys((emitter.unroll, 1))
    steps = [Vector(axis, emitter.lanes, n, aligned=True) for n in widths]
    steps.append(Vector(axis, emitter.lanes, 1))

    def part(number: Value, carried: Values) -> Values:
        first = b.compare("eq", number, const(0, I64))
        begin, end = b.select(first, start, middle), b.select(first, middle, stop)
        # The part before that is less than a vector.
        limit = b.select(b.and_(fits, b.not_(first)), end, begin)
        return vector_steps(emitter, steps, begin, end, limit, [], body)

    b.loop(b.convert(b.compare("eq", middle, start), I64), const(2, I64), 1, [], part)


def vector_steps(
    emitter: KernelEmitter,
    steps: Sequence[Vector],
    start: Value,
    stop: Value,
    limit: Value,
    carried: Values,
    body: Body,
) -> Values:
    """Write loops of ``steps``, those that are aligned up to ``limit``, and masked steps: one where
    the narrowest before it is a single vector."""
    b, axis = emitter.b, steps[0].axis
    for vector in steps:
        step = emitter.lanes * vector.unroll
        end = limit if vector.aligned else stop
        whole = b.sub(end, b.rem(b.sub(end, start), const(step, I64)))
        carried = b.loop(start, whole, step, carried, lambda i, c, v=vector: body(v, i, list(c)))
        start = whole
    lane = b.lane_index(I64.vector(emitter.lanes))

    def tail(at: Value, state: Values) -> Values:
        mask = b.compare("lt", lane, b.splat(b.sub(stop, at), emitter.lanes))
        return body(Vector(axis, emitter.lanes, 1, mask), at, state)

    if steps[-1].unroll > 1:
        return b.loop(start, stop, emitter.lanes, carried, tail)
    before = list(carried)
    some = b.compare("lt", start, stop)
    return b.if_(some, lambda: tail(start, before), lambda: before)


def _stream_itemsize(kernel: Kernel) -> int:
    """Bytes of an element of the streamed stores; they are all of one size."""
    number = min(kernel.streamed)
    return kernel.accesses[kernel.stores[number].access].dtype.itemsize


def streamed_from(
    emitter: KernelEmitter, stores: Sequence[int], scope: Scope, start: Value
) -> list[Value]:
    """Return the addresses where those of ``stores`` that are streamed begin."""
    if not emitter.kernel.streamed:
        return []
    if emitter.lanes * _stream_itemsize(emitter.kernel) * 8 != emitter.b.target.vector_bits:
        return []
    accesses = [emitter.kernel.stores[s].access for s in stores if s in emitter.kernel.streamed]
    return [
        emitter.b.element(scope.pointers[a], start, memory_type(emitter.kernel.accesses[a].dtype))
        for a in accesses
    ]
