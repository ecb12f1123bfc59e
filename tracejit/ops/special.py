"""Reference implementations of functions that NumPy lacks: erf, gamma and relatives.

Vectorised NumPy in double precision; float32 and float16 are computed in double and rounded once.
The tests measure each against mpmath: erf, erfc and sigmoid stay within 2 ULP, gamma within 6,
lgamma and digamma within 4 ULP of max(|result|, 1) on the positive axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from tracejit.ops.table import Array

Coefficients = tuple[float, ...]


def polynomial(x: Array, coefficients: Coefficients) -> Array:
    """Return Σ cᵢ xⁱ by Horner's rule; ``coefficients`` start with the constant."""
    result = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        result = result * x + c
    return result


def in_double(function: Callable[[Array], Array]) -> Callable[..., Array]:
    """Make a float64 function serve every real float: compute in double, round once."""

    @wraps(function)
    def wrapped(x: Any) -> Array:
        x = np.asarray(x)
        with np.errstate(all="ignore"):
            return function(x.astype(np.float64)).astype(x.dtype)

    return wrapped


# -- error functions -------------------------------------------------------------------------------
#
# Rational approximations by interval after Sun's fdlibm (K. C. Ng, 1993):
#   |x| < 0.84375         erf x  = x + x·P(x²)/Q(x²)
#   0.84375 ≤ |x| < 1.25  erf x  = c + A(|x|−1)/B(|x|−1)
#   1.25 ≤ |x|            erfc x = exp(−x²) · exp(−0.5625 + R(1/x²)/S(1/x²)) / x
# In the last, x² is split as z² + (x−z)(x+z) with z = x rounded to float32, so that z² is exact.

_ERX = 8.45062911510467529297e-01
_P = (
    1.28379167095512558561e-01, -3.25042107247001499370e-01, -2.84817495755985104766e-02,
    -5.77027029648944159157e-03, -2.37630166566501626084e-05,
)  # fmt: skip
_Q = (
    1.0, 3.97917223959155352819e-01, 6.50222499887672944485e-02, 5.08130628187576562776e-03,
    1.32494738004321644526e-04, -3.96022827877536812320e-06,
)  # fmt: skip
_A = (
    -2.36211856075265944077e-03, 4.14856118683748331666e-01, -3.72207876035701323847e-01,
    3.18346619901161753674e-01, -1.10894694282396677476e-01, 3.54783043256182359371e-02,
    -2.16637559486879084300e-03,
)  # fmt: skip
_B = (
    1.0, 1.06420880400844228286e-01, 5.40397917702171048937e-01, 7.18286544141962662868e-02,
    1.26171219808761642112e-01, 1.36370839120290507362e-02, 1.19844998467991074170e-02,
)  # fmt: skip
_R_NEAR = (
    -9.86494403484714822705e-03, -6.93858572707181764372e-01, -1.05586262253232909814e01,
    -6.23753324503260060396e01, -1.62396669462573470355e02, -1.84605092906711035994e02,
    -8.12874355063065934246e01, -9.81432934416914548592e00,
)  # fmt: skip
_S_NEAR = (
    1.0, 1.96512716674392571292e01, 1.37657754143519042600e02, 4.34565877475229228821e02,
    6.45387271733267880336e02, 4.29008140027567833386e02, 1.08635005541779435134e02,
    6.57024977031928170135e00, -6.04244152148580987438e-02,
)  # fmt: skip
_R_FAR = (
    -9.86494292470009928597e-03, -7.99283237680523006574e-01, -1.77579549177547519889e01,
    -1.60636384855821916062e02, -6.37566443368389627722e02, -1.02509513161107724954e03,
    -4.83519191608651397019e02,
)  # fmt: skip
_S_FAR = (
    1.0, 3.03380607434824582924e01, 3.25792512996573918826e02, 1.53672958608443695994e03,
    3.19985821950859553908e03, 2.55305040643316442583e03, 4.74528541206955367215e02,
    -2.24409524465858183362e01,
)  # fmt: skip


