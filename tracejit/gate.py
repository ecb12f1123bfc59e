"""The gate: one machine word that sends every native entry to the Python path while it is not 0.

Native entries compare arguments only. Whatever else decides what a call means (a trace that is
running, settings replaced for a block, a recording) shuts the gate while it lasts.
"""

from __future__ import annotations

import ctypes
import importlib
import threading

from tracejit.errors import SubinterpreterError

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


def check_interpreter() -> None:
    """Raise SubinterpreterError in any interpreter but the process's first.

    Generated code holds addresses of objects (types, dtypes, exceptions), and each interpreter has
    its own; NumPy does not support sub-interpreters either.
    """
    for name in ("_interpreters", "_xxsubinterpreters"):  # from Python 3.13 on, and before
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise SubinterpreterError(
                "tracejit cannot be imported in a sub-interpreter",
                hint="use it in the main interpreter, or in processes of their own "
                "(multiprocessing, concurrent.futures.ProcessPoolExecutor)",
            )
        return
