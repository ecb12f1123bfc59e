"""NumPy's creation functions, while a function is traced that writes traced values into arrays.

    total = np.zeros(3)
    for row in x:
        total += row                       # an ndarray cannot hold what is not known yet
    turn = np.array([[c, -s], [s, c]])     # nor can it be made of that

    best = np.max([a, b, c], axis=0)       # nor does NumPy look into lists

NumPy asks no protocol here. So a function whose trace ends at such a place is traced again within
``as_tensors()``, in which ``np.zeros`` and its like make tensors for the thread that traces, and
reductions take lists of them.
Functions that need none of this never see it, nor do other threads, NumPy and tracejit.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tracejit.frontend.signature import is_array
from tracejit.functions import creation
from tracejit.functions.arguments import is_sequence
from tracejit.tensor import Tensor
from tracejit.tracing import is_internal

_lock = threading.Lock()
_threads: dict[int, int] = {}  # how many `as_tensors` each thread is in
_originals: dict[str, Callable[..., Any]] = {}


@contextmanager
def as_tensors() -> Generator[None]:
    """Within, NumPy's creation functions return tensors to this thread."""
    thread = threading.get_ident()
    with _lock:
        if not _threads:
            _install()
        _threads[thread] = _threads.get(thread, 0) + 1
    try:
        yield
    finally:
        with _lock:
            _threads[thread] -= 1
            if not _threads[thread]:
                del _threads[thread]
            if not _threads:
                _uninstall()


def _install() -> None:
    for name, ours in _OURS.items():
        _originals[name] = getattr(np, name)
        setattr(np, name, _chosen(_originals[name], ours))


def _uninstall() -> None:
    for name, original in _originals.items():
        setattr(np, name, original)
    _originals.clear()


def _chosen(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is ``ours`` to user code in the threads that trace."""

    def create(*args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_code.co_filename  # pyright: ignore[reportPrivateUsage]
        if threading.get_ident() not in _threads or is_internal(caller):
            return original(*args, **kwargs)
        return ours(*args, **kwargs)

    return create


def _as_given(obj: Any, dtype: Any = None, **_: Any) -> Any:
    """``np.asarray`` and its like: an ndarray is the caller's, and stays what it is."""
    if is_array(obj):
        return np.asanyarray(obj, dtype)
    return creation.asarray(obj, dtype)


def _without_layout(ours: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``ours`` for calls that may name a memory order or a subclass."""

    def create(*args: Any, order: str = "C", subok: bool = True, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    return create


def _of_lists(name: str) -> Callable[..., Any]:
    """Return the reduction ``name`` of NumPy for calls that may give it a list of tensors."""

    def reduce(a: Any, *args: Any, **kwargs: Any) -> Any:
        return _originals[name](creation.asarray(a) if _holds_tensors(a) else a, *args, **kwargs)

    return reduce


def _holds_tensors(value: Any) -> bool:
    if not is_sequence(value):
        return False
    return any(isinstance(part, Tensor) or _holds_tensors(part) for part in value)


_AS_GIVEN = dict.fromkeys(("asarray", "asanyarray", "ascontiguousarray"), _as_given)
_NEW = ("array", "zeros", "ones", "empty", "full", "eye", "identity")
_LIKE = ("zeros_like", "ones_like", "empty_like", "full_like")
_REDUCTIONS = (
    "all", "any", "amax", "amin", "argmax", "argmin", "cumsum", "max", "mean", "median", "min",
    "prod", "std", "sum", "var",
)  # fmt: skip
_OURS: dict[str, Callable[..., Any]] = {
    **_AS_GIVEN,
    **{name: _of_lists(name) for name in _REDUCTIONS},
    **{name: _without_layout(getattr(creation, name)) for name in (*_NEW, *_LIKE)},
}
