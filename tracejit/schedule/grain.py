"""Grain: into which chunks a kernel's outer loop is cut for the thread pool.

Chunks depend on the kernel's sizes only, never on the number of threads, so the same bits come
out on one thread and on sixty-four. They are short enough that uneven cores even out, and long
enough that claiming one (about 0.1 µs) does not show.
"""

from __future__ import annotations

from math import prod

from tracejit.ops.table import OPS, Fact
from tracejit.schedule.kernel import Apply, Kernel, Reduce, Scan

# Sharing a kernel costs a few µs; below this many (estimated) nanoseconds it stays on one thread.
SERIAL_NS = 30_000
CHUNK_NS = 12_000
MAX_CHUNKS = 64
# Chunks of a vector loop end on a multiple of this, so that only the last one has a tail.
VECTOR_STEP = 256
NEVER = 1 << 40


def estimate_ns(kernel: Kernel) -> float:
    """Return a rough single-thread time: the larger of memory traffic and arithmetic."""
    traffic = sum(
        prod(n for n, s in zip(kernel.extents, a.strides, strict=True) if s) * a.dtype.itemsize
        for a in kernel.accesses
    )
    flops = 0.0
    for expr in kernel.exprs:
        if isinstance(expr, Apply | Reduce | Scan):
            over = expr.over if isinstance(expr, Reduce) else ()
            trips = prod(kernel.extents[a] for a in expr.axes | set(over))
            dear = isinstance(expr, Apply) and OPS[expr.op].has(Fact.EXPENSIVE)
            flops += trips * (20 if dear else 1)
    return max(traffic / 12.0, flops / 8.0)


def grain(kernel: Kernel) -> int:
    """Return how many iterations of the outermost parallel loop make one chunk."""
    total = estimate_ns(kernel)
    trips = kernel.trip_count
    if total < SERIAL_NS or trips < 2:
        return NEVER
    chunks = max(1, min(MAX_CHUNKS, int(total / CHUNK_NS)))
    size = -(-trips // chunks)
    if kernel.totals is None and kernel.parallel[0] == kernel.vector_parallel:
        size = -(-size // VECTOR_STEP) * VECTOR_STEP
    return size
