"""Reductions down columns: strips of columns in lanes, rows fetched ahead."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.schedule.grain import COLUMN_STEP, grain

COLUMNS = (1, 3, 15, 16, 17, 31, 33, 63, 64, 65, 97, 127, 129, 200)


def normalised(x: Any) -> Any:
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + x.dtype.type(1e-5)), x.sum(axis=0)


def extremes(x: Any) -> Any:
    return x.min(axis=0), x.max(axis=0), x.argmax(axis=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", COLUMNS)
def test_columns_of_any_number_have_numpys_moments(
    any_level: str, columns: int, dtype: Any
) -> None:
    # Whole numbers: every sum is exact, in any order.
    x = np.random.default_rng(columns).integers(-50, 50, (40, columns)).astype(dtype)
    run = tj.jit(normalised, compile="now")
    for got, wanted in zip(run(x), normalised(x), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(run(x)[1], x.sum(axis=0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
@pytest.mark.parametrize("columns", COLUMNS)
def test_columns_of_any_number_have_numpys_extremes(
    any_level: str, columns: int, dtype: Any
) -> None:
    x = np.random.default_rng(columns).integers(0, 120, (37, columns)).astype(dtype)
    if x.dtype.kind == "f":
        x[5, columns // 2] = np.nan
        x[7, 0] = -0.0
    run = tj.jit(extremes, compile="now")
    for got, wanted in zip(run(x), extremes(x), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("view", [np.s_[:, 1:], np.s_[::-1], np.s_[::3, :70], np.s_[:, ::2]])
def test_columns_of_views(any_level: str, view: Any) -> None:
    x = np.random.default_rng(0).integers(-50, 50, (90, 145)).astype(np.float32)[view]
    run = tj.jit(normalised, compile="now")
    for got, wanted in zip(run(x), normalised(x), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_rows_ahead_of_the_last_are_not_read(any_level: str) -> None:
    """Memory ends with the array's last row (or, walked backwards, begins with it)."""
    rows, columns = 32, mmap.PAGESIZE // 4
    memory = mmap.mmap(-1, rows * mmap.PAGESIZE)
    x = np.frombuffer(memory, np.float32).reshape(rows, columns)
    x[:] = np.arange(rows)[:, None]
    run = tj.jit(lambda x: x.sum(axis=0), compile="now")
    for array in (x, x[::-1]):
        np.testing.assert_array_equal(run(array), np.full(columns, rows * (rows - 1) / 2))


def test_chunks_are_whole_strips_and_threads_do_not_change_a_bit() -> None:
    x = np.random.default_rng(0).normal(size=(3000, 1000)).astype(np.float32)
    traced = tj.trace(normalised, x)
    (kernel,) = traced.schedule.kernels
    assert kernel.down_columns
    assert grain(kernel) == COLUMN_STEP
    run = tj.jit(normalised, compile="now")
    with tj.num_threads(1):
        alone = run(x)
    with tj.num_threads(2):
        shared = run(x)
    for one, two in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_strip_fetches_rows_ahead(any_level: str) -> None:
    x = np.ones((100, 200), np.float32)
    down = tj.trace(lambda x: x.sum(axis=0), x).asm()
    along = tj.trace(lambda x: x.sum(axis=1), x).asm()
    assert "prefetch" in down
    assert "prefetch" not in along
