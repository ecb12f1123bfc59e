"""Race generated matrix products against NumPy's BLAS and torch's, on one thread, interleaved.

    python -m benchmarks.gemm                     square and rectangular products, f32 and f64
    python -m benchmarks.gemm 512 64x10x128       these sizes (n, or m x n x k)
    python -m benchmarks.gemm --seconds 1         time for each row
    python -m benchmarks.gemm --layout CF         the second operand stored by columns
    python -m benchmarks.gemm --compile           compile time of each class of product

A row shows tracejit's time, GF/s and share of the measured peak, and the ratios of each peer's
time to it: above 1 tracejit is faster. Calls alternate, so that all see the same machine; the
times are processor time, which other processes disturb least, and of many calls the tenth
percentile counts. tracejit's time is that of the kernel called from native code, as the engine
calls it; NumPy's is that of ``np.matmul(a, b, out=c)`` and torch's of ``torch.mm(a, b, out=c)``,
their call overhead included. Layouts: C by rows, F by columns, S strided.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.machine import peak
from benchmarks.small_products import laid_out
from tests.gemm_harness import Call, bind, module_text
from tracejit.codegen.builder import I64, PTR, VOID, Module, Value, const
from tracejit.codegen.contraction import GemmProblem, GemmSpec, classify
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
    """Runs a bound product from native code, ``times`` times where it is one stage.

    A product of several stages is long enough to be called from here.
    """

    def __init__(self, repeat: int, call: Call, times: int):
        pointers, numbers = [ctypes.c_void_p] * 3, [ctypes.c_int64] * 2
        entry = ctypes.CFUNCTYPE(None, ctypes.c_int64, *pointers, *numbers)(repeat)
        code = ctypes.cast(call.entry, ctypes.c_void_p)  # type: ignore[arg-type]
        assert times == 1 or len(call.stages) == 1
        self.calls = [
            lambda sizes=sizes, tiles=stage.tiles: entry(times, code, call.ptrs, sizes, 0, tiles)
            for stage, sizes in zip(call.stages, call.sizes, strict=True)
        ]

    def __call__(self) -> None:
        for call in self.calls:
            call()


def timed(call: Callable[[], object], times: int) -> float:
    """Return the processor time of one of ``times`` calls in seconds."""
    start = time.thread_time_ns()
    for _ in range(times):
        call()
    return (time.thread_time_ns() - start) * 1e-9 / times


def peers(a: Array, b: Array) -> dict[str, Callable[[], object]]:
    """Return the same product by others; torch where it is installed."""
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    found: dict[str, Callable[[], object]] = {"numpy": lambda: np.matmul(a, b, out=out)}
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return found
    torch.set_num_threads(1)
    x, y, z = (torch.from_numpy(v) for v in (a, b, np.empty_like(out)))
    return {**found, "torch": lambda: torch.mm(x, y, out=z)}


def race(
    target: Target, repeat: int, size: tuple[int, int, int], dtype: Any, options: Any
) -> dict[str, float]:
    """Return the time of tracejit and of each peer for one product."""
    m, n, k = size
    rng = np.random.default_rng(0)
    first, second = options.layout
    a = laid_out(rng.standard_normal((m, k)).astype(dtype), first)
    b = laid_out(rng.standard_normal((k, n)).astype(dtype), second)
    ours = np.empty((m, n), dtype)
    times = max(1, 1_000_000 // (m * n * k))
    kernel = Repeated(repeat, bind(target, a, b, ours), times)
    kernel()
    np.testing.assert_allclose(ours, a @ b, rtol=1e-3, atol=1e-3 * k**0.5)
    others = peers(a, b)
    samples: dict[str, list[float]] = {name: [] for name in ("tracejit", *others)}
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end or len(samples["tracejit"]) < 3:
        samples["tracejit"].append(timed(kernel, 1) / times)
        for name, call in others.items():
            samples[name].append(timed(call, times))
    return {name: float(np.percentile(values, 10)) for name, values in samples.items()}


def report(options: Any) -> None:
    target = cpu.target()
    repeat = LoadedObject(compile_object(emit_repeat(target), target), ("repeat",))
    for dtype in (np.float32, np.float64):
        top = peak(target, dtype)
        print(f"\n{np.dtype(dtype).name} on {target.name}, peak {top:.1f} GF/s, one thread")
        ratios: dict[str, list[float]] = {}
        for m, n, k in options.sizes or SQUARE + OTHER:
            rate = 2e-9 * m * n * k
            found = race(target, repeat.address("repeat"), (m, n, k), dtype, options)
            own = found.pop("tracejit")
            cells = f"{own * 1e6:11.2f} us {rate / own:6.1f} GF/s {100 * rate / own / top:4.0f} %"
            for name, value in found.items():
                ratios.setdefault(name, []).append(value / own)
                cells += f"   {name} {value / own:5.2f}"
            print(f"{f'{m} x {n} x {k}':>18} {cells}", flush=True)
        for name, values in ratios.items():
            print(f"geometric mean {name}/tracejit: {statistics.geometric_mean(values):.2f}")


def compile_seconds(target: Target, spec: GemmSpec) -> float:
    """Return the processor time that emission and compilation of a spec take."""
    start = time.process_time()
    compile_object(module_text(target, spec), target, passes=0)
    return time.process_time() - start


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
    parser.add_argument("--layout", default="CC", choices=[x + y for x in "CFS" for y in "CFS"])
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if options.compile:
        report_compile()
    else:
        report(options)


if __name__ == "__main__":
    main()
