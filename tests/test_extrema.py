"""Maximum and minimum beside a constant: NumPy's answers, by one instruction where it is no NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj

CONSTANTS = [0.0, -0.0, 1.0, 1.5, -1.5, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_constants(any_level: str, dtype: str) -> None:
    limits = np.finfo(dtype)
    special = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.5, -1.5, limits.max, limits.smallest_subnormal]
    x = np.resize(np.array(special, dtype), 37)

    def extrema(x: Any) -> tuple[Any, ...]:
        found: list[Any] = []
        for c in CONSTANTS:
            found += [np.maximum(x, c), np.minimum(x, c), np.maximum(c, x), np.minimum(c, x)]
            found += [np.fmax(x, c), np.fmin(x, c), np.fmax(c, x), np.fmin(c, x)]
        return tuple(found)

    got = tj.jit(extrema, compile="now")(x)
    for ours, numpys in zip(got, extrema(x), strict=True):
        np.testing.assert_array_equal(ours, numpys)
        assert ours.dtype == np.dtype(dtype)


def test_one_instruction(level: str) -> None:
    x = np.ones(100, np.float32)
    code = tj.trace(lambda x: np.minimum(np.maximum(x, 0), 1), x).asm()
    assert "maxps" in code
    assert "minps" in code
    assert "cmpunord" not in code
    # Other constants are given when the kernel runs, and may be NaN.
    assert "cmpunord" in tj.trace(lambda x: np.maximum(x, 3), x).asm()
