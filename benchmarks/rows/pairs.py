"""Rows over all pairs of two sets: the broadcast intermediate need never be stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import DIVIDE, SQRT, Function, Row
from .elementwise import normal

BODIES = 1500
POINTS, CENTRES, DIMENSIONS = 8000, 64, 32


class NBody(Row):
    """The gravitational pull on each body."""

    name, title, dtype = "n_body", "n-body forces, 1500 bodies, f64", "f64"
    bytes, flops = 8 * 7 * BODIES, (15 + DIVIDE + SQRT) * BODIES * BODIES
    rtol, atol = 1e-9, 1e-9

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return rng.standard_normal((BODIES, 3)), rng.uniform(0.5, 1.5, BODIES)

    @staticmethod
    def numpy(position: Any, mass: Any) -> Any:
        d = position[None, :, :] - position[:, None, :]
        r2 = (d * d).sum(axis=-1) + 1e-3
        pull = mass[None, :] / (r2 * np.sqrt(r2))
        return (d * pull[:, :, None]).sum(axis=1)

    @staticmethod
    def jax(jax: Any) -> Function:
        def run(position: Any, mass: Any) -> Any:
            d = position[None, :, :] - position[:, None, :]
            r2 = (d * d).sum(axis=-1) + 1e-3
            pull = mass[None, :] / (r2 * jax.numpy.sqrt(r2))
            return (d * pull[:, :, None]).sum(axis=1)

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        def run(position: Any, mass: Any) -> Any:
            d = position[None, :, :] - position[:, None, :]
            r2 = (d * d).sum(dim=-1) + 1e-3
            pull = mass[None, :] / (r2 * torch.sqrt(r2))
            return (d * pull[:, :, None]).sum(dim=1)

        return run

    @staticmethod
    def numba(numba: Any) -> Function:
        def run(position: Any, mass: Any) -> Any:
            out = np.empty_like(position)
            for i in numba.prange(position.shape[0]):
                fx = fy = fz = 0.0
                for j in range(position.shape[0]):
                    dx = position[j, 0] - position[i, 0]
                    dy = position[j, 1] - position[i, 1]
                    dz = position[j, 2] - position[i, 2]
                    r2 = dx * dx + dy * dy + dz * dz + 1e-3
                    pull = mass[j] / (r2 * np.sqrt(r2))
                    fx += dx * pull
                    fy += dy * pull
                    fz += dz * pull
                out[i, 0], out[i, 1], out[i, 2] = fx, fy, fz
            return out

        return numba.njit(run, parallel=True)


class KMeans(Row):
    """The nearest centre of each point, by the differences themselves."""

    name, title = "k_means", "k-means assignment, 8000×64×32 f32"
    bytes = 4 * (POINTS * DIMENSIONS + CENTRES * DIMENSIONS + 2 * POINTS)
    flops = 3 * POINTS * CENTRES * DIMENSIONS
    differing = 1e-3  # near ties

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return normal(rng, POINTS, DIMENSIONS), normal(rng, CENTRES, DIMENSIONS)

    @staticmethod
    def numpy(points: Any, centres: Any) -> Any:
        return ((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=-1).argmin(axis=1)

    @staticmethod
    def jax(jax: Any) -> Function:
        def run(points: Any, centres: Any) -> Any:
            return ((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=-1).argmin(axis=1)

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        def run(points: Any, centres: Any) -> Any:
            return ((points[:, None, :] - centres[None, :, :]) ** 2).sum(dim=-1).argmin(dim=1)

        return run

    @staticmethod
    def numba(numba: Any) -> Function:
        def run(points: Any, centres: Any) -> Any:
            out = np.empty(points.shape[0], np.int64)
            for i in numba.prange(points.shape[0]):
                least, nearest = np.float32(np.inf), 0
                for j in range(centres.shape[0]):
                    distance = np.float32(0)
                    for k in range(points.shape[1]):
                        distance += (points[i, k] - centres[j, k]) ** 2
                    if distance < least:
                        least, nearest = distance, j
                out[i] = nearest
            return out

        return numba.njit(run, parallel=True)
