"""What the math functions share: polynomials, exact sums and products, exponents, specials.

Error-free transformations follow Dekker (1971) and Knuth; double-word arithmetic follows
Joldes, Muller, Popescu, "Tight and rigorous error bounds for basic building blocks of
double-word arithmetic" (2017). A pair (hi, lo) stands for the unevaluated sum hi + lo.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from tracejit.codegen.builder import Builder, Type, Value, const
from tracejit.codegen.math import avx512

INF = float("inf")
NAN = float("nan")

T = TypeVar("T")


class Format(NamedTuple):
    """An IEEE format: bits of the stored mantissa, exponent bias, and smallest normal."""

    mantissa: int
    bias: int
    tiny: float

    @property
    def one(self) -> int:
        """The bit pattern of 1.0."""
        return self.bias << self.mantissa

    @property
    def infinity(self) -> int:
        """The bit pattern of +inf."""
        return (2 * self.bias + 1) << self.mantissa


FORMATS = {"f32": Format(23, 127, 2.0**-126), "f64": Format(52, 1023, 2.0**-1022)}


class Pair(NamedTuple):
    """hi + lo with |lo| at most half an ulp of hi (unless a function says otherwise)."""

    hi: Value
    lo: Value


def format_of(x: Value) -> Format:
    return FORMATS[x.type.kind]


def pick(x: Value, *, f32: T, f64: T) -> T:
    """Choose by element type."""
    return f32 if x.type.kind == "f32" else f64


def like(value: float | bool, x: Value) -> Value:
    """Return a literal of ``x``'s type."""
    return const(value, x.type)


# -- bits ------------------------------------------------------------------------------------------


def integer_type(type: Type) -> Type:
    """The integer type of the same shape and width."""
    return type.like("i32" if type.bits == 32 else "i64")


def to_bits(b: Builder, x: Value) -> Value:
    return b.bitcast(x, integer_type(x.type))


def from_bits(b: Builder, i: Value) -> Value:
    return b.bitcast(i, i.type.like("f32" if i.type.bits == 32 else "f64"))


def bits_of(value: float, kind: str) -> int:
    """The bit pattern of ``value`` in format ``kind``, as a signed integer."""
    codes = ("<f", "<i") if kind == "f32" else ("<d", "<q")
    return struct.unpack(codes[1], struct.pack(codes[0], value))[0]


def value_of(bits: int, kind: str) -> float:
    """The number of format ``kind`` with this (signed) bit pattern."""
    codes = ("<f", "<i") if kind == "f32" else ("<d", "<q")
    return struct.unpack(codes[0], struct.pack(codes[1], bits))[0]


def sign_bit(b: Builder, x: Value) -> Value:
    """Return the sign bit of ``x`` in place, as an integer vector."""
    i = to_bits(b, x)
    return b.and_(i, const(-(1 << (x.type.bits - 1)), i.type))


def flip_sign(b: Builder, x: Value, sign: Value) -> Value:
    """Negate ``x`` where ``sign`` (from ``sign_bit``) is set."""
    return from_bits(b, b.xor(to_bits(b, x), sign))


# -- polynomials -----------------------------------------------------------------------------------


