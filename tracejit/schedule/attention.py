"""Recognises attention: softmax(scores) @ values, where nothing else reads the softmax.

    scores = … elementwise … (queries @ keysᵀ)
    e = exp(scores − max(scores));  e / Σe @ values

That is what ``scaled_dot_product_attention`` decomposes into, and what people write. The fuser
makes one kernel of it, in which the matrix of scores never exists.
"""

from __future__ import annotations

import math
from math import prod
from typing import NamedTuple, cast

import numpy as np

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.schedule import native
from tracejit.schedule.kernel import Apply, Attend, Const, Expr, Index, Kernel
from tracejit.sizes import is_size

# Wider heads would not leave room for a block of queries in the second-level cache.
MAX_WIDTH = 512
# With fewer queries a head, as where text is made token by token, all time goes to reading keys and
# values once. The kernel does that in place for up to MOST_IN_PLACE rows, those of heads that share
# keys counted; but threads share its heads only. Of fewer heads and for more rows, products of few
# rows do.
MIN_QUERIES, MOST_IN_PLACE, MIN_HEADS = 8, 8, 8
_FLOATS = frozenset(np.dtype(name) for name in ("float32", "float64"))


class Softmax(NamedTuple):
    """The scores of a softmax over the last axis, and its nodes."""

    scores: Node
    softmax: tuple[Node, ...]


def find_attention(graph: Graph, lowers: native.Lowers) -> dict[Node, Softmax]:
    """Return the matrix products of ``graph`` whose left operand is such a softmax."""
    products = [n for n in graph.nodes if n.op.name == "matmul" and n.dtype in _FLOATS]
    if len(products) < 2:
        return {}
    readers: dict[Node, set[Node]] = {}
    for node in graph.nodes:
        for operand in node.inputs:
            readers.setdefault(operand, set()).add(node)
    outputs = frozenset(graph.outputs)
    found: dict[Node, Softmax] = {}
    for node in products:
        softmax = _softmax(node.inputs[0])
        if softmax is not None and _check(node, softmax, readers, outputs, lowers):
            found[node] = softmax
    return found


def visible_scores(kernel: Kernel) -> int | None:
    """Return, where a causal mask makes scores -inf if the key comes after the row, what they are
    elsewhere (a position); None where the scores are not such a choice."""
    attend = cast(Attend, kernel.attend)
    scores = kernel.exprs[attend.scores]
    if not isinstance(scores, Apply) or scores.op != "where":
        return None
    condition, *arms = (kernel.exprs[a] for a in scores.args)
    if not isinstance(condition, Apply) or len(condition.args) != 2:
        return None
    along = [_along(kernel, kernel.exprs[a]) for a in condition.args]
    seen = {"less_equal": (attend.over, attend.rows), "greater_equal": (attend.rows, attend.over)}
    hidden = {"less": (attend.rows, attend.over), "greater": (attend.over, attend.rows)}
    masked = [isinstance(a, Const) and a.value == -math.inf for a in arms]
    if seen.get(condition.op) == tuple(along) and masked[1]:
        return scores.args[1]
    return scores.args[2] if hidden.get(condition.op) == tuple(along) and masked[0] else None


def _along(kernel: Kernel, expr: Expr) -> int | None:
    """Return the axis whose index ``expr`` is."""
    if not isinstance(expr, Index) or expr.offset or sorted(expr.coefficients)[-1:] != [1]:
        return None
    return expr.coefficients.index(1) if sum(map(abs, expr.coefficients)) == 1 else None


def _check(
    node: Node,
    found: Softmax,
    readers: dict[Node, set[Node]],
    outputs: frozenset[Node],
    lowers: native.Lowers,
) -> bool:
    """Whether the softmax is only read here, and its scores come from a product by themselves."""
    scores, values = found.scores, node.inputs[1]
    if scores.dtype != node.dtype or scores.shape[:-1] != node.shape[:-1] or 0 in scores.shape:
        return False
    queries = scores.shape[-2]
    # A number that varies may grow: then scores must not be stored, and one kernel serves all.
    few = not is_size(queries) and queries < MIN_QUERIES
    if few and not _fits_in_place(scores, values):
        return False
    if not 0 < values.shape[-1] <= MAX_WIDTH:
        return False
    inside = {*found.softmax, node}
    if any(n in outputs or not readers[n] <= inside for n in (*found.softmax, scores)):
        return False
    product = _from_product(scores, lowers)
    return product is not None and (not few or _keys_are_rows(product.inputs[1]))


def _fits_in_place(scores: Node, values: Node) -> bool:
    """Whether there are heads enough for the threads, of not too many rows each."""
    heads = prod(n for n in values.shape[:-2] if not is_size(n))
    *batch, rows, _ = scores.shape
    own = [1] * (len(batch) - len(values.shape) + 2) + list(values.shape[:-2])
    for extent, sharing in zip(batch, own, strict=True):
        if not is_size(sharing) and sharing == 1:
            rows *= extent
    return heads >= MIN_HEADS and not is_size(rows) and rows <= MOST_IN_PLACE


def _keys_are_rows(keys: Node) -> bool:
    """Whether the right operand of the scores' product is the transpose of a matrix, of which a
    row is a key."""
    if keys.op.name != "permute":
        return False
    axes = cast(tuple[int, ...], keys.attrs["axes"])
    return axes[-1] != len(axes) - 1


def _from_product(scores: Node, lowers: native.Lowers) -> Node | None:
    """Return the matrix product of their shape and dtype that ``scores`` are elementwise of.

    A bias of float64 makes float64 scores of a float32 product: the kernel computes both products
    in one dtype, so these are kernels of their own.
    """
    dtype = scores.dtype
    while native.is_elementwise(scores, lowers):
        below = [i for i in scores.inputs if i.shape == scores.shape and _has_product(i, lowers)]
        if len(below) != 1:
            return None
        scores = below[0]
    if not native.is_contraction(scores) or scores.dtype != dtype:
        return None
    return scores if scores.inputs[0].shape[-1] <= MAX_WIDTH else None


def _has_product(node: Node, lowers: native.Lowers) -> bool:
    """Whether a walk down elementwise nodes (a few) meets a matrix product."""
    stack, steps = [node], 0
    while stack and steps < 64:
        node, steps = stack.pop(), steps + 1
        if native.is_contraction(node):
            return True
        if native.is_elementwise(node, lowers):
            stack += node.inputs
    return False


def _softmax(weights: Node) -> Softmax | None:
    """Match e / Σe with e = exp(x − max x), all over the last axis."""
    if weights.op.name != "divide":
        return None
    e, total = weights.inputs
    sums = _row_statistic("sum", total, e)
    if sums is None or e.op.name != "exp" or e.inputs[0].op.name != "subtract":
        return None
    difference = e.inputs[0]
    scores, highest = difference.inputs
    maxima = _row_statistic("max", highest, scores)
    if maxima is None:
        return None
    return Softmax(scores, (weights, *sums, e, difference, *maxima))


def _row_statistic(op: str, node: Node, of: Node) -> tuple[Node, ...] | None:
    """Return the nodes of ``op`` over the last axis of ``of``, one number for each row."""
    nodes = [node]
    if node.shape != (*of.shape[:-1], 1):
        return None
    while node.op.name == "reshape":
        node = node.inputs[0]
        nodes.append(node)
    whole = node.op.name == op and node.inputs[0] is of and node.dtype == of.dtype
    return tuple(nodes) if whole and node.attrs["axis"] == (len(of.shape) - 1,) else None
