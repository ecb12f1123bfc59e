"""Reductions down columns by blocks of rows, which are read and stored as they lie in memory.

Such a reduction walks strips of columns from row to row (``codegen/strips.py``). Few columns are
few strips, for few threads. Of many rows, a strip is out of the second cache when the next pass
over it begins. And what is stored in strips goes to a few lines of each row. So a large kernel
becomes three: partial results of blocks of rows, their results, and what is computed from those::

    for j: m = Σ x[i, j] / n;  s = Σ (x[i, j] - m)²;  for i: y[i, j] = (x[i, j] - m) / √s
    →
    for block, for j: p = Σ x[i, j] / R;  e = Σ x[i, j] - p;  q = Σ (x[i, j] - p)²    of R rows
    for j:            m = Σ R·p / n;      s = Σ q + (p - m)·(2·e + R·(p - m))
    for i, for j:     y[i, j] = (x[i, j] - m) / √s

The squares are about the same m as before: (x - m)² = (x - p)² + 2·(p - m)·(x - p) + (p - m)².
Nothing cancels, since p is near the mean of the block: e is near 0, and the other terms are
squares (Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance"). Blocks
depend on the shape alone, and so do the bits. The last rows, which fill no block, are reduced with
the blocks' results.

Measured on two shared cores with 2 MiB of second cache each, float32, in one process with strips,
which took 1.3 times as long to normalise the columns of 4000×1000, 2.4 times for 20000×200, and 2.6
times for the variance of 25000×64.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from tracejit.ops.reductions import COMBINE
from tracejit.ops.table import DType, Shape
from tracejit.record import replace
from tracejit.schedule.index import contiguous_strides
from tracejit.schedule.kernel import (
    Access,
    Apply,
    Block,
    Bound,
    Const,
    Expr,
    Gather,
    Index,
    Kernel,
    Load,
    Natural,
    Reduce,
    Store,
    operands,
)
from tracejit.schedule.loops import arrange
from tracejit.sizes import hint

# Bytes of a block, and its rows: a power of two, by which sums are divided without rounding. The
# first cache keeps a strip of ``STRIP_ROWS`` for its second pass, which fetches the next strip.
BLOCK_BYTES, LEAST_ROWS, STRIP_ROWS, MOST_ROWS = 1 << 16, 32, 64, 1 << 12
# Bytes of operands that are worth three kernels.
LEAST_BYTES = 1 << 20
# Bytes of a row that a strip of columns takes: wide enough for whole lines and pages, narrow enough
# that thousands of rows stay in the second cache. Strips that are few for threads to share, and
# bytes of all rows of a strip that do not stay in the second cache.
STRIP_BYTES, FEW_STRIPS, DEEP_BYTES = 256, 8, 3 << 18

# Makes a buffer of a type and a shape, and returns its number.
NewBuffer = Callable[[DType, Shape], int]


class Deviation(NamedTuple):
    """A sum of squares of ``x - center``, where only x varies with the rows."""

    x: int
    center: int


def by_blocks(kernel: Kernel, new_buffer: NewBuffer) -> list[Kernel] | None:
    """Return the kernels that ``kernel`` becomes, in order, or None where it stays."""
    row = rows_axis(kernel)
    if row is None or not check_size(kernel, row):
        return None
    depends = _depends(kernel)
    deviations: dict[int, Deviation] = {}
    for position in _reductions(kernel):
        arg = kernel.exprs[position]
        assert isinstance(arg, Reduce)
        if row not in kernel.exprs[arg.arg].axes or not _combines(arg):
            return None
        if depends[arg.arg]:
            found = _deviation(kernel, position, row, depends)
            if found is None:
                return None
            deviations[position] = found
    return _Blocks(kernel, row, deviations, depends, new_buffer).kernels()


# -- which kernels ---------------------------------------------------------------------------------


def rows_axis(kernel: Kernel) -> int | None:
    """Return the axis of the only loops inside strips of columns; they reduce, or store rows."""
    if not kernel.down_columns or kernel.scans or kernel.scratch or kernel.copies:
        return None
    if kernel.contract is not None or kernel.scatter is not None or kernel.records:
        return None
    if kernel.seams:
        return None
    if kernel.stored_records or any(isinstance(e, Gather | Bound | Natural) for e in kernel.exprs):
        return None
    axes = {axis for nest in kernel.block.nests for axis in nest.axes}
    if len(axes) != 1 or any(nest.body.nests for nest in kernel.block.nests):
        return None
    return axes.pop() if _reductions(kernel) else None


def check_size(kernel: Kernel, row: int) -> bool:
    """Whether blocks are worth it: operands are large, and strips few, or too long for a cache."""
    columns = kernel.vector_parallel
    assert columns is not None
    read = [a for a in _read(kernel, row) if a.strides[columns] == 1]
    rows, width = hint(kernel.extents[row]), hint(kernel.extents[columns])
    around = prod(hint(kernel.extents[a]) for a in kernel.parallel if a != columns)
    sizes = [a.dtype.itemsize for a in read]
    if not read or sum(sizes) * rows * width * around < LEAST_BYTES:
        return False
    few = max(sizes) * width * around < FEW_STRIPS * STRIP_BYTES
    deep = len(kernel.block.nests) > 1 and len(read) * STRIP_BYTES * rows > DEEP_BYTES
    return (few or deep) and kernel.extents[row] >= 4 * LEAST_ROWS


def _read(kernel: Kernel, row: int) -> list[Access]:
    """Return what is read of each row."""
    loaded = {e.access for e in kernel.exprs if isinstance(e, Load)}
    return [a for n, a in enumerate(kernel.accesses) if n in loaded and a.strides[row]]


def _combines(expr: Reduce) -> bool:
    """Whether partial results combine: halves of a word would lose digits in memory."""
    wide = expr.dtype.kind == "f" and expr.dtype.itemsize >= 4
    return expr.op in COMBINE and (wide or expr.dtype.kind in "biu")


def _reductions(kernel: Kernel) -> list[int]:
    return [p for p, e in enumerate(kernel.exprs) if isinstance(e, Reduce)]


def _depends(kernel: Kernel) -> list[bool]:
    """Return which expressions are computed from a reduction, or are one."""
    found: list[bool] = []
    for expr in kernel.exprs:
        found.append(isinstance(expr, Reduce) or any(found[p] for p in operands(expr)))
    return found


def _deviation(
    kernel: Kernel, position: int, row: int, depends: Sequence[bool]
) -> Deviation | None:
    """Return what the reduction at ``position`` squares, if it is a sum of such squares."""
    reduction = kernel.exprs[position]
    assert isinstance(reduction, Reduce)
    square = kernel.exprs[reduction.arg]
    if reduction.op != "sum" or square.dtype != reduction.dtype or square.dtype.kind != "f":
        return None
    if not isinstance(square, Apply) or square.op != "multiply" or len({*square.args}) != 1:
        return None
    difference = kernel.exprs[square.args[0]]
    if not isinstance(difference, Apply) or difference.op != "subtract":
        return None
    x, center = difference.args
    if row not in kernel.exprs[x].axes:
        x, center = center, x
    if row in kernel.exprs[center].axes or depends[x] or kernel.exprs[x].dtype != square.dtype:
        return None
    return Deviation(x, center)


# -- the kernels -----------------------------------------------------------------------------------


class _Part:
    """Writes one of the kernels.

    It has the axes of the whole kernel and one over blocks. Along the axis ``row`` it sees
    ``rows`` rows from row ``first`` on, which each of the ``blocks`` moves by ``step``.
    """

    def __init__(
        self, kernel: Kernel, row: int, rows: int, blocks: int = 1, first: int = 0, step: int = 0
    ):
        self.kernel, self.row, self.first, self.step = kernel, row, first, step
        self.block = len(kernel.extents)
        extents = [rows if a == row else n for a, n in enumerate(kernel.extents)]
        self.extents = (*extents, blocks)
        self.accesses: dict[Access, int] = {}
        self.exprs: list[Expr] = []
        self.numbers: dict[Hashable, int] = {}
        self.stores: list[Store] = []
        # Positions in the whole kernel → positions here.
        self.known: dict[int, int] = {}

    def take(self, position: int) -> int:
        """Write what the whole kernel has at ``position``, and all below that is not known."""
        needed, stack = {position}, [position]
        while stack:
            at = stack.pop()
            below = () if at in self.known else operands(self.kernel.exprs[at])
            stack += [p for p in below if p not in needed]
            needed.update(below)
        for at in sorted(needed):
            if at not in self.known:
                self.known[at] = self.add(self._moved(self.kernel.exprs[at]))
        return self.known[position]

    def add(self, expr: Expr) -> int:
        """Return the position of ``expr``, which stands in the kernel once."""
        key: Hashable = expr
        if isinstance(expr, Apply):
            key = (expr.op, expr.args, expr.dtype, tuple(sorted(expr.attrs.items())))
        elif isinstance(expr, Const):
            key = (expr.dtype, repr(expr.value))
        position = self.numbers.setdefault(key, len(self.exprs))
        if position == len(self.exprs):
            self.exprs.append(expr)
        return position

    def apply(self, op: str, *args: int, dtype: DType | None = None) -> int:
        """Write an operation; its result has the type of its last operand, or ``dtype``."""
        axes = frozenset[int]().union(*(self.exprs[a].axes for a in args))
        return self.add(Apply(dtype or self.exprs[args[-1]].dtype, axes, op, args, {}))

    def number(self, value: float, like: int) -> int:
        return self.add(Const(self.exprs[like].dtype, frozenset(), value))

    def reduce(self, op: str, arg: int, axis: int) -> int:
        expr = self.exprs[arg]
        return self.add(Reduce(expr.dtype, expr.axes - {axis}, op, arg, (axis,)))

    def load(self, access: Access) -> int:
        axes = frozenset(a for a, s in enumerate(access.strides) if s)
        return self.add(Load(access.dtype, axes, self._number(access)))

    def store(self, access: Access, value: int) -> None:
        self.stores.append(Store(self._number(access), value))

    def moved(self, access: Access) -> Access:
        """Return an access of the whole kernel where this one's rows are."""
        stride = access.strides[self.row]
        offset, strides = access.offset + self.first * stride, (*access.strides, self.step * stride)
        return replace(access, offset=offset, strides=strides)

    def _number(self, access: Access) -> int:
        return self.accesses.setdefault(access, len(self.accesses))

    def _moved(self, expr: Expr) -> Expr:
        axes = expr.axes
        if self.row in axes and self.step:
            axes |= {self.block}
        match expr:
            case Load(access=access):
                moved = self.moved(self.kernel.accesses[access])
                return replace(expr, axes=axes, access=self._number(moved))
            case Index(offset=offset, coefficients=c):
                along = c[self.row]
                coefficients = (*c, self.step * along)
                offset += self.first * along
                return replace(expr, axes=axes, offset=offset, coefficients=coefficients)
            case Apply(args=args):
                return replace(expr, axes=axes, args=tuple(self.known[a] for a in args))
            case Reduce(arg=arg):
                below = self.known[arg]
                axes = self.exprs[below].axes - {self.row}
                return replace(expr, axes=axes, arg=below)
            case _:
                return expr

    def arranged(self, parallel: Iterable[int]) -> Kernel:
        named = [e.op for e in self.exprs if isinstance(e, Apply | Reduce)]
        return arrange(
            Kernel(
                extents=self.extents,
                accesses=tuple(self.accesses),
                exprs=tuple(self.exprs),
                stores=tuple(self.stores),
                parallel=tuple(parallel),
                vector_parallel=None,
                block=Block(),
                labels=tuple(named),
                lines=self.kernel.lines,
            )
        )


