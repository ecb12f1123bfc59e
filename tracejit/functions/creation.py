"""Making tensors: from values, and from nothing but a shape.

Tensors never share memory with what they were made from, unless the caller says ``copy=False``.
Filled tensors are broadcasts of a constant and ramps are index leaves: they take no memory until
something needs them in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracejit import functions
from tracejit.errors import (
    DivisionError,
    DTypeError,
    RangeError,
    ShapeError,
    TraceError,
    TracejitError,
    ValueArgumentError,
)
from tracejit.functions.arguments import (
    as_dtype,
    as_index,
    as_shape,
    fail,
    is_array,
    is_sequence,
    varargs,
)
from tracejit.graph.node import constant, data, iota
from tracejit.ops.dtypes import is_bfloat16
from tracejit.ops.table import Array, DType, Shape
from tracejit.sizes import hinted
from tracejit.tensor import Tensor, apply, cast, lift, record, wrap
from tracejit.tracing import user_location

__all__ = [
    "arange", "array", "asarray", "copy", "empty", "empty_like", "eye", "from_dlpack",
    "frombuffer", "fromfunction", "fromiter", "full", "full_like", "geomspace", "identity",
    "indices", "linspace", "logspace", "meshgrid", "ones", "ones_like", "tensor", "tri", "tril",
    "triu", "zeros", "zeros_like",
]  # fmt: skip

_SCALARS = (bool, int, float, complex)
# Dtypes of arrays that become leaves as they are.
_NATIVE = frozenset(map(np.dtype, "?bhilqBHILQefdFD"))


def asarray(
    obj: Any, /, dtype: Any = None, *, copy: bool | None = None, device: Any = None
) -> Tensor:
    """Return ``obj`` as a tensor: an array, a scalar, nested sequences, anything with DLPack.

    Values are copied, except for tensors, which come back as they are unless ``copy`` is true.
    ``copy=False`` shares the memory of an array, which must then not change any more. Lists of
    floats are float64, as in NumPy. Raises ``ShapeError`` for ragged lists, ``DTypeError`` for
    objects and strings.
    """
    if obj.__class__ is np.ndarray and dtype is None and copy is not False and device is None:
        given: Array = obj  # the most frequent case
        if given.ndim and given.dtype in _NATIVE:
            return wrap(data(given.copy(), user_location()))
    check_device(device)
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(obj, Tensor):
        if wanted is not None and wanted != obj.dtype:
            return cast(obj, wanted)
        return wrap(obj.node, obj.traced_in) if copy else obj
    if type(obj) in _SCALARS:
        return wrap(constant(_host(obj, wanted), wanted or _host(obj, wanted).dtype))
    if is_array(obj):
        array: Array = np.asarray(obj)
    elif hasattr(obj, "__array__") or not hasattr(obj, "__dlpack__"):
        if copy is False:
            raise fail(ValueArgumentError, f"{type(obj).__name__} has no memory to share")
        try:
            array = _host(obj, wanted)
        except TraceError:
            if not is_sequence(obj):
                raise
            return _stacked(obj, wanted)  # a list that holds traced tensors
    else:
        array = np.from_dlpack(obj)
    found = as_dtype(array.dtype)
    if copy is False:
        if array.dtype != (wanted or found):
            raise fail(ValueArgumentError, f"an array of {array.dtype} as {wanted} is a copy")
        return wrap(data(array, user_location()))
    if wanted is None and array.ndim == 0:
        return wrap(constant(array[()], found))
    return wrap(data(_own(array, wanted or found), user_location()))


def _own(array: Array, dtype: DType) -> Array:
    if array.dtype.kind == "c" and dtype.kind not in "bc":
        array = array.real  # the cast would do it with a warning
    with np.errstate(all="ignore"):
        return np.array(array, dtype, order="C", copy=True)


def _host(obj: Any, dtype: DType | None) -> Array:
    """Return nested sequences as an array, or raise the typed error."""
    try:
        with np.errstate(all="ignore"):
            array: Array = np.asarray(obj, dtype)
    except TracejitError:
        raise
    except OverflowError as error:
        raise fail(RangeError, str(error)) from None
    except ValueError as error:
        ragged = "inhomogeneous" in str(error) or "sequence" in str(error)
        hint = "rows must have equal lengths; pad them" if ragged else None
        raise fail(ShapeError if ragged else ValueArgumentError, str(error), hint) from None
    except TypeError as error:
        raise fail(DTypeError, str(error)) from None
    if array.dtype.kind not in "biufc" and not is_bfloat16(array.dtype):
        kind = "strings" if array.dtype.kind in "US" else f"{array.dtype} values"
        what = type(obj).__name__
        raise fail(
            DTypeError,
            f"cannot make a tensor of {kind} (from {what})",
            "tensors hold bool, integers, floats and complex numbers",
        )
    return array


def _stacked(obj: Any, dtype: DType | None) -> Tensor:
    if isinstance(obj, Tensor):
        return obj
    if not is_sequence(obj):
        return asarray(obj, dtype)
    parts = [_stacked(part, dtype) for part in obj]
    shapes = {part.shape for part in parts}
    if len(shapes) != 1:
        raise fail(ShapeError, f"rows of a list have the shapes {sorted(shapes)}")
    joined = functions.joining.stack(parts)
    return joined if dtype is None else cast(joined, dtype)


def array(obj: Any, dtype: Any = None, *, copy: bool | None = True, ndmin: int = 0) -> Tensor:
    """Return a new tensor with the value of ``obj``, as ``numpy.array``."""
    made = asarray(obj, dtype, copy=copy)
    if made.ndim < ndmin:
        shape = (1,) * (ndmin - made.ndim) + made.shape
        made = apply("reshape", (made,), shape=shape)
    return made


def tensor(
    obj: Any, dtype: Any = None, *, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Return a new tensor with the value of ``obj``, as ``torch.tensor`` (floats stay float64)."""
    if requires_grad:
        raise fail(
            ValueArgumentError,
            "tensors carry no gradient state",
            "differentiate functions instead of tensors",
        )
    return asarray(obj, dtype, copy=True, device=device)


