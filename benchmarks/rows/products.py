"""Matrix products, alone and with work around them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Function, Row


class Matmul(Row):
    """``a @ b`` in every library."""

    group = "matmul"

    @staticmethod
    def numpy(a: Any, b: Any) -> Any:
        return a @ b

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda a, b: a @ b)

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda a, b: a @ b

    @staticmethod
    def numba(numba: Any) -> Function:
        return numba.njit(lambda a, b: a @ b)


class Product(Matmul):
    """A plain product of two matrices. Subclasses give the sizes."""

    m = k = n = 0
    atol = 1e-3

    def __init_subclass__(cls) -> None:
        item = 4 if cls.dtype == "f32" else 8
        cls.flops = 2 * cls.m * cls.k * cls.n
        cls.bytes = item * (cls.m * cls.k + cls.k * cls.n + cls.m * cls.n)
        cls.name = f"matmul_{cls.m}x{cls.k}x{cls.n}_{cls.dtype}"
        cls.title = f"matmul {cls.m}×{cls.k}×{cls.n} {cls.dtype}"
        super().__init_subclass__()

    @classmethod
    def data(cls, rng: np.random.Generator) -> tuple[Any, ...]:
        dtype: Any = np.float32 if cls.dtype == "f32" else np.float64
        a, b = rng.standard_normal((cls.m, cls.k)), rng.standard_normal((cls.k, cls.n))
        return a.astype(dtype), b.astype(dtype)


class Tiny(Product):
    m = k = n = 32


class Square(Product):
    m = k = n = 512


class Large(Product):
    m = k = n = 1024


class SquareDouble(Product):
    dtype = "f64"
    m = k = n = 512
    rtol, atol = 1e-9, 1e-9


class Skinny(Product):
    m, k, n = 64, 1024, 1024


class MatrixVector(Product):
    m, k, n = 2048, 2048, 1
    memory_bound = True


class SmallBatch(Matmul):
    """A thousand products of 6×6 by 6×6, as of states of many bodies or elements of a mesh."""

    name = "matmul_batch_small"
    title = "matmul 1000 × 6×6×6 f32"
    dtype = "f32"
    atol = 1e-4
    flops = 2 * 1000 * 6**3
    bytes = 3 * 4 * 1000 * 6**2

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        shape = (1000, 6, 6)
        return tuple(rng.standard_normal(shape).astype(np.float32) for _ in range(2))

    @staticmethod
    def numba(numba: Any) -> Function:
        # There matmul takes two axes.
        def product(a: Any, b: Any) -> Any:
            c = np.zeros((a.shape[0], a.shape[1], b.shape[2]), a.dtype)
            for i in range(a.shape[0]):
                for m in range(a.shape[1]):
                    for k in range(a.shape[2]):
                        for n in range(b.shape[2]):
                            c[i, m, n] += a[i, m, k] * b[i, k, n]
            return c

        return numba.njit(product)


class BytesProduct(Row):
    """Exact sums of products of bytes; they may be faster than the peak, which is of floats."""

    group = "matmul"
    m = k = n = 0
    rtol = atol = 0

    def __init_subclass__(cls) -> None:
        cls.flops = 2 * cls.m * cls.k * cls.n
        cls.bytes = cls.m * cls.k + cls.k * cls.n + 4 * cls.m * cls.n
        cls.name = f"matmul_{cls.m}x{cls.k}x{cls.n}_i8"
        cls.title = f"matmul {cls.m}×{cls.k}×{cls.n} int8 → int32"
        super().__init_subclass__()

    @classmethod
    def data(cls, rng: np.random.Generator) -> tuple[Any, ...]:
        shapes = ((cls.m, cls.k), (cls.k, cls.n))
        return tuple(rng.integers(-128, 128, shape, np.int8) for shape in shapes)

    @staticmethod
    def numpy(a: Any, b: Any) -> Any:
        return np.matmul(a, b, dtype=np.int32)

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda a, b: jax.numpy.matmul(a, b, preferred_element_type=np.int32))

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda a, b: torch._int_mm(a, b)


class BytesMiddle(BytesProduct):
    m = k = n = 256


class BytesLarge(BytesProduct):
    m = k = n = 1024


class HalfProduct(Row):
    """Products of bfloat16 with sums of float32, which the result rounds."""

    group = "matmul"
    m = k = n = 0
    rtol = atol = 1e-2

    def __init_subclass__(cls) -> None:
        cls.flops = 2 * cls.m * cls.k * cls.n
        cls.bytes = 2 * (cls.m * cls.k + cls.k * cls.n + cls.m * cls.n)
        cls.name = f"matmul_{cls.m}x{cls.k}x{cls.n}_bf16"
        cls.title = f"matmul {cls.m}×{cls.k}×{cls.n} bfloat16"
        super().__init_subclass__()

    @classmethod
    def data(cls, rng: np.random.Generator) -> tuple[Any, ...]:
        import ml_dtypes

        a, b = rng.standard_normal((cls.m, cls.k)), rng.standard_normal((cls.k, cls.n))
        return a.astype(ml_dtypes.bfloat16), b.astype(ml_dtypes.bfloat16)

    @staticmethod
    def numpy(a: Any, b: Any) -> Any:
        # ml_dtypes rounds the sum after every term.
        return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)

    @classmethod
    def tracejit(cls, tj: Any) -> Function:
        return lambda a, b: a @ b

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda a, b: a @ b)

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda a, b: a @ b


class HalfMiddle(HalfProduct):
    m = k = n = 256


class HalfLarge(HalfProduct):
    m = k = n = 1024


class Dequantised(Row):
    """A layer whose weights are bytes: they become floats where the product packs them."""

    name, title = "dequantised_layer", "relu(x @ dequantise(q) + b), 64×1024×1024 int8 weights"
    group = "matmul"
    bytes = 4 * 64 * 1024 + 1024 * 1024 + 4 * 3 * 1024 + 4 * 64 * 1024
    flops = 2 * 64 * 1024 * 1024
    atol = 1e-3

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        q = rng.integers(-128, 128, (1024, 1024), np.int8)
        x = rng.standard_normal((64, 1024), dtype=np.float32)
        zero, scale, b = (rng.random(1024, dtype=np.float32) / 100 for _ in range(3))
        return x, q, zero, scale, b

    @staticmethod
    def numpy(x: Any, q: Any, zero: Any, scale: Any, b: Any) -> Any:
        return np.maximum(x @ ((q.astype(scale.dtype) - zero) * scale) + b, 0)

    @staticmethod
    def jax(jax: Any) -> Function:
        def layer(x: Any, q: Any, zero: Any, scale: Any, b: Any) -> Any:
            return jax.nn.relu(x @ ((q.astype(scale.dtype) - zero) * scale) + b)

        return jax.jit(layer)

    @staticmethod
    def torch(torch: Any) -> Function:
        def layer(x: Any, q: Any, zero: Any, scale: Any, b: Any) -> Any:
            return torch.relu(torch.addmm(b, x, (q.to(scale.dtype) - zero) * scale))

        return layer


class Dense(Row):
    """A layer of a network: the product's epilogue has the bias and the ReLU."""

    name, title, group = "dense_relu", "relu(x @ w + b), 256×784×512 f32", "matmul"
    bytes = 4 * (256 * 784 + 784 * 512 + 512 + 256 * 512)
    flops = 2 * 256 * 784 * 512
    atol = 1e-3

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        shapes: tuple[tuple[int, ...], ...] = ((256, 784), (784, 512), (512,))
        return tuple(rng.standard_normal(shape, dtype=np.float32) for shape in shapes)

    @staticmethod
    def numpy(x: Any, w: Any, b: Any) -> Any:
        return np.maximum(x @ w + b, 0)

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda x, w, b: jax.nn.relu(x @ w + b))

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda x, w, b: torch.relu(torch.addmm(b, x, w))

    @staticmethod
    def numba(numba: Any) -> Function:
        zero = np.float32(0)
        return numba.njit(lambda x, w, b: np.maximum(x @ w + b, zero), parallel=True)


