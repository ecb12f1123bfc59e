"""Halos: which rows of what is stored before a block of rows of the results depends on.

Iterations of a kernel are taken by *groups*, one for each row: a copy of a contiguous grid is a
loop over elements, of which a group is as many as a row has. Group g of a kernel stores rows
g + [f, l] of a buffer, and loads rows g + [f, l] of another, with f and l that do not depend on g:
they follow from offsets and strides. From the rows [a, b) that are wanted of the results follow,
backwards, the groups [a + before, b + after) of each kernel.

Sizes may be symbolic. Rows near each other are the same for all sizes, and become plain numbers
(under a guard that always holds); that of the last row of a grid does not.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple, cast

from tracejit.schedule.band import Grid
from tracejit.schedule.kernel import SCRATCH, Access, Gather, Kernel
from tracejit.sizes import hint, is_size

# Rows of a halo, at most.
MAX_HALO = 128
# A row of so small a number is taken for one near the first.
NEAR = 8


class Edge(NamedTuple):
    """Rows of a buffer that group g of a kernel loads or stores: g + [first, last].

    So it is where the edge is ``regular``; else the rows are others.
    """

    buffer: int
    stores: bool
    first: int
    last: int
    regular: bool


class Groups(NamedTuple):
    """The groups of a kernel: ``unit`` iterations of its outer loop each, and what they touch."""

    unit: int
    edges: list[Edge]


class Halo(NamedTuple):
    """What a block of rows [a, b) of the results, which have ``rows``, depends on.

    ``groups`` are those that each kernel runs, ``touched`` the rows of each inner buffer: first and
    last count from a and from b. ``lives`` are the first and the last kernel with such a buffer.
    """

    groups: list[tuple[int, int]]
    touched: dict[int, tuple[int, int]]
    lives: dict[int, tuple[int, int]]
    rows: int


def groups_of(kernel: Kernel, grids: Sequence[Grid], written: Container[int]) -> Groups | None:
    """Return the groups of ``kernel``; None where its stores walk no rows.

    Buffers that nobody of the schedule has ``written`` are there as a whole.
    """
    outer = kernel.parallel[0] if kernel.parallel else None
    stored = {s.access for s in kernel.stores}
    units = {_unit(kernel.accesses[n], outer, grids) for n in stored}
    if len(units) != 1 or None in units:
        return None
    unit = cast(int, units.pop())
    trips = kernel.extents[outer] if outer is not None else 1
    group = trips if unit > trips else unit
    gathered = {e.access for e in kernel.exprs if isinstance(e, Gather)}
    found: list[Edge] = []
    for number, access in enumerate(kernel.accesses):
        if access.buffer == SCRATCH:
            continue
        if access.buffer not in written:
            found.append(Edge(access.buffer, False, 0, 0, False))
            continue
        pitch, low, high = grids[access.buffer].pitch, access.offset, access.offset
        for axis, (n, stride) in enumerate(zip(kernel.extents, access.strides, strict=True)):
            reach = ((group if axis == outer else n) - 1) * stride
            low, high = (low + reach, high) if stride < 0 else (low, high + reach)
        for seam in access.seams:
            low, high = (low + seam.jump, high) if seam.jump < 0 else (low, high + seam.jump)
        first, last = _plain(low // pitch, NEAR), _plain(high // pitch, NEAR)
        whole = number not in gathered and all(s.axis != outer for s in access.seams)
        regular = whole and _unit(access, outer, grids) == unit
        last = first if first == last else last
        found.append(Edge(access.buffer, number in stored, first, last, regular))
    return Groups(unit, found)


def _unit(access: Access, outer: int | None, grids: Sequence[Grid]) -> int | None:
    """Return how many iterations of the loop over axis ``outer`` step from row to row."""
    if outer is None:
        return 1
    stride, pitch = access.strides[outer], grids[access.buffer].pitch
    return pitch // stride if stride > 0 and pitch % stride == 0 else None


def _plain(row: int, limit: int) -> int:
    """Return a row that is near and the same for all sizes as a plain number."""
    if is_size(row) and -limit <= row.value <= limit and hint(row) == row.value:
        return row.value if row == row.value else cast(int, row)
    return cast(int, row)


def find_halo(parts: Sequence[Groups], inner: Container[int], grids: Sequence[Grid]) -> Halo | None:
    """Return which groups of each kernel a block runs; None where there can be no blocks.

    ``parts`` are the groups of each kernel, ``inner`` the buffers that exist in blocks only. What
    else is stored is a result, each row of which one block stores: else blocks would race.
    """
    stored = {e.buffer for p in parts for e in p.edges if e.stores}
    starts = _starts(parts, inner)
    wanted: dict[int, tuple[int, int]] = {}
    touched: dict[int, tuple[int, int]] = {}
    lives: dict[int, tuple[int, int]] = {}
    groups: list[tuple[int, int]] = []
    rows = 0
    for number in reversed(range(len(parts))):
        mine = [e for e in parts[number].edges if e.buffer in stored or e.buffer in inner]
        if not all(e.regular for e in mine):
            return None
        run: tuple[int, int] | None = None
        for edge in mine:
            if edge.stores:
                start = starts.get(edge.buffer, 0)
                before, after = wanted.get(edge.buffer, (start, start))
                run = _hull(run, (before - edge.last, after - edge.first))
        if run is None:
            return None
        groups.append(run)
        for edge in mine:
            size = grids[edge.buffer].rows
            first, last = run[0] + edge.first, run[1] + edge.last
            reach = hint(last) - hint(first)
            if reach > MAX_HALO or 2 * reach > hint(size):
                return None
            span = _plain(first, MAX_HALO), _plain(last, MAX_HALO)
            if edge.buffer not in inner:
                start = starts.get(edge.buffer, 0)
                if span != (start, start) or run[0] != run[1]:
                    return None
                until = size - start
                rows = until if rows is not until and until > rows else rows
                continue
            touched[edge.buffer] = _hull(touched.get(edge.buffer), span)
            if not edge.stores:
                wanted[edge.buffer] = _hull(wanted.get(edge.buffer), span)
            lives[edge.buffer] = (number, lives.get(edge.buffer, (0, number))[1])
    return Halo(groups[::-1], touched, lives, rows)


def _starts(parts: Sequence[Groups], inner: Container[int]) -> dict[int, int]:
    """Return from which row on results are computed for block [a, b), counted from a; else 0.

    What one kernel stores to several results, at different rows, has to be for one block. No
    result starts above a, and so the blocks cover all rows of each.
    """
    starts: dict[int, int] = {}
    for groups in parts:
        rows = {e.buffer: e.first for e in groups.edges if e.stores and e.buffer not in inner}
        if len(rows) > 1:
            known = (starts[b] - row for b, row in rows.items() if b in starts)
            base = next(known, 0)
            for buffer, row in rows.items():
                starts.setdefault(buffer, base + row)
    last = max(starts.values(), default=0)
    return {buffer: start - last for buffer, start in starts.items()}


def _hull(a: tuple[int, int] | None, b: tuple[int, int]) -> tuple[int, int]:
    if a is None:
        return b
    return (b[0] if b[0] < a[0] else a[0], b[1] if b[1] > a[1] else a[1])
