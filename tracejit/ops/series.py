"""Special functions as sums of elementwise ops, in float64: digamma and the Bessel function i0."""

from __future__ import annotations

import math
from typing import Any

from tracejit.ops.special import DIGAMMA

# Chebyshev series of e⁻ˣ I₀(x) on [0, 8] in x/4 − 1, and of √x e⁻ˣ I₀(x) from 8 on in 16/x − 1,
# to 2⁻⁵⁶ (computed from their values at 120 Chebyshev points, to 40 digits).
_NEAR = (
    0.33839763720473803, -0.3046826723431984, 0.17162090152220877, -0.09490109704804764,
    0.04930528423967071, -0.02373741480589947, 0.010546460394594998, -0.004324309995050576,
    0.0016394756169413357, -0.0005763755745385824, 0.00018850288509584165, -5.754195010082104e-05,
    1.6448448070728896e-05, -4.4167383584587505e-06, 1.1173875391201037e-06, -2.670793853940612e-07,
    6.046995022541919e-08, -1.300025009986248e-08, 2.6598237246823866e-09, -5.189795601635263e-10,
    9.675809035373237e-11, -1.726826291441556e-11, 2.95505266312964e-12, -4.856446783111929e-13,
    7.676185498604936e-14, -1.1685332877993451e-14, 1.715391285555133e-15, -2.431279846547955e-16,
    3.3307945188222384e-17, -4.4153416464793395e-18,
)  # fmt: skip
_FAR = (
    0.4022452055070544, 0.0033691164782556943, 6.889758346916825e-05, 2.8913705208347567e-06,
    2.0489185894690638e-07, 2.266668990498178e-08, 3.3962320257083865e-09, 4.94060238822497e-10,
    1.1889147107846439e-11, -3.1499165279632416e-11, -1.3215811840447713e-11,
    -1.7941785315068062e-12, 7.180124451383666e-13, 3.8527783827421426e-13, 1.54008621752141e-14,
    -4.150569347287222e-14, -9.554846698828307e-15, 3.8116806693526224e-15, 1.7725601330565263e-15,
    -3.425485619677219e-16, -2.8276239805165836e-16, 3.461222867697461e-17, 4.46562142029676e-17,
    -4.830504485944182e-18, -7.233180487874754e-18, 0.0, 0.0, 0.0, 0.0, 0.0,
)  # fmt: skip


def i0(emit: Any, x: Any) -> Any:
    """Return I₀(x): both series by one recurrence (Clenshaw, 1955), coefficients chosen by lane."""
    dtype, x = x.dtype, emit.absolute(emit.cast(x, "float64"))
    near = emit.less_equal(x, 8.0)
    t = emit.subtract(emit.where(near, emit.divide(x, 4.0), emit.divide(16.0, x)), 1.0)
    double = emit.add(t, t)
    one, following = _chosen(emit, near, 0.0, 0.0), _chosen(emit, near, 0.0, 0.0)
    for a, b in zip(_NEAR[:0:-1], _FAR[:0:-1], strict=True):
        step = emit.subtract(emit.multiply(double, one), following)
        one, following = emit.add(step, _chosen(emit, near, a, b)), one
    step = emit.subtract(emit.multiply(t, one), following)
    total = emit.add(step, _chosen(emit, near, _NEAR[0], _FAR[0]))
    root = emit.where(near, emit.constant(1.0, "float64"), emit.sqrt(x))
    return emit.cast(emit.divide(emit.multiply(emit.exp(x), total), root), dtype)


def _chosen(emit: Any, mask: Any, a: float, b: float) -> Any:
    return emit.where(mask, emit.constant(a, "float64"), emit.constant(b, "float64"))


def digamma(emit: Any, x: Any) -> Any:
    """Return ψ(x) by the steps of its reference: reflection, recurrence, Stirling's series."""
    dtype, x = x.dtype, emit.cast(x, "float64")
    negative = emit.less(x, 0.0)
    zero = emit.constant(0.0, "float64")
    y = emit.where(negative, emit.subtract(1.0, x), x)
    fraction = emit.subtract(x, emit.rint(x))
    cotangent = emit.divide(math.pi, emit.tan(emit.multiply(fraction, math.pi)))
    correction = emit.where(negative, emit.negative(cotangent), zero)
    for _ in range(12):
        below = emit.less(y, 12.0)
        correction = emit.where(below, emit.subtract(correction, emit.divide(1.0, y)), correction)
        y = emit.where(below, emit.add(y, 1.0), y)
    inverse = emit.divide(1.0, emit.multiply(y, y))
    series = emit.multiply(inverse, DIGAMMA[-1])
    for coefficient in DIGAMMA[-2::-1]:
        series = emit.multiply(emit.add(series, coefficient), inverse)
    series = emit.add(emit.subtract(emit.log(y), emit.divide(0.5, y)), series)
    result = emit.add(correction, series)
    pole = emit.logical_and(negative, emit.equal(x, emit.trunc(x)))
    result = emit.where(pole, emit.constant(math.nan, "float64"), result)
    infinite = emit.copysign(emit.constant(math.inf, "float64"), emit.negative(x))
    return emit.cast(emit.where(emit.equal(x, 0.0), infinite, result), dtype)
