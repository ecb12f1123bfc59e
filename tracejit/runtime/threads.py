"""The thread pool: native workers that run chunks of kernels without the GIL.

Workers are started on the first kernel that is worth sharing. How many take part is, in order:
``tj.num_threads(n)``, ``TRACEJIT_NUM_THREADS``, ``OMP_NUM_THREADS``, and never more than the CPUs
this process may use (affinity mask, cgroup quota). A forked child starts its own pool.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from tracejit import config
from tracejit.codegen.pool import CPU_BYTES, Pool
from tracejit.errors import ValueArgumentError
from tracejit.runtime.native import runtime_function

# Ticks after which an idle worker parks, at most: some 200 µs at 2.6 GHz. To wake it takes 10 to
# 20 µs in a virtual machine. Other processors' counters are slower.
SPIN_TICKS = 500_000 if platform.machine().lower() in ("x86_64", "amd64") else 10_000

_NO_QUOTA = 1 << 16

_requested: int | None = None


def available() -> int:
    """Return how many CPUs this process may use: affinity and cgroup quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(count or 1, _quota()))


def _cpu_set() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the CPUs that this thread may use as the system has them: a bit each."""
    bits = np.zeros(8 * CPU_BYTES, np.uint8)
    if hasattr(os, "sched_getaffinity"):
        bits[[cpu for cpu in os.sched_getaffinity(0) if cpu < len(bits)]] = 1
    return np.packbits(bits, bitorder="little")


@lru_cache(maxsize=1)
def _quota() -> int:
    return cgroup_quota("/")


def cgroup_quota(root: str | os.PathLike[str]) -> int:
    """Return the CPU quota of this process's control groups in whole CPUs, rounded up.

    Both versions are looked at, and every group above ours, since each of them binds. Without a
    quota the result is a large number. ``root`` is the file system.
    """
    groups: list[tuple[str, str, str]] = []  # mount, group, version
    try:
        for line in _text(os.path.join(root, "proc/self/cgroup")).splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                groups += [("sys/fs/cgroup", group, "2"), ("sys/fs/cgroup/unified", group, "2")]
            elif "cpu" in controllers.split(","):
                groups += [(f"sys/fs/cgroup/{m}", group, "1") for m in (controllers, "cpu")]
    except (OSError, ValueError):
        return _NO_QUOTA
    # A container sees its own group at the mount, under a name from outside: the path may not be
    # there, and its ancestors include the mount.
    return min(
        (
            _group_quota(os.path.join(root, mount, place), version)
            for mount, group, version in groups
            for place in _above(group.strip("/"))
        ),
        default=_NO_QUOTA,
    )


def _above(group: str) -> Iterator[str]:
    """Yield a group and those that it is in, up to the root's, which is ``""``."""
    yield group
    while group:
        group = os.path.dirname(group)
        yield group


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _group_quota(group: str, version: str) -> int:
    """Return one group's own quota in whole CPUs."""
    try:
        if version == "2":
            quota, period = _text(os.path.join(group, "cpu.max")).split()
        else:
            quota = _text(os.path.join(group, "cpu.cfs_quota_us"))
            period = _text(os.path.join(group, "cpu.cfs_period_us"))
        cpus = math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return _NO_QUOTA
    return cpus if cpus > 0 else _NO_QUOTA  # −1 stands for none in version 1


def get_num_threads() -> int:
    """Return how many threads a kernel may use, the caller's included."""
    wanted = _requested or config.num_threads()
    return min(wanted, available()) if wanted else available()


def set_num_threads(count: int) -> None:
    """Let kernels use ``count`` threads (at least 1), the caller's included."""
    global _requested
    if count < 1:
        raise ValueArgumentError(f"num_threads({count}): at least one thread is needed")
    _requested = count
    _limit_pool()


@contextmanager
def num_threads(count: int) -> Generator[None, None, None]:
    """Let kernels use ``count`` threads inside the ``with`` block."""
    global _requested
    before = _requested
    set_num_threads(count)
    try:
        yield
    finally:
        _requested = before
        _limit_pool()


class ThreadPool:
    """The pool's memory and its workers."""

    def __init__(self, workers: int):
        nbytes = Pool.THREADS + 8 * workers
        raw = np.zeros(nbytes + 64, np.uint8)
        self._memory = raw[-raw.ctypes.data % 64 :][:nbytes]
        self.address: int = self._memory.ctypes.data
        self._word(Pool.SPIN, SPIN_TICKS)
        self._word(Pool.AVOIDED, -1)
        self._word(Pool.WORKERS, workers)
        self._memory[Pool.ALLOWED : Pool.ALLOWED + CPU_BYTES] = _cpu_set()
        runtime_function("setup", None, ctypes.c_size_t)(self.address)
        run = runtime_function("worker", None, ctypes.c_size_t, ctypes.c_int64)
        self.workers = 0
        with contextlib.suppress(RuntimeError):  # no more threads: those that there are do it
            for number in range(1, workers + 1):
                # Daemon: at exit the process ends while the worker is parked in native code.
                threading.Thread(
                    target=run, args=(self.address, number), name=f"tracejit-{number}", daemon=True
                ).start()
                self.workers = number
        self.limit(self.workers)

    def _word(self, offset: int, value: int) -> None:
        self._memory[offset : offset + 8].view(np.int64)[0] = value

    def limit(self, workers: int) -> None:
        """Let ``workers`` of the pool take part."""
        self._word(Pool.LIMIT, workers)


_pool: ThreadPool | None = None
_lock = threading.Lock()
# The pool's address for native entries. 0 sends them to the Python path, which starts the pool (so
# it is until then, and in a forked child); 1 stands for no pool, where one thread is wanted.
_cell = np.zeros(1, np.int64)
_ALONE = 1


def pool_cell_address() -> int:
    """Return the address of the cell that holds this process's pool's address, 0 or 1."""
    return _cell.ctypes.data


def pool_address() -> int:
    """Return the address of this process's pool, started on first use; 0 for one thread."""
    global _pool
    if _pool is None:
        with _lock:
            if _pool is None:
                if get_num_threads() == 1:
                    _cell[0] = _ALONE
                    return 0
                _pool = ThreadPool(available() - 1)
                _pool.limit(get_num_threads() - 1)
                _cell[0] = _pool.address
    return _pool.address


def _limit_pool() -> None:
    """Let as many workers take part as are wanted now."""
    if _pool is not None:
        _pool.limit(get_num_threads() - 1)
    else:
        _cell[0] = 0


def _after_fork() -> None:
    """A child has the memory of its parent's pool but not its threads, nor a free lock."""
    global _lock, _pool
    _lock = threading.Lock()
    _pool = None
    _cell[0] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

Function = Callable[..., Any]
