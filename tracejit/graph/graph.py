"""A graph: the nodes that some outputs need, with networkx's view of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tracejit.graph.node import Node, make

if TYPE_CHECKING:
    import networkx

Digraph = Any


def reachable(outputs: Iterable[Node]) -> list[Node]:
    """Return the nodes that ``outputs`` depend on, in topological order (operands first).

    Nodes with operands come as they were made, leaves before the first that reads them: a constant
    may be older than the graph, and the order shall not tell.
    """
    outputs = tuple(outputs)
    seen: set[Node] = set(outputs)
    stack = list(seen)
    while stack:
        for operand in stack.pop().inputs:
            if operand not in seen:
                seen.add(operand)
                stack.append(operand)
    order: dict[Node, None] = {}
    for node in sorted((n for n in seen if n.inputs), key=lambda n: n.serial):
        for operand in node.inputs:
            if not operand.inputs:
                order[operand] = None
        order[node] = None
    return [*order, *(n for n in dict.fromkeys(outputs) if n not in order)]


class Graph:
    """Inputs and outputs, and everything between. Immutable: a pass returns a new graph.

    ``nodes`` are those the outputs need, in topological order, where the caller has them.
    """

    def __init__(
        self, inputs: Sequence[Node], outputs: Sequence[Node], nodes: list[Node] | None = None
    ):
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        if nodes is not None:
            self.nodes = nodes

    @cached_property
    def nodes(self) -> list[Node]:
        """The nodes the outputs need, in topological order."""
        return reachable(self.outputs)

    @cached_property
    def nx(self) -> networkx.DiGraph[Node]:
        """The graph as networkx sees it: edges run from operand to user.

        An edge's ``operands`` lists the positions at which the user takes the operand.
        """
        import networkx

        graph: networkx.DiGraph[Node] = networkx.DiGraph()
        graph.add_nodes_from(self.nodes)
        for node in self.nodes:
            for position, operand in enumerate(node.inputs):
                if graph.has_edge(operand, node):
                    graph.edges[operand, node]["operands"] += (position,)
                else:
                    graph.add_edge(operand, node, operands=(position,))
        return graph

    @cached_property
    def users(self) -> dict[Node, list[Node]]:
        """The users of each node, in topological order, each once."""
        users: dict[Node, list[Node]] = {n: [] for n in self.nodes}
        for node in self.nodes:
            for operand in dict.fromkeys(node.inputs):
                users[operand].append(node)
        return users

    def rewrite(self, rule: Callable[[Node, tuple[Node, ...]], Node | None]) -> Graph:
        """Rebuild from the leaves up.

        ``rule(node, operands)`` gets each node with its rewritten operands and returns the
        replacement, or None for the same op on the rewritten operands.
        """
        # `image` holds changed nodes only: most passes change few, and a dict lookup that fails
        # is cheaper than rebuilding the tuple of operands.
        image: dict[Node, Node] = {}
        for node in self.nodes:
            operands = node.inputs
            if image and any(i in image for i in operands):
                operands = tuple([image.get(i, i) for i in operands])
            replacement = rule(node, operands)
            if replacement is None:
                if operands is node.inputs:
                    continue
                replacement = make(node.op, operands, node.attrs, node.loc)
            if replacement is not node:
                image[node] = replacement
        if not image:
            return self
        return Graph(self.inputs, [image.get(o, o) for o in self.outputs])

    def __repr__(self) -> str:
        counts = f"{len(self.inputs)} inputs, {len(self.nodes)} nodes, {len(self.outputs)} outputs"
        return f"<graph {counts}>"
