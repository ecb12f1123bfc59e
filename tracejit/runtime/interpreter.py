"""The NumPy interpreter: the semantics of every op, and the oracle of every test.

Runs a graph op by op through the table's references and drops each value after its last use.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from tracejit.errors import InternalError, Location, UserError
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.ops.table import Array, Aval, Op, Shape

# Takes the nanoseconds that each op took, in the order of the graph.
Observer = Callable[[Node, int], None]


class _Quiet(threading.local):
    """``run(function, *args)`` calls where floating-point errors pass in silence.

    NumPy keeps what to do with them in a context variable: entering a context that is ready costs
    a tenth of ``np.errstate``, which makes a new state each time.
    """

    def __init__(self) -> None:
        context = contextvars.Context()
        context.run(np.seterr, all="ignore")
        self.run = context.run


quiet = _Quiet()


def evaluate_node(node: Node, operands: Sequence[Array]) -> Array:
    """Return the value of one node from its operands' values."""
    with np.errstate(all="ignore"):
        return apply(node, node.op.reference, operands)


def apply(
    node: Node,
    reference: Callable[..., Any],
    operands: Sequence[Array],
    attrs: Mapping[str, Any] | None = None,
    shape: Shape | None = None,
) -> Array:
    """Return the value of one node, as ``evaluate_node``, under the caller's ``np.errstate``.

    ``attrs`` and ``shape`` stand for those of the node where they vary with sizes.
    """
    aval = node.aval if shape is None else Aval(node.dtype, shape)
    try:
        result = reference(*operands, **(node.attrs if attrs is None else attrs))
    except UserError as error:
        error.loc = error.loc or node.loc
        raise
    return checked(node.op, result, aval, node.loc)


def checked(op: Op, result: Any, aval: Aval, loc: Location | None = None) -> Array:
    """Return what a reference gave as an array; InternalError unless it is what was inferred."""
    array: Array = result if result.__class__ is np.ndarray else np.asarray(result)
    dtype, shape = aval
    if array.shape != shape or (array.dtype is not dtype and array.dtype != dtype):
        raise InternalError(
            f"{op.name}: inferred {dtype}{list(shape)}, "
            f"the reference gave {array.dtype}{list(array.shape)}",
            loc=loc,
        )
    return array


def last_uses(graph: Graph) -> dict[Node, Node]:
    """Return for each operand the last node that reads it."""
    return {operand: node for node in graph.nodes for operand in node.inputs}


class _Step(NamedTuple):
    """One op: the slots it reads and writes, and those that nobody reads afterwards."""

    node: Node
    reference: Callable[..., Any]
    operands: tuple[int, ...]
    result: int
    dead: tuple[int, ...]


class Interpreter:
    """A graph laid out to be interpreted again and again; safe from many threads."""

    def __init__(self, graph: Graph):
        slot = {node: i for i, node in enumerate(graph.nodes)}
        last, kept = last_uses(graph), set(graph.outputs)
        self._slots = len(slot)
        self._inputs: list[tuple[int, int]] = []
        self._leaves: list[tuple[int, Array]] = []
        self._steps: list[_Step] = []
        self._outputs = [slot[o] for o in graph.outputs]
        for node in graph.nodes:
            if node.op.name == "input":
                self._inputs.append((slot[node], int(node.attrs["index"])))  # type: ignore[arg-type]
            elif node.value is not None:
                self._leaves.append((slot[node], node.value))
            else:
                operands = tuple(slot[i] for i in node.inputs)
                dead = {slot[i] for i in node.inputs if last[i] is node and i not in kept}
                step = _Step(node, node.op.reference, operands, slot[node], tuple(dead))
                self._steps.append(step)

    def run(
        self,
        inputs: Sequence[Array],
        observe: Observer | None = None,
        superseded: Callable[[], bool] = lambda: False,
    ) -> list[Array] | None:
        """Return the outputs for ``inputs`` (by placeholder index).

        None where ``superseded()`` came true before an op: somebody else has a quicker answer.
        """
        values: list[Any] = [None] * self._slots
        for slot, index in self._inputs:
            values[slot] = inputs[index]
        for slot, array in self._leaves:
            values[slot] = array
        clock = time.perf_counter_ns
        with np.errstate(all="ignore"):
            for node, reference, operands, result, dead in self._steps:
                if superseded():
                    return None
                if observe is None:
                    values[result] = apply(node, reference, [values[i] for i in operands])
                else:
                    started = clock()
                    values[result] = apply(node, reference, [values[i] for i in operands])
                    observe(node, clock() - started)
                for i in dead:
                    values[i] = None
        return [values[i] for i in self._outputs]


def run_graph(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """Return the values of the graph's outputs for ``inputs`` (by placeholder index)."""
    return cast(list[Array], Interpreter(graph).run(inputs))
