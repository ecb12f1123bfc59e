"""Functions of neural networks, under PyTorch's names.

``axis`` and PyTorch's ``dim`` mean the same. The definitions are the op rows'; float64 stays
float64.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from tracejit import functions
from tracejit.errors import ShapeError, ValueArgumentError
from tracejit.functions import convolution, images, losses
from tracejit.functions.arguments import (
    Axis,
    as_dtype,
    as_index,
    as_shape,
    fail,
    one_axis,
    some_axes,
)
from tracejit.functions.convolution import *  # noqa: F403
from tracejit.functions.creation import filled
from tracejit.functions.elementwise import Binary, Unary, binary, unary
from tracejit.functions.gather import one_hot as one_hot
from tracejit.functions.gather import take
from tracejit.functions.images import *  # noqa: F403
from tracejit.functions.images import pad as pad
from tracejit.functions.losses import *  # noqa: F403
from tracejit.functions.movement import broadcast_arrays, cut, moveaxis
from tracejit.tensor import Tensor, apply, cast, lift, record

__all__ = [
    "attention", "batch_norm", "cdist", "celu", "cosine_similarity", "dropout", "elu", "embedding",
    "embedding_bag", "gelu", "glu", "group_norm", "hardshrink", "hardsigmoid", "hardswish",
    "hardtanh", "instance_norm", "layer_norm", "leaky_relu", "linear", "log_sigmoid", "log_softmax",
    "logit", "logsigmoid", "mish", "ndtr", "normalize", "pairwise_distance", "prelu", "relu",
    "relu6", "rms_norm", "scaled_dot_product_attention", "selu", "silu", "softmax", "softmin",
    "softplus", "softshrink", "softsign", "squared_difference", "swish", "tanhshrink", "threshold",
    "xlogy",
]  # fmt: skip
__all__ += convolution.__all__
__all__ += images.__all__
__all__ += losses.__all__

functional = sys.modules[__name__]  # tj.nn.functional, where PyTorch has these

relu: Unary = unary("relu")
sigmoid: Unary = unary("sigmoid")
tanh: Unary = unary("tanh")
relu6: Unary = unary("relu6")
selu: Unary = unary("selu")
silu: Unary = unary("silu")
swish = silu
mish: Unary = unary("mish")
softplus: Unary = unary("softplus")
softsign: Unary = unary("softsign")
logsigmoid: Unary = unary("log_sigmoid", "logsigmoid")
log_sigmoid = logsigmoid
tanhshrink: Unary = unary("tanhshrink")
hardsigmoid: Unary = unary("hardsigmoid")
hardswish: Unary = unary("hardswish")
logit: Unary = unary("logit")
ndtr: Unary = unary("ndtr")
prelu: Binary = binary("prelu")
xlogy: Binary = binary("xlogy")
squared_difference: Binary = binary("squared_difference")


def leaky_relu(x: Any, /, negative_slope: float = 0.01) -> Tensor:
    """Return x above zero, negative_slope · x below."""
    return record("leaky_relu", (x,), slope=float(negative_slope))


def elu(x: Any, /, alpha: float = 1.0) -> Tensor:
    """Return x above zero, alpha · (eˣ − 1) below."""
    return record("elu", (x,), alpha=float(alpha))


def celu(x: Any, /, alpha: float = 1.0) -> Tensor:
    """Return x above zero, alpha · (e^(x/alpha) − 1) below."""
    return record("celu", (x,), alpha=float(alpha))


def gelu(x: Any, /, approximate: str = "none") -> Tensor:
    """Return x · Φ(x); ``approximate="tanh"`` for the other usual formula."""
    return record("gelu", (x,), approximate=approximate)


def hardtanh(x: Any, /, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """Return x clipped to [min_val, max_val]."""
    return record("hardtanh", (x,), low=float(min_val), high=float(max_val))


def threshold(x: Any, threshold: float, value: float, /) -> Tensor:
    """Return x above the threshold, else ``value``."""
    return record("threshold", (x,), threshold=float(threshold), value=float(value))


def hardshrink(x: Any, /, lambd: float = 0.5) -> Tensor:
    """Return 0 for |x| ≤ lambd, else x."""
    return record("hardshrink", (x,), width=float(lambd))


def softshrink(x: Any, /, lambd: float = 0.5) -> Tensor:
    """Return x moved towards 0 by ``lambd``."""
    return record("softshrink", (x,), width=float(lambd))


# -- along an axis ---------------------------------------------------------------------------------


def softmax(x: Any, /, axis: int = -1, *, dim: int | None = None, dtype: Any = None) -> Tensor:
    """Return eˣ / Σ eˣ along an axis."""
    return _along("softmax", x, axis if dim is None else dim, dtype)


def log_softmax(x: Any, /, axis: int = -1, *, dim: int | None = None, dtype: Any = None) -> Tensor:
    """Return the logarithm of the softmax, accurate where that underflows."""
    return _along("log_softmax", x, axis if dim is None else dim, dtype)


def _along(name: str, x: Any, axis: int, dtype: Any) -> Tensor:
    value = lift(x) if dtype is None else cast(lift(x), as_dtype(dtype))
    if value.ndim == 0:
        value = apply("reshape", (value,), shape=(1,))
        one_axis(name, axis, (1,))
        return apply("reshape", (record(name, (value,), axis=0),), shape=())
    return record(name, (value,), axis=one_axis(name, axis, value.shape))


def softmin(x: Any, /, axis: int = -1, *, dim: int | None = None) -> Tensor:
    """Return the softmax of −x."""
    return softmax(record("negative", (x,)), axis, dim=dim)


def normalize(x: Any, /, axis: Axis = 1, eps: float = 1e-12, *, dim: Axis = None) -> Tensor:
    """Return x / max(|x|₂, eps) over an axis."""
    value = lift(x)
    axes = tuple(sorted(some_axes("normalize", axis if dim is None else dim, value.shape)))
    return record("normalize", (value,), axis=axes, eps=float(eps))


def layer_norm(
    x: Any,
    normalized_shape: Any = None,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    axis: Axis = None,
) -> Tensor:
    """Return (x − mean) / √(variance + eps) over the last axes, times weight plus bias.

    ``normalized_shape`` are the sizes of these axes; without it, and without ``axis``, it is the
    last axis alone.
    """
    value = lift(x)
    axes = _normal_axes("layer_norm", value, normalized_shape, axis)
    if weight is None and bias is None:
        return record("standardize", (value,), axis=axes, eps=float(eps))
    scale = filled((), 1, value.dtype) if weight is None else lift(weight)
    shift = filled((), 0, scale.dtype) if bias is None else lift(bias)
    return record("layer_norm", (value, scale, shift), axis=axes, eps=float(eps))


def _normal_axes(name: str, x: Tensor, sizes: Any, axis: Axis) -> tuple[int, ...]:
    if sizes is None:
        return tuple(sorted(some_axes(name, -1 if axis is None else axis, x.shape)))
    shape = as_shape(sizes)
    if not shape or x.shape[-len(shape) :] != shape:
        raise fail(ShapeError, f"{name}: the last axes of {x.shape} are not {shape}")
    return tuple(range(x.ndim - len(shape), x.ndim))


def rms_norm(
    x: Any, normalized_shape: Any = None, weight: Any = None, eps: float = 1e-6,
    *, axis: Axis = None,
) -> Tensor:  # fmt: skip
    """Return x / √(mean x² + eps) over the last axes, times weight."""
    value = lift(x)
    axes = _normal_axes("rms_norm", value, normalized_shape, axis)
    scale = filled((), 1, value.dtype) if weight is None else lift(weight)
    return record("rms_norm", (value, scale), axis=axes, eps=float(eps))


def batch_norm(
    x: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Return x normalised for each channel (axis 1): by given statistics, or by its own.

    With ``training`` the statistics are those of ``x``; running ones are not updated.
    """
    value = lift(x)
    if value.ndim < 2:
        raise fail(ShapeError, f"batch_norm needs a channel axis; the shape is {value.shape}")
    shape = tuple(n if i == 1 else 1 for i, n in enumerate(value.shape))

    def channel(part: Any, default: int) -> Tensor:
        if part is None:
            return filled((), default, value.dtype)
        found = lift(part)
        return apply("reshape", (found,), shape=shape) if found.ndim else found

    if training:
        axes = tuple(i for i in range(value.ndim) if i != 1)
        mean = record("mean", (value,), axis=axes, keepdims=True)
        variance = record("var", (value,), axis=axes, keepdims=True)
    else:
        mean, variance = channel(running_mean, 0), channel(running_var, 1)
    operands = (value, mean, variance, channel(weight, 1), channel(bias, 0))
    return record("batch_norm", operands, eps=float(eps))


