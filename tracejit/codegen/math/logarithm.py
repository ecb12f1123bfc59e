"""log, log2, log10, log1p, logaddexp, logaddexp2, softplus.

x = 2^e (1 + f) with 1 + f in [√½, √2). Floats take a polynomial in f. Doubles take the series of
2 atanh(s) with s = f / (2 + f), in the form f - (f²/2 - s (f²/2 + R(s²))) whose rounding errors
are small against f (the argument goes back to K. C. Ng's log in 4.3BSD). Zero, negative,
subnormal, infinite and NaN arguments go through a cold function.

AVX-512 has instructions for mantissa and exponent that take every argument, and a table of 1/c and
log c instead of the division (Tang, "Table-driven implementation of the logarithm function", 1990).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.math import avx512
from tracejit.codegen.math.common import (
    INF,
    NAN,
    Pair,
    fast_two_sum,
    format_of,
    from_bits,
    horner,
    like,
    not_normal,
    pick,
    polynomial,
    rare,
    split_exponent,
    times_constant,
    to_bits,
    two_sum,
)
from tracejit.codegen.math.exponential import LN2_F32, LN2_F64, exp, exp2
from tracejit.codegen.math.lookup import lookup
from tracejit.codegen.math.registry import register
from tracejit.codegen.math.tables import (
    LOG2_F32,
    LOG2_F64,
    LOG10_F32,
    LOG10_F64,
    LOG_F32,
    LOG_F64,
    Logarithm,
)

SQRT_HALF = 0.7071067811865476

# (2 atanh(s) - 2 s) / s³ in z = s², |s| <= 0.17158: error 2^-59.5 of the logarithm.
_ATANH_F64 = (
    0.6666666666666734, 0.3999999999941655, 0.2857142874206298, 0.22222198600163054,
    0.18183563164725683, 0.1531407550695525, 0.14795738462492078,
)  # fmt: skip

# (log(1 + f) - f) / f² for 1 + f in [√½, √2), times 1, log2(e), log10(e).
_LOG_F32 = (
    -0.49999988079071045, 0.3333359956741333, -0.2500189542770386, 0.19984491169452667,
    -0.1658579409122467, 0.14503030478954315, -0.13764692842960358, 0.11096108704805374,
    -0.041574347764253616,
)  # fmt: skip


class Base(NamedTuple):
    """log to a base: log_base(e) and log_base(2), each in two parts, per element type.

    The head of log_base(2) has trailing zeros, so that an exponent times it is exact.
    """

    e_f32: tuple[float, float]
    two_f32: tuple[float, float]
    e_f64: tuple[float, float]
    two_f64: tuple[float, float]


_TWO = Base(
    (1.4426950216293335, 1.925963033500011e-08),
    (1.0, 0.0),
    (1.4426950408889634, 2.0355273740931033e-17),
    (1.0, 0.0),
)
_TEN = Base(
    (0.4342944920063019, -1.0103049952192578e-08),
    (0.301025390625, 4.605039066518657e-06),
    (0.4342944819032518, 1.098319650216765e-17),
    (0.30102999566383914, 1.42050232272661e-13),
)


def _special(
    b: Builder, name: str, x: Value, y: Value, core: Callable[[Builder, Value, float], Value]
) -> Value:
    """Return ``y``, and the logarithm of what is not a positive normal number by a cold call.

    ``core(b, x, e)`` is the logarithm of x * 2^e for a normal x.
    """

    def body(b: Builder, arguments: tuple[Value, ...]) -> Value:
        (x,) = arguments
        form = format_of(x)
        up = form.mantissa + 1
        # Scaled up, a subnormal is normal; the other specials are overwritten below.
        y = core(b, b.mul(x, like(2.0**up, x)), -float(up))
        zero = b.compare("eq", x, like(0.0, x))
        y = b.select(zero, like(-INF, x), y)
        y = b.select(b.compare("lt", x, like(0.0, x)), like(NAN, x), y)
        large = b.compare("uge", x, like(INF, x))
        return b.select(large, b.add(x, x), y)

    return rare(b, f"{name}.special", not_normal(b, x), y, [x], lambda b, a: body(b, tuple(a)))


def _series_f32(b: Builder, f: Value) -> Value:
    """Return (log(1 + f) - f) / f²."""
    first, *others = _LOG_F32
    return b.fma(polynomial(b, f, others), f, like(first, f))


def log_parts(b: Builder, f: Value) -> tuple[Value, Value]:
    """Return (h, t) with log(1 + f) = f - (h - t), h = f²/2, for doubles, 1 + f in [√½, √2)."""
    s = b.div(f, b.add(like(2.0, f), f))
    z = b.mul(s, s)
    half_square = b.mul(b.mul(like(0.5, f), f), f)
    series = b.mul(z, horner(b, z, _ATANH_F64))
    return half_square, b.mul(s, b.add(half_square, series))


def _log_core(b: Builder, f: Value, e: Value, correction: Value | None = None) -> Value:
    """Return e ln 2 + log(1 + f + correction)."""
    if f.type.kind == "f32":
        ln2 = LN2_F32
        low = b.mul(e, like(ln2.lo, f))
        low = low if correction is None else b.add(low, correction)
        tail = b.fma(b.mul(f, f), _series_f32(b, f), low)
        return b.fma(e, like(ln2.hi, f), b.add(f, tail))
    ln2 = LN2_F64
    half_square, rest = log_parts(b, f)
    rest = b.fma(e, like(ln2.lo, f), rest)
    rest = rest if correction is None else b.add(rest, correction)
    return b.fma(e, like(ln2.hi, f), b.sub(f, b.sub(half_square, rest)))


def _log_by_table(b: Builder, x: Value, table: Logarithm) -> Value:
    """Return the logarithm of any x: ±0 gives -inf, x < 0 and NaN give NaN, inf gives inf."""
    m, e = _taken_apart(b, x)
    return _table_core(b, m, e, None, table)


def _taken_apart(b: Builder, x: Value) -> tuple[Value, Value]:
    """Return (m, e) with x = m 2^e, m in [1, 2) (f32) or [3/4, 3/2) (f64), as tables want them."""
    if x.type.kind == "f32":
        return avx512.significand(b, x), avx512.exponent(b, x)
    m = avx512.mantissa(b, x)
    return m, b.sub(avx512.exponent(b, x), avx512.exponent(b, m))


def _table_core(b: Builder, m: Value, e: Value, rest: Value | None, table: Logarithm) -> Value:
    """Return log((m + rest) 2^e); next to 1 the first terms are exact."""
    bits = to_bits(b, m)
    index_bits = len(table.inverses).bit_length() - 1
    index = b.lshr(bits, const(format_of(m).mantissa - index_bits, bits.type))
    inverse = lookup(b, table.inverses, index)
    head = b.fma(e, like(table.of_two[0], m), lookup(b, table.logs, index))
    r = b.fma(m, inverse, like(-1.0, m))
    r = r if rest is None else b.fma(rest, inverse, r)
    low = polynomial(b, r, table.series)
    tail = _tail(b, e, index, table)
    square = b.mul(r, r)
    low = b.mul(square, low) if tail is None else b.fma(square, low, tail)
    if table.of_e[0] == 1.0:
        return b.add(head, b.add(r, low))
    low = b.fma(r, like(table.of_e[1], m), low)
    return b.add(head, b.fma(r, like(table.of_e[0], m), low))


def _tail(b: Builder, e: Value, index: Value, table: Logarithm) -> Value | None:
    """Return what e log(2) and the logarithm in the table have beside their heads, if anything."""
    of_two = like(table.of_two[1], e)
    if not table.tails:
        return b.mul(e, of_two) if table.of_two[1] != 0.0 else None
    tail = lookup(b, table.tails, index)
    return b.fma(e, of_two, tail) if table.of_two[1] != 0.0 else tail


def _exponent_added(b: Builder, e: Value, extra: float) -> Value:
    return e if extra == 0.0 else b.add(e, like(extra, e))


@register("log", inline=True)
def log(b: Builder, x: Value) -> Value:
    """Natural logarithm."""
    if avx512.available(b):
        return _log_by_table(b, x, pick(x, f32=LOG_F32, f64=LOG_F64))

    def core(b: Builder, x: Value, extra: float) -> Value:
        m, e = split_exponent(b, x, SQRT_HALF)
        return _log_core(b, b.sub(m, like(1.0, x)), _exponent_added(b, e, extra))

    return _special(b, "log", x, core(b, x, 0.0), core)


def log_pair(b: Builder, f: Value) -> Pair:
    """Return log(1 + f) as hi + lo, to about 2^-60, for doubles, 1 + f in [√½, √2)."""
    half_square, rest = log_parts(b, f)
    head = fast_two_sum(b, f, b.neg(half_square))
    return fast_two_sum(b, head.hi, b.add(head.lo, rest))


def _log_base(b: Builder, x: Value, base: Base, extra: float) -> Value:
    """Return log_base(x * 2^extra) for a normal x."""
    m, e = split_exponent(b, x, SQRT_HALF)
    f = b.sub(m, like(1.0, x))
    return _base_core(b, f, _exponent_added(b, e, extra), base)


def _base_core(
    b: Builder, f: Value, e: Value, base: Base, correction: Value | None = None
) -> Value:
    """Return log_base(2^e (1 + f + correction))."""
    to_base, two = pick(f, f32=(base.e_f32, base.two_f32), f64=(base.e_f64, base.two_f64))
    if f.type.kind == "f32":
        log = Pair(f, b.mul(b.mul(f, f), _series_f32(b, f)))
    else:
        log = log_pair(b, f)
    product = times_constant(b, log.hi, *to_base)
    tail = log.lo if correction is None else b.add(log.lo, correction)
    low = b.fma(tail, like(to_base[0], f), product.lo)
    low = low if two[1] == 0.0 else b.fma(e, like(two[1], f), low)
    if f.type.kind == "f32":
        return b.fma(e, like(two[0], f), b.add(product.hi, low))
    whole = fast_two_sum(b, b.mul(e, like(two[0], f)), product.hi)
    return b.add(whole.hi, b.add(whole.lo, low))


@register("log2", inline=True)
def log2(b: Builder, x: Value) -> Value:
    """Logarithm to base 2; exact for powers of 2."""
    if avx512.available(b):
        return _log_by_table(b, x, pick(x, f32=LOG2_F32, f64=LOG2_F64))

    def core(b: Builder, x: Value, extra: float) -> Value:
        return _log_base(b, x, _TWO, extra)

    return _special(b, "log2", x, core(b, x, 0.0), core)


@register("log10", inline=True)
def log10(b: Builder, x: Value) -> Value:
    """Logarithm to base 10."""
    if avx512.available(b):
        return _log_by_table(b, x, pick(x, f32=LOG10_F32, f64=LOG10_F64))

    def core(b: Builder, x: Value, extra: float) -> Value:
        return _log_base(b, x, _TEN, extra)

    return _special(b, "log10", x, core(b, x, 0.0), core)


class OnePlus(NamedTuple):
    """1 + x = 2^e (1 + f), f to twice the precision; ``u`` is 1 + x rounded."""

    u: Value
    e: Value
    f: Pair


def _reduce_one_plus(b: Builder, x: Value) -> OnePlus:
    """With 2^e from the rounded 1 + x, f = (2^-e - 1) + 2^-e x as an exact sum."""
    form = format_of(x)
    u = b.add(like(1.0, x), x)
    m, e = split_exponent(b, u, SQRT_HALF)
    # 2^(2 - e) from the bits; at the largest x, 2^-e itself would not be a normal number.
    bits_u, bits_m = to_bits(b, u), to_bits(b, m)
    four = const(form.one + (2 << form.mantissa), bits_u.type)
    scale = from_bits(b, b.add(b.sub(bits_m, bits_u), four))
    quarter = like(0.25, x)
    less = b.fma(scale, quarter, like(-1.0, x))
    return OnePlus(u, e, two_sum(b, less, b.mul(scale, b.mul(quarter, x))))


def log_of_sum_by_table(b: Builder, u: Pair, doublings: Value | None = None) -> Value:
    """Return log((hi + lo) 2^doublings) for AVX-512, any hi and a lo that is small beside it.

    Only an infinite hi with a lo that is NaN is no regular case.
    """
    form = format_of(u.hi)
    m, e = _taken_apart(b, u.hi)
    e = e if doublings is None else b.add(e, doublings)
    # 2^-e from the bits; 0 where it is no normal number, for there the rest does not matter.
    bits = b.sub(to_bits(b, m), to_bits(b, u.hi))
    bits, zero = b.add(bits, const(form.one, bits.type)), const(0, bits.type)
    scale = from_bits(b, b.select(b.compare("gt", bits, zero), bits, zero))
    return _table_core(b, m, e, b.mul(u.lo, scale), pick(m, f32=LOG_F32, f64=LOG_F64))


def _log1p_by_table(b: Builder, x: Value) -> Value:
    """log(u + rest) with u = 1 + x rounded; only x = inf is no regular case."""
    y = log_of_sum_by_table(b, two_sum(b, like(1.0, x), x))
    y = b.select(b.compare("eq", x, like(INF, x)), x, y)
    return b.copysign(y, x)


@register("log1p", inline=True)
def log1p(b: Builder, x: Value) -> Value:
    """log(1 + x), accurate near 0; the sign of zero is kept."""
    if avx512.available(b):
        return _log1p_by_table(b, x)
    u, e, f = _reduce_one_plus(b, x)
    y = _log_core(b, f.hi, e, f.lo)
    tiny = b.compare("lt", b.abs(x), like(pick(x, f32=2.0**-30, f64=2.0**-60), x))
    y = b.select(tiny, x, y)

    def body(b: Builder, arguments: tuple[Value, ...]) -> Value:
        (x,) = arguments
        below = b.compare("lt", x, like(-1.0, x))
        return b.select(
            below,
            like(NAN, x),
            b.select(b.compare("eq", x, like(-1.0, x)), like(-INF, x), b.add(x, x)),
        )

    return rare(b, "log1p.special", not_normal(b, u), y, [x], lambda b, a: body(b, tuple(a)))


@register("softplus")
def softplus(b: Builder, x: Value) -> Value:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
    zero = like(0.0, x)
    largest = b.select(b.compare("lt", x, zero), zero, x)
    return b.add(largest, log1p(b, exp(b, b.neg(b.abs(x)))))


def _larger_and_gap(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """Return (max(x, y), -|x - y|); the gap of equal infinities is 0, with a NaN it is NaN."""
    gap = b.neg(b.abs(b.sub(x, y)))
    gap = b.select(b.compare("eq", x, y), like(0.0, x), gap)
    return b.select(b.compare("gt", x, y), x, y), gap


@register("logaddexp", arity=2)
def logaddexp(b: Builder, x: Value, y: Value) -> Value:
    """log(e^x + e^y). Where the two terms cancel near 0 the error is absolute, as NumPy's."""
    largest, gap = _larger_and_gap(b, x, y)
    return b.add(largest, log1p(b, exp(b, gap)))


@register("logaddexp2", arity=2)
def logaddexp2(b: Builder, x: Value, y: Value) -> Value:
    """log2(2^x + 2^y); the error near 0 as for ``logaddexp``."""
    largest, gap = _larger_and_gap(b, x, y)
    # 2^gap is at most 1, so that 1 + 2^gap needs no care for special values.
    _, e, f = _reduce_one_plus(b, exp2(b, gap))
    return b.add(largest, _base_core(b, f.hi, e, _TWO, f.lo))
