"""The innermost loop: a block of C in registers, one rank-1 update a step.

    for k: for r: for v: acc[r][v] += A[r, k] * B[k, v]

A step is ``vectors`` loads of B, ``rows`` broadcast loads of A and their product many
multiply-adds. C is touched only after the loop. Terms are added in the order of k whatever the
block's shape, so an element of C has the same bits in every block that may compute it.

Where the target has masks the columns beyond the block are not written, nor read unless B is
packed; elsewhere the block must be whole. A load with a mask takes a slot of the multiply-adds too
(measured: 3 % of a product of 1024).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tracejit.codegen.builder import I1, I64, PTR, VOID, Builder, Module, Type, Value, const
from tracejit.codegen.contraction.dot import multiply_add
from tracejit.codegen.contraction.prologue import Dot

# From the step's number and what it carries to what the next one does.
Step = Callable[[Value, list[Value]], list[Value]]


class MicroShape(NamedTuple):
    """One microkernel: its accumulators, the strides known at compile time (or None), and whether
    it fetches what is read next into the second-level cache.

    With ``follows`` the rows of A behind its own are fetched, a line a step: where A is dense they
    are those of the next row panel, and at the end those of the next product of a batch (measured:
    100 products of 64×64 by 64×64 take 0.85 of the time in float32, 0.93 in float64, 300 of 32×32
    0.86 and 0.93).

    ``unrolled`` are the steps in one iteration of the loop over a packed B, a power of two.
    ``dot`` says what an element of A and B holds; with ``corrected`` a panel of B ends with a row
    that is added to every row of the sums. With ``full`` all columns of the block count. With
    ``copies`` what is read of B is also written to a packed panel, at ``following``.
    """

    type: Type
    rows: int
    vectors: int
    lanes: int
    a_row: int | None
    a_depth: int | None
    b_depth: int | None = None
    fetches: bool = False
    unrolled: int = 1
    dot: Dot = "none"
    corrected: bool = False
    full: bool = False
    copies: bool = False
    follows: bool = False


class MicroCall(NamedTuple):
    """Arguments of a microkernel: addresses, strides in elements, how many columns count (for
    targets with masks), the depth, whether the block is added to what C holds (else C is
    only written), and what is to be fetched: from where on, and how many bytes further at each
    step."""

    a: Value
    a_row: Value
    a_depth: Value
    b: Value
    b_depth: Value
    c: Value
    c_row: Value
    columns: Value
    depth: Value
    accumulate: Value
    following: Value = Value("null", PTR)
    further: Value = const(0, I64)


# Steps between two prefetched rows of C, at least. All rows at once would take every fill buffer
# that A needs (measured: 5 % of a product of 2048).
_SEGMENT = 8


# Those of ``MicroCall``, in its order.
PARAMETERS: list[tuple[str, Type]] = [
    ("a", PTR), ("ar", I64), ("ad", I64), ("b", PTR), ("bd", I64),
    ("c", PTR), ("cr", I64), ("columns", I64), ("depth", I64), ("accumulate", I1),
    ("following", PTR), ("further", I64),
]  # fmt: skip


def emit_microkernel(module: Module, name: str, shape: MicroShape) -> None:
    """Define ``void name(MicroCall…)``; C's columns are contiguous."""
    b = module.define(
        name,
        VOID,
        PARAMETERS,
        linkage="internal",
        attributes="nounwind noinline",
        parameter_attributes=(
            "noalias readonly", "", "", "noalias readonly", "", "noalias", *[""] * 6,
        ),
    )  # fmt: skip
    call = MicroCall(*b.parameters)
    if shape.a_row is not None:
        call = call._replace(a_row=const(shape.a_row, I64))
    if shape.a_depth is not None:
        call = call._replace(a_depth=const(shape.a_depth, I64))
    if shape.b_depth is not None:
        call = call._replace(b_depth=const(shape.b_depth, I64))
    masks = _masks(b, shape, call)
    _store(b, shape, call, masks, _accumulate(b, shape, call, masks))
    b.ret()


def _masks(b: Builder, shape: MicroShape, call: MicroCall) -> list[Value | None]:
    """Return for each vector of a row the mask of its columns; None where it is whole."""
    if shape.full or not b.target.masks:
        return [None] * shape.vectors
    index = I64.vector(shape.lanes)
    left = b.splat(call.columns, shape.lanes)
    return [
        b.compare("lt", b.add(b.lane_index(index), const(v * shape.lanes, index)), left)
        for v in range(shape.vectors)
    ]


def _load(b: Builder, address: Value, mask: Value | None, type: Type) -> Value:
    return b.load(address, type) if mask is None else b.masked_load(address, mask, type)


def _multiples(b: Builder, stride: Value, count: int) -> list[Value]:
    """Return 0, stride, 2·stride, … (literals where the stride is one)."""
    if stride.is_literal:
        return [const(i * int(stride.text), I64) for i in range(count)]
    return [const(0, I64), stride, *(b.mul(const(i, I64), stride) for i in range(2, count))][:count]


