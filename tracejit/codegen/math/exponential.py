"""exp, exp2, expm1 and the logistic function.

Method (Tang, "Table-driven implementation of the exponential function", 1989, without the
table): x = n ln 2 + r with |r| <= ln2 / 2, then e^x = 2^n e^r with a minimax polynomial for e^r.
ln 2 is cut in two so that n times its head is exact. Branch-free on every level. On AVX-512
doubles do take Tang's table, of 2^(j/16) in two parts.
"""

from __future__ import annotations

from typing import NamedTuple

from tracejit.codegen.builder import Builder, Value
from tracejit.codegen.math import avx512
from tracejit.codegen.math.common import (
    SCALE_DOWN,
    Pair,
    at_least,
    at_most,
    fast_two_sum,
    fnma,
    format_of,
    high_part,
    horner,
    like,
    nearest,
    pick,
    polynomial,
    positive_scaled,
    pow2,
    scale_by_sign,
    scale_down,
    to_bits,
    two_prod,
)
from tracejit.codegen.math.lookup import lookup
from tracejit.codegen.math.registry import register
from tracejit.codegen.math.tables import (
    EXP2_SERIES,
    EXP_SERIES,
    ROOTS_OF_TWO,
    ROOTS_OF_TWO_TAILS,
)

LOG2_E = 1.4426950408889634


class LogTwo(NamedTuple):
    """ln 2 = hi + lo; hi has few enough bits that any exponent times hi is exact."""

    hi: float
    lo: float


LN2_F32 = LogTwo(float.fromhex("0x1.62ep-1"), float.fromhex("0x1.0bfbe8p-15"))
LN2_F64 = LogTwo(float.fromhex("0x1.62e42fefa0000p-1"), float.fromhex("0x1.cf79abc9e3b3ap-40"))

# (e^r - 1 - r) / r² on |r| <= ln2/2, minimax relative to e^r: errors 2^-28.2 and 2^-57.7.
_EXP_F32 = (
    0.4999999403953552, 0.16666516661643982, 0.04166810214519501, 0.008369202725589275,
    0.001383911818265915,
)  # fmt: skip
_EXP_F64 = (
    0.5000000000000011, 0.16666666666666685, 0.04166666666653538, 0.00833333333337075,
    0.0013888888941397213, 0.00019841269707156426, 2.480149574560428e-05, 2.7557447103446157e-06,
    2.7629266781668787e-07, 2.5035260147120966e-08,
)  # fmt: skip

# The same on the same interval, minimax relative to e^r - 1: errors 2^-26.0 and 2^-61.3.
_EXPM1_F32 = (
    0.4999999701976776, 0.16666539013385773, 0.041667379438877106, 0.00836709700524807,
    0.0013871989212930202,
)  # fmt: skip
_EXPM1_F64 = (
    0.5, 0.16666666666666677, 0.041666666666666685, 0.008333333333321768, 0.0013888888888865616,
    0.00019841269885773703, 2.480158738529541e-05, 2.7557244310298392e-06, 2.755720134242787e-07,
    2.510911607878354e-08, 2.0943537206067696e-09,
)  # fmt: skip

# (2^r - 1) / r on |r| <= 1/2, minimax relative to 2^r: errors 2^-26.2 and 2^-55.1.
_EXP2_F32 = (
    0.6931472420692444, 0.24022655189037323, 0.05550272390246391, 0.009617064148187637,
    0.0013418447924777865, 0.0001575954374857247,
)  # fmt: skip
_EXP2_F64 = (
    0.6931471805599453, 0.2402265069591007, 0.05550410866482338, 0.009618129107630229,
    0.0013333558146029327, 0.00015403530389068032, 1.5252734437391614e-05, 1.3215492723310484e-06,
    1.0177673572660815e-07, 7.051483007743994e-09, 4.534307797028731e-10, 3.2283037863999054e-11,
)  # fmt: skip


# (2^r - 1) / r on [0, 1), minimax relative to 2^r: error 2^-28.8.
_EXP2_UP_F32 = (
    0.6931470632553101, 0.24022908508777618, 0.05548618361353874, 0.009673775173723698,
    0.0012482289457693696, 0.000215659718378447,
)  # fmt: skip


class Reduced(NamedTuple):
    """x = n ln 2 + r, r = head + tail.

    ``n`` is a float and, plus a bias, stands in the low bits of ``low_bits``; ``head`` is exact,
    ``tail`` is -n times the low part of ln 2.
    """

    n: Value
    low_bits: Value
    r: Value
    head: Value
    tail: Value


