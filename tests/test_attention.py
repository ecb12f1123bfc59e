"""Attention: one kernel without a matrix of scores, from the call and from its plain spelling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import config
from tracejit.errors import ShapeError
from tracejit.ops.table import Array
from tracejit.runtime import service
from tracejit.schedule.schedule import ContractionStep, OpaqueStep
from tracejit.schedule.steps import step_name
from tracejit.viz import model

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
attention = tj.nn.scaled_dot_product_attention


def heads(rng: np.random.Generator, *shape: int, dtype: np.dtype[Any] = F32) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def reference(
    q: Array, k: Array, v: Array, mask: Array | None = None, causal: bool = False,
    scale: float | None = None,
) -> Array:  # fmt: skip
    """Attention in float64, where it is computed exactly enough."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scores = q @ np.swapaxes(k, -1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True) @ v


def check(function: Callable[..., Any], wanted: Array, *values: Array) -> None:
    """The function is one kernel of attention, with the wanted values."""
    traced = tj.trace(function, *values)
    (step,) = traced.schedule.steps
    assert isinstance(step, ContractionStep)
    assert step.kernel.attend is not None
    assert step.kernel.contract is not None
    assert traced.schedule.arena.nbytes == 0
    got = tj.jit(function)(*values)
    assert got.dtype == values[0].dtype
    tight = got.dtype == F64
    np.testing.assert_allclose(
        got, wanted, rtol=1e-12 if tight else 2e-5, atol=1e-13 if tight else 3e-6
    )


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_sizes_around_the_blocks(any_level: str, dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(1)
    sizes = [1, 2, 7, 16, 17, 33, 65, 257, 300]
    for number, queries in enumerate([8, 9, 15, 16, 17, 33, 65, 257, 300]):
        keys = sizes[(3 * number + 1) % len(sizes)]
        depth, columns = sizes[(number + 2) % 7], sizes[(2 * number + 1) % 7]
        q = heads(rng, 2, queries, depth, dtype=dtype)
        k = heads(rng, 2, keys, depth, dtype=dtype)
        v = heads(rng, 2, keys, columns, dtype=dtype)
        check(lambda q, k, v: attention(q, k, v), reference(q, k, v), q, k, v)
        wanted = reference(q, k, v, causal=True)
        check(lambda q, k, v: attention(q, k, v, is_causal=True), wanted, q, k, v)


def in_place(function: Callable[..., Any], *values: Array) -> bool:
    """Whether the function is one kernel of attention that packs nothing."""
    traced = tj.trace(function, *values)
    (call,) = traced.executable.calls
    return " few=0 " not in call.code.key.structure


def test_few_queries_read_keys_and_values_in_place(any_level: str) -> None:
    """As where text is made token by token; heads that share keys are rows of the same kernel."""
    rng = np.random.default_rng(15)
    sizes = [1, 2, 7, 16, 17, 33, 65, 130, 150]
    for number, rows in enumerate([1, 2, 3, 4, 5, 6, 7, 8]):
        dtype = (F32, F64)[number % 2]
        keys = [3, 2, 65, 127, 129, 300, 520, 1100][(3 * number + 1) % 8]
        depth, columns = max(2, sizes[(number + 2) % 9]), sizes[(2 * number + 1) % 9]
        k = heads(rng, 8, keys, depth, dtype=dtype)
        v = heads(rng, 8, keys, columns, dtype=dtype)
        queries, shared = (rows, 1) if rows % 3 else (rows // 3, 3)
        q = heads(rng, 8 * shared, queries, depth, dtype=dtype)
        known_k, known_v = (np.repeat(x, shared, axis=0) for x in (k, v))
        mask = rng.random((queries, keys)) < 0.7
        mask[0, -1] = True

        def grouped(q: Any, k: Any, v: Any) -> Any:
            return attention(q, k, v, enable_gqa=True)

        check(grouped, reference(q, known_k, known_v), q, k, v)
        assert in_place(grouped, q, k, v) or columns == 1
        wanted = reference(q, known_k, known_v, mask)
        check(lambda q, k, v, m: attention(q, k, v, m, enable_gqa=True), wanted, q, k, v, mask)
        wanted = reference(q, known_k, known_v, causal=True)
        causal = tj.jit(lambda q, k, v: attention(q, k, v, is_causal=True, enable_gqa=True))
        np.testing.assert_allclose(causal(q, k, v), wanted, rtol=2e-5, atol=3e-6)


def test_few_queries_of_strided_heads_and_special_values(any_level: str) -> None:
    rng = np.random.default_rng(16)
    x = heads(rng, 2, 70, 3, 8, 24)  # [batch, position, q k v, head, depth]
    q, k, v = (np.swapaxes(x[:, :, i], 1, 2) for i in range(3))
    q = q[:, :, 3:5]

    def program(q: Any, k: Any, v: Any) -> Any:
        return np.tanh(attention(q, k, v))

    assert in_place(program, q, k, v)
    check(program, np.tanh(reference(q, k, v)), q, k, v)
    # Lines of keys and values that are not contiguous are packed.
    wide = heads(rng, 8, 70, 48)
    q, k, v = heads(rng, 8, 2, 24), wide[..., ::2], wide[..., ::-2]
    check(program, np.tanh(reference(q, k, v)), q, k, v)
    assert not in_place(program, q, k, v)
    mask = np.ones((8, 2, 70), bool)
    mask[1, 0] = False  # no key at all
    q[2, 1, 3], k[3, 60, 2] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        wanted = reference(q, k, v, mask)
    check(lambda q, k, v, m: attention(q, k, v, m), wanted, q, np.array(k), np.array(v), mask)


def test_few_queries_of_few_heads_are_products_of_few_rows(any_level: str) -> None:
    """Threads share the keys of these: they are read once, and never packed."""
    rng = np.random.default_rng(14)
    for queries, keys, dtype in [(1, 300, F32), (3, 33, F32), (7, 40, F64)]:
        q = heads(rng, 2, 6, queries, 24, dtype=dtype)
        k, v = heads(rng, 2, 2, keys, 24, dtype=dtype), heads(rng, 2, 2, keys, 17, dtype=dtype)
        mask = rng.random((queries, keys)) < 0.7

        def program(q: Any, k: Any, v: Any, mask: Any) -> Any:
            return attention(q, k, v, mask, enable_gqa=True)

        traced = tj.trace(program, q, k, v, mask)
        assert 2 <= len(traced.schedule.steps) <= 3
        assert not any(isinstance(s, OpaqueStep) for s in traced.schedule.steps)
        assert all(k.attend is None for k in traced.schedule.kernels)
        wanted = reference(q, np.repeat(k, 3, axis=1), np.repeat(v, 3, axis=1), mask)
        got = tj.jit(program, compile="now")(q, k, v, mask)
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=3e-6)


def test_masks(any_level: str) -> None:
    rng = np.random.default_rng(2)
    q, k, v = heads(rng, 2, 3, 35, 16), heads(rng, 2, 3, 40, 16), heads(rng, 2, 3, 40, 16)
    for shape in [(35, 40), (2, 1, 35, 40), (2, 1, 1, 40), (35, 1), (40,)]:
        added = heads(rng, *shape)
        wanted = reference(q, k, v, added)
        check(lambda q, k, v, m: attention(q, k, v, m), wanted, q, k, v, added)
        kept = rng.random(shape) < 0.7
        wanted = reference(q, k, v, kept)
        check(lambda q, k, v, m: attention(q, k, v, m), wanted, q, k, v, kept)
    wanted = reference(q, k, v, added, causal=True, scale=0.3)
    check(
        lambda q, k, v, m: attention(q, k, v, m, is_causal=True, scale=0.3),
        wanted, q, k, v, added,
    )  # fmt: skip


def test_rows_without_keys_and_special_values(any_level: str) -> None:
    rng = np.random.default_rng(3)
    q, k, v = heads(rng, 20, 8), heads(rng, 600, 8), heads(rng, 600, 8)
    mask = np.ones((20, 600), bool)
    mask[3] = False  # no key at all: NaN, as everywhere a softmax has nothing to sum
    mask[5, :300] = False  # none in the first blocks
    mask[6, 10:] = False  # none in the last
    wanted = reference(q, k, v, mask)
    assert np.isnan(wanted[3]).all()
    check(lambda q, k, v, m: attention(q, k, v, m), wanted, q, k, v, mask)
    q[7, 2], k[450, 3] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        wanted = reference(q, k, v)
    check(lambda q, k, v: attention(q, k, v), wanted, q, k, v)
    v[5, 1] = np.inf
    q[7, 2], k[450, 3] = 1, 1
    check(lambda q, k, v: attention(q, k, v), reference(q, k, v), q, k, v)


def test_large_scores_do_not_overflow(any_level: str) -> None:
    rng = np.random.default_rng(4)
    q, k, v = 40 * heads(rng, 30, 16), 40 * heads(rng, 700, 16), heads(rng, 700, 16)
    wanted = reference(q, k, v)
    got = tj.jit(lambda q, k, v: attention(q, k, v))(q, k, v)
    np.testing.assert_allclose(got, wanted, rtol=2e-2, atol=2e-3)  # scores of thousands in f32


def test_strided_heads_are_read_in_place(any_level: str) -> None:
    rng = np.random.default_rng(5)
    x = heads(rng, 2, 50, 3, 4, 16)  # [batch, position, q k v, head, depth]
    q, k, v = (np.swapaxes(x[:, :, i], 1, 2) for i in range(3))
    check(lambda q, k, v: attention(q, k, v), reference(q, k, v), q, k, v)
    q, k, v = heads(rng, 16, 40).T, heads(rng, 32, 60)[:, ::2].T[::-1], heads(rng, 30, 14)[:, ::2]
    k = k[:, ::2]
    check(lambda q, k, v: attention(q, k, v), reference(q, k, v), q, k, v)


def test_grouped_heads(any_level: str) -> None:
    rng = np.random.default_rng(6)
    q, k, v = heads(rng, 2, 6, 33, 16), heads(rng, 2, 2, 40, 16), heads(rng, 2, 2, 40, 8)
    wanted = reference(q, np.repeat(k, 3, axis=1), np.repeat(v, 3, axis=1))
    check(lambda q, k, v: attention(q, k, v, enable_gqa=True), wanted, q, k, v)
    with pytest.raises(ShapeError, match=r"\(2, 6, 33, 16\).*\(2, 4, 40, 16\)"):
        attention(q, heads(rng, 2, 4, 40, 16), heads(rng, 2, 4, 40, 16), enable_gqa=True)


def test_plain_spellings(level: str) -> None:
    rng = np.random.default_rng(7)
    q, k, v = heads(rng, 2, 3, 35, 16), heads(rng, 2, 3, 40, 16), heads(rng, 2, 3, 40, 16)
    mask = heads(rng, 35, 40)

    def numpy(q: Any, k: Any, v: Any, mask: Any) -> Any:
        scores = q @ np.swapaxes(k, -1, -2) * 0.25 + mask
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True) @ v

    def without_keepdims(q: Any, k: Any, v: Any, mask: Any) -> Any:
        scores = np.einsum("bhid,bhjd->bhij", q, k) / 4 + mask
        e = np.exp(scores - scores.max(axis=-1)[..., None])
        return e / e.sum(axis=-1)[..., None] @ v

    def library(q: Any, k: Any, v: Any, mask: Any) -> Any:
        return tj.nn.softmax((q @ k.swapaxes(-1, -2)) * 0.25 + mask, axis=-1) @ v

    for function in (numpy, library, without_keepdims):
        check(function, reference(q, k, v, mask), q, k, v, mask)


