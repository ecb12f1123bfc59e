"""Padding an array with what follows from its elements; with a value, see ``movement.py``.

Modes that repeat elements decompose into slices that are joined, and so into copies and stores of
kernels. The others are left to NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tracejit.errors import ShapeError, ValueArgumentError
from tracejit.ops.movement import Ints, cut, movement, padded_shape
from tracejit.ops.table import Array, Aval, Family, Shape, row, same_types, without

# Modes that repeat elements, and those that compute others.
PAD_COPIES = ("edge", "reflect", "symmetric", "wrap")
PAD_MODES = (*PAD_COPIES, "linear_ramp", "maximum", "mean", "minimum")


def _pad_mode_shape(x: Aval, *, low: Ints, high: Ints, mode: str) -> Shape:
    if mode not in PAD_MODES:
        raise ValueArgumentError(f"pad: unknown mode {mode!r}", hint=", ".join(PAD_MODES))
    for axis, (a, n, b) in enumerate(zip(low, x.shape, high, strict=True)):
        if n == 0 and (a or b):
            raise ShapeError(f"pad: cannot extend empty axis {axis} of {x.shape} by mode {mode!r}")
    return padded_shape("pad", x, low, high)


def _pad_mode(x: Array, *, low: Ints, high: Ints, mode: Any) -> Array:
    return np.pad(x, list(zip(low, high, strict=True)), mode=mode)


def _extend(emit: Any, x: Any, *, low: Ints, high: Ints, mode: str) -> Any:
    """Extend axis by axis: a ring as a whole, else what is before and behind each by itself.

    So all pieces are pieces of ``x``, and go where they belong at once.
    """
    pieces = _PIECES[mode]

    def along(x: Any, axis: int) -> Any:
        if axis == len(x.shape):
            return x
        inner = along(x, axis + 1) if mode == "wrap" else x
        before = list(pieces(emit, inner, axis, low[axis], True))[::-1]
        after = list(pieces(emit, inner, axis, high[axis], False))
        parts = [*before, inner, *after]
        if mode != "wrap":
            parts = [along(part, axis + 1) for part in parts]
        return emit.concat(*parts, axis=axis) if len(parts) > 1 else parts[0]

    return along(x, 0)


def _edges(emit: Any, x: Any, axis: int, count: int, before: bool) -> Iterator[Any]:
    """Yield ``count`` copies of the first or the last element."""
    if count:
        edge = cut(emit, x, axis, 0 if before else x.shape[axis] - 1, 1)
        yield emit.broadcast_to(edge, shape=without(x.shape, axis, count))


def _wrapped(emit: Any, x: Any, axis: int, count: int, before: bool) -> Iterator[Any]:
    """Yield the pieces of ``count`` elements from ``x`` outwards, as if it were a ring."""
    n = x.shape[axis]
    while count:
        size = min(count, n)
        yield cut(emit, x, axis, n - size if before else 0, size)
        count -= size


def _reflected(emit: Any, x: Any, axis: int, count: int, before: bool) -> Iterator[Any]:
    """Yield the pieces of ``count`` elements from ``x`` outwards, mirrored in its end elements."""
    return _mirrored(emit, x, axis, count, before, 1)


def _doubled(emit: Any, x: Any, axis: int, count: int, before: bool) -> Iterator[Any]:
    """Yield the pieces of ``count`` elements from ``x`` outwards, mirrored behind its ends."""
    return _mirrored(emit, x, axis, count, before, 0)


def _mirrored(
    emit: Any, x: Any, axis: int, count: int, before: bool, skipped: int
) -> Iterator[Any]:
    """Yield pieces from ``x`` outwards, backwards and forwards by turns.

    Each leaves out the ``skipped`` element that the one before ends with.
    """
    n = x.shape[axis]
    if n == 1:
        yield from _edges(emit, x, axis, count, before)
        return
    backwards = True
    while count:
        size = min(count, n - skipped)
        if backwards:
            yield cut(emit, x, axis, skipped + size - 1 if before else n - 1 - skipped, size, -1)
        else:
            yield cut(emit, x, axis, n - skipped - size if before else skipped, size)
        backwards = not backwards
        count -= size


_PIECES: dict[str, Callable[[Any, Any, int, int, bool], Iterator[Any]]] = {
    "edge": _edges,
    "reflect": _reflected,
    "symmetric": _doubled,
    "wrap": _wrapped,
}

row(
    "pad_mode",
    Family.INDEXING,
    _pad_mode,
    arity=1,
    types=same_types("pad_mode", kinds="biufcV"),
    shape=_pad_mode_shape,
    doc="Extended by what numpy.pad's modes compute of it: linear_ramp, maximum, mean, minimum.",
)
movement(
    "extend", _pad_mode, _pad_mode_shape,
    decompose=_extend, doc="Extended by elements of its own: edge, reflect, symmetric, wrap.",
)  # fmt: skip
