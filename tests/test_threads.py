"""The thread pool: the same bits for any number of threads, forks, nested and concurrent calls."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import tracejit as tj
from tracejit.codegen.pool import MOST_CHUNKS, RECORD, TURN_NS, WAKE_NS, Field, Pool
from tracejit.errors import ValueArgumentError
from tracejit.runtime import threads
from tracejit.runtime.calls import NativeCall
from tracejit.runtime.native import driver
from tracejit.schedule.grain import NEVER, grain

needs_two = pytest.mark.skipif(threads.available() < 2, reason="needs two CPUs")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let kernels use two threads, whatever ``TRACEJIT_NUM_THREADS`` says."""
    with tj.num_threads(2):
        yield


def programs() -> dict[str, Any]:
    def elementwise(x: Any) -> Any:
        return np.tanh(x) * np.sin(x) + x

    def softmax(x: Any) -> Any:
        weight = np.exp(x - x.max(axis=1, keepdims=True))
        return weight / weight.sum(axis=1, keepdims=True)

    def columns(x: Any) -> Any:
        return (x - x.mean(axis=0)) / x.std(axis=0)

    def total(x: Any) -> Any:
        return (x * x).sum()

    def product(x: Any) -> Any:
        return x.T @ x

    def deep_product(x: Any) -> Any:
        return x.reshape(60, -1) @ x.reshape(-1, 60)

    def running(x: Any) -> Any:
        return np.cumsum(x, axis=1)

    functions = elementwise, softmax, columns, total, product, deep_product, running
    return {f.__name__: f for f in functions}


def compiled(name: str) -> Any:
    return tj.jit(programs()[name])


def data(rows: int = 700) -> Any:
    return np.random.default_rng(5).standard_normal((rows, 900)).astype(np.float32)


@pytest.mark.parametrize("name", programs())
def test_bits_do_not_depend_on_the_number_of_threads(name: str) -> None:
    function, x = compiled(name), data()
    with tj.num_threads(1):
        alone = np.asarray(function(x))
    for count in (2, 3, 8):
        with tj.num_threads(count):
            for _ in range(3):
                assert np.asarray(function(x)).tobytes() == alone.tobytes()


def test_large_kernels_are_cut_and_small_ones_are_not() -> None:
    def kernel(rows: int) -> Any:
        return tj.trace(programs()["softmax"], data(rows)).schedule.kernels[0]

    assert grain(kernel(2)) == NEVER
    assert grain(kernel(700)) < 700


@needs_two
@pytest.mark.usefixtures("two_threads")
def test_workers_take_chunks() -> None:
    """Over many calls the worker has run some of the chunks (it never has to)."""
    function, x = compiled("elementwise"), data(3000)
    function(x)
    worker = next(t for t in threading.enumerate() if t.name == "tracejit-1")

    def ticks() -> int:
        with open(f"/proc/self/task/{worker.native_id}/stat") as file:
            fields = file.read().split()
        return int(fields[13]) + int(fields[14])

    before = ticks()
    for _ in range(300):
        function(x)
        if ticks() > before:
            return
    pytest.fail("the worker has done nothing in 300 calls")


def test_every_chunk_runs_once_among_uneven_workers() -> None:
    """The caller takes chunks from the front and workers from the back, whatever each one takes."""
    random_ = random.Random(3)
    ran: list[tuple[int, int, int]] = []
    order: dict[int, int] = {}
    caller, started = threading.get_ident(), set(threading.enumerate())

    def kernel(_pointers: int, _sizes: int, begin: int, end: int) -> None:
        me = threading.get_ident()
        ran.append((me, begin, end))
        # Some threads are slow for a whole job, as on a core that somebody else uses.
        time.sleep(
            0.0005 * (order.setdefault(me, len(order)) % 3 == slow) + 0.0002 * random_.random()
        )

    word = ctypes.c_size_t
    code = ctypes.CFUNCTYPE(None, word, word, ctypes.c_int64, ctypes.c_int64)(kernel)
    record, sizes = np.zeros(RECORD, np.int64), np.zeros(1, np.int64)
    record[Field.CODE] = ctypes.cast(code, ctypes.c_void_p).value or 0
    record[Field.SIZES], record[Field.SLOT] = sizes.ctypes.data, -1
    record[Field.NS] = WAKE_NS
    pool = threads.ThreadPool(7)
    helpers: set[int] = set()

    def share(begin: int, end: int, grain: int) -> None:
        record[Field.BEGIN], record[Field.END], record[Field.GRAIN] = begin, end, grain
        driver()(record.ctypes.data, 0, 1, sizes.ctypes.data, pool.address, 0)

    try:
        for job in range(60):
            slow = job % 4  # of three groups of threads, or none
            begin, grain = random_.randrange(100), random_.randrange(1, 50)
            end = begin + random_.randrange(1, 70 * grain)
            ran.clear()
            share(begin, end, grain)
            chunks = sorted((b, e) for _, b, e in ran)
            step = grain if end - begin > grain else end - begin
            assert chunks == [(b, min(b + step, end)) for b in range(begin, end, step)]
            mine = [b for who, b, _ in ran if who == caller]
            assert mine == [b for b, _ in chunks[: len(mine)]]
            for helper in {who for who, _, _ in ran} - {caller}:
                places = [b for who, b, _ in ran if who == helper]
                assert places == sorted(places, reverse=True)
                helpers.add(helper)
        assert helpers
    finally:
        stop = ctypes.c_int64.from_address(pool.address + Pool.STOP)
        stop.value = 1
        share(0, 2, 1)  # wakes those that are parked
        for thread in set(threading.enumerate()) - started:
            thread.join(timeout=30)


