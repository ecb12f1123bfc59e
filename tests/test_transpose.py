"""Transposes inside loops: whole tiles in registers, the rest by gathers, all bits in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj

Array = np.ndarray[Any, Any]
SHAPES = [(16, 16), (17, 33), (64, 64), (5, 100), (100, 31), (33, 7, 40), (1, 70), (4, 4)]


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.int32, np.int64, np.uint8, np.int16, np.bool_]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_transposed_operands(any_level: str, shape: tuple[int, ...], dtype: Any) -> None:
    x = (100 * np.random.default_rng(5).standard_normal(shape)).astype(dtype)
    functions: list[Callable[[Any], Any]] = [
        lambda x: np.where(x.T, x.T, 3),
        lambda x: (x.T * 2, x + 1),
        lambda x: x.T.astype(np.float64) - 1,
    ]
    if x.ndim == 2 and shape[0] == shape[1]:
        functions += [lambda x: x * x.T, lambda x: (x.T[::-1] * 2, x.T * x)]
    for function in functions:
        got = tj.jit(function, compile="now")(x)
        for value, want in zip(_tuple(got), _tuple(function(x)), strict=True):
            np.testing.assert_array_equal(value, want)


def test_nan_payloads_and_signed_zeros_move_unchanged(level: str) -> None:
    bits = np.random.default_rng(6).integers(0, 1 << 32, (70, 50), dtype=np.uint32)
    x = bits.view(np.float32)
    got = tj.jit(lambda x: np.concatenate([x.T, x.T], axis=0), compile="now")(x)
    np.testing.assert_array_equal(got.view(np.uint32), np.concatenate([bits.T, bits.T]))


def test_any_number_of_threads_transposes_alike(level: str) -> None:
    x = np.random.default_rng(7).standard_normal((1003, 1501)).astype(np.float32)
    f = tj.jit(lambda x: x.T * 2 + 1, compile="now")
    np.testing.assert_array_equal(f(x), x.T * 2 + 1)
    with tj.num_threads(1):
        np.testing.assert_array_equal(f(x), x.T * 2 + 1)


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
