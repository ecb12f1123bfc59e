"""The graph passes: each rule's before and after, and linear time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from op_samples import specials
from work import calls_of

import tracejit.ops
from tracejit.errors import InternalError
from tracejit.graph import passes
from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, constant, data, iota, make, placeholder
from tracejit.graph.passes import canonicalise, fold, order, reassociate, split
from tracejit.graph.passes.rules import Rules
from tracejit.ops.table import OPS
from tracejit.runtime.interpreter import run_graph

assert tracejit.ops  # importing it registers the rows
e = Emit()


def f32(*shape: int) -> Node:
    return placeholder(0, np.float32, shape, "x")


def ints(*shape: int) -> Node:
    return placeholder(0, np.int64, shape, "n")


def bools(*shape: int) -> Node:
    return placeholder(0, np.bool_, shape, "b")


def simplified(x: Node, y: Node) -> Node:
    """Return what the pipeline makes of output ``y`` of a graph over ``x``, verified."""
    return canonicalise(Graph([x], [y]), verify=True).outputs[0]


def ops_of(node: Node) -> list[str]:
    return [n.op.name for n in Graph([], [node]).nodes]


# -- algebra: what must become the operand itself --------------------------------------------------

IDENTITIES: dict[str, tuple[Callable[[], Node], Callable[[Node], Node]]] = {
    "x * 1": (lambda: f32(4), lambda x: e.multiply(x, 1.0)),
    "1 * x": (lambda: f32(4), lambda x: e.multiply(constant(1, np.float32), x)),
    "x / 1": (lambda: f32(4), lambda x: e.divide(x, 1.0)),
    "x - 0": (lambda: f32(4), lambda x: e.subtract(x, 0.0)),
    "x + -0": (lambda: f32(4), lambda x: e.add(x, -0.0)),
    "n + 0": (lambda: ints(4), lambda x: e.add(x, 0)),
    "--x": (lambda: f32(4), lambda x: e.negative(e.negative(x))),
    "~~n": (lambda: ints(4), lambda x: e.invert(e.invert(x))),
    "x ** 1": (lambda: f32(4), lambda x: e.power(x, 1.0)),
    "n // 1": (lambda: ints(4), lambda x: e.floor_divide(x, 1)),
    "n << 0": (lambda: ints(4), lambda x: e.left_shift(x, 0)),
    "max(x, x)": (lambda: f32(4), lambda x: e.maximum(x, x)),
    "max(x, -inf)": (lambda: f32(4), lambda x: e.maximum(x, -np.inf)),
    "min(n, greatest)": (lambda: ints(4), lambda x: e.minimum(x, np.iinfo(np.int64).max)),
    "b and true": (lambda: bools(4), lambda x: e.logical_and(x, True)),
    "b or false": (lambda: bools(4), lambda x: e.logical_or(x, False)),
    "n & -1": (lambda: ints(4), lambda x: e.bitwise_and(x, -1)),
    "n ^ 0": (lambda: ints(4), lambda x: e.bitwise_xor(x, 0)),
    "where(b, true, false)": (
        lambda: bools(4),
        lambda x: e.where(x, constant(True, bool), constant(False, bool)),
    ),
    "where(true, x, 0)": (
        lambda: f32(4),
        lambda x: make("where", [constant(True, bool), x, constant(0, np.float32)]),
    ),
    "f32→f64→f32": (lambda: f32(4), lambda x: e.cast(e.cast(x, np.float64), np.float32)),
    "i64 floor": (lambda: ints(4), lambda x: e.floor(x)),
    "reshape back": (
        lambda: f32(4, 6),
        lambda x: e.reshape(e.reshape(x, shape=(24,)), shape=(4, 6)),
    ),
    "transpose twice": (
        lambda: f32(4, 6),
        lambda x: e.permute(e.permute(x, axes=(1, 0)), axes=(1, 0)),
    ),
    "whole slice": (lambda: f32(4), lambda x: e.slice(x, start=(0,), size=(4,), step=(1,))),
    "reverse twice": (
        lambda: f32(4),
        lambda x: e.slice(
            e.slice(x, start=(3,), size=(4,), step=(-1,)), start=(3,), size=(4,), step=(-1,)
        ),
    ),
    "concat of one": (lambda: f32(4), lambda x: e.concat(x, axis=0)),
    "broadcast of one": (lambda: f32(4), lambda x: e.broadcast_to(x, shape=(4,))),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities_leave_the_operand(name: str) -> None:
    make_input, build = IDENTITIES[name]
    x = make_input()
    assert simplified(x, build(x)) is x


def window(start: int, size: int, step: int = 1) -> dict[str, tuple[int]]:
    return {"start": (start,), "size": (size,), "step": (step,)}


def test_reads_forget_stores_beside_them() -> None:
    x, v = f32(10), placeholder(1, np.float32, (4,))
    stored = e.update_slice(x, v, **window(2, 4))
    cases = {
        "beside": (e.slice(stored, **window(6, 4)), e.slice(x, **window(6, 4))),
        "inside": (e.slice(stored, **window(3, 2)), e.slice(v, **window(1, 2))),
        "inside, reversed": (e.slice(stored, **window(5, 4, -1)), e.slice(v, **window(3, 4, -1))),
        "the same": (e.slice(stored, **window(2, 4)), v),
    }
    for name, (read, expected) in cases.items():
        assert canonicalise(Graph([x, v], [read]), verify=True).outputs == (expected,), name
    across = e.slice(stored, **window(1, 3))
    assert canonicalise(Graph([x, v], [across]), verify=True).outputs == (across,)
    strided = e.update_slice(x, v, **window(0, 4, 2))
    between = e.slice(strided, **window(1, 3, 2))  # hulls overlap; the rule does not look closer
    assert canonicalise(Graph([x, v], [between]), verify=True).outputs == (between,)


def test_overwritten_stores_vanish() -> None:
    x, v = f32(10), placeholder(1, np.float32, (4,))
    w = e.exp(v)
    first = e.update_slice(x, v, **window(2, 4))
    again = e.update_slice(first, w, **window(2, 4))
    expected = e.update_slice(x, w, **window(2, 4))
    assert canonicalise(Graph([x, v], [again]), verify=True).outputs == (expected,)
    beside = e.update_slice(first, w, **window(6, 4))
    joined = e.concat(e.slice(x, **window(0, 2)), v, w, axis=0)
    assert canonicalise(Graph([x, v], [beside]), verify=True).outputs == (joined,)


def test_a_slice_of_a_join_reads_one_part() -> None:
    x, v = f32(10), placeholder(1, np.float32, (4,))
    joined = e.concat(x, v, axis=0)
    read = e.slice(joined, **window(13, 3, -1))
    expected = e.slice(v, **window(3, 3, -1))
    assert canonicalise(Graph([x, v], [read]), verify=True).outputs == (expected,)
    padded = e.pad(v, constant(0, np.float32), low=(3,), high=(2,))
    inside = e.slice(padded, **window(3, 4))
    assert canonicalise(Graph([x, v], [inside]), verify=True).outputs == (v,)


# -- algebra: what must not be touched, since a bit would differ -----------------------------------

KEPT: dict[str, Callable[[Node], Node]] = {
    "x + 0": lambda x: e.add(x, 0.0),
    "x - -0": lambda x: e.subtract(x, -0.0),
    "x * 0": lambda x: e.multiply(x, 0.0),
    "x - x": lambda x: e.subtract(x, x),
    "x / x": lambda x: e.divide(x, x),
    "x ** 0.5": lambda x: e.power(x, 0.5),
    "x / 3": lambda x: e.divide(x, 3.0),
    "x / tiny": lambda x: e.divide(x, float(np.float32(2.0**-149))),
    "not (x < 1)": lambda x: e.logical_not(e.less(x, 1.0)),
    "x == x": lambda x: e.equal(x, x),
    "(x + 1) + 2": lambda x: e.add(e.add(x, 1.0), 2.0),
    "max(x, 0)": lambda x: e.maximum(constant(0, np.float32), x),
}


@pytest.mark.parametrize("name", KEPT)
def test_inexact_equations_are_not_rules(name: str) -> None:
    x = f32(4)
    y = KEPT[name](x)
    assert sorted(ops_of(simplified(x, y))) == sorted(ops_of(y))


def test_complex_products_keep_their_factor_of_one() -> None:
    z = placeholder(0, np.complex64, (4,))
    result = simplified(z, e.multiply(z, 1.0))
    infinite = np.full(4, np.inf, np.complex64)
    (got,) = run_graph(Graph([z], [result]), [infinite])
    assert np.isnan(got.imag).all()  # (inf + 0j) * (1 + 0j)


REWRITES: dict[str, tuple[Callable[[], Node], Callable[[Node], Node], list[str]]] = {
    "x ** 2": (lambda: f32(4), lambda x: e.power(x, 2.0), ["input", "multiply"]),
    "x ** 0": (lambda: f32(4), lambda x: e.power(x, 0.0), ["broadcast_to", "constant"]),
    "x / 8": (lambda: f32(4), lambda x: e.divide(x, 8.0), ["constant", "input", "multiply"]),
    "x * -1": (lambda: f32(4), lambda x: e.multiply(x, -1.0), ["input", "negative"]),
    "n + 1 + 2": (
        lambda: ints(4),
        lambda x: e.add(e.add(x, 1), 2),
        ["add", "constant", "input"],
    ),
    "|-x|": (lambda: f32(4), lambda x: e.absolute(e.negative(x)), ["absolute", "input"]),
    "x - (-x)": (lambda: f32(4), lambda x: e.subtract(x, e.negative(x)), ["add", "input"]),
    "not (a == b)": (
        lambda: f32(4),
        lambda x: e.logical_not(e.equal(x, 1.0)),
        ["constant", "input", "not_equal"],
    ),
    "exp of a broadcast": (
        lambda: f32(4),
        lambda x: e.exp(e.broadcast_to(x, shape=(5, 4))),
        ["broadcast_to", "exp", "input"],
    ),
    "sum over size 1": (
        lambda: f32(4, 1),
        lambda x: e.sum(x, axis=(1,), keepdims=False),
        ["add", "constant", "input", "reshape"],
    ),
    "sum over size 1 of ints": (
        lambda: ints(4, 1),
        lambda x: e.sum(x, axis=(1,), keepdims=False),
        ["input", "reshape"],
    ),
    "argmax over size 1": (
        lambda: f32(4, 1),
        lambda x: e.argmax(x, axis=(1,), keepdims=False),
        ["broadcast_to", "constant"],
    ),
    "two slices": (
        lambda: f32(100),
        lambda x: e.slice(
            e.slice(x, start=(10,), size=(30,), step=(2,)), start=(3,), size=(5,), step=(2,)
        ),
        ["input", "slice"],
    ),
}


PARITY: dict[str, tuple[Any, list[str]]] = {
    "odd, negated": (
        lambda x: e.add(e.erf(x), e.sinh(e.negative(x))),
        ["add", "erf", "input", "negative", "sinh"],
    ),
    "odd, both signs": (
        lambda x: e.divide(e.add(1.0, e.erf(x)), e.add(1.0, e.erf(e.negative(x)))),
        ["add", "constant", "divide", "erf", "input", "subtract"],
    ),
    "odd, scaled by both signs": (
        lambda x: e.divide(e.sin(e.multiply(x, -2.0)), e.cosh(e.sin(e.multiply(x, 2.0)))),
        ["constant", "cosh", "divide", "input", "multiply", "negative", "sin"],
    ),
    "even, both signs": (
        lambda x: e.subtract(e.cos(e.negative(x)), e.exp(e.cos(x))),
        ["cos", "exp", "input", "negative", "subtract"],
    ),
    "neither": (
        lambda x: e.add(e.exp(x), e.exp(e.negative(x))),
        ["add", "exp", "exp", "input", "negative"],
    ),
}


@pytest.mark.parametrize("name", PARITY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_calls_that_differ_in_a_sign_are_one(name: str, dtype: type) -> None:
    build, expected = PARITY[name]
    x = placeholder(0, dtype, (12,), "x")
    y = build(x)
    result = simplified(x, y)
    assert sorted(ops_of(result)) == expected
    value = np.resize(specials(x.dtype), x.shape)
    with np.errstate(all="ignore"):
        old, new = (run_graph(Graph([x], [n]), [value])[0] for n in (y, result))
    np.testing.assert_array_equal(old, new)
    numbers = ~np.isnan(old)
    np.testing.assert_array_equal(np.signbit(old[numbers]), np.signbit(new[numbers]))


@pytest.mark.parametrize("name", REWRITES)
def test_rewrites(name: str) -> None:
    make_input, build, expected = REWRITES[name]
    x = make_input()
    y = build(x)
    result = simplified(x, y)
    assert sorted(ops_of(result)) == expected
    value = np.resize(specials(x.dtype), x.shape)
    old, new = (run_graph(Graph([x], [n]), [value])[0] for n in (y, result))
    np.testing.assert_array_equal(old, new)


def test_slices_compose() -> None:
    x = f32(100)
    inner = e.slice(x, start=(10,), size=(30,), step=(2,))
    result = simplified(x, e.slice(inner, start=(20,), size=(5,), step=(-3,)))
    assert dict(result.attrs) == {"start": (50,), "size": (5,), "step": (-6,)}


# -- folding, order, chains ------------------------------------------------------------------------


def test_constants_fold_and_uniform_arrays_stay_broadcasts() -> None:
    x = f32(1000)
    full = e.broadcast_to(constant(2, np.float32), shape=(1000,))
    result = simplified(x, e.multiply(x, e.exp(e.add(full, 1.0))))
    assert ops_of(result) == ["input", "constant", "multiply"] or sorted(ops_of(result)) == [
        "constant",
        "input",
        "multiply",
    ]
    scalar = next(n for n in Graph([], [result]).nodes if n.op.name == "constant")
    assert scalar.attrs["value"] == np.exp(np.float32(3))


def test_small_joins_of_constants_become_data_once() -> None:
    parts = [e.reshape(constant(v, np.float64), shape=(1,)) for v in (1.0, -0.0, np.nan)]
    x = placeholder(0, np.float64, (3,))
    y = e.add(e.add(x, e.concat(*parts, axis=0)), e.negative(e.negative(e.concat(*parts, axis=0))))
    leaves = [n for n in Graph([], [simplified(x, y)]).nodes if n.op.name == "data"]
    assert len(leaves) == 1
    np.testing.assert_array_equal(leaves[0].value, [1.0, -0.0, np.nan])
    assert np.signbit(leaves[0].value)[1]  # type: ignore[index]


def test_data_and_ramps_are_not_folded() -> None:
    y = e.add(data(np.ones(3)), 1.0)
    z = e.add(iota((3,), 0), 1)
    assert fold.run(Graph([], [y, z])).outputs == (y, z)


def test_folding_leaves_errors_to_the_run() -> None:
    y = e.power(constant(2, np.int64), -1)
    (left,) = canonicalise(Graph([], [y]), verify=True).outputs
    assert left.op.name == "power"
    with pytest.raises(ValueError, match="negative integer powers"):
        run_graph(Graph([], [y]), [])


def test_equal_programs_have_equal_graphs() -> None:
    def program(flip: bool, extra: int) -> str:
        x, y = (placeholder(i, np.float32, (4,)) for i in range(2))
        for i in range(extra):  # other nodes in between change the serial numbers only
            e.add(x, float(i))
        a, b = e.exp(x), e.sin(y)
        product = e.multiply(b, a) if flip else e.multiply(a, b)
        two = constant(2, np.float32)
        z = make("add", (two, product) if flip else (product, two))
        return order.fingerprint(canonicalise(Graph([x, y], [z]), verify=True))

    assert program(False, 0) == program(True, 3)


def test_float_extrema_keep_their_order() -> None:
    x, y = (placeholder(i, np.float32, (4,)) for i in range(2))
    out = (e.maximum(e.exp(y), e.sin(x)), e.maximum(e.sin(x), e.exp(y)))
    assert len(set(canonicalise(Graph([x, y], out)).outputs)) == 2


def chain(dtype: Any, *sizes: int) -> tuple[list[Node], Node]:
    inputs = [placeholder(i, dtype, shape) for i, shape in enumerate(pairwise(sizes))]
    product = inputs[0]
    for factor in inputs[1:]:
        product = e.matmul(product, factor)
    return inputs, product


def test_matrix_chains_are_regrouped_where_that_is_exact() -> None:
    inputs, product = chain(np.int64, 50, 5, 40, 2, 1)
    graph = canonicalise(Graph(inputs, [product]), verify=True)
    assert graph.outputs[0] is not product
    values = [np.random.default_rng(0).integers(-99, 99, n.shape) for n in inputs]
    np.testing.assert_array_equal(
        run_graph(graph, values)[0], run_graph(Graph(inputs, [product]), values)[0]
    )
    floats, product = chain(np.float32, 50, 5, 40, 2, 1)
    assert canonicalise(Graph(floats, [product])).outputs == (product,)
    assert canonicalise(Graph(floats, [product]), fast_math=True).outputs != (product,)


def test_the_dynamic_programme_finds_the_textbook_optimum() -> None:
    # Cormen, Leiserson, Rivest, Stein, "Introduction to Algorithms", section 15.2.
    cost, cuts = reassociate.cheapest_grouping([30, 35, 15, 5, 10, 20, 25])
    assert (cost, cuts[0, 5]) == (15125, 2)


def test_a_deep_product_with_a_small_result_is_a_sum_of_shallower_ones() -> None:
    def split_of(m: int, n: int, k: int, dtype: Any = np.float32) -> Node:
        inputs, product = chain(dtype, m, k, n)
        return split.run(Graph(inputs, [product])).outputs[0]

    total = split_of(64, 48, 5000)
    assert (total.op.name, total.shape) == ("sum", (64, 48))
    (product,) = total.inputs
    assert (product.op.name, product.shape) == ("matmul", (10, 64, 48))
    for whole in [(64, 48, 5003), (1, 64, 100_000), (64, 48, 1600), (500, 500, 8000)]:
        assert split_of(*whole).op.name == "matmul"
    assert split_of(64, 48, 5000, np.int32).op.name == "matmul"


def test_a_shared_product_is_not_recomputed() -> None:
    inputs, _ = chain(np.int64, 50, 3, 40, 1)
    shared = e.matmul(inputs[0], inputs[1])
    y = e.matmul(shared, inputs[2])
    assert reassociate.run(Graph(inputs, [y, shared])).outputs == (y, shared)


def test_relaxed_rules_need_fast_math() -> None:
    x = f32(4)
    y = e.add(e.add(e.divide(x, 3.0), 1.0), 2.0)
    graph = canonicalise(Graph([x], [y]), fast_math=True, verify=True)
    assert sorted(n.op.name for n in graph.nodes) == [
        "add",
        "constant",
        "constant",
        "input",
        "multiply",
    ]


# -- every composite decomposes into what its reference computes -----------------------------------


def test_decompositions_end_in_primitives() -> None:
    x = f32(3, 5)
    y = e.softmax(x, axis=1) if "softmax" in OPS else e.square(x)
    graph = canonicalise(Graph([x], [y]), verify=True)
    assert not any(n.op.decompose for n in graph.nodes)
    value = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    np.testing.assert_allclose(
        run_graph(graph, [value])[0], run_graph(Graph([x], [y]), [value])[0], rtol=1e-6
    )


# -- size ------------------------------------------------------------------------------------------


def pass_work(count: int) -> dict[str, int]:
    """Return how many calls each pass makes on a chain of ``count`` nodes."""
    x = f32(8)
    y = x
    scalars = [constant(i, np.float32) for i in range(1, 8)]
    for i in range(count):
        y = make(("add", "multiply", "subtract")[i % 3], (y, scalars[i % 7]))
    graph = Graph([x], [y])
    work: dict[str, int] = {}

    def run(one: Callable[[Graph], Graph]) -> None:
        nonlocal graph
        graph = one(graph)

    for number, one in enumerate(passes.PIPELINE):
        calls = calls_of(partial(run, one))
        work[f"{number} {passes.pass_name(one)}"] = calls + len(graph.nodes)
    assert len(graph.nodes) > 0.9 * count
    return work


def test_passes_are_linear_and_do_not_recurse() -> None:
    small, large = pass_work(2_000), pass_work(20_000)
    for name, calls in large.items():
        assert calls <= 11 * small[name], f"{name} is not linear"


def test_a_rule_that_changes_a_shape_is_caught() -> None:
    rules = Rules()
    rules.on("negative")(lambda node: e.reshape(node.inputs[0], shape=(2, 2)))
    x = f32(4)
    with pytest.raises(InternalError, match="turned"):
        rules.apply(Graph([x], [e.negative(x)]))
