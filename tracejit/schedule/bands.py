"""Bands: kernels one after the other over a grid, by as many rows as stay in the cache.

A chain of stencils writes and reads a whole grid for each kernel, since a point needs its
neighbours of the kernel before. But it needs near ones only. So a block of rows of the last result
can be computed with all that it depends on: of each kernel before, the same rows and some more on
both sides (the *halo*), which the block above and the block below compute as well::

    for i: t[i, j] = f(x[i-1, j], x[i, j], x[i+1, j])     for block [a, b):  (parallel)
    for i: y[i, j] = f(t[i-1, j], t[i, j], t[i+1, j])  →    for i in [a-1, b+1): t[i, j] = …
                                                            for i in [a, b):     y[i, j] = …

What is between the kernels exists as *windows*: some rows of it, for each thread its own, where the
buffers of a block take turns as those of a schedule do in the arena. The kernels are the functions
that they are by themselves, and each element is computed by the same expression wherever it is, so
the bits are the same. Blocks do not depend on each other.

Kernels of any kind may be parts, in any number of dimensions: in one a row is an element, in three
a plane, and borders are kernels of their own. ``halo.py`` finds which rows depend on which,
``windows.py`` places what is between the kernels.

A halo costs arithmetic and saves memory traffic. So a band has as many kernels as save most by an
estimate of both, and its blocks are as high as fits half of a second cache. Measured on AVX-512,
float32: eight Jacobi sweeps over 1026² take 0.98 ms on one thread and 0.53 on two, kernel by kernel
2.31 and 1.14.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import cast

from tracejit.ops.table import OPS, Fact
from tracejit.record import replace
from tracejit.schedule.band import Band, Grid
from tracejit.schedule.grain import loop_entries
from tracejit.schedule.halo import Groups, Halo, find_halo, groups_of
from tracejit.schedule.index import Seam
from tracejit.schedule.kernel import SCRATCH, Access, Apply, Kernel, Reduce
from tracejit.schedule.windows import Windows, highest
from tracejit.sizes import hint

# Bytes of all windows of a block: half of a second cache, which rows of the results pass through.
WINDOW_BYTES = 1 << 20
# Smaller buffers stay in the caches anyway. (From 0.25 to 1 MiB on one thread bands take as long,
# and two are 1.2 to 2 times as fast, since they do not wait for each other after each kernel.)
MIN_BYTES = 1 << 18
# Rows of the results are cut into so many blocks at least, for threads to share.
MIN_BLOCKS = 16
# Kernels and complete buffers in one band, at most.
MAX_PARTS, MAX_CUTS = 96, 24
# Bytes in a nanosecond that go to a buffer or come from it in the caches that cores share, and in
# the first ones; of operands in simple arithmetic, and how many of these one dear operation is.
SHARED_RATE, OWN_RATE, ARITHMETIC_RATE, DEAR = 40, 200, 256, 20
# Nanoseconds to enter a loop along a row.
ENTRY_NS = 10
# What a band has to gain by these estimates: the halo may miss the cache, blocks may be uneven.
LEAST_GAIN = 0.1
# A search ends when so many longer bands have not been better, or so many have not been any good.
PATIENCE, FRUITLESS = 3, 8


def find_bands(
    kernels: Sequence[Kernel | None], grids: Sequence[Grid]
) -> list[tuple[int, int, Band]]:
    """Return the bands of a schedule: the first kernel of each, the one after its last, itself.

    A step that is no loop kernel is None. ``grids`` are the buffers.
    """
    if not any(g.inner and hint(g.nbytes) >= MIN_BYTES for g in grids):
        return []
    finder = _Finder(kernels, grids)
    found: list[tuple[int, int, Band]] = []
    start = 0
    while start < len(kernels):
        end, band = finder.best(start)
        if band is not None:
            found.append((start, end, band))
        start = end
    return found


def check_part(kernel: Kernel | None) -> bool:
    """Whether the kernel runs any part of its outer loop by itself, in any order."""
    if kernel is None or kernel.contract or kernel.attend or kernel.scatter or kernel.scans:
        return False
    return not (kernel.copies or kernel.packs or kernel.unpacks or kernel.tiled)


def by_rows(kernel: Kernel, grids: Sequence[Grid]) -> Kernel:
    """Return the kernel with the loop over rows outside, where it only stores by parallel loops.

    Borders that stride along both of their axes may be the other way round.
    """
    if len(kernel.parallel) < 2 or kernel.block.nests:
        return kernel
    stored = [kernel.accesses[s.access] for s in kernel.stores]
    for axis in kernel.parallel:
        if all(hint(a.strides[axis]) == hint(grids[a.buffer].pitch) for a in stored):
            if axis == kernel.parallel[0]:
                break
            others = tuple(a for a in kernel.parallel if a != axis)
            vector = None if kernel.vector_parallel is None else others[-1]
            return replace(kernel, parallel=(axis, *others), vector_parallel=vector)
    return kernel


class _Finder:
    """Finds the bands among the kernels of one schedule.

    Which kernels make a band, and how high its blocks are, concerns speed only. It is decided by
    the typical values of symbolic sizes; the band is then made with the sizes themselves.
    """

    def __init__(self, kernels: Sequence[Kernel | None], grids: Sequence[Grid]):
        self.kernels = [k and by_rows(k, grids) for k in kernels]
        self.grids = grids
        self.typical = [Grid(hint(g.rows), hint(g.pitch), g.itemsize, g.inner) for g in grids]
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.written: dict[int, int] = {}
        self.stored: list[set[int]] = []
        for number, kernel in enumerate(kernels):
            self.stored.append(set())
            if kernel is not None:
                for access in kernel.accesses:
                    self.first.setdefault(access.buffer, number)
                    self.last[access.buffer] = number
                self.stored[-1].update(kernel.accesses[s.access].buffer for s in kernel.stores)
                self.written.update(dict.fromkeys(self.stored[-1], number))
        self._known: dict[int, Groups | None] = {}
        self._costs: dict[int, tuple[float, dict[int, int]]] = {}

    def best(self, start: int) -> tuple[int, Band | None]:
        """Return the best band that starts with kernel ``start``, and what comes after it.

        Where the chain goes on, its kernels are dealt out evenly.
        """
        cuts = list(self._cuts(start))
        gains: list[float] = []
        for cut in cuts:
            gains.append(self._gain(start, cut))
            worse = len(gains) - 1 - gains.index(max(gains))
            if worse >= (PATIENCE if max(gains) > 0 else FRUITLESS):
                break
        if not gains or max(gains) < LEAST_GAIN:
            return start + 1, None
        best = gains.index(max(gains))
        bands = -(-len(cuts) // (best + 1))
        even = -(-len(cuts) // bands) - 1
        if gains[even] >= LEAST_GAIN:
            best = even
        band = self._band(start, cuts[best])
        return (cuts[best], band) if band is not None else (start + 1, None)

    def _cuts(self, start: int) -> Iterator[int]:
        """Yield where bands from ``start`` on may end: no buffer is written on both sides."""
        until = number = start
        found = 0
        while number < len(self.kernels) and number - start < MAX_PARTS:
            kernel = self.kernels[number]
            if kernel is None or self._groups(number) is None:
                return
            until = max([until, *(self.written[b] for b in self.stored[number])])
            number += 1
            if number > until:
                found += 1
                yield number
            if found >= MAX_CUTS:
                return

    def _groups(self, number: int) -> Groups | None:
        """Return the groups of a kernel by typical sizes; None where it cannot be a part."""
        if number not in self._known:
            kernel = self.kernels[number]
            self._known[number] = (
                groups_of(_typical(kernel), self.typical, self.written)
                if kernel is not None and check_part(kernel)
                else None
            )
        return self._known[number]

    def _halo(self, start: int, stop: int) -> Halo | None:
        """Return the halo of kernels [start, stop) by typical sizes."""
        known = [cast(Groups, self._groups(n)) for n in range(start, stop)]
        return find_halo(known, self._inner(start, stop), self.typical)

    def _inner(self, start: int, stop: int) -> set[int]:
        """Return the buffers that exist in a band of kernels [start, stop) only."""
        return {
            b
            for n in range(start, stop)
            for b in self.stored[n]
            if self.grids[b].inner and start <= self.first[b] and self.last[b] < stop
        }

    def _gain(self, start: int, stop: int) -> float:
        """Return which part of their time kernels [start, stop) would save; 0 where no band."""
        saving = {b for b in self._inner(start, stop) if self.typical[b].nbytes >= MIN_BYTES}
        halo = self._halo(start, stop) if saving else None
        height = self._height(halo) if halo is not None else 0
        if halo is None or height < 1:
            return 0.0
        cost = saved = extra = 0.0
        for number, (before, after) in zip(range(start, stop), halo.groups, strict=True):
            ns, touched = self._cost(number)
            cost += ns
            extra += ns * min(1.0, (after - before) / height)
            for buffer, nbytes in touched.items():
                cost += nbytes / SHARED_RATE
                if buffer in saving:
                    saved += nbytes / SHARED_RATE
        return (saved - extra) / cost

    def _height(self, halo: Halo) -> int:
        """Return how many rows a block has."""
        return min(highest(halo, self.typical, WINDOW_BYTES), -(-halo.rows // MIN_BLOCKS))

    def _cost(self, number: int) -> tuple[float, dict[int, int]]:
        """Return about what a kernel takes with its operands in the cache, and which bytes of each
        buffer it touches.
        """
        if number not in self._costs:
            kernel = _typical(cast(Kernel, self.kernels[number]))
            touched: dict[int, int] = {}
            moved = done = 0
            for access in kernel.accesses:
                nbytes = _covered(access, kernel.extents)
                moved += nbytes
                if access.buffer != SCRATCH:
                    touched[access.buffer] = max(touched.get(access.buffer, 0), nbytes)
            for expr in kernel.exprs:
                if isinstance(expr, Apply | Reduce):
                    over = expr.over if isinstance(expr, Reduce) else ()
                    trips = prod(kernel.extents[a] for a in expr.axes | set(over))
                    dear = isinstance(expr, Apply) and OPS[expr.op].has(Fact.EXPENSIVE)
                    done += trips * expr.dtype.itemsize * (DEAR if dear else 1)
            ns = max(moved / OWN_RATE, done / ARITHMETIC_RATE) + ENTRY_NS * loop_entries(kernel)
            self._costs[number] = ns, touched
        return self._costs[number]

    def _band(self, start: int, stop: int) -> Band | None:
        """Return kernels [start, stop) as a band; None where their sizes do not allow it."""
        kernels = [cast(Kernel, k) for k in self.kernels[start:stop]]
        height = self._height(cast(Halo, self._halo(start, stop)))
        found = [groups_of(k, self.grids, self.written) for k in kernels]
        known = [groups for groups in found if groups is not None]
        if len(known) < len(found):
            return None
        halo = find_halo(known, self._inner(start, stop), self.grids)
        return None if halo is None else Windows(kernels, known, halo, self.grids, height).band()


def _typical(kernel: Kernel) -> Kernel:
    """Return the kernel with typical values for its sizes."""
    accesses = (
        replace(
            a,
            offset=hint(a.offset),
            strides=tuple(map(hint, a.strides)),
            seams=tuple(Seam(*map(hint, seam)) for seam in a.seams),
        )
        for a in kernel.accesses
    )
    return replace(kernel, extents=tuple(map(hint, kernel.extents)), accesses=tuple(accesses))


def _covered(access: Access, extents: Sequence[int]) -> int:
    """Return the bytes of the elements of an access."""
    elements = prod(n for n, stride in zip(extents, access.strides, strict=True) if stride)
    return elements * access.dtype.itemsize
