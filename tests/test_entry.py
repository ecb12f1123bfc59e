"""The native entry: what it answers itself, what it leaves to Python, and what it counts."""

from __future__ import annotations

import functools
import gc
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
from entries import F32, native_calls, scaled, vectors

import tracejit as tj
from tracejit.codegen.forms import ALL_TIMED, Form
from tracejit.errors import ShapeError
from tracejit.frontend import jitted
from tracejit.frontend.compiled import Compiled
from tracejit.runtime import engine, entry, ticks
from tracejit.runtime.monitor import recording

pytestmark = [
    pytest.mark.skipif(not entry.supported(), reason="other object layouts"),
    pytest.mark.counts_native,
]


def test_second_call_needs_no_python() -> None:
    function, (a, b) = scaled(), vectors()
    for _ in range(3):
        np.testing.assert_array_equal(function(a, b), a * 2 + b)
    assert native_calls(function) == 2
    assert function.stats()["calls"] == 3


def test_arguments_that_fit_no_form_take_the_python_path() -> None:
    function, (a, b) = tj.jit(lambda x, y: x * 2 + y, compile="now", dynamic=False), vectors()
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
    function = tj.jit(lambda a, b: a * 2 + b, dynamic=False)
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


def test_numpy_scalars_are_read_at_the_call() -> None:
    @tj.jit
    def scale(x: Any, factor: Any) -> Any:
        return x * factor

    x = np.arange(5)
    for kind in (np.float32, np.float64, np.int16, np.int64, np.uint8, np.complex64, np.complex128):
        compiled = tj.jit(scale.__wrapped__)
        for factor in (1, 2, 3):
            got, want = compiled(x, kind(factor)), x * kind(factor)
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)
        if np.dtype(kind).kind != "c":  # complex arithmetic is NumPy's
            assert native_calls(compiled) == 2
    compiled = tj.jit(scale.__wrapped__)
    for factor in (2j, 3 - 1j, 1.5):
        np.testing.assert_array_equal(compiled(x, factor), x * factor)


@pytest.mark.parametrize("size", [40, 300])
def test_sixteen_threads_never_share_scratch_memory(size: int) -> None:
    """At the larger size the GIL is released, so that calls of one form really overlap."""

    @tj.jit
    def chain(x: Any) -> Any:
        y = np.tanh(x) @ x
        return (y @ x) * 0.01, y.sum(axis=0)

    inputs = [np.random.default_rng(i).standard_normal((size, size)) for i in range(16)]
    wanted = [chain(x) for x in inputs]
    wrong: list[int] = []
    start = threading.Barrier(16)

    def work(number: int) -> None:
        start.wait()
        for _ in range(12):
            got = chain(inputs[number])
            for g, w in zip(got, wanted[number], strict=True):
                if g.tobytes() != w.tobytes():
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert native_calls(chain) > 100


def test_entry_outlives_its_function() -> None:
    function, (a, b) = scaled(), vectors()
    function(a, b)
    call = type(function).__call__
    del function
    gc.collect()
    np.testing.assert_array_equal(call(a, b), a * 2 + b)
    np.testing.assert_array_equal(call(a[:4], b[:4]), a[:4] * 2 + b[:4])


def test_counters_tell_calls_and_time_of_each_form() -> None:
    function = tj.jit(lambda a, b: a * 2 + b, dynamic=False)
    shapes = (4, 50_000)
    for size in shapes:
        for _ in range(6):
            function(*vectors(size))
    entry = function._entry
    assert entry is not None
    small, large = entry.counters()
    assert (small.calls, large.calls) == (5, 5)
    assert large.last > small.last > 0
    assert 0 < small.ticks < large.ticks  # 4 elements take less than 50,000
    entry.timed = False
    function(*vectors(4))
    again = entry.counters()[0]
    assert (again.calls, again.ended) == (6, 6)
    assert (again.timed, again.timed_ticks) == (5, small.timed_ticks)


