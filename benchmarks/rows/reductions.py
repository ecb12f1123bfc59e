"""Rows that reduce: along rows, along columns, everything, and running sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import DIVIDE, EXP, SQRT, TANH, Function, Row
from .elementwise import MILLION, normal


class Softmax(Row):
    """The softmax of each row."""

    name, title, kernel = "softmax", "softmax, 4096×1024 f32", "softmax"
    bytes, flops, memory_bound = 2 * 4 * 4096 * 1024, (EXP + 4) * 4096 * 1024, True
    atol = 1e-7

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (normal(rng, 4096, 1024),)

    @staticmethod
    def numpy(x: Any) -> Any:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda x: jax.nn.softmax(x, axis=1))

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda x: torch.softmax(x, dim=1)

    @staticmethod
    def numba(numba: Any) -> Function:
        def run(x: Any) -> Any:
            out = np.empty_like(x)
            for i in numba.prange(x.shape[0]):
                e = np.exp(x[i] - x[i].max())
                out[i] = e / e.sum()
            return out

        return numba.njit(run, parallel=True)


class LayerNormGelu(Row):
    """A layer norm with the tanh form of GELU behind it."""

    name, title = "layer_norm_gelu", "layer norm + GELU(tanh), 4096×768 f32"
    bytes, flops = 2 * 4 * 4096 * 768, (TANH + 16) * 4096 * 768

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return normal(rng, 4096, 768), normal(rng, 768), normal(rng, 768)

    @staticmethod
    def numpy(x: Any, weight: Any, bias: Any) -> Any:
        centred = x - x.mean(axis=1, keepdims=True)
        variance = (centred * centred).mean(axis=1, keepdims=True)
        y = centred / np.sqrt(variance + 1e-5) * weight + bias
        return 0.5 * y * (1 + np.tanh(0.7978845608 * (y + 0.044715 * y * y * y)))

    @staticmethod
    def jax(jax: Any) -> Function:
        jnp = jax.numpy

        def run(x: Any, weight: Any, bias: Any) -> Any:
            mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
            y = (x - mean) / jnp.sqrt(variance + 1e-5) * weight + bias
            return jax.nn.gelu(y, approximate=True)

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        nn = torch.nn.functional

        def run(x: Any, weight: Any, bias: Any) -> Any:
            y = nn.layer_norm(x, (768,), weight, bias, eps=1e-5)
            return nn.gelu(y, approximate="tanh")

        return run

    @staticmethod
    def numba(numba: Any) -> Function:
        a, b, half, one = (np.float32(v) for v in (0.7978845608, 0.044715, 0.5, 1))
        eps = np.float32(1e-5)

        def run(x: Any, weight: Any, bias: Any) -> Any:
            out = np.empty_like(x)
            for i in numba.prange(x.shape[0]):
                scale = one / np.sqrt(np.float32(x[i].var()) + eps)
                y = (x[i] - np.float32(x[i].mean())) * scale * weight + bias
                out[i] = half * y * (one + np.tanh(a * (y + b * y * y * y)))
            return out

        return numba.njit(run, parallel=True)


class ColumnNormalise(Row):
    """Each column to mean 0 and variance 1."""

    name, title = "column_normalise", "column mean/variance normalise, 4000×1000 f32"
    bytes, flops, memory_bound = 3 * 4 * 4 * MILLION, (7 + DIVIDE + SQRT) * 4 * MILLION, True

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (normal(rng, 4000, 1000) * 3 + 1,)

    @staticmethod
    def numpy(x: Any) -> Any:
        return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda x: (x - x.mean(axis=0)) / jax.numpy.sqrt(x.var(axis=0) + 1e-5))

    @staticmethod
    def torch(torch: Any) -> Function:
        def run(x: Any) -> Any:
            variance, mean = torch.var_mean(x, dim=0, correction=0)
            return (x - mean) / torch.sqrt(variance + 1e-5)

        return run

    @staticmethod
    def numba(numba: Any) -> Function:
        def run(x: Any) -> Any:
            rows, columns = x.shape
            mean, variance = np.zeros(columns, x.dtype), np.zeros(columns, x.dtype)
            for i in range(rows):
                mean += x[i]
            mean /= rows
            for i in range(rows):
                variance += (x[i] - mean) ** 2
            scale = np.sqrt(variance / rows + 1e-5).astype(x.dtype)
            out = np.empty_like(x)
            for i in numba.prange(rows):
                out[i] = (x[i] - mean) / scale
            return out

        return numba.njit(run, parallel=True)


class SumOfSquares(Row):
    """One number from four million."""

    name, title = "sum_of_squares", "sum of squares, 4M f32"
    bytes, flops, memory_bound = 4 * 4 * MILLION, 2 * 4 * MILLION, True

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (normal(rng, 4 * MILLION),)

    @staticmethod
    def numpy(x: Any) -> Any:
        return (x * x).sum()

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda x: (x * x).sum())

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda x: (x * x).sum()

    @staticmethod
    def numba(numba: Any) -> Function:
        def run(x: Any) -> Any:
            total = 0.0  # float64: a running float32 sum of so many would drift
            for i in numba.prange(x.size):
                total += x[i] * x[i]
            return total

        return numba.njit(run, parallel=True)

    @staticmethod
    def numexpr(numexpr: Any) -> Function:
        return lambda x: numexpr.evaluate("sum(x*x)")


class CumulativeSum(Row):
    """A running sum."""

    name, title = "cumsum", "cumulative sum, 1M f32"
    bytes, flops, memory_bound = 2 * 4 * MILLION, MILLION, True
    rtol, atol = 1e-3, 1e-2

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (rng.random(MILLION, dtype=np.float32),)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.cumsum(x)

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(jax.numpy.cumsum)

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda x: torch.cumsum(x, dim=0)

    @staticmethod
    def numba(numba: Any) -> Function:
        return numba.njit(lambda x: np.cumsum(x))
