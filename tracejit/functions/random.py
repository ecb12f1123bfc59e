"""``tj.random``: random tensors under NumPy's and PyTorch's names.

Numbers come from Philox, keyed by a seed and a stream; each draw takes the next stream of the
global seed (``manual_seed``), so that a program repeats. With ``seed=`` a draw is a pure function
of its arguments. Inside a trace only such draws are allowed: an unseeded one would be drawn once,
while tracing, and repeat on every call.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

from tracejit.errors import TraceError, ValueArgumentError
from tracejit.functions.arguments import as_dtype, as_index, as_shape, fail, is_sequence, varargs
from tracejit.functions.gather import take
from tracejit.graph.node import make
from tracejit.tensor import Tensor, lift, record, wrap
from tracejit.tracing import state, user_location
from tracejit.writes import store

__all__ = [
    "bernoulli", "choice", "exponential", "manual_seed", "normal", "permutation", "rand",
    "randint", "randn", "random", "randperm", "seed", "shuffle", "standard_normal", "uniform",
]  # fmt: skip


class _Source:
    """The global seed and the streams it has given out."""

    def __init__(self) -> None:
        self.restart(int.from_bytes(os.urandom(7), "little"))

    def restart(self, seed: int) -> None:
        self.seed = seed
        self.streams: Iterator[int] = itertools.count()


_source = _Source()


def manual_seed(seed: int, /) -> None:
    """Start the global sequence of random numbers anew from ``seed``."""
    _source.restart(as_index(seed, "a seed"))


seed = manual_seed


def _draw(row: str, shape: Any, dtype: Any, seed: int | None, **attrs: Any) -> Tensor:
    location = user_location()
    if seed is None:
        if state.trace is not None:
            raise fail(
                TraceError,
                f"random numbers drawn in {state.trace.name} would repeat on every call",
                "draw outside and pass them in, or give seed=",
            )
        number, stream = _source.seed, next(_source.streams)
    else:
        number, stream = as_index(seed, "a seed"), 0
    settings = {
        "seed": number, "stream": stream, "shape": as_shape(shape),
        "dtype": as_dtype(dtype).str, **attrs,
    }  # fmt: skip
    try:
        return wrap(make(row, (), settings, location))
    except ValueArgumentError as error:
        error.loc = location
        raise


def rand(*shape: Any, dtype: Any = "float64", seed: int | None = None) -> Tensor:
    """Return numbers uniform on [0, 1)."""
    return _draw("random_uniform", varargs(shape), dtype, seed)


def random(size: Any = (), dtype: Any = "float64", *, seed: int | None = None) -> Tensor:
    """Return numbers uniform on [0, 1)."""
    return _draw("random_uniform", size, dtype, seed)


def randn(*shape: Any, dtype: Any = "float64", seed: int | None = None) -> Tensor:
    """Return standard normal numbers."""
    return _draw("random_normal", varargs(shape), dtype, seed)


def standard_normal(size: Any = (), dtype: Any = "float64", *, seed: int | None = None) -> Tensor:
    """Return standard normal numbers."""
    return _draw("random_normal", size, dtype, seed)


def uniform(
    low: float = 0.0, high: float = 1.0, size: Any = (), *,
    dtype: Any = "float64", seed: int | None = None,
) -> Tensor:  # fmt: skip
    """Return numbers uniform on [low, high)."""
    limits = {"low": float(low), "high": float(high)}
    return _draw("random_uniform", size, dtype, seed, **limits)


def normal(
    loc: float = 0.0, scale: float = 1.0, size: Any = (), *,
    dtype: Any = "float64", seed: int | None = None,
) -> Tensor:  # fmt: skip
    """Return normal numbers of mean ``loc`` and standard deviation ``scale``."""
    return _draw("random_normal", size, dtype, seed, mean=float(loc), std=float(scale))


def exponential(
    scale: float = 1.0, size: Any = (), *, dtype: Any = "float64", seed: int | None = None
) -> Tensor:
    """Return exponential numbers of mean ``scale``."""
    return _draw("random_exponential", size, dtype, seed, scale=float(scale))


def randint(
    low: int, high: Any = None, size: Any = (), *,
    dtype: Any = "int64", seed: int | None = None,
) -> Tensor:  # fmt: skip
    """Return integers of [low, high), or of [0, low) without ``high``."""
    if is_sequence(high):  # PyTorch's randint(high, size)
        high, size = None, high
    first, last = (0, low) if high is None else (low, high)
    bounds = {"low": as_index(first, "low"), "high": as_index(last, "high")}
    if bounds["low"] >= bounds["high"]:
        raise fail(ValueArgumentError, f"randint: no integer in [{first}, {last})")
    return _draw("random_integers", size, dtype, seed, **bounds)


def bernoulli(p: float, size: Any = (), *, dtype: Any = "bool", seed: int | None = None) -> Tensor:
    """Return 1 with probability ``p``, else 0."""
    return _draw("random_bernoulli", size, dtype, seed, p=float(p))


def randperm(n: int, /, *, dtype: Any = "int64", seed: int | None = None) -> Tensor:
    """Return 0 … n − 1 in random order."""
    return _draw("random_permutation", n, dtype, seed)


def permutation(x: Any, /, *, seed: int | None = None) -> Tensor:
    """Return ``x`` in random order along its first axis; 0 … x − 1 for an int."""
    if isinstance(x, int):
        return randperm(x, seed=seed)
    value = lift(x)
    return take(value, randperm(value.shape[0], seed=seed), 0)


def shuffle(x: Tensor, /, *, seed: int | None = None) -> None:
    """Put ``x`` in random order along its first axis, in place."""
    store(x, permutation(x, seed=seed))


def choice(
    a: Any, size: Any = (), replace: bool = True, p: Any = None, *, seed: int | None = None
) -> Tensor:
    """Return elements of 1-d ``a`` (0 … a − 1 for an int), by probabilities ``p`` if given."""
    count = a if isinstance(a, int) else lift(a).shape[0]
    shape = as_shape(size)
    number = 1
    for extent in shape:
        number *= extent
    if not replace:
        if p is not None:
            raise fail(ValueArgumentError, "choice: probabilities need replace=True")
        if number > count:
            raise fail(ValueArgumentError, f"choice: {number} of {count} without replacement")
        index = randperm(count, seed=seed)[:number].reshape(shape)
    elif p is None:
        index = randint(0, count, shape, seed=seed)
    else:
        weights = lift(p)
        total = record("cumsum", (weights,), axis=0)
        scaled = record("divide", (total, total[-1]))
        draws = random(shape, seed=seed)
        index = record("searchsorted", (scaled, draws), side="right")
    return index if isinstance(a, int) else take(a, index, 0)
