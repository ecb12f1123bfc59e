"""The compile service: each kernel compiled once, whoever asks, whatever fails on the way."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from tracejit import config
from tracejit.codegen.target import LEVELS
from tracejit.errors import InternalError
from tracejit.runtime import code as codes
from tracejit.runtime import events, workers
from tracejit.runtime.service import Cancelled, Priority, QueueFull, Service

TARGET = LEVELS["generic"]
_numbers = count(1)


def fresh() -> int:
    """Return a number whose kernel nobody has compiled."""
    return 1_000_000 * os.getpid() % 2**20 * 1000 + next(_numbers)


def text(number: int) -> str:
    return f"define i64 @f() {{\n  ret i64 {number}\n}}\n"


def emitter(number: int, seen: list[int] | None = None) -> Callable[[], str]:
    def emit() -> str:
        if seen is not None:
            seen.append(number)
        return text(number)

    return emit


def value(code: codes.Code) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64)(code.address)()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that finds nothing on disk, in a process that has compiled nothing yet."""
    monkeypatch.setitem(workers.counts, "in_process", 0)
    with config.override(disk_cache=0):
        yield Service()


class Gate:
    """An emitter that a compiler thread waits in, so that a test can fill the queue behind it."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.number = fresh()

    def __call__(self) -> str:
        self.entered.set()
        assert self.open.wait(30)
        return text(self.number)


def test_a_ticket_is_a_future(service: Service) -> None:
    number, called = fresh(), threading.Event()
    ticket = service.submit(f"f {number}", emitter(number), "f", TARGET)
    ticket.add_done_callback(lambda done: called.set() if done is ticket else None)
    assert value(ticket.result(30)) == number
    assert ticket.done()
    assert ticket.exception() is None
    assert not ticket.cancel()
    assert called.wait(30)
    late = threading.Event()
    ticket.add_done_callback(lambda _: late.set())
    assert late.is_set()


@pytest.mark.fault("16 threads call what is compiled, retired and reloaded")
def test_requests_of_16_threads_compile_each_kernel_once(service: Service) -> None:
    numbers, seen = [fresh() for _ in range(8)], list[int]()
    start = threading.Barrier(16)

    def ask(thread: int) -> list[int]:
        start.wait(30)
        # Some wait for each, some for all together.
        order = numbers[thread % 8 :] + numbers[: thread % 8]
        if thread % 2:
            return [
                value(service.obtain(f"f {n}", emitter(n, seen), "f", TARGET)) - n for n in order
            ]
        tickets = [service.submit(f"f {n}", emitter(n, seen), "f", TARGET) for n in order]
        return [value(t.result(60)) - n for t, n in zip(tickets, order, strict=True)]

    with ThreadPoolExecutor(16) as pool:
        assert all(r == [0] * 8 for r in pool.map(ask, range(16)))
    assert sorted(seen) == sorted(numbers)
    stats = service.stats()
    assert stats["requests"] == 128
    assert stats["compiled"] == 8
    assert stats["memory_hits"] + stats["joined"] == 120
    assert stats["queued"] == stats["running"] == 0


def test_urgent_requests_overtake(service: Service) -> None:
    gate, seen = Gate(), list[int]()
    first = service.submit("gate", gate, "f", TARGET)
    assert gate.entered.wait(30)
    slow, quick, raised = fresh(), fresh(), fresh()
    tickets = [
        service.submit(f"f {slow}", emitter(slow, seen), "f", TARGET, 2, Priority.IDLE),
        service.submit(f"f {raised}", emitter(raised, seen), "f", TARGET, 2, Priority.IDLE),
        service.submit(f"f {quick}", emitter(quick, seen), "f", TARGET, 2, Priority.SOON),
        service.submit(f"f {raised}", emitter(raised, seen), "f", TARGET, 2, Priority.NOW),
    ]
    assert service.stats()["queued"] == 3
    gate.open.set()
    for ticket in tickets:
        ticket.result(30)
    assert value(first.result()) == gate.number
    assert seen == [raised, quick, slow]


def test_a_cancelled_request_is_not_compiled(service: Service) -> None:
    gate, seen = Gate(), list[int]()
    running = service.submit("gate 2", gate, "f", TARGET)
    assert gate.entered.wait(30)
    alone, shared = fresh(), fresh()
    lost = service.submit(f"f {alone}", emitter(alone, seen), "f", TARGET)
    one = service.submit(f"f {shared}", emitter(shared, seen), "f", TARGET)
    other = service.submit(f"f {shared}", emitter(shared, seen), "f", TARGET)
    assert lost.cancel()
    assert lost.cancelled()
    assert one.cancel()
    assert not running.cancel()
    gate.open.set()
    assert value(other.result(30)) == shared
    with pytest.raises(Cancelled):
        one.result()
    with pytest.raises(Cancelled):
        lost.result()
    assert seen == [shared]
    # Asking again after a cancellation is a new request.
    again = service.submit(f"f {alone}", emitter(alone, seen), "f", TARGET)
    assert value(again.result(30)) == alone


def test_a_caller_does_not_wait_for_a_busy_compiler(service: Service) -> None:
    gate, number = Gate(), fresh()
    service.submit("gate 3", gate, "f", TARGET)
    assert gate.entered.wait(30)
    queued = service.submit(f"f {number}", emitter(number), "f", TARGET)
    assert value(queued.result()) == number  # compiled by this thread: the other is in the gate
    assert value(service.obtain("f 3", emitter(3), "f", TARGET)) == 3
    gate.open.set()


def test_the_queue_is_bounded(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracejit.runtime.service.MAX_QUEUED", 3)
    gate = Gate()
    service.submit("gate 4", gate, "f", TARGET)
    assert gate.entered.wait(30)
    numbers = [fresh() for _ in range(3)]
    tickets = [service.submit(f"f {n}", emitter(n), "f", TARGET) for n in numbers]
    with pytest.raises(QueueFull, match="3 kernels"):
        tickets[2].result()
    # Who waits is served all the same.
    assert value(service.obtain(f"f {numbers[2]}", emitter(numbers[2]), "f", TARGET)) == numbers[2]
    gate.open.set()
    assert [value(t.result(30)) for t in tickets[:2]] == numbers[:2]


@pytest.mark.fault("LLVM crashes or refuses")
def test_a_failure_reaches_everybody_and_is_not_kept(service: Service) -> None:
    number = fresh()

    def broken() -> str:
        raise ZeroDivisionError("emitting failed")

    for _ in range(2):
        ticket = service.submit(f"f {number}", broken, "f", TARGET)
        with pytest.raises(ZeroDivisionError):
            ticket.result(30)
        assert isinstance(ticket.exception(), ZeroDivisionError)
    with pytest.raises(InternalError, match="does not verify"):
        service.obtain(f"f {number}", lambda: "define void @f() { nonsense }", "f", TARGET)
    assert value(service.obtain(f"f {number}", emitter(number), "f", TARGET)) == number
    assert service.stats()["failed"] == 3


@pytest.mark.fault("Ctrl-C")
def test_an_interrupted_caller_leaves_the_job_to_others(service: Service) -> None:
    number, inside, go = fresh(), threading.Event(), threading.Event()

    def interrupted() -> str:
        if threading.current_thread() is thread:
            inside.set()
            go.wait(30)
            raise KeyboardInterrupt
        return text(number)

    raised: list[type[BaseException]] = []

    def ask() -> None:
        try:
            service.obtain(f"f {number}", interrupted, "f", TARGET)
        except BaseException as error:
            raised.append(type(error))

    thread = threading.Thread(target=ask)
    thread.start()
    assert inside.wait(30)
    ticket = service.submit(f"f {number}", emitter(number), "f", TARGET)
    go.set()
    assert value(ticket.result()) == number
    thread.join()
    assert raised == [KeyboardInterrupt]


def test_a_callback_that_fails_harms_nobody(service: Service) -> None:
    number = fresh()
    ticket = service.submit(f"f {number}", emitter(number), "f", TARGET)
    ticket.add_done_callback(lambda _: 1 / 0)
    assert value(ticket.result(30)) == number
    other = fresh()
    assert value(service.submit(f"f {other}", emitter(other), "f", TARGET).result(30)) == other


# -- the cache in memory ---------------------------------------------------------------------------


def test_memory_keeps_the_last_used_codes_up_to_a_bound(service: Service) -> None:
    codes.clear()
    numbers = [fresh() for _ in range(4)]

    def ask(number: int) -> codes.Code:
        return service.obtain(f"f {number}", emitter(number), "f", TARGET)

    size = ask(numbers[0]).nbytes
    codes.clear()
    with config.override(code_cache=3 * size):
        for n in numbers[:3]:
            ask(n)
        before = service.stats()["compiled"]
        ask(numbers[0])
        ask(numbers[3])  # drops numbers[1], the least recently used
        assert service.stats()["compiled"] == before + 1
        assert codes.cache.bytes == 3 * size
        gc.collect()
        ask(numbers[0])
        ask(numbers[2])
        assert service.stats()["compiled"] == before + 1
        ask(numbers[1])
        assert service.stats()["compiled"] == before + 2


def test_code_that_is_held_stays_alive_and_is_found_again(service: Service) -> None:
    number = fresh()
    with config.override(code_cache=0):
        held = service.obtain(f"f {number}", emitter(number), "f", TARGET)
        assert len(codes.cache) == 0
        assert service.obtain(f"f {number}", emitter(number), "f", TARGET) is held
        assert value(held) == number


# -- processes -------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_compiles_what_its_parent_had_begun(service: Service) -> None:
    gate, number = Gate(), fresh()
    service.submit("gate 5", gate, "f", TARGET)
    assert gate.entered.wait(30)
    ticket = service.submit(f"f {number}", emitter(number), "f", TARGET)
    service.lock.acquire()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            service.after_fork()
            other = fresh()
            background = service.submit(f"f {other}", emitter(other), "f", TARGET)
            status = 0 if value(ticket.result()) == number else 2
            status = status or (0 if value(background.result()) == other else 3)
        finally:
            os._exit(status)
    service.lock.release()
    _, status = os.waitpid(child, 0)
    gate.open.set()
    assert os.waitstatus_to_exitcode(status) == 0
    assert value(ticket.result()) == number


def test_events_say_where_code_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiled by this thread, which alone has the folder.
    monkeypatch.setitem(workers.counts, "in_process", 0)
    number, seen = fresh(), list[events.Event]()
    stop = events.subscribe(seen.append)
    try:
        with config.override(cache_dir=tmp_path):
            for _ in range(2):
                Service().obtain(f"f {number}", emitter(number), "f", TARGET)
                codes.clear()
        with pytest.raises(InternalError):
            Service().obtain(f"f {fresh()}", lambda: "no module", "f", TARGET)
    finally:
        stop()
    here = threading.current_thread().name
    told = [e for e in seen if e.topic == "cache" and e.thread == here]
    assert [e.details["origin"] for e in told] == ["compiled", "disk", "failed"]
    assert " ms" in told[0].message
    assert "from disk" in told[1].message
