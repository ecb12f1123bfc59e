"""A value that is stored by itself and as a region of something larger is stored once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.schedule.schedule import Schedule, touched


def heat(u: Any) -> Any:
    for _ in range(3):
        u = u.copy()
        u[1:-1, 1:-1] += 0.125 * (u[:-2, 1:-1] + u[2:, 1:-1] - 2 * u[1:-1, 1:-1])
    return u


def rod(u: Any) -> Any:
    for _ in range(3):
        u = u.copy()
        u[1:-1] += 0.125 * (u[:-2] - 2 * u[1:-1] + u[2:])
    return u


def summed(u: Any) -> Any:
    """The reader walks all of the inside as one: that is no loop over a region."""
    v = u.copy()
    v[1:-1, 1:-1] = np.tanh(u[:-2, 1:-1] * u[2:, 1:-1])
    return v, v[1:-1, 1:-1].sum(), v[1:-1, 1:-1].reshape(-1)[::2] + 1


def partly(u: Any) -> Any:
    v = u.copy()
    v[1:-1, 1:-1] = np.tanh(u[:-2, 1:-1] * u[2:, 1:-1])
    inside = v[1:-1, 1:-1]
    return v, inside[2:] - inside[:-2], np.exp(inside[:, ::-1] + inside[::-1])


def overwritten(u: Any) -> Any:
    v = u.copy()
    v[1:-1, 1:-1] = np.tanh(u[:-2, 1:-1] * u[2:, 1:-1])
    inside = v[1:-1, 1:-1].copy()
    v[3:9, 3:9] = 7
    return v, inside[2:] - inside[:-2], inside[:, 1:] * v[1:-1, 2:-1]


def turned(u: Any) -> Any:
    v = np.pad(np.exp(u), 1)
    w = v[1:-1, 1:-1]
    return v[2:, 2:] + v[:-2, :-2], w.T @ w, w.T + 1


def buffers(schedule: Schedule) -> set[int]:
    return set().union(*map(touched, schedule.steps))


@pytest.mark.parametrize("function", [heat, rod, summed, partly, overwritten, turned])
@pytest.mark.parametrize("size", [3, 4, 17, 70])
def test_values_of_regions_are_right(function: Any, size: int) -> None:
    shape = (size,) if function is rod else (size, size + 3)
    u = np.random.default_rng(size).normal(size=shape)
    if function is overwritten and size < 17:
        return
    compiled: Any = tj.jit(function, compile="now")
    got, expected = compiled(u), function(u)
    for a, b in zip(*(r if type(r) is tuple else (r,) for r in (got, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("function", [heat, rod])
def test_each_sweep_stores_one_grid(function: Any) -> None:
    u = np.zeros((100,) if function is rod else (100, 90))
    schedule = tj.trace(function, u).schedule
    assert len(buffers(schedule)) == 4  # the argument, two grids between, the result
    inside = [k for k in schedule.kernels if k.labels]
    assert len(inside) == 3
    assert all(len({k.accesses[s.access].buffer for s in k.stores}) == 1 for k in inside)


def test_a_region_serves_any_size() -> None:
    compiled = tj.jit(heat, compile="now")
    for n, m in ((70, 80), (71, 90), (100, 66), (80, 67), (2, 70), (70, 2), (0, 5), (3, 3)):
        u = np.random.default_rng(n).normal(size=(n, m))
        np.testing.assert_allclose(compiled(u), heat(u), rtol=1e-12, atol=1e-12)
