"""Operands of products that are reshapes of views: several axes of the view in one of the matrix.

    P[n, c·kh·kw, oh·ow]  =  reshape(permute(windows(x)))

No index map leads through such a reshape, since a row of P is no walk of one stride in x. A
product can pack its right operand from there all the same, block by block, if each axis of the
matrix is a run of axes of the view. Then nothing is stored but x. If x is a value that is padded
with zeros, not even that: what lies outside of the value is zero (``Border``).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import copysign, prod
from typing import NamedTuple, cast

from tracejit.graph.node import Node
from tracejit.ops.movement import axis_runs
from tracejit.schedule.index import Map

# Places in an image are packed by 32-bit indices.
MAX_SIZE = 2**31
# Taps that a product knows the edges of a padded operand for, each for itself.
MAX_TAPS = 256


class Walk(NamedTuple):
    """One axis of a view: its extent and its stride, in elements."""

    extent: int
    stride: int


class Border(NamedTuple):
    """A padded axis: an element is there where 0 ≤ start + Σ depths·d + Σ columns·c < ``extent``
    for the positions d and c along the walks; elsewhere it is zero."""

    extent: int
    start: int
    depths: tuple[int, ...]
    columns: tuple[int, ...]


class Walks(NamedTuple):
    """How the depths and the columns of a right operand lead through memory, outermost first,
    from ``start`` elements after its access. What lies outside of the ``borders`` is zero."""

    depths: tuple[Walk, ...]
    columns: tuple[Walk, ...]
    borders: tuple[Border, ...] = ()
    start: int = 0


def merges_axes(node: Node) -> bool:
    """Whether ``node`` is a reshape that a product can read its right operand through."""
    if node.op.name != "reshape" or not 0 < node.size < MAX_SIZE:
        return False
    found = axis_runs(node.shape, node.inputs[0].shape)
    return found is not None and all(len(axes) <= 1 for axes in found[:-2])


def within_padding(node: Node, index: Map, view: Node) -> Map | None:
    """Return the map into the operand of ``node``, a padding with zeros that is read at ``index``
    through a reshape of ``view`` that merges its axes; None where it is something else.

    The map leads out of the operand where that is padded.
    """
    if node.op.name != "pad" or not _is_zero(node.inputs[1]) or 0 in node.inputs[0].shape:
        return None
    low = cast(tuple[int, ...], node.attrs["low"])
    extents = view.inputs[0].shape
    *_, depths, columns = cast("list[list[int]]", axis_runs(view.shape, extents))
    inside = {a for part in padded_axes(node) for a in index[part].axes if extents[a] != 1}
    first = next((i for i, axis in enumerate(depths) if axis in inside), len(depths))
    many = prod(extents[axis] for axis in depths[first:]) > MAX_TAPS
    if many or not inside <= {*depths, *columns}:
        return None
    return tuple(part._replace(offset=part.offset - n) for part, n in zip(index, low, strict=True))


def padded_axes(node: Node) -> list[int]:
    """Return the axes that a padding extends."""
    extents = zip(node.shape, node.inputs[0].shape, strict=True)
    return [axis for axis, (outer, inner) in enumerate(extents) if outer != inner]


def _is_zero(node: Node) -> bool:
    """Whether ``node`` is the constant 0, and not −0."""
    value = cast(float, node.attrs["value"]) if node.op.name == "constant" else None
    return value == 0 and copysign(1, value) > 0


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
