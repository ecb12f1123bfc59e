"""Composites into primitives.

    softmax(x, axis=1)  →  m = max(x); e = exp(x - m); e / sum(e)

Every op whose row has a ``decompose`` rule is expanded, also inside the expansions, until only
primitives are left. The new nodes keep the composite's source location.
"""

from __future__ import annotations

from tracejit.errors import InternalError
from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.graph.passes.rules import same_if_unchanged

# Composites made of composites made of …: deeper than any row; a rule that expands into itself
# would never end.
_DEPTH = 16


def run(graph: Graph) -> Graph:
    """Return the graph with primitives only."""
    for _ in range(_DEPTH):
        if not any(node.op.decompose for node in graph.nodes):
            return graph
        graph = same_if_unchanged(graph, graph.rewrite(_expand))
    left = sorted({node.op.name for node in graph.nodes if node.op.decompose})
    raise InternalError(f"decomposing does not end: {', '.join(left)}")


def _expand(node: Node, operands: tuple[Node, ...]) -> Node | None:
    if node.op.decompose is None:
        return None
    result: Node = node.op.decompose(Emit(node.loc), *operands, **node.attrs)
    if result.aval != node.aval:
        raise InternalError(
            f"{node.op.name}: inferred {node.dtype}{list(node.shape)}, "
            f"decomposed into {result.dtype}{list(result.shape)}",
            loc=node.loc,
        )
    return result
