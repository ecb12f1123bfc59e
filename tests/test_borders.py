"""Updates and padding of grids: the borders are stored by the kernel of the inside."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

import tracejit as tj

SIZES = (3, 65, 66, 67, 80, 81, 97, 200)


def sweep(u: Any) -> Any:
    v = u.copy()
    v[1:-1, 1:-1] = 0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:])
    return v


def padded(u: Any) -> Any:
    return np.pad(u * 2, ((1, 1), (1, 1)), constant_values=-1)


def shifted(u: Any) -> Any:
    v = u.copy()
    v[:, 1:] = u[:, :-1] + 1
    return v


def wide(u: Any) -> Any:
    v = u.copy()
    v[:, 2:-2] = 7
    return v


def every_other(u: Any) -> Any:
    v = u.copy()
    v[::2, ::2] = u[::2, ::2] * 3
    return v


def transposed(u: Any) -> Any:
    v = u.copy()
    v[1:-1, 1:-1] = u.T[1:-1, 1:-1]
    return v


def wrapped(u: Any) -> Any:
    return np.concatenate([u[:, -1:], np.exp(u), u[:, :1]], axis=1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "function", [sweep, padded, shifted, wide, every_other, transposed, wrapped]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_updates_with_borders(any_level: str, function: Any, size: int, dtype: Any) -> None:
    u = np.random.default_rng(size).normal(size=(size, size)).astype(dtype)
    for x in cast(list[Any], [u, u[::-1], np.asfortranarray(u)]):
        got: Any = tj.jit(function, compile="now")(x)
        if function is wrapped:
            np.testing.assert_allclose(got, function(x), rtol=1e-6)
        else:
            np.testing.assert_array_equal(got, function(x))


def test_the_columns_of_a_border_take_no_kernels() -> None:
    u = np.random.default_rng(0).normal(size=(100, 130))
    kernels = tj.trace(sweep, u).schedule.kernels
    assert [len(k.stores) for k in kernels] == [1, 1, 3]
    assert [k.parallel for k in kernels] == [(0,)] * 3
    assert len(tj.trace(padded, u).schedule.kernels) == 3


def test_many_sweeps_have_the_same_three_kernels() -> None:
    def sweeps(u: Any) -> Any:
        for _ in range(30):
            u = sweep(u)
        return u

    u = np.random.default_rng(0).normal(size=(100, 130))
    kernels = tj.trace(sweeps, u).schedule.kernels
    assert len(kernels) == 90
    assert len({k.key for k in kernels}) <= 4
    np.testing.assert_array_equal(tj.jit(sweeps, compile="now")(u), sweeps(u))


def test_a_border_that_is_read_in_between_keeps_its_kernel() -> None:
    def run(u: Any) -> Any:
        v = u.copy()
        v[:, 0] = 5
        w = v.copy()
        w[:, 1:] = u[:, 1:] * v[:, :1]
        return v, w

    u = np.random.default_rng(0).normal(size=(100, 130))
    for got, wanted in zip(tj.jit(run, compile="now")(u), run(u), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_large_regions_with_borders_are_streamed_right() -> None:
    u = np.random.default_rng(0).normal(size=(2100, 2101)).astype(np.float32)
    np.testing.assert_array_equal(tj.jit(sweep, compile="now")(u), sweep(u))
