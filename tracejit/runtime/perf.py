"""The map of generated code for Linux's ``perf``: ``/tmp/perf-PID.map``.

With ``TRACEJIT_PERF_MAP=1`` each piece of code that is loaded gets a line, ``address size name``,
so that ``perf report`` shows kernels by name and source line. The folder is everybody's: the file
is private, and neither a link nor another user's file is written through. A line says nothing of
when it was right, so no address may come to hold other code: what has a line is not freed.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from typing import IO, TYPE_CHECKING

from tracejit import config

if TYPE_CHECKING:
    from tracejit.runtime.loader import LoadedObject

# Where perf looks.
_FOLDER = "/tmp"
_lock = threading.Lock()
_seen: set[LoadedObject] = set()
_lines: list[str] = []
_file: IO[str] | None = None
_owner = 0  # the process that opened it


def path() -> str:
    """Return where this process's map is."""
    return f"{_FOLDER}/perf-{os.getpid()}.map"


def wanted() -> bool:
    """Whether the map is asked for, on a system that has perf."""
    return config.perf_map() and sys.platform == "linux"


def note(loaded: LoadedObject, name: str) -> None:
    """Give a loaded object its line, once, and keep it; does nothing unless the map is wanted."""
    if not wanted():
        return
    line = f"{loaded.start:x} {loaded.nbytes:x} {' '.join(name.split())}\n"
    with _lock:
        if loaded in _seen:
            return
        _seen.add(loaded)
        _lines.append(line)
        _write(line)


def _write(line: str) -> None:
    global _file, _owner
    if _owner == os.getpid():
        if _file is not None:
            _file.write(line)
            _file.flush()
        return
    # The first line of this process; what a parent had loaded before a fork is here, too.
    _owner, _file = os.getpid(), None
    try:
        _file = _open(path())
    except OSError as error:
        # To the log: where warnings are errors, code must be loaded all the same.
        import logging

        logging.getLogger("tracejit").warning("no map for perf: %s", error)
        return
    _file.write("".join(_lines))
    _file.flush()


def _open(where: str) -> IO[str]:
    """Open a map of ours for appending: Python itself may write to it as well. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    handle = os.open(where, flags, 0o600)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        os.close(handle)
        raise OSError(f"{where} is not a file of this user alone")
    return os.fdopen(handle, "a", encoding="utf-8")


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
