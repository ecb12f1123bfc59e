"""Scans of few long rows: threads share the rows, block by block, in two passes."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from tracejit.schedule.index import contiguous_strides
from tracejit.schedule.kernel import SCAN_BLOCK, Access, Kernel

# Fewer rows than this do not keep a machine's threads busy one by one.
MANY_ROWS = 16
MIN_BLOCKS = 8


def shares_rows(kernel: Kernel) -> bool:
    """Whether blocks along the scan, and not rows, should be the chunks of ``kernel``.

    Its loop must be all that the kernel does: anything else would run once for each chunk. Float
    products go from element to element, so they have no totals.
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


def by_blocks(kernel: Kernel, buffer: int) -> Kernel:
    """Return ``kernel`` with its blocks as chunks, and their totals in ``buffer``."""
    (scan,) = kernel.scans
    strides = [0] * len(kernel.extents)
    extents = [kernel.extents[a] for a in kernel.parallel]
    for axis, stride in zip(kernel.parallel, contiguous_strides(tuple(extents)), strict=True):
        strides[axis] = stride
    totals = Access(buffer, scan.dtype, 0, tuple(strides))
    return replace(kernel, accesses=(*kernel.accesses, totals), totals=len(kernel.accesses))
