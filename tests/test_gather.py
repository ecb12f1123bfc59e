"""Reading at computed positions: in kernels, with what reads the values, and NumPy's errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
SIZES = (0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100)


def check(function: Function, *args: Array, kernels: int = 1) -> None:
    """Compare with NumPy, and count kernels: nothing may be left to the interpreter."""
    schedule = tj.trace(function, *args).schedule
    assert len(schedule.steps) == len(schedule.kernels) == kernels
    jitted = tj.jit(function, compile="now")
    expected = function(*args)
    for _ in range(3):  # by the Python path, and by the native entry
        found = jitted(*args)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def values(shape: tuple[int, ...], dtype: str = "f4") -> Array:
    rng = np.random.default_rng(1)
    return rng.integers(-100, 100, size=shape).astype(dtype)


def positions(extent: int, shape: tuple[int, ...], dtype: str = "i8", seed: int = 0) -> Array:
    """Positions among ``extent`` elements, for signed dtypes also from the end."""
    low = 0 if np.dtype(dtype).kind == "u" else -extent
    return np.random.default_rng(seed).integers(low, extent, size=shape).astype(dtype)


@pytest.mark.parametrize("size", SIZES)
def test_one_axis_at_every_size(size: int, any_level: str) -> None:
    x, i = values((50,)), positions(50, (size,))
    check(lambda x, i: x[i], x, i)
    check(lambda x, i: np.take(x, i) * 2 + 1, x, i)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_integer_dtype(dtype: str, level: str) -> None:
    x, i = values((60, 5)), positions(60, (33,), dtype)
    check(lambda x, i: x[i], x, i)
    check(lambda x, i: x[:, 2][i], x, i)


@pytest.mark.parametrize("dtype", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"])
def test_every_dtype_of_values(dtype: str, any_level: str) -> None:
    x = values((40, 19), dtype)
    check(lambda x, i: x[i], x, positions(40, (21,)))
    check(lambda x, i: np.take(x, i, axis=1), x, positions(19, (21,)))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 3), (0,), (2, 0)])
def test_take_along_each_axis(axis: int, shape: tuple[int, ...], level: str) -> None:
    x = values((6, 7, 17))
    i = positions(x.shape[axis], shape)
    kernels = 0 if 0 in shape else 1
    jitted = tj.jit(lambda x, i: np.take(x, i, axis=axis), compile="now")
    np.testing.assert_array_equal(jitted(x, i), np.take(x, i, axis=axis))
    if kernels:
        check(lambda x, i: np.take(x, i, axis=axis), x, i)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_take_along_axis(axis: int, any_level: str) -> None:
    x = values((6, 7, 17))
    shape = list(x.shape)
    shape[axis] = 9
    check(
        lambda x, i: np.take_along_axis(x, i, axis),
        x,
        positions(x.shape[axis], tuple(shape)),
    )
    shape[(axis + 1) % 3] = 1  # broadcasts
    check(
        lambda x, i: np.take_along_axis(x, i, axis),
        x,
        positions(x.shape[axis], tuple(shape)),
    )


def test_several_index_arrays(any_level: str) -> None:
    x = values((6, 7, 8, 19))
    i, j = positions(6, (5, 1)), positions(7, (9,))
    k = positions(8, (5, 9), seed=2)
    check(lambda x, i, j: x[i, j], x, i, j)
    check(lambda x, i, j, k: x[i, j, k], x, i, j, k)
    check(lambda x, j, k: x[:, j, k], x, j, k)
    check(lambda x, i, k: x[i, :, k], x, i, k)  # apart: their axes go in front
    check(lambda x, i, k: x[i, ..., k, 3], x, i, k)
    check(lambda x, i: x[i, 1:5, ::-1], x, i)


def test_operands_that_are_views(level: str) -> None:
    x, i = values((12, 35)), positions(12, (20,))
    check(lambda x, i: x.T[:, i], x, i)
    check(lambda x, i: x[::-1, 3:20:2][i], x, i)
    check(lambda x, i: x.reshape(12, 5, 7)[i], x, i)
    check(lambda x, i: np.broadcast_to(x[:1], (12, 35))[i], x, i)
    check(lambda x, i: x[i], x[:, ::2], i)
    check(lambda x, i: x[i], x.T, positions(35, (20,)))
    check(lambda x, i: x[i], x, i[::-3])


def test_unaligned_operands(level: str) -> None:
    def unaligned(array: Array) -> Array:
        raw = np.zeros(array.nbytes + 1, np.uint8)
        found = raw[1:].view(array.dtype).reshape(array.shape)
        found[...] = array
        return found

    x, i = values((30, 33)), positions(30, (21,))
    jitted = tj.jit(lambda x, i: x[i] + 1, compile="now")
    for _ in range(3):
        np.testing.assert_array_equal(jitted(unaligned(x), unaligned(i)), x[i] + 1)


def test_what_reads_the_values_is_in_their_kernel(level: str) -> None:
    w, t, p = values((50, 33)), positions(50, (4, 9)), values((9, 33))
    check(lambda w, t, p: np.maximum(w[t] + p, 0), w, t, p)
    check(lambda w, t: w[t].sum(axis=1), w, t)
    check(lambda w, t: w[t].max(axis=-1), w, t)
    check(lambda w, t: np.cumsum(w[t], axis=0), w, t)
    check(lambda w, t: w[(t + 3) // 2], w, t % 40)  # positions are computed there, too
    check(lambda w, t: w[t] + w[t + 1], w, t % 40)


def test_operands_that_are_computed_are_stored_first(level: str) -> None:
    x, i = values((50, 33)), positions(50, (20,))
    check(lambda x, i: (x * 2)[i], x, i, kernels=2)
    check(lambda x, i: x[np.argmax(x, axis=0)], x[:33], i)
    check(lambda x, i: x[:20] + x[i], x, i)


def test_products_read_and_take_gathered_values(level: str) -> None:
    rng = np.random.default_rng(0)
    w, m, t = rng.normal(size=(50, 16)), rng.normal(size=(16, 24)), positions(50, (31,))
    for function in (lambda w, m, t: w[t] @ m, lambda w, m, t: w[:16] @ m + w[t[:16], :1]):
        schedule = tj.trace(function, w, m, t).schedule
        assert len(schedule.kernels) == 1
        assert len(schedule.steps) == 2
        jitted = tj.jit(function, compile="now")
        np.testing.assert_allclose(jitted(w, m, t), function(w, m, t), rtol=1e-12)


def test_numpy_modes(level: str) -> None:
    x, i = values((10,)), np.arange(-25, 25)
    check(lambda x, i: np.take(x, i, mode="wrap"), x, i)
    check(lambda x, i: np.take(x, i, mode="clip"), x, i)


# -- out of range ----------------------------------------------------------------------------------

CASES: list[tuple[Function, str]] = [
    (lambda x, i: x[i], "axis 0 with size 20"),
    (lambda x, i: x[i].sum(axis=0), "axis 0 with size 20"),
    (lambda x, i: np.maximum(x[i] + x[:1], 0), "axis 0 with size 20"),
    (lambda x, i: np.take(x, i), "size 660"),
    (lambda x, i: np.take_along_axis(x, i[:, None], 0), "axis 0 with size 20"),
    (lambda x, i: x[i, i], "axis 0 with size 20"),
]


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("wrong", [660, -661])
def test_positions_out_of_range_raise(case: int, wrong: int, any_level: str) -> None:
    function, words = CASES[case]
    jitted = tj.jit(function, compile="now")
    x, i = values((20, 33)), positions(20, (33,))
    expected = jitted(x, i)
    for place in (0, 5, 32, 5):
        bad = i.copy()
        bad[place] = wrong
        error = tj.errors.IndexOutOfRange  # an IndexError, with the line
        with pytest.raises(error, match=rf"index {wrong} .*{words}") as raised:
            jitted(x, bad)
        assert raised.value.loc is not None
        assert raised.value.loc.filename == __file__
        np.testing.assert_array_equal(jitted(x, i), expected)  # and the next call is fine


def test_a_failing_call_leaves_its_arguments(level: str) -> None:
    @tj.jit(compile="now")
    def update(x: Array, i: Array) -> Any:
        x += x[i]
        return x.sum()

    x, i = values((40,), "f8"), np.arange(40)
    for _ in range(3):
        update(x, i)
    before, i[7] = x.copy(), 40
    with pytest.raises(IndexError):
        update(x, i)
    np.testing.assert_array_equal(x, before)


def test_masked_lanes_are_not_looked_at(any_level: str) -> None:
    # Beyond the end of i the kernel reads zeros, and zero plus the offset is out of range.
    x, i = values((5,)), np.full(11, -8)
    check(lambda x, i: x[i + 8], x, i)
    check(lambda x, i: x[i - 100], x, i + 103)


def test_one_call_out_of_range_beside_others(level: str) -> None:
    jitted = tj.jit(lambda x, i: x[i] * 2, compile="now")
    x, i = values((1000,)), positions(1000, (5000,))
    bad = i.copy()
    bad[77] = 1000
    expected = jitted(x, i)
    failures: list[str] = []

    def call(index: Array, fails: bool) -> None:
        for _ in range(200):
            try:
                right = np.array_equal(jitted(x, index), expected) and not fails
            except IndexError:
                right = fails
            if not right:
                failures.append(f"fails: {fails}")

    threads = [threading.Thread(target=call, args=(bad if n == 1 else i, n == 1)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_large_gathers_run_in_threads(level: str) -> None:
    w, t = values((3000, 256)), positions(3000, (4000,))
    check(lambda w, t: w[t] + 1, w, t)
    t[3999] = 3000
    with pytest.raises(IndexError, match="index 3000 is out of bounds for axis 0 with size 3000"):
        tj.jit(lambda w, t: w[t] + 1, compile="now")(w, t)


def test_demand_and_interpreter_agree(level: str) -> None:
    x, i = values((30, 7)), positions(30, (12,))
    np.testing.assert_array_equal(tj.asarray(x)[tj.asarray(i)].numpy(), x[i])
    never = tj.jit(lambda x, i: x[i], compile="never")
    np.testing.assert_array_equal(never(x, i), x[i])
    i[3] = 30
    with pytest.raises(IndexError, match="index 30 is out of bounds for axis 0 with size 30"):
        never(x, i)
