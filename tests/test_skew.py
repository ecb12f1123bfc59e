"""Skewed rows: which kernels delay their last pass, and that it changes no bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.schedule import skew

Array = np.ndarray[Any, Any]


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def gates(x: Any) -> Any:
    """Two values of a row are kept."""
    t, s = np.tanh(x), np.sin(x)
    size = np.sqrt((t * t + s * s).sum(axis=-1, keepdims=True))
    return t / size + s


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skew, "SKEW_BYTES", 0)


def skewed(function: Callable[..., Any], *arguments: Array) -> list[bool]:
    return [k.skewed for k in tj.trace(function, *arguments).schedule.kernels]


def result(function: Callable[..., Any], x: Array) -> bytes:
    return tj.jit(function, compile="now")(x).tobytes()


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("function", [softmax, gates])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_skewed_rows_change_no_bit(
    any_level: str, function: Callable[..., Any], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    for shape in [(2, 63), (3, 65), (2, 3, 129), (3, 1, 200), (50, 300)]:
        x = (4 * rng.standard_normal(shape)).astype(dtype)
        x[1, ..., 5:8] = np.inf, -np.inf, np.nan
        x[0, ..., 3] = -0.0
        for view in (x, x[::-1], x[..., ::2]):
            assert skewed(function, view) == [True]
            late = result(function, view)
            monkeypatch.setattr(skew, "SKEW_BYTES", 1 << 60)
            assert skewed(function, view) == [False]
            assert late == result(function, view)
            monkeypatch.setattr(skew, "SKEW_BYTES", 0)


def test_rows_are_skewed_where_much_memory_is_touched() -> None:
    large, small = np.ones((1000, 1000), np.float32), np.ones((100, 1000), np.float32)
    assert skewed(softmax, large) == [True]
    assert skewed(softmax, small) == [False]


@pytest.mark.usefixtures("always")
def test_what_keeps_no_values_or_too_many_is_not_skewed() -> None:
    x = np.ones((20, 100), np.float32)
    assert skewed(lambda x: np.exp(x) * 2, x) == [False]
    assert skewed(lambda x: x - x.mean(axis=1, keepdims=True), x) == [False]
    assert skewed(lambda x: np.exp(x).sum(axis=1), x) == [False]
    assert skewed(softmax, np.ones((3, 10_000), np.float32)) == [False]
    assert skewed(softmax, np.ones(1000, np.float32)) == [False]


@pytest.mark.usefixtures("always")
def test_rows_that_are_stored_over_are_not_skewed() -> None:
    """The late pass would write what the next row may still read."""

    def shifted(x: Any) -> Any:
        x[1:] = softmax(x[:-1])
        return x

    x = np.random.default_rng(0).standard_normal((30, 200)).astype(np.float32)
    want = shifted(x.copy())
    got = x.copy()
    tj.jit(shifted, compile="now")(got)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
