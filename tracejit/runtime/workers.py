"""Worker processes that compile: started, spoken to, and ended here.

LLVM may crash, and gives back little of the memory that it has once used. A worker is an
interpreter of its own, started like any other program (no ``multiprocessing``, so nothing is asked
of the user's main module, and notebooks and daemonic children may have workers too).
``codegen/worker.py`` is what it runs.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from typing import IO

from tracejit import config
from tracejit.codegen import llvm
from tracejit.codegen import worker as program
from tracejit.codegen.target import Target
from tracejit.errors import InternalError
from tracejit.runtime import spans

# After so many compilations a worker is replaced: each leaves about 2 KB (measured).
RECYCLE = 256
# How long a new worker may take to say that it is ready.
START_SECONDS = 30.0
# An exit status below these says that LLVM crashed: doing the same here would end this process.
_CRASHES = frozenset({-4, -6, -7, -8, -11})  # SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV


class WorkerDied(Exception):
    """The worker ended before it answered."""


class WorkerCrashed(InternalError):
    """LLVM crashed while it compiled a kernel, in a worker."""


counts = dict.fromkeys(("in_workers", "in_process", "workers_started", "workers_died"), 0)
_forbidden = ""
_ending = False
_alive: set[Worker] = set()
_lock = threading.Lock()


def allowed() -> bool:
    """Whether workers can be had here: nothing forbids them, and none has failed to start."""
    return not _forbidden and config.compile_workers() > 0 and not _obstacle()


def _obstacle() -> str:
    """Say why there is no interpreter to start; empty where there is one."""
    if getattr(sys, "frozen", False):
        return "the program is frozen"
    # An application that embeds Python is not an interpreter to start.
    name = os.path.basename(sys.executable or "")
    if not re.match(r"(python|pypy)[\d.]*\w?(\.exe)?$", name):
        return f"{name or 'sys.executable'} is no Python interpreter"
    if sys.platform == "win32" or not os.path.isfile(program.__file__):
        return "the worker's program is not a file"
    return ""


def forbid(why: str) -> None:
    """Let compilation go on without workers."""
    global _forbidden
    _forbidden = why
    import logging

    logging.getLogger("tracejit").info("compiling in threads instead of processes: %s", why)


def status() -> str:
    """Say why there are no workers; empty where there are."""
    return _forbidden or _obstacle()


class Worker:
    """One process. Used by one thread at a time."""

    def __init__(self) -> None:
        """Start it. Raises OSError where processes cannot be started."""
        command = [sys.executable, "-I", "-S", program.__file__, llvm.find_library()]
        from tracejit.runtime.child import Child  # for those who compile

        self._process = Child(command)
        self.compiled = 0
        self._ready = False
        with _lock:
            _alive.add(self)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def ready(self) -> bool:
        """Whether it has said hello, or died: ``wait_ready`` then returns at once, or raises."""
        import select

        return self._ready or bool(select.select([self._output], [], [], 0)[0])

    def wait_ready(self) -> None:
        """Return once it has said hello. Raises WorkerDied if it does not."""
        if self._ready:
            return
        import select

        got = b""
        while len(got) < len(program.HELLO):
            readable, _, _ = select.select([self._output], [], [], START_SECONDS)
            more = self._output.read(len(program.HELLO) - len(got)) if readable else b""
            if not more:
                break
            got += more
        if got != program.HELLO:
            raise WorkerDied("a compile worker did not start")
        self._ready = True

    def compile(
        self, text: str, target: Target, level: int, passes: int = llvm.KERNEL_PASSES
    ) -> bytes:
        """Return the object code of a module, by default a kernel's.

        Raises InternalError where LLVM refuses it, WorkerCrashed where LLVM crashed, WorkerDied
        where the process ended otherwise.
        """
        cpu, features, source = target.cpu.encode(), target.features.encode(), text.encode()
        head = program.REQUEST.pack(len(cpu), len(features), len(source), level, passes, 0)
        try:
            self.wait_ready()
            self._send(head + cpu + features + source)
            status, length = program.ANSWER.unpack(self._receive(program.ANSWER.size))
            answer = self._receive(length)
        except (OSError, ValueError, WorkerDied) as error:
            code = self.close()
            if code in _CRASHES:
                raise WorkerCrashed(f"LLVM crashed on a kernel (signal {-code})") from error
            raise WorkerDied(f"a compile worker died ({code})") from error
        self.compiled += 1
        if status != 0:
            raise InternalError(answer.decode(errors="replace"))
        return answer

    def close(self) -> int:
        """End the process if it runs, and return its exit status."""
        with _lock:
            _alive.discard(self)
        if self._process.poll() is None and self._ended_reading():
            self._process.wait(1.0)
        self._process.kill()
        code = self._process.wait()
        self._output.close()
        return code or 0

    def kill(self) -> None:
        """End the process at once; a thread that waits for its answer finds that it died."""
        self._process.kill()

    def reap(self) -> None:
        """Wait for the end of a process that was killed: it leaves no zombie."""
        self._process.wait()

    def _ended_reading(self) -> bool:
        try:
            self._input.close()
        except OSError:
            return False
        return True

    def forget(self) -> None:
        """In a forked child: let go of the parent's worker, without ending it."""
        self._process.forget()

    @property
    def _input(self) -> IO[bytes]:
        return self._process.input

    @property
    def _output(self) -> IO[bytes]:
        return self._process.output

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._input.write(left) :]

    def _receive(self, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            part = self._output.read(min(length, 1 << 20))
            if not part:
                raise WorkerDied
            parts.append(part)
            length -= len(part)
        return b"".join(parts)


def pids() -> list[int]:
    """Return the numbers of the processes that run."""
    with _lock:
        return [worker.pid for worker in _alive]


def end() -> None:
    """At exit: end all workers at once, and start no more."""
    global _ending
    _ending = True
    with _lock:
        workers = list(_alive)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.reap()


class Compiler:
    """Compiles in a worker that it starts, or in this process where none can be had."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._unready = 0  # workers that died before they were ready, one after another

    def begin(self) -> None:
        """Start the worker now, so that it is ready when there is something to compile."""
        if self._worker is None and allowed():
            with contextlib.suppress(WorkerDied):
                self._worker = self._start()

    def compile(
        self,
        text: str,
        target: Target,
        level: int,
        passes: int = llvm.KERNEL_PASSES,
        *,
        hurry: bool,
        more: bool,
    ) -> bytes:
        """Return the object code of ``text``; raises InternalError.

        In a ``hurry`` it is compiled here rather than by a worker that is not ready yet, once LLVM
        is loaded here; where ``more`` is to come, a worker is started meanwhile. Where one dies,
        another one is asked, and then it is compiled here.
        """
        for _ in range(2):
            if not allowed():
                break
            try:
                if hurry and llvm.loaded() and not self._ready(start=more):
                    break
                return self._ask(text, target, level, passes)
            except WorkerDied as error:
                if _ending:
                    raise InternalError("the process ends") from error
                counts["workers_died"] += 1
        return compile_here(text, target, level, passes)

    def _ready(self, start: bool) -> bool:
        """Whether there is a worker that can begin at once."""
        if self._worker is None and start:
            self._worker = self._start()
        return self._worker is not None and self._worker.ready()

    def _ask(self, text: str, target: Target, level: int, passes: int) -> bytes:
        worker = self._worker = self._worker or self._start()
        try:
            worker.wait_ready()
        except WorkerDied:
            code = worker.close()
            self._worker = None
            self._unready += 1
            if self._unready > 1:
                forbid(f"workers do not start (exit status {code})")
            raise
        self._unready = 0
        started = time.perf_counter()
        try:
            image = worker.compile(text, target, level, passes)
        except (WorkerDied, WorkerCrashed):
            self._worker = None
            raise
        if spans.active is not None:
            spans.add("LLVM", "compile", started, worker=worker.pid, target=target.name)
        counts["in_workers"] += 1
        if worker.compiled >= RECYCLE:
            self.close()
        return image

    def _start(self) -> Worker:
        counts["workers_started"] += 1
        try:
            return Worker()
        except OSError as error:
            forbid(f"no process can be started ({error.strerror or error})")
            raise WorkerDied("no compile worker") from error

    def close(self) -> None:
        """End the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()


def compile_here(text: str, target: Target, level: int, passes: int = llvm.KERNEL_PASSES) -> bytes:
    """Compile a module, by default a kernel's, in this process."""
    counts["in_process"] += 1
    try:
        return llvm.compile_object(text, target, level, passes=passes)
    except llvm.InvalidIR as error:
        raise InternalError(str(error)) from error


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for worker in _alive:
        worker.forget()
    _alive.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
