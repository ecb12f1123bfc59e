"""Layers of convolutional networks: convolution with batch norm and ReLU, and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .base import Array, Function, Row


def _windows(x: Array, size: int, stride: int, padding: int, fill: float) -> Array:
    """Return [N, C, *places, *taps] of an image [N, C, …]."""
    rank = x.ndim - 2
    x = np.pad(x, [(0, 0)] * 2 + [(padding, padding)] * rank, constant_values=fill)
    windows = sliding_window_view(x, (size,) * rank, axis=tuple(range(2, 2 + rank)))
    return windows[(slice(None), slice(None), *[slice(None, None, stride)] * rank)]


class Convolution(Row):
    """relu(batch_norm(conv(x, w))) as in a ResNet. Subclasses give the sizes; ``image``, ``size``,
    ``stride`` and ``padding`` are those of each of ``rank`` axes."""

    group = "conv"
    rank, batch, channels, outputs, image = 2, 1, 0, 0, 0
    size, stride, padding, groups = 3, 1, 1, 1
    kind, spoken = "conv", "conv"
    rtol, atol = 1e-3, 1e-3

    def __init_subclass__(cls) -> None:
        places = cls.places() ** cls.rank
        taps = cls.channels // cls.groups * cls.size**cls.rank
        cls.flops = 2 * cls.batch * cls.outputs * cls.windows() ** cls.rank * taps
        image = cls.channels * cls.image**cls.rank + cls.outputs * places
        cls.bytes = 4 * (cls.batch * image + cls.outputs * taps)
        window = "x".join([str(cls.size)] * cls.rank)
        sizes = f"{cls.channels}_{cls.outputs}_{cls.image}"
        cls.name = f"{cls.kind}{window}_s{cls.stride}_{sizes}_n{cls.batch}"
        power = {1: "", 2: "²", 3: "³"}[cls.rank]
        cls.title = (
            f"relu(bn({cls.spoken} {window.replace('x', '×')}"
            f"{f' s{cls.stride}' if cls.stride > 1 else ''})), "
            f"{cls.batch}×{cls.channels}→{cls.outputs}×{cls.image}{power} f32"
        )
        super().__init_subclass__()

    @classmethod
    def places(cls) -> int:
        """Return how many results there are along an axis."""
        return (cls.image + 2 * cls.padding - cls.size) // cls.stride + 1

    @classmethod
    def windows(cls) -> int:
        """Return at how many places along an axis the weights are applied."""
        return cls.places()

    @classmethod
    def weights(cls) -> tuple[int, ...]:
        """Return the first two sizes of the weights."""
        return cls.outputs, cls.channels // cls.groups

    @classmethod
    def data(cls, rng: np.random.Generator) -> tuple[Any, ...]:
        x = rng.standard_normal((cls.batch, cls.channels, *[cls.image] * cls.rank))
        w = rng.standard_normal((*cls.weights(), *[cls.size] * cls.rank))
        w /= np.sqrt(cls.channels // cls.groups * cls.size**cls.rank)
        mean, gain, shift = rng.standard_normal((3, cls.outputs)) / 4
        variance = rng.uniform(0.5, 2, cls.outputs)
        made = (x, w, mean, variance, gain, shift)
        return tuple(np.ascontiguousarray(a, np.float32) for a in made)

    @classmethod
    def convolved(cls, x: Any, w: Any) -> Any:
        """Return NumPy's convolution."""
        windows = _windows(x, cls.size, cls.stride, cls.padding, 0)
        if cls.groups > 1:
            parts = windows.reshape(len(x), cls.groups, -1, *windows.shape[2:])
            y = np.einsum("ngchwij,gocij->ngohw", parts, w.reshape(cls.groups, -1, *w.shape[1:]))
            return y.reshape(len(x), cls.outputs, *y.shape[3:])
        taps = tuple(range(2, 2 + cls.rank))
        y = np.tensordot(w, windows, ((1, *taps), (1, *(cls.rank + t for t in taps))))
        return np.moveaxis(y, 0, 1)

    @classmethod
    def numpy(cls, x: Any, w: Any, mean: Any, variance: Any, gain: Any, shift: Any) -> Any:
        y = cls.convolved(x, w)
        shape = (-1, *[1] * cls.rank)
        mean, variance, gain, shift = (v.reshape(shape) for v in (mean, variance, gain, shift))
        return np.maximum((y - mean) / np.sqrt(variance + 1e-5) * gain + shift, 0)

    @classmethod
    def in_torch(cls, nn: Any) -> Function:
        """Return torch's convolution, or that of a library with the same functions."""
        conv = getattr(nn, f"conv{cls.rank}d")
        return lambda x, w: conv(x, w, None, cls.stride, cls.padding, 1, cls.groups)

    @classmethod
    def in_jax(cls, jax: Any) -> Function:
        edges = [(cls.padding, cls.padding)] * cls.rank
        steps = (cls.stride,) * cls.rank
        conv = jax.lax.conv_general_dilated
        return lambda x, w: conv(x, w, steps, edges, feature_group_count=cls.groups)

    @classmethod
    def tracejit(cls, tj: Any) -> Function:
        conv = cls.in_torch(tj.nn)

        def layer(x: Any, w: Any, mean: Any, variance: Any, gain: Any, shift: Any) -> Any:
            return tj.nn.relu(tj.nn.batch_norm(conv(x, w), mean, variance, gain, shift))

        return layer

    @classmethod
    def jax(cls, jax: Any) -> Function:
        conv, shape = cls.in_jax(jax), (-1, *[1] * cls.rank)

        def layer(x: Any, w: Any, mean: Any, variance: Any, gain: Any, shift: Any) -> Any:
            y = conv(x, w)
            mean, variance, gain, shift = (v.reshape(shape) for v in (mean, variance, gain, shift))
            return jax.nn.relu((y - mean) / jax.numpy.sqrt(variance + 1e-5) * gain + shift)

        return jax.jit(layer)

    @classmethod
    def torch(cls, torch: Any) -> Function:
        nn = torch.nn.functional
        conv = cls.in_torch(nn)

        def layer(x: Any, w: Any, mean: Any, variance: Any, gain: Any, shift: Any) -> Any:
            return torch.relu(nn.batch_norm(conv(x, w), mean, variance, gain, shift))

        return layer


