"""Lanes across rows: short reductions of many rows, one row a lane.

A reduction over the vector axis ends with folding lanes. Where its rows are short and many, the
folds take longer than the sums. Then a parallel axis runs in the lanes, as in a reduction down
columns. Rows are not contiguous along that axis: those that are read several times are first
packed, a strip of rows at a time, into private memory where they are::

    for i (vector): for j: for k: … a[32·i + k] …
    →  for i (vector): for k: row[k, i] = a[32·i + k];  for j: for k: … row[k, i] …

Rows that are contiguous are turned in registers, so that packs them even to be read once; and rows
of results are turned back (``unpacks``). So the softmax of rows of ten runs at full width.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tracejit.record import replace
from tracejit.schedule.kernel import SCRATCH, Access, Gather, Kernel, Load, Reduce
from tracejit.sizes import hint

# Rows in a packed strip: what the widest vectors and the most of them side by side take.
STRIP = 128
MAX_PACKED = 64 * 1024
# Packing pays where each element is read this often.
MIN_REUSE = 4
# Bytes of the rows that are short: packed, and where each element is gathered once.
SHORT_PACKED, SHORT_GATHERED, SHORT_TURNED = 512, 64, 192
# A packed row has room for this many more elements: whole vectors are stored there.
ROOM = 16


def rows_axis(kernel: Kernel, vector: int | None, around: Sequence[set[int]]) -> int | None:
    """Return the parallel axis to run in lanes in place of ``vector``, a short inner axis.

    ``around`` has the axes of the loops around each expression.
    """
    if vector is None or vector in kernel.parallel or kernel.scans or kernel.seams:
        return None
    if not any(isinstance(e, Reduce) and vector in e.over for e in kernel.exprs):
        return None
    for axis in kernel.parallel:
        if hint(kernel.extents[axis]) < 2 * STRIP:
            continue
        strided, stored = _strided(kernel, axis), _strided_stores(kernel, axis)
        across = [*dict.fromkeys(_access(kernel, p) for p in strided), *stored]
        fits = sum(_packed_bytes(kernel, a) for a in across) <= MAX_PACKED
        turns = fits and all(check_turn(kernel, a, vector) for a in across)
        # A gather loads whole pieces of a row; in lanes across rows it would be one by one.
        if stored and (not turns or any(isinstance(e, Gather) for e in kernel.exprs)):
            continue
        reused = fits and all(_reuse(kernel, p, around) >= MIN_REUSE for p in strided)
        limit = SHORT_TURNED if turns else SHORT_GATHERED
        if reused and not stored:
            limit = SHORT_PACKED
        widest = max((a.dtype.itemsize for a in across), default=8)
        if kernel.extents[vector] * widest <= limit:
            return axis
    return None


def check_turn(kernel: Kernel, access: Access, inner: int) -> bool:
    """Whether squares of the rows along ``inner`` can be turned in registers."""
    contiguous = _inner(kernel, access) == [inner] and access.strides[inner] == 1
    return contiguous and access.dtype.itemsize >= 4


def shared_by(kernel: Kernel, vector: int | None) -> set[int]:
    """Return parallel axes to run inside the strips of ``vector``, another one.

    Each of their trips reads the same rows of the strip, in steps: the strip is packed for all.
    """
    if vector not in kernel.parallel or kernel.scans or kernel.extents[vector] < 2 * STRIP:
        return set()
    if kernel.seams:
        return set()
    strided = _strided(kernel, vector)
    if sum(_packed_bytes(kernel, a) for a in {_access(kernel, p) for p in strided}) > MAX_PACKED:
        return set()
    moved = {vector}.union(*(kernel.exprs[p].axes for p in strided))
    shared = set(kernel.parallel) - moved
    trips = prod(kernel.extents[a] for a in shared)
    return shared if strided and trips >= MIN_REUSE else set()


def pack(kernel: Kernel, around: Sequence[set[int]], inner: int | None) -> Kernel:
    """Return ``kernel`` with the rows packed that its lanes run across and that it reads often.

    ``inner`` is the short axis that ``rows_axis`` has taken out of the lanes, if it has.
    """
    vector = kernel.vector_parallel
    if vector is None or kernel.seams:
        return kernel
    accesses, exprs = list(kernel.accesses), list(kernel.exprs)
    packs: dict[int, int] = {}
    scratch = 0
    for position in _strided(kernel, vector):
        source = _access(kernel, position)
        number = kernel.accesses.index(source)
        if number not in packs:
            nbytes = _packed_bytes(kernel, source)
            turns = inner is not None and check_turn(kernel, source, inner)
            often = _reuse(kernel, position, around) >= MIN_REUSE
            if not (turns or often) or scratch + nbytes > MAX_PACKED:
                continue
            packs[number] = len(accesses)
            accesses.append(_packed(kernel, source, vector, scratch))
            scratch += nbytes
        load = kernel.exprs[position]
        exprs[position] = Load(load.dtype, load.axes, packs[number])
    unpacks: list[tuple[int, int]] = []
    for target in _strided_stores(kernel, vector) if inner is not None else ():
        unpacks.append((len(accesses), kernel.accesses.index(target)))
        accesses.append(_packed(kernel, target, vector, scratch))
        scratch += _packed_bytes(kernel, target)
    if not packs and not unpacks:
        return kernel
    return replace(
        kernel,
        accesses=tuple(accesses),
        exprs=tuple(exprs),
        packs=tuple(packs.items()),
        unpacks=tuple(unpacks),
        scratch=scratch,
    )


def _access(kernel: Kernel, position: int) -> Access:
    load = kernel.exprs[position]
    assert isinstance(load, Load)
    return kernel.accesses[load.access]


def _strided(kernel: Kernel, axis: int) -> list[int]:
    """Return the loads that are not contiguous along ``axis``, and vary in the inner loops."""
    return [
        p
        for p, e in enumerate(kernel.exprs)
        if isinstance(e, Load)
        and kernel.accesses[e.access].strides[axis] not in (0, 1)
        and not e.axes <= set(kernel.parallel)
    ]


def _strided_stores(kernel: Kernel, axis: int) -> list[Access]:
    stored = dict.fromkeys(kernel.accesses[s.access] for s in kernel.stores)
    return [a for a in stored if a.strides[axis] != 1]


def _reuse(kernel: Kernel, position: int, around: Sequence[set[int]]) -> int:
    """Return how often the inner loops read each element of a load."""
    axes = around[position] - set(kernel.parallel) - kernel.exprs[position].axes
    return prod(kernel.extents[a] for a in axes)


def _inner(kernel: Kernel, access: Access) -> list[int]:
    return [a for a, s in enumerate(access.strides) if s and a not in kernel.parallel]


def _packed_bytes(kernel: Kernel, access: Access) -> int:
    elements = prod(kernel.extents[a] for a in _inner(kernel, access))
    return STRIP * access.dtype.itemsize * (-(-elements // ROOM) * ROOM)


def _packed(kernel: Kernel, source: Access, vector: int, start: int) -> Access:
    """Return the access to the packed strip that starts at byte ``start`` of the scratch."""
    strides = [0] * len(kernel.extents)
    strides[vector], step = 1, STRIP
    for axis in reversed(_inner(kernel, source)):
        strides[axis] = step
        step *= kernel.extents[axis]
    return Access(SCRATCH, source.dtype, start // source.dtype.itemsize, tuple(strides))
