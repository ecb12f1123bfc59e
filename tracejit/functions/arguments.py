"""Reading arguments: dtypes, shapes, axes, and the PyTorch spellings ``dim`` and ``keepdim``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracejit import sizes
from tracejit.errors import (
    ArgumentError,
    AxisError,
    DTypeError,
    ShapeError,
    UnsupportedError,
    UserError,
)
from tracejit.ops.dtypes import named
from tracejit.ops.table import DType, Shape, check_dtype, normalise_axis
from tracejit.tensor import Tensor
from tracejit.tracing import user_location

Axis = int | Sequence[int] | None


# Tests of arguments that may be anything. As functions they leave the static type at Any, where
# isinstance would narrow it to list[Unknown] and the like.


def is_sequence(value: Any) -> bool:
    """Return whether ``value`` is a list or a tuple."""
    return isinstance(value, (list, tuple))


def is_tuple(value: Any) -> bool:
    """Return whether ``value`` is a tuple."""
    return isinstance(value, tuple)


def is_integer(value: Any) -> bool:
    """Return whether ``value`` is a Python or NumPy integer."""
    return isinstance(value, (int, np.integer))


def is_array(value: Any) -> bool:
    """Return whether ``value`` is an array or a scalar of NumPy."""
    return isinstance(value, (np.ndarray, np.generic))


def fail(kind: type[UserError], message: str, hint: str | None = None) -> UserError:
    """Return the error with the user's line."""
    return kind(message, hint=hint, loc=user_location())


def as_dtype(dtype: Any) -> DType:
    """Return the dtype that ``dtype`` names; ``DTypeError`` unless tensors can have it."""
    try:
        found = named(dtype)
    except UnsupportedError:
        raise
    except TypeError:
        hint = "use a name such as 'float32', tj.float32, or a NumPy dtype"
        raise fail(DTypeError, f"{dtype!r} is not a dtype", hint) from None
    try:
        check_dtype("a tensor", found)
    except DTypeError as error:
        error.loc = user_location()
        raise
    return found if found.isnative else found.newbyteorder("=")


def as_index(value: Any, what: str) -> int:
    """Return a whole number; ``ArgumentError`` for anything else."""
    try:
        return sizes.as_index(value)
    except TypeError:
        if isinstance(value, Tensor):
            raise  # its own error says more
        text = f"{what} must be a whole number, not {type(value).__name__}"
        raise fail(ArgumentError, text) from None


def as_shape(shape: Any, what: str = "a shape") -> Shape:
    """Return a shape from an int or a sequence of ints; negative sizes are a ``ShapeError``."""
    if isinstance(shape, (int, np.integer)):
        shape = (shape,)
    try:
        extents = tuple(map(sizes.as_index, shape))
    except TypeError:
        text = f"{what} must be an int or a sequence of ints, not {shape!r}"
        raise fail(ArgumentError, text) from None
    if any(n < 0 for n in extents):
        raise fail(ShapeError, f"negative size in shape {extents}")
    return extents


def varargs(values: tuple[Any, ...]) -> Any:
    """Return the sequence of ``f(2, 3)`` and of ``f((2, 3))``."""
    return values[0] if len(values) == 1 and not isinstance(values[0], int) else values


def alias(value: Any, other: Any, name: str, other_name: str, default: Any = None) -> Any:
    """Return the argument that was given, under its array-API name or its PyTorch one."""
    if other is None:
        return value
    if value is not default and value != default:
        raise fail(ArgumentError, f"{name} and {other_name} are the same argument; give one")
    return other


def one_axis(name: str, axis: Any, shape: Shape) -> int:
    """Return an axis of ``shape`` counted from the front; ``AxisError`` where it has none such."""
    number = as_index(axis, "an axis")
    try:
        return normalise_axis(name, number, shape)
    except UserError as error:
        error.loc = user_location()
        raise


def some_axes(name: str, axis: Axis, shape: Shape) -> tuple[int, ...]:
    """Return axes counted from the front, in the order given; None means all."""
    if axis is None:
        return tuple(range(len(shape)))
    if not isinstance(axis, int) and is_sequence(axis):
        axes = tuple(one_axis(name, a, shape) for a in axis)
        if len(set(axes)) != len(axes):
            raise fail(ShapeError, f"{name}: an axis occurs twice in {tuple(axis)}")
        return axes
    return (one_axis(name, axis, shape),)


def new_axes(name: str, axis: int | Sequence[int], shape: Shape) -> tuple[int, ...]:
    """Return where new axes stand in the result, which has those of ``shape`` besides."""
    count = len(axis) if isinstance(axis, Sequence) else 1
    rank = len(shape) + count
    try:
        return some_axes(name, axis, (*shape, *[1] * count))
    except AxisError:
        raise fail(
            AxisError,
            f"{name}: axis {axis} is out of range for a new axis of shape {shape}",
            hint=f"an axis from {-rank} to {rank - 1}",
        ) from None
