"""Gathers and scatters: values at positions that are computed, as index maps with holes.

``take``, ``take_along_axis`` and indexing by arrays read their operand at an affine map along some
axes and at a computed position along others; ``put_along_axis`` and assignment to what arrays
index store to such places. A hole in the map stands for such a position: a loop axis beyond those
of the kernel, one for each index array.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from tracejit.graph.node import Node
from tracejit.ops.indexing import indexed_shape
from tracejit.ops.table import Shape, without
from tracejit.schedule.index import Affine, Map, axis_index, broadcast


class Position(NamedTuple):
    """One computed position: ``node``, read at ``where``, names an element of ``extent``."""

    node: Node
    where: Map
    extent: int


class Gathered(NamedTuple):
    """Where an element comes from: computed positions, and the map that has holes for them."""

    positions: tuple[Position, ...]
    holed: Map

    def extents(self, loops: list[int]) -> list[int]:
        """Return the extents of the loop axes, then those of the holes."""
        return [*loops, *(p.extent for p in self.positions)]


class Scatter(NamedTuple):
    """A scatter's parts: ``values`` go to the places of ``target`` that ``arrays`` name along
    ``axes``, in the order of a loop over ``shape``; ``op`` combines them with what is there."""

    target: Node
    values: Node
    arrays: tuple[Node, ...]
    axes: tuple[int, ...]
    along: bool
    shape: Shape
    op: str

    def to(self, index: Map, loops: int) -> Gathered:
        """Return where the values at ``index`` go; holes are axes from ``loops`` on."""
        return _holed(self.target.shape, self.arrays, self.axes, index, loops, along=self.along)

    def before(self, index: Map) -> Map:
        """Return the part of ``index`` for the axes of the target before the indexed ones."""
        return self.to(index, 0).holed[: min(self.axes)]


def scatter_of(node: Node) -> Scatter:
    """Return the parts of a scatter."""
    if node.op.name == "put_along_axis":
        target, where, values = node.inputs
        axis = cast(int, node.attrs["axis"])
        shape = without(target.shape, axis, where.shape[axis])
        return Scatter(target, values, (where,), (axis,), True, shape, "")
    target, values, *arrays = node.inputs
    axes = cast(tuple[int, ...], node.attrs["axes"])
    shape = indexed_shape(node.op.name, target.shape, [a.shape for a in arrays], axes)
    op = cast(str, node.attrs.get("op", ""))
    return Scatter(target, values, tuple(arrays), axes, False, shape, op)


def gathered(node: Node, index: Map, loops: int) -> Gathered:
    """Return where gather ``node`` at ``index`` comes from; holes are axes from ``loops`` on."""
    operand, *arrays = node.inputs
    along = node.op.name == "take_along_axis"
    axes = node.attrs["axes"] if node.op.name == "advanced_index" else (node.attrs["axis"],)
    return _holed(operand.shape, arrays, cast(tuple[int, ...], axes), index, loops, along=along)


def _holed(
    shape: Shape,
    arrays: Sequence[Node],
    axes: tuple[int, ...],
    index: Map,
    loops: int,
    *,
    along: bool,
) -> Gathered:
    """Return which element of an array of ``shape`` belongs to ``index``; ``arrays`` name it along
    ``axes``, and have axes of their own unless they lie ``along`` those of the array."""
    if along:
        block = index
        rest = [p for a, p in enumerate(broadcast(index, shape)) if a not in axes]
    else:
        # NumPy's rule: the index arrays' axes stand in the place of adjacent ones, else in front.
        start = axes[0] if axes[-1] - axes[0] + 1 == len(axes) else 0
        stop = start + max(len(a.shape) for a in arrays)
        block, rest = index[start:stop], [*index[:start], *index[stop:]]
    positions = tuple(
        Position(array, broadcast(block, array.shape), shape[axis])
        for array, axis in zip(arrays, axes, strict=True)
    )
    others = iter(rest)
    holes: list[Affine] = [
        axis_index(loops + axes.index(a)) if a in axes else next(others) for a in range(len(shape))
    ]
    return Gathered(positions, tuple(holes))
