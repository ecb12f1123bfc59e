"""Arguments of jitted functions that are changed in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.errors import ValueArgumentError

A = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def test_assignments_reach_the_caller() -> None:
    def step(x: Any, y: Any) -> Any:
        x[1:-1] += y[1:-1] * 0.5
        x[0] = 7
        view = y[::2]
        view *= -1
        return x.sum()

    f = tj.jit(step)
    x, y = A.copy(), A[::-1].copy()
    expected_x, expected_y = x.copy(), y.copy()
    for _ in range(3):
        total, expected = f(x, y), step(expected_x, expected_y)
        np.testing.assert_allclose(total, expected, rtol=1e-5)
        np.testing.assert_allclose(x, expected_x, rtol=1e-6)
        np.testing.assert_allclose(y, expected_y, rtol=1e-6)
    assert f.stats()["compiles"] == 1


def test_a_swap_and_a_strided_target() -> None:
    def swap(x: Any, y: Any) -> None:
        old = x.copy()
        x[:] = y
        y[:] = old

    x, y = np.arange(4.0), np.arange(10.0, 18.0)[::2]
    assert tj.jit(swap)(x, y) is None
    np.testing.assert_array_equal(x, [10, 12, 14, 16])
    np.testing.assert_array_equal(y, [0, 1, 2, 3])


def test_an_argument_changed_and_returned_is_the_same_object() -> None:
    def fill(x: Any) -> Any:
        x[...] = 3
        return x

    x = A.copy()
    assert tj.jit(fill)(x) is x
    np.testing.assert_array_equal(x, np.full_like(A, 3))


def test_tensor_handles_move() -> None:
    def scale(x: Any) -> None:
        x *= 2

    x = tj.asarray(A.copy())
    view = x[0]
    tj.jit(scale)(x)
    np.testing.assert_array_equal(x.numpy(), A * 2)
    np.testing.assert_array_equal(view.numpy(), A[0] * 2)


def test_overlapping_arguments_run_in_numpy() -> None:
    def shift(x: Any, y: Any) -> None:
        x += y

    f = tj.jit(shift)
    x, y = np.arange(8.0), np.arange(8.0)
    f(x[1:], y[:-1])
    assert f.stats()["fallbacks"] == 0
    x, expected = np.arange(8.0), np.arange(8.0)
    f(x[1:], x[:-1])
    shift(expected[1:], expected[:-1])
    np.testing.assert_array_equal(x, expected)
    f(x, x)
    assert f.stats()["fallbacks"] == 2


def test_read_only_arguments_are_refused() -> None:
    def fill(x: Any) -> None:
        x[0] = 1

    x = np.arange(4, dtype=np.float32)
    x.flags.writeable = False
    with pytest.raises(ValueArgumentError, match="read-only"):
        tj.jit(fill)(x)


def test_zero_d_results_are_scalars_to_in_place_operators() -> None:
    """Regression: ``total += 1`` changed every name that held the sum."""

    @tj.jit
    def function(x: Any) -> Any:
        total = x.sum()
        before = total
        total += 1
        return before, total

    x = np.arange(4.0)
    assert function(x) == (6.0, 7.0)


def test_zero_d_arguments_change_in_place() -> None:
    @tj.jit
    def function(x: Any) -> Any:
        x += 1
        x += 2
        return x * 2

    x = np.array(1.0)
    assert function(x) == 8.0
    assert x == 4.0
