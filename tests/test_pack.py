"""Lanes across short rows: where they are used, that they change no result, packed or gathered."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.schedule.kernel import SCRATCH, Kernel

Array = np.ndarray[Any, Any]


def nearest(points: Any, centres: Any) -> Any:
    return ((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=-1).argmin(axis=1)


def distance(points: Any, centres: Any) -> Any:
    return ((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=-1).min(axis=1)


def kernel(function: Callable[..., Any], *arguments: Array) -> Kernel:
    (found,) = tj.trace(function, *arguments).schedule.kernels
    return found


def points(*shapes: tuple[int, int], dtype: Any = np.float32) -> list[Array]:
    rng = np.random.default_rng(7)
    return [(4 * rng.standard_normal(shape)).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("count", [256, 257, 385, 1000])
@pytest.mark.parametrize("function", [nearest, distance])
def test_rows_read_by_many_are_packed(
    any_level: str, function: Callable[..., Any], count: int, dtype: Any
) -> None:
    arguments = points((count, 5), (9, 5), dtype=dtype)
    found = kernel(function, *arguments)
    assert found.packs
    assert found.vector_parallel == 0
    got = tj.jit(function, compile="now")(*arguments)
    np.testing.assert_allclose(got, function(*arguments), rtol=1e-5)


def all_distances(points: Any, centres: Any) -> Any:
    return np.sqrt(((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=-1))


def farthest_coordinate(points: Any, centres: Any) -> Any:
    return np.abs(points[..., :, None, :] - centres[..., None, :, :]).max(axis=-1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("count", [256, 257, 385, 700])
@pytest.mark.parametrize("function", [all_distances, farthest_coordinate])
def test_a_strip_is_packed_once_for_all_that_are_compared_with_it(
    any_level: str, function: Callable[..., Any], count: int, dtype: Any
) -> None:
    arguments = points((19, 7), (count, 7), dtype=dtype)
    found = kernel(function, *arguments)
    assert len(found.packs) == 1
    assert found.parallel == (found.vector_parallel,)  # the 19 are inside
    got = tj.jit(function, compile="now")(*arguments)
    np.testing.assert_allclose(got, function(*arguments), rtol=1e-5)


def test_a_strip_of_each_batch_is_packed(level: str) -> None:
    first, second = points((3 * 19, 7), (3 * 300, 7), dtype=np.float64)
    arguments = first.reshape(3, 19, 7), second.reshape(3, 300, 7)
    found = kernel(farthest_coordinate, *arguments)
    assert len(found.packs) == 1
    assert len(found.parallel) == 2
    got = tj.jit(farthest_coordinate, compile="now")(*arguments)
    np.testing.assert_array_equal(got, farthest_coordinate(*arguments))


def test_squares_are_written_once_for_strips_of_any_width(any_level: str) -> None:
    traced = tj.trace(nearest, *points((1000, 32), (64, 32)))
    text = traced.llvm()
    assert len(re.findall(r"^define .*@pack", text, re.MULTILINE)) == 1
    assert len(re.findall(r"call void @pack", text)) == 2  # wide strips, and single vectors


def test_a_packed_strip_is_bounded() -> None:
    for width in (8, 64, 100, 1000):
        found = kernel(nearest, *points((600, width), (9, width)))
        assert found.scratch <= 64 * 1024
        assert bool(found.packs) == (width <= 100)
        packed = [a for a in found.accesses if a.buffer == SCRATCH]
        assert len(packed) == len(found.packs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.bool_])
@pytest.mark.parametrize("op", ["sum", "max", "argmin", "any"])
@pytest.mark.parametrize("width", [5, 8, 16])
def test_short_rows_are_reduced_side_by_side(
    any_level: str, op: str, width: int, dtype: Any
) -> None:
    (x,) = points((300, width), dtype=dtype)
    x[17] = 0

    def reduce(x: Any) -> Any:
        return getattr(np, op)(x, axis=1)

    if width * x.itemsize <= 64 and op != "argmin":
        assert kernel(reduce, x).vector_parallel == 0
    got = tj.jit(reduce, compile="now")(x)
    np.testing.assert_allclose(got, reduce(x), rtol=1e-5, atol=1e-5)


def test_nan_and_infinities_in_packed_rows(level: str) -> None:
    x, y = points((300, 6), (10, 6))
    x[3, 2], x[100, 5], x[299, 0], x[5] = np.nan, np.inf, -np.inf, -0.0
    for function in (nearest, distance):
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(
                tj.jit(function, compile="now")(x, y)[[3, 100, 299]], function(x, y)[[3, 100, 299]]
            )


def test_packed_rows_give_the_same_bits_on_any_number_of_threads(level: str) -> None:
    arguments = points((8000, 32), (64, 32))
    f = tj.jit(distance, compile="now")
    many = f(*arguments)
    with tj.num_threads(1):
        np.testing.assert_array_equal(f(*arguments), many)


def test_strided_and_broadcast_rows(level: str) -> None:
    x, y = points((600, 14), (9, 7))
    for points_ in (x[::2, ::2], x[::-1, :7], np.broadcast_to(x[:1, :7], (600, 7))):
        got = tj.jit(nearest, compile="now")(points_, y)
        np.testing.assert_array_equal(got, nearest(points_, y))


def test_a_sum_is_taken_once_with_and_without_keepdims() -> None:
    (x,) = points((300, 40))
    found = kernel(lambda x: (x - x.mean(axis=0)) / x.var(axis=0), x)
    assert sum(len(nest.reduces) for nest in found.block.nests) == 2


# -- rows that are turned in registers -------------------------------------------------------------


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def standardise(x: Any) -> Any:
    d = x - x.mean(axis=-1, keepdims=True)
    return d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + 1), x.max(axis=-1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [2, 5, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48])
@pytest.mark.parametrize("program", [softmax, standardise])
def test_short_rows_of_results(
    any_level: str, program: Callable[..., Any], width: int, dtype: Any
) -> None:
    for count in (256, 257, 399):
        (x,) = points((count, width), dtype=dtype)
        x[7], x[3, 1], x[count - 1] = 0, np.inf, -300
        with np.errstate(all="ignore"):
            got, want = tj.jit(program, compile="now")(x), program(x)
        for g, w in zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]:
            np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)


def test_rows_of_results_are_turned_back(level: str) -> None:
    (x,) = points((1000, 10))
    found = kernel(softmax, x)
    assert found.vector_parallel == 0
    assert len(found.packs) == len(found.unpacks) == 1
    (place,) = (s.access for s in found.stores)
    assert found.unpacks[0][1] == place
    # One exponential an element: the strip keeps them.
    assert sum(len(nest.saves) for nest in found.block.nests) == 1
    # Long rows, few rows and rows in steps stay as they are.
    places = np.arange(600)
    assert not kernel(lambda table, places: softmax(table[places]), x, places).unpacks
    for other in (points((1000, 49))[0], x[:255], points((1000, 20))[0][:, ::2]):
        assert not kernel(softmax, other).unpacks


def test_batches_of_short_rows_and_what_is_broadcast(any_level: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, 300, 12)).astype(np.float32)
    scale, mask = x[0, 0] + 2, x > -1

    def program(x: Any, scale: Any, mask: Any) -> Any:
        return softmax(np.where(mask, x * scale, np.float32(-9)))

    got = tj.jit(program, compile="now")
    for view in (x, x[:, ::-1], x[:, :, ::-1], x.transpose(1, 0, 2), x[:, :280]):
        chosen = mask[: view.shape[0], : view.shape[1]]
        if chosen.shape != view.shape:
            chosen = np.ones(view.shape, bool)
        want = program(view, scale, chosen)
        np.testing.assert_allclose(got(view, scale, chosen), want, rtol=1e-5)


def test_short_rows_give_the_same_bits_on_any_number_of_threads(level: str) -> None:
    (x,) = points((50_000, 10))
    f = tj.jit(softmax, compile="now")
    many = f(x)
    with tj.num_threads(1):
        np.testing.assert_array_equal(f(x), many)


@pytest.mark.parametrize("op", ["argmin", "argmax"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8, np.bool_])
def test_positions_of_neutral_elements_and_nan(
    any_level: str, op: str, axis: int, dtype: Any
) -> None:
    """A row of nothing but what the search starts from has its extremum at 0; NaN wins, once."""
    lowest, highest = (np.inf, -np.inf) if np.dtype(dtype).kind == "f" else (0, 1)
    x = np.resize(np.array([3, 1, 2, 1, 3], dtype), (7, 301)).copy()
    x[:, 5], x[:, 17], x[2, 33] = lowest, highest, highest
    if np.dtype(dtype).kind == "f":
        x[3, 40], x[5, 40], x[:, 41] = np.nan, np.nan, np.nan
    elif np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        x[:, 50], x[:, 51], x[4] = info.min, info.max, info.max
    x = x if axis == 0 else np.ascontiguousarray(x.T)
    got = tj.jit(lambda x: getattr(np, op)(x, axis=axis), compile="now")(x)
    np.testing.assert_array_equal(got, getattr(np, op)(x, axis=axis))
