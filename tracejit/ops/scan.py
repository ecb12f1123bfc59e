"""Scans: running sums, products and extrema along one axis, and differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracejit.errors import ValueArgumentError
from tracejit.ops.movement import cut
from tracejit.ops.table import (
    Array,
    Aval,
    Family,
    Shape,
    TypesRule,
    accumulator,
    check_axes,
    common_types,
    float_types,
    row,
    same_types,
    without,
)


def _scan_shape(name: str) -> Callable[..., Shape]:
    def shape(x: Aval, *, axis: int) -> Shape:
        check_axes(name, (axis,), x.shape)
        return x.shape

    return shape


def _accumulate(function: np.ufunc) -> Callable[..., Array]:
    def reference(x: Array, *, axis: int) -> Array:
        return np.asarray(function.accumulate(x, axis=axis))

    return reference


def _cumsum(x: Array, *, axis: int) -> Array:
    return np.cumsum(x, axis=axis)


def _cumprod(x: Array, *, axis: int) -> Array:
    return np.cumprod(x, axis=axis)


def _scan(name: str, reference: Callable[..., Array], types: TypesRule, doc: str) -> None:
    row(name, Family.SCAN, reference, arity=1, types=types, shape=_scan_shape(name), doc=doc)


_scan(
    "cumsum", _cumsum, common_types("cumsum", result=accumulator),
    "Running sums from the first to the last; 64 bits wide for integers.",
)  # fmt: skip
_scan(
    "cumprod", _cumprod, common_types("cumprod", result=accumulator),
    "Running products; 64 bits wide for integers.",
)  # fmt: skip
_scan("cummax", _accumulate(np.maximum), same_types("cummax"), "The largest so far.")
_scan("cummin", _accumulate(np.minimum), same_types("cummin"), "The smallest so far.")
_scan(
    "logcumsumexp", _accumulate(np.logaddexp), float_types("logcumsumexp"),
    "Running log Σ eˣ.",
)  # fmt: skip


def _nan_cumulative(neutral: float, scan: str) -> tuple[Callable[..., Array], Callable[..., Any]]:
    function = _cumsum if scan == "cumsum" else _cumprod

    def reference(x: Array, *, axis: int) -> Array:
        return function(np.where(np.isnan(x), x.dtype.type(neutral), x), axis=axis)

    def decompose(emit: Any, x: Any, *, axis: int) -> Any:
        clean = x
        if x.dtype.kind in "fc":
            clean = emit.where(emit.isnan(x), emit.constant(neutral, x.dtype), x)
        return getattr(emit, scan)(clean, axis=axis)

    return reference, decompose


for _name, _neutral, _of in [("nancumsum", 0.0, "cumsum"), ("nancumprod", 1.0, "cumprod")]:
    _reference, _decompose = _nan_cumulative(_neutral, _of)
    row(
        _name,
        Family.COMPOSITE,
        _reference,
        arity=1,
        types=common_types(_name, result=accumulator),
        shape=_scan_shape(_name),
        decompose=_decompose,
        doc=f"{_of} with NaN counted as {_neutral:g}.",
    )


def _diff_shape(x: Aval, *, axis: int, n: int = 1) -> Shape:
    check_axes("diff", (axis,), x.shape)
    if n < 0:
        raise ValueArgumentError(f"diff: the order must not be negative, got {n}")
    return without(x.shape, axis, max(x.shape[axis] - n, 0))


def _diff_reference(x: Array, *, axis: int, n: int = 1) -> Array:
    return np.diff(x, n, axis)


def _diff(emit: Any, x: Any, *, axis: int, n: int = 1) -> Any:
    subtract = emit.not_equal if x.dtype.kind == "b" else emit.subtract
    for _ in range(n):
        size = max(x.shape[axis] - 1, 0)
        after = cut(emit, x, axis, 1 if size else 0, size)
        x = subtract(after, cut(emit, x, axis, 0, size))
    return x


row(
    "diff",
    Family.COMPOSITE,
    _diff_reference,
    arity=1,
    types=same_types("diff"),
    shape=_diff_shape,
    decompose=_diff,
    doc="The n-th difference x[i+1] − x[i]; exclusive or on bool.",
)
