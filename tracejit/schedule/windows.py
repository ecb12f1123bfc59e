"""Windows: where the buffers of a band are while a block of rows is computed.

Windows of rows that are equally long take turns in slots, as the buffers of a schedule do in the
arena. A slot has the rows of a block and of the largest halo, so that nothing has to be compared
that depends on sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tracejit.record import replace
from tracejit.schedule.arena import ALIGNMENT, Life, aligned, plan
from tracejit.schedule.band import Band, Grid, Part, Window
from tracejit.schedule.halo import Edge, Groups, Halo
from tracejit.schedule.kernel import SCRATCH, Access, Kernel
from tracejit.sizes import frozen, hint, is_size

# Rows of so many bytes start on cache lines in a window, and not on the same one of every page.
ALIGNED_ROW, PAGE = 256, 4096


class Slots(NamedTuple):
    """Slots for rows of as many bytes each: how many there are, and the one of each buffer."""

    row_bytes: int
    number: int
    of: Mapping[int, int]


def find_slots(halo: Halo, row_bytes: Mapping[int, int]) -> list[Slots]:
    """Return the slots for inner buffers with rows of ``row_bytes``."""
    alike: dict[object, list[int]] = {}
    for buffer in halo.lives:
        alike.setdefault(frozen(row_bytes[buffer]), []).append(buffer)
    found: list[Slots] = []
    for buffers in alike.values():
        placed = plan([Life(ALIGNMENT, *halo.lives[b]) for b in buffers])
        numbers = (offset // ALIGNMENT for offset in placed.offsets)
        of = dict(zip(buffers, numbers, strict=True))
        found.append(Slots(row_bytes[buffers[0]], placed.nbytes // ALIGNMENT, of))
    return found


def highest(halo: Halo, grids: Sequence[Grid], nbytes: int) -> int:
    """Return how many rows a block may have whose windows take ``nbytes``; their sizes are plain.

    It is below 1 where the halo alone takes more.
    """
    slots = find_slots(halo, {b: grids[b].pitch * grids[b].itemsize for b in halo.lives})
    return nbytes // max(sum(s.row_bytes * s.number for s in slots), 1) - _extra(halo)


def _extra(halo: Halo) -> int:
    """Return the rows of the largest window beside those of a block."""
    return max((after - before for before, after in halo.touched.values()), default=0)


class Windows:
    """Makes a band of ``kernels``: gives its inner buffers windows, and leads the kernels there."""

    def __init__(
        self,
        kernels: Sequence[Kernel],
        groups: Sequence[Groups],
        halo: Halo,
        grids: Sequence[Grid],
        height: int,
    ):
        self.kernels = kernels
        self.groups = groups
        self.halo = halo
        self.grids = grids
        self.height = height
        self.pitches = {buffer: self._pitch(buffer) for buffer in halo.lives}

    def band(self) -> Band:
        """Return the band."""
        row_bytes = {b: pitch * self.grids[b].itemsize for b, pitch in self.pitches.items()}
        windows: list[Window] = []
        place = 0
        for row, number, slots in find_slots(self.halo, row_bytes):
            size = aligned((self.height + _extra(self.halo)) * row + ALIGNMENT)
            for buffer, slot in slots.items():
                first, _ = self.halo.touched[buffer]
                offset = place + slot * size + self._shift(buffer)
                windows.append(Window(buffer, first, row, offset))
            place = place + number * size
        parts = tuple(
            Part(self._led(number), self.groups[number].unit, *run)
            for number, run in enumerate(self.halo.groups)
        )
        return Band(parts, tuple(windows), self.halo.rows, self.height, place)

    def _accesses(self, number: int) -> Iterator[tuple[Access, Edge | None]]:
        """Yield the accesses of a kernel with their edges."""
        edges = iter(self.groups[number].edges)
        for access in self.kernels[number].accesses:
            yield access, next(edges) if access.buffer != SCRATCH else None

    def _pitch(self, buffer: int) -> int:
        """Return the elements of a row in the window: rows start on a cache line where they may.

        So they may where each group stays in a row, and steps from row to row, or is alone.
        """
        pitch, itemsize = self.grids[buffer].pitch, self.grids[buffer].itemsize
        if hint(pitch) * itemsize < ALIGNED_ROW or ALIGNMENT % itemsize:
            return pitch
        for number, kernel in enumerate(self.kernels):
            unit = self.groups[number].unit
            alone = unit == 1 or kernel.trip_count <= unit
            for access, edge in self._accesses(number):
                if access.buffer != buffer or edge is None:
                    continue
                if not alone or edge.first != edge.last:
                    return pitch
        nbytes = aligned(pitch * itemsize)
        if not is_size(nbytes) and nbytes % PAGE == 0:
            nbytes += ALIGNMENT
        return nbytes // itemsize

    def _shift(self, buffer: int) -> int:
        """Return by how many bytes the window starts late, so that most stores are aligned."""
        grid = self.grids[buffer]
        for number, kernel in enumerate(self.kernels):
            if self.groups[number].unit == 1 and len(kernel.extents) > 1:
                for access, edge in self._accesses(number):
                    if access.buffer == buffer and edge is not None and edge.stores:
                        column = hint(access.offset) - hint(edge.first) * hint(grid.pitch)
                        return -column * grid.itemsize % ALIGNMENT
        return 0

    def _led(self, number: int) -> Kernel:
        """Return a kernel with the strides of the windows."""
        kernel, unit = self.kernels[number], self.groups[number].unit
        accesses: list[Access] = []
        for access, edge in self._accesses(number):
            pitch = self.pitches.get(access.buffer)
            if edge is not None and pitch is not None:
                column = access.offset - edge.first * self.grids[access.buffer].pitch
                strides = list(access.strides)
                if unit == 1 and kernel.parallel:
                    strides[kernel.parallel[0]] = pitch
                access = replace(access, offset=edge.first * pitch + column, strides=tuple(strides))
            accesses.append(access)
        return replace(kernel, accesses=tuple(accesses))
