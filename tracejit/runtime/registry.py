"""Who has something to report: what the profiler asks, kept apart from what it takes to answer."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tracejit.runtime.report import FunctionProfile


class Profiled(Protocol):
    """What registers here: a jitted function, and evaluation on demand."""

    def profile(self) -> FunctionProfile: ...


_profiled: weakref.WeakSet[Profiled] = weakref.WeakSet()
_lock = threading.Lock()


def register(function: Profiled) -> None:
    """Let reports have ``function`` while it lives."""
    with _lock:
        _profiled.add(function)


def profiled() -> list[Profiled]:
    """Return who is registered and alive."""
    with _lock:
        return list(_profiled)
