"""Elementwise work after a product stays in the product's shape.

    reshape(a @ b, [n, o, h, w]) + bias[o, 1, 1]  →  reshape(a @ b + bias[o, 1], [n, o, h, w])

A convolution is a product over all places of an image, h·w in one axis, with an axis for its
groups, and what follows it has the image's axes. With the reshape behind that work, both have the
same axes, and the product's kernel can do the work on what it has in registers. Other operands
must have the product's shape in place: leaves, other such reshapes, and whatever varies with none
of the axes that merge.
"""

from __future__ import annotations

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.graph.passes import movement
from tracejit.graph.passes.rules import is_op, like, same_if_unchanged
from tracejit.ops.movement import common_runs
from tracejit.ops.table import Family, Shape
from tracejit.sizes import frozen

# Values in memory, in C order: seen under another shape for nothing.
_STORED = ("input", "data", "matmul", "pad", "concat")


def run(graph: Graph) -> Graph:
    """Return the graph with reshapes of products behind the elementwise work on them."""
    if not any(is_op(node, "matmul") for node in graph.nodes):
        return graph
    return same_if_unchanged(graph, graph.rewrite(_Sinker().step))


class _Sinker:
    """One run of the pass. ``products``: products, and elementwise work in their shape."""

    def __init__(self) -> None:
        self.products: set[Node] = set()

    def step(self, node: Node, operands: tuple[Node, ...]) -> Node | None:
        if node.op.family is Family.ELEMENTWISE:
            result = self._sunk(node, operands)
            if result is not None:
                self.products.add(result.inputs[0])
                return result
        elif not is_op(node, "matmul"):
            return None
        result = node
        if operands != node.inputs:
            result = like(node, node.op.name, *operands, **node.attrs)
        shaped = any(o in self.products and frozen(o.shape) == frozen(node.shape) for o in operands)
        if shaped or is_op(node, "matmul"):
            self.products.add(result)
        return result

    def _sunk(self, node: Node, operands: tuple[Node, ...]) -> Node | None:
        for operand in operands:
            if is_op(operand, "reshape") and operand.inputs[0] in self.products:
                source = operand.inputs[0].shape
                if operand.shape != node.shape or 0 in source or _same(source, node.shape):
                    continue
                runs = common_runs(source, node.shape)
                moved = [_merged(o, source, node.shape, runs) for o in operands]
                if None in moved:
                    continue
                work = like(node, node.op.name, *(m for m in moved if m is not None), **node.attrs)
                return like(node, "reshape", work, shape=node.shape)
        return None


def _same(source: Shape, full: Shape) -> bool:
    """Whether only axes of extent 1 differ."""
    return [n for n in source if n != 1] == [n for n in full if n != 1]


def _merged(
    node: Node, source: Shape, full: Shape, runs: list[tuple[list[int], list[int]]]
) -> Node | None:
    """Return an operand of work of shape ``full`` as one of shape ``source``, None if that costs.

    ``runs`` are the axes of ``source`` and those of ``full`` that have the same elements.
    """
    if not node.shape:
        return node
    own = (1,) * (len(full) - len(node.shape)) + node.shape
    shape: list[int] = []
    merges = False
    for parts, axes in runs:
        mine = [own[a] for a in axes]
        if all(n == 1 for n in mine):
            shape += [1] * len(parts)
        elif mine == [full[a] for a in axes]:
            shape += [source[a] for a in parts]
            merges |= len(axes) > 1
        else:
            return None
    if is_op(node, "reshape") and node.inputs[0].shape == tuple(shape):
        return node.inputs[0]
    if merges and not is_op(node, *_STORED):
        return None
    return movement.rules.simplify(like(node, "reshape", node, shape=tuple(shape)))
