"""Iterations that nothing changes any more: where kernels jump to their end, with the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.codegen.exits import exits
from tracejit.schedule.kernel import Kernel

Array = np.ndarray[Any, Any]
SIZES = (0, 1, 7, 16, 17, 63, 64, 65, 130, 1000)


def kernel(function: Any, *arguments: Array) -> Kernel:
    (found,) = tj.trace(function, *arguments).schedule.kernels
    return found


def escape(x: Any, y: Any) -> Any:
    """Points stay where they leave, and so does their count."""
    re, im, count = np.zeros_like(x), np.zeros_like(y), np.zeros_like(x)
    for _ in range(12):
        inside = re * re + im * im <= 4
        step = re * re - im * im + x, 2 * re * im + y
        re, im = np.where(inside, step[0], re), np.where(inside, step[1], im)
        count = count + inside.astype(x.dtype)
    return count


def halve(x: Any, y: Any) -> Any:
    """Done once the condition holds; two results, one of integers."""
    steps = np.zeros(x.shape, np.int32)
    for _ in range(20):
        done = np.abs(x) <= np.abs(y)
        x = np.where(done, x, x * 0.5)
        steps = np.where(done, steps, steps + 1)
    return x, steps


def newton(x: Any, y: Any) -> Any:
    """Square roots, to the precision that each element asks for."""
    root = x
    for _ in range(8):
        far = np.abs(root * root - x) > y
        root = np.where(far, 0.5 * (root + x / root), root)
    return root


def from_minus_zero(x: Any, y: Any) -> Any:
    """Adding 0 to -0 is a change, which must not be lost."""
    count = -np.abs(y)
    for _ in range(9):
        inside = x * x + 1 <= 4
        x = np.where(inside, x * 2 + 0.25, x)
        count = count + inside.astype(y.dtype)
    return count


PROGRAMS = [escape, halve, newton, from_minus_zero]


@pytest.mark.parametrize("function", [escape, halve, newton])
def test_iterations_have_exits(function: Any) -> None:
    x = np.ones(1000, np.float32)
    found = exits(kernel(function, x, x))
    assert len(found) >= 2
    assert all(exit.outcome == (function is halve) for exit in found)


def test_selections_that_do_not_follow_from_each_other_have_none() -> None:
    def clipped(x: Any, y: Any) -> Any:
        for i in range(20):
            x = np.where(x > i, x * y + x, x - y)
        return x

    x = np.ones(1000, np.float32)
    assert exits(kernel(clipped, x, x)) == []


def test_the_search_takes_a_bounded_number_of_exits() -> None:
    def long(x: Any, y: Any) -> Any:
        for _ in range(150):
            inside = x * x <= y
            x = np.where(inside, x * 2 + 1, x)
        return x

    x = np.ones(1000, np.float32)
    for each in tj.trace(long, x, x).schedule.kernels:
        assert len(exits(each)) <= 12


def arguments(dtype: str, count: int, spread: float) -> tuple[Array, Array]:
    rng = np.random.default_rng(count)
    x, y = (rng.normal(0, spread, count).astype(dtype) for _ in range(2))
    special = np.array([0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 5e-324, 1e30], dtype)
    for values in (x, y):
        values[3::5] = np.resize(special, values[3::5].shape)
    return x, y


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("function", PROGRAMS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_bits_are_those_of_all_steps(any_level: str, dtype: str, function: Any) -> None:
    compiled: Any = tj.jit(function, compile="now")
    for count in SIZES:
        for spread in (0.3, 30.0):  # most lanes stay to the end, and most leave early
            x, y = arguments(dtype, count, spread)
            expected = function(x, y)
            result = compiled(x, y)
            if not isinstance(expected, tuple):
                expected, result = (expected,), (result,)
            for ours, theirs in zip(result, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
                assert not (np.signbit(ours) ^ np.signbit(theirs))[~np.isnan(theirs)].any()


def test_lanes_that_leave_at_different_steps(any_level: str) -> None:
    x = np.linspace(-2.5, 1.5, 999, dtype=np.float32).reshape(27, 37)
    y = np.ascontiguousarray(x[::-1, ::-1]) * np.float32(0.7)
    compiled: Any = tj.jit(escape, compile="now")
    np.testing.assert_array_equal(compiled(x, y), escape(x, y))
    np.testing.assert_array_equal(compiled(x.T, y.T), escape(x.T, y.T))
    np.testing.assert_array_equal(compiled(x[:, ::2], y[0, ::2]), escape(x[:, ::2], y[0, ::2]))
