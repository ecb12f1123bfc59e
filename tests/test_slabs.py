"""What reads a product row by row takes turns with it: the product is nowhere as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from test_epilogue import TINY_CACHES, random

import tracejit as tj
from tracejit.ops.table import Array
from tracejit.runtime import cpu, engine
from tracejit.runtime.demand import layout_of
from tracejit.runtime.interpreter import run_graph
from tracejit.runtime.specialise import request
from tracejit.schedule.schedule import ContractionStep, KernelStep, Schedule
from tracejit.schedule.text import schedule_text

F32, F64, I32 = (np.dtype(t) for t in ("f4", "f8", "i4"))


def softmax(x: Any, w: Any, b: Any) -> Any:
    z = x @ w + b
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layer_norm(x: Any, w: Any, b: Any) -> Any:
    z = x @ w
    centred = z - z.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5) * b


def activated_sum(x: Any, w: Any, b: Any) -> Any:
    return np.tanh(x @ w + b).sum(axis=-1)


def highest(x: Any, w: Any, b: Any) -> Any:
    return (x @ w).max(axis=-1), (x @ w).min(axis=-1)


def norms(x: Any, w: Any, b: Any) -> Any:
    return np.sqrt(((x @ w) ** 2).sum(axis=-1))


def best(x: Any, w: Any, b: Any) -> Any:
    return np.argmax(x @ w + b, axis=-1)


def gated(x: Any, w: Any, b: Any) -> Any:
    z = x @ w
    half = z.shape[-1] // 2
    return z[..., :half] / (1 + np.exp(-z[..., :half])) * z[..., half : 2 * half]


def running(x: Any, w: Any, b: Any) -> Any:
    return np.cumsum(x @ w, axis=-1)


FUNCTIONS = (softmax, layer_norm, activated_sum, highest, norms, best, gated, running)
# Rows, depth and columns: one slab and several, wholly and partly filled; packed ahead and not.
SIZES = [(2, 3, 2), (5, 0, 9), (17, 8, 16), (300, 20, 33), (140, 300, 10), (260, 140, 530)]


def check(
    function: Callable[..., Any], *values: Array, kernels: int | None = 1, exact: bool = False
) -> Schedule:
    """Compile for tiny and true caches, compare with the interpreter; return the schedule."""
    graph = tj.trace(function, *values).source
    layouts = [layout_of(v) for v in values]
    with np.errstate(all="ignore"):
        wanted = run_graph(graph, values)
    tight = 0.0 if exact else 1e-11 if values[0].dtype == F64 else 3e-4
    for target in (cpu.target(), cpu.target().with_caches(*TINY_CACHES)):
        executable = engine.compile_graph(graph, layouts, target=target)
        for got, want in zip(executable.run(values), wanted, strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            np.testing.assert_allclose(got, want, rtol=tight, atol=tight)
    assert kernels is None or len(executable.schedule.steps) == kernels, executable.schedule
    return executable.schedule


def operands(m: int, k: int, n: int, dtype: np.dtype[Any], seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [random(rng, shape, dtype) for shape in ((m, k), (k, n), (n,))]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_one_kernel_and_no_product_in_memory(
    any_level: str, function: Callable[..., Any], dtype: np.dtype[Any]
) -> None:
    for m, k, n in SIZES:
        x, w, b = operands(m, k, n, dtype)
        schedule = check(function, x, w / np.sqrt(max(k, 1), dtype=dtype), b)
        assert schedule.arena.nbytes == 0
        kinds = {b.kind for b in schedule.buffers}
        assert kinds <= {"input", "output", "slab", "data"}


def test_integers_are_exact(any_level: str) -> None:
    def summed(x: Any, w: Any) -> Any:
        return (x @ w).sum(axis=1, dtype=np.int32), (x @ w).argmin(axis=1)

    for m, k, n in SIZES:
        check(summed, *operands(m, k, n, I32)[:2], exact=True)


def nearest(points: Any, centres: Any) -> Any:
    squares = (points * points).sum(axis=1, keepdims=True)
    distances = squares - 2 * (points @ centres.T) + (centres * centres).sum(axis=1)
    return distances.argmin(axis=1), distances.min(axis=1)


def test_nearest_centres(level: str) -> None:
    rng = np.random.default_rng(1)
    points, centres = random(rng, (500, 12), F64), random(rng, (37, 12), F64)
    schedule = check(nearest, points, centres, kernels=2)  # the squares of the centres come first
    assert [type(s) for s in schedule.steps] == [KernelStep, ContractionStep]
    assert schedule.arena.nbytes < 1024


def test_batches_transposes_and_strides(any_level: str) -> None:
    rng = np.random.default_rng(2)
    w, b = random(rng, (40, 21), F64), random(rng, (21,), F64)
    check(softmax, random(rng, (3, 50, 40), F64), w, b)
    check(softmax, random(rng, (5, 40, 40), F64), random(rng, (5, 40, 21), F64), b)
    check(softmax, random(rng, (40, 300), F64).T, np.asfortranarray(w), b)
    check(softmax, random(rng, (400, 80), F64)[::2, ::-2], w[:, ::-1], b)
    check(norms, random(rng, (2, 3, 90, 40), F64), random(rng, (3, 40, 21), F64), b)


def test_narrow_operands_are_widened_on_the_way(level: str) -> None:
    rng = np.random.default_rng(3)
    q = rng.integers(-128, 128, (50, 30), np.int8)
    other = rng.integers(-128, 128, (200, 50), np.int8)
    scale, x = random(rng, (30,), F32) / 100, random(rng, (200, 50), F32)

    def layer(x: Any, q: Any, scale: Any) -> Any:
        return softmax(x, q.astype(np.float32) * scale, 0)

    def counts(a: Any, b: Any) -> Any:
        return (a.astype(np.int32) @ b.astype(np.int32)).max(axis=1)

    check(layer, x, q, scale)
    check(counts, other, q, exact=True)


def test_nan_and_infinity_are_numpys(any_level: str) -> None:
    x, w, b = operands(150, 20, 18, F32)
    x[2, 3], x[4, 5], x[140, 1], w[7, 7] = np.nan, np.inf, -np.inf, -0.0
    for function in (softmax, highest, best, activated_sum):
        check(function, x, w, b)


@pytest.mark.parametrize(("m", "k", "n"), [(500, 60, 300), (900, 300, 600)])
def test_threads_and_constant_sizes_do_not_change_bits(m: int, k: int, n: int) -> None:
    values = operands(m, k, n, F32)
    found: list[bytes] = []
    for threads in (1, 2, 3):
        with tj.num_threads(threads):
            executable = tj.trace(softmax, *values).executable
            found.append(executable.run(values)[0].tobytes())
            executable.use([request(call).result() for call in executable.calls])
            found.append(executable.run(values)[0].tobytes())
    assert len(set(found)) == 1
    assert executable.calls[-1].end > 1, "several slabs"


def test_sizes_may_vary(level: str) -> None:
    jitted = tj.jit(softmax, compile="now", dynamic=True)
    for m in (200, 30, 777, 2, 1, 150):
        values = operands(m, 24, 33, F64, seed=m)
        np.testing.assert_allclose(jitted(*values), softmax(*values), rtol=1e-11)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x, w: (x @ w, (x @ w).sum(axis=1)), ((200, 9), (9, 20))),
        (lambda x, w: (x @ w).sum(axis=0), ((200, 9), (9, 20))),
        (lambda x, w: ((x @ w).max(axis=1), np.cumsum(x @ w, axis=0)), ((200, 9), (9, 20))),
        (lambda x, w: np.cumsum(x @ w, axis=1), ((1, 9), (9, 20))),
        (lambda x, w: np.sort(x @ w, axis=1), ((200, 9), (9, 20))),
        (lambda x, w: (x @ w)[::-1].max(axis=1) + (x @ w)[:, 0], ((200, 9), (9, 20))),
        (lambda x, w: np.exp(x @ w - (x @ w).max(axis=1, keepdims=True)), ((64, 200), (200, 900))),
        (lambda x, w: (x @ w).max(axis=1), ((3, 1), (1, 70_000))),
        (lambda x, w: (x @ w).reshape(2, 150, 20).sum(axis=1), ((300, 9), (9, 20))),
        (lambda x, w: (x @ w).reshape(2, 64, 3000).sum(axis=1), ((128, 2), (2, 3000))),
    ],
    ids=["result", "columns", "two readers", "one row", "NumPy", "other rows",
         "few rows for threads", "long rows",
         "high groups", "large groups"],
)  # fmt: skip
def test_other_readers_find_the_product_in_memory(
    function: Callable[..., Any], shapes: Sequence[tuple[int, ...]]
) -> None:
    rng = np.random.default_rng(4)
    values = [random(rng, shape, F64) for shape in shapes]
    schedule = check(function, *values, kernels=None)
    assert len(schedule.steps) > 1
    assert all(b.kind != "slab" for b in schedule.buffers)


def test_a_reader_may_take_rows_by_groups(any_level: str) -> None:
    x, w, _ = operands(200, 9, 20, F64)
    check(lambda x, w: (x @ w).reshape(100, 40).max(axis=1), x, w)
    check(lambda x, w: (x @ w).reshape(25, 8, 20).sum(axis=1), x, w)


# -- reductions over the rows of a product, by groups of rows ------------------------------------


def column_sums(x: Any, w: Any, b: Any) -> Any:
    return (x @ w).sum(axis=0)


def column_ends(x: Any, w: Any, b: Any) -> Any:
    return (x @ w + b).max(axis=0), (x @ w).min(axis=0, keepdims=True)


def column_means(x: Any, w: Any, b: Any) -> Any:
    return np.tanh(x @ w + b).mean(axis=0)


def squares(x: Any, w: Any, b: Any) -> Any:
    return np.sqrt(((x @ w) ** 2).sum()), np.abs(x @ w).max()


def loss(x: Any, w: Any, b: Any) -> Any:
    return ((x @ w - b) ** 2).mean()


BY_GROUPS = (column_sums, column_ends, column_means, squares, loss)


@pytest.mark.parametrize("function", BY_GROUPS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_reductions_over_rows_store_no_product(
    any_level: str, function: Callable[..., Any], dtype: np.dtype[Any]
) -> None:
    for m, k, n in [(300, 130, 120), (576, 33, 260)]:
        x, w, b = operands(m, k, n, dtype)
        w = w / np.sqrt(k, dtype=dtype)
        schedule = check(function, x, w, b, kernels=2)
        assert [b.shape for b in schedule.buffers if b.kind == "slab"] == [(m, n)]
        assert schedule.arena.nbytes < m * n * dtype.itemsize


def test_reductions_over_rows_propagate_nan_and_infinity(level: str) -> None:
    x, w, b = operands(256, 20, 160, F32)
    x[2, 3], x[200, 5], w[7, 7], w[9, 100] = np.nan, np.inf, -np.inf, -0.0
    for function in (column_sums, column_ends, squares):
        check(function, x, w, b, kernels=2)


def test_reductions_of_integer_products_are_exact(level: str) -> None:
    def summed(x: Any, w: Any) -> Any:
        return (x @ w).sum(axis=0, dtype=np.int32), (x @ w).max(axis=0)

    check(summed, *operands(512, 33, 100, I32)[:2], kernels=2, exact=True)


def test_threads_do_not_change_the_bits_of_reductions_over_rows() -> None:
    values = operands(2048, 60, 300, F32)
    for function in (column_sums, loss):
        found: set[bytes] = set()
        for threads in (1, 2, 3):
            with tj.num_threads(threads):
                executable = tj.trace(function, *values).executable
                found.add(executable.run(values)[0].tobytes())
        assert len(found) == 1


def test_reductions_over_rows_of_sizes_that_vary(level: str) -> None:
    jitted = tj.jit(column_means, compile="now", dynamic=True)
    for m in (256, 512, 77, 1000, 1024, 257):
        values = operands(m, 24, 133, F64, seed=m)
        np.testing.assert_allclose(jitted(*values), column_means(*values), rtol=1e-11)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: (x @ w).std(axis=0),
        lambda x, w: (x @ w, (x @ w).sum(axis=0)),
        lambda x, w: ((x @ w).sum(axis=0), (x @ w).sum(axis=1)),
        lambda x, w: (x[:251] @ w).sum(axis=0),
        lambda x, w: ((x @ w).sum(axis=0), (x @ w).max()),
        lambda x, w: np.argmax(x @ w, axis=0),
    ],
    ids=["twice", "result", "both axes", "prime", "columns and all", "positions"],
)
def test_reductions_that_need_the_product_store_it_once(function: Callable[..., Any]) -> None:
    schedule = check(function, *operands(256, 20, 200, F64)[:2], kernels=None)
    assert sum(isinstance(step, ContractionStep) for step in schedule.steps) == 1
    assert all(b.kind != "slab" for b in schedule.buffers)


def test_a_reader_of_what_the_epilogue_stores_beside_waits_for_all_of_it(level: str) -> None:
    def both(x: Any, w: Any) -> Any:
        z = x @ w
        y = np.tanh(z)
        return y, y[::-1].sum(axis=1, keepdims=True) + z - z.max(axis=1, keepdims=True)

    check(both, *operands(300, 20, 30, F64)[:2], kernels=None)


def test_the_schedule_names_and_shows_both() -> None:
    traced = tj.trace(softmax, *operands(64, 128, 10, F32))
    (step,) = traced.schedule.steps
    assert isinstance(step, ContractionStep)
    text = schedule_text(traced.schedule)
    assert "slab float32[64, 10]" in text
    assert "kernel 0: matmul add max subtract exp sum divide" in text
    assert "sum(b1[128*i + k] * b2[j + 10*k] for k < 128)" in text
    assert "exp(" in text


def test_a_classifier_is_two_kernels(level: str) -> None:
    rng = np.random.default_rng(5)
    shapes = (64, 784), (784, 128), (128,), (128, 10), (10,)
    x, w1, b1, w2, b2 = (random(rng, shape, F32) / 10 for shape in shapes)

    def perceptron(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        return tj.nn.softmax(tj.nn.relu(x @ w1 + b1) @ w2 + b2, axis=1)

    schedule = check(perceptron, x, w1, b1, w2, b2, kernels=2)
    assert schedule.arena.nbytes == 64 * 128 * 4
