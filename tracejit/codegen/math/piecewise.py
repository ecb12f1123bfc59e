"""Functions as sixteen polynomials, one per interval, their coefficients picked by a permutation.

AVX-512 permutes sixteen floats or doubles by run-time indices in one instruction, from registers
or the L1 cache. A function that saturates (erf, tanh) then is one short polynomial on each of
sixteen intervals, without exponential and without division. Lanes that have no such instruction
(scalars, odd widths) gather from memory, with the same bits.

Accurate tables (Gal and Bachelis, "An accurate elementary mathematical library for the IEEE
floating point standard", 1991): the centre c of an interval is moved to where f(c) is within 2^-7
ULP of a float, so that f(c) + t p(t), t = x - c, has hardly more than its last rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.math.common import (
    at_most,
    flip_sign,
    format_of,
    like,
    sign_bit,
    to_bits,
)

INTERVALS = 16


class Pieces(NamedTuple):
    """An odd function f on [0, limit], f(limit) rounding to its limit at infinity.

    Interval i holds 1 + scale x whose exponent and first mantissa bits (``per_octave`` intervals
    in [1, 2)) count to i from those of 1. There f(x) = values[i] + t p(t), t = x - centres[i],
    with the coefficients of t^k in row k; in interval 0, f(x) = x + x p(x).
    """

    limit: float
    scale: float
    per_octave: int
    centres: tuple[float, ...]
    values: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]


def has_tables(b: Builder) -> bool:
    """Whether the target permutes sixteen values by run-time indices."""
    return {"avx512f", "avx512vl"} <= b.target.flags


def lookup(b: Builder, name: str, table: Sequence[float], index: Value) -> Value:
    """Return table[index mod 16] per lane, as floats of the width of ``index``; 16 entries.

    ``name`` is that of the table in memory, where lanes have no permutation. A lane's value does
    not depend on which way is taken.
    """
    type = index.type.like("f32" if index.type.bits == 32 else "f64")
    shape = (type.kind, type.lanes)
    if shape == ("f32", 16):
        intrinsic = "llvm.x86.avx512.permvar.sf.512"
        return b.call(intrinsic, type, _vector(table, type.lanes, index), index)
    halves = {("f64", 8): "pd.512", ("f32", 8): "ps.256"}.get(shape)
    if halves is not None:
        low, high = (_vector(part, type.lanes, index) for part in (table[:8], table[8:]))
        return b.call(f"llvm.x86.avx512.vpermi2var.{halves}", type, low, index, high)
    address = b.module.table(f"{name}.{type.kind}", table, type.element)
    return b.gather(address, b.and_(index, const(INTERVALS - 1, index.type)), type)


def _vector(values: Sequence[float], lanes: int, index: Value) -> Value:
    """Return a literal vector with these elements."""
    type = index.type.like("f32" if index.type.bits == 32 else "f64")
    body = ", ".join(f"{type.element} {const(v, type.element).text}" for v in values)
    return Value(f"<{body}>", type)


def odd_pieces(b: Builder, name: str, x: Value, pieces: Pieces) -> Value:
    """Return the odd function that ``pieces`` describe, NaN for NaN."""
    form = format_of(x)
    magnitude = at_most(b, b.abs(x), pieces.limit)
    y = b.fma(magnitude, like(pieces.scale, x), like(1.0, x))
    bits = to_bits(b, y)
    mantissa_bits = pieces.per_octave.bit_length() - 1
    index = b.lshr(bits, const(form.mantissa - mantissa_bits, bits.type))
    first = form.bias << mantissa_bits

    def pick_piece(label: str, values: Sequence[float]) -> Value:
        # The indices count from ``first``, the permutation from 0.
        turned = [values[(i - first) % INTERVALS] for i in range(INTERVALS)]
        return lookup(b, f"tj.{name}.{label}", turned, index)

    t = b.sub(magnitude, pick_piece("centre", pieces.centres))
    *rows, last = enumerate(pieces.coefficients)
    p = pick_piece(*_row(last))
    for row in reversed(rows):
        p = b.fma(p, t, pick_piece(*_row(row)))
    at_zero = b.compare("lt", y, like(1.0 + 1.0 / pieces.per_octave, x))
    value = b.select(at_zero, t, pick_piece("value", pieces.values))
    return flip_sign(b, b.fma(t, p, value), sign_bit(b, x))


def _row(numbered: tuple[int, tuple[float, ...]]) -> tuple[str, tuple[float, ...]]:
    number, values = numbered
    return str(number), values
