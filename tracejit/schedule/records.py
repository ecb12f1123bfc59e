"""Records: fields that lie side by side in memory, element after element.

Points are x y z x y z …, pixels r g b r g b …. Lanes that run over the points read one field in
steps of three, an element at a time. Whole vectors are loaded instead, and the fields taken apart
in registers; where a kernel stores all fields of its records, they are put together there::

    r g b r g b r g b …   ⇄   r r r …, g g g …, b b b …
"""

from __future__ import annotations

from collections.abc import Iterable

from tracejit.record import replace
from tracejit.schedule.kernel import NO_FIELD, Kernel, Load, Record
from tracejit.schedule.unroll import TINY
from tracejit.sizes import hint


def find_records(kernel: Kernel) -> Kernel:
    """Return ``kernel`` with the accesses noted that are fields of records."""
    if kernel.scans or kernel.tiled or kernel.packs or kernel.unpacks or kernel.seams:
        return kernel
    loaded = {e.access for e in kernel.exprs if isinstance(e, Load)}
    loads = tuple(_records(kernel, loaded))
    stores: tuple[Record, ...] = ()
    if kernel.vector_parallel is not None:
        stored = {kernel.stores[number].access for number in kernel.block.stores}
        along = [r for r in _records(kernel, stored) if r.axis == kernel.vector_parallel]
        stores = tuple(r for r in along if NO_FIELD not in r.fields)
    return replace(kernel, records=loads, stored_records=stores) if loads or stores else kernel


def _records(kernel: Kernel, numbers: Iterable[int]) -> Iterable[Record]:
    """Yield the records that the accesses ``numbers`` are fields of."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for number in sorted(numbers, key=lambda n: kernel.accesses[n].offset):
        access = kernel.accesses[number]
        groups.setdefault((access.buffer, access.dtype, access.strides), []).append(number)
    for members in groups.values():
        strides = kernel.accesses[members[0]].strides
        # A size that is only now and then that small runs the kernels of the usual ones.
        few = [a for a in kernel.lane_axes if 2 <= hint(strides[a]) <= TINY]
        steps = [(strides[a], a) for a in few if 2 <= strides[a] <= TINY]
        if not steps:
            continue
        step, axis = min(steps)
        while members:
            first = kernel.accesses[members[0]].offset
            fields = [NO_FIELD] * step
            rest: list[int] = []
            for number in members:
                place = kernel.accesses[number].offset - first
                if place < step:
                    fields[place] = number
                else:
                    rest.append(number)
            yield Record(axis, tuple(fields))
            members = rest
