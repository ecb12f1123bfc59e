"""Memory for results and arenas: what an array or a call leaves, the next one takes.

``stats`` and ``trim`` (``tj.memory_stats``, ``tj.trim_memory``) are for people who watch memory;
``TRACEJIT_MEMORY_CACHE`` (bytes) caps what is kept, 0 keeps nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tracejit import config
from tracejit.codegen.memory import (
    FUNCTIONS,
    MAKE_ARRAY,
    NEW_ARRAY,
    REFUSE,
    TRIM,
    Addresses,
    Memory,
    emit_memory,
)
from tracejit.errors import OutOfMemory
from tracejit.ops.table import Array
from tracejit.runtime import native, numpy_api
from tracejit.runtime.loader import LoadedObject
from tracejit.runtime.once import Once
from tracejit.schedule.arena import ALIGNMENT

# What blocks of at most 64 KiB may hold together.
CAP_SMALL = 16 << 20
_CAPSULE_NAME = b"mem_handler"


class _Allocator(ctypes.Structure):
    _fields_ = (
        ("context", ctypes.c_void_p),
        ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p),
        ("realloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    )


_HANDLER_FIELDS = ("malloc", "calloc", "realloc", "free")
_MODULE = native.Module("memory", emit_memory)
_SYMBOLS = (*FUNCTIONS, MAKE_ARRAY, NEW_ARRAY, REFUSE, TRIM)


class _Handler(ctypes.Structure):
    """NumPy's PyDataMem_Handler, version 1."""

    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("of", _Allocator))


class _Pool:
    """The allocator: its state, its code, and the handler that NumPy's arrays refer to."""

    def __init__(self) -> None:
        self.state = np.zeros(Memory.SIZE, np.int64)
        self.state[Memory.CAP] = config.memory_cache()
        self.state[Memory.CAP_SMALL] = min(CAP_SMALL, config.memory_cache())
        self.state[Memory.POISON] = config.stress_poison()
        self.handler = _Handler(b"tracejit", 1)
        make = ctypes.pythonapi.PyCapsule_New
        make.restype = ctypes.py_object
        make.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        self.capsule = make(ctypes.addressof(self.handler), _CAPSULE_NAME, None)
        self._addresses = Addresses(
            state=self.state.ctypes.data,
            handler=id(self.capsule),
            array_type=id(np.ndarray),
            from_descr=numpy_api.address(numpy_api.FROM_DESCR),
            out_of_memory=id(OutOfMemory),
        )
        # Arrays may die after this module at exit, and their memory goes through this code.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        # Functions made of earlier code run on: nothing of it is freed.
        self._kept: list[tuple[LoadedObject, numpy_api.MethodDef]] = []
        addresses = self._addresses._asdict()
        best = native.find(_MODULE, _SYMBOLS, addresses)
        self.optimised = best is not None
        self._use(best or native.load(_MODULE, _SYMBOLS, addresses, level=native.QUICK))

    def optimise(self) -> None:
        """Go on with optimised code, on the same state: what either gave, the other takes back."""
        if not self.optimised:
            self._use(native.load(_MODULE, _SYMBOLS, self._addresses._asdict()))
            self.optimised = True

    def _use(self, code: LoadedObject) -> None:
        method = numpy_api.MethodDef(b"new_array", code.address(NEW_ARRAY), numpy_api.NOARGS, None)
        self._kept.append((code, method))
        self.code, self.new_array = code, method
        # Each is one aligned store: other threads call the old function, or the new.
        for field, name in zip(_HANDLER_FIELDS, FUNCTIONS, strict=True):
            setattr(self.handler.of, field, code.address(name))


@Once
def pool() -> _Pool:
    """Return the process's allocator, made on first use."""
    return _Pool()


def prepare() -> None:
    """Have the allocator compiled meanwhile, where it has not been made."""
    if available() and not pool.made:
        native.ask_ahead(_MODULE, native.QUICK)


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether results come from this allocator: on Linux, with arrays laid out as expected."""
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        return False
    probe = np.zeros(3)
    flags = ctypes.c_int.from_address(id(probe) + 64).value
    handler = ctypes.c_size_t.from_address(id(probe) + 88).value
    wanted = numpy_api.type_address(numpy_api.capsule())
    return (
        flags == probe.flags.num
        and handler != 0
        and ctypes.c_size_t.from_address(handler + 8).value == wanted
    )


def maker(shape: Sequence[int], dtype: np.dtype[Any], nbytes: int) -> Callable[[], Array]:
    """Return a function that makes uninitialised arrays of one kind, which take ``nbytes``."""
    if nbytes == 0 or not available():
        poison = config.stress_poison()
        return lambda: poisoned(np.empty(shape, dtype)) if poison else np.empty(shape, dtype)
    words = np.array([len(shape), nbytes, *shape], np.int64)
    return numpy_api.c_function(pool().new_array, (words, dtype))


def empty(shape: Sequence[int], dtype: np.dtype[Any], nbytes: int) -> Array:
    """Return an uninitialised array of ``nbytes``."""
    return maker(shape, dtype, nbytes)()


def block_maker(nbytes: int) -> Callable[[], Array]:
    """Return a function that makes blocks of ``nbytes`` bytes that start on a cache line."""
    if available():
        return maker((nbytes,), np.dtype(np.uint8), nbytes)
    make = maker((nbytes + ALIGNMENT,), np.dtype(np.uint8), 0)

    def block() -> Array:
        raw = make()
        skip = -raw.ctypes.data % ALIGNMENT
        return raw[skip : skip + nbytes]

    return block


def poisoned(array: Array) -> Array:
    """Return ``array`` (contiguous), every byte overwritten with 0xFF: NaN, or −1."""
    array.reshape(-1).view(np.uint8).fill(0xFF)
    return array


def stats() -> dict[str, int]:
    """Return the allocator's counts (see ``tj.memory_stats``); all 0 where there is none."""
    state = pool().state if available() else np.zeros(Memory.SIZE, np.int64)
    return {
        name.lower(): int(state[place])
        for name, place in Memory.items()
        if Memory.LOCK < place < Memory.POISON
    }


def trim() -> None:
    """Give all cached memory back to the system."""
    if available():
        ctypes.CFUNCTYPE(None)(pool().code.address(TRIM))()


def _after_fork() -> None:
    """The child's copy of the lock may have been taken by a thread that it does not have."""
    if pool.made:
        pool().state[Memory.LOCK] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
