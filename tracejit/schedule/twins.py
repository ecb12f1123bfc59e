"""Twins: a value that a kernel stores twice, by itself and as a region of something larger.

An update `u[1:-1] = v` stores v to its region, and where the next step of a chain reads `u[1:-1]`
it reads v, which therefore is stored by itself as well. Those who read it may as well read the
region, and then one store is enough::

    for i: v[i] = u[i + 1] = …                 for i: u[i + 1] = …
    for i: w[i] = v[i] * u[i] * u[i + 2]   →   for i: w[i] = u[i + 1] * u[i] * u[i + 2]
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

from tracejit.record import replace
from tracejit.schedule.kernel import Access, Block, Gather, Kernel, Nest


class Twins(NamedTuple):
    """Two stores of a value, with ``steps`` of each loop: (how many, in the one, in the other).

    ``region`` is the access that stays.
    """

    buffer: int
    region: Access
    steps: list[tuple[int, int, int]]


def join_twins(kernels: Sequence[Kernel | None], inner: Collection[int]) -> list[Kernel | None]:
    """Return the kernels of a schedule without the stores that others make superfluous.

    A step that is no loop kernel is None; ``inner`` are the buffers that only loop kernels see.
    """
    result = list(kernels)
    for number, kernel in enumerate(kernels):
        if kernel is None or len(kernel.stores) < 2:
            continue
        for small, large in permutations(kernel.stores, 2):
            own, region = kernel.accesses[small.access], kernel.accesses[large.access]
            same = small.value == large.value and not small.op and not large.op
            if same and own.buffer in inner and own.dtype == region.dtype and own.offset == 0:
                loops = zip(kernel.extents, own.strides, region.strides, strict=True)
                twins = Twins(own.buffer, region, [loop for loop in loops if loop[1]])
                if check_twins(result, number, twins):
                    _redirect(result, number, twins)
                    break
    return result


def check_twins(kernels: Sequence[Kernel | None], number: int, twins: Twins) -> bool:
    """Whether all loads of what kernel ``number`` stores by itself may be loads from the region.

    They stay in one loop of the store each, and nobody stores to the larger buffer later.
    """
    if any(a[1] == b[1] for a, b in combinations(twins.steps, 2)):
        return False
    own, whole = twins.buffer, twins.region.buffer
    for place, kernel in enumerate(kernels):
        if kernel is None:
            continue
        stored = [kernel.accesses[s.access].buffer for s in kernel.stores]
        loaded = {a.buffer for a in kernel.loaded}
        if place == number:
            if stored.count(own) != 1 or stored.count(whole) != 1 or not loaded.isdisjoint(stored):
                return False
            continue
        if own in stored or (place > number and whole in stored):
            return False
        gathered = {e.access for e in kernel.exprs if isinstance(e, Gather)}
        mine = [n for n, a in enumerate(kernel.accesses) if a.buffer == own]
        if not gathered.isdisjoint(mine) or any(_moved(kernel, n, twins) is None for n in mine):
            return False
    return True


def _moved(kernel: Kernel, number: int, twins: Twins) -> Access | None:
    """Return where an access to the smaller buffer finds its elements in the region."""
    access = kernel.accesses[number]
    if access.offset != 0 or access.seams:
        return None
    left = [extent - 1 for extent, _, _ in twins.steps]
    strides: list[int] = []
    for extent, stride in zip(kernel.extents, access.strides, strict=True):
        loop = next((i for i, (_, s, _) in enumerate(twins.steps) if s == stride), None)
        if not stride:
            strides.append(0)
        elif loop is None:
            return None
        else:
            left[loop] = left[loop] - (extent - 1)
            strides.append(twins.steps[loop][2])
    if any(n < 0 for n in left):  # loops that were merged run on into the next row
        return None
    region = twins.region
    return replace(access, buffer=region.buffer, offset=region.offset, strides=tuple(strides))


def _redirect(kernels: list[Kernel | None], number: int, twins: Twins) -> None:
    for place, kernel in enumerate(kernels):
        if kernel is None or all(a.buffer != twins.buffer for a in kernel.accesses):
            continue
        moved = (
            _moved(kernel, n, twins) or a if a.buffer == twins.buffer else a
            for n, a in enumerate(kernel.accesses)
        )
        change = replace(kernel, accesses=tuple(moved))
        kernels[place] = _without_store(kernel, change, twins.buffer) if place == number else change


def _without_store(kernel: Kernel, change: Kernel, buffer: int) -> Kernel:
    """Return ``change`` without the store that ``kernel`` has to ``buffer``."""
    kept = [i for i, s in enumerate(kernel.stores) if kernel.accesses[s.access].buffer != buffer]
    place = {old: new for new, old in enumerate(kept)}

    def renumbered(stores: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(place[s] for s in stores if s in place)

    def of(block: Block) -> Block:
        return Block([nest(n) for n in block.nests], renumbered(block.stores))

    def nest(n: Nest) -> Nest:
        return replace(n, stores=renumbered(n.stores), body=of(n.body))

    return replace(change, stores=tuple(kernel.stores[i] for i in kept), block=of(kernel.block))
