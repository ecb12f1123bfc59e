"""Sorting and searching. NaN sorts last in ascending order and first in descending order."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracejit.errors import ShapeError, ValueArgumentError
from tracejit.ops.table import (
    INT64,
    Array,
    Aval,
    DType,
    Fact,
    Family,
    Shape,
    check_axes,
    common_types,
    float_types,
    row,
    same_types,
    without,
)


def _sort_shape(x: Aval, *, axis: int, descending: bool = False) -> Shape:
    check_axes("sort", (axis,), x.shape)
    return x.shape


# NumPy's stable order has no vector instructions, and takes 8 times as long as its sort of int64 on
# AVX-512. For axes of so many elements of 4 or 8 bytes, that sort does it.
_FAST_FROM = 64
# Elements that are sorted at a time, in whole rows: what that takes stays in the cache, and no
# fresh memory is asked for (3 times as fast for 500 rows of 1000).
_BLOCK = 1 << 16


def _argsort(x: Array, *, axis: int, descending: bool = False) -> Array:
    if not descending:
        if (
            x.dtype.kind not in "iuf"
            or x.dtype.itemsize not in (4, 8)
            or x.shape[axis] < _FAST_FROM
        ):
            return np.argsort(x, axis=axis, kind="stable").astype(np.int64, copy=False)
        return np.moveaxis(_stable_order(np.moveaxis(x, axis, -1)), -1, axis)
    # Stable descending: sort the reversed axis ascending, reverse, and undo the reversal.
    back = _argsort(np.flip(x, axis), axis=axis)
    return x.shape[axis] - 1 - np.flip(back, axis)


def _stable_order(x: Array) -> Array:
    """Return the stable permutations that sort the last axis of elements of 4 or 8 bytes."""
    rows: Array = x.reshape(-1, x.shape[-1])
    result: Array = np.empty(rows.shape, np.int64)
    step = max(1, _BLOCK // x.shape[-1])
    positions = np.arange(x.shape[-1], dtype=np.int64)
    for first in range(0, len(rows), step):
        block = rows[first : first + step]
        keys = _keys(block)
        order = _order_by_runs(block) if keys is None else _sorted_by(keys, positions)
        result[first : first + step] = order
    return result.reshape(x.shape)


def _keys(x: Array) -> Array | None:
    """Return numbers of 32 bits in int64 that are ordered as the elements are; None without."""
    if x.dtype.kind == "f":
        if x.dtype.itemsize != 4:
            return None
        bits = (x + np.float32(0)).view(np.int32)  # -0.0 equals 0.0
        bits ^= (bits >> 31) & 0x7FFFFFFF
        bits[x != x] = 0x7FFFFFFF
        return bits.astype(np.int64)
    least = x.min(initial=0)
    if int(x.max(initial=0)) - int(least) >= 1 << 32:
        return None
    keys = (x - least if least else x).astype(np.int64)
    keys -= 1 << 31
    return keys


def _sorted_by(keys: Array, positions: Array) -> Array:
    """Return ``positions`` ordered by ``keys`` of 32 bits, and by themselves where these agree.

    ``keys`` are overwritten.
    """
    keys <<= 32
    keys |= positions
    keys.sort(axis=-1)
    keys &= 0xFFFFFFFF
    return keys


def _order_by_runs(x: Array) -> Array:
    """Return any order that sorts, with the positions in each run of equal elements sorted."""
    order = np.argsort(x, axis=-1).astype(np.int64, copy=False)
    ordered = np.take_along_axis(x, order, -1)
    before, after = ordered[..., :-1], ordered[..., 1:]
    starts = before < after
    if x.dtype.kind == "f":  # NaN, which comes last, counts as equal to itself
        starts |= (after != after) & (before == before)
    tied = ~starts.all(axis=-1)
    if tied.any():
        run = np.zeros_like(order[tied])
        np.cumsum(starts[tied], axis=-1, out=run[..., 1:])
        order[tied] = _sorted_by(run, order[tied])
    return order


def _sort(x: Array, *, axis: int, descending: bool = False) -> Array:
    # Equal values look alike, so NumPy's fastest order will do (10 times the stable one's speed).
    ascending = np.sort(x, axis=axis)
    return np.flip(ascending, axis) if descending else ascending


row(
    "sort", Family.SORTING, _sort, arity=1, types=same_types("sort"), shape=_sort_shape,
    facts=Fact.IDEMPOTENT | Fact.EXPENSIVE, doc="Sorted along an axis.",
)  # fmt: skip
row(
    "argsort", Family.SORTING, _argsort, arity=1,
    types=common_types("argsort", result=INT64), shape=_sort_shape,
    facts=Fact.EXPENSIVE, doc="The stable permutation that sorts an axis.",
)  # fmt: skip


def _topk_shape(x: Aval, *, k: int, axis: int, largest: bool = True) -> Shape:
    check_axes("topk", (axis,), x.shape)
    if not 0 <= k <= x.shape[axis]:
        raise ValueArgumentError(
            f"topk: k = {k} for axis {axis} of shape {x.shape}", hint=f"0 ≤ k ≤ {x.shape[axis]}"
        )
    return without(x.shape, axis, k)


def _topk_indices(x: Array, *, k: int, axis: int, largest: bool = True) -> Array:
    rows = np.moveaxis(x, axis, -1)
    n = rows.shape[-1]
    if 4 * k > n or k == 0:
        best = _argsort(rows, axis=-1, descending=largest)[..., :k]
    else:
        best = _few_best(rows, k, largest)
    return np.moveaxis(best, -1, axis)


def _few_best(x: Array, k: int, largest: bool) -> Array:
    """Return the positions of the k best of the last axis, best first, in order among equals."""
    n = x.shape[-1]
    edge = n - k if largest else k - 1
    parted = np.argpartition(x, edge, axis=-1)
    chosen = np.sort(parted[..., edge:] if largest else parted[..., :k], axis=-1)
    values = np.take_along_axis(x, chosen, -1)
    best = np.take_along_axis(chosen, _argsort(values, axis=-1, descending=largest), -1)
    # Where some that equal the last one are not among the chosen, these may not be the first.
    last = np.take_along_axis(x, parted[..., edge, None], -1)
    more = _count_equal(x, last) != _count_equal(values, last)
    if more.any():
        best[more] = _argsort(x[more], axis=-1, descending=largest)[..., :k]
    return best


def _count_equal(x: Array, value: Array) -> Array:
    same = x == value
    if x.dtype.kind in "fc":
        same |= (x != x) & (value != value)
    return np.count_nonzero(same, axis=-1)


row(
    "topk_indices", Family.SORTING, _topk_indices, arity=1,
    types=common_types("topk_indices", result=INT64), shape=_topk_shape, facts=Fact.EXPENSIVE,
    doc="Where the k largest (or smallest) are, best first, equal ones in order; NaN is largest.",
)  # fmt: skip


def _partition_shape(x: Aval, *, kth: tuple[int, ...], axis: int) -> Shape:
    check_axes("partition", (axis,), x.shape)
    if not all(0 <= k < x.shape[axis] for k in kth):
        places = ", ".join(map(str, kth))
        raise ValueArgumentError(
            f"partition: kth = {places} for axis {axis} of shape {x.shape}",
            hint=f"0 ≤ kth < {x.shape[axis]}",
        )
    return x.shape


def _partition(x: Array, *, kth: tuple[int, ...], axis: int) -> Array:
    return np.partition(x, kth, axis=axis)


def _argpartition(x: Array, *, kth: tuple[int, ...], axis: int) -> Array:
    return np.argpartition(x, kth, axis=axis).astype(np.int64, copy=False)


row(
    "partition", Family.SORTING, _partition, arity=1, types=same_types("partition"),
    shape=_partition_shape, facts=Fact.EXPENSIVE,
    doc="An order of an axis in which the kth are where sorting puts them, smaller ones before.",
)  # fmt: skip
row(
    "argpartition", Family.SORTING, _argpartition, arity=1,
    types=common_types("argpartition", result=INT64), shape=_partition_shape,
    facts=Fact.EXPENSIVE, doc="A permutation that brings an axis in the order of partition.",
)  # fmt: skip


def _search_shape(table: Aval, v: Aval, *, side: str = "left") -> Shape:
    if len(table.shape) != 1:
        raise ShapeError(f"searchsorted: the sorted table has one axis, got shape {table.shape}")
    if side not in ("left", "right"):
        raise ValueArgumentError(f"searchsorted: side {side!r}", hint="'left' or 'right'")
    return v.shape


def _search(table: Array, v: Array, *, side: Any = "left") -> Array:
    return np.asarray(np.searchsorted(table, v, side=side), np.int64)


row(
    "searchsorted", Family.SORTING, _search, arity=2,
    types=common_types("searchsorted", result=INT64), shape=_search_shape, facts=Fact.EXPENSIVE,
    doc="Where to insert v into a sorted table: the first (left) or last (right) place.",
)  # fmt: skip


def _lexsort_shape(*keys: Aval, axis: int) -> Shape:
    if not keys or any(k.shape != keys[0].shape for k in keys):
        listed = ", ".join(str(k.shape) for k in keys)
        raise ShapeError(f"lexsort: keys need equal shapes, got {listed or 'none'}")
    check_axes("lexsort", (axis,), keys[0].shape)
    return keys[0].shape


def _lexsort(*keys: Array, axis: int) -> Array:
    return np.asarray(np.lexsort(keys, axis=axis), np.int64)


def _any_types(dtypes: tuple[Any, ...]) -> tuple[tuple[DType, ...], DType]:
    return tuple(np.dtype(d) for d in dtypes), INT64


row(
    "lexsort", Family.SORTING, _lexsort, arity=None, types=_any_types, shape=_lexsort_shape,
    facts=Fact.EXPENSIVE, doc="The stable order by several keys, the last one first.",
)  # fmt: skip


def _interp_shape(x: Aval, xp: Aval, fp: Aval) -> Shape:
    if len(xp.shape) != 1 or xp.shape != fp.shape or xp.shape == (0,):
        raise ShapeError(f"interp: points of shape {xp.shape} and values of shape {fp.shape}")
    return x.shape


def _interp(x: Array, xp: Array, fp: Array) -> Array:
    return np.asarray(np.interp(x, xp, fp)).astype(x.dtype)


row(
    "interp", Family.SORTING, _interp, arity=3, types=float_types("interp"), shape=_interp_shape,
    facts=Fact.EXPENSIVE, doc="Linear interpolation in a table with rising points.",
)  # fmt: skip
