"""sin, cos and tan of doubles by a table of the sixteenths of π, for AVX-512.

x = k π/16 + r, |r| <= π/32, and with S and C the sine and cosine of (k mod 16) π/16 from registers:

    sin x = ± (S cos r + C sin r)        cos x = ± (C cos r - S sin r)

The polynomials are half as long as those of a quarter turn, and there is no choice between them.
All parts but S and C are small, so that little but the last rounding counts. The sine and the
cosine of one argument share the reduction, the table and both polynomials. tan x takes a table of
tangents and the formula for the tangent of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.math import avx512
from tracejit.codegen.math.common import horner, like, nearest
from tracejit.codegen.math.lookup import lookup
from tracejit.codegen.math.tables import (
    SINE_TAILS,
    SINES,
    SIXTEENTH_COSINE,
    SIXTEENTH_OF_PI,
    SIXTEENTH_SINE,
    SIXTEENTH_TANGENT,
    TANGENT_SLOPES,
    TANGENT_TAILS,
    TANGENTS,
)

_COSINES = (*SINES[8:], *(-s for s in SINES[:8]))
_COSINE_TAILS = (*SINE_TAILS[8:], *(-s for s in SINE_TAILS[:8]))
_SIXTEEN_OVER_PI = 5.092958178940651
# The count then is below 2^23, and its product with the second part of π/16 exact.
_LIMIT = 1.6e6


def serves(b: Builder, x: Value) -> bool:
    """Whether this is for ``x``."""
    return x.type.kind == "f64" and avx512.available(b)


class Reduced(NamedTuple):
    """x = k π/16 + r, r = hi + lo; k in the low bits of an integer.

    ``too_large`` are the lanes beyond the range (not those of NaN, which passes through).
    """

    k: Value
    hi: Value
    lo: Value
    too_large: Value


def reduce(b: Builder, magnitude: Value) -> Reduced:
    """Reduce x >= 0.

    The first step is exact: the difference has no bits below those of π/16 and x. ``lo`` has what
    the second one rounds away (Dekker, or nothing under cancellation). What is missing is below
    2^-115; no double in range comes so near to a multiple of π/2 that this shows.
    """
    count, k = nearest(b, magnitude, _SIXTEEN_OVER_PI)
    first, second, third = (like(-p, magnitude) for p in SIXTEENTH_OF_PI)
    t = b.fma(count, first, magnitude)
    hi = b.fma(count, second, t)
    lo = b.fma(count, third, b.fma(count, second, b.sub(t, hi)))
    return Reduced(k, hi, lo, b.compare("gt", magnitude, like(_LIMIT, magnitude)))


def _beyond(b: Builder, reduced: Reduced, series: Sequence[float]) -> Value:
    """Return f(r) - hi for f(r) = r + r³ series(r²)."""
    z = b.mul(reduced.hi, reduced.hi)
    return b.fma(b.mul(z, reduced.hi), horner(b, z, series), reduced.lo)


def _turned(b: Builder, value: Value, tail: Value, slope: Value, reduced: Reduced) -> Value:
    """Return value cos r + slope sin r, ``tail`` being what ``value`` lacks."""
    z = b.mul(reduced.hi, reduced.hi)
    less = b.mul(z, horner(b, z, SIXTEENTH_COSINE))
    rest = b.fma(slope, _beyond(b, reduced, SIXTEENTH_SINE), b.fma(value, less, tail))
    return b.add(value, b.fma(slope, reduced.hi, rest))


def sine(b: Builder, reduced: Reduced) -> Value:
    """Return sin x, but for the sign."""
    s, tail, c = (lookup(b, t, reduced.k) for t in (SINES, SINE_TAILS, _COSINES))
    return _turned(b, s, tail, c, reduced)


def cosine(b: Builder, reduced: Reduced) -> Value:
    """Return cos x, but for the same sign."""
    c, tail, s = (lookup(b, t, reduced.k) for t in (_COSINES, _COSINE_TAILS, SINES))
    return _turned(b, c, tail, b.neg(s), reduced)


def sign(b: Builder, reduced: Reduced) -> Value:
    """Return the sign of both, as an integer vector: that of every other half turn."""
    top = b.shl(reduced.k, const(59, reduced.k.type))
    return b.and_(top, const(-(1 << 63), top.type))


def tangent(b: Builder, reduced: Reduced) -> Value:
    """Return tan x; with t = tan r, T and W = 1 + T² from tables, and next to the poles -1 / t.

    tan x = T + W t / (1 - T t) = T + (W t + W t q), q = T t / (1 - T t): the quotient with its
    roundings then is a part of the result only.
    """
    tables = (TANGENTS, TANGENT_TAILS, TANGENT_SLOPES)
    value, tail, slope = (lookup(b, t, reduced.k) for t in tables)
    beyond = _beyond(b, reduced, SIXTEENTH_TANGENT)
    t = b.add(reduced.hi, beyond)
    product = b.mul(value, t)
    sixteenth = b.and_(reduced.k, const(15, reduced.k.type))
    pole = b.compare("eq", sixteenth, const(8, sixteenth.type))
    one = like(1.0, t)
    above = b.select(pole, like(-1.0, t), product)
    q = b.div(above, b.select(pole, t, b.sub(one, product)))
    rest = b.fma(b.mul(slope, t), q, b.fma(slope, beyond, tail))
    return b.select(pole, q, b.add(value, b.fma(slope, reduced.hi, rest)))