class Gram(Row):
    """A matrix with its own transpose: half of the result says all."""

    name, title, group = "gram", "xᵀ @ x, 4096×512 f32", "matmul"
    bytes = 4 * (4096 * 512 + 512 * 512)
    flops = 4096 * 512 * 513
    atol = 1e-3

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (rng.standard_normal((4096, 512), dtype=np.float32),)

    @staticmethod
    def numpy(x: Any) -> Any:
        return x.T @ x

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda x: x.T @ x)

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda x: x.T @ x

    @staticmethod
    def numba(numba: Any) -> Function:
        return numba.njit(lambda x: x.T @ x)


class ColumnMeans(Row):
    """A layer whose columns are averaged: the product is reduced while it is in the cache."""

    name, title, group = "column_means", "mean of tanh(x @ w + b), 8192×64×1024 f32", "matmul"
    bytes = 4 * (8192 * 64 + 64 * 1024 + 2 * 1024)
    flops = (2 * 64 + 3) * 8192 * 1024
    atol = 1e-4

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        shapes: tuple[tuple[int, ...], ...] = ((8192, 64), (64, 1024), (1024,))
        return tuple(rng.standard_normal(shape, dtype=np.float32) for shape in shapes)

    @staticmethod
    def numpy(x: Any, w: Any, b: Any) -> Any:
        return np.tanh(x @ w + b).mean(axis=0)

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda x, w, b: jax.numpy.tanh(x @ w + b).mean(axis=0))

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda x, w, b: torch.tanh(torch.addmm(b, x, w)).mean(dim=0)


class Nearest(Row):
    """The nearest of 256 centres through a product, whose rows are reduced at once."""

    name, title, group = "nearest", "nearest of 256 centres, 16384×64 f32", "matmul"
    bytes = 4 * (16384 * 64 + 256 * 64) + 8 * 16384
    flops = (2 * 64 + 3) * 16384 * 256
    differing = 1e-3  # centres that are equally near but for rounding

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        shapes: tuple[tuple[int, ...], ...] = ((16384, 64), (256, 64))
        return tuple(rng.standard_normal(shape, dtype=np.float32) for shape in shapes)

    @staticmethod
    def numpy(points: Any, centres: Any) -> Any:
        return ((centres * centres).sum(axis=1) - 2 * (points @ centres.T)).argmin(axis=1)

    @staticmethod
    def jax(jax: Any) -> Function:
        def run(points: Any, centres: Any) -> Any:
            return ((centres * centres).sum(axis=1) - 2 * (points @ centres.T)).argmin(axis=1)

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        def run(points: Any, centres: Any) -> Any:
            return ((centres * centres).sum(dim=1) - 2 * (points @ centres.T)).argmin(dim=1)

        return run
