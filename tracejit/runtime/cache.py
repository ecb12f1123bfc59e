"""Object code on disk: what one process has compiled, every later one loads.

Files live in ``code`` inside the cache folder, one an entry, named by a hash of everything that
decides the code: the kernel's structure, the target with its instruction-set bits, the level, the
version of LLVM, and the text of the code generator itself (``fingerprint``). No file time takes
part (times only say whether that text has to be read again), and nothing is unpickled.

An entry is a header, a checksum over all of it, and an object file. Object code runs with the
rights of whoever loads it, and a checksum keeps out damage, not malice: so the folder must belong
to this user (or root), and nobody else may write to it. Otherwise there is one warning, and code
is kept in memory only. All access is relative to a folder that was opened and then checked.

Writes go to a file of their own that is renamed when whole, so that readers, other writers and a
process that is killed on the way leave every entry as it was or as it should be. When the entries
exceed the bound (``TRACEJIT_DISK_CACHE``), those that were not used for longest go first.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import stat
import struct
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from tracejit import config
from tracejit.codegen.target import Target
from tracejit.digest import blake2b
from tracejit.schedule.titles import ops_text

FORMAT = 1
_MAGIC = b"tracejit"
# Magic, format, checksum of all that follows; then the entry's name, seconds, and lengths of
# symbol, target, label and object code.
_HEAD = struct.Struct("<8sI32s")
_BODY = struct.Struct("<20sdHHHI")
_NAME = 40  # hexadecimal digits
_MAX_BYTES = 1 << 28
# A temporary file that is older was left by a process that did not live to rename it.
_STALE_SECONDS = 3600
# Uses are written down at most this often: not every load should write to the disk.
_TOUCH_SECONDS = 3600
_numbers = itertools.count()


class Entry(NamedTuple):
    """Compiled code as it is stored. ``label`` describes it to people; ``seconds`` is its cost."""

    image: bytes
    symbol: str
    target: str
    label: str
    seconds: float


class Stored(NamedTuple):
    """An entry in the folder: its name, what it takes there, when it was last used, what it is.

    ``entry`` is None where the file is damaged.
    """

    name: str
    nbytes: int
    used: float
    entry: Entry | None


# -- names -----------------------------------------------------------------------------------------


# What decides code and plans.
_FOLDERS = ("codegen", "graph", "ops", "schedule")
_FILES = ("sizes.py", "runtime/calls.py", "runtime/engine.py", "runtime/stored.py")


@lru_cache(maxsize=1)
def fingerprint() -> bytes | None:
    """Return a hash of the text of what plans and generates code, and LLVM's version; None where
    it has no text.

    Without it nothing is kept on disk: a version number alone would let code go stale while
    somebody works on the generator. None also where a source was changed after this process had
    started, which then runs something else than it would read here.
    """
    package = os.path.dirname(os.path.dirname(__file__))
    found = importlib.util.find_spec("llvmlite")
    places = (found.submodule_search_locations if found else None) or [""]
    try:
        files = [os.path.join(places[0], "_version.py")]
        files += [os.path.join(package, part) for part in _FILES]
        for part in _FOLDERS:
            files += _sources(os.path.join(package, part))
        states = [os.stat(path) for path in files]
        if any(state.st_mtime > config.IMPORTED for state in states):
            return None
        return _known_text(files, states) or _text_of(files, states)
    except OSError:
        return None


# Stands where the entries of code have their function's name.
_SOURCES = "sources"


def _states_name(files: Sequence[str], states: Sequence[os.stat_result]) -> str:
    """Return the name of the entry that holds the hash of files in these states.

    A file of the same number, size and times holds the same text: programs can set the time of the
    last change, but not of the change of that. Python trusts less when it takes bytecode for a
    source. In other states the text is read again, so that a copy elsewhere has the same hash.
    """
    listed = (
        f"{path} {s.st_dev} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"
        for path, s in zip(files, states, strict=True)
    )
    return blake2b("\n".join(listed).encode(), digest_size=_NAME // 2).hexdigest()


def _known_text(files: Sequence[str], states: Sequence[os.stat_result]) -> bytes | None:
    """Return the hash of the text of files that an earlier process has read."""
    entry = disk().load(_states_name(files, states))
    return entry.image if entry is not None and entry.symbol == _SOURCES else None


def _text_of(files: Sequence[str], states: Sequence[os.stat_result]) -> bytes:
    """Return the hash of the text of files, and keep it. Raises OSError."""
    digest = blake2b(digest_size=20)
    for path in files:
        with open(path, "rb", buffering=0) as file:
            text = file.read()
        digest.update(b"%d %s\n" % (len(text), os.path.basename(path).encode()))
        digest.update(text)
    if disk().exists():  # before, that says that no process has kept code
        entry = Entry(digest.digest(), _SOURCES, "", "the state of the code generator", 0.0)
        disk().store(_states_name(files, states), entry)
    return digest.digest()


def _sources(folder: str) -> list[str]:
    """Return the Python files below a folder, sorted. Raises OSError where there are none."""
    found: list[str] = []
    for item in sorted(os.scandir(folder), key=lambda item: item.name):
        if item.name.endswith(".py"):
            found.append(item.path)
        elif item.is_dir() and item.name != "__pycache__":
            found += _sources(item.path)
    if not found:
        raise FileNotFoundError(folder)
    return found


@lru_cache(maxsize=64)
def _target_text(target: Target) -> str:
    # Its repr lists a set, in an order that differs between processes.
    parts = [f"{name} {getattr(target, name)}" for name in Target.__slots__ if name != "flags"]
    return "\n".join([*parts, *sorted(target.flags)])


def name_of(structure: str, target: Target, level: int) -> str | None:
    """Return the name of an entry; None where nothing can be kept (see ``fingerprint``)."""
    code_generator = fingerprint()
    if code_generator is None:
        return None
    # The system is part of it: object files of one are no use to another.
    text = f"{FORMAT}\n{sys.platform}\n{level}\n{_target_text(target)}\n{structure}"
    return blake2b(code_generator + text.encode(), digest_size=_NAME // 2).hexdigest()


_NO_OPS = frozenset({"axes", "chain", "load", "const", "store", "sizes"})


def label_of(structure: str) -> str:
    """Return what a kernel computes, in a few words: its ops, in order."""
    ops: list[str] = []
    for line in structure.splitlines():
        first, _, rest = line.partition(" ")
        if first in ("reduce", "scan"):
            first = rest.partition(" ")[0]
        if first.isidentifier() and first not in _NO_OPS:
            ops.append(first)
    return ops_text(ops)[:200]


# -- entries as bytes ------------------------------------------------------------------------------


def encode(name: str, entry: Entry) -> bytes:
    """Return the file of an entry."""
    texts = [t.encode() for t in (entry.symbol, entry.target, entry.label)]
    lengths = (*map(len, texts), len(entry.image))
    body = _BODY.pack(bytes.fromhex(name), entry.seconds, *lengths)
    rest = b"".join([body, *texts, entry.image])
    return _HEAD.pack(_MAGIC, FORMAT, _checksum(rest)) + rest


def decode(name: str, data: bytes) -> Entry | None:
    """Return the entry that a file holds; None if it is damaged, or another one's."""
    if len(data) < _HEAD.size + _BODY.size:
        return None
    magic, version, checksum = _HEAD.unpack_from(data)
    rest = memoryview(data)[_HEAD.size :]
    if magic != _MAGIC or version != FORMAT or checksum != _checksum(rest):
        return None
    own, seconds, *lengths = _BODY.unpack_from(rest)
    if own.hex() != name or _BODY.size + sum(lengths) != len(rest):
        return None
    parts: list[bytes] = []
    at = _BODY.size
    for length in lengths:
        parts.append(bytes(rest[at : at + length]))
        at += length
    symbol, target, label = (p.decode(errors="replace") for p in parts[:3])
    return Entry(parts[3], symbol, target, label, seconds)


