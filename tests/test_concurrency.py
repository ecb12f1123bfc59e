"""Everything at once: threads call while kernels compile, retire, reload and are specialised.

Each program runs in a process of its own, since it changes settings of the whole process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tracejit.runtime import entry

# 200 functions with kernels of their own: which steps they have follows from the bits of a number.
FUNCTIONS = """
import gc, os, random, sys, threading, time
import numpy as np
import tracejit as tj

def function(k):
    def f(x):
        y = x * (1.5 + k)
        if k & 1: y = np.sqrt(np.abs(y)) + x
        if k & 2: y = y - y.mean(axis=1, keepdims=True)
        if k & 4: y = np.maximum(y, x) * 0.3
        if k & 8: y = y + np.minimum(x, 0.25)
        if k & 16: y = np.abs(y) - y.max(axis=0)
        if k & 32: y = np.where(x > 0, y, -y)
        if k & 64: y = y[:, ::-1] + x
        if k & 128: y = np.cumsum(y, axis=1)
        return y + k
    f.__name__ = f"f{k}"
    return f

PLAIN = [function(k) for k in range(200)]
rng = np.random.default_rng(0)
ARRAYS = [rng.standard_normal(shape) for shape in ((3, 5), (8, 10), (17, 33), (64, 3))]
with np.errstate(all="ignore"):
    WANTED = [[f(x) for x in ARRAYS] for f in PLAIN]

def check(got, want):
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
"""

THREADS = (
    FUNCTIONS
    + """
from tracejit.runtime import analysis, service, specialise
from tracejit.runtime.costs import CostModel

# Every signature is specialised as soon as it can be measured, and at every turn.
analysis.TRIAL_S = analysis.PAUSE_S = 0.002
specialise.SLICES, specialise.SLICE_CALLS, specialise.TRIAL_SECONDS = 1, 1, 0.05
specialise.WINDOW = 16
CostModel.special_saving_ns = lambda self, calls: 1e9
CostModel.special_s = lambda self, calls: 0.0

JITTED = [tj.jit(f, compile=("now", "auto", "background")[k % 3]) for k, f in enumerate(PLAIN)]
failures, calls = [], [0] * 16
began = time.monotonic()

def going_on():
    # For some seconds, and longer on a busy machine: until kernels have gone and come back.
    seconds, seen = time.monotonic() - began, service.stats()
    done = seen["code_evicted"] and seen["disk_hits"]
    return seconds < {seconds} or (seconds < 60 and not done)

def work(seed):
    r = random.Random(seed)
    try:
        while going_on():
            k = r.randrange(200)
            a = r.randrange(len(ARRAYS))
            for _ in range(r.choice((1, 3, 30))):
                check(JITTED[k](ARRAYS[a]), WANTED[k][a])
                calls[seed] += 1
            if r.random() < 0.1:
                JITTED[k].clear()  # retired: what it had may be freed, and is loaded again
    except BaseException as error:
        failures.append(error)
        raise

threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
for t in threads: t.start()
for t in threads: t.join()
assert not failures, failures[0]
seen = service.stats()
print(sum(calls), int(seen["code_evicted"]), int(seen["disk_hits"]))
"""
)


def run(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TRACEJIT_COMPILE": "auto", **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def crowd(seconds: float, folder: Path, **environment: str) -> None:
    """Run 16 threads on 200 functions with room for a few kernels in memory."""
    printed = run(
        THREADS.replace("{seconds}", str(seconds)),
        TRACEJIT_SPECIALISE="1",
        TRACEJIT_CODE_CACHE="12000",
        TRACEJIT_CACHE_DIR=str(folder),
        **environment,
    )
    calls, evicted, reloaded = map(int, printed.split())
    assert calls > 100
    assert evicted > 0
    assert reloaded > 0


@pytest.mark.fault("16 threads call what is compiled, retired and reloaded")
def test_sixteen_threads_call_200_functions_that_come_and_go(tmp_path: Path) -> None:
    crowd(3, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("deopt", ["0", "2"])
@pytest.mark.parametrize("poison", ["0", "1"])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_they_do_under_every_switch(deopt: str, poison: str, workers: str, tmp_path: Path) -> None:
    crowd(
        15, tmp_path, TRACEJIT_STRESS_DEOPT=deopt, TRACEJIT_STRESS_POISON=poison,
        TRACEJIT_COMPILE_WORKERS=workers,
    )  # fmt: skip


ONCE = (
    FUNCTIONS
    + """
