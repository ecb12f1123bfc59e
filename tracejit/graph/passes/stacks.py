"""Work on a stack becomes work on what is stacked.

    f(concat(x0, x1), y)        →  concat(f(x0, y[0:1]), f(x1, y[1:2]))
    sum(concat(x0, x1), axis)   →  x0 + x1

A stack that nobody needs as a whole is then never stored: the populations of a lattice, which are
moved apart, added up, and moved towards an equilibrium that is stacked too, are one kernel. The
order of a sum is that in which NumPy adds up rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, make
from tracejit.graph.passes.rules import is_op, same_if_unchanged, sliced
from tracejit.ops.reductions import COMBINE
from tracejit.ops.table import Family
from tracejit.sizes import is_one, is_size

# Parts of a stack, and nodes that a graph may get, at most.
_MOST, _ROOM = 16, 512


class Stack(NamedTuple):
    """A value that has ``parts`` parts of one element along ``axis``."""

    axis: int
    parts: int


def run(graph: Graph) -> Graph:
    """Return the graph with the work on stacks that nobody needs as a whole done on their parts."""
    stacks = _stacks(graph)
    moved = _moved(graph, stacks) if stacks else {}
    if not moved or sum(stack.parts for stack in moved.values()) > _ROOM:
        return graph

    def step(node: Node, operands: tuple[Node, ...]) -> Node | None:
        stack = moved.get(node)
        if stack is None:
            return None
        if node.op.name in COMBINE:
            return _chained(node, operands[0])
        rank = len(node.shape)
        parts: list[Node] = []
        for i in range(stack.parts):
            own = tuple(_part(node, o, stack.axis - rank, i) for o in operands)
            parts.append(make(node.op, own, node.attrs, node.loc))
        return Emit(node.loc).concat(*parts, axis=stack.axis)

    return same_if_unchanged(graph, graph.rewrite(step))


def _stacks(graph: Graph) -> dict[Node, Stack]:
    """Return the stacks of the graph, and what is computed from one element by element."""
    found: dict[Node, Stack] = {}
    for node in graph.nodes:
        if is_op(node, "concat"):
            axis = cast(int, node.attrs["axis"])
            if 2 <= len(node.inputs) <= _MOST and all(is_one(i.shape[axis]) for i in node.inputs):
                found[node] = Stack(axis, len(node.inputs))
        elif found and node.op.family is Family.ELEMENTWISE:
            mine = {
                s for i in node.inputs if (s := found.get(i)) and len(i.shape) == len(node.shape)
            }
            if len(mine) == 1 and _divides(node, *mine):
                found[node] = mine.pop()
    return found


def _divides(node: Node, stack: Stack) -> bool:
    """Whether every operand has an element for each part, or one for all of them."""
    place = stack.axis - len(node.shape)
    extents = [i.shape[place] for i in node.inputs if len(i.shape) >= -place]
    return not any(is_size(n) for n in extents)


def _moved(graph: Graph, stacks: Mapping[Node, Stack]) -> dict[Node, Stack]:
    """Return the work to do on parts: some operand is a stack that only such work reads."""

    def takes_parts(user: Node, stack: Stack) -> bool:
        if user.op.name in COMBINE:
            return user.attrs["axis"] == (stack.axis,)
        return stacks.get(user) == stack and not is_op(user, "concat")

    whole = set(graph.outputs)
    users = graph.users
    apart = {
        node
        for node, stack in stacks.items()
        if node not in whole and all(takes_parts(user, stack) for user in users[node])
    }
    return {user: stacks[node] for node in apart for user in users[node]}


def _part(node: Node, operand: Node, place: int, number: int) -> Node:
    """Return part ``number`` of an operand along axis ``place``, which counts from the end."""
    if len(operand.shape) < -place or operand.shape[place] == 1:
        return operand
    axis = len(operand.shape) + place
    if is_op(operand, "concat") and operand.attrs["axis"] == axis:
        parts = operand.inputs
        if len(parts) == operand.shape[axis]:
            return parts[number]
    start = tuple(number if i == axis else 0 for i in range(len(operand.shape)))
    size = tuple(1 if i == axis else n for i, n in enumerate(operand.shape))
    return sliced(node, operand, start, size, (1,) * len(size))


def _chained(node: Node, operand: Node) -> Node:
    """Return a reduction over the parts of a stack as a chain."""
    emit = Emit(node.loc)
    (axis,) = cast(tuple[int, ...], node.attrs["axis"])
    total: Node | None = None
    for number in range(operand.shape[axis]):
        part = _part(node, operand, axis - len(operand.shape), number)
        alone = make(node.op, (part,), node.attrs, node.loc)
        total = alone if total is None else getattr(emit, COMBINE[node.op.name])(total, alone)
    assert total is not None
    return total
