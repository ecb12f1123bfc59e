"""Picking elements by computed positions: take, gather, scatter, nonzero, tables.

Functions whose result's shape depends on data (``nonzero``, ``unique``, …) evaluate their operand,
so inside a trace they are errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tracejit import functions
from tracejit.errors import DTypeError, ShapeError, ValueArgumentError
from tracejit.functions.arguments import (
    as_index,
    fail,
    is_tuple,
    one_axis,
)
from tracejit.functions.creation import asarray, ramp, zeros_like
from tracejit.functions.elementwise import as_condition
from tracejit.functions.indexing import checked_index, getitem
from tracejit.functions.movement import broadcast_to, cut, ravel
from tracejit.tensor import Tensor, apply, cast, lift, record, value_of
from tracejit.writes import write

__all__ = [
    "argwhere", "bucketize", "choose", "compress", "digitize", "extract",
    "flatnonzero", "gather", "index_add", "index_select", "interp", "isin",
    "masked_fill", "masked_select", "nonzero", "one_hot", "put_along_axis", "scatter",
    "scatter_add", "searchsorted", "select", "take", "take_along_axis", "take_along_dim", "unique",
    "unique_all", "unique_counts", "unique_inverse", "unique_values",
]  # fmt: skip

FIXED = "only functions whose result has a known shape can be traced; do this outside"


def take(
    x: Any, indices: Any, /, axis: int | None = None, *, mode: str = "raise", dim: int | None = None
) -> Tensor:
    """Return slices of ``x`` along an axis (of the flattened ``x`` without one).

    ``mode`` is what happens to indices out of range: "raise", "wrap" or "clip".
    """
    value = lift(x)
    chosen = axis if dim is None else dim
    if chosen is None:
        value, chosen = ravel(value), 0
    place = one_axis("take", chosen, value.shape)
    extent = value.shape[place]
    if mode == "raise":
        index = checked_index(indices, place, extent)
    elif mode == "wrap":
        index = record("remainder", (lift(indices), extent))
    elif mode == "clip":
        index = record("clip", (lift(indices), 0, extent - 1))
    else:
        raise fail(ValueArgumentError, f"take: mode {mode!r} is not 'raise', 'wrap' or 'clip'")
    return record("take", (value, index), axis=place)


def index_select(x: Any, dim: int, index: Any, /) -> Tensor:
    """Return slices of ``x`` along ``dim``."""
    return take(x, index, dim)


def take_along_axis(
    x: Any, indices: Any, /, axis: int | None = -1, *, dim: int | None = None
) -> Tensor:
    """Return out[…, i, …] = x[…, indices[…, i, …], …] along an axis; others broadcast."""
    value, index = lift(x), lift(indices)
    chosen = axis if dim is None else dim
    if chosen is None:
        value, chosen = ravel(value), 0
    place = one_axis("take_along_axis", chosen, value.shape)
    return record(
        "take_along_axis", (value, checked_index(index, place, value.shape[place])), axis=place
    )


take_along_dim = take_along_axis


def gather(x: Any, dim: int, index: Any, /) -> Tensor:
    """Return PyTorch's ``gather``: other axes of ``index`` may be shorter than those of ``x``."""
    value, where = lift(x), lift(index)
    place = one_axis("gather", dim, value.shape)
    if where.ndim != value.ndim:
        raise fail(ShapeError, f"gather: an index of shape {where.shape} for {value.shape}")
    for axis, size in enumerate(where.shape):
        if axis != place and size != value.shape[axis]:
            value = cut(value, axis, 0, size)
    return take_along_axis(value, where, place)


def put_along_axis(x: Tensor, indices: Any, values: Any, /, axis: int | None = -1) -> None:
    """Write ``values`` to ``x`` in place at indices along an axis."""
    target = ravel(x) if axis is None else x
    place = one_axis("put_along_axis", 0 if axis is None else axis, target.shape)
    result = _put(target, place, indices, values)
    write(target, result.node, result.traced_in)


def _put(x: Tensor, axis: int, indices: Any, values: Any) -> Tensor:
    index = checked_index(indices, axis, x.shape[axis])
    return record("put_along_axis", (x, index, lift(values, x.dtype)), axis=axis)


def scatter(x: Any, dim: int, index: Any, src: Any) -> Tensor:
    """Return ``x`` with ``src``, which may be a number, written at indices along ``dim``.

    Other axes must agree.
    """
    value = lift(x)
    return _put(value, one_axis("scatter", dim, value.shape), index, src)


