"""Tiers: every form gives the interpreter's answers; when kernels are made, and what is counted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import config
from tracejit.errors import RecompileError, ValueArgumentError
from tracejit.graph.graph import Graph
from tracejit.graph.node import make, placeholder
from tracejit.runtime import (
    background,
    blas,
    demand,
    engine,
    monitor,
    service,
    stance,
    tiers,
    workers,
)
from tracejit.runtime.once import Once
from tracejit.runtime.tiers import State

F32 = np.float32
X = np.linspace(-2, 2, 12, dtype=F32).reshape(3, 4)


@pytest.fixture(autouse=True)
def default_stance() -> Iterator[None]:
    yield
    tj.set_stance("default")


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def programs(function: Any) -> list[tiers.Program]:
    return [compiled.program for compiled in function._compiled.values()]


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """Hold the background thread until the event is set."""
    event = threading.Event()

    def wait() -> None:
        event.wait(30)

    background.submit(background.Job(wait, float("inf")))
    yield event
    event.set()


# -- no stall --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "background"])
def test_numpy_answers_until_the_kernels_are_ready(mode: Any, held: threading.Event) -> None:
    f = tj.jit(lambda x: softmax(x) * 1.25 + 3, compile=mode)
    want = softmax(X) * 1.25 + 3
    for _ in range(3):
        np.testing.assert_allclose(f(X), want, rtol=1e-6)
    assert (f.stats()["tier"], f.stats()["pending"], f.stats()["kernels"]) == (0, 1, 0)
    assert not f.wait(0.01)
    held.set()
    assert f.wait(60)
    np.testing.assert_allclose(f(X), want, rtol=1e-6)
    assert (f.stats()["tier"], f.stats()["pending"], f.stats()["kernels"]) == (1, 0, 1)
    assert f.stats()["calls"] == 4


@pytest.fixture
def blas_threads() -> Iterator[Callable[[], int]]:
    """Return what tells OpenBLAS' number of threads, which is two meanwhile."""
    found = blas._functions()  # pyright: ignore[reportPrivateUsage]
    if found is None:
        pytest.skip("NumPy has another BLAS")
    get, put = found
    before = get()
    put(2)
    yield get
    put(before)


def test_blas_leaves_a_core_to_what_compiles(
    held: threading.Event, blas_threads: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    run = tiers.Interpreter.run

    def watched(self: tiers.Interpreter, *arguments: Any) -> Any:
        seen.append(blas_threads())
        return run(self, *arguments)

    monkeypatch.setattr(tiers.Interpreter, "run", watched)
    f = tj.jit(lambda x: x @ x.T + 7, compile="background")
    f(X)
    f(X)
    assert (seen, blas_threads()) == ([2, 1], 2)  # nothing was being made at the first call


def test_sharing_the_cores_with_a_compiler_nests(
    blas_threads: Callable[[], int],
) -> None:
    with blas.sharing(), blas.sharing():
        assert blas_threads() == 1
    assert blas_threads() == 2
    with blas.sharing():
        with blas.sharing():
            pass
        assert blas_threads() == 1
    assert blas_threads() == 2


def test_now_compiles_at_the_first_call() -> None:
    f = tj.jit(softmax, compile="now")
    f(X)
    assert f.stats()["tier"] == 1


def test_never_compiles_nothing_and_asks_for_nothing() -> None:
    before = service.compiles()
    f = tj.jit(lambda x: softmax(x) - 0.75, compile="never")
    for _ in range(3):
        np.testing.assert_allclose(f(X), softmax(X) - 0.75, rtol=1e-6)
    assert f.wait(0)
    assert f.stats()["tier"] == 0
    assert service.compiles() == before


def test_what_is_in_memory_serves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "PLAN_AT_ONCE_S", 1.0)
    tj.jit(softmax, compile="now")(np.ones((5, 11), F32))
    f = tj.jit(lambda x: softmax(x), compile="auto")
    f(np.ones((7, 9), F32))
    assert (f.stats()["tier"], f.stats()["recompiles"]) == (1, 0)


def test_waiting_is_chosen_where_interpreting_takes_longer(
    monkeypatch: pytest.MonkeyPatch, held: threading.Event
) -> None:
    monkeypatch.setattr(tiers.model, "interpreter_ns", lambda graph: 1e12)
    f = tj.jit(lambda x: softmax(x) * 1.625, compile="auto")
    np.testing.assert_allclose(f(X), softmax(X) * 1.625, rtol=1e-6)
    assert f.stats()["tier"] == 1


