"""Defects that users met, one test each, named after what it reproduces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tracejit as tj


def agree(function: Callable[..., Any], *arguments: Any) -> None:
    """Check that ``function`` jitted gives what it gives on NumPy, dtypes included."""
    with np.errstate(all="ignore"):
        want = function(*arguments)
    got = tj.jit(function)(*arguments)
    if not isinstance(want, tuple):
        got, want = (got,), (want,)
    for g, w in zip(got, want, strict=True):
        assert np.asarray(g).dtype == np.asarray(w).dtype
        np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-12)


def test_negative_zero_after_zero_in_generated_code() -> None:
    """Both zeros in one process: the code of one must not be written for the other."""
    x = np.array([1.0, -1.0])
    agree(lambda x: (x / 0.0, x / -0.0), x)
    agree(lambda x: (x / np.float32(-0.0), x / np.float32(0.0)), x.astype(np.float32))
