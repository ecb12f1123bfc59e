"""Memory for results: large arrays reuse what earlier ones left.

``empty`` makes arrays; small ones as NumPy does. ``stats`` and ``trim`` are for people who watch
memory; ``TRACEJIT_MEMORY_CACHE`` (bytes) caps what is kept, 0 keeps nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tracejit import config
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.memory import FUNCTIONS, MAKE_ARRAY, TRIM, Memory, emit_memory
from tracejit.codegen.target import LEVELS
from tracejit.ops.table import Array
from tracejit.runtime import numpy_api
from tracejit.runtime.loader import LoadedObject

# malloc recycles smaller blocks by itself.
LARGE = 1 << 20
_CAPSULE_NAME = b"mem_handler"


class _Allocator(ctypes.Structure):
    _fields_ = (
        ("context", ctypes.c_void_p),
        ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p),
        ("realloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    )


class _Handler(ctypes.Structure):
    """NumPy's PyDataMem_Handler, version 1."""

    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("of", _Allocator))


class _Pool:
    """The allocator: its state, its code, and the handler that NumPy's arrays refer to."""

    def __init__(self) -> None:
        self.state = np.zeros(Memory.SIZE, np.int64)
        self.state[Memory.CAP] = config.memory_cache()
        self.state[Memory.POISON] = config.stress_poison()
        self.handler = _Handler(b"tracejit", 1)
        make = ctypes.pythonapi.PyCapsule_New
        make.restype = ctypes.py_object
        make.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        self.capsule = make(ctypes.addressof(self.handler), _CAPSULE_NAME, None)
        text = emit_memory(
            self.state.ctypes.data,
            id(self.capsule),
            numpy_api.address(numpy_api.SET_HANDLER),
            numpy_api.address(numpy_api.PYARRAY_EMPTY),
        )
        image = compile_object(text, LEVELS["generic"], 2)
        self.code = LoadedObject(image, (*FUNCTIONS, MAKE_ARRAY, TRIM))
        places = [self.code.address(name) for name in FUNCTIONS]
        self.handler.of = _Allocator(None, *places)
        # Arrays may die after this module at exit, and their memory goes through this code.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        self.make_array = self.code.address(MAKE_ARRAY)
        kind = ctypes.PYFUNCTYPE(
            ctypes.py_object, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64
        )
        self.make = kind(self.make_array)


@lru_cache(maxsize=1)
def pool() -> _Pool:
    """Return the process's allocator, made on first use."""
    return _Pool()


def available() -> bool:
    """Whether large arrays are recycled here: on Linux, with a cap above 0."""
    return sys.platform == "linux" and config.memory_cache() > 0


def empty(shape: Sequence[int], dtype: np.dtype[Any], nbytes: int) -> Array:
    """Return an uninitialised array of ``nbytes``."""
    if nbytes < LARGE or not available():
        return (
            poisoned(np.empty(shape, dtype)) if config.stress_poison() else np.empty(shape, dtype)
        )
    sizes = np.array(shape, np.int64)
    return pool().make(len(shape), sizes.ctypes.data, id(dtype), 1)


def poisoned(array: Array) -> Array:
    """Return ``array`` (contiguous), every byte overwritten with 0xFF: NaN, or −1."""
    array.reshape(-1).view(np.uint8).fill(0xFF)
    return array


def stats() -> dict[str, int]:
    """Return bytes cached and their cap, blocks reused, newly allocated, and given back."""
    state = pool().state
    return {m.name.lower(): int(state[m]) for m in Memory if Memory.LOCK < m < Memory.POISON}


def trim() -> None:
    """Give all cached memory back to the system."""
    ctypes.CFUNCTYPE(None)(pool().code.address(TRIM))()


def _after_fork() -> None:
    """The child's copy of the lock may have been taken by a thread that it does not have."""
    if pool.cache_info().currsize:
        pool().state[Memory.LOCK] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
