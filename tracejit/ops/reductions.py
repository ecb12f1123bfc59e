"""Reductions: primitives over sorted axes, and the statistics made of them.

All rows take ``axis: tuple[int, ...]`` (sorted, non-negative) and ``keepdims: bool``. Sums and
products of bool and integers accumulate in 64 bits as NumPy's; floats keep their dtype. Means,
variances and norms of integers are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tracejit.errors import ShapeError
from tracejit.ops.table import (
    BOOL,
    FLOAT64,
    INT64,
    Array,
    Aval,
    DType,
    Fact,
    Family,
    Op,
    Shape,
    ShapeRule,
    TypesRule,
    accumulator,
    check_axes,
    common_types,
    float_types,
    inexact_types,
    real_dtype,
    reduced_shape,
    row,
    same_types,
)

Axes = tuple[int, ...]


# How the partial results of a reduction combine. What is not here depends on positions.
COMBINE = {
    "sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum",
    "any": "logical_or", "all": "logical_and",
}  # fmt: skip


def reduction_shape(name: str, identity: bool) -> ShapeRule:
    """Return the shape rule of a reduction; one without identity refuses empty extents."""

    def shape(x: Aval, *, axis: Axes, keepdims: bool, **_: Any) -> Shape:
        check_axes(name, axis, x.shape)
        result = reduced_shape(x.shape, axis, keepdims)
        if not identity and 0 not in result:
            empty = [a for a in axis if x.shape[a] == 0]
            if empty:
                raise ShapeError(
                    f"{name}: zero-size axis {empty[0]} of shape {x.shape} has no {name}",
                    hint="it has no identity; check the size before, or use sum, any or all",
                )
        return result

    return shape


def reduction(
    name: str,
    reference: Callable[..., Any],
    types: TypesRule,
    *,
    identity: bool = True,
    facts: Fact = Fact.NONE,
    decompose: Callable[..., Any] | None = None,
    doc: str = "",
) -> Op:
    """Register a reduction: a primitive, or with ``decompose`` a composite."""
    return row(
        name,
        Family.COMPOSITE if decompose else Family.REDUCTION,
        reference,
        arity=1,
        types=types,
        shape=reduction_shape(name, identity),
        facts=facts,
        decompose=decompose,
        doc=doc,
    )


def extent(x: Any, axis: Axes) -> int:
    """Return how many elements of node ``x`` each result of a reduction over ``axis`` takes."""
    return math.prod(x.shape[a] for a in axis)


# -- primitives ------------------------------------------------------------------------------------

# The references are what np.sum and the others call in the end, without the way there.


def _arg(function: Callable[..., Array]) -> Callable[..., Array]:
    """Return argmin or argmax over several axes: the index into them flattened in C order."""

    def reference(x: Array, *, axis: Axes, keepdims: bool) -> Array:
        kept = [a for a in range(x.ndim) if a not in axis]
        moved = x.transpose(*kept, *axis)
        count = math.prod(x.shape[a] for a in axis)
        flat = moved.reshape(*(x.shape[a] for a in kept), count)
        # NumPy refuses an empty axis even where the result is empty.
        result = function(flat, axis=-1) if flat.size else np.zeros(flat.shape[:-1], np.int64)
        shape = reduced_shape(x.shape, axis, keepdims)
        return np.asarray(result, np.int64).reshape(shape)

    return reference


reduction(
    "sum", np.add.reduce, common_types("sum", result=accumulator),
    doc="The sum; pairwise in floats, 64 bits wide for integers.",
)  # fmt: skip
reduction(
    "prod", np.multiply.reduce, common_types("prod", result=accumulator),
    doc="The product; 64 bits wide for integers.",
)  # fmt: skip
reduction(
    "max", np.maximum.reduce, same_types("max"), identity=False, facts=Fact.IDEMPOTENT,
    doc="The largest; NaN if there is one.",
)  # fmt: skip
reduction(
    "min", np.minimum.reduce, same_types("min"), identity=False, facts=Fact.IDEMPOTENT,
    doc="The smallest; NaN if there is one.",
)  # fmt: skip
reduction(
    "any", np.logical_or.reduce, common_types("any", result=BOOL), doc="Some element is not zero.",
)  # fmt: skip
reduction(
    "all", np.logical_and.reduce, common_types("all", result=BOOL), doc="No element is zero.",
)  # fmt: skip
reduction(
    "argmax", _arg(np.argmax), common_types("argmax", result=INT64), identity=False,
    doc="The first position of the largest, or of the first NaN.",
)  # fmt: skip
reduction(
    "argmin", _arg(np.argmin), common_types("argmin", result=INT64), identity=False,
    doc="The first position of the smallest, or of the first NaN.",
)  # fmt: skip

# -- statistics ------------------------------------------------------------------------------------


def _wide(emit: Any, x: Any) -> Any:
    """Return float16 as float32, in which NumPy takes its means."""
    return emit.cast(x, "float32") if x.dtype == np.float16 else x


def _mean(emit: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    wide = _wide(emit, x)
    total = emit.sum(wide, axis=axis, keepdims=keepdims)
    return emit.cast(emit.divide(total, extent(x, axis)), x.dtype)


def _squared_magnitude(emit: Any, x: Any) -> Any:
    if x.dtype.kind != "c":
        return emit.multiply(x, x)
    real, imag = emit.real(x), emit.imag(x)
    return emit.add(emit.multiply(real, real), emit.multiply(imag, imag))


def _var(emit: Any, x: Any, *, axis: Axes, keepdims: bool, correction: float = 0) -> Any:
    # Two passes: the deviations from the mean do not cancel as Σx² − (Σx)²/n does.
    wide = _wide(emit, x)
    count = extent(x, axis)
    mean = emit.divide(emit.sum(wide, axis=axis, keepdims=True), count)
    squares = _squared_magnitude(emit, emit.subtract(wide, mean))
    total = emit.sum(squares, axis=axis, keepdims=keepdims)
    return emit.cast(emit.divide(total, max(count - correction, 0)), real_dtype(x.dtype))


def _std(emit: Any, x: Any, *, axis: Axes, keepdims: bool, correction: float = 0) -> Any:
    return emit.sqrt(_var(emit, x, axis=axis, keepdims=keepdims, correction=correction))


def mean_reference(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    """Return numpy.mean, without its warning where nothing is averaged: that is NaN."""
    if 0 in [x.shape[a] for a in axis]:
        return np.asarray(np.sum(x, axis=axis, keepdims=keepdims) / x.dtype.type(0))
    return np.asarray(np.mean(x, axis=axis, keepdims=keepdims))


def var_reference(x: Array, *, axis: Axes, keepdims: bool, correction: float = 0) -> Array:
    """Return numpy.var, without its warning where n − correction is not above 0: NaN or ∞."""
    freedom = math.prod(x.shape[a] for a in axis) - correction
    if freedom > 0:
        settings: dict[str, Any] = {"axis": axis, "keepdims": keepdims, "ddof": correction}
        return np.asarray(np.var(x, **settings))
    deviation = np.abs(x - mean_reference(x, axis=axis, keepdims=True))
    total = np.sum(deviation * deviation, axis=axis, keepdims=keepdims)
    return np.asarray(total / total.dtype.type(0))


def _std_reference(x: Array, *, axis: Axes, keepdims: bool, correction: float = 0) -> Array:
    return np.sqrt(var_reference(x, axis=axis, keepdims=keepdims, correction=correction))


def _to_real(name: str) -> TypesRule:
    return common_types(name, kinds="fc", integers_become=FLOAT64, result=real_dtype)


reduction(
    "mean", mean_reference, inexact_types("mean"), decompose=_mean, doc="The arithmetic mean."
)
reduction(
    "var", var_reference, _to_real("var"), decompose=_var,
    doc="The variance, divided by n − correction; two passes.",
)  # fmt: skip
reduction(
    "std", _std_reference, _to_real("std"), decompose=_std,
    doc="The square root of the variance.",
)  # fmt: skip


def _ptp_reference(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    return np.asarray(np.ptp(x, axis=axis, keepdims=keepdims))


def _ptp(emit: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    high = emit.max(x, axis=axis, keepdims=keepdims)
    return emit.subtract(high, emit.min(x, axis=axis, keepdims=keepdims))


def _count(emit: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    return emit.sum(_nonzero(emit, x), axis=axis, keepdims=keepdims)


def _nonzero(emit: Any, x: Any) -> Any:
    return x if x.dtype == BOOL else emit.not_equal(x, 0)


def _count_reference(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    return np.asarray(np.sum(x != 0, axis=axis, keepdims=keepdims, dtype=np.int64))


reduction(
    "ptp", _ptp_reference, common_types("ptp", kinds="iufc"), identity=False, decompose=_ptp,
    doc="Peak to peak: max − min.",
)  # fmt: skip
reduction(
    "count_nonzero", _count_reference, common_types("count_nonzero", result=INT64),
    decompose=_count, doc="How many elements are not zero.",
)  # fmt: skip

# -- logarithms of sums, norms ---------------------------------------------------------------------


def finite_or_zero(emit: Any, x: Any) -> Any:
    """Return ``x`` where finite, else 0: the shift of a log-sum-exp that must not make ∞ − ∞."""
    return emit.where(emit.isfinite(x), x, emit.constant(0.0, x.dtype))


def _logsumexp_reference(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    shift = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(shift), shift, np.zeros((), x.dtype))
    total = np.sum(np.exp(x - shift), axis=axis, keepdims=True)
    result = np.log(total) + shift
    return np.asarray(result).reshape(reduced_shape(x.shape, axis, keepdims))


def _logsumexp(emit: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    shape = reduced_shape(x.shape, axis, keepdims)
    if extent(x, axis) == 0:
        return emit.broadcast_to(emit.constant(-math.inf, x.dtype), shape=shape)
    shift = finite_or_zero(emit, emit.max(x, axis=axis, keepdims=True))
    total = emit.sum(emit.exp(emit.subtract(x, shift)), axis=axis, keepdims=True)
    result = emit.add(emit.log(total), shift)
    return result if keepdims else emit.reshape(result, shape=shape)


def _norm_reference(x: Array, *, axis: Axes, keepdims: bool, ord: float = 2) -> Array:
    magnitude = np.abs(x)
    if ord == math.inf:
        result = np.max(magnitude, axis=axis, keepdims=keepdims, initial=0)
    elif ord == -math.inf:
        result = np.min(magnitude, axis=axis, keepdims=keepdims, initial=math.inf)
    elif ord == 0:
        result = np.sum(magnitude != 0, axis=axis, keepdims=keepdims)
    elif ord == 1:
        result = np.sum(magnitude, axis=axis, keepdims=keepdims)
    elif ord == 2:
        squares = x.real * x.real + x.imag * x.imag if x.dtype.kind == "c" else x * x
        result = np.sqrt(np.sum(squares, axis=axis, keepdims=keepdims))
    else:
        power = np.power(magnitude, magnitude.dtype.type(ord))
        total = np.sum(power, axis=axis, keepdims=keepdims)
        result = np.power(total, magnitude.dtype.type(1.0 / ord))
    return np.asarray(result, real_dtype(x.dtype))


def _norm(emit: Any, x: Any, *, axis: Axes, keepdims: bool, ord: float = 2) -> Any:
    how: dict[str, Any] = {"axis": axis, "keepdims": keepdims}
    if ord == 2:
        return emit.sqrt(emit.sum(_squared_magnitude(emit, x), **how))
    if ord == 0:
        return emit.cast(_count(emit, x, **how), real_dtype(x.dtype))
    magnitude = emit.absolute(x)
    if abs(ord) == math.inf:
        limit = 0.0 if ord > 0 else math.inf
        if extent(x, axis) == 0:
            empty = emit.constant(limit, magnitude.dtype)
            return emit.broadcast_to(empty, shape=reduced_shape(x.shape, axis, keepdims))
        return emit.max(magnitude, **how) if ord > 0 else emit.min(magnitude, **how)
    if ord == 1:
        return emit.sum(magnitude, **how)
    return emit.power(emit.sum(emit.power(magnitude, ord), **how), 1.0 / ord)


reduction(
    "logsumexp", _logsumexp_reference, float_types("logsumexp"), decompose=_logsumexp,
    doc="log Σ eˣ with the maximum subtracted; −∞ for all −∞ and for nothing.",
)  # fmt: skip
reduction(
    "norm", _norm_reference, _to_real("norm"), decompose=_norm,
    doc="(Σ|x|^ord)^(1/ord); ord ∞ the largest, −∞ the smallest magnitude, 0 the nonzero count.",
)  # fmt: skip

# -- ignoring NaN ----------------------------------------------------------------------------------


def _replace_nan(emit: Any, x: Any, value: float) -> Any:
    if x.dtype.kind not in "fc":
        return x
    return emit.where(emit.isnan(x), emit.constant(value, x.dtype), x)


def _valid(emit: Any, x: Any) -> Any:
    """Return 1 where ``x`` is not NaN, else 0, in the real dtype of ``x``."""
    return emit.cast(emit.logical_not(emit.isnan(x)), real_dtype(x.dtype))


def _nansum(emit: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    return emit.sum(_replace_nan(emit, x, 0.0), axis=axis, keepdims=keepdims)


def _nanprod(emit: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    return emit.prod(_replace_nan(emit, x, 1.0), axis=axis, keepdims=keepdims)


def _nanmean(emit: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
    total = _nansum(emit, x, axis=axis, keepdims=keepdims)
    count = emit.sum(_valid(emit, x), axis=axis, keepdims=keepdims)
    return emit.divide(total, emit.cast(count, total.dtype))


def _nanvar(emit: Any, x: Any, *, axis: Axes, keepdims: bool, correction: float = 0) -> Any:
    valid = _valid(emit, x)
    count = emit.sum(valid, axis=axis, keepdims=True)
    total = _nansum(emit, x, axis=axis, keepdims=True)
    mean = emit.divide(total, emit.cast(count, total.dtype))
    # An infinite element makes its own deviation NaN: that NaN must stay, unlike a missing one.
    zero = emit.constant(0.0, x.dtype)
    deviation = emit.where(emit.isnan(x), zero, emit.subtract(x, mean))
    squares = emit.sum(_squared_magnitude(emit, deviation), axis=axis, keepdims=True)
    freedom = emit.subtract(count, correction)
    variance = emit.divide(squares, freedom)
    undefined = emit.less_equal(freedom, 0.0)
    variance = emit.where(undefined, emit.constant(math.nan, variance.dtype), variance)
    return emit.reshape(variance, shape=reduced_shape(x.shape, axis, keepdims))


def _nanstd(emit: Any, x: Any, *, axis: Axes, keepdims: bool, correction: float = 0) -> Any:
    return emit.sqrt(_nanvar(emit, x, axis=axis, keepdims=keepdims, correction=correction))


def _nan_limit(reduce: str, neutral: float) -> Callable[..., Any]:
    def decompose(emit: Any, x: Any, *, axis: Axes, keepdims: bool) -> Any:
        best = getattr(emit, reduce)(_replace_nan(emit, x, neutral), axis=axis, keepdims=keepdims)
        if x.dtype.kind != "f":
            return best
        missing = emit.all(emit.isnan(x), axis=axis, keepdims=keepdims)
        return emit.where(missing, emit.constant(math.nan, x.dtype), best)

    return decompose


def _quiet(function: Callable[..., Any]) -> Callable[..., Array]:
    """Return NumPy's function without its warnings about slices that hold only NaN."""

    def reference(x: Array, *, correction: float | None = None, **how: Any) -> Array:
        import warnings

        if correction is not None:
            how["ddof"] = correction
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return np.asarray(function(x, **how))

    return reference


