"""Pointwise functions of neural networks and statistics, made of elementwise primitives.

Each row has a NumPy formula as its meaning and a decomposition of its own. Float rows give bool
and integers float64; attributes are Python numbers. Definitions follow PyTorch's functions of the
same name where there is one, with NaN in giving NaN out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tracejit.ops import special
from tracejit.ops.table import (
    Array,
    Fact,
    TypesRule,
    common_types,
    elementwise,
    float_types,
    inexact_types,
    same_types,
)

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946
_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)


def _pointwise(
    name: str,
    reference: Callable[..., Any],
    decompose: Callable[..., Any] | None,
    doc: str,
    *,
    types: TypesRule | None = None,
    facts: Fact = Fact.NONE,
    arity: int = 1,
) -> None:
    def in_own_dtype(*operands: Array, **attrs: Any) -> Array:
        return np.asarray(reference(*operands, **attrs), rule(tuple(o.dtype for o in operands))[1])

    rule = types or float_types(name)
    elementwise(
        name, in_own_dtype, arity=arity, types=rule, facts=facts, decompose=decompose, doc=doc
    )


def _zero(emit: Any, x: Any) -> Any:
    return emit.constant(0, x.dtype)


# -- rectifiers ------------------------------------------------------------------------------------


def _relu_reference(x: Array) -> Array:
    return np.maximum(x, x.dtype.type(0))


def _relu(emit: Any, x: Any) -> Any:
    return emit.maximum(x, 0)


def _relu6_reference(x: Array) -> Array:
    return np.clip(x, 0, 6)


def _relu6(emit: Any, x: Any) -> Any:
    return emit.minimum(emit.maximum(x, 0), 6)


def _leaky_reference(x: Array, *, slope: float = 0.01) -> Array:
    return np.where(x > 0, x, x * slope)


def _leaky(emit: Any, x: Any, *, slope: float = 0.01) -> Any:
    return emit.where(emit.greater(x, 0), x, emit.multiply(x, slope))


def _prelu_reference(x: Array, slope: Array) -> Array:
    return np.where(x > 0, x, x * slope)


def _prelu(emit: Any, x: Any, slope: Any) -> Any:
    return emit.where(emit.greater(x, 0), x, emit.multiply(x, slope))


def _threshold_reference(x: Array, *, threshold: float, value: float) -> Array:
    return np.where(x <= threshold, x.dtype.type(value), x)


def _threshold(emit: Any, x: Any, *, threshold: float, value: float) -> Any:
    return emit.where(emit.less_equal(x, threshold), emit.constant(value, x.dtype), x)


def _hardtanh_reference(x: Array, *, low: float = -1.0, high: float = 1.0) -> Array:
    return np.clip(x, low, high)


def _hardtanh(emit: Any, x: Any, *, low: float = -1.0, high: float = 1.0) -> Any:
    return emit.minimum(emit.maximum(x, low), high)


def _hardsigmoid_reference(x: Array) -> Array:
    return np.clip(x + 3, 0, 6) / 6


def _hardsigmoid(emit: Any, x: Any) -> Any:
    return emit.divide(_relu6(emit, emit.add(x, 3)), 6)


def _hardswish_reference(x: Array) -> Array:
    return x * np.clip(x + 3, 0, 6) / 6


def _hardswish(emit: Any, x: Any) -> Any:
    return emit.divide(emit.multiply(x, _relu6(emit, emit.add(x, 3))), 6)


def _hardshrink_reference(x: Array, *, width: float = 0.5) -> Array:
    return np.where((x >= -width) & (x <= width), x.dtype.type(0), x)


def _hardshrink(emit: Any, x: Any, *, width: float = 0.5) -> Any:
    inside = emit.less_equal(emit.absolute(x), width)
    return emit.where(inside, _zero(emit, x), x)


def _softshrink_reference(x: Array, *, width: float = 0.5) -> Array:
    return np.where(x > width, x - width, np.where(x < -width, x + width, x * 0))


def _softshrink(emit: Any, x: Any, *, width: float = 0.5) -> Any:
    # x minus its clipped self: inside the width that is exactly 0, and NaN stays NaN.
    return emit.subtract(x, emit.minimum(emit.maximum(x, -width), width))


_pointwise(
    "relu", _relu_reference, _relu, "max(x, 0).", types=same_types("relu", kinds="biuf"),
    facts=Fact.IDEMPOTENT,
)  # fmt: skip
_pointwise(
    "relu6", _relu6_reference, _relu6, "min(max(x, 0), 6).", facts=Fact.IDEMPOTENT,
    types=same_types("relu6", kinds="iuf"),
)  # fmt: skip
_pointwise("leaky_relu", _leaky_reference, _leaky, "x above zero, slope·x below.")
_pointwise("prelu", _prelu_reference, _prelu, "leaky_relu with slopes as an array.", arity=2)
_pointwise("threshold", _threshold_reference, _threshold, "x above the threshold, else value.")
_pointwise("hardtanh", _hardtanh_reference, _hardtanh, "x clipped to [low, high].")
_pointwise("hardsigmoid", _hardsigmoid_reference, _hardsigmoid, "relu6(x + 3) / 6.")
_pointwise("hardswish", _hardswish_reference, _hardswish, "x · relu6(x + 3) / 6.")
_pointwise("hardshrink", _hardshrink_reference, _hardshrink, "0 for |x| ≤ width, else x.")
_pointwise("softshrink", _softshrink_reference, _softshrink, "x moved towards 0 by width.")

# -- exponential units -----------------------------------------------------------------------------


def _elu_reference(x: Array, *, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(x))


def _elu(emit: Any, x: Any, *, alpha: float = 1.0) -> Any:
    return emit.where(emit.greater(x, 0), x, emit.multiply(emit.expm1(x), alpha))


def _celu_reference(x: Array, *, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(x / alpha))


def _celu(emit: Any, x: Any, *, alpha: float = 1.0) -> Any:
    below = emit.multiply(emit.expm1(emit.divide(x, alpha)), alpha)
    return emit.where(emit.greater(x, 0), x, below)


def _selu_reference(x: Array) -> Array:
    return _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(x))


def _selu(emit: Any, x: Any) -> Any:
    return emit.multiply(_elu(emit, x, alpha=_SELU_ALPHA), _SELU_SCALE)


def _softplus_reference(x: Array) -> Array:
    return np.logaddexp(x, x.dtype.type(0))


def _log_sigmoid_reference(x: Array) -> Array:
    return -np.logaddexp(-x, x.dtype.type(0))


def _log_sigmoid(emit: Any, x: Any) -> Any:
    tail = emit.log1p(emit.exp(emit.negative(emit.absolute(x))))
    return emit.subtract(emit.minimum(x, 0), tail)


def _silu_reference(x: Array) -> Array:
    return x * special.sigmoid(x)


def _silu(emit: Any, x: Any) -> Any:
    return emit.multiply(x, emit.sigmoid(x))


def _mish_reference(x: Array) -> Array:
    return x * np.tanh(_softplus_reference(x))


def _mish(emit: Any, x: Any) -> Any:
    return emit.multiply(x, emit.tanh(emit.softplus(x)))


def _softsign_reference(x: Array) -> Array:
    return x / (1 + np.abs(x))


def _softsign(emit: Any, x: Any) -> Any:
    return emit.divide(x, emit.add(emit.absolute(x), 1))


def _tanhshrink_reference(x: Array) -> Array:
    return x - np.tanh(x)


def _tanhshrink(emit: Any, x: Any) -> Any:
    return emit.subtract(x, emit.tanh(x))


def _gelu_reference(x: Array, *, approximate: str = "none") -> Array:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(_SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)))
    # ½x·erfc(−x/√2) is ½x(1 + erf(x/√2)) without the cancellation for negative x.
    return 0.5 * x * special.erfc(-x * math.sqrt(0.5))


def _gelu(emit: Any, x: Any, *, approximate: str = "none") -> Any:
    half = emit.multiply(x, 0.5)
    if approximate == "tanh":
        cube = emit.multiply(emit.multiply(emit.multiply(x, 0.044715), x), x)
        inner = emit.multiply(emit.add(x, cube), _SQRT_2_OVER_PI)
        return emit.multiply(half, emit.add(emit.tanh(inner), 1.0))
    return emit.multiply(half, emit.erfc(emit.multiply(emit.negative(x), math.sqrt(0.5))))


_pointwise("elu", _elu_reference, _elu, "x above zero, alpha(eˣ − 1) below.")
_pointwise("celu", _celu_reference, _celu, "x above zero, alpha(e^(x/alpha) − 1) below.")
_pointwise("selu", _selu_reference, _selu, "The scaled elu that keeps mean and variance.")
_pointwise("softplus", _softplus_reference, None, "log(1 + eˣ).", facts=Fact.EXPENSIVE)
_pointwise("log_sigmoid", _log_sigmoid_reference, _log_sigmoid, "−log(1 + e⁻ˣ).")
_pointwise("silu", _silu_reference, _silu, "x · sigmoid(x).")
_pointwise("mish", _mish_reference, _mish, "x · tanh(softplus(x)).")
_pointwise("softsign", _softsign_reference, _softsign, "x / (1 + |x|).")
_pointwise("tanhshrink", _tanhshrink_reference, _tanhshrink, "x − tanh x.")
_pointwise(
    "gelu", _gelu_reference, _gelu,
    "x·Φ(x), exact by erf; attribute approximate='tanh' for the other formula.",
)  # fmt: skip

# -- other pointwise formulas ----------------------------------------------------------------------


def _rsqrt_reference(x: Array) -> Array:
    return 1 / np.sqrt(x)


def _rsqrt(emit: Any, x: Any) -> Any:
    return emit.divide(emit.constant(1, x.dtype), emit.sqrt(x))


def _logit_reference(x: Array) -> Array:
    return np.log(x / (1 - x))


def _logit(emit: Any, x: Any) -> Any:
    complement = emit.subtract(emit.constant(1, x.dtype), x)
    return emit.log(emit.divide(x, complement))


def _xlogy_reference(x: Array, y: Array) -> Array:
    return np.where((x == 0) & ~np.isnan(y), x.dtype.type(0), x * np.log(y))


def _xlogy(emit: Any, x: Any, y: Any) -> Any:
    vanishes = emit.logical_and(emit.equal(x, 0), emit.logical_not(emit.isnan(y)))
    return emit.where(vanishes, _zero(emit, x), emit.multiply(x, emit.log(y)))


def _ndtr_reference(x: Array) -> Array:
    return 0.5 * special.erfc(-x * math.sqrt(0.5))


def _ndtr(emit: Any, x: Any) -> Any:
    return emit.multiply(emit.erfc(emit.multiply(emit.negative(x), math.sqrt(0.5))), 0.5)


def _lerp_reference(x: Array, y: Array, w: Array) -> Array:
    return x + w * (y - x)


def _lerp(emit: Any, x: Any, y: Any, w: Any) -> Any:
    return emit.add(x, emit.multiply(w, emit.subtract(y, x)))


def _squared_difference_reference(x: Array, y: Array) -> Array:
    return np.square(x - y)


def _squared_difference(emit: Any, x: Any, y: Any) -> Any:
    difference = emit.subtract(x, y)
    return emit.multiply(difference, difference)


_pointwise("rsqrt", _rsqrt_reference, _rsqrt, "1 / √x.", types=inexact_types("rsqrt"))
_pointwise("logit", _logit_reference, _logit, "log(x / (1 − x)).", facts=Fact.EXPENSIVE)
_pointwise(
    "xlogy", _xlogy_reference, _xlogy, "x·log y, 0 where x = 0.", arity=2, facts=Fact.EXPENSIVE
)
_pointwise("ndtr", _ndtr_reference, _ndtr, "The normal distribution function Φ.")
_pointwise(
    "lerp", _lerp_reference, _lerp, "x + w(y − x).", arity=3, types=inexact_types("lerp")
)  # fmt: skip
_pointwise(
    "squared_difference", _squared_difference_reference, _squared_difference, "(x − y)².",
    arity=2, types=common_types("squared_difference", kinds="iufc"), facts=Fact.COMMUTATIVE,
)  # fmt: skip