def from_dlpack(obj: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """Return a tensor from any DLPack exporter on the CPU; ``copy=False`` shares its memory."""
    check_device(device)
    if isinstance(obj, Tensor):
        return asarray(obj, copy=copy)
    array: Array = np.from_dlpack(obj)
    return asarray(array, copy=copy)


def check_device(device: Any) -> None:
    if device is not None and str(device) != "cpu":
        raise fail(ValueArgumentError, f"no device {device!r}: tensors live on 'cpu'")


# -- filled ----------------------------------------------------------------------------------------


def filled(shape: Shape, value: Any, dtype: DType) -> Tensor:
    """Return a tensor of ``shape`` whose elements are the Python scalar ``value``."""
    point = wrap(constant(value, dtype))
    return apply("broadcast_to", (point,), shape=shape) if shape else point


def _shape_and_dtype(shape: tuple[Any, ...], dtype: Any) -> tuple[Shape, DType]:
    # zeros((2, 3), float) is NumPy's call, zeros(2, 3) PyTorch's.
    if len(shape) == 2 and not isinstance(shape[1], (int, np.integer)):
        shape, dtype = shape[:1], shape[1]
    return as_shape(varargs(shape)), as_dtype(float if dtype is None else dtype)


def zeros(*shape: Any, dtype: Any = None, device: Any = None, order: str = "C") -> Tensor:
    """Return zeros; float64 unless told. ``zeros((2, 3))`` and ``zeros(2, 3)``."""
    check_device(device)
    sizes, kind = _shape_and_dtype(shape, dtype)
    return filled(sizes, 0, kind)


def ones(*shape: Any, dtype: Any = None, device: Any = None, order: str = "C") -> Tensor:
    """Return ones; float64 unless told. ``ones((2, 3))`` and ``ones(2, 3)``."""
    check_device(device)
    sizes, kind = _shape_and_dtype(shape, dtype)
    return filled(sizes, 1, kind)


def empty(*shape: Any, dtype: Any = None, device: Any = None, order: str = "C") -> Tensor:
    """Return a tensor to be filled; its elements are zero, so that results repeat."""
    return zeros(*shape, dtype=dtype, device=device)


def full(shape: Any, fill_value: Any, dtype: Any = None, *, device: Any = None) -> Tensor:
    """Return a tensor of ``fill_value``, in its dtype unless told; it may be traced."""
    check_device(device)
    sizes = as_shape(shape)
    if type(fill_value) in _SCALARS:
        value = _host(fill_value, None if dtype is None else as_dtype(dtype))
        return filled(sizes, value, value.dtype)
    value = lift(fill_value, dtype)
    try:
        return apply("broadcast_to", (value,), shape=sizes) if sizes != value.shape else value
    except ShapeError as error:
        raise fail(ShapeError, f"full: {error.message}") from None


def _like(x: Any, shape: Any, dtype: Any) -> tuple[Shape, DType]:
    source = lift(x)
    sizes = source.shape if shape is None else as_shape(shape)
    return sizes, source.dtype if dtype is None else as_dtype(dtype)


def zeros_like(x: Any, /, dtype: Any = None, *, shape: Any = None, device: Any = None) -> Tensor:
    """Return zeros of the shape and dtype of ``x``."""
    check_device(device)
    sizes, kind = _like(x, shape, dtype)
    return filled(sizes, 0, kind)


def ones_like(x: Any, /, dtype: Any = None, *, shape: Any = None, device: Any = None) -> Tensor:
    """Return ones of the shape and dtype of ``x``."""
    check_device(device)
    sizes, kind = _like(x, shape, dtype)
    return filled(sizes, 1, kind)


def empty_like(x: Any, /, dtype: Any = None, *, shape: Any = None, device: Any = None) -> Tensor:
    """Return a tensor to be filled, of the shape and dtype of ``x``; its elements are zero."""
    return zeros_like(x, dtype, shape=shape, device=device)


def full_like(
    x: Any, /, fill_value: Any, dtype: Any = None, *, shape: Any = None, device: Any = None
) -> Tensor:
    """Return ``fill_value`` everywhere, in the shape and dtype of ``x``."""
    sizes, kind = _like(x, shape, dtype)
    return full(sizes, fill_value, kind, device=device)


# -- ramps and patterns ----------------------------------------------------------------------------


def ramp(shape: Shape, axis: int, dtype: Any = np.int64) -> Tensor:
    """Return the index along ``axis`` at each position of ``shape``."""
    return wrap(iota(shape, axis, dtype, user_location()))


def arange(
    start: Any, /, stop: Any = None, step: Any = 1, dtype: Any = None, *, device: Any = None
) -> Tensor:
    """Return start, start + step, … below ``stop``; ``arange(n)`` counts from 0."""
    check_device(device)
    if stop is None:
        start, stop = 0, start
    bounds = [_number(v, "arange") for v in (start, stop, step)]
    first, last, by = bounds
    if by == 0:
        raise fail(DivisionError, "arange: the step is zero")
    kind = as_dtype(np.result_type(*hinted(bounds)) if dtype is None else dtype)
    length = _ceil_divide(last - first, by)
    if kind.kind == "b" or kind.kind == "c":
        return _host_arange(first, last, by, kind)
    if kind.kind in "iu":
        # NumPy casts both ends of a float range and steps by their difference.
        low, delta = int(first), int(first + by) - int(first)
        if kind.itemsize < 8 or kind.kind == "u":
            return asarray(np.arange(length, dtype=np.int64) * delta + low, kind)
        counted = ramp((length,), 0, kind)
    else:
        low = kind.type(first)
        delta = kind.type(first + by) - low
        low, delta = low.item(), delta.item()
        counted = cast(ramp((length,), 0), kind)
    if delta != 1:
        counted = record("multiply", (counted, delta))
    return counted if low == 0 else record("add", (counted, low))


def _number(value: Any, name: str) -> Any:
    if isinstance(value, Tensor):
        value = value.item()
    number: Any = value
    if not isinstance(number, (int, float, np.number)):
        raise fail(DTypeError, f"{name} takes numbers, not {type(value).__name__}")
    return value


def _ceil_divide(span: Any, step: Any) -> int:
    if isinstance(span, int) and isinstance(step, int):
        return max(0, -(-span // step))
    length = math.ceil(span / step) if math.isfinite(span / step) else None
    if length is None:
        raise fail(ValueArgumentError, "arange: the bounds are not finite")
    return max(0, length)


def linspace(
    start: Any,
    stop: Any,
    /,
    num: int = 50,
    *,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
    retstep: bool = False,
    axis: int = 0,
) -> Any:
    """Return ``num`` evenly spaced values from ``start`` to ``stop``, in a new axis for arrays."""
    check_device(device)
    count = as_index(num, "num")
    if count < 0:
        raise fail(ValueArgumentError, f"linspace: {count} samples")
    if any(isinstance(v, (Tensor, np.ndarray, list, tuple)) for v in (start, stop)):
        values, step = _between(start, stop, count, endpoint)
        wanted = values.dtype if dtype is None else as_dtype(dtype)
        if wanted.kind in "iu":
            values = record("floor", (values,))
        values = functions.movement.moveaxis(cast(values, wanted), 0, axis)
        return (values, step) if retstep else values
    first, last = (_number_or_complex(v) for v in (start, stop))
    kind = np.result_type(first, last, float(count))
    gaps = count - 1 if endpoint else count
    delta = last - first
    step = delta / gaps if gaps > 0 else math.nan
    values = cast(ramp((count,), 0), kind)
    if gaps > 0 and step == 0:
        values = record("multiply", (record("divide", (values, gaps)), delta))
    else:
        values = record("multiply", (values, step if gaps > 0 else delta))
    values = record("add", (values, first))
    if endpoint and count > 1:
        at_end = record("equal", (ramp((count,), 0), count - 1))
        values = record("where", (at_end, asarray(last, kind), values))
    wanted = kind if dtype is None else as_dtype(dtype)
    if wanted.kind in "iu":
        values = record("floor", (values,))
    values = cast(values, wanted)
    return (values, step) if retstep else values


def _between(start: Any, stop: Any, count: int, endpoint: bool) -> tuple[Tensor, Tensor]:
    """Return ``count`` values between arrays, in a first axis, and their distance."""
    common = record("add", (start, stop)).dtype
    kind = common if common.kind in "fc" or is_bfloat16(common) else np.dtype(np.float64)
    first, last = (cast(lift(v), kind) for v in (start, stop))
    delta = record("subtract", (last, first))
    gaps = count - 1 if endpoint else count
    number = ramp((count, *[1] * delta.ndim), 0)
    values = cast(number, delta.dtype)
    if gaps <= 0:
        step = record("multiply", (delta, math.nan))
        values = record("multiply", (values, delta))
    else:
        step = record("divide", (delta, float(gaps)))
        exact = record("multiply", (values, step))
        tiny = record("multiply", (record("divide", (values, float(gaps))), delta))
        values = record("where", (record("equal", (step, 0.0)), tiny, exact))
    values = record("add", (values, first))
    if endpoint and count > 1:
        values = record("where", (record("equal", (number, count - 1)), last, values))
    return values, step


def _number_or_complex(value: Any) -> Any:
    if isinstance(value, complex):
        return value
    number = _number(value, "linspace")
    return float(number) if isinstance(number, int) else number


def _from_host(name: str) -> Callable[..., Tensor]:
    function: Callable[..., Any] = getattr(np, name)

    def build(*args: Any, **kwargs: Any) -> Tensor:
        try:
            return asarray(function(*args, **kwargs), copy=False)
        except ValueError as error:
            raise fail(ValueArgumentError, f"{name}: {error}") from None

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Return what ``numpy.{name}`` gives, as a tensor."
    return build


_host_arange = _from_host("arange")
logspace = _from_host("logspace")
geomspace = _from_host("geomspace")
frombuffer = _from_host("frombuffer")
fromiter = _from_host("fromiter")


def eye(
    n_rows: int, n_cols: int | None = None, /, k: int = 0, dtype: Any = None, *, device: Any = None
) -> Tensor:
    """Return ones on diagonal ``k`` (above the main one if positive), zeros elsewhere."""
    check_device(device)
    rows = as_shape(n_rows)[0]
    shape = (rows, rows if n_cols is None else as_shape(n_cols)[0])
    row, column = ramp(shape, 0), ramp(shape, 1)
    shifted = record("add", (row, as_index(k, "k"))) if k else row
    return cast(record("equal", (shifted, column)), as_dtype(float if dtype is None else dtype))


def identity(n: int, dtype: Any = None) -> Tensor:
    """Return the n × n identity matrix."""
    return eye(n, dtype=dtype)


def tri(n_rows: int, n_cols: int | None = None, k: int = 0, dtype: Any = float) -> Tensor:
    """Return ones at and below diagonal ``k``, zeros above."""
    rows = as_shape(n_rows)[0]
    shape = (rows, rows if n_cols is None else as_shape(n_cols)[0])
    return cast(_lower(shape, k), as_dtype(dtype))


def _lower(shape: Shape, k: int) -> Tensor:
    rank = len(shape)
    row, column = ramp(shape[-2:], 0), ramp(shape[-2:], 1)
    mask = record("greater_equal", (record("add", (row, as_index(k, "k"))), column))
    return mask if rank == 2 else apply("broadcast_to", (mask,), shape=shape)


def _triangle(x: Any, k: int, lower: bool) -> Tensor:
    value = lift(x)
    if value.ndim < 2:
        raise fail(ShapeError, f"a triangle needs a matrix; the shape is {value.shape}")
    zero = filled((), 0, value.dtype)
    mask = _lower(value.shape, k if lower else k - 1)
    return record("where", (mask, value, zero) if lower else (mask, zero, value))


def tril(x: Any, /, k: int = 0, *, diagonal: int | None = None) -> Tensor:
    """Return ``x`` with zeros above diagonal ``k`` of its last two axes."""
    return _triangle(x, k if diagonal is None else diagonal, lower=True)


def triu(x: Any, /, k: int = 0, *, diagonal: int | None = None) -> Tensor:
    """Return ``x`` with zeros below diagonal ``k`` of its last two axes."""
    return _triangle(x, k if diagonal is None else diagonal, lower=False)


def meshgrid(*arrays: Any, indexing: str = "xy", sparse: bool = False) -> list[Tensor]:
    """Return coordinates of the grid that 1-d ``arrays`` span; ``"xy"`` swaps the first two."""
    if indexing not in ("xy", "ij"):
        raise fail(ValueArgumentError, f"indexing is 'xy' or 'ij', not {indexing!r}")
    axes = [lift(a) for a in arrays]
    if any(a.ndim > 1 for a in axes):
        raise fail(ShapeError, "meshgrid takes arrays of one axis")
    order = list(range(len(axes)))
    if indexing == "xy" and len(axes) > 1:
        order[0], order[1] = 1, 0
    shape = [0] * len(axes)
    for position, axis in zip(order, axes, strict=True):
        shape[position] = axis.size
    grids: list[Tensor] = []
    for position, axis in zip(order, axes, strict=True):
        thin = [1] * len(axes)
        thin[position] = axis.size
        grid = apply("reshape", (axis,), shape=tuple(thin))
        grids.append(grid if sparse else apply("broadcast_to", (grid,), shape=tuple(shape)))
    return grids


def indices(dimensions: Sequence[int], dtype: Any = int) -> Tensor:
    """Return the index along each axis at each position: shape (rank, *dimensions)."""
    shape = as_shape(dimensions)
    if not shape:
        return zeros((0,), dtype=dtype)
    return functions.joining.stack(
        [ramp(shape, axis, as_dtype(dtype)) for axis in range(len(shape))]
    )


def fromfunction(function: Callable[..., Any], shape: Any, *, dtype: Any = float) -> Tensor:
    """Return ``function(i, j, …)`` of the index arrays of ``shape``."""
    sizes = as_shape(shape)
    grid = [cast(ramp(sizes, axis), as_dtype(dtype)) for axis in range(len(sizes))]
    return lift(function(*grid))


def copy(x: Any) -> Tensor:
    """Return a tensor of the same value that later writes to ``x`` do not change."""
    return asarray(x, copy=True)
