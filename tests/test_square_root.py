"""Square roots are IEEE's: where they could go wrong is computed, and tried."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.codegen.builder import F32, F64, I64, PTR, VOID, Module, Value, const
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.math.square_root import refined
from tracejit.runtime import cpu
from tracejit.runtime.loader import LoadedObject

Array = np.ndarray[Any, Any]


def roots_modulo(square: int, power: int) -> list[int]:
    """Return the m with m² ≡ square modulo 2^power, for square ≡ 1 modulo 8 (four of them)."""
    m = 1
    for bit in range(3, power):  # from a root modulo 2^bit to one modulo 2^(bit + 1)
        if (m * m - square) % (1 << (bit + 1)):
            m += 1 << (bit - 1)
    whole, half = 1 << power, 1 << (power - 1)
    return [m % whole, -m % whole, (m + half) % whole, (half - m) % whole]


def hard_cases(precision: int, most: int) -> Array:
    """Return the x in [1, 4) with √x nearest to the middle m of two floats: x = m² + k, |k| ≤ most.

    m has precision + 1 bits, and scaled to an integer x has that many trailing zeros, or one more
    from 2 up.
    """
    found: set[float] = set()
    for k in range(-most, most + 1):
        if -k % 8 != 1:
            continue  # odd squares are 1 modulo 8
        for zeros in (precision + 1, precision + 2):
            for m in roots_modulo(-k, zeros):
                square = m * m + k
                low = 1 << (precision + zeros - 1)
                if m >> precision == 1 and low <= square < 2 * low:
                    found.add(math.ldexp(square, -2 * precision))
    return np.array(sorted(found))


HARD32, HARD64 = hard_cases(24, 4096).astype(np.float32), hard_cases(53, 4096)


@pytest.mark.parametrize(("hard", "precision"), [(HARD32, 24), (HARD64, 53)], ids=["f4", "f8"])
def test_the_hard_cases_are_hard(hard: Array, precision: int):
    """Scaled by 4^precision, x is at most 4096 from the square of an odd m: a middle."""
    assert hard.size > 1000
    for x in hard.tolist():
        scaled = int(math.ldexp(x, 2 * precision))
        below = math.isqrt(scaled)
        assert min(abs(scaled - m * m) for m in (below, below + 1) if m % 2) <= 4096


@pytest.fixture(scope="module")
def all_mantissas() -> Array:
    """Every float32 in [1, 4): the root of any other has one of these mantissas."""
    return np.arange(0x3F800000, 0x40800000, dtype=np.uint32).view(np.float32)


def root(x: Array) -> Array:
    """Return √x from a kernel that divides too, so that the multipliers make the root."""
    return tj.jit(lambda v: (np.sqrt(v), 1 / v), compile="now")(x)[0]


def equal(got: Array, wanted: Array) -> None:
    integer = f"u{wanted.itemsize}"
    both_nan = np.isnan(got) & np.isnan(wanted)
    assert ((got.view(integer) == wanted.view(integer)) | both_nan).all()


def test_every_mantissa_of_float32(level: str, all_mantissas: Array):
    equal(root(all_mantissas), np.sqrt(all_mantissas))


@pytest.mark.parametrize("hard", [HARD32, HARD64], ids=["f4", "f8"])
def test_hard_cases_at_every_scale(level: str, hard: Array):
    limits = np.finfo(hard.dtype)
    for exponent in range(limits.minexp, limits.maxexp - 2, 2 if hard.itemsize == 4 else 62):
        x = np.ldexp(hard, exponent - exponent % 2)
        equal(root(x), np.sqrt(x))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_special_values(any_level: str, dtype: str):
    limits = np.finfo(dtype)
    values = [
        0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, 1.0, 4.0, limits.max, limits.tiny,
        limits.smallest_subnormal, limits.tiny * 3, 2.0**-100, 2.0**-99, 2.0**-101,
    ]  # fmt: skip
    if dtype == "f8":
        values += [2.0**-960, np.nextafter(2.0**-960, 0), 2.0**-961]
    special = np.array(values, dtype)
    usual = np.linspace(1, 3, 16, dtype=dtype)
    with np.errstate(all="ignore"):
        for one in special:  # alone among others, in every lane
            for lane in range(16):
                x = usual.copy()
                x[lane] = one
                equal(root(x), np.sqrt(x))
        for count in (0, 1, 3, 7, 9, 15, 17, 31, 33):
            x = np.resize(special, count)
            equal(root(x), np.sqrt(x))
            equal(root(x.reshape(count, 1)[::-1]), np.sqrt(x.reshape(count, 1)[::-1]))


def from_estimates(dtype: str) -> Any:
    """Compile k(x, y, result, n): the roots of x from given estimates y of 1/√x."""
    target = cpu.target()
    element = F32 if dtype == "f4" else F64
    module = Module(target)
    b = module.define("k", VOID, [("x", PTR), ("y", PTR), ("result", PTR), ("n", I64)])
    x, y, result, count = b.parameters
    vector = element.vector(target.lanes(element.bits))

    def body(i: Value, _: list[Value]) -> list[Value]:
        operands = [b.load(b.element(p, i, element), vector) for p in (x, y)]
        b.store(refined(b, *operands), b.element(result, i, element))
        return []

    b.loop(const(0, I64), count, vector.lanes, [], body)
    b.ret()
    code = LoadedObject(compile_object(module.text(), target), ("k",))
    pointers = [ctypes.c_void_p] * 3
    function = ctypes.CFUNCTYPE(None, *pointers, ctypes.c_int64)(code.address("k"))

    def run(xs: Array, ys: Array) -> Array:
        out = np.empty_like(xs)
        function(xs.ctypes.data, ys.ctypes.data, out.ctypes.data, xs.size)
        assert code.nbytes  # it lives as long as this function
        return out

    return run


@pytest.mark.parametrize(("dtype", "hard", "bits"), [("f4", HARD32, 23), ("f8", HARD64, 20)])
def test_any_estimate_will_do(level: str, dtype: str, hard: Array, bits: int):
    """Processors differ in their estimates of 1/√x: all within the bound give the same root."""
    if not cpu.target().fma:
        pytest.skip("only targets with FMA refine")
    run = from_estimates(dtype)
    for x in hard[:: 1 if dtype == "f8" else 8]:
        wanted = 1 / math.sqrt(x)
        unit = 2.0 ** -(bits + (wanted < 1))
        margin = 2.0**-14 * (1 + 2.0**-5)  # the bound, and what cutting to 20 bits adds
        first = math.floor(wanted * (1 - margin) / unit)
        last = math.ceil(wanted * (1 + margin) / unit)
        estimates = (np.arange(first, last + 1) * unit).astype(dtype)
        estimates = np.resize(estimates, -(-estimates.size // 16) * 16)
        got = run(np.full_like(estimates, x), estimates)
        assert (got == np.sqrt(x)).all(), x


def test_the_multipliers_are_used_where_the_divider_is_busy(level: str):
    """On AVX-512: for float64, and for float32 beside a division. The rest has an instruction."""

    def code(function: Any, dtype: str) -> str:
        return tj.trace(function, np.ones(100, dtype)).asm()

    assert ("rsqrt14pd" in code(lambda v: np.sqrt(v), "f8")) == (level == "avx512")
    assert ("rsqrt14ps" in code(lambda v: 2 / np.sqrt(v), "f4")) == (level == "avx512")
    assert ("rsqrt14ps" in code(lambda v: np.sqrt(v), "f4")) == (level == "avx512")
    assert "rsqrt14" not in code(lambda v: np.sqrt(v) * np.exp(v), "f4")  # the rest takes longer
