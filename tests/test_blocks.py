"""Reductions down columns by blocks of rows: partial results, squares about a mean, last rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.ops.table import Array
from tracejit.schedule import blocks

ROWS = (128, 144, 145, 257)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take small arrays by blocks too, of 32 rows each."""
    monkeypatch.setattr(blocks, "LEAST_BYTES", 0)
    monkeypatch.setattr(blocks, "DEEP_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 0)
    monkeypatch.setattr(blocks, "STRIP_ROWS", 0)


def moments(x: Any) -> Any:
    """Return rows, and results of columns."""
    mean, variance = x.mean(axis=0), x.var(axis=0)
    return (x - mean) / np.sqrt(variance + x.dtype.type(1e-5)), mean, variance, x.sum(axis=0)


def compute(function: Any, x: Array, *, kernels: int) -> Any:
    assert len(tj.trace(function, x).schedule.kernels) == kernels
    run: Any = tj.jit(function, compile="now")
    return run(x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [5, 16, 17, 63, 64, 65, 97, 200])
def test_moments_of_columns(any_level: str, columns: int, dtype: Any) -> None:
    # Whole numbers: every sum is exact, in any order.
    for rows in ROWS:
        rng = np.random.default_rng(rows)
        x = rng.integers(-50, 50, (rows, columns)).astype(dtype)
        got = compute(moments, x, kernels=3)
        for mine, wanted in zip(got, moments(x), strict=True):
            np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(got[3], x.sum(axis=0))


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "any", "all"])
@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8, bool])
def test_partial_results_combine(any_level: str, name: str, dtype: Any) -> None:
    x = np.random.default_rng(1).integers(0, 3, (150, 70)).astype(dtype)
    if x.dtype.kind == "f":
        x[:, 3], x[5, 7], x[149, 9], x[:, 11] = -0.0, np.nan, np.inf, -np.inf
        x = np.maximum(x, 1) if name == "prod" else x
    with np.errstate(all="ignore"):
        wanted = getattr(x, name)(axis=0)
        got = compute(lambda x: getattr(x, name)(axis=0), x, kernels=2)
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)
    if wanted.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(got), np.signbit(wanted))


@pytest.mark.parametrize("view", [np.s_[:, 1:], np.s_[::-1], np.s_[::3, :70], np.s_[:, ::-1]])
def test_views_and_broadcast_rows(any_level: str, view: Any) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(600, 145)).astype(np.float32)[view]
    weight = rng.normal(size=x.shape[0]).astype(np.float32)[:, None]

    def weighted(x: Any, weight: Any) -> Any:
        y = x * weight
        return y - y.mean(axis=0), ((y - 1) ** 2).sum(axis=0), (x + x).std(axis=0)

    got = tj.jit(weighted, compile="now")(x, weight)
    for mine, wanted in zip(got, weighted(x, weight), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=2e-5, atol=1e-5)


def test_batches_and_leading_axes(any_level: str) -> None:
    x = np.random.default_rng(3).normal(size=(3, 130, 2, 40)).astype(np.float32)
    for axis in (1, (0, 1), (0, 1, 2)):
        run = tj.jit(lambda x, axis=axis: x - x.mean(axis=axis, keepdims=True), compile="now")
        np.testing.assert_allclose(run(x), x - x.mean(axis=axis, keepdims=True), atol=1e-5)
        std = tj.jit(lambda x, axis=axis: x.std(axis=axis), compile="now")
        np.testing.assert_allclose(std(x), x.std(axis=axis), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 1, 1e3, 1e6])
@pytest.mark.parametrize("order", ["as it is", "sorted", "one step"])
def test_variance_is_more_exact_than_numpys(dtype: Any, offset: float, order: str) -> None:
    x = (np.random.default_rng(4).normal(size=(5000, 20)) + offset).astype(dtype)
    if order == "sorted":  # blocks are far from the mean of all
        x.sort(axis=0)
    elif order == "one step":  # the first ones say nothing of the last
        x[4000:] += dtype(1e3)
    wanted = x.astype(np.longdouble).var(axis=0)
    mine = compute(lambda x: x.var(axis=0), x, kernels=2)
    error, numpys = abs(mine / wanted - 1).max(), abs(x.var(axis=0) / wanted - 1).max()
    # The mean is rounded: the squares are about that, as in NumPy's.
    rounded = (float(abs(x).max()) * np.finfo(dtype).eps) ** 2 / float(wanted.min())
    assert error <= max(8 * np.finfo(dtype).eps, rounded)
    assert error <= max(numpys, 4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 1e-45, 1e30])
def test_special_values_spoil_their_column_only(any_level: str, value: float) -> None:
    x = np.random.default_rng(5).normal(size=(200, 33)).astype(np.float32)
    x[40, 3] = x[199, 5] = value
    x[:, 7] = value
    with np.errstate(all="ignore"):
        wanted = x.mean(axis=0), x.var(axis=0)
        got = compute(lambda x: (x.mean(axis=0), x.var(axis=0)), x, kernels=2)
    for mine, numpys in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine, numpys, rtol=1e-5, atol=1e-30)


def test_squares_about_something_else_than_the_mean(any_level: str) -> None:
    x = np.random.default_rng(6).normal(size=(300, 50)).astype(np.float32)

    def about(x: Any) -> Any:
        return ((x - x.max(axis=0)) ** 2).sum(axis=0), ((x.min(axis=0) - x) ** 2).mean(axis=0)

    for mine, wanted in zip(compute(about, x, kernels=2), about(x), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-5)


def test_what_does_not_combine_stays_whole() -> None:
    x = np.random.default_rng(7).normal(size=(300, 50)).astype(np.float32)
    compute(lambda x: x.argmax(axis=0), x, kernels=1)
    compute(lambda x: (abs(x - x.mean(axis=0)) ** 3).sum(axis=0), x, kernels=1)
    compute(lambda x: x.sum(axis=0), x[:120], kernels=1)


def test_threads_do_not_change_a_bit() -> None:
    x = np.random.default_rng(8).normal(size=(6000, 130)).astype(np.float32)
    run = tj.jit(moments, compile="now")
    found: set[bytes] = set()
    for threads in (1, 2, 3):
        with tj.num_threads(threads):
            found.add(b"".join(part.tobytes() for part in run(x)))
    assert len(found) == 1


def test_sizes_that_vary_share_kernels() -> None:
    run = tj.jit(moments, compile="now")
    rng = np.random.default_rng(9)
    for rows in (400, 500, 401, 447, 448, 449, 640, 1000, 129):
        x = rng.normal(size=(rows, 40)).astype(np.float32)
        for mine, wanted in zip(run(x), moments(x), strict=True):
            np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-5)
    assert run.stats()["recompiles"] <= 1
