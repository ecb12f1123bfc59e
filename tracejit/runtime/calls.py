"""Native calls: what the driver runs, as records."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tracejit.codegen.pool import MOST_CHUNKS, RECORD
from tracejit.runtime import spans
from tracejit.runtime.code import Code
from tracejit.runtime.threads import pool_address
from tracejit.schedule.arena import aligned
from tracejit.schedule.titles import kernel_title, kind_of

if TYPE_CHECKING:
    from tracejit.schedule.kernel import Kernel

UNKNOWN_NS = 10**9

I64Array = np.ndarray[Any, np.dtype[np.int64]]


class NativeCall:
    """One record: code, pointers as (buffer, byte offset), sizes, trip count and grain.

    With ``workspace`` bytes of private memory for each thread, its address is pointer ``private``;
    ``shared`` bytes follow them, for all threads.
    ``ns`` is a rough time of the call on one thread; ``kernel`` is what the code was made from,
    with ``reader`` where that is a product and a kernel that reads it. ``again`` says that it
    belongs to the step of the call before.
    """

    def __init__(
        self,
        code: Code,
        pointers: Sequence[tuple[int, int]],
        sizes: Sequence[int],
        end: int,
        grain: int,
        workspace: int = 0,
        ns: int = UNKNOWN_NS,
        private: int = -1,
        *,
        shared: int = 0,
        kernel: Kernel | Callable[[], Kernel],
        reader: Kernel | None = None,
        again: bool = False,
    ):
        self.code = code
        self._kernel = kernel
        self.reader = reader
        self.again = again
        self.pointers = tuple(pointers)
        self.numbers = tuple(sizes)
        self.end = end
        self.grain = max(grain, -(-end // MOST_CHUNKS))
        self.workspace = aligned(workspace)
        self.ns = ns
        self.private = private if workspace else -1
        self.shared = shared

    @property
    def kernel(self) -> Kernel:
        """What the code was made from; planned again where the call came from disk."""
        return self._kernel() if callable(self._kernel) else self._kernel

    @cached_property
    def loops(self) -> tuple[tuple[str, int], ...]:
        """Its loop nests: what kind of kernel each is of, and how often innermost loops are
        entered."""
        from tracejit.schedule.grain import loop_entries

        kernels = (
            ()
            if self.again
            else (self.kernel,)
            if self.reader is None
            else (self.kernel, self.reader)
        )
        return tuple((kind_of(kernel), loop_entries(kernel)) for kernel in kernels)

    @cached_property
    def sizes(self) -> I64Array:
        """The sizes as the driver wants them."""
        return np.array(self.numbers, np.int64)

    def record(self, first: int, sizes: Any) -> list[Any]:
        """Return the driver's record; the pointers start at ``first``, ``sizes`` is an address."""
        return [
            self.code.address, first, sizes, 0, self.end, self.grain, self.private, self.workspace,
            len(self.pointers), self.ns,
        ]  # fmt: skip


class Segment:
    """Native calls between two opaque steps, laid out for the driver."""

    def __init__(self, calls: Sequence[NativeCall]):
        self.calls = tuple(calls)
        self.buffers: I64Array = np.array([p[0] for c in calls for p in c.pointers], np.int64)
        self.offsets: I64Array = np.array([p[1] for c in calls for p in c.pointers], np.int64)
        self.records: I64Array = np.zeros((len(calls), RECORD), np.int64)
        first = 0
        for row, call in zip(self.records, calls, strict=True):
            row[:] = call.record(first, call.sizes.ctypes.data)
            first += len(call.pointers)
        self.address = self.records.ctypes.data
        # The first word of each record.
        self.code: I64Array = self.records[:, 0]
        self.shareable = any(c.end > c.grain for c in calls)

    def run(self, run: Callable[..., int], bases: I64Array) -> None:
        pointers = bases[self.buffers]
        pointers += self.offsets
        pool = pool_address() if self.shareable else 0
        if spans.active is not None:
            self._run_timed(run, pointers, pool)
            return
        first, count = 0, len(self.calls)
        while first < count:  # the interpreter looks for signals here
            first = run(self.address, first, count, pointers.ctypes.data, pool, 1)

    def _run_timed(self, run: Callable[..., int], pointers: I64Array, pool: int) -> None:
        """Run one native call at a time, and note what each takes."""
        for number, call in enumerate(self.calls):
            started = time.perf_counter()
            run(self.address, number, number + 1, pointers.ctypes.data, pool, 0)
            kernel = call.kernel
            with spans.flow(call.code.key):
                spans.add(kernel_title(kernel), "kernel", started, lines=list(kernel.lines))
