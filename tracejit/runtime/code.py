"""Compiled code in memory: one entry for each distinct kernel, least recently used first out.

The bytes of machine code that are kept for reuse are bounded (``TRACEJIT_CODE_CACHE``). Code that
an executable holds stays alive, and is found again, whatever the bound; code that nobody holds is
freed when it leaves the cache.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable

from tracejit import config
from tracejit.codegen.target import Target
from tracejit.record import field, record
from tracejit.runtime.loader import LoadedObject


@record(frozen=True, slots=True)
class Key:
    """What decides machine code: the kernel's structure, what it is compiled for, and the level.

    Equal keys have equal code within one version of the code generator.
    """

    structure: str
    target: Target
    level: int


@record(frozen=True, slots=True, eq=False, weakref_slot=True)
class Code:
    """Loaded machine code: its entry address, and what compiling it cost, whenever that was.

    ``origin`` says where it came from: ``"compiled"`` or ``"disk"``.
    """

    address: int
    key: Key
    seconds: float
    origin: str
    loaded: LoadedObject = field(repr=False)
    emit: Callable[[], str] = field(repr=False)

    @property
    def target(self) -> Target:
        """What it was compiled for."""
        return self.key.target

    @property
    def level(self) -> int:
        """LLVM's optimisation level: 0…3, or that of specialised code (``codegen/llvm.py``)."""
        return self.key.level

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return self.loaded.nbytes

    @property
    def text(self) -> str:
        """The LLVM IR, emitted anew: code that came from disk has never had any here."""
        return self.emit()


class CodeCache:
    """The least recently used codes up to a number of bytes, and all that is alive elsewhere."""

    def __init__(self) -> None:
        # Reentrant: a finalizer that runs inside may ask for code.
        self.lock = threading.RLock()
        self.evicted = 0
        self.bytes = 0
        self._kept: OrderedDict[Key, Code] = OrderedDict()
        self._alive: weakref.WeakValueDictionary[Key, Code] = weakref.WeakValueDictionary()

    def get(self, key: Key) -> Code | None:
        """Return the code for ``key`` and make it the most recently used; None if not here."""
        with self.lock:
            code = self._kept.get(key)
            if code is not None:
                self._kept.move_to_end(key)
                return code
            code = self._alive.get(key)
        if code is not None:
            self.put(code)
        return code

    def put(self, code: Code) -> Code:
        """Keep ``code``, and drop the least recently used beyond the bound.

        Returns the code that is there for the key: the first that came.
        """
        bound = config.code_cache()
        dropped: list[Code] = []  # freed after the lock is given back
        with self.lock:
            code = self._alive.setdefault(code.key, code)
            before = self._kept.pop(code.key, None)
            if before is not None:
                self.bytes -= before.nbytes
            self._kept[code.key] = code
            self.bytes += code.nbytes
            while self.bytes > bound and self._kept:
                _, oldest = self._kept.popitem(last=False)
                self.bytes -= oldest.nbytes
                self.evicted += oldest is not code
                dropped.append(oldest)
        return code

    def drop(self, code: Code) -> None:
        """Do not keep ``code`` any longer: it is freed once nobody holds it."""
        with self.lock:
            if self._kept.get(code.key) is code:
                del self._kept[code.key]
                self.bytes -= code.nbytes

    def clear(self) -> None:
        """Forget all code; what an executable holds stays valid, and is not found again."""
        with self.lock:
            kept, self._kept = self._kept, OrderedDict()
            self._alive = weakref.WeakValueDictionary()
            self.bytes = 0
        kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


cache = CodeCache()


def clear() -> None:
    """Forget all code in memory, so that the next request looks further."""
    cache.clear()


# A child finds the cache as it was between two changes.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=cache.lock.acquire,
        after_in_parent=cache.lock.release,
        after_in_child=cache.lock.release,
    )
