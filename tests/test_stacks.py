"""Work on a stack that nobody needs as a whole is done on its parts: bits, and what is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.graph.passes import canonicalise

Function = Callable[[Any], Any]
MOVES = [(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)]


def lattice(f: Any) -> Any:
    """Populations move, and relax to an equilibrium that is stacked too."""
    f = np.stack([np.roll(f[i], move, (0, 1)) for i, move in enumerate(MOVES)])
    density = f.sum(0)
    across, along = (f[1] - f[3]) / density, (f[2] - f[4]) / density
    rest = np.stack([density * (1 + 3 * (x * across + y * along)) / 5 for x, y in MOVES])
    return f + 0.5 * (rest - f)


def in_place(f: Any) -> Any:
    f = f.copy()
    for i, move in enumerate(MOVES):
        f[i] = np.roll(f[i], move, (0, 1))
    mean = f.mean(0)
    for i in range(len(MOVES)):
        f[i] += 0.25 * (mean - f[i])
    return f


def reduced(f: Any) -> Any:
    parts = np.stack([f[0], f[1] * 2, f[2] - f[3]])
    return parts.sum(0), parts.max(0), parts.prod(0), (parts > 1).any(0), (parts > 1).all(0)


def broadcast(f: Any) -> Any:
    parts = np.stack([f[0], f[1]]) * np.array([2.0, 3.0])[:, None, None] + f[2]
    return np.where(parts > f[3:], parts, f[4]), np.stack([f[0, 0], f[0, 1]]) * f[0, 2]


def last(f: Any) -> Any:
    return np.stack([f[0], f[1], f[2]], -1) * f[3][..., None] + 1


def whole(f: Any) -> Any:
    parts = np.stack([np.exp(f[0]), f[1]])
    return parts, parts * 2, np.stack([f[2], f[3]]).argmax(0), np.stack([f[2], f[3]]).sum((0, 1))


PROGRAMS = [lattice, in_place, reduced, broadcast, last, whole]


@pytest.mark.parametrize("function", PROGRAMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_are_numpys(function: Function, dtype: type, level: str) -> None:
    rng = np.random.default_rng(1)
    for shape in ((5, 4, 5), (5, 17, 33)):
        f = rng.uniform(1, 2, shape).astype(dtype)
        got, expected = tj.trace(function, f)(f), function(f)
        for a, b in zip(*(r if type(r) is tuple else (r,) for r in (got, expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5 if dtype is np.float32 else 1e-13)


def test_integers_are_summed_as_wide_ones() -> None:
    x = np.full((3, 40), 100, np.int8)
    traced = tj.trace(lambda x: np.stack([x[0], x[1], x[2] + 1]).sum(0), x)
    np.testing.assert_array_equal(traced(x), np.full(40, 301))


@pytest.mark.parametrize("function", [lattice, in_place])
def test_a_step_of_a_lattice_is_one_kernel(function: Function) -> None:
    schedule = tj.trace(function, np.ones((5, 40, 50))).schedule
    assert len(schedule.kernels) == len(schedule.steps) == 1
    assert {a.buffer for a in schedule.kernels[0].accesses} == {0, 1}


def test_a_stack_that_is_needed_as_a_whole_stays_one() -> None:
    f = np.ones((5, 8, 9))
    graph = canonicalise(tj.trace(whole, f).source, verify=True)
    assert sum(n.op.name == "multiply" for n in graph.nodes) == 1
    graph = canonicalise(tj.trace(lattice, f).source, verify=True)
    assert sum(n.op.name == "concat" for n in graph.nodes) == 1
