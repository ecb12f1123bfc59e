"""Long reductions in two steps, so that they have rows to share.

A reduction to a few elements has no parallel axis. It becomes partial results of chunks of fixed
size, and a second, small reduction of those::

    sum(x: f32[1000000])  →  sum(sum(reshape(x[:999424], (122, 8192)), 1)) + sum(x[999424:])

The chunks depend on the shape alone, so the bits do not depend on the number of threads. Nothing
is stored but the partial results: slices and reshapes of ``x`` are index maps.

A reduction cannot be computed through the index map of a reshape. What is computed from one, as the
energies of all pairs of points are from sums over coordinates, has rows of its own for chunks::

    sum(energy: f64[1500, 1500])  →  sum(sum(energy, 1))
"""

from __future__ import annotations

from math import prod
from typing import cast

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.ops.reductions import COMBINE
from tracejit.ops.table import Family
from tracejit.schedule import native
from tracejit.sizes import hint

LONG = 1 << 17
CHUNK = 1 << 13
FEW = 16
# Elements of a row that is a chunk, and nodes that are looked at to find out whether it is.
ROW = 64
MAX_LOOKED_AT = 256


def run(graph: Graph) -> Graph:
    """Return ``graph`` with long reductions to few elements split."""
    return graph.rewrite(lambda node, operands: _split(node, operands[0]) if operands else None)


def _split(node: Node, x: Node) -> Node | None:
    if not check_split(node):
        return None
    axes = cast(tuple[int, ...], node.attrs["axis"])
    outer = max(axes, key=lambda a: (x.shape[a] >= FEW, -a))
    inside = prod(x.shape[a] for a in axes if a != outer)
    if inside >= ROW and x.shape[outer] >= FEW and _needs_reduction(x):
        return _by_rows(node, outer)
    rows = max(1, -(-CHUNK // max(inside, 1)))
    count, rest = divmod(x.shape[outer], rows)
    if count < FEW // 2:
        return None
    emit = Emit(node.loc)
    reduce = getattr(emit, node.op.name)
    result = by_groups(emit, node, _rows(emit, x, outer, 0, count * rows), outer, rows)
    if rest:
        tail = reduce(_rows(emit, x, outer, count * rows, rest), axis=axes, keepdims=False)
        result = getattr(emit, COMBINE[node.op.name])(result, tail)
    return emit.reshape(result, shape=node.shape) if result.shape != node.shape else result


def by_groups(emit: Emit, node: Node, x: Node, outer: int, rows: int) -> Node:
    """Reduce ``x`` as ``node`` does: groups of ``rows`` rows along ``outer``, then their results.

    The axes that are reduced are gone from the result.
    """
    axes, reduce = cast(tuple[int, ...], node.attrs["axis"]), getattr(emit, node.op.name)
    shape = (*x.shape[:outer], x.shape[outer] // rows, rows, *x.shape[outer + 1 :])
    # Axes after the outer one have moved up by one place.
    inner = tuple(sorted((outer + 1, *(a + (a > outer) for a in axes if a != outer))))
    partial = reduce(emit.reshape(x, shape=shape), axis=inner, keepdims=False)
    return reduce(partial, axis=(outer - sum(a < outer for a in axes),), keepdims=False)


def _by_rows(node: Node, outer: int) -> Node:
    """Reduce each row along ``outer``, then the results."""
    axes, emit = cast(tuple[int, ...], node.attrs["axis"]), Emit(node.loc)
    reduce, inner = getattr(emit, node.op.name), tuple(a for a in axes if a != outer)
    partial = reduce(node.inputs[0], axis=inner, keepdims=False)
    result = reduce(partial, axis=(outer - sum(a < outer for a in inner),), keepdims=False)
    return emit.reshape(result, shape=node.shape) if result.shape != node.shape else result


def _needs_reduction(x: Node) -> bool:
    """Whether ``x`` is computed, element by element, from a reduction of as many elements."""
    stack, seen = [x], {x}
    while stack and len(seen) < MAX_LOOKED_AT:
        node = stack.pop()
        if native.is_reduction(node):
            return True
        if node.op.family is Family.ELEMENTWISE:
            fresh = [i for i in node.inputs if i.size == x.size and i not in seen]
            seen.update(fresh)
            stack += fresh
    return False


def check_split(node: Node) -> bool:
    """Whether ``node`` is a long reduction to few elements."""
    if node.op.name not in COMBINE or not native.is_reduction(node):
        return False
    few, many = node.size, node.inputs[0].size
    # What is cut has to be long; what is not may be.
    return hint(few) < FEW and hint(many) >= LONG and few < FEW and many >= LONG


def _rows(emit: Emit, x: Node, axis: int, start: int, count: int) -> Node:
    """Return ``count`` rows of ``x`` along ``axis`` from ``start``."""
    if count == x.shape[axis]:
        return x
    first = tuple(start if a == axis else 0 for a in range(len(x.shape)))
    size = tuple(count if a == axis else n for a, n in enumerate(x.shape))
    return emit.slice(x, start=first, size=size, step=(1,) * len(size))
