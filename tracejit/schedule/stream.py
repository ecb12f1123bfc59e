"""Stores that bypass the caches: large results that nothing reads soon.

A store to a line that is not in a cache first reads the line from memory. A streamed
(non-temporal) store does not, and leaves the caches to the data that is read. Measured on a
machine with 2 MiB of L2 and two threads: x + 1 of 1 MiB is a third slower with streamed stores;
from 4 to 12 MiB it depends on what else runs; of 16 MiB it is 1.2 times as fast, of 64 MiB 1.6.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from math import prod

from tracejit.schedule.kernel import Block, Kernel

STREAM_BYTES = 16 << 20
# What a later kernel of the program reads is worth keeping, as far as a shared cache may hold it.
STREAM_BYTES_REUSED = 64 << 20


def stream(kernel: Kernel, results: Collection[int]) -> Kernel:
    """Return ``kernel`` with its large stores streamed.

    ``results`` are the buffers that only leave the program: no kernel reads them.
    """
    chosen = [s for s in _candidates(kernel) if check_stream(kernel, s, results)]
    sizes = {kernel.accesses[kernel.stores[s].access].dtype.itemsize for s in chosen}
    return replace(kernel, streamed=frozenset(chosen)) if len(sizes) == 1 else kernel


def check_stream(kernel: Kernel, number: int, results: Collection[int]) -> bool:
    """Whether the store is large enough, and nothing in the kernel reads what it writes."""
    access = kernel.accesses[kernel.stores[number].access]
    if access.dtype.itemsize < 4 or any(a.buffer == access.buffer for a in kernel.loaded):
        return False
    elements = prod(n for n, s in zip(kernel.extents, access.strides, strict=True) if s)
    limit = STREAM_BYTES if access.buffer in results else STREAM_BYTES_REUSED
    return elements * access.dtype.itemsize >= limit


def _candidates(kernel: Kernel) -> list[int]:
    """Return the stores of loops that run along contiguous memory and carry nothing.

    A loop with streamed stores starts where they are aligned. The terms of a sum would be grouped
    by where the allocator put the result.
    """
    if kernel.scans or kernel.tiled:
        return []
    if kernel.vector_parallel is None:
        inner = _inner_stores(kernel.block)
    else:
        stores = () if kernel.block.nests else kernel.block.stores
        inner = [(kernel.vector_parallel, s) for s in stores]
    return [s for a, s in inner if kernel.accesses[kernel.stores[s].access].strides[a] == 1]


def _inner_stores(block: Block) -> list[tuple[int, int]]:
    """Return (vector axis, store) of the vector loops without reductions."""
    found: list[tuple[int, int]] = []
    for nest in block.nests:
        if nest.vector is not None and not nest.reduces and not nest.body.nests:
            found += [(nest.vector, s) for s in nest.body.stores]
        found += _inner_stores(nest.body)
    return found
