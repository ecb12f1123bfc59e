"""Clusters: the nodes that one kernel computes, and the roots that it stores.

A cluster has loop axes; fusion.py says how nodes come to be in one.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from tracejit.graph.node import Node
from tracejit.ops.table import Shape
from tracejit.record import field, record
from tracejit.schedule.gather import Scatter
from tracejit.schedule.index import Map, axis_index, broadcast

# Trips of the outer loops that keep the threads busy, and work that is not worth sharing.
MIN_PARALLEL = 16
SMALL_WORK = 1 << 15


@record(eq=False, slots=True)
class Target:
    """Where a root is stored: ``start + step·i`` along each dimension of ``node``'s buffer.

    ``shape`` is how the store sees the buffer: the node's own, or its operand's before a reshape.
    """

    node: Node
    start: tuple[int, ...]
    step: tuple[int, ...]
    shape: Shape


def whole(node: Node, shape: Shape) -> Target:
    """Return the target that fills ``node``'s buffer, seen as ``shape``."""
    return Target(node, (0,) * len(shape), (1,) * len(shape), shape)


@record(eq=False, slots=True)
class Root:
    """A stored value: ``node`` read at ``index`` over the cluster's root axes, into ``target``."""

    node: Node
    index: Map
    target: Target

    @property
    def value_index(self) -> Map:
        """The map that ``node`` is read at: ``index``, broadcast where a scalar fills a region."""
        return broadcast(self.index, self.node.shape)


class Product(NamedTuple):
    """A matrix product in a cluster: the axes of its rows, its columns and its sums."""

    node: Node
    rows: int
    columns: int
    depth: int


def operand_maps(product: Product, index: Map) -> tuple[Map, Map]:
    """Return the maps that the operands of a product at ``index`` are read at."""
    row, column, depth = (axis_index(a) for a in product[1:])
    left, right = (broadcast(index[:-2], i.shape[:-2]) for i in product.node.inputs)
    return (*left, row, depth), (*right, depth, column)


class Attention(NamedTuple):
    """Attention in a cluster: ``node`` is softmax(``scores``) @ values, with the axes of its
    rows, its columns and its keys; ``softmax`` are the nodes in between."""

    node: Node
    scores: Node
    softmax: tuple[Node, ...]
    rows: int
    columns: int
    keys: int


@record(eq=False, slots=True)
class Cluster:
    """Nodes computed by one kernel. ``members`` holds the index maps each is computed at.

    ``seamed``: some of these maps have seams.
    """

    number: int
    extents: list[int]
    parallel: frozenset[int]
    roots: list[Root]
    members: dict[Node, list[Map]] = field(default_factory=dict[Node, list[Map]])
    reduced: dict[Node, tuple[int, ...]] = field(default_factory=dict[Node, tuple[int, ...]])
    scanned: dict[Node, int | None] = field(default_factory=dict[Node, "int | None"])
    product: Product | None = None
    attention: Attention | None = None
    scatter: Scatter | None = None
    seamed: bool = False
    values: int = 0
    recompute: int = 0

    @property
    def takes_seams(self) -> bool:
        """Whether its loops can run from seam to seam: those of products and scans do not."""
        return not (self.product or self.attention or self.scanned or self.scatter)

    @property
    def work(self) -> int:
        return prod(self.extents)

    @property
    def shares_rows(self) -> bool:
        """Whether threads share the rows of the cluster's scan: they are few, and long."""
        rows = prod(self.extents[a] for a in self.parallel)
        return bool(self.scanned) and rows < MIN_PARALLEL and self.work > SMALL_WORK


@record(eq=False, slots=True)
class Unit:
    """A node that is its own step: an opaque op."""

    number: int
    node: Node
