"""CPython's and NumPy's C APIs as generated code and its callers need them."""

from __future__ import annotations

import ctypes
import importlib
from functools import lru_cache
from typing import Any

# Places in the API table, fixed by NumPy's ABI.
PYARRAY_EMPTY = 184
SCALAR = 60
FROM_DESCR = 94


@lru_cache(maxsize=1)
def capsule() -> Any:
    """Return the capsule that C extensions import, which NumPy's type stubs do not have."""
    module: Any = importlib.import_module("numpy._core._multiarray_umath")
    return module._ARRAY_API


@lru_cache(maxsize=1)
def _table() -> Any:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    return ctypes.cast(pointer(capsule(), None), ctypes.POINTER(ctypes.c_void_p))


def address(index: int) -> int:
    """Return the address of function ``index`` of the API."""
    return int(_table()[index] or 0)


def type_address(value: object) -> int:
    """Return the address of the type of ``value``."""
    return ctypes.c_size_t.from_address(id(value) + 8).value


NOARGS, FASTCALL_KEYWORDS = 0x04, 0x80 | 0x02


class MethodDef(ctypes.Structure):
    """CPython's PyMethodDef; it must live as long as the functions made of it."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def c_function(definition: MethodDef, own: tuple[Any, ...]) -> Any:
    """Return a Python function whose code is native and gets ``own`` as its first argument."""
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = (ctypes.POINTER(MethodDef), ctypes.py_object, ctypes.py_object)
    return make(ctypes.byref(definition), own, None)
