"""The compile service: requests for machine code, a queue by priority, and who compiles them.

``submit`` asks for code and returns at once with a ``Ticket``; ``obtain`` waits for it; ``find``
only looks whether it is there. Code is looked for in memory, then on disk, then compiled. Equal
requests share one job, so each kernel is compiled once, whoever asks and however often.

Compiler threads take jobs from the queue. Each has a worker process, started with its first job or
ahead of it (``start_ahead``), and ended when there is nothing more to do (``runtime/workers.py``).
A worker takes 17 ms to start, not in the program's way: so the first kernels of a process are left
to one, in which LLVM may crash. Once LLVM is loaded here, because many kernels wait or
no worker can be had, who waits for a job that nobody has begun compiles it, rather than wait for a
thread that is busy with something else. A process that has compiled many this way leaves the rest
to workers, whose memory comes back.

After a fork, the child has its parent's queue and none of its threads; it starts its own.
"""

from __future__ import annotations

import atexit
import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable
from enum import Enum, IntEnum, auto
from functools import partial
from typing import Any

from tracejit import config
from tracejit.codegen import llvm
from tracejit.codegen.target import Target
from tracejit.errors import InternalError, LimitError
from tracejit.runtime import cache, events, spans, turns, workers
from tracejit.runtime import code as codes
from tracejit.runtime.code import Code, Key
from tracejit.runtime.loader import LoadedObject
from tracejit.schedule.titles import time_text

MAX_QUEUED = 1024
# How long a compiler thread, and its worker, live without work.
IDLE_SECONDS = 10.0
# How long the end of the process waits for a compilation that is running in it.
EXIT_SECONDS = 10.0
# Compilations in this process before it leaves them to workers: each keeps about 2 KB.
IN_PROCESS = 256
# With so many kernels in the queue who waits loads LLVM, to compile beside the workers.
CROWD = 6


_COUNTED = (
    "requests", "memory_hits", "disk_hits", "joined", "compiled", "failed", "cancelled", "refused",
)  # fmt: skip


class Priority(IntEnum):
    """How urgent a request is; the queue hands out lower numbers first."""

    NOW = 0  # somebody waits
    SOON = 1  # a hot function
    IDLE = 2  # when nothing else is to be done


class Cancelled(Exception):
    """The ticket was cancelled before its code was compiled."""


class QueueFull(LimitError):
    """More requests are queued than the service takes."""


class _State(Enum):
    QUEUED = auto()
    RUNNING = auto()
    DONE = auto()


class _Job:
    """One compilation, shared by all who want it. Changes under the service's lock only."""

    def __init__(self, key: Key, emit: Callable[[], str], symbol: str, lock: threading.RLock):
        self.key = key
        self.emit = emit
        self.symbol = symbol
        # Those of a module whose object code is all that is asked for; None for a kernel.
        self.passes: int | None = None
        self.image = b""
        self.text: str | None = None  # what ``emit`` would write, where that has been done
        self.priority: Priority | None = None  # None: in no queue, whoever wants it compiles it
        self.state = _State.QUEUED
        self.wanted = 0
        self.code: Code | None = None
        self.error: Exception | None = None
        self.disk = cache.disk()  # of the caller's settings
        self.changed = threading.Condition(lock)
        self.callbacks: list[Callable[[], None]] = []


