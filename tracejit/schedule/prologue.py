"""Prologues: elementwise work on an operand of a matrix product, done where that is packed.

A product copies blocks of its operands to panels. What an operand is computed from can be computed
there, so that it is never stored::

    q: int8[k, n]  →  (q.astype(f32) - zero) * scale  →  x @ …

Packing visits each element a few times, once for each panel of the other operand that is a
thousand wide; so the work is repeated little. It pays where the operand would need a kernel of its
own: where it widens narrow values, or is computed from what is in memory anyway. What can be the
epilogue of an earlier kernel stays there.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.graph.node import Node
from tracejit.schedule import native
from tracejit.schedule.index import VIEWS, Map, identity, through
from tracejit.sizes import hinted

_LEAVES = frozenset({"input", "data", "constant", "iota"})

# Flops for an element: beyond them packing takes longer than what it spares.
_MAX_COST = 64

# Rows, columns and depth from which on a product packs both operands.
_MIN_EXTENT = 128


def viewed(node: Node, index: Map, extents: Sequence[int]) -> tuple[Node, Map]:
    """Return the node that ``node`` is a view of, and the map it is read at; itself if it is none.

    A reshape that no index map leads through ends the way.
    """
    while node.op.name in VIEWS:
        below = through(node, index, extents)
        if below is None:
            break
        node, index = node.inputs[0], below
    return node, index


def base_of(node: Node) -> Node:
    """Return the node that ``node`` is a view of."""
    return viewed(node, identity(len(node.shape)), node.shape)[0]


def worth_packing(product: Node, operand: Node) -> bool:
    """Whether computing an operand of ``product`` where it is packed may pay.

    Narrow numbers against narrow ones are always packed. Otherwise the operand with the columns
    is: in blocks that are read at once. Packing rows makes the product pack its columns too,
    which few rows do not repay. (Measured with a ReLU: 8×1024×1024 takes 1.3 times as long
    with it in the packing, 64×1024×1024 1.7 times, from 512 rows on it is the faster.)
    """
    left, right = product.inputs
    if base_of(right).op.name in VIEWS:
        return False  # packed from a view that has no index map
    if all(widens(base_of(i)) for i in product.inputs):
        return True
    rows, columns, depth = hinted((left.shape[-2], right.shape[-1], left.shape[-1]))
    if columns == 1:  # the transpose is computed
        return operand is left and rows > 1
    if operand is right:
        return True
    return min(rows, columns, depth) >= _MIN_EXTENT


class Prologues:
    """Which nodes may be computed in the packing of a product, asked while a graph is fused."""

    def __init__(self, lowers: native.Lowers):
        self.lowers = lowers
        # What a value that is computed from memory alone costs for each element.
        self.costs: dict[Node, int | None] = {}

    def takes(self, node: Node) -> bool:
        """Whether packing may compute ``node`` from its operands."""
        if not native.is_elementwise(node, self.lowers):
            return False
        return widens(node) or self._cost(node) is not None

    def _cost(self, node: Node) -> int | None:
        """Return the cost of a value that is computed from memory; None for others."""
        stack = [node]
        while stack:
            top = stack[-1]
            if top in self.costs:
                stack.pop()
                continue
            missing = [i for i in self._below(top) if i not in self.costs]
            if missing:
                stack += missing
                continue
            self.costs[top] = self._own_cost(top)
            stack.pop()
        return self.costs[node]

    def _below(self, node: Node) -> tuple[Node, ...]:
        if node.op.name in VIEWS or native.is_elementwise(node, self.lowers):
            return node.inputs
        return ()

    def _own_cost(self, node: Node) -> int | None:
        if node.op.name in _LEAVES:
            return 0
        below = self._below(node)
        costs = [self.costs[i] for i in below]
        known = [c for c in costs if c is not None]
        if not below or len(known) < len(costs):
            return None
        total = sum(known) + (0 if node.op.name in VIEWS else native.cost(node))
        return total if total <= _MAX_COST else None


def widens(node: Node) -> bool:
    """Whether loading the operands of ``node`` moves at most half the bytes of its value."""
    distinct = dict.fromkeys(node.inputs)
    operands = [i for i in distinct if i.size > 1] or list(distinct)
    return bool(operands) and 2 * sum(i.nbytes for i in operands) <= node.nbytes
