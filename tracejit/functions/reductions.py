"""Reductions and scans. ``dim`` and ``keepdim`` are PyTorch's names for ``axis`` and ``keepdims``.

``axis`` is None (all), an int, or a tuple; dtypes follow NumPy: sums of integers are 64 bits wide,
means of integers float64. ``initial`` joins the reduction, ``where`` leaves elements out.
"""

from __future__ import annotations

import builtins
from typing import Any, NamedTuple

from tracejit import functions
from tracejit.errors import ArgumentError, ValueArgumentError
from tracejit.functions.arguments import (
    Axis,
    alias,
    as_dtype,
    fail,
    is_sequence,
    one_axis,
    some_axes,
)
from tracejit.functions.creation import filled
from tracejit.functions.elementwise import as_condition
from tracejit.ops import OPS
from tracejit.tensor import Tensor, apply, cast, lift, record

__all__ = [
    "all", "allclose", "amax", "amin", "aminmax", "any", "argmax", "argmin", "array_equal",
    "array_equiv", "average", "count_nonzero", "logsumexp", "max", "mean", "median", "min",
    "nanmax", "nanmean", "nanmedian", "nanmin", "nanprod", "nanstd", "nansum", "nanvar",
    "percentile", "prod", "ptp", "quantile", "std", "sum", "var",
]  # fmt: skip


class Extremes(NamedTuple):
    """What PyTorch's ``max(x, dim)`` and its relatives return."""

    values: Tensor
    indices: Tensor


def _axes(name: str, x: Tensor, axis: Any, dim: Any) -> tuple[int, ...]:
    if axis is None and dim is None:
        return tuple(range(x.ndim))
    return tuple(sorted(some_axes(name, alias(axis, dim, "axis", "dim"), x.shape)))


def reduce(
    name: str, x: Any, axis: Any, keepdims: Any, dim: Any, keepdim: Any, **attrs: Any
) -> Tensor:
    """Record the reduction row ``name``; over no axes it only takes the result's dtype."""
    value = lift(x)
    axes = _axes(name, value, axis, dim)
    keep = bool(
        keepdims if keepdim is None else alias(keepdims, keepdim, "keepdims", "keepdim", False)
    )
    if not axes and value.ndim:
        types = OPS[name].types
        assert types is not None
        _, result = types((value.dtype,))
        shape = value.shape
        one = apply("reshape", (value,), shape=(*shape, 1))
        reduced = record(name, (one,), axis=(len(shape),), keepdims=False, **attrs)
        return cast(reduced, result)
    return record(name, (value,), axis=axes, keepdims=keep, **attrs)


def _masked(x: Tensor, where: Any, neutral: Tensor) -> Tensor:
    """Return ``x`` with the neutral element where the mask does not hold."""
    if where is None or where is True:
        return x
    return record("where", (as_condition(where), x, neutral))


def _accumulate(
    name: str, x: Any, axis: Any, dtype: Any, keep: Any, initial: Any, where: Any,
    dim: Any, keepdim: Any,
) -> Tensor:  # fmt: skip
    """Record sum or prod, which cast before they start."""
    if isinstance(dtype, builtins.bool):  # x.sum(0, True) is PyTorch's keepdim
        dtype, keep = None, dtype
    value = lift(x)
    if dtype is not None:
        value = cast(value, as_dtype(dtype))
    neutral = 0 if name == "sum" else 1
    if where is not None:
        value = _masked(value, where, filled((), neutral, value.dtype))
    result = reduce(name, value, axis, keep, dim, keepdim)
    if dtype is not None:
        result = cast(result, as_dtype(dtype))
    if initial is not None:
        combine = "add" if name == "sum" else "multiply"
        result = cast(record(combine, (result, initial)), result.dtype)
    return result