def horner(b: Builder, x: Value, coefficients: Sequence[float]) -> Value:
    """Return c[0] + c[1] x + c[2] x² + …: fewest operations, one long chain."""
    total = like(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        total = b.fma(total, x, like(c, x))
    return total


def estrin(b: Builder, x: Value, coefficients: Sequence[float]) -> Value:
    """Return the same sum by pairs: a few more products, a chain of logarithmic length."""
    terms = [like(c, x) for c in coefficients]
    power = x
    while len(terms) > 1:
        paired = [
            b.fma(terms[i + 1], power, terms[i]) if i + 1 < len(terms) else terms[i]
            for i in range(0, len(terms), 2)
        ]
        terms = paired
        if len(terms) > 1:
            power = b.mul(power, power)
    return terms[0]


def polynomial(b: Builder, x: Value, coefficients: Sequence[float]) -> Value:
    """Return the same sum by the faster way for its length.

    Measured on Zen 3: from eight coefficients on the chain of Horner's rule no longer hides
    behind the neighbouring iterations (double exp: 1.4 ns an element against 1.2).
    """
    return (estrin if len(coefficients) >= 8 else horner)(b, x, coefficients)


# -- exact sums and products -----------------------------------------------------------------------


def fnma(b: Builder, a: Value, c: Value, d: Value) -> Value:
    """Return ``d - a*c``; fused where the target has it."""
    if b.target.fma:
        return b.fma(b.neg(a), c, d)
    return b.sub(d, b.mul(a, c))


def two_sum(b: Builder, x: Value, y: Value) -> Pair:
    """Return x + y exactly (Knuth, 6 operations); any order of magnitudes."""
    s = b.add(x, y)
    t = b.sub(s, x)
    return Pair(s, b.add(b.sub(x, b.sub(s, t)), b.sub(y, t)))


def fast_two_sum(b: Builder, x: Value, y: Value) -> Pair:
    """Return x + y exactly (Dekker, 3 operations) where |x| >= |y| or x = 0."""
    s = b.add(x, y)
    return Pair(s, b.sub(y, b.sub(s, x)))


def split(b: Builder, x: Value) -> Pair:
    """Cut ``x`` into two halves of the mantissa (Veltkamp); overflows near the largest float."""
    t = b.mul(x, like(pick(x, f32=2.0**12 + 1, f64=2.0**27 + 1), x))
    hi = b.sub(t, b.sub(t, x))
    return Pair(hi, b.sub(x, hi))


# How many low bits to clear so that the product of two such heads is exact.
HALF_MANTISSA = {"f32": 12, "f64": 27}


def high_part(b: Builder, x: Value) -> Value:
    """Return ``x`` with the lower half of its mantissa cleared: one instruction."""
    low = HALF_MANTISSA[x.type.kind]
    return from_bits(b, b.and_(to_bits(b, x), const(-(1 << low), integer_type(x.type))))


def two_prod(b: Builder, x: Value, y: Value) -> Pair:
    """Return x * y exactly: 2 operations with FMA, 17 without (Dekker)."""
    p = b.mul(x, y)
    if b.target.fma:
        return Pair(p, b.fma(x, y, b.neg(p)))
    (xh, xl), (yh, yl) = split(b, x), split(b, y)
    error = b.sub(b.mul(xh, yh), p)
    error = b.add(b.add(error, b.mul(xh, yl)), b.mul(xl, yh))
    return Pair(p, b.add(error, b.mul(xl, yl)))


def times_constant(b: Builder, x: Value, value: float, rest: float) -> Pair:
    """Return x * (value + rest) as hi + lo, not normalised; ``rest`` is ``value``'s error.

    Without FMA the head of x (half the mantissa) meets the head of the constant exactly.
    """
    if b.target.fma:
        p = b.mul(x, like(value, x))
        return Pair(p, b.fma(x, like(rest, x), b.fma(x, like(value, x), b.neg(p))))
    kind = x.type.kind
    head = high_part(b, x)
    value_head = value_of(bits_of(value, kind) & -(1 << HALF_MANTISSA[kind]), kind)
    value_tail = (value - value_head) + rest
    tail = b.mul(b.sub(x, head), like(value, x))
    return Pair(b.mul(head, like(value_head, x)), b.add(tail, b.mul(head, like(value_tail, x))))


def pair_add(b: Builder, x: Pair, y: Pair) -> Pair:
    """Return x + y with relative error about 2u² unless the terms cancel (sloppy sum)."""
    s = two_sum(b, x.hi, y.hi)
    return fast_two_sum(b, s.hi, b.add(s.lo, b.add(x.lo, y.lo)))


def pair_mul(b: Builder, x: Pair, y: Pair) -> Pair:
    """Return x * y with relative error about 5u²."""
    p = two_prod(b, x.hi, y.hi)
    cross = b.fma(x.hi, y.lo, b.mul(x.lo, y.hi))
    return fast_two_sum(b, p.hi, b.add(p.lo, cross))


def pair_mul_value(b: Builder, x: Pair, y: Value) -> Pair:
    """Return x * y for a plain ``y``."""
    p = two_prod(b, x.hi, y)
    return fast_two_sum(b, p.hi, b.fma(x.lo, y, p.lo))


def quotient(b: Builder, x: Pair, y: Pair) -> Value:
    """Return x / y rounded once from an error of about 2u²: one division and its remainder."""
    inverse = b.div(like(1.0, y.hi), y.hi)
    q = b.mul(x.hi, inverse)
    p = two_prod(b, q, y.hi)
    rest = b.sub(b.add(b.sub(b.sub(x.hi, p.hi), p.lo), x.lo), b.mul(q, y.lo))
    return b.fma(rest, inverse, q)


def pair_const(value: Sequence[float], x: Value) -> Pair:
    """Return a literal pair (hi, lo)."""
    return Pair(like(value[0], x), like(value[1], x))


# -- exponents -------------------------------------------------------------------------------------


def nearest(b: Builder, x: Value, scale: float, *, bias: int = 0) -> tuple[Value, Value]:
    """Return round(x * scale) as a float and, in the low bits, plus ``bias``, as an integer.

    Adding 1.5·2^p leaves the integer in the low bits of the sum: no conversion instruction, which
    AVX2 lacks for 64 bits. Right for |x * scale| < 2^(p - 2), p = 23 or 52. Only the low bits of
    the integer mean something: shift it left by ``mantissa`` to make an exponent of it (add the
    exponent bias through ``bias``).
    """
    magic = 1.5 * 2.0 ** format_of(x).mantissa
    shifted = b.fma(x, like(scale, x), like(magic + bias, x))
    return b.sub(shifted, like(magic + bias, x)), to_bits(b, shifted)


def pow2(b: Builder, low_bits: Value) -> Value:
    """Return 2^n from an integer whose low bits hold n + exponent bias (normal results only)."""
    mantissa = FORMATS["f32" if low_bits.type.bits == 32 else "f64"].mantissa
    return from_bits(b, b.shl(low_bits, const(mantissa, low_bits.type)))


def shift_exponent(b: Builder, x: Value, n: Value) -> Value:
    """Return x * 2^n by adding n (integer, its low bits count) to the exponent field.

    Only right where ``x`` and the result are normal numbers.
    """
    field = b.shl(n, const(format_of(x).mantissa, n.type))
    return from_bits(b, b.add(to_bits(b, x), field))


def positive_scaled(b: Builder, p: Value, n: Value, most: float = 2.0) -> Value:
    """Return p * 2^floor(n) on AVX-512, rounded once, for p in (0, most) or NaN.

    ``most`` is a power of 2; it need hold only where the result is tiny.
    """
    return avx512.scalef_or_zero(b, p, n, _vanishing(p, most) + 1)


def _vanishing(p: Value, most: float) -> float:
    """Return the largest n for which most · 2^n is at most half the least subnormal."""
    form = format_of(p)
    return -(form.bias + form.mantissa) - math.log2(most)


def _without_vanishing(b: Builder, p: Value, n: Value, most: float) -> Value:
    """Return ``p``, and 0 where p · 2^n would be rounded to 0.

    A product that underflows asks microcode for help, which takes as long as 10 exponentials; one
    with 0 does not. (Subnormal results still do.)
    """
    vanishes = b.compare("le", n, like(_vanishing(p, most), p))
    return b.select(vanishes, like(0.0, p), p)


def scale_by_sign(
    b: Builder, p: Value, n: Value, low_bits: Value, sign: Value, *, signed: bool = False
) -> Value:
    """Return p * 2^n with one rounding, for results anywhere from 0 over subnormals to inf.

    ``p`` is positive, negative too with ``signed``, and below 2 (or NaN, which stays); ``n`` is a
    float integer within ±1.2 times the largest exponent, and ``low_bits`` the same plus twice the
    exponent bias (``nearest(..., bias=)``); ``sign`` is a float with n's sign (for n = 0: any). 2^n
    may be too large or small for a normal number, 2^(n - k) and 2^k are not, with k of n's sign;
    the first product is exact.
    """
    if avx512.available(b):
        return avx512.scalef(b, p, n) if signed else positive_scaled(b, p, n)
    if not signed:
        p = _without_vanishing(b, p, n, 2.0)
    k = pick(p, f32=40, f64=120)
    negative = b.compare("lt", sign, like(0.0, p))
    factor = b.select(negative, like(2.0**-k, p), like(2.0**k, p))
    field = b.shl(low_bits, const(format_of(p).mantissa, low_bits.type))
    rest = from_bits(b, b.sub(field, to_bits(b, factor)))
    return b.mul(b.mul(p, rest), factor)


# 2^-SCALE_DOWN lifts every subnormal result into the normal range.
SCALE_DOWN = {"f32": 40, "f64": 120}


def scale_down(b: Builder, p: Value, n: Value, low_bits: Value, *, most: float = 2.0) -> Value:
    """Return p * 2^n with one rounding, for n <= 0 down to where the result is 0.

    ``p`` is in (0, most), where the result is tiny.
    ``low_bits`` holds n + exponent bias + SCALE_DOWN; a NaN in ``p`` stays.
    """
    if avx512.available(b):
        return positive_scaled(b, p, n, most)
    p = _without_vanishing(b, p, n, most)
    k = SCALE_DOWN[p.type.kind]
    return b.mul(b.mul(p, pow2(b, low_bits)), like(2.0**-k, p))


def ldexp(b: Builder, x: Value, n: Value) -> Value:
    """Return x * 2^n for any float ``x`` and any integer ``n`` (same width), rounded once.

    At most three products by normal powers of two. A step down by less than the full range
    leaves a remainder below -mantissa, so that a step that rounds a subnormal is followed by one
    that makes it 0: no double rounding.
    """
    form = format_of(x)
    lowest = const(1 - form.bias, n.type)
    down = const(1 - form.bias + form.mantissa + 1, n.type)
    highest = const(form.bias, n.type)
    bias = highest
    for _ in range(2):
        capped = b.select(b.compare("gt", n, highest), highest, n)
        step = b.select(b.compare("lt", n, lowest), down, capped)
        x = b.mul(x, pow2(b, b.add(step, bias)))
        n = b.sub(n, step)
    n = b.select(b.compare("gt", n, highest), highest, n)
    n = b.select(b.compare("lt", n, lowest), lowest, n)
    return b.mul(x, pow2(b, b.add(n, bias)))


def split_exponent(b: Builder, x: Value, low: float) -> tuple[Value, Value]:
    """Return (m, e) with x = m * 2^e, m in [low, 2 low), e a float; x positive and normal.

    ``low`` lies in (0.5, 1]. Anything else in ``x`` gives arbitrary finite values, not traps.
    """
    form = format_of(x)
    offset = bits_of(low, x.type.kind)
    bits = to_bits(b, x)
    # With the offset taken away, the exponent field changes where the mantissa crosses ``low``.
    moved = b.sub(bits, const(offset, bits.type))
    if x.type.bits == 32:
        exponent = b.ashr(moved, const(form.mantissa, bits.type))
        field = b.shl(exponent, const(form.mantissa, bits.type))
        return from_bits(b, b.sub(bits, field)), b.convert(exponent, x.type)
    # AVX2 has neither a 64-bit arithmetic shift nor a conversion: move into the positive range,
    # and turn the field into a float by placing it in the mantissa of 2^52.
    moved = b.add(moved, const(form.one, bits.type))
    exponent = b.lshr(moved, const(form.mantissa, bits.type))
    mantissa = b.and_(moved, const((1 << form.mantissa) - 1, bits.type))
    m = from_bits(b, b.add(mantissa, const(offset, bits.type)))
    placed = from_bits(b, b.or_(exponent, const(bits_of(2.0**52, "f64"), bits.type)))
    return m, b.sub(placed, like(2.0**52 + form.bias, x))


# -- special values --------------------------------------------------------------------------------


def outside(b: Builder, x: Value, least: float) -> Value:
    """Whether x is anything but a finite number from ``least`` up: one add, one compare."""
    form = format_of(x)
    bits = to_bits(b, x)
    low = bits_of(least, x.type.kind)
    # Rotate the integers so that [least, inf) lies at the bottom of the signed range.
    bottom = -(1 << (x.type.bits - 1))
    moved = b.add(bits, const(bottom - low, bits.type))
    return b.compare("ge", moved, const(bottom + form.infinity - low, bits.type))


def not_normal(b: Builder, x: Value) -> Value:
    """Whether x is anything but a positive normal finite number."""
    return outside(b, x, value_of(1 << format_of(x).mantissa, x.type.kind))


def at_most(b: Builder, x: Value, limit: float) -> Value:
    """Return min(x, limit), and NaN for NaN, in one instruction."""
    bound = like(limit, x)
    return b.select(b.compare("gt", x, bound), bound, x)


def at_least(b: Builder, x: Value, limit: float) -> Value:
    """Return max(x, limit), and NaN for NaN, in one instruction."""
    bound = like(limit, x)
    return b.select(b.compare("lt", x, bound), bound, x)


def rare(
    b: Builder,
    name: str,
    mask: Value,
    usual: Value,
    arguments: Sequence[Value],
    body: Callable[[Builder, Sequence[Value]], Value],
) -> Value:
    """Return ``usual``, and ``body(b, arguments)`` in the lanes of ``mask``.

    The body is a cold function of its own, called only where some lane needs it. A lane's result
    depends on its own mask bit alone.
    """
    type = usual.type
    symbol = b.module.require(
        f"tj.{name}.{type.suffix}", type, [a.type for a in arguments], body, cold=True
    )

    def fix() -> list[Value]:
        return [b.select(mask, b.call(symbol, type, *arguments), usual)]

    return b.if_(b.any(mask), fix, lambda: [usual])[0]
