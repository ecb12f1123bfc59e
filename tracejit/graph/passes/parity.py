"""Odd and even functions of an argument and of its negative are one.

    erf(x),  erf(-x)          →  e = erf(x),  -e
    sin(x * 2),  sin(x * -2)  →  s = sin(x * 2),  -s
    cosh(x), cosh(-x)         →  cosh(x), once

Where both signs occur, and only there, one call goes and at most one negation comes. These
functions are odd or even to the last bit, as the op table states: the code generator's work on
|x|, and so do NumPy's and the reference's.
"""

from __future__ import annotations

from collections.abc import Hashable

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.graph.passes.rules import like, operand_and_value, same_if_unchanged
from tracejit.ops.table import Fact

# What an argument is but for its sign: calls of one op with equal keys are merged.
Key = tuple[Hashable, ...]


def run(graph: Graph) -> Graph:
    """Return the graph with one call for each pair of arguments that differ in sign alone."""
    first: dict[Key, bool] = {}
    twins: set[Node] = set()
    for node in graph.nodes:
        if _has_parity(node):
            key, negative = _key(node)
            if negative != first.setdefault(key, negative):
                twins.add(node)
    if not twins:
        return graph
    rewritten: dict[Key, Node] = {}

    def step(node: Node, operands: tuple[Node, ...]) -> Node | None:
        if not _has_parity(node):
            return None
        key, _ = _key(node)
        if node in twins:
            kept = rewritten[key]
            return like(node, "negative", kept) if node.op.has(Fact.ODD) else kept
        result = node if operands == node.inputs else like(node, node.op.name, *operands)
        rewritten.setdefault(key, result)
        return result

    return same_if_unchanged(graph, graph.rewrite(step))


def _has_parity(node: Node) -> bool:
    """Whether ``node`` is an expensive odd or even function of real floats."""
    facts = node.op.facts
    return bool(facts & (Fact.ODD | Fact.EVEN)) and node.dtype.kind == "f"


def _key(node: Node) -> tuple[Key, bool]:
    """Return what decides f(|x|), and whether ``x`` has a minus sign in front of that."""
    x = node.inputs[0]
    call = (node.op.name, node.shape, node.dtype)
    if x.op.name == "negative":
        return (*call, x.inputs[0]), True
    found = operand_and_value(x) if x.op.name == "multiply" else None
    if found is None:
        return (*call, x), False
    return (*call, found[0], abs(found[1])), bool(found[1] < 0)
