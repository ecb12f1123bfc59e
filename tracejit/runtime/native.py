"""The runtime's own machine code: the driver and the pool's worker."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from tracejit.codegen.driver import DRIVER, SETUP, TICKS, WORKER, emit_driver
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.target import LEVELS
from tracejit.runtime.loader import LoadedObject


@lru_cache(maxsize=1)
def _runtime() -> LoadedObject:
    """Compile the driver and the pool's worker, once a process, for any x86-64 or host CPU."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    image = compile_object(emit_driver(x86), LEVELS["generic"], 2)
    return LoadedObject(image, (DRIVER, WORKER, SETUP, TICKS))


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
