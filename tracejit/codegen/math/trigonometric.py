"""sin, cos, tan and their inverses, for f32 and f64.

Circular functions: the argument is reduced modulo π/2 as in ``reduction.py``; minimax polynomials
(Remez) give sine and cosine of the remainder, and the quadrant picks. Reducing modulo π instead
needs a single odd polynomial, but on [-π/2, π/2] its corrections are half of the result and their
roundings cost 2 ULP (measured, f32). Lanes beyond the common range go through a cold function.
Doubles on AVX-512 have a table instead: ``sixteenths.py``.

Inverse functions: folded onto an interval where one odd polynomial does (Cody and Waite, 1980).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.math import sixteenths
from tracejit.codegen.math.common import (
    fast_two_sum,
    flip_sign,
    fnma,
    horner,
    like,
    nearest,
    pick,
    polynomial,
    rare,
    sign_bit,
)
from tracejit.codegen.math.reduction import (
    LIMIT_F32_FUSED,
    PI_OVER_2,
    Remainder,
    large_function,
    subtract_half_pi,
    subtract_half_pi_fused,
)
from tracejit.codegen.math.registry import register

# (sin r / r - 1) / r² in r² on |r| <= π/4: relative errors 2^-28 and 2^-58.
_SIN_F32 = (-0.16666654874370498, 0.00833217359236469, -0.0001951666232912898)
_SIN_F64 = (
    -0.16666666666666632, 0.008333333333322458, -0.00019841269829817416, 2.7557313689178945e-06,
    -2.5050756984236312e-08, 1.5896698070750273e-10,
)  # fmt: skip
# (cos r - 1 + r²/2) / r⁴ in r² on |r| <= π/4: errors 2^-33 and 2^-64.
_COS_F32 = (0.041666646749140356, -0.001388736148578918, 2.443773282609485e-05)
_COS_F64 = (
    0.0416666666666666, -0.0013888888888874441, 2.4801587289636432e-05, -2.755731438754822e-07,
    2.087572707573896e-09, -1.1359803629394743e-11,
)  # fmt: skip
# (tan r / r - 1) / r² in r² on |r| <= π/4: relative errors 2^-29.5 and 2^-55.4.
_TAN_F32 = (
    0.33333349227905273, 0.1333267241716385, 0.05405961349606514, 0.021281013265252113,
    0.010844298638403416, 7.326393097173423e-05, 0.004386551212519407,
)  # fmt: skip
_TAN_F64 = (
    0.33333333333332765, 0.13333333333416475, 0.05396825392572921, 0.021869489632478683,
    0.008863218823290268, 0.003592292224173227, 0.0014547385429069149, 0.0005951474551284178,
    0.000222133738570812, 0.00013703622453347696, -2.7111450282562865e-05, 9.012498698212684e-05,
    -4.524395953108329e-05, 2.095295908022042e-05,
)  # fmt: skip
# (atan t / t - 1) / t² in t² on |t| <= 1: relative errors 2^-28.4 and 2^-56.
_ATAN_F32 = (
    -0.33333298563957214, 0.1999852955341339, -0.14264015853405, 0.10950876027345657,
    -0.0839918851852417, 0.0578758604824543, -0.03108653426170349, 0.010859827511012554,
    -0.0017800170462578535,
)  # fmt: skip
_ATAN_F64 = (
    -0.3333333333333307, 0.19999999999951756, -0.1428571428258351, 0.11111111006970081,
    -0.09090906995736628, 0.07692279670288604, -0.06666401892371615, 0.058805096716718006,
    -0.05253411657869104, 0.04721861804901106, -0.042176958311165566, 0.03660571175696818,
    -0.029836533121501956, 0.02188953105589334, -0.013798664196962084, 0.0071157059050213165,
    -0.002838880098386218, 0.0008135095727557777, -0.00014797250881939806, 1.2773424750694916e-05,
)  # fmt: skip
# (asin t / t - 1) / t² in t² on |t| <= 1/2: relative errors 2^-27.6 and 2^-55.7.
_ASIN_F32 = (
    0.16666752099990845, 0.0749531015753746, 0.04546898603439331, 0.024185730144381523,
    0.0421566516160965,
)  # fmt: skip
_ASIN_F64 = (
    0.16666666666665408, 0.07500000000336919, 0.044642856828406526, 0.030381959133938465,
    0.022371758116946118, 0.01735970385075077, 0.013885243685081644, 0.012169162161800334,
    0.006528172639328648, 0.019527764309731355, -0.01622352027067615, 0.031911799759834235,
)  # fmt: skip

_HALF_PI = {"f32": (1.5707963705062866, -4.371138828673793e-08), "f64": PI_OVER_2}
_TWO_OVER_PI = 0.6366197723675814


def _series(b: Builder, z: Value, coefficients: Sequence[float]) -> Value:
    """Return c[0] + z (c[1] + c[2] z + …), the bracket by pairs where that is faster.

    The last step stays Horner's: its two terms matter most for the error.
    """
    first, *others = coefficients
    return b.fma(polynomial(b, z, others), z, like(first, z))


# -- sine and cosine -------------------------------------------------------------------------------


def _sine(b: Builder, r: Value, lo: Value | None, z: Value, w: Value) -> Value:
    """sin(r + lo) for |r| <= π/4 with z = r², w about cos r; about 0.52 ULP beside r's error."""
    p = horner(b, z, pick(r, f32=_SIN_F32, f64=_SIN_F64))
    if lo is None:
        return b.fma(b.mul(z, r), p, r)
    low = lo if r.type.kind == "f32" else b.mul(lo, w)
    return b.add(r, b.fma(b.mul(z, r), p, low))


