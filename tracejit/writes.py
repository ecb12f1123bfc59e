"""Writes: a handle moves to a node with the new value, and a view's base with it.

The write to a view is a functional update of its base, movement by movement, so that every other
view of the base sees it at its next use.
"""

# These functions move handles: they share the class's slots.
# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from tracejit.errors import DTypeError, TraceError, UserError, ValueArgumentError
from tracejit.graph.node import Node
from tracejit.immediate import with_part
from tracejit.tensor import Tensor, View, cast, emit, keep
from tracejit.tracing import Trace, join, state, user_location


def _error(kind: Callable[..., UserError], message: str, hint: str | None = None) -> UserError:
    return kind(message, hint=hint, loc=user_location())


def write(tensor: Tensor, node: Node, trace: Trace | None) -> None:
    """Give ``tensor`` the value ``node`` (same dtype and shape); a view updates its base.

    Raises ``TraceError`` where a running trace would change a tensor made outside it: the
    change would happen once, while tracing, and not when the compiled function runs.
    """
    root = tensor if tensor._view is None else tensor._view.root
    running = state.trace
    if running is not None and root._birth is not running:
        raise _error(
            TraceError,
            f"{running.name} changes a tensor that was made outside it; "
            "the change would happen while tracing and never again",
            hint="change a copy (x = x.copy()), or return the new value",
        )
    if trace is not None:
        trace = join(root._trace, trace)
    written, value = tensor, node
    while (link := tensor._view) is not None:
        value = _through(link, value)
        tensor = link.base
    root._node = value
    root._version += 1
    if trace is not None:
        root._trace = trace
    elif root._trace is None:
        keep(root, value)
    if (link := written._view) is not None:
        written._node = node
        link.seen = root._version


def _through(link: View, value: Node) -> Node:
    """Return what a view's base becomes when ``value`` is written to the view."""
    base = link.base.node
    if link.key is not None and value.value is not None:
        known = with_part(base, link.key, value.value)
        if known is not None:
            return known
    before = [base]
    for name, attrs in link.steps:
        before.append(emit(name, (before[-1],), attrs))
    for (name, attrs), operand in zip(link.steps[::-1], before[-2::-1], strict=True):
        value = _INVERSE[name](operand, value, attrs)
    return value


def _unslice(before: Node, value: Node, attrs: Mapping[str, Hashable]) -> Node:
    return emit("update_slice", (before, value), attrs)


def _unreshape(before: Node, value: Node, attrs: Mapping[str, Hashable]) -> Node:
    return emit("reshape", (value,), {"shape": before.shape})


def _unpermute(before: Node, value: Node, attrs: Mapping[str, Any]) -> Node:
    axes: tuple[int, ...] = attrs["axes"]
    inverse = tuple(sorted(range(len(axes)), key=axes.__getitem__))
    return emit("permute", (value,), {"axes": inverse})


def _read_only(before: Node, value: Node, attrs: Mapping[str, Hashable]) -> Node:
    raise _error(
        ValueArgumentError,
        "this view repeats elements (broadcast, diagonal), so it is read-only",
        hint="assign to a copy: x = x.copy()",
    )


_INVERSE: dict[str, Callable[[Node, Node, Mapping[str, Any]], Node]] = {
    "slice": _unslice,
    "reshape": _unreshape,
    "permute": _unpermute,
    "broadcast_to": _read_only,
}


def store(tensor: Tensor, value: Tensor) -> None:
    """Write ``value`` (same shape) to ``tensor``, cast to its dtype by NumPy's same_kind rule."""
    dtype = tensor.dtype
    if value.dtype is not dtype and not np.can_cast(value.dtype, dtype, "same_kind"):
        raise _error(
            DTypeError,
            f"cannot store {value.dtype} in a tensor of {dtype} in place",
            hint=f"write x = x.astype('{value.dtype}') first, or drop the in-place form",
        )
    result = cast(value, dtype)
    write(tensor, result.node, result.traced_in)
