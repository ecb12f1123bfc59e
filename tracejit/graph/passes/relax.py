"""Rewrites that change rounding or special values: only under ``jit(fast_math=True)``.

    x / 3.0         →  x * (1 / 3.0)
    (x + 1.0) + 2.0 →  x + 3.0
    x - x           →  0

They assume what the user has promised: no NaN, no infinities, zeros without a sign, and
rounding differences of a few ULP.
"""

from __future__ import annotations

import math

import numpy as np

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, constant
from tracejit.graph.passes.rules import Rules, filled, like, operand_and_value, spread, value_of

rules = Rules()


def run(graph: Graph) -> Graph:
    """Return the graph with the relaxed rules applied, from the leaves up."""
    return rules.apply(graph)


def _relaxed(node: Node) -> bool:
    return node.dtype.kind == "f"


# (x + c) + d = x + (c + d);  (x * c) * d = x * (c * d)
def _merge_constants(node: Node) -> Node | None:
    outer = operand_and_value(node)
    if outer is None or outer[0].op is not node.op:
        return None
    inner = operand_and_value(outer[0])
    if inner is None:
        return None
    with np.errstate(all="ignore"):
        both = node.op.reference(node.dtype.type(inner[1]), node.dtype.type(outer[1]))
    if not np.isfinite(both):
        return None
    return spread(like(node, node.op.name, inner[0], constant(both, node.dtype, node.loc)), node)


# x + 0 = x
@rules.on("add")
def _add(node: Node) -> Node | None:
    if not _relaxed(node):
        return None
    found = operand_and_value(node)
    return spread(found[0], node) if found and found[1] == 0 else _merge_constants(node)


# x - 0 = x;  x - x = 0
@rules.on("subtract")
def _subtract(node: Node) -> Node | None:
    a, b = node.inputs
    if not _relaxed(node):
        return None
    if a is b:
        return filled(0, node)
    return spread(a, node) if value_of(b) == 0 else None


# x * 0 = 0
@rules.on("multiply")
def _multiply(node: Node) -> Node | None:
    if not _relaxed(node):
        return None
    found = operand_and_value(node)
    return filled(0, node) if found and found[1] == 0 else _merge_constants(node)


# x / x = 1;  x / c = x * (1 / c)
@rules.on("divide")
def _divide(node: Node) -> Node | None:
    a, b = node.inputs
    if not _relaxed(node):
        return None
    if a is b:
        return filled(1, node)
    value = value_of(b)
    if value and math.isfinite(value):
        limits, inverse = np.finfo(node.dtype), 1 / value
        if float(limits.smallest_normal) <= abs(inverse) <= float(limits.max):
            return like(node, "multiply", a, constant(inverse, node.dtype, node.loc))
    return None


# power(x, 1/2) = sqrt(x);  power(x, 4) = (x·x)²
@rules.on("power")
def _power(node: Node) -> Node | None:
    x, exponent = node.inputs[0], value_of(node.inputs[1])
    if not _relaxed(node):
        return None
    if exponent == 0.5:
        return spread(like(node, "sqrt", x), node)
    if exponent == 4:
        square = like(node, "multiply", x, x)
        return spread(like(node, "multiply", square, square), node)
    return None
