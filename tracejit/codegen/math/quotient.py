"""Correctly rounded quotients out of multiplications: IEEE's x/z, bit for bit.

A processor's divider makes one vector of quotients in 5 to 16 cycles; this takes two or three. With
y = RN(1/z), for floats of p bits and u = 2^-p::

    q₀ = RN(x·y)
    q₁ = RN(q₀ + RN(x - q₀·z)·y)

(Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", IBM J. Res.
Dev. 34, 1990). Let x and z lie in [1, 2), with integer mantissas X and Z < 2^p - 32, and measure
q = x/z in its ulps. y is off by at most Z·2^-2p of 1/z, since 1/z scaled to an integer grid is
rounded to the nearest. Let t be the distance of q from the nearest middle of two floats. It is
1/2Z at least: a middle is an odd integer M of p + 1 bits, so X·2^k - M·Z is not 0, as M divides no
X < M. x·y is s away from q, and |s| <= x/2 <= z/2 < 1 - 16u for q < 1, |s| <= 1/2 otherwise.

- If q₀ is a neighbour of that middle, |q₀ - q| <= 1/2 + t <= 1. Then x - q₀·z is exact: a multiple
  of ulp(z)·ulp(q), and no more than 2^p of them. What is rounded last is off q by at most
  (1/2 + t)·Z·2^-2p. That is less than t, for Z² < (1 - u)·2^2p.
- If not, x·y has passed a float beyond, so t > 1 - |s| > 16u, and |q₀ - q| < 3/2. What is rounded
  last is off by less than 4u, with the rounding of the difference.

The largest mantissas, and numbers beyond ``_LIMIT``, where something might be subnormal, are
divided. A check a step finds them. 0 is among them: the sign of a quotient -0 would be lost.

Where many numbers are divided by one z, as the elements of a row by their sum, y is divided once.
Where each has a z of its own, every second vector is multiplied, on AVX-512, while the divider
makes the other. There Newton's steps y + y·(1 - z·y) take the processor's estimate of 1/z, which is
off by 2^-14, to less than one ulp; 1 - z·y is exact then, and one more step rounds to RN(1/z), but
for the mantissa of ones alone (Markstein, too). So any estimate within its bound will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.math import avx512
from tracejit.codegen.math.common import bits_of, fnma, format_of, like, pick, to_bits

# Exponents, up and down, of the numbers that are not divided.
_LIMIT = {"f32": 48, "f64": 480}
# How many of the largest mantissas are divided by, a power of 2.
_LARGEST = 32


class Inverse(NamedTuple):
    """z, 1/z rounded, and how many magnitudes from the least are multiplied."""

    z: Value
    inverse: Value
    span: Value


def inverse(b: Builder, z: Value) -> Inverse:
    """Return what ``quotients`` by ``z`` need, a scalar or a vector; the target has FMA."""
    bits = to_bits(b, z)
    span, none = const(_span(z), bits.type), const(0, bits.type)
    return Inverse(z, b.div(like(1.0, z), z), b.select(_unfit(b, z), none, span))


def quotients(
    b: Builder, xs: Sequence[Value], by: Inverse, *, integers: bool = False
) -> list[Value]:
    """Return x / z for vectors x, of as many lanes as ``by``.

    ``integers``: the x are integers below 2^48, none of them -0, which need no check a step.
    """
    z, y, span = by
    if integers:
        special = b.compare("eq", span, const(0, span.type))
    else:
        special = _or(b, [b.compare("uge", _above_least(b, x), span) for x in xs])
    return b.if_(
        b.any(special),
        lambda: [b.div(x, z) for x in xs],
        lambda: [_multiplied(b, x, z, y) for x in xs],
    )


def by_turns(b: Builder, xs: Sequence[Value], zs: Sequence[Value]) -> list[Value]:
    """Return x / z for vectors of AVX-512, every second one by multiplications."""
    special: list[Value] = []
    for x, z in zip(xs[1::2], zs[1::2], strict=True):
        distance = _above_least(b, x)
        special += [b.compare("uge", distance, const(_span(x), distance.type)), _unfit(b, z)]
    pairs = list(zip(xs, zs, strict=True))

    def multiplied() -> list[Value]:
        return [
            apart(b, x, z, avx512.inverse(b, z)) if i % 2 else b.div(x, z)
            for i, (x, z) in enumerate(pairs)
        ]

    return b.if_(b.any(_or(b, special)), lambda: [b.div(x, z) for x, z in pairs], multiplied)


def apart(b: Builder, x: Value, z: Value, y: Value) -> Value:
    """Return x / z from an estimate y of 1/z, for numbers that are not divided."""
    for _ in range(pick(z, f32=2, f64=3)):
        y = b.fma(fnma(b, z, y, like(1.0, z)), y, y)
    return _multiplied(b, x, z, y)


def _multiplied(b: Builder, x: Value, z: Value, y: Value) -> Value:
    """Return x / z, given y = 1/z, rounded."""
    q = b.mul(x, y)
    return b.fma(fnma(b, q, z, x), y, q)


def _or(b: Builder, masks: Sequence[Value]) -> Value:
    result, *others = masks
    for mask in others:
        result = b.or_(result, mask)
    return result


def _unfit(b: Builder, z: Value) -> Value:
    """Whether what ``z`` divides is divided: for its size, or for its mantissa."""
    bits = to_bits(b, z)
    outside = b.compare("uge", _above_least(b, z), const(_span(z), bits.type))
    ones = const((1 << format_of(z).mantissa) - _LARGEST, bits.type)
    return b.or_(outside, b.compare("eq", b.and_(bits, ones), ones))


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
