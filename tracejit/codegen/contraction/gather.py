"""A right operand whose axes are no walks of one stride: where its elements are."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import NamedTuple

from tracejit.codegen.contraction.blocking import PARTS, TILE, round_up
from tracejit.codegen.contraction.planes import Planes, Shape, planes_of, shapes
from tracejit.codegen.target import Target
from tracejit.schedule.merged import Walks, collapsed, offsets

# Rows up to which a product reads the image itself. Packing costs about as much as so many rows of
# multiply-adds (measured on one thread, against packing: 4 rows 36 deep 1.4 times as fast, 8 rows
# 72 deep 1.3 times).
FEW_ROWS = 8

# A table in ``sizes``: the width of a row, the step, how far on the depths and the edges begin,
# then the rows, the depths and the edges.
WIDTH, STEP, DEPTHS, EDGES, ROWS = range(5)
# The edges: how many taps there are, the extents of the columns' axes, then for each edge its
# extent, its start, its least and largest number of a tap and its steps along those axes, and at
# last each edge's number for each tap.
EDGE_EXTENT, EDGE_START, EDGE_LEAST, EDGE_LARGEST, EDGE_STEPS = range(5)


# Outermost places that a block is thought to have at most, since threads share them.
MOST_PLACES = 8


class Edge(NamedTuple):
    """A padded axis: elements are there where 0 ≤ start + Σ steps·c + taps[k % len(taps)] < extent,
    for depth k and position c along the axes that the columns count through."""

    extent: int
    start: int
    steps: tuple[int, ...]
    taps: tuple[int, ...]


class GatherSpec(NamedTuple):
    """What changes the code: the step if that is 1 or 2 (0 is any other one), how many edges there
    are, how many axes the columns count through, and whether planes are split for tiles."""

    step: int
    edges: int = 0
    axes: int = 0
    split: bool = False


class Gather(NamedTuple):
    """Where the elements of B are, in elements from its pointer: [k, n] is at
    depths[k] + rows[n // width] + n % width · step, or is zero beyond one of the ``edges``.

    ``axes`` are the extents of the axes that the columns count through, innermost last. With
    ``planes`` the product reads those instead of packing B.
    """

    depths: tuple[int, ...]
    rows: tuple[int, ...]
    width: int
    step: int
    axes: tuple[int, ...] = ()
    edges: tuple[Edge, ...] = ()
    planes: Planes | None = None

    def table(self) -> tuple[int, ...]:
        """Return the numbers that the kernel reads."""
        if self.planes is not None:
            return self.planes.table()
        edges: list[int] = []
        if self.edges:
            edges = [len(self.edges[0].taps), *self.axes]
            for edge in self.edges:
                least, largest = min(edge.taps), max(edge.taps)
                edges += (edge.extent, edge.start, least, largest, *edge.steps)
            for edge in self.edges:
                edges += edge.taps
        depths = ROWS + len(self.rows)
        places = depths, depths + len(self.depths)
        return (self.width, self.step, *places, *self.rows, *self.depths, *edges)

    @property
    def spec(self) -> GatherSpec:
        if self.planes is not None:
            return GatherSpec(_known(self.planes.step), split=self.planes.split)
        return GatherSpec(_known(self.step), len(self.edges), len(self.axes))


def _split_planes(walks: Walks, rows: int, target: Target) -> Planes | None:
    """Return the planes that tile registers compute the product from soonest, None where that does
    not pay. Without folded taps planes are small, and with them few channels fill the tiles."""
    depth = prod(walk.extent for walk in walks.depths)
    costs = ((tiles_cost(shape, rows, target.l2_bytes), shape) for shape in shapes(walks))
    for cost, shape in sorted(costs, key=lambda found: found[0]):
        if not windows_pay(rows * depth * prod(shape.places), cost):
            break
        planes = planes_of(walks, shape.folded, split=True)
        if planes is not None:
            return planes
    return None


def tiles_cost(shape: Shape, rows: int, l2_bytes: int) -> int:
    """Return what a product of windows takes in tiles, in units of 2.7 ps.

    Measured on one core of a Sapphire Rapids: a number of the image takes 110, one of the weights
    160, a result 15.
    """
    depth = round_up(shape.channels, 2 * TILE) * shape.taps
    channels = round_up(shape.channels, 2) * shape.phases
    line = prod(shape.extents[1:-1]) * round_up(shape.extents[-1], TILE)
    # Blocks of outermost places split what they read of each other's places once more.
    more = shape.extents[0] - shape.places[0]
    fitting = l2_bytes // 2 // (2 * PARTS * channels * line) - more
    lines = shape.places[0] + more * -(-shape.places[0] // max(1, min(fitting, MOST_PLACES)))
    last = sum((n - 1) * prod(shape.extents[i + 1 :]) for i, n in enumerate(shape.places))
    tiles = 2 * round_up(rows, TILE) * round_up(last + 1, 2 * TILE) * depth
    if shape.extents[-1] == shape.places[-1] and shape.extents[-1] % TILE == 0:  # whole cache lines
        tiles -= tiles // 20
    return (
        tiles + 110 * channels * line * lines + 160 * rows * depth + 15 * rows * prod(shape.places)
    )


def windows_pay(multiply_adds: int, cost: int) -> bool:
    """Whether tile registers are faster, at ``cost``: a multiply-add takes 5."""
    return cost < 5 * multiply_adds


def _known(step: int) -> int:
    return step if step in (1, 2) else 0


def gather_of(walks: Walks, rows: int, tiles: Target | None = None) -> Gather:
    """Return where a product of so many rows finds what ``walks`` lead through.

    ``tiles``: a target whose tile registers may multiply it, as split float32s.
    """
    *outer, last = collapsed(walks.columns)
    begin = tuple(walks.start + offset for offset in offsets(outer))
    if rows <= FEW_ROWS:
        planes = planes_of(walks)
    else:
        planes = _split_planes(walks, rows, tiles) if tiles is not None else None
    found = Gather(tuple(offsets(walks.depths)), begin, *last, planes=planes)
    if not walks.borders:
        return found
    # The outer walks that no border depends on, channels mostly, only repeat the taps.
    first = min(i for b in walks.borders for i, step in enumerate((*b.depths, 1)) if step)
    inner = [walk.extent for walk in walks.depths[first:]]
    edges = [
        Edge(
            border.extent,
            border.start,
            border.columns,
            tuple(
                sum(i * step for i, step in zip(place, border.depths[first:], strict=True))
                for place in product(*map(range, inner))
            ),
        )
        for border in walks.borders
    ]
    assert len(edges[0].taps) == prod(inner)
    return found._replace(axes=tuple(w.extent for w in walks.columns), edges=tuple(edges))
