"""Tiny axes written out: which are, and that they change no result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.schedule.kernel import Kernel, Reduce

Array = np.ndarray[Any, Any]


def kernel(function: Any, *arguments: Array) -> Kernel:
    (found,) = tj.trace(function, *arguments).schedule.kernels
    return found


def test_coordinates_are_values_of_their_own() -> None:
    for width in (2, 3, 4):
        found = kernel(lambda x: (x * x).sum(axis=1), np.ones((300, width)))
        assert found.extents == (300,)
        assert not any(isinstance(e, Reduce) for e in found.exprs)
    # Five are a loop, and so are three where there is nothing else.
    assert 5 in kernel(lambda x: (x * x).sum(axis=1), np.ones((300, 5))).extents
    assert 3 in kernel(lambda x: (x * x).sum(axis=1), np.ones((3, 3))).extents


@pytest.mark.parametrize("op", ["sum", "prod", "max", "min", "any", "all", "argmax"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "?"])
def test_reductions_over_few(any_level: str, op: str, dtype: str) -> None:
    rng = np.random.default_rng(0)

    def reduce(x: Any) -> Any:
        return getattr(np, op)(x, axis=-1)

    f = tj.jit(reduce, compile="now")
    for width in (1, 2, 3, 4):
        for count in (1, 7, 16, 33, 300):
            x = (4 * rng.standard_normal((count, width))).astype(dtype)
            for view in (x, x[::-1], np.asfortranarray(x)):
                np.testing.assert_allclose(f(view), reduce(view), rtol=1e-5)
