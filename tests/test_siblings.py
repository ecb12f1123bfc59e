"""Values that no kernel reads together share a kernel where they read the same memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.schedule.kernel import Reduce

Results = tuple[Any, ...]


def statistics(axis: int | None) -> Callable[[Any], Results]:
    return lambda x: (x.min(axis), x.max(axis), x.mean(axis))


@pytest.mark.parametrize(
    ("function", "kernels"),
    [
        (lambda x: (np.sin(x), np.cos(x)), 1),
        (lambda x: (np.sin(x), (x * 2).max(1), x.min(1)), 2),
        (statistics(0), 1),
        (statistics(1), 1),
        (statistics(None), 1),
        (lambda x: (x.mean(0), x.var(0)), 1),
        (lambda x: (x[:100].sum(1), x[100:].sum(1)), 2),  # other memory
        (lambda x: (x.sum(0), x.sum(1)), 2),  # other loops
    ],
)
def test_siblings_share_a_kernel(
    function: Callable[[Any], Results], kernels: int, any_level: str
) -> None:
    x = np.random.default_rng(0).normal(size=(301, 307)).astype(np.float32)
    with tj.isa(any_level):
        traced = tj.trace(function, x)
        results = traced(x)
    assert len(traced.schedule.steps) == kernels
    for result, expected in zip(results, function(x), strict=True):
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5)


def test_a_sibling_that_a_kernel_between_reads_stays_before_it() -> None:
    def function(x: Any) -> Results:
        first = np.exp(x)
        product = first @ first.T
        return np.log(x), np.sqrt(np.abs(product @ first)), first

    x = np.random.default_rng(1).uniform(0.5, 1.5, size=(40, 40))
    traced = tj.trace(function, x)
    for result, expected in zip(traced(x), function(x), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-12)
    # exp and log in one kernel, and two products, one of which takes the root.
    assert len(traced.schedule.steps) == 3


def test_two_prices_compute_their_common_part_once() -> None:
    n = 1000
    spot, strike, years = np.random.default_rng(2).uniform(1, 2, size=(3, n))
    traced = tj.kernels.black_scholes.trace(spot, strike, years, 0.03, 0.2)
    (kernel,) = traced.schedule.kernels
    assert len(kernel.stores) == 2
    assert kernel.labels.count("log") == kernel.labels.count("exp") == 1
    assert traced.schedule.arena.nbytes == 0


def test_a_reduction_under_two_shapes_is_taken_once() -> None:
    def function(x: Any) -> Results:
        return x.mean(0), x.var(0)

    x = np.random.default_rng(3).normal(size=(50, 60))
    traced = tj.trace(function, x)
    (kernel,) = traced.schedule.kernels
    assert sum(isinstance(e, Reduce) for e in kernel.exprs) == 2
    for result, expected in zip(traced(x), function(x), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-14)


def test_sums_over_pairs_share_what_is_generated_for_each_pair(any_level: str) -> None:
    def pull(x: Any, y: Any, mass: Any) -> Results:
        dx, dy = x - x[:, None], y - y[:, None]
        r2 = dx * dx + dy * dy + 1e-2
        weight = mass / (r2 * np.sqrt(r2))
        return (weight * dx).sum(1), (weight * dy).sum(1)

    x, y, mass = np.random.default_rng(4).normal(size=(3, 307))
    with tj.isa(any_level):
        traced = tj.trace(pull, x, y, mass)
        results = traced(x, y, mass)
    assert len(traced.schedule.steps) == 1
    assert traced.schedule.arena.nbytes == 0  # the weights of all pairs are not stored
    for result, expected in zip(results, pull(x, y, mass), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-11)


def test_forces_and_energies_of_points_are_one_kernel(any_level: str) -> None:
    def pull(points: Any, mass: Any) -> Results:
        d = points - points[:, None]
        r2 = (d * d).sum(-1) + 1e-2
        weight = mass / (r2 * np.sqrt(r2))
        return (weight[..., None] * d).sum(1), (mass / np.sqrt(r2)).sum(1)

    rng = np.random.default_rng(5)
    points, mass = rng.normal(size=(203, 3)), rng.uniform(1, 2, 203)
    for function in (pull, lambda p, m: pull(p, m)[::-1]):
        with tj.isa(any_level):
            traced = tj.trace(function, points, mass)
            results = traced(points, mass)
        assert len(traced.schedule.steps) == 1
        assert traced.schedule.arena.nbytes == 0
        for result, expected in zip(results, function(points, mass), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-10)


def test_rows_of_coordinates_that_differ_in_number_stay_apart(level: str) -> None:
    def function(points: Any) -> Results:
        d = points - points[:, None]
        return (d * d[..., :1]).sum(1), d.sum(1)[:, :2] * 1.0, (d[..., :2] * 2).sum(1)

    points = np.random.default_rng(6).normal(size=(40, 3))
    results = tj.trace(function, points)(points)
    for result, expected in zip(results, function(points), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("op", ["sum", "max", "min", "any"])
def test_the_energy_of_all_pairs_does_not_store_them(op: str, any_level: str) -> None:
    def energy(points: Any) -> Any:
        d = points - points[:, None]
        return getattr(np, op)(np.sqrt((d * d).sum(-1)) > 1 if op == "any" else (d * d).sum(-1))

    points = np.random.default_rng(7).normal(size=(500, 3))
    with tj.isa(any_level):
        traced = tj.trace(energy, points)
        result = traced(points)
    assert traced.schedule.arena.nbytes < 500 * 16
    np.testing.assert_allclose(result, energy(points), rtol=1e-12)
