"""Indexing and assignment: ``x[key]`` and ``x[key] = value`` with NumPy's keys.

Integers, slices, ``...`` and ``None`` make a view: one ``slice`` step over all axes and one
``reshape`` that drops and adds axes. Integer arrays make an ``advanced_index`` (``take`` for one
array). A bool mask selects a number of elements that depends on data, so it is evaluated; inside a
trace it makes a ``selection``. Assigning one value, or a selection, under a mask is a ``where``.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np

from tracejit.errors import (
    DTypeError,
    IndexOutOfRange,
    ShapeError,
    TraceError,
    UserError,
    ValueArgumentError,
)
from tracejit.functions.arguments import (
    fail,
    is_array,
    is_integer,
    is_sequence,
    is_tuple,
)
from tracejit.functions.creation import asarray
from tracejit.functions.selection import Selection
from tracejit.graph.node import data
from tracejit.immediate import with_part
from tracejit.ops.table import Shape
from tracejit.sizes import as_index, is_size
from tracejit.tensor import Step, Tensor, apply, cast, lift, part, record, value_of, view, wrap
from tracejit.writes import write

_KEYS = "use integers, slices, ..., None, integer arrays or bool masks"


class Key(NamedTuple):
    """A key against a shape: a movement to ``steps``, then arrays along ``axes`` of its result."""

    steps: tuple[Step, ...]
    arrays: tuple[Tensor, ...]
    axes: tuple[int, ...]


class _Axis(NamedTuple):
    """What a key does to one axis of the operand: a slice, and an index array after it."""

    start: int
    size: int
    step: int
    dropped: bool = False
    array: Tensor | None = None


def getitem(x: Tensor, key: Any) -> Any:
    """Return ``x[key]``: a view for basic keys, a ``Selection`` for a traced mask, else a copy."""
    if _is_basic(key):
        small = part(x, key)
        if small is not None:
            return small
    elif isinstance(key, Tensor) and key.traced_in is not None and _is_mask(key):
        _check_mask(key, x.shape, 0)
        return Selection(x, key)
    parsed = parse(x, key)
    if not parsed.arrays:
        return view(x, parsed.steps)
    moved = view(x, parsed.steps) if parsed.steps else x
    if len(parsed.arrays) == 1:
        return record("take", (moved, parsed.arrays[0]), axis=parsed.axes[0])
    return record("advanced_index", (moved, *parsed.arrays), axes=parsed.axes)


def setitem(x: Tensor, key: Any, value: Any) -> None:
    """Assign to ``x[key]``; ``value`` broadcasts and takes the dtype of ``x``."""
    if _is_basic(key) and _assign_small(x, key, value):
        return
    if _is_mask(key):
        mask = lift(key)
        chosen = isinstance(value, Selection)
        assigned = _assigned(x, value.under(mask) if chosen else value)
        if chosen or assigned.ndim <= x.ndim - mask.ndim:
            _check_mask(mask, x.shape, 0)
            shape = mask.shape + (1,) * (x.ndim - mask.ndim)
            wide = mask if shape == mask.shape else apply("reshape", (mask,), shape=shape)
            chosen = record("where", (wide, assigned, x))
            if chosen.shape != x.shape:
                raise _no_fit(assigned.shape, x.shape)
            write(x, chosen.node, chosen.traced_in)
            return
    parsed = parse(x, key)
    if not parsed.arrays and isinstance(value, Tensor):
        link = value._view  # pyright: ignore[reportPrivateUsage]
        if link is not None and link.base is x and link.steps == parsed.steps:
            return  # x[key] += v: the view wrote through already
    target = view(x, parsed.steps) if parsed.steps else x
    assigned = _assigned(x, value)
    if parsed.arrays:
        result = record("advanced_update", (target, assigned, *parsed.arrays), axes=parsed.axes)
    else:
        result = _spread(assigned, target.shape)
    write(target, result.node, result.traced_in)


def _assign_small(x: Tensor, key: Any, value: Any) -> bool:
    """Assign by NumPy if that is a small matter of known values; return whether it was."""
    source = value
    if isinstance(value, Tensor):
        link = value._view  # pyright: ignore[reportPrivateUsage]
        if link is not None and link.base is x and link.key == key:
            return True  # x[key] += v: the view wrote through already
        source = value.node.value
        if source is None or source.dtype != x.dtype:
            return False
    elif value.__class__ not in _NUMBERS:
        return False
    node = with_part(x.node, key, source)
    if node is not None:
        write(x, node, None)
    return node is not None


_NUMBERS = frozenset({bool, int, float})
_BASIC = frozenset({int, slice, type(None), type(...), np.int64, np.int32})


def _is_basic(key: Any) -> bool:
    """Return whether NumPy's own indexing reads ``key`` as a view, bar what is not told here."""
    kind = key.__class__
    return kind in _BASIC or (kind is tuple and _BASIC.issuperset(map(type, key)))


