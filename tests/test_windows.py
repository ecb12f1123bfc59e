"""Products that pack windows, and other merged axes, instead of storing them."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from gemm_harness import kernel
from numpy.lib.stride_tricks import sliding_window_view
from test_gemm import DTYPES, TARGETS, TINY_CACHES, check, random

import tracejit as tj
from tracejit import config
from tracejit.codegen.contraction import (
    FEW_ROWS,
    GemmProblem,
    classify,
    gather_of,
    gemm_arguments,
    tile_count,
    with_table,
    workspace_bytes,
)
from tracejit.codegen.target import Target
from tracejit.ops.movement import axis_runs
from tracejit.schedule.merged import Border, Walk, Walks, collapsed, offsets

Array = np.ndarray[Any, np.dtype[Any]]


def windows_product(
    target: Target, a: Array, x: Array, tap: tuple[int, int], step: int, pad: tuple[int, int]
) -> None:
    """Check a @ P for the windows P of one image x [H, W] that is padded with ``pad`` zeros around;
    every split of the tiles, too."""
    item, (kh, kw) = x.itemsize, tap
    windows = sliding_window_view(np.pad(x, [(p, p) for p in pad]), tap)[::step, ::step]
    rows, width = windows.shape[:2]
    by_row, by_column = (s // item for s in x.strides)
    none = (0, 0)
    borders = [
        Border(extent, -p, *((s, 0) if axis == 0 else (0, s) for s in (1, step)))
        for axis, (extent, p) in enumerate(zip(x.shape, pad, strict=True))
        if p
    ]
    gather = gather_of(
        Walks(
            (Walk(kh, by_row), Walk(kw, by_column)),
            (Walk(rows, step * by_row), Walk(width, step * by_column)),
            tuple(borders),
            -pad[0] * by_row - pad[1] * by_column,
        ),
        a.shape[0],
    )
    assert (gather.edges == ()) == (pad == none)
    m, n, k = a.shape[0], rows * width, kh * kw
    c = np.empty((m, n), x.dtype)
    strides = (a.strides[0] // item, a.strides[1] // item)
    problem = GemmProblem(m, n, k, strides, (0, 0), (n, 1), gather=gather)
    spec = classify(target, x.dtype, problem)
    assert spec.kind == ("direct" if m <= FEW_ROWS else "gemm")
    loaded, entry = kernel(target.with_caches(0, 0, 0), spec)
    raw = np.full(workspace_bytes(spec, target, problem) + 64, 0xA5, np.uint8)
    work = raw.ctypes.data + -raw.ctypes.data % 64
    numbers = with_table(gemm_arguments(spec, target, problem).sizes, problem)
    sizes = (ctypes.c_int64 * len(numbers))(*numbers)
    ptrs = (ctypes.c_void_p * 4)(a.ctypes.data, x.ctypes.data, c.ctypes.data, work)
    tiles = tile_count(spec, target, problem)
    matrix = windows.reshape(n, k).T
    entry(ptrs, sizes, 0, tiles)  # type: ignore[operator]
    check(a, matrix, c)
    whole = c.tobytes()
    c[...] = 77
    for tile in reversed(range(tiles)):
        entry(ptrs, sizes, tile, tile + 1)  # type: ignore[operator]
    assert c.tobytes() == whole
    del loaded


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
def test_packed_windows(target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    small = target.with_caches(*TINY_CACHES)
    sizes = [(3, 3), (1, 40), (9, 7), (6, 17), (21, 35), (5, 64)]
    for (h, w), tap, step, m in itertools.product(
        sizes, [(1, 1), (3, 2), (5, 9)], (1, 2, 3), (1, 17)
    ):
        if tap[0] > h or tap[1] > w:
            continue
        x, a = random(rng, (h, w), dtype), random(rng, (m, tap[0] * tap[1]), dtype)
        windows_product(small, a, x, tap, step, (0, 0))
        if step < 3:
            spread = np.empty((2 * h, 2 * w), dtype)[::-2, ::2]
            spread[...] = x
            windows_product(small, a, spread, tap, step, (0, 0))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: np.dtype(t).name)
def test_packed_windows_of_a_padded_image(target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(6)
    small = target.with_caches(*TINY_CACHES)
    sizes = [(3, 3), (1, 40), (9, 7), (6, 16), (5, 37)]
    for (h, w), (tap, pad), step in itertools.product(
        sizes, [((3, 3), (1, 1)), ((1, 5), (0, 4)), ((4, 2), (3, 1)), ((3, 3), (5, 2))], (1, 2, 3)
    ):
        if tap[0] > h + 2 * pad[0] or tap[1] > w + 2 * pad[1]:
            continue
        for m in (5, 9):
            x, a = random(rng, (h, w), dtype), random(rng, (m, tap[0] * tap[1]), dtype)
            windows_product(small, a, x, tap, step, pad)
            windows_product(small, a, x[::-1, ::-1], tap, step, pad)


@pytest.mark.parametrize("l2", [16 << 10, 1 << 20])
def test_tiles_of_windows_by_rows_and_by_columns(l2: int) -> None:
    """600 rows of weights are near a large cache, and far from a small one."""
    rng = np.random.default_rng(7)
    target = TARGETS[-1].with_caches(16 << 10, l2, 1 << 20)
    a, x = random(rng, (600, 9), np.float32), random(rng, (30, 33), np.float32)
    windows_product(target, a, x, (3, 3), 1, (1, 1))


def test_nothing_is_read_beyond_the_image() -> None:
    """The image ends where a page does that must not be touched."""
    import mmap

    page = mmap.PAGESIZE
    libc = ctypes.CDLL(None)
    block = mmap.mmap(-1, 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    raw = np.frombuffer(block, np.float32)
    if libc.mprotect(ctypes.c_void_p(address + page), page, 0) != 0:
        pytest.skip("memory cannot be protected here")
    try:
        rng = np.random.default_rng(2)
        for target, step, (h, w), pad, m in itertools.product(
            TARGETS, (1, 2, 3), [(5, 33), (7, 20)], [(0, 0), (1, 2)], (4, 9)
        ):
            x = raw[page // 4 - h * w : page // 4].reshape(h, w)
            x[...] = rng.standard_normal((h, w))
            windows_product(target, random(rng, (m, 6), np.float32), x, (2, 3), step, pad)
    finally:
        libc.mprotect(ctypes.c_void_p(address + page), page, 3)


def test_axes_merge_and_walks_collapse() -> None:
    assert axis_runs((2, 45, 560), (2, 5, 3, 3, 14, 40)) == [[0], [1, 2, 3], [4, 5]]
    assert axis_runs((1, 5, 6), (5, 1, 2, 3)) == [[], [0], [2, 3]]
    assert axis_runs((4, 6), (6, 4)) is None
    assert axis_runs((4,), (2, 2, 2)) is None
    assert collapsed([Walk(5, 60), Walk(6, 10), Walk(10, 1)]) == [Walk(300, 1)]
    assert collapsed([Walk(3, 42), Walk(3, 1)]) == [Walk(3, 42), Walk(3, 1)]
    assert offsets([Walk(2, 10), Walk(3, -1)]) == [0, -1, -2, 10, 9, 8]


def test_convolution_stores_neither_windows_nor_the_padded_image() -> None:
    x, w = np.ones((1, 8, 20, 20), np.float32), np.ones((8, 8, 3, 3), np.float32)
    for padding in (0, 1, (2, 0)):
        schedule = tj.trace(lambda x, w, p=padding: tj.nn.conv2d(x, w, padding=p), x, w).schedule
        assert schedule.arena.nbytes == 0
        assert len(schedule.steps) == 1


def test_padding_that_others_read_or_that_is_not_zero_is_stored(level: str) -> None:
    rng = np.random.default_rng(8)
    x, w = rng.standard_normal((2, 5, 9, 20)), rng.standard_normal((7, 5, 3, 3))
    edge = ((0, 0), (0, 0), (1, 1), (1, 1))

    def shared(x: Any, w: Any) -> Any:
        wide = np.pad(x, edge)
        return tj.nn.conv2d(wide, w), np.exp(wide)

    def filled(x: Any, w: Any) -> Any:
        return tj.nn.conv2d(np.pad(x, edge, constant_values=2.5), w)

    def negative(x: Any, w: Any) -> Any:
        return tj.nn.conv2d(np.pad(x, edge, constant_values=-0.0), w)

    def around_batches(x: Any, w: Any) -> Any:
        return tj.nn.conv2d(np.pad(x, ((1, 0), (0, 0), (2, 1), (0, 1))), w)

    def twice(x: Any, w: Any) -> Any:
        return tj.nn.conv2d(np.pad(np.pad(x, edge)[:, :, ::-1], edge), w, padding=1, stride=2)

    for program in (shared, filled, negative, around_batches, twice):
        with config.override(disable_jit=True):
            wanted = program(*map(tj.asarray, (x, w)))
        got = tj.jit(program, compile="now")(x, w)
        pairs = zip(got, wanted, strict=True) if isinstance(got, tuple) else [(got, wanted)]
        for mine, theirs in pairs:
            np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-11, atol=1e-11)


def test_a_padded_image_meets_infinite_weights(level: str) -> None:
    """Zeros of the padding are multiplied like others: 0 · inf is NaN, at the border only."""
    x, w = np.ones((1, 1, 6, 20), np.float32), np.ones((2, 1, 3, 3), np.float32)
    w[1, 0, 0, 1] = np.inf
    got = tj.jit(lambda x, w: tj.nn.conv2d(x, w, padding=1), compile="now")(x, w)
    assert np.isfinite(got[0, 0]).all()
    assert np.isnan(got[0, 1, 0]).all()
    assert np.isposinf(got[0, 1, 1:]).all()


def test_a_product_reads_merged_axes_in_place(level: str) -> None:
    """Also without a convolution: a permuted operand of tensordot is packed, not copied."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((5, 6, 7)), rng.standard_normal((7, 9, 6, 4))

    def program(a: Any, b: Any) -> Any:
        return np.tensordot(a, b, ((1, 2), (2, 0)))

    schedule = tj.trace(program, a, b).schedule
    assert len(schedule.steps) == 1
    np.testing.assert_allclose(tj.jit(program)(a, b), program(a, b), rtol=1e-12)
    turned = b[::-1, :, ::-1]
    np.testing.assert_allclose(tj.jit(program)(a, turned), program(a, turned), rtol=1e-12)


