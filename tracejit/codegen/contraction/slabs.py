"""A product and the kernel over its rows that take turns, slab by slab: what their code depends on.

``schedule/slabs.py`` says when they may. A slab is a row tile of C that is as wide as C, in the
workspace of the worker that computes it, behind the workspace of the product itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from tracejit.codegen.contraction.spec import WORK_POINTER, GemmSpec
from tracejit.record import record
from tracejit.schedule.kernel import SCRATCH, Kernel


class Head(IntEnum):
    """Index in ``sizes`` of what the loop over slabs needs, before the sizes of the product.

    ``ROW_BYTES`` are the bytes of a row, ``GROUP`` the rows that an iteration of the reader takes,
    ``SLAB`` the bytes from the workspace to the slab, ``READER`` is the index of the first size of
    the reader. From ``HELD`` on stand, for each pointer into the slab, the bytes from its first
    row to where the pointer starts.
    """

    ROW_BYTES = 0
    GROUP = 1
    SLAB = 2
    READER = 3
    HELD = 4


@record(frozen=True, slots=True)
class SlabSpec:
    """All that changes the code of a product with the kernel that reads it.

    ``reader``'s pointers follow those of the product, from the one with index ``first`` on;
    ``pointers`` is how many there are in all. Those with the indices ``held`` lead to the slab.
    """

    product: GemmSpec
    reader: Kernel
    first: int
    pointers: int
    held: tuple[int, ...]

    @property
    def head(self) -> int:
        """How many sizes stand before those of the product."""
        return Head.HELD + len(self.held)

    @property
    def key(self) -> str:
        """The text that decides the code."""
        own = f"slabs {self.first} {self.pointers} {self.held}"
        return f"{own} {self.product.key}\n{self.reader.key}"


Pointer = tuple[int, int]  # a buffer, and bytes


class SlabCall(NamedTuple):
    """What a call needs beside the sizes of its product: pointers, and where they are in a slab."""

    spec: SlabSpec
    pointers: list[Pointer]
    rows: tuple[int, int]  # bytes of one, and how many the reader takes at a time
    offsets: list[int]

    def sizes(self, product: Sequence[int], slab: int) -> tuple[int, ...]:
        """Return ``sizes`` for those of the product; ``slab`` is where it is in the workspace."""
        spec = self.spec
        reader = spec.head + len(product)
        return (*self.rows, slab, reader, *self.offsets, *product, *spec.reader.sizes())


def bind_slabs(
    product: GemmSpec,
    pointers: Sequence[Pointer],
    reader: Kernel,
    buffer: int,
    rows: tuple[int, int],
) -> SlabCall:
    """Return the call of a product with these pointers, and of the kernel that reads its result.

    That is in ``buffer``, which is no memory: pointers to it are computed slab by slab. ``rows``
    has the bytes of a row, and how many rows the reader takes at a time.
    """
    own = ((a.buffer, a.offset * a.dtype.itemsize) for a in reader.accesses if a.buffer != SCRATCH)
    everything = [*pointers, *own]
    held = tuple(i for i, (number, _) in enumerate(everything) if number == buffer)
    offsets = [everything[i][1] for i in held]
    for i in held:
        everything[i] = everything[WORK_POINTER]
    spec = SlabSpec(product, reader, len(pointers), len(everything), held)
    return SlabCall(spec, everything, rows, offsets)