def test_bias_of_float64_makes_scores_wider_than_their_product(any_level: str) -> None:
    rng = np.random.default_rng(7)
    for rows in (5, 33, 64):
        q, k, v = heads(rng, 2, rows, 16), heads(rng, 2, rows, 16), heads(rng, 2, rows, 16)
        bias = heads(rng, rows, rows, dtype=F64)

        def biased(q: Any, k: Any, v: Any, bias: Any) -> Any:
            scores = q @ k.swapaxes(-1, -2) + bias
            e = np.exp(scores - scores.max(axis=-1, keepdims=True))
            return e / e.sum(axis=-1, keepdims=True) @ v

        got = tj.jit(biased, compile="now")(q, k, v, bias)
        assert got.dtype == F64
        np.testing.assert_allclose(got, biased(q, k, v, bias), rtol=1e-5, atol=1e-6)


def test_epilogue_of_attention(level: str) -> None:
    rng = np.random.default_rng(8)
    q, k, v, rest = (heads(rng, 3, 40, 16) for _ in range(4))
    wanted = np.tanh(reference(q, k, v) + rest)
    check(lambda q, k, v, r: np.tanh(attention(q, k, v) + r), wanted, q, k, v, rest)


def test_weights_that_are_read_elsewhere_are_stored(level: str) -> None:
    rng = np.random.default_rng(9)
    q, k, v = (heads(rng, 20, 16) for _ in range(3))

    def both(q: Any, k: Any, v: Any) -> Any:
        weights = tj.nn.softmax(q @ k.T, axis=-1)
        return weights, weights @ v

    weights, result = tj.jit(both)(q, k, v)
    np.testing.assert_allclose(result, reference(q, k, v, scale=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights.sum(axis=1), np.ones(20), rtol=1e-5)


def test_memory_is_linear_and_code_is_shared() -> None:
    rng = np.random.default_rng(10)
    used: list[int] = []
    for size in (100, 3000):
        q, k, v = (heads(rng, size, 8) for _ in range(3))
        before = service.compiles()
        traced = tj.trace(lambda q, k, v: attention(q, k, v), q, k, v)
        used.append(service.compiles() - before)
        assert sum(b.nbytes for b in traced.schedule.buffers) == 4 * q.nbytes
    assert used[1] == 0


def test_the_drawn_graph_has_attention_as_one_step() -> None:
    q, k, v = (np.ones((2, 30, 16), np.float32) for _ in range(3))
    traced = tj.trace(lambda q, k, v: attention(q, k, v), q, k, v)
    (step,) = model.view(model.Figure("heads", traced.executable)).graph["steps"]
    assert step["detail"] == "2 × [30 queries, 30 keys, 16 columns]"
    assert f"{2 * 2 * 2 * 30 * 30 * 16:,} flops" in step["text"]


def test_same_bits_for_any_thread_count() -> None:
    rng = np.random.default_rng(11)
    for queries in (500, 3):
        q = heads(rng, 2, 4, queries, 32)
        k, v = heads(rng, 2, 4, 500, 32), heads(rng, 2, 4, 500, 32)
        results: list[bytes] = []
        for threads in (1, 2):
            with tj.num_threads(threads):
                run = tj.jit(lambda q, k, v: attention(q, k, v, is_causal=True))
                results.append(run(q, k, v).tobytes())
        assert results[0] == results[1]


def test_weights_are_exact_to_the_rounding_of_their_scores(level: str) -> None:
    """Down to the least normal one, from where on they may be 0; scores that differ by more than
    floats can tell leave one weight."""
    keys, few = 300, 40
    scores = np.zeros((6, few, keys), np.float32)
    scores[0] = -np.linspace(0, 100, keys)
    scores[1] = np.linspace(-150, 0, few)[:, None] * np.linspace(0, 1, keys)
    scores[2, :, 7] = 1e30
    scores[3, :, ::2] = -np.inf
    scores[4] = 1e5 + np.arange(keys) % 7
    scores[5] = -3e38

    def program(q: Any, k: Any, added: Any, values: Any) -> Any:
        scores = q @ k.T + added
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True) @ values

    zeros = np.zeros((6, few, 1), np.float32), np.zeros((keys, 1), np.float32)
    arrays = (*zeros, scores, np.eye(keys, dtype=np.float32))
    (step,) = tj.trace(program, *arrays).schedule.steps
    assert isinstance(step, ContractionStep)
    got: Any = tj.jit(program, compile="now")(*arrays)
    exact = scores.astype(np.float64)
    exact -= exact.max(axis=-1, keepdims=True)
    wanted = np.exp(exact)
    wanted /= wanted.sum(axis=-1, keepdims=True)
    distance = np.where(np.isfinite(exact), np.minimum(-exact, 150), 0)
    np.testing.assert_array_less(np.abs(got - wanted), (distance + 8) * 2**-23 * wanted + 1.2e-38)


