"""float16: stored and moved as such, computed with as float32, with NumPy's bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from natively import native, run_native
from op_cases import ELEMENTWISE_ATTRS, takes, tolerance_of
from op_cases import native as without_cast
from op_samples import Tolerance, mismatch, varied

import tracejit as tj
from tracejit.graph.graph import Graph
from tracejit.graph.node import make, placeholder
from tracejit.ops.table import OPS, Array, Family
from tracejit.runtime.interpreter import run_graph

F2 = np.dtype(np.float16)
ALL = np.arange(1 << 16, dtype=np.uint16).view(F2)


def same(got: Array, wanted: Array) -> None:
    """Check that bits are equal, but that any NaN may stand for another."""
    assert got.dtype == wanted.dtype
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(got), nan)
    kind = f"u{wanted.itemsize}"
    np.testing.assert_array_equal(got[~nan].view(kind), wanted[~nan].view(kind))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_casts(any_level: str) -> None:
    for dtype in (np.float32, np.float64):
        same(native(lambda x, d=dtype: x.astype(d), ALL), ALL.astype(dtype))
        rng = np.random.default_rng(1)
        wide = ALL.astype(dtype)
        ties = wide + np.spacing(np.abs(ALL)).astype(dtype) / 2
        scale = 10 ** rng.uniform(-9, 6, 5000)
        others = (rng.standard_normal(5000) * scale).astype(dtype)
        near = [np.nextafter(ties, dtype(end)) for end in (0, np.inf, -np.inf)]
        x = np.concatenate([ties, *near, others])
        same(native(lambda x: x.astype(F2), x), x.astype(F2))
    whole = np.arange(-70_000, 70_000, 7)
    for dtype in ("int8", "uint8", "int32", "int64"):
        x = whole.astype(dtype)
        same(native(lambda x: x.astype(F2), x), x.astype(F2))
    fits = ALL[np.abs(ALL) < 30_000]
    np.testing.assert_array_equal(native(lambda x: x.astype("i2"), fits), fits.astype("i2"))
    np.testing.assert_array_equal(native(lambda x: x.astype(bool), ALL), ALL.astype(bool))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_arithmetic_has_the_bits_of_numpy(level: str) -> None:
    x, y = ALL, np.random.default_rng(2).permutation(ALL)
    ops: list[Callable[[Any, Any], Any]] = [
        np.add, np.subtract, np.multiply, np.divide, np.remainder, np.floor_divide,
        lambda x, y: np.sqrt(x), lambda x, y: x * y + x, lambda x, y: np.floor(x / y),
    ]  # fmt: skip
    for op in ops:
        same(native(op, x, y), np.asarray(op(x, y)))


# Rows whose float16 loops stay with NumPy.
THROUGH_NUMPY = {"nextafter", "spacing"}
# What these mean depends on the dtype; other composites round once.
BY_DTYPE = {"nan_to_num", "isclose", "deg2rad", "rad2deg"}


def takes_float16(name: str) -> bool:
    dtypes = [F2] * (OPS[name].arity or 1)
    return name != "cast" and takes(name, *dtypes) and without_cast(name, *dtypes)


ROWS = [n for n, op in OPS.items() if op.family is Family.ELEMENTWISE and takes_float16(n)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("first", range(0, len(ROWS), 30))
def test_every_elementwise_row(level: str, first: int) -> None:
    rng = np.random.default_rng(first)
    values = [varied(F2, 37, rng) for _ in range(3)]
    names = [name for name in ROWS[first : first + 30] if name not in THROUGH_NUMPY]

    def graph(dtype: Any) -> Graph:
        inputs = [placeholder(i, dtype, (37,)) for i in range(3)]
        attrs = [ELEMENTWISE_ATTRS.get(name, [{}])[0] for name in names]
        pairs = zip(names, attrs, strict=True)
        return Graph(inputs, [make(n, inputs[: OPS[n].arity], a) for n, a in pairs])

    narrow = graph(F2)
    got = run_native(narrow, values)
    wanted = run_graph(narrow, values)
    wide = run_graph(graph(np.float32), [v.astype(np.float32) for v in values])
    for name, result, want, exact in zip(names, got, wanted, wide, strict=True):
        tolerance = tolerance_of(name, F2)
        if OPS[name].decompose is not None and name not in BY_DTYPE:
            want, tolerance = exact.astype(want.dtype), Tolerance(1)
        wrong = mismatch(result, want, tolerance)
        assert wrong is None, f"{name}: {wrong}"


def test_reductions_and_products_are_summed_in_float32(level: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((33, 70)).astype(F2)
    w = rng.standard_normal((70, 19)).astype(F2)
    wide = x.astype(np.float32)
    for f in (np.sum, np.mean, np.var, np.max, lambda x: np.cumsum(x, axis=1)):
        got = native(f, x)
        assert got.dtype == F2
        np.testing.assert_allclose(got, f(wide), rtol=2.0**-10, atol=1e-4)
    assert native(np.argmax, x) == np.argmax(x)
    got = native(np.matmul, x, w)
    assert got.dtype == F2
    np.testing.assert_allclose(got, wide @ w.astype(np.float32), rtol=2.0**-10, atol=1e-2)
    # Sums in float16 would stop growing at 2048.
    assert native(np.sum, np.ones(5000, F2)) == 5000
    got = native(lambda x: tj.softmax(x, axis=1), x)
    want = np.exp(wide - wide.max(1, keepdims=True))
    want /= want.sum(1, keepdims=True)
    np.testing.assert_array_max_ulp(got, want.astype(F2), 1, F2)


def test_it_moves_and_is_indexed(level: str) -> None:
    x = ALL[:35].reshape(5, 7)
    rows = np.array([2, 0, -1])
    moves: list[Callable[[Any], Any]] = [
        lambda x: x.T, lambda x: x[::-1, 1::2], lambda x: np.pad(x, 1), lambda x: x[rows],
        lambda x: np.concatenate([x, x]), lambda x: x.reshape(-1)[3:],
    ]  # fmt: skip
    for move in moves:
        same(native(move, x), np.asarray(move(x)))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_jitted_functions_take_and_return_it() -> None:
    x = ALL[:100]
    got = tj.jit(lambda x: x * 0.1 + 1)(x)
    same(got, x * np.float16(0.1) + 1)
