"""Layers of convolutional networks: convolution with batch norm and ReLU, and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .base import Array, Function, Row


def _windows(x: Array, size: int, stride: int, padding: int, fill: float) -> Array:
    """Return [N, C, H, W, size, size]."""
    edge = (padding, padding)
    x = np.pad(x, ((0, 0), (0, 0), edge, edge), constant_values=fill)
    return sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


class Convolution(Row):
    """relu(batch_norm(conv2d(x, w))) as in a ResNet. Subclasses give the sizes."""

    group = "conv"
    batch, channels, outputs, image = 1, 0, 0, 0
    size, stride, padding, groups = 3, 1, 1, 1
    rtol, atol = 1e-3, 1e-3

    def __init_subclass__(cls) -> None:
        places = ((cls.image + 2 * cls.padding - cls.size) // cls.stride + 1) ** 2
        taps = cls.channels // cls.groups * cls.size**2
        cls.flops = 2 * cls.batch * cls.outputs * places * taps
        image = cls.channels * cls.image**2 + cls.outputs * places
        cls.bytes = 4 * (cls.batch * image + cls.outputs * taps)
        depthwise = cls.groups == cls.channels
        kind = "dw" if depthwise else f"group{cls.groups}_" if cls.groups > 1 else "conv"
        spoken = "depthwise" if depthwise else f"{cls.groups} groups" if cls.groups > 1 else "conv"
        sizes = f"{cls.channels}_{cls.outputs}_{cls.image}"
        cls.name = f"{kind}{cls.size}x{cls.size}_s{cls.stride}_{sizes}_n{cls.batch}"
        cls.title = (
            f"relu(bn({spoken} {cls.size}×{cls.size}"
            f"{f' s{cls.stride}' if cls.stride > 1 else ''})), "
            f"{cls.batch}×{cls.channels}→{cls.outputs}×{cls.image}² f32"
        )
        super().__init_subclass__()

    @classmethod
    def data(cls, rng: np.random.Generator) -> tuple[Any, ...]:
        weights = (cls.outputs, cls.channels // cls.groups, cls.size, cls.size)
        x = rng.standard_normal((cls.batch, cls.channels, cls.image, cls.image))
        w = rng.standard_normal(weights) / np.sqrt(np.prod(weights[1:]))
        mean, gain, shift = rng.standard_normal((3, cls.outputs)) / 4
        variance = rng.uniform(0.5, 2, cls.outputs)
        made = (x, w, mean, variance, gain, shift)
        return tuple(np.ascontiguousarray(a, np.float32) for a in made)

    @classmethod
    def numpy(cls, x: Any, w: Any, mean: Any, variance: Any, gain: Any, shift: Any) -> Any:
        windows = _windows(x, cls.size, cls.stride, cls.padding, 0)
        if cls.groups > 1:
            parts = windows.reshape(len(x), cls.groups, -1, *windows.shape[2:])
            y = np.einsum("ngchwij,gocij->ngohw", parts, w.reshape(cls.groups, -1, *w.shape[1:]))
            y = y.reshape(len(x), cls.outputs, *y.shape[3:])
        else:
            y = np.moveaxis(np.tensordot(w, windows, ((1, 2, 3), (1, 4, 5))), 0, 1)
        mean, variance, gain, shift = (v[:, None, None] for v in (mean, variance, gain, shift))
        return np.maximum((y - mean) / np.sqrt(variance + 1e-5) * gain + shift, 0)

    @classmethod
    def tracejit(cls, tj: Any) -> Function:
        def layer(x: Any, w: Any, mean: Any, variance: Any, gain: Any, shift: Any) -> Any:
            y = tj.nn.conv2d(x, w, None, cls.stride, cls.padding, 1, cls.groups)
            return tj.nn.relu(tj.nn.batch_norm(y, mean, variance, gain, shift))

        return layer

    @classmethod
    def jax(cls, jax: Any) -> Function:
        edge = (cls.padding, cls.padding)

        def layer(x: Any, w: Any, mean: Any, variance: Any, gain: Any, shift: Any) -> Any:
            y = jax.lax.conv_general_dilated(
                x, w, (cls.stride, cls.stride), (edge, edge), feature_group_count=cls.groups
            )
            mean, variance, gain, shift = (v[:, None, None] for v in (mean, variance, gain, shift))
            return jax.nn.relu((y - mean) / jax.numpy.sqrt(variance + 1e-5) * gain + shift)

        return jax.jit(layer)

    @classmethod
    def torch(cls, torch: Any) -> Function:
        nn = torch.nn.functional

        def layer(x: Any, w: Any, mean: Any, variance: Any, gain: Any, shift: Any) -> Any:
            y = nn.conv2d(x, w, None, cls.stride, cls.padding, 1, cls.groups)
            return torch.relu(nn.batch_norm(y, mean, variance, gain, shift))

        return layer


class Body(Convolution):
    channels, outputs, image = 64, 64, 56


class Pointwise(Convolution):
    channels, outputs, image, size, padding = 256, 64, 56, 1, 0


class Stem(Convolution):
    channels, outputs, image, size, stride, padding = 3, 64, 224, 7, 2, 3


class Depthwise(Convolution):
    channels, outputs, image, groups = 192, 192, 28, 192


class DepthwiseWide(Convolution):
    channels, outputs, image, groups, size, padding = 96, 96, 56, 96, 7, 3


class Grouped(Convolution):
    channels, outputs, image, groups = 128, 128, 56, 32


class Down(Convolution):
    channels, outputs, image, stride = 128, 128, 56, 2


class Late(Convolution):
    channels, outputs, image = 256, 256, 14


class BodyBatch(Convolution):
    batch, channels, outputs, image = 8, 64, 64, 56


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
