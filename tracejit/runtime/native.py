"""The runtime's own machine code: the driver and the pool's worker, and how such code is loaded."""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from tracejit.codegen import imports, llvm
from tracejit.codegen.driver import DRIVER, SETUP, TICKS, WORKER, emit_driver
from tracejit.codegen.target import LEVELS
from tracejit.errors import InternalError
from tracejit.runtime import cache, perf
from tracejit.runtime.loader import LoadedObject
from tracejit.runtime.once import Once

_TARGET, _LEVEL = LEVELS["generic"], 2


def load(
    text: str, symbols: tuple[str, ...], addresses: Mapping[str, int] | None = None
) -> LoadedObject:
    """Return the code of a module of the runtime, from disk where it has been compiled before.

    ``addresses`` are those that it imports (``codegen/imports.py``). Raises InternalError.
    """
    known = {imports.symbol(name): value for name, value in (addresses or {}).items()}
    disk = cache.disk()
    name = cache.name_of(f"runtime\n{text}", _TARGET, _LEVEL)
    entry = disk.load(name) if name is not None else None
    if name is not None and entry is not None:
        try:
            loaded = LoadedObject(entry.image, symbols, known)
            perf.note(loaded, f"tracejit {symbols[0]}")
            return loaded
        except InternalError:
            disk.drop(name)
    # LLVM's passes over the IR inline what the text keeps apart.
    started = time.perf_counter()
    image = llvm.compile_object(text, _TARGET, _LEVEL)
    loaded = LoadedObject(image, symbols, known)
    seconds = time.perf_counter() - started
    perf.note(loaded, f"tracejit {symbols[0]}")
    if name is not None:
        label = f"the runtime's {symbols[0]}"
        disk.store(name, cache.Entry(image, symbols[0], _TARGET.name, label, seconds))
    return loaded


def driver_text() -> str:
    """Return the driver's IR for this machine."""
    return emit_driver(x86=platform.machine().lower() in ("x86_64", "amd64"))


@Once
def _runtime() -> LoadedObject:
    return load(driver_text(), (DRIVER, WORKER, SETUP, TICKS))


@lru_cache(maxsize=8)
def runtime_function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """Return a function of the native runtime; it runs without the GIL."""
    return ctypes.CFUNCTYPE(result, *arguments)(_runtime().address(name))


def driver() -> Callable[[int, int, int, int, int, int], int]:
    """Return the native driver: ``run(records, first, count, pointers, pool, stops)``.

    Addresses are ints. It returns the number of the record to go on with.
    """
    size, number = ctypes.c_size_t, ctypes.c_int64
    return runtime_function(DRIVER, number, size, number, number, size, size, number)
