"""What this machine can do at most: memory bandwidth and floating-point operations a second.

Measured with generated kernels and with NumPy's copy, in the run whose results they judge.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import tracejit as tj
from tracejit.codegen.builder import I64, PTR, VOID, Module, Type, const
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.target import Target
from tracejit.runtime import cpu
from tracejit.runtime.loader import LoadedObject

# Far more than the caches hold.
STREAM_ELEMENTS = 16_000_000
CHAINS = 12


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_loop(target: Target, dtype: Any) -> tuple[Callable[[int], None], int]:
    """Return ``run(steps)`` of multiply-adds that wait for nothing, and the flops of a step.

    The returned function lets other threads run.
    """
    type = Type("f32" if dtype == np.float32 else "f64")
    vector = type.vector(target.lanes(type.bits))
    module = Module(target)
    b = module.define("peak", VOID, [("count", I64), ("place", PTR)])
    count, place = b.parameters
    x = b.load(place, vector)
    sums = b.loop(
        const(0, I64), count, 1, [x] * CHAINS, lambda _, s: [b.fma(x, x, value) for value in s]
    )
    for value in sums:
        b.store(value, place)
    b.ret()
    loaded = LoadedObject(compile_object(module.text(), target, passes=0), ("peak",))
    entry = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(loaded.address("peak"))

    def run(steps: int, owner: LoadedObject = loaded) -> None:  # ``owner`` keeps the code alive
        place = np.zeros(64)
        entry(steps, place.ctypes.data)

    return run, CHAINS * 2 * vector.lanes


def peak(target: Target, dtype: Any, threads: int = 1) -> float:
    """Return the measured GF/s of multiply-adds that wait for nothing but themselves."""
    run, flops = peak_loop(target, dtype)
    steps = 100_000
    if threads == 1:
        return steps * flops / min(timed(lambda: run(steps)) for _ in range(100)) / 1e9
    steps *= 20  # long against the time it takes to start

    with ThreadPoolExecutor(threads) as pool:
        best = min(timed(lambda: list(pool.map(run, [steps] * threads))) for _ in range(20))
    return threads * steps * flops / best / 1e9


def bandwidths(rounds: int = 7) -> dict[str, float]:
    """Return the GB/s of copy and triad through generated kernels, and of NumPy's copy."""
    a = np.ones(STREAM_ELEMENTS, np.float32)
    b, out = a * 2, np.empty_like(a)
    copy = tj.jit(lambda a: -a, compile="now")
    triad = tj.jit(lambda a, b: a + 3 * b, compile="now")
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "copy": (lambda: copy(a), 2),
        "triad": (lambda: triad(a, b), 3),
        "numpy copy": (lambda: np.copyto(out, a), 2),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, (call, _) in calls.items():
            times[name].append(timed(call))
    return {
        # The first round compiles.
        name: arrays * a.nbytes / min(times[name][1:]) / 1e9
        for name, (_, arrays) in calls.items()
    }


def measure(threads: int) -> dict[str, float]:
    """Return all figures, each named after what it is: GB/s and GF/s, on one thread and on all."""
    target = cpu.target()
    figures: dict[str, float] = {}
    for count in dict.fromkeys((1, threads)):
        with tj.num_threads(count):
            for name, value in bandwidths().items():
                figures[f"{name} GB/s, {count} thread(s)"] = value
        for name, dtype in (("f32", np.float32), ("f64", np.float64)):
            figures[f"{name} GF/s, {count} thread(s)"] = peak(target, dtype, count)
    return figures


def copy(size: int) -> Callable[[], object]:
    """Return a call that moves ``size`` bytes, half of them read and half written, with a kernel.

    Changing the sign costs no more than the bytes, and is not left to NumPy as a plain copy is.
    """
    a = np.ones(max(1, size // 8), np.float32)
    kernel = tj.jit(lambda a: -a, compile="now")
    return lambda: kernel(a)


def copyto(size: int) -> Callable[[], object]:
    """Return the same with NumPy, into an array that is there already."""
    a = np.ones(max(1, size // 8), np.float32)
    out = np.empty_like(a)
    return lambda: np.copyto(out, a)