def _assigned(x: Tensor, value: Any) -> Tensor:
    """Return ``value`` in the dtype of ``x``, without leading axes of size 1 that ``x`` lacks."""
    found = lift(value) if not isinstance(value, (int, float, complex)) else lift(value, x.dtype)
    if found.dtype.kind == "c" and x.dtype.kind != "c":
        raise fail(
            DTypeError,
            f"cannot assign {found.dtype} to elements of {x.dtype}",
            "assign value.real, or make the target complex",
        )
    found = cast(found, x.dtype)
    extra = found.ndim - x.ndim
    if extra > 0 and all(n == 1 for n in found.shape[:extra]):
        found = apply("reshape", (found,), shape=found.shape[extra:])
    return found


def _spread(value: Tensor, shape: Shape) -> Tensor:
    if value.shape == shape:
        return value
    extra = value.ndim - len(shape)
    if extra > 0 and all(n == 1 for n in value.shape[:extra]):
        value = apply("reshape", (value,), shape=value.shape[extra:])
    try:
        return apply("broadcast_to", (value,), shape=shape) if value.shape != shape else value
    except ShapeError:
        raise _no_fit(value.shape, shape) from None


def _no_fit(value: Shape, target: Shape) -> UserError:
    return fail(ShapeError, f"cannot assign a value of shape {value} to a region of shape {target}")


# -- keys ------------------------------------------------------------------------------------------


def parse(x: Tensor, key: Any) -> Key:
    """Return the parsed key; raises ``IndexOutOfRange`` with the index, the axis and its size."""
    shape = x.shape
    if key.__class__ is int and shape:  # the most frequent key
        return Key(_row_steps(shape, _position(key, 0, shape)), (), ())
    items: list[Any] = list(key) if is_tuple(key) else [key]
    items = _without_ellipsis([_item(item) for item in items], shape)
    layout: list[_Axis | None] = []  # None is a new axis
    axis = 0
    for item in items:
        if item is None:
            layout.append(None)
        elif _is_slice(item):
            layout.append(_sliced(item, axis, shape))
            axis += 1
        elif isinstance(item, int):
            layout.append(_Axis(_position(item, axis, shape), 1, 1, dropped=True))
            axis += 1
        elif item.dtype.kind == "b":
            for index in _mask_indices(item, shape, axis):
                layout.append(_Axis(0, shape[axis], 1, array=index))
                axis += 1
        else:
            _check_range(item, axis, shape[axis])
            layout.append(_Axis(0, shape[axis], 1, array=item))
            axis += 1
    return _steps(shape, layout)


def _item(item: Any) -> Any:
    """Return an element of a key as None, ``...``, a slice, an int, or an index tensor."""
    if item is None or item is Ellipsis or _is_slice(item):
        return item
    if isinstance(item, (bool, np.bool_)):
        # A bool acts as a mask without axes: it adds one, with one element or with none.
        return wrap(data(np.asarray(item)))
    if is_integer(item):
        return as_index(item)
    if is_sequence(item) and not item:
        return wrap(data(np.zeros(0, np.int64)))
    if not (isinstance(item, Tensor) or is_array(item) or is_sequence(item)):
        try:
            return operator.index(item)
        except TypeError:
            pass
    try:
        index = lift(item)
    except DTypeError:
        text = f"a {type(item).__name__} is not an index"
        raise fail(IndexOutOfRange, text, _KEYS) from None
    if index.dtype.kind not in "biu":
        raise fail(IndexOutOfRange, f"{index.dtype} values are not indices", _KEYS)
    if index.ndim == 0 and index.dtype.kind != "b" and index.traced_in is None:
        return int(value_of(index, "an index").item())
    return index


def _is_slice(item: Any) -> bool:
    return isinstance(item, slice)


def _is_mask(key: Any) -> bool:
    return (isinstance(key, Tensor) or is_array(key)) and key.dtype == np.bool_ and key.ndim > 0


def _width(item: Any) -> int:
    """Return how many axes of the operand an element of a key takes."""
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if isinstance(item, Tensor) and item.dtype.kind == "b" else 1


def _without_ellipsis(items: list[Any], shape: Shape) -> list[Any]:
    used = sum(_width(item) for item in items)
    if used > len(shape):
        raise fail(
            IndexOutOfRange,
            f"{used} indices for a tensor of {len(shape)} axes (shape {shape})",
        )
    places = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(places) > 1:
        raise fail(IndexOutOfRange, "a key holds '...' more than once")
    place = places[0] if places else len(items)
    rest = [slice(None)] * (len(shape) - used)
    return [*items[:place], *rest, *items[place + 1 :]]


def _position(index: int, axis: int, shape: Shape) -> int:
    extent = shape[axis]
    if not -extent <= index < extent:
        raise fail(
            IndexOutOfRange, f"index {index} is out of range for axis {axis} with size {extent}"
        )
    return index + extent if index < 0 else index


def _sliced(item: slice, axis: int, shape: Shape) -> _Axis:
    try:
        start, stop, step = slice_indices(item, shape[axis])
    except ValueError:
        raise fail(ValueArgumentError, "a slice has step 0") from None
    except TraceError:
        raise
    except TypeError as error:
        raise fail(DTypeError, f"slice bounds must be whole numbers: {error}") from None
    size = range_length(start, stop, step)
    return _Axis(start, size, step) if size else _Axis(0, 0, 1)


