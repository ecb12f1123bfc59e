"""Joins of the two ends of an array, swapped, become rotations of it.

    concat(x[n−k:], x[:n−k])  →  rotate(x, k)

``np.roll`` decomposes into such joins, and people write them. A join is stored piece by piece; a
rotation is an index map with a seam, so that a stencil with periodic borders is one kernel.
"""

from __future__ import annotations

from typing import cast

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.graph.passes.rules import is_op, same_if_unchanged, window


def run(graph: Graph) -> Graph:
    """Return the graph with rotations for joins that are one."""
    if not any(is_op(node, "concat") for node in graph.nodes):
        return graph

    def step(node: Node, operands: tuple[Node, ...]) -> Node | None:
        if not is_op(node, "concat") or len(operands) != 2:
            return None
        last, first = operands
        axis = cast(int, node.attrs["axis"])
        if not _swapped(last, first, axis):
            return None
        (x,) = last.inputs
        shift = last.shape[axis]
        if is_op(x, "rotate") and x.attrs["axis"] == axis:
            (x,), shift = x.inputs, (shift + cast(int, x.attrs["shift"])) % x.shape[axis]
        return Emit(node.loc).rotate(x, shift=shift, axis=axis) if shift else x

    return same_if_unchanged(graph, graph.rewrite(step))


def _swapped(last: Node, first: Node, axis: int) -> bool:
    """Whether the operands are all that is behind a place along ``axis``, and all before it."""
    if not (is_op(last, "slice") and is_op(first, "slice")) or last.inputs != first.inputs:
        return False
    shape = last.inputs[0].shape
    if last.size == 0 or first.size == 0:
        return False
    place = first.shape[axis]
    for node, begin in ((last, place), (first, 0)):
        start, size, step = window(node)
        for position, (s, n, t) in enumerate(zip(start, size, step, strict=True)):
            along = position == axis
            if (t != 1 and n != 1) or s != (begin if along else 0):
                return False
            if not along and n != shape[position]:
                return False
    return last.shape[axis] + place == shape[axis]
