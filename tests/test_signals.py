"""Ctrl-C: a signal is honoured between the kernels of a long call, and between calls."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

# A call of many matrix products takes seconds, each of them tens of milliseconds.
PROGRAM = """
import signal, time, numpy as np, tracejit as tj

# A shell that runs tests in the background has its children ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)

def chain(x):
    for _ in range({products}):
        x = np.tanh(x @ x)
    return x, x.sum()

f = tj.jit(chain, compile="now")
x = np.random.default_rng(0).standard_normal(({size}, {size})) * 0.03
with tj.num_threads({threads}):
    for _ in range(2):
        f(x)  # from here on calls are native
    started = time.perf_counter()
    f(x)
    took = time.perf_counter() - started
    calls, used = f._entry.calls, tj.memory_stats()["used"]
    try:
        print(took, flush=True)  # the signal comes after this line, so always within the try
        {call}
    except KeyboardInterrupt:
        print("interrupted", f._entry.calls - calls, tj.memory_stats()["used"] - used, flush=True)
    assert np.isfinite(f(x)[1])  # it still answers
"""


def interrupted(program: str) -> tuple[str, float, float]:
    """Run ``program`` and send SIGINT soon after it is ready.

    Returns what it printed then, how long that took, and how long one call takes.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        whole = float(child.stdout.readline())
        time.sleep(0.2)
        sent = time.perf_counter()
        child.send_signal(signal.SIGINT)
        line = child.stdout.readline()
        took = time.perf_counter() - sent
        _, errors = child.communicate(timeout=240)
        assert child.returncode == 0, errors
        return line, took, whole
    finally:
        child.kill()


@pytest.mark.fault("Ctrl-C")
@pytest.mark.counts_native
@pytest.mark.parametrize("threads", [1, 2])
def test_a_long_native_call_stops_between_kernels(threads: int) -> None:
    """It returns long before it would have ended, and gives its memory back."""
    program = PROGRAM.format(products=50, size=800, threads=threads, call="f(x)")
    line, took, whole = interrupted(program)
    assert line == "interrupted 1 0\n"
    assert took < (whole - 0.2) / 2


@pytest.mark.fault("Ctrl-C")
def test_the_python_path_stops_between_kernels() -> None:
    program = PROGRAM.format(products=50, size=800, threads=1, call="f._call_python(x)")
    line, took, whole = interrupted(program)
    assert line.startswith("interrupted 0 ")
    assert took < (whole - 0.2) / 2


@pytest.mark.fault("Ctrl-C")
@pytest.mark.counts_native
def test_an_endless_loop_of_calls_stops() -> None:
    program = PROGRAM.format(products=1, size=30, threads=1, call="while True: f(x)")
    word, calls, used = interrupted(program)[0].split()
    assert word == "interrupted"
    assert int(calls) > 100
    assert int(used) == 0