def test_transformer_block_is_six_kernels(level: str) -> None:
    rng = np.random.default_rng(12)
    batch, length, width, count = 2, 40, 32, 4
    shapes = {"qkv": 3 * width, "projection": width, "up": 4 * width}
    weights = {n: heads(rng, width, columns) / 6 for n, columns in shapes.items()}
    weights["down"] = heads(rng, 4 * width, width) / 12
    biases = {n: heads(rng, w.shape[1]) for n, w in weights.items()}
    scales = heads(rng, 2, width)
    x = heads(rng, batch, length, width)

    def block(x: Any, weights: dict[str, Any], biases: dict[str, Any], scales: Any) -> Any:
        h = tj.nn.layer_norm(x, (width,), scales[0])
        qkv = (h @ weights["qkv"] + biases["qkv"]).reshape(batch, length, 3, count, -1)
        q, k, v = (qkv[:, :, i].swapaxes(1, 2) for i in range(3))
        mixed = attention(q, k, v, is_causal=True).swapaxes(1, 2).reshape(x.shape)
        x = x + mixed @ weights["projection"] + biases["projection"]
        h = tj.nn.layer_norm(x, (width,), scales[1])
        h = tj.nn.gelu(h @ weights["up"] + biases["up"])
        return x + h @ weights["down"] + biases["down"]

    traced = tj.trace(block, x, weights, biases, scales)
    names = [step_name(step) for step in traced.schedule.steps]
    # norm; q, k, v; attention; projection, residual and norm; up and gelu; down and residual
    assert len(names) == 6, names
    got = tj.jit(block)(x, weights, biases, scales)
    with config.override(disable_jit=True):
        wanted = tj.jit(block)(x, weights, biases, scales)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)
