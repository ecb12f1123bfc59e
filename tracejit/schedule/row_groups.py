"""Reductions over the rows of a product, by groups of rows.

What reduces all rows of a product needs them all, so the product would be stored. Partial results
of groups of rows need a group at a time, and are taken while it is in the cache (``slabs``)::

    sum(x @ w, axis=0)  →  sum(sum(reshape(x @ w, (groups, rows, n)), 1), 0)

Groups depend on the shape alone, and so do the bits. Where nothing divides the number of rows,
the product is stored.
"""

from __future__ import annotations

from typing import cast

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.ops.reductions import COMBINE
from tracejit.ops.table import Family
from tracejit.schedule import native
from tracejit.schedule.slabs import MAX_GROUP, MAX_GROUP_BYTES, MAX_ROW_BYTES, SHARED_ROWS
from tracejit.schedule.split import FEW, MAX_LOOKED_AT, by_groups
from tracejit.sizes import hint

# Elements of a product that is worth it, and least rows of a group.
LEAST = 1 << 15
LEAST_ROWS = 8
# Tile registers take so many rows at a time.
_ALIGNED = 32


def run(graph: Graph) -> Graph:
    """Return ``graph`` with reductions over the rows of products taken by groups."""
    groups: dict[Node, int] = {}
    for node in graph.nodes:
        if native.is_contraction(node) and check_product(node):
            reductions = _reductions(graph, node)
            rows = group_of(node) if reductions else 0
            if rows:
                groups |= dict.fromkeys(reductions, rows)
    if not groups:
        return graph

    def rule(node: Node, operands: tuple[Node, ...]) -> Node | None:
        if node not in groups:
            return None
        emit = Emit(node.loc)
        result = by_groups(emit, node, operands[0], 0, groups[node])
        return emit.reshape(result, shape=node.shape) if result.shape != node.shape else result

    return graph.rewrite(rule)


def takes_groups(node: Node) -> bool:
    """Whether ``node`` reduces groups of rows of a product, for another reduction."""
    stack = list(node.inputs) if node.inputs[0].op.name == "reshape" else []
    seen = set(stack)
    while stack and len(seen) < MAX_LOOKED_AT:
        x = stack.pop()
        if native.is_contraction(x):
            return len(x.shape) == 2
        if x.op.name == "reshape" or x.op.family is Family.ELEMENTWISE:
            fresh = [i for i in x.inputs if i.size == node.inputs[0].size and i not in seen]
            seen.update(fresh)
            stack += fresh
    return False


def check_product(product: Node) -> bool:
    """Whether a product is large enough, and may be computed by slabs of its rows."""
    if len(product.shape) != 2 or hint(product.size) < LEAST:
        return False
    rows, columns = product.shape
    return rows >= SHARED_ROWS and 2 <= columns <= MAX_ROW_BYTES // product.dtype.itemsize


def group_of(product: Node) -> int:
    """Return how many rows a group has, 0 if there are none that fill all rows.

    There are at least ``FEW`` groups, for threads to share.
    """
    rows, row = product.shape[0], hint(product.shape[1]) * product.dtype.itemsize
    most = min(MAX_GROUP, MAX_GROUP_BYTES // row, hint(rows) // FEW)
    fitting = [g for g in range(LEAST_ROWS, most + 1) if hint(rows) % g == 0]
    best = max(fitting, key=lambda g: (g % _ALIGNED == 0, g), default=0)
    return best if best and rows % best == 0 else 0


def _reductions(graph: Graph, product: Node) -> list[Node]:
    """Return the reductions that read a product, whole or by elementwise work; none where
    anything else does, where they have different axes, or where one waits for another."""
    reached, stack, found = {product}, [product], dict[Node, None]()
    outputs = set(graph.outputs)
    while stack:
        node = stack.pop()
        if node in outputs or len(reached) > MAX_LOOKED_AT:
            return []
        for user in graph.users[node]:
            if _reduces_rows(user):
                found[user] = None
            elif user.op.family is not Family.ELEMENTWISE or user.shape != product.shape:
                return []
            elif user not in reached:
                reached.add(user)
                stack.append(user)
    beside = {i for node in reached - {product} for i in node.inputs} - reached
    together = len({node.attrs["axis"] for node in found}) == 1
    return list(found) if together and not _depend_on(beside, product) else []


def _reduces_rows(node: Node) -> bool:
    known = node.op.name in COMBINE and native.is_reduction(node)
    return known and 0 in cast(tuple[int, ...], node.attrs["axis"])


def _depend_on(nodes: set[Node], product: Node) -> bool:
    """Whether any of ``nodes`` is computed from the product, as far as one looks."""
    seen, stack = set(nodes), list(nodes)
    while stack:
        node = stack.pop()
        if node is product or len(seen) > MAX_LOOKED_AT:
            return True
        fresh = [i for i in node.inputs if i not in seen and i.serial >= product.serial]
        seen.update(fresh)
        stack += fresh
    return False
