"""Dead operands and dead stores.

    slice(update_slice(x, v; 0:5); 5:9)          →  slice(x; 5:9)
    slice(concat(a, b); inside b)                →  slice(b)
    update_slice(update_slice(x, v; r), w; r)    →  update_slice(x, w; r)

A graph holds the nodes that its outputs reach and no others, so code without a user is gone
before any pass runs. What is left to find is the operand that has a user and cannot reach an
element anyone reads: stores that are overwritten, stores and joins read beside the place.
"""

from __future__ import annotations

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.graph.passes.rules import Rules, is_op, like, shape_attr, sliced, window
from tracejit.ops.table import Shape

rules = Rules()


def run(graph: Graph) -> Graph:
    """Return the graph without operands that no element of the outputs depends on."""
    return rules.apply(graph)


def span(start: int, size: int, step: int) -> tuple[int, int]:
    """Return the least and greatest index of a non-empty strided range."""
    last = start + (size - 1) * step
    return min(start, last), max(start, last)


def disjoint(read: tuple[Shape, Shape, Shape], written: tuple[Shape, Shape, Shape]) -> bool:
    """True where, along some axis, the two windows' hulls do not touch."""
    for first, second in zip(zip(*read, strict=True), zip(*written, strict=True), strict=True):
        (low, high), (least, greatest) = span(*first), span(*second)
        if high < least or greatest < low:
            return True
    return False


def inside(inner: tuple[Shape, Shape, Shape], outer: tuple[Shape, Shape, Shape]) -> bool:
    """True where ``outer`` is dense (step 1) and holds every index of ``inner``."""
    for first, second in zip(zip(*inner, strict=True), zip(*outer, strict=True), strict=True):
        (low, high), (least, greatest) = span(*first), span(*second)
        if (second[2] != 1 and second[1] > 1) or low < least or high > greatest:
            return False
    return True


# slice(update(x, v; w); r) = slice(x; r) where r misses w;  = slice(v; r - w) where r lies in w
@rules.on("slice")
def _read_beside_store(node: Node) -> Node | None:
    (x,) = node.inputs
    if not is_op(x, "update_slice") or 0 in node.shape or 0 in x.inputs[1].shape:
        return None
    base, value = x.inputs
    read, written = window(node), window(x)
    if disjoint(read, written):
        return rules.simplify(sliced(node, base, *read))
    start, size, step = read
    if read == written:
        return value
    if inside(read, written):
        offset = tuple(s - w for s, w in zip(start, written[0], strict=True))
        return rules.simplify(sliced(node, value, offset, size, step))
    return None


# update(update(x, v; r), w; s) = update(x, w; s) where r lies in s, or is s
@rules.on("update_slice")
def _overwritten(node: Node) -> Node | None:
    x, value = node.inputs
    if not is_op(x, "update_slice") or 0 in value.shape or 0 in x.inputs[1].shape:
        return None
    if window(x) != window(node) and not inside(window(x), window(node)):
        return None
    return like(node, "update_slice", x.inputs[0], value, **node.attrs)


# slice(concat(a, b, …)) = slice(b) where the slice lies within b
@rules.on("slice")
def _read_one_part(node: Node) -> Node | None:
    (x,) = node.inputs
    if not is_op(x, "concat") or 0 in node.shape:
        return None
    axis = x.attrs["axis"]
    assert isinstance(axis, int)
    start, size, step = window(node)
    low, high = span(start[axis], size[axis], step[axis])
    offset = 0
    for part in x.inputs:
        extent = part.shape[axis]
        if offset <= low and high < offset + extent:
            moved = tuple(s - offset if i == axis else s for i, s in enumerate(start))
            return rules.simplify(sliced(node, part, moved, size, step))
        offset += extent
    return None


# slice(pad(x, v)) = slice(x) where the slice lies within x
@rules.on("slice")
def _read_inside_pad(node: Node) -> Node | None:
    (x,) = node.inputs
    if not is_op(x, "pad") or 0 in node.shape:
        return None
    source = x.inputs[0]
    low = shape_attr(x, "low")
    interior = (low, source.shape, (1,) * len(low))
    if 0 in source.shape or not inside(window(node), interior):
        return None
    start, size, step = window(node)
    moved = tuple(s - p for s, p in zip(start, low, strict=True))
    return rules.simplify(sliced(node, source, moved, size, step))
