"""Images under PyTorch's names: resampling, shuffling of pixels, patches, borders.

Shapes are [batch, channels, *spatial]; everything is made of movement, gathers and arithmetic, and
fuses with what surrounds it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracejit.errors import ArgumentError, ShapeError, ValueArgumentError
from tracejit.functions import convolution
from tracejit.functions.arguments import as_index, as_shape, fail, one_axis
from tracejit.functions.creation import ramp
from tracejit.functions.gather import take
from tracejit.functions.joining import pad as padded
from tracejit.functions.movement import cut, permute, reshape
from tracejit.functions.sampled import sliding_window_view
from tracejit.tensor import Tensor, cast, lift, record

__all__ = ["interpolate", "pixel_shuffle", "pixel_unshuffle", "unfold"]

_LINEAR = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}
_POOLS = (
    convolution.adaptive_avg_pool1d,
    convolution.adaptive_avg_pool2d,
    convolution.adaptive_avg_pool3d,
)


def interpolate(
    x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return ``x`` [N, C, *spatial] resampled to ``size``, or by ``scale_factor``.

    ``mode`` is "nearest", "nearest-exact", "linear" (bilinear, trilinear), "bicubic" (Keys' cubic
    with a = −0.75) or "area" (the mean of each cell). With ``align_corners`` the centres of the
    outermost pixels stay in place, otherwise the corners of the image do.
    """
    value = lift(x)
    rank = value.ndim - 2
    if rank < 1:
        raise fail(ShapeError, f"interpolate: no spatial axis in shape {value.shape}", "[N, C, …]")
    wanted = _sizes(value, size, scale_factor)
    if mode == "area":
        if rank > len(_POOLS):
            raise fail(ShapeError, f"interpolate: {rank} spatial axes", "one to three")
        return _POOLS[rank - 1](value, wanted)
    if mode not in ("nearest", "nearest-exact") and _LINEAR.get(mode) != rank:
        text = f"interpolate: mode {mode!r} for {rank} spatial axes"
        raise fail(ValueArgumentError, text, "nearest, linear, bilinear, trilinear, bicubic, area")
    factors = _factors(scale_factor, rank)
    for axis, (extent, factor) in enumerate(zip(wanted, factors, strict=True), start=2):
        value = _resampled(value, axis, extent, factor, mode, bool(align_corners))
    return value


def _sizes(x: Tensor, size: Any, scale_factor: Any) -> tuple[int, ...]:
    rank = x.ndim - 2
    if (size is None) == (scale_factor is None):
        raise fail(ArgumentError, "interpolate takes either size or scale_factor")
    if size is None:
        pairs = zip(x.shape[2:], _factors(scale_factor, rank), strict=True)
        return tuple(as_index(math.floor(n * f), "a size") for n, f in pairs)
    sizes = as_shape(size)
    sizes = sizes * rank if len(sizes) == 1 else sizes
    if len(sizes) != rank or not all(sizes):
        raise fail(ShapeError, f"interpolate: size {size} for shape {x.shape}")
    return sizes


def _factors(scale_factor: Any, rank: int) -> tuple[Any, ...]:
    if np.ndim(scale_factor) == 0:
        return (scale_factor,) * rank
    if len(scale_factor) != rank:
        raise fail(ShapeError, f"interpolate: {len(scale_factor)} factors for {rank} axes")
    return tuple(scale_factor)


def _resampled(x: Tensor, axis: int, extent: int, factor: Any, mode: str, corners: bool) -> Tensor:
    """Return ``x`` with ``extent`` samples along an axis."""
    old = x.shape[axis]
    if old == extent:
        return x
    wide = np.dtype(np.float64) if x.dtype == np.float64 else np.dtype(np.float32)
    place = cast(ramp((extent,), 0), wide)
    step = old / extent if factor is None else 1 / factor
    if mode == "nearest":
        at = record("floor", (record("multiply", (place, step)),))
        return take(x, _inside(at, old), axis)
    if mode == "nearest-exact":
        at = record("multiply", (record("add", (place, 0.5)), step))
        return take(x, _inside(record("floor", (at,)), old), axis)
    if corners:
        step = (old - 1) / (extent - 1) if extent > 1 else 0.0
        at = record("multiply", (place, step))
    else:
        at = record("subtract", (record("multiply", (record("add", (place, 0.5)), step)), 0.5))
        at = at if mode == "bicubic" else record("maximum", (at, 0.0))
    low = record("floor", (at,))
    part = record("subtract", (at, low))
    weights = _cubic(part) if mode == "bicubic" else [record("subtract", (1.0, part)), part]
    first = -1 if mode == "bicubic" else 0
    shape = tuple(-1 if i == axis else 1 for i in range(x.ndim))
    result: Tensor | None = None
    for shift, weight in enumerate(weights, start=first):
        taken = take(x, _inside(record("add", (low, shift)), old), axis)
        term = record("multiply", (taken, reshape(cast(weight, x.dtype), shape)))
        result = term if result is None else record("add", (result, term))
    assert result is not None
    return result


def _inside(at: Tensor, extent: int) -> Tensor:
    return record("clip", (cast(at, np.int64), 0, extent - 1))


