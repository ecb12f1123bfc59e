"""The loop nest of a kernel: axes merged, the vector axis chosen, loops placed.

The expressions say what is computed; this file says in which loops. Inside the parallel loops,
each reduction and each store that varies with more axes gets a nest. Nests over the same axes
whose inputs are ready at the same time share one. A nest's body is a block again, so a reduction
inside a reduction (nearest centroid: a distance inside an argmin) nests to any depth.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from tracejit.record import replace
from tracejit.schedule.index import Seam
from tracejit.schedule.interleaved import separate
from tracejit.schedule.kernel import (
    Access,
    Attend,
    Block,
    Contract,
    Expr,
    Gather,
    Index,
    Kernel,
    Load,
    Nest,
    Reduce,
    Scan,
    operands,
)
from tracejit.schedule.pack import pack, rows_axis, shared_by
from tracejit.schedule.records import find_records
from tracejit.schedule.spill import spill
from tracejit.schedule.unroll import TINY, unroll
from tracejit.sizes import hint


def arrange(kernel: Kernel) -> Kernel:
    """Return ``kernel`` with merged axes, an order of loops, a vector axis and a loop tree."""
    _check_shadowing(kernel)
    if kernel.scatter is not None:
        return _arrange_scatter(kernel)
    kernel = _merge_axes(unroll(_merge_axes(kernel)))
    inner = vector_axis(kernel, range(len(kernel.extents)), range(len(kernel.accesses)))
    around = _axes_around(kernel)
    rows = rows_axis(kernel, inner, around)
    vector = inner if rows is None else rows
    inside = vector is not None and vector in kernel.parallel
    shared = shared_by(kernel, vector) if rows is None else set[int]()
    outer = [a for a in kernel.parallel if (a != vector or not inside) and a not in shared]
    if inside and vector is not None:
        # Next to the vector axis stands the one that some access is contiguous along.
        outer.sort(key=lambda a: any(x.strides[a] == 1 for x in kernel.accesses))
    parallel = (*outer, vector) if inside and vector is not None else tuple(outer)
    kernel = replace(kernel, parallel=parallel, vector_parallel=vector if inside else None)
    tree = _Tree(kernel).block(frozenset(parallel), range(len(kernel.stores)), ())
    kernel = pack(replace(kernel, block=tree), around, inner if rows is not None else None)
    return find_records(spill(separate(kernel)))


def _arrange_scatter(kernel: Kernel) -> Kernel:
    """Return a scatter with its loops: over what it stores apart, in order, and along slices."""
    kernel = _merge_axes(kernel)
    tree = _Tree(kernel).block(frozenset(kernel.parallel), range(len(kernel.stores)), ())
    return replace(kernel, block=tree)


class Shadowed(Exception):
    """Reductions (positions) over axes that loops around them run over already."""

    def __init__(self, reductions: list[int]):
        self.reductions = reductions
        super().__init__(f"shadowed reductions {reductions}")


def _check_shadowing(kernel: Kernel) -> None:
    """Refuse a reduction inside a loop over one of its own axes.

    Sharing an axis between loops that follow each other is what lets them share a pass. A
    reduction that varies with more than the parallel axes runs inside other loops, so its axes
    must be its own.
    """
    parallel = set(kernel.parallel)
    around = _axes_around(kernel)
    wrong = [
        position
        for position, expr in enumerate(kernel.exprs)
        if isinstance(expr, Reduce)
        and not expr.axes <= parallel
        and not around[position].isdisjoint(expr.over)
    ]
    if wrong:
        raise Shadowed(wrong)


def _axes_around(kernel: Kernel) -> list[set[int]]:
    """Return, for each expression, the axes of the stores and reductions that it is part of.

    Only those: the same reduction may stand in two of them, and has the same axes in both.
    """
    around = [set(kernel.parallel) for _ in kernel.exprs]
    for store in kernel.stores:
        strides = kernel.accesses[store.access].strides
        around[store.value] |= {a for a, s in enumerate(strides) if s}
    for position in reversed(range(len(kernel.exprs))):
        expr = kernel.exprs[position]
        over = expr.over if isinstance(expr, Reduce) else ()
        for below in operands(expr):
            around[below] |= around[position].union(over)
    return around


# -- merging axes ----------------------------------------------------------------------------------


def _merge_axes(kernel: Kernel) -> Kernel:
    """Merge axes that every access walks as one: (rows, columns) of contiguous data → elements."""
    pair = _mergeable(kernel)
    while pair is not None:
        kernel = merged(kernel, *pair)
        pair = _mergeable(kernel)
    return _without_idle_axes(kernel)


def _mergeable(kernel: Kernel) -> tuple[int, int] | None:
    """Return axes (outer, inner) that can become one."""
    count = len(kernel.extents)
    for outer in range(count):
        for inner in range(count):
            if outer != inner and check_merge(kernel, outer, inner):
                return outer, inner
    return None


def check_merge(kernel: Kernel, outer: int, inner: int) -> bool:
    extent = kernel.extents[inner]
    if (outer in kernel.parallel) != (inner in kernel.parallel):
        return False
    if not any(a.strides[inner] for a in kernel.accesses):
        return False
    if not _keeps_order(kernel.ordered, outer, inner):
        return False
    if any(axis == inner for axis, _ in kernel.seams):
        return False
    if any(a.strides[outer] != a.strides[inner] * extent for a in kernel.accesses):
        return False
    for expr in kernel.exprs:
        match expr:
            case Index(coefficients=c):
                if c[outer] != c[inner] * extent:
                    return False
            case Reduce(over=over):
                if (outer in over) != (inner in over):
                    return False
                if outer in over and over.index(inner) != over.index(outer) + 1:
                    return False
            case Scan(axis=axis):
                if axis in (outer, inner):
                    return False
            case _:
                pass
    return True


def _keeps_order(ordered: tuple[int, ...], outer: int, inner: int) -> bool:
    """Whether neither axis is ``ordered``, or they follow each other among those."""
    if outer in ordered and inner in ordered:
        return ordered.index(inner) == ordered.index(outer) + 1
    return outer not in ordered and inner not in ordered


def merged(kernel: Kernel, outer: int, inner: int) -> Kernel:
    extents = list(kernel.extents)
    count = extents[inner]
    extents[inner] = count * extents[outer]
    accesses = tuple(
        replace(
            access,
            seams=tuple(
                Seam(inner, s.position * count, s.jump) if s.axis == outer else s
                for s in access.seams
            ),
        )
        for access in kernel.accesses
    )
    return drop_axis(replace(kernel, extents=tuple(extents), accesses=accesses), outer)


def _without_idle_axes(kernel: Kernel) -> Kernel:
    """Drop axes that nothing varies with and nothing reduces over."""
    used: set[int] = {*kernel.parallel, *kernel.ordered}
    for access in kernel.accesses:
        used |= {i for i, s in enumerate(access.strides) if s}
    for expr in kernel.exprs:
        used |= expr.axes | (set(expr.over) if isinstance(expr, Reduce) else set())
    for axis in reversed(range(len(kernel.extents))):
        if axis not in used:
            kernel = drop_axis(kernel, axis)
    return kernel


def drop_axis(kernel: Kernel, gone: int) -> Kernel:
    """Remove one axis and renumber the rest."""

    def number(axis: int) -> int:
        return axis - (axis > gone)

    def without(values: tuple[int, ...]) -> tuple[int, ...]:
        return values[:gone] + values[gone + 1 :]

    def expression(expr: Expr) -> Expr:
        axes = frozenset(number(a) for a in expr.axes if a != gone)
        if isinstance(expr, Reduce):
            over = tuple(number(a) for a in expr.over if a != gone)
            return replace(expr, axes=axes, over=over)
        if isinstance(expr, Scan):
            return replace(expr, axes=axes, axis=number(expr.axis))
        if isinstance(expr, Contract | Attend):
            rows, columns, over = (number(a) for a in (expr.rows, expr.columns, expr.over))
            return replace(expr, axes=axes, rows=rows, columns=columns, over=over)
        if isinstance(expr, Index):
            return replace(expr, axes=axes, coefficients=without(expr.coefficients))
        return replace(expr, axes=axes)

    return replace(
        kernel,
        extents=without(kernel.extents),
        accesses=tuple(
            replace(
                a,
                strides=without(a.strides),
                seams=tuple(s._replace(axis=number(s.axis)) for s in a.seams),
            )
            for a in kernel.accesses
        ),
        exprs=tuple(expression(e) for e in kernel.exprs),
        parallel=tuple(number(a) for a in kernel.parallel if a != gone),
    )


# -- the vector axis -------------------------------------------------------------------------------


def vector_axis(kernel: Kernel, axes: Iterable[int], accesses: Iterable[int]) -> int | None:
    """Return the axis of ``axes`` along which most accesses are contiguous, if any is worth it."""
    best: tuple[int, int, int] | None = None
    accesses = tuple(accesses)
    for axis in axes:
        score = sum(_score(kernel, kernel.accesses[i], axis) for i in accesses)
        stored = sum(_score(kernel, kernel.accesses[s.access], axis) for s in kernel.stores)
        candidate = (score + stored, min(hint(kernel.extents[axis]), 64), axis)
        best = candidate if best is None else max(best, candidate)
    return None if best is None else best[2]


def _score(kernel: Kernel, access: Access, axis: int) -> int:
    """Contiguous is good, broadcast is free, strided costs a gather; per element touched.

    Steps over a record's fields use all of each line, if not at once; so does an axis of a few
    elements, which leaves most lanes idle.
    """
    stride = access.strides[axis]
    touched = prod(hint(n) for n, s in zip(kernel.extents, access.strides, strict=True) if s)
    long = hint(kernel.extents[axis]) > TINY
    return (2 if stride == 1 and long else 0 if 0 <= hint(stride) <= TINY else -1) * touched


# -- the loop tree ---------------------------------------------------------------------------------


class _Tree:
    """Places reductions and stores in nests; see the module's text."""

    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.exprs = kernel.exprs

    def block(
        self,
        bound: frozenset[int],
        stores: Iterable[int],
        wanted: tuple[int, ...],
        done: frozenset[int] = frozenset(),
    ) -> Block:
        """Return the block that performs ``stores`` and computes ``wanted``.

        The axes ``bound`` are fixed by loops around it, the reductions ``done`` are computed.
        """
        stores = tuple(stores)
        values = [p for i in stores for p in self.kernel.stores[i].operands]
        needed = self._needed([*values, *wanted], done)
        level = self._levels(needed, bound, done)
        pending = [p for p in needed if isinstance(self.exprs[p], Reduce) and p not in done]
        ready = [p for p in pending if self.exprs[p].axes <= bound]
        inner = [p for p in pending if p not in ready]
        groups: dict[tuple[int, tuple[int, ...]], tuple[list[int], list[int]]] = {}
        for position in ready:
            key = (level[position] - 1, self._over(position))
            groups.setdefault(key, ([], []))[0].append(position)
        here: list[int] = []
        for number in stores:
            axes = self._loops_for(number, bound, inner)
            if axes:
                key = (level[self.kernel.stores[number].value], axes)
                groups.setdefault(key, ([], []))[1].append(number)
            else:
                here.append(number)
        done |= set(ready)
        nests = [
            self._nest(bound, axes, tuple(reduces), tuple(inside), done)
            for (_, axes), (reduces, inside) in sorted(groups.items(), key=lambda g: g[0][0])
        ]
        return Block(nests, tuple(here))

    def _loops_for(self, number: int, bound: frozenset[int], pending: list[int]) -> tuple[int, ...]:
        """Return the axes of the next loops around a store.

        Where its value needs a reduction that varies with only some of them, those come first, so
        that the reduction runs once for each and not once for every element.
        """
        store = self.kernel.stores[number]
        ordered = tuple(a for a in self.kernel.ordered if a not in bound)
        if ordered:
            return ordered
        strides = self.kernel.accesses[store.access].strides
        extra = tuple(a for a, s in enumerate(strides) if s and a not in bound)
        below = set(self._needed([store.value], frozenset()))
        scans = {e.axis for e in (self.exprs[p] for p in below) if isinstance(e, Scan)}
        rows = tuple(a for a in extra if a not in scans)
        if len(rows) < len(extra):  # the loop along a scan is a nest of its own
            extra = rows or extra
        partial = [
            needs
            for p in pending
            if p in below and (needs := self.exprs[p].axes & set(extra)) and needs < set(extra)
        ]
        if partial:
            first = min(partial, key=len)
            return tuple(a for a in extra if a in first)
        return extra

    def _over(self, position: int) -> tuple[int, ...]:
        expr = self.exprs[position]
        return expr.over if isinstance(expr, Reduce) else ()

    def _nest(
        self,
        bound: frozenset[int],
        axes: tuple[int, ...],
        reduces: tuple[int, ...],
        stores: tuple[int, ...],
        done: frozenset[int],
    ) -> Nest:
        arguments = tuple(operands(self.exprs[r])[0] for r in reduces)
        body = self.block(bound | set(axes), stores, arguments, done - set(reduces))
        vector = None
        if self.kernel.vector_parallel is None and not body.nests:
            values = (p for s in stores for p in self.kernel.stores[s].operands)
            touched = self._touched([*arguments, *values])
            touched |= {self.kernel.stores[s].access for s in stores}
            vector = vector_axis(self.kernel, axes, touched)
        in_order = any(self._is_positional(r) for r in reduces) or axes[0] in self.kernel.ordered
        if vector is not None and not in_order:
            axes = (*(a for a in axes if a != vector), vector)
        elif vector is not None and vector != axes[-1]:
            vector = axes[-1]
        return Nest(axes, vector, reduces, stores, body)

    def _is_positional(self, position: int) -> bool:
        """Whether a reduction's result depends on the order of its axes."""
        expr = self.exprs[position]
        return isinstance(expr, Reduce) and expr.op.startswith("arg")

    def _needed(self, roots: list[int], done: frozenset[int]) -> list[int]:
        seen = set(roots)
        stack = list(roots)
        while stack:
            position = stack.pop()
            if position in done:
                continue
            for below in operands(self.exprs[position]):
                if below not in seen:
                    seen.add(below)
                    stack.append(below)
        return sorted(seen)

    def _touched(self, roots: list[int]) -> set[int]:
        needed = self._needed(roots, frozenset())
        return {e.access for e in (self.exprs[p] for p in needed) if isinstance(e, Load | Gather)}

    def _levels(
        self, needed: list[int], bound: frozenset[int], done: frozenset[int]
    ) -> dict[int, int]:
        """Return how many nests of this block must have run before each expression is ready."""
        level: dict[int, int] = {}
        for position in needed:
            expr = self.exprs[position]
            if position in done:
                level[position] = 0
                continue
            depth = max((level[b] for b in operands(expr)), default=0)
            if isinstance(expr, Reduce) and expr.axes <= bound:
                depth += 1
            level[position] = depth
        return level
