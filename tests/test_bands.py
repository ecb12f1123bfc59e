"""Chains of stencils run by blocks of rows, with a halo: the bits are those of separate kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.runtime import workers
from tracejit.schedule import bands
from tracejit.schedule import schedule as scheduling
from tracejit.schedule.schedule import BandStep, KernelStep, Schedule
from tracejit.schedule.text import schedule_text

Function = Callable[[Any], Any]


@pytest.fixture
def banded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small grids run as large ones do: in several blocks, that fit a tiny cache."""
    monkeypatch.setattr(bands, "MIN_BYTES", 1)
    monkeypatch.setattr(bands, "SHARED_RATE", 1e-3)
    monkeypatch.setattr(bands, "WINDOW_BYTES", 60_000)
    monkeypatch.setattr(bands, "MIN_BLOCKS", 5)


def jacobi(u: Any, sweeps: int = 4) -> Any:
    u = u.copy()
    for _ in range(sweeps):
        u[1:-1, 1:-1] = 0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:])
    return u


def life(u: Any) -> Any:
    for _ in range(3):
        p = np.pad(u, 1)
        near = p[:-2, :-2] + p[:-2, 1:-1] + p[:-2, 2:] + p[1:-1, :-2] + p[1:-1, 2:]
        near = near + p[2:, :-2] + p[2:, 1:-1] + p[2:, 2:]
        u = ((near == 3) | ((u == 1) & (near == 2))).astype(np.uint8)
    return u


def rod(u: Any) -> Any:
    for _ in range(3):
        u = u.copy()
        u[1:-1] = u[1:-1] + 0.125 * (u[:-2] - 2 * u[1:-1] + u[2:])
    return u


def insulated(u: Any) -> Any:
    for _ in range(2):
        u = jacobi(u, 1)
        u[0], u[-1] = u[1], u[-2]
        u[:, 0], u[:, -1] = u[:, 1], u[:, -2]
    return u


def block(u: Any) -> Any:
    for _ in range(2):
        u = u.copy()
        near = u[:-2, 1:-1, 1:-1] + u[2:, 1:-1, 1:-1] + u[1:-1, :-2, 1:-1] + u[1:-1, 2:, 1:-1]
        near = near + u[1:-1, 1:-1, :-2] + u[1:-1, 1:-1, 2:]
        u[1:-1, 1:-1, 1:-1] += 0.125 * (near - 6 * u[1:-1, 1:-1, 1:-1])
    return u


def edges(u: Any) -> Any:
    """An image pipeline: two values wide, upwards and downwards, then two results."""
    p = np.pad(u, ((2, 2), (2, 2)))
    wide = (p[:-4] + p[4:]) * 0.5 + p[2:-2]
    q = np.pad(wide[:, :-4] - wide[:, 4:], ((0, 3), (0, 0)))
    x = np.pad(q[3:] - q[:-3], 1)
    return x[2:] * x[:-2], x[2:, 1:] > x[:-2, 1:]


