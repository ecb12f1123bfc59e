"""The cost model of fusion: whether to compute a value where it is read, or to load it.

What is taken inline is booked on its cluster: the values that it holds, and the flops that it
computes more than once for each of its elements.
"""

from __future__ import annotations

from math import prod

from tracejit.graph.node import Node
from tracejit.schedule import native
from tracejit.schedule.cluster import Cluster
from tracejit.schedule.demand import Demand, Work, total_size
from tracejit.schedule.index import Map, axes_of
from tracejit.schedule.maps import repeats_in_reductions, repeats_of
from tracejit.sizes import hint

# Beyond `MAX_VALUES` LLVM's compile time grows faster than the kernel; the flops weigh
# recomputation against a store and a load (about 8 flops a byte).
MAX_VALUES = 320
MAX_REDUCTIONS = 12
MAX_RECOMPUTE = 64
# What a stencil reads at several places would be computed again with all that it is computed from.
# It is stored where that takes more flops for each of its elements: bands keep it in the cache.
# Measured in float32 on two threads against no such bound: a Sobel filter over a blurred 3000²
# takes 0.4 of the time, eight chained 5-point stencils over 1000² 0.55, with np.roll 0.67. With a
# bound of 8 or of 32 some are slower; a Laplacian of a Laplacian with np.roll would gain with 32.
MAX_AGAIN = 16


def recomputing_is_cheaper(node: Node, demand: Demand) -> bool:
    """Whether every reader should compute ``node`` again rather than load it."""
    if demand.stored or len(demand.readers) > 8:
        return False
    if total_size(demand) <= node.size:
        return True  # the readers want different parts of it
    operands = [i for i in dict.fromkeys(node.inputs) if i.size > 1]
    if 2 * sum(i.nbytes for i in operands) <= node.nbytes:
        return native.cost(node) <= 16
    return native.cost(node) <= 4 and len(operands) <= 1


def take_inline(node: Node, maps: list[Map], cluster: Cluster, work: Work) -> bool:
    """Book ``node``, computed at ``maps`` inside ``cluster``, if that stays within the bounds."""
    if len(maps) > 1 and _again(node, maps, cluster) * work.cones[node] > MAX_AGAIN:
        return False
    if cluster.values + len(maps) > MAX_VALUES:
        return False
    flops = native.cost(node)
    if cluster.shares_rows and flops > 16:
        return False  # such a scan reads its operand twice
    extra = (len(maps) - 1) * flops
    for index in maps:
        # Along the outer loops a statistic is computed once for each of its elements.
        if node not in work.statistics or not axes_of(index) <= cluster.parallel:
            extra += (repeats_of(index, cluster) - 1) * flops
    return _book(extra, cluster)


def _again(node: Node, maps: list[Map], cluster: Cluster) -> float:
    """Return how often more than once an element of ``node`` is computed at ``maps``."""
    total = sum(prod(hint(cluster.extents[a]) for a in axes_of(index)) for index in maps)
    return max(0.0, total / max(hint(node.size), 1) - 1)


def take_repeats(node: Node, index: Map, cluster: Cluster) -> bool:
    """Book a reduction inside the loops of others, if it is cheap enough to run in each of them.

    The weights of attention, Σ_d q·k, are the same for all columns of Σ_k weight·v.
    """
    trips = hint(node.inputs[0].size) // max(hint(node.size), 1)
    repeats = max(hint(repeats_of(index, cluster)), repeats_in_reductions(index, cluster))
    return _book((repeats - 1) * trips * native.cost(node), cluster)


def _book(flops: int, cluster: Cluster) -> bool:
    if flops and cluster.recompute + flops > MAX_RECOMPUTE:
        return False
    cluster.recompute += flops
    return True
