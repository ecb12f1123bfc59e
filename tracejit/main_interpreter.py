"""Refusing sub-interpreters, before anything that they may not load is imported."""

from __future__ import annotations

import importlib

from tracejit.errors import SubinterpreterError


def check() -> None:
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
