"""Rearranging elements. What NumPy returns as a view is a view here: writes go through.

Views: reshape (where NumPy need not copy), permute and its relatives, flip, split, squeeze,
expand, diagonal, broadcast_to (read-only). ``flatten``, ``concat``, ``roll``, ``tile`` … copy.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracejit import functions
from tracejit.errors import ArgumentError, ShapeError, ValueArgumentError
from tracejit.functions.arguments import (
    Axis,
    alias,
    as_dtype,
    as_index,
    as_shape,
    fail,
    is_integer,
    new_axes,
    one_axis,
    some_axes,
    varargs,
)
from tracejit.functions.strides import reshapes_in_place
from tracejit.ops.movement import diagonal_length, resolve_shape
from tracejit.ops.table import Shape
from tracejit.ops.table import broadcast_shapes as common_shape
from tracejit.tensor import Step, Tensor, apply, cast, lift, record, view
from tracejit.tracing import user_location

__all__ = [
    "adjoint", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_arrays", "broadcast_shapes",
    "broadcast_tensors", "broadcast_to", "diag", "diag_embed", "diagflat", "diagonal", "expand",
    "expand_dims", "flatten", "flip", "fliplr", "flipud", "matrix_transpose", "moveaxis",
    "permute", "permute_dims", "ravel", "reshape", "rollaxis", "rot90", "squeeze", "swapaxes",
    "transpose", "unflatten", "unsqueeze", "view_as_complex", "view_as_real",
]  # fmt: skip


def _reshaped(x: Tensor, shape: Shape) -> Tensor:
    return view(x, (("reshape", {"shape": shape}),))


# -- shape -----------------------------------------------------------------------------------------


def reshape(x: Any, /, *shape: Any, order: str = "C", copy: bool | None = None) -> Tensor:
    """Return the elements of ``x`` in C order under a new shape; one size may be −1.

    A view where NumPy's is one. ``order="F"`` reads and writes in Fortran order, as a copy.
    """
    value = lift(x)
    wanted = varargs(shape)
    if is_integer(wanted):
        wanted = (wanted,)
    try:
        sizes = tuple(as_index(n, "a size") for n in wanted)
        new = resolve_shape(value.size, sizes, value.shape)
    except ShapeError as error:
        error.loc = user_location()
        raise
    if order == "F":
        turned = permute(apply("reshape", (permute(value),), shape=new[::-1]))
        return functions.creation.asarray(turned, copy=True)
    if order not in ("C", "A"):
        raise fail(ValueArgumentError, f"order is 'C' or 'F', not {order!r}")
    if copy or (copy is None and not reshapes_in_place(value, new)):
        return apply("reshape", (value,), shape=new)
    return _reshaped(value, new)


def reshape_view(x: Any, /, *shape: Any) -> Tensor:
    """Return ``x.view(*shape)`` of PyTorch: a reshape that must not copy."""
    if len(shape) == 1 and not isinstance(shape[0], (int, list, tuple)):
        raise fail(
            ArgumentError,
            "view() takes sizes, not a dtype",
            "x.astype(dtype) converts; the bits of a tensor have no other view",
        )
    return reshape(x, *shape)


def ravel(x: Any, /, order: str = "C") -> Tensor:
    """Return ``x`` with one axis; a view where possible."""
    return reshape(x, -1, order=order)


def flatten(x: Any, /, start_dim: Any = 0, end_dim: int = -1, *, order: str = "C") -> Tensor:
    """Return a copy with axes ``start_dim`` … ``end_dim`` merged into one (all by default)."""
    value = lift(x)
    if isinstance(start_dim, str):
        start_dim, order = 0, start_dim
    if value.ndim == 0 or order == "F":
        return functions.creation.asarray(reshape(value, -1, order=order), copy=True)
    first = one_axis("flatten", start_dim, value.shape)
    last = one_axis("flatten", end_dim, value.shape)
    if first > last:
        raise fail(ValueArgumentError, f"flatten: start_dim {first} comes after end_dim {last}")
    merged = math.prod(value.shape[first : last + 1])
    shape = (*value.shape[:first], merged, *value.shape[last + 1 :])
    return apply("reshape", (value,), shape=shape)


def unflatten(x: Any, dim: int, sizes: Any, /) -> Tensor:
    """Return ``x`` with one axis split into ``sizes``."""
    value = lift(x)
    axis = one_axis("unflatten", dim, value.shape)
    inner = resolve_shape(value.shape[axis], tuple(sizes), value.shape)
    return reshape(value, (*value.shape[:axis], *inner, *value.shape[axis + 1 :]))


def squeeze(x: Any, /, axis: Any = None, *, dim: Axis = None) -> Tensor:
    """Return ``x`` without its axes of size 1, or without the given ones, which must have it."""
    value = lift(x)
    chosen = alias(axis, dim, "axis", "dim")
    if chosen is None:
        gone = {i for i, n in enumerate(value.shape) if n == 1}
    else:
        gone = builtins.set(some_axes("squeeze", chosen, value.shape))
        wide = [i for i in gone if value.shape[i] != 1]
        if wide and dim is None:
            raise fail(
                ShapeError,
                f"squeeze: axis {wide[0]} of shape {value.shape} has a size other than 1",
            )
        gone -= builtins.set(wide)  # PyTorch leaves these axes alone
    return _reshaped(value, tuple(n for i, n in enumerate(value.shape) if i not in gone))


def expand_dims(x: Any, /, axis: Any = 0, *, dim: int | None = None) -> Tensor:
    """Return ``x`` with new axes of size 1, at ``axis`` of the result."""
    value = lift(x)
    chosen: Any = axis if dim is None else dim
    places = new_axes("expand_dims", chosen, value.shape)
    sizes = iter(value.shape)
    rank = value.ndim + len(places)
    shape = tuple(1 if i in places else next(sizes) for i in range(rank))
    return _reshaped(value, shape)


unsqueeze = expand_dims


def atleast_1d(*arrays: Any) -> Any:
    """Return the arrays with at least one axis."""
    return _at_least(arrays, [s or (1,) for s in map(_shape_of, arrays)])


def atleast_2d(*arrays: Any) -> Any:
    """Return the arrays with at least two axes, new ones in front."""
    return _at_least(arrays, [(1,) * (2 - len(s)) + s for s in map(_shape_of, arrays)])


def _widened_3d(shape: Shape) -> Shape:
    if len(shape) > 2:
        return shape
    return (1, *shape, 1) if len(shape) == 1 else (*(shape or (1, 1)), 1)


def atleast_3d(*arrays: Any) -> Any:
    """Return the arrays with at least three axes, as ``numpy.atleast_3d`` places them."""
    return _at_least(arrays, [_widened_3d(s) for s in map(_shape_of, arrays)])


def _shape_of(x: Any) -> Shape:
    return x.shape if isinstance(x, Tensor) else np.shape(x)


def _at_least(arrays: tuple[Any, ...], shapes: list[Shape]) -> Any:
    values = [lift(a) for a in arrays]
    grown = [v if s == v.shape else _reshaped(v, s) for v, s in zip(values, shapes, strict=True)]
    return grown[0] if len(grown) == 1 else tuple(grown)


# -- order of axes ---------------------------------------------------------------------------------


def permute(x: Any, /, *axes: Any, dims: Any = None) -> Tensor:
    """Return ``x`` with its axes in the given order; reversed if none is given."""
    value = lift(x)
    order = varargs(axes) if axes else dims
    if order is None:
        order = range(value.ndim - 1, -1, -1)
    elif isinstance(order, int):
        order = (order,)
    chosen = some_axes("permute", tuple(order), value.shape)
    return view(value, (("permute", {"axes": chosen}),))


permute_dims = permute


def transpose(x: Any, /, *axes: Any, dim0: int | None = None, dim1: int | None = None) -> Tensor:
    """Return ``x`` with permuted axes; reversed if none is given.

    Two integers for more than two axes are PyTorch's ``transpose(dim0, dim1)``, a swap; NumPy
    would refuse them. For two axes both meanings agree, except for ``transpose(0, 1)``, which
    NumPy leaves alone and PyTorch swaps: NumPy's holds.
    """
    value = lift(x)
    if dim0 is not None and dim1 is not None:
        return swapaxes(value, dim0, dim1)
    if len(axes) == 2 and value.ndim > 2:
        return swapaxes(value, *axes)
    if len(axes) == 1 and axes[0] is None:
        axes = ()
    return permute(value, *axes)


def swapaxes(x: Any, axis1: int, axis2: int, /) -> Tensor:
    """Return ``x`` with two axes swapped."""
    value = lift(x)
    order = list(range(value.ndim))
    first, second = (one_axis("swapaxes", a, value.shape) for a in (axis1, axis2))
    order[first], order[second] = second, first
    return view(value, (("permute", {"axes": tuple(order)}),))


def moveaxis(x: Any, source: Any, destination: Any, /) -> Tensor:
    """Return ``x`` with axes moved to new places; the others keep their order."""
    value = lift(x)
    sources = some_axes("moveaxis", source, value.shape)
    targets = some_axes("moveaxis", destination, value.shape)
    if len(sources) != len(targets):
        raise fail(ShapeError, f"moveaxis: {len(sources)} axes to {len(targets)} places")
    order = [i for i in range(value.ndim) if i not in sources]
    for target, moved in sorted(zip(targets, sources, strict=True)):
        order.insert(target, moved)
    return view(value, (("permute", {"axes": tuple(order)}),))


def rollaxis(x: Any, axis: int, start: int = 0, /) -> Tensor:
    """Return ``x`` with ``axis`` moved before the place ``start``."""
    value = lift(x)
    source = one_axis("rollaxis", axis, value.shape)
    target = start + value.ndim if start < 0 else start
    return moveaxis(value, source, target - 1 if target > source else target)


def matrix_transpose(x: Any, /) -> Tensor:
    """Return ``x`` with its last two axes swapped."""
    value = lift(x)
    if value.ndim < 2:
        raise fail(ShapeError, f"matrix_transpose needs two axes; the shape is {value.shape}")
    return swapaxes(value, -2, -1)


def adjoint(x: Any, /) -> Tensor:
    """Return the conjugate of ``x`` with its last two axes swapped."""
    return record("conjugate", (matrix_transpose(x),))


def flip(x: Any, /, axis: Axis = None, *, dims: Axis = None) -> Tensor:
    """Return ``x`` reversed along axes, all by default."""
    value = lift(x)
    axes = some_axes("flip", alias(axis, dims, "axis", "dims"), value.shape)
    start = tuple(builtins.max(n - 1, 0) if i in axes else 0 for i, n in enumerate(value.shape))
    step = tuple(-1 if i in axes else 1 for i in range(value.ndim))
    return view(value, (("slice", {"start": start, "size": value.shape, "step": step}),))


def flipud(x: Any, /) -> Tensor:
    """Return ``x`` reversed along its first axis."""
    return flip(x, 0)


def fliplr(x: Any, /) -> Tensor:
    """Return ``x`` reversed along its second axis."""
    return flip(x, 1)


def rot90(x: Any, /, k: int = 1, axes: Sequence[int] = (0, 1)) -> Tensor:
    """Return ``x`` turned by k · 90° in the plane of two axes."""
    value = lift(x)
    first, second = some_axes("rot90", tuple(axes), value.shape)
    turns = k % 4
    if turns == 0:
        return view(value, ())
    if turns == 2:
        return flip(value, (first, second))
    swapped = swapaxes(flip(value, second) if turns == 1 else value, first, second)
    return swapped if turns == 1 else flip(swapped, second)


# -- broadcasting ----------------------------------------------------------------------------------


def broadcast_to(x: Any, shape: Any, /) -> Tensor:
    """Return ``x`` repeated to ``shape``; a read-only view."""
    value, sizes = lift(x), as_shape(shape)
    return view(value, (("broadcast_to", {"shape": sizes}),) if sizes != value.shape else ())


def expand(x: Any, /, *shape: Any) -> Tensor:
    """Return PyTorch's ``expand``: like ``broadcast_to``, −1 keeps a size."""
    value = lift(x)
    wanted = varargs(shape)
    sizes = [as_index(n, "a size") for n in ([wanted] if isinstance(wanted, int) else wanted)]
    lead = len(sizes) - value.ndim
    for position, size in enumerate(sizes):
        if size == -1:
            if position < lead:
                raise fail(ShapeError, f"expand: -1 for a new axis in {tuple(sizes)}")
            sizes[position] = value.shape[position - lead]
    return broadcast_to(value, tuple(sizes))


