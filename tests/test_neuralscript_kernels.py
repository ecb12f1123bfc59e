"""The shipped kernels against float64 NumPy references, and the digits program."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit.frontend.neuralscript as ns
from tracejit.errors import ArgumentError, DTypeError, ShapeError
from tracejit.tensor import Tensor

Array = np.ndarray[Any, Any]
ERF = np.vectorize(math.erf, otypes=[np.float64])
TOLERANCE = {np.dtype(np.float32): 3e-6, np.dtype(np.float64): 1e-13}


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1, keepdims=True)
    return centred / np.sqrt(variance + 1e-5) * weight + bias


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + ERF(x / math.sqrt(2)))


def attention(q: Array, k: Array, v: Array) -> Array:
    return softmax(q @ k.T / math.sqrt(q.shape[1])) @ v


def pairwise_distance(a: Array, b: Array) -> Array:
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1))


def black_scholes(s: Array, k: Array, t: Array, r: float, v: float) -> tuple[Array, Array]:
    def cdf(x: Array) -> Array:
        return 0.5 * (1 + ERF(x / math.sqrt(2)))

    spread = v * np.sqrt(t)
    first = (np.log(s / k) + (r + v * v / 2) * t) / spread
    second = first - spread
    paid = k * np.exp(-r * t)
    return s * cdf(first) - paid * cdf(second), paid * cdf(-second) - s * cdf(-first)


def jacobi(grid: Array, sweeps: int = 4) -> Array:
    u = grid.copy()
    for _ in range(sweeps):
        u[1:-1, 1:-1] = 0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:])
    return u


def mandelbrot(x: Array, y: Array, steps: int = 20) -> Array:
    c = x + 1j * y
    z, count = np.zeros_like(c), np.zeros_like(x)
    for _ in range(steps):
        inside = np.real(z) ** 2 + np.imag(z) ** 2 <= 4
        z = np.where(inside, z * z + c, z)
        count += inside
    return count


def normal(*shape: int) -> Callable[[np.random.Generator], Array]:
    return lambda rng: rng.standard_normal(shape)


def positive(*shape: int) -> Callable[[np.random.Generator], Array]:
    return lambda rng: rng.uniform(0.5, 2.0, shape)


def grid(axis: int) -> Callable[[np.random.Generator], Array]:
    # Multiples of 1/8 are exact in float32, so that no point changes sides by rounding.
    points = np.meshgrid(np.arange(-16, 9) / 8, np.arange(-8, 9) / 8)
    return lambda rng: points[axis]


CASES: list[Any] = [
    ("softmax", softmax, (normal(33, 17),)),
    ("softmax", softmax, (normal(1, 1),)),
    ("softmax", softmax, (lambda rng: 1e4 * rng.standard_normal((5, 64)),)),
    ("layer_norm", layer_norm, (normal(31, 16), normal(16), normal(16))),
    ("gelu", gelu, (normal(1000),)),
    ("gelu", gelu, (normal(3, 4, 5),)),
    ("attention", attention, (normal(9, 8), normal(17, 8), normal(17, 5))),
    ("pairwise_distance", pairwise_distance, (normal(15, 7), normal(33, 7))),
    ("jacobi", jacobi, (normal(9, 33),)),
    ("jacobi", jacobi, (normal(3, 3),)),
    ("mandelbrot", mandelbrot, (grid(0), grid(1))),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "reference", "makers"), CASES)
def test_kernel(name: str, reference: Callable[..., Array], makers: Any, dtype: Any) -> None:
    rng = np.random.default_rng(7)
    given = [maker(rng).astype(dtype) for maker in makers]
    before = [array.copy() for array in given]
    found = getattr(ns.kernels, name)(*given)
    expected = reference(*[array.astype(np.float64) for array in given])
    assert type(found) is np.ndarray
    assert found.dtype == dtype
    tolerance = TOLERANCE[np.dtype(dtype)]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=4 * tolerance)
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_black_scholes(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    spot, strike, years = (positive(100)(rng).astype(dtype) for _ in range(3))
    call, put = ns.kernels.black_scholes(spot, strike, years, 0.05, 0.2)
    exact = [a.astype(np.float64) for a in (spot, strike, years)]
    wanted = black_scholes(exact[0], exact[1], exact[2], 0.05, 0.2)
    for found, expected in zip((call, put), wanted, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, atol=20 * TOLERANCE[np.dtype(dtype)])


def test_defaults_and_named_arguments() -> None:
    u = np.random.default_rng(0).standard_normal((6, 7))
    np.testing.assert_allclose(ns.kernels.jacobi(u, sweeps=9), jacobi(u, 9))
    np.testing.assert_allclose(ns.kernels.jacobi(grid=u, sweeps=0), u)
    x = np.random.default_rng(0).standard_normal((4, 5))
    ones, zeros = np.ones(5), np.zeros(5)
    centred = x - x.mean(1, keepdims=True)
    expected = centred / np.sqrt(x.var(1, keepdims=True) + 0.5)
    np.testing.assert_allclose(ns.kernels.layer_norm(x, ones, zeros, 0.5), expected)


def test_a_kernel_is_like_any_jitted_function() -> None:
    module = ns.load(ns.kernels_path() / "softmax.ns")
    x = np.random.default_rng(0).standard_normal((4, 5))
    module.softmax(x)
    module.softmax(x + 1)
    stats = module.softmax.stats()
    assert (stats["calls"], stats["compiles"], stats["fallbacks"]) == (2, 1, 0)
    traced = module.softmax.trace(x)
    np.testing.assert_allclose(traced(x), softmax(x))
    assert "overflows" in (module.softmax.__doc__ or "")
    result = module.softmax(Tensor(x))
    assert isinstance(result, Tensor)


def test_softmax_is_one_kernel() -> None:
    traced = ns.kernels.softmax.trace(np.zeros((8, 16), np.float32))
    assert len(traced.kernels) == 1


def test_wrong_arguments_from_python() -> None:
    with pytest.raises(ShapeError, match=r"Vector<f64, 3>"):
        ns.kernels.softmax(np.zeros(3))
    with pytest.raises(ShapeError, match=r"N = 7 comes from here"):
        ns.kernels.attention(np.zeros((2, 8)), np.zeros((7, 8)), np.zeros((5, 3)))
    with pytest.raises(DTypeError, match=r"T is a float type"):
        ns.kernels.softmax(np.zeros((3, 4), np.int64))
    with pytest.raises(DTypeError, match=r"T = f64 comes from here"):
        ns.kernels.pairwise_distance(np.zeros((2, 3)), np.zeros((2, 3), np.float32))
    with pytest.raises(ArgumentError, match="missing"):
        ns.kernels.softmax()
    with pytest.raises(AttributeError, match=r"did you mean softmax"):
        _ = ns.kernels.softmx
    with pytest.raises(AttributeError, match="has no function 'max'"):
        _ = ns.load(ns.kernels_path() / "softmax.ns").max


def test_every_shipped_program_checks() -> None:
    paths = sorted(ns.kernels_path().glob("*.ns"))
    assert len(paths) >= 9
    for path in paths:
        assert ns.check_program(path) == []


@pytest.mark.parametrize("k", [1, 3])
def test_digits(k: int) -> None:
    printed: list[str] = []
    outputs = ns.run_program(ns.kernels_path() / "digits.ns", {"k": k}, write=printed.append)
    data = np.load(ns.kernels_path() / "data" / "digits.npz")
    images, labels = data["images"].astype(np.float64), data["labels"]
    held = np.arange(len(images)) % 3 == 2
    distances = pairwise_distance(images[held], images[~held])
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    weights = 1.0 - 0.01 * np.arange(k)
    votes = np.zeros((held.sum(), 10))
    # The program has the known images in another order; ties are the same in value.
    for row, nearest in enumerate(order):
        np.add.at(votes[row], labels[~held][nearest], weights)
    expected = (votes.argmax(axis=1) == labels[held]).mean()
    assert float(outputs["result"]) == pytest.approx(expected, abs=0.004)
    assert float(outputs["result"]) > 0.97
    assert f"{k} nearest" in "".join(printed)
