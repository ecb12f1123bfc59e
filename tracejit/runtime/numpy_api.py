"""NumPy's C API as addresses, for generated code."""

from __future__ import annotations

import ctypes
import importlib
from functools import lru_cache
from typing import Any

# Places in the API table, fixed by NumPy's ABI.
PYARRAY_EMPTY = 184
SET_HANDLER = 304


@lru_cache(maxsize=1)
def _table() -> Any:
    # Not in NumPy's type stubs: the capsule that C extensions import.
    module: Any = importlib.import_module("numpy._core._multiarray_umath")
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    return ctypes.cast(pointer(module._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))


def address(index: int) -> int:
    """Return the address of function ``index`` of the API."""
    return int(_table()[index] or 0)