def test_of_large_kernels_every_second_one_goes_back() -> None:
    """It begins where the one before ended, each thread with its own part; chunks are a ring."""
    ran: dict[int, list[tuple[int, int]]] = {}
    caller, started = threading.get_ident(), set(threading.enumerate())

    def kernel(_pointers: int, sizes: int, begin: int, _end: int) -> None:
        ran.setdefault(sizes, []).append((threading.get_ident(), begin))
        time.sleep(0.0002)

    word = ctypes.c_size_t
    code = ctypes.CFUNCTYPE(None, word, word, ctypes.c_int64, ctypes.c_int64)(kernel)
    chunks, works = (20, 7, 33, 12, 40), (TURN_NS, 1000, TURN_NS, TURN_NS, TURN_NS)
    records, table = np.zeros((len(chunks), RECORD), np.int64), np.zeros(1, np.int64)
    records[:, Field.CODE] = ctypes.cast(code, ctypes.c_void_p).value or 0
    records[:, Field.SIZES] = range(len(chunks))  # which tells the kernel its number
    records[:, Field.END], records[:, Field.NS] = chunks, works
    records[:, Field.GRAIN], records[:, Field.SLOT] = 1, -1
    pool = threads.ThreadPool(3)

    def run(count: int) -> None:
        driver()(records.ctypes.data, 0, count, table.ctypes.data, pool.address, 0)

    try:
        for _ in range(10):
            ran.clear()
            run(len(chunks))
            mine: list[list[int]] = []
            for number, count in enumerate(chunks):
                assert sorted(place for _, place in ran[number]) == list(range(count))
                mine.append([place for who, place in ran[number] if who == caller])
            for number in (0, 1, 3):
                assert mine[number] == list(range(len(mine[number])))
            for number, before in ((2, 0), (4, 3)):
                count = chunks[number]
                middle = len(mine[before]) * count // chunks[before]
                assert mine[number] == [(middle - 1 - i) % count for i in range(len(mine[number]))]
    finally:
        stop = ctypes.c_int64.from_address(pool.address + Pool.STOP)
        stop.value = 1
        run(1)  # wakes those that are parked
        for thread in set(threading.enumerate()) - started:
            thread.join(timeout=30)


def test_no_record_has_more_chunks_than_the_pool_can_count() -> None:
    end = 5 * MOST_CHUNKS + 1
    call = NativeCall(cast(Any, None), [], [], end, 1, kernel=cast(Any, None))
    assert -(-end // call.grain) <= MOST_CHUNKS


def test_concurrent_callers_share_the_pool() -> None:
    function, x = compiled("softmax"), data()
    want = function(x).tobytes()
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            if function(x).tobytes() != want:
                wrong.append(number)

    callers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def _in_child(queue: Any, x: Any, want: bytes) -> None:
    function = compiled("softmax")
    queue.put(function(x).tobytes() == want)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes_right() -> None:
    """The child has the pool's memory but none of its threads."""
    function, x = compiled("softmax"), data()
    want = function(x).tobytes()
    function(x)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue, x, want))
    child.start()
    assert queue.get(timeout=60)
    child.join()
    assert child.exitcode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.usefixtures("two_threads")
