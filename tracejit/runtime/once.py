"""What a process makes once: by one thread, while others that want it wait."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """``@Once`` on a function without arguments: the first call runs it, later ones return that.

    ``functools.lru_cache`` would let two threads run it at a time and keep one result: machine
    code that the other made would die while its addresses are in use.
    """

    def __init__(self, make: Callable[[], T]):
        self.__doc__ = make.__doc__
        self._make = make
        self._made: list[T] = []
        self._lock = threading.RLock()
        _all.add(self)

    @property
    def made(self) -> bool:
        """Whether it has been made."""
        return bool(self._made)

    def __call__(self) -> T:
        if not self._made:
            with self._lock:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]

    def after_fork(self) -> None:
        """Have a lock that nobody holds: the thread that held it is not in a child."""
        self._lock = threading.RLock()


_all: weakref.WeakSet[Once[Any]] = weakref.WeakSet()


def _in_child() -> None:
    for once in _all:
        once.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
