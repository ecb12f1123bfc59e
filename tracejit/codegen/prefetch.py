"""Fetching ahead: what hardware prefetchers do not see coming.

Down columns: a strip (strips.py) touches a few cache lines of each row, and the next row lies in
another page, where no hardware prefetcher follows. So rows are fetched some rows ahead. Measured on
two shared cores with 2 MiB of second cache each, 4000×1000 f32, strips of 256 bytes against 512
without fetching ahead: the sum of the columns takes 0.28 ms in place of 0.57, their normalisation
1.13 in place of 2.4 (1.9 if only what is loaded is fetched, not what is stored). Where a strip is
passed over twice, the second pass finds it in a cache and leaves the memory idle; if rows are few
it fetches the next strip, and the first pass nothing: blocks of 64 rows of 4000×1000 f32 are summed
and squared in 0.53 ms on one thread in place of 0.62, where one reading takes 0.47. With 250 rows,
which the first cache does not keep, that takes 1.04 to 1.14 times as long.

Row by row: a kernel that passes over a row several times waits for memory in the first pass, where
the row is loaded, and in the last, where the result is stored. The passes between them only
compute. So the second pass over a row fetches the next row, and the pass before a store fetches
the lines that it will store to, unless they are streamed past the caches. Measured on the same
cores: softmax of 4096×1024 f32 takes 0.83 ms in place of 1.00 (one thread: 1.64, before 2.03), the
layer norm of 4096×768 without weights 0.45 in place of 0.53.

Straight on: hardware prefetchers stop where a page ends, and a processor that looks ahead over
long chains of operations sees few loads. So elementwise loops with much to do for each number fetch
what they load 2 KiB on. Measured on the same cores, 1M float32: a chain of ten operations, among
them a division and a root, takes 0.84 of the time, 1M float64 logarithms 0.87, exponentials 0.95;
up to eight sums and products gain nothing, nor do numbers in the second cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tracejit.codegen.builder import I1, I64, Value, const
from tracejit.codegen.scope import Scope
from tracejit.codegen.types import memory_type
from tracejit.ops.table import OPS, Fact
from tracejit.schedule.blocks import STRIP_ROWS
from tracejit.schedule.kernel import SCRATCH, Apply, Kernel, Load, Nest, computed_in

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter

# Rows that are fetched ahead of a strip.
STRIP_AHEAD = 16
LINE = 64
# Bytes that straight loops fetch ahead, and operations from which on they do.
STRAIGHT_AHEAD = 2048
BUSY = 10
# Rows of more bytes than this would be out of the second cache before they are read.
MAX_ROW = 256 * 1024


def down_columns(emitter: KernelEmitter, number: int, scope: Scope) -> None:
    """Fetch what access ``number`` touches some rows on, where a strip walks down rows, or what it
    touches of the next strip."""
    b, kernel, vector = emitter.b, emitter.kernel, scope.vector
    access = kernel.accesses[number]
    if vector is None or vector.axis != kernel.vector_parallel or not kernel.down_columns:
        return
    if len(scope.index) != 1:
        return  # totals of a scan are stored outside its loop
    (axis,) = scope.index
    if axis == vector.axis or access.strides[axis] in (0, 1):
        return
    if access.buffer == SCRATCH or access.strides[vector.axis] != 1:
        return
    ahead, wide = emitter.ahead, vector.unroll == emitter.unroll
    if number in ahead.next_strip and wide:
        _fetch(emitter, number, scope, emitter.distances[number])
        return

    def fetch() -> list[Value]:
        rows = b.mul(emitter.strides[number][axis], const(STRIP_AHEAD, I64))
        _fetch(emitter, number, scope, rows)
        return []

    if number in ahead.fetched | ahead.next_strip:
        b.if_(emitter.strip_is_cold, fetch)
    else:
        fetch()


def straight_ahead(emitter: KernelEmitter, number: int, scope: Scope) -> None:
    """Fetch what access ``number`` will load some steps on, in a straight loop."""
    kernel, vector = emitter.kernel, scope.vector
    if vector is None or vector.mask is not None or not emitter.straight:
        return
    if kernel.accesses[number].strides == (1,):
        distance = STRAIGHT_AHEAD // kernel.accesses[number].dtype.itemsize
        _fetch(emitter, number, scope, const(distance, I64))


def is_straight(kernel: Kernel) -> bool:
    """Whether ``kernel`` is one elementwise loop with much to do for each number."""
    if kernel.parallel != (kernel.vector_parallel,) or kernel.block.nests or kernel.scans:
        return False
    applied = [e for e in kernel.exprs if isinstance(e, Apply)]
    return len(applied) >= BUSY or any(OPS[e.op].has(Fact.EXPENSIVE) for e in applied)


class Ahead(NamedTuple):
    """What a pass over a row fetches: accesses whose next row, and accesses whose row.

    What a pass over a strip of columns fetches: accesses whose next strip, and those of which all
    strips but the first have been ``fetched``.
    """

    next_row: frozenset[int] = frozenset()
    this_row: frozenset[int] = frozenset()
    next_strip: frozenset[int] = frozenset()
    fetched: frozenset[int] = frozenset()


def plan_ahead(kernel: Kernel) -> list[Ahead]:
    """Return what each pass (nest) of ``kernel`` fetches."""
    return strips_ahead(kernel) if kernel.down_columns else rows_ahead(kernel)


def strips_ahead(kernel: Kernel) -> list[Ahead]:
    """Return what each pass over the strips of ``kernel`` fetches."""
    nests, columns = kernel.block.nests, kernel.vector_parallel
    axes = {n.axes for n in nests}
    if kernel.scans or len(axes) != 1 or any(len(n.axes) > 1 or n.body.nests for n in nests):
        return [Ahead() for _ in nests]
    (row,) = nests[0].axes
    assert columns is not None
    strides = [(a.strides[columns], a.strides[row]) for a in kernel.accesses]
    loads = [
        {a for a in _loaded(kernel, n) if strides[a][0] == 1 and strides[a][1] not in (0, 1)}
        for n in nests
    ]
    result: list[Ahead] = []
    for number, found in enumerate(loads):
        passed = Counter(a for before in loads[:number] for a in before)
        later = frozenset[int]().union(*loads[number + 1 :])
        second = frozenset(a for a in found if passed[a] == 1)
        result.append(Ahead(next_strip=second, fetched=frozenset(found - passed.keys()) & later))
    return result


def rows_ahead(kernel: Kernel) -> list[Ahead]:
    """Return what each pass (nest) over the rows of ``kernel`` fetches."""
    nests = kernel.block.nests
    nothing = [Ahead() for _ in nests]
    if kernel.vector_parallel is not None or not kernel.parallel or kernel.scans:
        return nothing
    if any(n.body.nests or n.vector is None for n in nests):
        return nothing
    loads = [{a for a in _loaded(kernel, n) if _walks_rows(kernel, a, n)} for n in nests]
    stores = [{a for a in _stored(kernel, n) if _walks_rows(kernel, a, n)} for n in nests]
    result: list[Ahead] = []
    for number in range(len(nests)):
        passed = [
            sum(a in before for before in loads[:number]) for a in range(len(kernel.accesses))
        ]
        second = frozenset(a for a in loads[number] if passed[a] == 1)
        follow = number + 1 < len(nests) and nests[number + 1].axes == nests[number].axes
        result.append(Ahead(second, frozenset(stores[number + 1]) if follow else frozenset()))
    return result


def strips_are_near(emitter: KernelEmitter, plan: Sequence[Ahead]) -> Value:
    """Return whether the first cache keeps a strip of columns, and the next one beside it."""
    kernel, read = emitter.kernel, frozenset[int]().union(*(ahead.next_strip for ahead in plan))
    if not read:
        return const(False, I1)
    (row,) = kernel.block.nests[0].axes
    return emitter.b.compare("le", emitter.extents[row], const(STRIP_ROWS // len(read), I64))


def distances(emitter: KernelEmitter, plan: Sequence[Ahead]) -> dict[int, Value]:
    """Return how far it is, in elements, to what passes fetch ahead of each access: the next row
    or strip.

    Rows that are too long are fetched where they are, which does nothing. Where strips are long
    rows of the same one are.
    """
    b, kernel = emitter.b, emitter.kernel
    result: dict[int, Value] = {}
    for number in sorted(frozenset[int]().union(*(ahead.next_row for ahead in plan))):
        stride = emitter.strides[number][kernel.parallel[-1]]
        most = const(MAX_ROW // kernel.accesses[number].dtype.itemsize, I64)
        result[number] = b.select(b.compare("le", stride, most), stride, const(0, I64))
    for number in sorted(frozenset[int]().union(*(ahead.next_strip for ahead in plan))):
        (row,) = kernel.block.nests[0].axes
        rows = b.mul(emitter.strides[number][row], const(STRIP_AHEAD, I64))
        strip = const(emitter.lanes * emitter.unroll, I64)
        result[number] = b.select(emitter.strip_is_near, strip, rows)
    return result


def fetch_rows(emitter: KernelEmitter, ahead: Ahead, scope: Scope) -> None:
    """Fetch what the step in ``scope`` of a pass over a row is to."""
    for number in sorted(ahead.next_row):
        _fetch(emitter, number, scope, emitter.distances[number])
    for number in sorted(ahead.this_row):
        _fetch(emitter, number, scope, const(0, I64))


def _fetch(emitter: KernelEmitter, number: int, scope: Scope, distance: Value) -> None:
    """Fetch the lines that lie ``distance`` elements from what the step in ``scope`` touches."""
    b, vector, dtype = emitter.b, scope.vector, emitter.kernel.accesses[number].dtype
    assert vector is not None
    first = b.element(scope.pointers[number], distance, memory_type(dtype))
    for start in range(0, vector.unroll * vector.lanes * dtype.itemsize, LINE):
        b.prefetch(b.offset(first, const(start, I64)))


def _walks_rows(kernel: Kernel, number: int, nest: Nest) -> bool:
    """Whether an access is contiguous along the lanes of ``nest``, and has a next row."""
    access = kernel.accesses[number]
    assert nest.vector is not None
    along, across = access.strides[nest.vector], access.strides[kernel.parallel[-1]]
    return access.buffer != SCRATCH and along == 1 and across not in (0, 1)


def _stored(kernel: Kernel, nest: Nest) -> set[int]:
    return {kernel.stores[s].access for s in nest.stores if s not in kernel.streamed}


def _loaded(kernel: Kernel, nest: Nest) -> set[int]:
    """Return the accesses that the loops of ``nest`` load from."""
    computed = (kernel.exprs[p] for p in computed_in(kernel, nest))
    return {e.access for e in computed if isinstance(e, Load)}
