"""Float32 products in tile registers: every number is the sum of three bfloat16s.

    x = head + middle + low        8 bits of its significand each, so nothing is lost

Tile registers multiply bfloat16s into float32 sums at many times the rate of vector multiply-adds
(Intel's manual, volume 1, chapter 18: 16 times). Of the nine products of parts six count:

    head·head   head·middle, middle·head   head·low, low·head, middle·middle

The other three are at most 2^-22 of the whole together: four units in the last place of float32
halved, where the bound of a plain sum of K products has K of them. (G. Henry, P. Tang and
A. Heinecke, "Leveraging the bfloat16 artificial intelligence datatype for higher-precision
computations", ARITH 2019; the split is T. Dekker's of 1971.) A tile adds 32 products up by
themselves before it adds them to a sum, so the sums round less often than one after another.

What such products cannot do is told from the largest and the least number of a panel, which its
last row holds. Tiles take subnormals for zero, infinities have no difference from themselves, and
sums of parts may overflow where that of the numbers does not:

- Beyond the range in which nothing overflows the block is computed from the parts' sums, one
  product after another (``emit_exact``), as float32 products are elsewhere.
- Where parts, or products of them, may be subnormal, what tiles drop is at most 2^-112 of the
  larger of 1 and the largest number. Blocks whose results are all so large that this is less
  than 2^-28 of them stay; the others are computed as above.
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
from tracejit.codegen.contraction.blocking import TILE, TILES
from tracejit.codegen.contraction.frame import ONE, ZERO
from tracejit.codegen.contraction.prologue import PARTS

# Which part of A by which of B, least first; those that follow have one in common, which need not
# be loaded again.
PRODUCTS = ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0))

_HIGH, _MAGNITUDE, _INFINITY = -(1 << 16), (1 << 31) - 1, 0xFF << 23
# Exponents as they are stored, with 127 added: those of numbers whose parts are all normal, of two
# numbers whose product's are, and of two so large that 2^24 sums of their products are finite.
_LEAST, _LEAST_PRODUCT, _MOST_PRODUCT = 25, 2 * 127 - 96, 2 * 127 + 101
# Results of 2^-84 times the larger of 1 and the largest number stay.
_RESULT = 127 - 84


def split(b: Builder, x: Value) -> list[Value]:
    """Return float32s as three integers each, whose high halves are the bfloat16s: the first is
    cut off, the second rounded, and the rest fits the third. An infinity has no rest."""
    bits = _bits(b, x)
    whole = bits.type
    is_finite = b.compare("ne", b.and_(bits, const(_MAGNITUDE, whole)), const(_INFINITY, whole))
    head = b.bitcast(b.and_(bits, const(_HIGH, whole)), x.type)
    rest = b.select(is_finite, b.sub(x, head), const(0.0, x.type))
    middle = b.add(_bits(b, rest), const(1 << 15, whole))
    low = b.sub(rest, b.bitcast(b.and_(middle, const(_HIGH, whole)), x.type))
    return [bits, middle, _bits(b, low)]


def joined_across(b: Builder, even: Value, odd: Value) -> list[Value]:
    """Return the parts of two depths, of the same rows (or columns), in pairs."""
    pairs: list[Value] = []
    for x, y in zip(split(b, even), split(b, odd), strict=True):
        high = b.and_(y, const(_HIGH, y.type))
        pairs.append(b.or_(b.lshr(x, const(16, x.type)), high))
    return pairs


def joined_along(b: Builder, first: Value, second: Value) -> list[Value]:
    """Return the parts of the depths in two vectors that follow each other, in pairs."""
    lanes = first.type.lanes
    halves = I16.vector(2 * lanes)
    return [
        b.bitcast(
            b.shuffle(b.bitcast(x, halves), b.bitcast(y, halves), range(1, 4 * lanes, 2)), x.type
        )
        for x, y in zip(split(b, first), split(b, second), strict=True)
    ]


def _bits(b: Builder, x: Value) -> Value:
    return b.bitcast(x, I32.vector(x.type.lanes))


# -- the range of a panel --------------------------------------------------------------------------


def open_range(b: Builder, last_row: Value) -> None:
    """Begin the range of a panel: a vector of largest magnitudes, and one of least less one, so
    that zero is none of these."""
    vector = I32.vector(TILE)
    b.store(const(0, vector), last_row)
    b.store(const(-1, vector), b.element(last_row, const(TILE, I64), I32))


def extend_range(b: Builder, last_row: Value, values: Sequence[Value]) -> None:
    """Take vectors of float32s into a range."""
    vector = I32.vector(TILE)
    places = [last_row, b.element(last_row, const(TILE, I64), I32)]
    largest, least = (b.load(place, vector) for place in places)
    for value in values:
        magnitude = b.and_(_bits(b, value), const(_MAGNITUDE, vector))
        largest = b.intrinsic("umax", vector, largest, magnitude)
        least = b.intrinsic("umin", vector, least, b.sub(magnitude, const(1, vector)))
    b.store(largest, places[0])
    b.store(least, places[1])


def close_range(b: Builder, last_row: Value) -> None:
    """Leave the exponents of the largest and of the least number that is not zero (or of one just
    below it) in the first two elements; of zeros alone, 0 and one above all."""
    vector = I32.vector(TILE)
    ends: list[Value] = []
    for start, name in ((0, "umax"), (TILE, "umin")):
        lanes = b.load(b.element(last_row, const(start, I64), I32), vector)
        ends.append(b.fold(lanes, lambda x, y, name=name: b.intrinsic(name, x.type, x, y)))
    for place, end in enumerate(ends):
        exponent = b.lshr(end, const(23, I32))
        b.store(exponent, b.element(last_row, const(place, I64), I32))


class Ranges(NamedTuple):
    """What the ranges of a panel of A and one of B say of their product."""

    overflows: Value
    underflows: Value
    result: Value

    @classmethod
    def of(cls, b: Builder, a: Value, b_: Value, depth: Value) -> Ranges:
        """Read them behind panels that are ``depth`` elements deep."""
        ends: list[tuple[Value, Value]] = []
        for panel in (a, b_):
            row = b.element(panel, b.mul(depth, const(TILES.rows, I64)), I32)
            ends.append((b.load(row, I32), b.load(b.element(row, ONE, I32), I32)))
        (most_a, least_a), (most_b, least_b) = ends
        most = b.intrinsic("umax", I32, most_a, most_b)
        least = b.intrinsic("umin", I32, least_a, least_b)
        overflows = b.or_(
            b.compare("ge", most, const(255, I32)),
            b.compare("gt", b.add(most_a, most_b), const(_MOST_PRODUCT, I32)),
        )
        underflows = b.or_(
            b.compare("lt", least, const(_LEAST, I32)),
            b.compare("lt", b.add(least_a, least_b), const(_LEAST_PRODUCT, I32)),
        )
        beyond = b.intrinsic("smax", I32, b.sub(most, const(126, I32)), const(0, I32))
        result = b.shl(b.add(beyond, const(_RESULT, I32)), const(23, I32))
        return cls(overflows, underflows, result)


def some_below(b: Builder, c: Value, c_row: Value, rows: int, vectors: int, least: Value) -> Value:
    """Return (i1) whether a result of the block is less than the float32 of bits ``least``."""
    vector = I32.vector(TILE)
    limit = b.splat(least, TILE)

    def row(i: Value, found: list[Value]) -> list[Value]:
        (least_found,) = found
        start = b.element(c, b.mul(i, c_row), F32)
        for v in range(vectors):
            bits = b.load(b.element(start, const(v * TILE, I64), F32), vector)
            magnitude = b.and_(bits, const(_MAGNITUDE, vector))
            least_found = b.intrinsic("umin", vector, least_found, magnitude)
        return [least_found]

    (found,) = b.loop(ZERO, const(rows, I64), 1, [const(-1, vector)], row)
    return b.any(b.compare("lt", found, limit))


# -- the block of numbers that tiles do not take -------------------------------------------------

EXACT_PARAMETERS = [
    ("a", PTR), ("b", PTR), ("c", PTR), ("cr", I64), ("rows", I64), ("vectors", I64), ("d", I64),
]  # fmt: skip
# Rows that share the numbers of B, which take longer to add up than to multiply.
_TOGETHER = 4


def emit_exact(module: Module, name: str) -> None:
    """Define ``void name(a, b, c, c_row, rows, vectors, depth)``: the block of C from two panels of
    parts, by multiply-adds of float32."""
    b = module.define(
        name, VOID, EXACT_PARAMETERS, linkage="internal", attributes="nounwind noinline cold"
    )
    a, b_, c, c_row, rows, vectors, depth = b.parameters
    vector = F32.vector(TILE)

    def numbers(place: Value, apart: int, lanes: int) -> list[Value]:
        """Add up the parts of two depths."""
        type = I32.vector(lanes) if lanes > 1 else I32
        parts = [b.load(b.element(place, const(p * apart, I64), I32), type) for p in range(PARTS)]
        float_ = F32.vector(lanes) if lanes > 1 else F32
        low = [b.bitcast(b.shl(x, const(16, type)), float_) for x in parts]
        high = [b.bitcast(b.and_(x, const(_HIGH, type)), float_) for x in parts]
        return [b.add(x, b.add(y, z)) for x, y, z in (low, high)]

    def block(row: Value, column: Value) -> list[Value]:
        def step(at: Value, sums: list[Value]) -> list[Value]:
            a_step, b_step = (b.element(x, b.mul(at, const(TILES.rows, I64)), I32) for x in (a, b_))
            a_step = b.element(a_step, b.mul(row, const(TILE, I64)), I32)

            def pair(e: Value, sums: list[Value]) -> list[Value]:
                place = b.add(b.mul(e, const(TILES.columns, I64)), column)
                ys = numbers(b.element(b_step, place, I32), TILE * TILES.columns, TILE)
                done: list[Value] = []
                for r, total in enumerate(sums):
                    place = b.add(const(r * TILE, I64), e)
                    xs = numbers(b.element(a_step, place, I32), TILE * TILES.rows, 1)
                    for x, y in zip(xs, ys, strict=True):
                        total = b.fma(b.splat(x, TILE), y, total)
                    done.append(total)
                return done

            return b.loop(ZERO, const(TILE, I64), 1, sums, pair)

        zeros = [const(0.0, vector)] * _TOGETHER
        sums = b.loop(ZERO, depth, PARTS * TILE, zeros, step)
        for r, total in enumerate(sums):
            place = b.add(b.mul(b.add(row, const(r, I64)), c_row), column)
            b.store(total, b.element(c, place, F32))
        return []

    def column(v: Value, _: list[Value]) -> list[Value]:
        start = b.mul(v, const(TILE, I64))
        b.loop(ZERO, rows, _TOGETHER, [], lambda row, _: block(row, start))
        return []

    b.loop(ZERO, vectors, 1, [], column)
    b.ret()