class _Squares(NamedTuple):
    """What blocks keep of x for squares of its differences from a value known later: Σ x, Σ (x - p)
    and Σ (x - p)², with p = Σ x / R."""

    total: Access
    rest: Access
    squares: Access


class _Blocks:
    """Writes the kernels that one with the rows ``row`` becomes."""

    def __init__(
        self,
        kernel: Kernel,
        row: int,
        deviations: dict[int, Deviation],
        depends: Sequence[bool],
        new_buffer: NewBuffer,
    ):
        self.kernel, self.row, self.depends = kernel, row, depends
        self.deviations = deviations
        self.new_buffer = new_buffer
        self.rows = block_rows(kernel, row)
        # The rest is never empty, nor so small that its loop is written out.
        self.blocks = (kernel.extents[row] - self.rows // 2 - 1) // self.rows
        self.block = len(kernel.extents)
        self.partial: dict[int, Access] = {}
        self.squares: dict[int, _Squares] = {}
        self.results: dict[int, Access] = {}

    def kernels(self) -> list[Kernel]:
        beyond = [s for s in self.kernel.stores if self._stores_rows(s)]
        for store in beyond:
            self._want(store.value)
        kernels = [self._partials(), self._results()]
        return [*kernels, self._rows(beyond)] if beyond else kernels

    def _stores_rows(self, store: Store) -> bool:
        return self.kernel.accesses[store.access].strides[self.row] != 0

    def _want(self, position: int) -> None:
        """Note the values of columns that ``position`` needs: they will be stored."""
        stack, seen = [position], {position}
        while stack:
            at = stack.pop()
            if not self.depends[at]:
                continue
            if self.row in self.kernel.exprs[at].axes:
                fresh = [p for p in operands(self.kernel.exprs[at]) if p not in seen]
                seen.update(fresh)
                stack += fresh
            else:
                self.results[at] = self._buffer(self.kernel.exprs[at].dtype, self.kernel.parallel)

    def _buffer(self, dtype: DType, axes: Sequence[int]) -> Access:
        """Return where a new value that varies with ``axes`` is."""
        extents = (*self.kernel.extents, self.blocks)
        shape = tuple(extents[a] for a in axes)
        strides = [0] * len(extents)
        for axis, stride in zip(axes, contiguous_strides(shape), strict=True):
            strides[axis] = stride
        return Access(self.new_buffer(dtype, shape), dtype, 0, tuple(strides))

    def _partials(self) -> Kernel:
        """Reduce each block."""
        part = _Part(self.kernel, self.row, self.rows, self.blocks, step=self.rows)
        *outer, columns = self.kernel.parallel
        axes = (*outer, self.block, columns)
        kept: dict[int, Access] = {}

        def keep(value: int) -> Access:
            if value not in kept:
                kept[value] = self._buffer(part.exprs[value].dtype, axes)
                part.store(kept[value], value)
            return kept[value]

        for position in _reductions(self.kernel):
            if position not in self.deviations:
                self.partial[position] = keep(part.take(position))
        for x, _ in self.deviations.values():
            if x not in self.squares:
                value = part.take(x)
                total = part.reduce("sum", value, self.row)
                center = part.apply("multiply", total, part.number(1 / self.rows, total))
                apart = part.apply("subtract", value, center)
                square = part.apply("multiply", apart, apart)
                sums = [part.reduce("sum", s, self.row) for s in (apart, square)]
                self.squares[x] = _Squares(*(keep(s) for s in (total, *sums)))
        return part.arranged(axes)

    def _results(self) -> Kernel:
        """Reduce the blocks' results, and the rows that fill no block."""
        done = self.blocks * self.rows
        part = _Part(
            self.kernel, self.row, self.kernel.extents[self.row] - done, self.blocks, first=done
        )
        for position in _reductions(self.kernel):
            expr = self.kernel.exprs[position]
            assert isinstance(expr, Reduce)
            found = self.deviations.get(position)
            if found is None:
                value = part.load(self.partial[position])
            else:
                value = self._squares_about(part, found)
            blocks = part.reduce(expr.op, value, self.block)
            part.known[position] = part.apply(COMBINE[expr.op], blocks, part.take(position))
        for store in self.kernel.stores:
            if not self._stores_rows(store):
                access = part.moved(self.kernel.accesses[store.access])
                part.store(access, part.take(store.value))
        for position, access in self.results.items():
            part.store(access, part.take(position))
        return part.arranged(self.kernel.parallel)

    def _squares_about(self, part: _Part, deviation: Deviation) -> int:
        """Write the squares of a block, summed, of differences from a value that is known now."""
        center = part.take(deviation.center)
        total, rest, squares = (part.load(a) for a in self.squares[deviation.x])
        middle = part.apply("multiply", total, part.number(1 / self.rows, total))
        moved = part.apply("subtract", middle, center)
        twice = part.apply("multiply", rest, part.number(2.0, total))
        far = part.apply("multiply", moved, part.number(float(self.rows), total))
        more = part.apply("multiply", moved, part.apply("add", twice, far))
        # Where the block's own sum is beyond all numbers its squares are, and say all there is.
        finite = part.apply("isfinite", total, dtype=np.dtype(bool))
        more = part.apply("where", finite, more, part.number(0.0, total))
        return part.apply("add", squares, more)

    def _rows(self, stores: Iterable[Store]) -> Kernel:
        """Store the rows."""
        part = _Part(self.kernel, self.row, self.kernel.extents[self.row])
        for position, access in self.results.items():
            part.known[position] = part.load(access)
        for store in stores:
            access = part.moved(self.kernel.accesses[store.access])
            part.store(access, part.take(store.value))
        *outer, columns = self.kernel.parallel
        return part.arranged((*outer, self.row, columns))


def block_rows(kernel: Kernel, row: int) -> int:
    """Return how many rows a block has: as many as take ``BLOCK_BYTES`` of what is read, and
    ``STRIP_ROWS`` of long rows."""
    columns = kernel.vector_parallel
    assert columns is not None
    line = hint(kernel.extents[columns]) * sum(a.dtype.itemsize for a in _read(kernel, row))
    most = min(MOST_ROWS, hint(kernel.extents[row]) // 4, max(BLOCK_BYTES // line, STRIP_ROWS))
    rows = LEAST_ROWS
    while 2 * rows <= most:
        rows *= 2
    return rows
