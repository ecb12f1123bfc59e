"""Views of tensors, keys that index them, and what is written through either."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from agreement import same
from hypothesis import given
from hypothesis import strategies as st

import tracejit as tj

pytestmark = pytest.mark.usefixtures("interpreted")


def test_writes_are_seen_through_views():
    a = np.arange(12.0).reshape(3, 4)
    x = tj.asarray(a)
    row, column, flipped, flat = x[1], x[:, 2], x[::-1], x.reshape(-1)
    row += 100
    flat[0] = -1
    x[2, 2:] = 7
    column *= 2
    b_row, b_column, b_flipped, b_flat = a[1], a[:, 2], a[::-1], a.reshape(-1)
    b_row += 100
    b_flat[0] = -1
    a[2, 2:] = 7
    b_column *= 2
    for got, wanted in ((x, a), (row, b_row), (column, b_column), (flipped, b_flipped)):
        same(got, wanted)
    same(flat, b_flat)
    assert row.base is x
    assert (x + 0).base is None


def test_view_methods_write_through():
    a = np.arange(24.0).reshape(2, 3, 4)
    methods: list[Callable[[Any], Any]] = [
        lambda v: v.T, lambda v: v.transpose(2, 0, 1), lambda v: v.swapaxes(0, 1),
        lambda v: v.reshape(6, 4), lambda v: v[None], lambda v: v[..., 0], lambda v: v.ravel(),
        lambda v: v[:, ::-2, 1:3], lambda v: v[1].T[::2], lambda v: v.squeeze(),
        lambda v: v[..., :3].diagonal(0, 1, 2) if isinstance(v, tj.Tensor) else
        np.einsum("ijj->ij", v[..., :3]),
    ]  # fmt: skip
    for method in methods:
        array, tensor = a.copy(), tj.asarray(a)
        method(array)[...] += 1
        method(tensor)[...] += 1
        same(tensor, array)


def test_reshape_of_a_transpose_copies_as_numpy_does():
    a = np.arange(12.0).reshape(3, 4)
    x = tj.asarray(a)
    for shape in [(12,), (4, 3), (2, 2, 3), (4, 1, 3), (2, 6)]:
        wanted = np.shares_memory(a.T.reshape(shape), a)
        assert (x.T.reshape(shape).base is x) == wanted
    assert x[:, ::2].reshape(3, 2, 1).base is x
    assert x[:, ::2].reshape(6).base is x
    assert x[:, :3].reshape(9).base is None
    assert x[:2].reshape(8).base is x


def test_flatten_and_contiguous_copy():
    x = tj.zeros((2, 2))
    x.flatten()[0] = 1
    x[0].contiguous()[0] = 1
    x.T.flatten()[:] = 1
    same(x, np.zeros((2, 2)))
    x.detach()[0, 0] = 5
    assert x[0, 0].item() == 5


def test_broadcast_views_are_read_only():
    x = tj.ones(3)
    with pytest.raises(ValueError, match="read-only"):
        tj.broadcast_to(x, (2, 3))[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        x.expand(2, 3)[...] += 1


VIEWS: list[Callable[[Any, Any], Any]] = [
    lambda v, d: v[d(st.slices(v.shape[0]))] if v.ndim else v,
    lambda v, d: v[..., d(st.slices(v.shape[-1]))] if v.ndim else v,
    lambda v, d: v[d(st.integers(-v.shape[0], v.shape[0] - 1))] if v.ndim and v.shape[0] else v,
    lambda v, d: v.T,
    lambda v, d: v.reshape(-1),
    lambda v, d: v[None],
    lambda v, d: v.reshape((1, *v.shape)),
    lambda v, d: v.swapaxes(0, -1) if v.ndim else v,
]


WRITES: list[Callable[[Any], Any]] = [
    lambda v: operator.iadd(v, 3.0) if v.ndim else v,
    lambda v: v.__setitem__(..., 5.0),
    lambda v: v.__setitem__(slice(None, None, 2), -1.0) if v.ndim else None,
    lambda v: v.__setitem__(slice(None, None, -1), v.copy()) if v.ndim else None,
    lambda v: v.__setitem__(v > 6, 0.5) if v.ndim else None,
    lambda v: v.__setitem__([0, -1], 8.0) if v.ndim and v.shape[0] else None,
]


@given(st.data())
def test_random_programs_of_views_and_writes(choices: st.DataObject):
    draw = choices.draw
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)))
    a = np.arange(float(math.prod(shape))).reshape(shape)
    arrays: list[Any] = [a]
    tensors: list[Any] = [tj.asarray(a)]
    for _ in range(draw(st.integers(1, 8))):
        which = draw(st.integers(0, len(arrays) - 1))
        if draw(st.booleans()):
            memory: list[Any] = []
            step = VIEWS[draw(st.integers(0, len(VIEWS) - 1))]

            def replay(strategy: Any, memory: list[Any] = memory) -> Any:
                if not memory:
                    memory.append(draw(strategy))
                return memory[0]

            new = step(arrays[which], replay)
            if isinstance(new, np.ndarray) and new.ndim < 7:
                arrays.append(new)
                tensors.append(step(tensors[which], replay))
        elif isinstance(arrays[which], np.ndarray):
            write = WRITES[draw(st.integers(0, len(WRITES) - 1))]
            write(arrays[which])
            write(tensors[which])
    for array, tensor in zip(arrays, tensors, strict=True):
        same(tensor, array)


KEYS: list[Any] = [
    0, -1, slice(1, None), slice(None, None, -1), slice(5, 1, -2), slice(7, 2), ..., None,
    (0, 1), (slice(None), 1), (..., -1), (None, 0, None, ..., None), (1, ..., slice(0, 2)),
    [0, 2], [-1, 0, -1], [[0, 1], [1, 2]], np.array([2, 0]), [], (slice(None), [0, 3]),
    ([0, 1], [1, 2]), ([0, 1], slice(None), [1, 0]), (0, slice(None), [1, 0]),
    (slice(None), 0, [1, 0]), ([[0], [1]], [1, 2]), (None, [0, 1]), ([0, 1], None, [1, 2]),
    (..., [0, 1]), (slice(1, 3), [0, 1], slice(None, None, -1)), (np.int64(1), np.uint8(2)),
    np.array(1), np.array([True, False, True]), (slice(None), np.array([True, False, True, True])),
    (0, np.array([True, False, True, True])), (np.array([[True] * 4, [False] * 4, [True] * 4])),
    (np.array([True, False, True]), [0, 1]), (1, 2, 0), (np.array([], dtype=int), 1),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_keys_read_and_write_as_numpy(key: Any):
    a = np.arange(24).reshape(3, 4, 2)
    x = tj.asarray(a)
    same(x[key], a[key])
    a[key] = -a[key] - 1
    x[key] = -x[key] - 1
    same(x, a)
    a[key] = 5
    x[key] = 5
    same(x, a)
    a[key] += 2
    x[key] += 2
    same(x, a)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "uint64"])
def test_index_dtypes(dtype: str):
    x = tj.arange(5)
    same(x[np.array([3, 1], dtype)], [3, 1])
    same(x[tj.asarray([3, 1], dtype)], [3, 1])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (3, "index 3 is out of range for axis 0 with size 3"),
        ((0, -5), "index -5 is out of range for axis 1 with size 4"),
        ([0, 7], "index 7 is out of range for axis 0 with size 3"),
        ((slice(None), [-9]), "index -9 is out of range for axis 1 with size 4"),
        ((0, 0, 0), "3 indices"),
        ((..., 0, ...), "more than once"),
        (1.0, "not ind"),
        ("a", "not an index"),
        ([True, False], "size 2 along axis 0"),
        ([1.5], "not indices"),
    ],
)
def test_wrong_keys(key: Any, message: str):
    x = tj.zeros((3, 4))
    with pytest.raises(IndexError, match=message):
        _ = x[key]
    with pytest.raises(IndexError, match=message):
        x[key] = 1


def test_wrong_assignments():
    x = tj.zeros((3, 4), dtype="float32")
    with pytest.raises(ValueError, match=r"\(3,\)"):
        x[0] = [1, 2, 3]
    with pytest.raises(ValueError, match="shape"):
        x[[0, 1]] = np.zeros((3, 4))
    with pytest.raises(ValueError, match="shape"):
        x[x == 0] = np.zeros(5)
    with pytest.raises(TypeError):
        x[0] = "text"
    with pytest.raises(TypeError):
        x[0] = 1j
    with pytest.raises(OverflowError):
        tj.zeros(2, dtype="uint8")[0] = 300
    with pytest.raises(ValueError, match="step 0"):
        _ = x[::0]
    with pytest.raises(TypeError):
        _ = x[1.5:]
    x[0] = np.ones((1, 1, 4))
    x[1:, 0] = 2.75
    assert x[0].tolist() == [1, 1, 1, 1]


def test_mask_assignment():
    a = np.arange(6.0).reshape(2, 3)
    x = tj.asarray(a)
    for mask, value in [(a > 2, 0.0), (np.array([True, False]), [7.0, 8.0, 9.0])]:
        a[mask] = value
        x[mask] = value
        same(x, a)
    mask = a > 1
    a[mask] = np.arange(mask.sum())
    x[mask] = tj.arange(int(mask.sum()))
    same(x, a)
