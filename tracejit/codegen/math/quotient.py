"""Correctly rounded quotients by a divisor that many share, out of multiplications.

A processor's divider makes one vector of quotients in 5 to 16 cycles. Where many numbers are
divided by one z, as the elements of a row by their sum, 1/z is divided once, and each quotient
takes four multiply-adds. The result is IEEE's, bit for bit.

With r = RN(1/z), e = 1 - z·r (exact) and l = RN(e·r), 1/z is r + l up to a factor 1 + 2u², where
u = 2^-p for p bits. Then for q = x/z::

    q₀ = RN(x·r + RN(x·l))    |q₀ - q| <= (1/2 + 3u) ulp(q)
    d  = RN(x - q₀·z)         exact: a multiple of ulp(z)·ulp(q), and less than 2^p of them
    q₁ = RN(q₀ + d·r)

(Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", IBM J. Res.
Dev. 34, 1990.) Since q₀ + d/z = q, what is rounded last is off q by at most |q₀ - q| times the
relative error of r. That error is at most Z·2^-2p, where Z < 2^p is the integer mantissa of z:
1/z scaled to an integer grid is 2^(2p-1)/Z, and rounded to the nearest. A quotient, on the other
hand, keeps a distance of at least ulp(q)/2Z from the middle of two floats: a middle is an odd
integer M of p + 1 bits, so X·2^k - M·Z is not 0, as M divides no X < M. So q₁ is right where
(1/2 + 3u)·Z·2^-2p < 1/2Z, that is Z²·(1 + 6u) < 2^2p, which holds for all Z but the largest three.

Those divisors, and numbers beyond ``_LIMIT``, where a product might be subnormal, are divided. A
check a step finds them. 0 is among them: its quotient's sign would be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.math.common import bits_of, fnma, format_of, like, to_bits

# Exponents, up and down, of the numbers that are not divided: with q > 2^(-2·limit - 1), the error
# of a subnormal x·l, half the least float, is less than u²·q.
_LIMIT = {"f32": 48, "f64": 480}
# How many of the largest mantissas are divided by.
_LARGEST = 3


class Inverse(NamedTuple):
    """z, 1/z as the sum of two floats, and how many magnitudes from the least are multiplied."""

    z: Value
    high: Value
    low: Value
    span: Value


def inverse(b: Builder, z: Value) -> Inverse:
    """Return what ``quotients`` by ``z`` need, a scalar or a vector; the target has FMA."""
    one, bits = like(1.0, z), to_bits(b, z)
    high = b.div(one, z)
    low = b.mul(fnma(b, z, high, one), high)
    ones = (1 << format_of(z).mantissa) - 1
    mantissa = b.and_(bits, const(ones, bits.type))
    span = const(_span(z), bits.type)
    usual = b.and_(
        b.compare("lt", mantissa, const(ones - _LARGEST + 1, bits.type)),
        b.compare("ult", _above_least(b, z), span),
    )
    return Inverse(z, high, low, b.select(usual, span, const(0, bits.type)))


def quotients(
    b: Builder, xs: Sequence[Value], by: Inverse, *, integers: bool = False
) -> list[Value]:
    """Return x / z for vectors x, of as many lanes as ``by``.

    ``integers``: the x are integers below 2^48, and none is -0. They need no check a step: 0 is as
    good as others where z is positive.
    """
    z, high, low, span = by
    special: Value | None = None
    if integers:
        divided = b.compare("eq", span, const(0, span.type))
        special = b.or_(divided, b.compare("lt", z, like(0.0, z)))
    else:
        for x in xs:
            beyond = b.compare("uge", _above_least(b, x), span)
            special = beyond if special is None else b.or_(special, beyond)
    assert special is not None, "quotients of nothing"

    def multiplied() -> list[Value]:
        result: list[Value] = []
        for x in xs:
            q = b.fma(x, high, b.mul(x, low))
            result.append(b.fma(fnma(b, q, z, x), high, q))
        return result

    return b.if_(b.any(special), lambda: [b.div(x, z) for x in xs], multiplied)


def _above_least(b: Builder, x: Value) -> Value:
    """Return how far |x| is above the least number that is not divided, in bit patterns."""
    bits = to_bits(b, x)
    magnitude = b.and_(bits, const((1 << (x.type.bits - 1)) - 1, bits.type))
    least = bits_of(2.0 ** -_LIMIT[x.type.kind], x.type.kind)
    return b.sub(magnitude, const(least, bits.type))


def _span(x: Value) -> int:
    """Return how many bit patterns lie between the least and the largest number not divided."""
    limit, kind = _LIMIT[x.type.kind], x.type.kind
    return bits_of(2.0**limit, kind) - bits_of(2.0**-limit, kind)
