"""Rewrite rules: the table they register in, the driver, and the matching vocabulary.

A rule takes a node whose operands are simplified already and returns an equal node, or None.
Laws every rule keeps, and the driver checks the first:

1. the replacement has the node's dtype and shape;
2. it has the node's value for every input, NaN, infinities and signed zeros included (which NaN
   comes out of an operation on NaNs — its sign and payload — is left open, as in IEEE 754);
3. it costs no more, also where the matched operand has other users;
4. it gets smaller by some measure, so that rewriting ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from tracejit.errors import InternalError
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, constant, make
from tracejit.ops.table import Fact, Shape
from tracejit.sizes import is_size

Rule = Callable[[Node], Node | None]

# A node is rewritten at most this often in a row; the laws make it end long before.
_LIMIT = 64


class Rules:
    """Rules by op name, and general ones that look at an op's facts or family."""

    def __init__(self) -> None:
        self.by_op: dict[str, list[Rule]] = {}
        self.general: list[Rule] = []

    def on(self, *names: str) -> Callable[[Rule], Rule]:
        """Register a rule for the ops of these names."""

        def register(rule: Rule) -> Rule:
            for name in names:
                self.by_op.setdefault(name, []).append(rule)
            return rule

        return register

    def everywhere(self, rule: Rule) -> Rule:
        """Register a rule that decides by the op's row whether it applies."""
        self.general.append(rule)
        return rule

    def simplify(self, node: Node) -> Node:
        """Rewrite ``node`` at its root until no rule applies."""
        for _ in range(_LIMIT):
            replacement = self._step(node)
            if replacement is None:
                return node
            node = replacement
        raise InternalError(f"{node.op.name}: rewriting does not end", loc=node.loc)

    def _step(self, node: Node) -> Node | None:
        if not node.inputs:
            return None
        for rule in (*self.by_op.get(node.op.name, ()), *self.general):
            replacement = rule(node)
            if replacement is not None and replacement is not node:
                if replacement.dtype != node.dtype or replacement.shape != node.shape:
                    raise InternalError(
                        f"rule {rule.__name__} turned {node!r} into {replacement!r}", loc=node.loc
                    )
                return replacement
        return None

    def apply(self, graph: Graph) -> Graph:
        """Rewrite the whole graph from the leaves up; the same graph where nothing changed."""

        def step(node: Node, operands: tuple[Node, ...]) -> Node:
            if operands != node.inputs:
                node = make(node.op, operands, node.attrs, node.loc)
            return self.simplify(node)

        return same_if_unchanged(graph, graph.rewrite(step))


def same_if_unchanged(before: Graph, after: Graph) -> Graph:
    """Return ``before`` where a pass changed nothing, so that what is cached on it stays."""
    return before if after.outputs == before.outputs else after


# -- matching --------------------------------------------------------------------------------------


def is_op(node: Node, *names: str) -> bool:
    return node.op.name in names


def scalar_of(node: Node) -> Node | None:
    """Return the ``constant`` that ``node`` is or broadcasts, else None.

    None for a constant that is a symbolic size: what it is differs from call to call.
    """
    found = node.inputs[0] if node.op.name == "broadcast_to" else node
    known = found.op.name == "constant" and not is_size(found.attrs["value"])
    return found if known else None


def value_of(node: Node) -> Any | None:
    """Return the Python value all elements have, or None."""
    found = scalar_of(node)
    return None if found is None else found.attrs["value"]


def operand_and_value(node: Node) -> tuple[Node, Any] | None:
    """Match ``op(x, c)``, and ``op(c, x)`` too where the op commutes; return ``(x, c)``."""
    a, b = node.inputs
    value = value_of(b)
    if value is not None:
        return a, value
    if node.op.obeys(Fact.COMMUTATIVE, node.inputs[0].dtype):
        value = value_of(a)
        if value is not None:
            return b, value
    return None


def is_plus_zero(value: Any) -> bool:
    """True for 0, False, 0.0 and 0+0j, not for their negatives."""
    if isinstance(value, complex):
        return is_plus_zero(value.real) and is_plus_zero(value.imag)
    return value == 0 and math.copysign(1.0, value) > 0


def is_minus_zero(value: Any) -> bool:
    """True for -0.0 and -0.0-0.0j."""
    if isinstance(value, complex):
        return is_minus_zero(value.real) and is_minus_zero(value.imag)
    return value == 0 and math.copysign(1.0, value) < 0


def is_exact(node: Node) -> bool:
    """True for bool and integer values, whose arithmetic is a ring."""
    return node.dtype.kind in "biu"


# -- building --------------------------------------------------------------------------------------


def like(node: Node, op: str, *inputs: Node, **attrs: Any) -> Node:
    """Return ``op(*inputs)``, located where ``node`` is."""
    return make(op, inputs, attrs, node.loc)


def spread(x: Node, node: Node) -> Node:
    """Return ``x`` broadcast to the shape of ``node``."""
    return x if x.shape == node.shape else like(node, "broadcast_to", x, shape=node.shape)


def filled(value: Any, node: Node) -> Node:
    """Return the constant ``value`` in ``node``'s dtype and shape."""
    return spread(constant(value, node.dtype, node.loc), node)


def shape_attr(node: Node, name: str = "shape") -> Shape:
    """Return an attribute that is a tuple of ints."""
    return cast(Shape, node.attrs[name])


def window(node: Node) -> tuple[Shape, Shape, Shape]:
    """Return ``start, size, step`` of a slice or update_slice."""
    return shape_attr(node, "start"), shape_attr(node, "size"), shape_attr(node, "step")


def sliced(
    node: Node, x: Node, start: Sequence[int], size: Sequence[int], step: Sequence[int]
) -> Node:
    """Return the slice of ``x``, located where ``node`` is."""
    return like(node, "slice", x, start=tuple(start), size=tuple(size), step=tuple(step))
