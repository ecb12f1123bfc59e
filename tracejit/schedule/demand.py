"""Who wants a value, and how: what fusion knows of a node when it decides where to compute it."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.ops.table import Family
from tracejit.record import field, record
from tracejit.schedule import native
from tracejit.schedule.cluster import Cluster
from tracejit.schedule.index import VIEWS, Map, axes_of

# As good as more: work that nobody would do twice.
MOST_FLOPS = 1 << 10


@record(slots=True)
class Demand:
    """Who wants a node: ``stored`` in memory before unit ``before``; read by clusters at maps.

    ``packed`` are the products that may compute it where they pack an operand.
    """

    stored: bool = False
    before: int = -1
    readers: dict[Cluster, list[Map]] = field(default_factory=dict[Cluster, list[Map]])
    packed: dict[Cluster, list[Map]] = field(default_factory=dict[Cluster, list[Map]])

    def read(self, cluster: Cluster, index: Map) -> None:
        maps = self.readers.setdefault(cluster, [])
        if index not in maps:
            maps.append(index)

    def before_all(self) -> int:
        """The number of the unit that must come after the node: before all that want it."""
        return max([self.before, *(c.number + 1 for c in self.readers)])


class Work(NamedTuple):
    """What the nodes of a graph cost to compute where they are read."""

    statistics: set[Node]
    cones: dict[Node, int]


def total_size(demand: Demand) -> int:
    """Return how many elements the readers compute together, each map counted."""
    return sum(
        prod(cluster.extents[a] for a in axes_of(index))
        for cluster, maps in demand.readers.items()
        for index in maps
    )


def cones(graph: Graph) -> dict[Node, int]:
    """Return for each node the flops, an element, of all elementwise work since what is stored.

    What several nodes read counts for each of them.
    """
    found: dict[Node, int] = {}
    for node in graph.nodes:
        below = sum(found[i] for i in dict.fromkeys(node.inputs))
        if node.op.family is Family.ELEMENTWISE:
            found[node] = min(native.cost(node) + below, MOST_FLOPS)
        else:
            found[node] = below if node.op.name in VIEWS or node.op.name == "cycle" else 0
    return found


def statistics(graph: Graph) -> set[Node]:
    """Return the nodes computed from a reduction without growing again: means, norms, scales.

    Where one is broadcast back, its reduction makes its axes the outer loops, so it is computed
    once for each of its elements, whatever the loops look like before the reduction has joined.
    """
    found: set[Node] = set()
    for node in graph.nodes:
        if native.is_reduction(node) or any(
            i in found and i.size == node.size for i in node.inputs
        ):
            found.add(node)
    return found