def _nan_limit_reference(function: Callable[..., Any]) -> Callable[..., Array]:
    quiet = _quiet(function)

    def reference(x: Array, *, axis: Axes, keepdims: bool) -> Array:
        if x.size == 0:  # the shape rule saw to it that the result is empty too
            return np.zeros(reduced_shape(x.shape, axis, keepdims), x.dtype)
        return quiet(x, axis=axis, keepdims=keepdims)

    return reference


for _name, _function, _types, _rule, _doc in [
    ("nansum", np.nansum, common_types("nansum", result=accumulator), _nansum, "The sum"),
    ("nanprod", np.nanprod, common_types("nanprod", result=accumulator), _nanprod, "The product"),
    ("nanmean", np.nanmean, inexact_types("nanmean"), _nanmean, "The mean"),
    ("nanvar", np.nanvar, _to_real("nanvar"), _nanvar, "The variance"),
    ("nanstd", np.nanstd, _to_real("nanstd"), _nanstd, "The standard deviation"),
]:
    reduction(_name, _quiet(_function), _types, decompose=_rule, doc=f"{_doc} of what is not NaN.")
for _name, _function, _rule, _doc in [
    ("nanmax", np.nanmax, _nan_limit("max", -math.inf), "The largest number; NaN if none."),
    ("nanmin", np.nanmin, _nan_limit("min", math.inf), "The smallest number; NaN if none."),
]:
    reduction(
        _name,
        _nan_limit_reference(_function),
        same_types(_name, kinds="biuf"),
        identity=False,
        decompose=_rule,
        doc=_doc,
    )

