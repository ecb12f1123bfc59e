"""Indexing by arrays of integers.

Indices may be negative, count from the end then, and have any integer dtype (they are cast to
int64). Out-of-range values raise IndexOutOfRange when the value is computed. A bool mask depends
on data and becomes index arrays before it gets here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracejit.errors import (
    DTypeError,
    IndexOutOfRange,
    IndexShapeError,
    ShapeError,
    ValueArgumentError,
)
from tracejit.ops.table import (
    INT64,
    Array,
    Aval,
    DType,
    Family,
    Shape,
    TypesRule,
    broadcast_shapes,
    check_axes,
    check_dtype,
    common_types,
    row,
    without,
)

Ints = tuple[int, ...]


def index_types(name: str, *roles: str) -> TypesRule:
    """Return the rule for operands in ``roles``: "value" sets the dtype, "index" is an integer.

    The last role repeats for further operands.
    """

    def types(dtypes: tuple[Any, ...]) -> tuple[tuple[DType, ...], DType]:
        result = check_dtype(name, np.dtype(dtypes[0]))
        wanted: list[DType] = []
        for position, dtype in enumerate(dtypes):
            role = roles[min(position, len(roles) - 1)]
            found = check_dtype(name, np.dtype(dtype))
            if role == "index" and found.kind not in "iu":
                raise DTypeError(
                    f"{name}: indices must be integers, got {found}",
                    hint="x.astype('int64'), or a bool mask of x's own shape as x[mask]",
                )
            wanted.append(INT64 if role == "index" else result)
        return tuple(wanted), result

    return types


def _ranged(name: str, function: Callable[..., Any]) -> Callable[..., Array]:
    """Return the function with NumPy's IndexError as ours."""

    def reference(*operands: Array, **attrs: Any) -> Array:
        try:
            return np.asarray(function(*operands, **attrs))
        except IndexError as error:
            raise IndexOutOfRange(f"{name}: {error}") from None

    return reference


# -- take, take_along_axis -------------------------------------------------------------------------


def _take_shape(x: Aval, indices: Aval, *, axis: int) -> Shape:
    check_axes("take", (axis,), x.shape)
    if x.shape[axis] == 0 and 0 not in indices.shape:
        raise IndexOutOfRange(f"take: cannot take from the empty axis {axis} of shape {x.shape}")
    return without(x.shape, axis, *indices.shape)


def _take(x: Array, indices: Array, *, axis: int) -> Array:
    return np.take(x, indices, axis=axis)


def _along_shape(name: str) -> Callable[..., Shape]:
    def shape(x: Aval, indices: Aval, *values: Aval, axis: int) -> Shape:
        check_axes(name, (axis,), x.shape)
        if len(indices.shape) != len(x.shape):
            raise ShapeError(f"{name}: indices of shape {indices.shape} for values of {x.shape}")
        others = [without(x.shape, axis, 1), without(indices.shape, axis, 1)]
        lead = broadcast_shapes(name, others)
        result = without(lead, axis, indices.shape[axis])
        if not values:
            return result
        if lead != others[0] or broadcast_shapes(name, [result, values[0].shape]) != result:
            raise ShapeError(
                f"{name}: values of shape {values[0].shape} at indices of {indices.shape} "
                f"do not fit into {x.shape}"
            )
        return x.shape

    return shape


def _take_along(x: Array, indices: Array, *, axis: int) -> Array:
    shape = without(np.broadcast_shapes(without(x.shape, axis, 1), without(indices.shape, axis, 1)),
                    axis, x.shape[axis])  # fmt: skip
    return np.take_along_axis(np.broadcast_to(x, shape), indices, axis)


def _put_along(x: Array, indices: Array, values: Array, *, axis: int) -> Array:
    result = x.copy()
    np.put_along_axis(result, indices, values, axis)
    return result


row(
    "take", Family.INDEXING, _ranged("take", _take), arity=2,
    types=index_types("take", "value", "index"), shape=_take_shape,
    doc="Slices along an axis; the indices' shape takes the axis' place.",
)  # fmt: skip
row(
    "take_along_axis", Family.INDEXING, _ranged("take_along_axis", _take_along), arity=2,
    types=index_types("take_along_axis", "value", "index"), shape=_along_shape("take_along_axis"),
    doc="out[…, i, …] = x[…, indices[…, i, …], …] along an axis.",
)  # fmt: skip
row(
    "put_along_axis", Family.INDEXING, _ranged("put_along_axis", _put_along), arity=3,
    types=index_types("put_along_axis", "value", "index", "value"),
    shape=_along_shape("put_along_axis"),
    doc="A copy of x with values at the indices along an axis; the last of equal ones stays.",
)  # fmt: skip

# -- advanced indexing -----------------------------------------------------------------------------


def indexed_shape(name: str, x: Shape, indices: list[Shape], axes: Ints) -> Shape:
    """Return the shape of ``x`` indexed along ``axes`` (sorted) by arrays that broadcast.

    NumPy's rule: their common shape takes the axes' place if these are adjacent, else it goes in
    front.
    """
    check_axes(name, axes, x)
    if list(axes) != sorted(axes) or len(axes) != len(indices) or not axes:
        raise ShapeError(f"{name}: {len(indices)} index arrays for axes {axes}")
    try:
        block = broadcast_shapes(name, indices)
    except ShapeError as error:
        raise IndexShapeError(error.message, hint=error.hint) from None
    kept = [n for i, n in enumerate(x) if i not in axes]
    where = axes[0] if axes[-1] - axes[0] + 1 == len(axes) else 0
    if 0 not in block and any(x[a] == 0 for a in axes):
        raise IndexOutOfRange(f"{name}: cannot index an empty axis of shape {x}")
    return (*kept[:where], *block, *kept[where:])


