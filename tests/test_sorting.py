"""Orders of an axis: stable ones by vectorised sorts, the k best, and partitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.errors import ValueArgumentError
from tracejit.ops import sorting
from tracejit.ops.table import OPS, Array

DTYPES = ("float32", "float64", "int32", "uint32", "int64", "uint64", "int8", "bool", "complex64")


def with_ties(name: str, shape: tuple[int, ...], high: int) -> Array:
    """Return numbers below ``high`` with the special values of their dtype among them."""
    rng = np.random.default_rng(high)
    x = rng.integers(0, high, shape).astype(name)
    if x.dtype.kind in "iu":
        ends = np.iinfo(x.dtype)
        x[rng.random(shape) < 0.1] = ends.max
        x[rng.random(shape) < 0.1] = ends.min
    elif x.dtype.kind in "fc":
        for special in (np.nan, -0.0, np.inf, -np.inf):
            x[rng.random(shape) < 0.1] = special
    return x


def reversed_order(x: Array, axis: int) -> Array:
    back = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(back, axis)


@pytest.mark.parametrize("high", [3, 120])
@pytest.mark.parametrize("name", DTYPES)
def test_orders_are_stable(name: str, high: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "_BLOCK", 200)  # two rows of 70, then one
    argsort, topk = OPS["argsort"].reference, OPS["topk_indices"].reference
    for shape, axis in (
        ((7,), 0),
        ((63,), 0),
        ((64,), 0),
        ((3, 70), 1),
        ((70, 3), 0),
        ((0, 70), 1),
    ):
        x = with_ties(name, shape, high)
        rising, falling = np.argsort(x, axis=axis, kind="stable"), reversed_order(x, axis)
        np.testing.assert_array_equal(argsort(x, axis=axis, descending=False), rising)
        np.testing.assert_array_equal(argsort(x, axis=axis, descending=True), falling)
        for k in (0, 1, 7):
            best, least = (np.take(order, range(k), axis) for order in (falling, rising))
            np.testing.assert_array_equal(topk(x, k=k, axis=axis, largest=True), best)
            np.testing.assert_array_equal(topk(x, k=k, axis=axis, largest=False), least)


def test_the_k_best_and_where_they_are() -> None:
    x = with_ties("float32", (4, 100), 9)
    values, indices = tj.jit(lambda x: tuple(tj.topk(x, 5, dim=1)))(x)
    np.testing.assert_array_equal(values, np.take_along_axis(x, indices, 1))
    np.testing.assert_array_equal(indices, reversed_order(x, 1)[:, :5])
    ordered, order = tj.jit(lambda x: tuple(tj.sort(x, dim=1)))(x)
    np.testing.assert_array_equal(ordered, np.sort(x, 1))
    np.testing.assert_array_equal(order, np.argsort(x, 1, kind="stable"))


@pytest.mark.parametrize("kth", [0, 3, -1, (2, 50), [7]])
def test_partitions_are_those_of_numpy(kth: Any) -> None:
    x = with_ties("float64", (3, 80), 100)
    for axis in (0, 1, None):
        if axis == 0 and kth not in (0, -1):
            continue
        for function in (np.partition, np.argpartition):
            got = tj.jit(lambda x, f=function, axis=axis: f(x, kth, axis=axis))(x)
            np.testing.assert_array_equal(got, function(x, kth, axis=axis))


def test_a_partition_names_the_places_it_has() -> None:
    with pytest.raises(ValueArgumentError, match=r"kth = 9 for axis 0 of shape \(4,\)") as info:
        tj.argpartition(tj.zeros(4), 9)
    assert "0 ≤ kth < 4" in str(info.value)
    with pytest.raises(ValueArgumentError, match="kth = -2"):
        tj.partition(tj.zeros(4), -6)
