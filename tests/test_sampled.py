"""Derivatives, integrals, polynomials, windows, insertion: NumPy's values, traced and not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import tracejit as tj
from tracejit import config, errors

NP: Any = np  # NumPy's stubs know of no other arrays
RNG = np.random.default_rng(5)
X = RNG.standard_normal((6, 7))
V = X[0].copy()
F = X.astype(np.float32)
I = np.arange(12).reshape(3, 4)  # noqa: E741
AT = np.cumsum(RNG.uniform(0.5, 1.5, 7))

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "gradient": (lambda v: NP.gradient(v), (V,)),
    "gradient of float32": (lambda v: NP.gradient(v, 0.5), (F[0],)),
    "gradient of ints": (lambda v: NP.gradient(v), (I,)),
    "gradient of two axes": (lambda x: NP.gradient(x, 2.0, 0.5), (X,)),
    "gradient, edges of order 2": (lambda x: NP.gradient(x, axis=(1, 0), edge_order=2), (X,)),
    "gradient at even points": (lambda x: NP.gradient(x, np.arange(7) * 2, axis=1), (F,)),
    "gradient at uneven points": (lambda x: NP.gradient(x, AT, axis=-1), (F,)),
    "gradient at points, order 2": (lambda x: NP.gradient(x, AT, axis=1, edge_order=2), (X,)),
    "gradient at points that are traced": (lambda x, at: NP.gradient(x, at, axis=1), (X, AT)),
    "trapezoid": (lambda x: NP.trapezoid(x), (X,)),
    "trapezoid at points": (lambda x, at: NP.trapezoid(x, at, axis=1), (X, AT)),
    "trapezoid at rows of points": (lambda x: NP.trapezoid(x, x + 1, axis=0), (X,)),
    "trapezoid of one": (lambda x: NP.trapezoid(x[:1], dx=0.5, axis=0), (X,)),
    "ediff1d": (lambda x: NP.ediff1d(x), (I,)),
    "ediff1d with ends": (lambda x: NP.ediff1d(x, [7, 8], 9), (I,)),
    "unwrap": (lambda v: NP.unwrap(v * 5), (V,)),
    "unwrap of ints": (lambda v: NP.unwrap(v, period=5, axis=0), (I,)),
    "unwrap of ints, even period": (lambda v: NP.unwrap(v % 4, period=4), (I,)),
    "unwrap with a limit": (lambda v: NP.unwrap(v * 5, 4.0, axis=1), (F,)),
    "polyval": (lambda v: NP.polyval([1, -2, 3], v), (V,)),
    "polyval of traced coefficients": (lambda p, x: NP.polyval(p, x), (V[:3], F)),
    "vander": (lambda v: NP.vander(v), (V,)),
    "vander rising": (lambda v: NP.vander(v, 3, increasing=True), (I[1],)),
    "vander of none": (lambda v: NP.vander(v, 0), (V,)),
    "windows": (lambda v: sliding_window_view(v, 3).mean(-1), (V,)),
    "windows of two axes": (lambda x: sliding_window_view(x, (2, 3)), (X,)),
    "windows of the first axis": (lambda x: sliding_window_view(x, 4, axis=0).sum(-1), (X,)),
    "windows of swapped axes": (lambda x: sliding_window_view(x, (2, 3), axis=(1, 0)), (X,)),
    "delete one": (lambda v: NP.delete(v, -2), (V,)),
    "delete a slice": (lambda x: NP.delete(x, slice(None, None, 2), axis=1), (X,)),
    "delete by a mask": (lambda x: NP.delete(x, [True, False] * 3, axis=0), (X,)),
    "delete all": (lambda x: NP.delete(x, [0, 1, 2], 0), (I,)),
    "delete of flat": (lambda x: NP.delete(x, [1, 5, 5]), (I,)),
    "insert one": (lambda v: NP.insert(v, 1, 9.0), (V,)),
    "insert a column": (lambda x: NP.insert(x, 1, np.arange(3), axis=1), (I,)),
    "insert columns": (lambda x: NP.insert(x, [1], [[7, 8], [9, 9], [1, 1]], axis=1), (I,)),
    "insert at several places": (lambda x: NP.insert(x, [1, 3], [7, 8], axis=1), (I,)),
    "insert twice at one place": (lambda x: NP.insert(x, [1, 1, -1], [9, 8, 7]), (I,)),
    "insert by a slice": (lambda x: NP.insert(x, slice(0, 3), 5, axis=0), (I,)),
    "insert traced values": (lambda x, v: NP.insert(x, 0, v, axis=0), (X, V)),
    "resize": (lambda x: NP.resize(x, (3, 5)), (X,)),
    "resize to more": (lambda x: NP.resize(x, (2, 13)), (I,)),
    "corrcoef": (lambda x: NP.corrcoef(x), (X,)),
    "corrcoef of columns": (lambda x: NP.corrcoef(x, rowvar=False), (F,)),
    "corrcoef of one": (lambda v: NP.corrcoef(v), (V,)),
    "corrcoef of two": (lambda v: NP.corrcoef(v, v[::-1]), (V,)),
    "cov of more": (lambda x, v: NP.cov(x, v, bias=True), (X, V)),
    "cov of columns": (lambda x, f: NP.cov(x, f, rowvar=False, ddof=2), (X, F)),
    "vecmat": (lambda v, x: NP.vecmat(v, x), (X[:, 0].copy(), X)),
    "vecmat of complex": (lambda v, x: NP.vecmat(v, x), (X[:, 0] + 1j, X)),
    "fft2": (lambda x: NP.fft.fft2(x), (X,)),
    "fftn with sizes": (lambda x: NP.fft.fftn(x, (4, 9), axes=(1, 0)), (X,)),
    "ifft2": (lambda x: NP.fft.ifft2(x, norm="ortho"), (X,)),
    "ifftn": (lambda x: NP.fft.ifftn(x, axes=(0,)), (X,)),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield


def same(got: Any, wanted: Any) -> None:
    if isinstance(wanted, tuple):
        assert isinstance(got, tuple)
        for a, b in zip(got, wanted, strict=True):
            same(a, b)
        return
    array = np.asarray(got)
    assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
    single = array.dtype in (np.float32, np.complex64)
    np.testing.assert_allclose(array, wanted, rtol=1e-5 if single else 1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("how", ["never", "now"])
def test_traced_as_numpy(name: str, how: Any):
    function, args = CASES[name]
    same(tj.jit(function, compile=how)(*args), function(*args))


@pytest.mark.parametrize("name", CASES)
def test_eager_as_numpy(name: str):
    function, args = CASES[name]
    with config.override(disable_jit=True):
        same(function(*map(tj.asarray, args)), function(*args))


def test_a_reduction_over_windows_is_one_kernel():
    traced = tj.trace(lambda v: sliding_window_view(v, 5).max(-1) * 2, np.ones(1000))
    assert [type(s).__name__ for s in traced.schedule.steps] == ["KernelStep"]


WRONG: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda x: tj.gradient(x[:1], axis=0), errors.ValueArgumentError, "1 samples along axis 0"),
    (lambda x: tj.gradient(x, edge_order=3), errors.ArgumentError, "edge_order"),
    (lambda x: tj.gradient(x, np.ones(3)), errors.ShapeError, "coordinates"),
    (lambda x: tj.gradient(x, 1, 2, 3), TypeError, "distances"),
    (lambda x: tj.polyval(x, x), errors.ShapeError, "1-d"),
    (lambda x: tj.vander(x), errors.ShapeError, "vector"),
    (lambda x: tj.sliding_window_view(x, 3), errors.ShapeError, "one size for each axis"),
    (lambda x: tj.sliding_window_view(x, (9, 9)), errors.ShapeError, "larger"),
    (lambda x: tj.ediff1d(x.astype(int), 0.5), TypeError, "to_end"),
    (lambda x: tj.delete(x, 99, 0), IndexError, "99"),
    (lambda x: tj.insert(x, 99, 0, 0), IndexError, "99"),
    (lambda x: tj.delete(x, x[0].argmax(), 0), errors.TraceError, "places must be known"),
    (lambda x: tj.fft.fft2(x, (1, 2, 3)), errors.ShapeError, "one size for each axis"),
    (lambda x: tj.vecmat(x[0, 0], x), errors.ShapeError, "needs an axis"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "kind", "message"), WRONG, ids=[w[2] for w in WRONG])
def test_wrong_arguments(function: Callable[[Any], Any], kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        tj.jit(function)(X)
