"""Windows that slide over the last axes of a value, and the pooling made of them.

``windows`` is an index map: an element of the window at place i, tap t is the element
i·step + t·dilation of the operand, so that a reduction over windows reads its operand directly.
Padding is explicit: a row that pads says how many elements precede (``low``) and follow (``high``)
each axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tracejit.errors import ShapeError, ValueArgumentError
from tracejit.ops.movement import movement
from tracejit.ops.table import Array, Aval, DType, Family, Shape, float_types, row, same_types

Ints = tuple[int, ...]

# Windows of up to so many taps are written out as that many shifted slices: elementwise work that
# vectorises along the last axis. Larger ones are reductions in a loop over the taps.
MAX_TAPS = 32


def window_reach(size: Ints, dilation: Ints) -> Ints:
    """Return how many elements each axis of a window spans, from its first tap to its last."""
    return tuple((n - 1) * d + 1 for n, d in zip(size, dilation, strict=True))


def window_places(
    name: str, shape: Shape, size: Ints, step: Ints, low: Ints, high: Ints, dilation: Ints
) -> Shape:
    """Return how many places a window has along each axis of ``shape``, once that is padded.

    ``ValueArgumentError`` for sizes, steps or dilations below 1 and negative padding,
    ``ShapeError`` where the window is larger than the padded value.
    """
    for what, values, least in (
        ("kernel size", size, 1), ("stride", step, 1), ("dilation", dilation, 1),
        ("padding", (*low, *high), 0),
    ):  # fmt: skip
        if any(n < least for n in values):
            raise ValueArgumentError(f"{name}: {what} {values} must be at least {least}")
    padded = tuple(a + n + b for a, n, b in zip(low, shape, high, strict=True))
    reach = window_reach(size, dilation)
    if any(n < r for n, r in zip(padded, reach, strict=True)):
        spread = f" with dilation {dilation}" if any(d > 1 for d in dilation) else ""
        raise ShapeError(
            f"{name}: a window of {size}{spread} does not fit into {shape}, padded {padded}",
            hint="use a smaller window, or more padding",
        )
    return tuple((n - r) // s + 1 for n, r, s in zip(padded, reach, step, strict=True))


# -- the windows -----------------------------------------------------------------------------------


def _windows_shape(x: Aval, *, size: Ints, step: Ints, dilation: Ints) -> Shape:
    count = len(size)
    if not len(step) == len(dilation) == count <= len(x.shape):
        raise ShapeError(f"windows: sizes {size}, steps {step} and {dilation} for {x.shape}")
    lead = len(x.shape) - count
    none = (0,) * count
    places = window_places("windows", x.shape[lead:], size, step, none, none, dilation)
    return (*x.shape[:lead], *places, *size)


def windows_of(x: Array, size: Ints, step: Ints, dilation: Ints) -> Array:
    """Return the windows as a view of an array."""
    count = len(size)
    axes = tuple(range(x.ndim - count, x.ndim))
    everywhere = sliding_window_view(x, window_reach(size, dilation), axis=axes)
    apart = [slice(None, None, s) for s in (*step, *dilation)]
    return everywhere[(..., *apart)]


def _windows_reference(x: Array, *, size: Ints, step: Ints, dilation: Ints) -> Array:
    return windows_of(x, size, step, dilation)


movement(
    "windows", _windows_reference, _windows_shape,
    doc="[…, *places, *size]: windows that slide over the last axes, taps along new axes.",
)  # fmt: skip


# -- helpers of decompositions ---------------------------------------------------------------------


def padded(emit: Any, x: Any, value: Any, low: Ints, high: Ints) -> Any:
    """Return ``x`` with its last axes extended by a scalar; a negative width cuts the end."""
    rank = len(x.shape) - len(low)
    lead = (0,) * rank
    if any(n < 0 for n in (*low, *high)):
        # Where more is cut than there is, the padding on the other side is cut too.
        cuts = [
            (min(max(-a, 0), n), min(max(-b, 0), n), max(a, 0) + min(n + b, 0), max(b, 0))
            for n, a, b in zip(x.shape[rank:], low, high, strict=True)
        ]
        start = (*lead, *(c[0] for c in cuts))
        size = (
            *x.shape[:rank],
            *(n - c[0] - c[1] for n, c in zip(x.shape[rank:], cuts, strict=True)),
        )
        x = emit.slice(x, start=start, size=size, step=(1,) * len(size))
        low, high = tuple(c[2] for c in cuts), tuple(c[3] for c in cuts)
    if not any((*low, *high)):
        return x
    return emit.pad(x, emit.constant(value, x.dtype), low=(*lead, *low), high=(*lead, *high))


def taps(emit: Any, x: Any, places: Shape, size: Ints, step: Ints, dilation: Ints) -> Iterator[Any]:
    """Yield the elements of all windows under one tap, for every tap in C order."""
    lead = len(x.shape) - len(size)
    for tap in itertools.product(*map(range, size)):
        start = (0,) * lead + tuple(t * d for t, d in zip(tap, dilation, strict=True))
        shape = (*x.shape[:lead], *places)
        yield emit.slice(x, start=start, size=shape, step=(1,) * lead + step)


# -- pooling ---------------------------------------------------------------------------------------


def _pool_places(
    name: str, x: Aval, size: Ints, step: Ints, low: Ints, high: Ints, dilation: Ints
) -> Shape:
    lead = len(x.shape) - len(size)
    if lead < 0:
        raise ShapeError(f"{name}: a window of {len(size)} axes for a value of shape {x.shape}")
    return (
        *x.shape[:lead],
        *window_places(name, x.shape[lead:], size, step, low, high, dilation),
    )


def _max_pool_shape(
    x: Aval, *, size: Ints, step: Ints, low: Ints, high: Ints, dilation: Ints
) -> Shape:
    return _pool_places("max_pool", x, size, step, low, high, dilation)


def _least(dtype: DType) -> Any:
    """Return what the maximum with any value of a dtype leaves as that value is."""
    return float("-inf") if dtype.kind == "f" else int(np.iinfo(dtype).min)


def _extended(x: Array, value: Any, low: Ints, high: Ints) -> Array:
    lead = x.ndim - len(low)
    widths = [(0, 0)] * lead + list(zip(low, high, strict=True))
    return np.pad(x, widths, constant_values=value)


def _tap_axes(rank: int, count: int) -> Ints:
    return tuple(range(rank - count, rank))


def _max_pool_reference(
    x: Array, *, size: Ints, step: Ints, low: Ints, high: Ints, dilation: Ints
) -> Array:
    windows = windows_of(_extended(x, _least(x.dtype), low, high), size, step, dilation)
    return np.max(windows, axis=_tap_axes(windows.ndim, len(size)))


def _max_pool(
    emit: Any, x: Any, *, size: Ints, step: Ints, low: Ints, high: Ints, dilation: Ints
) -> Any:
    places = _pool_places("max_pool", x.aval, size, step, low, high, dilation)
    x = padded(emit, x, _least(x.dtype), low, high)
    if math.prod(size) <= MAX_TAPS:
        first, *rest = taps(emit, x, places[len(places) - len(size) :], size, step, dilation)
        for tap in rest:
            first = emit.maximum(first, tap)
        return first
    windows = emit.windows(x, size=size, step=step, dilation=dilation)
    return emit.max(windows, axis=_tap_axes(len(windows.shape), len(size)), keepdims=False)


def _avg_pool_shape(
    x: Aval, *, size: Ints, step: Ints, low: Ints, high: Ints,
    before: Ints, after: Ints, divisor: int | None,
) -> Shape:  # fmt: skip
    if divisor == 0:
        raise ValueArgumentError("avg_pool: the divisor is zero")
    return _pool_places("avg_pool", x, size, step, low, high, (1,) * len(size))


def _covered(extent: int, places: int, size: int, step: int, low: int, before: int, after: int):
    """Return the first and last element (exclusive) that count, of each window along an axis."""
    start = np.arange(places, dtype=np.int64) * step - low
    return np.maximum(start, -before), np.minimum(start + size, extent + after)


def _avg_pool_reference(
    x: Array, *, size: Ints, step: Ints, low: Ints, high: Ints,
    before: Ints, after: Ints, divisor: int | None,
) -> Array:  # fmt: skip
    windows = windows_of(_extended(x, 0, low, high), size, step, (1,) * len(size))
    total = np.sum(windows, axis=_tap_axes(windows.ndim, len(size)))
    if divisor is not None:
        return total / x.dtype.type(divisor)
    lead = x.ndim - len(size)
    count = np.ones((), x.dtype)
    for axis, numbers in enumerate(zip(size, step, low, before, after, strict=True)):
        first, last = _covered(x.shape[lead + axis], total.shape[lead + axis], *numbers)
        shape = [1] * len(size)
        shape[axis] = -1
        count = count * (last - first).astype(x.dtype).reshape(shape)
    return np.asarray(total / count)


def _avg_pool(
    emit: Any, x: Any, *, size: Ints, step: Ints, low: Ints, high: Ints,
    before: Ints, after: Ints, divisor: int | None,
) -> Any:  # fmt: skip
    ones = (1,) * len(size)
    places = _pool_places("avg_pool", x.aval, size, step, low, high, ones)
    lead = len(places) - len(size)
    wide = padded(emit, x, 0, low, high)
    if math.prod(size) <= MAX_TAPS:
        total, *rest = taps(emit, wide, places[lead:], size, step, ones)
        for tap in rest:
            total = emit.add(total, tap)
    else:
        windows = emit.windows(wide, size=size, step=step, dilation=ones)
        total = emit.sum(windows, axis=_tap_axes(len(windows.shape), len(size)), keepdims=False)
    if divisor is not None:
        return emit.divide(total, divisor)
    whole = 1
    counts: list[Any] = []
    for axis, numbers in enumerate(zip(size, step, low, before, after, strict=True)):
        extent, count = x.shape[lead + axis], places[lead + axis]
        first, last = _covered(extent, count, *numbers)
        if ((last - first) == numbers[0]).all():
            whole *= numbers[0]
        else:
            counts.append(_counts(emit, x.dtype, places, lead + axis, extent, *numbers))
    for count in counts[1:]:
        counts[0] = emit.multiply(counts[0], count)
    if not counts:
        return emit.divide(total, whole)
    return emit.divide(total, emit.multiply(counts[0], whole) if whole > 1 else counts[0])


def _counts(
    emit: Any, dtype: DType, places: Shape, axis: int, extent: int,
    size: int, step: int, low: int, before: int, after: int,
) -> Any:  # fmt: skip
    """Return, computed from positions, how many elements count of each window along an axis."""
    shape = tuple(n if i == axis else 1 for i, n in enumerate(places))
    place = emit.iota(shape=shape, axis=axis, dtype="<i8")
    start = emit.subtract(emit.multiply(place, step), low)
    last = emit.minimum(emit.add(start, size), extent + after)
    return emit.cast(emit.subtract(last, emit.maximum(start, -before)), dtype)


row(
    "max_pool", Family.COMPOSITE, _max_pool_reference, arity=1,
    types=same_types("max_pool", kinds="iuf"), shape=_max_pool_shape, decompose=_max_pool,
    doc="The maximum of each window over the last axes; padding never wins.",
)  # fmt: skip
row(
    "avg_pool", Family.COMPOSITE, _avg_pool_reference, arity=1,
    types=float_types("avg_pool"), shape=_avg_pool_shape, decompose=_avg_pool,
    doc="The mean of each window; of the padding, ``before`` and ``after`` elements count.",
)  # fmt: skip
