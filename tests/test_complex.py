"""Complex arithmetic in kernels: on pairs of parts, with NumPy's answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.schedule.schedule import KernelStep, OpaqueStep

Array = Any
NP: Any = np
SIZES = (0, 1, 7, 8, 9, 33)
DTYPES = ("complex64", "complex128")
UNIT = {"complex64": 2.0**-24, "complex128": 2.0**-53}


def numbers(*shape: int, dtype: str = "complex128", seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


def traced(function: Callable[..., Any], *arrays: Any) -> Any:
    """Return the compiled function's answer, of NumPy's dtype and shape."""
    program = tj.trace(function, *arrays)
    assert not any(isinstance(s, OpaqueStep) for s in program.schedule.steps)
    got, wanted = program(*arrays), function(*arrays)
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    return got


def close(function: Callable[..., Any], *arrays: Any, units: float = 8) -> None:
    got, wanted = traced(function, *arrays), function(*arrays)
    unit = UNIT[next(a.dtype.name for a in arrays if a.dtype.kind == "c")]
    np.testing.assert_allclose(got, wanted, rtol=units * unit, atol=units * unit)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "negative": lambda x, y: -x,
    "square": lambda x, y: np.square(x),
    "cube": lambda x, y: x**3,
    "reciprocal": lambda x, y: np.reciprocal(y),
    "conjugate": lambda x, y: x.conj(),
    "absolute": lambda x, y: np.abs(x),
    "angle": lambda x, y: np.angle(x),
    "parts": lambda x, y: x.real * y.imag,
    "exp": lambda x, y: np.exp(x),
    "where": lambda x, y: np.where(x.real > 0, x, y),
    "scalars": lambda x, y: 2j * x + 1,
    "cast": lambda x, y: x + x.real.astype(np.int32),
    "from parts": lambda x, y: x.real + 1j * y.imag,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_elementwise(name: str, dtype: str, any_level: str) -> None:
    for size in SIZES:
        close(FUNCTIONS[name], *numbers(2, size, dtype=dtype))


@pytest.mark.parametrize("name", ["equal", "not_equal", "isnan", "isinf", "isfinite"])
def test_tests_of_values(name: str, level: str) -> None:
    test = getattr(np, name)
    x = np.array([1, 1j, complex(np.nan, 0), complex(0, np.inf), complex(-0.0, 0.0), 0, 1 + 1j])
    for y in (x, x[::-1].copy()):
        arrays = (x, y) if test.nin == 2 else (y,)
        np.testing.assert_array_equal(traced(test, *arrays), test(*arrays))


PARTS = (0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan, 5e-324, 1e300, 710.0, -800.0)
SPECIAL: Array = np.array([complex(a, b) for a in PARTS for b in PARTS])


@pytest.mark.parametrize("name", ["absolute", "exp", "negative", "conjugate"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_special_values(name: str, level: str) -> None:
    """As in C99 annex G; signs of zeros and of infinities too, where NumPy's C library has them."""
    function = getattr(np, name)
    got, wanted = traced(function, SPECIAL), function(SPECIAL)
    for part in ("real", "imag"):
        mine, theirs = getattr(got, part), getattr(wanted, part)
        np.testing.assert_allclose(mine, theirs, rtol=1e-14, atol=1e-322)
        known = ~np.isnan(theirs)
        if name == "exp":  # signs of parts that are nothing or endless times a sine are open
            known &= np.isfinite(SPECIAL.imag)
        np.testing.assert_array_equal(np.signbit(mine)[known], np.signbit(theirs)[known])


