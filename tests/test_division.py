"""Division of integers by way of floats: exact at every edge, and where the divisor is fixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj

Array = np.ndarray[Any, Any]
TYPES = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def quotients(a: Any, d: Any) -> tuple[Any, ...]:
    return a // d, a % d, np.fmod(a, d)


def check(a: Array, d: Any) -> None:
    got = tj.jit(quotients, compile="now")(a, d)
    with np.errstate(all="ignore"):
        expected = quotients(a, d)
    for ours, numpys in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours, numpys)
        assert ours.dtype == numpys.dtype


def edges(dtype: str) -> Array:
    """Numbers around 0, the ends of the type, and what floats hold exactly."""
    info = np.iinfo(dtype)
    centres = [0, 1, 7, info.min, info.max, *(2**n for n in (8, 15, 16, 24, 31, 32, 48, 53, 62))]
    near = {s * c + k for c in centres for k in (-2, -1, 0, 1, 2) for s in (1, -1)}
    return np.array(sorted(n for n in near if info.min <= n <= info.max), dtype)


@pytest.mark.parametrize("dtype", ["i1", "u1"])
def test_every_pair_of_bytes(dtype: str, any_level: str) -> None:
    info = np.iinfo(dtype)
    every = np.arange(info.min, info.max + 1).astype(dtype)
    check(np.repeat(every, 256), np.tile(every, 256))


@pytest.mark.parametrize("dtype", TYPES)
def test_edges_against_each_other(dtype: str, any_level: str) -> None:
    near = edges(dtype)
    check(np.repeat(near, near.size), np.tile(near, near.size))


@pytest.mark.parametrize("dtype", TYPES)
def test_a_divisor_for_the_whole_loop(dtype: str, level: str) -> None:
    near = edges(dtype)
    for divisor in near:
        check(near, divisor)
    check(near[:, None], near[None, :])


@pytest.mark.parametrize("dtype", TYPES)
def test_multiples_and_their_neighbours(dtype: str, level: str) -> None:
    """Just below a whole number is where a rounded quotient would go wrong."""
    info, rng = np.iinfo(dtype), np.random.default_rng(9)
    scale = rng.uniform(0, np.log2(info.max), 20_000)
    d = np.exp2(scale).astype(dtype)
    top = np.array(info.max, dtype)
    multiple = (rng.integers(0, top, d.size, dtype, endpoint=True) // d) * d
    for offset in (-1, 0, 1):
        a = np.clip(multiple, 1, top - 1) + np.array(offset).astype(dtype)
        check(a, d)
        if info.min < 0:
            check(-a, d)
            check(a, -d)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [0, 1, 7, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129])
def test_tails(dtype: str, size: int, any_level: str) -> None:
    a = np.resize(edges(dtype)[::-1], size)
    d = np.resize(edges(dtype), size)
    check(a, d)
    check(a, np.array(3, dtype))
