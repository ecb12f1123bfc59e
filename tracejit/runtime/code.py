"""Compiled code in memory: one entry for each distinct kernel, whoever asks."""

from __future__ import annotations

import ctypes
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tracejit.codegen.driver import DRIVER, SETUP, TICKS, WORKER, emit_driver
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.target import LEVELS, Target
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
    # The emitter hoists and combines by itself: on a softmax kernel LLVM's IR passes took 19 of
    # 34 ms and made it 2 % faster (measured), so only instruction selection optimises.
    loaded = LoadedObject(compile_object(text, target, level, passes=0), (symbol,))
    seconds = time.perf_counter() - started
    _compiles += 1
    return Code(loaded.address(symbol), text, seconds, target, level, loaded)


def clear() -> None:
    """Forget all code that no executable holds."""
    with _lock:
        _cache.clear()


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


def driver() -> Callable[[int, int, int, int], None]:
    """Return the native driver as ``run(records, count, pointers, pool)``; addresses as ints."""
    size = ctypes.c_size_t
    return runtime_function(DRIVER, None, size, ctypes.c_int64, size, size)
