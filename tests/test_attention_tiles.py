"""Attention in tile registers: error bounds, numbers that tiles do not take, layouts and edges."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.codegen.attention import spec
from tracejit.codegen.attention.spec import split_pays
from tracejit.ops.table import Array
from tracejit.runtime import cpu

F32 = np.float32
attention = tj.nn.scaled_dot_product_attention

pytestmark = [
    pytest.mark.skipif(not cpu.target().tiles, reason="no AMX, or no leave to use it"),
    pytest.mark.usefixtures("highest", "always"),
]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split small heads too."""
    monkeypatch.setattr(spec, "split_pays", lambda *_: True)


def heads(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape, F32)


def scores_of(q: Array, k: Array) -> Array:
    scale = 1 / np.sqrt(q.shape[-1])
    return q.astype(np.float64) @ np.swapaxes(k, -1, -2).astype(np.float64) * scale


def hidden(scores: Array) -> Array:
    return np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)


def weights_of(scores: Array) -> Array:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def compute(function: Any, *values: Array) -> Array:
    traced = tj.trace(function, *values)
    (call,) = traced.executable.calls
    assert "split=True" in call.code.key.structure
    (got,) = traced.executable.run(values)
    assert got.dtype == F32
    return got


def check(got: Array, scores: Array, v: Array, spread: float) -> None:
    """Compare with float64. ``spread`` bounds the error of a score; each changes its weight by as
    much, and the largest of them all together; then the product has its own roundings."""
    weights, wide = weights_of(scores), v.astype(np.float64)
    bound = (2 * spread + 12 * 2.0**-24) * (weights @ np.abs(wide)) + 2.0**-149
    assert (np.abs(got - weights @ wide) <= bound).all()


def spread(q: Array, k: Array) -> float:
    """Return what the error of a score is at most: some roundings of Σ |q|·|k|, and those of the
    difference from the largest."""
    magnitude = scores_of(np.abs(q), np.abs(k)).max()
    return 4 * 2.0**-24 * magnitude


@pytest.mark.parametrize("causal", [False, True])
def test_error_bounds(causal: bool) -> None:
    rng = np.random.default_rng(1)
    for size, width in [((2, 200), 64), ((300,), 33)]:
        q, k, v = (heads(rng, *size, width) for _ in range(3))
        got = compute(lambda q, k, v: attention(q, k, v, is_causal=causal), q, k, v)
        scores = scores_of(q, k)
        check(got, hidden(scores) if causal else scores, v, spread(q, k))


def test_sizes_around_the_tiles() -> None:
    """Queries, keys, depth and columns below, at and above a tile, and two blocks of keys."""
    rng = np.random.default_rng(2)
    sizes = [9, 15, 16, 17, 31, 32, 33, 65]
    for number, queries in enumerate(sizes):
        keys = [2, 16, 31, 32, 33, 127, 129, 300][(3 * number + 1) % 8]
        depth, columns = sizes[(number + 5) % 8], sizes[(3 * number + 2) % 8]
        q, k, v = heads(rng, queries, depth), heads(rng, keys, depth), heads(rng, keys, columns)
        got = compute(lambda q, k, v: attention(q, k, v), q, k, v)
        check(got, scores_of(q, k), v, spread(q, k))
        got = compute(lambda q, k, v: attention(q, k, v, is_causal=True), q, k, v)
        check(got, hidden(scores_of(q, k)), v, spread(q, k))


def test_layouts_masks_and_groups() -> None:
    rng = np.random.default_rng(3)
    x = heads(rng, 2, 50, 3, 4, 40)  # [batch, position, q k v, head, depth]
    q, k, v = (np.swapaxes(x[:, :, i], 1, 2) for i in range(3))
    check(compute(lambda q, k, v: attention(q, k, v), q, k, v), scores_of(q, k), v, spread(q, k))
    columns = [np.asfortranarray(heads(rng, 70, 40)) for _ in range(3)]
    gaps = [heads(rng, 140, 80)[::-2, ::2] for _ in range(3)]
    for q, k, v in (columns, gaps):
        got = compute(lambda q, k, v: attention(q, k, v), q, k, v)
        check(got, scores_of(q, k), v, spread(q, k))
    q, k, v = heads(rng, 2, 6, 70, 32), heads(rng, 2, 2, 80, 32), heads(rng, 2, 2, 80, 40)
    mask = heads(rng, 70, 80)
    got = compute(lambda q, k, v, m: attention(q, k, v, m, enable_gqa=True), q, k, v, mask)
    k, v = np.repeat(k, 3, axis=1), np.repeat(v, 3, axis=1)
    check(got, scores_of(q, k) + mask, v, spread(q, k) + 2.0**-21)
    kept = rng.random((70, 80)) < 0.5
    kept[:, 3] = True
    got = compute(lambda q, k, v, m: attention(q, k, v, m), q, k, v, kept)
    check(got, np.where(kept, scores_of(q, k), -np.inf), v, spread(q, k))


