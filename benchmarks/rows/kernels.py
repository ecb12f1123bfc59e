"""The programs of kernels/ that no other row covers, beside the same in other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import ERF, EXP, Function, Row
from .elementwise import normal, scipy_erf

QUERIES, WIDTH = 1024, 64


class Gelu(Row):
    """The exact GELU."""

    name, title, group, kernel = "gelu", "GELU (exact), 4096×768 f32", "kernels", "gelu"
    bytes, flops = 2 * 4 * 4096 * 768, (ERF + 4) * 4096 * 768

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (normal(rng, 4096, 768),)

    @staticmethod
    def numpy(x: Any) -> Any:
        return 0.5 * x * (1 + scipy_erf(x * 0.5**0.5))

    @classmethod
    def tracejit(cls, tj: Any) -> Function:
        return lambda x: 0.5 * x * (1 + tj.erf(x * 0.5**0.5))

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda x: jax.nn.gelu(x, approximate=False))

    @staticmethod
    def torch(torch: Any) -> Function:
        return torch.nn.functional.gelu

    @staticmethod
    def numba(numba: Any) -> Function:
        from math import erf

        half, one, root = np.float32(0.5), np.float32(1), np.float32(0.5**0.5)

        def run(x: Any) -> Any:
            out = np.empty_like(x)
            for i in numba.prange(x.shape[0]):
                for j in range(x.shape[1]):
                    out[i, j] = half * x[i, j] * (one + erf(x[i, j] * root))
            return out

        return numba.njit(run, parallel=True)


class LayerNorm(Row):
    """Layer normalisation alone."""

    name, title, group, kernel = "layer_norm", "layer norm, 4096×768 f32", "kernels", "layer_norm"
    bytes, flops, memory_bound = 2 * 4 * 4096 * 768, 8 * 4096 * 768, True

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return normal(rng, 4096, 768), normal(rng, 768), normal(rng, 768)

    @staticmethod
    def numpy(x: Any, weight: Any, bias: Any) -> Any:
        centred = x - x.mean(axis=1, keepdims=True)
        variance = (centred * centred).mean(axis=1, keepdims=True)
        return centred / np.sqrt(variance + 1e-5) * weight + bias

    @staticmethod
    def jax(jax: Any) -> Function:
        def run(x: Any, weight: Any, bias: Any) -> Any:
            mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
            return (x - mean) / jax.numpy.sqrt(variance + 1e-5) * weight + bias

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        layer_norm = torch.nn.functional.layer_norm
        return lambda x, weight, bias: layer_norm(x, (768,), weight, bias, eps=1e-5)

    @staticmethod
    def numba(numba: Any) -> Function:
        one, eps = np.float32(1), np.float32(1e-5)

        def run(x: Any, weight: Any, bias: Any) -> Any:
            out = np.empty_like(x)
            for i in numba.prange(x.shape[0]):
                scale = one / np.sqrt(np.float32(x[i].var()) + eps)
                out[i] = (x[i] - np.float32(x[i].mean())) * scale * weight + bias
            return out

        return numba.njit(run, parallel=True)


class Attention(Row):
    """One attention head."""

    name, title, group = "attention", "attention, 1024 queries and keys, 64 wide, f32", "kernels"
    kernel = "attention"
    bytes, flops = 4 * 4 * QUERIES * WIDTH, (4 * WIDTH + EXP + 4) * QUERIES * QUERIES

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return tuple(normal(rng, QUERIES, WIDTH) for _ in range(3))

    @staticmethod
    def numpy(q: Any, k: Any, v: Any) -> Any:
        scores = q @ k.T / WIDTH**0.5
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        return (e / e.sum(axis=1, keepdims=True)) @ v

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda q, k, v: jax.nn.softmax(q @ k.T / WIDTH**0.5, axis=1) @ v)

    @staticmethod
    def torch(torch: Any) -> Function:
        attention = torch.nn.functional.scaled_dot_product_attention
        # Without the leading axes PyTorch takes a slower path.
        return lambda q, k, v: attention(q[None, None], k[None, None], v[None, None])[0, 0]

    @staticmethod
    def numba(numba: Any) -> Function:
        scale = np.float32(WIDTH**-0.5)

        def run(q: Any, k: Any, v: Any) -> Any:
            scores = q @ k.T
            for i in numba.prange(scores.shape[0]):
                row = scores[i] * scale
                e = np.exp(row - row.max())
                scores[i] = e / e.sum()
            return scores @ v

        return numba.njit(run, parallel=True)


class PairwiseDistance(Row):
    """Distances through one matrix product."""

    name, title, group = "pairwise_distance", "pairwise distance, 1000×1000×64 f32", "kernels"
    kernel = "pairwise_distance"
    bytes, flops = 4 * (2 * 1000 * 64 + 1000 * 1000), (2 * 64 + 5) * 1000 * 1000
    atol = 1e-3

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return normal(rng, 1000, 64), normal(rng, 1000, 64)

    @staticmethod
    def numpy(a: Any, b: Any) -> Any:
        norms = (a**2).sum(axis=1, keepdims=True) + (b**2).sum(axis=1)
        return np.sqrt(np.maximum(norms - 2 * (a @ b.T), 0))

    @staticmethod
    def jax(jax: Any) -> Function:
        jnp = jax.numpy

        def run(a: Any, b: Any) -> Any:
            norms = (a**2).sum(axis=1, keepdims=True) + (b**2).sum(axis=1)
            return jnp.sqrt(jnp.maximum(norms - 2 * (a @ b.T), 0))

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda a, b: torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist")


class Digits(Row):
    """The votes of the three nearest neighbours, as kernels/digits.ns takes them."""

    name, title, group = "digits", "digits: votes of 599 among 1198 images, f32", "kernels"
    bytes, flops = 4 * (1797 * 64 + 1198 * 10 + 599 * 10), (2 * 64 + 10) * 599 * 1198
    atol = 1e-3

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        from tracejit import config

        with np.load(config.kernels_dir() / "data" / "digits.npz") as digits:
            images, labels = digits["images"].astype(np.float32), digits["labels"].astype(np.int64)
        images = np.ascontiguousarray(images.reshape(len(images), -1))
        order = np.concatenate([np.arange(0, len(images), 3), np.arange(1, len(images), 3)])
        one_hot = np.eye(10, dtype=np.float32)
        return images[2::3].copy(), images[order], one_hot[labels[order]]

    @staticmethod
    def numpy(images: Any, known: Any, classes: Any) -> Any:
        norms = (images**2).sum(axis=1, keepdims=True) + (known**2).sum(axis=1)
        distances = np.maximum(norms - 2 * (images @ known.T), 0)
        votes = np.zeros((images.shape[0], classes.shape[1]), images.dtype)
        for place in range(3):
            nearest = distances.argmin(axis=1)
            votes = votes + np.take(classes, nearest, axis=0) * (1 - 0.01 * place)
            taken = nearest[:, None] == np.arange(known.shape[0])
            distances = np.where(taken, np.inf, distances)
        return votes

    @classmethod
    def neuralscript(cls, tj: Any) -> Function | None:
        from tracejit import config

        return tj.load(config.kernels_dir() / "digits.ns").vote

    @staticmethod
    def jax(jax: Any) -> Function:
        jnp = jax.numpy

        def run(images: Any, known: Any, classes: Any) -> Any:
            norms = (images**2).sum(axis=1, keepdims=True) + (known**2).sum(axis=1)
            _, nearest = jax.lax.top_k(2 * (images @ known.T) - norms, 3)
            weights = jnp.array([1, 0.99, 0.98], images.dtype)
            return (classes[nearest] * weights[:, None]).sum(axis=1)

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        def run(images: Any, known: Any, classes: Any) -> Any:
            norms = (images**2).sum(dim=1, keepdim=True) + (known**2).sum(dim=1)
            _, nearest = torch.topk(norms - 2 * (images @ known.T), 3, dim=1, largest=False)
            weights = 1 - 0.01 * torch.arange(3, dtype=images.dtype)
            return (classes[nearest] * weights[:, None]).sum(dim=1)

        return run