def broadcast_arrays(*arrays: Any) -> tuple[Tensor, ...]:
    """Return the arrays broadcast against each other."""
    values = [lift(a) for a in arrays]
    if not values:
        return ()
    shape = broadcast_shapes(*[v.shape for v in values])
    return tuple(broadcast_to(v, shape) for v in values)


broadcast_tensors = broadcast_arrays


def broadcast_shapes(*shapes: Shape) -> Shape:
    """Return the shape that ``shapes`` broadcast to."""
    try:
        return common_shape("broadcast", [as_shape(s) for s in shapes]) if shapes else ()
    except ShapeError as error:
        error.loc = user_location()
        raise


def cut(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """Return the view x[start:stop] along one axis."""
    rank = x.ndim
    attrs = {
        "start": tuple(start if i == axis else 0 for i in range(rank)),
        "size": tuple(stop - start if i == axis else n for i, n in enumerate(x.shape)),
        "step": (1,) * rank,
    }
    return view(x, (("slice", attrs),))


# -- diagonals -------------------------------------------------------------------------------------


def diagonal(
    x: Any, /, offset: int = 0, axis1: int = 0, axis2: int = 1,
    *, dim1: int | None = None, dim2: int | None = None,
) -> Tensor:  # fmt: skip
    """Return a diagonal of two axes, as the last axis; a view."""
    value = lift(x)
    first = one_axis("diagonal", axis1 if dim1 is None else dim1, value.shape)
    second = one_axis("diagonal", axis2 if dim2 is None else dim2, value.shape)
    if first == second:
        raise fail(ShapeError, "diagonal: the two axes are the same")
    lead = [i for i in range(value.ndim) if i not in (first, second)]
    order = (*lead, first, second)
    rows, columns = value.shape[first], value.shape[second]
    lead_shape = tuple(value.shape[i] for i in lead)
    length = diagonal_length(rows, columns, offset)
    start = (offset if offset >= 0 else -offset * columns) if length else 0
    rank = len(lead)
    cut_out = {
        "start": (0,) * rank + (start,),
        "size": (*lead_shape, length),
        "step": (1,) * rank + (columns + 1,),
    }
    steps: tuple[Step, ...] = (
        ("permute", {"axes": order}),
        ("reshape", {"shape": (*lead_shape, rows * columns)}),
        ("slice", cut_out),
    )
    return view(value, steps)


def diag(x: Any, /, k: int = 0, *, diagonal: int | None = None) -> Tensor:
    """Return a copy of a matrix's diagonal, or the matrix with a vector on its diagonal."""
    value = lift(x)
    offset = k if diagonal is None else diagonal
    if value.ndim == 1:
        return apply("diag", (value,), k=offset)
    if value.ndim != 2:
        raise fail(ShapeError, f"diag takes one or two axes; the shape is {value.shape}")
    return apply("diagonal", (value,), offset=offset)


def diagflat(x: Any, /, k: int = 0) -> Tensor:
    """Return the matrix with the flattened elements of ``x`` on a diagonal."""
    return diag(ravel(x), k)


def diag_embed(x: Any, /, offset: int = 0) -> Tensor:
    """Return matrices with the last axis of ``x`` on a diagonal."""
    return record("diag", (x,), k=offset)


def trace(x: Any, /, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Tensor:
    """Return the sum of a diagonal; integers in 64 bits."""
    value = moveaxis(x, (axis1, axis2), (-2, -1))
    if dtype is not None:
        value = cast(value, as_dtype(dtype))
    return record("trace", (value,), offset=offset)


def view_as_real(x: Any, /) -> Tensor:
    """Return complex numbers as pairs (real, imaginary) along a new last axis; a value of its own.

    >>> import tracejit as tj
    >>> tj.view_as_real([1 + 2j, 3j])
    tensor([[1., 2.],
            [0., 3.]])
    """
    return record("view_as_real", (x,))


def view_as_complex(x: Any, /) -> Tensor:
    """Return pairs (real, imaginary) along the last axis as complex numbers; a value of its own."""
    return record("view_as_complex", (x,))
