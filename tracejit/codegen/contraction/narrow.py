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
    height, vector = rows_at_once(b.target.registers), type.vector(unit.lanes)

    def some_rows(i: Value, height: int) -> list[Value]:
        row, result = b.element(a, b.mul(i, a_row), type), b.element(c, b.mul(i, c_row), type)

        def two_columns(j: Value, _: list[Value]) -> list[Value]:
            # The last column may be alone: it takes both places.
            second = b.intrinsic("smin", I64, b.add(j, ONE), b.sub(count, ONE))
            pair = [b.element(columns, b.mul(x, stride), type) for x in (j, second)]
            sums = _dots(b, _apart(b, row, a_row, height, type), pair, depth, vector)
            cells = _apart(b, b.element(result, j, type), c_row, height, type)
            both = b.compare("gt", second, j)
            _store(b, _pairs(b, sums), cells, both, accumulate)
            return []

        return b.loop(ZERO, count, 2, [], two_columns)

    whole = b.and_(rows, const(-height, I64))
    b.loop(ZERO, whole, height, [], lambda i, _: some_rows(i, height))
    b.loop(whole, rows, 1, [], lambda i, _: some_rows(i, 1))
    b.ret()


def rows_at_once(registers: int) -> int:
    """Return how many rows are summed at once: with two columns the sums leave registers for the
    operands, and are chains enough to hide the latency of a multiply-add."""
    return 8 if registers >= 32 else 4


def _apart(b: Builder, base: Value, stride: Value, count: int, type: Type) -> list[Value]:
    """Return ``count`` addresses from ``base`` on, ``stride`` elements apart."""
    places = [base]
    for _ in range(1, count):
        places.append(b.element(places[-1], stride, type))
    return places


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

    def masked(k: Value, sums: list[Value]) -> list[Value]:
        left = b.splat(b.sub(depth, k), lanes)
        return step(k, sums, b.compare("lt", b.lane_index(I64.vector(lanes)), left))

    sums = [const(0, vector)] * (len(rows) * len(columns))
    if len(rows) == 1:  # it waits for its sums anyway
        return b.loop(ZERO, depth, lanes, sums, masked)
    whole = b.and_(depth, const(-lanes, I64))
    sums = b.loop(ZERO, whole, lanes, sums, lambda k, s: step(k, s, None))
    return b.if_(b.compare("lt", whole, depth), lambda: masked(whole, sums), lambda: sums)


def _pairs(b: Builder, vectors: Sequence[Value]) -> list[Value]:
    """Return the sums of the vectors' lanes, two neighbours to a value."""
    lanes = min(len(vectors), vectors[0].type.lanes)
    groups = [lane_sums(b, vectors[i : i + lanes]) for i in range(0, len(vectors), lanes)]
    return [b.shuffle(sums, None, (i, i + 1)) for sums in groups for i in range(0, lanes, 2)]


def _store(
    b: Builder, pairs: list[Value], cells: list[Value], both: Value, accumulate: Value
) -> None:
    """Write each pair, or the first of it, to its cell; add it to what is there to accumulate."""

    def write(values: list[Value]) -> list[Value]:
        def added() -> list[Value]:
            return [b.add(b.load(c, v.type), v) for c, v in zip(cells, values, strict=True)]

        for value, cell in zip(b.if_(accumulate, added, lambda: values), cells, strict=True):
            b.store(value, cell)
        return []

    b.if_(both, lambda: write(pairs), lambda: write([b.extract(pair, 0) for pair in pairs]))


def lane_sums(b: Builder, vectors: Sequence[Value]) -> Value:
    """Return a vector of as many lanes as there are vectors (a power of 2): the sums of theirs.

    Lanes are added to those half a vector on, then half of that, so that a sum has the same bits
    when its lanes are rotated. Two vectors become one that holds half sums of both::

        x0 x1 x2 x3,  y0 y1 y2 y3  →  x0+x2 x1+x3 y0+y2 y1+y3
    """
    count, lanes = len(vectors), vectors[0].type.lanes
    half = lanes
    while len(vectors) > 1:
        half //= 2
        own = [i for i in range(2 * lanes) if not i & half]
        other = [i | half for i in own]
        vectors = [
            b.add(b.shuffle(x, y, own), b.shuffle(x, y, other))
            for x, y in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    (total,) = vectors
    while half > 1:
        half //= 2
        total = b.add(total, b.shuffle(total, None, [i ^ half for i in range(lanes)]))
    return b.shuffle(total, None, range(0, lanes, lanes // count)) if count < lanes else total
