"""Interleaved values: what lanes read in steps, again and again, is first copied to lie apart.

Points lie in memory as x y z x y z …, so a vector of their x is a gather, an element at a time.
Where loops around the vector loop read the same elements in each of their trips, the kernel copies
them once to private memory, in which they are contiguous along the lanes::

    for i: for j (vector): … a[3·j] …   →   for j: row[j] = a[3·j]
                                            for i: for j (vector): … row[j] …

Every chunk of a thread copies for itself; it has many trips (schedule/grain.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from tracejit.record import replace
from tracejit.schedule.kernel import (
    SCRATCH,
    Access,
    Block,
    Kernel,
    Load,
    operands,
)
from tracejit.sizes import hint

# Trips that have to share a copy.
MIN_TRIPS = 16
# Bytes of a kernel's copies: they should stay in the second cache, and lie on the stack.
MAX_COPIED = 128 * 1024


def separate(kernel: Kernel) -> Kernel:
    """Return ``kernel`` with the strided values that its outer loops share copied apart."""
    if kernel.scans or kernel.tiled or kernel.packs or kernel.seams:
        return kernel
    accesses, exprs = list(kernel.accesses), list(kernel.exprs)
    copies: dict[tuple[int, int], int] = {}
    scratch = kernel.scratch
    for position, axis in _strided(kernel):
        load = kernel.exprs[position]
        assert isinstance(load, Load)
        if (load.access, axis) not in copies:
            access = _apart(kernel, kernel.accesses[load.access], axis, scratch)
            nbytes = _elements(kernel, access) * access.dtype.itemsize
            if not check_copy(kernel, position, access) or scratch + nbytes > MAX_COPIED:
                continue
            copies[load.access, axis] = len(accesses)
            accesses.append(access)
            scratch += -(-nbytes // 64) * 64
        exprs[position] = replace(load, access=copies[load.access, axis])
    if not copies:
        return kernel
    return replace(
        kernel,
        accesses=tuple(accesses),
        exprs=tuple(exprs),
        copies=tuple((source, target) for (source, _), target in copies.items()),
        scratch=scratch,
    )


def check_copy(kernel: Kernel, position: int, access: Access) -> bool:
    """Whether the load at ``position`` reads the same elements in many trips of outer loops.

    ``access`` is that of the copy. Nothing in the kernel may write what was copied before.
    """
    load = kernel.exprs[position]
    assert isinstance(load, Load)
    buffer = kernel.accesses[load.access].buffer
    if any(kernel.accesses[s.access].buffer == buffer for s in kernel.stores):
        return False
    fixed = [n for n, a in enumerate(kernel.parallel) if a in load.axes and not access.strides[a]]
    inside = kernel.parallel[max(fixed, default=-1) + 1 :]
    return prod(hint(kernel.extents[a]) for a in inside if a not in load.axes) >= MIN_TRIPS


def _strided(kernel: Kernel) -> list[tuple[int, int]]:
    """Return (position, axis) of the loads that lanes along ``axis`` read in steps.

    A load that two nests read along different axes is left out.
    """
    lanes: dict[int, set[int]] = {}
    for axis, roots in _vector_loops(kernel, kernel.block):
        for position in _needed(kernel, roots):
            expr = kernel.exprs[position]
            if isinstance(expr, Load) and axis in expr.axes:
                lanes.setdefault(position, set()).add(axis)
    found: list[tuple[int, int]] = []
    for position, axes in sorted(lanes.items()):
        load, (axis, *others) = kernel.exprs[position], axes
        assert isinstance(load, Load)
        if not others and kernel.accesses[load.access].strides[axis] != 1:
            found.append((position, axis))
    return found


def _vector_loops(kernel: Kernel, block: Block) -> Iterable[tuple[int, list[int]]]:
    """Yield the axis in lanes and the values that are computed in them, of each loop with lanes."""
    if kernel.vector_parallel is not None:
        yield kernel.vector_parallel, [s.value for s in kernel.stores]
        return
    for nest in block.nests:
        if nest.vector is not None:
            roots = [operands(kernel.exprs[r])[0] for r in nest.reduces]
            yield nest.vector, roots + [kernel.stores[s].value for s in nest.stores]
        yield from _vector_loops(kernel, nest.body)


def _needed(kernel: Kernel, roots: list[int]) -> set[int]:
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        position = stack.pop()
        if position not in seen:
            seen.add(position)
            stack += operands(kernel.exprs[position])
    return seen


def _apart(kernel: Kernel, source: Access, lanes: int, start: int) -> Access:
    """Return the access to the copy, contiguous along ``lanes``, at byte ``start`` of scratch."""
    strides = [0] * len(kernel.extents)
    strides[lanes], step = 1, kernel.extents[lanes]
    for axis, stride in enumerate(source.strides):
        if stride and axis != lanes and axis not in kernel.parallel:
            strides[axis] = step
            step *= kernel.extents[axis]
    return Access(SCRATCH, source.dtype, start // source.dtype.itemsize, tuple(strides))


def _elements(kernel: Kernel, access: Access) -> int:
    return prod(n for n, s in zip(kernel.extents, access.strides, strict=True) if s)
