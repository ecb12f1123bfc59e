"""A small jitted function whose calls the native entry answers."""

from __future__ import annotations

from typing import Any

import numpy as np

import tracejit as tj

F32 = np.float32


def scaled() -> Any:
    """Return the function, new."""

    @tj.jit
    def function(a: Any, b: Any) -> Any:
        return a * 2 + b

    return function


def native_calls(function: Any) -> int:
    """Return how many calls the entry has answered."""
    return 0 if function._entry is None else function._entry.calls


def vectors(size: int = 16) -> tuple[Any, Any]:
    """Return arguments for it."""
    return np.arange(size, dtype=F32), np.ones(size, F32)