def reduce_log2(b: Builder, x: Value, *, bias: int = 0) -> Reduced:
    """Return x modulo ln 2, |r| <= 0.3467, for |x| below a few thousand."""
    ln2 = pick(x, f32=LN2_F32, f64=LN2_F64)
    n, low_bits = nearest(b, x, LOG2_E, bias=bias)
    head = fnma(b, n, like(ln2.hi, x), x)
    # The parts that a caller does not use cost nothing: LLVM drops them.
    tail = b.mul(n, like(-ln2.lo, x))
    r = fnma(b, n, like(ln2.lo, x), head)
    return Reduced(n, low_bits, r, head, tail)


def _careful(b: Builder, x: Value) -> bool:
    """Whether plain Horner would pass 1 ULP: doubles without fused multiply-add."""
    return x.type.kind == "f64" and not b.target.fma


def exp_reduced(b: Builder, reduced: Reduced) -> Value:
    """Return e^r."""
    r = reduced.r
    coefficients = pick(r, f32=_EXP_F32, f64=_EXP_F64)
    series = polynomial(b, r, coefficients)
    if not _careful(b, r):
        one = like(1.0, r)
        return b.fma(b.fma(series, r, one), r, one)
    small = b.mul(b.mul(r, r), series)
    return b.add(like(1.0, r), b.add(reduced.head, b.add(small, reduced.tail)))


def _beyond_linear(b: Builder, reduced: Reduced) -> Value:
    """Return e^r - 1 - head: the square and higher terms of r, and the tail of r."""
    r = reduced.r
    square = b.mul(r, r)
    if r.type.kind == "f32":
        return b.fma(square, horner(b, r, _EXPM1_F32), reduced.tail)
    # r²/2 by itself: r/2 is exact, and its product with r must not be rounded before the sum.
    rest = b.fma(b.mul(square, r), polynomial(b, r, _EXPM1_F64[1:]), reduced.tail)
    half = b.mul(like(0.5, r), r)
    if b.target.fma:
        return b.fma(half, r, rest)
    head = high_part(b, r)
    cross = b.mul(b.sub(r, head), b.mul(like(0.5, r), b.add(r, head)))
    return b.add(b.mul(b.mul(like(0.5, r), head), head), b.add(cross, rest))


def exp_minus_one_series(b: Builder, r: Value) -> Value:
    """Return e^r - 1, in floats to 0.6 ULP, for |r| <= 0.3467."""
    return b.mul(horner(b, r, (1.0, *pick(r, f32=_EXP_F32, f64=_EXP_F64))), r)


def exp_reduced_pair(b: Builder, reduced: Reduced) -> Pair:
    """Return e^r as hi + lo, to about 2^-58 of it in doubles."""
    small = _beyond_linear(b, reduced)
    whole = fast_two_sum(b, like(1.0, small), reduced.head)
    return fast_two_sum(b, whole.hi, b.add(whole.lo, small))


def _has_table(b: Builder, x: Value) -> bool:
    """Whether a table of 2^(j/16) pays: for doubles, whose polynomial it halves."""
    return x.type.kind == "f64" and avx512.available(b)


def _sixteenths(b: Builder, x: Value, scale: float) -> tuple[Value, Value]:
    """Return x * scale rounded to sixteenths as a float k, and 16 k in the low bits of an integer.

    As ``nearest``, with a magic number whose last place is a sixteenth.
    """
    magic = like(1.5 * 2.0 ** (format_of(x).mantissa - 4), x)
    shifted = b.fma(x, like(scale, x), magic)
    return b.sub(shifted, magic), to_bits(b, shifted)


def _times_root(b: Builder, less: Value, k: Value, index: Value) -> Value:
    """Return (1 + less) 2^k, k in sixteenths: scalef takes its floor, the table its fraction."""
    root, tail = (lookup(b, t, index) for t in (ROOTS_OF_TWO, ROOTS_OF_TWO_TAILS))
    return positive_scaled(b, b.add(root, b.fma(root, less, tail)), k)


def _bounded(b: Builder, x: Value, least: float, most: float) -> Value:
    """Return x cut to [least, most]; on AVX-512 to ``most``, since scaling makes less be 0."""
    x = at_most(b, x, most)
    return x if avx512.available(b) else at_least(b, x, least)


