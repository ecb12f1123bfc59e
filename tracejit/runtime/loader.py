"""Object code → callable addresses, through LLVM's ORC linker; freed when the handle dies."""

from __future__ import annotations

import itertools
import threading
from functools import lru_cache
from typing import Any

from tracejit.codegen.llvm import binding

_names = itertools.count()
_lock = threading.Lock()


@lru_cache(maxsize=1)
def _jit() -> Any:
    llvm = binding()
    return llvm.create_lljit_compiler()


class LoadedObject:
    """Machine code in memory. ``address(name)`` is valid while this object lives."""

    def __init__(self, image: bytes, symbols: tuple[str, ...]):
        self.nbytes = len(image)
        with _lock:
            builder = binding().JITLibraryBuilder().add_object_img(image).add_current_process()
            for symbol in symbols:
                builder.export_symbol(symbol)
            self._tracker = builder.link(_jit(), f"tracejit.{next(_names)}")
            self._addresses = {s: int(self._tracker[s]) for s in symbols}

    def address(self, symbol: str) -> int:
        """Return the address of an exported symbol."""
        return self._addresses[symbol]
