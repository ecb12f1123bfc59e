"""sinh, cosh, tanh and their inverses. Branch-free, odd functions from |x| with the sign put back.

sinh and cosh take sinh r and cosh r for |r| <= ln2 / 2 and combine them with 2^n and 2^-n; there
is no division. The inverses are logarithms of the form 2 atanh(s), whose s comes from one
division without cancellation; their series takes z = (2 s)². AVX-512 has arcosh by the table of
logarithms. tanh is one polynomial per interval
where a target looks tables up in registers.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.math import avx512
from tracejit.codegen.math.common import (
    INF,
    NAN,
    Pair,
    at_most,
    fast_two_sum,
    fnma,
    format_of,
    from_bits,
    horner,
    integer_type,
    like,
    pick,
    polynomial,
    pow2,
    quotient,
    split_exponent,
    to_bits,
    two_sum,
)
from tracejit.codegen.math.exponential import (
    LN2_F32,
    LN2_F64,
    exp_minus_one_series,
    expm1_pair,
    reduce_log2,
)
from tracejit.codegen.math.logarithm import log_of_sum_by_table
from tracejit.codegen.math.piece_tables import TANH
from tracejit.codegen.math.piecewise import choose, odd_on_pieces
from tracejit.codegen.math.registry import register

# (tanh x - x) / x³ in x², |x| <= 0.625: error 2^-27.8 of tanh x.
_TANH_LIMIT = 0.625
_TANH_F32 = (
    -0.3333328366279602, 0.1333148330450058, -0.05374285578727722, 0.020648734644055367,
    -0.005715289618819952,
)  # fmt: skip

# (cosh r - 1) / r² and (sinh r - r) / r³ in r², |r| <= 0.3467: errors 2^-33.2, 2^-34.3 (f32),
# 2^-58.0, 2^-57.8 (f64).
_COSH_F32 = (0.5, 0.041666459292173386, 0.0013935428578406572)
_SINH_F32 = (0.1666666716337204, 0.00833317544311285, 0.00019974095630459487)
_COSH_F64 = (
    0.5000000000000013, 0.04166666666651047, 0.0013888888948351782, 2.4801488515122653e-05,
    2.763180529243562e-07,
)  # fmt: skip
_SINH_F64 = (
    0.16666666666666677, 0.008333333333321386, 0.00019841269886757836, 2.755724358278108e-06,
    2.5109421003052477e-08,
)  # fmt: skip

# (2 atanh(S / 2) - S) / S³ in S², |S| <= 0.524: errors 2^-31.3 and 2^-61.1.
_ATANH_F32 = (
    0.08333329111337662,
    0.012501468881964684,
    0.0022163474932312965,
    0.0004999405355192721,
)
_ATANH_F64 = (
    0.08333333333333348, 0.012499999999978535, 0.002232142858213254, 0.00043402775165189163,
    8.877876909814003e-05, 1.8777060936633242e-05, 4.08419856490644e-06, 8.51559063111349e-07,
    2.7559648148928207e-07,
)  # fmt: skip

# Ratios below 1.7 keep e = 0, so that no e ln 2 cancels against the series.
_RATIO_LOW = 0.85


@register("tanh", inline=True)
def tanh(b: Builder, x: Value) -> Value:
    """Hyperbolic tangent; ±1 from 9.02 (f32) and 19.07 (f64) on."""
    pieces = choose(b, x, TANH)
    if pieces is not None:
        return odd_on_pieces(b, x, pieces)
    positive = b.abs(x)
    if x.type.kind == "f32":
        return _tanh_f32(b, x, positive)
    half = expm1_pair(b, at_most(b, b.add(positive, positive), 44.0))
    # With h = (e^2|x| - 1) / 2, tanh |x| = h / (h + 1).
    half = fast_two_sum(b, half.hi, half.lo)
    total = two_sum(b, half.hi, like(1.0, x))
    return b.copysign(quotient(b, half, Pair(total.hi, b.add(total.lo, half.lo))), x)


def _tanh_f32(b: Builder, x: Value, positive: Value) -> Value:
    """A polynomial below 0.625; above, 1 - 2 / (e^2|x| + 1), where the quotient is below 0.45."""
    doubled = at_most(b, b.add(positive, positive), 24.0)
    reduced = reduce_log2(b, doubled, bias=format_of(x).bias)
    scale = pow2(b, reduced.low_bits)
    # e^2x + 1 = (2^n + 1) + 2^n (e^r - 1): e^r itself would round once more.
    total = b.fma(exp_minus_one_series(b, reduced.r), scale, b.add(scale, like(1.0, x)))
    large = b.sub(like(1.0, x), b.div(like(2.0, x), total))
    z = b.mul(x, x)
    small = b.fma(b.mul(positive, z), horner(b, z, _TANH_F32), positive)
    limit = like(_TANH_LIMIT, x)
    return b.copysign(b.select(b.compare("lt", positive, limit), small, large), x)


def _sinh_cosh_parts(b: Builder, positive: Value) -> tuple[Value, Value, Value, Value]:
    """Return (A, B, C, S): cosh |x| = 2 (A + (A C + B S)), sinh |x| = 2 (B + (B C + A S)).

    C = cosh r - 1, S = sinh r, A = (2^n + 2^-n) / 4 and B = (2^n - 2^-n) / 4: a quarter, because
    the largest result needs n one above the largest exponent.
    """
    form = format_of(positive)
    x = at_most(b, positive, pick(positive, f32=89.5, f64=710.5))
    reduced = reduce_log2(b, x, bias=form.bias - 2)
    z = b.mul(reduced.r, reduced.r)
    cosh_less = b.mul(z, horner(b, z, pick(x, f32=_COSH_F32, f64=_COSH_F64)))
    series = horner(b, z, pick(x, f32=_SINH_F32, f64=_SINH_F64))
    sinh_r = b.add(reduced.head, b.fma(b.mul(reduced.r, z), series, reduced.tail))
    up = pow2(b, reduced.low_bits)
    # 2^-n stops mattering long before it stops being a normal number.
    n = at_most(b, reduced.n, 100.0)
    magic = 1.5 * 2.0**form.mantissa + form.bias - 2
    down = pow2(b, to_bits(b, b.sub(like(magic, x), n)))
    return b.add(up, down), b.sub(up, down), cosh_less, sinh_r


@register("sinh", inline=True)
def sinh(b: Builder, x: Value) -> Value:
    """Hyperbolic sine; the sign of zero is kept."""
    positive = b.abs(x)
    plus, minus, cosh_less, sinh_r = _sinh_cosh_parts(b, positive)
    y = b.add(minus, b.fma(minus, cosh_less, b.mul(plus, sinh_r)))
    y = b.mul(y, like(2.0, x))
    # Subnormals would lose a bit to the halves above.
    tiny = b.compare("lt", positive, like(pick(x, f32=2.0**-20, f64=2.0**-40), x))
    return b.copysign(b.select(tiny, positive, y), x)


@register("cosh", inline=True)
def cosh(b: Builder, x: Value) -> Value:
    """Hyperbolic cosine."""
    plus, minus, cosh_less, sinh_r = _sinh_cosh_parts(b, b.abs(x))
    y = b.add(plus, b.fma(plus, cosh_less, b.mul(minus, sinh_r)))
    return b.mul(y, like(2.0, x))


def _two_atanh(b: Builder, double_s: Pair, e: Value) -> Value:
    """Return e ln 2 + 2 atanh(s), given 2 s as a main part and a correction."""
    ln2 = pick(e, f32=LN2_F32, f64=LN2_F64)
    whole = b.add(double_s.hi, double_s.lo)
    z = b.mul(whole, whole)
    series: Sequence[float] = pick(e, f32=_ATANH_F32, f64=_ATANH_F64)
    low = b.fma(e, like(ln2.lo, e), double_s.lo)
    tail = b.fma(b.mul(whole, z), polynomial(b, z, series), low)
    return b.fma(e, like(ln2.hi, e), b.add(double_s.hi, tail))


def _log_of_sum(b: Builder, x: Value, sine: Value, cosine: Value) -> Value:
    """Return y >= 0 with sinh y = ``sine`` and cosh y = ``cosine``; ``x`` is the larger input.

    y = log(sine + cosine); log(2 x) where x² would overflow. Below 1.7 the sum is not formed:
    2 tanh(y/2) = sine - sine³ / (1 + cosine)², and the first term is nearly all of it.
    """
    one, half, zero = like(1.0, x), like(0.5, x), like(0.0, x)
    large = b.compare("gt", x, like(pick(x, f32=2.0**14, f64=2.0**30), x))
    exact = fast_two_sum(b, cosine, sine)
    total = b.select(large, x, exact.hi)
    m, e = split_exponent(b, total, _RATIO_LOW)
    bits = to_bits(b, total)
    down = b.add(b.sub(to_bits(b, m), bits), const(format_of(x).one, bits.type))
    low = b.select(large, zero, b.mul(exact.lo, from_bits(b, down)))
    near = b.compare("eq", e, zero)
    more = b.add(cosine, one)
    top = b.select(near, b.mul(b.mul(sine, sine), b.neg(sine)), b.add(b.sub(m, one), low))
    bottom = b.select(near, b.mul(more, more), b.mul(b.add(m, one), half))
    q = b.div(top, bottom)
    double_s = Pair(b.select(near, sine, q), b.select(near, q, zero))
    y = _two_atanh(b, double_s, b.add(e, b.select(large, one, zero)))
    # Infinity and NaN have no exponent.
    return b.select(b.compare("uge", x, like(INF, x)), x, y)


@register("arcsinh")
def arcsinh(b: Builder, x: Value) -> Value:
    """Inverse hyperbolic sine; the sign of zero is kept."""
    positive = b.abs(x)
    cosine = b.sqrt(b.fma(positive, positive, like(1.0, x)))
    return b.copysign(_log_of_sum(b, positive, positive, cosine), x)


def _arccosh_by_table(b: Builder, x: Value) -> Value:
    """log(1 + (t + √(t² + 2 t))) with t = x - 1, and log 2x for x whose square may overflow.

    What the root s lacks is its remainder times 1 / 2s. A sixteenth off is near enough for that:
    a difference of bit patterns.
    """
    form, one, zero = format_of(x), like(1.0, x), like(0.0, x)
    t = b.sub(x, one)
    square = b.fma(t, t, b.add(t, t))
    root = b.sqrt(square)
    bits = to_bits(b, root)
    half = const(2 * form.one - (17 << (form.mantissa - 4)), bits.type)
    rest = b.mul(fnma(b, root, root, square), from_bits(b, b.sub(half, bits)))
    grown = fast_two_sum(b, root, t)
    u = two_sum(b, one, grown.hi)
    huge = b.compare("gt", x, like(2.0**60, x))
    hi = b.select(huge, x, u.hi)
    lo = b.select(huge, zero, b.add(u.lo, b.add(grown.lo, rest)))
    y = log_of_sum_by_table(b, Pair(hi, lo), b.select(huge, one, zero))
    return b.select(b.compare("lt", x, one), like(NAN, x), y)


@register("arccosh")
def arccosh(b: Builder, x: Value) -> Value:
    """Inverse hyperbolic cosine; NaN below 1."""
    if avx512.available(b):
        return _arccosh_by_table(b, x)
    one = like(1.0, x)
    t = b.sub(x, one)
    sine = b.sqrt(b.fma(t, t, b.add(t, t)))
    y = _log_of_sum(b, x, sine, x)
    return b.select(b.compare("lt", x, one), like(NAN, x), y)


@register("arctanh")
def arctanh(b: Builder, x: Value) -> Value:
    """Inverse hyperbolic tangent; ±inf at ±1, NaN beyond.

    The half of log R, R = (1 + x) / (1 - x). 2^n near R comes from the difference of the bit
    patterns of 1 + x and 1 - x, which is a logarithm to base 2 within 0.09.
    """
    form = format_of(x)
    positive = b.abs(x)
    one = like(1.0, x)
    above, below = fast_two_sum(b, one, positive), fast_two_sum(b, one, b.neg(positive))
    ints = integer_type(x.type)
    gap = b.sub(to_bits(b, above.hi), to_bits(b, below.hi))
    # R under 1.57 or so stays at n = 0.
    n = b.lshr(b.add(gap, const(int(0.35 * 2**form.mantissa), ints)), const(form.mantissa, ints))
    scale = from_bits(b, b.shl(b.sub(const(form.bias, ints), n), const(form.mantissa, ints)))
    magic = 1.5 * 2.0**form.mantissa
    e = b.sub(from_bits(b, b.add(n, to_bits(b, like(magic, x)))), like(magic, x))
    # s = (2^-n above - below) / (2^-n above + below); for n = 0 the difference is 2 |x| itself.
    near = b.compare("eq", n, const(0, ints))
    top = b.fma(scale, above.hi, b.neg(below.hi))
    top = b.add(top, b.fma(scale, above.lo, b.neg(below.lo)))
    top = b.select(near, b.add(positive, positive), top)
    bottom = b.mul(b.fma(scale, above.hi, below.hi), like(0.5, x))
    double_s = Pair(b.div(top, bottom), like(0.0, x))
    y = b.mul(_two_atanh(b, double_s, e), like(0.5, x))
    y = b.select(b.compare("eq", positive, one), like(INF, x), y)
    return b.copysign(b.select(b.compare("gt", positive, one), like(NAN, x), y), x)