def test_numpy_answers_where_kernels_are_later_than_was_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiers.model, "interpreter_ns", lambda graph: 1e8)
    monkeypatch.setattr(tiers.model, "compile_s", lambda graph: 1e-3)
    late, compile = threading.Event(), workers.Compiler.compile

    def slowly(self: workers.Compiler, *args: Any, **options: Any) -> bytes:
        late.wait(30)
        return compile(self, *args, **options)

    monkeypatch.setattr(workers.Compiler, "compile", slowly)
    f = tj.jit(lambda x: softmax(x) / np.cosh(x) - np.arctan(x), compile="auto")
    want = softmax(X) / np.cosh(X) - np.arctan(X)
    try:
        np.testing.assert_allclose(f(X), want, rtol=1e-5)
        assert (f.stats()["tier"], f.stats()["pending"]) == (0, 1)
    finally:
        late.set()
    assert f.wait(60)
    np.testing.assert_allclose(f(X), want, rtol=1e-5)
    assert f.stats()["tier"] == 1


def test_kernels_that_came_after_the_patience_and_before_the_next_look_count_as_compiled() -> None:
    x = placeholder(0, F32, (3, 4))
    graph = Graph([x], [make("arcsinh", [make("log1p", [make("cosh", [x])])])])
    program = tiers.Program(graph, [None], "background")
    program.compile(limit=0.0)
    assert program.executable is None
    before = service.compiles()
    deadline = time.monotonic() + 60
    while service.compiles() == before and time.monotonic() < deadline:
        time.sleep(0.001)
    program.compile()
    assert (program.tier, program.compiled_kernels) == (1, 1)
    np.testing.assert_allclose(program.run([X])[0], np.arcsinh(np.log1p(np.cosh(X))), rtol=1e-6)


def test_who_asks_for_kernels_writes_their_ir(monkeypatch: pytest.MonkeyPatch) -> None:
    emit, writers = engine._emit, set[int]()

    def noted(plan: Any, target: Any) -> str:
        writers.add(threading.get_ident())
        return emit(plan, target)

    monkeypatch.setattr(engine, "_emit", noted)
    f = tj.jit(lambda x: np.arcsinh(np.cbrt(x) - np.cosh(x)), compile="now")
    np.testing.assert_allclose(f(X), np.arcsinh(np.cbrt(X) - np.cosh(X)), rtol=1e-6)
    assert writers == {threading.get_ident()}


def test_results_belong_to_the_caller_in_every_tier(held: threading.Event) -> None:
    constant = np.arange(3.0)
    f = tj.jit(lambda x: (x.T, x + 0, np.asarray(constant) * 1), compile="background")
    for _ in range(2):
        x = np.arange(6.0).reshape(2, 3)
        for result in f(x):
            assert (result.flags.writeable and result.flags.c_contiguous) or result.base is None
            result[...] = -1
        np.testing.assert_array_equal(x, np.arange(6.0).reshape(2, 3))
        np.testing.assert_array_equal(constant, np.arange(3.0))
        held.set()
        f.wait()


def test_the_default_never_compiles_nothing() -> None:
    with config.override(compile="never"):
        f = tj.jit(lambda x: softmax(x) - 0.875)
        for _ in range(3):
            f(X)
        assert f.wait(0)
        assert (f.stats()["tier"], f.stats()["pending"]) == (0, 0)


# -- stances ---------------------------------------------------------------------------------------


def test_a_stance_decides_for_functions_that_exist() -> None:
    f = tj.jit(lambda x: softmax(x) * 0.3, compile="now")
    f(X)
    f(X)
    with tj.set_stance("never"):
        (program,) = programs(f)
        runs = program.interpreted_runs
        np.testing.assert_allclose(f(X), softmax(X) * F32(0.3), rtol=1e-6)
        assert program.interpreted_runs == runs + 1
    f(X)
    assert program.interpreted_runs == runs + 1


def test_force_eager_is_never_and_blocks_nest() -> None:
    with tj.set_stance("force_eager"):
        assert stance.current() == "never"
        with tj.set_stance("now"):
            f = tj.jit(lambda x: x * 7 - 3, compile="background")
            f(X)
            assert f.stats()["tier"] == 1
        assert stance.interpreting
    assert stance.current() == "default"
    assert not stance.interpreting


def test_now_catches_up_with_what_is_pending(held: threading.Event) -> None:
    f = tj.jit(lambda x: softmax(x) * 0.7 - 2, compile="background")
    f(X)
    assert f.stats()["pending"] == 1
    with tj.set_stance("now"):
        f(X)
    assert (f.stats()["tier"], f.stats()["pending"]) == (1, 0)


