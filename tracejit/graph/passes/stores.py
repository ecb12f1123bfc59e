"""Stores into one array, one after another, become a join of what they store.

    update_slice(update_slice(x, v; 0:1), w; 1:2)  →  concat(v, w, slice(x; 2:9))

A loop that fills an array row by row makes a chain of stores, each a value of the whole array.
What reads the array between them has been resolved by then (the pass ``dead``), so nobody asks for
those values. Stores qualify that fill all axes but one, the same in all of them (``y[:, t] = v``),
or a run of the array's memory (``m[1, 2] = v``).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.graph.passes.rules import is_op, same_if_unchanged, sliced, window
from tracejit.ops.table import Shape
from tracejit.sizes import frozen, is_size

# Per axis: where a store starts, how many elements it has, and the step between them.
Window = tuple[Shape, Shape, Shape]


class Part(NamedTuple):
    """What ``value`` has from ``first`` on goes from ``start`` to ``stop``."""

    start: int
    stop: int
    value: Node
    first: int


def run(graph: Graph) -> Graph:
    """Return the graph with chains of stores as joins."""
    chains = _chains(graph)
    if not chains:
        return graph

    def step(node: Node, operands: tuple[Node, ...]) -> Node | None:
        if node not in chains:
            return None
        stores = [(window(node), operands[1])]
        base = operands[0]
        for _ in range(chains[node] - 1):
            stores.append((window(base), base.inputs[1]))
            base = base.inputs[0]
        return _joined(node, base, stores)

    return same_if_unchanged(graph, graph.rewrite(step))


def _chains(graph: Graph) -> dict[Node, int]:
    """Return the last store of each chain, and how many there are."""
    outputs = set(graph.outputs)
    found: dict[Node, int] = {}
    for node in graph.nodes:
        if not is_op(node, "update_slice") or 0 in node.inputs[1].shape:
            continue
        before = node.inputs[0]
        continues = before in found and before not in outputs and graph.users[before] == [node]
        found[node] = 1
        if continues and before is not node.inputs[1]:
            found[node] += found.pop(before)
    return {node: count for node, count in found.items() if count > 1}


def _joined(node: Node, base: Node, stores: list[tuple[Window, Node]]) -> Node | None:
    """Return the join of ``stores``, the last first, and of what they leave of ``base``."""
    windows = [w for w, _ in stores]
    axis = _axis_of(node.shape, windows)
    emit = Emit(node.loc)
    if axis is not None:
        runs = [(start[axis], size[axis]) for start, size, _ in windows]
        return emit.concat(*_parts(base, axis, runs, [v for _, v in stores]), axis=axis)
    runs = [_run_of(node.shape, w) for w in windows]
    known = [r for r in runs if r is not None]
    if len(known) < len(runs):
        return None
    flat = [
        emit.reshape(v, shape=(length,)) for (_, v), (_, length) in zip(stores, known, strict=True)
    ]
    parts = _parts(emit.reshape(base, shape=(node.size,)), 0, known, flat)
    return emit.reshape(emit.concat(*parts, axis=0), shape=node.shape)


def _axis_of(shape: Shape, windows: list[Window]) -> int | None:
    """Return the only axis that any of the windows does not fill."""
    partial: set[int] = set()
    for start, size, step in windows:
        for axis, extent in enumerate(shape):
            if frozen(size[axis]) != frozen(extent):
                if any(map(is_size, (extent, start[axis], size[axis]))) or step[axis] != 1:
                    return None
                partial.add(axis)
            elif step[axis] != 1:
                return None
    return partial.pop() if len(partial) == 1 else None


def _run_of(shape: Shape, where: Window) -> tuple[int, int] | None:
    """Return first element and length of a window that is a run of memory."""
    if any(is_size(n) for n in (*shape, *where[0], *where[1])):
        return None
    first, length, inner = 0, 1, 1
    whole = True
    for extent, start, size, step in reversed([*zip(shape, *where, strict=True)]):
        if (not whole and size != 1) or (step != 1 and size != 1):
            return None
        first += start * inner
        length *= size
        whole &= size == extent
        inner *= extent
    return first, length


def _parts(base: Node, axis: int, runs: list[tuple[int, int]], values: list[Node]) -> list[Node]:
    """Return what to join along ``axis``; where two stores meet, the earlier in the list counts."""
    parts: list[Part] = []
    for (start, size), value in zip(runs, values, strict=True):
        _add(parts, Part(start, start + size, value, 0))
    _add(parts, Part(0, base.shape[axis], base, 0))
    return [_cut(part, axis) for part in parts]


def _add(parts: list[Part], new: Part) -> None:
    """Insert what of ``new`` lies between the others, which are in order and do not meet."""
    at = bisect_left(parts, new.start, key=lambda p: p.stop - 1)
    start = new.start
    while start < new.stop:
        following = parts[at] if at < len(parts) else None
        stop = new.stop if following is None else min(new.stop, following.start)
        if start < stop:
            parts.insert(at, Part(start, stop, new.value, start - new.start + new.first))
            at += 1
        if following is None:
            break
        start, at = following.stop, at + 1


def _cut(part: Part, axis: int) -> Node:
    value, length = part.value, part.stop - part.start
    shape = value.shape
    if part.first == 0 and length == shape[axis]:
        return value
    start = tuple(part.first if i == axis else 0 for i in range(len(shape)))
    size = tuple(length if i == axis else n for i, n in enumerate(shape))
    return sliced(value, value, start, size, (1,) * len(shape))
