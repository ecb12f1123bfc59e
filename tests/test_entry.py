"""The native entry: what it answers itself, what it leaves to Python, and what it must not leak."""

from __future__ import annotations

import gc
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.errors import ShapeError
from tracejit.runtime import entry, ticks

pytestmark = pytest.mark.skipif(not entry.supported(), reason="other object layouts")

F32 = np.float32


def scaled() -> Any:
    @tj.jit
    def function(a: Any, b: Any) -> Any:
        return a * 2 + b

    return function


def native_calls(function: Any) -> int:
    return 0 if function._entry is None else function._entry.calls


def vectors(size: int = 16) -> tuple[Any, Any]:
    return np.arange(size, dtype=F32), np.ones(size, F32)


def test_second_call_needs_no_python() -> None:
    function, (a, b) = scaled(), vectors()
    for _ in range(3):
        np.testing.assert_array_equal(function(a, b), a * 2 + b)
    assert native_calls(function) == 2
    assert function.stats()["calls"] == 3


def test_arguments_that_fit_no_form_take_the_python_path() -> None:
    function, (a, b) = scaled(), vectors()
    function(a, b)
    for x, y in (
        (a[::-1], b),
        (a.astype(np.float64), b),
        (a[:5], b[:5]),
        (a.reshape(4, 4), b.reshape(4, 4)),
        (np.float32(3), b),
        (np.frombuffer(b"\0" + a.tobytes(), F32, offset=0, count=0).repeat(0), b[:0]),
    ):
        before = native_calls(function)
        np.testing.assert_array_equal(function(x, y), x * 2 + y)
        assert native_calls(function) == before


def test_unaligned_data_takes_the_python_path() -> None:
    function, (a, b) = scaled(), vectors()
    function(a, b)
    raw = np.zeros(a.nbytes + 1, np.uint8)
    shifted = raw[1:].view(F32)
    shifted[:] = a
    before = native_calls(function)
    np.testing.assert_array_equal(function(shifted, b), a * 2 + b)
    assert native_calls(function) == before


def test_several_sizes_have_forms_of_their_own() -> None:
    function = scaled()
    for _ in range(2):
        for size in (3, 8, 40):
            a, b = vectors(size)
            np.testing.assert_array_equal(function(a, b), a * 2 + b)
    assert native_calls(function) == 3


def test_more_signatures_than_forms_still_work() -> None:
    function = scaled()
    for _ in range(2):
        for size in range(1, 14):
            a, b = vectors(size)
            np.testing.assert_array_equal(function(a, b), a * 2 + b)


def test_float_arguments_are_read_at_the_call() -> None:
    @tj.jit
    def scale(x: Any, factor: float) -> Any:
        return x * factor

    x = np.arange(5.0)
    for factor in (0.5, 1.5, -2.0):
        np.testing.assert_array_equal(scale(x, factor), x * factor)
    assert native_calls(scale) == 2
    assert scale.stats()["compiles"] == 1


def test_the_same_array_twice_is_two_arguments() -> None:
    function, (a, b) = scaled(), vectors()
    np.testing.assert_array_equal(function(a, a), a * 3)
    np.testing.assert_array_equal(function(a, b), a * 2 + b)
    np.testing.assert_array_equal(function(b, a), b * 2 + a)


def test_settings_in_force_shut_the_entry() -> None:
    function, (a, b) = scaled(), vectors()
    function(a, b)
    with tj.isa("generic"):
        np.testing.assert_array_equal(function(a, b), a * 2 + b)
        np.testing.assert_array_equal(function(a, b), a * 2 + b)
    assert native_calls(function) == 0
    function(a, b)
    assert native_calls(function) == 1


def test_a_call_inside_another_trace_is_inlined() -> None:
    function, (a, b) = scaled(), vectors()
    function(a, b)

    @tj.jit
    def outer(x: Any) -> Any:
        return function(x, x) + function(a, b)

    np.testing.assert_array_equal(outer(a), a * 3 + (a * 2 + b))


