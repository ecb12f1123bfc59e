"""The laws of the graph passes on random programs, and the facts that the op table claims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_samples import specials

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, constant, make, placeholder
from tracejit.graph.passes import canonicalise
from tracejit.ops.table import OPS, Array, Fact, Family
from tracejit.runtime.interpreter import run_graph

e = Emit()
UNARY = ("negative", "absolute", "floor", "positive", "sign", "square")
BINARY = ("add", "subtract", "multiply", "maximum", "minimum", "fmax")


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[Node], list[Node]]:
    """A random graph over two inputs of one dtype, with constants that invite rewriting."""
    dtype = np.dtype(draw(st.sampled_from(["float32", "float64", "int32", "int64", "bool"])))
    inputs = [placeholder(0, dtype, (3, 4)), placeholder(1, dtype, (4,))]
    values = list(inputs)
    for value in (0.0, -0.0, 1.0, -1.0, 2.0) if dtype.kind == "f" else (0, 1, -1):
        values.append(constant(value, dtype))
    for _ in range(draw(st.integers(1, 14))):
        x = draw(st.sampled_from(values))
        if draw(st.integers(0, 3)) == 0:  # lean on recent values: deep programs
            x = values[-1]
        values.append(_random_step(draw, x, values))
    keep = [v for v in values if v.inputs]
    return inputs, keep[-3:]


def _random_step(draw: st.DrawFn, x: Node, values: list[Node]) -> Node:
    kind = draw(st.integers(0, 9))
    boolean = x.dtype.kind == "b"
    if kind <= 3:
        y = draw(st.sampled_from([v for v in values if _fits(v, x)]))
        names = (
            ("logical_and", "logical_or", "logical_xor", "add", "maximum") if boolean else BINARY
        )
        return make(draw(st.sampled_from(names)), (x, y))
    if kind == 4 and not boolean:
        return make(draw(st.sampled_from(UNARY)), (x,))
    if kind == 4:
        return make("logical_not", (x,))
    if kind == 5:
        y = draw(st.sampled_from([v for v in values if _fits(v, x)]))
        condition = make(draw(st.sampled_from(["less", "equal", "greater_equal"])), (x, y))
        return e.where(condition, x, y)
    if kind == 6 and x.shape:
        return e.permute(x, axes=tuple(draw(st.permutations(range(len(x.shape))))))
    if kind == 7:
        return e.reshape(e.broadcast_to(x, shape=(1, *x.shape)), shape=(*x.shape, 1))
    if kind == 8 and x.shape and 0 not in x.shape:
        return _random_slice(draw, x)
    axes = tuple(i for i, n in enumerate(x.shape) if n <= 4 and draw(st.booleans()))
    if not axes or boolean or x.dtype.itemsize < 4:
        return (
            x
            if not x.shape
            else e.slice(x, start=(0,) * len(x.shape), size=x.shape, step=(1,) * len(x.shape))
        )
    return e.max(x, axis=axes, keepdims=draw(st.booleans()))


def _random_slice(draw: st.DrawFn, x: Node) -> Node:
    start, size, step = [], [], []
    for extent in x.shape:
        low = draw(st.integers(0, extent - 1))
        count = draw(st.integers(1, extent - low))
        reverse = draw(st.booleans())
        start.append(low + count - 1 if reverse else low)
        size.append(count)
        step.append(-1 if reverse else 1)
    return e.slice(x, start=tuple(start), size=tuple(size), step=tuple(step))


def _fits(v: Node, x: Node) -> bool:
    try:
        np.broadcast_shapes(v.shape, x.shape)
    except ValueError:
        return False
    return v.dtype == x.dtype


@given(programs())
@settings(max_examples=150)
def test_canonical_form_computes_the_same_bits(program: tuple[list[Node], list[Node]]) -> None:
    inputs, outputs = program
    before = Graph(inputs, outputs)
    after = canonicalise(before, verify=True)
    values = [np.resize(specials(n.dtype), n.shape) for n in inputs]
    for old, new in zip(run_graph(before, values), run_graph(after, values), strict=True):
        np.testing.assert_array_equal(old, new)
        if old.dtype.kind == "f":
            numbers = ~np.isnan(old)
            np.testing.assert_array_equal(np.signbit(old)[numbers], np.signbit(new)[numbers])
    assert canonicalise(after, verify=True).outputs == after.outputs


@given(programs())
@settings(max_examples=50)
def test_relaxed_form_is_valid(program: tuple[list[Node], list[Node]]) -> None:
    canonicalise(Graph(*program), fast_math=True, verify=True)


@pytest.mark.parametrize(
    "name", sorted(n for n, o in OPS.items() if o.family is Family.ELEMENTWISE)
)
def test_facts_hold(name: str) -> None:
    """What a row claims, its reference does (NaN payloads and zero signs of extrema aside)."""
    row = OPS[name]
    for dtype in (np.bool_, np.int32, np.float64):
        values = specials(np.dtype(dtype))
        try:
            if row.types is None or row.types((np.dtype(dtype),) * (row.arity or 0))[0] != (
                (np.dtype(dtype),) * (row.arity or 0)
            ):
                continue
        except TypeError:
            continue
        with np.errstate(all="ignore"):
            _check_facts(row, values)


def _check_facts(row: Any, x: Array) -> None:
    f = row.reference
    if row.arity == 1 and row.has(Fact.IDEMPOTENT) and f(x).dtype == x.dtype:
        np.testing.assert_array_equal(f(f(x)), f(x))
    if row.arity == 1 and row.has(Fact.INVOLUTION) and f(x).dtype == x.dtype:
        np.testing.assert_array_equal(f(f(x)), x)
    if row.has(Fact.ODD) and x.dtype.kind == "f":
        np.testing.assert_array_equal(f(-x), -f(x))
        np.testing.assert_array_equal(np.signbit(f(np.array([-0.0, 0.0]))), [True, False])
    if row.has(Fact.EVEN) and x.dtype.kind == "f":
        np.testing.assert_array_equal(f(-x), f(x))
    if row.arity == 2:
        a, b = x[:, None], x[None, :]
        if row.has(Fact.COMMUTATIVE):
            np.testing.assert_array_equal(f(a, b), f(b, a))
        if row.has(Fact.IDEMPOTENT) and f(x, x).dtype == x.dtype:
            np.testing.assert_array_equal(f(x, x), x)
        if row.has(Fact.ASSOCIATIVE) and f(a, b).dtype == x.dtype:
            c = x[:, None, None]
            np.testing.assert_array_equal(f(f(a, b), c), f(a, f(b, c)))
