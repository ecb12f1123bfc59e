"""Movement: rows that rearrange elements and never compute with them.

The primitives ``reshape``, ``permute``, ``broadcast_to``, ``slice``, ``concat``, ``pad`` and
``update_slice`` become index maps; the rest decompose into them. Attributes are fully resolved:
no −1 in a shape, no negative axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tracejit.errors import IndexOutOfRange, InternalError, ShapeError, ValueArgumentError
from tracejit.ops.table import (
    Array,
    Aval,
    DType,
    Fact,
    Family,
    Op,
    Shape,
    ShapeRule,
    accumulator,
    check_axes,
    check_dtype,
    common_types,
    complex_dtype,
    real_dtype,
    row,
    same_types,
    without,
)

Ints = tuple[int, ...]


def movement(
    name: str,
    reference: Callable[..., Any],
    shape: ShapeRule,
    *,
    arity: int | None = 1,
    facts: Fact = Fact.NONE,
    decompose: Callable[..., Any] | None = None,
    doc: str = "",
) -> Op:
    """Register a movement row: operands promote to one dtype, which is the result's."""
    return row(
        name,
        Family.COMPOSITE if decompose else Family.MOVEMENT,
        reference,
        arity=arity,
        types=same_types(name, kinds="biufcV"),
        shape=shape,
        facts=facts,
        decompose=decompose,
        doc=doc,
    )


# -- reshape, permute, broadcast -------------------------------------------------------------------


