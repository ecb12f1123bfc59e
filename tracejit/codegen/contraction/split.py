"""Float32 products in tile registers: every number is the sum of three bfloat16s.

    2^24 · x = head + middle + low        8 bits of its significand each, so nothing is lost

Tile registers multiply bfloat16s into float32 sums at 16 times the rate of vector multiply-adds
(Intel's manual, volume 1, chapter 18). Of the nine products of parts six count:

    head·head   head·middle, middle·head   head·low, low·head, middle·middle

The other three are at most 2^-22 of the whole together: four roundings, where the bound of a sum
of K products has K of them. (G. Henry, P. Tang and A. Heinecke, "Leveraging the bfloat16
artificial intelligence datatype for higher-precision computations", ARITH 2019; the split is
T. Dekker's of 1971.) A tile adds 32 products up by themselves before it adds them to a sum, so the
sums round less often than one after another.

Tiles take subnormals for zero. Scaled by 2^24, all parts of float32s are multiples of 2^-125, so
none of them is subnormal; products that are count for less than 2^-174 in the result. What remains
is told from the largest magnitude of a panel, which stands in a row behind it. A panel that holds
infinities, or numbers too large to be scaled, is *irregular*: it has the numbers themselves in
place of their parts. Blocks of an irregular panel, or of two whose products might overflow, are
computed by multiply-adds of float32 (``emit_exact``), as products are elsewhere. NaN make NaN of
all sums that they belong to in either way.

Which two depths are a pair does not matter, if they are the same ones in both operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tracejit.codegen.builder import (
    F32,
    I1,
    I16,
    I32,
    I64,
    PTR,
    VOID,
    Builder,
    Module,
    Value,
    const,
)
from tracejit.codegen.contraction.blocking import PARTS, TILE, TILES
from tracejit.codegen.contraction.frame import ZERO

# Which part of A by which of B, least first; those that follow have one in common, which need not
# be loaded again.
PRODUCTS = ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0))

SCALE = 2.0**24
_HIGH = -(1 << 16)
# Exponents of scaled numbers as they are stored, with 127 added: the largest finite one, and that
# of two whose products' sums do not overflow, up to 2^14 of them.
_MOST, _MOST_PRODUCT = 254, 2 * 127 + 127 - 16
# Of ``vrangeps``: the larger magnitude, without a sign.
_LARGER = 0b1011


def scaled(b: Builder, x: Value) -> Value:
    """Return float32s times 2^24, of which every part is zero or normal; NaN are quiet then."""
    return b.mul(x, const(SCALE, x.type))


def pieces(
    b: Builder, numbers: Sequence[Value], scaled: Sequence[Value], raw: Value
) -> list[Value]:
    """Return the elements of a panel for the numbers of two depths: three pairs of parts, or where
    ``raw`` is set the numbers."""

    def as_they_are() -> list[Value]:
        first, second = (_bits(b, x) for x in numbers)
        return [first, second, const(0, first.type)]

    return b.if_(raw, as_they_are, lambda: parts(b, *scaled))


def parts(b: Builder, first: Value, second: Value) -> list[Value]:
    """Return the three pairs of parts of the scaled numbers of two depths."""
    both = zip(_split(b, first), _split(b, second), strict=True)
    return [b.or_(b.lshr(x, const(16, x.type)), y) for x, y in both]


def _split(b: Builder, x: Value) -> list[Value]:
    """Return float32s as three integers each, whose high halves are the bfloat16s and whose low
    ones are zero: the first is cut off, the second rounded, and the rest fits the third.

    What NaN leave in the low half of that makes a number NaN where all sums are.
    """
    bits = _bits(b, x)
    high = const(_HIGH, bits.type)
    head = b.and_(bits, high)
    rest = b.sub(x, b.bitcast(head, x.type))
    middle = b.and_(b.add(_bits(b, rest), const(1 << 15, bits.type)), high)
    return [head, middle, _bits(b, b.sub(rest, b.bitcast(middle, x.type)))]


def _bits(b: Builder, x: Value) -> Value:
    return b.bitcast(x, I32.vector(x.type.lanes))


# -- the range of a panel --------------------------------------------------------------------------


def empty_range() -> Value:
    """Return the range of no numbers: a vector of largest magnitudes."""
    return const(0.0, F32.vector(TILE))


def wider_range(b: Builder, found: Value, scaled: Sequence[Value]) -> Value:
    """Return the range with vectors of scaled numbers taken in, all but NaN."""
    values = list(scaled)
    while len(values) > 1:
        values = [*values[2:], _larger(b, *values[:2])]
    return _larger(b, found, *values)


def _larger(b: Builder, x: Value, y: Value) -> Value:
    """Return the larger magnitudes, or those of numbers beside quiet NaN: one instruction, where
    integers take four."""
    fixed = (const(_LARGER, I32), const(0.0, x.type), const(-1, I16), const(4, I32))
    return b.call("llvm.x86.avx512.mask.range.ps.512", x.type, x, y, *fixed)


def store_range(b: Builder, last_row: Value, found: Value) -> None:
    """Leave the exponent of the largest number in the first element."""
    largest = b.fold(_bits(b, found), lambda x, y: b.intrinsic("umax", x.type, x, y))
    b.store(b.lshr(largest, const(23, I32)), last_row)


def open_range(b: Builder, last_row: Value) -> None:
    """Begin the range of a panel, in the row behind it."""
    b.store(empty_range(), last_row)


def extend_range(b: Builder, last_row: Value, scaled: Sequence[Value]) -> None:
    """Take vectors of scaled numbers into a range."""
    found = b.load(last_row, F32.vector(TILE))
    b.store(wider_range(b, found, scaled), last_row)


def close_range(b: Builder, last_row: Value) -> None:
    """Leave in the row what ``Range`` reads."""
    store_range(b, last_row, b.load(last_row, F32.vector(TILE)))


class Range(NamedTuple):
    """The exponent of the largest number of a panel, scaled."""

    most: Value

    @classmethod
    def of(cls, b: Builder, panel: Value, depth: Value) -> Range:
        """Read it behind a panel that is ``depth`` elements deep."""
        return cls.at(b, b.element(panel, b.mul(depth, const(TILES.rows, I64)), I32))

    @classmethod
    def at(cls, b: Builder, last_row: Value) -> Range:
        return cls(b.load(last_row, I32))

    def irregular(self, b: Builder) -> Value:
        """Return (i1) whether the panel has numbers in place of parts."""
        return b.compare("gt", self.most, const(_MOST, I32))


def beyond_tiles(b: Builder, a: Range, b_: Range) -> Value:
    """Return (i1) whether the block of two panels is not for tiles."""
    large = b.compare("gt", b.add(a.most, b_.most), const(_MOST_PRODUCT, I32))
    return b.or_(b.or_(a.irregular(b), b_.irregular(b)), large)


def unscale(
    b: Builder, sums: Value, factor: Value, c: Value, c_row: Value, rows: Value,
    masks: Sequence[Value | None],
) -> None:  # fmt: skip
    """Write ``rows`` rows of C, ``c_row`` apart, from sums that are to be multiplied by ``factor``;
    ``masks`` are the columns of each vector, None where all are."""
    vector, factors = F32.vector(TILE), b.splat(factor, TILE)

    def row(i: Value, _: list[Value]) -> list[Value]:
        source = b.element(sums, b.mul(i, const(TILES.columns, I64)), F32)
        target = b.element(c, b.mul(i, c_row), F32)
        for v, mask in enumerate(masks):
            place = const(v * TILE, I64)
            value = b.mul(b.load(b.element(source, place, F32), vector), factors)
            to = b.element(target, place, F32)
            if mask is None:
                b.store(value, to)
            else:
                b.masked_store(value, to, mask)
        return []

    b.loop(ZERO, rows, 1, [], row)


def clear(b: Builder, c: Value, c_row: Value, rows: int, vectors: int) -> None:
    """Write zeros to C."""
    vector = F32.vector(TILE)

    def row(i: Value, _: list[Value]) -> list[Value]:
        for v in range(vectors):
            place = b.add(b.mul(i, c_row), const(v * TILE, I64))
            b.store(const(0.0, vector), b.element(c, place, F32))
        return []

    b.loop(ZERO, const(rows, I64), 1, [], row)


# -- the block of numbers that tiles do not take -------------------------------------------------

EXACT_PARAMETERS = [
    ("a", PTR), ("b", PTR), ("br", I64), ("c", PTR), ("cr", I64), ("rows", I64), ("vectors", I64),
    ("ra", I1), ("rb", I1),
]  # fmt: skip
# Rows that share the numbers of B.
_TOGETHER = 4


def emit_exact(module: Module, name: str) -> None:
    """Define ``void name(a, b, b_row, c, c_row, rows, vectors, raw_a, raw_b)``: add to C the
    product over a tile's depth, by multiply-adds.

    The rows of B are ``b_row`` elements apart, its parts follow each other; ``raw_*`` tells that an
    operand has numbers in place of parts.
    """
    b = module.define(
        name, VOID, EXACT_PARAMETERS, linkage="internal", attributes="nounwind noinline cold"
    )
    a, b_, b_row, c, c_row, rows, vectors, raw_a, raw_b = b.parameters
    vector, width = F32.vector(TILE), const(TILES.columns, I64)
    # Rows of 16 pairs of A and of 32 columns of B: the first of all pairs, then the second.
    size_a, size_b = TILES.rows * TILE, TILE * TILES.columns
    numbers_a, numbers_b = (
        b.emit(PTR, f"alloca [{2 * size} x float], align 64") for size in (size_a, size_b)
    )

    def keep(place: Value, row: Value, raw: Value, target: Value, at: Value, size: int) -> None:
        for half, value in enumerate(_read(b, place, row, raw)):
            b.store(value, b.element(target, b.add(at, const(half * size, I64)), F32))

    def row_of_a(r: Value, _: list[Value]) -> list[Value]:
        at = b.mul(r, const(TILE, I64))
        keep(b.element(a, at, I32), const(TILES.rows, I64), raw_a, numbers_a, at, size_a)
        return []

    def row_of_b(e: Value, _: list[Value]) -> list[Value]:
        def columns(v: Value, _: list[Value]) -> list[Value]:
            column = b.mul(v, const(TILE, I64))
            place = b.element(b_, b.add(b.mul(e, b_row), column), I32)
            keep(place, b_row, raw_b, numbers_b, b.add(b.mul(e, width), column), size_b)
            return []

        return b.loop(ZERO, vectors, 1, [], columns)

    def block(row: Value, column: Value) -> list[Value]:
        rows_of_c = [b.add(row, const(r, I64)) for r in range(_TOGETHER)]
        places = [b.element(c, b.add(b.mul(r, c_row), column), F32) for r in rows_of_c]
        starts = [b.element(numbers_a, b.mul(r, const(TILE, I64)), F32) for r in rows_of_c]
        start = b.element(numbers_b, column, F32)

        def pair(e: Value, sums: list[Value]) -> list[Value]:
            place = b.element(start, b.mul(e, width), F32)
            for x_half, y_half in ((0, 0), (size_a, size_b)):
                y = b.load(b.element(place, const(y_half, I64), F32), vector)
                at = b.add(e, const(x_half, I64))
                xs = [b.splat(b.load(b.element(x, at, F32), F32), TILE) for x in starts]
                sums = [b.fma(x, y, total) for x, total in zip(xs, sums, strict=True)]
            return sums

        sums = b.loop(ZERO, const(TILE, I64), 1, [b.load(place, vector) for place in places], pair)
        for place, total in zip(places, sums, strict=True):
            b.store(total, place)
        return []

    def column(v: Value, _: list[Value]) -> list[Value]:
        start = b.mul(v, const(TILE, I64))
        b.loop(ZERO, rows, _TOGETHER, [], lambda row, _: block(row, start))
        return []

    b.loop(ZERO, rows, 1, [], row_of_a)
    b.loop(ZERO, const(TILE, I64), 1, [], row_of_b)
    b.loop(ZERO, vectors, 1, [], column)
    b.ret()


def _read(b: Builder, place: Value, row: Value, raw: Value) -> list[Value]:
    """Return the numbers of 16 pairs of an operand whose rows are ``row`` apart: the first of each,
    and the second."""
    bits, numbers = I32.vector(TILE), F32.vector(TILE)
    places = [b.element(place, b.mul(const(p * TILE, I64), row), I32) for p in range(PARTS)]

    def as_they_are() -> list[Value]:
        return [b.load(p, numbers) for p in places[:2]]

    def added_up() -> list[Value]:
        pairs = [b.load(p, bits) for p in places]
        even = [b.bitcast(b.shl(x, const(16, bits)), numbers) for x in pairs]
        odd = [b.bitcast(b.and_(x, const(_HIGH, bits)), numbers) for x in pairs]
        whole = (b.add(x, b.add(y, z)) for x, y, z in (even, odd))
        return [b.mul(x, const(1 / SCALE, numbers)) for x in whole]

    return b.if_(raw, as_they_are, added_up)
