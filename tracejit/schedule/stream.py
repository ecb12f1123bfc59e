"""Stores that bypass the caches: large results that nothing reads soon.

A store to a line that is not in a cache first reads the line from memory. A streamed
(non-temporal) store does not, and leaves the caches to the data that is read. But who reads the
result next finds it in memory. Measured on a machine with 2 MiB of L2 and two threads: x + 1 of
1 MiB is a third slower with streamed stores; of 4 to 8 MiB as fast, and with a sum of the result
after it 1.3 times slower; of 16 MiB 1.2 times as fast, of 64 MiB 1.6. A layer norm that reads and
stores 12 MiB is 1.5 times as fast where other work has taken the caches between calls. So what
counts is what the kernel touches in all. Lower limits were tried: a copy and ten operations on 1 to
8 MiB gain 0 to 7 % by streaming where nobody reads the result, and a sum of it right after the call
makes both together take 1.3 to 1.5 times as long.
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod

from tracejit.record import replace
from tracejit.schedule.kernel import Access, Block, Kernel

# Bytes that a kernel touches, and of a result that it then streams.
TOUCHED_BYTES, STREAM_BYTES = 24 << 20, 8 << 20
# Bytes of a row from which on a row may start and end within a cache line: such a line is stored
# in two usual pieces. (Softmax of 20000 × 200 float32, streamed: 1.28 ms in place of 0.95.)
ROW_BYTES, LINE = 2048, 64
# What a later kernel of the program reads is worth keeping, as far as a shared cache may hold it.
STREAM_BYTES_REUSED = 64 << 20


def stream(kernel: Kernel, results: Collection[int], near: Collection[int] = ()) -> Kernel:
    """Return ``kernel`` with its large stores streamed.

    ``results`` are the buffers that only leave the program: no kernel reads them. Those that are
    ``near`` are small pieces at a time.
    """
    chosen = [
        s
        for s, row in _candidates(kernel)
        if kernel.accesses[kernel.stores[s].access].buffer not in near
        and check_stream(kernel, s, row, results)
    ]
    sizes = {kernel.accesses[kernel.stores[s].access].dtype.itemsize for s in chosen}
    return replace(kernel, streamed=frozenset(chosen)) if len(sizes) == 1 else kernel


def check_stream(kernel: Kernel, number: int, row: int, results: Collection[int]) -> bool:
    """Whether the store is large enough, and nothing in the kernel reads what it writes.

    ``row`` is how many elements lie side by side.
    """
    access = kernel.accesses[kernel.stores[number].access]
    if access.dtype.itemsize < 4 or any(a.buffer == access.buffer for a in kernel.loaded):
        return False
    limit = STREAM_BYTES if access.buffer in results else STREAM_BYTES_REUSED
    if _nbytes(kernel, access) < limit:
        return False
    if touched_bytes(kernel) < TOUCHED_BYTES:
        return False
    return row * access.dtype.itemsize >= ROW_BYTES or row * access.dtype.itemsize % LINE == 0


def touched_bytes(kernel: Kernel) -> int:
    """Return the bytes of memory that the kernel loads or stores.

    Of several accesses to one buffer, such as a stencil's, the largest stands for all.
    """
    touched: dict[int, int] = {}
    for one in kernel.accesses:
        touched[one.buffer] = max(touched.get(one.buffer, 0), _nbytes(kernel, one))
    return sum(touched.values())


def _nbytes(kernel: Kernel, access: Access) -> int:
    """Return the bytes that an access touches."""
    elements = prod(n for n, s in zip(kernel.extents, access.strides, strict=True) if s)
    return elements * access.dtype.itemsize


def _candidates(kernel: Kernel) -> list[tuple[int, int]]:
    """Return the stores of loops that run along contiguous memory and carry nothing, with how long
    the loops are.

    A loop with streamed stores starts where they are aligned. The terms of a sum would be grouped
    by where the allocator put the result.
    """
    if kernel.scans or kernel.tiled or kernel.skewed:
        return []
    if kernel.unpacks:
        return _turned(kernel)
    if kernel.vector_parallel is None:
        inner = _inner_stores(kernel.block)
    else:
        stores = () if kernel.block.nests else kernel.block.stores
        inner = [(kernel.vector_parallel, s) for s in stores]
    return [
        (s, kernel.extents[a])
        for a, s in inner
        if kernel.accesses[kernel.stores[s].access].strides[a] == 1
    ]


def _turned(kernel: Kernel) -> list[tuple[int, int]]:
    """Return the stores of short rows that are turned in registers, with how long the rows are.

    They may be streamed where no row shares a line with the next.
    """
    rows = {target for _, target in kernel.unpacks}
    found: list[tuple[int, int]] = []
    for number, store in enumerate(kernel.stores):
        access = kernel.accesses[store.access]
        inner = [a for a, s in enumerate(access.strides) if s == 1]
        if store.access in rows and inner:
            found.append((number, kernel.extents[inner[0]]))
    return found


def _inner_stores(block: Block) -> list[tuple[int, int]]:
    """Return (vector axis, store) of the vector loops without reductions."""
    found: list[tuple[int, int]] = []
    for nest in block.nests:
        if nest.vector is not None and not nest.reduces and not nest.body.nests:
            found += [(nest.vector, s) for s in nest.body.stores]
        found += _inner_stores(nest.body)
    return found
