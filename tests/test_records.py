"""Records (pixels, points): all fields are loaded and stored together, with NumPy's bits."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import NATIVE
from hypothesis import given
from hypothesis import strategies as st

import tracejit as tj
from tracejit.schedule.kernel import NO_FIELD, Kernel

SIZES = [1, 3, 15, 16, 17, 63, 64, 65, 130, 1000]
DTYPES = [np.uint8, np.int16, np.float32, np.float64, np.int64, np.bool_]


def values(shape: tuple[int, ...], dtype: Any) -> Any:
    rng = np.random.default_rng(len(shape) + shape[0])
    if dtype is np.bool_:
        return rng.random(shape) > 0.5
    return (rng.standard_normal(shape) * 50).astype(dtype)


def check(function: Callable[..., Any], *args: Any) -> None:
    got = tj.jit(function, compile="now")(*args)
    want = function(*args)
    for a, b in zip(_all(got), _all(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def _all(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def kernels(function: Callable[..., Any], *args: Any) -> list[Kernel]:
    return tj.trace(function, *args).schedule.kernels


@pytest.mark.parametrize("fields", [2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_records_move_together(any_level: str, dtype: Any, fields: int) -> None:
    for size in SIZES:
        x, y = values((size, fields), dtype), values((fields,), dtype)
        planes = values((fields, size), dtype)
        check(lambda x: x[:, ::-1].copy(), x)
        check(lambda x, y: (np.where(x > y, x, y), x == y), x, y)
        check(lambda x: x.T.copy(), x)
        check(lambda p: p.T.copy(), planes)
        check(lambda x: np.where(x[:, 0] > x[:, 1], x[:, 0], x[:, fields - 1]), x)
        check(lambda x: x.astype(np.float32) / 255, x)


@pytest.mark.parametrize("fields", [2, 3, 4])
def test_images(level: str, fields: int) -> None:
    image = values((13, 37, fields), np.uint8)
    mean = np.arange(1.0, fields + 1, dtype=np.float32)
    check(lambda a: ((a.astype(np.float32) / 255 - mean) * mean).transpose(2, 0, 1), image)
    check(lambda a: a[2:-1, 1::2, ::-1], image)
    check(lambda a: a[..., 0] // 2 + a[..., 1] // 2, image)
    check(lambda a: np.clip(a * 255, 0, 255).astype(np.uint8).transpose(1, 2, 0), image / 255.0)


def test_special_values_keep_their_bits(level: str) -> None:
    bits = np.random.default_rng(6).integers(0, 1 << 32, (70, 3), dtype=np.uint32)
    x = bits.view(np.float32)
    got = tj.jit(lambda x: x[:, ::-1].copy(), compile="now")(x)
    np.testing.assert_array_equal(got.view(np.uint32), bits[:, ::-1])


def test_some_fields_only(level: str) -> None:
    """A record that is not read or stored as a whole: its last one may end the array."""

    def assigned(x: Any) -> Any:
        y = x.copy()
        y[:, 1] = y[:, 0] + y[:, 2]
        return y

    for dtype in (np.float32, np.float64, np.uint8):
        for size in (1, 16, 33, 64, 200):
            x = _at_the_end_of_a_page(values((size, 4), dtype))
            check(lambda x: x[:, 1:3] * x[0, 0], x)
            check(lambda x: x[:, :3].copy(), x)
            check(lambda x: x[:, 0] + x[:, 1], x)
            check(lambda x: x[:, 1] * x[:, 2] - x[:, 3], x)
            check(lambda x: x[:-1, 1] - x[1:, 1], x)
            check(lambda x: x.reshape(-1)[::3] + x.reshape(-1)[::3].max(), x)
            check(lambda x: (x[:, 3].max(), x[:, 2].min()), x)
            check(assigned, x)


def _at_the_end_of_a_page(x: Any) -> Any:
    """Return a copy of ``x`` whose next byte is not there."""
    size = -(-x.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    block = mmap.mmap(-1, size + mmap.PAGESIZE)
    place = np.frombuffer(block, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(place.ctypes.data + size), mmap.PAGESIZE, 0) == 0
    moved = place[size - x.nbytes : size].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


def test_fields_of_points_are_reduced(level: str) -> None:
    x = values((101, 3), np.float64)
    got = tj.jit(lambda x: np.sqrt((x * x).sum(axis=1)), compile="now")(x)
    np.testing.assert_allclose(got, np.sqrt((x * x).sum(axis=1)), rtol=1e-15)
    got = tj.jit(lambda x: x - x.mean(axis=0), compile="now")(x)
    np.testing.assert_allclose(got, x - x.mean(axis=0), rtol=1e-12, atol=1e-12)


def test_any_number_of_threads_moves_alike(level: str) -> None:
    x = values((300_001, 3), np.float32)
    function = tj.jit(lambda x: (x[:, ::-1] * np.float32(2)).T.copy(), compile="now")
    want = (x[:, ::-1] * np.float32(2)).T
    np.testing.assert_array_equal(function(x), want)
    with tj.num_threads(1):
        np.testing.assert_array_equal(function(x), want)


def test_all_fields_make_a_record() -> None:
    x = values((100, 3), np.float32)
    (kernel,) = kernels(lambda x: x[:, ::-1] * 2, x)
    assert [len(r.fields) for r in kernel.records] == [3]
    assert [len(r.fields) for r in kernel.stored_records] == [3]
    (kernel,) = kernels(lambda x: x[:, 0] + x[:, 2], x)
    assert [r.fields.count(NO_FIELD) for r in kernel.records] == [1]
    (kernel,) = kernels(lambda x: np.stack([x[:, 1], x[:, 1] + 1], -1), x)
    assert len(kernel.stored_records) == 1
    (kernel,) = kernels(lambda x: np.cross(x, x[::-1]), x)
    assert len(kernel.stored_records) == 1
    (kernel,) = kernels(lambda x: x * 2, x)  # one run of elements
    assert not kernel.records
    wide = values((100, 5), np.float32)
    (kernel,) = kernels(lambda x: x[:, ::-1] * 2, wide)
    assert not kernel.records


def test_fields_that_no_lane_runs_over_are_stored_one_by_one(level: str) -> None:
    """The lanes run over the last axis of 2, the fields of what is stored are along another."""
    w = values((4, 6, 4, 4), np.float32)

    def turned(w: Any) -> Any:
        split = w.reshape(4, 6, 2, 2, 2, 2)[:, :, ::-1, :, ::-1]
        return np.transpose(split, (3, 5, 1, 0, 2, 4)).reshape(24, 16)

    np.testing.assert_array_equal(tj.jit(turned, compile="now")(w), turned(w))


# -- random programs -------------------------------------------------------------------------------

STEPS: list[Callable[[Any, Any, int], Any]] = [
    lambda x, y, n: x[..., ::-1],
    lambda x, y, n: x[..., n % x.shape[-1]][..., None] + x * 0,
    lambda x, y, n: np.stack([x[..., i % x.shape[-1]] for i in range(n % 3 + 2)], axis=-1),
    lambda x, y, n: np.concatenate([x[..., :1], y[..., -1:]], axis=-1),
    lambda x, y, n: np.maximum(x, x.max(axis=0)) if x.shape[0] else x,
    lambda x, y, n: x - x[..., :1],
    lambda x, y, n: x[::2],
    lambda x, y, n: x[1:] if x.shape[0] > 1 else x,
    lambda x, y, n: x.swapaxes(0, -1).copy().swapaxes(0, -1),
    lambda x, y, n: np.where(x > n % 5, x, np.roll(x, n % 4, axis=-1)),
    lambda x, y, n: x[..., [i % x.shape[-1] for i in (1, 0, n)]],
]


def run(program: list[tuple[int, int]], x: Any) -> tuple[Any, ...]:
    before = x
    for step, number in program:
        before, x = x, STEPS[step % len(STEPS)](x, before[: x.shape[0]], number)
    return x, x.swapaxes(0, -1) + x.dtype.type(1)


@given(
    program=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=5),
    shape=st.tuples(
        st.sampled_from([(), (3,), (2, 2)]),
        st.sampled_from([(1,), (2,), (3,), (15,), (17,), (40,), (70,)]),
        st.sampled_from([(1,), (2,), (3,), (4,), (5,), (2, 2), (3, 2)]),
    ),
    dtype=st.sampled_from([np.uint8, np.int32, np.float32, np.float64]),
    number=st.integers(0, 3),
)
def test_fuzz_records(
    program: list[tuple[int, int]], shape: tuple[tuple[int, ...], ...], dtype: Any, number: int
) -> None:
    x = values(shape[0] + shape[1] + shape[2], dtype)
    with tj.isa(NATIVE[number % len(NATIVE)]):
        check(lambda x: run(program, x), x)


def test_a_field_of_new_records_is_replaced() -> None:
    """Regression: records that an update keeps in part were stored whole beside it."""

    def replaced(x: Any) -> Any:
        records = np.stack([x, x * x, x + 1], axis=-1)
        records[..., 1] = x * 0.5
        records[1:2] = 7
        return records

    for shape in ((3,), (5, 4)):
        check(replaced, values(shape, np.float32))
