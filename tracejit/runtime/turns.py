"""Turns: threads that compile get their share of the interpreter from a program that loops.

Python's lock goes to another thread when that has waited for a switch interval. A thread that lets
go of it at each system call, as importing a module does many times, waits that long each time. A
program that calls a jitted function in a tight loop takes all that is between: in a process without
bytecode it took up to 50 s until the kernels were there, where the work takes 0.3 (measured).

So a call that NumPy answers lets the threads that compile go first (``give``): a millisecond at
most, and half of the time at most that they have been at work. Where none of them wants the
interpreter, because LLVM works for them or they are done, it goes on at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager

# What callers give of the time that others want the interpreter; in pieces of these lengths.
SHARE = 0.5
SHORTEST_S, LONGEST_S = 1e-4, 1e-3


class Turns:
    """Which threads want the interpreter, and what callers have given them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanting: set[int] = set()
        self._nobody = threading.Event()
        self._nobody.set()
        self._since = 0.0
        self._given = 0.0

    def want(self, thread: int) -> None:
        """Note that ``thread`` (an identifier) has work to do in Python."""
        with self._lock:
            if not self._wanting:
                self._since, self._given = time.monotonic(), 0.0
                self._nobody.clear()
            self._wanting.add(thread)

    def done(self, thread: int) -> None:
        """Note that ``thread`` has none any more."""
        with self._lock:
            self._wanting.discard(thread)
            if not self._wanting:
                self._nobody.set()

    @contextmanager
    def waiting(self) -> Generator[None, None, None]:
        """Inside, this thread wants nothing: it waits for LLVM, or for another thread."""
        me = threading.get_ident()
        wanted = me in self._wanting
        if wanted:
            self.done(me)
        try:
            yield
        finally:
            if wanted:
                self.want(me)

    def give(self) -> None:
        """Let those who want it have the interpreter for a while, if it is their turn."""
        if self._nobody.is_set():
            return
        now = time.monotonic()
        owed = SHARE * (now - self._since) - self._given
        if owed < SHORTEST_S:
            return
        self._nobody.wait(min(owed, LONGEST_S))
        self._given += time.monotonic() - now


_turns = Turns()


def want(thread: int) -> None:
    """See ``Turns.want``."""
    _turns.want(thread)


def done(thread: int) -> None:
    """See ``Turns.done``."""
    _turns.done(thread)


def waiting() -> AbstractContextManager[None]:
    """See ``Turns.waiting``."""
    return _turns.waiting()


def give() -> None:
    """See ``Turns.give``."""
    _turns.give()


def _in_child() -> None:
    """Start afresh: the threads that wanted it are not here."""
    global _turns
    _turns = Turns()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