def test_short_calls_are_sampled_and_the_shortest_is_known() -> None:
    function = scaled()
    for _ in range(1 + ALL_TIMED + 8 * 10):
        function(*vectors(4))
    (form,) = function._entry.forms
    counted = form.counters()
    assert (counted.calls, counted.timed) == (ALL_TIMED + 80, ALL_TIMED + 10)
    assert counted.least is not None
    assert 0 < counted.least <= counted.timed_ticks // counted.timed
    assert counted.ticks >= counted.timed_ticks
    form.watch_least()
    assert form.counters().least is None


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


def test_an_executable_runs_natively_and_dies_with_its_last_reference() -> None:
    """Tensors and results that need Python reach kernels through an entry of the executable."""
    graph = tj.trace(lambda x: (x * 2, x.sum()), np.arange(8.0)).graph
    executable = engine.compile_graph(graph, [None])
    inputs = [np.arange(8.0) + n for n in range(4)]
    for x in inputs:
        doubled, total = executable.run([x])
        np.testing.assert_array_equal(doubled, x * 2)
        assert type(total) is np.ndarray
        assert total.shape == ()
        assert total == x.sum()
    assert executable._native is not None
    other = np.arange(16.0)[::2]  # not what it was compiled for, but still not read wrongly
    assert executable._native(other[:8].copy())[1] == other.sum()
    with recording() as runs:
        executable.run(inputs[:1])
    assert [run.calls for run in runs] == [1]
    gone = weakref.ref(executable)
    del executable, runs
    assert gone() is None


# -- what a form runs ------------------------------------------------------------------------------


def test_a_form_keeps_what_it_runs_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread clears the function between a call's answer and its entering a form."""
    function: Any = tj.jit(lambda a, b: a * 2 + b, compile="now", dynamic=False)
    ready, found = jitted.native_result, list[Any]()

    def cleared(compiled: Compiled, inputs: Any) -> Any:
        if not found:
            found.append(weakref.ref(compiled.executable))
            function.clear()
        return ready(compiled, inputs)

    monkeypatch.setattr(jitted, "native_result", cleared)
    a, b = vectors(40)
    for _ in range(4):
        np.testing.assert_array_equal(function(a, b), a * 2 + b)
    executable = found[0]
    gc.collect()
    assert sum(c.calls for c in function._entry.counters()) > 0
    assert executable() is not None
    function.clear()
    gc.collect()
    assert executable() is None


def test_a_running_call_keeps_what_it_runs_alive() -> None:
    function: Any = tj.jit(lambda a, b: a * 2 + b, compile="now", dynamic=False)
    for _ in range(3):
        function(*vectors(40))
    (form,) = function._entry.forms
    executable = weakref.ref(next(iter(function._compiled.values())).executable)
    form.words[Form.CALLS] += 1  # as of a call that runs without Python's lock
    function.clear()
    gc.collect()
    assert executable() is not None
    form.words[Form.ENDED] += 1
    function.clear()
    gc.collect()
    assert executable() is None


def test_every_way_to_call_leads_to_the_entry() -> None:
    """The interpreter calls through a cell of the type; all its kinds of calls must find it."""
    f: Any = tj.jit(lambda a, b: a * 2 + b, compile="now")
    a, b = np.arange(16.0), np.ones(16)
    for _ in range(3):
        f(a, b)
    before = f.stats()["calls"]
    arguments = (a, b)
    results = [
        f(a, b),
        f(*arguments),
        f(a, b=b),
        f(a=a, b=b),
        functools.partial(f, a)(b),
        *map(f, [a], [b]),
        type(f).__call__(a, b),
    ]
    for result in results:
        np.testing.assert_array_equal(result, a * 2 + b)
    assert f.stats()["calls"] == before + len(results)
    with pytest.raises(TypeError):
        f(a)
    with pytest.raises(TypeError):
        f()


def test_functions_go_with_their_cells() -> None:
    a = np.arange(16.0)
    for i in range(200):
        f: Any = tj.jit(lambda x, i=i: x + i, compile="now")
        for _ in range(3):
            np.testing.assert_array_equal(f(a), a + i)
        del f
    gc.collect()