def _cosine_f64(b: Builder, r: Value, lo: Value, z: Value, half: Value, w: Value) -> Value:
    """cos(r + lo) for |r| <= π/4 with half = z/2 and w = 1 - half rounded; about 0.52 ULP."""
    error = b.sub(b.sub(like(1.0, w), w), half)
    rest = b.fma(b.mul(z, z), horner(b, z, _COS_F64), fnma(b, r, lo, error))
    return b.add(w, rest)


def _both(b: Builder, r: Value, lo: Value | None) -> tuple[Value, Value]:
    """Return (sin, cos) of r + lo, |r| <= π/4."""
    z = b.mul(r, r)
    if r.type.kind == "f32" or lo is None:
        return _sine(b, r, lo, z, z), horner(b, z, (1.0, -0.5, *_COS_F32))
    half = b.mul(z, like(0.5, z))
    w = b.sub(like(1.0, z), half)
    return _sine(b, r, lo, z, w), _cosine_f64(b, r, lo, z, half, w)


def _odd(b: Builder, quadrant: Value) -> Value:
    """Whether the lowest bit is set: one test, or a shift and a blend by the sign."""
    if b.target.masks:
        one = const(1, quadrant.type)
        return b.compare("ne", b.and_(quadrant, one), const(0, quadrant.type))
    top = b.shl(quadrant, const(quadrant.type.bits - 1, quadrant.type))
    return b.compare("lt", top, const(0, quadrant.type))


def _second_bit_as_sign(b: Builder, i: Value) -> Value:
    """Move bit 1 of an integer into the sign's place, the others zero."""
    top = i.type.bits - 1
    return b.and_(b.shl(i, const(top - 1, i.type)), const(-(1 << top), i.type))


def _turned_sine(b: Builder, remainder: Remainder, turns: int) -> Value:
    """Return sin((quadrant + turns) π/2 + hi + lo): turns = 1 makes it the cosine."""
    quadrant, hi, lo = remainder
    sine, cosine = _both(b, hi, lo)
    odd = _odd(b, quadrant)
    if turns == 0:
        value, signs = b.select(odd, cosine, sine), quadrant
    else:
        value = b.select(odd, sine, cosine)
        signs = b.add(quadrant, const(1, quadrant.type))
    return flip_sign(b, value, _second_bit_as_sign(b, signs))


def _reduce(b: Builder, magnitude: Value) -> tuple[Remainder, Value]:
    """Reduce |x| modulo π/2; return the remainder and the lanes that are too large for it.

    NaN is not too large: it passes through.
    """
    n, quadrant = nearest(b, magnitude, _TWO_OVER_PI)
    (hi, lo), limit = subtract_half_pi(b, magnitude, n)
    too_large = b.compare("gt", magnitude, like(limit, magnitude))
    return Remainder(quadrant, hi, lo), too_large


def _large(name: str) -> Callable[[Builder, Sequence[Value]], Value]:
    """Return the body of the cold function of ``sin``, ``cos`` or ``tan``."""

    def finish(b: Builder, remainder: Remainder) -> Value:
        if name == "tan":
            return _tangent(b, remainder)
        return _turned_sine(b, remainder, 0 if name == "sin" else 1)

    return lambda b, parameters: large_function(b, name, parameters[0], finish)


