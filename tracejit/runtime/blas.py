"""NumPy's BLAS leaves a core to what compiles.

OpenBLAS gives each of its threads an equal part of a product, and the caller waits for all. Where a
compiler has taken one of two cores, that part waits for a time slice: products of 1 ms took 30 on
two threads and 7 on one (measured). So the interpreter asks for a thread less while kernels are
being made. Its results may differ in the last bits from those of all threads, as NumPy's own do.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import lru_cache

# As the wheels name them, and as other builds do.
_NAMES = (
    ("scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("scipy_openblas_get_num_threads", "scipy_openblas_set_num_threads"),
    ("openblas_get_num_threads64_", "openblas_set_num_threads64_"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
)


@lru_cache(maxsize=1)
def _functions() -> tuple[Callable[[], int], Callable[[int], object]] | None:
    """Return what tells and sets OpenBLAS' number of threads; None where NumPy has another BLAS."""
    core = sys.modules.get("numpy._core._multiarray_umath")
    try:
        # What takes a microsecond keeps Python's lock.
        library = ctypes.PyDLL(getattr(core, "__file__", None) or "")
    except OSError:
        return None
    for get, put in _NAMES:
        try:
            return library[get], library[put]
        except AttributeError:
            continue
    return None


class _Share:
    """How many callers share the cores now, and the number of threads before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.callers = 0
        self.before = 0

    def enter(self) -> None:
        found = _functions()
        if found is None:
            return
        get, put = found
        with self.lock:
            self.callers += 1
            if self.callers == 1:
                self.before = get()
                put(max(1, self.before - 1))

    def leave(self) -> None:
        found = _functions()
        if found is None:
            return
        get, put = found
        with self.lock:
            self.callers -= 1
            # Somebody may have set another number meanwhile: it stays.
            if self.callers == 0 and get() == max(1, self.before - 1):
                put(self.before)


_share = _Share()


@contextmanager
def sharing() -> Generator[None, None, None]:
    """Inside, products of NumPy's run on a thread less; nests, and counts for all threads."""
    share = _share
    share.enter()
    try:
        yield
    finally:
        share.leave()


def _in_child() -> None:
    global _share
    before, _share = _share, _Share()
    if before.callers:  # by threads that are not here
        before.callers = 1
        before.lock = threading.Lock()
        before.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
