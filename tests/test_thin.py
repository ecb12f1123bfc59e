"""Products of a few terms are arithmetic in the loop of whatever surrounds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.ops.table import Array
from tracejit.schedule.schedule import ContractionStep

SHAPES = [
    ((513, 3), (3, 3)),
    ((1000, 4), (4,)),
    ((170, 2), (2, 4)),
    ((7, 90, 3), (3, 1)),
    ((3, 3), (3, 333)),
    ((65, 1), (1, 65)),
    ((2, 3, 3), (3, 257)),
]


def around(a: Any, b: Any) -> Any:
    return np.maximum((a + 1) @ b, 0) * 2


def normal(rng: np.random.Generator, *shape: int, dtype: str = "f4") -> Array:
    return rng.normal(size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_loops_with_the_work_around_it(level: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for shapes in SHAPES:
        a, b = (normal(rng, *shape, dtype=dtype) for shape in shapes)
        steps = tj.trace(around, a, b).schedule.steps
        assert not any(isinstance(step, ContractionStep) for step in steps)
        for x in (a, np.asfortranarray(a), a[::-1]):
            got = tj.jit(around, compile="now")(x, b)
            wanted = around(x.astype("f8"), b.astype("f8"))
            assert got.dtype == a.dtype
            np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-5)


def test_batches_of_tiny_matrices_only_with_work_around_them(level: str) -> None:
    rng = np.random.default_rng(1)
    a, b = normal(rng, 200, 3, 3), normal(rng, 200, 3, 4)
    (step,) = tj.trace(np.matmul, a, b).schedule.steps
    assert isinstance(step, ContractionStep)
    (step,) = tj.trace(around, a, b).schedule.steps
    assert not isinstance(step, ContractionStep)
    np.testing.assert_allclose(tj.jit(around, compile="now")(a, b), around(a, b), atol=1e-5)


@pytest.mark.parametrize(
    "shapes",
    [((900, 5), (5, 3)), ((900, 3), (3, 9)), ((20, 3), (3, 3)), ((4, 4), (4, 300))],
    ids=str,
)
def test_other_products_keep_their_kernels(shapes: tuple[tuple[int, ...], ...]) -> None:
    a, b = (normal(np.random.default_rng(2), *shape) for shape in shapes)
    assert isinstance(tj.trace(np.matmul, a, b).schedule.steps[-1], ContractionStep)


def test_what_is_not_finite_goes_where_numpy_lets_it_go(level: str) -> None:
    a = np.zeros((200, 3), np.float32)
    a[[3, 50, 77], [0, 1, 2]] = np.nan, np.inf, -np.inf
    b = np.array([[1, 0, -1], [0, 2, 1], [1, 1, 0]], np.float32)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(tj.jit(np.matmul, compile="now")(a, b), a @ b)


def test_rows_may_vary_and_be_none() -> None:
    matrix = normal(np.random.default_rng(3), 3, 3)
    run = tj.jit(around, compile="now")
    for rows in (600, 700, 5000, 20, 1, 0):
        x = normal(np.random.default_rng(rows), rows, 3)
        np.testing.assert_allclose(run(x, matrix), around(x, matrix), atol=1e-5)
        assert rows < 2 or run.stats()["recompiles"] == 0