def _fused_float(b: Builder, x: Value, turns: int, name: str) -> Value:
    """Return sin(x + turns π/2) for floats with fused multiply-add, from x with its sign.

    With the remainder's low part and the polynomial negated, -0 stays -0 without help.
    """
    n, quadrant = nearest(b, x, _TWO_OVER_PI, bias=turns)
    r, less = subtract_half_pi_fused(b, x, n)
    z = b.mul(r, r)
    sine = b.sub(r, b.fma(b.mul(z, r), horner(b, z, [-c for c in _SIN_F32]), less))
    cosine = horner(b, z, (1.0, -0.5, *_COS_F32))
    value = b.select(_odd(b, quadrant), cosine, sine)
    usual = flip_sign(b, value, _second_bit_as_sign(b, quadrant))
    too_large = b.compare("gt", b.abs(x), like(LIMIT_F32_FUSED, x))
    return rare(b, f"{name}.large", too_large, usual, [x], _large(name))


@register("sin", inline=True)
def sin(b: Builder, x: Value) -> Value:
    """sin x: at most 0.8 ULP (f64), 1.5 (f32); -0 for -0, NaN for ±inf."""
    if sixteenths.serves(b, x):
        reduced = sixteenths.reduce(b, b.abs(x))
        sign = b.xor(sixteenths.sign(b, reduced), sign_bit(b, x))
        usual = flip_sign(b, sixteenths.sine(b, reduced), sign)
        return rare(b, "sin.large", reduced.too_large, usual, [x], _large("sin"))
    if x.type.kind == "f32" and b.target.fma:
        return _fused_float(b, x, 0, "sin")
    remainder, too_large = _reduce(b, b.abs(x))
    usual = flip_sign(b, _turned_sine(b, remainder, 0), sign_bit(b, x))
    return rare(b, "sin.large", too_large, usual, [x], _large("sin"))


@register("cos", inline=True)
def cos(b: Builder, x: Value) -> Value:
    """cos x: at most 0.8 ULP (f64), 1.5 (f32); NaN for ±inf."""
    if sixteenths.serves(b, x):
        reduced = sixteenths.reduce(b, b.abs(x))
        usual = flip_sign(b, sixteenths.cosine(b, reduced), sixteenths.sign(b, reduced))
        return rare(b, "cos.large", reduced.too_large, usual, [x], _large("cos"))
    if x.type.kind == "f32" and b.target.fma:
        return _fused_float(b, x, 1, "cos")
    remainder, too_large = _reduce(b, b.abs(x))
    usual = _turned_sine(b, remainder, 1)
    return rare(b, "cos.large", too_large, usual, [x], _large("cos"))


# -- tangent ---------------------------------------------------------------------------------------


def _tangent(b: Builder, remainder: Remainder) -> Value:
    """tan(quadrant π/2 + hi + lo): T or -1/T, T = tan(hi + lo), the latter with T's low part.

    tan(hi + lo) = tan hi + lo (1 + tan² hi) to first order; on [-π/4, π/4] the derivative lies
    between 1 and 2, and 1 + hi² is near enough to it. A zero T of an odd quadrant does not
    occur: no float is a multiple of π/2.
    """
    quadrant, hi, lo = remainder
    z = b.mul(hi, hi)
    lo = lo or like(0.0, hi)
    tail = b.mul(lo, b.add(z, like(1.0, z)))
    p = _series(b, z, pick(hi, f32=_TAN_F32, f64=_TAN_F64))
    correction = b.fma(b.mul(z, hi), p, tail)
    head = b.add(hi, correction)
    rest = b.add(b.sub(hi, head), correction)
    # 1 / (head + rest) = q (1 - q rest) with q = 1 / head.
    q = b.div(like(-1.0, head), head)
    inverse = b.fma(b.mul(q, q), rest, q)
    return b.select(_odd(b, quadrant), inverse, head)


@register("tan")
def tan(b: Builder, x: Value) -> Value:
    """tan x: at most 2 ULP; -0 for -0, NaN for ±inf."""
    if sixteenths.serves(b, x):
        reduced = sixteenths.reduce(b, b.abs(x))
        usual = flip_sign(b, sixteenths.tangent(b, reduced), sign_bit(b, x))
        return rare(b, "tan.large", reduced.too_large, usual, [x], _large("tan"))
    remainder, too_large = _reduce(b, b.abs(x))
    usual = flip_sign(b, _tangent(b, remainder), sign_bit(b, x))
    return rare(b, "tan.large", too_large, usual, [x], _large("tan"))


# -- inverse functions -----------------------------------------------------------------------------


def _arctan_folded(b: Builder, t: Value) -> Value:
    """atan t for 0 <= t <= 1."""
    z = b.mul(t, t)
    p = _series(b, z, pick(t, f32=_ATAN_F32, f64=_ATAN_F64))
    return b.fma(b.mul(z, t), p, t)


