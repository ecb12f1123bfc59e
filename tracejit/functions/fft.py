"""``tj.fft``: discrete Fourier transforms along one axis, as ``numpy.fft``."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracejit.errors import ShapeError
from tracejit.functions.arguments import as_index, fail, one_axis
from tracejit.functions.creation import asarray
from tracejit.functions.joining import roll
from tracejit.tensor import Tensor, lift, record

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "ifft", "ifft2", "ifftn", "ifftshift", "irfft",
    "rfft", "rfftfreq",
]  # fmt: skip


def _transform(name: str, x: Any, n: int | None, axis: int, norm: str | None) -> Tensor:
    value = lift(x)
    place = one_axis(name, axis, value.shape)
    points = value.shape[place] if n is None else as_index(n, "n")
    if n is None and name == "irfft":
        points = 2 * (points - 1)
    return record(name, (value,), axis=place, n=points, norm=norm or "backward")


def fft(
    x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = None, *,
    dim: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the discrete Fourier transform of ``n`` points."""
    return _transform("fft", x, n, axis if dim is None else dim, norm)


def ifft(
    x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = None, *,
    dim: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the inverse of ``fft``."""
    return _transform("ifft", x, n, axis if dim is None else dim, norm)


def rfft(
    x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = None, *,
    dim: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the transform of real input: the n // 2 + 1 frequencies that are not conjugates."""
    return _transform("rfft", x, n, axis if dim is None else dim, norm)


def irfft(
    x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = None, *,
    dim: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the inverse of ``rfft`` with ``n`` real points."""
    return _transform("irfft", x, n, axis if dim is None else dim, norm)


def _transforms(name: str, x: Any, s: Any, axes: Any, norm: str | None) -> Tensor:
    """Transform along several axes, the last one first."""
    value = lift(x)
    if axes is None:
        axes = range(value.ndim) if s is None else range(-len(s), 0)
    places = [one_axis(name, a, value.shape) for a in axes]
    sizes = [None] * len(places) if s is None else [None if n == -1 else n for n in s]
    if len(sizes) != len(places):
        text = f"{name}: {len(sizes)} sizes for {len(places)} axes of {value.shape}"
        raise fail(ShapeError, text, "give one size for each axis")
    for place, points in reversed(list(zip(places, sizes, strict=True))):
        value = _transform(name[:-1], value, points, place, norm)
    return value


def fftn(x: Any, /, s: Any = None, axes: Any = None, norm: str | None = None) -> Tensor:
    """Return the discrete Fourier transform along several axes (all without ``axes``)."""
    return _transforms("fftn", x, s, axes, norm)


def ifftn(x: Any, /, s: Any = None, axes: Any = None, norm: str | None = None) -> Tensor:
    """Return the inverse of ``fftn``."""
    return _transforms("ifftn", x, s, axes, norm)


def fft2(x: Any, /, s: Any = None, axes: Any = (-2, -1), norm: str | None = None) -> Tensor:
    """Return the discrete Fourier transform along two axes."""
    return _transforms("fft2", x, s, axes, norm)


def ifft2(x: Any, /, s: Any = None, axes: Any = (-2, -1), norm: str | None = None) -> Tensor:
    """Return the inverse of ``fft2``."""
    return _transforms("ifft2", x, s, axes, norm)


def fftfreq(n: int, /, d: float = 1.0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Return the frequencies of ``fft`` for samples ``d`` apart."""
    return asarray(np.fft.fftfreq(n, d), dtype, device=device)


def rfftfreq(n: int, /, d: float = 1.0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Return the frequencies of ``rfft`` for samples ``d`` apart."""
    return asarray(np.fft.rfftfreq(n, d), dtype, device=device)


def _shifted(x: Any, axes: Any, sign: int) -> Tensor:
    value = lift(x)
    places = list(range(value.ndim)) if axes is None else axes
    places = [places] if isinstance(places, int) else list(places)
    sizes = [value.shape[one_axis("fftshift", a, value.shape)] for a in places]
    shifts = [n // 2 if sign > 0 else -(n // 2) for n in sizes]
    return roll(value, shifts, places)


def fftshift(x: Any, /, *, axes: Any = None) -> Tensor:
    """Return ``x`` with frequency zero in the middle."""
    return _shifted(x, axes, 1)


def ifftshift(x: Any, /, *, axes: Any = None) -> Tensor:
    """Return the inverse of ``fftshift``."""
    return _shifted(x, axes, -1)
