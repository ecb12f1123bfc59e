"""Index maps: where an element of a node comes from, as affine functions of loop axes.

An ``Affine`` is ``offset + Σ coefficient·axis``. A map is one affine per dimension of a node.
Movement ops compose maps instead of moving data: reading ``x[::-1].T`` at a map is reading ``x``
at another one. Only a reshape that merges dimensions of a value that is not stored contiguously
cannot be composed; then ``through`` returns None and the value is materialised.

A cycle maps to an affine with *seams*: from some index of an axis on, the place is a jump further,
by the whole extent back. Loops run from seam to seam, and between them all is affine.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

from tracejit.graph.node import Node
from tracejit.ops.table import Shape
from tracejit.sizes import frozen

Terms = tuple[tuple[int, int], ...]


class Seam(NamedTuple):
    """From ``position`` along ``axis`` on, what is indexed is ``jump`` further."""

    axis: int
    position: int
    jump: int


class Affine(NamedTuple):
    """``offset + Σ coefficient·axis``, and the jumps of the seams that are passed.

    ``terms`` holds (axis, coefficient), sorted, non-zero. Seams are along axes of the terms.
    """

    terms: Terms
    offset: int = 0
    seams: tuple[Seam, ...] = ()

    @property
    def axes(self) -> frozenset[int]:
        return frozenset(axis for axis, _ in self.terms)

    def scaled(self, factor: int, offset: int = 0) -> Affine:
        """Return ``offset + factor·self``."""
        if factor == 0:
            return Affine((), offset)
        return Affine(
            tuple((axis, c * factor) for axis, c in self.terms),
            self.offset * factor + offset,
            tuple(seam._replace(jump=seam.jump * factor) for seam in self.seams),
        )


ZERO = Affine(())
Map = tuple[Affine, ...]


def axis_index(axis: int) -> Affine:
    return Affine(((axis, 1),))


def identity(rank: int) -> Map:
    """Return the map in which loop axis i is dimension i."""
    return tuple(axis_index(i) for i in range(rank))


def axes_of(index: Map) -> frozenset[int]:
    """Return the loop axes that ``index`` varies with."""
    return frozenset(axis for part in index for axis, _ in part.terms)


def is_plain(index: Map) -> bool:
    """Whether every dimension is one distinct axis, or fixed at 0."""
    seen: list[int] = []
    for part in index:
        if part.offset or part.seams or len(part.terms) > 1:
            return False
        if any(c != 1 for _, c in part.terms):
            return False
        seen += [axis for axis, _ in part.terms]
    return len(seen) == len(set(seen))


def total(parts: Sequence[Affine]) -> Affine:
    """Return the sum of affine functions."""
    terms: dict[int, int] = {}
    offset = 0
    for part in parts:
        offset += part.offset
        for axis, coefficient in part.terms:
            terms[axis] = terms.get(axis, 0) + coefficient
    seams = tuple(seam for part in parts for seam in part.seams)
    return Affine(tuple(sorted((a, c) for a, c in terms.items() if c)), offset, seams)


def contiguous_strides(shape: Shape) -> tuple[int, ...]:
    """Return C-order strides in elements."""
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


def flat(index: Map, strides: Sequence[int]) -> Affine:
    """Return the element offset of ``index`` in memory with ``strides``."""
    return total([part.scaled(stride) for part, stride in zip(index, strides, strict=True)])


def broadcast(index: Map, shape: Shape) -> Map:
    """Return the map into an operand of ``shape`` that broadcasts to the indexed result."""
    tail = index[len(index) - len(shape) :]
    if 1 not in shape:
        return tail
    return tuple(ZERO if n == 1 else part for part, n in zip(tail, shape, strict=True))


def unflatten(offset: Affine, shape: Shape, extents: Sequence[int]) -> Map | None:
    """Split a flat C-order offset into one affine per dimension of ``shape``.

    Possible where every term moves inside one dimension only: a term goes to the dimension whose
    stride divides its coefficient, and the ranges of a dimension's terms must add up to less
    than its extent. ``extents[axis]`` is the trip count of a loop axis.
    """
    if offset.seams:
        return None
    parts: list[Affine] = []
    rest = dict(offset.terms)
    constant = offset.offset
    for extent, stride in zip(shape, contiguous_strides(shape), strict=True):
        if extent == 1:
            parts.append(ZERO)
            continue
        mine: list[tuple[int, int]] = []
        for axis, coefficient in list(rest.items()):
            if coefficient % stride == 0 and abs(coefficient) < stride * extent:
                mine.append((axis, coefficient // stride))
                del rest[axis]
        start, constant = divmod(constant, stride)
        low = start + sum(min(0, c * (extents[a] - 1)) for a, c in mine)
        high = start + sum(max(0, c * (extents[a] - 1)) for a, c in mine)
        if low < 0 or high >= extent:
            return None
        parts.append(Affine(tuple(sorted(mine)), start))
    return tuple(parts) if not rest and constant == 0 else None


def through(node: Node, index: Map, extents: Sequence[int]) -> Map | None:
    """Return the map into the operand of movement node ``node`` read at ``index``."""
    operand = node.inputs[0]
    match node.op.name:
        case "permute":
            axes = cast(tuple[int, ...], node.attrs["axes"])
            result: list[Affine] = [ZERO] * len(axes)
            for position, axis in enumerate(axes):
                result[axis] = index[position]
            return tuple(result)
        case "broadcast_to":
            return broadcast(index, operand.shape)
        case "slice":
            starts = cast(tuple[int, ...], node.attrs["start"])
            steps = cast(tuple[int, ...], node.attrs["step"])
            return tuple(
                part.scaled(step, start)
                for part, start, step in zip(index, starts, steps, strict=True)
            )
        case "windows":
            return _windows(node, index)
        case "reshape":
            return reshaped(node.shape, operand.shape, index, extents)
        case _:
            return None


def cycled(node: Node, index: Map, extents: Sequence[int]) -> Map | None:
    """Return the map into the operand of cycle ``node`` read at ``index``.

    None where the axis that goes round is indexed by several axes, or backwards.
    """
    axis, start = (cast(int, node.attrs[name]) for name in ("axis", "start"))
    part = index[axis]
    if len(part.terms) > 1 or any(c < 0 for _, c in part.terms):
        return None
    below = _cycled(part, start, node.inputs[0].shape[axis], extents)
    return (*index[:axis], below, *index[axis + 1 :])


def _cycled(part: Affine, start: int, extent: int, extents: Sequence[int]) -> Affine:
    """Return ``(start + part) mod extent``: the pieces between seams get one for each turn."""
    (axis, coefficient), *_ = *part.terms, (0, 0)
    pieces = [(0, part.offset)]
    for seam in part.seams:
        pieces.append((seam.position, pieces[-1][1] + seam.jump))
    ends = [*(begin for begin, _ in pieces[1:]), extents[axis] if part.terms else 1]
    result: list[tuple[int, int]] = []
    for (begin, offset), end in zip(pieces, ends, strict=True):
        place, turns = start + offset, 0
        while place + coefficient * begin >= (turns + 1) * extent:
            turns += 1
        result.append((begin, place - turns * extent))
        while place + coefficient * (end - 1) >= (turns + 1) * extent:
            turns += 1
            place_here = place - turns * extent
            result.append((-(place_here // coefficient), place_here))
    seams = [
        Seam(axis, begin, offset - before)
        for (_, before), (begin, offset) in pairwise(result)
        if frozen(offset) != frozen(before)
    ]
    return Affine(part.terms, result[0][1], tuple(seams))


def _windows(node: Node, index: Map) -> Map:
    """Return the map into the operand: place·step + tap·dilation along each axis of a window."""
    steps, dilations = (cast(tuple[int, ...], node.attrs[n]) for n in ("step", "dilation"))
    count = len(steps)
    lead = len(index) - 2 * count
    slid = [
        total([place.scaled(step), tap.scaled(dilation)])
        for place, tap, step, dilation in zip(
            index[lead : lead + count], index[lead + count :], steps, dilations, strict=True
        )
    ]
    return (*index[:lead], *slid)


def reshaped(outer: Shape, inner: Shape, index: Map, extents: Sequence[int]) -> Map | None:
    """Return the map into ``inner`` for a reshape to ``outer`` read at ``index``."""
    kept = [part for part, n in zip(index, outer, strict=True) if n != 1]
    if [n for n in outer if n != 1] == [n for n in inner if n != 1]:
        parts = iter(kept)
        return tuple(ZERO if n == 1 else next(parts) for n in inner)
    return unflatten(flat(index, contiguous_strides(outer)), inner, extents)


VIEWS = frozenset({"permute", "broadcast_to", "slice", "reshape", "windows"})
