"""The runtime's own machine code: the driver and the pool's worker, and how such code is loaded."""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from tracejit.codegen import imports
from tracejit.codegen.pool import DRIVER, SETUP, TICKS, WORKER
from tracejit.codegen.target import LEVELS
from tracejit.errors import InternalError
from tracejit.runtime import cache, perf, service
from tracejit.runtime.loader import LoadedObject
from tracejit.runtime.once import Once

_TARGET = LEVELS["generic"]
# What the first kernel of a process waits for is compiled without optimising, in an eighth of the
# time (measured: the driver 14 ms instead of 80, the allocator 8 instead of 90).
QUICK, BEST = 0, 2
# LLVM's passes over the IR inline what the text marks, and no more: that takes a third of the time
# and a call of the entry as long (measured: 40 ms instead of 105, the allocator 16 instead of 41).
PASSES = 0


class Module(NamedTuple):
    """A module of the runtime. Its ``name`` decides its text, which is written when it is compiled:
    one version of the code generator has one text for a name."""

    name: str
    text: Callable[[], str]


def load(
    module: Module,
    symbols: tuple[str, ...],
    addresses: Mapping[str, int] | None = None,
    *,
    level: int = BEST,
) -> LoadedObject:
    """Return the code of a module of the runtime, from disk where it has been compiled before.

    ``addresses`` are those that it imports (``codegen/imports.py``). Raises InternalError.
    """
    found = find(module, symbols, addresses, level=level)
    if found is not None:
        return found
    started = time.perf_counter()
    ticket = _ahead.pop((module.name, level), None) or _translate(module, level)
    image = ticket.image()
    loaded = LoadedObject(image, symbols, _known(addresses))
    seconds = time.perf_counter() - started
    perf.note(loaded, f"tracejit {symbols[0]}")
    name = _name(module, level)
    if name is not None:
        label = f"the runtime's {symbols[0]}"
        entry = cache.Entry(image, symbols[0], _TARGET.name, label, seconds)
        cache.disk().store(name, entry)
    return loaded


def find(
    module: Module,
    symbols: tuple[str, ...],
    addresses: Mapping[str, int] | None = None,
    *,
    level: int = BEST,
) -> LoadedObject | None:
    """Return what ``load`` would return if it is on disk, else None."""
    disk = cache.disk()
    name = _name(module, level)
    entry = disk.load(name) if name is not None else None
    if name is None or entry is None:
        return None
    try:
        loaded = LoadedObject(entry.image, symbols, _known(addresses))
    except InternalError:
        disk.drop(name)
        return None
    perf.note(loaded, f"tracejit {symbols[0]}")
    return loaded


def ask_ahead(module: Module, level: int) -> None:
    """Have a module that ``load`` will be asked for compiled meanwhile, where it is not on disk."""
    if (module.name, level) in _ahead:
        return
    name = _name(module, level)
    if name is None or cache.disk().load(name) is None:
        _ahead[module.name, level] = _translate(module, level)


def _translate(module: Module, level: int) -> service.Ticket:
    return service.translate(module.text(), _TARGET, level, PASSES)


# What has been asked for and not been loaded yet.
_ahead: dict[tuple[str, int], service.Ticket] = {}


def _name(module: Module, level: int) -> str | None:
    system = f"{platform.system()} {platform.machine()}"
    return cache.name_of(f"runtime {PASSES} {system}\n{module.name}", _TARGET, level)


def _known(addresses: Mapping[str, int] | None) -> dict[str, int]:
    return {imports.symbol(name): value for name, value in (addresses or {}).items()}


def driver_text() -> str:
    """Return the driver's IR for this machine."""
    from tracejit.codegen.driver import emit_driver

    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return emit_driver(x86, linux=platform.system() == "Linux")


_DRIVER = Module("driver", driver_text)


@Once
def _runtime() -> LoadedObject:
    # Calls that count nanoseconds have the native entry, which holds the driver's text, optimised.
    return load(_DRIVER, (DRIVER, WORKER, SETUP, TICKS), level=QUICK)


def prepare() -> None:
    """Have the driver compiled meanwhile, where it has not been made."""
    if not _runtime.made:
        ask_ahead(_DRIVER, QUICK)


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