def outlines(u: Any) -> Any:
    """An image pipeline with borders of the image's own elements: blur, gradient, threshold."""
    p = np.pad(u, 1, mode="edge")
    wide = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
    p = np.pad((wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 16, 1, mode="reflect")
    x = p[:-2, 2:] + 2 * p[1:-1, 2:] + p[2:, 2:] - p[:-2, :-2] - 2 * p[1:-1, :-2] - p[2:, :-2]
    y = p[2:, :-2] + 2 * p[2:, 1:-1] + p[2:, 2:] - p[:-2, :-2] - 2 * p[:-2, 1:-1] - p[:-2, 2:]
    return np.where(x * x + y * y > 0.25, u, 0)


def rows(u: Any) -> Any:
    """Kernels that reduce rows, between stencils."""
    p = np.pad(u, 1)
    v = p[2:, 1:-1] + p[:-2, 1:-1]
    v = np.pad(v - v.max(axis=1, keepdims=True), 1)
    w = v[2:, 1:-1] - v[:-2, 1:-1]
    return w / (1 + np.abs(w).sum(axis=1, keepdims=True))


def data(function: Function, *shape: int) -> Any:
    rng = np.random.default_rng(sum(shape))
    if function is life:
        return rng.integers(0, 2, shape).astype(np.uint8)
    return rng.normal(size=shape).astype(np.float64 if function is rod else np.float32)


def shape_of(function: Function, size: int) -> tuple[int, ...]:
    ranks: dict[Function, tuple[int, ...]] = {rod: (size,), block: (size, 11, 21)}
    return ranks.get(function, (size, 70))


def apart(function: Function, x: Any) -> Any:
    """Return the result of separate kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling, "find_bands", lambda kernels, grids: [])
        return tj.jit(lambda u: function(u), compile="now")(x)


def check(got: Any, expected: Any, tolerance: float = 0.0) -> None:
    """Compare results, which may be tuples; without tolerance bit by bit."""
    pairs = zip(got, expected, strict=True) if type(got) is tuple else [(got, expected)]
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def steps(function: Function, x: Any) -> list[str]:
    return [type(step).__name__ for step in tj.trace(function, x).schedule.steps]


CHAINS = [jacobi, life, rod, insulated, block, edges, outlines, rows]


@pytest.mark.parametrize("function", CHAINS)
@pytest.mark.usefixtures("banded")
def test_bands_have_the_bits_of_separate_kernels(any_level: str, function: Function) -> None:
    assert BandStep.__name__ in steps(function, data(function, *shape_of(function, 61)))
    compiled = tj.jit(function, compile="now")
    for size in (61, 5, 8, 40, 64, 200):
        x = data(function, *shape_of(function, size))
        got = compiled(x)
        check(got, apart(function, x))
        check(got, function(x), 1e-5)


@pytest.mark.parametrize("function", [jacobi, rod, insulated, edges])
@pytest.mark.usefixtures("banded")
def test_any_number_of_threads_computes_the_same(function: Function) -> None:
    x = data(function, *shape_of(function, 300))
    compiled, expected = tj.jit(function, compile="now"), apart(function, x)
    for threads in (1, 2, 3, 5):
        with tj.num_threads(threads):
            for _ in range(4):
                check(compiled(x), expected)


@pytest.mark.parametrize("function", [jacobi, life, insulated])
@pytest.mark.usefixtures("banded")
def test_one_plan_serves_all_sizes(function: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(workers.counts, "in_process", 0)
    compiled = tj.jit(function, compile="now")
    rng = np.random.default_rng(5)
    for _ in range(12):
        x = data(function, *(int(n) for n in rng.integers(70, 140, 2)))
        check(compiled(x), function(x), 1e-5)
    assert compiled.stats()["compiles"] <= 3
    for shape in ((2, 9), (9, 2), (3, 3), (4, 2), (0, 9), (9, 0), (1, 9), (9, 1)):
        if function is not insulated or min(shape) > 1:
            x = data(function, *shape)
            check(compiled(x), function(x), 1e-5)


@pytest.mark.usefixtures("banded")
def test_a_hundred_sweeps_have_the_code_of_few() -> None:
    x = data(jacobi, 50, 70)
    traced = tj.trace(lambda u: jacobi(u, 100), x)
    assert set(steps(lambda u: jacobi(u, 100), x)) == {BandStep.__name__}
    assert len(traced.schedule.steps) > 3
    assert len(traced.kernels) <= 2  # the first sweep may add its operands in another order
    # So is a band of other sweeps, of another height, on another grid.
    more = tj.trace(lambda u: jacobi(u, 90), data(jacobi, 60, 80))
    assert more.kernels[-1].text == traced.kernels[-1].text


@pytest.mark.usefixtures("banded")
def test_bands_may_end_with_two_results_at_different_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a generation stores as truth values and, for the next one, inside a border."""
    monkeypatch.setattr(bands, "MAX_PARTS", 9)

    def long(u: Any) -> Any:
        return life(life(u))

    x = data(life, 61, 70)
    schedule = tj.trace(long, x).schedule
    found = [step.band for step in schedule.steps if isinstance(step, BandStep)]
    assert len(found) >= 2
    assert any(len({k.accesses[s.access].buffer for s in k.stores}) > 1 for k in found[0].kernels)
    check(tj.jit(long, compile="now")(x), long(x))


def test_memory_between_large_sweeps_is_a_few_rows() -> None:
    x = np.zeros((1026, 1026), np.float32)
    schedule: Schedule = tj.kernels.jacobi.trace(x, 8).schedule
    (step,) = schedule.steps
    assert isinstance(step, BandStep)
    assert schedule.arena.nbytes == 0
    assert step.band.nbytes < x.nbytes // 4
    assert step.band.blocks >= bands.MIN_BLOCKS
    # Rows of the windows start on cache lines, but not on the same one of every page.
    assert all(w.row_bytes % 64 == 0 and w.row_bytes % 4096 for w in step.band.windows)


def test_small_grids_run_kernel_by_kernel() -> None:
    assert set(steps(jacobi, data(jacobi, 100, 100))) == {KernelStep.__name__}


@pytest.mark.usefixtures("banded")
def test_what_else_is_a_result_is_stored_by_one_block() -> None:
    def both(u: Any) -> Any:
        v = jacobi(u, 1)
        return v, jacobi(v, 1)

    def middle(u: Any) -> Any:
        v = jacobi(u, 2)
        return v[10:20, 10:20].copy(), jacobi(v, 2)

    for function in (both, middle):
        x = data(function, 80, 70)
        check(tj.jit(function, compile="now")(x), function(x), 1e-5)


@pytest.mark.usefixtures("banded")
def test_the_schedule_explain_and_pictures_show_bands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = data(jacobi, 60, 70)
    text = schedule_text(tj.trace(jacobi, x).schedule)
    assert "for rows [a, b) of 60, 12 at a time (parallel):" in text
    assert "by 1 from a-4 to b+2:" in text
    assert "b1: slab float32[60, 70]" in text
    compiled = tj.jit(jacobi, compile="now")
    compiled(x)
    assert "band" in str(tj.explain(compiled, x))
    traced = tj.trace(jacobi, x)
    page = traced.show(tmp_path / "band.html").read_text(encoding="utf-8")
    assert "for rows [a, b) of 60" in page
    traced.tree()
    assert "1 band" in capsys.readouterr().out


@pytest.mark.usefixtures("banded")
def test_arguments_that_are_written_may_be_bands() -> None:
    @tj.jit(compile="now")
    def relax(u: Any) -> None:
        for _ in range(4):
            u[1:-1, 1:-1] = 0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:])

    x = data(jacobi, 60, 70)
    expected = jacobi(jacobi(x))
    relax(x)
    relax(x)
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
