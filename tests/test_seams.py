"""Cycles are index maps with seams, which loops run between: np.roll without a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.graph.passes import canonicalise
from tracejit.runtime import service
from tracejit.schedule import stream
from tracejit.schedule.text import schedule_text

Function = Callable[..., Any]


def diffuse(u: Any) -> Any:
    around = np.roll(u, 1, 0) + np.roll(u, -1, 0) + np.roll(u, 1, 1) + np.roll(u, -1, 1)
    return u + 0.125 * (around - 4 * u)


def twice(u: Any) -> Any:
    return diffuse(diffuse(u))


def life(u: Any) -> Any:
    alive = u > 0
    cells = alive.astype(np.int8)
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    near = sum(np.roll(np.roll(cells, i, 0), j, 1) for i, j in steps)
    return (near == 3) | (alive & (near == 2))


def far(u: Any) -> Any:
    """Shifts of several and of more than all elements, and one after work on the other."""
    return np.roll(2 * np.roll(u, 5, 1) + u, (-3, 40), (0, 1)) - np.roll(u, 2)


def turned(u: Any) -> Any:
    return np.roll(u, 1, 0).T + np.roll(u.T, 1, 1) * np.roll(u[::-1], 1, 0)[:, ::-1].T


def parts(u: Any) -> Any:
    return np.roll(u, 1, 1)[::2, 1:] * np.roll(u, 3, 0)[::2, :-1], np.roll(u, 1, 1)[:, 1:]


def written_out(u: Any) -> Any:
    return u - np.concatenate([u[-2:], u[:-2]]) + np.concatenate([u[:, 1:], u[:, :1]], 1)


def counted(u: Any) -> Any:
    return u * np.roll(np.arange(u.shape[1]), 3) + np.roll(u[np.array([0, -1, 0])], 1, 1).sum()


def rows(u: Any) -> Any:
    moved = np.roll(u, 1, 1)
    return moved.max(1), moved.argmax(1), (moved > u).sum(), np.roll(u, 2, 0).min(0)


def means(u: Any) -> Any:
    return np.roll(u.max(1), 1)[:, None] * u, np.roll(u, 1, 1).max(1)


def scattered(u: Any) -> Any:
    v = np.zeros_like(u)
    np.add.at(v, np.array([1, 1, 2]), np.roll(u, 1, 0)[:3])
    return v


def ghosts(u: Any) -> Any:
    """Borders of elements from the other side, as wide as the grid and wider."""
    p = np.pad(u, 1, mode="wrap")
    around = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]
    wide = np.concatenate([u, u[:1]]) * 2
    return around * u, np.pad(u, (2, 5), mode="wrap"), wide, np.concatenate([u, u, u], 1) + 1


PROGRAMS = [diffuse, twice, life, far, turned, parts, written_out, counted, rows, means, ghosts]


def same(function: Function, *args: Any) -> None:
    """What kernels compute has the bits of NumPy's own: nothing here rounds in another order."""
    got, expected = tj.trace(function, *args)(*args), function(*args)
    for a, b in zip(*(r if type(r) is tuple else (r,) for r in (got, expected)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("function", PROGRAMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("any_level")
def test_values_are_numpys(function: Function, dtype: type) -> None:
    rng = np.random.default_rng(3)
    for shape in ((3, 7), (2, 4), (16, 9), (33, 70)):
        same(function, rng.integers(-9, 9, shape).astype(dtype))


@pytest.mark.parametrize("n", [1, 2, 3, 15, 16, 17, 63, 64, 65, 200])
def test_a_seam_anywhere_in_a_vector(n: int, level: str) -> None:
    x = np.arange(n, dtype=np.float32)
    x[0] = np.nan
    step = tj.jit(lambda x: (np.roll(x, 1) - x) * np.roll(x, -2), compile="now")
    np.testing.assert_array_equal(step(x), (np.roll(x, 1) - x) * np.roll(x, -2))
    whole = tj.jit(lambda x: np.roll(x, n // 2 + 1), compile="now")
    np.testing.assert_array_equal(whole(x), np.roll(x, n // 2 + 1))


def test_strided_and_empty_operands(level: str) -> None:
    u = np.random.default_rng(4).integers(-9, 9, (40, 62)).astype(np.float64)
    for view in (u.T, u[::2, ::3], u[::-1, 1:], u[:0], u[:, :0], np.broadcast_to(u[0], (5, 62))):
        same(diffuse, view)


@pytest.mark.parametrize("threads", [1, 2])
def test_large_grids(threads: int) -> None:
    u = np.random.default_rng(5).integers(-9, 9, (600, 1100)).astype(np.float32)
    cube = u[:480].reshape(80, 60, 110)
    with tj.num_threads(threads):
        same(diffuse, u)
        same(lambda c: sum(np.roll(c, s, a) for a in range(3) for s in (1, -1)) - 6 * c, cube)


def test_sums_have_the_same_bits_for_any_number_of_threads() -> None:
    u = np.random.default_rng(6).normal(size=(700, 900)).astype(np.float32)
    traced = tj.trace(lambda u: ((np.roll(u, 1, 1) - u) ** 2).sum(1), u)
    with tj.num_threads(1):
        one = traced(u)
    with tj.num_threads(2):
        np.testing.assert_array_equal(traced(u), one)
    np.testing.assert_allclose(one, ((np.roll(u, 1, 1) - u) ** 2).sum(1), rtol=1e-5)


def test_a_periodic_stencil_is_one_kernel() -> None:
    u = np.zeros((50, 60))

    def padded(u: Any) -> Any:
        p = np.pad(u, 1, mode="wrap")
        return p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * u

    for function in (diffuse, life, padded, lambda u: np.roll(u, 3, 1) * np.roll(u, 2, 0)):
        (kernel,) = tj.trace(function, u).schedule.kernels
        assert len({access.buffer for access in kernel.accesses}) == 2
    assert "(i >= 1)" in schedule_text(tj.trace(diffuse, u).schedule)


def test_cycles_of_whole_rows_run_through_them() -> None:
    (kernel,) = tj.trace(lambda u: np.roll(u, 2, 0) + u, np.zeros((50, 60))).schedule.kernels
    assert kernel.extents == (3000,)
    assert kernel.seams == ((0, 120),)


def test_a_slice_on_one_side_of_the_seam_has_none() -> None:
    (kernel,) = tj.trace(lambda u: np.roll(u, 1)[1:] - u[1:], np.zeros(100)).schedule.kernels
    assert not kernel.seams


def test_what_cannot_run_from_seam_to_seam_reads_a_stored_cycle() -> None:
    u = np.random.default_rng(7).integers(-3, 3, (30, 40)).astype(np.float32)
    w = u.T[:, :20]
    for function in (
        lambda u: np.cumsum(np.roll(u, 1, 1), 1),
        lambda u: np.roll(u, 1, 0) @ w + np.roll(u, 1, 1)[:, :20],
        lambda u: np.linalg.norm(np.roll(u, 1, 0) @ w, axis=1) * np.roll(u[:, 0], 1),
        lambda u: np.roll(u, 1, 0)[np.array([3, 0, -1])],
        scattered,
    ):
        compiled: Any = tj.jit(function, compile="now")
        np.testing.assert_allclose(compiled(u), function(u), rtol=1e-5, atol=1e-4)


def test_other_sizes_and_shifts_run_the_same_code() -> None:
    tj.trace(lambda u: u * np.roll(u, 3, 1), np.ones((40, 90)))
    before = service.compiles()
    tj.trace(lambda u: u * np.roll(u, -7, 1), np.ones((31, 77)))
    assert service.compiles() == before


def test_sizes_that_change_run_kernels_for_all_of_them() -> None:
    step: Any = tj.jit(diffuse, compile="now")
    for n in (8, 21, 34, 50, 64, 77):
        u = np.random.default_rng(n).integers(-9, 9, (n, n + 5)).astype(np.float64)
        np.testing.assert_array_equal(step(u), diffuse(u))
    assert step.stats()["recompiles"] <= 1


def test_joins_of_pieces_in_a_ring_are_cycles() -> None:
    u = np.zeros((8, 9))

    def ops(function: Function) -> list[str]:
        graph = canonicalise(tj.trace(function, u).source, verify=True)
        return [n.op.name for n in graph.nodes if n.op.name in ("concat", "cycle")]

    assert ops(lambda u: np.concatenate([u[3:], u[:3]])) == ["cycle"]
    assert ops(lambda u: np.roll(np.roll(u, 3, 0), -1, 0)) == ["cycle"]
    assert ops(lambda u: np.roll(np.roll(u, 3, 0), -3, 0)) == []
    assert ops(lambda u: np.pad(u, 2, mode="wrap")) == ["cycle", "cycle"]
    assert ops(lambda u: np.concatenate([u[1:], u, u[:2]])) == ["cycle"]
    assert ops(lambda u: np.concatenate([u[:3], u[3:]])) == []
    for other in (
        lambda u: np.concatenate([u[3:7], u[:3]]),
        lambda u: np.concatenate([u[3:], u[1:3]]),
        lambda u: np.concatenate([u[3:, ::-1], u[:3, ::-1]]),
        lambda u: np.concatenate([u[3:], u[:3] + 1]),
    ):
        assert ops(other) == ["concat"]


def test_a_chain_of_stencils_is_one_kernel_a_sweep() -> None:
    u = np.zeros((50, 60))
    assert len(tj.trace(twice, u).schedule.kernels) == 2
    halves = tj.trace(lambda u: (v := 3 * np.abs(u) ** 3 - u)[::2] * v[1::2], u)
    assert len(halves.schedule.kernels) == 1  # nothing is computed twice


def test_streamed_stores_start_anew_at_seams(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "TOUCHED_BYTES", 1)
    monkeypatch.setattr(stream, "STREAM_BYTES", 1)
    x = np.arange(4000, dtype=np.float32)
    for shift in (1, 16, 2023, 3999):

        def moved(x: Any, shift: int = shift) -> Any:
            return np.roll(x, shift) - np.roll(x, -7)

        traced = tj.trace(moved, x)
        assert traced.schedule.kernels[0].streamed
        np.testing.assert_array_equal(traced(x), moved(x))
    rows = x.reshape(5, 800)
    step = tj.trace(diffuse, rows)
    assert step.schedule.kernels[0].streamed
    np.testing.assert_array_equal(step(rows), diffuse(rows))
