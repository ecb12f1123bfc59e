"""A child process that is spoken to through pipes.

It does what ``subprocess.Popen`` does for a compile worker, and no more: ``subprocess`` takes 4 ms
to import, and 15 in a thread of a program that calculates, before the first worker could start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import IO

# The longest pause between two looks whether a process has ended.
_PAUSE_S = 0.005


class Child:
    """A process in a session of its own, so that a Ctrl-C at the terminal is not for it.

    It reads what is written to ``input``, and ``output`` reads what it prints; its errors go
    nowhere. Raises OSError where it cannot be started.
    """

    def __init__(self, command: list[str]):
        reads, writes = _pipe()
        answers, prints = _pipe()
        try:
            self.pid = os.posix_spawn(
                command[0],
                command,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, reads, 0),
                    (os.POSIX_SPAWN_DUP2, prints, 1),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
            )
        except BaseException as error:
            os.close(writes)
            os.close(answers)
            if isinstance(error, NotImplementedError):
                raise OSError(str(error)) from error
            raise
        finally:
            os.close(reads)
            os.close(prints)
        self.input: IO[bytes] = os.fdopen(writes, "wb", buffering=0)
        self.output: IO[bytes] = os.fdopen(answers, "rb", buffering=0)
        self._status: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit status, −n after signal n; None while it runs."""
        with self._lock:
            if self._status is None:
                try:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:  # the program ignores its children, or reaps them all
                    self._status = 0
                else:
                    self._status = os.waitstatus_to_exitcode(status) if pid else None
            return self._status

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the exit status; None where it still runs after so many seconds."""
        limit = None if seconds is None else time.monotonic() + seconds
        pause = _PAUSE_S / 16
        while self.poll() is None and (limit is None or time.monotonic() < limit):
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE_S)
        return self._status

    def kill(self) -> None:
        """End it at once; nothing happens where it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def forget(self) -> None:
        """In a forked child of this process: let go of it, without ending it."""
        self._lock = threading.Lock()
        self._status = 0
        self.input.close()
        self.output.close()


def _pipe() -> tuple[int, int]:
    """Return the ends of a pipe, neither of which is a standard stream."""
    import fcntl

    ends: list[int] = []
    for end in os.pipe():
        if end > 2:
            ends.append(end)
        else:  # a program that has closed its own
            ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3))
            os.close(end)
    return ends[0], ends[1]