def _checksum(rest: bytes | memoryview) -> bytes:
    return blake2b(rest, digest_size=32).digest()


# -- the folder ------------------------------------------------------------------------------------


class DiskCache:
    """The entries in one folder. No method raises for a folder that cannot be used."""

    def __init__(self, folder: str | os.PathLike[str], bound: int):
        self.folder = os.fspath(folder)
        self.bound = bound
        self.damaged = 0  # entries that were dropped
        self._fd: int | None = None
        self._usable = True
        self._writable = True
        self._since_trim: int | None = None  # bytes written since; None: never trimmed here

    def exists(self) -> bool:
        """Whether anything has been kept in this folder, by any process."""
        return self._open(create=False) is not None

    def load(self, name: str) -> Entry | None:
        """Return an entry and note its use; None where there is none. Damaged ones are dropped."""
        folder = self._open(create=False)
        if folder is None:
            return None
        data = _read(folder, name)
        if data is None:
            return None
        entry = decode(name, data)
        if entry is None:
            self.drop(name)
        return entry

    def store(self, name: str, entry: Entry) -> bool:
        """Write an entry; false where that fails, which is said once."""
        data = encode(name, entry)
        if not self._writable or len(data) > min(self.bound, _MAX_BYTES):
            return False
        folder = self._open(create=True)
        if folder is None:
            return False
        try:
            try:
                _write(folder, name, data)
            except FileNotFoundError:
                # The folder vanished. Under its old number, since other threads may be using it.
                fresh = _open_private(self.folder, create=True)
                os.dup2(fresh, folder, inheritable=False)
                os.close(fresh)
                _write(folder, name, data)
            self._trim(folder, len(data))
        except OSError as error:
            self._writable = False
            self._refuse(f"cannot be written ({error.strerror})")
            return False
        return True

    def drop(self, name: str) -> None:
        """Remove a damaged entry."""
        self.damaged += 1
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._fd)

    def entries(self) -> Iterator[Stored]:
        """Yield what is stored, the most recently used first."""
        folder = self._open(create=False)
        if folder is None:
            return
        for used, nbytes, name in sorted(_scan(folder), reverse=True):
            data = _read(folder, name, touch=False)
            if data is not None:
                yield Stored(name, nbytes, used, decode(name, data))

    def clear(self) -> int:
        """Remove all entries; return how many."""
        folder = self._open(create=False)
        return 0 if folder is None else _remove(folder, [n for *_, n in _scan(folder)])

    def _open(self, create: bool) -> int | None:
        """Return the folder's file descriptor; None where there is none that can be trusted."""
        if self._fd is None and self._usable and self.bound > 0 and os.open in os.supports_dir_fd:
            try:
                self._fd = _open_private(self.folder, create)
            except FileNotFoundError:
                pass
            except OSError as error:
                self._usable = False
                self._refuse(error.strerror or str(error))
        return self._fd

    def _trim(self, folder: int, written: int) -> None:
        """Remove the least recently used entries beyond the bound, now and then."""
        if self._since_trim is not None:
            self._since_trim += written
            if self._since_trim < self.bound // 16:
                return
        self._since_trim = 0
        found = sorted(_scan(folder))
        total = sum(nbytes for _, nbytes, _ in found)
        if total <= self.bound:
            return
        doomed: list[str] = []
        for _, nbytes, name in found:
            if total <= self.bound - self.bound // 8:
                break
            doomed.append(name)
            total -= nbytes
        _remove(folder, doomed)

    def _refuse(self, why: str) -> None:
        message = f"tracejit keeps compiled code in memory only: {self.folder} {why}"
        try:
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        except RuntimeWarning:
            # Where warnings are errors: the program is right, and its kernel must not fail.
            import logging

            logging.getLogger("tracejit").warning(message)


