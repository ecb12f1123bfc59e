"""erf, erfc, gamma and lgamma, for f32 and f64.

erf has two minimax polynomials (Remez), for erf(x)/x near zero and for -log2 erfc(x) beyond one;
the exponential form needs neither division nor table.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.codegen.builder import Builder, Value
from tracejit.codegen.math.common import (
    at_most,
    flip_sign,
    fnma,
    format_of,
    horner,
    like,
    nearest,
    pick,
    pow2,
    sign_bit,
)
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
# -log2 erfc x - 3 in x - a on 1 <= x <= 3.92 (f32) and 5.93 (f64), where erfc a = 1/8: errors
# relative to erf 2^-30.4 and 2^-56.7.
_ERF_ANCHOR = {"f32": 1.0847870111465454, "f64": 1.0847870400692832}
_ERF_LARGE_F32 = (
    -1.1635775365448353e-07, 4.014744758605957, 1.230991005897522, 0.055251456797122955,
    -0.013307793997228146, 0.0026948689483106136, -0.0003991221310570836, 3.128543175989762e-05,
)  # fmt: skip
_ERF_LARGE_F64 = (
    1.0676015439874429e-16, 4.014744775348285, 1.2309908888482792, 0.05525146718652214,
    -0.0133036412934198, 0.0026748589684870818, -0.0003576746849758962, -1.471266806575052e-05,
    2.9556054290132895e-05, -1.1471431713521611e-05, 2.7682757124463015e-06,
    -3.5625313525328945e-07, -3.8101568278864145e-08, 3.495440832849739e-08,
    -1.0012562785494188e-08, 1.6758636254492705e-09, -1.6197448935394315e-10, 7.015705389986047e-12,
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

    Below 1, erf x = x + x P with a P that is small and centred on the middle, so that only the
    last rounding counts. From 1 on, erfc is below 0.16, so that its roundings weigh less; and
    -log2 erfc is written as 3 + q where errors matter most, because q is small there and the 3
    goes into the exponent exactly.
    """
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
    value = b.select(b.compare("lt", magnitude, one), small, large)
    return flip_sign(b, value, sign_bit(b, x))
