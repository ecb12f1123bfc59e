"""Borders: copies beside a region are stored by the region's kernel, row by row.

An update of the inside of a grid stores the region in one kernel, and copies the border around it
in four others. Those of the left and the right column touch one element of each row: a cache line
each, on one thread, while the kernel of the region is about to touch the line beside it. Here such
a kernel becomes a store of the region's kernel::

    for i: u[i, 0] = v[i, 0]
    for i, j: u[i, 1 + j] = …           →   for i: (for j: u[i, 1 + j] = …), u[i, 0] = v[i, 0]
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.record import replace
from tracejit.schedule.kernel import Access, Block, Const, Kernel, Load, Nest, Store

# Elements of a row from which a loop along it is worth while.
MIN_ROW = 64
# Kernels before a region's that are looked at: a box has few sides, a join may have many parts.
MAX_LOOKED_AT = 8


def join_borders(kernels: Sequence[Kernel | None]) -> tuple[list[Kernel | None], dict[int, int]]:
    """Return the kernels of a schedule in order, those of borders in the kernel of their region.

    A step that is no loop kernel is None. The second result says which kernels are gone, and into
    which one each went.
    """
    result, gone = list(kernels), dict[int, int]()
    for number, region in enumerate(kernels):
        if region is None or not _is_region(region):
            continue
        (buffer,) = _stored(region)
        for earlier in range(number - 1, max(number - MAX_LOOKED_AT, 0) - 1, -1):
            piece = result[earlier]
            if earlier in gone:
                continue
            if piece is None or _stored(piece) != {buffer} or _reads(piece, buffer):
                break  # what comes before may be needed here, or may need what is stored
            joined = result[number]
            if joined is not None and check_border(piece, region):
                result[number] = with_border(joined, piece)
                gone[earlier] = number
    return result, gone


def check_border(piece: Kernel, region: Kernel) -> bool:
    """Whether ``piece`` copies, for each row of ``region``, one element beside the row."""
    if len(piece.exprs) != 1 or len(piece.stores) != 1 or piece.block.nests:
        return False
    if not isinstance(piece.exprs[0], Load | Const) or len(piece.extents) != 1 or piece.seams:
        return False
    rows, columns = region.parallel
    if piece.extents[0] != region.extents[rows]:
        return False
    mine = piece.accesses[piece.stores[0].access]
    other = region.accesses[region.stores[0].access]
    step = other.strides[rows]
    span = region.extents[columns]
    if other.dtype != mine.dtype or mine.strides[0] != step or not span < step:
        return False
    return (mine.offset - other.offset) % step >= span


def _is_region(kernel: Kernel) -> bool:
    """Whether the kernel stores one value row by row, and reads nothing that it stores."""
    if len(kernel.stores) != 1 or kernel.block.nests or kernel.scans or kernel.tiled:
        return False
    if kernel.scatter is not None:
        return False
    if len(kernel.parallel) != 2 or len(kernel.extents) != 2 or kernel.contract or kernel.attend:
        return False
    rows, columns = kernel.parallel
    store = kernel.accesses[kernel.stores[0].access]
    along = columns == kernel.vector_parallel and store.strides[columns] == 1
    long = kernel.extents[columns] >= MIN_ROW and store.strides[rows] > 0
    return along and long and not _reads(kernel, store.buffer)


def with_border(region: Kernel, piece: Kernel) -> Kernel:
    """Return ``region`` with the copy that ``piece`` makes, once a row."""
    rows = region.parallel[0]

    def moved(access: Access) -> Access:
        strides = [0] * len(region.extents)
        strides[rows] = access.strides[0]
        return replace(access, strides=tuple(strides))

    accesses, exprs = list(region.accesses), list(region.exprs)
    (value,) = piece.exprs
    if isinstance(value, Load):
        accesses.append(moved(piece.accesses[value.access]))
        exprs.append(Load(value.dtype, frozenset({rows}), len(accesses) - 1))
    else:
        exprs.append(value)
    accesses.append(moved(piece.accesses[piece.stores[0].access]))
    stores = (*region.stores, Store(len(accesses) - 1, len(exprs) - 1))
    block = region.block
    if not block.nests:
        columns = region.parallel[1]
        block = Block([Nest((columns,), columns, (), block.stores, Block([], block.stores))])
    return replace(
        region,
        accesses=tuple(accesses),
        exprs=tuple(exprs),
        stores=stores,
        parallel=(rows,),
        vector_parallel=None,
        block=replace(block, stores=(*block.stores, len(stores) - 1)),
    )


def _stored(kernel: Kernel) -> set[int]:
    return {kernel.accesses[s.access].buffer for s in kernel.stores}


def _reads(kernel: Kernel, buffer: int) -> bool:
    return any(a.buffer == buffer for a in kernel.loaded)
