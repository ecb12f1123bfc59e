"""Simplification of movement: reshapes, permutations, broadcasts, slices, joins.

    reshape(reshape(x))            →  reshape(x)
    permute(permute(x, p), q)      →  permute(x, p∘q)
    slice(slice(x))                →  slice(x)
    x reshaped to its own shape    →  x

Movement computes nothing, so every rule that removes one node is a gain and none can round.
"""

from __future__ import annotations

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.graph.passes.rules import Rules, is_op, like, shape_attr, sliced, window

rules = Rules()


def run(graph: Graph) -> Graph:
    """Return the graph with every rule applied, from the leaves up."""
    return rules.apply(graph)


# reshape(x, shape of x) = x;  reshape(reshape(x, s), t) = reshape(x, t)
# reshape(broadcast(x)) = reshape(x) where the broadcast only added axes of size 1
@rules.on("reshape")
def _reshape(node: Node) -> Node | None:
    (x,) = node.inputs
    if x.shape == node.shape:
        return x
    if is_op(x, "reshape") or (is_op(x, "broadcast_to") and x.inputs[0].size == x.size):
        return like(node, "reshape", x.inputs[0], shape=node.shape)
    return None


# permute(x, identity) = x;  permute(permute(x, p), q)[i] = x[p[q[i]]]
@rules.on("permute")
def _permute(node: Node) -> Node | None:
    (x,) = node.inputs
    axes = shape_attr(node, "axes")
    if axes == tuple(range(len(axes))):
        return x
    if is_op(x, "permute"):
        inner = shape_attr(x, "axes")
        return like(node, "permute", x.inputs[0], axes=tuple(inner[i] for i in axes))
    return None


# broadcast(x, shape of x) = x;  broadcast(broadcast(x, s), t) = broadcast(x, t)
# broadcast(reshape(x, (1, …) + shape of x), t) = broadcast(x, t)
@rules.on("broadcast_to")
def _broadcast_to(node: Node) -> Node | None:
    (x,) = node.inputs
    if x.shape == node.shape:
        return x
    if is_op(x, "broadcast_to") or (is_op(x, "reshape") and _only_leads(x)):
        return like(node, "broadcast_to", x.inputs[0], shape=node.shape)
    return None


def _only_leads(x: Node) -> bool:
    """True for a reshape that puts axes of size 1 in front and does nothing else."""
    lead = len(x.shape) - len(x.inputs[0].shape)
    return lead >= 0 and x.shape == (1,) * lead + x.inputs[0].shape


# slice(x, everything) = x
# slice(x; s, n, t) has t = 1 where n ≤ 1, and s = 0 where n = 0
# slice(slice(x; s, n, t); s', n', t') = slice(x; s + t·s', n', t·t')
@rules.on("slice")
def _slice(node: Node) -> Node | None:
    (x,) = node.inputs
    start, size, step = window(node)
    if size == x.shape and all(t == 1 for t in step):
        return x
    tidy_step = tuple(t if n > 1 else 1 for n, t in zip(size, step, strict=True))
    tidy_start = tuple(s if n > 0 else 0 for n, s in zip(size, start, strict=True))
    if tidy_step != step or tidy_start != start:
        return sliced(node, x, tidy_start, size, tidy_step)
    if is_op(x, "slice"):
        first, _, stride = window(x)
        if 0 in size:
            return sliced(node, x.inputs[0], (0,) * len(size), size, (1,) * len(size))
        starts = [f + t * s for f, t, s in zip(first, stride, start, strict=True)]
        steps = [t * u for t, u in zip(stride, step, strict=True)]
        return sliced(node, x.inputs[0], starts, size, steps)
    return None


# slice(broadcast(x)) = broadcast(slice(x))   (along broadcast axes there is nothing to choose)
@rules.on("slice")
def _slice_of_broadcast(node: Node) -> Node | None:
    (x,) = node.inputs
    if not is_op(x, "broadcast_to"):
        return None
    (source,) = x.inputs
    lead = len(x.shape) - len(source.shape)
    start, size, step = (list(part[lead:]) for part in window(node))
    for axis, extent in enumerate(source.shape):
        if extent == 1 and x.shape[lead + axis] != 1:
            start[axis], size[axis], step[axis] = 0, 1, 1
    inner = rules.simplify(sliced(node, source, start, size, step))
    return like(node, "broadcast_to", inner, shape=node.shape)


# concat(x) = x;  an operand without elements adds nothing
@rules.on("concat")
def _concat(node: Node) -> Node | None:
    full = tuple(o for o in node.inputs if o.size)
    if len(node.inputs) == 1:
        return node.inputs[0]
    if full and len(full) < len(node.inputs):
        return full[0] if len(full) == 1 else like(node, "concat", *full, **node.attrs)
    return None


# pad(x, v; 0, 0) = x
@rules.on("pad")
def _pad(node: Node) -> Node | None:
    return node.inputs[0] if node.inputs[0].shape == node.shape else None


# update(x, v) = v where the region is all of x, in order
# update(x, v) = x where the region is empty
@rules.on("update_slice")
def _update_slice(node: Node) -> Node | None:
    x, v = node.inputs
    _, size, step = window(node)
    if 0 in size:
        return x
    in_order = all(t == 1 or n == 1 for t, n in zip(step, size, strict=True))
    return v if size == x.shape and in_order else None