def test_fail_on_recompile_raises_for_new_kernels_only() -> None:
    f = tj.jit(lambda x: np.tanh(x) * 0.11 - np.sqrt(x), compile="now")
    f(X)
    with tj.set_stance("fail_on_recompile"):
        f(X)
        f(np.ones((30, 50), F32))
        assert f.stats()["recompiles"] == 0
        with pytest.raises(RecompileError, match="new dtype"):
            f(X.astype(np.float64))
    f(X.astype(np.float64))
    assert f.stats()["recompiles"] >= 1


def test_eager_on_recompile_leaves_new_signatures_to_numpy() -> None:
    f = tj.jit(lambda x: np.tanh(x) * 0.12 - np.exp(x), compile="now")
    f(X)
    with tj.set_stance("eager_on_recompile"):
        y = X.astype(np.float64)
        np.testing.assert_array_equal(f(y), np.tanh(y) * 0.12 - np.exp(y))
    assert (f.stats()["fallbacks"], f.stats()["compiles"]) == (1, 1)


def test_an_unknown_stance_is_refused() -> None:
    with pytest.raises(ValueArgumentError, match="set_stance"):
        tj.set_stance("soon")


def test_a_recording_of_everything_waits_for_kernels() -> None:
    f = tj.jit(lambda x: softmax(x) * 0.8 + x, compile="background")
    with monitor.recording(everything=True) as runs:
        f(X)
    assert len(list(runs)) == 1


# -- sizes -----------------------------------------------------------------------------------------


def test_fifty_batch_sizes_compile_once_where_each_is_traced() -> None:
    f = tj.jit(lambda x, w: np.tanh(x @ w + 0.5).sum(axis=1), compile="now", dynamic=False)
    w = np.random.default_rng(0).normal(size=(24, 16)).astype(F32)
    sizes = [*range(2, 50), 0, 1]
    for size in sizes:
        x = np.random.default_rng(size).normal(size=(size, 24)).astype(F32)
        np.testing.assert_allclose(
            f(x, w), np.tanh(x @ w + F32(0.5)).sum(axis=1), rtol=1e-4, atol=1e-5
        )
    stats = f.stats()
    assert (stats["compiles"], stats["retraces"]) == (50, 49)
    assert stats["recompiles"] <= 6
    assert stats["guard_failures"] == {"new shape": 49}


def test_a_second_size_compiles_no_kernel() -> None:
    f = tj.jit(lambda x: softmax(x) * 0.9, compile="now")
    f(np.ones((6, 10), F32))
    for shape in [(7, 10), (6, 11), (13, 17), (2, 2), (31, 1024)]:
        x = np.random.default_rng(1).normal(size=shape).astype(F32)
        np.testing.assert_allclose(f(x), softmax(x) * F32(0.9), rtol=1e-5)
    assert f.stats()["recompiles"] == 0


@pytest.mark.parametrize("optimize", [0, 1, 2, 3])
def test_every_optimisation_level_gives_the_same_bits(optimize: int, level: str) -> None:
    f = tj.jit(lambda x: softmax(x * 3) + np.sqrt(x * x), compile="now", optimize=optimize)
    base = tj.jit(lambda x: softmax(x * 3) + np.sqrt(x * x), compile="now")
    for width in (1, 7, 8, 9, 15, 16, 17, 33):
        x = np.random.default_rng(width).normal(size=(5, width)).astype(F32)
        np.testing.assert_allclose(f(x), softmax(x * 3) + np.sqrt(x * x), rtol=2e-6)
        assert f(x).tobytes() == base(x).tobytes()
    assert {c.level for c in programs(f)[0].executable.codes} == {optimize}  # type: ignore[union-attr]


def test_an_unknown_optimisation_level_is_refused() -> None:
    with pytest.raises(ValueArgumentError, match="optimize=4"):
        tj.jit(softmax, optimize=4)


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.fault("LLVM crashes or refuses")
@pytest.mark.parametrize("mode", ["now", "background"])
def test_a_compiler_that_fails_leaves_the_interpreter(
    mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"no code today ({mode})")

    monkeypatch.setattr(engine, "cached_schedule", broken)
    f = tj.jit(lambda x: softmax(x) * 0.6, compile=mode)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            np.testing.assert_allclose(f(X), softmax(X) * F32(0.6), rtol=1e-6)
            f.wait()
    stats = f.stats()
    assert (stats["tier"], stats["pending"], stats["fallbacks"]) == (0, 0, 1)
    assert stats["failed"] == [f"no code today ({mode})"]
    assert len([w for w in caught if "no code today" in str(w.message)]) == 1


