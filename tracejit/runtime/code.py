"""Compiled code in memory: one entry for each distinct kernel, whoever asks."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tracejit.codegen.driver import DRIVER, emit_driver
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.target import Target
from tracejit.runtime.loader import LoadedObject


@dataclass(frozen=True, slots=True)
class Code:
    """Loaded machine code: its entry address, the IR it came from, and what compiling cost."""

    address: int
    text: str
    seconds: float
    target: Target
    level: int
    loaded: LoadedObject


_cache: dict[tuple[str, Target, int], Code] = {}
_pending: dict[tuple[str, Target, int], threading.Event] = {}
_lock = threading.Lock()
_compiles = 0


def compiles() -> int:
    """Return how many kernels this process has compiled (cache hits do not count)."""
    return _compiles


def obtain(key: str, emit: Callable[[], str], symbol: str, target: Target, level: int = 2) -> Code:
    """Return the code for ``key``, compiling ``emit()`` where this is its first use.

    Concurrent requests for one key compile it once; the others wait.
    """
    full = (key, target, level)
    while True:
        with _lock:
            code = _cache.get(full)
            if code is not None:
                return code
            event = _pending.get(full)
            if event is None:
                _pending[full] = threading.Event()
                break
        event.wait()
    try:
        code = _build(emit, symbol, target, level)
        with _lock:
            _cache[full] = code
        return code
    finally:
        with _lock:
            _pending.pop(full).set()


def _build(emit: Callable[[], str], symbol: str, target: Target, level: int) -> Code:
    global _compiles
    started = time.perf_counter()
    text = emit()
    loaded = LoadedObject(compile_object(text, target, level), (symbol,))
    seconds = time.perf_counter() - started
    _compiles += 1
    return Code(loaded.address(symbol), text, seconds, target, level, loaded)


def clear() -> None:
    """Forget all code that no executable holds."""
    with _lock:
        _cache.clear()


@lru_cache(maxsize=8)
def driver(target: Target) -> Callable[[int, int, int], None]:
    """Return the native driver of ``target`` as ``run(records, count, pointers)``."""
    code = obtain("driver", lambda: emit_driver(target), DRIVER, target)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_int64, ctypes.c_size_t)
    function: Any = kind(code.address)
    function.code = code  # keeps the machine code alive
    return function
