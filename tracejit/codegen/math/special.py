"""erf and erfc, for f32 and f64.

erf has two minimax polynomials (Remez), for erf(x)/x near zero and for -log2 erfc(x) beyond one;
the exponential form needs neither division nor table. Where a target looks tables up in registers,
erf is one polynomial per interval, and erfc y = e^(-y²) G(y) with G likewise.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.codegen.builder import Builder, Value
from tracejit.codegen.math.common import (
    SCALE_DOWN,
    Pair,
    at_most,
    fast_two_sum,
    flip_sign,
    fnma,
    format_of,
    horner,
    like,
    nearest,
    pick,
    pow2,
    scale_by_sign,
    scale_down,
    shift_exponent,
    sign_bit,
    two_prod,
    two_sum,
)
from tracejit.codegen.math.exponential import (
    LOG2_E,
    exp_minus_one_series,
    exp_reduced_pair,
    reduce_log2,
)
from tracejit.codegen.math.piece_tables import ERF, ERFCX, Pieces
from tracejit.codegen.math.piecewise import choose, odd_on_pieces, pair_on_pieces
from tracejit.codegen.math.registry import register

# erf(x)/x - 1 in x² - 1/2 on |x| <= 1: relative errors 2^-29 and 2^-56.5.
_ERF_SMALL_F32 = (
    -0.03453126177191734, -0.281072199344635, 0.07941003143787384, -0.018283257260918617,
    0.003479664446786046, -0.0005657773581333458, 8.042770059546456e-05,
)  # fmt: skip
_ERF_SMALL_F64 = (
    -0.0345312613301327, -0.2810721780454343, 0.07940998675593686, -0.018283884489151313,
    0.0034802744965707413, -0.000561189422151739, 7.829649687739341e-05, -9.614808359471935e-06,
    1.0536324130530132e-06, -1.0420500569394587e-07, 9.432274091859531e-09, -7.779447251754269e-10,
)  # fmt: skip
# -log2 erfc x - 3 in x - a on [1, 3.92] (f32) and [0.93, 5.93] (f64), where erfc a = 1/8: errors
# relative to erf 2^-30.4 and 2^-56.
_ERF_ANCHOR = {"f32": 1.0847870111465454, "f64": 1.0847870400692832}
_ERF_LARGE_F32 = (
    -1.1635775365448353e-07, 4.014744758605957, 1.230991005897522, 0.055251456797122955,
    -0.013307793997228146, 0.0026948689483106136, -0.0003991221310570836, 3.128543175989762e-05,
)  # fmt: skip
_ERF_LARGE_F64 = (
    7.624097817547486e-17, 4.014744775348293, 1.230990888848298, 0.05525146718426861,
    -0.013303641284573004, 0.002674859086955007, -0.0003576759526000037, -1.4707059423997981e-05,
    2.95413928850428e-05, -1.1446224350457108e-05, 2.738350149929525e-06, -3.3115052651575857e-07,
    -5.3080719953821154e-08, 4.126492017016792e-08, -1.1843881717245515e-08, 2.0236166942009824e-09,
    -2.0080557768925634e-10, 8.945744813550992e-12,
)  # fmt: skip
# 2^-f on |f| <= 1/2: relative errors 2^-26 and 2^-55.
_EXP2_F32 = (
    1.0, -0.6931472420692444, 0.24022655189037323, -0.05550272390246391, 0.009617067873477936,
    -0.0013417983427643776, 0.0001582302211318165,
)  # fmt: skip
_EXP2_F64 = (
    1.0, -0.6931471805599457, 0.240226506959101, -0.05550410866478794, 0.009618129107606165,
    -0.0013333558153950185, 0.0001540353044226569, -1.5252726934657454e-05, 1.321544252206743e-06,
    -1.0180825985563402e-07, 7.072568769856181e-09, -4.0520664504701734e-10,
)  # fmt: skip
# e^(y²) erfc(y) (y + 4) in (y - 4) / (y + 4): for f64 on 0.74 <= y <= 28 (powers of the
# variable less 0.125, about the middle of the interval; relative error 2^-57,
# the first two coefficients in two parts); for f32 (computed in doubles) on 0 <= y <= 11, 2^-29.5.
_ERFC_CENTRE = 0.125
_ERFC_F64 = (
    0.9850278437800115, -0.8062134096724353, 0.598270665343292, -0.39984859236895964,
    0.23829706610667342, -0.12472080218417249, 0.055914782982076, -0.02050864801457646,
    0.0055318760815643514, -0.0007023712547858155, -0.00022496768047842064, 0.00015207106718967953,
    -2.672608774232125e-05, -9.247430300668281e-06, 5.771381406385129e-06, -2.3400089144972442e-07,
    -7.307075695202791e-07, 1.6604548875031438e-07, 8.56430217364016e-08, -2.7275689896044714e-08,
    -1.1171938205904896e-08,
)  # fmt: skip
_ERFC_F64_TAILS = (4.5891200660874594e-17, 4.4054170557387074e-17)
_ERFC_F32 = (
    1.0959956613177038, -0.9765487531651729, 0.7732086683396019, -0.5408526523222618,
    0.3308528076899275, -0.17402635907878483, 0.07636107763795358, -0.02629832403298609,
    0.006246205039903407, -0.0003525333726815643, -0.0007430368599258506,
)  # fmt: skip
# 2^f on |f| <= 1/2 for floats computed in doubles: relative error 2^-29.
_EXP2_FOR_F32 = (
    1.0000000005546221, 0.6931472057339261, 0.24022646893232116, 0.05550328778849,
    0.009618488886111977, 0.0013399931557299151, 0.00015345799631827448,
)  # fmt: skip


def two_chains(b: Builder, x: Value, coefficients: Sequence[float]) -> Value:
    """Return c[0] + x (c[1] + c[2] x + …), the bracket as even and odd parts.

    Half the latency of Horner's rule, and the last step is the same.
    """
    square = b.mul(x, x)
    even = horner(b, square, coefficients[1::2])
    odd = horner(b, square, coefficients[2::2])
    return b.fma(b.fma(odd, x, even), x, like(coefficients[0], x))


# -- error function --------------------------------------------------------------------------------


@register("erf")
def erf(b: Builder, x: Value) -> Value:
    """Error function, at most 1 ULP (f64) and 1.5 (f32); ±1 for ±inf, -0 for -0. Branch-free.

    Below about 1, erf x = x + x P with a P that is small and centred on the middle, so that only
    the last rounding counts. Beyond, erfc is below 0.19, so that its roundings weigh less; and
    -log2 erfc is written as 3 + q where errors matter most, because q is small there and the 3
    goes into the exponent exactly.
    """
    pieces = choose(b, x, ERF)
    if pieces is not None:
        return odd_on_pieces(b, x, pieces)
    magnitude = at_most(b, b.abs(x), pick(x, f32=4.0, f64=6.0))
    one = like(1.0, x)
    z = b.fma(magnitude, magnitude, like(-0.5, x))
    small = two_chains(b, z, pick(x, f32=_ERF_SMALL_F32, f64=_ERF_SMALL_F64))
    small = b.fma(small, magnitude, magnitude)

    u = b.sub(magnitude, like(_ERF_ANCHOR[x.type.kind], x))
    q = two_chains(b, u, pick(x, f32=_ERF_LARGE_F32, f64=_ERF_LARGE_F64))
    n, low_bits = nearest(b, q, -1.0, bias=format_of(x).bias - 3)
    power = two_chains(b, b.add(q, n), pick(x, f32=_EXP2_F32, f64=_EXP2_F64))
    large = fnma(b, power, pow2(b, low_bits), one)
    below = b.compare("lt", magnitude, like(pick(x, f32=1.0, f64=0.94), x))
    value = b.select(below, small, large)
    return flip_sign(b, value, sign_bit(b, x))


def _scaled_erfc_f64(b: Builder, y: Value) -> Pair:
    """Return e^(y²) erfc(y) as a pair, for y from 0.74 to 28.

    G(t) / (y + 4) with t = (y - 4) / (y + 4) (Shepherd and Laframboise, "Chebyshev approximation
    of (1 + 2x) exp(x²) erfc x", 1981). Each rounded step is followed by its correction.
    """
    top, bottom = two_sum(b, y, like(-4.0, y)), two_sum(b, y, like(4.0, y))
    inverse = b.div(like(1.0, y), bottom.hi)

    def divide(top: Pair) -> Pair:
        """Return top / bottom with its remainder as the low part."""
        q = b.mul(top.hi, inverse)
        p = two_prod(b, q, bottom.hi)
        rest = b.sub(b.sub(b.sub(top.hi, p.hi), p.lo), b.fma(q, bottom.lo, b.neg(top.lo)))
        return Pair(q, b.mul(rest, inverse))

    quotient = divide(top)
    t = b.add(b.add(quotient.hi, like(-_ERFC_CENTRE, y)), quotient.lo)
    constant, slope, *others = _ERFC_F64
    p = fast_two_sum(b, like(slope, y), b.mul(t, two_chains(b, t, others)))
    linear = two_prod(b, t, p.hi)
    g = fast_two_sum(b, like(constant, y), linear.hi)
    first, second = (like(v, y) for v in _ERFC_F64_TAILS)
    low = b.add(g.lo, b.fma(t, b.add(p.lo, second), b.add(linear.lo, first)))
    return divide(Pair(g.hi, low))


def _erfc_f64(b: Builder, x: Value) -> Value:
    y = at_most(b, b.abs(x), 27.5)
    z = b.fma(y, y, like(-0.5, y))
    near_zero = b.sub(like(1.0, x), b.fma(two_chains(b, z, _ERF_SMALL_F64), x, x))

    square = two_prod(b, y, y)
    reduced = reduce_log2(b, b.neg(square.hi), bias=2 * format_of(x).bias)
    r, tail = b.sub(reduced.r, square.lo), b.sub(reduced.tail, square.lo)
    power = exp_reduced_pair(b, reduced._replace(r=r, tail=tail))
    factor = _scaled_erfc_f64(b, y)
    product = two_prod(b, factor.hi, power.hi)
    low = b.fma(factor.hi, power.lo, b.fma(factor.lo, power.hi, product.lo))
    product = b.add(product.hi, low)
    upper = scale_by_sign(b, product, reduced.n, reduced.low_bits, like(-1.0, x))
    far = b.select(b.compare("lt", x, like(0.0, x)), b.sub(like(2.0, x), upper), upper)
    return b.select(b.compare("lt", y, like(0.75, x)), near_zero, far)


def _erfc_f32(b: Builder, x: Value) -> Value:
    wide = b.convert(x, x.type.like("f64"))
    y = at_most(b, b.abs(wide), 10.5)
    four = like(4.0, y)
    inverse = b.div(like(1.0, y), b.add(y, four))
    g = b.mul(two_chains(b, b.mul(b.sub(y, four), inverse), _ERFC_F32), inverse)
    exponent = b.mul(b.mul(y, y), like(-LOG2_E, y))
    n, low_bits = nearest(b, exponent, 1.0)
    power = two_chains(b, b.sub(exponent, n), _EXP2_FOR_F32)
    upper = shift_exponent(b, b.mul(power, g), low_bits)
    lower = b.sub(like(2.0, y), upper)
    value = b.select(b.compare("lt", wide, like(0.0, y)), lower, upper)
    return b.convert(value, x.type)


def _erfc_on_pieces(b: Builder, x: Value, pieces: Pieces) -> Value:
    """The same by a table of e^(y²) erfc y; e^(-y²) enters as its difference from a power of 2."""
    y = at_most(b, b.abs(x), pieces.limit)
    g = pair_on_pieces(b, y, pieces)
    square = two_prod(b, y, y)
    reduced = reduce_log2(b, b.neg(square.hi), bias=format_of(x).bias + SCALE_DOWN[x.type.kind])
    less = exp_minus_one_series(b, b.sub(reduced.r, square.lo))
    product = b.add(g.hi, b.fma(g.hi, less, g.lo))
    # e^(y²) erfc y is about 1 / (√π y): below 2^-3 where the result is tiny.
    upper = scale_down(b, product, reduced.n, reduced.low_bits, most=2.0**-3)
    return b.select(b.compare("lt", x, like(0.0, x)), b.sub(like(2.0, x), upper), upper)


@register("erfc")
def erfc(b: Builder, x: Value) -> Value:
    """1 - erf x without cancellation, at most 2 ULP, through the subnormals to 0; 2 for -inf.

    erfc y = e^(-y²) G, with the rounding of y² and those of both factors carried along; floats
    compute in doubles.
    """
    pieces = choose(b, x, ERFCX)
    if pieces is not None:
        return _erfc_on_pieces(b, x, pieces)
    return pick(x, f32=_erfc_f32, f64=_erfc_f64)(b, x)
