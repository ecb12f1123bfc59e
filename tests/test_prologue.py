"""Elementwise work on an operand runs in the packing of the product, on every level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_epilogue import E, check, random

from tracejit.graph.node import Node
from tracejit.ops.table import Array
from tracejit.schedule.schedule import ContractionStep, Schedule

SIZES = [
    (1, 1, 1), (1, 40, 9), (3, 5, 7), (17, 16, 0), (33, 65, 31), (130, 140, 131), (64, 10, 300),
]  # fmt: skip
FLOATS = [np.dtype(np.float32), np.dtype(np.float64)]


def kinds(schedule: Schedule) -> list[str]:
    return ["product" if isinstance(s, ContractionStep) else "other" for s in schedule.steps]


def quantised(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.int8) -> Array:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def dequantised(q: Node, zero: Node, scale: Node) -> Node:
    return E.multiply(E.subtract(E.cast(q, scale.dtype), zero), scale)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dequantised_weights(any_level: str, dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(1)
    for m, n, k in SIZES:
        x, b = random(rng, (m, k), dtype), random(rng, (n,), dtype)
        scale, zero = (rng.random(n) / 100).astype(dtype), random(rng, (n,), dtype)

        def layer(x: Node, q: Node, zero: Node, scale: Node, b: Node) -> Node:
            product = E.matmul(x, dequantised(q, zero, scale))
            return E.maximum(E.add(product, b), E.constant(0, dtype))

        by_rows = quantised(rng, (k, n))
        for q in (by_rows, np.asfortranarray(by_rows)) if m > 30 else (by_rows,):
            schedule = check(layer, x, q, zero, scale, b)
            assert kinds(schedule) == ["other" if min(m, n) == 1 else "product"]


def test_scales_by_row_by_column_and_of_the_whole(level: str) -> None:
    rng = np.random.default_rng(2)
    f4 = np.dtype(np.float32)
    x, q = random(rng, (20, 30), f4), quantised(rng, (30, 40), np.uint8)
    for shape in [(30, 1), (1, 40), (), (1,), (30, 40)]:
        scale = np.asarray(rng.random(shape) / 100, f4)

        def layer(x: Node, q: Node, scale: Node) -> Node:
            return E.matmul(x, E.multiply(E.cast(q, scale.dtype), scale))

        alone = 2 * (q.nbytes + scale.nbytes) <= 4 * q.size or scale.size < q.size
        assert not alone or kinds(check(layer, x, q, scale)) == ["product"]


def test_work_on_both_operands(any_level: str) -> None:
    rng = np.random.default_rng(3)
    for dtype in (*FLOATS, np.dtype(np.int64)):
        a, b = random(rng, (150, 140), dtype), random(rng, (160, 140), dtype)

        def f(a: Node, b: Node) -> Node:
            left = E.maximum(a, E.constant(0, a.dtype))
            right = E.add(b, E.constant(1, b.dtype))
            return E.matmul(left, E.permute(right, axes=(1, 0)))

        assert kinds(check(f, a, b)) == ["product"]
        flipped = np.asfortranarray(a), np.asfortranarray(b)
        assert kinds(check(f, *flipped)) == ["product"]


def test_batches(level: str) -> None:
    rng = np.random.default_rng(4)
    f4 = np.dtype(np.float32)

    def f(x: Node, q: Node) -> Node:
        return E.matmul(x, E.multiply(E.cast(q, x.dtype), E.constant(0.25, x.dtype)))

    for first, second in [((2, 3), (3,)), ((4,), ()), ((2, 1), (1, 3))]:
        x, q = random(rng, (*first, 9, 20), f4), quantised(rng, (*second, 20, 17))
        assert kinds(check(f, x, q)) == ["product"]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_vector_times_a_computed_matrix_is_one_loop(any_level: str, dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(5)

    def column(q: Node, v: Node, b: Node) -> Node:
        return E.maximum(E.add(E.matmul(E.cast(q, v.dtype), E.permute(v, axes=(1, 0))), b), v)

    def row(q: Node, v: Node, b: Node) -> Node:
        right = E.permute(E.multiply(E.cast(q, v.dtype), b), axes=(1, 0))
        return E.tanh(E.matmul(v, right))

    for m, k in [(1, 1), (5, 0), (70, 90), (33, 17), (300, 257)]:
        q, v, b = quantised(rng, (m, k)), random(rng, (1, k), dtype), random(rng, (1, 1), dtype)
        for each in (q, np.asfortranarray(q)):
            assert kinds(check(row, each, v / 100, b)) == ["other"]
        assert kinds(check(column, quantised(rng, (m, m)), random(rng, (1, m), dtype), b)) == [
            "other"
        ]


def test_a_vector_times_a_matrix_that_others_read_stays_a_product(level: str) -> None:
    rng = np.random.default_rng(6)
    f4 = np.dtype(np.float32)

    def both(x: Node, w: Node) -> tuple[Node, Node]:
        right = E.exp(w)
        return E.matmul(x, right), right

    assert "product" in kinds(check(both, random(rng, (1, 50), f4), random(rng, (50, 40), f4)))


def test_what_others_read_is_stored(level: str) -> None:
    rng = np.random.default_rng(6)
    f4 = np.dtype(np.float32)
    x, w = random(rng, (40, 50), f4), random(rng, (50, 40), f4)

    def both(x: Node, w: Node) -> tuple[Node, Node]:
        right = E.exp(w)
        return E.matmul(x, right), E.sum(right, axis=(0,), keepdims=False)

    def residual(x: Node, w: Node) -> Node:
        right = E.add(w, E.constant(1, w.dtype))
        return E.add(E.matmul(x, right), right)

    def square(x: Node, w: Node) -> Node:
        right = E.add(w, E.constant(1, w.dtype))
        return E.matmul(E.permute(right, axes=(1, 0)), right)

    for f in (both, square):
        assert "other" in kinds(check(f, x, w))
    assert "other" in kinds(check(residual, random(rng, (50, 50), f4), w))


def test_an_epilogue_stays_one(level: str) -> None:
    """What the product before can do to its result is not put off to the packing of the next."""
    rng = np.random.default_rng(7)
    f4 = np.dtype(np.float32)
    x, v, w = (random(rng, (150, 150), f4) for _ in range(3))

    def f(x: Node, v: Node, w: Node) -> Node:
        return E.matmul(E.maximum(E.matmul(x, v), E.constant(0, x.dtype)), w)

    schedule = check(f, x, v, w)
    assert kinds(schedule) == ["product", "product"]
    first = schedule.steps[0]
    assert isinstance(first, ContractionStep)
    assert "maximum" in first.kernel.labels


def test_masks_and_indices(level: str) -> None:
    rng = np.random.default_rng(8)
    f4 = np.dtype(np.float32)
    x, w = random(rng, (20, 40), f4), random(rng, (40, 33), f4)
    mask = rng.random((40, 33)) < 0.5

    def masked(x: Node, w: Node, mask: Node) -> Node:
        return E.matmul(x, E.where(mask, w, E.constant(0, w.dtype)))

    def triangle(x: Node, w: Node) -> Node:
        rows, columns = (E.iota(shape=w.shape, axis=a, dtype="<i8") for a in (0, 1))
        return E.matmul(x, E.where(E.less(columns, rows), w, E.constant(0, w.dtype)))

    def ones(x: Node, mask: Node) -> Node:
        return E.matmul(x, E.cast(mask, x.dtype))

    assert kinds(check(masked, x, w, mask)) == ["product"]
    assert kinds(check(triangle, x, w)) == ["product"]
    assert kinds(check(ones, x, mask)) == ["product"]


def test_any_number_of_threads_gives_the_same_bits() -> None:
    import tracejit as tj

    rng = np.random.default_rng(9)
    x, q = rng.standard_normal((200, 300), np.float32), quantised(rng, (300, 520))

    def f(x: Any, q: Any) -> Any:
        return np.tanh(x) @ (q.astype(np.float32) * np.float32(0.1))

    compiled = tj.jit(f, compile="now")
    results: list[bytes] = []
    for threads in (1, 2, 4):
        with tj.num_threads(threads):
            results.append(compiled(x, q).tobytes())
    assert len(set(results)) == 1