# -- weighted, ordered -----------------------------------------------------------------------------


def _average_shape(x: Aval, w: Aval, *, axis: Axes, keepdims: bool) -> Shape:
    if x.shape != w.shape:
        raise ShapeError(
            f"average: weights of shape {w.shape} for values of shape {x.shape}",
            hint="broadcast the weights to the values' shape first",
        )
    return reduction_shape("average", True)(x, axis=axis, keepdims=keepdims)


def _average_reference(x: Array, w: Array, *, axis: Axes, keepdims: bool) -> Array:
    total = np.sum(x * w, axis=axis, keepdims=keepdims)
    return np.asarray(total / np.sum(w, axis=axis, keepdims=keepdims))


def _average(emit: Any, x: Any, w: Any, *, axis: Axes, keepdims: bool) -> Any:
    total = emit.sum(emit.multiply(x, w), axis=axis, keepdims=keepdims)
    return emit.divide(total, emit.sum(w, axis=axis, keepdims=keepdims))


row(
    "average",
    Family.COMPOSITE,
    _average_reference,
    arity=2,
    types=inexact_types("average"),
    shape=_average_shape,
    decompose=_average,
    doc="Σ w·x / Σ w.",
)


def _median_types(name: str) -> Callable[[tuple[Any, ...]], tuple[tuple[DType, ...], DType]]:
    return common_types(name, kinds="f", integers_become=FLOAT64)


def _order_reference(function: Callable[..., Any]) -> Callable[..., Array]:
    def reference(x: Array, *, axis: Axes, keepdims: bool, **attrs: Any) -> Array:
        shape = reduced_shape(x.shape, axis, keepdims)
        if 0 in shape or not axis:
            return np.zeros(shape, x.dtype) if 0 in shape else x.copy()
        if x.size == 0:
            return np.full(shape, np.nan, x.dtype)
        return np.asarray(function(x, axis=axis, keepdims=keepdims, **attrs), x.dtype)

    return reference


for _name, _function, _doc in [
    ("median", np.median, "The middle value; NaN if there is one."),
    ("nanmedian", _quiet(np.nanmedian), "The middle of what is not NaN."),
    ("quantile", np.quantile, "The q-quantile (attribute q in [0, 1], method linear)."),
]:
    row(
        _name,
        Family.SORTING,
        _order_reference(_function),
        arity=1,
        types=_median_types(_name),
        shape=reduction_shape(_name, True),
        facts=Fact.EXPENSIVE,
        doc=_doc,
    )