class Body(Convolution):
    channels, outputs, image = 64, 64, 56


class Pointwise(Convolution):
    channels, outputs, image, size, padding = 256, 64, 56, 1, 0


class Stem(Convolution):
    channels, outputs, image, size, stride, padding = 3, 64, 224, 7, 2, 3


class Depthwise(Convolution):
    kind, spoken = "dw", "depthwise"
    channels, outputs, image, groups = 192, 192, 28, 192


class DepthwiseWide(Convolution):
    kind, spoken = "dw", "depthwise"
    channels, outputs, image, groups, size, padding = 96, 96, 56, 96, 7, 3


class Grouped(Convolution):
    kind, spoken = "group32_", "32 groups"
    channels, outputs, image, groups = 128, 128, 56, 32


class Down(Convolution):
    channels, outputs, image, stride = 128, 128, 56, 2


class Late(Convolution):
    channels, outputs, image = 256, 256, 14


class BodyBatch(Convolution):
    batch, channels, outputs, image = 8, 64, 64, 56


class Signal(Convolution):
    kind, spoken = "conv1d_", "conv1d"
    rank, channels, outputs, image = 1, 80, 256, 3000


class Volume(Convolution):
    rank, channels, outputs, image = 3, 16, 32, 32


class Transposed(Convolution):
    """The layer that doubles an image, as in a decoder."""

    kind, spoken = "transposed", "transposed"
    channels, outputs, image, size, stride = 128, 64, 28, 4, 2

    @classmethod
    def places(cls) -> int:
        return (cls.image - 1) * cls.stride + cls.size - 2 * cls.padding

    @classmethod
    def windows(cls) -> int:
        return cls.image

    @classmethod
    def weights(cls) -> tuple[int, ...]:
        return cls.channels, cls.outputs

    @classmethod
    def convolved(cls, x: Any, w: Any) -> Any:
        spread = np.zeros((*x.shape[:2], *[(n - 1) * cls.stride + 1 for n in x.shape[2:]]), x.dtype)
        spread[:, :, :: cls.stride, :: cls.stride] = x
        windows = _windows(spread, cls.size, 1, cls.size - 1 - cls.padding, 0)
        y = np.tensordot(w[:, :, ::-1, ::-1], windows, ((0, 2, 3), (1, 4, 5)))
        return np.moveaxis(y, 0, 1)

    @classmethod
    def in_torch(cls, nn: Any) -> Function:
        return lambda x, w: nn.conv_transpose2d(x, w, None, cls.stride, cls.padding)

    @classmethod
    def in_jax(cls, jax: Any) -> Function:
        edge = (cls.size - 1 - cls.padding,) * 2
        names = ("NCHW", "OIHW", "NCHW")
        return lambda x, w: jax.lax.conv_transpose(
            x, w, (cls.stride, cls.stride), (edge, edge), dimension_numbers=names,
            transpose_kernel=True,
        )  # fmt: skip


class MaxPool(Row):
    """The pooling behind the first layer of a ResNet."""

    name, title, group = "max_pool3x3_s2", "max_pool 3×3 s2, 64×112² f32", "conv"
    bytes = 4 * 64 * (112**2 + 56**2)
    flops = 8 * 64 * 56**2

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (rng.standard_normal((1, 64, 112, 112), dtype=np.float32),)

    @staticmethod
    def numpy(x: Any) -> Any:
        return _windows(x, 3, 2, 1, -np.inf).max(axis=(4, 5))

    @classmethod
    def tracejit(cls, tj: Any) -> Function:
        return lambda x: tj.nn.max_pool2d(x, 3, 2, 1)

    @staticmethod
    def jax(jax: Any) -> Function:
        lax, edge = jax.lax, (1, 1)
        window, step = (1, 1, 3, 3), (1, 1, 2, 2)
        padding = ((0, 0), (0, 0), edge, edge)
        return jax.jit(lambda x: lax.reduce_window(x, -np.inf, lax.max, window, step, padding))

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda x: torch.nn.functional.max_pool2d(x, 3, 2, 1)
