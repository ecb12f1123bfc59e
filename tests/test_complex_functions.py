"""Elementary functions, powers, order and matrix products of complex numbers, in kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import mpmath
import numpy as np
import pytest
from natively import native

import tracejit as tj
from tracejit.ops.table import Array
from tracejit.schedule.schedule import ContractionStep, KernelStep, OpaqueStep

FUNCTIONS = {
    "exp": mpmath.exp, "exp2": lambda z: mpmath.power(2, z), "expm1": mpmath.expm1,
    "log": mpmath.log, "log2": lambda z: mpmath.log(z) / mpmath.log(2), "log10": mpmath.log10,
    "log1p": lambda z: mpmath.log(1 + z), "sqrt": mpmath.sqrt,
    "sin": mpmath.sin, "cos": mpmath.cos, "tan": mpmath.tan,
    "sinh": mpmath.sinh, "cosh": mpmath.cosh, "tanh": mpmath.tanh,
    "arcsin": mpmath.asin, "arccos": mpmath.acos, "arctan": mpmath.atan,
    "arcsinh": mpmath.asinh, "arccosh": mpmath.acosh, "arctanh": mpmath.atanh,
}  # fmt: skip
UNIT = {"complex64": 2.0**-24, "complex128": 2.0**-53}


def arguments(dtype: str) -> Array:
    """Return numbers around 1 and i, of all angles, and of very different parts."""
    rng = np.random.default_rng(1)
    n = 8

    def tiny() -> Array:
        return rng.standard_normal(n) * 10.0 ** rng.uniform(-16, -1, n)

    def wide() -> Array:
        return rng.choice([-1, 1], n) * 10.0 ** rng.uniform(-12, 1.5, n)

    near = 1 + tiny() + 1j * tiny()
    usual = rng.standard_normal(n) + 1j * rng.standard_normal(n)
    return np.concatenate([near, -near, 1j * near, usual, wide() + 1j * wide()]).astype(dtype)


def exact(value: Any) -> Any:
    number: Any = complex(value)
    return mpmath.mpc(number)


@cache
def exact_values(name: str, dtype: str) -> list[Any]:
    with mpmath.workprec(240):
        return [FUNCTIONS[name](exact(v)) for v in arguments(dtype)]


def check_errors(dtype: str) -> None:
    z, names = arguments(dtype), list(FUNCTIONS)
    for first in range(0, len(names), 5):
        some = names[first : first + 5]
        got = tj.trace(lambda z, some=some: [getattr(np, n)(z) for n in some], z)(z)
        for name, values in zip(some, got, strict=True):
            known = exact_values(name, dtype)
            with mpmath.workprec(240):
                errors = [abs(exact(g) - e) / abs(e) for g, e in zip(values, known, strict=True)]
            # That of 2^z is that of the product z log 2, as NumPy's.
            bound = 64 if name == "exp2" else 5
            assert max(errors) <= bound * UNIT[dtype], name


def test_errors_relative_to_the_modulus(level: str) -> None:
    check_errors("complex128")


def test_errors_of_single_precision(highest: None) -> None:
    check_errors("complex64")


PARTS = (0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan)
SPECIAL: Array = np.array([complex(a, b) for a in PARTS for b in PARTS])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_special_values(level: str) -> None:
    """C99's, annex G, as NumPy's C library has them; its open signs are open."""
    names = [n for n in (*FUNCTIONS, "sign", "rint") if n != "expm1"]  # NumPy's has more NaN
    for name in names:
        function = getattr(np, name)
        got, wanted = native(function, SPECIAL), function(SPECIAL)
        for part, other in (("real", "imag"), ("imag", "real")):
            mine, theirs = getattr(got, part), getattr(wanted, part)
            # Beside a NaN, and of infinite angles, the sign of what is nothing or endless is open.
            settled = ~np.isnan(getattr(wanted, other)) & np.isfinite(SPECIAL)
            np.testing.assert_allclose(
                np.where(settled, mine, abs(mine)), np.where(settled, theirs, abs(theirs)),
                rtol=1e-14, err_msg=name,
            )  # fmt: skip
            known = settled & ~np.isnan(theirs)
            np.testing.assert_array_equal(np.signbit(mine)[known], np.signbit(theirs)[known])


def test_far_away_nothing_overflows_on_the_way(level: str) -> None:
    far = np.array([1e300 + 1e300j, 1e-300 - 1e-300j, 1e160 - 1e-20j, 1e-160 + 1e20j])
    extreme = np.array([-1.7e308 + 1.7e308j, 5e-324 + 5e-324j])
    for f in (np.log, np.sqrt, np.arcsin, np.arctan, np.arccosh):
        z = np.concatenate([far, extreme]) if f in (np.log, np.sqrt) else far
        np.testing.assert_allclose(native(f, z), f(z), rtol=1e-14, err_msg=f.__name__)
    steep = np.array([712 + 1j, -712 - 1.5j, 1e-300 + 715j, 30 + 1j, -800 + 1e-3j])
    with np.errstate(over="ignore", invalid="ignore"):
        for f in (np.sinh, np.cosh, np.tanh, np.sin, np.tan):
            got, wanted = native(f, steep).view(float), f(steep).view(float)  # parts
            np.testing.assert_allclose(got, wanted, rtol=1e-12, err_msg=f.__name__)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_powers(level: str) -> None:
    z = arguments("complex128")
    for n in (2, 3, 7, -3, 0.3):
        np.testing.assert_allclose(native(lambda z, n=n: z**n, z), z**n, rtol=1e-12)
    bases = np.array([0, 0, 0, 0, 0, 2 + 1j, -1, 1e-9j, 3])
    exponents = np.array([0, 2, 1 - 3j, -1, 1j, 0, 0.5, 2, 1 - 1j])
    np.testing.assert_allclose(
        native(np.power, bases, exponents), bases**exponents, rtol=1e-13, atol=1e-16
    )


def test_order_and_truth(level: str) -> None:
    x, y = SPECIAL[:, None], SPECIAL[None, :]
    names = "less less_equal greater greater_equal maximum minimum fmax fmin logical_and logical_or"
    for name in [*names.split(), "logical_xor"]:
        function = getattr(np, name)
        np.testing.assert_array_equal(native(function, x, y), function(x, y), err_msg=name)
    for f in (np.logical_not, np.any, np.all, lambda z: np.any(z.reshape(7, 7), axis=1)):
        np.testing.assert_array_equal(native(f, SPECIAL), f(SPECIAL))


# -- matrix products -------------------------------------------------------------------------------


def matrices(dtype: str, *shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(2)
    parts = [(rng.standard_normal(s), rng.standard_normal(s)) for s in shapes]
    return [(a + 1j * b).astype(dtype) for a, b in parts]


def check_product(f: Callable[..., Any], x: Array, y: Array) -> None:
    got, wanted = native(f, x, y), f(x, y)
    assert got.dtype == wanted.dtype
    bound = abs(x).max() * abs(y).max() * 2 * x.shape[-1] * UNIT[x.dtype.name]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=4 * bound)


@pytest.mark.parametrize("dtype", UNIT)
def test_products_of_matrices(dtype: str, any_level: str) -> None:
    for m, k, n in [(2, 2, 2), (3, 5, 7), (17, 33, 9), (1, 8, 5), (8, 3, 1), (40, 64, 48)]:
        check_product(np.matmul, *matrices(dtype, (m, k), (k, n)))
    x, y = matrices(dtype, (9, 12), (9, 12))
    check_product(lambda x, y: x @ y.T, x, y)
    check_product(lambda x, y: x.conj().T @ y, x, y)
    check_product(np.matmul, x[::-1, ::2], y.T[::2, 1::3])
    check_product(np.matmul, *matrices(dtype, (3, 4, 5), (5, 6)))
    check_product(np.matmul, *matrices(dtype, (4, 5), (3, 5, 6)))


def test_a_product_is_one_of_real_matrices() -> None:
    x, y = matrices("complex128", (32, 24), (24, 40))
    program = tj.trace(lambda x, y: np.exp(x @ y) + 1, x, y)
    products = [s for s in program.schedule.steps if isinstance(s, ContractionStep)]
    others = [s for s in program.schedule.steps if isinstance(s, KernelStep)]
    # The right operand is written out by one kernel; what follows reads the product in slabs.
    assert (len(products), len(others)) == (1, 1)
    large = matrices("complex128", (200, 200), (200, 200))
    (step,) = tj.trace(np.matmul, *large).schedule.steps
    assert isinstance(step, OpaqueStep)
