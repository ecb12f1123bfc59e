"""Counting: how often values occur, each by itself or in bins."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracejit.errors import ArgumentError, DTypeError, ShapeError, ValueArgumentError
from tracejit.functions.arguments import as_index, fail, is_integer
from tracejit.functions.creation import asarray, ramp
from tracejit.functions.gather import FIXED, combine, searchsorted, take
from tracejit.functions.movement import ravel
from tracejit.tensor import Tensor, cast, lift, record, value_of

__all__ = ["bincount", "histc", "histogram"]


def bincount(x: Any, /, weights: Any = None, minlength: int = 0) -> Tensor:
    """Return how often each of 0, 1, … occurs, or the sum of its weights.

    The length is ``minlength`` or one more than the largest value, which needs the values.
    """
    value = lift(x)
    if value.ndim != 1 or value.dtype.kind not in "biu":
        text = f"bincount takes integers on one axis, got {value.dtype}{list(value.shape)}"
        raise fail(ShapeError if value.ndim != 1 else DTypeError, text)
    if value.traced_in is None:
        found = value_of(value, "bincount()")
        if found.size and int(found.min()) < 0:
            raise fail(ValueArgumentError, "bincount: a value is negative")
        length = max(int(found.max()) + 1 if found.size else 0, minlength)
    elif minlength:
        length = minlength
    else:
        raise fail(ArgumentError, "bincount of a traced tensor needs minlength", FIXED)
    if weights is None:
        return record("bincount", (cast(value, np.int64),), length=length)
    weight = cast(lift(weights), np.float64)
    start = asarray(np.zeros(length))
    return combine(start, (value,), (0,), weight, "add")


def histogram(
    x: Any, /, bins: Any = 10, range: Any = None, density: bool | None = None, weights: Any = None
) -> tuple[Tensor, Tensor]:
    """Return counts and bin edges, as ``numpy.histogram``.

    ``bins`` is a number of equal bins over ``range`` (a pair of numbers; least to greatest element
    without it), or rising edges. Values outside are not counted, and neither is NaN; a traced
    ``x`` that holds NaN gets NaN as edges, where NumPy raises. Counts are int64, sums of
    ``weights`` have their dtype.

    >>> import tracejit as tj
    >>> tj.histogram([0.0, 1.0, 1.5, 4.0], bins=4)
    (tensor([1, 2, 0, 1]), tensor([0., 1., 2., 3., 4.]))
    """
    value = ravel(x)
    if value.dtype.kind == "b":
        value = cast(value, np.uint8)
    weight = None if weights is None else ravel(weights)
    if weight is not None and weight.shape != value.shape:
        raise fail(ShapeError, f"histogram: weights of shape {weight.shape} for {value.shape}")
    if isinstance(bins, str):
        raise fail(ArgumentError, f"histogram: bins={bins!r} needs the values", FIXED)
    edges = _equal_edges(value, bins, range) if _is_number(bins) else ravel(bins)
    if _is_number(bins):
        index = _equal_bin(cast(value, edges.dtype), edges)
    else:
        index = _searched_bin(value, edges)
    number = edges.shape[0] - 1
    counts = bincount(index, weight, minlength=number + 1)[:number]  # the last: those outside
    if weight is not None:
        counts = cast(counts, weight.dtype)
    if density:
        widths = cast(record("subtract", (edges[1:], edges[:-1])), np.float64)
        total = record("sum", (counts,), axis=(0,), keepdims=False)
        counts = record("divide", (record("divide", (counts, widths)), total))
    return counts, edges


def _is_number(bins: Any) -> bool:
    return is_integer(bins) or (not isinstance(bins, str) and np.ndim(bins) == 0)


def _equal_edges(value: Tensor, bins: Any, bounds: Any) -> Tensor:
    """Return the edges of equal bins, in the floating dtype of the values and the bounds."""
    number = as_index(bins, "bins")
    if number < 1:
        raise fail(ValueArgumentError, f"histogram: {number} bins", "at least one")
    first, last = _bounds(value, bounds)
    dtype = np.result_type(value.dtype, *(v.dtype for v in (first, last) if isinstance(v, Tensor)))
    if dtype.kind in "iu":
        dtype = np.dtype(np.float64)
    if dtype.kind != "f":
        raise fail(DTypeError, f"histogram: values of {value.dtype} have no order")
    wide = dtype if isinstance(first, Tensor) else np.dtype(np.float64)  # as NumPy's linspace
    low, high = (cast(lift(v), wide) for v in (first, last))
    flat = record("equal", (low, high))
    low = record("where", (flat, record("subtract", (low, 0.5)), low))
    high = record("where", (flat, record("add", (high, 0.5)), high))
    step = record("divide", (record("subtract", (high, low)), number))
    place = ramp((number + 1,), 0)
    edges = record("add", (record("multiply", (cast(place, wide), step)), low))
    return cast(record("where", (record("equal", (place, number)), high, edges)), dtype)


def _bounds(value: Tensor, bounds: Any) -> tuple[Any, Any]:
    """Return the outer edges: as given, or the least and the greatest element."""
    if bounds is not None:
        first, last = bounds
        numbers = not isinstance(first, Tensor) and not isinstance(last, Tensor)
        if numbers and not (math.isfinite(first) and math.isfinite(last) and first <= last):
            text = f"histogram: range ({first}, {last})"
            raise fail(ValueArgumentError, text, "two finite numbers, the lower one first")
        return first, last
    if value.size == 0:
        return 0.0, 1.0
    ends = [record(name, (value,), axis=(0,), keepdims=False) for name in ("min", "max")]
    if value.traced_in is None:
        found = [e.numpy() for e in ends]
        if not np.isfinite(found).all():
            text = f"histogram: the values range from {found[0]} to {found[1]}"
            raise fail(ValueArgumentError, text, "give range=(low, high)")
    return ends[0], ends[1]


def _equal_bin(value: Tensor, edges: Tensor) -> Tensor:
    """Return the bin of each element; one more than the last for those outside.

    The bin that division gives is moved by one where rounding put an element on the wrong side of
    an edge, so that the counts agree with the edges to the bit.
    """
    number = edges.shape[0] - 1
    low, high = edges[0], edges[number]
    inside = record("greater_equal", (value, low))
    inside = record("logical_and", (inside, record("less_equal", (value, high))))
    share = record("divide", (record("subtract", (value, low)), record("subtract", (high, low))))
    share = record("where", (inside, record("multiply", (share, number)), 0))
    index = record("minimum", (cast(share, np.int64), number - 1))
    index = record("subtract", (index, record("less", (value, take(edges, index)))))
    index = record("clip", (index, 0, number - 1))
    above = record("greater_equal", (value, take(edges, record("add", (index, 1)))))
    above = record("logical_and", (above, record("not_equal", (index, number - 1))))
    return record("where", (inside, record("add", (index, above)), number))


def _searched_bin(value: Tensor, edges: Tensor) -> Tensor:
    """Return the bin between given edges; one more than the last for elements outside."""
    if edges.ndim != 1 or edges.shape[0] < 2:
        raise fail(
            ShapeError, f"histogram: edges of shape {edges.shape}", "at least two, on one axis"
        )
    if edges.traced_in is None and bool((edges[:-1] > edges[1:]).numpy().any()):
        raise fail(ValueArgumentError, "histogram: the edges must rise")
    number = edges.shape[0] - 1
    index = record("subtract", (searchsorted(edges, value, "right"), 1))
    index = record("where", (record("equal", (value, edges[number])), number - 1, index))
    outside = record("less", (index, 0))
    return record("where", (outside, number, index))


def histc(x: Any, /, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """Return the counts of a histogram in the dtype of ``x``, as PyTorch's ``histc``.

    Equal bins from ``min`` to ``max``; over the values' own range where both are 0.
    """
    value = lift(x)
    counts, _ = histogram(value, bins, None if min == max == 0 else (min, max))
    return cast(counts, value.dtype)
