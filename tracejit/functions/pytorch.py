"""What only PyTorch's programs say, made of the other functions; ``methods`` has more of it."""

from __future__ import annotations

import contextlib
import math
from typing import Any, NamedTuple

from tracejit.errors import ValueArgumentError
from tracejit.functions import creation, dtypes, elementwise, linalg, ordering, random, reductions
from tracejit.functions.arguments import as_index, fail, one_axis
from tracejit.functions.indexing import checked_index
from tracejit.functions.joining import array_split, stack
from tracejit.functions.movement import cut, moveaxis, reshape, squeeze
from tracejit.tensor import Tensor, cast, lift, record

__all__ = [
    "as_tensor", "bernoulli", "block_diag", "cartesian_prod", "clamp_max", "clamp_min", "det",
    "frac", "from_numpy", "hamming_window", "hann_window", "index_fill", "inference_mode",
    "inverse", "is_tensor", "movedim", "multinomial", "narrow", "no_grad", "polar",
    "rand_like", "randn_like", "std_mean", "tensor_split", "var_mean",
]  # fmt: skip

as_tensor = from_numpy = creation.asarray
movedim = moveaxis
inverse, det = linalg.inv, linalg.det


class no_grad(contextlib.ContextDecorator):  # noqa: N801 (PyTorch's name)
    """A ``with`` block, or a decorator, that changes nothing: there are no gradients."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


inference_mode = no_grad


def is_tensor(x: object, /) -> bool:
    """Return whether ``x`` is a tensor."""
    return isinstance(x, Tensor)


# -- elementwise -----------------------------------------------------------------------------------


def polar(abs: Any, angle: Any, /) -> Tensor:
    """Return the complex numbers of these magnitudes and angles."""
    real, imaginary = (record(part, (angle,)) for part in ("cos", "sin"))
    return record(
        "complex", (record("multiply", (abs, real)), record("multiply", (abs, imaginary)))
    )


def frac(x: Any, /) -> Tensor:
    """Return the fraction, with the sign of ``x``."""
    value = lift(x)
    return record("subtract", (value, record("trunc", (value,))))


def clamp_min(x: Any, /, min: Any) -> Tensor:
    """Return ``x``, and ``min`` where it is less."""
    return elementwise.clip(x, min)


def clamp_max(x: Any, /, max: Any) -> Tensor:
    """Return ``x``, and ``max`` where it is greater."""
    return elementwise.clip(x, None, max)


# -- two statistics --------------------------------------------------------------------------------


class SpreadMean(NamedTuple):
    """The result of ``std_mean`` and ``var_mean``."""

    spread: Tensor
    mean: Tensor


def std_mean(x: Any, /, dim: Any = None, keepdim: bool = False, correction: int = 1) -> SpreadMean:
    """Return the standard deviation, divided by n − correction, and the mean."""
    spread = reductions.std(x, dim=dim, keepdim=keepdim, correction=correction)
    return SpreadMean(spread, reductions.mean(x, dim=dim, keepdim=keepdim))


def var_mean(x: Any, /, dim: Any = None, keepdim: bool = False, correction: int = 1) -> SpreadMean:
    """Return the variance, divided by n − correction, and the mean."""
    spread = reductions.var(x, dim=dim, keepdim=keepdim, correction=correction)
    return SpreadMean(spread, reductions.mean(x, dim=dim, keepdim=keepdim))


# -- parts and joins -------------------------------------------------------------------------------


def narrow(x: Any, dim: int, start: int, length: int) -> Tensor:
    """Return the view of ``length`` elements along ``dim`` from ``start`` on."""
    return lift(x).narrow(dim, start, length)


def part_at(x: Any, dim: int, index: int) -> Tensor:
    """Return the view at one index along ``dim``, which is what the method ``select`` does."""
    value = lift(x)
    place = one_axis("select", dim, value.shape)
    position = as_index(index, "an index")
    extent = value.shape[place]
    if not -extent <= position < extent:
        checked_index([position], place, extent)
    position += extent * (position < 0)
    return squeeze(cut(value, place, position, position + 1), place)


def index_fill(x: Any, dim: int, index: Any, value: Any) -> Tensor:
    """Return ``x`` with ``value`` in the slices that ``index`` names along ``dim``."""
    source = lift(x)
    place = one_axis("index_fill", dim, source.shape)
    key = (*(slice(None),) * place, checked_index(index, place, source.shape[place]))
    result = source.copy()
    result[key] = value
    return result


def tensor_split(x: Any, parts: Any, /, dim: int = 0) -> list[Tensor]:
    """Return ``parts`` pieces of nearly equal size, or the pieces between given positions."""
    return array_split(x, parts, dim)


def cartesian_prod(*arrays: Any) -> Tensor:
    """Return the rows of all combinations of elements of 1-d ``arrays``."""
    if len(arrays) == 1:
        return lift(arrays[0])
    grid = creation.meshgrid(*arrays, indexing="ij")
    return stack([reshape(part, (-1,)) for part in grid], 1)


def block_diag(*matrices: Any) -> Tensor:
    """Return the matrix that has these along its diagonal, and zeros elsewhere."""
    blocks = [_matrix(m) for m in matrices]
    rows, columns = (sum(b.shape[i] for b in blocks) for i in (0, 1))
    dtype = dtypes.result_type(*blocks)
    result, i, j = creation.zeros((rows, columns), dtype=dtype), 0, 0
    for block in blocks:
        m, n = block.shape
        result[i : i + m, j : j + n] = block
        i, j = i + m, j + n
    return result


def _matrix(x: Any) -> Tensor:
    value = lift(x)
    if value.ndim > 2:
        raise fail(ValueArgumentError, f"block_diag: a block of shape {value.shape}", "matrices")
    return value if value.ndim == 2 else reshape(value, (1, -1))


# -- random numbers --------------------------------------------------------------------------------


def rand_like(x: Any, /, *, dtype: Any = None, seed: Any = None) -> Tensor:
    """Return numbers uniform on [0, 1) in the shape and dtype of ``x``."""
    value = lift(x)
    return random.random(value.shape, dtype or value.dtype, seed=seed)


def randn_like(x: Any, /, *, dtype: Any = None, seed: Any = None) -> Tensor:
    """Return standard normal numbers in the shape and dtype of ``x``."""
    value = lift(x)
    return random.standard_normal(value.shape, dtype or value.dtype, seed=seed)


def bernoulli(p: Any, /, *, seed: Any = None) -> Tensor:
    """Return 1 with the probabilities ``p``, else 0, in their dtype."""
    value = lift(p)
    return cast(record("less", (rand_like(value, seed=seed), value)), value.dtype)


def multinomial(
    weights: Any, num_samples: Any, replacement: bool = False, *, seed: Any = None
) -> Tensor:
    """Return indices drawn with the weights of each row, for ``num_samples`` places.

    Without replacement the order is that of exponential times with these rates (P. Efraimidis and
    P. Spirakis, 2006).
    """
    value, count = lift(weights), as_index(num_samples, "num_samples")
    if not replacement:
        if count > value.shape[-1]:
            raise fail(ValueArgumentError, f"multinomial: {count} of {value.shape[-1]} places")
        times = random.exponential(1.0, value.shape, dtype=value.dtype, seed=seed)
        return ordering.topk(record("divide", (value, times)), count).indices
    total = record("cumsum", (value,), axis=value.ndim - 1)
    draws = random.random((*value.shape[:-1], count), value.dtype, seed=seed)
    reached = record("multiply", (draws, total[..., -1:]))
    below = record("less_equal", (total[..., None, :], reached[..., None]))
    return reductions.sum(below, -1)


# -- windows ---------------------------------------------------------------------------------------


def hann_window(window_length: Any, periodic: bool = True, *, dtype: Any = "float32") -> Tensor:
    """Return ½ − ½ cos(2πn / N), N one less if not ``periodic``."""
    return hamming_window(window_length, periodic, 0.5, 0.5, dtype=dtype)


def hamming_window(
    window_length: Any, periodic: bool = True, alpha: Any = 0.54, beta: Any = 0.46, *,
    dtype: Any = "float32",
) -> Tensor:  # fmt: skip
    """Return alpha − beta cos(2πn / N), N one less if not ``periodic``."""
    length = as_index(window_length, "window_length")
    if length == 1:
        return creation.ones((1,), dtype=dtype)
    step = 2 * math.pi / (length if periodic else length - 1)
    angle = record("multiply", (creation.arange(length, dtype="float64"), step))
    wave = record("multiply", (record("cos", (angle,)), beta))
    return cast(record("subtract", (alpha, wave)), dtype)
