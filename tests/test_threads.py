"""The thread pool: the same bits for any number of threads, forks, nested and concurrent calls."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.errors import ValueArgumentError
from tracejit.runtime import threads
from tracejit.schedule.grain import NEVER, grain

needs_two = pytest.mark.skipif(threads.available() < 2, reason="needs two CPUs")


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

    def running(x: Any) -> Any:
        return np.cumsum(x, axis=1)

    return {f.__name__: f for f in (elementwise, softmax, columns, total, product, running)}


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
