"""The background thread: compiles what callers do not wait for, the most wanted first.

One thread is enough: planning holds the interpreter's lock, and LLVM has one of its own.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import sys
import threading
from collections.abc import Callable
from typing import cast

from tracejit.runtime import analysis, service, turns

# While the thread works, a caller waits at most this long to get the interpreter back from it
# (Python's default is 5 ms, which an interpreted call would pay after every large ufunc).
_SWITCH_S = 5e-4
# How long a fork waits for the running job.
FORK_SECONDS = 10.0


class Job:
    """One piece of background work. ``priority`` may change while it waits: larger goes first."""

    __slots__ = ("context", "done", "priority", "process", "run")

    def __init__(self, run: Callable[[], None], priority: float):
        self.run = run
        self.priority = priority
        self.context = contextvars.copy_context()
        self.done = threading.Event()
        self.process = os.getpid()


class Worker:
    """A daemon thread that starts with the first job and stops at exit."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self.running = threading.Lock()
        self._jobs: list[Job] = []
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._interval = 0.0  # the program's own; 0 while it is in force

    def submit(self, job: Job) -> None:
        """Take ``job``; it runs in the submitter's context (instruction set, settings)."""
        with self._ready:
            if self._stopping:
                job.done.set()
                return
            self._jobs.append(job)
            # Here: a caller that has begun to wait for the interpreter would wait for the old one.
            self._hurry()
            thread = self.start()
            # From now on: a thread that has still to begin would wait for the interpreter longest.
            turns.want(cast(int, thread.ident))
            self._ready.notify()

    def start(self) -> threading.Thread:
        """Start the thread, which takes up to 2 ms beside others; nothing happens if it runs."""
        with self._ready:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="tracejit-background", daemon=True
                )
                self._thread.start()
            return self._thread

    def pending(self) -> int:
        """Return how many jobs wait."""
        return len(self._jobs)

    def _work(self) -> None:
        while True:
            with self._ready:
                while not self._jobs and not self._stopping:
                    turns.done(threading.get_ident())
                    self.rest()
                    self._ready.wait()
                if self._stopping:
                    return
                job = max(self._jobs, key=lambda j: j.priority)
                self._jobs.remove(job)
            with self.running:
                self._run(job)

    def _run(self, job: Job) -> None:
        try:
            job.context.run(job.run)
        except Exception:  # a job says itself what its failure means; the thread goes on
            import logging

            logging.getLogger("tracejit").exception("work in the background failed")
        finally:
            job.done.set()

    def _hurry(self) -> None:
        """Shorten the switch interval, before the thread has anything to do."""
        interval = sys.getswitchinterval()
        if interval > _SWITCH_S:
            self._interval = interval
            sys.setswitchinterval(_SWITCH_S)

    def rest(self) -> None:
        """Put the switch interval back, unless somebody has set another since."""
        if self._interval and sys.getswitchinterval() == _SWITCH_S:
            sys.setswitchinterval(self._interval)
        self._interval = 0.0

    def stop(self) -> None:
        """Drop what waits, and wait for what runs: LLVM must not be at work while Python ends."""
        with self._ready:
            self._stopping = True
            for job in self._jobs:
                job.done.set()
            self._jobs.clear()
            self._ready.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


_worker = Worker()


def submit(job: Job) -> None:
    """Run ``job`` in the background."""
    _worker.submit(job)


def start_ahead() -> None:
    """Have the thread wait for its first job."""
    _worker.start()


def prepare(run: Callable[[], None]) -> None:
    """Run ``run`` in the background, after the kernels that wait; asking again does nothing."""
    with _preparing_lock:
        job = _preparing.get(run)
        if job is not None and not lost(job):
            return
        _preparing[run] = job = Job(run, -1.0)
    submit(job)


_preparing: dict[Callable[[], None], Job] = {}
_preparing_lock = threading.Lock()


def lost(job: Job) -> bool:
    """Return whether ``job`` waits for the thread of a process that this one was forked from."""
    return job.process != os.getpid() and not job.done.is_set()


def _before_fork() -> None:
    """Let the running job end: a child would wait for ever for the locks that it holds."""
    global _paused
    _paused = _worker.running.acquire(timeout=FORK_SECONDS)


def _in_parent() -> None:
    if _paused:
        _worker.running.release()


def _in_child() -> None:
    """Start afresh: there is no thread here, and the locks may be anybody's."""
    global _worker, _preparing_lock
    _worker.rest()  # nobody else would: its thread is not here
    _worker = Worker()
    _preparing_lock = threading.Lock()


_paused = False
atexit.register(lambda: _worker.stop())
# After the compile service's own, and the analysis': the last one registered is the first to be
# called before a fork, and a job may need both to end.
assert service
assert analysis
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
