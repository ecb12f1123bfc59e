"""Composites of neural networks: softmax, normalisation, losses, attention.

All on real floats (bool and integers become float64), decomposed into reductions and pointwise
primitives that fuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tracejit.errors import ShapeError, ValueArgumentError
from tracejit.ops.indexing import index_types
from tracejit.ops.reductions import mean_reference, var_reference
from tracejit.ops.table import (
    BOOL,
    Array,
    Aval,
    DType,
    Family,
    Shape,
    ShapeRule,
    TypesRule,
    broadcast_shapes,
    check_axes,
    float_types,
    row,
    without,
)

Axes = tuple[int, ...]


def _composite(
    name: str,
    reference: Callable[..., Any],
    decompose: Callable[..., Any],
    shape: ShapeRule,
    doc: str,
    *,
    arity: int | None = 1,
    types: TypesRule | None = None,
) -> None:
    row(
        name,
        Family.COMPOSITE,
        reference,
        arity=arity,
        types=types or float_types(name),
        shape=shape,
        decompose=decompose,
        doc=doc,
    )


# -- softmax ---------------------------------------------------------------------------------------


def _axis_shape(name: str) -> ShapeRule:
    def shape(x: Aval, *, axis: int) -> Shape:
        check_axes(name, (axis,), x.shape)
        return x.shape

    return shape


def _softmax_reference(x: Array, *, axis: int) -> Array:
    if x.size == 0:
        return x.copy()
    weights = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return weights / np.sum(weights, axis=axis, keepdims=True)


def _softmax(emit: Any, x: Any, *, axis: int) -> Any:
    if x.shape[axis] == 0:
        return x
    # Shifted by the maximum, no exponential overflows and the largest is 1.
    shifted = emit.subtract(x, emit.max(x, axis=(axis,), keepdims=True))
    weights = emit.exp(shifted)
    return emit.divide(weights, emit.sum(weights, axis=(axis,), keepdims=True))


def _log_softmax_reference(x: Array, *, axis: int) -> Array:
    if x.size == 0:
        return x.copy()
    shifted = x - np.max(x, axis=axis, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def _log_softmax(emit: Any, x: Any, *, axis: int) -> Any:
    if x.shape[axis] == 0:
        return x
    shifted = emit.subtract(x, emit.max(x, axis=(axis,), keepdims=True))
    total = emit.sum(emit.exp(shifted), axis=(axis,), keepdims=True)
    return emit.subtract(shifted, emit.log(total))


_composite(
    "softmax", _softmax_reference, _softmax, _axis_shape("softmax"),
    "eˣ / Σ eˣ along an axis; NaN where all is −∞ or something is +∞.",
)  # fmt: skip
_composite(
    "log_softmax", _log_softmax_reference, _log_softmax, _axis_shape("log_softmax"),
    "log softmax, accurate where the softmax underflows.",
)  # fmt: skip

# -- normalisation ---------------------------------------------------------------------------------


def _normal_shape(name: str) -> ShapeRule:
    """Return the rule of rows whose other operands broadcast to the first."""

    def shape(x: Aval, *others: Aval, eps: float, axis: Axes = ()) -> Shape:
        check_axes(name, axis, x.shape)
        for other in others:
            if broadcast_shapes(name, [x.shape, other.shape]) != x.shape:
                raise ShapeError(
                    f"{name}: a parameter of shape {other.shape} is larger than {x.shape}",
                    hint="parameters broadcast to the input's shape",
                )
        return x.shape

    return shape


def _standardize_reference(x: Array, *, axis: Axes, eps: float) -> Array:
    kind = x.dtype.type
    mean = mean_reference(x, axis=axis, keepdims=True)
    variance = var_reference(x, axis=axis, keepdims=True)
    return (x - mean) / np.sqrt(variance + kind(eps))


def _standardize(emit: Any, x: Any, *, axis: Axes, eps: float) -> Any:
    count = math.prod(x.shape[a] for a in axis)
    mean = emit.divide(emit.sum(x, axis=axis, keepdims=True), count)
    centred = emit.subtract(x, mean)
    squares = emit.sum(emit.multiply(centred, centred), axis=axis, keepdims=True)
    variance = emit.divide(squares, count)
    return emit.divide(centred, emit.sqrt(emit.add(variance, eps)))


def _layer_norm_reference(x: Array, w: Array, b: Array, *, axis: Axes, eps: float) -> Array:
    return _standardize_reference(x, axis=axis, eps=eps) * w + b


def _layer_norm(emit: Any, x: Any, w: Any, b: Any, *, axis: Axes, eps: float) -> Any:
    return emit.add(emit.multiply(_standardize(emit, x, axis=axis, eps=eps), w), b)


def _rms_norm_reference(x: Array, w: Array, *, axis: Axes, eps: float) -> Array:
    mean = mean_reference(x * x, axis=axis, keepdims=True)
    return x / np.sqrt(mean + x.dtype.type(eps)) * w


def _rms_norm(emit: Any, x: Any, w: Any, *, axis: Axes, eps: float) -> Any:
    count = math.prod(x.shape[a] for a in axis)
    mean = emit.divide(emit.sum(emit.multiply(x, x), axis=axis, keepdims=True), count)
    return emit.multiply(emit.divide(x, emit.sqrt(emit.add(mean, eps))), w)


def _batch_norm_reference(
    x: Array, mean: Array, variance: Array, w: Array, b: Array, *, eps: float
) -> Array:
    return (x - mean) / np.sqrt(variance + x.dtype.type(eps)) * w + b


def _batch_norm(emit: Any, x: Any, mean: Any, variance: Any, w: Any, b: Any, *, eps: float) -> Any:
    scaled = emit.divide(emit.subtract(x, mean), emit.sqrt(emit.add(variance, eps)))
    return emit.add(emit.multiply(scaled, w), b)


def _normalize_reference(x: Array, *, axis: Axes, eps: float) -> Array:
    length = np.sqrt(np.sum(x * x, axis=axis, keepdims=True))
    return x / np.maximum(length, x.dtype.type(eps))


def _normalize(emit: Any, x: Any, *, axis: Axes, eps: float) -> Any:
    length = emit.sqrt(emit.sum(emit.multiply(x, x), axis=axis, keepdims=True))
    return emit.divide(x, emit.maximum(length, eps))


_composite(
    "standardize", _standardize_reference, _standardize, _normal_shape("standardize"),
    "(x − mean) / √(variance + eps) over axes; layer norm without parameters.",
)  # fmt: skip
_composite(
    "layer_norm", _layer_norm_reference, _layer_norm, _normal_shape("layer_norm"),
    "standardize(x)·w + b.", arity=3,
)  # fmt: skip
_composite(
    "rms_norm", _rms_norm_reference, _rms_norm, _normal_shape("rms_norm"),
    "x / √(mean x² + eps)·w.", arity=2,
)  # fmt: skip
_composite(
    "batch_norm", _batch_norm_reference, _batch_norm, _normal_shape("batch_norm"),
    "(x − mean) / √(variance + eps)·w + b with given statistics.", arity=5,
)  # fmt: skip
_composite(
    "normalize", _normalize_reference, _normalize, _normal_shape("normalize"),
    "x / max(|x|₂, eps) over axes.",
)  # fmt: skip

# -- losses ----------------------------------------------------------------------------------------

REDUCTIONS = ("none", "sum", "mean")


def _loss_shape(name: str) -> ShapeRule:
    def shape(x: Aval, y: Aval, *, reduction: str = "mean", **_: Any) -> Shape:
        result = broadcast_shapes(name, [x.shape, y.shape])
        return _check_reduction(name, reduction, result)

    return shape


def _check_reduction(name: str, reduction: str, shape: Shape) -> Shape:
    if reduction not in REDUCTIONS:
        raise ValueArgumentError(f"{name}: reduction {reduction!r}", hint=", ".join(REDUCTIONS))
    return shape if reduction == "none" else ()


def _reduce_reference(loss: Array, reduction: str) -> Array:
    if reduction == "none":
        return loss
    if reduction == "sum":
        return np.asarray(np.sum(loss))
    return mean_reference(loss, axis=tuple(range(loss.ndim)), keepdims=False)


def _reduce(emit: Any, loss: Any, reduction: str) -> Any:
    if reduction == "none":
        return loss
    total = emit.sum(loss, axis=tuple(range(len(loss.shape))), keepdims=False)
    return total if reduction == "sum" else emit.divide(total, loss.size)


def _huber_loss(x: Array, y: Array, delta: float = 1.0) -> Array:
    distance = np.abs(x - y)
    near = 0.5 * distance * distance
    return np.where(distance <= delta, near, delta * (distance - 0.5 * delta))


def _bce_loss(x: Array, y: Array) -> Array:
    return np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x)))


def _mse(emit: Any, x: Any, y: Any) -> Any:
    difference = emit.subtract(x, y)
    return emit.multiply(difference, difference)


def _l1(emit: Any, x: Any, y: Any) -> Any:
    return emit.absolute(emit.subtract(x, y))


def _huber(emit: Any, x: Any, y: Any, delta: float = 1.0) -> Any:
    distance = _l1(emit, x, y)
    near = emit.multiply(emit.multiply(distance, 0.5), distance)
    far = emit.multiply(emit.subtract(distance, 0.5 * delta), delta)
    return emit.where(emit.less_equal(distance, delta), near, far)


def _bce(emit: Any, x: Any, y: Any) -> Any:
    # −y log σ(x) − (1−y) log(1−σ(x)), rearranged so that no exponential overflows.
    tail = emit.log1p(emit.exp(emit.negative(emit.absolute(x))))
    return emit.add(emit.subtract(emit.maximum(x, 0), emit.multiply(x, y)), tail)


def _kl_loss(log_p: Array, q: Array) -> Array:
    return np.where(q == 0, q.dtype.type(0), q * np.log(q)) - q * log_p


def _kl(emit: Any, log_p: Any, q: Any) -> Any:
    return emit.subtract(emit.xlogy(q, q), emit.multiply(q, log_p))


def _mse_loss(x: Array, y: Array) -> Array:
    return np.square(x - y)


def _l1_loss(x: Array, y: Array) -> Array:
    return np.abs(x - y)


def _loss(name: str, values: Callable[..., Array], emitted: Callable[..., Any], doc: str) -> None:
    def reference(x: Array, y: Array, *, reduction: str = "mean", **attrs: Any) -> Array:
        return _reduce_reference(np.asarray(values(x, y, **attrs), x.dtype), reduction)

    def decompose(emit: Any, x: Any, y: Any, *, reduction: str = "mean", **attrs: Any) -> Any:
        return _reduce(emit, emitted(emit, x, y, **attrs), reduction)

    _composite(name, reference, decompose, _loss_shape(name), doc, arity=2)


_loss("mse_loss", _mse_loss, _mse, "(x − y)².")
_loss("l1_loss", _l1_loss, _l1, "|x − y|.")
_loss("huber_loss", _huber_loss, _huber, "½d² for d = |x − y| ≤ delta, delta(d − ½delta) beyond.")
_loss("bce_with_logits", _bce_loss, _bce, "Binary cross entropy of sigmoid(x) against y.")
_loss("kl_div", _kl_loss, _kl, "y(log y − x) for log-probabilities x.")


def _entropy_shape(x: Aval, target: Aval, *, axis: int, reduction: str = "mean") -> Shape:
    check_axes("cross_entropy", (axis,), x.shape)
    lead = without(x.shape, axis)
    if target.shape != lead:
        raise ShapeError(
            f"cross_entropy: targets of shape {target.shape} for logits of shape {x.shape}",
            hint=f"one class index for each of {lead}, along axis {axis}",
        )
    return _check_reduction("cross_entropy", reduction, lead)


def _entropy_reference(x: Array, target: Array, *, axis: int, reduction: str = "mean") -> Array:
    logarithms = _log_softmax_reference(x, axis=axis)
    classes = np.arange(x.shape[axis], dtype=np.int64)
    chosen = np.expand_dims(target, axis) == classes.reshape(
        [-1 if i == axis else 1 for i in range(x.ndim)]
    )
    loss = -np.sum(np.where(chosen, logarithms, x.dtype.type(0)), axis=axis)
    return _reduce_reference(np.asarray(loss, x.dtype), reduction)


def _entropy(emit: Any, x: Any, target: Any, *, axis: int, reduction: str = "mean") -> Any:
    logarithms = _log_softmax(emit, x, axis=axis)
    column = emit.reshape(target, shape=without(x.shape, axis, 1))
    # A comparison with the class index instead of a gather: it fuses with the log-softmax.
    chosen = emit.equal(column, emit.iota(shape=x.shape, axis=axis, dtype="<i8"))
    kept = emit.where(chosen, logarithms, emit.constant(0, x.dtype))
    return _reduce(emit, emit.negative(emit.sum(kept, axis=(axis,), keepdims=False)), reduction)


def _entropy_types(dtypes: tuple[Any, ...]) -> tuple[tuple[DType, ...], DType]:
    value = float_types("cross_entropy")((dtypes[0],))[1]
    return index_types("cross_entropy", "value", "index")((value, dtypes[1]))


_composite(
    "cross_entropy", _entropy_reference, _entropy, _entropy_shape,
    "−log softmax(x)[target] for class indices; an index out of range counts 0.",
    arity=2, types=_entropy_types,
)  # fmt: skip

# -- products --------------------------------------------------------------------------------------


def _linear_shape(x: Aval, w: Aval, *bias: Aval) -> Shape:
    if len(w.shape) != 2 or not x.shape or x.shape[-1] != w.shape[1]:
        raise ShapeError(f"linear: input {x.shape}, weight {w.shape}", hint="weight is [out, in]")
    if bias and bias[0].shape != (w.shape[0],):
        raise ShapeError(f"linear: bias {bias[0].shape} for {w.shape[0]} outputs")
    return (*x.shape[:-1], w.shape[0])


def _linear_reference(x: Array, w: Array, *bias: Array) -> Array:
    product = x @ w.T
    return product + bias[0] if bias else product


def _linear(emit: Any, x: Any, w: Any, *bias: Any) -> Any:
    rows = emit.reshape(x, shape=(math.prod(x.shape[:-1]), x.shape[-1]))
    product = emit.matmul(rows, emit.permute(w, axes=(1, 0)))
    product = emit.add(product, bias[0]) if bias else product
    return emit.reshape(product, shape=(*x.shape[:-1], w.shape[0]))


def _attention_shape(
    q: Aval, k: Aval, v: Aval, *mask: Aval, scale: float, causal: bool = False
) -> Shape:
    if (
        min(len(o.shape) for o in (q, k, v)) < 2
        or q.shape[-1] != k.shape[-1]
        or (k.shape[-2] != v.shape[-2])
    ):
        raise ShapeError(
            f"attention: queries {q.shape}, keys {k.shape}, values {v.shape} do not fit",
            hint="give queries […, L, E], keys […, S, E] and values […, S, D]",
        )
    lead = broadcast_shapes("attention", [o.shape[:-2] for o in (q, k, v)])
    if mask:
        scores = (*lead, q.shape[-2], k.shape[-2])
        if broadcast_shapes("attention", [scores, mask[0].shape]) != scores:
            raise ShapeError(f"attention: a mask of shape {mask[0].shape} for scores of {scores}")
    return (*lead, q.shape[-2], v.shape[-1])


def _attention_types(dtypes: tuple[Any, ...]) -> tuple[tuple[DType, ...], DType]:
    wanted, result = float_types("attention")(dtypes[:3])
    if len(dtypes) > 3:
        wanted = (*wanted, BOOL if dtypes[3] == BOOL else result)
    return wanted, result


def _attention_reference(
    q: Array, k: Array, v: Array, *mask: Array, scale: float, causal: bool = False
) -> Array:
    scores: Array = q @ np.swapaxes(k, -1, -2) * q.dtype.type(scale)
    if causal:
        allowed = np.tril(np.ones(scores.shape[-2:], np.bool_))
        scores = np.where(allowed, scores, q.dtype.type(-np.inf))
    if mask and mask[0].dtype == BOOL:
        scores = np.where(mask[0], scores, q.dtype.type(-np.inf))
    elif mask:
        scores = scores + mask[0]
    return _softmax_reference(scores, axis=scores.ndim - 1) @ v


def _attention(
    emit: Any, q: Any, k: Any, v: Any, *mask: Any, scale: float, causal: bool = False
) -> Any:
    rank = len(k.shape)
    keys = emit.permute(k, axes=(*range(rank - 2), rank - 1, rank - 2))
    scores = emit.multiply(emit.matmul(q, keys), scale)
    nothing = emit.constant(-math.inf, q.dtype)
    if causal:
        shape = scores.shape[-2:]
        row_index = emit.iota(shape=shape, axis=0, dtype="<i8")
        allowed = emit.less_equal(emit.iota(shape=shape, axis=1, dtype="<i8"), row_index)
        scores = emit.where(allowed, scores, nothing)
    if mask and mask[0].dtype == BOOL:
        scores = emit.where(mask[0], scores, nothing)
    elif mask:
        scores = emit.add(scores, mask[0])
    return emit.matmul(_softmax(emit, scores, axis=len(scores.shape) - 1), v)


def _cdist_shape(x: Aval, y: Aval) -> Shape:
    if min(len(x.shape), len(y.shape)) < 2 or x.shape[-1] != y.shape[-1]:
        raise ShapeError(f"cdist: points {x.shape} and {y.shape}", hint="[…, M, D] and […, N, D]")
    lead = broadcast_shapes("cdist", [x.shape[:-2], y.shape[:-2]])
    return (*lead, x.shape[-2], y.shape[-2])


def _cdist_reference(x: Array, y: Array) -> Array:
    difference = x[..., :, None, :] - y[..., None, :, :]
    return np.sqrt(np.sum(difference * difference, axis=-1))


def _cdist(emit: Any, x: Any, y: Any) -> Any:
    # The differences broadcast inside the reduction: [M, N, D] is never stored.
    left = emit.reshape(x, shape=(*x.shape[:-1], 1, x.shape[-1]))
    right = emit.reshape(y, shape=(*y.shape[:-2], 1, *y.shape[-2:]))
    squares = _mse(emit, left, right)
    return emit.sqrt(emit.sum(squares, axis=(len(squares.shape) - 1,), keepdims=False))


def _cosine_shape(x: Aval, y: Aval, *, eps: float) -> Shape:
    shape = broadcast_shapes("cosine_similarity", [x.shape, y.shape])
    if not shape:
        raise ShapeError("cosine_similarity needs vectors along the last axis, got 0-d values")
    return shape[:-1]


def _cosine_reference(x: Array, y: Array, *, eps: float) -> Array:
    x, y = np.broadcast_arrays(x, y)
    lengths = [np.sqrt(np.sum(v * v, axis=-1)) for v in (x, y)]
    return np.sum(x * y, axis=-1) / np.maximum(lengths[0] * lengths[1], x.dtype.type(eps))


def _cosine(emit: Any, x: Any, y: Any, *, eps: float) -> Any:
    shape = broadcast_shapes("cosine_similarity", [x.shape, y.shape])
    how = {"axis": (len(shape) - 1,), "keepdims": False}
    x, y = emit.broadcast_to(x, shape=shape), emit.broadcast_to(y, shape=shape)
    lengths = [emit.sqrt(emit.sum(emit.multiply(v, v), **how)) for v in (x, y)]
    scale = emit.maximum(emit.multiply(*lengths), eps)
    return emit.divide(emit.sum(emit.multiply(x, y), **how), scale)


_composite(
    "linear", _linear_reference, _linear, _linear_shape,
    "x wᵀ, plus a bias if there is a third operand.", arity=None,
)  # fmt: skip
_composite(
    "attention", _attention_reference, _attention, _attention_shape,
    "softmax(q kᵀ·scale) v; a fourth operand masks: bool True keeps, floats are added.",
    arity=None, types=_attention_types,
)  # fmt: skip
_composite("cdist", _cdist_reference, _cdist, _cdist_shape, "Pairwise distances.", arity=2)
_composite(
    "cosine_similarity", _cosine_reference, _cosine, _cosine_shape,
    "x·y / max(|x||y|, eps) over the last axis.", arity=2,
)  # fmt: skip