def sum(
    x: Any, /, axis: Axis = None, dtype: Any = None, keepdims: bool = False, *,
    initial: Any = None, where: Any = None, dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the sum. ``dtype`` is the dtype to add in."""
    return _accumulate("sum", x, axis, dtype, keepdims, initial, where, dim, keepdim)


def prod(
    x: Any, /, axis: Axis = None, dtype: Any = None, keepdims: bool = False, *,
    initial: Any = None, where: Any = None, dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the product. ``dtype`` is the dtype to multiply in."""
    return _accumulate("prod", x, axis, dtype, keepdims, initial, where, dim, keepdim)


def _extreme(
    name: str, x: Any, axis: Any, keep: Any, initial: Any, where: Any, dim: Any, keepdim: Any
) -> Any:
    value = lift(x)
    combine = "maximum" if name == "max" else "minimum"
    if where is not None and initial is None:
        raise fail(
            ValueArgumentError,
            f"{name} with where= has no identity",
            "give initial=, the result where nothing is left",
        )
    if initial is not None:
        start = lift(initial, value.dtype)
        value = _masked(value, where, start)
        if not builtins.all(value.shape[a] for a in _axes(name, value, axis, dim)):
            # The maximum of nothing is the initial value: sum gives the shape.
            empty = reduce("any", value, axis, keep, dim, keepdim)
            return apply("broadcast_to", (start,), shape=empty.shape)
        return record(combine, (reduce(name, value, axis, keep, dim, keepdim), start))
    if dim is not None and isinstance(dim, int):
        values = reduce(name, value, None, keep, dim, keepdim)
        return Extremes(values, reduce(f"arg{name}", value, None, keep, dim, keepdim))
    return reduce(name, value, axis, keep, dim, keepdim)


def max(
    x: Any, /, axis: Any = None, keepdims: bool = False, *,
    initial: Any = None, where: Any = None, dim: int | None = None, keepdim: bool | None = None,
) -> Any:  # fmt: skip
    """Return the largest, NaN if there is one. With PyTorch's ``dim``: (values, indices)."""
    if isinstance(axis, Tensor):
        return record("maximum", (x, axis))  # torch.max(a, b)
    return _extreme("max", x, axis, keepdims, initial, where, dim, keepdim)


def min(
    x: Any, /, axis: Any = None, keepdims: bool = False, *,
    initial: Any = None, where: Any = None, dim: int | None = None, keepdim: bool | None = None,
) -> Any:  # fmt: skip
    """Return the smallest, NaN if there is one. With PyTorch's ``dim``: (values, indices)."""
    if isinstance(axis, Tensor):
        return record("minimum", (x, axis))
    return _extreme("min", x, axis, keepdims, initial, where, dim, keepdim)


def amax(
    x: Any, /, axis: Axis = None, keepdims: bool = False, *,
    initial: Any = None, where: Any = None, dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the largest, NaN if there is one; always the values alone."""
    axes = alias(axis, dim, "axis", "dim")
    keep = alias(keepdims, keepdim, "keepdims", "keepdim", False)
    return max(x, axes, keep, initial=initial, where=where)


def amin(
    x: Any, /, axis: Axis = None, keepdims: bool = False, *,
    initial: Any = None, where: Any = None, dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the smallest, NaN if there is one; always the values alone."""
    axes = alias(axis, dim, "axis", "dim")
    keep = alias(keepdims, keepdim, "keepdims", "keepdim", False)
    return min(x, axes, keep, initial=initial, where=where)


def any(
    x: Any, /, axis: Axis = None, keepdims: bool = False, *,
    where: Any = None, dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return whether some element is not zero."""
    value = x if where is None else record("logical_and", (x, where))
    return reduce("any", value, axis, keepdims, dim, keepdim)


def all(
    x: Any, /, axis: Axis = None, keepdims: bool = False, *,
    where: Any = None, dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return whether no element is zero."""
    value = x if where is None else record("logical_or", (x, record("logical_not", (where,))))
    return reduce("all", value, axis, keepdims, dim, keepdim)


def _arg(name: str, x: Any, axis: Any, keepdims: Any, dim: Any, keepdim: Any) -> Tensor:
    value = lift(x)
    chosen = alias(axis, dim, "axis", "dim")
    if chosen is not None:
        chosen = one_axis(name, chosen, value.shape)
    return reduce(name, value, chosen, keepdims, None, keepdim)


def argmax(
    x: Any, /, axis: int | None = None, *, keepdims: bool = False,
    dim: int | None = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the first position of the largest (or of NaN); in C order without an axis."""
    return _arg("argmax", x, axis, keepdims, dim, keepdim)


def argmin(
    x: Any, /, axis: int | None = None, *, keepdims: bool = False,
    dim: int | None = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the first position of the smallest (or of NaN); in C order without an axis."""
    return _arg("argmin", x, axis, keepdims, dim, keepdim)


# -- statistics ------------------------------------------------------------------------------------


def mean(
    x: Any, /, axis: Axis = None, dtype: Any = None, keepdims: bool = False, *,
    where: Any = None, dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the arithmetic mean; ``where`` leaves elements out of sum and count."""
    if isinstance(dtype, builtins.bool):
        dtype, keepdims = None, dtype
    value = lift(x)
    if dtype is not None:
        value = cast(value, as_dtype(dtype))
    if where is None:
        result = reduce("mean", value, axis, keepdims, dim, keepdim)
    else:
        mask = apply("broadcast_to", (as_condition(where),), shape=value.shape)
        count = reduce("sum", mask, axis, keepdims, dim, keepdim)
        total = _accumulate("sum", value, axis, None, keepdims, None, mask, dim, keepdim)
        result = record("divide", (total, cast(count, total.dtype)))
    return result if dtype is None else cast(result, as_dtype(dtype))


def _spread(
    name: str, x: Any, axis: Any, dtype: Any, keepdims: Any,
    correction: float, unbiased: bool | None, where: Any, dim: Any, keepdim: Any,
) -> Tensor:  # fmt: skip
    value = lift(x)
    if dtype is not None:
        value = cast(value, as_dtype(dtype))
    if unbiased is not None:
        correction = 1 if unbiased else 0
    if where is None:
        return reduce(name, value, axis, keepdims, dim, keepdim, correction=correction)
    mask = apply("broadcast_to", (as_condition(where),), shape=value.shape)
    center = mean(value, axis, keepdims=True, where=mask, dim=dim)
    distance = record("square", (record("absolute", (record("subtract", (value, center)),)),))
    total = sum(distance, axis, keepdims=keepdims, where=mask, dim=dim, keepdim=keepdim)
    count = reduce("sum", mask, axis, keepdims, dim, keepdim)
    divisor = record("maximum", (record("subtract", (count, correction)), 0))
    variance = record("divide", (total, cast(divisor, total.dtype)))
    return record("sqrt", (variance,)) if name == "std" else variance


def var(
    x: Any, /, axis: Axis = None, dtype: Any = None, *, ddof: float = 0, keepdims: bool = False,
    correction: float | None = None, unbiased: bool | None = None, where: Any = None,
    dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the variance, divided by n − correction; ``where`` leaves elements out.

    The correction (NumPy's ``ddof``) is 0 unless told, under PyTorch's spelling too, where
    PyTorch's own default is ``unbiased=True``.
    """
    divisor = ddof if correction is None else correction
    return _spread("var", x, axis, dtype, keepdims, divisor, unbiased, where, dim, keepdim)


def std(
    x: Any, /, axis: Axis = None, dtype: Any = None, *, ddof: float = 0, keepdims: bool = False,
    correction: float | None = None, unbiased: bool | None = None, where: Any = None,
    dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the square root of ``var`` with the same arguments."""
    divisor = ddof if correction is None else correction
    return _spread("std", x, axis, dtype, keepdims, divisor, unbiased, where, dim, keepdim)


class MinMax(NamedTuple):
    """Both extremes, as ``aminmax`` returns them."""

    min: Tensor
    max: Tensor


def aminmax(
    x: Any, /, axis: Axis = None, keepdims: bool = False, *, dim: Axis = None,
    keepdim: bool | None = None,
) -> MinMax:  # fmt: skip
    """Return the least and the greatest element."""
    return MinMax(
        amin(x, axis, keepdims, dim=dim, keepdim=keepdim),
        amax(x, axis, keepdims, dim=dim, keepdim=keepdim),
    )


def logsumexp(
    x: Any, /, axis: Axis = None, *, keepdims: bool = False,
    dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return log Σ eˣ without overflow."""
    return reduce("logsumexp", x, axis, keepdims, dim, keepdim)


def ptp(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return max − min."""
    return reduce("ptp", x, axis, keepdims, None, None)


def count_nonzero(
    x: Any, /, axis: Axis = None, *, keepdims: bool = False, dim: Axis = None
) -> Tensor:
    """Return how many elements are not zero."""
    return reduce("count_nonzero", x, axis, keepdims, dim, None)


def median(x: Any, /, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Return the middle value, the mean of the two middle ones for an even count."""
    return reduce("median", x, axis, keepdims, None, None)


def nanmedian(x: Any, /, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Return the middle of what is not NaN."""
    return reduce("nanmedian", x, axis, keepdims, None, None)


def quantile(x: Any, q: Any, /, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Return the q-quantile, ``q`` in [0, 1] or a sequence, interpolated linearly."""
    if is_sequence(q) or (hasattr(q, "ndim") and q.ndim):
        parts = [quantile(x, v, axis, keepdims=keepdims) for v in q]
        return functions.joining.stack(parts)
    fraction = float(q)
    if not 0 <= fraction <= 1:
        raise fail(ValueArgumentError, f"quantile {fraction} is not in [0, 1]")
    return reduce("quantile", x, axis, keepdims, None, None, q=fraction)


def percentile(x: Any, q: Any, /, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """Return the q-th percentile, ``q`` in [0, 100] or a sequence."""
    fractions = [v / 100 for v in q] if is_sequence(q) else q / 100
    return quantile(x, fractions, axis, keepdims=keepdims)


def average(x: Any, /, axis: Axis = None, weights: Any = None, *, keepdims: bool = False) -> Tensor:
    """Return Σ w·x / Σ w; the mean without weights. 1-d weights go along one axis."""
    value = lift(x)
    if weights is None:
        return mean(value, axis, keepdims=keepdims)
    weight = lift(weights)
    if weight.shape != value.shape and weight.ndim == 1 and axis is not None:
        position = one_axis("average", axis, value.shape)
        shape = tuple(weight.size if i == position else 1 for i in range(value.ndim))
        weight = apply("reshape", (weight,), shape=shape)
        weight = apply("broadcast_to", (weight,), shape=value.shape)
    axes = _axes("average", value, axis, None)
    return record("average", (value, weight), axis=axes, keepdims=keepdims)


def _nan(name: str) -> builtins.object:
    def function(
        x: Any, /, axis: Axis = None, dtype: Any = None, *, keepdims: bool = False,
        ddof: float | None = None, dim: Axis = None, keepdim: bool | None = None,
    ) -> Tensor:  # fmt: skip
        value = lift(x) if dtype is None else cast(lift(x), as_dtype(dtype))
        extra = {} if ddof is None else {"correction": ddof}
        if extra and name not in ("nanvar", "nanstd"):
            raise fail(ArgumentError, f"{name} takes no ddof")
        return reduce(name, value, axis, keepdims, dim, keepdim, **extra)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = OPS[name].doc
    return function


nansum: Any = _nan("nansum")
nanprod: Any = _nan("nanprod")
nanmean: Any = _nan("nanmean")
nanvar: Any = _nan("nanvar")
nanstd: Any = _nan("nanstd")
nanmax: Any = _nan("nanmax")
nanmin: Any = _nan("nanmin")


def _verdict(answer: Tensor) -> Any:
    """Return a Python bool, as NumPy does; inside a trace the tensor, whose value comes later."""
    return builtins.bool(answer) if answer.traced_in is None else answer


def allclose(
    x1: Any, x2: Any, /, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    """Return whether all elements are close."""
    close = record("isclose", (x1, x2), rtol=rtol, atol=atol, equal_nan=equal_nan)
    return _verdict(all(close))


def array_equal(x1: Any, x2: Any, /, equal_nan: bool = False) -> Any:
    """Return whether shapes and all elements are equal."""
    left, right = lift(x1), lift(x2)
    if left.shape != right.shape:
        return False
    same = record("equal", (left, right))
    if equal_nan:
        both = record("logical_and", (record("isnan", (left,)), record("isnan", (right,))))
        same = record("logical_or", (same, both))
    return _verdict(all(same))


def array_equiv(x1: Any, x2: Any, /) -> Any:
    """Return whether the arrays are equal after broadcasting."""
    try:
        return _verdict(all(record("equal", (x1, x2))))
    except ValueError:
        return False