@register("arctan")
def arctan(b: Builder, x: Value) -> Value:
    """Arc tangent, at most 2 ULP; ±π/2 for ±inf, -0 for -0."""
    magnitude = b.abs(x)
    one = like(1.0, x)
    steep = b.compare("gt", magnitude, one)
    # atan x = π/2 - atan(1/x)
    t = b.div(b.select(steep, one, magnitude), b.select(steep, magnitude, one))
    folded = _arctan_folded(b, t)
    high, low = (like(p, x) for p in _HALF_PI[x.type.kind])
    result = b.select(steep, b.add(b.sub(high, folded), low), folded)
    return flip_sign(b, result, sign_bit(b, x))


@register("arctan2", arity=2)
def arctan2(b: Builder, y: Value, x: Value) -> Value:
    """Angle of the point (x, y) in [-π, π], at most 2 ULP; C99 Annex F at zeros and infinities."""
    up, across = b.abs(y), b.abs(x)
    steep = b.compare("gt", up, across)
    small, large = b.select(steep, across, up), b.select(steep, up, across)
    # 0/0 becomes 0/least, inf/inf becomes 1; NaN stays, since comparisons with it are false.
    least = like(pick(x, f32=2.0**-149, f64=5e-324), x)
    large = b.select(b.compare("lt", large, least), least, large)
    ratio = b.select(b.compare("eq", small, large), like(1.0, x), b.div(small, large))
    folded = _arctan_folded(b, ratio)
    # The angle is folded, π/2 - folded, π/2 + folded or π - folded: a constant plus or minus.
    high, low = _HALF_PI[x.type.kind]
    zero = like(0.0, x)
    left = sign_bit(b, x)
    backwards = b.compare("lt", left, const(0, left.type))
    flat_high = b.select(backwards, like(2 * high, x), zero)
    flat_low = b.select(backwards, like(2 * low, x), zero)
    base_high = b.select(steep, like(high, x), flat_high)
    base_low = b.select(steep, like(low, x), flat_low)
    turned = b.select(steep, like(-1.0, x), like(1.0, x))
    signed = flip_sign(b, flip_sign(b, folded, left), sign_bit(b, turned))
    angle = b.add(base_high, b.add(signed, base_low))
    return flip_sign(b, angle, sign_bit(b, y))


def _arcsin_parts(b: Builder, magnitude: Value) -> tuple[Value, Value, Value]:
    """Return (inside, s, p): asin s = s + p, with s = |x| where ``inside`` (|x| < 1/2).

    Elsewhere asin|x| = π/2 - 2 asin s with s = sqrt((1 - |x|) / 2), which is NaN for |x| > 1.
    """
    half = like(0.5, magnitude)
    inside = b.compare("lt", magnitude, half)
    folded = b.mul(b.sub(like(1.0, magnitude), magnitude), half)
    z = b.select(inside, b.mul(magnitude, magnitude), folded)
    s = b.select(inside, magnitude, b.sqrt(z))
    p = _series(b, z, pick(magnitude, f32=_ASIN_F32, f64=_ASIN_F64))
    return inside, s, b.mul(b.mul(z, s), p)


@register("arcsin")
def arcsin(b: Builder, x: Value) -> Value:
    """Arc sine, at most 2 ULP; NaN outside [-1, 1]."""
    inside, s, p = _arcsin_parts(b, b.abs(x))
    high, low = (like(v, x) for v in _HALF_PI[x.type.kind])
    angle = b.add(s, p)
    # π/2 - 2 (s + p): the difference with 2 s is kept exactly, since it may exceed the result.
    head, tail = fast_two_sum(b, high, b.mul(s, like(-2.0, s)))
    steep = b.add(head, b.sub(b.add(tail, low), b.add(p, p)))
    return flip_sign(b, b.select(inside, angle, steep), sign_bit(b, x))


@register("arccos")
def arccos(b: Builder, x: Value) -> Value:
    """Arc cosine, at most 2 ULP; NaN outside [-1, 1], 0 for 1."""
    inside, s, p = _arcsin_parts(b, b.abs(x))
    high, low = _HALF_PI[x.type.kind]
    sign = sign_bit(b, x)
    # Inside: π/2 - asin x. Outside: 2 asin s, or π minus that for negative x.
    s, p = (flip_sign(b, v, sign) for v in (s, p))
    middle = b.sub(like(high, x), b.sub(s, b.sub(like(low, x), p)))
    negative = b.compare("lt", sign, const(0, sign.type))
    base_high = b.select(negative, like(2 * high, x), like(0.0, x))
    base_low = b.select(negative, like(2 * low, x), like(0.0, x))
    outer = b.add(base_high, b.add(b.add(s, s), b.add(b.add(p, p), base_low)))
    return b.select(inside, middle, outer)