@register("exp", inline=True)
def exp(b: Builder, x: Value) -> Value:
    """e^x; overflows from 88.73 (f32) and 709.79 (f64) on, subnormal below -87.34 and -708.4."""
    x = _bounded(b, x, pick(x, f32=-104.5, f64=-746.0), pick(x, f32=89.0, f64=710.0))
    if _has_table(b, x):
        k, index = _sixteenths(b, x, LOG2_E)
        r = fnma(b, k, like(LN2_F64.lo, x), fnma(b, k, like(LN2_F64.hi, x), x))
        series = horner(b, r, EXP_SERIES)
        return _times_root(b, b.fma(b.mul(r, r), series, r), k, index)
    reduced = reduce_log2(b, x, bias=2 * format_of(x).bias)
    return scale_by_sign(b, exp_reduced(b, reduced), reduced.n, reduced.low_bits, x)


def exp_weight(b: Builder, x: Value) -> Value:
    """Return e^x for x <= 0, a weight of a softmax whose largest is 1; NaN for NaN.

    Subnormal weights are 0: each would ask microcode for help, here and in every product that reads
    it (measured: scores that spread over 100 and more take ten times as long).

    Floats on AVX-512 take 2^(x log2 e): the product is rounded, which changes the weight no more
    than if x, a difference of scores, were rounded once more. That saves the clamps and the second
    step of the reduction: scalef takes the floor of the exponent by itself.
    """
    if x.type.kind != "f32" or not avx512.available(b):
        least = like(pick(x, f32=-87.33, f64=-708.39), x)
        tiny = b.compare("lt", x, least)
        return b.select(tiny, like(0.0, x), exp(b, b.select(tiny, least, x)))
    n = b.mul(x, like(LOG2_E, x))
    r = avx512.fraction(b, n)
    series = b.fma(horner(b, r, _EXP2_UP_F32), r, like(1.0, r))
    return avx512.scalef_or_zero(b, series, n, -126.0)


def exp2_reduced(b: Builder, r: Value) -> Value:
    """Return 2^r for |r| <= 1/2."""
    coefficients = pick(r, f32=_EXP2_F32, f64=_EXP2_F64)
    first, *others = coefficients
    # The first by themselves: in Estrin's pairs they would meet one more rounding.
    if not _careful(b, r):
        inner = b.fma(polynomial(b, r, others), r, like(first, r))
        return b.fma(inner, r, like(1.0, r))
    whole = fast_two_sum(b, like(1.0, r), b.mul(r, like(first, r)))
    return b.add(whole.hi, b.fma(b.mul(r, r), polynomial(b, r, others), whole.lo))


@register("exp2", inline=True)
def exp2(b: Builder, x: Value) -> Value:
    """2^x; exact for integers."""
    x = _bounded(b, x, pick(x, f32=-151.0, f64=-1076.0), pick(x, f32=129.0, f64=1025.0))
    if _has_table(b, x):
        k, index = _sixteenths(b, x, 1.0)
        r = b.sub(x, k)
        return _times_root(b, b.mul(r, horner(b, r, EXP2_SERIES)), k, index)
    n, low_bits = nearest(b, x, 1.0, bias=2 * format_of(x).bias)
    return scale_by_sign(b, exp2_reduced(b, b.sub(x, n)), n, low_bits, x)


def exp2_of_sum(b: Builder, hi: Value, lo: Value) -> Value:
    """Return 2^(hi + lo) on AVX-512, for any ``hi`` and a ``lo`` of at most 1.

    ``lo`` counts only where ``hi`` is far from overflow and underflow; elsewhere it may be NaN.
    """
    total = b.add(hi, lo)
    k, index = nearest(b, total, 1.0) if hi.type.kind == "f32" else _sixteenths(b, total, 1.0)
    r = b.add(b.sub(hi, k), lo)
    near = b.compare("lt", b.abs(total), like(2.0 * format_of(hi).bias, hi))
    r = b.select(near, r, like(0.0, r))
    if hi.type.kind == "f32":
        return positive_scaled(b, exp2_reduced(b, r), k)
    return _times_root(b, b.mul(r, horner(b, r, EXP2_SERIES)), k, index)


