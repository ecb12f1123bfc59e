"""The last few columns of a product, where A's rows are contiguous: dot products along the depth.

In a microkernel one column takes as long as a whole vector of them. Here two take

    for vectors of k: for 8 rows r: for 2 columns j: sums[r, j] += A[r, k…] * column[j, k…]

and a sum of each one's lanes. The columns are contiguous along the depth.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.codegen.builder import I1, I64, PTR, VOID, Builder, Module, Type, Value, const
from tracejit.codegen.contraction.blocking import RegisterBlock
from tracejit.codegen.contraction.dot import multiply_add

ZERO, ONE = const(0, I64), const(1, I64)


def emit_narrow(module: Module, name: str, type: Type, unit: RegisterBlock) -> None:
    """Define ``void name(a, ar, columns, stride, c, cr, rows, count, depth, accumulate)``.

    Element [i, j] of C, ``cr`` apart along i and 1 along j, becomes the product of row i of A, of
    ``rows``, with column j of ``count``, which are ``stride`` apart; both are ``depth`` long and
    contiguous. It is added to what C holds with ``accumulate``.
    """
    names = ("a", "ar", "columns", "stride", "c", "cr", "rows", "count", "depth", "accumulate")
    types = {"a": PTR, "columns": PTR, "c": PTR, "accumulate": I1}
    b = module.define(
        name,
        VOID,
        [(n, types.get(n, I64)) for n in names],
        linkage="internal",
        attributes="nounwind noinline",
    )
    a, a_row, columns, stride, c, c_row, rows, count, depth, accumulate = b.parameters
    height = rows_at_once(b.target.registers)

    def some_rows(first: Value, _: list[Value]) -> list[Value]:
        # Rows beyond the last one repeat it, and store the same.
        last = b.sub(rows, ONE)
        places = [
            b.intrinsic("smin", I64, b.add(first, const(r, I64)), last) for r in range(height)
        ]
        sources = [b.element(a, b.mul(place, a_row), type) for place in places]
        targets = [b.element(c, b.mul(place, c_row), type) for place in places]

        def some_columns(width: int, j: Value) -> list[Value]:
            others = [
                b.element(columns, b.mul(b.add(j, const(i, I64)), stride), type)
                for i in range(width)
            ]
            cells = [b.element(target, j, type) for target in targets]
            sums = _dots(b, sources, others, depth, type.vector(unit.lanes))
            _store(b, _by_row(b, sums, width), cells, accumulate)
            return []

        pairs = b.and_(count, const(-2, I64))
        b.loop(ZERO, pairs, 2, [], lambda j, _: some_columns(2, j))
        b.loop(pairs, count, 1, [], lambda j, _: some_columns(1, j))
        return []

    b.loop(ZERO, rows, height, [], some_rows)
    b.ret()


def rows_at_once(registers: int) -> int:
    """Return how many rows are summed at once: with two columns the sums leave registers for the
    operands, and are chains enough to hide the latency of a multiply-add."""
    return 8 if registers >= 32 else 4


def _dots(
    b: Builder, rows: Sequence[Value], columns: Sequence[Value], depth: Value, vector: Type
) -> list[Value]:
    """Return for each row, for each column the vector whose lanes sum to their product."""
    lanes = vector.lanes

    def step(k: Value, sums: list[Value], mask: Value | None) -> list[Value]:
        def read(base: Value) -> Value:
            place = b.element(base, k, vector.element)
            return b.load(place, vector) if mask is None else b.masked_load(place, mask, vector)

        others = [read(column) for column in columns]
        own = [x for row in rows for x in [read(row)] * len(columns)]
        return [
            multiply_add(b, x, others[i % len(columns)], total)
            for i, (x, total) in enumerate(zip(own, sums, strict=True))
        ]

    def rest(k: Value, sums: list[Value]) -> list[Value]:
        left = b.splat(b.sub(depth, k), lanes)
        return step(k, sums, b.compare("lt", b.lane_index(I64.vector(lanes)), left))

    whole = b.and_(depth, const(-lanes, I64))
    sums = [const(0, vector)] * (len(rows) * len(columns))
    sums = b.loop(ZERO, whole, lanes, sums, lambda k, s: step(k, s, None))
    return b.loop(whole, depth, lanes, sums, rest)


def _by_row(b: Builder, vectors: Sequence[Value], width: int) -> list[Value]:
    """Return the sums of the vectors' lanes, ``width`` neighbours to a value."""
    lanes = min(len(vectors), vectors[0].type.lanes)
    parts: list[Value] = []
    for first in range(0, len(vectors), lanes):
        sums = lane_sums(b, vectors[first : first + lanes])
        for i in range(0, lanes, width):
            one = width == 1
            parts.append(b.extract(sums, i) if one else b.shuffle(sums, None, range(i, i + width)))
    return parts


def _store(b: Builder, new: list[Value], cells: list[Value], accumulate: Value) -> None:
    def add() -> list[Value]:
        return [b.add(b.load(c, v.type), v) for v, c in zip(new, cells, strict=True)]

    for value, cell in zip(b.if_(accumulate, add, lambda: new), cells, strict=True):
        b.store(value, cell)


def lane_sums(b: Builder, vectors: Sequence[Value]) -> Value:
    """Return a vector of as many lanes as there are vectors (a power of 2): the sums of theirs.

    Two vectors become one that holds half sums of both, neighbours of ``width`` lanes at a time::

        x0 x1 x2 x3,  y0 y1 y2 y3  →  x0+x1 y0+y1 x2+x3 y2+y3
    """
    count, lanes, width = len(vectors), vectors[0].type.lanes, 1
    while width < count:
        own = [i + lanes if i & width else i for i in range(lanes)]
        other = [i ^ width for i in own]
        vectors = [
            b.add(b.shuffle(x, y, own), b.shuffle(x, y, other))
            for x, y in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        width *= 2
    total = vectors[0]
    while lanes > count:
        lanes //= 2
        halves = (range(lanes), range(lanes, 2 * lanes))
        low, high = (b.shuffle(total, None, half) for half in halves)
        total = b.add(low, high)
    return total
