"""Joins of pieces of an array that follow each other in a ring become cycles of it.

    concat(x[n−k:], x[:n−k])  →  cycle(x; start n−k, size n)

``np.roll`` and ``np.pad(mode="wrap")`` decompose into such joins, and people write them. A join is
stored piece by piece; a cycle is an index map with seams, so that a stencil with periodic borders
is one kernel.
"""

from __future__ import annotations

from typing import cast

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.graph.passes.rules import is_op, same_if_unchanged, window

# How often a cycle may go round: there is a seam for each time.
_MOST_TURNS = 4


def run(graph: Graph) -> Graph:
    """Return the graph with cycles for the joins that are one."""
    if not any(is_op(node, "concat") for node in graph.nodes):
        return graph

    def step(node: Node, operands: tuple[Node, ...]) -> Node | None:
        if not is_op(node, "concat") or len(operands) < 2 or any(o.size == 0 for o in operands):
            return None
        first = operands[0]
        axis = cast(int, node.attrs["axis"])
        for x in (first, *(first.inputs if is_op(first, "slice") else ())):
            start = _begin(x, operands, axis)
            if start is not None and start + node.shape[axis] <= _MOST_TURNS * x.shape[axis]:
                return _cycle(node, x, axis, start)
        return None

    return same_if_unchanged(graph, graph.rewrite(step))


def _begin(x: Node, pieces: tuple[Node, ...], axis: int) -> int | None:
    """Return where the first of ``pieces`` of ``x`` begins, if each begins where one ends."""
    found: int | None = None
    place = 0
    for piece in pieces:
        start = _piece(x, piece, axis)
        if start is None:
            return None
        if found is None:
            found = place = start
        if start != place and not (start == 0 and place == x.shape[axis]):
            return None
        place = start + piece.shape[axis]
    return found


def _piece(x: Node, piece: Node, axis: int) -> int | None:
    """Return where ``piece`` begins along ``axis``, if it is a run of whole slices of ``x``."""
    if piece is x:
        return 0
    if not is_op(piece, "slice") or piece.inputs != (x,):
        return None
    start, size, step = window(piece)
    for position, (s, n, t) in enumerate(zip(start, size, step, strict=True)):
        if (t != 1 and n != 1) or (position != axis and (s != 0 or n != x.shape[position])):
            return None
    return start[axis]


def _cycle(node: Node, x: Node, axis: int, start: int) -> Node:
    """Return ``node`` as a cycle of ``x``, or of what that is turned from."""
    size = node.shape[axis]
    if is_op(x, "cycle") and x.attrs["axis"] == axis and x.inputs[0].shape == x.shape:
        start = (start + cast(int, x.attrs["start"])) % x.shape[axis]
        (x,) = x.inputs
    if start == 0 and size == x.shape[axis]:
        return x
    return Emit(node.loc).cycle(x, axis=axis, start=start, size=size)
