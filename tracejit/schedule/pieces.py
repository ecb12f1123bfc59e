"""Pieces: the regions that make up a concat, a pad or a slice update, each stored by a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from tracejit.graph.node import Node
from tracejit.ops.table import Family, Shape
from tracejit.record import replace
from tracejit.schedule.cluster import Target
from tracejit.schedule.unroll import TINY
from tracejit.sizes import hint

# What a kernel with several results computes without further ado.
_BY_ELEMENT = frozenset({Family.LEAF, Family.ELEMENTWISE, Family.MOVEMENT})

# How many parts of a join one kernel stores, how far to look for what one is made of, and the
# elements of a join that is not worth several kernels.
_TOGETHER, _NEAR, _SMALL = 32, 1024, 256

Piece = tuple[Node, Shape, tuple[int, ...], Target]


def regions(node: Node, alone: Callable[[Node], bool]) -> list[list[Piece]]:
    """Return the pieces of ``node``, those together that one kernel stores, in execution order.

    A piece whose elements are records themselves, and which is read by ``node`` ``alone``, is
    stored field by field too.
    """
    if makes_records(node):
        return [_pieces(node)]
    if _is_alike(node) and (hint(node.size) <= _SMALL or _share_work(node)):
        pieces = _pieces(node)
        return [pieces[i : i + _TOGETHER] for i in range(0, len(pieces), _TOGETHER)]
    found: list[list[Piece]] = []
    for piece in (inner for outer in _pieces(node) for inner in _joined_in(outer, alone)):
        source, shape, *_ = piece
        by_field = makes_records(source) and shape[-1] == source.shape[-1] and alone(source)
        found.append(_fields(piece) if by_field else [piece])
    return found


def _joined_in(piece: Piece, alone: Callable[[Node], bool]) -> list[Piece]:
    """Return the pieces of a join that is a piece itself and that nothing else reads."""
    source, shape, _, target = piece
    whole = source.op.name == "concat" and shape == source.shape and alone(source)
    if not whole or makes_records(source) or len(shape) != len(target.start):
        return [piece]
    result: list[Piece] = []
    for part, extent, first, place in _concat_pieces(source):
        corner = tuple(
            a + b * step for a, b, step in zip(target.start, place.start, target.step, strict=True)
        )
        inner: Piece = (part, extent, first, replace(target, start=corner))
        result += _joined_in(inner, alone)
    return result


def _is_alike(node: Node) -> bool:
    """Whether ``node`` joins values of one shape that are computed element by element."""
    shape = node.inputs[0].shape
    return node.op.name == "concat" and all(
        f.shape == shape and _below(f).op.family in _BY_ELEMENT for f in node.inputs
    )


def _share_work(node: Node) -> bool:
    """Whether parts of ``node`` are computed from each other, or from a value that is computed.

    As the states of a recurrence over time, which one kernel has at hand for the next state, or
    the components of an equilibrium: apart, what they share would be stored.
    """
    states = {_below(field) for field in node.inputs}
    seen: set[Node] = set()
    for state in states:
        mine: set[Node] = set()
        stack = list(state.inputs) if state.op.family is Family.ELEMENTWISE else []
        while stack and len(seen) + len(mine) < _NEAR:
            one = stack.pop()
            if one in states or (one in seen and one.op.family is Family.ELEMENTWISE):
                return True
            if one not in mine and one.op.family in _BY_ELEMENT:
                mine.add(one)
                stack += one.inputs
        seen |= mine
    return False


def _below(node: Node) -> Node:
    """Return what ``node`` is a reshape of."""
    while node.op.name == "reshape":
        node = node.inputs[0]
    return node


def _fields(piece: Piece) -> list[Piece]:
    """Return the pieces that a region of records falls into, one a field."""
    records, shape, start, target = piece
    result: list[Piece] = []
    for number, field in enumerate(records.inputs):
        position = target.start[-1] + number * target.step[-1]
        place = replace(target, start=(*target.start[:-1], position))
        result.append((field, (*shape[:-1], 1), (*start[:-1], 0), place))
    return result


def _pieces(node: Node) -> list[Piece]:
    """Return (source, shape, start in source, target) of each region that makes up ``node``.

    In execution order: a later piece may overwrite an earlier one.
    """
    match node.op.name:
        case "concat":
            return _concat_pieces(node)
        case "pad":
            return _pad_pieces(node)
        case _:
            return _update_pieces(node)


def makes_records(node: Node) -> bool:
    """Whether the pieces of ``node`` are the fields of its records, one element each.

    One kernel stores them all: apart, each would touch every line of the result.
    """
    if node.op.name != "concat" or node.attrs["axis"] != len(node.shape) - 1:
        return False
    fields = node.inputs
    elements = all(f.shape[-1] == 1 and f.op.family in _BY_ELEMENT for f in fields)
    return len(fields) <= TINY and elements


def _concat_pieces(node: Node) -> list[Piece]:
    axis = cast(int, node.attrs["axis"])
    rank = len(node.shape)
    result: list[Piece] = []
    position = 0
    for source in node.inputs:
        start = tuple(position if i == axis else 0 for i in range(rank))
        result.append(
            (source, source.shape, (0,) * rank, Target(node, start, (1,) * rank, node.shape))
        )
        position += source.shape[axis]
    return result


def _pad_pieces(node: Node) -> list[Piece]:
    source, value = node.inputs
    low = cast(tuple[int, ...], node.attrs["low"])
    rank = len(node.shape)
    target = Target(node, low, (1,) * rank, node.shape)
    result: list[Piece] = [
        (value, shape, (0,) * rank, Target(node, start, (1,) * rank, node.shape))
        for start, shape in _around(node.shape, low, source.shape)
    ]
    return [*result, (source, source.shape, (0,) * rank, target)]


def _update_pieces(node: Node) -> list[Piece]:
    source, value = node.inputs
    start, size, step = (
        cast(tuple[int, ...], node.attrs[name]) for name in ("start", "size", "step")
    )
    rank = len(node.shape)
    region = (value, value.shape, (0,) * rank, Target(node, start, step, node.shape))
    if all(s == 1 for s in step):
        kept = _around(node.shape, start, size)
    else:
        kept = [((0,) * rank, node.shape)]
    copies: list[Piece] = [
        (source, shape, first, Target(node, first, (1,) * rank, node.shape))
        for first, shape in kept
    ]
    return [*copies, region]


def _around(
    shape: Shape, start: tuple[int, ...], size: tuple[int, ...]
) -> list[tuple[tuple[int, ...], Shape]]:
    """Return disjoint boxes (start, shape) that cover ``shape`` outside one inner box."""
    if 0 in size:
        return [((0,) * len(shape), shape)]
    boxes: list[tuple[tuple[int, ...], Shape]] = []
    first, extent = [0] * len(shape), list(shape)
    for axis, (begin, length) in enumerate(zip(start, size, strict=True)):
        for low, high in ((0, begin), (begin + length, shape[axis])):
            if low < high:
                corner, box = first.copy(), extent.copy()
                corner[axis], box[axis] = low, high - low
                boxes.append((tuple(corner), tuple(box)))
        first[axis], extent[axis] = begin, length
    return boxes