def expm1_pair(b: Builder, x: Value) -> Pair:
    """Return (e^x - 1) / 2 as hi + lo, for x from -50 to the overflow of e^x.

    Half, so that the largest n still makes a normal 2^(n-1). With s = 2^(n-1):
    (e^x - 1) / 2 = (s - 1/2) + s (head + (tail + r² q(r))), where s - 1/2 and s head add exactly.
    """
    reduced = reduce_log2(b, x, bias=format_of(x).bias - 1)
    small = _beyond_linear(b, reduced)
    scale = pow2(b, reduced.low_bits)
    half = like(0.5, x)
    less = b.sub(scale, half)
    whole = fast_two_sum(b, less, b.mul(scale, reduced.head))
    tail = b.fma(scale, small, whole.lo)
    if x.type.kind == "f64":
        # Around 2^53 the 1/2 is lost in part: 0.25 ULP, too much here.
        tail = b.add(tail, b.sub(b.sub(scale, less), half))
    return Pair(whole.hi, tail)


@register("expm1", inline=True)
def expm1(b: Builder, x: Value) -> Value:
    """e^x - 1, accurate near 0; the sign of zero is kept."""
    bounded = at_most(b, x, pick(x, f32=89.0, f64=710.0))
    bounded = at_least(b, bounded, pick(x, f32=-20.0, f64=-40.0))
    half = expm1_pair(b, bounded)
    y = b.mul(b.add(half.hi, half.lo), like(2.0, x))
    # Halving loses bits of subnormals, and the sum the sign of -0; there e^x - 1 rounds to x.
    limit = pick(x, f32=2.0**-30, f64=2.0**-60)
    return b.select(b.compare("lt", b.abs(x), like(limit, x)), x, y)


def _sigmoid_by_scaling(b: Builder, x: Value) -> Value:
    """The same with scalef, which takes 2^-|n| and the result through the subnormals.

    With e^-x = 2^n (1 + less), 1 / (1 + e^-x) is 2^-m / total, m = max(n, 0), where total is
    (1 + 2^-|n|) + less for positive n and (1 + 2^-|n|) + 2^-|n| less otherwise.
    """
    one, zero = like(1.0, x), like(0.0, x)
    limit = pick(x, f32=104.5, f64=746.0)
    reduced = reduce_log2(b, b.neg(at_least(b, at_most(b, x, limit), -limit)))
    less = exp_minus_one_series(b, reduced.r)
    up = b.compare("gt", reduced.n, zero)
    down = b.neg(b.abs(reduced.n))
    power = avx512.scalef_or_zero(b, one, down, -64.0)  # below, 1 + power is 1
    head = fast_two_sum(b, one, power)
    factor = b.select(up, one, power)
    total = b.fma(less, factor, head.hi)
    rest = b.add(b.fma(less, factor, b.sub(head.hi, total)), head.lo)
    q = b.div(one, total)
    error = fnma(b, rest, q, fnma(b, total, q, one))
    return positive_scaled(b, b.fma(error, q, q), b.select(up, down, zero))


@register("sigmoid", inline=True)
def sigmoid(b: Builder, x: Value) -> Value:
    """1 / (1 + e^-x), as e^-|x| over 1 + e^-|x| for negative x: no cancellation, no overflow.

    The tails of the exponential and of the sum are carried into the quotient q = top / sum by
    one step of correction, for which 1 / sum is q or 1 - q.
    """
    if avx512.available(b):
        return _sigmoid_by_scaling(b, x)
    one, zero = like(1.0, x), like(0.0, x)
    kind = x.type.kind
    negative = at_least(b, b.neg(b.abs(x)), pick(x, f32=-104.5, f64=-746.0))
    reduced = reduce_log2(b, negative, bias=format_of(x).bias + SCALE_DOWN[kind])
    if kind == "f32":
        less = b.add(reduced.head, _beyond_linear(b, reduced))
        p = fast_two_sum(b, one, less)
    else:
        p = exp_reduced_pair(b, reduced)
    z = Pair(*(scale_down(b, part, reduced.n, reduced.low_bits) for part in p))
    total = fast_two_sum(b, one, z.hi)
    below = b.compare("lt", x, zero)
    top = Pair(b.select(below, z.hi, one), b.select(below, z.lo, zero))
    q = b.div(top.hi, total.hi)
    rest = fnma(b, q, b.add(total.lo, z.lo), top.lo)
    if kind == "f64":
        product = two_prod(b, q, total.hi)
        rest = b.add(rest, b.sub(b.sub(top.hi, product.hi), product.lo))
    return b.fma(rest, b.select(below, b.sub(one, q), q), q)
