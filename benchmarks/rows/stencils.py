"""Rows that iterate over a grid."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Function, Row
from .elementwise import normal

SWEEPS, GRID = 8, 1026
IMAGE, DEPTH, HEATED = (1080, 1920), 130, 4
STEPS, SIDE = 20, 512


class Jacobi(Row):
    """Sweeps of Jacobi's method; the border stays."""

    name, title, kernel = "jacobi", "8 Jacobi sweeps with borders, 1026² f32", "jacobi"
    bytes, flops = 2 * 4 * GRID * GRID, 4 * SWEEPS * 1024 * 1024

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (normal(rng, GRID, GRID),)

    @staticmethod
    def numpy(grid: Any) -> Any:
        u = grid.copy()
        for _ in range(SWEEPS):
            u[1:-1, 1:-1] = 0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:])
        return u

    @classmethod
    def neuralscript(cls, tj: Any) -> Function | None:
        return lambda grid: tj.kernels.jacobi(grid, SWEEPS)

    @staticmethod
    def jax(jax: Any) -> Function:
        def sweep(_: Any, u: Any) -> Any:
            around = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
            return u.at[1:-1, 1:-1].set(0.25 * around)

        return jax.jit(lambda grid: jax.lax.fori_loop(0, SWEEPS, sweep, grid))

    @staticmethod
    def torch(torch: Any) -> Function:
        def run(grid: Any) -> Any:
            u = grid.clone()
            for _ in range(SWEEPS):
                u[1:-1, 1:-1] = 0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:])
            return u

        return run

    @staticmethod
    def numba(numba: Any) -> Function:
        quarter = np.float32(0.25)

        def run(grid: Any) -> Any:
            u, v = grid.copy(), grid.copy()
            for _ in range(SWEEPS):
                for i in numba.prange(1, grid.shape[0] - 1):
                    for j in range(1, grid.shape[1] - 1):
                        v[i, j] = quarter * (u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1])
                u, v = v, u
            return u

        return numba.njit(run, parallel=True)


def outlines(pad: Any, where: Any) -> Function:
    """Return a filter over a library's functions: blur, gradient, its size above a threshold."""

    def run(image: Any) -> Any:
        p = pad(image)
        across = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
        p = pad((across[:-2] + 2 * across[1:-1] + across[2:]) / 16)
        x = p[:-2, 2:] - p[:-2, :-2] + 2 * (p[1:-1, 2:] - p[1:-1, :-2]) + p[2:, 2:] - p[2:, :-2]
        y = p[2:, :-2] - p[:-2, :-2] + 2 * (p[2:, 1:-1] - p[:-2, 1:-1]) + p[2:, 2:] - p[:-2, 2:]
        return where(x * x + y * y > 0.25, image, 0)

    return run


