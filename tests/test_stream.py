"""Stores that bypass the caches: where they are used, and that they change no value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.runtime import cpu
from tracejit.schedule import stream

Array = np.ndarray[Any, Any]


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def centred(x: Any) -> Any:
    return x - x.mean(axis=1, keepdims=True)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stream stores of any size."""
    monkeypatch.setattr(stream, "STREAM_BYTES", 0)
    monkeypatch.setattr(stream, "TOUCHED_BYTES", 0)
    monkeypatch.setattr(stream, "ROW_BYTES", 0)


def streamed(function: Callable[..., Any], *arguments: Array) -> list[frozenset[int]]:
    return [k.streamed for k in tj.trace(function, *arguments).schedule.kernels]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize(
    "shape", [(1, 2), (3, 5), (4, 64), (5, 129), (2, 1000), (130, 17), (400, 16), (300, 32)]
)
def test_streamed_stores_change_no_bit(
    any_level: str, shape: tuple[int, int], dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    x = (9 * rng.standard_normal(shape)).astype(dtype)

    def program(x: Any) -> Any:
        return x * 3 - x, x + 7

    functions: list[Callable[..., Any]] = [program]
    if x.dtype.kind == "f":
        functions.append(softmax)
    for function in functions:
        assert any(streamed(function, x))
        got = tj.jit(function, compile="now")(x)
        monkeypatch.setattr(stream, "STREAM_BYTES", 1 << 60)
        assert not any(streamed(function, x))
        want = tj.jit(function, compile="now")(x)
        monkeypatch.setattr(stream, "STREAM_BYTES", 0)
        np.testing.assert_array_equal(got, want)


@pytest.mark.usefixtures("always")
def test_a_streamed_store_is_followed_by_a_fence(level: str) -> None:
    traced = tj.trace(lambda x: x + 1, np.ones(1000, np.float32))
    lines = [line.split()[0] for line in traced.asm().splitlines() if line.strip()]
    stores = [i for i, op in enumerate(lines) if op in ("movntps", "vmovntps")]
    assert stores
    assert "sfence" in lines[stores[-1] :]
    assert cpu.target().name == level


@pytest.mark.usefixtures("always")
def test_what_is_read_again_goes_through_the_caches() -> None:
    x = np.ones((200, 300), np.float32)
    # The intermediate is read by the product; only the second result leaves.
    h = tj.trace(lambda x: ((x + 1) @ x.T, x - 1), x).schedule
    chosen = [k.accesses[k.stores[s].access].buffer for k in h.kernels for s in k.streamed]
    assert {h.buffers[b].kind for b in chosen} == {"output"}
    assert not any(streamed(lambda x: np.cumsum(x, axis=1), x))
    assert not any(streamed(lambda x: x.T + 1, x))


def test_large_results_are_streamed_and_small_ones_are_not() -> None:
    large, small = np.ones(1 << 22, np.float32), np.ones(1 << 20, np.float32)
    assert streamed(lambda x: x + 1, large) == [frozenset({0})]
    assert streamed(lambda x: x + 1, small) == [frozenset()]


def test_what_counts_is_all_that_a_kernel_touches() -> None:
    rows = np.ones((4096, 768), np.float32)  # 12 MiB
    assert streamed(lambda x: x + 1, rows) == [frozenset({0})]
    assert streamed(lambda x: x + 1, rows[:3000]) == [frozenset()]
    assert streamed(lambda x, y, z: x + y + z, *[rows[:3000].copy() for _ in range(3)]) == [
        frozenset({0})
    ]
    # Short rows that end within a line of the cache are not streamed.
    assert streamed(centred, np.ones((40_000, 200), np.float32)) == [frozenset()]
    assert streamed(centred, np.ones((40_000, 192), np.float32)) == [frozenset({0})]
    # The shifted copies of one array are that array.
    assert streamed(lambda x: x[1:-1] + x[:-2] + x[2:], rows[:3000]) == [frozenset()]


@pytest.mark.usefixtures("always")
def test_chunks_of_any_grain_stream(level: str) -> None:
    x = np.random.default_rng(1).standard_normal(1_000_003).astype(np.float32)
    f = tj.jit(lambda x: x * x - 1, compile="now")
    np.testing.assert_array_equal(f(x), x * x - 1)
    with tj.num_threads(1):
        np.testing.assert_array_equal(f(x), x * x - 1)