from tracejit.runtime import service
f = [tj.jit(PLAIN[k], compile=mode) for k in (3, 37, 74, 200 - 1) for mode in ("now", "background")]
barrier = threading.Barrier(16)
failures = []

def work(n):
    try:
        barrier.wait()
        for i in range(4):
            k = (n + i) % 4
            for g in f[2 * k : 2 * k + 2]:
                check(g(ARRAYS[1]), WANTED[(3, 37, 74, 199)[k]][1])
    except BaseException as error:
        failures.append(error)

threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
for t in threads: t.start()
for t in threads: t.join()
assert not failures, failures[0]
assert all(g.wait(60) for g in f)
print(service.compiles(), sum(g.stats()["compiles"] for g in f))
seen = service.stats()
assert seen["compiled"] == sum(g.stats()["kernels"] for g in f[::2]), seen
"""
)


@pytest.mark.fault("16 threads call what is compiled, retired and reloaded")
def test_what_sixteen_threads_ask_for_at_once_is_compiled_once(tmp_path: Path) -> None:
    """64 calls of 4 programs, in two modes: 8 signatures are traced, each kernel compiled once."""
    kernels, traced = run(ONCE, TRACEJIT_CACHE_DIR=str(tmp_path)).split()
    assert int(traced) == 8
    assert int(kernels) >= 4


CHILDREN = (
    FUNCTIONS
    + """
import multiprocessing

f = tj.jit(PLAIN[7])

def child(n):
    for a, x in enumerate(ARRAYS):
        for _ in range(30):
            check(f(x), WANTED[7][a])
    return n

if __name__ == "__main__":
    f(ARRAYS[0])  # a fork may find kernels half made, or made
    if sys.argv[2] == "made":
        assert f.wait(60)
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print(sorted(pool.map(child, range(4))))
    check(f(ARRAYS[2]), WANTED[7][2])
"""
)


@pytest.mark.fault("process ends, forks or is killed beside its worker")
@pytest.mark.parametrize(
    ("method", "state"),
    [
        ("fork", "half"),
        ("fork", "made"),
        ("spawn", "half"),
        pytest.param("spawn", "made", marks=pytest.mark.slow),
        pytest.param("forkserver", "half", marks=pytest.mark.slow),
        pytest.param("forkserver", "made", marks=pytest.mark.slow),
    ],
)
def test_children_of_multiprocessing_answer(method: str, state: str, tmp_path: Path) -> None:
    if sys.platform == "win32" and method != "spawn":
        pytest.skip("spawn is the only method")
    program = tmp_path / "program.py"
    program.write_text(CHILDREN)
    done = subprocess.run(
        [sys.executable, str(program), method, state],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TRACEJIT_COMPILE": "background", "TRACEJIT_SPECIALISE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "[0, 1, 2, 3]\n"


INTERRUPT = (
    FUNCTIONS
    + """
import signal
from tracejit.runtime import workers
signal.signal(signal.SIGINT, signal.default_int_handler)
f = [tj.jit(PLAIN[k], compile="background") for k in range(40)]
x = ARRAYS[1]
try:
    for k, g in enumerate(f):
        check(g(x), WANTED[k][1])
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
except KeyboardInterrupt:
    print("interrupted", sum(g.stats()["pending"] for g in f) > 0, flush=True)
{then}
"""
)
GO_ON = """
assert all(g.wait(120) for g in f)
for k, g in enumerate(f):
    check(g(x), WANTED[k][1])
assert all(g.stats()["tier"] == 1 for g in f)
"""


@pytest.mark.fault("Ctrl-C")
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("then", [GO_ON, "sys.exit(3)"], ids=["goes on", "ends"])
def test_ctrl_c_while_kernels_are_made(then: str, tmp_path: Path) -> None:
    """The program gets it at once; what is being made goes on, or ends with the process."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT.replace("{then}", then)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TRACEJIT_CACHE_DIR": str(tmp_path)},
    )
    assert done.stdout == "interrupted True\n", done.stderr[-3000:]
    assert (done.returncode, done.stderr) == (0 if then == GO_ON else 3, "")


