"""Tiny axes written out: a loop of three is three values.

A kernel with reductions over points in space has axes of extent 2, 3 or 4, for the coordinates.
As loops they would hide everything else: vectors of three lanes, a distance computed again for
each coordinate of the force. Written out, the coordinates are separate values with their own
loads, and the loops left are long::

    for i: for c < 3: for j: sum …      →      for i: for j: sum₀ …, sum₁ …, sum₂ …

So it is with the fields of records (a pixel's colours), which ``records.py`` then moves together.
"""

from __future__ import annotations

from collections.abc import Callable

from tracejit.ops.dtypes import spelled
from tracejit.ops.reductions import COMBINE
from tracejit.record import replace
from tracejit.schedule.kernel import (
    Access,
    Apply,
    Const,
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
from tracejit.sizes import hint, is_size

TINY = 4
MAX_EXPRS = 256


def unroll(kernel: Kernel) -> Kernel:
    """Return ``kernel`` with its tiny axes written out: coordinates, and fields of records."""
    sizes = {
        kernel.extents[a] for e in kernel.exprs if isinstance(e, Reduce) for a in e.over
    }  # the coordinates are what something is summed over; four rows are just four rows
    for axis in reversed(range(len(kernel.extents))):
        if not check_unroll(kernel, axis):
            continue
        if kernel.extents[axis] in sizes or check_fields(kernel, axis):
            kernel = _Unroller(kernel, axis).run()
    return kernel


def check_unroll(kernel: Kernel, axis: int) -> bool:
    """Whether ``axis`` is tiny, beside longer ones, and every use of it can be written out."""
    extent = kernel.extents[axis]
    if is_size(extent) or not 2 <= extent <= TINY or len(kernel.exprs) * extent > MAX_EXPRS:
        return False
    if kernel.seams or not any(hint(n) > TINY for n in kernel.extents):
        return False
    reductions = [e for e in kernel.exprs if isinstance(e, Reduce)]
    if any(isinstance(e, Scan | Gather | Natural) for e in kernel.exprs):
        return False
    return all(e.op in COMBINE for e in reductions if axis in e.over)


def check_fields(kernel: Kernel, axis: int) -> bool:
    """Whether ``axis``, which is tiny, runs over fields of records that every access has in reach.

    The others have a plane for each field, contiguous along another axis, or one value.
    """
    extent = kernel.extents[axis]
    records: list[Access] = []
    others: list[list[int]] = []
    for access in kernel.accesses:
        few = [s for s in access.strides if extent <= hint(s) <= TINY]
        if abs(access.strides[axis]) == 1 and any(extent <= s <= TINY for s in few):
            records.append(access)
        elif access.strides[axis]:
            others.append([s for a, s in enumerate(access.strides) if a != axis])
    return bool(records) and all(1 in strides or not any(strides) for strides in others)


class _Unroller:
    """Rewrites one kernel for one axis: each expression becomes one, or one per index."""

    def __init__(self, kernel: Kernel, axis: int):
        self.kernel = kernel
        self.axis = axis
        self.extent = kernel.extents[axis]
        self.accesses: dict[Access, int] = {}
        self.exprs: list[Expr] = []
        self.known: dict[tuple[object, ...], int] = {}
        # Position before → positions after, by index along the axis; one where it does not vary.
        self.image: list[list[int]] = []

    def run(self) -> Kernel:
        for expr in self.kernel.exprs:
            self.image.append(self._rewrite(expr))
        stores: list[Store] = []
        for store in self.kernel.stores:
            places = self._accesses(store.access)
            values = self._spread(self.image[store.value])
            stores += [Store(p, values[i % len(values)]) for i, p in enumerate(places)]
        extents = [n if a != self.axis else 1 for a, n in enumerate(self.kernel.extents)]
        return replace(
            self.kernel,
            extents=tuple(extents),
            accesses=tuple(self.accesses),
            exprs=tuple(self.exprs),
            stores=tuple(stores),
            parallel=tuple(a for a in self.kernel.parallel if a != self.axis),
        )

    def _spread(self, positions: list[int]) -> list[int]:
        return positions if len(positions) > 1 else positions * self.extent

    def _add(self, key: tuple[object, ...], make: Callable[[], Expr]) -> int:
        if key not in self.known:
            self.known[key] = len(self.exprs)
            self.exprs.append(make())
        return self.known[key]

    def _rewrite(self, expr: Expr) -> list[int]:
        axes = expr.axes - {self.axis}
        varies = self.axis in expr.axes
        match expr:
            case Const():
                return [self._add((id(expr),), lambda: expr)]
            case Load():
                places = self._accesses(expr.access)
                return [
                    self._add(("load", p), lambda p=p: Load(expr.dtype, axes, p)) for p in places
                ]
            case Index():
                return [self._index(expr, axes, i) for i in range(self.extent if varies else 1)]
            case Reduce():
                return self._reduce(expr, axes, varies)
            case _:
                return self._apply(expr, axes, varies)

    def _accesses(self, number: int) -> list[int]:
        """Return the access at each index along the axis (one where it does not move)."""
        access = self.kernel.accesses[number]
        stride = access.strides[self.axis]
        strides = tuple(0 if a == self.axis else s for a, s in enumerate(access.strides))
        count = self.extent if stride else 1
        moved = [
            replace(access, offset=access.offset + i * stride, strides=strides)
            for i in range(count)
        ]
        return [self.accesses.setdefault(a, len(self.accesses)) for a in moved]

    def _index(self, expr: Index, axes: frozenset[int], index: int) -> int:
        step = expr.coefficients[self.axis]
        terms = tuple(0 if a == self.axis else c for a, c in enumerate(expr.coefficients))
        moved = Index(expr.dtype, axes, expr.offset + index * step, terms)
        return self._add(("index", moved), lambda: moved)

    def _apply(self, expr: Expr, axes: frozenset[int], varies: bool) -> list[int]:
        assert isinstance(expr, Apply)
        arguments = [self.image[a] for a in operands(expr)]
        result: list[int] = []
        for i in range(self.extent if varies else 1):
            args = tuple(a[i] if len(a) > 1 else a[0] for a in arguments)
            result.append(
                self._add((id(expr), args), lambda a=args: replace(expr, axes=axes, args=a))
            )
        return result

    def _reduce(self, expr: Reduce, axes: frozenset[int], varies: bool) -> list[int]:
        values = self._spread(self.image[expr.arg])
        if self.axis not in expr.over:
            kept = values if varies else values[:1]
            return [
                self._add((id(expr), v), lambda v=v: replace(expr, axes=axes, arg=v)) for v in kept
            ]
        over = tuple(a for a in expr.over if a != self.axis)
        total = values[0] if over else self._as_result(values[0], expr)
        for value in values[1:]:
            total = self._combine(expr, total, value if over else self._as_result(value, expr))
        if not over:
            return [total]
        return [
            self._add((id(expr), total), lambda: replace(expr, axes=axes, arg=total, over=over))
        ]

    def _as_result(self, value: int, expr: Reduce) -> int:
        """Return ``value`` in the reduction's dtype (sums of small integers widen)."""
        operand = self.exprs[value]
        if operand.dtype == expr.dtype:
            return value
        attrs = {"dtype": spelled(expr.dtype)}
        return self._add(
            ("cast", value, expr.dtype),
            lambda: Apply(expr.dtype, operand.axes, "cast", (value,), attrs),
        )

    def _combine(self, expr: Reduce, left: int, right: int) -> int:
        dtype = self.exprs[left].dtype
        if dtype != expr.dtype:
            left, right = self._as_result(left, expr), self._as_result(right, expr)
            dtype = expr.dtype
        axes = self.exprs[left].axes | self.exprs[right].axes
        args = (left, right)
        return self._add(
            (id(expr), "chain", args), lambda: Apply(dtype, axes, COMBINE[expr.op], args, {})
        )
