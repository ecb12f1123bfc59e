"""Rows that read at computed positions: tables of words, and an array in another order."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Function, Row
from .elementwise import normal

WORDS, WIDTH = 32000, 512
TEXTS, LENGTH = 8, 256
BAGS, BAG = 512, 32
COUNT = 1_000_000


class Embedding(Row):
    """The first layer of a transformer: a row of the table for each word, and one for its place."""

    name, title, group = "embedding", "table[words] + places, 8×256×512 f32", "kernels"
    bytes = 8 * TEXTS * LENGTH + 4 * (2 * TEXTS * LENGTH * WIDTH + LENGTH * WIDTH)
    flops = TEXTS * LENGTH * WIDTH
    memory_bound = True

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        words = rng.integers(0, WORDS, size=(TEXTS, LENGTH))
        return words, normal(rng, WORDS, WIDTH), normal(rng, LENGTH, WIDTH)

    @staticmethod
    def numpy(words: Any, table: Any, places: Any) -> Any:
        return table[words] + places

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda words, table, places: table[words] + places)

    @staticmethod
    def torch(torch: Any) -> Function:
        lookup = torch.nn.functional.embedding
        return lambda words, table, places: lookup(words, table) + places

    @staticmethod
    def numba(numba: Any) -> Function:
        def run(words: Any, table: Any, places: Any) -> Any:
            out = np.empty((*words.shape, table.shape[1]), table.dtype)
            for i in numba.prange(words.shape[0]):
                for j in range(words.shape[1]):
                    for k in range(table.shape[1]):
                        out[i, j, k] = table[words[i, j], k] + places[j, k]
            return out

        return numba.njit(run, parallel=True)


class EmbeddingBag(Row):
    """The sum of the rows of several words, which need not be stored."""

    name, title, group = "embedding_bag", "table[words].sum(1), 512×32×512 f32", "kernels"
    bytes = 8 * BAGS * BAG + 4 * (BAGS * BAG * WIDTH + BAGS * WIDTH)
    flops = BAGS * BAG * WIDTH
    memory_bound = True

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return rng.integers(0, WORDS, size=(BAGS, BAG)), normal(rng, WORDS, WIDTH)

    @staticmethod
    def numpy(words: Any, table: Any) -> Any:
        return table[words].sum(axis=1)

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda words, table: table[words].sum(axis=1))

    @staticmethod
    def torch(torch: Any) -> Function:
        bag = torch.nn.functional.embedding_bag
        return lambda words, table: bag(words, table, mode="sum")

    @staticmethod
    def numba(numba: Any) -> Function:
        def run(words: Any, table: Any) -> Any:
            out = np.zeros((words.shape[0], table.shape[1]), table.dtype)
            for i in numba.prange(words.shape[0]):
                for j in range(words.shape[1]):
                    for k in range(table.shape[1]):
                        out[i, k] += table[words[i, j], k]
            return out

        return numba.njit(run, parallel=True)


class Shuffle(Row):
    """A million elements in another order, and some arithmetic."""

    name, title, group = "gather", "2·x[i] + 1, 1M of 1M f32", "kernels"
    bytes, flops = 16 * COUNT, 2 * COUNT

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return normal(rng, COUNT), rng.integers(0, COUNT, size=COUNT)

    @staticmethod
    def numpy(x: Any, i: Any) -> Any:
        return 2 * x[i] + 1

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda x, i: 2 * x[i] + 1)

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda x, i: 2 * x[i] + 1

    @staticmethod
    def numba(numba: Any) -> Function:
        def run(x: Any, i: Any) -> Any:
            out = np.empty(i.shape, x.dtype)
            for n in numba.prange(i.shape[0]):
                out[n] = 2 * x[i[n]] + 1
            return out

        return numba.njit(run, parallel=True)
