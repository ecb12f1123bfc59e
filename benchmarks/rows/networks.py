"""Products with the work of a network around them: layers, attention, a transformer block."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import DIVIDE, ERF, EXP, Function, Row
from .elementwise import normal, scipy_erf


def scaled(rng: np.random.Generator, rows: int, columns: int) -> Any:
    """Return weights that keep the size of what they are multiplied with."""
    return normal(rng, rows, columns) * np.float32(rows**-0.5)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class DenseGelu(Row):
    """A layer of a transformer: the epilogue has the bias and the exact GELU."""

    name, title, group = "dense_gelu", "gelu(x @ w + b), 512×768×3072 f32", "matmul"
    bytes = 4 * (512 * 768 + 768 * 3072 + 3072 + 512 * 3072)
    flops = (2 * 768 + ERF + 5) * 512 * 3072
    atol = 1e-4

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return normal(rng, 512, 768), scaled(rng, 768, 3072), normal(rng, 3072)

    @staticmethod
    def numpy(x: Any, w: Any, b: Any) -> Any:
        h = x @ w + b
        return 0.5 * h * (1 + scipy_erf(h * 0.5**0.5))

    @classmethod
    def tracejit(cls, tj: Any) -> Function:
        return lambda x, w, b: tj.nn.gelu(x @ w + b)

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda x, w, b: jax.nn.gelu(x @ w + b, approximate=False))

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda x, w, b: torch.nn.functional.gelu(torch.addmm(b, x, w))


class DenseSoftmax(Row):
    """The last layer of a classifier: each row of the product is normalised at once."""

    name, title, group = "dense_softmax", "softmax(x @ w + b), 4096×64×1000 f32", "matmul"
    bytes = 4 * (4096 * 64 + 64 * 1000 + 1000 + 4096 * 1000)
    flops = (2 * 64 + EXP + DIVIDE + 4) * 4096 * 1000

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return normal(rng, 4096, 64), scaled(rng, 64, 1000), normal(rng, 1000)

    @staticmethod
    def numpy(x: Any, w: Any, b: Any) -> Any:
        return softmax(x @ w + b)

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda x, w, b: jax.nn.softmax(x @ w + b))

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda x, w, b: torch.softmax(torch.addmm(b, x, w), dim=1)


class Perceptron(Row):
    """A small classifier."""

    name, title, group = "mlp", "MLP 64×784→128→10 with softmax, f32", "matmul"
    bytes = 4 * (64 * 784 + 784 * 128 + 128 + 128 * 10 + 10 + 64 * 10)
    flops = 64 * (2 * 784 * 128 + 2 * 128 + 2 * 128 * 10 + (EXP + DIVIDE + 3) * 10)

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        first, second = scaled(rng, 784, 128), scaled(rng, 128, 10)
        return normal(rng, 64, 784), first, normal(rng, 128), second, normal(rng, 10)

    @staticmethod
    def numpy(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        return softmax(np.maximum(x @ w1 + b1, 0) @ w2 + b2)

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda x, w1, b1, w2, b2: jax.nn.softmax(jax.nn.relu(x @ w1 + b1) @ w2 + b2))

    @staticmethod
    def torch(torch: Any) -> Function:
        def run(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
            hidden = torch.relu(torch.addmm(b1, x, w1))
            return torch.softmax(torch.addmm(b2, hidden, w2), dim=1)

        return run


BATCH, HEADS, LENGTH, DEPTH = 2, 8, 512, 64


class HeadAttention(Row):
    """Attention of several heads; what NumPy users write is one kernel."""

    name, title, group = "attention_heads", "attention, 2×8×512×64 f32", "kernels"
    bytes = 4 * 4 * BATCH * HEADS * LENGTH * DEPTH
    flops = (4 * DEPTH + EXP + 4) * BATCH * HEADS * LENGTH * LENGTH

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return tuple(normal(rng, BATCH, HEADS, LENGTH, DEPTH) for _ in range(3))

    @staticmethod
    def numpy(q: Any, k: Any, v: Any) -> Any:
        return softmax(q @ np.swapaxes(k, -1, -2) * DEPTH**-0.5) @ v

    @staticmethod
    def jax(jax: Any) -> Function:
        def run(q: Any, k: Any, v: Any) -> Any:
            scores = q @ jax.numpy.swapaxes(k, -1, -2) * DEPTH**-0.5
            return jax.nn.softmax(scores, axis=-1) @ v

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        return torch.nn.functional.scaled_dot_product_attention


class CausalAttention(HeadAttention):
    """The same where a query sees no later key: half of the work is left."""

    name, title = "attention_causal", "causal attention, 2×8×512×64 f32"
    flops = HeadAttention.flops / 2

    @staticmethod
    def numpy(q: Any, k: Any, v: Any) -> Any:
        scores = q @ np.swapaxes(k, -1, -2) * DEPTH**-0.5
        seen = np.tril(np.ones((LENGTH, LENGTH), np.bool_))
        return softmax(np.where(seen, scores, -np.inf)) @ v

    @classmethod
    def tracejit(cls, tj: Any) -> Function:
        attention = tj.nn.scaled_dot_product_attention
        return lambda q, k, v: attention(q, k, v, is_causal=True)

    @staticmethod
    def jax(jax: Any) -> Function:
        def run(q: Any, k: Any, v: Any) -> Any:
            scores = q @ jax.numpy.swapaxes(k, -1, -2) * DEPTH**-0.5
            seen = jax.numpy.tril(jax.numpy.ones((LENGTH, LENGTH), bool))
            scores = jax.numpy.where(seen, scores, -jax.numpy.inf)
            return jax.nn.softmax(scores, axis=-1) @ v

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        attention = torch.nn.functional.scaled_dot_product_attention
        return lambda q, k, v: attention(q, k, v, is_causal=True)


class DecodeAttention(Row):
    """One token's query, 32 heads of which four share a head of keys and values."""

    name, title, group = (
        "attention_decode",
        "attention of one query, 32 heads (8 of keys), 2048 keys, 64 wide, f32",
        "kernels",
    )
    shared, groups, keys = 8, 4, 2048
    bytes = 4 * (2 * shared * keys * DEPTH + 2 * shared * groups * DEPTH)
    flops = (4 * DEPTH + EXP + 4) * shared * groups * keys
    memory_bound = True

    @classmethod
    def data(cls, rng: np.random.Generator) -> tuple[Any, ...]:
        q = normal(rng, 1, cls.shared * cls.groups, 1, DEPTH)
        return q, *(normal(rng, 1, cls.shared, cls.keys, DEPTH) for _ in range(2))

    @classmethod
    def numpy(cls, q: Any, k: Any, v: Any) -> Any:
        grouped = q.reshape(1, cls.shared, cls.groups, DEPTH)
        weights = softmax(grouped @ np.swapaxes(k, -1, -2) * DEPTH**-0.5)
        return (weights @ v).reshape(q.shape)

    @classmethod
    def tracejit(cls, tj: Any) -> Function:
        attention = tj.nn.scaled_dot_product_attention
        return lambda q, k, v: attention(q, k, v, enable_gqa=True)

    @classmethod
    def jax(cls, jax: Any) -> Function:
        def run(q: Any, k: Any, v: Any) -> Any:
            grouped = q.reshape(1, cls.shared, cls.groups, DEPTH)
            scores = grouped @ jax.numpy.swapaxes(k, -1, -2) * DEPTH**-0.5
            return (jax.nn.softmax(scores, axis=-1) @ v).reshape(q.shape)

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        attention = torch.nn.functional.scaled_dot_product_attention
        return lambda q, k, v: attention(q, k, v, enable_gqa=True)


