"""Operands of products that are reshapes of views: several axes of the view in one of the matrix.

    P[n, c·kh·kw, oh·ow]  =  reshape(permute(windows(x)))

No index map leads through such a reshape, since a row of P is no walk of one stride in x. A
product can pack its right operand from there all the same, block by block, if each axis of the
matrix is a run of axes of the view. Then nothing is stored but x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tracejit.graph.node import Node
from tracejit.ops.movement import axis_runs

# Places in an image are packed by 32-bit indices.
MAX_SIZE = 2**31


class Walk(NamedTuple):
    """One axis of a view: its extent and its stride, in elements."""

    extent: int
    stride: int


def merges_axes(node: Node) -> bool:
    """Whether ``node`` is a reshape that a product can read its right operand through."""
    if node.op.name != "reshape" or not 0 < node.size < MAX_SIZE:
        return False
    found = axis_runs(node.shape, node.inputs[0].shape)
    return found is not None and all(len(axes) <= 1 for axes in found[:-2])


def collapsed(walks: Sequence[Walk]) -> list[Walk]:
    """Return the fewest walks, outermost first, that lead through the same elements."""
    result: list[Walk] = []
    for walk in walks:
        if result and result[-1].stride == walk.extent * walk.stride:
            walk = Walk(result.pop().extent * walk.extent, walk.stride)
        result.append(walk)
    return result


def offsets(walks: Sequence[Walk]) -> list[int]:
    """Return the offset of each element that the walks lead to, in their order."""
    found = [0]
    for extent, stride in walks:
        found = [base + i * stride for base in found for i in range(extent)]
    return found
