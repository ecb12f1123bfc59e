"""Nodes and graphs: sharing, order, size, and the verifier."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

import tracejit.ops
from tracejit.errors import InternalError, ShapeError
from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph, reachable
from tracejit.graph.node import Node, constant, data, make, placeholder
from tracejit.graph.passes import canonicalise
from tracejit.graph.passes.order import canonical_nodes, fingerprint
from tracejit.graph.verify import verify
from tracejit.ops.table import OPS, Aval
from tracejit.runtime.interpreter import run_graph

assert tracejit.ops
e = Emit()


def f32(*shape: int, index: int = 0) -> Node:
    return placeholder(index, np.float32, shape)


def test_equal_nodes_are_one_object() -> None:
    x = f32(4)
    assert e.exp(x) is e.exp(x)
    assert e.reshape(x, shape=(2, 2)) is e.reshape(x, shape=(2, 2))
    assert e.exp(x) is not e.exp(f32(4)), "placeholders are never merged"
    assert constant(0.0, np.float32) is not constant(-0.0, np.float32)
    assert constant(float("nan"), np.float32) is constant(float("nan"), np.float32)
    assert constant(1, np.float32) is not constant(1, np.float64)


def test_nodes_are_freed_with_their_last_use() -> None:
    import tracejit.graph.node as module

    x = f32(4)
    gc.collect()
    before = len(module._interned)  # pyright: ignore[reportPrivateUsage]
    y = e.exp(e.sin(x))
    assert len(module._interned) == before + 2  # pyright: ignore[reportPrivateUsage]
    del y
    gc.collect()
    assert len(module._interned) == before  # pyright: ignore[reportPrivateUsage]


def test_threads_share_nodes() -> None:
    x = f32(4)
    found: list[list[Node]] = []

    def work() -> None:
        y, mine = x, []
        for i in range(300):
            y = e.add(y, float(i))
            mine.append(y)
        found.append(mine)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(a is b for mine in found for a, b in zip(mine, found[0], strict=True))


def test_operands_stand_before_their_users() -> None:
    x, y = f32(4), f32(4, index=1)
    z = e.add(e.multiply(e.sin(y), x), e.sin(y))
    for nodes in (Graph([x, y], [z]).nodes, canonical_nodes(Graph([x, y], [z]))):
        assert len(nodes) == 5
        for position, node in enumerate(nodes):
            assert all(operand in nodes[:position] for operand in node.inputs)


def test_the_networkx_view_has_operand_positions() -> None:
    import networkx as nx

    x, y = f32(4), f32(4, index=1)
    z = e.subtract(e.multiply(x, x), y)
    view = Graph([x, y], [z]).nx
    assert view.edges[x, z.inputs[0]]["operands"] == (0, 1)
    assert view.edges[y, z]["operands"] == (1,)
    assert nx.is_directed_acyclic_graph(view)


def test_errors_of_an_op_are_the_user_s() -> None:
    with pytest.raises(ShapeError, match="do not broadcast"):
        e.add(f32(4), f32(5))


def test_a_hundred_thousand_nodes() -> None:
    """Deep chains trace, sort, verify, run and die without recursion."""
    x = f32(2)
    y = x
    one = constant(1, np.float32)
    for _ in range(100_000):
        y = make("add", (y, one))
    graph = Graph([x], [y])
    verify(graph)
    assert len(reachable([y])) == 100_002
    assert fingerprint(graph)
    assert run_graph(graph, [np.zeros(2, np.float32)])[0][0] == 100_000
    del graph, y


# -- the verifier ----------------------------------------------------------------------------------


def broken(node: Node, **changes: Any) -> Node:
    """Return a copy of a node with some fields replaced, past every check."""
    copy = object.__new__(Node)
    for name in ("op", "inputs", "attrs", "dtype", "shape", "loc", "serial", "value"):
        object.__setattr__(copy, name, changes.get(name, getattr(node, name)))
    copy.aval = Aval(copy.dtype, copy.shape)
    return copy


X = f32(4, 6)
BAD: dict[str, tuple[Node, str]] = {
    "dtype": (broken(e.exp(X), dtype=np.dtype("f8")), r"infers float32\[4, 6\]"),
    "shape": (broken(e.exp(X), shape=(4,)), "infers"),
    "arity": (broken(e.exp(X), inputs=(X, X)), "takes 1 operands and has 2"),
    "attribute": (broken(e.permute(X, axes=(1, 0)), attrs={"perm": (1, 0)}), "has attributes"),
    "list": (broken(e.permute(X, axes=(1, 0)), attrs={"axes": [1, 0]}), "not normalised"),
    "numpy int": (
        broken(e.reshape(X, shape=(24,)), attrs={"shape": (np.int64(24),)}),
        "not normalised",
    ),
    "axes": (
        broken(e.sum(X, axis=(0, 1), keepdims=False), attrs={"axis": (1, 0), "keepdims": False}),
        "not sorted",
    ),
    "sharing": (broken(e.exp(X)), "has an equal node beside it"),
    "data": (broken(data(np.ones(3)), value=np.ones(4)), "another type"),
    "value": (broken(e.exp(X), value=np.ones(3)), "no data leaf"),
}


@pytest.mark.parametrize("name", BAD)
def test_the_verifier_finds(name: str) -> None:
    node, message = BAD[name]
    verify(Graph([X], [e.exp(X)]))
    with pytest.raises(InternalError, match=message) as caught:
        verify(Graph([X], [node]))
    assert "→ %" in str(caught.value) or "→ <" in str(caught.value)


def test_the_verifier_knows_the_inputs() -> None:
    other = f32(3)
    with pytest.raises(InternalError, match="another graph"):
        verify(Graph([], [e.exp(other)]))
    with pytest.raises(InternalError, match="input 1"):
        verify(Graph([X, X], [X]))


def test_the_verifier_checks_what_a_pass_keeps() -> None:
    before = Graph([X], [e.exp(X)])
    with pytest.raises(InternalError, match="replaces an output"):
        verify(Graph([X], [e.reshape(X, shape=(24,))]), before=before, after=canonicalise)
    with pytest.raises(InternalError, match="outputs were lost"):
        verify(Graph([X], []), before=before, after=canonicalise)


def test_the_verifier_finds_a_wrong_order() -> None:
    graph = Graph([X], [e.exp(e.sin(X))])
    graph.nodes = graph.nodes[::-1]
    with pytest.raises(InternalError, match="before one of its operands"):
        verify(graph)


def test_every_primitive_s_attributes_are_listed() -> None:
    from tracejit.graph.verify import ATTRIBUTES

    assert set(ATTRIBUTES) <= set(OPS)


def test_the_order_does_not_tell_how_old_a_constant_is() -> None:
    """Regression: a page of the documents had other node numbers after other tests."""

    def ops(first: float, second: float) -> list[str]:
        x = f32(4)
        graph = Graph([x], [e.add(e.multiply(x, constant(first, "f4")), constant(second, "f4"))])
        return [n.op.name for n in graph.nodes]

    old = constant(-1.25, "f4"), constant(77.5, "f4")
    want = ["input", "constant", "multiply", "constant", "add"]
    assert ops(77.5, -1.25) == ops(-1.25, 77.5) == ops(3.125, 9.375) == want
    assert all(node in (constant(-1.25, "f4"), constant(77.5, "f4")) for node in old)
