"""Race generated matrix products against NumPy's BLAS, on one thread, interleaved.

    python -m benchmarks.gemm                     square and rectangular products, f32 and f64
    python -m benchmarks.gemm 512 64x10x128       these sizes (n, or m x n x k)
    python -m benchmarks.gemm --seconds 1         time for each row
    python -m benchmarks.gemm --compile           compile time of each class of product

A row shows both contestants' least time, GF/s and share of the measured peak, and the ratios
NumPy/tracejit of the least and the median times: above 1 tracejit is faster. Calls alternate, so
that both see the same machine. tracejit's time is that of the kernel called from native code, as
the engine calls it; NumPy's is that of ``np.matmul(a, b, out=c)``, its call overhead included.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import ctypes
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.machine import peak, timed
from tests.gemm_harness import Call, bind, compile_seconds
from tracejit.codegen.builder import I64, PTR, VOID, Module, Value, const
from tracejit.codegen.contraction import GemmProblem, classify
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.target import Target
from tracejit.runtime import cpu
from tracejit.runtime.loader import LoadedObject

SQUARE = [
    (n, n, n) for n in (8, 16, 31, 32, 64, 97, 100, 127, 128, 256, 257, 512, 1000, 1024, 2048)
]
OTHER = [
    (1, 512, 512), (512, 1, 512), (1, 2048, 2048), (2048, 1, 2048), (1, 1, 4096),
    (300, 300, 1), (8, 1024, 1024), (64, 10, 128), (64, 128, 784), (32, 1024, 1000),
    (512, 512, 64), (2000, 50, 2000), (1024, 16, 1024), (16, 16, 20000), (512, 768, 3072),
]  # fmt: skip
Array = np.ndarray[Any, Any]


def emit_repeat(target: Target) -> str:
    """Return the module of ``repeat(times, kernel, ptrs, sizes, begin, end)``."""
    module = Module(target)
    names = [("times", I64), ("kernel", PTR), ("ptrs", PTR), ("sizes", PTR)]
    b = module.define("repeat", VOID, [*names, ("begin", I64), ("end", I64)])
    times, kernel, *rest = b.parameters

    def body(_: Value, carried: list[Value]) -> list[Value]:
        b.effect(f"call void {kernel.text}({', '.join(f'{v.type} {v.text}' for v in rest)})")
        return carried

    b.loop(const(0, I64), times, 1, [], body)
    b.ret()
    return module.text()


class Repeated:
    """Runs a bound product ``times`` times from native code."""

    def __init__(self, repeat: int, call: Call, times: int):
        pointers, numbers = [ctypes.c_void_p] * 3, [ctypes.c_int64] * 2
        entry = ctypes.CFUNCTYPE(None, ctypes.c_int64, *pointers, *numbers)(repeat)
        code = ctypes.cast(call.entry, ctypes.c_void_p)  # type: ignore[arg-type]
        self.call = lambda: entry(times, code, call.ptrs, call.sizes, 0, call.tiles)

    def __call__(self) -> None:
        self.call()


def race(
    target: Target, repeat: int, size: tuple[int, int, int], dtype: Any, seconds: float
) -> tuple[list[float], list[float]]:
    """Return the times of tracejit and of NumPy for one product."""
    m, n, k = size
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    ours, theirs = np.empty((m, n), dtype), np.empty((m, n), dtype)
    times = max(1, 200_000 // (m * n * k))
    kernel = Repeated(repeat, bind(target, a, b, ours), times)
    kernel()
    np.matmul(a, b, out=theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * k**0.5)
    first: list[float] = []
    second: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(first) < 3:
        first.append(timed(kernel) / times)
        second.append(timed(lambda: np.matmul(a, b, out=theirs)))
    return first, second


def report(sizes: list[tuple[int, int, int]], seconds: float) -> None:
    target = cpu.target()
    repeat = LoadedObject(compile_object(emit_repeat(target), target), ("repeat",))
    for dtype in (np.float32, np.float64):
        top = peak(target, dtype)
        print(f"\n{np.dtype(dtype).name} on {target.name}, peak {top:.1f} GF/s, one thread")
        print(f"{'m x n x k':>16} {'tracejit':>28} {'numpy':>28} {'min':>6} {'median':>7}")
        ratios: list[float] = []
        for m, n, k in sizes:
            rate = 2e-9 * m * n * k
            times = race(target, repeat.address("repeat"), (m, n, k), dtype, seconds)
            best = [min(t) for t in times]
            median = [statistics.median(t) for t in times]
            cells = [
                f"{t * 1e6:11.1f} us {rate / t:6.1f} {100 * rate / t / top:4.0f} %" for t in best
            ]
            ratios.append(best[1] / best[0])
            print(
                f"{f'{m} x {n} x {k}':>16} {cells[0]:>28} {cells[1]:>28} "
                f"{ratios[-1]:6.2f} {median[1] / median[0]:7.2f}",
                flush=True,
            )
        print(f"geometric mean of the ratios: {statistics.geometric_mean(ratios):.2f}")


def report_compile() -> None:
    """Print the least of five compile times of each class that the standard sizes fall in."""
    target = cpu.target()
    for dtype in (np.float32, np.float64, np.int32, np.int64):
        specs = {
            classify(target, np.dtype(dtype), GemmProblem(m, n, k, (k, 1), (n, 1), (n, 1)))
            for m, n, k in SQUARE + OTHER
        }
        for spec in sorted(specs, key=str):
            best = min(compile_seconds(target, spec) for _ in range(5))
            packed = f"pack A {spec.pack_a:d} B {spec.pack_b:d}"
            layout = f"a {spec.a:5} b {spec.b:5}"
            print(f"{spec.dtype} {spec.kind:6} {layout} {packed} {best * 1e3:6.1f} ms")


def parse(text: str) -> tuple[int, int, int]:
    numbers = [int(part) for part in text.split("x")]
    if len(numbers) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text}: write n or m x n x k, such as 512 or 64x10x128")
    return (numbers[0], numbers[0], numbers[0]) if len(numbers) == 1 else tuple(numbers)  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=parse)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if options.compile:
        report_compile()
    else:
        report(options.sizes or SQUARE + OTHER, options.seconds)


if __name__ == "__main__":
    main()