@pytest.mark.fault("Ctrl-C")
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_that_nobody_catches_ends_the_process(tmp_path: Path) -> None:
    program = INTERRUPT.replace("except KeyboardInterrupt", "except ZeroDivisionError")
    done = subprocess.run(
        [sys.executable, "-c", program.replace("{then}", "")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TRACEJIT_CACHE_DIR": str(tmp_path)},
    )
    assert done.returncode in (1, -signal.SIGINT)  # the former for `python -c`
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


CLOCKS = (
    FUNCTIONS
    + """
from tracejit.runtime import analysis, entry, native

# The processor's counter runs backwards ...
text = native.driver_text()
head = "define i64 @ticks() {"
start = text.index(head)
end = text.index("}", start)
backwards = '''@clock = private global i64 1000000000
define i64 @ticks() {
  %old = load i64, ptr @clock
  %new = sub i64 %old, 1000
  store i64 %new, ptr @clock
  ret i64 %new
'''
native.driver_text = lambda: text[:start] + backwards + text[end:]
native._DRIVER = native.Module("backward driver", native.driver_text)
entry._MODULE = native.Module("backward entry", entry._MODULE.text)
# ... and so do the system's clocks.
steps = iter(range(10**9, 0, -1))
for name in ("monotonic", "perf_counter", "time"):
    setattr(time, name, lambda: next(steps) * 1e-3)
time.perf_counter_ns = lambda: next(steps) * 1000

interpreted, f = tj.jit(PLAIN[5], compile="never"), tj.jit(PLAIN[5], compile="now")
for _ in range(300):
    check(f(ARRAYS[1]), WANTED[5][1])
    check(interpreted(ARRAYS[1]), WANTED[5][1])
    analysis.analyse()
for g in (f, interpreted):
    found = g.profile()
    assert found.calls == 300
    assert found.seconds >= 0 and found.exclusive_seconds >= 0 and found.rate >= 0, found
    assert found.compile_seconds >= 0
    for s in found.signatures:
        assert s.seconds >= 0 and s.rate >= 0 and s.expected_saving >= 0, s
str(tj.profiler.report())
if f._entry is not None:
    counted = f._entry.counters()[0]
    assert counted.calls == counted.ended > 200
    assert (counted.timed, counted.timed_ticks, counted.least) == (0, 0, None)
print("right")
"""
)


@pytest.mark.fault("clock that goes backwards")
@pytest.mark.counts_native
@pytest.mark.skipif(not entry.supported(), reason="native calls are counted natively")
def test_clocks_that_run_backwards_make_no_time_negative(tmp_path: Path) -> None:
    assert run(CLOCKS, TRACEJIT_CACHE_DIR=str(tmp_path)) == "right\n"


FEATURES = (
    FUNCTIONS
    + """
from tracejit.record import replace
from tracejit.runtime import cpu, service
if {changed}:  # another processor of the same level, or a hypervisor that hides something
    real = cpu.target
    def changed(*args):
        target = real(*args)
        return replace(target, flags=target.flags - {next(iter(sorted(target.flags)))})
    cpu.target = changed
f = tj.jit(PLAIN[9], compile="now")
check(f(ARRAYS[1]), WANTED[9][1])
print(service.compiles())
"""
)


@pytest.mark.fault("changed CPU features")
def test_code_for_other_cpu_features_is_not_taken(tmp_path: Path) -> None:
    def compiles(changed: bool) -> int:
        program = FEATURES.replace("{changed}", str(changed))
        return int(run(program, TRACEJIT_CACHE_DIR=str(tmp_path)))

    assert compiles(changed=False) > 0
    assert compiles(changed=False) == 0
    assert compiles(changed=True) > 0
    assert compiles(changed=True) == 0
    assert compiles(changed=False) == 0


def test_the_programs_are_indented_as_they_stand() -> None:
    for program in (THREADS, ONCE, CHILDREN, INTERRUPT, CLOCKS, FEATURES):
        assert textwrap.dedent(program) == program
