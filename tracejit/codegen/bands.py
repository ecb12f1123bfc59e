"""Bands of kernels that run by blocks of rows: what their code depends on, and its arguments.

``schedule/bands.py`` says what a band is. Only which kernels there are is in the code, each once:
how many sweeps there are, how high blocks and halos are, and where windows lie are numbers in
``sizes``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from tracejit.record import record
from tracejit.schedule.bands import Band
from tracejit.schedule.kernel import SCRATCH, Kernel

# The pointer to the memory of windows.
WINDOW_POINTER = 0


class Head(IntEnum):
    """Index in ``sizes`` of what a band begins with; then come its parts, and its pointers."""

    HEIGHT = 0  # rows of a block
    ROWS = 1
    PARTS = 2  # how many, as of pointers
    POINTERS = 3
    HEAD_WORDS = 4


class PartWord(IntEnum):
    """A part, in i64: see ``schedule.bands.Part``."""

    KERNEL = 0  # which of the functions
    FIRST = 1  # its first pointer
    SIZES_AT = 2  # index of its first size
    UNIT = 3
    BEFORE = 4
    AFTER = 5
    TRIPS = 6
    PART_WORDS = 7


class PointerWord(IntEnum):
    """A pointer, in i64: for the block from row a on it is ``SOURCE`` + ``START`` − a·``STEP``."""

    SOURCE = 0  # a pointer of the caller
    START = 1  # bytes
    STEP = 2
    POINTER_WORDS = 3


@record(frozen=True, slots=True)
class BandSpec:
    """All that changes the code of a band: its distinct kernels."""

    kernels: tuple[Kernel, ...]

    @property
    def key(self) -> str:
        """The text that decides the code."""
        return "\n".join(kernel.key for kernel in self.kernels)


class BandCall(NamedTuple):
    """What a call of a band needs."""

    spec: BandSpec
    pointers: list[tuple[int, int]]  # a buffer, and bytes
    sizes: list[int]


def bind_band(band: Band, workspace: int) -> BandCall:
    """Return the call of ``band``; windows are in the buffer ``workspace``."""
    windows = {window.buffer: window for window in band.windows}
    distinct: dict[str, int] = {}
    kernels: list[Kernel] = []
    pointers = [(workspace, 0)]
    leads: list[tuple[int, int, int]] = [(WINDOW_POINTER, 0, 0)]
    for kernel in band.kernels:
        if kernel.key not in distinct:
            distinct[kernel.key] = len(kernels)
            kernels.append(kernel)
    count = len(band.parts)
    accesses = [[a for a in k.accesses if a.buffer != SCRATCH] for k in band.kernels]
    total = 1 + sum(map(len, accesses))
    at = Head.HEAD_WORDS + count * PartWord.PART_WORDS + total * PointerWord.POINTER_WORDS
    parts: list[int] = []
    numbers: list[int] = []
    for part, mine in zip(band.parts, accesses, strict=True):
        kernel = part.kernel
        parts += (
            distinct[kernel.key], len(pointers), at + len(numbers), part.unit, part.before,
            part.after, kernel.trip_count,
        )  # fmt: skip
        numbers += kernel.sizes()
        for access in mine:
            offset = access.offset * access.dtype.itemsize
            window = windows.get(access.buffer)
            if window is None:
                leads.append((len(pointers), 0, 0))
                pointers.append((access.buffer, offset))
            else:
                start = window.offset + offset - window.first * window.row_bytes
                leads.append((WINDOW_POINTER, start, window.row_bytes))
                pointers.append((workspace, 0))
    head = [band.height, band.rows, count, total]
    sizes = [*head, *parts, *(word for lead in leads for word in lead), *numbers]
    return BandCall(BandSpec(tuple(kernels)), pointers, sizes)
