"""Recycled memory: large results reuse what earlier ones left, and never share it."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.codegen.memory import Memory
from tracejit.errors import OutOfMemory
from tracejit.runtime import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="recycles on Linux")

LARGE = (1200, 1000)


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    gc.collect()
    memory.trim()
    yield
    memory.trim()


def new(shape: tuple[int, ...] = LARGE) -> Any:
    return memory.empty(shape, np.dtype(np.float32), int(np.prod(shape)) * 4)


def test_a_dead_array_leaves_its_memory_to_the_next() -> None:
    x = new()
    address = x.ctypes.data
    del x
    before = memory.stats()["hits"]
    y = new()
    assert y.ctypes.data == address
    assert memory.stats()["hits"] == before + 1


def test_memory_is_aligned() -> None:
    assert new().ctypes.data % 64 == 0
    assert new((5000, 1000)).ctypes.data % (2 << 20) == 0


def test_a_view_keeps_the_memory() -> None:
    x = new()
    x[:] = 3
    view = x[10:20]
    del x
    gc.collect()
    new()[:] = 7
    assert (view == 3).all()


def test_living_results_never_share_memory() -> None:
    @tj.jit
    def double(x: Any) -> Any:
        return x * 2

    x = np.ones(LARGE, np.float32)
    results = [double(x + i) for i in range(6)]
    for i, result in enumerate(results):
        assert (result == 2 * (1 + i)).all()


def test_arrays_are_ordinary_arrays() -> None:
    x = new()
    assert x.flags.owndata
    assert x.flags.writeable
    assert type(x) is np.ndarray
    x[:] = 1
    x.resize((2000, 1000), refcheck=False)
    assert x[:1200].sum() == 1_200_000
    assert x[1200:].sum() == 0


def test_the_cap_bounds_what_is_kept() -> None:
    state = memory.pool().state
    cap = int(state[Memory.CAP])
    state[Memory.CAP] = 8 << 20
    try:
        arrays = [new() for _ in range(6)]
        del arrays
        assert memory.stats()["cached"] <= 8 << 20
        assert memory.stats()["returned"] > 0
    finally:
        state[Memory.CAP] = cap


def test_trim_gives_everything_back() -> None:
    arrays = [new() for _ in range(3)]
    del arrays
    assert memory.stats()["cached"] > 0
    memory.trim()
    assert memory.stats()["cached"] == 0


def small(nbytes: int) -> Any:
    return memory.empty((nbytes,), np.dtype(np.uint8), nbytes)


@pytest.mark.parametrize("nbytes", [1, 8, 63, 255, 256, 257, 1000, 4096, 65_535, 65_537, 1 << 20])
def test_results_of_every_size_start_on_a_cache_line(nbytes: int) -> None:
    arrays = [small(nbytes) for _ in range(5)]
    assert all(x.ctypes.data % 64 == 0 and x.nbytes == nbytes for x in arrays)
    for number, x in enumerate(arrays):
        x[:] = number
    assert all((x == number).all() for number, x in enumerate(arrays))


def test_empty_arrays_are_numpy_s_own() -> None:
    before = memory.stats()
    assert memory.empty((0, 3), np.dtype(np.float32), 0).shape == (0, 3)
    assert memory.stats() == before


def test_many_small_arrays_leave_little() -> None:
    """A program that drops a million small results should not find the cache full of them."""
    arrays = [small(4000) for _ in range(20_000)]
    del arrays
    stats = memory.stats()
    assert 0 < stats["cached_small"] <= stats["cap_small"] < 20_000 * 4000


def test_what_is_in_use_is_counted() -> None:
    before = memory.stats()["used"]
    x, y = new(), small(1000)
    assert memory.stats()["used"] - before >= x.nbytes + y.nbytes
    x.resize((3000, 1000), refcheck=False)
    y.resize((100,), refcheck=False)
    assert memory.stats()["used"] - before >= x.nbytes + y.nbytes
    assert memory.stats()["peak"] >= memory.stats()["used"]
    del x, y
    assert memory.stats()["used"] == before


def test_tracemalloc_sees_results() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        x = new()
        assert tracemalloc.get_traced_memory()[0] - before >= x.nbytes
        del x
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()


def test_what_cannot_be_had_is_a_typed_error() -> None:
    before = memory.stats()
    with pytest.raises(OutOfMemory, match=r"cannot allocate \d+ bytes"):
        memory.empty((1 << 60,), np.dtype(np.uint8), 1 << 60)
    assert memory.stats()["used"] == before["used"]


def test_a_full_cache_makes_room_for_another_size() -> None:
    """What is kept in one size is given back before an allocation of another size fails."""
    code = (
        "import resource, numpy as np\n"
        "from tracejit.runtime import memory\n"
        "make = lambda n: memory.empty((n,), np.dtype(np.uint8), n)\n"
        "make(1000)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), -1))\n"
        "arrays = [make(20 << 20) for _ in range(10)]\n"
        "del arrays\n"
        "assert memory.stats()['cached'] >= 200 << 20\n"
        "x = make(200 << 20)\n"
        "assert memory.stats()['cached'] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_threads_allocate_and_free_at_once() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(60):
            x = new((300 + 50 * number, 1000))
            x[:] = number
            y = new((300 + 7 * turn, 1000))
            y[:] = -1
            if not (x == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_poison_overwrites_memory_before_and_after_use() -> None:
    state = memory.pool().state
    state[Memory.POISON] = 1
    try:
        x = new()
        assert np.isnan(x).all()
        x[:] = 3
        address, nbytes = x.ctypes.data, x.nbytes
        del x
        left = (ctypes.c_uint8 * nbytes).from_address(address)
        # The first words link the block into its bin.
        assert np.frombuffer(left, np.uint8)[64:].min() == 0xFF
    finally:
        state[Memory.POISON] = 0


SWAP = """
import numpy as np
from tracejit.runtime import memory

def new():
    return memory.empty((300, 1000), np.dtype(np.float64), 2_400_000)

pool = memory.pool()
assert pool.optimised is {found}
make, old = memory.maker((300, 1000), np.dtype(np.float64), 2_400_000), new()
old[:] = 1
pool.optimise()
assert pool.optimised
assert len(pool._kept) == {codes}
fresh, mixed = new(), make()
fresh[:], mixed[:] = 2, 3
assert (old == 1).all() and (fresh == 2).all() and (mixed == 3).all()
places = {{a.ctypes.data for a in (old, fresh, mixed)}}
assert len(places) == 3
del old, fresh, mixed
again = [new(), make(), new()]
assert {{a.ctypes.data for a in again}} == places
"""


def test_optimised_code_takes_over_what_quick_code_gave(tmp_path: Path) -> None:
    environment = {**os.environ, "TRACEJIT_CACHE_DIR": str(tmp_path)}
    for found, codes in ((False, 2), (True, 1)):  # the second process finds it on disk
        script = SWAP.format(found=found, codes=codes)
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