def _cubic(t: Tensor) -> list[Tensor]:
    """Return the weights of the four samples around a point, ``t`` after the second of them.

    R. Keys, Cubic convolution interpolation for digital image processing, 1981.
    """
    a = -0.75

    def polynomial(x: Tensor, *coefficients: float) -> Tensor:
        value = record("multiply", (x, coefficients[0]))
        for c in coefficients[1:-1]:
            value = record("multiply", (record("add", (value, c)), x))
        return record("add", (value, coefficients[-1]))

    def near(x: Tensor) -> Tensor:
        return polynomial(x, a + 2, -(a + 3), 0.0, 1.0)

    def far(x: Tensor) -> Tensor:
        return polynomial(x, a, -5 * a, 8 * a, -4 * a)

    rest = record("subtract", (1.0, t))
    return [far(record("add", (t, 1.0))), near(t), near(rest), far(record("add", (rest, 1.0)))]


def pixel_shuffle(x: Any, upscale_factor: int, /) -> Tensor:
    """Return [N, C·r², H, W] as [N, C, H·r, W·r]: channels become pixels."""
    value, r = lift(x), as_index(upscale_factor, "upscale_factor")
    if value.ndim < 3 or r < 1 or value.shape[-3] % (r * r):
        text = f"pixel_shuffle: {r}² channels to a pixel in shape {value.shape}"
        raise fail(ShapeError, text, "[…, C·r², H, W]")
    *batch, channels, height, width = value.shape
    split = reshape(value, (*batch, channels // (r * r), r, r, height, width))
    n = len(batch)
    turned = permute(split, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return reshape(turned, (*batch, channels // (r * r), height * r, width * r))


def pixel_unshuffle(x: Any, downscale_factor: int, /) -> Tensor:
    """Return [N, C, H·r, W·r] as [N, C·r², H, W]: pixels become channels."""
    value, r = lift(x), as_index(downscale_factor, "downscale_factor")
    if value.ndim < 3 or r < 1 or value.shape[-1] % r or value.shape[-2] % r:
        text = f"pixel_unshuffle: {r} does not divide the last two axes of {value.shape}"
        raise fail(ShapeError, text, "[…, C, H·r, W·r]")
    *batch, channels, height, width = value.shape
    split = reshape(value, (*batch, channels, height // r, r, width // r, r))
    n = len(batch)
    turned = permute(split, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return reshape(turned, (*batch, channels * r * r, height // r, width // r))


def unfold(
    x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Return the patches of [N, C, H, W] as columns, [N, C · kernel, patches]."""
    value = lift(x)
    if value.ndim != 4:
        raise fail(ShapeError, f"unfold: shape {value.shape}", "[N, C, H, W]")
    kernel, gap, border, step = (_pair(v) for v in (kernel_size, dilation, padding, stride))
    value = padded(value, ((0, 0), (0, 0), *((b, b) for b in border)))
    span = tuple((k - 1) * d + 1 for k, d in zip(kernel, gap, strict=True))
    if any(n < s for n, s in zip(value.shape[2:], span, strict=True)):
        raise fail(ShapeError, f"unfold: a patch of {span} in an image of {value.shape[2:]}")
    windows = sliding_window_view(value, span, axis=(2, 3))
    windows = windows[:, :, :: step[0], :: step[1], :: gap[0], :: gap[1]]
    columns = permute(windows, (0, 1, 4, 5, 2, 3))
    n, c = value.shape[:2]
    return reshape(columns, (n, c * kernel[0] * kernel[1], -1))


def _pair(value: Any) -> tuple[int, int]:
    pair = as_shape(value)
    pair = pair * 2 if len(pair) == 1 else pair
    if len(pair) != 2:
        raise fail(ShapeError, f"unfold: {value} is not one number or two")
    return pair[0], pair[1]


_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(x: Any, pad: Any, mode: str = "constant", value: Any = 0) -> Tensor:
    """Return ``x`` with a border: pairs of widths from the last axis on; negative ones crop.

    This is PyTorch's ``nn.functional.pad``; ``tj.pad`` is NumPy's. ``mode`` is "constant",
    "reflect", "replicate" or "circular".
    """
    image = lift(x)
    widths = [as_index(w, "a width") for w in pad]
    if len(widths) % 2 or len(widths) > 2 * image.ndim:
        raise fail(ShapeError, f"pad: {len(widths)} widths for shape {image.shape}", "pairs")
    if mode not in _MODES:
        raise fail(ValueArgumentError, f"pad: mode {mode!r}", ", ".join(_MODES))
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    borders = [(0, 0)] * (image.ndim - len(pairs)) + pairs[::-1]
    for axis, (before, after) in enumerate(borders):
        if min(before, after) < 0:
            extent = image.shape[axis]
            image = cut(image, axis, max(-before, 0), extent - max(-after, 0))
    grown = tuple((max(b, 0), max(a, 0)) for b, a in borders)
    if mode == "constant":
        return padded(image, grown, constant_values=0 if value is None else value)
    return padded(image, grown, _MODES[mode])


def windows_along(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Return windows along an axis as a new last axis, as PyTorch's ``Tensor.unfold``."""
    place = one_axis("unfold", dimension, x.shape)
    if step < 1:
        raise fail(ValueArgumentError, f"unfold: step {step}", "at least 1")
    windows = sliding_window_view(x, size, axis=place)
    return windows[(slice(None),) * place + (slice(None, None, step),)]