def group_norm(
    x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """Return [N, C, …] normalised over each of ``num_groups`` groups of channels of a sample.

    ``weight`` and ``bias`` have shape [C] (Wu and He, 2018).
    """
    value, groups = lift(x), as_index(num_groups, "num_groups")
    if value.ndim < 2 or groups < 1 or value.shape[1] % groups:
        raise fail(ShapeError, f"group_norm: {groups} groups of channels in shape {value.shape}")
    n, channels, *rest = value.shape
    grouped = apply("reshape", (value,), shape=(n, groups, channels // groups, *rest))
    axes = tuple(range(2, grouped.ndim))
    result = record("standardize", (grouped,), axis=axes, eps=float(eps))
    result = apply("reshape", (result,), shape=value.shape)
    shape = (channels, *[1] * len(rest))
    for name, part in (("multiply", weight), ("add", bias)):
        if part is not None:
            result = record(name, (result, apply("reshape", (lift(part),), shape=shape)))
    return result


def instance_norm(
    x: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None,
    bias: Any = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Return [N, C, …] normalised over each channel of each sample, or by running statistics."""
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, eps=eps)
    value = lift(x)
    if value.ndim < 2:
        raise fail(ShapeError, f"instance_norm needs a channel axis; the shape is {value.shape}")
    return group_norm(value, value.shape[1], weight, bias, eps)


# -- products --------------------------------------------------------------------------------------


def linear(x: Any, weight: Any, bias: Any = None, /) -> Tensor:
    """Return x @ weightᵀ + bias."""
    operands = (x, weight) if bias is None else (x, weight, bias)
    return record("linear", operands)


def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Return softmax(query keyᵀ · scale + mask) value; scale is 1/√E unless given.

    Shapes […, L, E], […, S, E], […, S, D] → […, L, D]. A mask broadcasts to […, L, S]: booleans
    keep, numbers are added; a row that keeps nothing is NaN. ``is_causal`` hides key j > i from
    query i. With ``enable_gqa``, groups of query heads (axis −3) share a head of keys and values.
    """
    if dropout_p:
        raise fail(ValueArgumentError, "attention: dropout is not part of inference", "dropout_p=0")
    operands = [lift(x) for x in (query, key, value, attn_mask) if x is not None]
    shape = operands[0].shape
    if enable_gqa:
        operands = _grouped(operands)
    factor = 1 / math.sqrt(shape[-1]) if scale is None else float(scale)
    result = record("attention", operands, scale=factor, causal=bool(is_causal))
    if enable_gqa:
        return apply("reshape", (result,), shape=(*shape[:-1], result.shape[-1]))
    return result


def _grouped(operands: list[Tensor]) -> list[Tensor]:
    """Split the heads of queries and of a mask in groups that share keys and values."""
    q, k, v = operands[:3]
    heads = q.shape[-3] if q.ndim > 2 else 0
    shared = k.shape[-3] if k.ndim > 2 else 0
    if not heads or not shared or heads % shared or v.shape[-3:-2] != (shared,):
        raise fail(
            ShapeError,
            f"attention: heads of queries {q.shape} are no multiple of those of "
            f"keys {k.shape} and values {v.shape}",
            "[…, groups · H, L, E], […, H, S, E], […, H, S, D]",
        )

    def split(x: Tensor) -> Tensor:
        if x.ndim < 3:
            return x
        own = (1, 1) if x.shape[-3] == 1 else (shared, x.shape[-3] // shared)
        return apply("reshape", (x,), shape=(*x.shape[:-3], *own, *x.shape[-2:]))

    return [split(x) for x in operands]


attention = scaled_dot_product_attention


def cdist(x: Any, y: Any, /) -> Tensor:
    """Return the Euclidean distances of all rows of ``x`` to all rows of ``y``."""
    return record("cdist", (x, y))


def cosine_similarity(
    x: Any, y: Any, /, axis: int = -1, eps: float = 1e-8, *, dim: int | None = None
) -> Tensor:
    """Return Σ x·y / (|x| |y|) along an axis: the last one, where PyTorch takes axis 1."""
    pair = broadcast_arrays(x, y)
    place = one_axis("cosine_similarity", axis if dim is None else dim, pair[0].shape)
    turned = [moveaxis(v, place, -1) for v in pair]
    return record("cosine_similarity", turned, eps=float(eps))


def glu(x: Any, /, dim: int = -1) -> Tensor:
    """Return the first half along ``dim`` times the sigmoid of the second."""
    value = lift(x)
    place = one_axis("glu", dim, value.shape)
    half, odd = divmod(value.shape[place], 2)
    if odd:
        raise fail(ShapeError, f"glu: axis {place} of shape {value.shape} has no halves")
    first, second = cut(value, place, 0, half), cut(value, place, half, 2 * half)
    return record("multiply", (first, record("sigmoid", (second,))))


def pairwise_distance(
    x: Any, y: Any, /, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """Return the p-norm of x − y + eps along the last axis."""
    difference = record("add", (record("subtract", (x, y)), eps))
    return functions.linalg.vector_norm(difference, axis=-1, ord=p, keepdims=keepdim)


def embedding_bag(indices: Any, weight: Any, /, mode: str = "mean") -> Tensor:
    """Return the mean, sum or max of the rows of ``weight`` that each row of ``indices`` names."""
    if mode not in ("mean", "sum", "max"):
        raise fail(ValueArgumentError, f"embedding_bag: mode {mode!r}", "mean, sum or max")
    return getattr(functions.reductions, mode)(take(weight, indices, 0), -2)


def embedding(indices: Any, weight: Any, /) -> Tensor:
    """Return the rows of ``weight`` that ``indices`` name."""
    return take(weight, indices, 0)


def dropout(x: Any, /, p: float = 0.5, training: bool = False) -> Tensor:
    """Return ``x``: dropout acts in training alone, where it needs ``tj.random``'s numbers."""
    if training and p:
        raise fail(
            ValueArgumentError,
            "dropout in training draws random numbers",
            "multiply by a mask: x * (tj.random.rand(*x.shape) > p) / (1 - p)",
        )
    return lift(x)
