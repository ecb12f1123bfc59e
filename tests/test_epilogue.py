"""Elementwise work around matrix products runs in their kernels, with the interpreter's values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, placeholder
from tracejit.ops.table import Array
from tracejit.runtime import cpu, engine, service
from tracejit.runtime.demand import layout_of
from tracejit.runtime.interpreter import run_graph
from tracejit.schedule.schedule import ContractionStep, KernelStep, Schedule
from tracejit.schedule.text import schedule_text

E = Emit()
F32, F64, I32 = (np.dtype(t) for t in ("f4", "f8", "i4"))

# Caches so small that sizes of a few dozen span several tiles and depth blocks.
TINY_CACHES = (6 * 1024, 8 * 1024, 64 * 1024)

SIZES = [
    (1, 1, 1), (1, 17, 9), (17, 1, 9), (7, 16, 0), (15, 33, 8), (16, 17, 7), (33, 65, 31),
    (64, 10, 130), (3, 70, 257),
]  # fmt: skip


def random(rng: np.random.Generator, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(-9, 9, shape).astype(dtype)


def inputs(*values: Array) -> list[Node]:
    return [placeholder(i, v.dtype, v.shape) for i, v in enumerate(values)]


def check(build: Callable[..., Node | Sequence[Node]], *values: Array) -> Schedule:
    """Compile for tiny and true caches, compare with the interpreter; return the schedule."""
    nodes = inputs(*values)
    outputs = build(*nodes)
    graph = Graph(nodes, [outputs] if isinstance(outputs, Node) else list(outputs))
    layouts = [layout_of(v) for v in values]
    with np.errstate(all="ignore"):
        wanted = run_graph(graph, values)
    for target in (cpu.target(), cpu.target().with_caches(*TINY_CACHES)):
        executable = engine.compile_graph(graph, layouts, target=target)
        for got, want in zip(executable.run(values), wanted, strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            tight = want.dtype == F64
            np.testing.assert_allclose(
                got, want, rtol=1e-11 if tight else 2e-4, atol=1e-11 if tight else 2e-4
            )
    return executable.schedule


def one_product(schedule: Schedule) -> None:
    assert [type(s) for s in schedule.steps] == [ContractionStep], schedule


@pytest.mark.parametrize("dtype", [F32, F64, I32], ids=str)
def test_bias_scale_and_activation_on_every_level(any_level: str, dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(1)
    for m, n, k in SIZES:
        x, w = random(rng, (m, k), dtype), random(rng, (k, n), dtype)
        bias, rest = random(rng, (n,), dtype), random(rng, (m, n), dtype)

        def build(x: Node, w: Node, bias: Node, rest: Node) -> Node:
            y = E.add(E.matmul(x, w), bias)
            return E.add(E.maximum(y, E.constant(0, y.dtype)), E.multiply(rest, rest))

        one_product(check(build, x, w, bias, rest))


def test_transcendental_epilogues(any_level: str) -> None:
    rng = np.random.default_rng(2)
    x, w, b = random(rng, (9, 21), F32), random(rng, (21, 35), F32), random(rng, (35,), F32)
    for name in ("tanh", "gelu", "sigmoid", "exp"):
        one_product(check(lambda x, w, b, n=name: getattr(E, n)(E.add(E.matmul(x, w), b)), x, w, b))


def test_operands_of_every_broadcast_shape(any_level: str) -> None:
    rng = np.random.default_rng(3)
    for m, n in [(1, 1), (5, 7), (16, 16), (33, 17)]:
        x, w = random(rng, (m, 12), F32), random(rng, (12, n), F32)
        for shape in [(), (1,), (n,), (1, n), (m, 1), (m, n)]:
            one_product(
                check(lambda x, w, c: E.add(E.matmul(x, w), c), x, w, random(rng, shape, F32))
            )


def test_strided_operands_and_a_turned_result(any_level: str) -> None:
    rng = np.random.default_rng(4)
    x, w = random(rng, (46, 20), F32)[::2], random(rng, (37, 20), F32).T
    rest = random(rng, (74, 23), F32)[::-2].T
    one_product(check(lambda x, w, r: E.multiply(E.matmul(x, w), r), x, w, rest))

    def turned(x: Node, w: Node, r: Node) -> Node:
        return E.subtract(E.permute(E.matmul(x, w), axes=(1, 0)), E.permute(r, axes=(1, 0)))

    one_product(check(turned, x, w, rest))


def test_batches_fold_into_rows_where_the_epilogue_allows(any_level: str) -> None:
    rng = np.random.default_rng(5)
    x, w, b = random(rng, (3, 4, 5, 8), F32), random(rng, (8, 21), F32), random(rng, (21,), F32)
    schedule = check(lambda x, w, b: E.add(E.matmul(x, w), b), x, w, b)
    one_product(schedule)
    (step,) = schedule.steps
    assert isinstance(step, ContractionStep)
    assert sorted(step.kernel.extents) == [8, 21, 60]
    per_batch = random(rng, (3, 1, 5, 21), F32)
    one_product(check(lambda x, w, b: E.add(E.matmul(x, w), b), x, w, per_batch))
    stacked = random(rng, (4, 8, 21), F32)
    one_product(check(lambda x, w, b: E.add(E.matmul(x, w), b), x, stacked, per_batch))
    rows = random(rng, (6, 1, 8), F32)
    one_product(check(lambda x, w, b: E.add(E.matmul(x, w), b), rows, w, b))


def test_results_of_another_dtype(any_level: str) -> None:
    rng = np.random.default_rng(6)
    for m, n, k in [(5, 3, 4), (33, 35, 150)]:
        # Whole numbers, so that every order of summing gives the same.
        x, w = (random(rng, s, I32).astype(F32) for s in ((m, k), (k, n)))
        for dtype in ("<f8", "<i4", "|i1", "|b1"):
            one_product(check(lambda x, w, d=dtype: E.cast(E.matmul(x, w), d), x, w))
        one_product(check(lambda x, w: E.greater(E.matmul(x, w), 0.0), x, w))


def test_product_that_others_read_is_stored_by_its_epilogue(any_level: str) -> None:
    rng = np.random.default_rng(7)
    x, w, b = random(rng, (18, 40), F32), random(rng, (40, 19), F32), random(rng, (19,), F32)

    def both(x: Node, w: Node, b: Node) -> list[Node]:
        product = E.matmul(x, w)
        return [product, E.tanh(E.add(product, b))]

    one_product(check(both, x, w, b))


def test_index_of_the_element_in_an_epilogue(any_level: str) -> None:
    rng = np.random.default_rng(8)
    x, w = random(rng, (2, 35, 20), F64), random(rng, (2, 20, 35), F64)

    def lower_triangle(x: Node, w: Node) -> Node:
        shape = (2, 35, 35)
        row, column = (E.iota(shape=shape, axis=a, dtype="<i8") for a in (1, 2))
        batch = E.cast(E.iota(shape=shape, axis=0, dtype="<i8"), "<f8")
        return E.where(E.less_equal(column, row), E.matmul(x, w), batch)

    one_product(check(lower_triangle, x, w))


def test_pieces_of_a_larger_array(any_level: str) -> None:
    rng = np.random.default_rng(9)
    x, w, y = random(rng, (12, 8), F32), random(rng, (8, 9), F32), random(rng, (12, 4), F32)

    def joined(x: Node, w: Node, y: Node) -> Node:
        return E.concat(E.add(E.matmul(x, w), 1.0), y, axis=1)

    schedule = check(joined, x, w, y)
    assert sorted(type(s).__name__ for s in schedule.steps) == ["ContractionStep", "KernelStep"]


def test_operand_that_the_epilogue_reads_too_is_computed_before(any_level: str) -> None:
    rng = np.random.default_rng(10)
    x, w = random(rng, (24, 24), F32), random(rng, (24, 24), F32) / 24

    def residual(x: Node, w: Node) -> Node:
        h = E.tanh(x)
        return E.add(E.matmul(h, w), h)

    schedule = check(residual, x, w)
    assert [type(s) for s in schedule.steps] == [KernelStep, ContractionStep]

    def chain(x: Node, w: Node) -> Node:
        h = E.matmul(x, w)
        return E.add(E.matmul(E.tanh(h), w), h)

    schedule = check(chain, x, w)  # the first product stores itself and its tanh
    assert [type(s) for s in schedule.steps] == [ContractionStep] * 2

    def two(x: Node, w: Node) -> Node:
        return E.add(E.matmul(x, w), E.matmul(w, x))

    schedule = check(two, x, w)
    assert [type(s) for s in schedule.steps] == [ContractionStep] * 2


def test_nan_and_infinity_reach_the_epilogue(any_level: str) -> None:
    rng = np.random.default_rng(11)
    x, w, b = random(rng, (9, 20), F32), random(rng, (20, 18), F32), random(rng, (18,), F32)
    x[2, 3], x[4, 5], b[7], b[8] = np.nan, np.inf, np.nan, -np.inf
    one_product(check(lambda x, w, b: E.maximum(E.add(E.matmul(x, w), b), 0.0), x, w, b))


def test_other_sizes_run_the_same_code() -> None:
    rng = np.random.default_rng(12)
    compiled: list[int] = []
    for m, n, k in [(30, 50, 70), (37, 61, 53)]:
        values = random(rng, (m, k), F32), random(rng, (k, n), F32), random(rng, (n,), F32)
        before = service.compiles()
        one_product(check(lambda x, w, b: E.sigmoid(E.add(E.matmul(x, w), b)), *values))
        compiled.append(service.compiles() - before)
    assert compiled[1] == 0


def test_perceptron_is_two_kernels(level: str) -> None:
    rng = np.random.default_rng(13)
    sizes = (784, 128), (128,), (128, 10), (10,)
    x, *weights = (random(rng, s, F32) for s in ((64, 784), *sizes))

    def perceptron(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        return tj.nn.softmax(tj.nn.relu(x @ w1 + b1) @ w2 + b2, axis=1)

    traced = tj.trace(perceptron, x, *weights)
    kinds = [type(s) for s in traced.schedule.steps]
    assert kinds == [ContractionStep, ContractionStep]
    np.testing.assert_allclose(tj.jit(perceptron)(x, *weights).sum(axis=1), np.ones(64), rtol=1e-5)


def test_schedule_shows_the_fused_product() -> None:
    x, w, b = (np.ones(s, np.float32) for s in ((20, 30), (30, 40), (40,)))
    traced = tj.trace(lambda x, w, b: tj.nn.relu(x @ w + b), x, w, b)
    assert "sum(b0[30*i + k] * b1[j + 40*k] for k < 30)" in schedule_text(traced.schedule)


def test_a_deep_product_is_shared_among_threads_with_its_epilogue(any_level: str) -> None:
    rng = np.random.default_rng(14)
    x, w, b = random(rng, (40, 4000), F64), random(rng, (4000, 30), F64), random(rng, (30,), F64)

    def dense(x: Node, w: Node, b: Node) -> Node:
        return E.maximum(E.add(E.matmul(x, w), b), 0.0)

    schedule = check(dense, x, w, b)
    assert [type(s) for s in schedule.steps] == [ContractionStep, KernelStep]
    turned = np.asfortranarray(x)[:, ::-1], np.asfortranarray(w)[::-1], b
    check(dense, *turned)


@pytest.mark.parametrize(
    ("function", "shapes", "kinds"),
    [
        (np.vecdot, ((30, 40), (30, 40)), [KernelStep]),
        (np.outer, ((30,), (40,)), [KernelStep]),
        (np.vdot, ((300,), (300,)), [KernelStep]),
        (lambda x: np.linalg.norm(x, axis=1), ((30, 40),), [KernelStep]),
        (lambda x: x.T @ x, ((30, 40),), [ContractionStep]),
        (np.inner, ((30, 40), (50, 40)), [ContractionStep]),
    ],
    ids=["vecdot", "outer", "vdot", "norm", "gram", "inner"],
)
def test_products_by_other_names_are_one_kernel(
    function: Callable[..., Any], shapes: Sequence[tuple[int, ...]], kinds: list[type]
) -> None:
    rng = np.random.default_rng(15)
    values = [random(rng, shape, F64) for shape in shapes]
    assert [type(s) for s in tj.trace(function, *values).schedule.steps] == kinds
    got = tj.jit(function, compile="now")(*values)
    np.testing.assert_allclose(got, function(*values), rtol=1e-12, atol=1e-12)