MODEL = HEADS * DEPTH


def normalised(x: Any) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)


class TransformerBlock(Row):
    """Norm, attention, projection, norm, two layers, and the residuals: seven kernels."""

    name, title, group = (
        "transformer_block",
        "transformer block, 2×512×512, 8 heads, f32",
        "kernels",
    )
    bytes = 4 * (2 * BATCH * LENGTH * MODEL + 12 * MODEL * MODEL + 9 * MODEL)
    flops = BATCH * LENGTH * (24 * MODEL * MODEL + (4 * DEPTH + EXP + 4) * HEADS * LENGTH)
    atol = 1e-4

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        shapes = (MODEL, 3 * MODEL), (MODEL, MODEL), (MODEL, 4 * MODEL), (4 * MODEL, MODEL)
        weights = [part for m, n in shapes for part in (scaled(rng, m, n), normal(rng, n))]
        return (normal(rng, BATCH, LENGTH, MODEL), *weights)

    @staticmethod
    def numpy(
        x: Any, wqkv: Any, bqkv: Any, wo: Any, bo: Any, w1: Any, b1: Any, w2: Any, b2: Any
    ) -> Any:
        qkv = (normalised(x) @ wqkv + bqkv).reshape(BATCH, LENGTH, 3, HEADS, DEPTH)
        q, k, v = (np.swapaxes(qkv[:, :, i], 1, 2) for i in range(3))
        mixed = softmax(q @ np.swapaxes(k, -1, -2) * DEPTH**-0.5) @ v
        x = x + np.swapaxes(mixed, 1, 2).reshape(x.shape) @ wo + bo
        return x + np.maximum(normalised(x) @ w1 + b1, 0) @ w2 + b2

    @staticmethod
    def jax(jax: Any) -> Function:
        jnp = jax.numpy

        def norm(x: Any) -> Any:
            centred = x - x.mean(axis=-1, keepdims=True)
            return centred / jnp.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)

        def run(
            x: Any, wqkv: Any, bqkv: Any, wo: Any, bo: Any, w1: Any, b1: Any, w2: Any, b2: Any
        ) -> Any:
            qkv = (norm(x) @ wqkv + bqkv).reshape(BATCH, LENGTH, 3, HEADS, DEPTH)
            q, k, v = (jnp.swapaxes(qkv[:, :, i], 1, 2) for i in range(3))
            scores = q @ jnp.swapaxes(k, -1, -2) * DEPTH**-0.5
            mixed = jax.nn.softmax(scores, axis=-1) @ v
            x = x + jnp.swapaxes(mixed, 1, 2).reshape(x.shape) @ wo + bo
            return x + jax.nn.relu(norm(x) @ w1 + b1) @ w2 + b2

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        functional = torch.nn.functional

        def run(
            x: Any, wqkv: Any, bqkv: Any, wo: Any, bo: Any, w1: Any, b1: Any, w2: Any, b2: Any
        ) -> Any:
            h = functional.layer_norm(x, (MODEL,))
            qkv = (h @ wqkv + bqkv).view(BATCH, LENGTH, 3, HEADS, DEPTH)
            q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))
            mixed = functional.scaled_dot_product_attention(q, k, v)
            x = x + mixed.transpose(1, 2).reshape(x.shape) @ wo + bo
            return x + torch.relu(functional.layer_norm(x, (MODEL,)) @ w1 + b1) @ w2 + b2

        return run