def test_a_child_forked_while_workers_run_computes_right_and_in_parallel() -> None:
    """Native calls of the child start a pool of its own; nothing waits for the parent's."""
    function, x = compiled("softmax"), data(2000)
    want = function(x).tobytes()
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            function(x)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    try:
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                right = all(function(x).tobytes() == want for _ in range(3))
                named = {t.name for t in threading.enumerate()}
                pooled = threads.available() == 1 or "tracejit-1" in named
                os._exit(0 if right and pooled else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        busy.join()


def test_spawned_processes_compute_right() -> None:
    x = data(100)
    want = compiled("softmax")(x).tobytes()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    children = [context.Process(target=_in_child, args=(queue, x, want)) for _ in range(2)]
    for child in children:
        child.start()
    assert all(queue.get(timeout=120) for _ in children)
    for child in children:
        child.join()
        assert child.exitcode == 0


def test_a_call_that_is_traced_while_another_runs_on_the_pool() -> None:
    """A kernel that calls no pool of its own: nested use runs serially and right."""
    outer, x = compiled("softmax"), data()
    want = outer(x).tobytes()
    done: list[bytes] = []

    def nested() -> None:
        done.append(compiled("softmax")(x).tobytes())

    thread = threading.Thread(target=nested)
    thread.start()
    while thread.is_alive():
        assert outer(x).tobytes() == want
    assert done == [want]


@needs_two
def test_idle_workers_park() -> None:
    """Once there is nothing to do, workers take no processor time."""
    function, x = compiled("elementwise"), data(3000)
    for _ in range(20):
        function(x)
    worker = next(t for t in threading.enumerate() if t.name == "tracejit-1")
    time.sleep(0.1)

    def switches_and_ticks() -> tuple[int, str]:
        stat = Path(f"/proc/self/task/{worker.native_id}/stat").read_text().split()
        return int(stat[13]) + int(stat[14]), stat[2]

    before = switches_and_ticks()
    time.sleep(0.3)
    assert switches_and_ticks() == (before[0], "S")


@needs_two
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks")
@pytest.mark.usefixtures("two_threads")
def test_workers_stay_off_the_callers_cpu() -> None:
    """Where the caller has moved to another CPU, the worker leaves that one."""
    function, x = compiled("elementwise"), data()
    function(x)
    worker = next(t for t in threading.enumerate() if t.name == "tracejit-1").native_id
    me, allowed = threading.get_native_id(), os.sched_getaffinity(0)
    assert worker is not None
    try:
        for cpu in sorted(allowed)[:2]:
            os.sched_setaffinity(me, {cpu})
            until = time.monotonic() + 20
            while os.sched_getaffinity(worker) != allowed - {cpu} and time.monotonic() < until:
                function(x)
            assert os.sched_getaffinity(worker) == allowed - {cpu}
    finally:
        os.sched_setaffinity(me, allowed)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"TRACEJIT_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"}, 1),
        ({"TRACEJIT_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}, min(2, threads.available())),
    ],
)
def test_limits_of_the_environment(variables: dict[str, str], wanted: int) -> None:
    code = (
        "import threading, numpy as np, tracejit as tj\n"
        "f = tj.jit(lambda x: np.tanh(x) * 2)\n"
        "x = np.ones((2000, 1000))\n"
        "for _ in range(5): f(x)\n"
        "workers = 'tracejit-1' in {t.name for t in threading.enumerate()}\n"
        "print(tj.num_threads(), f._entry.calls, workers)\n"
    )
    clean = {k: v for k, v in os.environ.items() if not k.endswith("NUM_THREADS")}
    clean["TRACEJIT_STRESS_DEOPT"] = "0"  # native calls are counted
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | variables, capture_output=True, check=True
    )
    assert done.stdout.decode().split() == [str(wanted), "4", str(wanted > 1)]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks")
def test_affinity_bounds_the_threads() -> None:
    code = (
        "import os, tracejit as tj\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(tj.num_threads())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"1"


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("contents", "wanted"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "250000 100000"}, 3),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "200000 100000"}, 2),
        ({"proc/self/cgroup": "0::/gone\n", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000"}, None),
        (
            {
                "proc/self/cgroup": "3:memory:/\n4:cpu,cpuacct:/docker/x\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_cgroup_quotas(contents: dict[str, str], wanted: int | None, tmp_path: Path) -> None:
    quota = threads.cgroup_quota(files(tmp_path, contents))
    assert quota == wanted if wanted is not None else quota > 1000


def test_num_threads_is_a_block_and_refuses_zero() -> None:
    before = threads.get_num_threads()
    with tj.num_threads(1):
        assert threads.get_num_threads() == 1
    assert threads.get_num_threads() == before
    with pytest.raises(ValueArgumentError):
        threads.set_num_threads(0)


def test_never_more_threads_than_cpus() -> None:
    with tj.num_threads(10_000):
        assert threads.get_num_threads() == threads.available()
