"""Measure the error of the vector math in ULP, and write the table in docs/numerics.md.

    python -m benchmarks.ulp                          all functions, sampled
    python -m benchmarks.ulp exp log --levels avx2    some of them
    python -m benchmarks.ulp exp --exhaustive         every float32 (2^32 inputs)
    python -m benchmarks.ulp --write                  also write the table

The reference is mpmath at 40 digits, or the C library's long double where that has 64 bits of
mantissa and the function exists there (about 2^-11 ULP of a double). An exhaustive run compares
the float32 function with the float64 one of the same level, whose own error is 2^-29 of it.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tracejit.codegen.builder import F32, F64, I64, PTR, VOID, Module, Value, const
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.math import FUNCTIONS, call
from tracejit.codegen.target import LEVELS, Target
from tracejit.runtime import cpu
from tracejit.runtime.loader import LoadedObject

Array = np.ndarray[Any, Any]
NUMERICS = Path(__file__).parent.parent / "docs" / "numerics.md"
BEGIN, END = "<!-- ulp: begin -->", "<!-- ulp: end -->"
DIGITS = 40

# Intervals that get samples of their own, beside random bit patterns over the whole range.
_ALL = ((-1e-4, 1e-4), (-0.1, 0.1), (-1.0, 1.0), (-3.0, 3.0), (-20.0, 20.0), (-100.0, 100.0))
_EXPONENTIAL = (*_ALL, (-800.0, 800.0))
_POSITIVE = ((0.0, 1e-3), (0.0, 1.0), (0.7, 1.5), (0.999, 1.001), (1.0, 10.0), (0.0, 1e5))
_UNIT = ((-1e-4, 1e-4), (-0.1, 0.1), (-0.6, 0.6), (-1.0, 1.0), (0.99, 1.0))
REGIONS: dict[str, tuple[tuple[float, float], ...]] = {
    "exp": _EXPONENTIAL, "exp2": _EXPONENTIAL, "expm1": _EXPONENTIAL, "sinh": _EXPONENTIAL,
    "cosh": _EXPONENTIAL, "sigmoid": _EXPONENTIAL, "softplus": _EXPONENTIAL,
    "log": _POSITIVE, "log2": _POSITIVE, "log10": _POSITIVE,
    "log1p": (*_POSITIVE, (-1.0, 1.0), (-1e-3, 1e-3)),
    "arccosh": ((1.0, 1.001), (1.0, 1.3), (1.0, 3.0), (1.0, 1e3)),
    "arctanh": _UNIT, "arcsin": _UNIT, "arccos": _UNIT,
    "power": ((0.0, 1.0), (0.5, 2.0), (0.0, 30.0), (-8.0, 8.0)),
    "gamma": ((-1.0, 1.0), (0.5, 2.5), (-20.0, 30.0), (-170.0, 171.0)),
    "lgamma": ((-1.0, 1.0), (0.5, 2.5), (-20.0, 30.0), (0.0, 1e5)),
    "sin": (*_ALL, (-1e5, 1e5)), "cos": (*_ALL, (-1e5, 1e5)), "tan": (*_ALL, (-1e5, 1e5)),
}  # fmt: skip


class Kernel:
    """A registered function compiled for one dtype and target, called on arrays.

    One loop whose every step is masked by the elements left, so that each lane of each vector is
    also a lane of a tail.
    """

    def __init__(self, name: str, dtype: str, target: Target):
        self.arity = FUNCTIONS[name].arity
        self.dtype = np.dtype(dtype)
        started = time.perf_counter()
        self._object = LoadedObject(
            compile_object(kernel_text(name, dtype, target), target), ("k",)
        )
        self.seconds = time.perf_counter() - started
        pointers = [ctypes.c_void_p] * (self.arity + 1)
        self._function = ctypes.CFUNCTYPE(None, *pointers, ctypes.c_int64)(
            self._object.address("k")
        )

    def __call__(self, *arguments: Array) -> Array:
        """Apply to contiguous arrays of one length."""
        result = np.empty_like(arguments[0])
        addresses = [a.ctypes.data for a in (*arguments, result)]
        self._function(*addresses, result.size)
        return result


def kernel_text(name: str, dtype: str, target: Target) -> str:
    """The IR of ``k(x…, result, n)``."""
    element = F32 if np.dtype(dtype) == np.float32 else F64
    arity = FUNCTIONS[name].arity
    module = Module(target)
    parameters = [(f"x{i}", PTR) for i in range(arity)] + [("result", PTR), ("n", I64)]
    b = module.define("k", VOID, parameters)
    *inputs, result, count = b.parameters
    lanes = target.lanes(element.bits)
    vector, index = element.vector(lanes), I64.vector(lanes)

    def body(i: Value, _: list[Value]) -> list[Value]:
        mask = b.compare("lt", b.lane_index(index), b.splat(b.sub(count, i), lanes))
        loaded = [b.masked_load(b.element(x, i, element), mask, vector) for x in inputs]
        b.masked_store(call(b, name, *loaded), b.element(result, i, element), mask)
        return []

    b.loop(const(0, I64), count, lanes, [], body)
    b.ret()
    return module.text()


@lru_cache(maxsize=512)
def kernel(name: str, dtype: str, level: str) -> Kernel:
    with cpu.isa(level):
        return Kernel(name, dtype, cpu.target())


# -- references ------------------------------------------------------------------------------------


class Reference(NamedTuple):
    """True values: ``hi`` is the value rounded to float64, ``rest`` what is missing, in ULP of hi.

    In ULP, because the rest of a subnormal is no float64.
    """

    hi: Array
    rest: Array


def _log_add(mp: Any, x: Any, y: Any) -> Any:
    return max(x, y) + mp.log1p(mp.exp(-abs(x - y)))


def _log_add2(mp: Any, x: Any, y: Any) -> Any:
    return max(x, y) + mp.log1p(mp.power(2, -abs(x - y))) / mp.ln2


def _gamma(mp: Any, x: Any) -> Any:
    if x <= 0 and x == mp.floor(x):
        return mp.nan
    return mp.inf if x > 200 else mp.mpf(0) if x < -300 else mp.gamma(x)


def _log_gamma(mp: Any, x: Any) -> Any:
    return mp.re(mp.loggamma(x))


def _cbrt(mp: Any, x: Any) -> Any:
    return mp.sign(x) * mp.cbrt(abs(x))


REFERENCES: dict[str, Callable[..., Any]] = {
    "exp": lambda mp, x: mp.exp(x),
    "exp2": lambda mp, x: mp.power(2, x),
    "expm1": lambda mp, x: mp.expm1(x),
    "log": lambda mp, x: mp.log(x),
    "log2": lambda mp, x: mp.log(x) / mp.ln2,
    "log10": lambda mp, x: mp.log(x) / mp.ln10,
    "log1p": lambda mp, x: mp.log1p(x),
    "sigmoid": lambda mp, x: 1 / (1 + mp.exp(-x)),
    "softplus": lambda mp, x: mp.log1p(mp.exp(x)) if x < 100 else x + mp.exp(-x),
    "logaddexp": _log_add,
    "logaddexp2": _log_add2,
    "sinh": lambda mp, x: mp.sinh(x),
    "cosh": lambda mp, x: mp.cosh(x),
    "tanh": lambda mp, x: mp.tanh(x),
    "arcsinh": lambda mp, x: mp.asinh(x),
    "arccosh": lambda mp, x: mp.acosh(x),
    "arctanh": lambda mp, x: mp.atanh(x),
    "power": lambda mp, x, y: mp.power(x, y),
    "sin": lambda mp, x: mp.sin(x),
    "cos": lambda mp, x: mp.cos(x),
    "tan": lambda mp, x: mp.tan(x),
    "arcsin": lambda mp, x: mp.asin(x),
    "arccos": lambda mp, x: mp.acos(x),
    "arctan": lambda mp, x: mp.atan(x),
    "arctan2": lambda mp, x, y: mp.atan2(x, y),
    "erf": lambda mp, x: mp.erf(x),
    "erfc": lambda mp, x: mp.erfc(x),
    "gamma": _gamma,
    "lgamma": _log_gamma,
    "cbrt": _cbrt,
    "hypot": lambda mp, x, y: mp.hypot(x, y),
}


def exact(name: str, arguments: Sequence[Array]) -> Reference:
    """Reference values by mpmath; NaN where there is no finite real value to compare with."""
    import mpmath

    mp: Any = mpmath.mp
    function = REFERENCES[name]
    hi = np.full(arguments[0].shape, np.nan)
    rest = np.zeros_like(hi)
    with mp.workdps(DIGITS):
        for i, values in enumerate(zip(*(a.tolist() for a in arguments), strict=True)):
            if not all(np.isfinite(values)):
                continue
            try:
                value = function(mp, *(mp.mpf(v) for v in values))
            except (ValueError, ZeroDivisionError, OverflowError):
                continue
            if isinstance(value, mp.mpc) or not mp.isfinite(value):
                continue
            hi[i] = float(value)
            if np.isfinite(hi[i]):
                rest[i] = float((value - hi[i]) / float(np.spacing(np.abs(hi[i]))))
    return Reference(hi, rest)


_LONG_DOUBLE = np.finfo(np.longdouble).nmant >= 63
# The C library's sin, cos and tan of huge long doubles and its gamma functions are left out.
_IN_NUMPY = frozenset(
    {"exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sinh", "cosh", "tanh"}
    | {"arcsinh", "arccosh", "arctanh", "power", "arcsin", "arccos", "arctan", "arctan2"}
    | {"cbrt", "hypot"}
)


def reference(name: str, arguments: Sequence[Array]) -> Reference:
    """Reference values, by long double where that is good enough (much faster)."""
    if not (_LONG_DOUBLE and name in _IN_NUMPY):
        return exact(name, arguments)
    with np.errstate(all="ignore"):
        wide = getattr(np, name)(*(a.astype(np.longdouble) for a in arguments))
        hi = wide.astype(np.float64)
        gap = (wide - hi) / np.spacing(np.abs(hi)).astype(np.longdouble)
        rest = np.where(np.isfinite(hi), gap, 0).astype(np.float64)
    hi[~np.logical_and.reduce([np.isfinite(a) for a in arguments])] = np.nan
    return Reference(hi, rest)


def ulp_errors(result: Array, truth: Reference, scale: Array | None = None) -> Array:
    """|result - truth| in units of the last place of the true value, in the result's dtype.

    ``scale`` replaces the true value as the measure of the unit. Where the reference is NaN the
    error counts as 0: special values are a matter of tests.
    """
    info = np.finfo(result.dtype)
    with np.errstate(all="ignore"):
        y = result.astype(np.float64)
        rounded = truth.hi.astype(result.dtype).astype(np.float64)
        measure = np.abs(truth.hi if scale is None else scale)
        _, exponent = np.frexp(np.where(np.isfinite(measure), measure, info.max))
        exponent = np.maximum(exponent - 1, info.minexp)
        unit = np.ldexp(1.0, np.maximum(exponent - info.nmant, -1074))
        step = np.spacing(np.abs(truth.hi)) / unit
        error = np.abs((y - truth.hi) / unit - truth.rest * step)
        # Near the overflow limit one of both may be infinite: that is one step at most.
        edge = np.abs(truth.hi) >= float(info.max) * (1 - float(info.eps))
        edge &= np.abs(y) >= float(info.max)
        error = np.where(edge & (np.sign(y) == np.sign(truth.hi)), np.abs(y != rounded), error)
        error = np.where(np.isnan(truth.hi), 0.0, error)
        return np.where(np.isnan(error), np.inf, error)


def unit_scale(name: str, arguments: Sequence[Array], truth: Reference) -> Array | None:
    """Return what the unit is taken from where that is not the true value alone.

    logaddexp: also the arguments, since the terms cancel near 0, as NumPy's do. lgamma: at least
    1 for negative arguments, which have a root beside every pole.
    """
    size = np.abs(truth.hi)
    with np.errstate(all="ignore"):
        if name in ("logaddexp", "logaddexp2"):
            return np.maximum.reduce([size, *(np.abs(a.astype(np.float64)) for a in arguments)])
        if name == "lgamma":
            return np.where(arguments[0] < 0, np.maximum(size, 1.0), size)
    return None


# -- inputs ----------------------------------------------------------------------------------------


def _bit_patterns(dtype: str, count: int, rng: np.random.Generator) -> Array:
    width = np.dtype(dtype).itemsize
    return np.frombuffer(rng.bytes(width * count), dtype=dtype)


def samples(name: str, dtype: str, count: int, seed: int = 0) -> list[Array]:
    """Argument arrays: one third random bit patterns, the rest spread over the regions."""
    rng = np.random.default_rng(seed)
    regions = REGIONS.get(name, _ALL)
    arity = FUNCTIONS[name].arity
    each = max(1, 2 * count // (3 * len(regions)))
    columns: list[Array] = []
    for position in range(arity):
        parts = [_bit_patterns(dtype, count // 3, rng)]
        parts += [rng.uniform(low, high, each).astype(dtype) for low, high in regions]
        column = np.concatenate(parts)
        # The second argument meets every region of the first.
        columns.append(column if position == 0 else rng.permutation(column))
    if name == "power":
        columns = _power_samples(columns, rng)
    return [np.ascontiguousarray(c.astype(dtype)) for c in columns]


def _power_samples(columns: list[Array], rng: np.random.Generator) -> list[Array]:
    """Half of the pairs get a y for which the result is spread over the finite range."""
    largest = 127.0 if columns[0].dtype == np.float32 else 1023.0
    with np.errstate(all="ignore"):
        x, y = (c.astype(np.float64) for c in columns)
        fitting = rng.uniform(-1.1, 1.1, x.size) * largest / np.log2(np.abs(x))
    usable = np.isfinite(fitting) & (np.arange(x.size) % 2 == 0) & (x > 0)
    return [columns[0], np.where(usable, fitting, y)]


# -- measurement -----------------------------------------------------------------------------------


class Errors(NamedTuple):
    """The largest and mean error in ULP and the arguments of the largest."""

    largest: float
    mean: float
    worst: tuple[float, ...]


def measure(name: str, dtype: str, levels: Sequence[str], count: int) -> dict[str, Errors]:
    """Sampled errors per level."""
    arguments = samples(name, dtype, count)
    truth = reference(name, arguments)
    scale = unit_scale(name, arguments, truth)
    found: dict[str, Errors] = {}
    for level in levels:
        errors = ulp_errors(kernel(name, dtype, level)(*arguments), truth, scale)
        i = int(np.argmax(errors))
        worst = tuple(float(a[i]) for a in arguments)
        found[level] = Errors(float(errors[i]), float(errors.mean()), worst)
    return found


def measure_every_float(name: str, level: str, block: int = 1 << 16) -> Errors:
    """Errors of a float32 function of one argument over all 2^32 inputs.

    Only where the true value is finite in float32; blocks fit in the cache.
    """
    single, double = kernel(name, "f4", level), kernel(name, "f8", level)
    largest, total, worst = 0.0, 0.0, 0.0
    limit = float(np.finfo(np.float32).max) * (1 + 2.0**-25)
    with np.errstate(all="ignore"):
        for start in range(0, 1 << 32, block):
            x = np.arange(start, start + block, dtype=np.uint32).view(np.float32)
            truth = double(x.astype(np.float64))
            # The unit from the exponent field: float32 has 23 bits, and -126 at least.
            exponent = np.maximum((truth.view(np.int64) >> 52) & 0x7FF, 1023 - 126) - 23
            errors = np.abs(single(x) - truth) / (exponent << 52).view(np.float64)
            errors[~(np.abs(truth) < limit)] = 0.0
            i = int(np.argmax(errors))
            total += float(errors.sum())
            if not errors[i] <= largest:
                largest, worst = float(errors[i]), float(x[i])
            if start % (1 << 28) == 0 and sys.stderr.isatty():
                print(f"\r{name} {start / 2**32:4.0%}", end="", file=sys.stderr)
    return Errors(largest, total / 2**32, (worst,))


def table(rows: dict[tuple[str, str], dict[str, Errors]], levels: Sequence[str]) -> str:
    """The measurements as a markdown table: largest (mean) per function, dtype and level."""
    lines = [
        "| function | dtype | " + " | ".join(levels) + " |",
        "| --- | --- |" + " --- |" * len(levels),
    ]
    for (name, dtype), found in rows.items():
        cells = [f"{found[k].largest:.3f} ({found[k].mean:.3f})" for k in levels]
        lines.append(f"| `{name}` | {np.dtype(dtype).name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_part(begin: str, end: str, text: str) -> None:
    """Replace what stands between two markers of docs/numerics.md."""
    page = NUMERICS.read_text(encoding="utf-8")
    before, rest = page.split(begin)
    _, after = rest.split(end)
    NUMERICS.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def available_levels() -> list[str]:
    """The levels of this machine, and the wider ones in its instructions."""
    native = list(cpu.levels())
    return native + [f"{name}-on-{cpu.host_level()}" for name in LEVELS if name not in native]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("functions", nargs="*", help="registry names; all without any")
    parser.add_argument("--levels", nargs="+", default=available_levels())
    parser.add_argument("--dtypes", nargs="+", default=["f4", "f8"], choices=["f4", "f8"])
    parser.add_argument("--samples", type=int, default=100_000, help="per function and dtype")
    parser.add_argument("--exhaustive", action="store_true", help="all float32 inputs")
    parser.add_argument("--write", action="store_true", help="write docs/numerics.md")
    options = parser.parse_args()
    names: list[str] = options.functions or sorted(FUNCTIONS)
    rows: dict[tuple[str, str], dict[str, Errors]] = {}
    for name in names:
        if options.exhaustive:
            if FUNCTIONS[name].arity == 1:
                rows[name, "f4"] = {k: measure_every_float(name, k) for k in options.levels}
        else:
            # mpmath takes about 50 µs a value.
            quick = _LONG_DOUBLE and name in _IN_NUMPY
            count = options.samples if quick else min(options.samples, 10_000)
            for dtype in options.dtypes:
                rows[name, dtype] = measure(name, dtype, options.levels, count)
        for (row, dtype), found in rows.items():
            for level, errors in found.items():
                if row == name:
                    print(f"{row:11} {dtype} {level:15} {errors.largest:8.3f} {errors.mean:.3f}"
                          f"  at {errors.worst}")  # fmt: skip
    if options.write:
        write_part(BEGIN, END, table(rows, options.levels))


if __name__ == "__main__":
    main()