def _check_range(index: Tensor, axis: int, extent: int) -> None:
    """Check indices whose values are at hand; others are checked when they are computed."""
    array = index.node.value
    if array is None or not array.size:
        return
    low, high = int(array.min()), int(array.max())
    if low < -extent or high >= extent:
        wrong = low if low < -extent else high
        raise fail(
            IndexOutOfRange, f"index {wrong} is out of range for axis {axis} with size {extent}"
        )


def _check_mask(mask: Tensor, shape: Shape, axis: int) -> None:
    for offset, size in enumerate(mask.shape):
        if size != shape[axis + offset]:
            raise fail(
                IndexOutOfRange,
                f"a mask has size {size} along axis {axis + offset}, where the tensor has size "
                f"{shape[axis + offset]}",
                "the mask's shape must be that of the axes it selects from",
            )


def _mask_indices(mask: Tensor, shape: Shape, axis: int) -> list[Tensor]:
    if mask.ndim == 0:
        raise fail(
            IndexOutOfRange,
            "a single bool inside a key selects nothing that has a name",
            "use x[None], or x[:0]",
        )
    _check_mask(mask, shape, axis)
    hint = "write tj.where(mask, x, other), which has a known shape, or x[mask] = value"
    array = value_of(mask, "indexing with a bool mask", hint)
    return [wrap(data(index)) for index in np.nonzero(array)]


def _row_steps(shape: Shape, position: int) -> tuple[Step, ...]:
    rest = shape[1:]
    zeros = (0,) * len(rest)
    cut = {"start": (position, *zeros), "size": (1, *rest), "step": (1,) * len(shape)}
    return ("slice", cut), ("reshape", {"shape": rest})


def _steps(shape: Shape, layout: list[_Axis | None]) -> Key:
    """Return the steps and arrays of a parsed key.

    Beside arrays, an integer counts as an array too (NumPy's rule decides where the indexed axes
    go), and new axes are made before the arrays apply.
    """
    axes = [a for a in layout if a is not None]
    advanced = any(a.array is not None for a in axes)
    steps: list[Step] = []
    if advanced:
        layout = [
            _Axis(0, n, 1, array=asarray(a.start)) if a is not None and a.dropped else a
            for a, n in zip(layout, _extents(layout, shape), strict=True)
        ]
        axes = [a for a in layout if a is not None]
    size = tuple(a.size for a in axes)
    if size != shape or any(a.step != 1 for a in axes):
        cut = {
            "start": tuple(a.start for a in axes),
            "size": size,
            "step": tuple(a.step for a in axes),
        }
        steps.append(("slice", cut))
    kept = [a for a in layout if a is None or not a.dropped]
    final = tuple(1 if a is None else a.size for a in kept)
    if final != size:
        steps.append(("reshape", {"shape": final}))
    found = [(i, a.array) for i, a in enumerate(kept) if a is not None and a.array is not None]
    return Key(tuple(steps), tuple(t for _, t in found), tuple(i for i, _ in found))


def _extents(layout: list[_Axis | None], shape: Shape) -> list[int]:
    sizes = iter(shape)
    return [1 if a is None else next(sizes) for a in layout]


# -- functions -------------------------------------------------------------------------------------


def checked_index(indices: Any, axis: int, extent: int) -> Tensor:
    """Return ``indices`` as a tensor of integers, checked where their values are at hand."""
    index = lift(indices)
    if index.size == 0 and not isinstance(indices, Tensor):
        index = cast(index, np.int64)
    if index.dtype.kind not in "iu":
        text = f"indices must be integers, got {index.dtype}"
        raise fail(DTypeError, text, "x[mask] takes a bool mask")
    _check_range(index, axis, extent)
    return index


def slice_indices(key: slice, extent: int) -> tuple[int, int, int]:
    """Return ``key.indices(extent)``; symbolic where a bound or the extent is."""
    parts = (key.start, key.stop, key.step, extent)
    if not any(is_size(part) for part in parts):
        return key.indices(extent)
    step = 1 if key.step is None else operator.index(key.step)
    if not step:
        raise ValueError("slice step cannot be zero")
    least, most = (0, extent) if step > 0 else (-1, extent - 1)

    def within(bound: Any, default: int) -> int:
        if bound is None:
            return default
        place = as_index(bound)
        if place < 0:
            place = place + extent
            return place if place > least else least
        return place if place < most else most

    first, last = (least, most) if step > 0 else (most, least)
    return within(key.start, first), within(key.stop, last), step


def range_length(start: int, stop: int, step: int) -> int:
    """Return ``len(range(start, stop, step))``; symbolic where a bound is."""
    if not is_size(start) and not is_size(stop):
        return len(range(start, stop, step))
    if step > 0:
        return (stop - start + step - 1) // step if start < stop else 0
    return (start - stop - step - 1) // -step if stop < start else 0
