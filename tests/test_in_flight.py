"""How many vectors a loop keeps in flight, what it computes once, and sums of products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.codegen.loops import emit_kernel
from tracejit.codegen.widths import vectors_for
from tracejit.runtime import cpu
from tracejit.schedule.kernel import Apply, Kernel

Array = np.ndarray[Any, Any]


def kernel(function: Any, *arguments: Array) -> Kernel:
    (found,) = tj.trace(function, *arguments).schedule.kernels
    return found


def vectors(function: Any, *arguments: Array) -> int:
    found = kernel(function, *arguments)
    applied = [p for p, e in enumerate(found.exprs) if isinstance(e, Apply)]
    return vectors_for(found, cpu.target(), applied)


def chain(x: Any, y: Any) -> Any:
    """Each operation waits for the one before it."""
    for _ in range(12):
        x = np.sqrt(x * x + y)
    return x


def bush(x: Any, y: Any) -> Any:
    """Sixteen chains of two operations each, of one value of 16 scaled by numbers of its own."""
    terms = [(x + i) * (y - i) for i in range(16)]
    while len(terms) > 1:
        terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=True)]
    return terms[0]


def test_what_waits_for_itself_gets_company() -> None:
    x = np.ones(1000, np.float32)
    assert vectors(chain, x, x) == 4
    assert vectors(bush, x, x) < 4
    assert vectors(np.tanh, x) == 2
    assert vectors(lambda x: np.tanh(np.sin(x) * 2 + x) * np.log(x) * x - np.exp(x) + x + 3, x) == 4


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("function", [chain, bush])
def test_every_element_is_the_same(any_level: str, dtype: str, function: Any) -> None:
    rng = np.random.default_rng(0)
    f: Any = tj.jit(function, compile="now")
    for count in (0, 1, 3, 4, 5, 15, 16, 17, 31, 33, 63, 64, 65, 100, 129):
        x = rng.uniform(-2, 2, count).astype(dtype)
        y = rng.uniform(-2, 2, count).astype(dtype)
        # Roots of one vector that need care, beside others that do not.
        x[: count // 3], y[: count // 3] = 0.0, np.inf
        x[count // 2 :: 7] = np.nan
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(f(x, y), function(x, y))


def test_products_enter_sums_unrounded(any_level: str) -> None:
    # x² is 1 + 2⁻¹¹ + 2⁻²⁴, of which a product by itself loses the end.
    x = np.float32(1 + 2.0**-12)
    a: Array = np.zeros((8, 70), np.float32)
    b = a.copy()
    a[0], b[0] = 1, -1
    a[1] = b[1] = x
    exact = 2.0**-11 + 2.0**-24 * cpu.target().fma
    total = tj.jit(lambda a, b: (a * b).sum(axis=0), compile="now")(a, b)
    np.testing.assert_array_equal(total, np.full(70, exact, np.float32))


def test_sums_of_products(any_level: str) -> None:
    def sums(a: Any, b: Any, c: Any) -> Any:
        product = a * b
        return (
            product.sum(axis=1),
            (a * c).sum(axis=1),
            (b * 0.5).sum(axis=0),
            product,
            (a * b).sum(),
        )

    f = tj.jit(sums, compile="now")
    rng = np.random.default_rng(0)
    for rows, columns in ((0, 3), (1, 1), (3, 0), (7, 17), (33, 65), (5, 300)):
        a, b = rng.standard_normal((2, rows, columns))
        c = rng.standard_normal((rows, 1))
        for got, expected in zip(f(a, b, c), sums(a, b, c), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)
        special = np.where(a > 1, np.inf, a)
        with np.errstate(all="ignore"):
            wanted = sums(special, b, c)
        for got, expected in zip(f(special, b, c), wanted, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)


def test_what_no_loop_changes_is_computed_before_it() -> None:
    found = kernel(lambda x, s: x * (s * s), np.ones(100), np.array(2.0))
    before, _, inside = emit_kernel(found, cpu.target()).partition("br label")
    assert "fmul double" in before
    assert "fmul double" not in inside