def _key(rank: int, indices: tuple[Array, ...], axes: Ints) -> tuple[Any, ...]:
    key: list[Any] = [slice(None)] * rank
    for axis, index in zip(axes, indices, strict=True):
        # NumPy goes through positions in the order of their memory, which counts where one is
        # repeated. Here it is that of their indices, whatever the layout.
        key[axis] = np.ascontiguousarray(index).reshape(index.shape)
    return tuple(key)


def _advanced_index_shape(x: Aval, *indices: Aval, axes: Ints) -> Shape:
    return indexed_shape("advanced_index", x.shape, [i.shape for i in indices], axes)


def _advanced_update_shape(x: Aval, values: Aval, *indices: Aval, axes: Ints) -> Shape:
    target = indexed_shape("advanced_update", x.shape, [i.shape for i in indices], axes)
    if broadcast_shapes("advanced_update", [target, values.shape]) != target:
        raise ShapeError(
            f"advanced_update: a value of shape {values.shape} does not broadcast to {target}"
        )
    return x.shape


def _advanced_index(x: Array, *indices: Array, axes: Ints) -> Array:
    return x[_key(x.ndim, indices, axes)]


def _advanced_update(x: Array, values: Array, *indices: Array, axes: Ints) -> Array:
    result = x.copy()
    result[_key(x.ndim, indices, axes)] = values
    return result


# NumPy's ufuncs that ``at`` combines with; on bools np.add is "or", and np.subtract is an error.
COMBINES = ("add", "subtract", "multiply", "maximum", "minimum")


def _advanced_combine(x: Array, values: Array, *indices: Array, axes: Ints, op: str) -> Array:
    result = x.copy()
    shape = indexed_shape("index", x.shape, [i.shape for i in indices], axes)
    if values.ndim and values.shape != shape:
        # NumPy 2.4's fast loop for one axis reads beyond values that it should broadcast.
        values = np.broadcast_to(values, shape)
    getattr(np, op).at(result, _key(x.ndim, indices, axes), values)
    return result


def _combine_shape(x: Aval, values: Aval, *indices: Aval, axes: Ints, op: str) -> Shape:
    if op not in COMBINES:
        raise ValueArgumentError(f"advanced_combine: op {op!r}", hint=f"one of {COMBINES}")
    return _advanced_update_shape(x, values, *indices, axes=axes)


row(
    "advanced_index", Family.INDEXING, _ranged("index", _advanced_index), arity=None,
    types=index_types("index", "value", "index"), shape=_advanced_index_shape,
    doc="x indexed along axes by arrays that broadcast together.",
)  # fmt: skip
row(
    "advanced_update", Family.INDEXING, _ranged("index", _advanced_update), arity=None,
    types=index_types("index", "value", "value", "index"), shape=_advanced_update_shape,
    doc="A copy of x with values (second operand) at the indexed places; the last one stays.",
)  # fmt: skip
row(
    "advanced_combine", Family.INDEXING, _ranged("index", _advanced_combine), arity=None,
    types=index_types("index", "value", "value", "index"), shape=_combine_shape,
    doc="A copy of x with values added (or another op) at the indexed places, in their order: "
    "as often as a place is repeated.",
)  # fmt: skip

# -- tables ----------------------------------------------------------------------------------------


def _bincount_shape(x: Aval, *, length: int) -> Shape:
    if len(x.shape) != 1:
        raise ShapeError(f"bincount needs one axis, got shape {x.shape}")
    return (length,)


def _bincount(x: Array, *, length: int) -> Array:
    if x.size and (x.min() < 0 or x.max() >= length):
        raise IndexOutOfRange(f"bincount: values outside 0 … {length - 1}")
    return np.bincount(x, minlength=length).astype(np.int64)


def _bincount_rule(emit: Any, x: Any, *, length: int) -> Any:
    nothing = emit.broadcast_to(emit.constant(0, INT64), shape=(length,))
    # Values are not positions from the end: a negative one is out of range, too.
    place = emit.where(emit.less(x, emit.constant(0, INT64)), emit.constant(length, INT64), x)
    return emit.advanced_combine(nothing, emit.constant(1, INT64), place, axes=(0,), op="add")


def _one_hot_shape(x: Aval, *, depth: int) -> Shape:
    return (*x.shape, depth)


def _one_hot_reference(x: Array, *, depth: int) -> Array:
    return np.asarray(x[..., None] == np.arange(depth), np.int64)


def _one_hot(emit: Any, x: Any, *, depth: int) -> Any:
    shape = (*x.shape, depth)
    classes = emit.iota(shape=shape, axis=len(x.shape), dtype="<i8")
    column = emit.reshape(emit.cast(x, INT64), shape=(*x.shape, 1))
    return emit.cast(emit.equal(column, classes), INT64)


row(
    "bincount", Family.COMPOSITE, _bincount, arity=1,
    types=index_types("bincount", "index"), shape=_bincount_shape, decompose=_bincount_rule,
    doc="How often each of 0 … length − 1 occurs.",
)  # fmt: skip
row(
    "one_hot", Family.COMPOSITE, _one_hot_reference, arity=1,
    types=common_types("one_hot", kinds="iu", result=INT64), shape=_one_hot_shape,
    decompose=_one_hot, doc="1 at the index along a new last axis, else 0; all 0 out of range.",
)  # fmt: skip
