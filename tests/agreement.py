"""Comparing tensors with NumPy's arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

import tracejit as tj


def same(got: Any, wanted: Any, exact: bool = True) -> None:
    """Check value, dtype and shape against NumPy."""
    assert isinstance(got, tj.Tensor)
    wanted = np.asarray(wanted)
    array = got.numpy()
    assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    if exact:
        np.testing.assert_array_equal(array, wanted)
    else:
        np.testing.assert_allclose(array, wanted, rtol=2e-6 if array.itemsize <= 4 else 1e-13)
