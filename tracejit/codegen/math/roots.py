"""cbrt and hypot, for f32 and f64; branch-free and without division."""

from __future__ import annotations

from functools import partial

from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.math import avx512
from tracejit.codegen.math.common import (
    INF,
    at_least,
    at_most,
    flip_sign,
    fnma,
    format_of,
    from_bits,
    horner,
    integer_type,
    like,
    nearest,
    pick,
    sign_bit,
    to_bits,
)
from tracejit.codegen.math.lookup import lookup
from tracejit.codegen.math.registry import register
from tracejit.codegen.math.square_root import square_root
from tracejit.codegen.math.tables import CBRT_INVERSES, CBRT_SERIES, CBRT_TAILS, CBRTS

# (1 - e)^(-1/3) on |e| <= 0.1022, minimax relative: errors 2^-18.9 and 2^-23.4.
_INVERSE_F32 = (0.9999980209758691, 0.33332860434284, 0.22373636210022776, 0.17453054044914945)
_INVERSE_F64 = (
    1.0000000046129776, 0.33332903401018343, 0.22221484089679625, 0.1744822496415711,
    0.1458300330785854,
)  # fmt: skip
# Its Taylor series without the leading 1.
_SERIES_F32 = (1 / 3, 2 / 9, 14 / 81, 35 / 243)
_SERIES_F64 = (1 / 3, 2 / 9, 14 / 81)
# The bits of x^(-1/3) are about this minus a third of those of x; the error e is at most 0.1022.
_MAGIC_F32 = 1419900529.0
_MAGIC_F64 = 0x553EE978D4FDF400


def _inverse_root(b: Builder, x: Value) -> Value:
    """Return x^(-1/3) to 2^-18 (f32) or 2^-23 (f64) for a positive normal x (finite for 0).

    A first guess by integer arithmetic on the bits (Kahan and Bindel, "Computing a real cube
    root", 1991/2001), then one step of high order.
    """
    bits = to_bits(b, x)
    if x.type.kind == "f32":
        third = b.fma(b.convert(bits, x.type), like(-1 / 3, x), like(_MAGIC_F32, x))
        guess = from_bits(b, b.convert(third, bits.type))
    else:
        # The upper half times 2^32 / 3 is the whole divided by 3, in one multiplication.
        upper = b.lshr(bits, const(32, bits.type))
        third = b.mul(upper, const(0x55555555, bits.type))
        guess = from_bits(b, b.sub(const(_MAGIC_F64, bits.type), third))
    e = fnma(b, b.mul(x, guess), b.mul(guess, guess), like(1.0, x))
    return b.mul(guess, horner(b, e, pick(x, f32=_INVERSE_F32, f64=_INVERSE_F64)))


def _cbrt_by_table(b: Builder, x: Value) -> Value:
    """The same for floats by a table: x = 2^(3 q + s) m, m in [1, 2), s = -1, 0 or 1.

    With c the centre of the eighth that m lies in and r = m / c - 1, the root is
    2^q cbrt(c 2^s) cbrt(1 + r). 0 and inf have an infinite q, which scalef makes 0 and inf of.
    """
    magnitude = b.abs(x)
    e, m = avx512.exponent(b, magnitude), avx512.significand(b, magnitude)
    q, _ = nearest(b, e, 1 / 3)
    s = fnma(b, q, like(3.0, x), e)
    # 8 s + i in the low bits, i the number of the eighth.
    _, row = nearest(b, s, 8.0)
    eighth = b.lshr(to_bits(b, m), const(20, row.type))
    index = b.add(row, eighth)
    r = b.fma(m, lookup(b, CBRT_INVERSES, eighth), like(-1.0, x))
    root, tail = lookup(b, CBRTS, index), lookup(b, CBRT_TAILS, index)
    less = b.fma(b.mul(root, r), horner(b, r, CBRT_SERIES), tail)
    return flip_sign(b, avx512.scalef(b, b.add(root, less), q), sign_bit(b, x))


@register("cbrt")
def cbrt(b: Builder, x: Value) -> Value:
    """Cube root, at most 0.7 ULP, any finite x; keeps -0 and ±inf.

    A root t cut to a third of the mantissa has an exact cube, so that r = x - t³ is exact without
    FMA (as in FreeBSD's cbrt, B. Evans); then x^(1/3) = t (1 - d)^(-1/3) with d = r / x, which is
    small enough for the series' roundings to vanish.
    """
    if x.type.kind == "f32" and avx512.available(b):
        return _cbrt_by_table(b, x)
    form = format_of(x)
    magnitude = b.abs(x)
    subnormal = b.compare("lt", magnitude, like(form.tiny, x))
    up, down = pick(x, f32=(2.0**24, 2.0**-8), f64=(2.0**54, 2.0**-18))
    one = like(1.0, x)
    v = b.mul(magnitude, b.select(subnormal, like(up, x), one))
    y = _inverse_root(b, v)
    square = b.mul(y, y)
    estimate = b.mul(v, square)
    cut = const(-(1 << pick(x, f32=16, f64=36)), integer_type(x.type))
    t = from_bits(b, b.and_(to_bits(b, estimate), cut))
    r = b.sub(v, b.mul(b.mul(t, t), t))
    # y³ is 1/v up to the factor 1 - e. In this order no product overflows for v = 0.
    e = fnma(b, estimate, y, one)
    d = b.mul(b.mul(r, square), y)
    d = b.fma(d, e, d)
    series = horner(b, d, pick(x, f32=_SERIES_F32, f64=_SERIES_F64))
    root = b.fma(b.mul(t, d), series, t)
    root = b.mul(root, b.select(subnormal, like(down, x), one))
    finite = b.compare("lt", magnitude, like(INF, x))
    return flip_sign(b, b.select(finite, root, magnitude), sign_bit(b, x))


@register("hypot", arity=2)
def hypot(b: Builder, x: Value, y: Value) -> Value:
    """sqrt(x² + y²) without undue overflow, at most 1.3 ULP; inf if either is, even beside NaN.

    Both are scaled by the power of two that takes the larger to [1, 4).
    """
    form = format_of(x)
    x, y = b.abs(x), b.abs(y)
    largest = b.select(b.compare("gt", x, y), x, y)
    # Neither the factor nor its inverse may be subnormal or infinite.
    bounded = at_least(b, at_most(b, largest, 1 / (form.tiny)), form.tiny)
    integer = integer_type(x.type)
    field = b.and_(to_bits(b, bounded), const(form.infinity, integer))
    down = from_bits(b, b.sub(const(2 * form.one, integer), field))
    a, c = b.mul(x, down), b.mul(y, down)
    square = b.fma(a, a, b.mul(c, c))
    # The divider takes longer than all the rest for doubles, not for floats.
    root = pick(x, f32=b.sqrt, f64=partial(square_root, b))(square)
    root = b.mul(root, from_bits(b, field))
    infinite = b.or_(b.compare("eq", x, like(INF, x)), b.compare("eq", y, like(INF, x)))
    return b.select(infinite, like(INF, x), root)