def _open_private(folder: str, create: bool) -> int:
    """Open ``folder``/code and return its descriptor.

    Raises FileNotFoundError where it does not exist and is not to be made, OSError (with the
    reason as its text) where others could write to it or it cannot be used.
    """
    if create:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    outer = _open_checked(folder, None)
    try:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir("code", mode=0o700, dir_fd=outer)
        return _open_checked("code", outer)
    finally:
        os.close(outer)


def _open_checked(path: str, within: int | None) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder = os.open(path, flags, dir_fd=within)
    except FileNotFoundError:
        raise
    except OSError as error:
        linked = stat.S_ISLNK(os.stat(path, dir_fd=within, follow_symlinks=False).st_mode)
        why = "is a symbolic link" if linked else f"cannot be used ({error.strerror})"
        raise OSError(error.errno, why) from error
    about = os.fstat(folder)
    why = ""
    if about.st_uid not in (os.geteuid(), 0):
        why = "belongs to another user"
    elif about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = "can be written by others (chmod go-w)"
    if why:
        os.close(folder)
        raise OSError(0, why)
    return folder


def _read(folder: int, name: str, *, touch: bool = True) -> bytes | None:
    """Return the bytes of a regular file that nobody else could have written; None otherwise."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(name, flags, dir_fd=folder)
    except OSError:
        return None
    try:
        about = os.fstat(file)
        trusted = about.st_uid in (os.geteuid(), 0) and not about.st_mode & 0o022
        if not stat.S_ISREG(about.st_mode) or not trusted or about.st_size > _MAX_BYTES:
            return None
        data = os.read(file, about.st_size + 1)
        if touch and abs(time.time() - about.st_mtime) > _TOUCH_SECONDS:
            with contextlib.suppress(OSError):
                os.utime(file)
        return data
    except OSError:
        return None
    finally:
        os.close(file)


def _write(folder: int, name: str, data: bytes) -> None:
    """Write a file under another name and rename it. Raises OSError, leaving nothing behind."""
    temporary = f".{name}.{os.getpid()}.{next(_numbers)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(file, left) :]
        finally:
            os.close(file)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _scan(folder: int) -> list[tuple[float, int, str]]:
    """Return (time of last use, bytes, name) of each entry; removes temporary files left behind."""
    found: list[tuple[float, int, str]] = []
    stale: list[str] = []
    now = time.time()
    with contextlib.suppress(OSError), os.scandir(folder) as items:
        for item in items:
            with contextlib.suppress(OSError):
                about = item.stat(follow_symlinks=False)
                if item.name.endswith(".tmp"):
                    # Also from the future: the clock may have been set back since.
                    if abs(now - about.st_mtime) > _STALE_SECONDS:
                        stale.append(item.name)
                elif stat.S_ISREG(about.st_mode) and len(item.name) == _NAME:
                    found.append((about.st_mtime, about.st_size, item.name))
    _remove(folder, stale)
    return found


def _remove(folder: int, names: Sequence[str]) -> int:
    removed = 0
    for name in names:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
            removed += 1
    return removed


@lru_cache(maxsize=8)
def _cache(folder: str, bound: int) -> DiskCache:
    return DiskCache(folder, bound)


def disk() -> DiskCache:
    """Return the cache of the settings in force."""
    return _cache(config.cache_dir(), config.disk_cache())
