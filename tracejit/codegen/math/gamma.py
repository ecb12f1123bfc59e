"""gamma (the Γ function) and lgamma (log |Γ|), for f32 and f64; f32 computes in doubles.

From 3 on, Stirling's formula with a minimax polynomial for the rest of its series; in [1, 3) a
polynomial of 1/Γ, or of log Γ over its zeros; below 1, Γ(x) = Γ(x + 1) / x; for negative x the
reflection Γ(-y) = -1 / (y Γ(y) sin(πy)/π), in which y is exact (1 - x would not be).
(Abramowitz and Stegun, "Handbook of Mathematical Functions", 6.1.15, 6.1.17, 6.1.40.)
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.codegen.builder import Builder, Value
from tracejit.codegen.math.common import (
    INF,
    NAN,
    Pair,
    at_most,
    fast_two_sum,
    flip_sign,
    format_of,
    horner,
    like,
    nearest,
    pair_add,
    pair_const,
    pair_mul_value,
    rare,
    scale_by_sign,
    sign_bit,
    split_exponent,
    times_constant,
)
from tracejit.codegen.math.exponential import exp2_reduced
from tracejit.codegen.math.logarithm import SQRT_HALF
from tracejit.codegen.math.power import log2_pair
from tracejit.codegen.math.registry import call, register

# 1/Γ(z) in z - 2 on 1 <= z <= 3: relative error 2^-54.7.
_INVERSE = (
    1.0, -0.42278433509846747, -0.2330937364217875, 0.1910911013877117, -0.024552490005382167,
    -0.017645244550494245, 0.008023273022106855, -0.0008043297728443368, -0.0003608378155671069,
    0.0001455961303274341, -1.7545861229480024e-05, -2.58896528817918e-06, 1.3385028346299207e-06,
    -2.0551962121913807e-07, -1.5886204050244788e-10, 6.316664886676639e-09, -1.276000069280961e-09,
    7.201143868688889e-11, 1.3886854928072864e-11,
)  # fmt: skip
# (sin(πr)/(πr) - 1) / r² in r² on |r| <= 1/2: error 2^-54.7 relative to sin(πr).
_SINE = (
    -1.6449340668482264, 0.8117424252833401, -0.19075182412150138, 0.026147847805462497,
    -0.0023460808937891737, 0.00014842783051571796, -6.972067481801175e-06, 2.449932121647571e-07,
)  # fmt: skip
# log Γ(z) / ((z - 1) (z - 2)) in (z - 1.75) / (z + 1.75) on 1 <= z <= 3: relative error 2^-54.5.
_ROOTS = (
    0.4501393121092563, -0.4181855531883497, 0.12718992499339582, -0.1443730387966162,
    0.08412964237958578, -0.08997434063235124, 0.06311420539651234, -0.06579368265204212,
    0.05045864300740269, -0.05194778800458191, 0.042010956212536844, -0.042939385541610024,
    0.03596338925852825, -0.03674376897473934, 0.031705733875279266, -0.030327588241779262,
    0.025463711332717465, -0.0387302017311555, 0.03798458307772157,
)  # fmt: skip
# z (log Γ(z) - Stirling's formula) in 1/z² for z >= 3: absolute error 2^-55.4 of log Γ.
_STIRLING = (
    0.08333333333333194, -0.0027777777768020115, 0.0007936505913292446, -0.0005952186661130431,
    0.0008407069588539345, -0.0018827702484666103, 0.00564468721085792, -0.0177684991447478,
    0.0435430876835669, -0.05511630932815865,
)  # fmt: skip
# log2(e) in two parts.
_LOG2_E = (1.4426950408889634, 2.0355273740931033e-17)
_HALF_LOG2_TWO_PI = (1.3257480647361595, -7.153413670427599e-17)
_HALF_LOG_TWO_PI = 0.9189385332046728


def _wide(b: Builder, x: Value, name: str) -> Value:
    """Compute ``name`` of floats in doubles: by halves while the doubles overfill a register, so
    that the long body is compiled for one register and called as often as needed."""
    lanes = x.type.lanes
    if lanes % 2 == 0 and lanes * 64 > b.target.vector_bits:
        halves = (range(lanes // 2), range(lanes // 2, lanes))
        low, high = (_wide(b, _lanes(b, x, half), name) for half in halves)
        if lanes == 2:
            return b.insert(b.splat(low, 2), high, 1)
        return b.shuffle(low, high, range(lanes))
    return b.convert(call(b, name, b.convert(x, x.type.like("f64"))), x.type)


def _lanes(b: Builder, x: Value, lanes: range) -> Value:
    return b.shuffle(x, None, lanes) if len(lanes) > 1 else b.extract(x, lanes[0])


def _log(b: Builder, x: Value) -> Value:
    """Return log x through one body for the whole module; it is needed up to three times."""
    name = f"tj.log.shared.{x.type.suffix}"
    symbol = b.module.require(name, x.type, [x.type], lambda b, a: call(b, "log", a[0]))
    return b.call(symbol, x.type, x)


def _stirling_rest(b: Builder, z: Value) -> Value:
    """Return log Γ(z) - ((z - 1/2) log z - z + log(2π)/2) for z >= 3."""
    inverse = b.div(like(1.0, z), z)
    return b.mul(inverse, horner(b, b.mul(inverse, inverse), _STIRLING))


def _sine_over_pi(b: Builder, r: Value) -> Value:
    """Return sin(πr) / π for |r| <= 1/2."""
    square = b.mul(r, r)
    return b.fma(b.mul(square, r), horner(b, square, _SINE), r)


def _is_odd(b: Builder, n: Value) -> Value:
    half = b.mul(n, like(0.5, n))
    return b.compare("ne", b.round_even(half), half)


# -- gamma -----------------------------------------------------------------------------------------


def _log2_gamma_pair(b: Builder, z: Value) -> Pair:
    """Return log2 Γ(z) to about 2^-63 of z log2 z, for 3 <= z <= 184."""
    m, e = split_exponent(b, z, SQRT_HALF)
    product = pair_mul_value(b, log2_pair(b, m, e), b.sub(z, like(0.5, z)))
    linear = times_constant(b, z, *_LOG2_E)
    total = pair_add(b, product, Pair(b.neg(linear.hi), b.neg(linear.lo)))
    total = pair_add(b, total, pair_const(_HALF_LOG2_TWO_PI, z))
    return fast_two_sum(b, total.hi, b.fma(_stirling_rest(b, z), like(_LOG2_E[0], z), total.lo))


def _fraction(b: Builder, x: Value, y: Value, z: Value, inner: Value, power: Value) -> Value:
    """Return Γ(x) with one division for all cases.

    ``power`` is Γ(z) from 3 on (1/Γ(z) for negative x), without its factor 2^n.
    """
    one = like(1.0, x)
    below = b.compare("lt", y, one)
    inverse = horner(b, b.sub(z, like(2.0, z)), _INVERSE)
    top = b.select(inner, one, power)
    bottom = b.select(inner, b.mul(inverse, b.select(below, y, one)), one)
    # Below 2^-54, Γ(x) is 1/x; the product above could be subnormal.
    bottom = b.select(b.compare("lt", y, like(2.0**-54, x)), y, bottom)

    n = b.round_even(y)
    sine = _sine_over_pi(b, b.sub(n, y))
    sine = b.select(_is_odd(b, n), b.neg(sine), sine)
    reflected_top = b.select(inner, inverse, power)
    reflected_bottom = b.mul(sine, b.select(below, one, y))
    negative = b.compare("lt", x, like(0.0, x))
    return b.div(
        b.select(negative, reflected_top, top), b.select(negative, reflected_bottom, bottom)
    )


def _gamma_f64(b: Builder, x: Value) -> Value:
    zero, one = like(0.0, x), like(1.0, x)
    y = b.abs(x)
    # From 172 on Γ overflows; 1/Γ(184) times the largest 1/sin(πy) underflows.
    bounded = at_most(b, y, 184.0)
    z = b.select(b.compare("lt", y, one), b.add(y, one), bounded)
    inner = b.compare("lt", z, like(3.0, x))
    exponent = _log2_gamma_pair(b, z)
    sign = sign_bit(b, x)
    hi, lo = (flip_sign(b, b.select(inner, zero, part), sign) for part in exponent)
    n, low_bits = nearest(b, hi, 1.0, bias=2 * format_of(x).bias)
    power = exp2_reduced(b, b.add(b.sub(hi, n), lo))
    fraction = _fraction(b, x, y, z, inner, power)
    result = scale_by_sign(b, fraction, n, low_bits, hi, signed=True)

    # Γ(n) = (n - 1)! is exact where the error cannot reach half a unit.
    whole = b.compare("eq", b.round_even(x), x)
    small = b.compare("lt", x, like(18.5, x))
    positive = b.compare("ge", x, one)
    result = b.select(b.and_(whole, b.and_(small, positive)), b.round_even(result), result)
    result = b.select(b.compare("eq", y, zero), b.div(one, x), result)
    pole = b.and_(whole, b.compare("lt", x, zero))
    pole = b.or_(pole, b.compare("eq", x, like(-INF, x)))
    return b.select(pole, like(NAN, x), result)


@register("gamma")
def gamma(b: Builder, x: Value) -> Value:
    """Γ(x), at most 4 ULP; ±inf at ±0, NaN at negative integers and -inf, exact factorials."""
    return _wide(b, x, "gamma") if x.type.kind == "f32" else _gamma_f64(b, x)


# -- lgamma ----------------------------------------------------------------------------------------


def _log_gamma_shifted(b: Builder, y: Value, log: Value) -> Value:
    """Return log Γ(y + 1) for y < 1 and log Γ(y) elsewhere; ``log`` is log y, used from 3 on."""
    one = like(1.0, y)
    below = b.compare("lt", y, one)
    # The factors (z - 1) (z - 2) are exact, though z = y + 1 is rounded.
    first = b.select(below, y, b.sub(y, one))
    second = b.select(below, b.sub(y, one), b.sub(y, like(2.0, y)))
    z = b.select(below, b.add(y, one), y)
    t = b.div(b.sub(z, like(1.75, z)), b.add(z, like(1.75, z)))
    # Adding zero turns the -0 of y = 1 into 0.
    near = b.fma(b.mul(first, second), horner(b, t, _ROOTS), like(0.0, y))
    # (y - 1/2) (log y - 1) + (log(2π) - 1)/2 + rest: no cancellation, no early overflow.
    constant = like(_HALF_LOG_TWO_PI - 0.5, y)
    far = b.fma(b.sub(y, like(0.5, y)), b.sub(log, one), b.add(constant, _stirling_rest(b, y)))
    return b.select(b.compare("lt", y, like(3.0, y)), near, far)


def _log_gamma_negative(b: Builder, x: Value) -> Value:
    """log |Γ(-y)| = -log(y |sin πy| / π) - log Γ(y), and without y and as Γ(y + 1) below 1."""
    y = b.neg(x)
    one = like(1.0, y)
    r = b.sub(y, b.round_even(y))
    sine = b.abs(_sine_over_pi(b, r))
    argument = b.mul(sine, b.select(b.compare("lt", y, one), one, y))
    shifted = _log_gamma_shifted(b, y, _log(b, y))
    result = b.neg(b.add(_log(b, argument), shifted))
    # Negative integers, among them all large numbers, and -inf (where r is NaN).
    pole = b.compare("eq", sine, like(0.0, y))
    pole = b.or_(pole, b.compare("eq", y, like(INF, y)))
    return b.select(pole, like(INF, y), result)


def _lgamma_f64(b: Builder, x: Value) -> Value:
    y = b.abs(x)
    log = _log(b, y)
    shifted = _log_gamma_shifted(b, y, log)
    usual = b.select(b.compare("lt", y, like(1.0, x)), b.sub(shifted, log), shifted)

    def negative(b: Builder, arguments: Sequence[Value]) -> Value:
        return _log_gamma_negative(b, arguments[0])

    return rare(b, "lgamma.negative", b.compare("lt", x, like(0.0, x)), usual, [x], negative)


@register("lgamma")
def lgamma(b: Builder, x: Value) -> Value:
    """log |Γ(x)|: at most 4 ULP for positive x; inf at ±inf, 0 and the negative integers.

    For negative x the error is 4 ULP of the larger of |lgamma| and log Γ(|x|) + 1: near the zeros
    between the poles (first at -2.457) the absolute error stays, the relative one does not.
    """
    return _wide(b, x, "lgamma") if x.type.kind == "f32" else _lgamma_f64(b, x)
