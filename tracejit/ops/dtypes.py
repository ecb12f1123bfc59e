"""Floats of 16 bits, and bfloat16, the one dtype that is not NumPy's own: half of a float32.

Its dtype is that of the package ml_dtypes, as in JAX. Nothing here loads that package unless the
dtype is asked for by name: whoever hands in an array of it has loaded it.

Values are stored and moved as bfloat16. They are computed with as float32: ``tensor.record`` casts
the operands of an op, and its result where that is to be a bfloat16, so that beside the cast no
kernel and no reference knows of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracejit.errors import UnsupportedError

NAME = "bfloat16"
FLOAT32 = np.dtype(np.float32)


def is_bfloat16(dtype: Any) -> bool:
    """Return whether ``dtype`` (a dtype, or the Python type of a weak scalar) is bfloat16."""
    return getattr(dtype, "kind", None) == "V" and dtype.type.__name__ == NAME


def is_half(dtype: np.dtype[Any]) -> bool:
    """Return whether ``dtype`` is a float of 16 bits: kernels move them, and compute in float32."""
    return dtype.kind in "fV" and dtype.itemsize == 2


def bfloat16() -> np.dtype[Any]:
    """Return the dtype; UnsupportedError where ml_dtypes is not installed."""
    try:
        import ml_dtypes
    except ImportError as error:
        raise UnsupportedError(
            "bfloat16 is the dtype of the package ml_dtypes, which is not installed",
            hint="pip install ml_dtypes",
        ) from error
    return np.dtype(ml_dtypes.bfloat16)


def spelled(dtype: np.dtype[Any]) -> str:
    """Return the text that ``named`` makes ``dtype`` of: ``<f4``, ``bfloat16``."""
    return NAME if dtype.kind == "V" else dtype.str


def named(text: Any) -> np.dtype[Any]:
    """Return the dtype that ``text`` (or a type, or a dtype) names."""
    return bfloat16() if text == NAME else np.dtype(text)
