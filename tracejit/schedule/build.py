"""Cluster → kernel: every (node, index map) that a cluster computes becomes one expression."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from tracejit.errors import InternalError
from tracejit.graph.node import Node
from tracejit.ops.dtypes import spelled
from tracejit.ops.movement import axis_runs
from tracejit.ops.reductions import COMBINE
from tracejit.ops.table import Fact
from tracejit.schedule import native
from tracejit.schedule.cluster import Attention, Cluster, Product, Root, operand_maps
from tracejit.schedule.gather import Gathered, Scatter, gathered
from tracejit.schedule.index import (
    VIEWS,
    Affine,
    Map,
    Seam,
    axis_index,
    broadcast,
    contiguous_strides,
    cycled,
    flat,
    through,
)
from tracejit.schedule.kernel import (
    Access,
    Apply,
    Attend,
    Block,
    Bound,
    Const,
    Contract,
    Expr,
    Gather,
    Index,
    Kernel,
    Load,
    Natural,
    Reduce,
    Scan,
    Store,
    operands,
)
from tracejit.schedule.loops import Shadowed, arrange
from tracejit.schedule.merged import Border, Walk, Walks, collapsed, padded_axes
from tracejit.schedule.product import arrange_attention, arrange_product

BOOL = np.dtype(bool)
INT64 = np.dtype(np.int64)


class Place(NamedTuple):
    """A stored node: its buffer and its strides there, in elements."""

    buffer: int
    strides: tuple[int, ...]


class Seen(NamedTuple):
    """Where an element of a view is: its offset in the buffer of a stored node. It is zero where
    one of the ``edges`` (a position along an axis, and its extent) is passed."""

    offset: Affine
    place: Place
    edges: list[tuple[Affine, int]]


Instance = tuple[Node, Map]


class KernelBuilder:
    """Builds one kernel.

    ``place(node)`` says where a stored node lives, or None; ``faults()`` returns the buffer that
    counts positions out of range.
    """

    def __init__(
        self, cluster: Cluster, place: Callable[[Node], Place | None], faults: Callable[[], int]
    ):
        self.cluster = cluster
        self.place = place
        self.faults = faults
        self.extents = cluster.extents
        self.accesses: dict[Access, int] = {}
        self.exprs: list[Expr] = []
        self.position: dict[Instance, int] = {}
        self.consts: dict[tuple[str, str], int] = {}
        self.numbers: dict[Hashable, int] = {}
        self.reductions: dict[int, Node] = {}
        self.sums: dict[Reduce, int] = {}
        self.labels: list[str] = []
        self.lines: list[str] = []

    def build(self) -> Kernel:
        scatter = self.cluster.scatter
        if scatter is not None:
            stores = [self._scatter(self.cluster.roots[0], scatter)]
        else:
            stores = [self._store(root) for root in self.cluster.roots]
        return Kernel(
            extents=tuple(self.extents),
            accesses=tuple(self.accesses),
            exprs=tuple(self.exprs),
            stores=tuple(stores),
            parallel=tuple(sorted(self.cluster.parallel)),
            vector_parallel=None,
            block=Block(),
            labels=tuple(self.labels),
            lines=tuple(dict.fromkeys(self.lines)),
        )

    # -- instances -----------------------------------------------------------------------------

    def _store(self, root: Root) -> Store:
        value = self._value((root.node, root.value_index))
        target = root.target
        place = cast(Place, self.place(target.node))
        strides = contiguous_strides(target.shape)
        # A root's map is offset to where it starts in its source; the target has its own corner.
        index = tuple(
            Affine(part.terms, 0).scaled(step, start)
            for part, start, step in zip(root.index, target.start, target.step, strict=True)
        )
        return Store(self._access(place.buffer, root.node, flat(index, strides)), value)

    def _access(self, buffer: int, node: Node, offset: Affine) -> int:
        strides = [0] * len(self.extents)
        for axis, coefficient in offset.terms:
            strides[axis] = coefficient
        access = Access(buffer, node.dtype, offset.offset, tuple(strides), offset.seams)
        return self.accesses.setdefault(access, len(self.accesses))

    def _value(self, wanted: Instance) -> int:
        """Return the expression of an instance; its operands first, without recursion."""
        stack = [wanted]
        while stack:
            instance = stack[-1]
            if instance in self.position:
                stack.pop()
                continue
            below = self._operands(instance)
            missing = [i for i in below if i not in self.position]
            if missing:
                stack += reversed(missing)
                continue
            self.position[instance] = self._expression(instance, below)
            stack.pop()
        return self.position[wanted]

    def _is_member(self, instance: Instance) -> bool:
        node, _ = instance
        return node in self.cluster.members

    def _is_product(self, node: Node) -> bool:
        return self.cluster.product is not None and node is self.cluster.product.node

    def _operands(self, instance: Instance) -> list[Instance]:
        node, index = instance
        member = self._is_member(instance)
        if not member and (node.op.name in ("constant", "iota") or self.place(node) is not None):
            return []
        if node.op.name == "iota":
            return []
        if self._is_product(node):
            return self._computed_operands(node, index)
        if node.op.name in VIEWS:
            return [(node.inputs[0], cast(Map, through(node, index, self.extents)))]
        if node.op.name == "cycle":
            return [(node.inputs[0], cast(Map, cycled(node, index, self.extents)))]
        attention = self.cluster.attention
        if attention is not None and node is attention.node:
            return [(attention.scores, self._scores_map(index))]
        if node in self.cluster.reduced:
            return [(node.inputs[0], self._reduced_map(node, index))]
        if native.is_gather(node):
            return [(p.node, p.where) for p in self._gathered(instance).positions]
        inputs = node.inputs
        if node.op.has(Fact.COMMUTATIVE):
            # The graph's canonical order follows digests; by age, repeated code looks the same.
            # A constant may be left from another graph: its age says nothing.
            inputs = sorted(inputs, key=lambda n: (n.op.name == "constant", n.serial))
        return [(i, broadcast(index, i.shape)) for i in inputs]

    def _computed_operands(self, node: Node, index: Map) -> list[Instance]:
        """Return the operands of the product that are not in memory: its prologues."""
        maps = operand_maps(cast(Product, self.cluster.product), index)
        pairs = zip(node.inputs, maps, strict=True)
        return [(operand, below) for operand, below in pairs if self._is_computed(operand)]

    def _is_computed(self, node: Node) -> bool:
        """Whether ``node`` is a view of something that this kernel computes."""
        while self.place(node) is None and node.op.name in VIEWS:
            node = node.inputs[0]
        return self.place(node) is None and node in self.cluster.members

    def _reduced_map(self, node: Node, index: Map) -> Map:
        over = iter(self.cluster.reduced[node])
        axes = cast(tuple[int, ...], node.attrs["axis"])
        keepdims = bool(node.attrs["keepdims"])
        kept = iter(index)
        below: list[Affine] = []
        for position, extent in enumerate(node.inputs[0].shape):
            if position not in axes:
                below.append(next(kept))
                continue
            if keepdims:
                next(kept)
            below.append(Affine(()) if extent == 1 else Affine(((next(over), 1),)))
        return tuple(below)

    def _expression(self, instance: Instance, below: Sequence[Instance]) -> int:
        node, index = instance
        args = tuple(self.position[i] for i in below)
        if node.op.name == "constant":
            return self._const(node.attrs["value"], node.dtype)
        if node.op.name == "iota":
            return self._index(node, index)
        if self._is_product(node) and self._is_member(instance):
            return self._product(node, index)
        if not args:
            return self._load(node, index)
        if node.op.name in VIEWS or node.op.name == "cycle":
            return args[0]
        if self.cluster.attention is not None and node is self.cluster.attention.node:
            return self._attend(index, args[0])
        self._note(node)
        if native.is_gather(node):
            return self._gather(instance, args)
        if node.op.name == native.NATURAL:
            return self._add(Natural(node.dtype, self._axes(args), args[0], self._faults()))
        if node in self.cluster.reduced:
            return self._reduce(node, args[0])
        if node in self.cluster.scanned:
            return self._scan(node, args[0])
        return self._add(Apply(node.dtype, self._axes(args), node.op.name, args, node.attrs))

    def _map_axes(self, index: Map) -> frozenset[int]:
        return frozenset[int]().union(*(part.axes for part in index))

    def _axes(self, args: Sequence[int]) -> frozenset[int]:
        return frozenset[int]().union(*(self.exprs[a].axes for a in args))

    def _add(self, expr: Expr) -> int:
        """Return the position of ``expr``, which stands in the kernel once.

        Equal nodes are one node, but views apart: ``x.sum(0)`` and ``x.sum(0, keepdims=True)``.
        """
        key: Hashable = expr
        if isinstance(expr, Apply):
            key = (expr.op, expr.args, expr.dtype, tuple(sorted(expr.attrs.items())))
        position = self.numbers.setdefault(key, len(self.exprs))
        if position == len(self.exprs):
            self.exprs.append(expr)
        return position

    def _const(self, value: Any, dtype: np.dtype[Any]) -> int:
        key = (dtype.str, repr(value))
        if key not in self.consts:
            self.consts[key] = len(self.exprs)
            self.exprs.append(Const(dtype, frozenset(), value))
        return self.consts[key]

    def _index(self, node: Node, index: Map) -> int:
        part = index[cast(int, node.attrs["axis"])]
        coefficients = [0] * len(self.extents)
        for axis, coefficient in part.terms:
            coefficients[axis] = coefficient
        number = self._add(Index(node.dtype, part.axes, part.offset, tuple(coefficients)))
        for seam in part.seams:
            number = self._jumped(number, node.dtype, seam)
        return number

    def _jumped(self, number: int, dtype: np.dtype[Any], seam: Seam) -> int:
        """Return a number that is the jump of ``seam`` further behind it."""
        along = tuple(int(a == seam.axis) for a in range(len(self.extents)))
        place = self._add(Index(INT64, frozenset({seam.axis}), 0, along))
        passed = (place, self._const(seam.position, INT64))
        axes = frozenset({seam.axis})
        behind = self._add(Apply(BOOL, axes, "greater_equal", passed, {}))
        further = self._const(seam.jump, dtype), self._const(0, dtype)
        jump = self._add(Apply(dtype, axes, "where", (behind, *further), {}))
        return self._add(Apply(dtype, self.exprs[number].axes, "add", (number, jump), {}))

    def _load(self, node: Node, index: Map) -> int:
        place = cast(Place, self.place(node))
        offset = flat(index, place.strides)
        return self._add(Load(node.dtype, offset.axes, self._access(place.buffer, node, offset)))

    def _gathered(self, instance: Instance) -> Gathered:
        return gathered(*instance, len(self.extents))

    def _gather(self, instance: Instance, args: Sequence[int]) -> int:
        node, _ = instance
        found = self._gathered(instance)
        operand = node.inputs[0]
        seen = self._seen(operand, found.holed, found.extents(self.extents))
        kept, places, steps = self._beyond(found, seen.offset, args)
        access = self._access(seen.place.buffer, node, kept)
        axes = self._axes(args) | kept.axes
        return self._add(Gather(node.dtype, axes, access, places, steps))

    def _scatter(self, root: Root, scatter: Scatter) -> Store:
        found = scatter.to(root.index, len(self.extents))
        value = self._value((scatter.values, broadcast(root.index, scatter.values.shape)))
        args = [self._value((p.node, p.where)) for p in found.positions]
        offset = flat(found.holed, contiguous_strides(scatter.target.shape))
        kept, places, steps = self._beyond(found, offset, args)
        place = cast(Place, self.place(root.node))
        self._note(root.node)
        return Store(self._access(place.buffer, root.node, kept), value, places, steps, scatter.op)

    def _beyond(
        self, found: Gathered, offset: Affine, args: Sequence[int]
    ) -> tuple[Affine, tuple[int, ...], tuple[int, ...]]:
        """Split ``offset`` at the holes: where the strides lead, and positions and their steps."""
        count = len(self.extents)
        terms = dict(offset.terms)
        kept = offset._replace(terms=tuple(t for t in offset.terms if t[0] < count))
        faults = self._faults()
        places = tuple(
            self._add(
                Bound(INT64, self.exprs[a].axes, a, self._const(position.extent, INT64), faults)
            )
            for a, position in zip(args, found.positions, strict=True)
        )
        steps = tuple(self._const(terms.get(count + i, 0), INT64) for i in range(len(args)))
        return kept, places, steps

    def _faults(self) -> int:
        """Return the access to the counter of values that are out of range."""
        counter = Access(self.faults(), INT64, 0, (0,) * len(self.extents))
        return self.accesses.setdefault(counter, len(self.accesses))

    def _product(self, node: Node, index: Map) -> int:
        product = cast(Product, self.cluster.product)
        left, right = node.inputs
        left_map, right_map = operand_maps(product, index)
        self._note(node)
        axes = self._map_axes(index) | {product.rows, product.columns}
        gather = None
        a = self.position.get((left, left_map))
        if a is None:
            a = self._stored_load(left, left_map)
        b = self.position.get((right, right_map))
        if b is None:
            b, gather = self._gathered_load(right, right_map, product)
        return self._add(
            Contract(
                node.dtype, axes, a, b, product.rows, product.columns, product.depth, gather=gather
            )
        )

    def _gathered_load(self, node: Node, index: Map, product: Product) -> tuple[int, Walks | None]:
        """Load the right operand; a reshape that merges axes may be all that is not stored of it.

        Then its walks along depth and columns, if one stride cannot replace them.
        """
        if self._reads_stored(node, index):
            return self._stored_load(node, index), None
        inner = node.inputs[0]
        *batch, depths, columns = cast("list[list[int]]", axis_runs(node.shape, inner.shape))
        # Axes of the view beyond the kernel's own stand for those that are merged.
        count = len(self.extents)
        below = [axis_index(count + i) for i in range(len(inner.shape))]
        below = [part if inner.shape[i] != 1 else Affine(()) for i, part in enumerate(below)]
        for part, mine in zip(index[:-2], batch, strict=True):
            for axis in mine:
                below[axis] = part
        seen = self._seen(inner, tuple(below), [*self.extents, *inner.shape])

        def steps(part: Affine, mine: list[int]) -> tuple[int, ...]:
            return tuple(dict(part.terms).get(count + a, 0) for a in mine)

        walks = [
            tuple(Walk(inner.shape[a], s) for a, s in zip(m, steps(seen.offset, m), strict=True))
            for m in (depths, columns)
        ]
        borders = tuple(
            Border(extent, part.offset, steps(part, depths), steps(part, columns) or (0,))
            for part, extent in seen.edges
        )
        kept = [(a, s) for a, s in seen.offset.terms if a < count]
        fewest = [collapsed(w) for w in walks]
        gather = None
        if borders or any(len(w) > 1 for w in fewest):
            # Where it is padded, the first element may lie before the buffer.
            gather = Walks(walks[0], walks[1] or (Walk(1, 0),), borders, min(seen.offset.offset, 0))
        else:
            kept += [
                (axis, walk.stride)
                for axis, w in zip((product.depth, product.columns), fewest, strict=True)
                for walk in w
            ]
        offset = Affine(tuple(sorted(kept)), max(seen.offset.offset, 0))
        load = Load(node.dtype, offset.axes, self._access(seen.place.buffer, node, offset))
        return self._add(load), gather

    def _reads_stored(self, node: Node, index: Map) -> bool:
        """Whether index maps lead from ``node`` to something stored."""
        while self.place(node) is None:
            below = through(node, index, self.extents) if node.op.name in VIEWS else None
            if below is None:
                return False
            node, index = node.inputs[0], below
        return True

    def _seen(self, node: Node, index: Map, extents: Sequence[int]) -> Seen:
        """Return where the element at ``index`` of a view of something stored is.

        What lies beyond the edges of a value that is padded with zeros is nowhere.
        """
        edges: list[tuple[Affine, int]] = []
        while (place := self.place(node)) is None:
            if node.op.name == "pad":
                low = cast(tuple[int, ...], node.attrs["low"])
                index = tuple(
                    part._replace(offset=part.offset - n)
                    for part, n in zip(index, low, strict=True)
                )
                edges += [(index[axis], node.inputs[0].shape[axis]) for axis in padded_axes(node)]
            else:
                index = cast(Map, through(node, index, extents))
            node = node.inputs[0]
        return Seen(flat(index, place.strides), place, edges)

    def _scores_map(self, index: Map) -> Map:
        attention = cast(Attention, self.cluster.attention)
        return (*index[:-2], axis_index(attention.rows), axis_index(attention.keys))

    def _attend(self, index: Map, scores: int) -> int:
        attention = cast(Attention, self.cluster.attention)
        for node in (*reversed(attention.softmax), attention.node):
            self._note(node)
        values = attention.node.inputs[1]
        where = axis_index(attention.keys), axis_index(attention.columns)
        v = self._stored_load(values, (*broadcast(index[:-2], values.shape[:-2]), *where))
        axes = self._map_axes(index) | {attention.rows, attention.columns}
        return self._add(
            Attend(
                attention.node.dtype, axes, scores, v,
                attention.rows, attention.columns, attention.keys,
            )
        )  # fmt: skip

    def _stored_load(self, node: Node, index: Map) -> int:
        """Load ``node``, which is a view of something stored."""
        seen = self._seen(node, index, self.extents)
        access = self._access(seen.place.buffer, node, seen.offset)
        return self._add(Load(node.dtype, seen.offset.axes, access))

    def _reduce(self, node: Node, arg: int) -> int:
        over = self.cluster.reduced[node]
        if over:
            for part in self._stages(node.op.name, arg, over):
                arg = self._reduce_over(node, arg, part)
            return arg
        if node.op.name.startswith("arg"):
            return self._const(0, node.dtype)
        return self._cast(node, arg)

    def _stages(self, name: str, arg: int, over: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the axes that are reduced first, and those after them.

        The loops over what a reduction inside varies with stand outside, so that it runs once for
        each row and not once for every element.
        """
        if name not in COMBINE:
            return [over]
        inside = [e.axes & set(over) for e in self._below(arg) if isinstance(e, Reduce)]
        outer = min((a for a in inside if a and a < set(over)), key=len, default=frozenset[int]())
        if not outer:
            return [over]
        rest = tuple(a for a in over if a not in outer)
        return [*self._stages(name, arg, rest), tuple(a for a in over if a in outer)]

    def _below(self, root: int) -> Iterator[Expr]:
        """Yield the expressions that one needs."""
        seen, stack = {root}, [root]
        while stack:
            expr = self.exprs[stack.pop()]
            yield expr
            stack += [p for p in operands(expr) if p not in seen]
            seen.update(operands(expr))

    def _reduce_over(self, node: Node, arg: int, over: tuple[int, ...]) -> int:
        # Axes that the value does not vary with still count: summing a constant n times.
        axes = self.exprs[arg].axes - set(over)
        reduce = Reduce(node.dtype, axes, node.op.name, arg, over)
        # A mean and a variance of the same array sum it twice, with and without keepdims.
        position = self.sums.setdefault(reduce, len(self.exprs))
        if position == len(self.exprs):
            self._add(reduce)
            self.reductions[position] = node
        return position

    def _scan(self, node: Node, arg: int) -> int:
        axis = self.cluster.scanned[node]
        if axis is None:
            return self._cast(node, arg)
        axes = self.exprs[arg].axes | {axis}
        return self._add(Scan(node.dtype, axes, node.op.name, arg, axis))

    def _cast(self, node: Node, arg: int) -> int:
        """Return ``arg`` as the result of ``node``: a reduction or scan of one element."""
        if self.exprs[arg].dtype == node.dtype:
            return arg
        axes = self.exprs[arg].axes
        return self._add(Apply(node.dtype, axes, "cast", (arg,), {"dtype": spelled(node.dtype)}))

    def _note(self, node: Node) -> None:
        self.labels.append(node.op.name)
        if node.loc is not None:
            self.lines.append(str(node.loc))


def build(
    cluster: Cluster, place: Callable[[Node], Place | None], faults: Callable[[], int]
) -> Kernel:
    """Return the kernel of ``cluster``, with its loops arranged."""
    if cluster.attention is not None:
        return arrange_attention(KernelBuilder(cluster, place, faults).build())
    if cluster.product is not None:
        return arrange_product(KernelBuilder(cluster, place, faults).build())
    # Each round gives some reductions axes of their own, so there is at most one a reduction.
    for _ in range(len(cluster.reduced) + 1):
        builder = KernelBuilder(cluster, place, faults)
        kernel = builder.build()
        try:
            return arrange(kernel)
        except Shadowed as clash:
            for position in clash.reductions:
                _rename(cluster, builder.reductions[position])
    raise InternalError("reductions of a kernel shadow each other's axes")


def _rename(cluster: Cluster, node: Node) -> None:
    """Give a reduction axes of its own."""
    fresh: list[int] = []
    for axis in cluster.reduced[node]:
        fresh.append(len(cluster.extents))
        cluster.extents.append(cluster.extents[axis])
    cluster.reduced[node] = tuple(fresh)
