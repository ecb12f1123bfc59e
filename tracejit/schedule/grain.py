"""Grain: into which chunks a kernel's outer loop is cut for the thread pool.

Chunks depend on the kernel's sizes only, never on the number of threads, so the same bits come
out on one thread and on sixty-four. They are short enough that uneven cores even out, and long
enough that claiming one (about 0.1 µs) does not show.
"""

from __future__ import annotations

from math import prod

from tracejit.ops.table import OPS, Fact
from tracejit.schedule.kernel import Apply, Block, Gather, Kernel, Reduce, Scan
from tracejit.schedule.pack import STRIP
from tracejit.schedule.product import batch_axes
from tracejit.schedule.scan import TURN_BLOCKS

# Sharing a kernel costs a few µs; below this many (estimated) nanoseconds it stays on one thread.
SERIAL_NS = 30_000
CHUNK_NS = 12_000
MAX_CHUNKS = 64
# Chunks of a vector loop end on a multiple of this, so that only the last one has a tail; those of
# strips that walk down columns on a multiple of a strip, each of which is long work.
VECTOR_STEP = 256
COLUMN_STEP = 64
NEVER = 1 << 40


def estimate_ns(kernel: Kernel) -> int:
    """Return a rough single-thread time: the larger of memory traffic and arithmetic."""
    traffic = sum(
        prod(n for n, s in zip(kernel.extents, a.strides, strict=True) if s) * a.dtype.itemsize
        for a in kernel.accesses
    )
    if kernel.scatter is not None:
        traffic += prod(kernel.extents) * kernel.accesses[kernel.scatter.access].dtype.itemsize
    flops = 0
    for expr in kernel.exprs:
        if isinstance(expr, Gather):
            traffic += prod(kernel.extents[a] for a in expr.axes) * expr.dtype.itemsize
        if isinstance(expr, Apply | Reduce | Scan):
            over = expr.over if isinstance(expr, Reduce) else ()
            trips = prod(kernel.extents[a] for a in expr.axes | set(over))
            dear = isinstance(expr, Apply) and OPS[expr.op].has(Fact.EXPENSIVE)
            flops += trips * (20 if dear else 1)
    return max(traffic // 12, flops // 8)


def grain(kernel: Kernel) -> int:
    """Return how many iterations of the outermost parallel loop make one chunk."""
    total = estimate_ns(kernel)
    trips = kernel.trip_count
    if total < SERIAL_NS or trips < 2:
        return NEVER
    chunks = max(1, min(MAX_CHUNKS, total // CHUNK_NS))
    size = -(-trips // chunks)
    if kernel.chain is not None:
        size = -(-size // TURN_BLOCKS) * TURN_BLOCKS
    elif kernel.parallel[0] == kernel.vector_parallel:
        step = COLUMN_STEP if kernel.down_columns else STRIP if kernel.packs else VECTOR_STEP
        size = -(-size // step) * step
    return size


# What one pass over a product's tile, over a tile of a transpose and over a strip of lanes take,
# roughly, whatever the level.
_PRODUCT_TILE = (8, 32)
_SQUARE = 16
_STRIP = 64
# What a product does before its first tile, a strip of rows that is packed and unpacked, and a
# square that is turned take, in the same measure.
_PRODUCT, _PACKED, _TURNED = 4, 4, 3


def loop_entries(kernel: Kernel) -> int:
    """Return how often the kernel's innermost loops are entered, roughly.

    Each time it costs some nanoseconds to find out how many steps there are and to mask the last
    one, whatever the sizes are; a kernel with constant sizes saves most of that.
    """
    extents = kernel.extents
    if kernel.attend is not None:
        return 0  # its tiles are large
    if kernel.contract is not None:
        rows, columns = extents[kernel.contract.rows], extents[kernel.contract.columns]
        tiles = -(-rows // _PRODUCT_TILE[0]) * -(-columns // _PRODUCT_TILE[1])
        return prod(extents[a] for a in batch_axes(kernel)) * tiles + _PRODUCT
    trips = prod(extents[a] for a in kernel.parallel if a != kernel.vector_parallel)
    if kernel.vector_parallel is None:
        return _entries(kernel, kernel.block, trips)
    if kernel.tiled:
        outer, inner = (extents[a] for a in kernel.parallel[-2:])
        around = prod(extents[a] for a in kernel.parallel[:-2])
        return around * -(-outer // _SQUARE) * -(-inner // _SQUARE) * _TURNED
    strips = -(-extents[kernel.vector_parallel] // _STRIP)
    packed = _PACKED if kernel.packs or kernel.unpacks else 1
    return trips + packed * _entries(kernel, kernel.block, trips * strips)


def _entries(kernel: Kernel, block: Block, trips: int) -> int:
    total = 0
    for nest in block.nests:
        entries = trips * prod(kernel.extents[a] for a in nest.axes[:-1])
        inside = _entries(kernel, nest.body, entries * kernel.extents[nest.axes[-1]])
        total += entries + inside
    return total
