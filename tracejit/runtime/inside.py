"""What one thread spends in jitted functions, while somebody wants to know.

The time of a function that runs in Python is partly that of the jitted functions it calls. Their
counters are the process's, whoever calls. So for the thread that is watched native entries add the
time of their calls to one more word (``codegen/entry.py``), and what Python drives adds its own;
other threads pay a comparison at each call that is timed anyhow. One thread is watched at a time.
"""

from __future__ import annotations

import ctypes
import os
import threading

from tracejit.runtime import ticks

# The identifier of the thread that is watched, or 0, and the ticks of its native calls.
_cells = (ctypes.c_int64 * 2)()
_lock = threading.Lock()
# What Python has driven; only the watched thread adds to it.
_seconds = 0.0


def address() -> int:
    """Return where the two words are, for native entries."""
    return ctypes.addressof(_cells)


def watch() -> bool:
    """Watch this thread from now on; False where another one is watched, or this one already."""
    global _seconds
    with _lock:
        if _cells[0]:
            return False
        _cells[1], _seconds = 0, 0.0
        _cells[0] = threading.get_ident()
        return True


def unwatch() -> None:
    """End what ``watch`` began."""
    _cells[0] = 0


def spent() -> float | None:
    """Return the seconds in jitted functions so far; None for a thread that is not watched."""
    if not _cells[0] or _cells[0] != threading.get_ident():
        return None
    native = _cells[1]
    return _seconds + (native * ticks.seconds_per_tick() if native else 0.0)


def took(seconds: float, before: float | None) -> None:
    """Count ``seconds`` for a part of a call, whatever was counted inside it.

    ``before`` is what ``spent`` returned when the part began; None counts nothing.
    """
    global _seconds
    if before is not None:
        now = spent()
        _seconds += 0.0 if now is None else before + max(seconds, 0.0) - now


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()
    unwatch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
