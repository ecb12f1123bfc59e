"""The gate: one machine word that sends every native entry to the Python path while it is not 0.

Native entries compare arguments only. Whatever else decides what a call means (a trace that is
running, settings replaced for a block, a recording) shuts the gate while it lasts.
"""

from __future__ import annotations

import ctypes
import threading

_cell = ctypes.c_int64(0)
_lock = threading.Lock()
# The word again, for Python.
closed: int = 0


def shut() -> None:
    """Send calls to the Python path until ``reopen``; nests, from any thread."""
    global closed
    with _lock:
        closed += 1
        _cell.value = closed


def reopen() -> None:
    """Undo one ``shut``."""
    global closed
    with _lock:
        closed -= 1
        _cell.value = closed


def address() -> int:
    """Return the address of the word."""
    return ctypes.addressof(_cell)
