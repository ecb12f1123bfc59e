"""Joining and splitting, repeating, rolling, padding. Pieces are views; the rest are copies."""

from __future__ import annotations

import builtins
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracejit import functions
from tracejit.errors import (
    ArgumentError,
    DivisionError,
    ShapeError,
    TraceError,
    ValueArgumentError,
)
from tracejit.functions.arguments import (
    Axis,
    alias,
    as_dtype,
    as_index,
    as_shape,
    fail,
    is_integer,
    is_sequence,
    new_axes,
    one_axis,
)
from tracejit.functions.creation import zeros
from tracejit.functions.movement import (
    atleast_1d,
    atleast_2d,
    atleast_3d,
    broadcast_to,
    cut,
    moveaxis,
    ravel,
    reshape,
    squeeze,
)
from tracejit.ops.padding import PAD_COPIES
from tracejit.ops.table import Array
from tracejit.tensor import Tensor, apply, cast, lift, record

__all__ = [
    "append", "array_split", "block", "cat", "chunk", "column_stack", "concat", "concatenate",
    "delete", "dsplit", "dstack", "hsplit", "hstack", "insert", "pad", "repeat",
    "repeat_interleave", "resize", "roll", "split", "stack", "tile", "trim_zeros", "unbind",
    "unstack", "vsplit", "vstack",
]  # fmt: skip

# -- joining and splitting -------------------------------------------------------------------------


def concat(
    arrays: Any, /, axis: int | None = 0, *, dim: int | None = None, dtype: Any = None
) -> Tensor:
    """Return the arrays joined along an axis; flattened first with ``axis=None``."""
    chosen = axis if dim is None else dim
    values = [lift(a) for a in _sequence("concat", arrays)]
    if chosen is None:
        values, chosen = [apply("reshape", (v,), shape=(v.size,)) for v in values], 0
    if builtins.any(v.ndim == 0 for v in values):
        raise fail(ShapeError, "concat: a 0-d value has no axis to join along", "use stack")
    joined = record("concat", values, axis=one_axis("concat", chosen, values[0].shape))
    return joined if dtype is None else cast(joined, as_dtype(dtype))


concatenate = cat = concat


def _sequence(name: str, arrays: Any) -> list[Any]:
    if isinstance(arrays, Tensor) and arrays.ndim == 0:
        raise fail(ArgumentError, f"{name} takes a sequence of arrays")
    listed = list(arrays)
    if not listed:
        raise fail(ValueArgumentError, f"{name}: nothing to join", "give at least one array")
    return listed


def stack(arrays: Any, /, axis: int = 0, *, dim: int | None = None, dtype: Any = None) -> Tensor:
    """Return arrays of equal shape joined along a new axis."""
    values = [lift(a) for a in _sequence("stack", arrays)]
    (place,) = new_axes("stack", axis if dim is None else dim, values[0].shape)
    joined = record("stack", values, axis=place)
    return joined if dtype is None else cast(joined, as_dtype(dtype))


def hstack(arrays: Any, /) -> Tensor:
    """Return the arrays joined along the second axis, 1-d ones along the first."""
    values = [atleast_1d(a) for a in _sequence("hstack", arrays)]
    return concat(values, 0 if values[0].ndim == 1 else 1)


def vstack(arrays: Any, /) -> Tensor:
    """Return the arrays joined along the first axis, 1-d ones as rows."""
    return concat([atleast_2d(a) for a in _sequence("vstack", arrays)], 0)


def dstack(arrays: Any, /) -> Tensor:
    """Return the arrays joined along the third axis."""
    return concat([atleast_3d(a) for a in _sequence("dstack", arrays)], 2)


def column_stack(arrays: Any, /) -> Tensor:
    """Return 1-d arrays as columns, joined with the others along the second axis."""
    values = [lift(a) for a in _sequence("column_stack", arrays)]
    columns = [reshape(v, -1, 1) if v.ndim < 2 else v for v in values]
    return concat(columns, 1)


