"""Functions as polynomials on 8, 16 or 32 intervals, their coefficients looked up in registers.

A function that is smooth and saturates (erf, tanh, the scaled erfc) then is one short polynomial,
without exponential and without division. For targets that have such look-ups: ``lookup.py``.

Accurate tables (Gal and Bachelis, "An accurate elementary mathematical library for the IEEE
floating point standard", 1991): the centre c of an interval is moved to where f(c) is within 2^-7
ULP of a float, so that f(c) + t p(t), t = x - c, has hardly more than its last rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.math.common import (
    Pair,
    at_most,
    flip_sign,
    format_of,
    like,
    sign_bit,
    to_bits,
)
from tracejit.codegen.math.lookup import lengths, lookup
from tracejit.codegen.math.piece_tables import Choice, Pieces


def choose(b: Builder, x: Value, choice: Choice) -> Pieces | None:
    """Return the pieces for the type of ``x`` whose tables the target can look up."""
    kind = x.type.kind
    found = (choice.get((kind, length)) for length in lengths(b, kind))
    return next((pieces for pieces in found if pieces is not None), None)


def _terms(b: Builder, x: Value, pieces: Pieces) -> tuple[Value, Value, Value]:
    """Return (t, p, v) with f(x) = v + t p for 0 <= x <= limit; t is NaN for NaN."""
    form = format_of(x)
    y = b.fma(x, like(pieces.scale, x), like(1.0, x))
    bits = to_bits(b, y)
    mantissa_bits = pieces.per_octave.bit_length() - 1
    index = b.lshr(bits, const(form.mantissa - mantissa_bits, bits.type))
    first = form.bias << mantissa_bits

    def of_piece(values: Sequence[float]) -> Value:
        # The indices count from ``first``, the table from 0.
        turned = [values[(i - first) % len(values)] for i in range(len(values))]
        return lookup(b, turned, index)

    t = b.sub(x, of_piece(pieces.centres))
    p = of_piece(pieces.coefficients[-1])
    for row in reversed(pieces.coefficients[:-1]):
        p = b.fma(p, t, of_piece(row))
    value = of_piece(pieces.values)
    if pieces.centres[0] == 0.0:
        at_zero = b.compare("lt", y, like(1.0 + 1.0 / pieces.per_octave, x))
        value = b.select(at_zero, t, value)
    return t, p, value


def on_pieces(b: Builder, x: Value, pieces: Pieces) -> Value:
    """Return f(x) for 0 <= x <= limit, NaN for NaN."""
    t, p, value = _terms(b, x, pieces)
    return b.fma(t, p, value)


def pair_on_pieces(b: Builder, x: Value, pieces: Pieces) -> Pair:
    """Return f(x) for 0 <= x <= limit with what its last rounding leaves."""
    t, p, value = _terms(b, x, pieces)
    hi = b.fma(t, p, value)
    return Pair(hi, b.fma(t, p, b.sub(value, hi)))


def odd_on_pieces(b: Builder, x: Value, pieces: Pieces) -> Value:
    """Return the odd function f(x), NaN for NaN; beyond the limit it has the value there."""
    y = on_pieces(b, at_most(b, b.abs(x), pieces.limit), pieces)
    return flip_sign(b, y, sign_bit(b, x))
