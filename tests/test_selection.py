"""``x[mask]`` in traced functions: arithmetic, assignment, reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.errors import DTypeError, IndexOutOfRange, TraceError


def same(function: Callable[..., Any], *arrays: Any) -> None:
    """The jitted function answers and changes its arguments as NumPy does, compiled or not."""
    for mode in ("now", "never"):
        theirs, ours = [a.copy() for a in arrays], [a.copy() for a in arrays]
        with np.errstate(all="ignore"):
            want = function(*theirs)
        jitted = tj.jit(function, compile=mode)
        got = jitted(*ours)
        assert jitted.stats()["fallbacks"] == 0
        got, want = (r if isinstance(r, tuple) else (r,) for r in (got, want))
        for g, w in zip([*got, *ours], [*want, *theirs], strict=True):
            assert type(g) is type(w)
            if w is not None:
                assert g.dtype == w.dtype
                np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-14)


def powers(x: Any) -> None:
    x[x > 0] = x[x > 0] ** -1.5


def in_steps(x: Any) -> None:
    x[x < 0] *= 2
    x[x > 1] += np.sin(x[x > 1])


def quotient(x: Any) -> Any:
    out = np.zeros_like(x)
    known = np.abs(x) > 0.5
    out[known] = 1 / x[known]
    return out


def sigmoid(x: Any) -> Any:
    result = np.empty_like(x)
    positive = x >= 0
    result[positive] = 1 / (1 + np.exp(-x[positive]))
    e = np.exp(x[~positive])
    result[~positive] = e / (1 + e)
    return result


def rows(x: Any) -> Any:
    near = np.abs(x[:, 0]) > 0.5
    x[near] = x[near] * 2 + np.arange(x.shape[1])
    x[~near] -= x[~near].mean(axis=0)
    return x[near].std(axis=0)


def mandelbrot(x: Any) -> Any:
    c = x + 1j * x.T
    count, z = np.zeros(c.shape, np.int64), np.zeros_like(c)
    for k in range(6):
        inside = np.abs(z) < 2
        count[inside] = k
        z[inside] = z[inside] ** 2 + c[inside]
    return count


@pytest.mark.parametrize(
    "function", [powers, in_steps, quotient, sigmoid, rows, mandelbrot], ids=lambda f: f.__name__
)
def test_assignments(function: Callable[..., Any]) -> None:
    same(function, np.random.default_rng(0).standard_normal((17, 17)))


REDUCTIONS = ("sum", "prod", "mean", "var", "std", "any", "all")


def test_reductions() -> None:
    def all_of_them(x: Any) -> Any:
        rows = x[:, 0] > 0
        found = [getattr(x[x > 0], name)() for name in REDUCTIONS]
        found += [getattr(np, name)(x[x > 0] * 2) for name in REDUCTIONS]
        found += [getattr(x[rows], name)(axis=0) for name in REDUCTIONS]
        return (*found, *(getattr(np, name)(x[rows], axis=0) for name in REDUCTIONS))

    same(all_of_them, np.random.default_rng(0).standard_normal((9, 4)))


def test_centres_of_clusters() -> None:
    def centres(x: Any, label: Any) -> Any:
        return np.array([x[label == k].mean(axis=0) for k in range(3)])

    rng = np.random.default_rng(1)
    same(centres, rng.standard_normal((20, 2)), rng.integers(0, 3, 20))
    jitted = tj.jit(centres)
    for n in (20, 31, 50):  # plans for all sizes
        x, label = rng.standard_normal((n, 2)), np.arange(n) % 3
        np.testing.assert_allclose(jitted(x, label), centres(x, label), rtol=1e-12)


def test_where_of_variances() -> None:
    x = np.random.default_rng(2).standard_normal((6, 5))

    def spreads(x: Any) -> Any:
        found = (np.var(x, axis=a, where=x > -1, ddof=1) for a in (None, 0, 1))
        return (*found, np.std(x, where=x > -1))

    same(spreads, x)
    some = tj.var(x, axis=0, where=x > -1)
    np.testing.assert_allclose(some, np.var(x, axis=0, where=x > -1), rtol=1e-12)


REFUSED: list[Callable[[Any], Any]] = [
    lambda x: x[x > 0],
    lambda x: {"positive": x[x > 0]},
    lambda x: np.sort(x[x > 0]),
    lambda x: len(x[x > 0]),
    lambda x: x[x > 0].max(),
    lambda x: x[x > 0].shape,
    lambda x: x[x > 0].sum(axis=1),
    lambda x: x[x > 0][0],
    lambda x: x[x > 0] + np.arange(5),
    lambda x: tj.exp(x[x > 0]),
    lambda x: list(x[x > 0]),
]


@pytest.mark.parametrize("function", REFUSED)
def test_what_needs_their_number(function: Callable[..., Any]) -> None:
    with pytest.raises(TraceError, match="indexing with a bool mask needs the value") as info:
        tj.jit(function)(np.arange(5.0))
    assert "np.count_nonzero(mask)" in str(info.value)
    assert "test_selection.py" in str(info.value)


def test_two_masks() -> None:
    def exchange(x: Any) -> None:
        x[x > 0] = x[x < 0]

    with pytest.raises(TraceError, match="two masks"):
        tj.jit(exchange)(np.arange(4.0))


def test_what_does_not_fit() -> None:
    def halve(x: Any) -> None:
        x[x > 0] /= 2

    with pytest.raises(DTypeError, match="float64 does not fit into elements of int64"):
        tj.jit(halve)(np.arange(4))
    with pytest.raises(IndexOutOfRange, match="size 3 along axis 0"):
        tj.jit(lambda x: x[x[:3] > 0].sum())(np.arange(4.0))


def test_names_of_attributes() -> None:
    seen: list[Any] = []

    def look(x: Any) -> Any:
        chosen = x[x > 0]
        seen.extend((chosen.dtype, chosen.ndim, hasattr(chosen, "nothing"), repr(chosen)))
        return chosen.copy().astype("float32").sum()

    tj.jit(look)(np.arange(4.0))
    assert seen[:3] == [np.float64, 1, False]
    assert "under a mask" in seen[3]
