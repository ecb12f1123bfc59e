"""Products of a matrix with its own transpose: one half is computed, the other is its mirror."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_epilogue import TINY_CACHES, random

import tracejit as tj
from tracejit.ops.table import Array
from tracejit.runtime import cpu, engine
from tracejit.runtime.demand import layout_of
from tracejit.runtime.executable import Executable
from tracejit.runtime.interpreter import run_graph
from tracejit.runtime.specialise import request

F32, F64, I32 = (np.dtype(t) for t in ("f4", "f8", "i4"))


def columns(x: Any) -> Any:
    return x.T @ x


def rows(x: Any) -> Any:
    return x @ x.T


def halves(executable: Executable) -> bool:
    """Whether the products of an executable compute one half only."""
    return all("symmetric=True" in c.code.key.structure for c in executable.calls)


def compile_all(function: Callable[..., Any], *values: Array) -> list[Executable]:
    """Compile for true and tiny caches, and compare with the interpreter."""
    graph = tj.trace(function, *values).source
    with np.errstate(all="ignore"):
        (want,) = run_graph(graph, values)
    found: list[Executable] = []
    for target in (cpu.target(), cpu.target().with_caches(*TINY_CACHES)):
        found.append(engine.compile_graph(graph, [layout_of(v) for v in values], target=target))
        (got,) = found[-1].run(values)
        tight = {F32: 3e-4, F64: 1e-11}.get(want.dtype, 0.0)
        np.testing.assert_allclose(got, want, rtol=tight, atol=tight)
        if halves(found[-1]):
            turned = np.swapaxes(got, -1, -2)
            np.testing.assert_array_equal(np.isnan(got), np.isnan(turned))
            assert np.nan_to_num(got).tobytes() == np.nan_to_num(turned).tobytes()
    return found


@pytest.mark.parametrize("dtype", [F32, F64, I32], ids=str)
@pytest.mark.parametrize("function", [columns, rows], ids=lambda f: f.__name__)
def test_both_halves_have_the_same_bits(
    any_level: str, function: Callable[..., Any], dtype: np.dtype[Any]
) -> None:
    rng = np.random.default_rng(1)
    for n, k in [(96, 24), (97, 30), (100, 0), (111, 129), (128, 64), (130, 300), (300, 140)]:
        x = random(rng, (n, k) if function is rows else (k, n), dtype)
        assert all(map(halves, compile_all(function, x)))


def test_large_ones_pack_ahead_and_are_cut_into_tiles(level: str) -> None:
    rng = np.random.default_rng(2)
    for n, k in [(515, 130), (700, 600)]:
        for executable in compile_all(rows, random(rng, (n, k), F32)):
            assert halves(executable)
            assert len(executable.calls) > 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.einsum("ki,kj->ij", x, x),
        lambda x: np.einsum("ik,jk->ij", x, x),
        lambda x: np.inner(x, x),
        lambda x: np.tensordot(x, x, axes=([0], [0])),
        lambda x: np.matmul(np.swapaxes(x, 0, 1), x),
        lambda x: x[::2, 3:].T @ x[::2, 3:],
        lambda x: x[:, ::-1].T @ x[:, ::-1],
    ],
    ids=["einsum", "einsum rows", "inner", "tensordot", "swapaxes", "slices", "backwards"],
)
def test_other_spellings(function: Callable[..., Any]) -> None:
    x = random(np.random.default_rng(3), (150, 140), F64)
    assert all(map(halves, compile_all(function, x)))
    assert all(map(halves, compile_all(function, np.asfortranarray(x))))


def test_batches_and_covariance(any_level: str) -> None:
    rng = np.random.default_rng(4)
    x = random(rng, (3, 50, 110), F64)
    assert all(map(halves, compile_all(lambda x: np.swapaxes(x, 1, 2) @ x, x)))

    def covariance(x: Any) -> Any:
        centred = x - x.mean(axis=0)
        return centred.T @ centred / (len(x) - 1)

    def kernel(x: Any, scale: Any) -> Any:
        return np.exp(-scale * (x @ x.T))

    for executable in compile_all(covariance, x[0]):
        assert "symmetric=True" in executable.calls[-1].code.key.structure
    compile_all(kernel, random(rng, (140, 30), F32) / 10, np.array(0.3, F32))
    compile_all(kernel, random(rng, (140, 30), F64) / 10, random(rng, (140,), F64))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x, y: x.T @ y, [(120, 120)] * 2),
        (lambda x: x @ x, [(120, 120)]),
        (lambda x: x[:, :120].T @ x[:, 1:121], [(64, 121)]),
        (lambda x: x[:64].T @ x[64:], [(128, 120)]),
        (lambda x, b: x.T @ x + b, [(64, 120), (120,)]),
        (lambda x, b: x.T @ x * b[:, None], [(64, 120), (120,)]),
        (lambda x, b: x.T @ x - b, [(64, 120), (120, 120)]),
        (lambda x: np.tril(x.T @ x), [(64, 120)]),
        (lambda x: (x.T @ x).max(axis=1), [(64, 120)]),
        (lambda x: x.T @ x, [(64, 20)]),
    ],
    ids=[
        "two matrices",
        "square",
        "shifted",
        "other rows",
        "by columns",
        "by rows",
        "by element",
        "triangle",
        "rows of it",
        "small",
    ],
)
def test_other_products_are_computed_as_a_whole(
    function: Callable[..., Any], shapes: list[tuple[int, ...]]
) -> None:
    rng = np.random.default_rng(5)
    values = [random(rng, shape, F64) for shape in shapes]
    assert not any(map(halves, compile_all(function, *values)))


def test_nan_and_infinity(any_level: str) -> None:
    x = random(np.random.default_rng(6), (40, 130), F32)
    x[3, 5], x[7, 100], x[9, 9], x[:, 64] = np.nan, np.inf, -np.inf, -0.0
    compile_all(columns, x)


def test_threads_and_constant_sizes_do_not_change_bits() -> None:
    x = random(np.random.default_rng(7), (900, 530), F32)
    found: set[bytes] = set()
    for threads in (1, 2, 3):
        with tj.num_threads(threads):
            executable = tj.trace(columns, x).executable
            for _ in range(5):
                found.add(executable.run([x])[0].tobytes())
            executable.use([request(call).result() for call in executable.calls])
            found.add(executable.run([x])[0].tobytes())
    assert len(found) == 1


def test_the_result_equals_that_of_the_whole_product() -> None:
    x = random(np.random.default_rng(8), (200, 200), F64)
    (half,) = tj.trace(columns, x).executable.run([x])
    (whole,) = tj.trace(lambda x, y: x.T @ y, x, x.copy()).executable.run([x, x.copy()])
    assert half.tobytes() == whole.tobytes()


def test_sizes_may_vary() -> None:
    jitted = tj.jit(columns, compile="now", dynamic=True)
    for n in (200, 97, 30, 1, 96, 95, 333):
        x = random(np.random.default_rng(n), (40, n), F64)
        np.testing.assert_allclose(jitted(x), columns(x), rtol=1e-11, atol=1e-11)
