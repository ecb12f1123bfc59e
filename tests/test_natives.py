"""Ops of integers and of the parts of floats run in kernels, with NumPy's answers and errors."""

from __future__ import annotations

import numpy as np
import pytest
from natively import native
from op_samples import INTEGERS, ordinary, specials, varied

import tracejit as tj
from tracejit.ops.table import Array


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_pair_of_special_integers(dtype: str, any_level: str) -> None:
    edges = specials(np.dtype(dtype))
    x, y = (a.ravel() for a in np.meshgrid(edges, edges))
    natural = np.where(y < 0, 5, y)
    for f, other in ((np.gcd, y), (np.lcm, y), (np.power, natural)):
        np.testing.assert_array_equal(native(f, x, other), f(x, other), err_msg=f.__name__)


def test_negative_exponents_raise_as_numpy_does(level: str) -> None:
    x, n = np.arange(100), np.arange(100) - 1

    @tj.jit
    def power(x: Array, n: Array) -> Array:
        return x**n

    np.testing.assert_array_equal(power(x, n + 1), x ** (n + 1))
    for exponents in (n, np.array(-2)):
        with pytest.raises(ValueError, match="negative integer powers"):
            power(x, exponents)
    np.testing.assert_array_equal(power(x, n + 2), x ** (n + 2))
    with pytest.raises(ValueError, match="negative integer powers"):
        tj.jit(lambda x: x ** np.int64(-3))(x)


def test_powers_of_products_are_checked_in_a_kernel_of_their_own(level: str) -> None:
    rng = np.random.default_rng(1)
    a, c = ordinary(np.dtype(np.int64), (9, 7), rng), ordinary(np.dtype(np.int64), (7, 5), rng)
    np.testing.assert_array_equal(
        native(lambda a, c: np.power(3, abs(a @ c) % 40), a, c), np.power(3, abs(a @ c) % 40)
    )


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_taken_apart_and_put_together(dtype: str, any_level: str) -> None:
    x = varied(np.dtype(dtype), 500, np.random.default_rng(2))
    limit = 330 if dtype == "float32" else 2300
    for n in (0, 1, -1, 17, limit, -limit, 1 << 30, -(1 << 30)):
        exponents = np.full(x.shape, n) + np.arange(x.size) % 5
        np.testing.assert_array_equal(
            native(np.ldexp, x, exponents), np.ldexp(x, exponents), err_msg=str(n)
        )
    for part in (0, 1):
        np.testing.assert_array_equal(
            native(lambda x, p=part: tj.frexp(x)[p], x), np.frexp(x)[part]
        )
    np.testing.assert_array_equal(native(np.spacing, x), np.spacing(x))


@pytest.mark.parametrize("dtype", ["bool", *INTEGERS])
def test_products_of_all_integers(dtype: str, level: str) -> None:
    rng = np.random.default_rng(3)
    for m, k, n in [(1, 5, 3), (7, 9, 8), (17, 40, 33)]:
        x, y = varied(np.dtype(dtype), m * k, rng), varied(np.dtype(dtype), k * n, rng)
        x, y = x.reshape(m, k), y.reshape(k, n)
        np.testing.assert_array_equal(native(np.matmul, x, y), x @ y)


@pytest.mark.parametrize("dtype", ["bool", "uint64", "int32", "float16", "float64"])
def test_searches_in_sorted_tables(dtype: str, level: str) -> None:
    rng = np.random.default_rng(4)
    for n in (1, 3, 8, 100):
        edges = specials(np.dtype(dtype)) if dtype != "float16" else np.array([0, 1, np.nan], dtype)
        table = np.sort(np.concatenate([edges, ordinary(np.dtype(dtype), n, rng)])[:n])
        v = np.concatenate([edges, table, ordinary(np.dtype(dtype), 20, rng)])
        for side in ("left", "right"):
            got = native(lambda t, v, s=side: tj.searchsorted(t, v, side=s), table, v)
            np.testing.assert_array_equal(got, np.searchsorted(table, v, side=side))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_interpolation_is_that_of_numpy(level: str) -> None:
    rng = np.random.default_rng(5)
    for n in (1, 2, 17):
        points, values = np.sort(rng.standard_normal(n)), rng.standard_normal(n)
        x = np.concatenate([rng.standard_normal(50) * 2, points, [np.nan, np.inf, -np.inf]])
        np.testing.assert_array_equal(
            native(np.interp, x, points, values), np.interp(x, points, values)
        )
    points, x = np.array([0.0, 1, 1, 2, 3]), np.linspace(-1, 4, 41)
    for values in ([1.0, 2, 3, np.inf, np.inf], [np.nan, 0, 0, -np.inf, np.inf]):
        np.testing.assert_array_equal(
            native(np.interp, x, points, np.array(values)), np.interp(x, points, values)
        )