def test_work_after_a_convolution_keeps_the_shape_of_its_product(level: str) -> None:
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((2, 5, 9, 20)), rng.standard_normal((7, 5, 3, 3))
    bias, other, field = (rng.standard_normal(s) for s in ((7,), (2, 7, 9, 20), (9, 20)))

    def program(x: Any, w: Any, bias: Any, other: Any, field: Any) -> Any:
        y = tj.nn.relu(tj.nn.conv2d(x, w, bias, padding=1) + other)
        return y * field, y - np.sin(other)

    traced = tj.trace(program, x, w, bias, other, field)
    nodes = {n.op.name: n for n in traced.graph.nodes}
    assert nodes["maximum"].shape == nodes["multiply"].shape == (2, 7, 180)
    # sin(other) would have to be stored to be seen under the product's shape.
    assert nodes["subtract"].shape == (2, 7, 9, 20)
    with config.override(disable_jit=True):
        wanted = [y.numpy() for y in program(*map(tj.asarray, (x, w, bias, other, field)))]
    for got, want in zip(tj.jit(program)(x, w, bias, other, field), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)


def test_batch_norm_residual_and_relu_are_the_epilogue_of_a_convolution(level: str) -> None:
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((2, 5, 9, 20)), rng.standard_normal((7, 5, 3, 3))
    mean, gain, shift = rng.standard_normal((3, 7))
    variance, other = rng.uniform(1, 2, 7), rng.standard_normal((2, 7, 7, 18))

    def program(x: Any, w: Any, m: Any, v: Any, g: Any, s: Any, other: Any) -> Any:
        y = tj.nn.conv2d(x, w)
        return tj.nn.relu(tj.nn.batch_norm(y, m, v, g, s) + other)

    arrays = (x, w, mean, variance, gain, shift, other)
    schedule = tj.trace(program, *arrays).schedule
    assert len(schedule.steps) == 1
    assert schedule.arena.nbytes == 0
    with config.override(disable_jit=True):
        wanted = program(*map(tj.asarray, arrays)).numpy()
    np.testing.assert_allclose(tj.jit(program)(*arrays), wanted, rtol=1e-11, atol=1e-11)
