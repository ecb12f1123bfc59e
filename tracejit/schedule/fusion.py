"""Fusion: which nodes are computed in which kernel.

Nodes are visited from the outputs up, so all readers of a node are placed before it is. A node
joins the kernel of its readers where that saves memory traffic, and is *stored* otherwise. Every
unit of work (a cluster that becomes a kernel, or an opaque op) gets the next
number when it is created; a node may only join the highest-numbered of the units that read it.
So every edge between units runs from a higher number to a lower one: no cycle can arise, no
reachability query is needed, the cost is linear, and descending numbers are an execution order.

A cluster has loop axes, of which the *parallel* ones are the axes that all its reductions and
stores vary with: they become the outer loops, and everything else runs inside, row by row. That
is how softmax is one kernel: its two reductions vary with the row, so the row is the outer loop.
The axis of a scan runs inside too.

A scatter is a kernel of its own, after one that stores what it writes to. It computes its values
and their positions, so that an elementwise op or a gather joins it like any other reader.

A gather joins its readers like an elementwise op: they read its operand, which is stored, at
positions that their kernel computes.

A matrix product joins the elementwise kernel that reads it, which becomes its epilogue.

Movement nodes are never placed: reading through one reads its operand at another index map.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.ops.table import Shape
from tracejit.record import record, replace
from tracejit.schedule import native
from tracejit.schedule.attention import Softmax, find_attention
from tracejit.schedule.cluster import (
    Attention,
    Cluster,
    Product,
    Root,
    Target,
    Unit,
    operand_maps,
    whole,
)
from tracejit.schedule.demand import Demand, Work, cones, statistics
from tracejit.schedule.gather import Scatter, gathered, scatter_of
from tracejit.schedule.index import (
    VIEWS,
    ZERO,
    Affine,
    Map,
    axes_of,
    axis_index,
    broadcast,
    cycled,
    identity,
    is_plain,
    through,
)
from tracejit.schedule.inline import (
    MAX_REDUCTIONS,
    MAX_VALUES,
    recomputing_is_cheaper,
    take_inline,
    take_repeats,
)
from tracejit.schedule.maps import (
    covers,
    fresh_axis,
    full_range,
    only_axis,
    reduction_map,
    worth_rows,
)
from tracejit.schedule.merged import merges_axes, within_padding
from tracejit.schedule.pieces import regions
from tracejit.schedule.prologue import Prologues, base_of, viewed, widens, worth_packing
from tracejit.schedule.row_groups import takes_groups
from tracejit.schedule.siblings import Siblings
from tracejit.sizes import is_one

# Nodes that are numbers in the code of whatever reads them.
_NUMBERS = frozenset({"constant", "iota"})


@record(slots=True)
class Fusion:
    """The result: units in execution order, and the nodes that are in memory.

    ``stored[node]`` is the node whose buffer holds it: itself, or the operand of a reshape that
    is only another view of the same contiguous memory.
    """

    units: list[Cluster | Unit]
    stored: dict[Node, Node]


class Fuser:
    """One run of the algorithm over a canonical graph of primitives."""

    def __init__(self, graph: Graph, lowers: native.Lowers, strided: frozenset[Node]):
        self.graph = graph
        self.strided = strided
        self.lowers = lowers
        self.work = Work(statistics(graph), cones(graph))
        self.uses = Counter((*(i for n in graph.nodes for i in n.inputs), *graph.outputs))
        self.siblings = Siblings(graph)
        self.prologues = Prologues(lowers)
        self.attentions = find_attention(graph, lowers)
        self.absorbed = {n for a in self.attentions.values() for n in a.softmax}
        self.demands: dict[Node, Demand] = {}
        self.units: list[Cluster | Unit] = []
        self.stored: dict[Node, Node] = {}

    def run(self) -> Fusion:
        for output in self.graph.outputs:
            self._demand(output).stored = True
        for node in reversed(self.graph.nodes):
            self._place(node, self._demand(node))
        return Fusion(self.units[::-1], self.stored)

    # -- demands -------------------------------------------------------------------------------

    def _demand(self, node: Node) -> Demand:
        found = self.demands.get(node)
        if found is None:
            found = self.demands[node] = Demand()
        return found

    def _want_stored(self, node: Node, before: int) -> None:
        demand = self._demand(node)
        demand.stored = True
        demand.before = max(demand.before, before)

    def _want_strided(self, node: Node, before: int, *, packs: bool = False) -> None:
        """Ask for ``node`` in memory, where a strided view of stored memory will do.

        With ``packs`` it may be a reshape of one that merges axes, or is padded with zeros.
        """
        index, extents = identity(len(node.shape)), node.shape
        merging: Node | None = None
        while not self._demand(node).stored:
            below = through(node, index, extents) if node.op.name in VIEWS else None
            if packs and merges_axes(node) and (below is None or base_of(node).op.name == "pad"):
                merging, extents = node, node.inputs[0].shape
                below = identity(len(extents))
            elif below is None and merging is not None:
                below, merging = within_padding(node, index, merging), None
            if below is None:
                break
            index, node, packs = below, node.inputs[0], False
        self._want_stored(node, before)

    def _want_packed(
        self, node: Node, index: Map, cluster: Cluster, *, packs: bool = False
    ) -> None:
        """Ask for an operand of the product in ``cluster``: in memory, or to be computed there.

        Strictly before: the cluster may read an operand elsewhere, but not compute it there.
        """
        base, below = viewed(node, index, cluster.extents)
        if self.prologues.takes(base):
            maps = self._demand(base).packed.setdefault(cluster, [])
            if below not in maps:
                maps.append(below)
        else:
            self._want_strided(node, cluster.number + 1, packs=packs)

    # -- placement -----------------------------------------------------------------------------

    def _place(self, node: Node, demand: Demand) -> None:
        name = node.op.name
        if node in self.absorbed:
            return
        if demand.packed and self._place_prologue(node, demand):
            return
        if name in ("input", "data") or (name == "constant" and demand.stored):
            self.stored[node] = node
        elif name == "constant":
            return
        elif name in VIEWS and not node.dtype.hasobject:
            self._place_view(node, demand)
        elif name == "cycle" and native.is_native(node.dtype):
            self._place_cycle(node, demand)
        elif name == "view_as_real":
            self._place_parts(node, demand)
        elif name == "view_as_complex":
            self._place_complex(node)
        elif name == "iota" and not demand.stored:
            return
        elif name in ("iota", native.NATURAL) or native.is_elementwise(node, self.lowers):
            self._place_elementwise(node, demand)
        elif native.is_reduction(node):
            self._place_reduction(node, demand)
        elif native.is_gather(node):
            self._place_gather(node, demand)
        elif native.is_scan(node):
            self._place_scan(node)
        elif native.is_contraction(node):
            self._place_product(node, demand)
        elif native.is_scatter(node, self.lowers):
            self._place_scatter(node)
        elif name in native.PIECEWISE and native.has_native_dtypes(node):
            if demand.stored or demand.readers:  # else products read around it
                self._place_pieces(node)
        else:
            self._place_unit(node)

    def _place_unit(self, node: Node) -> None:
        unit = Unit(len(self.units), node)
        self.units.append(unit)
        self.stored[node] = node
        for operand in node.inputs:
            self._want_strided(operand, unit.number)

    def _place_view(self, node: Node, demand: Demand) -> None:
        composed = [
            (cluster, through(node, index, cluster.extents))
            for cluster, maps in demand.readers.items()
            for index in maps
        ]
        if not demand.stored and all(index is not None for _, index in composed):
            below = self._demand(node.inputs[0])
            for cluster, index in composed:
                below.read(cluster, cast(Map, index))
            return
        before = demand.before_all()
        operand = node.inputs[0]
        if node.op.name == "reshape" and operand not in self.strided:
            # The same contiguous memory under another shape.
            self._want_stored(operand, before)
            self.stored[node] = operand
        elif not native.is_native(node.dtype):
            self._place_unit(node)
        elif node.op.name == "reshape":
            self.stored[node] = node
            rank = len(operand.shape)
            target = whole(node, operand.shape)
            cluster = self._cluster_into(operand, operand.shape, (0,) * rank, target)
            self._demand(operand).read(cluster, cluster.roots[0].index)
        else:
            cluster = self._new_cluster(node)
            below = through(node, cluster.roots[0].index, cluster.extents)
            self._demand(operand).read(cluster, cast(Map, below))
            cluster.members[node] = [cluster.roots[0].index]

    def _place_cycle(self, node: Node, demand: Demand) -> None:
        """Read the operand at maps with seams; store the node where readers have no such."""
        operand = node.inputs[0]
        composed = [
            (cluster, cycled(node, index, cluster.extents) if cluster.takes_seams else None)
            for cluster, maps in demand.readers.items()
            for index in maps
        ]
        if demand.stored or any(index is None for _, index in composed):
            cluster = self._new_cluster(node)
            index = cluster.roots[0].index
            cluster.members[node] = [index]
            composed = [(cluster, cycled(node, index, cluster.extents))]
        for cluster, index in composed:
            cluster.seamed = True
            self._demand(operand).read(cluster, cast(Map, index))

    def _place_parts(self, node: Node, demand: Demand) -> None:
        """Read the parts of complex values where those are stored."""
        self._want_stored(node.inputs[0], demand.before_all())
        self.stored[node] = node.inputs[0]

    def _place_complex(self, node: Node) -> None:
        """Store the parts where the complex values are wanted."""
        parts = node.inputs[0]
        self.stored[node] = node
        if parts.op.name == "concat":
            self._store_pieces(parts, node)
        elif 0 not in node.shape:
            target = whole(node, parts.shape)
            cluster = self._cluster_into(parts, parts.shape, (0,) * len(parts.shape), target)
            self._demand(parts).read(cluster, cluster.roots[0].index)

    def _place_elementwise(self, node: Node, demand: Demand) -> None:
        homes = self._homes(node, demand)
        if homes is None or (node.op.name == native.NATURAL and _beside_product(homes)):
            homes = [self._beside_sibling(node, demand) or self._new_cluster(node)]
        for cluster in homes:
            maps = demand.readers.get(cluster) or [cluster.roots[-1].index]
            cluster.members[node] = maps
            cluster.values += len(maps)
            for index in maps:
                for operand in node.inputs:
                    self._demand(operand).read(cluster, broadcast(index, operand.shape))

    def _place_gather(self, node: Node, demand: Demand) -> None:
        homes = self._homes(node, demand)
        if homes is None or _beside_product(homes):
            homes = [self._new_cluster(node)]
        for cluster in homes:
            maps = demand.readers.get(cluster) or [cluster.roots[0].index]
            cluster.members[node] = maps
            cluster.values += 4 * len(maps)
            for index in maps:
                found = gathered(node, index, len(cluster.extents))
                for position in found.positions:
                    self._demand(position.node).read(cluster, position.where)
                # Strictly before: any of its elements may be read.
                extents = found.extents(cluster.extents)
                self._want_read(node.inputs[0], found.holed, extents, cluster.number + 1)

    def _want_read(self, node: Node, index: Map, extents: Sequence[int], before: int) -> None:
        """Ask for ``node`` in memory, or for what it is a view of, if ``index`` maps into that."""
        while node.op.name in VIEWS and not self._demand(node).stored:
            below = through(node, index, extents)
            if below is None:
                break
            index, node = below, node.inputs[0]
        self._want_stored(node, before)

    def _place_prologue(self, node: Node, demand: Demand) -> bool:
        """Compute ``node`` where products pack it, if nothing else reads it; or ask to store it."""
        once = len(demand.packed) == 1 and all(len(m) == 1 for m in demand.packed.values())
        if demand.stored or demand.readers or not (once or widens(node)):
            self._want_stored(node, 1 + max(c.number for c in demand.packed))
            demand.packed.clear()
            return False
        for cluster, maps in demand.packed.items():
            cluster.members[node] = maps
            cluster.values += len(maps)
            for index in maps:
                for operand in node.inputs:
                    if base_of(operand).op.name not in _NUMBERS:
                        self._want_packed(operand, broadcast(index, operand.shape), cluster)
        return True

    def _homes(self, node: Node, demand: Demand) -> list[Cluster] | None:
        """Return the clusters that compute ``node`` inline, or None for a kernel of its own."""
        readers = demand.readers
        if not readers:
            return None
        last = max(readers, key=lambda c: c.number)
        alone = len(readers) == 1 and not demand.stored
        if alone or recomputing_is_cheaper(node, demand):
            fits = all(take_inline(node, maps, c, self.work) for c, maps in readers.items())
            return list(readers) if fits else None
        if last.number < demand.before or not take_inline(node, readers[last], last, self.work):
            return None
        if not covers(node, readers[last], last):
            return None
        self._store_in(node, last, readers[last][0])
        return [last]

    def _place_reduction(self, node: Node, demand: Demand) -> None:
        cluster = self._reduction_home(node, demand)
        if cluster is None:
            cluster = self._beside_sibling(node, demand) or self._new_cluster(node)
            index = cluster.roots[-1].index
        else:
            index = demand.readers[cluster][0]
        operand = node.inputs[0]
        below, over = reduction_map(node, index, cluster)
        cluster.members[node] = [index]
        cluster.reduced[node] = over
        cluster.parallel &= axes_of(index)
        cluster.values += 2
        self._demand(operand).read(cluster, below)

    def _reduction_home(self, node: Node, demand: Demand) -> Cluster | None:
        """Return the cluster that computes the reduction ``node`` for its readers, if one may."""
        if not demand.readers:
            return None
        last = max(demand.readers, key=lambda c: c.number)
        maps = demand.readers[last]
        stored = demand.stored or len(demand.readers) > 1
        if last.number < demand.before or len(maps) != 1 or last.values > MAX_VALUES:
            return None
        if last.product is not None or last.attention is not None or last.scatter is not None:
            return None
        if len(last.reduced) >= MAX_REDUCTIONS:
            return None
        index = maps[0]
        if not is_plain(index) or not full_range(node, index, last):
            return None
        rows = last.parallel & axes_of(index)
        if last.shares_rows or not axes_of(index).isdisjoint(last.scanned.values()):
            return None
        if not worth_rows(node, rows, last):
            return None
        nested = not axes_of(index) <= last.parallel
        if nested and (takes_groups(node) or not take_repeats(node, index, last)):
            return None
        if stored:
            if not covers(node, maps, last):
                return None
            self._store_in(node, last, index)
        return last

    def _place_scan(self, node: Node) -> None:
        """Store a scan by a kernel of its own, which may compute its operand too."""
        cluster = self._new_cluster(node)
        index = cluster.roots[0].index
        below = index[cast(int, node.attrs["axis"])]
        cluster.members[node] = [index]
        cluster.scanned[node] = next(iter(below.axes), None)
        cluster.parallel -= below.axes
        cluster.values += 2
        self._demand(node.inputs[0]).read(cluster, index)

    def _place_product(self, node: Node, demand: Demand) -> None:
        cluster = self._product_home(node, demand)
        if cluster is None:
            cluster = self._new_cluster(node)
            index = cluster.roots[0].index
        else:
            index = demand.readers[cluster][0]
        rows, columns = (only_axis(cluster, part) for part in index[-2:])
        found = self.attentions.get(node)
        if found is not None and cluster.attention is None:
            self._place_attention(node, found, cluster, index, rows, columns)
            return
        depth = fresh_axis(cluster, node.inputs[0].shape[-1])
        cluster.members[node] = [index]
        cluster.product = Product(node, rows, columns, depth)
        cluster.values += 2
        for operand, below in zip(node.inputs, operand_maps(cluster.product, index), strict=True):
            if cluster.attention is None and worth_packing(node, operand):
                self._want_packed(operand, below, cluster, packs=operand is node.inputs[1])
            else:
                # Strictly before: this cluster may read an operand elsewhere, but not compute it.
                self._want_strided(operand, cluster.number + 1, packs=operand is node.inputs[1])

    def _place_attention(
        self, node: Node, found: Softmax, cluster: Cluster, index: Map, rows: int, columns: int
    ) -> None:
        keys = fresh_axis(cluster, found.scores.shape[-1])
        cluster.attention = Attention(node, found.scores, found.softmax, rows, columns, keys)
        cluster.values += 8
        cluster.members[node] = [index]
        scores = (*index[:-2], axis_index(rows), axis_index(keys))
        for member in found.softmax:
            cluster.members[member] = [scores]
        self._demand(found.scores).read(cluster, scores)
        self._want_strided(node.inputs[1], cluster.number + 1)

    def _product_home(self, node: Node, demand: Demand) -> Cluster | None:
        """Return the cluster that becomes the epilogue of the product ``node``, if one may.

        It must be elementwise, and read each element of the product once.
        """
        if not demand.readers:
            return None
        last = max(demand.readers, key=lambda c: c.number)
        maps = demand.readers[last]
        if last.number < demand.before or last.product or last.reduced or last.scanned:
            return None
        if last.seamed or any(native.counts_faults(member) for member in last.members):
            return None
        if last.attention is not None:
            alone = len(demand.readers) == 1 and not demand.stored
            scores = alone and node not in self.attentions and len(maps) == 1
            return last if scores and last.attention.keys in maps[0][-1].axes else None
        if not covers(node, maps, last) or axes_of(maps[0]) != frozenset(range(len(last.extents))):
            return None
        if demand.stored or len(demand.readers) > 1:
            self._store_in(node, last, maps[0])
        return last

    # -- clusters ------------------------------------------------------------------------------

    def _new_cluster(self, node: Node) -> Cluster:
        """Start a kernel that stores ``node``."""
        self.stored[node] = node
        start = (0,) * len(node.shape)
        cluster = self._cluster_into(node, node.shape, start, whole(node, node.shape))
        self.siblings.add(node, cluster)
        return cluster

    def _beside_sibling(self, node: Node, demand: Demand) -> Cluster | None:
        """Store ``node`` in a kernel that reads what it reads, if one runs before its readers."""
        found = self._sibling(node, demand)
        if found is None:
            return None
        cluster, index = found
        self._store_in(node, cluster, index)
        return cluster

    def _sibling(self, value: Node, demand: Demand) -> tuple[Cluster, Map] | None:
        """Return a kernel that reads what ``value`` reads and runs before those that want it, and
        where its loops would compute it."""
        after = max([demand.before, *(c.number for c in demand.readers)])
        cluster = self.siblings.find(value, after)
        if cluster is None or cluster.product or cluster.attention:
            return None
        if cluster.values + 1 > MAX_VALUES:
            return None
        first = cluster.roots[0]
        if cluster.scanned or not axes_of(first.index) <= cluster.parallel:
            return None  # loops inside others would compute it again and again
        if native.is_reduction(value) and len(cluster.reduced) >= MAX_REDUCTIONS:
            return None
        index, missing = first.index[: len(value.shape)], value.shape[len(first.index) :]
        if value.shape[: len(index)] != first.node.shape[: len(index)]:
            return None
        more = (ZERO if is_one(n) else axis_index(fresh_axis(cluster, n)) for n in missing)
        return cluster, (*index, *more)

    def _cluster_into(
        self, node: Node, shape: Shape, start: Sequence[int], target: Target
    ) -> Cluster:
        """Start a kernel that stores ``node[start : start + shape]`` into ``target``."""
        index: list[Affine] = []
        extents: list[int] = []
        for extent, first in zip(shape, start, strict=True):
            if is_one(extent):
                index.append(Affine((), first))
            else:
                index.append(Affine(((len(extents), 1),), first))
                extents.append(extent)
        root = Root(node, tuple(index), target)
        cluster = Cluster(len(self.units), extents, frozenset(range(len(extents))), [root])
        self.units.append(cluster)
        return cluster

    def _store_in(self, node: Node, cluster: Cluster, index: Map) -> None:
        """Let ``cluster``, which computes ``node`` anyway, store it too."""
        cluster.roots.append(Root(node, index, whole(node, node.shape)))
        self.stored[node] = node

    # -- pieces --------------------------------------------------------------------------------

    def _place_pieces(self, node: Node) -> None:
        """Store each part of a concat, pad or slice update straight into its region."""
        self.stored[node] = node
        self._store_pieces(node, node)

    def _store_pieces(self, node: Node, into: Node) -> None:
        """Store each part of ``node`` in the memory of ``into``, which has the same bytes."""
        if 0 in node.shape:
            return
        groups = regions(node, lambda piece: self.uses[piece] == 1)
        for group in reversed(groups):
            home: tuple[Cluster, Map] | None = None
            if len(groups) == 1 and len(group) > 1:
                home = self._sibling(group[0][0], self._demand(into))
            for piece, shape, start, place in reversed(group):
                if 0 in shape:
                    continue
                target = replace(place, node=into)
                if home is None:
                    cluster = self._cluster_into(piece, shape, start, target)
                    home = cluster, cluster.roots[0].index
                    if len(groups) == 1:
                        self.siblings.add(piece, cluster)
                else:
                    home[0].roots.append(Root(piece, home[1], target))
                self._demand(piece).read(home[0], home[0].roots[-1].value_index)

    # -- scatters ------------------------------------------------------------------------------

    def _place_scatter(self, node: Node) -> None:
        """Store the target as it was, and then the values where they go."""
        self.stored[node] = node
        scatter = scatter_of(node)
        if 0 in node.shape:
            return
        if 0 not in scatter.shape:
            self._scatter_into(node, scatter)
        target = scatter.target
        filling = self._cluster_into(
            target, node.shape, (0,) * len(node.shape), whole(node, node.shape)
        )
        self._demand(target).read(filling, filling.roots[0].value_index)

    def _scatter_into(self, node: Node, scatter: Scatter) -> None:
        """Start the kernel that stores values to computed places of ``node``'s buffer.

        Its outer loops are over what stands before the indexed axes; what is inside one of them
        may go to the same place again and again, so it keeps its order.
        """
        start = (0,) * len(scatter.shape)
        cluster = self._cluster_into(node, scatter.shape, start, whole(node, scatter.shape))
        index = cluster.roots[0].index
        cluster.scatter = scatter
        cluster.parallel = axes_of(scatter.before(index))
        cluster.members[node] = [index]
        cluster.values += 4
        self._demand(scatter.values).read(cluster, broadcast(index, scatter.values.shape))
        for position in scatter.to(index, len(cluster.extents)).positions:
            self._demand(position.node).read(cluster, position.where)


def _beside_product(clusters: Sequence[Cluster]) -> bool:
    return any(c.product or c.attention for c in clusters)


def fuse(graph: Graph, lowers: native.Lowers, strided: frozenset[Node] = frozenset()) -> Fusion:
    """Decide the kernels of a canonical graph; ``strided`` inputs are not C-contiguous."""
    return Fuser(graph, lowers, strided).run()
