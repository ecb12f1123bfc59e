"""Scans of few long rows: threads take blocks of the rows in turn (``codegen/chain.py``)."""

from __future__ import annotations

from math import prod

from tracejit.record import replace
from tracejit.schedule.index import contiguous_strides
from tracejit.schedule.kernel import SCAN_BLOCK, Access, Kernel

# Fewer rows than this do not keep a machine's threads busy one by one.
MANY_ROWS = 16
MIN_BLOCKS = 8
# Blocks of a turn: what is read twice stays in the first cache, and handing the running values on
# does not show. (Turns of four take 1.02 to 1.04 times as long for 1M float32 on two threads.)
TURN_BLOCKS = 2

# What is handed on, in bytes: the running values of the rows at 0, the number of the next block
# that nobody has taken, and for each row how many blocks its value is of; each on its own line.
NEXT_BLOCK, RECEIVED = 128, 192
CHAIN_BYTES = RECEIVED + 8 * MANY_ROWS


def shares_rows(kernel: Kernel) -> bool:
    """Whether blocks along the scan, and not rows, should be the chunks of ``kernel``.

    Its loop must be all that the kernel does: anything else would run once for each chunk. Float
    products go from element to element, so their blocks have no totals.
    """
    if not kernel.scans or kernel.block.stores or len(kernel.block.nests) != 1:
        return False
    (scan,), (nest,) = kernel.scans, kernel.block.nests
    if nest.axes != (scan.axis,) or nest.reduces or nest.body.nests:
        return False
    if scan.op == "cumprod" and scan.dtype.kind == "f":
        return False
    rows = prod(kernel.extents[a] for a in kernel.parallel)
    return 0 < rows < MANY_ROWS and kernel.extents[scan.axis] >= MIN_BLOCKS * SCAN_BLOCK


def in_turns(kernel: Kernel, buffer: int) -> Kernel:
    """Return ``kernel`` with its blocks as chunks; what threads hand on is in ``buffer``."""
    (scan,) = kernel.scans
    strides = [0] * len(kernel.extents)
    extents = [kernel.extents[a] for a in kernel.parallel]
    for axis, stride in zip(kernel.parallel, contiguous_strides(tuple(extents)), strict=True):
        strides[axis] = stride
    chain = Access(buffer, scan.dtype, 0, tuple(strides))
    return replace(kernel, accesses=(*kernel.accesses, chain), chain=len(kernel.accesses))
