"""Products of a few terms become arithmetic, which fuses with whatever surrounds it.

    [m, k] @ [k, n]  →  sum([m, k, 1] * [1, k, n], axis=1)

Colours, points in space and outer products: such a product moves more bytes than it does
arithmetic, so a loop that has the work around it in the same pass is the better kernel. Measured
on one thread against the matrix kernels, least times: 1.6× at [500000, 3] @ [3, 3] and 5× with
elementwise work around it, 2.8× at [500000, 3] @ [3, 1], 1.4× at [1000, 2] @ [2, 1000]. Deeper
products and results of 5 to 31 columns are quicker in registers. So are batches of tiny matrices
by themselves, but not with work around them (5×). The products of attention have their kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.graph.passes.rules import is_op, same_if_unchanged
from tracejit.ops.table import Family, Shape
from tracejit.sizes import hint, is_size

# Columns that a loop packs into whole vectors, the least that fill vectors by themselves, and the
# least elements of a result: below, a call is what takes the time.
_FEW, _WIDE, _LEAST = 4, 32, 512
# How many nodes to look at for the other product of an attention.
_NEAR = 64


def run(graph: Graph) -> Graph:
    """Return the graph with thin products written out."""
    if not any(is_op(node, "matmul") for node in graph.nodes):
        return graph

    def step(node: Node, operands: tuple[Node, ...]) -> Node | None:
        if not is_op(node, "matmul") or node.dtype.kind != "f":
            return None
        a, b = operands
        if not a.dtype == b.dtype == node.dtype or not _is_thin(a.shape, b.shape):
            return None
        if _attends(graph, node) or (_is_batch(b.shape) and not _has_work_around(graph, node)):
            return None
        emit = Emit(node.loc)
        left = emit.reshape(a, shape=(*a.shape, 1))
        right = emit.reshape(b, shape=(*b.shape[:-2], 1, *b.shape[-2:]))
        return emit.sum(emit.multiply(left, right), axis=(len(node.shape) - 1,), keepdims=False)

    return same_if_unchanged(graph, graph.rewrite(step))


def _is_thin(a: Shape, b: Shape) -> bool:
    """Whether a product of operands of these shapes has few terms and room for vectors."""
    k, n = b[-2:]
    if is_size(k) or k > _FEW or k == 0:
        return False
    count = hint(n)
    for extent in a[:-1]:
        count *= hint(extent)
    if count < _LEAST:
        return False
    return (not is_size(n) and n <= _FEW) or (k < _FEW and hint(n) >= _WIDE)


def _is_batch(shape: Shape) -> bool:
    return any(is_size(extent) or extent != 1 for extent in shape[:-2])


def _has_work_around(graph: Graph, node: Node) -> bool:
    """Whether elementwise work makes an operand of ``node`` or takes its result."""
    return any(n.op.family is Family.ELEMENTWISE for n in (*node.inputs, *graph.users[node]))


def _attends(graph: Graph, node: Node) -> bool:
    """Whether an exponential and a product are near ``node``, on the way to it or from it."""
    return _meets(node, lambda n: n.inputs) or _meets(node, lambda n: graph.users[n])


def _meets(node: Node, ways: Callable[[Node], Sequence[Node]]) -> bool:
    seen: set[Node] = set()
    stack = [node]
    while stack and len(seen) < _NEAR:
        for other in ways(stack.pop()):
            if other not in seen:
                seen.add(other)
                if not is_op(other, "matmul"):
                    stack.append(other)
    return {"exp", "matmul"} <= {n.op.name for n in seen}
