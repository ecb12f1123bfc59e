"""Histograms and comparisons as one answer: NumPy's values, traced and not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import errors

NP: Any = np
RNG = np.random.default_rng(11)
W = RNG.normal(size=200)


def values(dtype: str) -> Any:
    found = RNG.normal(size=200) * 20
    return (np.abs(found) if dtype == "uint8" else found).astype(dtype)


def agree(function: Any, *args: Any, exact: bool = True) -> None:
    compiled: Any = tj.jit(function, compile="now")
    for got, wanted in zip(compiled(*args), function(*args), strict=True):
        assert got.dtype == wanted.dtype
        if exact:
            np.testing.assert_array_equal(got, wanted)
        else:
            np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int8", "uint8", "bool"])
@pytest.mark.parametrize("bounds", [None, (-5, 5), (0.1, 0.7), (3, 3)])
@pytest.mark.filterwarnings("ignore:Converting input from bool")
def test_histogram_counts_as_numpy(dtype: str, bounds: Any) -> None:
    for bins in (1, 26):
        agree(lambda x, n=bins: NP.histogram(x, n, bounds), values(dtype))


@pytest.mark.parametrize("bins", [[0, 1, 2.5, 9], [-3.0, -3.0, 4.0], np.arange(5)])
def test_histogram_between_given_edges(bins: Any) -> None:
    agree(lambda x: NP.histogram(x, bins), np.append(values("float64"), [9.0, -3.0, 4.0]))


def test_histogram_of_weights_and_densities() -> None:
    x = values("float64")
    agree(lambda x, w: NP.histogram(x, 7, weights=w, density=True), x, W, exact=False)
    agree(lambda x, w: NP.histogram(x, 7, weights=w), x, W.astype(np.float32), exact=False)
    agree(lambda x: NP.histogram(x, 7, density=True), x)


def test_histogram_elements_on_edges() -> None:
    """Where division rounds to the wrong side of an edge the edge decides."""
    edges = np.linspace(0.1, 0.7, 8)
    near = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 1)])
    agree(lambda x: NP.histogram(x, 7, (0.1, 0.7)), near)


def test_histogram_of_nothing_and_of_nan() -> None:
    agree(lambda x: NP.histogram(x, 3), np.empty(0))
    counts, edges = tj.jit(lambda x: NP.histogram(x, 3), compile="now")(np.array([1.0, np.nan]))
    assert not counts.any()
    assert np.isnan(edges).all()
    counts, _ = tj.jit(lambda x: NP.histogram(x, 3, (0, 3)), compile="now")(np.array([1.0, np.nan]))
    assert counts.tolist() == [0, 1, 0]


def test_wrong_histograms() -> None:
    x = tj.asarray([1.0, 2.0])
    for call, kind in (
        (lambda: tj.histogram(x, 0), errors.ValueArgumentError),
        (lambda: tj.histogram(x, 3, (2, 1)), errors.ValueArgumentError),
        (lambda: tj.histogram(x, 3, (0, np.inf)), errors.ValueArgumentError),
        (lambda: tj.histogram(x, [3, 1]), errors.ValueArgumentError),
        (lambda: tj.histogram(x, [3]), errors.ShapeError),
        (lambda: tj.histogram(x, "auto"), errors.ArgumentError),
        (lambda: tj.histogram(x, weights=[1.0]), errors.ShapeError),
        (lambda: tj.histogram(x + 1j), errors.DTypeError),
        (lambda: tj.histogram([1.0, np.nan]), errors.ValueArgumentError),
    ):
        with pytest.raises(kind, match="histogram"):
            call()


def test_histc() -> None:
    torch = pytest.importorskip("torch")
    x = values("float32")
    for bounds in ((0, 0), (-7, 3)):
        wanted = torch.histc(torch.tensor(x), 9, *bounds).numpy()
        np.testing.assert_array_equal(tj.histc(x, 9, *bounds).numpy(), wanted)


def test_verdicts_of_traced_arrays_come_when_it_runs() -> None:
    def verdicts(x: Any, y: Any) -> Any:
        return np.allclose(x, y), np.array_equal(x, y), np.array_equiv(x, y[0])

    x = np.ones((2, 3))
    f = tj.jit(verdicts, compile="now")
    for y in (x, x + 1e-9, x * 2, np.where(np.arange(3) == 1, 0, x)):
        assert f(x, y) == verdicts(x, y)
    assert tj.allclose(x, x) is True
