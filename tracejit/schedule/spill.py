"""Row scratch: what two passes over a row both need, and is dear, is kept from the first.

Softmax needs ``exp(x − max)`` to sum it and again to divide it. Between the passes the row sits
in a private buffer that stays in L1 or L2, so the exponential is computed once::

    for row:  sum += save(exp(x[j] − max))        for row:  out[j] = saved[j] / sum

Values of a few flops are recomputed: a load would cost as much.
"""

from __future__ import annotations

from math import prod

from tracejit.ops.table import OPS, Fact
from tracejit.record import replace
from tracejit.schedule.kernel import (
    SCRATCH,
    Access,
    Apply,
    Block,
    Kernel,
    Nest,
    Reduce,
    Store,
    operands,
)
from tracejit.schedule.pack import STRIP

MAX_SCRATCH = 256 * 1024


def spill(kernel: Kernel) -> Kernel:
    """Return ``kernel`` with saves and reuses between the nests of its outer block."""
    if kernel.seams:
        return kernel  # loops begin anew at a seam, where a row is not a whole number of vectors
    strips = bool(kernel.packs or kernel.unpacks)
    if (kernel.vector_parallel is not None and not strips) or len(kernel.block.nests) < 2:
        return kernel
    dear = _dear(kernel)
    if not dear:
        return kernel
    accesses = list(kernel.accesses)
    nests = list(kernel.block.nests)
    saved: dict[int, Store] = {}
    scratch = kernel.scratch
    for later in range(1, len(nests)):
        wanted = _needed(kernel, nests[later], set())
        for earlier in range(later):
            common = _frontier(kernel, nests, earlier, later, wanted) & dear
            for value in sorted(common):
                store = saved.get(value)
                if store is None:
                    access = _scratch_access(kernel, nests[earlier], value, scratch)
                    size = prod(kernel.extents[a] for a in nests[earlier].axes)
                    size *= STRIP if strips else 1
                    nbytes = size * access.dtype.itemsize
                    if scratch + nbytes > MAX_SCRATCH:
                        continue
                    scratch += -(-nbytes // 64) * 64
                    store = saved[value] = Store(len(accesses), value)
                    accesses.append(access)
                    nests[earlier] = replace_nest(nests[earlier], saves=store)
                if store not in nests[later].reuses:
                    nests[later] = replace_nest(nests[later], reuses=store)
    block = Block(nests, kernel.block.stores)
    return replace(kernel, accesses=tuple(accesses), block=block, scratch=scratch)


def replace_nest(nest: Nest, *, saves: Store | None = None, reuses: Store | None = None) -> Nest:
    """Return ``nest`` with one more saved or reused value."""
    return replace(
        nest,
        saves=(*nest.saves, saves) if saves else nest.saves,
        reuses=(*nest.reuses, reuses) if reuses else nest.reuses,
    )


def _dear(kernel: Kernel) -> set[int]:
    """Return the values that vary inside a row and cost tens of flops to compute again."""
    dear: set[int] = set()
    parallel = set(kernel.parallel)
    for position, expr in enumerate(kernel.exprs):
        if expr.axes <= parallel or isinstance(expr, Reduce):
            continue
        dear_itself = isinstance(expr, Apply) and OPS[expr.op].has(Fact.EXPENSIVE)
        if dear_itself or any(b in dear for b in operands(expr)):
            dear.add(position)
    return dear


def _needed(kernel: Kernel, nest: Nest, stop: set[int]) -> set[int]:
    """Return the values that the body of ``nest`` computes for each element of the row."""
    stack = [operands(kernel.exprs[r])[0] for r in nest.reduces]
    stack += [kernel.stores[s].value for s in nest.stores]
    seen: set[int] = set()
    while stack:
        position = stack.pop()
        expr = kernel.exprs[position]
        if position in seen or expr.axes <= set(kernel.parallel) or isinstance(expr, Reduce):
            continue
        seen.add(position)
        if position not in stop:
            stack += operands(expr)
    return seen


def _frontier(
    kernel: Kernel, nests: list[Nest], earlier: int, later: int, wanted: set[int]
) -> set[int]:
    """Return the values common to two nests that something not common reads in the later one."""
    first, second = nests[earlier], nests[later]
    if set(first.axes) != set(second.axes) or first.body.nests or second.body.nests:
        return set()
    common = _needed(kernel, first, set()) & wanted
    roots = [operands(kernel.exprs[r])[0] for r in second.reduces]
    roots += [kernel.stores[s].value for s in second.stores]
    frontier = common & set(roots)
    for position in wanted - common:
        frontier |= common & set(operands(kernel.exprs[position]))
    reused = {s.value for s in second.reuses}
    return {p for p in frontier if p not in reused}


def _scratch_access(kernel: Kernel, nest: Nest, value: int, start: int) -> Access:
    dtype = kernel.exprs[value].dtype
    strides = [0] * len(kernel.extents)
    step = 1
    if kernel.vector_parallel is not None:  # the rows of a strip lie side by side
        strides[kernel.vector_parallel], step = 1, STRIP
    for axis in reversed(nest.axes):
        strides[axis] = step
        step *= kernel.extents[axis]
    return Access(SCRATCH, dtype, start // dtype.itemsize, tuple(strides))
