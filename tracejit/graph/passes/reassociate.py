"""Reassociation of matrix chains.

    (A[1000, 10] @ B[10, 1000]) @ C[1000, 1]  →  A @ (B @ C)      20 M flops  →  30 k flops

The classical dynamic programme (Godbole, "On efficient computation of matrix chain products",
1973) picks the grouping with the fewest multiplications. Regrouping is exact in integer rings, so
integers are always regrouped. For floats it changes rounding, so it runs only when the caller
says so (``jit(fast_math=True)``), and only where it saves work.
"""

from __future__ import annotations

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, make
from tracejit.graph.passes.rules import same_if_unchanged

# The programme is cubic in the chain's length; longer chains keep their grouping beyond this.
_LONGEST = 32


def run(graph: Graph, *, floats: bool = False) -> Graph:
    """Return the graph with its matrix chains grouped for the fewest flops."""
    if not any(_is_product(node, floats) for node in graph.nodes):
        return graph
    inner = _inner_products(graph, floats)

    def step(node: Node, operands: tuple[Node, ...]) -> Node | None:
        if not _is_product(node, floats) or node in inner:
            return None
        if node.inputs[0] not in inner and node.inputs[1] not in inner:
            return None
        # The chain is read off the graph as it was, its factors' new versions off ``image``.
        return _regroup(node, _factors(node, inner), image)

    image: dict[Node, Node] = {}
    for node in graph.nodes:
        operands = tuple(image[i] for i in node.inputs)
        new = step(node, operands)
        if new is None:
            same = operands == node.inputs
            new = node if same else make(node.op, operands, node.attrs, node.loc)
        image[node] = new
    return same_if_unchanged(graph, Graph(graph.inputs, [image[o] for o in graph.outputs]))


def _is_product(node: Node, floats: bool) -> bool:
    return (
        node.op.name == "matmul"
        and (floats or node.dtype.kind in "iu")
        and all(len(i.shape) == 2 and i.dtype == node.dtype for i in node.inputs)
    )


def _inner_products(graph: Graph, floats: bool) -> set[Node]:
    """Return the products whose only use is as a factor of another product.

    A product with another user is computed anyway; regrouping around it would repeat work.
    """
    outputs = set(graph.outputs)
    inner: set[Node] = set()
    for node, users in graph.users.items():
        if _is_product(node, floats) and len(users) == 1 and node not in outputs:
            user = users[0]
            if _is_product(user, floats) and user.inputs.count(node) == 1:
                inner.add(node)
    return inner


def _factors(node: Node, inner: set[Node]) -> list[Node]:
    """Return the chain's factors from left to right."""
    factors: list[Node] = []
    stack = [node.inputs[1], node.inputs[0]]
    while stack:
        top = stack.pop()
        if top in inner:
            stack += [top.inputs[1], top.inputs[0]]
        else:
            factors.append(top)
    return factors


def _regroup(node: Node, factors: list[Node], image: dict[Node, Node]) -> Node | None:
    """Return the cheapest product of the factors, None where the present grouping is as cheap."""
    if len(factors) > _LONGEST:
        return None
    sizes = [factors[0].shape[0], *[f.shape[1] for f in factors]]
    cost, split = cheapest_grouping(sizes)
    if cost >= _present_cost(node, set(factors)):
        return None
    # Evaluate the split tree in post-order with an explicit stack.
    built: dict[tuple[int, int], Node] = {(i, i): image[f] for i, f in enumerate(factors)}
    stack = [(0, len(factors) - 1)]
    while stack:
        i, j = stack[-1]
        left, right = (i, split[i, j]), (split[i, j] + 1, j)
        missing = [part for part in (left, right) if part not in built]
        if missing:
            stack += missing
        else:
            built[stack.pop()] = make("matmul", (built[left], built[right]), None, node.loc)
    return built[0, len(factors) - 1]


def cheapest_grouping(sizes: list[int]) -> tuple[int, dict[tuple[int, int], int]]:
    """Return the least number of multiplications and where to split each factor range.

    Factor ``i`` is ``[sizes[i], sizes[i + 1]]``.
    """
    count = len(sizes) - 1
    cost = {(i, i): 0 for i in range(count)}
    split: dict[tuple[int, int], int] = {}
    for length in range(2, count + 1):
        for i in range(count - length + 1):
            j = i + length - 1
            cost[i, j], split[i, j] = min(
                (cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                for k in range(i, j)
            )
    return cost[0, count - 1], split


def _present_cost(node: Node, factors: set[Node]) -> int:
    total, stack = 0, [node]
    while stack:
        top = stack.pop()
        total += top.inputs[0].shape[0] * top.inputs[0].shape[1] * top.shape[1]
        stack += [i for i in top.inputs if i not in factors]
    return total