def scatter_add(x: Any, dim: int, index: Any, src: Any, /) -> Tensor:
    """Return ``x`` with ``src`` added at the places ``index`` names along ``dim``.

    out[index[i, j], j] += src[i, j] for two axes and dim 0. ``index`` and ``src`` have the rank of
    ``x``; axes other than ``dim`` may be shorter. Terms of one place are added in order.
    """
    value, places, source = lift(x), lift(index), lift(src)
    place = one_axis("scatter_add", dim, value.shape)
    shape = places.shape
    fits = len(shape) == value.ndim == source.ndim and all(
        i == place or n <= m for i, (n, m) in enumerate(zip(shape, value.shape, strict=True))
    )
    if not fits or any(n > m for n, m in zip(shape, source.shape, strict=True)):
        text = f"scatter_add: indices {shape} and source {source.shape} for {value.shape}"
        raise fail(ShapeError, text, "the same rank; indices no longer than the source")
    for axis, extent in enumerate(shape):
        source = cut(source, axis, 0, extent)
    arrays = tuple(
        checked_index(places, place, value.shape[place]) if i == place else _counter(shape, i)
        for i in range(value.ndim)
    )
    return combine(value, arrays, tuple(range(value.ndim)), source, "add")


def _counter(shape: tuple[int, ...], axis: int) -> Tensor:
    """Return the position along ``axis`` at each place of ``shape``, as a broadcast."""
    line = ramp(tuple(n if i == axis else 1 for i, n in enumerate(shape)), axis)
    return apply("broadcast_to", (line,), shape=shape)


def index_add(x: Any, dim: int, index: Any, source: Any, /) -> Tensor:
    """Return ``x`` with the slices of ``source`` added at ``index`` along ``dim``."""
    value = lift(x)
    place = one_axis("index_add", dim, value.shape)
    where = checked_index(index, place, value.shape[place])
    return combine(value, (where,), (place,), source, "add")


def combine(
    x: Tensor, arrays: Sequence[Tensor], axes: tuple[int, ...], values: Any, op: str
) -> Tensor:
    """Return ``x`` with ``op`` of it and ``values`` where ``arrays`` index ``axes``, in order."""
    if op == "subtract" and x.dtype.kind == "b":
        raise fail(DTypeError, "np.subtract.at does not take bools", "use np.logical_xor")
    return record("advanced_combine", (x, lift(values, x.dtype), *arrays), axes=axes, op=op)


def masked_fill(x: Any, mask: Any, value: Any, /) -> Tensor:
    """Return ``x`` with ``value`` where the mask holds."""
    source = lift(x)
    return record("where", (as_condition(mask), lift(value, source.dtype), source))


def masked_select(x: Any, mask: Any, /) -> Tensor:
    """Return the elements under the mask; its number depends on data."""
    value, chosen = lift(x), as_condition(mask)
    both = functions.movement.broadcast_arrays(value, chosen)
    return getitem(both[0], both[1])


def compress(condition: Any, x: Any, /, axis: int | None = None) -> Tensor:
    """Return the slices of ``x`` where a 1-d condition holds."""
    value = ravel(x) if axis is None else lift(x)
    chosen = value_of(as_condition(condition), "compress()", FIXED)
    return take(value, np.flatnonzero(chosen), 0 if axis is None else axis)


extract = compress


def choose(index: Any, choices: Sequence[Any], /) -> Tensor:
    """Return at each place the element of the choice that ``index`` names there."""
    stacked = functions.joining.stack(functions.movement.broadcast_arrays(*choices))
    where = lift(index)
    grown = apply("reshape", (where,), shape=(1, *where.shape))
    return functions.movement.squeeze(take_along_axis(stacked, grown, 0), 0)


def select(conditions: Sequence[Any], choices: Sequence[Any], default: Any = 0, /) -> Tensor:
    """Return the first choice whose condition holds, else ``default``."""
    if len(conditions) != len(choices):
        text = f"select: {len(conditions)} conditions for {len(choices)} choices"
        raise fail(ValueArgumentError, text)
    result: Any = default
    for condition, choice in reversed(list(zip(conditions, choices, strict=True))):
        result = record("where", (as_condition(condition), choice, result))
    return lift(result)


def piecewise(
    x: Any, condlist: Any, funclist: Sequence[Any], /, *args: Any, **kwargs: Any
) -> Tensor:
    """Return, for each element, the function (or number) of the last condition that holds.

    One more function than conditions is for where none holds; else 0 is there. Functions get all
    of ``x``, and the other arguments.
    """
    value = lift(x)
    listed = isinstance(condlist, (list, tuple)) or condlist.ndim > value.ndim
    conditions: list[Any] = [*condlist] if listed else [condlist]
    functions = list(funclist)
    if len(functions) not in (len(conditions), len(conditions) + 1):
        text = f"piecewise: {len(functions)} functions for {len(conditions)} conditions"
        raise fail(ValueArgumentError, text, "as many, or one more for where none holds")
    otherwise = functions.pop() if len(functions) > len(conditions) else 0
    result: Any = _applied(otherwise, value, args, kwargs)
    for condition, function in zip(conditions, functions, strict=True):
        chosen = _applied(function, value, args, kwargs)
        result = record("where", (as_condition(condition), chosen, result))
    return result