class Ticket:
    """One caller's share in a request; the methods are those of ``concurrent.futures.Future``."""

    def __init__(self, service: Service, job: _Job):
        self._service = service
        self._job = job
        self._cancelled = False

    def done(self) -> bool:
        """Whether the code is there, or will not come."""
        return self._cancelled or self._job.state is _State.DONE

    def cancelled(self) -> bool:
        """Whether ``cancel`` has succeeded."""
        return self._cancelled

    def cancel(self) -> bool:
        """Take the request back; false where its compilation has begun.

        The job stays in the queue while other callers want it.
        """
        return self._service.withdraw(self)

    def result(self, timeout: float | None = None) -> Code:
        """Return the code, waiting for it; raises what compiling raised.

        Raises ``Cancelled``, and ``TimeoutError`` after ``timeout`` seconds.
        """
        self._service.wait(self, timeout)
        if self._cancelled:
            raise Cancelled
        if self._job.error is not None:
            raise self._job.error
        assert self._job.code is not None
        return self._job.code

    def image(self) -> bytes:
        """Return the object code that ``Service.translate`` was asked for, as ``result`` does."""
        self._service.wait(self, None)
        if self._job.error is not None:
            raise self._job.error
        return self._job.image

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Return what compiling raised, or None; waits like ``result``."""
        self._service.wait(self, timeout)
        return Cancelled() if self._cancelled else self._job.error

    def add_done_callback(self, function: Callable[[Ticket], Any]) -> None:
        """Call ``function(ticket)`` when done, on the thread that compiled; at once if it is.

        What it raises is ignored. It is not called for a ticket that was cancelled.
        """
        self._service.when_done(self._job, lambda: self._cancelled or function(self))

    # For the service.
    @property
    def job(self) -> _Job:
        return self._job

    def mark_cancelled(self) -> None:
        self._cancelled = True


class Service:
    """The queue, the compiler threads, and the counters. There is one, in this module."""

    def __init__(self) -> None:
        # Reentrant: a finalizer that runs inside may ask for code. Never held while compiling.
        self.lock = threading.RLock()
        self._work = threading.Condition(self.lock)
        self._jobs: dict[Key, _Job] = {}  # queued and running
        self._queue: list[tuple[int, int, _Job]] = []  # may hold jobs that are no longer queued
        self._order = itertools.count()
        self._threads = 0
        self._idle = 0
        self._closing = False
        atexit.register(self.close)
        self.counts = dict.fromkeys(_COUNTED, 0)
        self.compile_seconds = 0.0

    # -- requests ----------------------------------------------------------------------------------

    def submit(
        self,
        structure: str,
        emit: Callable[[], str],
        symbol: str,
        target: Target,
        level: int = 2,
        priority: Priority = Priority.SOON,
        *,
        write: bool = False,
    ) -> Ticket:
        """Ask for the code of ``structure``, which ``emit()`` writes; returns at once.

        What is in memory or on disk is there at once, too. ``emit`` runs on the thread that
        compiles, with ``write`` on this one, and only if nobody has compiled this before.
        ``symbol`` is the function's name in it. The ticket fails with ``QueueFull`` if too much is
        queued.
        """
        key, started = Key(structure, target, level), time.perf_counter()
        new = self._find(key, emit, symbol) is None and key not in self._jobs
        text = emit() if write and new else None
        with self.lock:
            ticket, job = self._request(key, emit, symbol)
            job.text = job.text or text
            if job.state is not _State.QUEUED:
                return ticket
            if job.priority is not None and job.priority <= priority:
                return ticket
            if len(self._jobs) > MAX_QUEUED and job.wanted == 1:
                self.counts["refused"] += 1
                del self._jobs[job.key]
                job.error = QueueFull(f"{MAX_QUEUED} kernels wait to be compiled already")
                job.state = _State.DONE
                return ticket
            job.priority = priority
            self._enqueue(job)
        if spans.active is not None:
            with spans.flow(key):
                spans.add(f"request {cache.label_of(structure)}", "request", started)
        return ticket

    def translate(self, text: str, target: Target, level: int, passes: int) -> Ticket:
        """Ask for the object code of a module, which is neither loaded nor kept.

        LLVM's passes over the IR run at level ``passes``. ``Ticket.image`` waits for it.
        """
        with self.lock:
            key = Key(text, target, level)
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = _Job(key, lambda: text, "", self.lock)
                job.passes, job.priority = passes, Priority.NOW
                self._enqueue(job)
            job.wanted += 1
            return Ticket(self, job)

    def start_ahead(self) -> None:
        """Let a worker start, where there is none: something is to be compiled soon."""
        with self.lock:
            if self._threads == 0 and workers.allowed() and not llvm.loaded():
                self._start_thread(ahead=True)

    def obtain(
        self, structure: str, emit: Callable[[], str], symbol: str, target: Target, level: int = 2
    ) -> Code:
        """Return the code of ``structure``, compiling ``emit()`` where this is its first use.

        Raises what compiling raised.
        """
        with self.lock:
            ticket, _ = self._request(Key(structure, target, level), emit, symbol)
        return ticket.result()

    def _request(self, key: Key, emit: Callable[[], str], symbol: str) -> tuple[Ticket, _Job]:
        """Return a ticket for the job of ``key``, which is new where there is none."""
        self.counts["requests"] += 1
        job = self._jobs.get(key)
        if job is not None:
            self.counts["joined"] += 1
        else:
            job = _Job(key, emit, symbol, self.lock)
            job.code = codes.cache.get(key)
            if job.code is not None:
                self.counts["memory_hits"] += 1
                job.state = _State.DONE
            else:
                self._jobs[key] = job
        job.wanted += 1
        return Ticket(self, job), job

    def find(
        self, structure: str, emit: Callable[[], str], symbol: str, target: Target, level: int = 2
    ) -> Code | None:
        """Return the code if it can be had without compiling (in memory, or on disk), else None."""
        return self._find(Key(structure, target, level), emit, symbol)

    def _find(self, key: Key, emit: Callable[[], str], symbol: str) -> Code | None:
        code = codes.cache.get(key)
        if code is not None or key in self._jobs:
            return code
        job = _Job(key, emit, symbol, self.lock)
        started = time.perf_counter()
        code = self._load(job)
        if code is None:
            return None
        _tell(job, code, None, time.perf_counter() - started)
        return codes.cache.put(code)

    def withdraw(self, ticket: Ticket) -> bool:
        """Cancel a ticket; see ``Ticket.cancel``."""
        job = ticket.job
        with self.lock:
            if ticket.cancelled():
                return True
            if job.state is not _State.QUEUED:
                return False
            ticket.mark_cancelled()
            self.counts["cancelled"] += 1
            job.wanted -= 1
            if job.wanted == 0:
                del self._jobs[job.key]
                job.state, job.error = _State.DONE, None
            job.changed.notify_all()
            return True

    def wait(self, ticket: Ticket, timeout: float | None) -> None:
        """Return once the ticket is done; compiles it here if nobody has begun to."""
        job = ticket.job
        limit = None if timeout is None else time.monotonic() + timeout
        while True:
            with self.lock:
                if ticket.done():
                    return
                if job.state is _State.QUEUED and timeout is None and self._here(job):
                    job.state = _State.RUNNING
                else:
                    left = None if limit is None else limit - time.monotonic()
                    if left is not None and left <= 0:
                        raise TimeoutError
                    with turns.waiting():
                        job.changed.wait(left)
                    continue
            self._run(job, workers.compile_here)

    def _here(self, job: _Job) -> bool:
        """Whether who waits for a job is to compile it; else it is in the queue."""
        if self._closing or not workers.allowed():
            return True
        crowded = llvm.loaded() or len(self._jobs) >= CROWD
        if crowded and workers.counts["in_process"] < IN_PROCESS:
            return True
        if job.priority != Priority.NOW:
            job.priority = Priority.NOW
            self._enqueue(job)
        return self._threads == 0

    def when_done(self, job: _Job, function: Callable[[], Any]) -> None:
        """Call ``function`` once the job is done."""
        with self.lock:
            if job.state is not _State.DONE:
                job.callbacks.append(function)
                return
        _call(function)

    def stats(self) -> dict[str, float]:
        """Return the counters, what is queued and running, and what is kept in memory."""
        with self.lock:
            queued = sum(j.state is _State.QUEUED for j in self._jobs.values())
            return {
                **self.counts,
                **workers.counts,
                "queued": queued,
                "running": len(self._jobs) - queued,
                "threads": self._threads,
                "compile_seconds": self.compile_seconds,
                "code_entries": len(codes.cache),
                "code_bytes": codes.cache.bytes,
                "code_evicted": codes.cache.evicted,
            }

    # -- compiling ---------------------------------------------------------------------------------

    def _enqueue(self, job: _Job) -> None:
        assert job.priority is not None
        heapq.heappush(self._queue, (job.priority, next(self._order), job))
        self._work.notify()
        if self._idle == 0 and self._threads < _most_threads() and not self._closing:
            self._start_thread()

    def _start_thread(self, *, ahead: bool = False) -> None:
        thread = threading.Thread(
            target=self._serve, args=(ahead,), name="tracejit-compile", daemon=True
        )
        try:
            thread.start()
            self._threads += 1
        except RuntimeError:
            pass  # no more threads, or the interpreter ends: whoever waits compiles

    def _serve(self, ahead: bool) -> None:
        """The life of a compiler thread: take jobs, and end after a while without any.

        With ``ahead`` its worker starts before there is a job.
        """
        compiler = workers.Compiler()
        turns.want(threading.get_ident())
        try:
            if ahead:
                compiler.begin()
            while True:
                with self.lock:
                    job = self._take()
                    if job is None:
                        self._idle += 1
                        turns.done(threading.get_ident())
                        self._work.wait(IDLE_SECONDS)
                        turns.want(threading.get_ident())
                        self._idle -= 1
                        job = self._take()
                    if job is None:
                        self._threads -= 1
                        return
                    more = any(j.state is _State.QUEUED for *_, j in self._queue)
                # What somebody waits for, and a single kernel once LLVM is loaded, is sooner done
                # here than by a worker that has to be started.
                # Nobody waits for what is idle work: it should not hold LLVM's lock here.
                single = not more and llvm.loaded() and job.priority != Priority.IDLE
                hurry = job.priority == Priority.NOW or single
                hurry = hurry and workers.counts["in_process"] < IN_PROCESS
                self._run(job, partial(compiler.compile, hurry=hurry, more=more))
        except BaseException:  # an emitter that raises SystemExit
            with self.lock:
                self._threads -= 1
            raise
        finally:
            turns.done(threading.get_ident())
            compiler.close()

    def _take(self) -> _Job | None:
        while self._queue and not self._closing:
            _, _, job = heapq.heappop(self._queue)
            if job.state is _State.QUEUED and job.wanted:
                job.state = _State.RUNNING
                return job
        return None

    def _run(self, job: _Job, compile_text: Callable[[str, Target, int, int], bytes]) -> None:
        """Load or compile a job that is marked as running, and tell everybody."""
        started = time.perf_counter()
        try:
            if job.passes is None:
                code = self._load(job) or self._compile(job, compile_text)
            else:
                code = None
                with turns.waiting():
                    job.image = compile_text(job.emit(), job.key.target, job.key.level, job.passes)
        except Exception as error:
            self._finish(job, None, error, started)
        except BaseException:  # Ctrl-C in a caller that compiled for others too: they go on
            with self.lock:
                job.state = _State.QUEUED
                if job.priority is not None:
                    self._enqueue(job)
                job.changed.notify_all()
            raise
        else:
            self._finish(job, code, None, started)

    def _load(self, job: _Job) -> Code | None:
        """Return the code of a job if it is on disk."""
        started = time.perf_counter()
        name = cache.name_of(job.key.structure, job.key.target, job.key.level)
        entry = job.disk.load(name) if name is not None else None
        if name is None or entry is None or entry.symbol != job.symbol:
            return None
        try:
            loaded = LoadedObject(entry.image, (job.symbol,))
        except InternalError:  # whole, and yet no object code of ours
            job.disk.drop(name)
            return None
        self.counts["disk_hits"] += 1
        address = loaded.address(job.symbol)
        if spans.active is not None:
            spans.add(f"load {entry.label}", "load", started)
        return Code(address, job.key, entry.seconds, "disk", loaded, job.emit)

    def _compile(self, job: _Job, compile_text: Callable[[str, Target, int, int], bytes]) -> Code:
        key, started = job.key, time.perf_counter()
        text, job.text = job.text or job.emit(), None
        with turns.waiting(), spans.flow(key):
            image = compile_text(text, key.target, key.level, llvm.KERNEL_PASSES)
        loaded = LoadedObject(image, (job.symbol,))
        seconds = max(0.0, time.perf_counter() - started)
        if spans.active is not None:
            label = cache.label_of(key.structure)
            with spans.flow(key):
                spans.add(f"compile {label}", "compile", started, target=key.target.name)
        self.counts["compiled"] += 1
        self.compile_seconds += seconds
        name = cache.name_of(key.structure, key.target, key.level)
        if name is not None:
            label = cache.label_of(key.structure)
            entry = cache.Entry(image, job.symbol, key.target.name, label, seconds)
            job.disk.store(name, entry)
        return Code(loaded.address(job.symbol), key, seconds, "compiled", loaded, job.emit)

    def _finish(
        self, job: _Job, code: Code | None, error: Exception | None, started: float
    ) -> None:
        if code is not None:
            code = codes.cache.put(code)
        with self.lock:
            job.code, job.error, job.state = code, error, _State.DONE
            self._jobs.pop(job.key, None)
            self.counts["failed"] += error is not None
            callbacks, job.callbacks = job.callbacks, []
            job.changed.notify_all()
        if job.passes is None:
            _tell(job, code, error, time.perf_counter() - started)
        for function in callbacks:
            _call(function)

    def close(self) -> None:
        """At exit: begin nothing more, and let what runs end before LLVM is taken down."""
        limit = time.monotonic() + EXIT_SECONDS
        with self.lock:
            self._closing = True
            self._work.notify_all()
            for job in self._jobs.values():
                job.changed.notify_all()
            workers.end()
            for job in list(self._jobs.values()):
                if job.state is _State.RUNNING:
                    job.changed.wait_for(
                        lambda job=job: job.state is not _State.RUNNING,
                        max(0.0, limit - time.monotonic()),
                    )

    def after_fork(self) -> None:
        """Go on in a child: without the threads, and with what they had begun to do again."""
        self.lock.release()
        self._work = threading.Condition(self.lock)
        self._threads = self._idle = 0
        for job in self._jobs.values():
            job.changed = threading.Condition(self.lock)
            if job.state is _State.RUNNING:
                job.state = _State.QUEUED
                if job.priority is not None:
                    self._queue.append((job.priority, next(self._order), job))
        heapq.heapify(self._queue)


def _most_threads() -> int:
    return max(1, config.compile_workers())


def _tell(job: _Job, code: Code | None, error: Exception | None, seconds: float) -> None:
    """Report where the code of a job came from; ``seconds`` is what that took."""
    kernel, seconds = cache.label_of(job.key.structure), max(0.0, seconds)
    if code is None:
        message, origin = f"could not be compiled: {error}", "failed"
    elif code.origin == "disk":
        before = f"compiling it once took {time_text(code.seconds)}"
        message, origin = f"loaded from disk in {time_text(seconds)}; {before}", "disk"
    else:
        message, origin = f"compiled in {time_text(code.seconds)}", code.origin
    events.emit("cache", f"{kernel}: {message}", seconds, kernel=kernel, origin=origin)


def _call(function: Callable[[], Any]) -> None:
    try:
        function()
    except Exception:
        import logging

        logging.getLogger("tracejit").exception("a callback of the compile service failed")


_service = Service()
submit = _service.submit
translate = _service.translate
start_ahead = _service.start_ahead
obtain = _service.obtain
find = _service.find
stats = _service.stats


def compiles() -> int:
    """Return how many kernels this process has had compiled (what a cache had does not count)."""
    return _service.counts["compiled"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_service.lock.acquire,
        after_in_parent=_service.lock.release,
        after_in_child=_service.after_fork,
    )
