"""Arguments of the circular functions modulo π and π/2.

Two ranges. The common one subtracts n times π in pieces (Cody and Waite, "Software Manual for the
Elementary Functions", 1980), in vectors. Beyond, π would need a thousand bits: Payne and Hanek
("Radian reduction for trigonometric functions", SIGNUM Newsletter 18, 1983) multiply by just
those bits of 2/π that matter. That path is scalar integer arithmetic in a cold function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from tracejit.codegen.builder import F64, I32, I64, Builder, Type, Value, const
from tracejit.codegen.math.common import (
    Pair,
    fast_two_sum,
    flip_sign,
    from_bits,
    like,
    pick,
    sign_bit,
    to_bits,
    two_prod,
)

I128 = Type("i128")

# 2/π after the binary point, in words of 64 bits, after one word of zeros: exponents up to 2^1023
# need 1100 bits and the remainder of a double another 192.
_TWO_OVER_PI = (
    0x0000000000000000, 0xA2F9836E4E441529, 0xFC2757D1F534DDC0, 0xDB6295993C439041,
    0xFE5163ABDEBBC561, 0xB7246E3A424DD2E0, 0x06492EEA09D1921C, 0xFE1DEB1CB129A73E,
    0xE88235F52EBB4484, 0xE99C7026B45F7E41, 0x3991D639835339F4, 0x9C845F8BBDF9283B,
    0x1FF897FFDE05980F, 0xEF2F118B5A0A6D1F, 0x6D367ECF27CB09B7, 0x4F463F669E5FEA2D,
    0x7527BAC7EBE5F17B, 0x3D0739F78A5292EA, 0x6BFB5FB11F8D5D08, 0x56033046FC7B6BAB,
    0xF0CFBC209AF4361D,
)  # fmt: skip
PI_OVER_2 = (float.fromhex("0x1.921fb54442d18p+0"), float.fromhex("0x1.1a62633145c07p-54"))


# π/2 in pieces, the second and third so short that their products with n are exact. The limit is
# that of |x|: n stays below 2^20 (f64), 2^8 (f32), 2^11 (f32 with FMA, where the first difference
# is exact for any bits).
_PIECES_F64 = (
    1.5707963267341256,
    6.077100506303966e-11,
    2.0222662487111665e-21,
    8.4784276603689e-32,
)
_PIECES_F32 = (
    1.57073974609375,
    5.657970905303955e-05,
    9.920881893776823e-10,
    5.390302953474238e-15,
)
_PIECES_F32_FUSED = (1.570796251296997, 7.549533620476723e-08, 2.5633440682570896e-12)
_LIMIT_F64, _LIMIT_F32, LIMIT_F32_FUSED = 1.5 * 2**20, 400.0, 3200.0


def subtract_half_pi(b: Builder, x: Value, n: Value) -> tuple[Pair, float]:
    """Return x - n π/2 as a pair, n nearest 2 x / π, and the limit of 0 <= x for it to hold.

    With p₁, p₂, … the pieces: x - n p₁ is exact (the difference has no bits below those of n p₁
    and x), and so is the error of the next subtraction (Dekker, or none under cancellation). The
    absolute error is below 2^-130 (f64), 2^-63 (f32), 2^-50 (f32 with FMA); no argument in range
    comes so near to a multiple that this shows.
    """
    fused = x.type.kind == "f32" and b.target.fma
    pieces = _PIECES_F32_FUSED if fused else pick(x, f32=_PIECES_F32, f64=_PIECES_F64)
    limit = LIMIT_F32_FUSED if fused else pick(x, f32=_LIMIT_F32, f64=_LIMIT_F64)
    p1, p2, p3, *p4 = (like(-p, x) for p in pieces)
    t = b.fma(n, p1, x)
    r = b.fma(n, p2, t)
    error = b.fma(n, p2, b.sub(t, r))
    s = b.fma(n, p3, error)
    if not p4:
        return Pair(r, s), limit  # |s| may exceed half an ulp of r, but never 2^-24
    hi = b.add(r, s)
    lo = b.add(b.sub(r, hi), s)
    return Pair(hi, b.fma(n, p4[0], lo)), limit


def subtract_half_pi_fused(b: Builder, x: Value, n: Value) -> tuple[Value, Value]:
    """Return (r, less), x - n π/2 = r - less, for floats with FMA and |x| <= LIMIT_F32_FUSED.

    As above, for x of either sign; x = ±0 and n = 0 give r = x and less = +0.
    """
    p1, p2, p3 = _PIECES_F32_FUSED
    t = b.fma(n, like(-p1, x), x)
    r = b.fma(n, like(-p2, x), t)
    error = b.fma(n, like(p2, x), b.sub(r, t))
    return r, b.fma(n, like(p3, x), error)


def by_lane(b: Builder, x: Value, symbol: str) -> Value:
    """Apply scalar function ``symbol`` to each lane through memory: compact code for cold paths."""
    if x.type.lanes == 1:
        return b.call(symbol, x.type, x)
    slot = b.emit(Type("ptr"), f"alloca {x.type}, align 64")
    b.store(x, slot, align=64)

    def body(i: Value, _: list[Value]) -> list[Value]:
        address = b.element(slot, i, x.type)
        value = b.load(address, x.type.element)
        b.store(b.call(symbol, x.type.element, value), address)
        return []

    b.loop(const(0, I64), const(x.type.lanes, I64), 1, [], body)
    return b.load(slot, x.type, align=64)


class Remainder(NamedTuple):
    """x = quadrant * π/2 + (hi + lo), |hi| <= π/4; the low two bits of ``quadrant`` count.

    ``lo`` is None where ``hi`` is all there is.
    """

    quadrant: Value
    hi: Value
    lo: Value | None


def large_remainder(b: Builder, x: Value) -> Remainder:
    """Reduce one finite f64 (scalar) with |x| >= 2^-10 modulo π/2, right to 2^-64 relatively.

    x = m 2^e with a 53-bit m. Of the bits of 2/π those worth four quadrants or more are dropped;
    192 bits follow, whose product with m has 128 significant bits: two of the quadrant and 126
    of the fraction. The doubles closest to a multiple of π/2 have a fraction of 2^-62 (Muller,
    "Elementary Functions", 3rd ed., 11.3.2), which leaves 64 bits.
    """
    bits = to_bits(b, b.abs(x))
    m = b.or_(b.and_(bits, const((1 << 52) - 1, I64)), const(1 << 52, I64))
    # Bit i of the table (from 0, 64 of them zero) is worth 2^(e + 63 - i): e + 62 is worth 2.
    skip = b.sub(b.lshr(bits, const(52, I64)), const(1075 - 62, I64))
    skip = b.select(b.compare("lt", skip, const(0, I64)), const(0, I64), skip)
    w0, w1, w2 = (b.convert(w, I128, signed=False) for w in _window(b, skip, 3))
    m = b.convert(m, I128, signed=False)
    word = const(64, I128)
    product = b.add(b.shl(b.mul(m, w0), word), b.mul(m, w1))
    product = b.add(product, b.lshr(b.mul(m, w2), word))
    rounded = b.add(product, const(1 << 125, I128))
    quadrant = b.convert(b.lshr(rounded, const(126, I128)), I64)
    fraction = b.shl(product, const(2, I128))

    negative = b.compare("lt", fraction, const(0, I128))
    size = b.select(negative, b.neg(fraction), fraction)
    b.module.declare("llvm.ctlz.i128", "i128 @llvm.ctlz.i128(i128, i1)")
    zeros = b.emit(I128, f"call i128 @llvm.ctlz.i128(i128 {size.text}, i1 false)")
    # A zero fraction (only in lanes that nobody reads) must not shift by 128.
    zeros = b.and_(zeros, const(127, I128))
    size = b.shl(size, zeros)
    head = b.convert(b.convert(b.lshr(size, const(75, I128)), I64), F64)
    tail = b.convert(b.convert(b.lshr(b.shl(size, const(53, I128)), const(75, I128)), I64), F64)
    tail = b.mul(tail, like(2.0**-53, tail))
    # head + tail is the fraction times 2^(53 + zeros).
    exponent = b.sub(const(1023 - 53, I64), b.convert(zeros, I64))
    scale = from_bits(b, b.shl(exponent, const(52, I64)))
    high, low = (like(p, head) for p in PI_OVER_2)
    p = two_prod(b, head, high)
    pair = fast_two_sum(b, p.hi, b.add(p.lo, b.fma(head, low, b.mul(tail, high))))
    sign = b.xor(sign_bit(b, x), b.select(negative, const(-(1 << 63), I64), const(0, I64)))
    hi, lo = (flip_sign(b, b.mul(part, scale), sign) for part in pair)
    backwards = b.compare("lt", to_bits(b, x), const(0, I64))
    return Remainder(b.select(backwards, b.neg(quadrant), quadrant), hi, lo)


def large_remainder_f32(b: Builder, x: Value) -> Remainder:
    """Reduce one finite f32 (scalar) with |x| >= 2^-10 modulo π/2; ``hi`` is an f64.

    As above with a 24-bit m and 96 bits of 2/π: 62 bits of fraction, of which at least 32 are
    significant (the floats closest to a multiple have a fraction of 2^-30).
    """
    bits = to_bits(b, b.abs(x))
    m = b.or_(b.and_(bits, const((1 << 23) - 1, I32)), const(1 << 23, I32))
    skip = b.sub(b.lshr(bits, const(23, I32)), const(150 - 62, I32))
    skip = b.select(b.compare("lt", skip, const(0, I32)), const(0, I32), skip)
    w0, w1 = _window(b, b.convert(skip, I64), 2)
    m = b.convert(m, I64, signed=False)
    half = const(32, I64)
    product = b.add(b.mul(m, w0), b.lshr(b.mul(m, b.lshr(w1, half)), half))
    quadrant = b.lshr(b.add(product, const(1 << 61, I64)), const(62, I64))
    fraction = b.convert(b.shl(product, const(2, I64)), F64)
    r = b.mul(fraction, like(PI_OVER_2[0] * 2.0**-64, fraction))
    negative = b.compare("lt", to_bits(b, x), const(0, I32))
    quadrant = b.select(negative, b.neg(quadrant), quadrant)
    return Remainder(quadrant, b.select(negative, b.neg(r), r), None)


def _window(b: Builder, skip: Value, count: int) -> list[Value]:
    """Return ``count`` words of 2/π from bit ``skip`` (i64, below 1100) on."""
    signed = [w - (1 << 64) if w >> 63 else w for w in _TWO_OVER_PI]
    table = b.module.table("tj.two_over_pi", signed, I64)
    first = b.lshr(skip, const(6, I64))
    amount = b.and_(skip, const(63, I64))
    words = [
        b.load(b.element(table, b.add(first, const(i, I64)), I64), I64) for i in range(count + 1)
    ]
    return [b.intrinsic("fshl", I64, left, right, amount) for left, right in pairwise(words)]


def large_function(
    b: Builder, name: str, x: Value, finish: Callable[[Builder, Remainder], Value]
) -> Value:
    """Return, per lane, ``finish`` of the remainder of a large ``x``; NaN for ±inf.

    ``finish`` gets an f64 remainder and returns an f64, which is rounded to the type of ``x``.
    """
    element = x.type.element

    def body(inner: Builder, parameters: Sequence[Value]) -> Value:
        (value,) = parameters
        reduce = large_remainder if element.kind == "f64" else large_remainder_f32
        result = inner.convert(finish(inner, reduce(inner, value)), element)
        difference = inner.sub(value, value)  # 0, or NaN for inf and NaN
        finite = inner.compare("ord", difference, difference)
        return inner.select(finite, result, difference)

    symbol = b.module.require(f"tj.{name}.one.{element.suffix}", element, [element], body)
    return by_lane(b, x, symbol)
