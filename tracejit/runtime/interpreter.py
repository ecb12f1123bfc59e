"""The NumPy interpreter: the semantics of every op, and the oracle of every test.

Runs a graph op by op through the table's references and drops each value after its last use.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tracejit.errors import InternalError
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.ops.table import Array


def evaluate_node(node: Node, operands: Sequence[Array]) -> Array:
    """Return the value of one node from its operands' values."""
    with np.errstate(all="ignore"):
        result = np.asarray(node.op.reference(*operands, **node.attrs))
    if result.dtype != node.dtype or result.shape != node.shape:
        raise InternalError(
            f"{node.op.name}: inferred {node.dtype}{list(node.shape)}, "
            f"the reference gave {result.dtype}{list(result.shape)}",
            loc=node.loc,
        )
    return result


def last_uses(graph: Graph) -> dict[Node, Node]:
    """Return for each operand the last node that reads it."""
    return {operand: node for node in graph.nodes for operand in node.inputs}


def run_graph(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """Return the values of the graph's outputs for ``inputs`` (by placeholder index)."""
    values: dict[Node, Array] = {}
    last = last_uses(graph)
    kept = set(graph.outputs)
    for node in graph.nodes:
        if node.op.name == "input":
            values[node] = inputs[node.attrs["index"]]  # type: ignore[index]
        elif node.op.name == "data":
            values[node] = node.value  # type: ignore[assignment]
        else:
            values[node] = evaluate_node(node, [values[i] for i in node.inputs])
        for operand in set(node.inputs):
            if last[operand] is node and operand not in kept:
                del values[operand]
    return [values[o] for o in graph.outputs]