def _accumulate(
    b: Builder, shape: MicroShape, call: MicroCall, masks: list[Value | None]
) -> list[Value]:
    """Write the loop and return the sums."""
    type, vector = shape.type, shape.type.vector(shape.lanes)
    offsets = _multiples(b, call.a_row, shape.rows)
    if shape.b_depth is not None:  # panels are whole in memory
        masks = [None] * shape.vectors

    def row(place: Value) -> list[Value]:
        return [
            _load(b, b.element(place, const(v * shape.lanes, I64), type), mask, vector)
            for v, mask in enumerate(masks)
        ]

    def step(depth: Value, carried: list[Value]) -> list[Value]:
        a, b_row, *sums = carried
        if shape.a_row is not None and shape.a_depth is not None:
            _prefetch(b, type, a, const(shape.a_depth, I64), shape.a_depth)
        _prefetch(b, type, b_row, call.b_depth, shape.vectors * shape.lanes)
        if shape.follows:
            behind = b.element(call.a, b.mul(call.a_row, const(shape.rows, I64)), type)
            b.prefetch(b.offset(behind, b.mul(depth, const(64, I64))))
        columns = row(b_row)
        if shape.copies:
            place = b.mul(depth, const(shape.vectors * shape.lanes, I64))
            for v, column in enumerate(columns):
                at = b.add(place, const(v * shape.lanes, I64))
                b.store(column, b.element(call.following, at, type))
        following: list[Value] = []
        for r in range(shape.rows):
            x = b.splat(b.load(b.element(a, offsets[r], type), type), shape.lanes)
            for v, column in enumerate(columns):
                total = sums[r * shape.vectors + v]
                following.append(multiply_add(b, x, column, total, shape.dot))
        return [b.element(a, call.a_depth, type), b.element(b_row, call.b_depth, type), *following]

    zeros = [const(0, vector)] * (shape.rows * shape.vectors)
    start = [call.a, call.b, *zeros]
    if shape.b_depth is None:
        return b.loop(const(0, I64), call.depth, 1, start, step)[2:]
    _, after, *sums = _in_segments(b, shape, call, start, step)
    if not shape.corrected:
        return sums
    last = row(after)
    return [b.add(value, last[i % shape.vectors]) for i, value in enumerate(sums)]


def _in_segments(
    b: Builder, shape: MicroShape, call: MicroCall, start: list[Value], step: Step
) -> list[Value]:
    """Write the loop in segments: before each a row of C is fetched, which is touched only when
    all sums are there.

    Every iteration fetches a line of the panel that follows. Without it the first call for a panel
    of B waits for the third-level cache (measured at 2048: 5 % in f64, 3 % in f32), and a burst
    before each segment takes the fill buffers that A and B need (4 to 7 % at 1024 in f64). Where B
    is read in place products are small, and the rows of C near (measured: a plain loop is 3 to 4 %
    faster from 64 to 128).
    """
    last, unrolled = const(shape.vectors * shape.lanes - 1, I64), shape.unrolled
    further = b.mul(call.further, const(unrolled, I64))
    length = b.add(b.div(call.depth, const(shape.rows, I64), signed=False), const(_SEGMENT, I64))
    length, whole = (b.and_(count, const(-unrolled, I64)) for count in (length, call.depth))

    def steps(depth: Value, carried: list[Value]) -> list[Value]:
        following, *rest = carried
        if shape.fetches:
            b.prefetch(following, locality=2)
            following = b.offset(following, further)
        for i in range(unrolled):
            rest = step(b.add(depth, const(i, I64)), rest)
        return [following, *rest]

    def segment(first: Value, carried: list[Value]) -> list[Value]:
        c, *rest = carried
        b.prefetch(c)
        b.prefetch(b.element(c, last, shape.type))
        stop = b.intrinsic("smin", I64, b.add(first, length), whole)
        below = b.element(c, call.c_row, shape.type)
        return [below, *b.loop(first, stop, unrolled, rest, steps)]

    carried = [call.c, call.following, *start]
    _, _, *rest = b.loop(const(0, I64), whole, length, carried, segment)
    return b.loop(whole, call.depth, 1, rest, step) if unrolled > 1 else rest


def _prefetch(b: Builder, type: Type, row: Value, stride: Value, width: int) -> None:
    """Fetch a row of a panel some steps ahead.

    Packed panels stream past from the second-level cache. Measured on a core with 48 KiB of
    first-level cache, A from the second level: f64 89 % of the peak without, 95 % with 4 steps,
    98 % with 16; with B as well, 4 % of a product of 2048. Rows of a B that is read in place lie in
    pages of their own, where no hardware prefetcher follows, and mostly across lines: 14×1024×1024
    takes 0.7 of the time. They may all fall on the same cache sets, so fewer are fetched.
    """
    size, steps = width * type.bits // 8, b.target.blocking.prefetch
    packed = stride.is_literal
    ahead = b.element(row, b.mul(stride, const(steps if packed else steps // 2, I64)), type)
    for byte in range(0, size, 64):
        b.prefetch(b.offset(ahead, const(byte, I64)))
    if not packed:
        b.prefetch(b.offset(ahead, const(size - 1, I64)))


def _store(
    b: Builder, shape: MicroShape, call: MicroCall, masks: list[Value | None], sums: list[Value]
) -> None:
    vector = shape.type.vector(shape.lanes)
    rows = _multiples(b, call.c_row, shape.rows)
    places = [
        (b.element(b.element(call.c, row, shape.type), const(v * shape.lanes, I64), shape.type), m)
        for row in rows
        for v, m in enumerate(masks)
    ]

    def add() -> list[Value]:
        return [
            b.add(_load(b, place, mask, vector), value)
            for value, (place, mask) in zip(sums, places, strict=True)
        ]

    for value, (place, mask) in zip(b.if_(call.accumulate, add, lambda: sums), places, strict=True):
        if mask is None:
            b.store(value, place)
        else:
            b.masked_store(value, place, mask)
