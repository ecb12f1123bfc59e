"""Canonical order: equal computations get equal graphs, however they were written down.

    2.0 * x   →  x * 2.0            (a constant stands on the right)
    b + a     →  a + b              (by structure, not by when it was traced)

Two steps. Operands of commutative ops are ordered, so that ``a + b`` and ``b + a`` become one
node. Then the nodes are listed in post-order from the outputs, so that the list does not depend
on what else was traced before: the fingerprint, the schedule and the text form follow it.

``maximum``, ``minimum``, ``fmax`` and ``fmin`` of floats keep their operands' order: NumPy's
maximum of 0.0 and -0.0 is its second operand. Sums and products of NaNs commute up to the NaN's
payload, which IEEE 754 leaves open.
"""

from __future__ import annotations

from zlib import crc32

from tracejit import sizes
from tracejit.digest import blake2b
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, make
from tracejit.graph.passes.rules import scalar_of
from tracejit.ops.table import Fact

_ZERO_SIGN = frozenset({"maximum", "minimum", "fmax", "fmin"})


def run(graph: Graph) -> Graph:
    """Return the graph with ordered operands and its nodes in canonical order."""
    codes: dict[Node, int] = {}

    def step(node: Node, operands: tuple[Node, ...]) -> Node:
        if len(operands) == 2 and commutes(node):
            a, b = operands
            if _rank(b, codes) < _rank(a, codes):
                operands = (b, a)
        same = operands == node.inputs
        result = node if same else make(node.op, operands, node.attrs, node.loc)
        if result not in codes:
            codes[result] = _code(result, codes)
        return result

    ordered = graph.rewrite(step)
    ordered.nodes = canonical_nodes(ordered)
    return ordered


def commutes(node: Node) -> bool:
    """True where exchanging the two operands changes no bit of the result (NaN payloads aside)."""
    if not node.op.obeys(Fact.COMMUTATIVE, node.inputs[0].dtype):
        return False
    return node.op.name not in _ZERO_SIGN or node.inputs[0].dtype.kind not in "fc"


def _rank(node: Node, codes: dict[Node, int]) -> tuple[bool, int]:
    return scalar_of(node) is not None, codes[node]


def _code(node: Node, codes: dict[Node, int]) -> int:
    """Return a hash of the structure below ``node``; equal structures have equal codes."""
    attrs = node.attrs
    if node.op.name == "input":
        attrs = {k: v for k, v in attrs.items() if k != "name"}
    # Any order of operands is right: which sizes are symbolic must not change it.
    listed = sorted(attrs.items())
    if sizes.families:
        listed = list(sizes.hinted(listed))
    described = repr((node.op.name, listed, [codes[i] for i in node.inputs]))
    return crc32(described.encode())


def canonical_nodes(graph: Graph) -> list[Node]:
    """Return the nodes in post-order from the outputs: operands first, left to right."""
    order: list[Node] = []
    done: set[Node] = set()
    for output in graph.outputs:
        stack = [output]
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
                continue
            waiting = [i for i in node.inputs if i not in done]
            if waiting:
                stack += reversed(waiting)
            else:
                stack.pop()
                done.add(node)
                order.append(node)
    return order


def fingerprint(graph: Graph) -> str:
    """Return a digest of the graph's structure: ops, attributes, dtypes, shapes, edges, outputs.

    Equal for equal graphs in every process. Values of ``data`` leaves, names of inputs and
    source locations are left out.
    """
    index = {node: i for i, node in enumerate(graph.nodes)}
    digest = blake2b(digest_size=16)
    for node in graph.nodes:
        attrs = sorted((k, v) for k, v in node.attrs.items() if k != "name")
        digest.update(repr((node.op.name, attrs, [index[i] for i in node.inputs])).encode())
    slots = [(n.dtype.str, n.shape, index.get(n)) for n in graph.inputs]
    digest.update(repr((slots, [index[o] for o in graph.outputs])).encode())
    return digest.hexdigest()
