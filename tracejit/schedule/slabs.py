"""Slabs: a product and the kernel over its rows run by as many rows as stay in the cache.

What reduces the rows of a product cannot be its epilogue, which sees one tile. But if nothing else
reads the product, and each iteration of the reader's outer loop reads one row of it, then the two
can take turns: some rows of the product, then the kernel over these rows. So the product is never
in memory as a whole, whatever the reader makes of its rows: softmax, layer norm, norms, argmin,
or gates that are computed from parts of a row::

    for rows: p[i, j] = Σ x[i, k] w[k, j]          for slab of rows:
    for rows: y[i] = max over j of p[i, j]   →       for rows of the slab: slab[i, j] = Σ …
                                                     for rows of the slab: y[i] = max slab[i, j]

An iteration may also read some rows that follow each other, as many for each: partial results of
what reduces the rows (``row_groups``). Then a slab has whole groups of them.
"""

from __future__ import annotations

from math import prod

from tracejit.schedule.kernel import Contract, Gather, Kernel
from tracejit.schedule.product import batch_axes

# A product of so many multiply-adds is shared among threads, which takes some slabs, and high
# ones: each reads all of the right operand.
SHARED_WORK, SHARED_ROWS = 1 << 20, 128
# Bytes of a row beyond which the slabs of all threads might take more than the product.
MAX_ROW_BYTES = 1 << 19
# Rows and bytes of a group that an iteration of the reader takes, at most: a slab has all of it.
MAX_GROUP, MAX_GROUP_BYTES = 128, 1 << 20


def check_slabs(product: Kernel, reader: Kernel, buffer: int) -> bool:
    """Whether ``reader`` may run by slabs of the product in ``buffer``, which only it reads.

    ``product`` stores all of it there in order, and each iteration of the reader's outer loop
    reads what lies in one row, or in one group of rows.
    """
    contract = product.contract
    if contract is None or product.attend is not None or contract.gather is not None:
        return False
    rows, columns, depth = (
        product.extents[a] for a in (contract.rows, contract.columns, contract.over)
    )
    all_rows = rows * prod(product.extents[a] for a in batch_axes(product))
    if rows < 2 or columns < 2 or columns * contract.dtype.itemsize > MAX_ROW_BYTES:
        return False
    if all_rows * columns * depth >= SHARED_WORK and all_rows < SHARED_ROWS:
        return False
    others = {product.accesses[s.access].buffer for s in product.stores} - {buffer}
    if any(access.buffer in others for access in reader.loaded):
        return False
    if not _in_order(product, contract, buffer) or not reader.parallel:
        return False
    group = group_rows(product, reader)
    if group > 1 and (rows % group or group > MAX_GROUP):
        return False
    if group > 1 and group * columns * contract.dtype.itemsize > MAX_GROUP_BYTES:
        return False
    return _row_by_row(reader, buffer, all_rows, columns, group)


def group_rows(product: Kernel, reader: Kernel) -> int:
    """Return how many rows of the product an iteration of the reader's outer loop would read, if
    they read all of them."""
    contract = product.contract
    assert contract is not None
    axes = (contract.rows, *batch_axes(product))
    return prod(product.extents[a] for a in axes) // max(1, reader.extents[reader.parallel[0]])


def _in_order(product: Kernel, contract: Contract, buffer: int) -> bool:
    """Whether partial sums and results are in ``buffer``, row after row and batch after batch."""
    if product.accesses[contract.partial].buffer != buffer:
        return False
    steps, step = dict[int, int](), 1
    for axis in reversed([*batch_axes(product), contract.rows, contract.columns]):
        steps[axis] = step
        step *= product.extents[axis]
    return all(
        access.offset == 0 and all(access.strides[a] == s for a, s in steps.items())
        for access in product.accesses
        if access.buffer == buffer
    )


def _row_by_row(reader: Kernel, buffer: int, rows: int, columns: int, group: int) -> bool:
    """Whether each iteration of the outer loop reads one row of ``buffer``, or one ``group``."""
    outer = reader.parallel[0]
    if reader.chain is not None or reader.extents[outer] * group != rows:
        return False
    gathered = {e.access for e in reader.exprs if isinstance(e, Gather)}
    for number, access in enumerate(reader.accesses):
        if access.buffer != buffer:
            continue
        if number in gathered or access.strides[outer] != group * columns or access.offset < 0:
            return False
        if access.seams:
            return False
        inside = [(n, s) for a, (n, s) in enumerate(_steps(reader, number)) if a != outer]
        if any(s < 0 for _, s in inside):
            return False
        if access.offset + sum((n - 1) * s for n, s in inside if s) >= group * columns:
            return False
    return True


def _steps(kernel: Kernel, access: int) -> list[tuple[int, int]]:
    """Return extent and stride of each axis."""
    return list(zip(kernel.extents, kernel.accesses[access].strides, strict=True))
