"""Storing at computed positions: in kernels, with what computes them, and NumPy's errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from test_gather import check as check_kernels

import tracejit as tj
from tracejit.errors import DTypeError
from tracejit.schedule.text import kernel_text

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
DTYPES = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")
SIZES = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)


def check(function: Function, *args: Array, kernels: int = 2) -> None:
    """Compare with NumPy, and count kernels: one fills, one scatters, none is the interpreter's."""
    check_kernels(function, *args, kernels=kernels)


def values(shape: tuple[int, ...], dtype: str = "f8", seed: int = 1) -> Array:
    """Return values whose sums depend on their order."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (rng.normal(size=shape) * 10.0 ** rng.integers(-4, 5, size=shape)).astype(dtype)
    return rng.integers(-100, 100, size=shape).astype(dtype)


def positions(extent: int, shape: tuple[int, ...], dtype: str = "i8", seed: int = 0) -> Array:
    """Return positions among ``extent`` elements, for signed dtypes also from the end."""
    low = 0 if np.dtype(dtype).kind == "u" else -extent
    return np.random.default_rng(seed).integers(low, extent, size=shape).astype(dtype)


def added(x: Any, i: Any, v: Any) -> Any:
    x = x.copy()
    np.add.at(x, i, v)
    return x


def assigned(x: Any, i: Any, v: Any) -> Any:
    x = x.copy()
    x[i] = v
    return x


def along(axis: int) -> Function:
    def put(x: Any, i: Any, v: Any) -> Any:
        x = x.copy()
        np.put_along_axis(x, i, v, axis)
        return x

    return put


@pytest.mark.parametrize("size", SIZES)
def test_at_every_size(size: int, any_level: str) -> None:
    kernels = 2 if size else 1
    for shape in ((9,), (9, 17), (9, 2)):
        x, i, v = values(shape), positions(9, (size,)), values((size, *shape[1:]), seed=2)
        check(added, x, i, v, kernels=kernels)
        check(assigned, x, i, v, kernels=kernels)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_of_values(dtype: str, level: str) -> None:
    i = positions(6, (21,))
    for shape in ((6,), (6, 19)):
        x, v = values(shape, dtype), values((21, *shape[1:]), dtype, seed=2)
        check(added, x, i, v)
        check(assigned, x, i, v)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("op", [np.multiply, np.maximum, np.minimum, np.subtract])
def test_other_operations(op: Any, level: str) -> None:
    def combined(x: Any, i: Any, v: Any) -> Any:
        x = x.copy()
        op.at(x, i, v)
        return x

    x, i, v = values((5,)), positions(5, (40,)), values((40,), seed=3)
    v[::7], v[3::7] = np.nan, -0.0
    x[1] = 0.0
    check(combined, x, i, v)
    check(combined, values((5, 9), "i4"), i, values((40, 9), "i4", seed=3))


def test_an_operation_without_a_loop_is_refused() -> None:
    x, i = values((4,), "?"), positions(4, (3,))
    with pytest.raises(DTypeError, match="logical_xor"):
        tj.trace(lambda x, i: np.subtract.at(x, i, True), x, i)


@pytest.mark.parametrize("dtype", DTYPES[1:9])
def test_every_integer_dtype_of_positions(dtype: str, level: str) -> None:
    check(added, values((60,)), positions(60, (33,), dtype), values((33,), seed=2))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_put_along_each_axis(axis: int, any_level: str) -> None:
    x = values((4, 5, 17))
    shape = [4, 5, 17]
    shape[axis] = 9
    i, v = positions(x.shape[axis], tuple(shape)), values(tuple(shape), seed=2)
    check(along(axis), x, i, v)
    check(along(axis), x, i[:1] if axis else i[:, :1], v)  # positions broadcast
    check(along(axis), x, i, v[:1, :1, :1])


def test_several_index_arrays(any_level: str) -> None:
    x = values((4, 5, 6, 11))
    i, j = positions(4, (5, 1)), positions(5, (9,))
    k = positions(6, (5, 9), seed=2)

    def at(*key: Any) -> Function:
        def function(x: Any, v: Any, *arrays: Any) -> Any:
            x = x.copy()
            full = tuple(arrays[k] if isinstance(k, int) else k for k in key)
            np.add.at(x, full, v)
            x[full] = 2 * v
            np.add.at(x, full, v)
            return x

        return function

    every = slice(None)
    for key, arrays in (
        ((0, 1), (i, j)),
        ((0, 1, 2), (i, j, k)),
        ((every, 0, 1), (j, k)),
        ((0, every, 1), (i, k)),  # apart: their axes go in front
        ((0, ..., 1, slice(3, 4)), (i, k)),
        ((0, slice(1, 4), slice(None, None, -1)), (i,)),
    ):
        full = tuple(arrays[n] if isinstance(n, int) else n for n in key)
        v = values(x[full].shape, seed=5)
        jitted = tj.jit(at(*key), compile="now")
        np.testing.assert_array_equal(jitted(x, v, *arrays), at(*key)(x, v, *arrays))


def test_the_order_is_that_of_the_positions(any_level: str) -> None:
    x, i, v = values((3,)), positions(3, (12, 9)), values((9, 12), seed=4)
    ats: list[Function] = [lambda i: i.T, lambda i: i.T[:, ::-1]]
    ofs: list[Function] = [lambda v: v, lambda v: v[0], lambda v: v[:, 3:4]]
    for function, at, of in product((added, assigned), ats, ofs):
        places, expected = at(i), x
        taken = np.broadcast_to(of(v), places.shape)
        for place, value in zip(places.flat, taken.flat, strict=True):
            expected = function(expected, place, value)
        program = partial(lambda f, at, of, x, i, v: f(x, at(i), of(v)), function, at, of)
        for mode in ("never", "now"):
            found = tj.jit(program, compile=mode)(x, i, v)
            np.testing.assert_array_equal(found, expected)
    # Positions and values may be the same in some loops, which run all the same.
    wide = lambda x, v: added(x, np.zeros((7, 3, 5), np.int64), v)  # noqa: E731
    check(wide, x, values((7, 1, 5)))
    check(lambda x: added(x, np.zeros(100, np.int64), 1.0), x)
    check(lambda x, v: added(x, np.full(100, 2), v[0]), x, v[0])


def test_operands_that_are_views(level: str) -> None:
    x, i, v = values((35, 12)), positions(12, (20,)), values((20, 70), seed=2)
    check(lambda x, i, v: added(x.T, i, v[:, ::2]), x, i, v)
    check(lambda x, i, v: added(x.T[::-1, 3:20:2], i, v[:, :9]), x, i, v)
    check(lambda x, i, v: assigned(x[:12], i[::-3], v[:7, :12]), x, i, v)


def test_unaligned_operands(level: str) -> None:
    def unaligned(array: Array) -> Array:
        raw = np.zeros(array.nbytes + 1, np.uint8)
        found = raw[1:].view(array.dtype).reshape(array.shape)
        found[...] = array
        return found

    x, i, v = values((30, 9)), positions(30, (21,)), values((21, 9), seed=2)
    jitted = tj.jit(added, compile="now")
    for _ in range(3):
        found = jitted(*(unaligned(a) for a in (x, i, v)))
        np.testing.assert_array_equal(found, added(x, i, v))


def test_what_computes_values_and_positions_is_in_the_kernel(any_level: str) -> None:
    x, i, v = values((33,)), positions(33, (50,)), np.random.default_rng(0).normal(size=50)
    check(lambda x, i, v: added(x, (i + 3) // 2, np.abs(v) * 2 - 1), x, i, v)
    check(lambda x, i, v: added(x, (v * 10).astype(int) % 33, v), x, i, v)
    edges = lambda x, i, v: added(np.zeros_like(x), i, x[i[::-1]] * v)  # noqa: E731
    check(edges, x, i, v)
    check(lambda x, i, v: added(x * 2, i, x[i]), x, i, v)
    rows, w = values((33, 20)), values((50, 1), seed=3)
    check(lambda x, i, w: added(np.zeros_like(x), i, x[i[::-1]] * w), rows, i, w)


def test_long_functions_of_values_run_in_vectors(level: str) -> None:
    x, i, v = np.zeros(33), positions(33, (50,)), np.random.default_rng(0).normal(size=50)
    jitted = tj.jit(lambda x, i, v: added(x, i, np.exp(v)), compile="now")
    np.testing.assert_allclose(jitted(x, i, v), added(x, i, np.exp(v)), rtol=1e-14)


def test_values_that_other_kernels_compute(level: str) -> None:
    x, i, v = values((9, 5)), positions(9, (20,)), np.random.default_rng(0).normal(size=(20, 5))

    def program(x: Any, i: Any, v: Any) -> Any:
        weight = np.maximum(v, 0)
        order = np.cumsum(v, axis=0)
        centred = weight - weight.max(axis=1, keepdims=True)
        return added(added(x, i, centred), i[::-1], order) + 1, weight, order[i]

    found = tj.jit(program, compile="now")(x, i, v)
    for mine, expected in zip(found, program(x, i, v), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_the_result_does_not_depend_on_threads(level: str) -> None:
    x, v = values((64, 50, 40)), values((64, 200, 40), seed=3)
    i = positions(50, (64, 200, 40))
    jitted = tj.jit(along(1), compile="now")
    with tj.num_threads(1):
        expected = jitted(x, i, v)
    with tj.num_threads(4):
        np.testing.assert_array_equal(jitted(x, i, v), expected)
    np.testing.assert_array_equal(along(1)(x, i, v), expected)


@pytest.mark.parametrize("bad", [9, -10, 2**40, -(2**63)])
def test_a_position_out_of_range_changes_nothing(bad: int, level: str) -> None:
    def change(x: Any, i: Any, v: Any) -> None:
        np.add.at(x, i, v)

    jitted = tj.jit(change, compile="now")
    for shape in ((9,), (9, 5)):
        for place in (0, 20, 32):
            x, i, v = values(shape), positions(9, (33,)), values((33, *shape[1:]), seed=2)
            expected = x.copy()
            change(expected, i, v)
            jitted(x, i, v)
            np.testing.assert_array_equal(x, expected)
            i[place] = bad
            with pytest.raises(IndexError, match=f"index {bad} is out of bounds"):
                jitted(x, i, v)
            np.testing.assert_array_equal(x, expected)


def test_counts(any_level: str) -> None:
    def counts(i: Any) -> Any:
        return np.bincount(i, minlength=12)

    def weighted(i: Any, w: Any) -> Any:
        return np.bincount(i, w, minlength=12)

    for n in (1, 7, 8, 9, 100):
        for dtype in ("i8", "u1", "i4"):
            i = np.random.default_rng(n).integers(0, 12, size=n).astype(dtype)
            check(counts, i)
            check(weighted, i, values((n,)))
    for wrong in (-1, 12):
        i[3] = wrong
        with pytest.raises(IndexError):
            tj.jit(counts, compile="now")(i)


def test_torch_names(level: str) -> None:
    x, i, v = values((5, 9)), positions(5, (7,), "u1"), values((7, 9), seed=2)
    found = tj.jit(lambda x, i, v: tj.asarray(x).index_add(0, i, v), compile="now")(x, i, v)
    np.testing.assert_array_equal(found, added(x, i, v))


def test_the_loops_in_words() -> None:
    x, i, v = values((6, 17)), positions(6, (20,)), values((20, 17))
    schedule = tj.trace(added, x, i, v).schedule
    assert kernel_text(schedule.kernels[1]).splitlines()[1:] == [
        "  for i < 20:",
        "    for j < 17 (vector):",
        "      b3[j + 17*bound(b2[i], 6)] = (b3[j + 17*bound(b2[i], 6)] + b1[17*i + j])",
    ]
