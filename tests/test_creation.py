"""NumPy programs that make arrays and write traced values into them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.errors import TraceError
from tracejit.ops.table import Array

X = np.linspace(-2, 2, 12).reshape(3, 4)
TABLE = np.arange(4.0)


def adds_up(x: Any) -> Any:
    total = np.zeros(4)
    for row in x:
        total += row
    return total


def fills(x: Any) -> Any:
    result = np.empty((4, 3), dtype="f4")
    for i in range(3):
        result[:, i] = x[i] * 2
    result[0, 0] = x[1, 1]
    return result


def turns(x: Any) -> Any:
    c, s = np.cos(x[0, 0]), np.sin(x[0, 0])
    return np.array([[c, -s], [s, c]]) @ x[:2]


def reduces_lists(x: Any) -> Any:
    best = np.max([x[0], x[1], x[2]], axis=0)
    return np.stack(
        [best, np.mean([x[0], best], axis=0), np.sum([[x[0], x[1]], [best, best]], (0, 1))]
    )


def rotates(x: Any, angle: Any) -> Any:
    matrix = np.zeros((3, 3))
    c, s = np.cos(angle), np.sin(angle)
    matrix[0, 0], matrix[0, 1] = c, -s
    matrix[1, 0], matrix[1, 1] = s, c
    matrix[2, 2] = 1
    return matrix @ x[:, :3]


def mixes(x: Any) -> Any:
    a = np.ones_like(TABLE)
    a[1:3] = np.asarray([x[0, 0], 2.0])
    b = np.eye(4)
    b[0] += x[0]
    c = np.full((2, 2), x[0, 1])
    c[0] *= 2
    return a, b, c, np.asarray(x) + np.asarray(TABLE), np.array([1, 2], "i4")


def helps(x: Any) -> Any:
    return adds_up(x) + fills(x)[:, 0]


def scatters(x: Any, at: Any) -> Any:
    sums = np.zeros((3, x.shape[1]), x.dtype)
    np.add.at(sums, at, x)
    return sums


@pytest.mark.parametrize("function", [adds_up, fills, turns, mixes, helps, reduces_lists])
def test_as_numpy(function: Any) -> None:
    wanted = function(X.copy())
    run: Any = tj.jit(function, compile="now")
    for _ in range(2):
        got = run(X.copy())
        pairs = zip(got, wanted, strict=True) if isinstance(wanted, tuple) else [(got, wanted)]
        for one, other in pairs:
            assert type(one) is type(other)
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=1e-12)
    assert "tensor" not in type(np.zeros(3)).__name__.lower()


def test_scatter_into_zeros() -> None:
    at = np.array([2, 0, 2])
    np.testing.assert_array_equal(tj.jit(scatters)(X, at), scatters(X, at))


def test_matrix_by_elements() -> None:
    got = tj.jit(rotates)(X, np.float64(0.3))
    np.testing.assert_allclose(got, rotates(X, np.float64(0.3)), rtol=1e-13)


def test_the_functions_of_numpy_are_back_afterwards_and_for_other_threads() -> None:
    names = ("zeros", "array", "asarray", "eye")
    before = [getattr(np, name) for name in names]
    seen: list[type] = []

    def looks(x: Any) -> Any:
        total = np.zeros(4)
        total += x[0]
        thread = threading.Thread(target=lambda: seen.append(type(np.zeros(3))))
        thread.start()
        thread.join()
        return total

    tj.jit(looks, compile="now")(X)
    assert set(seen) == {np.ndarray}
    assert [getattr(np, name) for name in names] == before


def test_a_function_that_needs_it_is_traced_so_from_then_on() -> None:
    runs: list[type] = []

    def grows(x: Any) -> Any:
        total = np.zeros(x.shape[1])
        runs.append(type(total))
        total += x[0]
        return total

    run = tj.jit(grows, compile="now")
    for n in (4, 5, 6, 7):
        x = np.ones((2, n))
        np.testing.assert_array_equal(run(x), x[0])
    assert runs[0] is np.ndarray
    assert runs[1:] == [tj.Tensor] * 2  # again, and with a symbol for the size that changes
    assert run.stats()["recompiles"] == 0


def test_arrays_from_outside_are_not_written() -> None:
    def writes(x: Any) -> Any:
        TABLE[0] = x[0, 0]
        return x

    def adds(x: Any) -> Any:
        table = np.asarray(TABLE)
        table += x[0]
        return table

    before: Array = TABLE.copy()
    for function in (writes, adds):
        with pytest.raises(TraceError, match="needs the value"):
            tj.jit(function)(X)
    np.testing.assert_array_equal(TABLE, before)


def test_other_errors_are_those_of_the_program() -> None:
    def decides(x: Any) -> Any:
        total = np.zeros(4)
        total += x[0]
        return total if total.sum() > 0 else -total

    def asks(x: Any) -> Any:
        total = np.zeros(4)
        total += x[0]
        return total.no_such_attribute

    with pytest.raises(TraceError, match="condition"):
        tj.jit(decides)(X)
    with pytest.raises((TraceError, AttributeError)):
        tj.jit(asks)(X)
    assert isinstance(np.zeros(1), np.ndarray)