def _erf_small(x: Array) -> Array:
    """Return erf(x)/x − 1 for |x| < 0.84375."""
    square = x * x
    return polynomial(square, _P) / polynomial(square, _Q)


def _erf_middle(magnitude: Array) -> Array:
    """Return erf(|x|) − c for 0.84375 ≤ |x| < 1.25."""
    s = magnitude - 1.0
    return polynomial(s, _A) / polynomial(s, _B)


def _erfc_tail(magnitude: Array) -> Array:
    """Return erfc(|x|) for |x| ≥ 1.25."""
    s = 1.0 / (magnitude * magnitude)
    near = polynomial(s, _R_NEAR) / polynomial(s, _S_NEAR)
    far = polynomial(s, _R_FAR) / polynomial(s, _S_FAR)
    ratio = np.where(magnitude < 1.0 / 0.35, near, far)
    z = magnitude.astype(np.float32).astype(np.float64)
    return np.exp(-z * z - 0.5625) * np.exp((z - magnitude) * (z + magnitude) + ratio) / magnitude


@in_double
def erf(x: Array) -> Array:
    """Return 2/√π ∫₀ˣ exp(−t²) dt."""
    clamped = np.clip(np.abs(x), 0.0, 6.0)  # erf is ±1 in double from 5.93 on
    tail = np.copysign(1.0 - _erfc_tail(np.maximum(clamped, 1.25)), x)
    middle = np.copysign(_ERX + _erf_middle(clamped), x)
    # The tiny-x form keeps denormals and −0.0: x·P(0) must not underflow before it is added.
    small = np.where(clamped < 1e-150, x + x * _P[0], x + x * _erf_small(np.clip(x, -1.0, 1.0)))
    return np.where(clamped < 0.84375, small, np.where(clamped < 1.25, middle, tail))


@in_double
def erfc(x: Array) -> Array:
    """Return 1 − erf(x), with full relative accuracy for large x."""
    magnitude = np.clip(np.abs(x), 0.0, 28.0)  # erfc underflows at 27.3
    tail = _erfc_tail(np.maximum(magnitude, 1.25))
    y = _erf_small(np.clip(x, -1.0, 1.0))
    small = np.where(x < 0.25, 1.0 - (x + x * y), 0.5 - (x - 0.5 + x * y))
    middle = _erf_middle(magnitude)
    middle = np.where(x >= 0.0, 1.0 - _ERX - middle, 1.0 + (_ERX + middle))
    result = np.where(magnitude < 1.25, middle, np.where(x >= 0.0, tail, 2.0 - tail))
    return np.where(magnitude < 0.84375, small, result)


# -- gamma functions -------------------------------------------------------------------------------
#
# Γ by the Lanczos approximation with g = 6.0246800407767296 and 13 rational terms, the choice of
# coefficients that Boost.Math documents as lanczos13m53 (G. Pugh, "An analysis of the Lanczos gamma
# approximation", 2004, for the method).

_LANCZOS_G_MINUS_HALF = 5.524680040776729583740234375
_LANCZOS_NUMERATOR = (
    23531376880.410759688572007674451636754734846804940,
    42919803642.649098768957899047001988850926355848959,
    35711959237.355668049440185451547166705960488635843,
    17921034426.037209699919755754458931112671403265390,
    6039542586.3520280050642916443072979210699388420708,
    1439720407.3117216736632230727949123939715485786772,
    248874557.86205415651146038641322942321632125127801,
    31426415.585400194380614231628318205362874684987640,
    2876370.6289353724412254090516208496135991145378768,
    186056.26539522349504029498971604569928220784236328,
    8071.6720023658162106380029022722506138218516325024,
    210.82427775157934587250973392071336271166969580291,
    2.5066282746310002701649081771338373386264310793408,
)
_LANCZOS_DENOMINATOR = (
    0.0, 39916800.0, 120543840.0, 150917976.0, 105258076.0, 45995730.0, 13339535.0, 2637558.0,
    357423.0, 32670.0, 1925.0, 66.0, 1.0,
)  # fmt: skip
_FACTORIALS = np.array([float(math.factorial(n)) for n in range(171)])