@pytest.mark.parametrize("name", ["add", "subtract", "divide"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_special_operands(name: str, level: str) -> None:
    function = getattr(np, name)
    arrays = SPECIAL[:, None], SPECIAL[None, :]
    same_parts(traced(function, *arrays), function(*arrays))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_products_of_special_operands(level: str) -> None:
    """By the formula, on every level: NumPy fuses one product where the processor can."""
    x, y = SPECIAL[:, None], SPECIAL[None, :]
    wanted = np.empty((len(SPECIAL),) * 2, complex)
    wanted.real = x.real * y.real - x.imag * y.imag
    wanted.imag = x.real * y.imag + x.imag * y.real
    same_parts(traced(lambda a, b: a * b, x, y), wanted)
    square = traced(np.square, SPECIAL)
    same_parts(square, np.diagonal(wanted).copy())


def same_parts(got: Array, wanted: Array) -> None:
    """Compare to the bit, signs of zeros included; which NaN it is stays open."""
    for mine, theirs in ((got.real, wanted.real), (got.imag, wanted.imag)):
        np.testing.assert_array_equal(mine, theirs)
        known = ~np.isnan(theirs)
        np.testing.assert_array_equal(np.signbit(mine)[known], np.signbit(theirs)[known])


@pytest.mark.parametrize("name", ["multiply", "divide"])
def test_errors_are_those_of_the_formulas(name: str, level: str) -> None:
    """Brent, Percival and Zimmermann 2007: a product errs by at most √5 u of its modulus."""
    x, y = (numbers(1000, dtype="complex64", seed=s) for s in (1, 2))
    function = getattr(np, name)
    exact = function(x.astype(complex), y.astype(complex))
    error = np.abs(traced(function, x, y) - exact) / np.abs(exact)
    assert error.max() <= (5**0.5 if name == "multiply" else 8) * UNIT["complex64"]


def test_layouts(level: str) -> None:
    x = numbers(9, 12)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape)
    for y in (x.T, x[::2, ::-3], x[:, :1], np.broadcast_to(x[0], (9, 12)), unaligned, x[2, 3]):
        close(lambda a: a * a + a.conj(), y)
        close(lambda a: (a * 2).reshape(-1) + a.reshape(-1), y)


def test_sums_and_statistics(level: str) -> None:
    x = numbers(13, 17)
    close(lambda a: a.sum(0), x, units=64)
    close(lambda a: (a * a).mean(), x, units=64)
    close(lambda a: a.var(1), x, units=64)
    close(lambda a, b: NP.vdot(a, b), x[0], x[1], units=64)
    close(lambda a, b: a @ b, x, numbers(17), units=64)


def test_movement(level: str) -> None:
    x, y = numbers(6, 8), numbers(6, 8, seed=1)

    def stored(a: Any) -> Any:
        b = a.copy()
        b[1:3] = b[1:3] * 2
        b[0, 0] = 1j
        return b

    for function in (
        lambda a, b: NP.concatenate([a * 2, b, a[:1]]),
        lambda a, b: NP.pad(a * b, 1),
        lambda a, b: (a * b).T[::2, None].reshape(-1),
        lambda a, b: stored(a) + b,
        lambda a, b: stored(a),
        lambda a, b: (a * b)[np.array([3, 0, 3])],
        lambda a, b: NP.roll(a * b, 1, axis=1),
    ):
        close(function, x, y)


# -- schedules -------------------------------------------------------------------------------------


def steps(function: Callable[..., Any], *arrays: Any) -> list[type]:
    return [type(step) for step in tj.trace(function, *arrays).schedule.steps]


def test_a_program_is_one_kernel_with_all_its_results() -> None:
    def escape(c: Any) -> Any:
        z, inside = np.zeros_like(c), np.zeros(c.shape, np.int32)
        for _ in range(4):
            z = z * z + c
            inside = inside + (np.abs(z) < 2)
        return z, inside

    c = numbers(5, 6)
    assert steps(escape, c) == [KernelStep]
    for got, wanted in zip(tj.trace(escape, c)(c), escape(c), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_transforms_read_and_return_complex_values_in_memory() -> None:
    x, window = np.random.default_rng(2).normal(size=64), np.exp(-np.arange(33) / 9)

    def filtered(x: Any, window: Any) -> Any:
        return NP.fft.irfft(NP.fft.rfft(x) * window * 1j)

    assert steps(filtered, x, window) == [OpaqueStep, KernelStep, OpaqueStep]
    np.testing.assert_allclose(
        tj.trace(filtered, x, window)(x, window), filtered(x, window), atol=1e-12
    )


def test_values_that_are_only_passed_on_stay_whole() -> None:
    x = numbers(8, 8)
    assert steps(lambda a: NP.fft.fft(NP.linalg.inv(a).reshape(4, 16)), x) == [OpaqueStep] * 2


def test_operands_without_a_rule_are_stored() -> None:
    x = numbers(8)
    assert steps(lambda a: NP.prod(a * a), x) == [KernelStep, OpaqueStep]
    assert steps(lambda a: NP.sort(a * a), x) == [KernelStep, OpaqueStep]


def test_elements_at_computed_places(level: str) -> None:
    x, v, places = numbers(9), numbers(5), np.array([3, 0, 3, -1, 7])

    def scattered(x: Any, v: Any) -> Any:
        x = x.copy()
        np.add.at(x, places, v)
        x[places[:2]] = v[:2]
        return x

    for f in (lambda x, v: x[places], lambda x, v: x[::-2], lambda x, v: np.take(x, places) + v):
        same_parts(traced(f, x, v), f(x, v))
    np.testing.assert_allclose(traced(scattered, x, v), scattered(x, v), rtol=1e-15)


def test_pieces_are_stored_record_by_record_in_place() -> None:
    x, y = numbers(5), numbers(6)
    program = tj.trace(lambda a, b: NP.concatenate([a * 2, b * b]), x, y)
    assert [type(s) for s in program.schedule.steps] == [KernelStep] * 2
    assert program.schedule.arena.nbytes == 0


def test_sizes_vary_without_new_kernels() -> None:
    f = tj.jit(lambda a, b: a * b + 1j, compile="now")
    for n in (5, 6, 17, 33, 1000):
        x, y = numbers(2, n)
        np.testing.assert_allclose(f(x, y), x * y + 1j, rtol=1e-12)
    assert f.stats()["recompiles"] == 0


# -- the views themselves --------------------------------------------------------------------------


def test_views_of_parts() -> None:
    x = numbers(3, 4)
    real = x.view(float).reshape(3, 4, 2)
    np.testing.assert_array_equal(tj.view_as_real(x).numpy(), real)
    np.testing.assert_array_equal(tj.view_as_complex(real).numpy(), x)
    np.testing.assert_array_equal(
        traced(lambda p: tj.view_as_complex(tj.asarray(p) * 2), real), x * 2
    )
    np.testing.assert_array_equal(traced(lambda p: tj.view_as_complex(p), real[::2]), x[::2])
    for shape in ((), (3,), (2, 1)):
        with pytest.raises(tj.errors.ShapeError, match="pair of parts"):
            tj.view_as_complex(np.zeros(shape))
