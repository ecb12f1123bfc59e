"""Dead operands and dead stores.

    slice(update_slice(x, v; 0:5); 5:9)          →  slice(x; 5:9)
    slice(concat(a, b); inside b)                →  slice(b)
    update_slice(update_slice(x, v; r), w; r)    →  update_slice(x, w; r)

A graph holds the nodes that its outputs reach and no others, so code without a user is gone
before any pass runs. What is left to find is the operand that has a user and cannot reach an
element anyone reads: stores that are overwritten, stores and joins read beside the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.graph.passes.rules import Rules, is_op, like, shape_attr, sliced, window
from tracejit.ops.table import Shape

rules = Rules()

# Per axis: where a slice starts, how many elements it has, and the step between them.
Window = tuple[Shape, Shape, Shape]


def run(graph: Graph) -> Graph:
    """Return the graph without operands that no element of the outputs depends on."""
    return rules.apply(graph)


def span(start: int, size: int, step: int) -> tuple[int, int]:
    """Return the least and greatest index of a non-empty strided range."""
    last = start + (size - 1) * step
    return min(start, last), max(start, last)


def disjoint(read: Window, written: Window) -> bool:
    """True where, along some axis, the two windows' hulls do not touch."""
    for first, second in zip(zip(*read, strict=True), zip(*written, strict=True), strict=True):
        (low, high), (least, greatest) = span(*first), span(*second)
        if high < least or greatest < low:
            return True
    return False


def inside(inner: Window, outer: Window) -> bool:
    """True where ``outer`` is dense (step 1) and holds every index of ``inner``."""
    for first, second in zip(zip(*inner, strict=True), zip(*outer, strict=True), strict=True):
        (low, high), (least, greatest) = span(*first), span(*second)
        if (second[2] != 1 and second[1] > 1) or low < least or high > greatest:
            return False
    return True


# slice(update(x, v; w); r) = slice(x; r) where r misses w;  = slice(v; r - w) where r lies in w
# slice(concat(a, b, …); r) = slice(b; r - offset) where r lies within b
# slice(pad(x, v); r) = slice(x; r - low) where r lies within x
@rules.on("slice")
def _read_beside(node: Node) -> Node | None:
    """Go down as far as it goes in one step: a loop of a thousand stores is a thousand deep."""
    x, read = node.inputs[0], window(node)
    if 0 in node.shape:
        return None
    while (below := _below(x, read)) is not None:
        x, read = below
    if x is node.inputs[0]:
        return None
    return x if read == _whole(x.shape) else sliced(node, x, *read)


def _below(x: Node, read: Window) -> tuple[Node, Window] | None:
    """Return which operand of ``x`` holds all that ``read`` reads of ``x``, and where."""
    match x.op.name:
        case "update_slice" if 0 not in x.inputs[1].shape:
            written = window(x)
            if disjoint(read, written):
                return x.inputs[0], read
            if read == written:
                return x.inputs[1], _whole(written[1])
            return (x.inputs[1], _moved(read, written[0])) if inside(read, written) else None
        case "concat":
            return _part(x, read)
        case "pad" if 0 not in x.inputs[0].shape:
            low, source = shape_attr(x, "low"), x.inputs[0]
            interior = (low, source.shape, (1,) * len(low))
            return (source, _moved(read, low)) if inside(read, interior) else None
        case _:
            return None


def _part(x: Node, read: Window) -> tuple[Node, Window] | None:
    """Return the operand of the concat ``x`` that ``read`` lies within, and where."""
    axis = cast(int, x.attrs["axis"])
    low, high = span(*(part[axis] for part in read))
    offset = 0
    for part in x.inputs:
        extent = part.shape[axis]
        if offset <= low and high < offset + extent:
            return part, _moved(read, [offset if i == axis else 0 for i in range(len(x.shape))])
        offset += extent
    return None


def _whole(shape: Shape) -> Window:
    return (0,) * len(shape), shape, (1,) * len(shape)


def _moved(read: Window, corner: Sequence[int]) -> Window:
    """Return ``read`` counted from ``corner``."""
    start, size, step = read
    return tuple(s - c for s, c in zip(start, corner, strict=True)), size, step


# update(update(x, v; r), w; s) = update(x, w; s) where r lies in s, or is s
@rules.on("update_slice")
def _overwritten(node: Node) -> Node | None:
    x, value = node.inputs
    if not is_op(x, "update_slice") or 0 in value.shape or 0 in x.inputs[1].shape:
        return None
    if window(x) != window(node) and not inside(window(x), window(node)):
        return None
    return like(node, "update_slice", x.inputs[0], value, **node.attrs)
