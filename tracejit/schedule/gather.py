"""Gathers: values read at positions that are computed, as index maps with holes.

``take``, ``take_along_axis`` and indexing by arrays read their operand at an affine map along some
axes and at a computed position along others. A hole in the map stands for such a position: a loop
axis beyond those of the kernel, one for each index array.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from tracejit.graph.node import Node
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


def gathered(node: Node, index: Map, loops: int) -> Gathered:
    """Return where gather ``node`` at ``index`` comes from; holes are axes from ``loops`` on."""
    operand, *arrays = node.inputs
    if node.op.name == "take_along_axis":
        axes: tuple[int, ...] = (cast(int, node.attrs["axis"]),)
        block = index
        rest = [p for a, p in enumerate(broadcast(index, operand.shape)) if a not in axes]
    else:
        if node.op.name == "take":
            axes = (cast(int, node.attrs["axis"]),)
        else:
            axes = cast(tuple[int, ...], node.attrs["axes"])
        # NumPy's rule: the index arrays' axes stand in the place of adjacent ones, else in front.
        start = axes[0] if axes[-1] - axes[0] + 1 == len(axes) else 0
        stop = start + max(len(a.shape) for a in arrays)
        block, rest = index[start:stop], [*index[:start], *index[stop:]]
    positions = tuple(
        Position(array, broadcast(block, array.shape), operand.shape[axis])
        for array, axis in zip(arrays, axes, strict=True)
    )
    others = iter(rest)
    holes: list[Affine] = [
        axis_index(loops + axes.index(a)) if a in axes else next(others)
        for a in range(len(operand.shape))
    ]
    return Gathered(positions, tuple(holes))
