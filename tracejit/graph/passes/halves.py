"""float16 is stored and moved as such, and computed with as float32.

    add(x, y)  →  cast(add(cast(x, float32), cast(y, float32)), float16)

Both have NumPy's bits: the sum, difference, product, quotient and root of two float16s, rounded to
float32 and then to float16, are what one rounding gives (S. A. Figueroa, "When is double rounding
innocuous?", 1995). A function that is made of several ops takes float32 from end to end and rounds
once; what depends on the dtype itself is taken apart first, so the pass runs before and after that.
"""

from __future__ import annotations

import numpy as np

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, make
from tracejit.graph.passes.rules import same_if_unchanged
from tracejit.ops.table import Family

HALF = np.dtype(np.float16)

# What only moves values, and what runs through NumPy, which has float16.
_KEPT_FAMILIES = frozenset(
    {
        Family.LEAF,
        Family.MOVEMENT,
        Family.INDEXING,
        Family.SORTING,
        Family.RANDOM,
        Family.LIBRARY,
    }
)
_KEPT = frozenset({"cast", "where", "nextafter", "spacing"})
# The largest float16, and the rounding of a bound, are part of the answer.
_TAKEN_APART_FIRST = frozenset({"nan_to_num", "isclose"})


def run(graph: Graph) -> Graph:
    """Return the graph without arithmetic of float16."""
    if not any(node.dtype == HALF for node in graph.nodes):
        return graph
    return same_if_unchanged(graph, graph.rewrite(_widened))


def _widened(node: Node, operands: tuple[Node, ...]) -> Node | None:
    name = node.op.name
    moves = node.op.family in _KEPT_FAMILIES and name != "advanced_combine"
    if moves or name in _KEPT or name in _TAKEN_APART_FIRST:
        return None
    if all(operand.dtype != HALF for operand in operands):
        return None
    emit = Emit(node.loc)
    wide = [emit.cast(o, np.float32) if o.dtype == HALF else o for o in operands]
    return emit.cast(make(node.op, wide, node.attrs, node.loc), node.dtype)
