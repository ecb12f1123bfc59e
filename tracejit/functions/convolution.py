"""Convolution and pooling under PyTorch's names, signatures and layouts ([N, C, …]).

Sizes, strides, paddings and dilations are one number for all spatial axes or one for each. An
input without batch axis ([C, …]) gives a result without one. The definitions are the op rows'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracejit.errors import ShapeError, ValueArgumentError
from tracejit.functions.arguments import as_index, fail, is_sequence
from tracejit.functions.joining import concat
from tracejit.functions.movement import flip
from tracejit.tensor import Tensor, apply, lift, record

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "convolve", "correlate", "max_pool1d", "max_pool2d", "max_pool3d",
]  # fmt: skip

Ints = tuple[int, ...]


def _numbers(name: str, what: str, value: Any, rank: int) -> Ints:
    """Return one whole number for each spatial axis."""
    if not is_sequence(value):
        return (as_index(value, f"{name}: {what}"),) * rank
    numbers = tuple(as_index(n, f"{name}: {what}") for n in value)
    if len(numbers) == 1:
        return numbers * rank
    if len(numbers) != rank:
        raise fail(
            ValueArgumentError, f"{name}: {what} {numbers} has {len(numbers)} numbers",
            f"give one number, or {rank}",
        )  # fmt: skip
    return numbers


def _batched(name: str, x: Tensor, rank: int) -> Tensor:
    """Return ``x`` with a batch axis."""
    if x.ndim == rank + 1:
        return apply("reshape", (x,), shape=(1, *x.shape))
    if x.ndim != rank + 2:
        axes = ", ".join(("L", "HW", "DHW")[rank - 1])
        raise fail(
            ShapeError,
            f"{name}: the input's shape is {x.shape}",
            f"give [N, C, {axes}] or [C, {axes}]",
        )
    return x


def _like(x: Tensor, rank: int, result: Tensor) -> Tensor:
    """Return ``result`` without batch axis where ``x`` has none."""
    if x.ndim == rank + 1:
        return apply("reshape", (result,), shape=result.shape[1:])
    return result


# -- convolution -----------------------------------------------------------------------------------


def _conv_padding(
    name: str, padding: Any, stride: Ints, size: Ints, dilation: Ints
) -> tuple[Ints, Ints]:
    """Return the padding before and after each axis; 'same' puts the odd one after."""
    if padding == "valid":
        return (0,) * len(size), (0,) * len(size)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise fail(
                ValueArgumentError, f"{name}: padding 'same' with stride {stride}",
                "give the padding in numbers",
            )  # fmt: skip
        total = tuple(d * (k - 1) for k, d in zip(size, dilation, strict=True))
        return tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
    if isinstance(padding, str):
        raise fail(ValueArgumentError, f"{name}: padding {padding!r}", "'valid', 'same' or numbers")
    numbers = _numbers(name, "padding", padding, len(size))
    return numbers, numbers


def _conv(
    name: str, rank: int, x: Any, weight: Any, bias: Any,
    stride: Any, padding: Any, dilation: Any, groups: int,
) -> Tensor:  # fmt: skip
    value, kernel = lift(x), lift(weight)
    operands = (_batched(name, value, rank), kernel, *(() if bias is None else (bias,)))
    steps = _numbers(name, "stride", stride, rank)
    spread = _numbers(name, "dilation", dilation, rank)
    size = kernel.shape[2:] if kernel.ndim == rank + 2 else (1,) * rank
    low, high = _conv_padding(name, padding, steps, size, spread)
    result = record(
        "conv", operands, stride=steps, low=low, high=high, dilation=spread,
        groups=as_index(groups, f"{name}: groups"),
    )  # fmt: skip
    return _like(value, rank, result)


def conv1d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Return the convolution of [N, C, L] with weights [O, C/groups, K]."""
    return _conv("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Return the convolution of [N, C, H, W] with weights [O, C/groups, KH, KW].

    ``padding`` is numbers, 'valid' (none) or 'same' (the size stays; stride 1 only).
    """
    return _conv("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Return the convolution of [N, C, D, H, W] with weights [O, C/groups, KD, KH, KW]."""
    return _conv("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


def _transposed(
    name: str, rank: int, x: Any, weight: Any, bias: Any,
    stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any,
) -> Tensor:  # fmt: skip
    value = lift(x)
    operands = (_batched(name, value, rank), weight, *(() if bias is None else (bias,)))
    pad = _numbers(name, "padding", padding, rank)
    result = record(
        "conv_transpose", operands, stride=_numbers(name, "stride", stride, rank), low=pad,
        high=pad, extra=_numbers(name, "output_padding", output_padding, rank),
        dilation=_numbers(name, "dilation", dilation, rank),
        groups=as_index(groups, f"{name}: groups"),
    )  # fmt: skip
    return _like(value, rank, result)


def conv_transpose1d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """Return the transposed convolution of [N, C, L] with weights [C, O/groups, K]."""
    return _transposed(
        "conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """Return the transposed convolution of [N, C, H, W] with weights [C, O/groups, KH, KW].

    It is the gradient of ``conv2d`` in its input; an axis grows to (n − 1)·stride − 2·padding +
    dilation·(k − 1) + output_padding + 1.
    """
    return _transposed(
        "conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """Return the transposed convolution of [N, C, D, H, W] with [C, O/groups, KD, KH, KW]."""
    return _transposed(
        "conv_transpose3d", 3, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def convolve(a: Any, v: Any, mode: str = "full") -> Tensor:
    """Return ``numpy.convolve``: Σⱼ a[j] v[i − j] of two vectors; 'full', 'same' or 'valid'."""
    a, v = _vector(a), _vector(v)
    return record("convolve", (a, v), mode=mode)


def correlate(a: Any, v: Any, mode: str = "valid") -> Tensor:
    """Return ``numpy.correlate``: Σⱼ a[i + j] conj(v[j]) of two vectors."""
    a, v = _vector(a), _vector(v)
    if v.size > a.size:  # as NumPy does it, which matters for 'same' of an even length
        return _conjugate(flip(correlate(v, a, mode)))
    return record("convolve", (a, _conjugate(flip(v))), mode=mode)


def _conjugate(x: Tensor) -> Tensor:
    return record("conjugate", (x,)) if x.dtype.kind == "c" else x


def _vector(x: Any) -> Tensor:
    value = lift(x)
    return value if value.ndim else apply("reshape", (value,), shape=(1,))


# -- pooling ---------------------------------------------------------------------------------------


def _pool_end(
    name: str, n: int, size: int, step: int, pad: int, dilation: int, ceil_mode: bool
) -> int:
    """Return the padding after an axis that makes room for exactly as many windows as fit.

    With ``ceil_mode`` a last window that only begins inside counts too.
    """
    reach = (size - 1) * dilation + 1
    if pad < 0 or 2 * pad > reach:
        raise fail(
            ValueArgumentError, f"{name}: padding {pad} for windows that span {reach}",
            "pad by at most half a window",
        )  # fmt: skip
    if size < 1 or step < 1 or dilation < 1:
        return pad  # the op's rule says what is wrong
    room = n + 2 * pad - reach
    if room < 0 and not (ceil_mode and room + step > 0):
        return pad
    places = (-(-room // step) if ceil_mode else room // step) + 1
    if ceil_mode and (places - 1) * step >= n + pad:
        places -= 1
    return max((places - 1) * step + reach - n - pad, 0)


def _pool_arguments(
    name: str, rank: int, x: Tensor,
    kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
) -> tuple[Ints, Ints, Ints, Ints, Ints]:  # fmt: skip
    """Return size, step, padding before and after, and dilation for each axis."""
    size = _numbers(name, "kernel_size", kernel_size, rank)
    step = size if stride is None else _numbers(name, "stride", stride, rank)
    low = _numbers(name, "padding", padding, rank)
    spread = _numbers(name, "dilation", dilation, rank)
    axes = zip(x.shape[-rank:], size, step, low, spread, strict=True)
    high = tuple(_pool_end(name, *numbers, ceil_mode) for numbers in axes)
    return size, step, low, high, spread


def _max_pool(
    name: str, rank: int, x: Any,
    kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
) -> Tensor:  # fmt: skip
    value = lift(x)
    _batched(name, value, rank)
    size, step, low, high, spread = _pool_arguments(
        name, rank, value, kernel_size, stride, padding, dilation, ceil_mode
    )
    return record("max_pool", (value,), size=size, step=step, low=low, high=high, dilation=spread)


def max_pool1d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Return the maximum of each window over the last axis; the stride is its size by default."""
    return _max_pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Return the maximum of each window over the last two axes."""
    return _max_pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Return the maximum of each window over the last three axes."""
    return _max_pool("max_pool3d", 3, x, kernel_size, stride, padding, dilation, ceil_mode)


def _avg_pool(
    name: str, rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any,
    ceil_mode: bool, count_include_pad: bool, divisor_override: int | None,
) -> Tensor:  # fmt: skip
    value = lift(x)
    _batched(name, value, rank)
    size, step, low, high, _ = _pool_arguments(
        name, rank, value, kernel_size, stride, padding, 1, ceil_mode
    )
    counted = low if count_include_pad else (0,) * rank
    divisor = None if divisor_override is None else as_index(divisor_override, f"{name}: divisor")
    return record(
        "avg_pool", (value,), size=size, step=step, low=low, high=high,
        before=counted, after=counted, divisor=divisor,
    )  # fmt: skip


def avg_pool1d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """Return the mean of each window over the last axis."""
    return _avg_pool(
        "avg_pool1d", 1, x, kernel_size, stride, padding, ceil_mode, count_include_pad, None
    )


def avg_pool2d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the mean of each window over the last two axes.

    Padding counts as zeros, unless ``count_include_pad`` is False; ``divisor_override`` divides
    the sums by that number instead.
    """
    return _avg_pool(
        "avg_pool2d", 2, x, kernel_size, stride, padding, ceil_mode, count_include_pad,
        divisor_override,
    )  # fmt: skip


def avg_pool3d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the mean of each window over the last three axes."""
    return _avg_pool(
        "avg_pool3d", 3, x, kernel_size, stride, padding, ceil_mode, count_include_pad,
        divisor_override,
    )  # fmt: skip


# -- adaptive --------------------------------------------------------------------------------------


def _adaptive(
    name: str, rank: int, x: Any, output_size: Any, pool: Callable[[Tensor, Ints, Ints], Tensor],
    reduction: str,
) -> Tensor:  # fmt: skip
    """Return a pooling with ``output_size`` places: from ⌊i·n/m⌋ to ⌈(i + 1)·n/m⌉, place by place.

    Where the sizes divide, all windows are equal, and it is the plain pooling. None keeps a size.
    """
    value = lift(x)
    _batched(name, value, rank)
    wanted = list(output_size) if is_sequence(output_size) else [output_size] * rank
    extents = value.shape[-rank:]
    wanted = [n if m is None else m for n, m in zip(extents, wanted, strict=False)]
    places = _numbers(name, "output_size", wanted, rank)
    if any(m < 1 for m in places) or 0 in extents:
        raise fail(ShapeError, f"{name}: {places} places from shape {value.shape}")
    if all(n % m == 0 for n, m in zip(extents, places, strict=True)):
        size = tuple(n // m for n, m in zip(extents, places, strict=True))
        return pool(value, size, size)
    for axis, (n, m) in enumerate(zip(extents, places, strict=True), value.ndim - rank):
        value = _adaptive_axis(value, axis, n, m, reduction)
    return value


def _adaptive_axis(x: Tensor, axis: int, extent: int, places: int, reduction: str) -> Tensor:
    parts: list[Tensor] = []
    for place in range(places):
        first, last = place * extent // places, -(-(place + 1) * extent // places)
        start = tuple(first if i == axis else 0 for i in range(x.ndim))
        size = tuple(last - first if i == axis else n for i, n in enumerate(x.shape))
        part = apply("slice", (x,), start=start, size=size, step=(1,) * x.ndim)
        parts.append(record(reduction, (part,), axis=(axis,), keepdims=True))
    return concat(parts, axis)


def _adaptive_avg(name: str, rank: int, x: Any, output_size: Any) -> Tensor:
    def pool(value: Tensor, size: Ints, stride: Ints) -> Tensor:
        return _avg_pool(name, rank, value, size, stride, 0, False, True, None)

    return _adaptive(name, rank, x, output_size, pool, "mean")


def _adaptive_max(name: str, rank: int, x: Any, output_size: Any) -> Tensor:
    def pool(value: Tensor, size: Ints, stride: Ints) -> Tensor:
        return _max_pool(name, rank, value, size, stride, 0, 1, False)

    return _adaptive(name, rank, x, output_size, pool, "max")


def adaptive_avg_pool1d(x: Any, output_size: Any) -> Tensor:
    """Return means of windows so chosen that the last axis gets ``output_size`` places."""
    return _adaptive_avg("adaptive_avg_pool1d", 1, x, output_size)


def adaptive_avg_pool2d(x: Any, output_size: Any) -> Tensor:
    """Return means of windows so chosen that the last two axes get ``output_size`` places."""
    return _adaptive_avg("adaptive_avg_pool2d", 2, x, output_size)


def adaptive_avg_pool3d(x: Any, output_size: Any) -> Tensor:
    """Return means of windows so chosen that the last three axes get ``output_size`` places."""
    return _adaptive_avg("adaptive_avg_pool3d", 3, x, output_size)


def adaptive_max_pool1d(x: Any, output_size: Any) -> Tensor:
    """Return maxima of windows so chosen that the last axis gets ``output_size`` places."""
    return _adaptive_max("adaptive_max_pool1d", 1, x, output_size)


def adaptive_max_pool2d(x: Any, output_size: Any) -> Tensor:
    """Return maxima of windows so chosen that the last two axes get ``output_size`` places."""
    return _adaptive_max("adaptive_max_pool2d", 2, x, output_size)


def adaptive_max_pool3d(x: Any, output_size: Any) -> Tensor:
    """Return maxima of windows so chosen that the last three axes get ``output_size`` places."""
    return _adaptive_max("adaptive_max_pool3d", 3, x, output_size)
