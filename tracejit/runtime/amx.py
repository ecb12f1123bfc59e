"""Leave to use AMX: Linux gives the tile registers only to processes that ask for them.

A thread that has touched them has 8 KiB more to save at a context switch, and signal frames grow
by as much; so the kernel traps their use until the process asks, once, for all its threads and the
processes that it forks (Linux, Documentation/arch/x86/xstate.rst). It refuses where a thread has
an alternative signal stack that is too small for the larger frames.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

# The system call, its requests, and the number of the component with the tiles' data.
_ARCH_PRCTL, _GET_PERMISSION, _ASK_PERMISSION, _TILE_DATA = 158, 0x1022, 0x1023, 18


@lru_cache(maxsize=1)
def permitted() -> bool:
    """Ask for the tile registers; return whether this process may use them (x86-64 only)."""
    if not sys.platform.startswith("linux"):
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    granted = ctypes.c_uint64()
    number, data = ctypes.c_long(_ARCH_PRCTL), ctypes.c_ulong(_TILE_DATA)
    call(number, ctypes.c_ulong(_ASK_PERMISSION), data)
    if call(number, ctypes.c_ulong(_GET_PERMISSION), ctypes.byref(granted)) != 0:
        return False
    return bool(granted.value >> _TILE_DATA & 1)