def resolve_shape(size: int, shape: Ints, old: Shape) -> Shape:
    """Return ``shape`` with its −1 (at most one) replaced so that it holds ``size`` elements."""
    known = math.prod(n for n in shape if n != -1)
    unknown = sum(1 for n in shape if n == -1)
    if unknown > 1 or any(n < -1 for n in shape):
        raise ShapeError(f"reshape: {shape} is not a shape", hint="at most one size may be -1")
    if unknown and known and size % known == 0:
        shape = tuple(size // known if n == -1 else n for n in shape)
        known = size
    if known != size or -1 in shape:
        raise ShapeError(f"reshape: cannot reshape {old} ({size} elements) into {shape}")
    return shape


def axis_runs(outer: Shape, inner: Shape) -> list[list[int]] | None:
    """Return the axes of ``inner`` that each axis of ``outer`` is made of, None if it is not so.

    Axes of extent 1 belong to nobody.
    """
    left = [axis for axis, extent in enumerate(inner) if extent != 1]
    found: list[list[int]] = []
    for extent in outer:
        mine: list[int] = []
        while left and math.prod(inner[a] for a in mine) < extent:
            mine.append(left.pop(0))
        if math.prod(inner[a] for a in mine) != extent:
            return None
        found.append(mine)
    return None if left else found


def common_runs(left: Shape, right: Shape) -> list[tuple[list[int], list[int]]]:
    """Return the shortest runs of axes of two shapes that have as many elements, in order.

    The shapes have equally many elements, and some: (6, 10, 4), (6, 2, 5, 4) → 0 and 0, 1 and
    1 2, 2 and 3.
    """
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        mine, others = [i], [j]
        many, more = left[i], right[j]
        i, j = i + 1, j + 1
        while many != more:
            if many < more:
                mine.append(i)
                many, i = many * left[i], i + 1
            else:
                others.append(j)
                more, j = more * right[j], j + 1
        found.append((mine, others))
    if found:  # what is left has extent 1
        found[-1][0].extend(range(i, len(left)))
        found[-1][1].extend(range(j, len(right)))
    return found


def _reshape_shape(x: Aval, *, shape: Shape) -> Shape:
    resolved = resolve_shape(math.prod(x.shape), shape, x.shape)
    if resolved != shape:
        raise InternalError(f"reshape: {shape} was not resolved")
    return shape


def _permute_shape(x: Aval, *, axes: Ints) -> Shape:
    if len(axes) != len(x.shape):
        raise ShapeError(f"permute: axes {axes} do not match shape {x.shape}")
    check_axes("permute", axes, x.shape)
    return tuple(x.shape[a] for a in axes)


def _broadcast_shape(x: Aval, *, shape: Shape) -> Shape:
    lead = len(shape) - len(x.shape)
    if lead < 0 or any(
        n not in (1, m) for n, m in zip(x.shape, shape[max(lead, 0) :], strict=True)
    ):
        raise ShapeError(
            f"broadcast_to: {x.shape} does not broadcast to {shape}",
            hint="only axes of size 1 grow, counted from the last axis",
        )
    return shape


def _reshape(x: Array, *, shape: Shape) -> Array:
    return x.reshape(shape)


def _permute(x: Array, *, axes: Ints) -> Array:
    return x.transpose(axes)


def _broadcast(x: Array, *, shape: Shape) -> Array:
    return np.broadcast_to(x, shape)


movement(
    "reshape", _reshape, _reshape_shape,
    doc="The same elements in C order under another shape.",
)  # fmt: skip
movement(
    "permute", _permute, _permute_shape,
    doc="Axes in another order: result axis i is operand axis axes[i].",
)  # fmt: skip
movement(
    "broadcast_to", _broadcast, _broadcast_shape,
    doc="Repeated along new leading axes and axes of size 1.",
)  # fmt: skip

# -- complex values and their parts ----------------------------------------------------------------


def _view_as_real(x: Array) -> Array:
    parts = real_dtype(x.dtype)
    return np.ascontiguousarray(x).reshape(*x.shape, 1).view(parts)


def _view_as_complex(x: Array) -> Array:
    whole = complex_dtype(x.dtype)
    return np.ascontiguousarray(x).view(whole).reshape(x.shape[:-1])


def _real_shape(x: Aval) -> Shape:
    return (*x.shape, 2)


def _complex_shape(x: Aval) -> Shape:
    shape = x.shape
    if not shape or shape[-1] != 2:
        raise ShapeError(f"view_as_complex: the last axis of {shape} is not a pair of parts")
    return shape[:-1]


row(
    "view_as_real", Family.MOVEMENT, _view_as_real, arity=1,
    types=common_types("view_as_real", kinds="c", result=real_dtype), shape=_real_shape,
    doc="Complex numbers as pairs of their parts along a new last axis.",
)  # fmt: skip
row(
    "view_as_complex", Family.MOVEMENT, _view_as_complex, arity=1,
    types=common_types("view_as_complex", kinds="f", result=complex_dtype), shape=_complex_shape,
    doc="Pairs of parts along the last axis as complex numbers.",
)  # fmt: skip

# -- slices ----------------------------------------------------------------------------------------


def region(start: Ints, size: Ints, step: Ints) -> tuple[slice, ...]:
    """Return Python slices for start + i·step, 0 ≤ i < size, for every axis."""
    result: list[slice] = []
    for first, count, by in zip(start, size, step, strict=True):
        end = first + count * by
        stop = None if by < 0 and end < 0 else end  # a negative stop would count from the end
        result.append(slice(first, stop, by) if count else slice(0, 0))
    return tuple(result)


def _check_region(name: str, x: Aval, start: Ints, size: Ints, step: Ints) -> None:
    if not len(start) == len(size) == len(step) == len(x.shape):
        raise ShapeError(f"{name}: start {start}, size {size}, step {step} for shape {x.shape}")
    for axis, (first, count, by) in enumerate(zip(start, size, step, strict=True)):
        if by == 0:
            raise ValueArgumentError(f"{name}: the step along axis {axis} is zero")
        last = first + (count - 1) * by
        inside = min(first, last) >= 0 and max(first, last) < x.shape[axis]
        if count < 0 or (count and not inside):
            raise IndexOutOfRange(
                f"{name}: {count} elements from {first} by {by} leave axis {axis} "
                f"of shape {x.shape}"
            )


def _slice_shape(x: Aval, *, start: Ints, size: Ints, step: Ints) -> Shape:
    _check_region("slice", x, start, size, step)
    return size


def _update_shape(x: Aval, v: Aval, *, start: Ints, size: Ints, step: Ints) -> Shape:
    _check_region("update_slice", x, start, size, step)
    if v.shape != size:
        raise ShapeError(f"update_slice: a value of shape {v.shape} for a region of shape {size}")
    return x.shape


def _slice(x: Array, *, start: Ints, size: Ints, step: Ints) -> Array:
    return x[region(start, size, step)]


def _update(x: Array, v: Array, *, start: Ints, size: Ints, step: Ints) -> Array:
    result = x.copy()
    result[region(start, size, step)] = v
    return result


def first_types(name: str) -> Callable[[tuple[Any, ...]], tuple[tuple[DType, ...], DType]]:
    """Return the rule of updates: the other operands take the first one's dtype."""

    def types(dtypes: tuple[Any, ...]) -> tuple[tuple[DType, ...], DType]:
        first = check_dtype(name, np.dtype(dtypes[0]))
        for dtype in dtypes[1:]:
            check_dtype(name, np.dtype(dtype))
        return (first,) * len(dtypes), first

    return types


movement(
    "slice",
    _slice,
    _slice_shape,
    doc="out[i] = x[start + i·step], 0 ≤ i < size, on every axis; steps may be negative.",
)
row(
    "update_slice",
    Family.MOVEMENT,
    _update,
    arity=2,
    types=first_types("update_slice"),
    shape=_update_shape,
    doc="A copy of x whose region start + i·step holds v.",
)

# -- concat, pad -----------------------------------------------------------------------------------


def _concat_shape(*operands: Aval, axis: int) -> Shape:
    if not operands:
        raise ShapeError("concat: nothing to join", hint="give at least one array")
    first = operands[0].shape
    check_axes("concat", (axis,), first)
    for operand in operands:
        if len(operand.shape) != len(first) or without(operand.shape, axis) != without(first, axis):
            listed = ", ".join(str(o.shape) for o in operands)
            raise ShapeError(
                f"concat: shapes {listed} differ outside axis {axis}",
                hint="all sizes but the one along the axis must be equal",
            )
    return without(first, axis, sum(o.shape[axis] for o in operands))


def _concat(*operands: Array, axis: int) -> Array:
    return np.concatenate(operands, axis=axis)


def _cycle_shape(x: Aval, *, axis: int, start: int, size: int) -> Shape:
    check_axes("cycle", (axis,), x.shape)
    if not 0 <= start < x.shape[axis] or size < 0:
        raise ValueArgumentError(f"cycle: {size} elements from {start} on of {x.shape[axis]}")
    return without(x.shape, axis, size)


def _cycle(x: Array, *, axis: int, start: int, size: int) -> Array:
    return np.take(x, (np.arange(size) + start) % x.shape[axis], axis)


def _pad_shape(x: Aval, value: Aval, *, low: Ints, high: Ints) -> Shape:
    if value.shape != ():
        raise ShapeError(f"pad: the value must be 0-d, got shape {value.shape}")
    return padded_shape("pad", x, low, high)


def padded_shape(name: str, x: Aval, low: Ints, high: Ints) -> Shape:
    if not len(low) == len(high) == len(x.shape):
        raise ShapeError(f"{name}: widths {low} and {high} for shape {x.shape}")
    if any(n < 0 for n in (*low, *high)):
        raise ValueArgumentError(f"{name}: negative width in {low} and {high}")
    return tuple(a + n + b for a, n, b in zip(low, x.shape, high, strict=True))


def _pad(x: Array, value: Array, *, low: Ints, high: Ints) -> Array:
    widths = list(zip(low, high, strict=True))
    result = np.full([a + n + b for (a, b), n in zip(widths, x.shape, strict=True)], value)
    inner = tuple(slice(a, a + n) for a, n in zip(low, x.shape, strict=True))
    result[inner] = x
    return result


movement("concat", _concat, _concat_shape, arity=None, doc="Joined along an axis.")
movement(
    "cycle", _cycle, _cycle_shape,
    doc="out[i] = x[(start + i) mod n], 0 ≤ i < size, along one axis of n elements.",
)  # fmt: skip
movement(
    "pad", _pad, _pad_shape, arity=2,
    doc="Extended by a 0-d value on every side.",
)  # fmt: skip

# -- composites ------------------------------------------------------------------------------------


def _along(x: Any, axis: int, start: int, size: int, step: int = 1) -> dict[str, Ints]:
    """Return the slice attributes that cut one axis and keep the others."""
    rank = len(x.shape)
    return {
        "start": tuple(start if i == axis else 0 for i in range(rank)),
        "size": without(x.shape, axis, size),
        "step": tuple(step if i == axis else 1 for i in range(rank)),
    }


def cut(emit: Any, x: Any, axis: int, start: int, size: int, step: int = 1) -> Any:
    """Return ``size`` elements of ``x`` from ``start`` by ``step`` along one axis."""
    return emit.slice(x, **_along(x, axis, start, size, step))


def _flip_shape(x: Aval, *, axis: Ints) -> Shape:
    check_axes("flip", axis, x.shape)
    return x.shape


def _flip(emit: Any, x: Any, *, axis: Ints) -> Any:
    rank = range(len(x.shape))
    return emit.slice(
        x,
        start=tuple(max(x.shape[i] - 1, 0) if i in axis else 0 for i in rank),
        size=x.shape,
        step=tuple(-1 if i in axis else 1 for i in rank),
    )


def _roll_shape(x: Aval, *, shift: Ints, axis: Ints) -> Shape:
    for a in axis:
        check_axes("roll", (a,), x.shape)  # an axis may repeat: its shifts add up
    if len(shift) != len(axis):
        raise ShapeError(f"roll: shifts {shift} for axes {axis}")
    return x.shape


def _roll(emit: Any, x: Any, *, shift: Ints, axis: Ints) -> Any:
    for by, a in zip(shift, axis, strict=True):
        n = x.shape[a]
        by = by % n if n else 0
        if by:
            back = cut(emit, x, a, n - by, by)
            x = emit.concat(back, cut(emit, x, a, 0, n - by), axis=a)
    return x


def _tile_shape(x: Aval, *, reps: Ints) -> Shape:
    if len(reps) < len(x.shape) or any(r < 0 for r in reps):
        raise ShapeError(f"tile: repetitions {reps} for shape {x.shape}")
    shape = (1,) * (len(reps) - len(x.shape)) + x.shape
    return tuple(n * r for n, r in zip(shape, reps, strict=True))


def _tile(emit: Any, x: Any, *, reps: Ints) -> Any:
    shape = (1,) * (len(reps) - len(x.shape)) + x.shape
    pairs = list(zip(reps, shape, strict=True))
    x = emit.reshape(x, shape=tuple(n for _, s in pairs for n in (1, s)))
    x = emit.broadcast_to(x, shape=tuple(n for pair in pairs for n in pair))
    return emit.reshape(x, shape=tuple(r * s for r, s in pairs))


def _repeat_shape(x: Aval, *, repeats: int, axis: int) -> Shape:
    check_axes("repeat", (axis,), x.shape)
    if repeats < 0:
        raise ValueArgumentError(f"repeat: negative count {repeats}")
    return without(x.shape, axis, x.shape[axis] * repeats)


def _repeat(emit: Any, x: Any, *, repeats: int, axis: int) -> Any:
    n = x.shape[axis]
    spread = emit.reshape(x, shape=without(x.shape, axis, n, 1))
    spread = emit.broadcast_to(spread, shape=without(x.shape, axis, n, repeats))
    return emit.reshape(spread, shape=without(x.shape, axis, n * repeats))


def _stack_shape(*operands: Aval, axis: int) -> Shape:
    if not operands:
        raise ShapeError("stack: nothing to join", hint="give at least one array")
    first = operands[0].shape
    for operand in operands:
        if operand.shape != first:
            listed = ", ".join(str(o.shape) for o in operands)
            raise ShapeError(f"stack: shapes {listed} are not all equal")
    check_axes("stack", (axis,), (*first, 1))
    return (*first[:axis], len(operands), *first[axis:])


def _stack(emit: Any, *operands: Any, axis: int) -> Any:
    shape = operands[0].shape
    grown = (*shape[:axis], 1, *shape[axis:])
    return emit.concat(*[emit.reshape(o, shape=grown) for o in operands], axis=axis)


def _flip_reference(x: Array, *, axis: Ints) -> Array:
    return np.flip(x, axis)


def _roll_reference(x: Array, *, shift: Ints, axis: Ints) -> Array:
    return np.roll(x, shift, axis)


def _tile_reference(x: Array, *, reps: Ints) -> Array:
    return np.tile(x, reps)


def _repeat_reference(x: Array, *, repeats: int, axis: int) -> Array:
    return np.repeat(x, repeats, axis)


def _stack_reference(*operands: Array, axis: int) -> Array:
    return np.stack(operands, axis=axis)


movement(
    "flip", _flip_reference, _flip_shape,
    facts=Fact.INVOLUTION, decompose=_flip, doc="Reversed along axes.",
)  # fmt: skip
movement(
    "roll", _roll_reference, _roll_shape,
    decompose=_roll, doc="Rotated along axes; what leaves at the end enters at the start.",
)  # fmt: skip
movement(
    "tile", _tile_reference, _tile_shape,
    decompose=_tile, doc="Copies side by side; reps has at least x's rank.",
)  # fmt: skip
movement(
    "repeat", _repeat_reference, _repeat_shape,
    decompose=_repeat, doc="Each element repeated along an axis.",
)  # fmt: skip
movement(
    "stack", _stack_reference, _stack_shape, arity=None,
    decompose=_stack, doc="Joined along a new axis.",
)  # fmt: skip

# -- diagonals and triangles -----------------------------------------------------------------------


def _matrix_shape(name: str) -> ShapeRule:
    def shape(x: Aval, **_: Any) -> Shape:
        if len(x.shape) < 2:
            raise ShapeError(f"{name} needs at least two axes, got shape {x.shape}")
        return x.shape

    return shape


def _band(emit: Any, rows: int, columns: int, k: int, relation: str) -> Any:
    """Return the bool matrix ``column relation row + k``."""
    shape = (rows, columns)
    row_index = emit.iota(shape=shape, axis=0, dtype="<i8")
    column_index = emit.iota(shape=shape, axis=1, dtype="<i8")
    return getattr(emit, relation)(column_index, emit.add(row_index, k))


def _triangle(relation: str) -> Callable[..., Any]:
    def decompose(emit: Any, x: Any, *, k: int = 0) -> Any:
        kept = _band(emit, x.shape[-2], x.shape[-1], k, relation)
        return emit.where(kept, x, emit.constant(0, x.dtype))

    return decompose


def diagonal_length(rows: int, columns: int, offset: int) -> int:
    """Return the length of a diagonal, 0 where it lies outside."""
    return max(min(rows + min(offset, 0), columns - max(offset, 0)), 0)


def _diagonal_shape(x: Aval, *, offset: int = 0) -> Shape:
    _matrix_shape("diagonal")(x)
    return (*x.shape[:-2], diagonal_length(x.shape[-2], x.shape[-1], offset))


def _diagonal_reference(x: Array, *, offset: int = 0) -> Array:
    return np.diagonal(x, offset, -2, -1)


def _diagonal(emit: Any, x: Any, *, offset: int = 0) -> Any:
    *lead, rows, columns = x.shape
    length = diagonal_length(rows, columns, offset)
    flat = emit.reshape(x, shape=(*lead, rows * columns))
    start = offset if offset >= 0 else -offset * columns
    # In C order the next element of the diagonal is one row and one column on.
    return cut(emit, flat, len(lead), start if length else 0, length, columns + 1)


def _trace(emit: Any, x: Any, *, offset: int = 0) -> Any:
    diagonal = _diagonal(emit, x, offset=offset)
    return emit.sum(diagonal, axis=(len(diagonal.shape) - 1,), keepdims=False)


def _diag_shape(x: Aval, *, k: int = 0) -> Shape:
    if not x.shape:
        raise ShapeError("diag needs at least one axis, got a 0-d value")
    n = x.shape[-1] + abs(k)
    return (*x.shape[:-1], n, n)


def _diag_reference(x: Array, *, k: int = 0) -> Array:
    n = x.shape[-1] + abs(k)
    result = np.zeros((*x.shape[:-1], n, n), x.dtype)
    index = np.arange(x.shape[-1], dtype=np.int64)
    result[..., index + max(-k, 0), index + max(k, 0)] = x
    return result


def _diag(emit: Any, x: Any, *, k: int = 0) -> Any:
    n = x.shape[-1] + abs(k)
    zero = emit.constant(0, x.dtype)
    lead = (0,) * (len(x.shape) - 1)
    low, high = (0, k) if k >= 0 else (-k, 0)
    # Row i holds x[i] (k ≥ 0) or x[i + k] (k < 0): pad to n rows, then spread along columns.
    padded = emit.pad(x, zero, low=(*lead, low), high=(*lead, high))
    column = emit.reshape(padded, shape=(*x.shape[:-1], n, 1))
    return emit.where(_band(emit, n, n, k, "equal"), column, zero)


def _tril_reference(x: Array, *, k: int = 0) -> Array:
    return np.tril(x, k)


def _triu_reference(x: Array, *, k: int = 0) -> Array:
    return np.triu(x, k)


def _trace_reference(x: Array, *, offset: int = 0) -> Array:
    return np.asarray(np.trace(x, offset, -2, -1))


def _trace_shape(x: Aval, *, offset: int = 0) -> Shape:
    return _diagonal_shape(x, offset=offset)[:-1]


movement(
    "tril", _tril_reference, _matrix_shape("tril"),
    decompose=_triangle("less_equal"), doc="Zero above the k-th diagonal.",
)  # fmt: skip
movement(
    "triu", _triu_reference, _matrix_shape("triu"),
    decompose=_triangle("greater_equal"), doc="Zero below the k-th diagonal.",
)  # fmt: skip
movement(
    "diagonal", _diagonal_reference, _diagonal_shape,
    decompose=_diagonal, doc="A diagonal of the last two axes.",
)  # fmt: skip
movement(
    "diag", _diag_reference, _diag_shape,
    decompose=_diag, doc="Matrices with x on the k-th diagonal, zero elsewhere.",
)  # fmt: skip
row(
    "trace",
    Family.COMPOSITE,
    _trace_reference,
    arity=1,
    types=common_types("trace", result=accumulator),
    shape=_trace_shape,
    decompose=_trace,
    doc="The sum of a diagonal of the last two axes.",
)