def _sin_pi(x: Array) -> Array:
    """Return sin(πx), exactly 0 at integers."""
    nearest = np.rint(x)
    odd = np.fmod(np.abs(nearest), 2.0) == 1.0
    value = np.sin(np.pi * (x - nearest))
    return np.where(odd, -value, value)


def _lanczos_ratio(x: Array) -> Array:
    """Return the Lanczos sum for x > 0; in 1/x where powers of x would overflow."""
    inverse = 1.0 / x
    large = polynomial(inverse, _LANCZOS_NUMERATOR[::-1]) / polynomial(
        inverse, _LANCZOS_DENOMINATOR[::-1]
    )
    small = polynomial(x, _LANCZOS_NUMERATOR) / polynomial(x, _LANCZOS_DENOMINATOR)
    return np.where(x > 8.0, large, small)


def _gamma_positive(x: Array) -> Array:
    """Return Γ(x) for 0.5 ≤ x ≤ 185."""
    y = x + _LANCZOS_G_MINUS_HALF
    # The rounding error of y would be raised to the power x: correct for it to first order.
    larger, smaller = np.maximum(x, _LANCZOS_G_MINUS_HALF), np.minimum(x, _LANCZOS_G_MINUS_HALF)
    error = (y - larger) - smaller
    ratio = _lanczos_ratio(x)
    # Γ = ratio · y^(x−½) · e^(−y) at the true y + δ: the factor is 1 + δ((x−½)/y − 1).
    ratio = ratio - ratio * error * ((x - 0.5) / y - 1.0)
    half_power = np.power(y, 0.5 * x - 0.25)
    return ratio * np.exp(-y) * half_power * half_power


@in_double
def gamma(x: Array) -> Array:
    """Return Γ(x); ±∞ at ±0, NaN at negative integers and −∞, exact factorials at integers."""
    magnitude = np.clip(np.abs(x), 0.5, 185.0)
    # Γ(x) = Γ(x+1)/x near zero, and Γ(−x) = −π / (x sin(πx) Γ(x)).
    up = _gamma_positive(np.clip(np.abs(x), 0.0, 1.0) + 1.0) / np.abs(x)
    positive = np.where(np.abs(x) < 0.5, up, _gamma_positive(magnitude))
    whole = (x == np.trunc(x)) & (x >= 1.0) & (x <= 171.0)
    table = _FACTORIALS[np.where(whole, x - 1.0, 0.0).astype(np.int64)]
    positive = np.where(whole, table, np.where(x > 171.7, np.inf, positive))
    tiny = np.abs(x) < 1e-17  # Γ(x) = 1/x to double precision
    reflected = -np.pi / (np.abs(x) * _sin_pi(np.abs(x))) / positive
    underflow = np.copysign(0.0, np.where(np.fmod(np.floor(x), 2.0) == 0.0, 1.0, -1.0))
    reflected = np.where(x < -184.0, underflow, reflected)
    reflected = np.where((x == np.trunc(x)), np.nan, reflected)
    result = np.where(tiny, 1.0 / x, np.where(x > 0.0, positive, reflected))
    return np.where(np.isnan(x), x, result)


# ln Γ(2 + z) = (1 − γ)z + Σ_{k≥2} (−1)ᵏ (ζ(k) − 1) zᵏ / k, |z| < 2 (Abramowitz & Stegun 6.1.33).
_EULER = 0.57721566490153286061


def _zeta_minus_one(k: int) -> float:
    """Return ζ(k) − 1 for k ≥ 2: a partial sum and Euler–Maclaurin's tail from n = 48."""
    n = 48
    head = math.fsum(m**-k for m in range(2, n))
    tail = n ** (1 - k) / (k - 1) + n**-k / 2 + k * n ** (-k - 1) / 12
    tail -= k * (k + 1) * (k + 2) * n ** (-k - 3) / 720
    tail += k * (k + 1) * (k + 2) * (k + 3) * (k + 4) * n ** (-k - 5) / 30240
    return head + tail


