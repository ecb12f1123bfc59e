"""Object code → callable addresses; the memory is given back when the handle dies.

Kernels are linked by ``runtime/elf.py`` into memory of their own, which is written first and made
executable then. What it does not know (other systems' object files) goes through LLVM's ORC
linker, which costs LLVM's initialisation.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

from tracejit.errors import InternalError
from tracejit.runtime import elf

# Where C functions are looked up after the process itself: a Python that is linked statically
# may not have them.
_LIBRARIES = ("libm.so.6", "libpthread.so.0", "libgcc_s.so.1")
_names = itertools.count()
_lock = threading.Lock()


class NoMemory(InternalError):
    """The system has no memory for code, or none that may become executable."""


class _Mapping(Protocol):
    nbytes: int
    start: int

    def address(self, symbol: str) -> int: ...


class LoadedObject:
    """Machine code in memory. ``address(name)`` is valid while this object lives.

    ``addresses`` are symbols that the code imports beside C functions. It takes ``nbytes`` of
    memory from the address ``start`` on. Raises InternalError where it cannot be linked, NoMemory
    where there is none for it.
    """

    def __init__(
        self,
        image: bytes,
        symbols: tuple[str, ...],
        addresses: Mapping[str, int] | None = None,
    ):
        self._mapping: _Mapping
        known = addresses or {}
        try:
            self._mapping = _Mapped(elf.parse(image), symbols, known)
        except elf.Malformed as error:
            raise InternalError(f"object code cannot be linked: {error}") from error
        except elf.Unlinkable:
            self._mapping = _Orc(image, symbols, known)
        self.nbytes = self._mapping.nbytes
        self.start = self._mapping.start

    def address(self, symbol: str) -> int:
        """Return the address of an exported symbol."""
        return self._mapping.address(symbol)


class _Mapped:
    """Code that was linked here."""

    def __init__(self, file: elf.ObjectFile, symbols: tuple[str, ...], known: Mapping[str, int]):
        self.nbytes = -(-max(file.size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            self._memory = mmap.mmap(-1, self.nbytes, flags=flags)
        except OSError as error:
            raise NoMemory(f"the system has no memory for code: {error.strerror}") from error
        self.start = base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._memory[: file.size] = bytes(file.link(base, lambda name: _address(name, known)))
        self._addresses = {s: base + file.offset(s) for s in symbols}
        protect = _process().mprotect
        protect.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
        if protect(base, self.nbytes, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
            why = os.strerror(ctypes.get_errno())
            raise NoMemory(f"the system does not let memory become executable: {why}")

    def address(self, symbol: str) -> int:
        return self._addresses[symbol]


class _Orc:
    """Code that LLVM has linked."""

    def __init__(self, image: bytes, symbols: tuple[str, ...], known: Mapping[str, int]):
        from tracejit.codegen.llvm import binding

        self.nbytes = len(image)
        with _lock:
            builder = binding().JITLibraryBuilder().add_object_img(image).add_current_process()
            for name, value in known.items():
                builder.import_symbol(name, value)
            for symbol in symbols:
                builder.export_symbol(symbol)
            try:
                self._tracker = builder.link(_orc(), f"tracejit.{next(_names)}")
            except RuntimeError as error:
                raise InternalError(f"object code cannot be linked: {error}") from error
            self._addresses = {s: int(self._tracker[s]) for s in symbols}
            self.start = min(self._addresses.values())

    def address(self, symbol: str) -> int:
        return self._addresses[symbol]


@lru_cache(maxsize=1)
def _orc() -> Any:
    from tracejit.codegen.llvm import binding

    return binding().create_lljit_compiler()


@lru_cache(maxsize=1)
def _process() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _address(name: str, known: Mapping[str, int]) -> int:
    return known[name] if name in known else _external(name)


@lru_cache(maxsize=256)
def _external(name: str) -> int:
    """Return the address of a C function. Raises InternalError."""
    for library in (None, *_LIBRARIES):
        try:
            owner = ctypes.CDLL(library) if library else _process()
            function = getattr(owner, name)
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    raise InternalError(f"generated code calls {name}, which this system does not have")
