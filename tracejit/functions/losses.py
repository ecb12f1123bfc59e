"""Losses under PyTorch's names: averaged, summed, or with ``reduction="none"`` elementwise."""

from __future__ import annotations

from typing import Any

from tracejit.errors import ShapeError, ValueArgumentError
from tracejit.functions.arguments import fail, one_axis
from tracejit.tensor import Tensor, apply, lift, record

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "huber_loss",
    "kl_div", "l1_loss", "mse_loss", "nll_loss", "smooth_l1_loss",
]  # fmt: skip


def _reduced(name: str, loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    if reduction not in ("mean", "sum"):
        raise fail(ValueArgumentError, f"{name}: reduction {reduction!r}", "none, sum, mean")
    return record(reduction, (loss,), axis=tuple(range(loss.ndim)), keepdims=False)


def mse_loss(x: Any, target: Any, /, reduction: str = "mean") -> Tensor:
    """Return (x − target)², averaged, summed, or with ``reduction="none"`` as it is."""
    return record("mse_loss", (x, target), reduction=reduction)


def l1_loss(x: Any, target: Any, /, reduction: str = "mean") -> Tensor:
    """Return |x − target|."""
    return record("l1_loss", (x, target), reduction=reduction)


def huber_loss(x: Any, target: Any, /, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Return ½d² for d = |x − target| ≤ delta, delta · (d − ½delta) beyond."""
    return record("huber_loss", (x, target), reduction=reduction, delta=float(delta))


def smooth_l1_loss(x: Any, target: Any, /, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """Return d² / 2beta for d = |x − target| < beta, d − ½beta beyond; |d| where beta is 0."""
    if beta < 0:
        raise fail(ValueArgumentError, f"smooth_l1_loss: beta {beta}", "0 or more")
    if beta == 0:
        return l1_loss(x, target, reduction)
    return record("divide", (huber_loss(x, target, reduction, beta), float(beta)))


def binary_cross_entropy(x: Any, target: Any, /, reduction: str = "mean") -> Tensor:
    """Return −(target · ln x + (1 − target) · ln(1 − x)), logarithms not below −100."""
    value, wanted = lift(x), lift(target)
    inside, outside = (
        record("maximum", (record("log", (p,)), -100.0))
        for p in (value, record("subtract", (1.0, value)))
    )
    gain = record("multiply", (wanted, record("subtract", (inside, outside))))
    return _reduced(
        "binary_cross_entropy", record("negative", (record("add", (gain, outside)),)), reduction
    )


def binary_cross_entropy_with_logits(x: Any, target: Any, /, reduction: str = "mean") -> Tensor:
    """Return the binary cross entropy of sigmoid(x) against targets in [0, 1]."""
    return record("bce_with_logits", (x, target), reduction=reduction)


def kl_div(x: Any, target: Any, /, reduction: str = "mean") -> Tensor:
    """Return target · (log target − x) for log-probabilities x.

    ``reduction="batchmean"`` divides the sum by the first size: the divergence as it is defined.
    """
    if reduction != "batchmean":
        return record("kl_div", (x, target), reduction=reduction)
    value = lift(x)
    if value.ndim == 0:
        raise fail(ShapeError, "kl_div: a mean over the batch needs an axis")
    total = record("kl_div", (value, target), reduction="sum")
    return record("divide", (total, value.shape[0]))


def cross_entropy(
    x: Any, target: Any, /, reduction: str = "mean", *, axis: int | None = None
) -> Tensor:
    """Return −log softmax(x)[target] for class indices, or for probabilities of the shape of x.

    Classes lie along ``axis``: 1 as in PyTorch, or the only one there is.
    """
    logits, wanted = lift(x), lift(target)
    classes = min(1, logits.ndim - 1) if axis is None else axis
    place = one_axis("cross_entropy", classes, logits.shape)
    if wanted.dtype.kind in "iu":
        return record("cross_entropy", (logits, wanted), axis=place, reduction=reduction)
    weighted = record("multiply", (wanted, record("log_softmax", (logits,), axis=place)))
    loss = record("negative", (record("sum", (weighted,), axis=(place,), keepdims=False),))
    return _reduced("cross_entropy", loss, reduction)


def nll_loss(x: Any, target: Any, /, reduction: str = "mean") -> Tensor:
    """Return −x[target] for log-probabilities x with classes along axis 1."""
    logits, wanted = lift(x), lift(target)
    place = min(1, logits.ndim - 1)
    grown = apply("reshape", (wanted,), shape=(*wanted.shape[:place], 1, *wanted.shape[place:]))
    picked = record("take_along_axis", (logits, grown), axis=place)
    loss = record("negative", (apply("reshape", (picked,), shape=wanted.shape),))
    return _reduced("nll_loss", loss, reduction)
