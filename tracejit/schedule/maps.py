"""Index maps within a cluster: what its loops make of a node that is read at a map.

Whether each element is visited once, how often a value is computed again, and which axes the
variables of reductions and products take.
"""

from __future__ import annotations

from math import prod
from typing import cast

from tracejit.graph.node import Node
from tracejit.ops.reductions import COMBINE
from tracejit.schedule.cluster import MIN_PARALLEL, SMALL_WORK, Cluster
from tracejit.schedule.index import ZERO, Affine, Map, axes_of, axis_index, is_plain
from tracejit.sizes import frozen, hint


def full_range(node: Node, index: Map, cluster: Cluster) -> bool:
    """Whether the plain map ``index`` visits every element of ``node``."""
    return all(
        n == (cluster.extents[part.terms[0][0]] if part.terms else 1)
        for n, part in zip(node.shape, index, strict=True)
    )


def covers(node: Node, maps: list[Map], cluster: Cluster) -> bool:
    """Whether ``cluster`` can store ``node`` where it computes it: each element once."""
    if cluster.scatter is not None:
        return False
    if len(maps) != 1 or not is_plain(maps[0]) or not full_range(node, maps[0], cluster):
        return False
    return axes_of(maps[0]) >= cluster.parallel


def repeats_of(index: Map, cluster: Cluster) -> int:
    """How often a value at ``index`` is computed again by loops that it does not vary with."""
    axes = axes_of(index)
    order = sorted(range(len(cluster.extents)), key=lambda a: (a not in cluster.parallel, a))
    domain = axes.union(*(axes_of(r.index) for r in cluster.roots))
    if cluster.attention is not None and cluster.attention.keys in axes:
        domain -= {cluster.attention.columns}  # the scores are computed once for all of them
    repeats, pending = 1, 1
    for axis in order:
        if axis in axes:
            repeats *= pending
            pending = 1
        elif axis in domain:
            pending *= cluster.extents[axis]
    return repeats


def repeats_in_reductions(index: Map, cluster: Cluster) -> int:
    """How often a value at ``index`` is computed again by loops of the reductions that need it.

    Loops over some of a reduction's axes can stand outside those over the others (``build.py``),
    so that what varies with the first alone is computed before the others. That takes a reduction
    by parts, and one order for all that is inside it.
    """
    axes = axes_of(index)
    inside = [axes_of(cluster.members[n][0]) for n in cluster.reduced]
    repeats = 1
    for node, axes_over in cluster.reduced.items():
        over = frozenset(axes_over)
        mine = axes & over
        ordered = all(mine <= other & over or other & over <= mine for other in inside)
        if mine and not (ordered and node.op.name in COMBINE):
            repeats = max(repeats, prod(hint(cluster.extents[a]) for a in over - mine))
    return repeats


def worth_rows(node: Node, rows: frozenset[int], cluster: Cluster) -> bool:
    """Whether outer loops over ``rows`` leave enough parallel work, or there is none to lose."""
    if max(hint(node.inputs[0].size), hint(cluster.work)) <= SMALL_WORK:
        return True
    if prod(hint(cluster.extents[a]) for a in rows) >= MIN_PARALLEL:
        return True
    return rows == cluster.parallel and hint(node.size) < MIN_PARALLEL


def reduction_map(node: Node, index: Map, cluster: Cluster) -> tuple[Map, tuple[int, ...]]:
    """Return the map into the operand of reduction ``node``, and the axes it reduces over.

    A reduction's loop variable is bound, so any axis that the result does not vary with can
    serve: one of the right extent is reused, which lets later loops share values and passes.
    """
    operand = node.inputs[0]
    axes = cast(tuple[int, ...], node.attrs["axis"])
    keepdims = bool(node.attrs["keepdims"])
    kept = iter(index)
    outer = axes_of(index)
    taken: list[int] = []
    below: list[Affine] = []
    for position, extent in enumerate(operand.shape):
        if position not in axes:
            below.append(next(kept))
            continue
        if keepdims:
            next(kept)
        if extent == 1:
            below.append(ZERO)
            continue
        axis = _bound_axis(cluster, extent, outer, taken, position - len(operand.shape))
        taken.append(axis)
        below.append(axis_index(axis))
    return tuple(below), tuple(taken)


def _bound_axis(
    cluster: Cluster, extent: int, outer: frozenset[int], taken: list[int], from_end: int
) -> int:
    """Return an axis of ``extent`` for a bound variable, an existing one where possible."""
    free = [
        a
        for a, n in enumerate(cluster.extents)
        if frozen(n) == frozen(extent) and a not in outer and a not in taken
    ]
    if free:
        root = cluster.roots[0].index
        same = [a for a in free if -from_end <= len(root) and root[from_end].axes == frozenset({a})]
        return (same or free)[0]
    return fresh_axis(cluster, extent)


def fresh_axis(cluster: Cluster, extent: int) -> int:
    """Give ``cluster`` a new loop axis of ``extent``."""
    cluster.extents.append(extent)
    return len(cluster.extents) - 1


def only_axis(cluster: Cluster, part: Affine) -> int:
    """Return the axis of a dimension of a plain map; a new one of extent 1 where it has none."""
    return part.terms[0][0] if part.terms else fresh_axis(cluster, 1)