def test_errors_are_python_errors() -> None:
    function, (a, b) = scaled(), vectors()
    function(a, b)
    with pytest.raises(ShapeError, match="broadcast"):
        function(a, b[:3])
    with pytest.raises(TypeError):
        function(a)
    with pytest.raises(TypeError):
        function(a, b, b)
    np.testing.assert_array_equal(function(a, b=b), a * 2 + b)


def test_cleared_function_starts_again() -> None:
    function, (a, b) = scaled(), vectors()
    function(a, b)
    function(a, b)
    function.clear()
    assert function.stats()["calls"] == 0
    function(a, b)
    assert function.stats()["compiles"] == 1


def test_matrix_product_in_an_arena() -> None:
    @tj.jit
    def attend(x: Any) -> Any:
        weight = np.exp(x - x.max(axis=1, keepdims=True))
        return (weight / weight.sum(axis=1, keepdims=True)) @ x.T

    x = np.random.default_rng(0).standard_normal((33, 33)).astype(F32)
    first = attend(x)
    for _ in range(3):
        np.testing.assert_array_equal(attend(x), first)
    assert native_calls(attend) == 3


def test_many_threads_share_a_form() -> None:
    @tj.jit
    def chain(x: Any) -> Any:
        return (np.tanh(x) @ x) @ x

    x = np.random.default_rng(0).standard_normal((40, 40))
    want = chain(x)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            if not np.array_equal(chain(x), want):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_reference_is_lost_or_kept() -> None:
    """A million calls leave every count where it was."""
    function, (a, b) = scaled(), vectors()
    result = function(a, b)
    dtype = a.dtype
    gc.collect()
    before = np.array([sys.getrefcount(o) for o in (a, b, dtype, function)])
    blocks = sys.getallocatedblocks()
    for _ in range(1_000_000):
        result = function(a, b)
    after = np.array([sys.getrefcount(o) for o in (a, b, dtype, function)])
    assert np.abs(after - before).max() < 5  # others may hold a dtype; a leak would show millions
    assert sys.getrefcount(result) == 2
    assert sys.getallocatedblocks() - blocks < 100


def test_entry_outlives_its_function() -> None:
    function, (a, b) = scaled(), vectors()
    function(a, b)
    call = type(function).__call__
    del function
    gc.collect()
    np.testing.assert_array_equal(call(a, b), a * 2 + b)
    np.testing.assert_array_equal(call(a[:4], b[:4]), a[:4] * 2 + b[:4])


def test_counters_tell_calls_and_time_of_each_form() -> None:
    function = scaled()
    shapes = (4, 50_000)
    for size in shapes:
        for _ in range(6):
            function(*vectors(size))
    small, large = function._entry.counters()
    assert (small.calls, large.calls) == (5, 5)
    assert large.last > small.last > 0
    assert 0 < small.ticks < large.ticks  # 4 elements take less than 50,000
    assert large.form.executable is not small.form.executable
    function._entry.timed = False
    function(*vectors(4))
    again = function._entry.counters()[0]
    assert (again.calls, again.ticks) == (6, small.ticks)


def test_ticks_keep_the_pace_of_the_clock() -> None:
    ticks.start()
    rate = ticks.seconds_per_tick()
    if rate == 0:
        pytest.skip("no counter")
    before, start = ticks.now(), time.perf_counter()
    time.sleep(0.05)
    took = time.perf_counter() - start
    assert (ticks.now() - before) * rate == pytest.approx(took, rel=0.05)


def test_every_nth_call_is_deoptimised() -> None:
    function, (a, b) = scaled(), vectors()
    function(a, b)
    function._entry.deoptimise_every(3)
    for _ in range(9):
        np.testing.assert_array_equal(function(a, b), a * 2 + b)
    assert native_calls(function) == 6
    function._entry.deoptimise_every(0)
    function(a, b)
    assert native_calls(function) == 7
