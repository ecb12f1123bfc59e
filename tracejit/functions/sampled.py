"""Functions known by their samples: derivatives, integrals, polynomials, sliding windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracejit.errors import ArgumentError, ShapeError, ValueArgumentError
from tracejit.functions.arguments import Axis, as_index, as_shape, fail, one_axis, some_axes
from tracejit.functions.creation import filled, ones_like, zeros_like
from tracejit.functions.dtypes import result_type
from tracejit.functions.joining import concat
from tracejit.functions.movement import cut, expand_dims, permute, ravel, reshape
from tracejit.functions.ordering import cumprod, cumsum, diff
from tracejit.functions.reductions import sum as summed
from tracejit.ops.table import DType
from tracejit.tensor import Tensor, cast, lift, record

__all__ = [
    "ediff1d", "gradient", "polyval", "sliding_window_view", "trapezoid", "unwrap", "vander",
]  # fmt: skip


def _along(part: Tensor, axis: int, rank: int) -> Tensor:
    """Return a 1-d tensor with its elements along ``axis`` of ``rank`` axes; others stay."""
    if part.ndim != 1:
        return part
    return reshape(part, tuple(-1 if i == axis else 1 for i in range(rank)))


# -- derivatives and integrals ---------------------------------------------------------------------


def gradient(f: Any, /, *varargs: Any, axis: Axis = None, edge_order: int = 1) -> Any:
    """Return the derivative of ``f`` along each axis, as ``numpy.gradient``.

    Second-order central differences inside, differences of first order (or of second, with
    ``edge_order=2``) at both ends. ``varargs`` are the distances or the coordinates of the samples:
    none (1), one for all axes, or one for each. With several axes a tuple is returned.

    >>> import tracejit as tj
    >>> tj.gradient([1.0, 4.0, 9.0, 16.0])
    tensor([3., 4., 6., 7.])
    """
    value = lift(f)
    axes = some_axes("gradient", axis, value.shape)
    if edge_order not in (1, 2):
        raise fail(ArgumentError, f"gradient: edge_order is 1 or 2, not {edge_order!r}")
    if len(varargs) not in (0, 1, len(axes)):
        text = f"gradient takes distances for none, one or all of {len(axes)} axes"
        raise TypeError(f"{text}, not {len(varargs)}")
    spacings = list(varargs or (1.0,))
    spacings = spacings * len(axes) if len(spacings) == 1 else spacings
    if value.dtype.kind in "iub":
        value = cast(value, np.dtype(np.float64))
    parts = [
        cast(_derivative(value, a, _spacing(s, value, a), edge_order), value.dtype)
        for a, s in zip(axes, spacings, strict=True)
    ]
    return parts[0] if len(parts) == 1 else tuple(parts)


def _spacing(spacing: Any, value: Tensor, axis: int) -> Any:
    """Return the distance of all samples as a number, or one distance for each pair of them."""
    points = lift(spacing)
    if points.ndim == 0:
        return points if isinstance(spacing, Tensor) else spacing
    if points.ndim != 1 or points.shape[0] != value.shape[axis]:
        text = f"gradient: coordinates of shape {points.shape} for axis {axis} of {value.shape}"
        raise fail(ShapeError, text, "give a number, or one coordinate for each sample")
    if points.dtype.kind in "iub":
        points = cast(points, np.dtype(np.float64))
    steps = diff(points)
    if points.traced_in is None:
        known = steps.numpy()
        if (known == known[0]).all():
            return known[0]
    return steps


def _derivative(f: Tensor, axis: int, dx: Any, edge_order: int) -> Tensor:
    count = f.shape[axis]
    if count < edge_order + 1:
        text = f"gradient: {count} samples along axis {axis} of {f.shape}"
        raise fail(ValueArgumentError, text, f"at least {edge_order + 1} are needed")

    def at(start: int, stop: int) -> Tensor:
        return cut(f, axis, start, stop)

    def step(start: int, stop: int) -> Any:
        return _along(cut(dx, 0, start, stop), axis, f.ndim)

    uneven = isinstance(dx, Tensor) and dx.ndim == 1
    left, right = (step(0, 1), step(count - 2, count - 1)) if uneven else (dx, dx)
    if uneven:
        before, after = step(0, count - 2), step(1, count - 1)
        a = -after / (before * (before + after))
        b = (after - before) / (before * after)
        c = before / (after * (before + after))
        inner = a * at(0, count - 2) + b * at(1, count - 1) + c * at(2, count)
    else:
        inner = (at(2, count) - at(0, count - 2)) / (2.0 * dx)
    if edge_order == 1:
        first = (at(1, 2) - at(0, 1)) / left
        last = (at(count - 1, count) - at(count - 2, count - 1)) / right
        return concat([first, inner, last], axis)
    if uneven:
        one, two = left, step(1, 2)
        low = (-(2.0 * one + two) / (one * (one + two)), (one + two) / (one * two),
               -one / (two * (one + two)))  # fmt: skip
        one, two = step(count - 3, count - 2), right
        high = (two / (one * (one + two)), -(two + one) / (one * two),
                (2.0 * two + one) / (two * (one + two)))  # fmt: skip
    else:
        low, high = (-1.5 / dx, 2.0 / dx, -0.5 / dx), (0.5 / dx, -2.0 / dx, 1.5 / dx)
    first = low[0] * at(0, 1) + low[1] * at(1, 2) + low[2] * at(2, 3)
    last = high[0] * at(count - 3, count - 2) + high[1] * at(count - 2, count - 1)
    return concat([first, inner, last + high[2] * at(count - 1, count)], axis)


def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Tensor:
    """Return the integral along an axis by the trapezoidal rule, ∑ dxᵢ (yᵢ + yᵢ₊₁) / 2."""
    value = lift(y)
    place = one_axis("trapezoid", axis, value.shape)
    if x is not None:
        points = lift(x)
        dx = (
            _along(diff(points), place, value.ndim)
            if points.ndim == 1
            else diff(points, axis=place)
        )
    count = value.shape[place]
    pairs = cut(value, place, min(1, count), count) + cut(value, place, 0, max(count - 1, 0))
    return summed(dx * pairs / 2.0, axis=place)


def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Tensor:
    """Return the differences of the flattened elements, between ``to_begin`` and ``to_end``."""
    value = ravel(lift(ary))
    parts = [None if p is None else ravel(lift(p)) for p in (to_begin, to_end)]
    for name, part in zip(("to_begin", "to_end"), parts, strict=True):
        if part is not None and not np.can_cast(part.dtype, value.dtype, "same_kind"):
            raise TypeError(f"ediff1d: {name} of {part.dtype} does not fit into {value.dtype}")
    inner = diff(value) if value.size else value
    joined = [p if p is inner else cast(p, value.dtype)
              for p in (parts[0], inner, parts[1]) if p is not None]  # fmt: skip
    return concat(joined) if len(joined) > 1 else inner


def unwrap(
    p: Any, discont: float | None = None, axis: int = -1, *, period: float = 2 * np.pi
) -> Tensor:
    """Return ``p`` with jumps larger than ``discont`` (half a period) taken modulo ``period``."""
    value = lift(p)
    place = one_axis("unwrap", axis, value.shape)
    jumps = diff(value, axis=place)
    dtype: DType = result_type(jumps, period)
    if dtype.kind in "iu":
        high, rest = divmod(period, 2)
        ambiguous = rest == 0
    else:
        high, ambiguous = period / 2, True
    folded = record("remainder", (jumps + high, period)) - high
    if ambiguous:
        folded = record("where", ((folded == -high) & (jumps > 0), high, folded))
    limit = period / 2 if discont is None else discont
    correction = record("where", (record("absolute", (jumps,)) < limit, 0, folded - jumps))
    count = value.shape[place]
    rest = cut(value, place, min(1, count), count) + cumsum(correction, place)
    return concat([cast(cut(value, place, 0, min(1, count)), dtype), cast(rest, dtype)], place)


# -- polynomials -----------------------------------------------------------------------------------


def polyval(p: Any, x: Any) -> Tensor:
    """Return the polynomial with coefficients ``p``, the highest power first, at ``x`` (Horner)."""
    coefficients = lift(p)
    if coefficients.ndim != 1:
        raise fail(ShapeError, f"polyval takes a 1-d p; its shape is {coefficients.shape}")
    points = lift(x)
    result = zeros_like(points)
    for i in range(coefficients.shape[0]):
        result = result * points + coefficients[i]
    return result


# So many columns of powers are products of each other, which one kernel stores.
_FEW_POWERS = 32


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Tensor:
    """Return the matrix of powers of a vector, the highest first unless ``increasing``."""
    value = lift(x)
    if value.ndim != 1:
        raise fail(ShapeError, f"vander takes a vector; the shape is {value.shape}")
    count = value.shape[0] if N is None else as_index(N, "N")
    value = cast(value, result_type(value.dtype, np.dtype(int)))
    if count == 0:
        return filled((value.shape[0], 0), 0, value.dtype)
    column = expand_dims(value, 1)
    if count > _FEW_POWERS:
        powers = cumprod(concat([ones_like(column), *[column] * (count - 1)], 1), 1)
        return powers if increasing else powers[:, ::-1]
    columns = [ones_like(column), column][:count]
    while len(columns) < count:
        columns.append(columns[-1] * column)
    return concat(columns if increasing else columns[::-1], 1)


# -- windows ---------------------------------------------------------------------------------------


def sliding_window_view(x: Any, window_shape: Any, axis: Axis = None) -> Tensor:
    """Return all windows of a shape: [*places, *window_shape]. It is an index map, not a copy.

    ``axis`` says which axis each size belongs to; without it there is one size for each.
    A reduction over the window reads ``x`` directly.

    >>> import tracejit as tj
    >>> tj.sliding_window_view(tj.arange(5), 3).sum(-1)
    tensor([3, 6, 9])
    """
    value = lift(x)
    size = as_shape(window_shape, "a window shape")
    axes = tuple(range(value.ndim)) if axis is None else some_axes("windows", axis, value.shape)
    if len(size) != len(axes):
        text = f"sliding_window_view: a window {size} for {len(axes)} axes of {value.shape}"
        raise fail(ShapeError, text, "give one size for each axis, or name the axes")
    if any(w > value.shape[a] for w, a in zip(size, axes, strict=True)):
        raise fail(ShapeError, f"sliding_window_view: a window {size} is larger than {value.shape}")
    others = tuple(a for a in range(value.ndim) if a not in axes)
    ones = (1,) * len(axes)
    windows = record(
        "windows", (permute(value, others + axes),), size=size, step=ones, dilation=ones
    )
    order = others + axes  # where the axes of places are now
    back = tuple(order.index(a) for a in range(value.ndim))
    return permute(windows, back + tuple(range(value.ndim, windows.ndim)))