def block(arrays: Any, /) -> Tensor:
    """Return nested lists of blocks joined: the innermost along the last axis, and so on out."""

    def depth(part: Any) -> int:
        return 1 + builtins.max(depth(p) for p in part) if is_sequence(part) else 0

    def join(part: Any, level: int, rank: int) -> Tensor:
        if not is_sequence(part):
            value = lift(part)
            return reshape(value, (1,) * (rank - value.ndim) + value.shape)
        return concat([join(p, level - 1, rank) for p in part], rank - level)

    def leaves(part: Any) -> list[Any]:
        return [v for p in part for v in leaves(p)] if is_sequence(part) else [part]

    levels = depth(arrays)
    rank = builtins.max(levels, *(lift(v).ndim for v in leaves(arrays)))
    return join(arrays, levels, rank)


def _at(x: Tensor, axis: int, bounds: Sequence[int]) -> list[Tensor]:
    extent = x.shape[axis]
    edges = [0, *(slice(None, b).indices(extent)[1] for b in bounds), extent]
    return [
        cut(x, axis, first, builtins.max(first, last)) for first, last in itertools.pairwise(edges)
    ]


def array_split(x: Any, parts: Any, /, axis: int = 0) -> list[Tensor]:
    """Return ``parts`` pieces of nearly equal size, or the pieces between given positions."""
    value = lift(x)
    place = one_axis("array_split", axis, value.shape)
    if not isinstance(parts, int):
        return _at(value, place, [as_index(p, "a position") for p in parts])
    if parts < 1:
        raise fail(ValueArgumentError, f"array_split: {parts} parts")
    small, more = builtins.divmod(value.shape[place], parts)
    bounds = [i * small + builtins.min(i, more) for i in range(1, parts)]
    return _at(value, place, bounds)


def split(x: Any, parts: Any, /, axis: int = 0, *, dim: int | None = None) -> list[Tensor]:
    """Return ``parts`` equal pieces, or the pieces between given positions, as ``numpy.split``.

    With PyTorch's ``dim``, ``parts`` is the size of a piece, or the list of all sizes.
    """
    value = lift(x)
    if dim is None:
        place = one_axis("split", axis, value.shape)
        if isinstance(parts, int) and parts == 0:
            raise fail(DivisionError, "split: into zero parts", "give at least one part")
        if isinstance(parts, int) and (parts < 1 or value.shape[place] % parts):
            raise fail(
                ShapeError,
                f"split: axis {place} of shape {value.shape} has no {parts} equal parts",
                "array_split allows unequal ones",
            )
        return array_split(value, parts, place)
    place = one_axis("split", dim, value.shape)
    extent = value.shape[place]
    if isinstance(parts, int):
        if parts < 1:
            raise fail(ValueArgumentError, f"split: pieces of size {parts}")
        return _at(value, place, range(parts, extent, parts))
    sizes = [as_index(n, "a size") for n in parts]
    if sum(sizes) != extent:
        raise fail(ShapeError, f"split: sizes {sizes} for axis {place} of shape {value.shape}")
    return _at(value, place, [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)])


