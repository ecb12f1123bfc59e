"""Floats taken apart and put together: exponents, fractions, the distance of neighbours."""

from __future__ import annotations

from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.math.common import (
    NAN,
    format_of,
    from_bits,
    ldexp,
    like,
    outside,
    to_bits,
)


def scaled(b: Builder, x: Value, n: Value) -> Value:
    """Return x · 2ⁿ, rounded once, for any integer n."""
    bits = to_bits(b, x).type
    # From zero to infinity in less than twice the exponents there are.
    most = const(4 * format_of(x).bias, n.type)
    n = b.select(b.compare("gt", n, most), most, n)
    n = b.select(b.compare("lt", n, b.neg(most)), b.neg(most), n)
    return ldexp(b, x, b.convert(n, bits))


def fraction(b: Builder, x: Value) -> Value:
    """Return m with x = m · 2ᵉ, ½ ≤ |m| < 1; zeros, infinities and NaN themselves."""
    form = format_of(x)
    normal, _ = _normal(b, x)
    bits = to_bits(b, normal)
    field = const(((1 << (x.type.bits - 1 - form.mantissa)) - 1) << form.mantissa, bits.type)
    half = const((form.bias - 1) << form.mantissa, bits.type)
    m = from_bits(b, b.or_(b.and_(bits, b.not_(field)), half))
    return b.select(_finite(b, x), m, b.add(x, x))


def exponent(b: Builder, x: Value) -> Value:
    """Return e with x = m · 2ᵉ, ½ ≤ |m| < 1, as i32; 0 for zeros, infinities and NaN."""
    form = format_of(x)
    normal, moved = _normal(b, x)
    magnitude = to_bits(b, b.abs(normal))
    e = b.sub(b.lshr(magnitude, const(form.mantissa, magnitude.type)), moved)
    e = b.select(_finite(b, x), e, const(0, e.type))
    return b.convert(e, e.type.like("i32"))


def _finite(b: Builder, x: Value) -> Value:
    """Whether x is a number other than 0."""
    least = 2.0 ** (1 - format_of(x).bias - format_of(x).mantissa)
    return b.not_(outside(b, b.abs(x), least))


def _normal(b: Builder, x: Value) -> tuple[Value, Value]:
    """Return x times a power of two that makes it normal, and the exponent's bias with it."""
    form = format_of(x)
    up = form.mantissa + 1
    subnormal = b.compare("lt", b.abs(x), like(form.tiny, x))
    bits = to_bits(b, x).type
    bias = b.select(subnormal, const(form.bias - 1 + up, bits), const(form.bias - 1, bits))
    return b.select(subnormal, b.mul(x, like(2.0**up, x)), x), bias


def spacing(b: Builder, x: Value) -> Value:
    """Return the distance to the next float away from zero, with the sign of x; least at 0."""
    bits = to_bits(b, x)
    one = const(1, bits.type)
    distance = b.sub(from_bits(b, b.add(bits, one)), x)
    distance = b.select(b.compare("eq", x, like(0.0, x)), from_bits(b, one), distance)
    infinite = b.compare("eq", b.abs(x), like(float("inf"), x))
    return b.select(infinite, like(NAN, x), distance)
