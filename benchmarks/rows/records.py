"""Rows over records: pixels whose colours, and points whose coordinates, lie side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import DIVIDE, Function, Row
from .elementwise import normal

IMAGES, HEIGHT, WIDTH = 8, 256, 256
PIXELS = IMAGES * HEIGHT * WIDTH
VECTORS = 200_000


class Pixels(Row):
    """What comes before a network for images: bytes by pixel become normalised planes."""

    name, title, group = "pixels", "normalised planes of 8 images, 256²×3 u8", "kernels"
    bytes = (1 + 4) * 3 * PIXELS
    flops = (2 + 2 * DIVIDE) * 3 * PIXELS
    memory_bound = True

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        images = rng.integers(0, 256, size=(IMAGES, HEIGHT, WIDTH, 3), dtype=np.uint8)
        mean = np.array([0.485, 0.456, 0.406], np.float32)
        return images, mean, np.array([0.229, 0.224, 0.225], np.float32)

    @staticmethod
    def numpy(images: Any, mean: Any, deviation: Any) -> Any:
        scaled = (images.astype(np.float32) / 255 - mean) / deviation
        return scaled.transpose(0, 3, 1, 2).copy()

    @staticmethod
    def jax(jax: Any) -> Function:
        def run(images: Any, mean: Any, deviation: Any) -> Any:
            scaled = (images.astype(np.float32) / 255 - mean) / deviation
            return scaled.transpose(0, 3, 1, 2)

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        def run(images: Any, mean: Any, deviation: Any) -> Any:
            scaled = (images.to(torch.float32) / 255 - mean) / deviation
            return scaled.permute(0, 3, 1, 2).contiguous()

        return run

    @staticmethod
    def numba(numba: Any) -> Function:
        def run(images: Any, mean: Any, deviation: Any) -> Any:
            count, height, width, colours = images.shape
            out = np.empty((count, colours, height, width), np.float32)
            for row in numba.prange(count * height):
                n, i = row // height, row % height
                for c in range(colours):
                    for j in range(width):
                        value = images[n, i, j, c] / np.float32(255)
                        out[n, c, i, j] = (value - mean[c]) / deviation[c]
            return out

        return numba.njit(run, parallel=True)


class Cross(Row):
    """The vector products of many pairs of vectors in space."""

    name, title, group = "cross", "cross product, 200k×3 f32", "kernels"
    bytes = 4 * 3 * 3 * VECTORS
    flops = 9 * VECTORS
    memory_bound = True

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return normal(rng, VECTORS, 3), normal(rng, VECTORS, 3)

    @staticmethod
    def numpy(a: Any, b: Any) -> Any:
        return np.cross(a, b)

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(jax.numpy.cross)

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda a, b: torch.linalg.cross(a, b)

    @staticmethod
    def numba(numba: Any) -> Function:
        def run(a: Any, b: Any) -> Any:
            out = np.empty_like(a)
            for i in numba.prange(len(a)):
                out[i, 0] = a[i, 1] * b[i, 2] - a[i, 2] * b[i, 1]
                out[i, 1] = a[i, 2] * b[i, 0] - a[i, 0] * b[i, 2]
                out[i, 2] = a[i, 0] * b[i, 1] - a[i, 1] * b[i, 0]
            return out

        return numba.njit(run, parallel=True)
