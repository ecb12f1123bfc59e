"""Quotients by multiplications are IEEE's: where they could go wrong is computed, and tried."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.codegen.builder import F32, F64, I64, PTR, VOID, Module, Value, const
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.math.quotient import apart
from tracejit.runtime import cpu
from tracejit.runtime.loader import LoadedObject

Array = np.ndarray[Any, Any]

PRECISION = {"f4": 24, "f8": 53}


def hard_numerators(z: int, precision: int, most: int) -> list[int]:
    """Return the mantissas x whose quotients by mantissa ``z`` (odd) are next to a middle m/2^p.

    m, an odd number of p + 1 bits, is the middle of two floats; x·2^p - m·z = c, |c| ≤ ``most``,
    for quotients from 1 up, and x·2^(p+1) - m·z = c below.
    """
    found: list[int] = []
    low = 1 << (precision - 1)
    for shift in (precision, precision + 1):
        modulus = 1 << shift
        inverse = pow(z, -1, modulus)
        for c in range(-most, most + 1):
            m = -c * inverse % modulus
            m += (1 << precision) * (shift == precision)
            x, rest = divmod(m * z + c, modulus)
            if rest == 0 and m % 2 and m >> precision == 1 and low <= x < 2 * low:
                found.append(x)
    return found


def hard_divisors(precision: int) -> list[int]:
    """Return odd mantissas: the largest, the least, and others."""
    top, rng = 1 << precision, np.random.default_rng(0)
    ends = [top - k for k in range(1, 40, 2)] + [top // 2 + k for k in range(1, 20, 2)]
    middle = rng.integers(top // 2, top, 100).tolist()
    return ends + [z | 1 for z in middle]


def equal(got: Array, wanted: Array) -> None:
    integer = f"u{wanted.itemsize}"
    both_nan = np.isnan(got) & np.isnan(wanted)
    assert ((got.view(integer) == wanted.view(integer)) | both_nan).all()


@pytest.fixture
def divide() -> Any:
    return tj.jit(lambda x, z: x / z, compile="now")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_hard_cases(level: str, dtype: str, divide: Any):
    precision = PRECISION[dtype]
    count = 0
    for z in hard_divisors(precision):
        xs = hard_numerators(z, precision, 99)
        count += len(xs)
        x = np.resize(np.array(xs, dtype), 256)
        for up, down in ((-precision, -precision), (20, -20), (-40, 5)):
            # Scaled, so that the numbers are near 1: the multipliers take them.
            numbers = np.ldexp(x, up).astype(dtype)[None, :] * np.array([[1], [-1]], dtype)
            by = np.array([[math.ldexp(z, down)], [-math.ldexp(z, down)]], dtype)
            equal(divide(numbers, by), numbers / by)
    assert count > 8_000


def test_every_mantissa_of_float32(level: str, divide: Any):
    x = np.arange(0x3F800000, 0x40000000, dtype=np.uint32).view(np.float32)
    for z in (
        3.3,
        1 + 2.0**-23,
        2 - 2.0**-23,
        2 - 2.0**-21,
        2 - 2.0**-22 - 2.0**-23,
        1.5,
        1.0,
        0.7,
    ):
        by = np.full((1, 1), z, np.float32)
        equal(divide(x[None], by), x[None] / by)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_special_values(any_level: str, dtype: str, divide: Any):
    limits = np.finfo(dtype)
    edge = 48 if dtype == "f4" else 480
    special = np.array(
        [
            0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -3.0, limits.max, limits.tiny,
            limits.smallest_subnormal, 2.0**edge, 2.0**-edge, 2.0 ** (edge - 1) * 1.7,
        ],
        dtype,
    )  # fmt: skip
    special = np.concatenate([special, np.nextafter(special[-3:-1], special.dtype.type(0))])
    usual = np.linspace(1, 3, 150, dtype=dtype)
    with np.errstate(all="ignore"):
        for by in (special[:, None], -special[:, None] * special.dtype.type(1.1)):
            for x in (np.resize(special, 150), usual, np.resize(special, 129)):
                rows = np.ascontiguousarray(np.broadcast_to(x, (len(by), x.size)))
                equal(divide(rows, by), rows / by)
        for one in special:  # alone among others, in every lane
            x = np.resize(usual, (16, 150))
            x[np.arange(16), np.arange(16) * 9] = one
            by = np.resize(usual[7:], (16, 1))
            equal(divide(x, by), x / by)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_constants_rows_and_columns(any_level: str, dtype: str):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((140, 150)).astype(dtype)
    row, column = np.abs(x[:1]) + 1, np.abs(x[:, :1]) + 1
    cases: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (lambda x: x / 3.3, (x,)),
        (lambda x, z: x / z, (x, x.dtype.type(0.3))),
        (lambda x, z: x / z, (x, column)),
        (lambda x, z: x / z, (x, row)),
        (lambda x, z: x / z, (x.T, column.T)),
        (lambda x, z: (x / z, (x + 1) / z, z / x), (x, column)),
        (lambda x, z: x / (z + 1) / z, (x[::-1], column)),
    ]
    for function, arguments in cases:
        got, wanted = tj.jit(function, compile="now")(*arguments), function(*arguments)
        for g, w in zip(got, wanted, strict=True):
            equal(np.asarray(g), np.asarray(w))


def test_pixels_are_not_checked(level: str):
    x = np.ones(1000, np.uint8)
    code = tj.trace(lambda x: x.astype(np.float32) / 3.3, x).asm()
    checked = tj.trace(lambda x: x / 3.3, x.astype(np.float32)).asm()
    if level == "avx512":
        assert "vpcmpnltud" in checked
        assert "vpcmpnltud" not in code


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_hard_cases_by_turns(level: str, dtype: str, divide: Any):
    """Every vector in turn divides and multiplies; the tail divides."""
    precision = PRECISION[dtype]
    pairs = [(x, z) for z in hard_divisors(precision) for x in hard_numerators(z, precision, 25)]
    assert len(pairs) > 2_000
    xs, zs = (np.array(side, dtype) for side in zip(*pairs, strict=True))
    for up, down in ((-precision, -precision), (20, -20), (-50, 5), (-900, 100)):
        x, z = np.ldexp(xs, up).astype(dtype), np.ldexp(zs, down).astype(dtype)
        for shift in (0, 64 // x.itemsize):
            x, z = np.roll(x, shift), np.roll(-z, shift)
            equal(divide(x, z), x / z)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_special_values_by_turns(any_level: str, dtype: str, divide: Any):
    limits, edge = np.finfo(dtype), 48 if dtype == "f4" else 480
    values = [
        0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -3.0, limits.max, limits.tiny,
        limits.smallest_subnormal, 2.0**edge, 2.0**-edge, 1 - float(limits.epsneg),
    ]  # fmt: skip
    special, usual = np.array(values, dtype), np.linspace(1, 3, 150, dtype=dtype)
    with np.errstate(all="ignore"):
        for a in special:
            x = np.resize(usual, 150)
            for lane in range(0, 64, 3):  # alone among others, above and below
                x[lane] = a
                equal(divide(x, usual), x / usual)
                equal(divide(usual, x), usual / x)
                x[lane] = usual[lane]
            every = np.resize(special, 150)
            equal(divide(np.full_like(every, a), every), a / every)


def test_every_inverse_of_float32_by_turns(level: str, divide: Any):
    z = np.arange(0x3F800000, 0x40000000, dtype=np.uint32).view(np.float32)
    for x in (1.0, 1.7) if level == "avx512" else ():
        for shift in (0, 16):
            rolled = np.roll(z, shift)
            equal(divide(np.full_like(z, x), rolled), np.float32(x) / rolled)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_any_estimate_of_an_inverse_will_do(highest: None, dtype: str):
    """Processors differ in their estimates of 1/z: all within the bound give one quotient."""
    target, element = cpu.target(), F32 if dtype == "f4" else F64
    if not target.fma:
        pytest.skip("only targets with FMA")
    module = Module(target)
    b = module.define("k", VOID, [(name, PTR) for name in ("x", "z", "y", "q")] + [("n", I64)])
    *inputs, result, count = b.parameters
    vector = element.vector(target.lanes(element.bits))

    def body(i: Value, _: list[Value]) -> list[Value]:
        operands = [b.load(b.element(p, i, element), vector) for p in inputs]
        b.store(apart(b, *operands), b.element(result, i, element))
        return []

    b.loop(const(0, I64), count, vector.lanes, [], body)
    b.ret()
    code = LoadedObject(compile_object(module.text(), target), ("k",))
    pointers = [ctypes.c_void_p] * 4
    function = ctypes.CFUNCTYPE(None, *pointers, ctypes.c_int64)(code.address("k"))
    precision, rng = PRECISION[dtype], np.random.default_rng(2)
    for z in hard_divisors(precision):
        if (1 << precision) - z <= 32:
            continue
        x = np.array(hard_numerators(z, precision, 25), dtype)
        by = np.full(256, math.ldexp(z, -precision), dtype)
        off = np.concatenate([[-1, 1, 0], rng.uniform(-1, 1, 253)]) * 2.0**-14
        for numerator in np.ldexp(x, -precision):
            n, y = np.full_like(by, numerator), ((1 + off) / by.astype("f8")).astype(dtype)
            got = np.empty_like(by)
            function(*(array.ctypes.data for array in (n, by, y, got)), by.size)
            equal(got, n / by)


def test_what_is_divided_by_turns(level: str):
    def turns(function: Any, *arguments: Any) -> bool:
        return "rcp14" in tj.trace(function, *arguments).asm()

    for x in (np.ones(1000), np.ones(1000, np.float32)):
        assert turns(lambda x: (x + 1) / (x * x + 1), x) == (level == "avx512")
        assert turns(lambda x: (1 / (1 + x * x)).sum(), x) == (level == "avx512")
        # By one number for all, beside a root, beside a function.
        assert not turns(lambda x: x / 3.3, x)
        assert not turns(lambda x: x / np.sqrt(x + 1), x)
        assert not turns(lambda x: np.exp(x) / (x + 1), x)


def test_what_is_inverted(level: str):
    def inverted(function: Any, *arguments: Any) -> bool:
        return "vfnmadd" in tj.trace(function, *arguments).asm()

    x = np.ones((100, 200), np.float32)
    z = np.full((100, 1), 3.0, np.float32)
    fma, rows = level in ("avx2", "avx512"), level == "avx512"
    assert inverted(lambda x, z: x / z, x, z) == rows
    assert inverted(lambda x: x / x.sum(axis=1, keepdims=True), x) == rows
    assert inverted(lambda x: x / 3.3, x) == fma
    # A quotient that is a product, and too much else to do.
    assert not inverted(lambda x: x / 2.0, x)
    assert not inverted(lambda x, z: (x * x + z - x * z + 2 - z * x * 3 + x / 2) / z, x, z)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_integers(any_level: str, dtype: str):
    """Numerators that were integers are not looked at: 0 and the largest are among them."""
    limits = np.finfo(dtype)
    top = 2 - float(limits.eps)
    by = np.array([[3.3, 255, -255, 0, -0.0, np.inf, np.nan, limits.tiny, top, -top, 2.0**60]])
    by = by.T.astype(dtype)
    divide = tj.jit(lambda x, z: x.astype(dtype) / z, compile="now")
    for source in ("u1", "i2", "u4", "i4", "i8", "?"):
        if source == "?":
            x = np.arange(260) % 2 == 0
        else:
            info = np.iinfo(source)
            ends = [info.min, info.min + 1, info.max - 1, info.max, 0]
            x = np.resize(np.array([*ends, *range(100)], source), 260)
        with np.errstate(all="ignore"):
            for z in (by, by[1], by[2], np.resize(by, 260)):
                rows = np.repeat(x[None], 11, axis=0)
                equal(divide(rows, z), rows.astype(dtype) / z)
