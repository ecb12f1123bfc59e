"""The verifier: every invariant that ``docs/ir.md`` states, checked.

It runs between passes in tests (``canonicalise(graph, verify=True)``). A failure is a bug of
ours; the message names the pass and shows the statements around the node.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NoReturn, cast

from tracejit.errors import InternalError, TracejitError
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, make
from tracejit.graph.text import neighbourhood
from tracejit.ops.table import OPS, Fact, Family

# The attributes of the primitives that the scheduler and the code generator read.
ATTRIBUTES: dict[str, frozenset[str]] = {
    "input": frozenset({"index", "dtype", "shape", "name"}),
    "data": frozenset({"dtype", "shape"}),
    "constant": frozenset({"value", "dtype"}),
    "iota": frozenset({"shape", "axis", "dtype"}),
    "cast": frozenset({"dtype"}),
    "where": frozenset(),
    "reshape": frozenset({"shape"}),
    "permute": frozenset({"axes"}),
    "broadcast_to": frozenset({"shape"}),
    "slice": frozenset({"start", "size", "step"}),
    "update_slice": frozenset({"start", "size", "step"}),
    "concat": frozenset({"axis"}),
    "cycle": frozenset({"axis", "start", "size"}),
    "pad": frozenset({"low", "high"}),
    "windows": frozenset({"size", "step", "dilation"}),
    **{
        name: frozenset({"axis", "keepdims"})
        for name in ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin")
    },
    "matmul": frozenset(),
}


def verify(
    graph: Graph, *, after: Callable[..., Any] | None = None, before: Graph | None = None
) -> None:
    """Raise InternalError where ``graph`` breaks an invariant.

    ``after`` is the pass that made it from ``before``; inputs and output types must be the same.
    """
    seen: set[Node] = set()
    for node in graph.nodes:
        problem = _problem(node, seen) or _input_problem(node, graph)
        if problem:
            _fail(graph, node, problem, after)
        seen.add(node)
    for output in graph.outputs:
        if output not in seen:
            _fail(graph, output, "is an output and not in the graph's order", after)
    for index, node in enumerate(graph.inputs):
        if node.op.name != "input" or node.attrs["index"] != index:
            _fail(graph, node, f"stands as input {index}", after)
    if before is not None:
        _check_signature(graph, before, after)


def _fail(graph: Graph, node: Node, problem: str, after: Callable[..., Any] | None) -> NoReturn:
    where = f"after {_name(after)}: " if after is not None else ""
    raise InternalError(
        f"{where}{node.op.name} {problem}\n{neighbourhood(graph, node)}", loc=node.loc
    )


def _name(one: Callable[..., Any]) -> str:
    function = cast("Callable[..., Any]", one.func) if isinstance(one, partial) else one
    return function.__module__.rpartition(".")[2]


def _problem(node: Node, seen: set[Node]) -> str | None:
    """Return what is wrong with one node; ``seen`` are the nodes before it."""
    if OPS.get(node.op.name) is not node.op:
        return "is not a row of the op table"
    if node in seen:
        return "stands twice in the order"
    if node.op.arity is not None and len(node.inputs) != node.op.arity:
        return f"takes {node.op.arity} operands and has {len(node.inputs)}"
    if any(operand not in seen for operand in node.inputs):
        return "stands before one of its operands"
    return _attribute_problem(node) or _leaf_problem(node) or _type_problem(node)


def _attribute_problem(node: Node) -> str | None:
    expected = ATTRIBUTES.get(node.op.name)
    if expected is None and node.op.family is Family.ELEMENTWISE and node.op.types is not None:
        expected = frozenset(node.attrs)
    if expected is not None and expected != frozenset(node.attrs):
        return f"has attributes {sorted(node.attrs)}, not {sorted(expected)}"
    for name, value in node.attrs.items():
        if not is_normal(value):
            return f"has attribute {name}={value!r} of a type that is not normalised"
    axis = node.attrs.get("axis")
    if node.op.family is Family.REDUCTION and isinstance(axis, tuple):
        axes = cast(tuple[int, ...], axis)
        rank = len(node.inputs[0].shape)
        if list(axes) != sorted(set(axes)) or any(not 0 <= i < rank for i in axes):
            return f"has axes {axes}, which are not sorted, distinct and within rank {rank}"
    return None


def is_normal(value: Hashable) -> bool:
    """True for None, Python bools, numbers, strings, and tuples of these (no NumPy scalars)."""
    if isinstance(value, tuple):
        return all(is_normal(v) for v in cast(tuple[Hashable, ...], value))
    return value is None or type(value) in (bool, int, float, complex, str)


def _leaf_problem(node: Node) -> str | None:
    if node.op.name == "data":
        value = node.value
        if value is None or (value.dtype, value.shape) != (node.dtype, node.shape):
            return "holds an array of another type"
    elif node.value is not None:
        return "holds an array and is no data leaf"
    if node.op.name == "constant" and node.shape != ():
        return "has a shape"
    return None


def _type_problem(node: Node) -> str | None:
    try:
        inferred = node.op.infer([i.aval for i in node.inputs], node.attrs)
    except TracejitError as error:
        return f"does not infer: {error.message}"
    if inferred != node.aval:
        return f"infers {inferred.dtype}{list(inferred.shape)}"
    pure = node.inputs and not node.op.has(Fact.IMPURE)
    if pure and make(node.op, node.inputs, node.attrs) is not node:
        return "has an equal node beside it"
    return None


def _input_problem(node: Node, graph: Graph) -> str | None:
    if node.op.name == "input" and not any(node is own for own in graph.inputs):
        return "belongs to another graph"
    return None


def _check_signature(graph: Graph, before: Graph, after: Callable[..., Any] | None) -> None:
    if graph.inputs != before.inputs:
        raise InternalError(f"after {_name(after) if after else '?'}: the inputs changed")
    if len(graph.outputs) != len(before.outputs):
        raise InternalError(f"after {_name(after) if after else '?'}: outputs were lost")
    for new, old in zip(graph.outputs, before.outputs, strict=True):
        if new.aval != old.aval:
            _fail(graph, new, f"replaces an output {old.dtype}{list(old.shape)}", after)