class Outlines(Row):
    """An image where a blurred copy of it is steep, and 0 elsewhere."""

    name, title, group = "outlines", "Blur, Sobel and threshold, 1080×1920 f32", "kernels"
    bytes, flops = 2 * 4 * IMAGE[0] * IMAGE[1], 30 * IMAGE[0] * IMAGE[1]
    differing = 1e-3  # rounding decides at the threshold

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (normal(rng, *IMAGE),)

    @staticmethod
    def numpy(image: Any) -> Any:
        return outlines(lambda x: np.pad(x, 1, mode="edge"), np.where)(image)

    @staticmethod
    def jax(jax: Any) -> Function:
        jnp = jax.numpy
        return jax.jit(outlines(lambda x: jnp.pad(x, 1, mode="edge"), jnp.where))

    @staticmethod
    def torch(torch: Any) -> Function:
        def pad(x: Any) -> Any:
            return torch.nn.functional.pad(x[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]

        return outlines(pad, torch.where)


class Heat(Row):
    """Heat that spreads in a block whose faces stay as they are."""

    name, title, group = "heat", "4 sweeps of heat in a block, 130³ f32", "kernels"
    bytes, flops = 2 * 4 * DEPTH**3, 9 * HEATED * (DEPTH - 2) ** 3

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (normal(rng, DEPTH, DEPTH, DEPTH),)

    @staticmethod
    def numpy(block: Any) -> Any:
        u = block.copy()
        for _ in range(HEATED):
            u[1:-1, 1:-1, 1:-1] = warmed(u)
        return u

    @staticmethod
    def jax(jax: Any) -> Function:
        def sweep(_: Any, u: Any) -> Any:
            return u.at[1:-1, 1:-1, 1:-1].set(warmed(u))

        return jax.jit(lambda block: jax.lax.fori_loop(0, HEATED, sweep, block))

    @staticmethod
    def torch(torch: Any) -> Function:
        def run(block: Any) -> Any:
            u = block.clone()
            for _ in range(HEATED):
                u[1:-1, 1:-1, 1:-1] = warmed(u)
            return u

        return run

    @staticmethod
    def numba(numba: Any) -> Function:
        tenth, six = np.float32(0.1), np.float32(6)

        def run(block: Any) -> Any:
            u, v = block.copy(), block.copy()
            for _ in range(HEATED):
                for i in numba.prange(1, block.shape[0] - 1):
                    for j in range(1, block.shape[1] - 1):
                        for k in range(1, block.shape[2] - 1):
                            near = u[i - 1, j, k] + u[i + 1, j, k] + u[i, j - 1, k]
                            near += u[i, j + 1, k] + u[i, j, k - 1] + u[i, j, k + 1]
                            v[i, j, k] = u[i, j, k] + tenth * (near - six * u[i, j, k])
                u, v = v, u
            return u

        return numba.njit(run, parallel=True)


def warmed(u: Any) -> Any:
    """Return the inside of a block after one sweep."""
    inside = u[1:-1, 1:-1, 1:-1]
    near = u[:-2, 1:-1, 1:-1] + u[2:, 1:-1, 1:-1] + u[1:-1, :-2, 1:-1] + u[1:-1, 2:, 1:-1]
    near = near + u[1:-1, 1:-1, :-2] + u[1:-1, 1:-1, 2:]
    return inside + 0.1 * (near - 6 * inside)


def escape(where: Any, zeros_like: Any, as_dtype: Any) -> Function:
    """Return Mandelbrot's iteration in real numbers over a library's functions."""

    def run(x: Any, y: Any) -> Any:
        re, im, count = zeros_like(x), zeros_like(y), zeros_like(x)
        for _ in range(STEPS):
            inside = re * re + im * im <= 4
            next_re, next_im = re * re - im * im + x, 2 * re * im + y
            re, im = where(inside, next_re, re), where(inside, next_im, im)
            count = count + as_dtype(inside, x.dtype)
        return count

    return run


class Mandelbrot(Row):
    """Twenty steps for each point, written without a branch. The limit counts those that matter."""

    name, title, kernel = "mandelbrot", "Mandelbrot, 512², 20 unrolled steps, f32", "mandelbrot"
    # A point leaves after 4.5 steps in the mean, or not at all.
    bytes, flops = 3 * 4 * SIDE * SIDE, int(10 * 4.5 * SIDE * SIDE)
    differing = 2e-3  # rounding decides beside the border

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        side = np.linspace(-2, 2, SIDE, dtype=np.float32)
        x, y = np.meshgrid(side - np.float32(0.5), side)
        return np.ascontiguousarray(x), np.ascontiguousarray(y)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return escape(np.where, np.zeros_like, lambda mask, dtype: mask.astype(dtype))(x, y)

    @classmethod
    def neuralscript(cls, tj: Any) -> Function | None:
        return lambda x, y: tj.kernels.mandelbrot(x, y, STEPS)

    @staticmethod
    def jax(jax: Any) -> Function:
        jnp = jax.numpy
        return jax.jit(escape(jnp.where, jnp.zeros_like, lambda mask, dtype: mask.astype(dtype)))

    @staticmethod
    def torch(torch: Any) -> Function:
        return escape(torch.where, torch.zeros_like, lambda mask, dtype: mask.to(dtype))

    @staticmethod
    def numba(numba: Any) -> Function:
        four, two, one = np.float32(4), np.float32(2), np.float32(1)

        def run(x: Any, y: Any) -> Any:
            out = np.empty_like(x)
            for i in numba.prange(x.shape[0]):
                for j in range(x.shape[1]):
                    re = im = count = np.float32(0)
                    for _ in range(STEPS):
                        if re * re + im * im > four:
                            break
                        re, im = re * re - im * im + x[i, j], two * re * im + y[i, j]
                        count += one
                    out[i, j] = count
            return out

        return numba.njit(run, parallel=True)


def escape_complex(where: Any, zeros_like: Any, as_dtype: Any) -> Function:
    """Return Mandelbrot's iteration in complex numbers over a library's functions."""

    def run(c: Any) -> Any:
        z, count = zeros_like(c), zeros_like(c.real)
        for _ in range(STEPS):
            inside = z.real * z.real + z.imag * z.imag <= 4
            z = where(inside, z * z + c, z)
            count = count + as_dtype(inside, c.real.dtype)
        return count

    return run


class ComplexMandelbrot(Row):
    """The same in complex numbers, as users write it."""

    name, title = "mandelbrot_complex", "Mandelbrot in complex numbers, 512², complex64"
    bytes, flops = 3 * 4 * SIDE * SIDE, int(10 * 4.5 * SIDE * SIDE)
    differing = 2e-3

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        x, y = Mandelbrot.data(rng)
        return (x + np.complex64(1j) * y,)

    @staticmethod
    def numpy(c: Any) -> Any:
        return escape_complex(np.where, np.zeros_like, lambda mask, dtype: mask.astype(dtype))(c)

    @staticmethod
    def jax(jax: Any) -> Function:
        jnp = jax.numpy
        return jax.jit(
            escape_complex(jnp.where, jnp.zeros_like, lambda mask, dtype: mask.astype(dtype))
        )

    @staticmethod
    def torch(torch: Any) -> Function:
        return escape_complex(torch.where, torch.zeros_like, lambda mask, dtype: mask.to(dtype))

    @staticmethod
    def numba(numba: Any) -> Function:
        one, four = np.float32(1), np.float32(4)

        def run(c: Any) -> Any:
            out = np.empty(c.shape, np.float32)
            for i in numba.prange(c.shape[0]):
                for j in range(c.shape[1]):
                    z, count = np.complex64(0), np.float32(0)
                    for _ in range(STEPS):
                        if z.real * z.real + z.imag * z.imag > four:
                            break
                        z = z * z + c[i, j]
                        count += one
                    out[i, j] = count
            return out

        return numba.njit(run, parallel=True)