def _applied(function: Any, value: Tensor, args: Any, kwargs: Any) -> Tensor:
    """Return ``function`` of ``value``, in its dtype and shape; a number is itself."""
    found = lift(function(value, *args, **kwargs) if callable(function) else function)
    return broadcast_to(cast(found, value.dtype), value.shape)


# -- shapes that depend on data --------------------------------------------------------------------


def _known(x: Any, name: str) -> Any:
    return value_of(lift(x), f"{name}()", FIXED)


def nonzero(x: Any, /, *, as_tuple: bool = True) -> Any:
    """Return the indices of the elements that are not zero, one tensor for each axis."""
    found = np.nonzero(np.atleast_1d(_known(x, "nonzero")))
    return tuple(asarray(i) for i in found) if as_tuple else asarray(np.stack(found, -1))


def argwhere(x: Any, /) -> Tensor:
    """Return the indices of the elements that are not zero as rows."""
    return asarray(np.argwhere(_known(x, "argwhere")), copy=False)


def flatnonzero(x: Any, /) -> Tensor:
    """Return the flat indices of the elements that are not zero."""
    return asarray(np.flatnonzero(_known(x, "flatnonzero")), copy=False)


class Unique(NamedTuple):
    """The array-API result of ``unique_all``."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    values: Tensor
    inverse_indices: Tensor


def unique(
    x: Any, /, return_index: bool = False, return_inverse: bool = False,
    return_counts: bool = False, axis: int | None = None,
) -> Any:  # fmt: skip
    """Return the sorted distinct elements, as ``numpy.unique``."""
    found: Any = np.unique(_known(x, "unique"), return_index, return_inverse, return_counts, axis)
    return tuple(asarray(f) for f in found) if is_tuple(found) else asarray(found)


def unique_values(x: Any, /) -> Tensor:
    """Return the distinct elements; each NaN counts."""
    return asarray(np.unique(_known(x, "unique_values"), equal_nan=False))


def unique_all(x: Any, /) -> Unique:
    """Return distinct elements, first positions, inverse and counts."""
    found = np.unique_all(_known(x, "unique_all"))
    return Unique(*(asarray(f) for f in found))


def unique_counts(x: Any, /) -> UniqueCounts:
    """Return distinct elements and counts."""
    return UniqueCounts(*(asarray(f) for f in np.unique_counts(_known(x, "unique_counts"))))


def unique_inverse(x: Any, /) -> UniqueInverse:
    """Return distinct elements and the positions that rebuild ``x``."""
    return UniqueInverse(*(asarray(f) for f in np.unique_inverse(_known(x, "unique_inverse"))))


# -- tables ----------------------------------------------------------------------------------------


def one_hot(x: Any, /, num_classes: int, dtype: Any = None) -> Tensor:
    """Return 1 at the index along a new last axis, else 0."""
    table = record("one_hot", (x,), depth=as_index(num_classes, "num_classes"))
    return table if dtype is None else cast(table, dtype)


def searchsorted(
    table: Any, values: Any, /, side: str = "left", sorter: Any = None, *, right: bool = False
) -> Tensor:
    """Return where to insert values into a sorted 1-d table."""
    ordered = lift(table) if sorter is None else take(table, sorter)
    return record("searchsorted", (ordered, values), side="right" if right else side)


def digitize(x: Any, bins: Any, /, right: bool = False) -> Tensor:
    """Return the number of the bin each element falls in; ``bins`` must rise."""
    return searchsorted(bins, x, "left" if right else "right")


bucketize = digitize


def isin(x: Any, test: Any, /, *, invert: bool = False) -> Tensor:
    """Return for each element whether it occurs in ``test``."""
    value = lift(x)
    elements = ravel(test)
    if elements.size == 0:
        found = zeros_like(value, dtype=bool)
    else:
        wide = apply("reshape", (value,), shape=(*value.shape, 1))
        same = record("equal", (wide, elements))
        found = record("any", (same,), axis=(value.ndim,), keepdims=False)
    return record("logical_not", (found,)) if invert else found


def interp(x: Any, xp: Any, fp: Any, /) -> Tensor:
    """Return the linear interpolation at ``x`` of values ``fp`` at rising points ``xp``."""
    return record("interp", (x, xp, fp))
