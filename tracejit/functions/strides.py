"""When a reshape of a view is a view: NumPy's strides, followed without any memory.

Every root tensor counts as C-contiguous; the strides of a view (in elements) follow from the
movement steps that lead to it.
"""

from __future__ import annotations

from typing import Any

from tracejit.ops.table import Shape
from tracejit.tensor import Step, Tensor

Strides = tuple[int, ...]


def contiguous_strides(shape: Shape) -> Strides:
    """Return the strides of a C-contiguous array."""
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def reshaped(shape: Shape, strides: Strides, new: Shape) -> Strides | None:
    """Return the strides under ``new`` (of equal, nonzero size), or None where a copy is needed.

    Runs of old axes and runs of new axes that hold equally many elements are paired from the left;
    the old axes of a run must be steps of one regular walk.
    """
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    result = [0] * len(new)
    i = j = 0
    while i < len(old) and j < len(new):
        last_i, last_j = i + 1, j + 1
        old_size, new_size = old[i][0], new[j]
        while old_size != new_size:
            if new_size < old_size:
                new_size *= new[last_j]
                last_j += 1
            else:
                old_size *= old[last_i][0]
                last_i += 1
        for k in range(i, last_i - 1):
            if old[k][1] != old[k + 1][0] * old[k + 1][1]:
                return None
        step = old[last_i - 1][1]
        for k in range(last_j - 1, j - 1, -1):
            result[k] = step
            step *= new[k]
        i, j = last_i, last_j
    return tuple(result)


def _after(shape: Shape, strides: Strides, step: Step) -> tuple[Shape, Strides]:
    """Return shape and strides after one movement step."""
    name, attrs = step
    how: Any = attrs
    if name == "permute":
        axes: tuple[int, ...] = how["axes"]
        return tuple(shape[a] for a in axes), tuple(strides[a] for a in axes)
    if name == "slice":
        return how["size"], tuple(s * by for s, by in zip(strides, how["step"], strict=True))
    new: Shape = how["shape"]
    if name == "reshape":
        found = reshaped(shape, strides, new)
        # A step on record is a view already: only an empty one has no strides, and needs none.
        return new, found or contiguous_strides(new)
    lead = len(new) - len(shape)  # broadcast_to
    grown = tuple(
        0 if n == 1 and m != 1 else s for n, m, s in zip(shape, new[lead:], strides, strict=True)
    )
    return new, (0,) * lead + grown


def reshapes_in_place(x: Tensor, new: Shape) -> bool:
    """Return whether NumPy would make ``x.reshape(new)`` a view."""
    if x.base is None or x.size == 0:
        return True
    steps: list[Step] = []
    current = x
    while (link := current._view) is not None:  # pyright: ignore[reportPrivateUsage]
        steps.extend(reversed(link.steps))
        current = link.base
    if all(name == "reshape" for name, _ in steps):
        return True
    shape, strides = current.shape, contiguous_strides(current.shape)
    for step in reversed(steps):
        shape, strides = _after(shape, strides, step)
    return reshaped(shape, strides, new) is not None
