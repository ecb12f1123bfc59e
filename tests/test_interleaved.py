"""Points of few coordinates, read by all: copied apart once, and the results stay the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.schedule.kernel import SCRATCH, Kernel

Array = np.ndarray[Any, Any]


def forces(points: Any, mass: Any) -> Any:
    d = points[..., None, :, :] - points[..., :, None, :]
    r2 = (d * d).sum(axis=-1) + 1e-2
    return (d * (mass / (r2 * np.sqrt(r2)))[..., None]).sum(axis=-2)


def distances(points: Any, mass: Any) -> Any:
    d = points[..., :, None, :] - points[..., None, :, :]
    return np.sqrt((d * d).sum(axis=-1)) * mass


def points(*shape: int, dtype: Any = np.float64) -> tuple[Array, Array]:
    rng = np.random.default_rng(8)
    return rng.normal(0, 9, shape).astype(dtype), rng.uniform(1, 2, shape[-2]).astype(dtype)


def kernel(function: Callable[..., Any], *arguments: Array) -> Kernel:
    (found,) = tj.trace(function, *arguments).schedule.kernels
    return found


def check(function: Callable[..., Any], *arguments: Array) -> None:
    got = tj.trace(function, *arguments)(*arguments)
    expected = function(*(a.astype(np.float64) for a in arguments))
    single = arguments[0].dtype == np.float32
    tolerance = 2e-5 if single else 1e-11
    scale = np.abs(expected, where=np.isfinite(expected), out=np.zeros_like(expected)).max(
        initial=1
    )
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [16, 17, 31, 32, 33, 63, 64, 65, 100, 259])
@pytest.mark.parametrize("function", [forces, distances])
@pytest.mark.parametrize("width", [2, 3, 4])
def test_coordinates_are_copied_apart(
    any_level: str, function: Callable[..., Any], count: int, width: int, dtype: Any
) -> None:
    arguments = points(count, width, dtype=dtype)
    found = kernel(function, *arguments)
    assert len(found.copies) == width
    assert sum(a.buffer == SCRATCH for a in found.accesses) == width
    check(function, *arguments)


def test_each_batch_is_copied_inside_its_loop(any_level: str) -> None:
    arguments = points(5, 40, 3)
    found = kernel(forces, *arguments)
    assert len(found.copies) == 3
    assert found.scratch == 3 * 40 * 8
    check(forces, *arguments)


@pytest.mark.parametrize("function", [forces, distances])
def test_copies_of_points_that_are_strided_themselves(
    level: str, function: Callable[..., Any]
) -> None:
    wide, mass = points(70, 6)
    check(function, wide[:, ::2], mass)
    check(function, wide[::-1, :3], mass)
    check(function, np.asfortranarray(wide[:, :3]), mass)  # contiguous along the lanes already
    assert not kernel(function, np.asfortranarray(wide[:, :3]), mass).copies


def test_special_values_stay_at_their_places(level: str) -> None:
    x, mass = points(50, 3)
    x[3, 0], x[17, 1], x[31, 2], x[49] = np.nan, np.inf, -np.inf, -0.0
    with np.errstate(all="ignore"):
        check(distances, x, mass)


def test_copies_are_bounded_and_need_many_readers() -> None:
    found = kernel(forces, *points(30_000, 3, dtype=np.float32))
    assert found.scratch <= 128 * 1024
    assert len(found.copies) == 1  # the others are gathered
    assert not kernel(forces, *points(15, 3)).copies
    check(forces, *points(3_000, 4))


def test_points_that_the_kernel_overwrites_are_read_in_place() -> None:
    x, mass = points(80, 3)
    expected = x + forces(x, mass)

    @tj.jit(compile="now")
    def step(x: Any, mass: Any) -> None:
        x += forces(x, mass)

    step(x, mass)
    np.testing.assert_allclose(x, expected, rtol=1e-11)


def test_threads_copy_for_themselves() -> None:
    arguments = points(1_000, 3)
    traced = tj.trace(forces, *arguments)
    with tj.num_threads(1):
        one = traced(*arguments)
    np.testing.assert_array_equal(traced(*arguments), one)


def test_the_number_of_points_may_vary() -> None:
    function = tj.jit(forces, compile="now")
    for count in (40, 41, 47, 130, 15, 2_100, 64, 1):
        x, mass = points(count, 3)
        np.testing.assert_allclose(
            function(x, mass), forces(x, mass), rtol=1e-10, atol=1e-10 * count
        )