@pytest.mark.parametrize("value", [1e-44, 1e-38, np.inf, -np.inf, np.nan, 3e38, 2.0**103, 0.0])
def test_numbers_that_tiles_do_not_take(value: float) -> None:
    """Each is alone in one of the operands, and does to the result what it does in float64."""
    rng = np.random.default_rng(4)
    for side, place in itertools.product(range(3), [(0, 0), (17, 33), (70, 7)]):
        operands = [heads(rng, 90, 40), heads(rng, 140, 40), heads(rng, 140, 40)]
        operands[side][place] = value
        q, k, v = operands
        got = compute(lambda q, k, v: attention(q, k, v), q, k, v)
        with np.errstate(all="ignore"):
            scores = scores_of(q, k)
            want = weights_of(scores) @ v.astype(np.float64)
            narrow = want.astype(F32)
            # Scores that float32 cannot hold, or cannot tell apart, are another matter.
            largest = np.abs(np.where(np.isfinite(scores), scores, 0)).max(axis=1)
        held, sure = largest < 1e37, np.isfinite(narrow).all(axis=1) & (largest < 1e3)
        assert held.sum() >= 89 or side == 1
        np.testing.assert_array_equal(np.isnan(got)[held], np.isnan(want)[held])
        infinite = np.isinf(want) & held[:, None]
        np.testing.assert_array_equal(got[infinite], narrow[infinite])
        np.testing.assert_allclose(got[sure], want[sure], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exponent", [-149, -120, -60, 60, 66, 100, 115])
def test_ranges_of_values(exponent: int) -> None:
    rng = np.random.default_rng(5)
    q, k = heads(rng, 64, 32), heads(rng, 200, 32)
    v = np.ldexp(rng.uniform(0.5, 1, (200, 40)), exponent).astype(F32)
    got = compute(lambda q, k, v: attention(q, k, v), q, k, v)
    check(got, scores_of(q, k), v, spread(q, k))


def test_queries_and_keys_of_very_different_size() -> None:
    rng = np.random.default_rng(6)
    for exponent in (-120, -70, 70, 120):
        q, k = (np.ldexp(heads(rng, 140, 32), e).astype(F32) for e in (exponent, -exponent))
        v = heads(rng, 140, 40)
        got = compute(lambda q, k, v: attention(q, k, v), q, k, v)
        check(got, scores_of(q, k), v, spread(q, k))


def test_same_bits_for_any_thread_count() -> None:
    rng = np.random.default_rng(7)
    q, k, v = (heads(rng, 3, 700, 64) for _ in range(3))
    v[1, 300, 5] = 1e-42
    results: list[bytes] = []
    for threads in (1, 2):
        with tj.num_threads(threads):
            results.append(compute(lambda q, k, v: attention(q, k, v), q, k, v).tobytes())
    assert results[0] == results[1]


def test_small_heads_and_other_levels_have_no_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec, "split_pays", split_pays)
    rng = np.random.default_rng(8)

    def text(queries: int, width: int) -> str:
        q, k, v = (heads(rng, queries, width) for _ in range(3))
        return tj.trace(lambda q, k, v: attention(q, k, v), q, k, v).asm()

    assert "tdpbf16ps" in text(128, 64)
    assert "tdpbf16ps" not in text(128, 8)
    assert "tdpbf16ps" not in text(8, 64)
    with cpu.isa("avx2"):
        assert "tdpbf16ps" not in text(128, 64)