# -- evaluation on demand --------------------------------------------------------------------------


def test_a_loop_at_program_level_compiles_in_the_background(held: threading.Event) -> None:
    demand.clear()
    with tj.set_stance("background"):
        x = tj.asarray(np.ones(100_000))
        for turn in range(40):
            x = tj.tanh(x) * 1.01 + 0.37
            value = float(x[0])
            if turn == 20:
                assert not any(
                    isinstance(p, tiers.Program) and p.state is State.COMPILED
                    for p in demand._programs.values()
                )
                held.set()
                for program in list(demand._programs.values()):
                    if isinstance(program, tiers.Program):
                        assert program.wait(60)
        assert any(
            isinstance(p, tiers.Program) and p.state is State.COMPILED
            for p in demand._programs.values()
        )
    y = 1.0
    for _ in range(40):
        y = np.tanh(y) * 1.01 + 0.37
    assert value == pytest.approx(y, rel=1e-12)


# -- what is made once ---------------------------------------------------------------------------


def test_machine_code_of_the_runtime_is_made_once_by_one_of_many_threads() -> None:
    """Regression: two threads made the driver; one copy died while kernels were run through it."""
    made: list[object] = []

    @Once
    def slow() -> object:
        time.sleep(0.05)
        made.append(object())
        return made[-1]

    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(slow())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert found == made * 8


def test_a_fresh_process_moves_to_kernels(tmp_path: Path) -> None:
    program = (
        "import time, numpy as np, tracejit as tj\n"
        "f = tj.jit(lambda a, b: a * 2 + b, compile='background')\n"
        "a = np.ones(1000, np.float32)\n"
        # A breath for the compiler's thread: without, it fights for the GIL for up to a minute
        # where nothing is cached, not even bytecode.
        "while f.stats()['tier'] == 0: f(a, a); time.sleep(1e-3)\n"
        "f.wait()\n"
        "for _ in range(10): assert (f(a, a) == 3).all()\n"
    )
    for turn in range(3):
        environ = {**os.environ, "TRACEJIT_CACHE_DIR": str(tmp_path / str(turn))}
        done = run_python(program, environ)
        assert (done.returncode, done.stderr) == (0, "")


# -- processes -------------------------------------------------------------------------------------


def run_python(
    program: str, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=environ
    )


@pytest.mark.fault("process ends, forks or is killed beside its worker")
def test_a_process_may_end_while_kernels_are_made() -> None:
    done = run_python(
        "import numpy as np, tracejit as tj\n"
        "fs = [tj.jit(lambda x, k=k: np.tanh(x) * k - x, compile='background') for k in range(9)]\n"
        "for f in fs: f(np.ones(8))\n"
        "print('end')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.mark.fault("process ends, forks or is killed beside its worker")
def test_a_forked_child_makes_its_own_kernels() -> None:
    done = run_python(
        "import os, warnings, numpy as np, tracejit as tj\n"
        "warnings.simplefilter('ignore', DeprecationWarning)  # forking beside threads\n"
        "fs = [tj.jit(lambda x, k=k: np.tanh(x) * (k + .5) - x, compile='background')"
        " for k in range(6)]\n"
        "x = np.linspace(0, 1, 9)\n"
        "for f in fs: f(x)\n"
        "child = os.fork()\n"
        "for k, f in enumerate(fs):\n"
        "    f(x); f.wait(); np.testing.assert_allclose(f(x), np.tanh(x) * (k + .5) - x)\n"
        "    assert f.stats()['tier'] == 1, f.stats()\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
        "os._exit(0)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.fault("16 threads call what is compiled, retired and reloaded")
def test_sixteen_threads_call_while_kernels_are_made() -> None:
    functions = [
        tj.jit(lambda x, k=k: np.sqrt(x * x + k) - 0.21 * k, compile="background")
        for k in range(24)
    ]
    x = np.linspace(0, 1, 50)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(functions))
        try:
            for _ in range(4):
                for k in order:
                    np.testing.assert_allclose(
                        functions[k](x), np.sqrt(x * x + k) - 0.21 * k, rtol=1e-12, atol=1e-12
                    )
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for f in functions:
        assert f.wait(60)
    work(99)
    assert not failures
    assert all(f.stats()["tier"] == 1 and f.stats()["compiles"] == 1 for f in functions)