_LGAMMA_SERIES = (
    0.0, 1.0 - _EULER, *((-1) ** k * _zeta_minus_one(k) / k for k in range(2, 31))
)  # fmt: skip
# Stirling's series Σ B₂ₖ / (2k(2k−1) x²ᵏ⁻¹), Abramowitz & Stegun 6.1.40.
_STIRLING = (
    1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400
)  # fmt: skip


def _lgamma_positive(x: Array) -> Array:
    """Return ln Γ(x) for x > 0."""
    low = np.minimum(x, 12.0)
    # Recur down into [1.5, 2.5), where the series about 2 converges fast.
    product, y = np.ones_like(low), low.copy()
    for _ in range(10):
        above = y >= 2.5
        y = np.where(above, y - 1.0, y)
        product = np.where(above, product * y, product)
    series = polynomial(np.clip(y, 1.5, 2.5) - 2.0, _LGAMMA_SERIES) + np.log(product)
    one = np.clip(x, 0.5, 1.5) - 1.0
    around_one = polynomial(one, _LGAMMA_SERIES) - np.log1p(one)
    zero = np.clip(x, 0.0, 0.5)
    near_zero = polynomial(zero, _LGAMMA_SERIES) - np.log1p(zero) - np.log(zero)
    high = np.maximum(x, 10.0)
    inverse = 1.0 / high
    stirling = (high - 0.5) * (np.log(high) - 1.0) + (
        0.5 * (math.log(2.0 * math.pi) - 1.0) + inverse * polynomial(inverse * inverse, _STIRLING)
    )
    result = np.where(x < 0.5, near_zero, np.where(x < 1.5, around_one, series))
    return np.where(x < 12.0, result, np.where(np.isinf(x), np.inf, stirling))


@in_double
def lgamma(x: Array) -> Array:
    """Return ln |Γ(x)|; +∞ at zero and negative integers and at ±∞."""
    magnitude = np.abs(x)
    positive = _lgamma_positive(magnitude)
    # ln |Γ(−x)| = ln(π / |x sin(πx)|) − ln Γ(x)
    sine = np.abs(_sin_pi(magnitude))
    reflected = np.log(np.pi / (magnitude * sine)) - positive
    pole = (x <= 0.0) & (x == np.trunc(x))
    result = np.where(x > 0.0, positive, np.where(magnitude < 1e-17, -np.log(magnitude), reflected))
    return np.where(np.isnan(x), x, np.where(pole | np.isinf(x), np.inf, result))


# ψ's asymptotic series, Abramowitz & Stegun 6.3.18: −Σ B₂ₖ / (2k x²ᵏ).
DIGAMMA = (
    -1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760, -1 / 12, 3617 / 8160
)  # fmt: skip


@in_double
def digamma(x: Array) -> Array:
    """Return ψ(x) = Γ′(x)/Γ(x); NaN at negative integers, ∓∞ at ±0."""
    # Reflection: ψ(1 − x) = ψ(x) + π cot(πx).
    y = np.where(x < 0.0, 1.0 - x, x)
    fraction = x - np.rint(x)
    cotangent = np.pi / np.tan(np.pi * fraction)
    correction = np.where(x < 0.0, -cotangent, 0.0)
    for _ in range(12):
        below = y < 12.0
        correction = np.where(below, correction - 1.0 / y, correction)
        y = np.where(below, y + 1.0, y)
    inverse = 1.0 / (y * y)
    result = correction + (np.log(y) - 0.5 / y + inverse * polynomial(inverse, DIGAMMA))
    result = np.where((x < 0.0) & (x == np.trunc(x)), np.nan, result)
    return np.where(x == 0.0, np.copysign(np.inf, -x), result)


@in_double
def sigmoid(x: Array) -> Array:
    """Return 1/(1 + exp(−x)), without overflow and with full relative accuracy in both tails."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0.0, 1.0, e) / (1.0 + e)
