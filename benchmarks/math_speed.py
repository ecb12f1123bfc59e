"""Measure the vector math in cycles an element, and write the table in docs/numerics.md.

    python -m benchmarks.math_speed                          all functions
    python -m benchmarks.math_speed exp log --levels avx2    some of them
    python -m benchmarks.math_speed --write                  also write the table

One thread, arrays that stay in the level-2 cache, arguments from the interval where a function is
mostly used; NumPy and PyTorch (where installed) in the same rounds, into an array that exists.
Cycles come from the time of a chain of dependent multiplications (3 cycles each on every x86-64
of the last ten years) around the measurement, not from the nominal frequency.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.ulp import write_part
from tracejit.codegen.builder import F32, F64, I64, PTR, VOID, Module, Value, const
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.math import FUNCTIONS, call
from tracejit.codegen.target import Target
from tracejit.runtime import cpu
from tracejit.runtime.loader import LoadedObject

Array = np.ndarray[Any, Any]
Call = Callable[[], object]
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
SIZE = 32768
CHAIN, MULTIPLY_LATENCY = 32, 3

# Where the arguments lie; (-3, 3) elsewhere. A second argument has the second interval.
_RANGES: dict[str, tuple[tuple[float, float], ...]] = {
    "exp": ((-10, 10),), "exp2": ((-10, 10),), "expm1": ((-10, 10),), "sigmoid": ((-10, 10),),
    "log": ((0.01, 100),), "log2": ((0.01, 100),), "log10": ((0.01, 100),),
    "log1p": ((-0.9, 10),), "arccosh": ((1, 10),), "arctanh": ((-1, 1),), "arcsin": ((-1, 1),),
    "arccos": ((-1, 1),), "power": ((0.01, 10), (-3, 3)), "gamma": ((0.5, 10),),
    "lgamma": ((0.5, 10),), "sin": ((-10, 10),), "cos": ((-10, 10),), "tan": ((-10, 10),),
}  # fmt: skip
_TORCH = {
    "power": "pow", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
}  # fmt: skip


def loop_text(name: str, dtype: str, target: Target, lanes: int | None = None) -> str:
    """The IR of ``k(x…, result, n)``, n a multiple of the lanes: one vector a step, as kernels.

    The lanes are the target's, or ``lanes`` (1: scalars).
    """
    element = F32 if np.dtype(dtype) == np.float32 else F64
    arity = FUNCTIONS[name].arity
    module = Module(target)
    b = module.define(
        "k", VOID, [*((f"x{i}", PTR) for i in range(arity)), ("result", PTR), ("n", I64)]
    )
    *inputs, result, count = b.parameters
    lanes = lanes or target.lanes(element.bits)
    vector = element.vector(lanes)

    def body(i: Value, _: list[Value]) -> list[Value]:
        loaded = [b.load(b.element(x, i, element), vector) for x in inputs]
        b.store(call(b, name, *loaded), b.element(result, i, element))
        return []

    b.loop(const(0, I64), count, lanes, [], body)
    b.ret()
    return module.text()


def chain_text(target: Target) -> str:
    """The IR of ``k(seed, n)``: n times ``CHAIN`` dependent multiplications."""
    module = Module(target)
    b = module.define("k", I64, [("seed", I64), ("n", I64)])
    seed, count = b.parameters

    def body(_: Value, carried: list[Value]) -> list[Value]:
        (x,) = carried
        for _step in range(CHAIN):
            x = b.mul(x, x)
        return [x]

    b.ret(b.loop(const(0, I64), count, 1, [seed], body)[0])
    return module.text()


def seconds(function: Call, repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - started) / repeats


def compiled(text: str, target: Target) -> LoadedObject:
    return LoadedObject(compile_object(text, target, passes=0), ("k",))


class Clock:
    """Tells how long a cycle takes right now."""

    def __init__(self) -> None:
        self._object = compiled(chain_text(cpu.target()), cpu.target())
        prototype = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
        self._chain = prototype(self._object.address("k"))

    def cycle(self) -> float:
        count = 1000
        best = min(seconds(lambda: self._chain(3, count), 1) for _ in range(3))
        return best / (count * CHAIN * MULTIPLY_LATENCY)


class Contest:
    """One function and dtype: the calls of ours (per level) and of the peers."""

    def __init__(self, name: str, dtype: str, levels: Sequence[str]):
        rng = np.random.default_rng(0)
        ranges = _RANGES.get(name, ((-3, 3),))
        arity = FUNCTIONS[name].arity
        self.inputs = [
            rng.uniform(*ranges[min(i, len(ranges) - 1)], SIZE).astype(dtype) for i in range(arity)
        ]
        self.output = np.empty_like(self.inputs[0])
        self.calls: dict[str, Call] = {}
        self._kept: list[object] = []
        for level in levels:
            self.calls[level] = self._ours(name, dtype, level)
        if isinstance(ufunc := getattr(np, name, None), np.ufunc):
            self.calls["numpy"] = lambda: ufunc(*self.inputs, out=self.output)
        self._add_torch(name)

    def _ours(self, name: str, dtype: str, level: str) -> Call:
        with cpu.isa(level):
            code = compiled(loop_text(name, dtype, cpu.target()), cpu.target())
        self._kept.append(code)
        pointers = [ctypes.c_void_p] * (len(self.inputs) + 1)
        function = ctypes.CFUNCTYPE(None, *pointers, ctypes.c_int64)(code.address("k"))
        addresses = [a.ctypes.data for a in (*self.inputs, self.output)]
        return lambda: function(*addresses, SIZE)

    def _add_torch(self, name: str) -> None:
        try:
            library: Any = importlib.import_module("torch")
        except ImportError:
            return
        library.set_num_threads(1)
        inputs = [library.from_numpy(a) for a in self.inputs]
        if name == "softplus":
            self.calls["torch"] = lambda: library.nn.functional.softplus(*inputs)
        elif (function := getattr(library, _TORCH.get(name, name), None)) is not None:
            output = library.from_numpy(self.output)
            self.calls["torch"] = lambda: function(*inputs, out=output)

    def cycles(self, clock: Clock, rounds: int) -> dict[str, float]:
        """Cycles an element of each call, the least of interleaved rounds."""
        repeats = {}
        for key, function in self.calls.items():
            function()
            repeats[key] = max(1, round(3e-4 / max(seconds(function, 1), 1e-6)))
        best = dict.fromkeys(self.calls, float("inf"))
        for _ in range(rounds):
            cycle = clock.cycle()
            for key, function in self.calls.items():
                found = seconds(function, repeats[key]) / cycle / SIZE
                best[key] = min(best[key], found)
        return best


def table(
    rows: dict[tuple[str, str], dict[str, float]], levels: Sequence[str], peers: Sequence[str]
) -> str:
    """Cycles an element as markdown; a peer's with its ratio to our fastest level."""
    lines = [
        "| function | dtype | " + " | ".join((*levels, *peers)) + " |",
        "| --- | --- |" + " --- |" * (len(levels) + len(peers)),
    ]
    for (name, dtype), found in rows.items():
        ours = found[levels[0]]
        cells = [f"{found[level]:.2f}" for level in levels]
        cells += [
            f"{found[peer]:.2f} ({found[peer] / ours:.1f}×)" if peer in found else "—"
            for peer in peers
        ]
        lines.append(f"| `{name}` | {np.dtype(dtype).name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("functions", nargs="*", help="registry names; all without any")
    parser.add_argument("--levels", nargs="+", default=list(reversed(cpu.levels()))[:2])
    parser.add_argument("--dtypes", nargs="+", default=["f4", "f8"], choices=["f4", "f8"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="write docs/numerics.md")
    options = parser.parse_args()
    clock = Clock()
    print(f"{1e-9 / clock.cycle():.2f} GHz")
    rows: dict[tuple[str, str], dict[str, float]] = {}
    peers = ("numpy", "torch")
    for name in options.functions or sorted(FUNCTIONS):
        for dtype in options.dtypes:
            found = Contest(name, dtype, options.levels).cycles(clock, options.rounds)
            rows[name, dtype] = found
            cells = "  ".join(f"{key} {value:6.2f}" for key, value in found.items())
            print(f"{name:11} {dtype}  {cells}", flush=True)
    if options.write:
        write_part(BEGIN, END, table(rows, options.levels, peers))


if __name__ == "__main__":
    main()
