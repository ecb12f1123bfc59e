"""Siblings: stored values that share no reader, but what they read.

The call and the put price of an option, the sine and the cosine of an angle, the least and the
largest value of a row: neither reads the other, so following readers never brings them together.
In one kernel their operands are loaded once, and what both compute is computed once::

    for i: b1[i] = sin(b0[i])
    for i: b2[i] = cos(b0[i])        →        for i: b1[i] = sin(b0[i]); b2[i] = cos(b0[i])
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, cast

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.ops.table import Family, Shape
from tracejit.schedule.cluster import Cluster
from tracejit.schedule.unroll import TINY
from tracejit.sizes import frozen, is_one

# Sources kept for a node, and kernels looked at for one: both bound the cost, not the result.
MAX_SOURCES = 8
MAX_LOOKED_AT = 4


class Siblings:
    """The kernels made so far by what they store, and where each value of the graph comes from."""

    def __init__(self, graph: Graph):
        self._origins = _origins(graph)
        self._homes: dict[Hashable, list[Cluster]] = {}

    def add(self, node: Node, cluster: Cluster) -> None:
        """Note the kernel that was made to store all of ``node``."""
        self._homes.setdefault(self._origins[node].kind, []).append(cluster)

    def find(self, node: Node, after: int) -> Cluster | None:
        """Return a kernel numbered above ``after`` that stores a sibling of ``node``."""
        mine = self._origins[node]
        for cluster in self._homes.get(mine.kind, ())[: -MAX_LOOKED_AT - 1 : -1]:
            if cluster.number <= after:
                return None
            other = self._origins[cluster.roots[0].node]
            if not mine.sources.isdisjoint(other.sources):
                return cluster
        return None


class Origin(NamedTuple):
    """Where a value comes from: some of the values that it is computed of element by element, and
    the loops that takes: its shape, and for a (function of a) reduction what is reduced.

    A last axis of a few coordinates that is not reduced is left out of a reduction's loops: it will
    be written out (unroll.py). So the forces on points find the points' energies."""

    kind: Hashable
    sources: frozenset[Node]


def _origins(graph: Graph) -> dict[Node, Origin]:
    found: dict[Node, Origin] = {}
    for node in graph.nodes:
        if node.op.family is Family.REDUCTION:
            operand = node.inputs[0]
            over = (node.attrs["axis"], node.attrs["keepdims"])
            shapes = (node.shape, operand.shape)
            if _has_coordinates(node):
                shapes = (node.shape[:-1], operand.shape[:-1])
            found[node] = Origin((*shapes, over), found[operand].sources)
        elif node.op.family is Family.ELEMENTWISE:
            found[node] = _elementwise(node, found)
        elif node.op.name == "reshape" and _same_but_ones(node.shape, node.inputs[0].shape):
            found[node] = found[node.inputs[0]]
        elif node.op.name == "reshape" and found[node.inputs[0]].kind == node.inputs[0].shape:
            found[node] = Origin(node.shape, found[node.inputs[0]].sources)
        else:
            found[node] = Origin(node.shape, frozenset({node}))
    return found


def _same_but_ones(shape: Shape, other: Shape) -> bool:
    return [n for n in shape if not is_one(n)] == [n for n in other if not is_one(n)]


def _has_coordinates(reduction: Node) -> bool:
    """Whether the last axis is that of coordinates, and is kept."""
    shape = reduction.inputs[0].shape
    axes = cast(tuple[int, ...], reduction.attrs["axis"])
    return bool(shape) and 2 <= shape[-1] <= TINY and len(shape) - 1 not in axes


def _elementwise(node: Node, found: dict[Node, Origin]) -> Origin:
    kind: Hashable = node.shape
    sources: set[Node] = set()
    for operand in node.inputs:
        if frozen(operand.shape) == frozen(node.shape) and len(sources) < MAX_SOURCES:
            below = found[operand]
            sources |= below.sources
            kind = below.kind if kind == node.shape else kind
    # What is larger than all that it is computed of, as the differences of all pairs of points.
    return Origin(kind, frozenset(sources or {node}))
