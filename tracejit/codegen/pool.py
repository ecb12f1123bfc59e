"""What the driver's code (``driver.py``) and the runtime agree on: names, records, the pool.

Apart from the code's text, which a process that finds the code on disk need not load.
"""

from __future__ import annotations

from tracejit.codegen.words import Words

DRIVER, WORKER, SETUP, TICKS = "driver", "worker", "setup", "ticks"


class Field(Words):
    """Columns of a record."""

    CODE = 0
    POINTERS = 1
    SIZES = 2
    BEGIN = 3
    END = 4
    GRAIN = 5
    SLOT = 6
    STRIDE = 7
    COUNT = 8
    NS = 9


RECORD = len(list(Field.items()))
# Work that comes in a row before parked workers are woken, by the estimate of schedule/grain.py,
# which is up to eight times what a kernel takes (measured: waking pays from 40 to 60 µs on).
WAKE_NS = 350_000
# Work, by the same estimate, that leaves little in the caches of what was there: some 4 MB.
TURN_NS = 350_000
# Ticks between two changes of the CPU that workers stay off: some 1.5 ms. Callers may take turns.
AVOID_TICKS = 1 << 22
# Bytes of ALLOWED: a cpu_set_t.
CPU_BYTES = 128
# Bits of WORD for the number of unclaimed chunks, and for the first of them.
CHUNK_BITS = 22
MOST_CHUNKS = (1 << CHUNK_BITS) - 1


class Pool(Words):
    """Byte offsets in the pool's memory; what different threads write is on its own cache line."""

    WORD = 0
    DONE = 64
    BUSY = 128
    JOB = 192  # record address, pointer table, chunks, and which it goes back from (-1: goes forth)
    SLEEPERS = 256
    STOP = 264
    LIMIT = 272  # workers that may take part
    SPIN = 280  # ticks after which an idle worker parks, at most
    MISSED = 288  # nanoseconds of work shared since workers were woken
    ENDED = 296  # the counter at the end of the newest job
    GAP = 304  # ticks between the two newest jobs
    MUTEX = 320
    CONDITION = 448
    AVOIDED = 576  # the CPU that workers stay off, and when they were told
    WORKERS = 592  # how many there are
    ALLOWED = 640  # the CPUs that they may use, a bit each
    THREADS = 768  # as pthread_self calls each of them, from the first on; 0 until it runs
