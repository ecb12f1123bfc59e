"""Random numbers, a pure function of their attributes.

Counter-based: Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) keyed by
``seed`` and ``stream``, through ``numpy.random.Generator``. Equal attributes give equal values, so
two draws need two streams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracejit.errors import DTypeError, ValueArgumentError
from tracejit.ops.table import Array, Attrs, Aval, Fact, Family, Op, Shape, checked, register

_MASK = (1 << 64) - 1


def _generator(seed: int, stream: int) -> Any:
    key = np.array([seed & _MASK, stream & _MASK], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def _random(name: str, kinds: str, reference: Callable[..., Array], doc: str) -> Op:
    def infer(operands: Sequence[Aval], attrs: Attrs) -> Aval:
        settings: Any = attrs
        dtype = np.dtype(settings["dtype"])
        if dtype.kind not in kinds or dtype == np.float16:
            raise DTypeError(f"{name} does not make {dtype}", hint="cast the result instead")
        low, high = settings.get("low"), settings.get("high")
        if low is not None and high is not None and not low <= high:
            raise ValueArgumentError(f"{name}: low = {low} is above high = {high}")
        return checked(name, dtype, tuple(settings["shape"]))

    return register(Op(name, Family.RANDOM, 0, reference, infer, None, Fact.EXPENSIVE, None, doc))


def _uniform(
    *, seed: int, shape: Shape, dtype: Any, low: float = 0.0, high: float = 1.0, stream: int = 0
) -> Array:
    kind = np.dtype(dtype).type
    unit = _generator(seed, stream).random(shape, dtype=kind)
    return np.asarray(kind(low) + unit * kind(high - low))


def _normal(
    *, seed: int, shape: Shape, dtype: Any, mean: float = 0.0, std: float = 1.0, stream: int = 0
) -> Array:
    kind = np.dtype(dtype).type
    unit = _generator(seed, stream).standard_normal(shape, dtype=kind)
    return np.asarray(kind(mean) + unit * kind(std))


def _exponential(
    *, seed: int, shape: Shape, dtype: Any, scale: float = 1.0, stream: int = 0
) -> Array:
    kind = np.dtype(dtype).type
    return np.asarray(
        _generator(seed, stream).standard_exponential(shape, dtype=kind) * kind(scale)
    )


def _integers(
    *, seed: int, shape: Shape, dtype: Any, low: int, high: int, stream: int = 0
) -> Array:
    if low == high and 0 not in shape:
        raise ValueArgumentError(f"random_integers: no integer in [{low}, {high})")
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.asarray(_generator(seed, stream).integers(low, high, shape, dtype=dtype))


def _bernoulli(*, seed: int, shape: Shape, dtype: Any, p: float, stream: int = 0) -> Array:
    return np.asarray(_generator(seed, stream).random(shape) < p).astype(dtype)


def _permutation(*, seed: int, shape: Shape, dtype: Any, stream: int = 0) -> Array:
    return np.asarray(_generator(seed, stream).permutation(shape[0])).astype(dtype)


_random("random_uniform", "f", _uniform, "Uniform on [low, high).")
_random("random_normal", "f", _normal, "Normal with a mean and a standard deviation.")
_random("random_exponential", "f", _exponential, "Exponential with a scale.")
_random("random_integers", "iu", _integers, "Integers of [low, high).")
_random("random_bernoulli", "bifu", _bernoulli, "1 with probability p, else 0.")
_random("random_permutation", "iu", _permutation, "0 … n − 1 in random order; shape is (n,).")