def chunk(x: Any, chunks: int, /, dim: int = 0) -> list[Tensor]:
    """Return at most ``chunks`` pieces of equal size, the last one may be smaller."""
    value = lift(x)
    place = one_axis("chunk", dim, value.shape)
    size = -(-value.shape[place] // as_index(chunks, "chunks")) or 1
    return split(value, size, dim=place)


def hsplit(x: Any, parts: Any, /) -> list[Tensor]:
    """Return pieces along the second axis (the first of a 1-d array)."""
    value = lift(x)
    return split(value, parts, 0 if value.ndim == 1 else 1)


def vsplit(x: Any, parts: Any, /) -> list[Tensor]:
    """Return pieces along the first axis."""
    return split(x, parts, 0)


def dsplit(x: Any, parts: Any, /) -> list[Tensor]:
    """Return pieces along the third axis."""
    return split(x, parts, 2)


def unstack(x: Any, /, axis: int = 0, *, dim: int | None = None) -> tuple[Tensor, ...]:
    """Return the slices along an axis, without it."""
    value = lift(x)
    place = one_axis("unstack", axis if dim is None else dim, value.shape)
    return tuple(squeeze(cut(value, place, i, i + 1), place) for i in range(value.shape[place]))


unbind = unstack

# -- repeating, rolling, padding -------------------------------------------------------------------


def roll(x: Any, shift: Any, /, axis: Axis = None, *, dims: Axis = None) -> Tensor:
    """Return ``x`` rotated along axes; over the flattened elements without an axis."""
    value = lift(x)
    chosen = alias(axis, dims, "axis", "dims")
    if chosen is None:
        if is_sequence(shift):
            raise fail(ArgumentError, "roll: several shifts need as many axes")
        flat = apply("reshape", (value,), shape=(value.size,))
        rolled = apply("roll", (flat,), shift=(as_index(shift, "a shift"),), axis=(0,))
        return apply("reshape", (rolled,), shape=value.shape)
    axes = list(chosen) if is_sequence(chosen) else [chosen]
    shifts = list(shift) if is_sequence(shift) else [shift]
    if len(shifts) == 1:
        shifts *= len(axes)
    elif len(axes) == 1:
        axes *= len(shifts)
    if len(shifts) != len(axes):
        raise fail(ShapeError, f"roll: {len(shifts)} shifts for {len(axes)} axes")
    places = tuple(one_axis("roll", a, value.shape) for a in axes)
    return apply("roll", (value,), shift=tuple(as_index(s, "a shift") for s in shifts), axis=places)


def tile(x: Any, reps: Any, /, *more: int) -> Tensor:
    """Return copies of ``x`` side by side; ``reps`` counts them along each axis."""
    value = lift(x)
    counts = as_shape((reps, *more) if more else reps, "reps")
    counts = (1,) * (value.ndim - len(counts)) + counts
    return apply("tile", (value,), reps=counts)


def repeat(x: Any, repeats: Any, /, axis: int | None = None, *, dim: int | None = None) -> Tensor:
    """Return ``x`` with each element repeated (NumPy's meaning; PyTorch's is ``tile``)."""
    value = lift(x)
    chosen = alias(axis, dim, "axis", "dim")
    if chosen is None:
        value, chosen = ravel(value), 0
    place = one_axis("repeat", chosen, value.shape)
    if is_integer(repeats):
        return apply("repeat", (value,), repeats=int(repeats), axis=place)
    counts = np.asarray(repeats)
    if counts.size == 1:
        return apply("repeat", (value,), repeats=int(counts.reshape(())), axis=place)
    try:
        positions = np.repeat(np.arange(value.shape[place]), counts)
    except ValueError as error:
        raise fail(ShapeError, f"repeat: {error}") from None
    return functions.gather.take(value, positions, place)


repeat_interleave = repeat


def pad(x: Any, pad_width: Any, /, mode: str = "constant", *, constant_values: Any = 0) -> Tensor:
    """Return ``x`` extended at its ends, as ``numpy.pad`` (one value for all constants)."""
    value = lift(x)
    try:
        widths = np.broadcast_to(np.asarray(pad_width), (value.ndim, 2))
    except ValueError:
        text = f"pad: widths {pad_width!r} for shape {value.shape}"
        raise fail(ShapeError, text, "give (before, after) for every axis") from None
    if widths.size and widths.dtype.kind not in "iu":
        raise fail(ArgumentError, "pad: widths must be whole numbers")
    low = tuple(int(n) for n in widths[:, 0])
    high = tuple(int(n) for n in widths[:, 1])
    if mode in PAD_COPIES:
        return apply("extend", (value,), low=low, high=high, mode=mode)
    if mode != "constant":
        return record("pad_mode", (value,), low=low, high=high, mode=mode)
    fill = lift(constant_values, value.dtype)
    return apply("pad", (value, fill), low=low, high=high)


def append(x: Any, values: Any, /, axis: int | None = None) -> Tensor:
    """Return ``x`` with ``values`` joined at the end; both flattened without an axis."""
    return concat([x, values], axis)


def _runs(value: Tensor, axis: int, places: Array) -> Tensor:
    """Return the places of an axis in the order given; consecutive ones move together."""
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    runs = [r for r in np.split(places, breaks) if r.size]
    parts = [cut(value, axis, int(r[0]), int(r[-1]) + 1) for r in runs]
    return concat(parts or [cut(value, axis, 0, 0)], axis)


def _line(name: str, x: Any, axis: int | None) -> tuple[Tensor, int]:
    value = lift(x)
    return (ravel(value), 0) if axis is None else (value, one_axis(name, axis, value.shape))


def delete(arr: Any, obj: Any, /, axis: int | None = None) -> Tensor:
    """Return ``arr`` without the places ``obj`` (an int, a slice, ints or a mask) of an axis.

    >>> import tracejit as tj
    >>> tj.delete([1, 2, 3, 4], [0, 2])
    tensor([2, 4])
    """
    value, place = _line("delete", arr, axis)
    return _runs(value, place, np.delete(np.arange(value.shape[place]), _places("delete", obj)))


def insert(arr: Any, obj: Any, values: Any, /, axis: int | None = None) -> Tensor:
    """Return ``arr`` with ``values`` put before the places ``obj`` (an int, a slice or ints).

    One place takes any number of values along the axis; several places take one each.

    >>> import tracejit as tj
    >>> tj.insert([1, 2, 3], 1, [8, 9])
    tensor([1, 8, 9, 2, 3])
    """
    value, place = _line("insert", arr, axis)
    count = value.shape[place]
    where = _places("insert", obj)
    added = cast(lift(values), value.dtype)
    added = reshape(added, (1,) * (value.ndim - added.ndim) + added.shape)
    if np.ndim(where) == 0 and not isinstance(where, slice):
        added = moveaxis(added, 0, place)  # a row of values is a column to insert
    marks = np.arange(count)
    sites = marks[where] if isinstance(where, slice) else np.atleast_1d(where)
    total = added.shape[place] if sites.size == 1 else sites.size
    shape = (*value.shape[:place], total, *value.shape[place + 1 :])
    both = concat([value, broadcast_to(added, shape)], place)
    sites = np.repeat(sites, total) if sites.size == 1 else sites
    return _runs(both, place, np.insert(marks, sites, count + np.arange(total)))


def _places(name: str, obj: Any) -> Any:
    if isinstance(obj, Tensor):
        if obj.traced_in is not None:
            text = f"{name}: the places must be known while tracing; they say the shape"
            raise fail(TraceError, text, "give them as ints, or keep what is wanted with tj.where")
        return obj.numpy()
    return obj if type(obj) is slice else np.asarray(obj)


def resize(x: Any, new_shape: Any, /) -> Tensor:
    """Return a tensor of ``new_shape`` filled with repeats of the elements of ``x``."""
    value, shape = ravel(lift(x)), as_shape(new_shape)
    total = math.prod(shape)
    if value.size == 0:
        return zeros(shape, dtype=value.dtype)
    whole, rest = builtins.divmod(total, value.size)
    parts = [value] * whole + ([cut(value, 0, 0, rest)] if rest else [])
    return reshape(concat(parts or [cut(value, 0, 0, 0)]), shape)


def trim_zeros(x: Any, /, trim: str = "fb") -> Tensor:
    """Return a 1-d ``x`` without leading and trailing zeros; needs the values."""
    value = lift(x)
    kept = np.flatnonzero(value.numpy())
    if not kept.size:
        return cut(value, 0, 0, 0)
    first = int(kept[0]) if "f" in trim else 0
    last = int(kept[-1]) + 1 if "b" in trim else value.shape[0]
    return cut(value, 0, first, last)
