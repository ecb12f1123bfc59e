"""Race products of up to 128 rows, columns and terms against NumPy's BLAS, called from Python.

    python -m benchmarks.small_products                    float32 and float64, one thread
    python -m benchmarks.small_products --threads 2        both on two threads
    python -m benchmarks.small_products 97 128x128x3 5x5x5:FS  these (m x n x k, and layouts)

A row shows the time of a call of ``tj.jit(a @ b)`` and the ratio of ``np.matmul``'s to it: above 1
tracejit is faster. Both make a new result. Rounds of both alternate over all products, so that all
see the same machine, and the least time of a call counts; what the entry of a call costs is part of
it. Layouts of the two operands: C by rows, F by columns, S with gaps on both axes. At the end
stand the geometric mean of the ratios, the least one, and how many are below 1.5 and 0.9.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import tracejit as tj

from .implementations import environment

SIZES = (8, 12, 16, 17, 24, 31, 32, 33, 48, 64, 65, 80, 96, 97, 98, 99, 100, 113, 127, 128)
# One row, column or term; primes; tall, flat, deep and shallow; operands by columns or with gaps.
OTHERS = """
    1x64x64 64x1x64 64x64x1 1x1x128 1x128x8 128x1x8 8x8x128 3x3x3 2x2x2
    17x31x13 13x29x7 61x71x67 101x17x31 127x5x31 97x113x128
    128x8x128 8x128x128 128x128x8 3x128x128 128x3x128 128x128x3 128x4x64 100x50x5 5x50x100
    50x50x10 20x100x30 10x20x100
    32:FC 32:CF 64:FC 64:CF 100:FC 100:CF 64:FF 33:SS 64:SC 64:CS 100:SS 1x64x64:CF 64x1x64:FC
"""


Array = np.ndarray[Any, Any]


def laid_out(values: Array, layout: str) -> Array:
    """Return an equal array by rows (C), by columns (F) or with gaps on both axes (S)."""
    if layout == "F":
        return np.asfortranarray(values)
    if layout == "S":
        spread = np.empty([2 * n for n in values.shape], values.dtype)[::2, ::2]
        spread[...] = values
        return spread
    return values


class Case(NamedTuple):
    """A product of m × k by k × n; ``layout`` has a letter for each operand."""

    m: int
    n: int
    k: int
    layout: str = "CC"

    def __str__(self) -> str:
        size = f"{self.m}x{self.n}x{self.k}"
        return size if self.layout == "CC" else f"{size}:{self.layout}"

    def operands(self, dtype: Any) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        shapes = ((self.m, self.k), (self.k, self.n))
        values = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
        a, b = (laid_out(v, layout) for v, layout in zip(values, self.layout, strict=True))
        return a, b


def parse(text: str) -> Case:
    """Return the product that ``text`` names, such as 97, 128x128x3 or 64:CF."""
    match = re.fullmatch(r"(\d+)(?:x(\d+)x(\d+))?(?::([CFS]{2}))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: write a product like 97 or 128x128x3:CF")
    m, n, k, layout = match.groups()
    return Case(int(m), int(n or m), int(k or m), layout or "CC")


CASES = [*(Case(n, n, n) for n in SIZES), *map(parse, OTHERS.split())]


# Take a sample, ours and NumPy's: the seconds of a call.
Pair = tuple[Callable[[], float], Callable[[], float]]


def bound(case: Case, dtype: Any, sample_s: float) -> Pair:
    """Compile a case and check its result; return what times it."""
    a, b = case.operands(dtype)
    product = tj.jit(lambda a, b: a @ b, compile="now")
    for _ in range(3):  # the second call makes the native entry
        result = product(a, b)
    np.testing.assert_allclose(result, a @ b, rtol=1e-3, atol=1e-3)
    expected = 0.3e-6 + 2e-11 * case.m * case.n * case.k
    calls = max(3, round(sample_s / expected))
    return lambda: repeat(product, a, b, calls), lambda: repeat(np.matmul, a, b, calls)


def repeat(function: Callable[[Any, Any], Any], a: Any, b: Any, calls: int) -> float:
    """Return the seconds of one of ``calls`` calls."""
    start = time.perf_counter()
    for _ in range(calls):
        function(a, b)
    return (time.perf_counter() - start) / calls


def race(
    cases: Sequence[Case], dtype: Any, rounds: int, sample_s: float
) -> list[tuple[float, float]]:
    """Return the least seconds of a call of each case, ours and NumPy's."""
    pairs = [bound(case, dtype, sample_s) for case in cases]
    best = [[np.inf, np.inf] for _ in cases]
    for number in range(rounds):
        for pair, least in zip(pairs, best, strict=True):
            for side in (0, 1) if number % 2 else (1, 0):
                least[side] = min(least[side], pair[side]())
    return [(ours, other) for ours, other in best]


def report(cases: Sequence[Case], rounds: int, sample_s: float) -> None:
    threads = os.environ["TRACEJIT_NUM_THREADS"]
    for dtype in (np.float32, np.float64):
        found = race(cases, dtype, rounds, sample_s)
        ratios = [other / ours for ours, other in found]
        print(f"\n{np.dtype(dtype).name}, threads: {threads}")
        for case, (ours, other), ratio in zip(cases, found, ratios, strict=True):
            rate = 2e-9 * case.m * case.n * case.k / ours
            mark = "  <" if ratio < 0.9 else ""
            print(
                f"{case!s:>14} {1e6 * ours:8.2f} us {rate:6.1f} GF/s "
                f"numpy {1e6 * other:8.2f} us {ratio:6.2f}{mark}"
            )
        least = min(zip(ratios, map(str, cases), strict=True))
        print(
            f"geometric mean {statistics.geometric_mean(ratios):.2f}, least {least[0]:.2f} "
            f"({least[1]}); below 1.5: {sum(r < 1.5 for r in ratios)}, below 0.9: "
            f"{sum(r < 0.9 for r in ratios)} of {len(cases)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", type=parse)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sample", type=float, default=0.2, help="milliseconds in a sample")
    options = parser.parse_args()
    wanted = environment("numpy", options.threads)
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        # NumPy's BLAS counts its threads when it is loaded.
        command = [sys.executable, "-m", "benchmarks.small_products", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=wanted, check=False).returncode)
    report(options.cases or CASES, options.rounds, options.sample * 1e-3)


if __name__ == "__main__":
    main()
