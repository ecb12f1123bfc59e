"""Convolution as networks use it, in PyTorch's layouts: [N, C, …] with weights [O, C/groups, …].

Like PyTorch's (and unlike ``numpy.convolve``) it does not turn the weights around. All spatial
ranks share one row. It decomposes by what is fastest natively:

- 1×1 with stride 1 is a matrix product of the weights with each image, in place;
- anything else is W[O, C·taps] @ P[C·taps, places] where P are the windows of the input. P is a
  view that the product packs block by block, or reads in place where the groups have few outputs
  (depthwise ones have one), and is never stored.

A transposed convolution is one of these for each position modulo the stride: the outputs that
share it read the same taps, at stride 1. Where the stride divides the kernel, one product has all
of them. Then the positions are interleaved.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from tracejit.errors import ShapeError, ValueArgumentError
from tracejit.ops.contraction import sum_products
from tracejit.ops.table import Array, Aval, Fact, Family, Shape, float_types, row, same_types
from tracejit.ops.windows import (
    MAX_TAPS,
    Ints,
    padded,
    taps,
    window_places,
    window_reach,
    windows_of,
)

# -- convolution -----------------------------------------------------------------------------------


def _check_operands(name: str, x: Aval, w: Aval, groups: int, layout: str) -> None:
    rank = len(x.shape) - 2
    if rank < 1 or len(w.shape) != rank + 2:
        raise ShapeError(
            f"{name}: input of shape {x.shape} and weight of shape {w.shape} do not fit",
            hint=f"the input is [N, C, …], the weight {layout}",
        )
    if groups < 1:
        raise ValueArgumentError(f"{name}: groups must be at least 1, got {groups}")


def _check_bias(name: str, bias: tuple[Aval, ...], channels: int) -> None:
    if len(bias) > 1:
        raise ShapeError(f"{name}: more than one bias")
    if bias and bias[0].shape != (channels,):
        raise ShapeError(
            f"{name}: bias of shape {bias[0].shape} for {channels} output channels",
            hint=f"its shape is ({channels},)",
        )


def _conv_shape(
    x: Aval, w: Aval, *bias: Aval, stride: Ints, low: Ints, high: Ints, dilation: Ints, groups: int
) -> Shape:
    name = f"conv{max(len(x.shape) - 2, 1)}d"
    _check_operands(name, x, w, groups, "[O, C/groups, …]")
    channels, outputs = x.shape[1], w.shape[0]
    if channels != w.shape[1] * groups or outputs % groups:
        raise ShapeError(
            f"{name}: input of shape {x.shape} and weight of shape {w.shape} do not fit"
            f" with groups={groups}: {channels} channels, the weight takes"
            f" {w.shape[1]} · {groups}",
            hint="the weight is [O, C/groups, …], and O a multiple of groups",
        )
    _check_bias(name, bias, outputs)
    places = window_places(name, x.shape[2:], w.shape[2:], stride, low, high, dilation)
    return (x.shape[0], outputs, *places)


def _with_bias(value: Array, bias: tuple[Array, ...]) -> Array:
    if not bias:
        return value
    return value + bias[0].reshape(-1, *(1,) * (value.ndim - 2))


def _conv_reference(
    x: Array, w: Array, *bias: Array,
    stride: Ints, low: Ints, high: Ints, dilation: Ints, groups: int,
) -> Array:  # fmt: skip
    wide = np.pad(x, [(0, 0), (0, 0), *zip(low, high, strict=True)])
    return _with_bias(_conv_arrays(wide, w, stride, dilation, groups), bias)


def _conv_arrays(x: Array, w: Array, stride: Ints, dilation: Ints, groups: int) -> Array:
    rank = x.ndim - 2
    windows = windows_of(x, w.shape[2:], stride, dilation)
    window_axes = [1, *range(2 + rank, 2 + 2 * rank)]
    weight_axes = [1, *range(2, 2 + rank)]
    inside, outside = w.shape[1], w.shape[0] // groups
    parts = [
        np.tensordot(
            w[g * outside : (g + 1) * outside],
            windows[:, g * inside : (g + 1) * inside],
            (weight_axes, window_axes),
        )
        for g in range(groups)
    ]  # [O, N, …] each
    return np.moveaxis(np.concatenate(parts), 0, 1).astype(x.dtype, copy=False)


def _conv(
    emit: Any, x: Any, w: Any, *bias: Any,
    stride: Ints, low: Ints, high: Ints, dilation: Ints, groups: int,
) -> Any:  # fmt: skip
    x = padded(emit, x, 0, low, high)
    return _add_bias(emit, _correlated(emit, x, w, stride, dilation, groups), bias)


def _add_bias(emit: Any, value: Any, bias: tuple[Any, ...]) -> Any:
    if not bias:
        return value
    shape = (bias[0].size, *(1,) * (len(value.shape) - 2))
    return emit.add(value, emit.reshape(bias[0], shape=shape))


def _correlated(emit: Any, x: Any, w: Any, stride: Ints, dilation: Ints, groups: int) -> Any:
    """Return the convolution of an input that is padded already."""
    size = w.shape[2:]
    none = (0,) * len(size)
    places = window_places("convolution", x.shape[2:], size, stride, none, none, dilation)
    rank, batch, inside = len(size), x.shape[0], w.shape[1]
    lead = (batch,) if groups == 1 else (batch, groups)
    patches = emit.reshape(x, shape=(*lead, inside, *x.shape[2:]))
    if any(n != 1 for n in (*size, *stride)):
        windows = emit.windows(patches, size=size, step=stride, dilation=dilation)
        first = len(lead) + 1
        order = (*range(first), *range(first + rank, first + 2 * rank), *range(first, first + rank))
        patches = emit.permute(windows, axes=order)
    depth = inside * math.prod(size)
    patches = emit.reshape(patches, shape=(*lead, depth, math.prod(places)))
    rows = emit.reshape(w, shape=(*lead[1:], w.shape[0] // groups, depth))
    return emit.reshape(emit.matmul(rows, patches), shape=(batch, w.shape[0], *places))


row(
    "conv", Family.COMPOSITE, _conv_reference, arity=None, types=float_types("conv"),
    shape=_conv_shape, decompose=_conv, facts=Fact.EXPENSIVE,
    doc="Convolution of [N, C, …] with weights [O, C/groups, …], plus a bias [O] if there is one.",
)  # fmt: skip

# -- transposed ------------------------------------------------------------------------------------


def _transpose_shape(
    x: Aval, w: Aval, *bias: Aval,
    stride: Ints, low: Ints, high: Ints, extra: Ints, dilation: Ints, groups: int,
) -> Shape:  # fmt: skip
    name = f"conv_transpose{max(len(x.shape) - 2, 1)}d"
    _check_operands(name, x, w, groups, "[C, O/groups, …]")
    if x.shape[1] != w.shape[0] or x.shape[1] % groups:
        raise ShapeError(
            f"{name}: input of shape {x.shape} and weight of shape {w.shape} do not fit"
            f" with groups={groups}: {x.shape[1]} channels, the weight takes {w.shape[0]}",
            hint="the weight is [C, O/groups, …], and C a multiple of groups",
        )
    outputs = w.shape[1] * groups
    _check_bias(name, bias, outputs)
    numbers = zip(x.shape[2:], stride, low, high, extra, dilation, w.shape[2:], strict=True)
    places: list[int] = []
    for n, s, a, b, more, d, k in numbers:
        if s < 1 or d < 1 or k < 1 or a < 0 or b < 0:
            raise ValueArgumentError(
                f"{name}: stride {stride}, dilation {dilation} and kernel {w.shape[2:]} must be at"
                f" least 1, padding {low} at least 0"
            )
        if more < 0 or more >= max(s, d):
            raise ValueArgumentError(
                f"{name}: output_padding {extra} must be smaller than stride {stride} or dilation"
                f" {dilation}"
            )
        size = (n - 1) * s - a - b + d * (k - 1) + more + 1
        if size < 1:
            raise ShapeError(
                f"{name}: input of shape {x.shape} and weight of shape {w.shape} leave nothing"
                f" after padding {low}",
                hint="use less padding",
            )
        places.append(size)
    return (x.shape[0], outputs, *places)


def _transpose_reference(
    x: Array, w: Array, *bias: Array,
    stride: Ints, low: Ints, high: Ints, extra: Ints, dilation: Ints, groups: int,
) -> Array:  # fmt: skip
    """Zeros between the elements, then a convolution with the weights turned around."""
    reach = window_reach(w.shape[2:], dilation)
    spread = tuple((n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True))
    # Padding is cut from what the widest reach would give.
    ends = [(r - 1, r - 1 + m) for r, m in zip(reach, extra, strict=True)]
    shape = tuple(a + n + b for n, (a, b) in zip(spread, ends, strict=True))
    wide = np.zeros((*x.shape[:2], *shape), x.dtype)
    inner = tuple(slice(a, a + n, s) for (a, _), n, s in zip(ends, spread, stride, strict=True))
    wide[(..., *inner)] = x
    full = _conv_arrays(wide, _turned(w, groups), (1,) * len(reach), dilation, groups)
    cut = [slice(a, n - b) for a, b, n in zip(low, high, full.shape[2:], strict=True)]
    return _with_bias(full[(..., *cut)], bias)


def _turned(w: Array, groups: int) -> Array:
    """Return weights [C, O/groups, …] as [O, C/groups, …] with the taps in reverse."""
    inside, outside = w.shape[0] // groups, w.shape[1]
    grouped = w.reshape(groups, inside, outside, *w.shape[2:]).swapaxes(1, 2)
    turned = grouped.reshape(groups * outside, inside, *w.shape[2:])
    return turned[(..., *[slice(None, None, -1)] * (w.ndim - 2))]


def _transpose(
    emit: Any, x: Any, w: Any, *bias: Any,
    stride: Ints, low: Ints, high: Ints, extra: Ints, dilation: Ints, groups: int,
) -> Any:  # fmt: skip
    """The outputs q·stride + phase − low read the taps t with t·dilation ≡ phase (mod stride)."""
    rank = len(stride)
    shape = _transpose_shape(
        x.aval, w.aval, stride=stride, low=low, high=high, extra=extra, dilation=dilation,
        groups=groups,
    )  # fmt: skip
    inside, outside = w.shape[0] // groups, w.shape[1]
    w = emit.reshape(w, shape=(groups, inside, outside, *w.shape[2:]))
    w = emit.permute(w, axes=(0, 2, 1, *range(3, 3 + rank)))
    count = tuple(-(-n // s) for n, s in zip(shape[2:], stride, strict=True))  # of each phase
    phases = [
        tuple(map(sum, zip(low, c, strict=True))) for c in itertools.product(*map(range, stride))
    ]
    if len(phases) > 1 and all(
        d == 1 and k % s == 0 for d, k, s in zip(dilation, w.shape[3:], stride, strict=True)
    ):
        parts = _alike_phases(emit, x, w, phases, count, stride)
    else:
        w = emit.reshape(w, shape=(groups * outside, inside, *w.shape[3:]))
        parts = [_phase(emit, x, w, p, count, stride, dilation, groups) for p in phases]
    result = _interleaved(emit, [_add_bias(emit, part, bias) for part in parts], stride)
    return emit.slice(result, start=(0,) * (rank + 2), size=shape, step=(1,) * (rank + 2))


def _interleaved(emit: Any, parts: list[Any], stride: Ints) -> Any:
    """Return the value whose elements at phase c of every axis are those of ``parts[c]``.

    A concat of concats is stored in one go, as one of reshapes between them is not.
    """
    lead, counts = parts[0].shape[:2], parts[0].shape[2:]
    apart = (*lead, *(n for count in counts for n in (count, 1)))
    parts = [emit.reshape(part, shape=apart) for part in parts]
    for axis, s in reversed([*enumerate(stride)]):
        groups = [parts[i : i + s] for i in range(0, len(parts), s)]
        parts = [emit.concat(*group, axis=3 + 2 * axis) for group in groups]
    shape = (*lead, *(n * s for n, s in zip(counts, stride, strict=True)))
    return emit.reshape(parts[0], shape=shape)


def _alike_phases(
    emit: Any, x: Any, w: Any, phases: list[Ints], count: Ints, stride: Ints
) -> list[Any]:
    """Return the outputs of ``phases`` where all have as many taps: one convolution has them all.

    ``w`` is [groups, outputs, inputs, …]. Tap m·stride + r belongs to rest r; so the weights of
    the rests are rows of one matrix, whose windows reach back over the taps m of an axis.
    """
    rank, (groups, outside, inside, *size) = len(stride), w.shape
    rests, several = math.prod(stride), tuple(k // s for k, s in zip(size, stride, strict=True))
    split = [n for pair in zip(several, stride, strict=True) for n in pair]
    w = emit.reshape(w, shape=(groups, outside, inside, *split))
    w = emit.flip(w, axis=tuple(3 + 2 * i for i in range(rank)))
    taps_of, rests_of = (tuple(3 + 2 * i + j for i in range(rank)) for j in (0, 1))
    w = emit.permute(w, axes=(0, *rests_of, 1, 2, *taps_of))
    w = emit.reshape(w, shape=(groups * rests * outside, inside, *several))
    # The places that any phase reads, from the first on: its place 0 is at its quotient.
    first = [p // s for p, s in zip(phases[0], stride, strict=True)]
    last = [p // s for p, s in zip(phases[-1], stride, strict=True)]
    most = [n + high - low for n, low, high in zip(count, first, last, strict=True)]
    back = [m - 1 - low for m, low in zip(several, first, strict=True)]
    ahead = [n + low - k for n, low, k in zip(most, first, x.shape[2:], strict=True)]
    wide = padded(emit, x, 0, tuple(back), tuple(ahead))
    ones = (1,) * rank
    result = _correlated(emit, wide, w, ones, ones, groups)
    result = emit.reshape(result, shape=(x.shape[0], groups, *stride, outside, *most))
    found: list[Any] = []
    for phase in phases:
        places = zip(phase, stride, first, strict=True)
        at, rest = zip(*((p // s - low, p % s) for p, s, low in places), strict=True)
        part = emit.slice(
            result, start=(0, 0, *rest, 0, *at), size=(x.shape[0], groups, *ones, outside, *count),
            step=(1,) * len(result.shape),
        )  # fmt: skip
        found.append(emit.reshape(part, shape=(x.shape[0], groups * outside, *count)))
    return found


def _phase(
    emit: Any, x: Any, w: Any, phase: Ints, count: Ints, stride: Ints, dilation: Ints, groups: int
) -> Any:
    """Return the outputs q·stride + phase, 0 ≤ q < count, of the unpadded result."""
    start: list[int] = []
    size: list[int] = []
    step: list[int] = []
    spacing: list[int] = []
    low: list[int] = []
    high: list[int] = []
    numbers = zip(phase, count, stride, dilation, w.shape[2:], x.shape[2:], strict=True)
    for c, q, s, d, k, n in numbers:
        common = math.gcd(s, d)
        mine = [t for t in range(k) if (t * d - c) % s == 0]
        if not mine:
            shape = (x.shape[0], w.shape[0], *count)
            return emit.broadcast_to(emit.constant(0, x.dtype), shape=shape)
        # Tap t reads the input at q − (t·dilation − phase)/stride; turned around, upwards.
        furthest = (mine[-1] * d - c) // s
        start.append(mine[-1])
        size.append(len(mine))
        step.append(-(s // common))
        spacing.append(d // common)
        low.append(furthest)
        high.append(q - 1 - (mine[0] * d - c) // s - (n - 1))
    chosen = emit.slice(
        w, start=(0, 0, *start), size=(*w.shape[:2], *size), step=(1, 1, *step)
    )  # fmt: skip
    x = padded(emit, x, 0, tuple(low), tuple(high))
    return _correlated(emit, x, chosen, (1,) * len(size), tuple(spacing), groups)


row(
    "conv_transpose", Family.COMPOSITE, _transpose_reference, arity=None,
    types=float_types("conv_transpose"), shape=_transpose_shape, decompose=_transpose,
    facts=Fact.EXPENSIVE,
    doc="The gradient of a convolution in its input: weights [C, O/groups, …], a bias [O].",
)  # fmt: skip

# -- of vectors, as NumPy has it -------------------------------------------------------------------

CONVOLVE_MODES = ("full", "same", "valid")


def _convolve_shape(a: Aval, v: Aval, *, mode: str) -> Shape:
    if len(a.shape) != 1 or len(v.shape) != 1 or 0 in (*a.shape, *v.shape):
        raise ShapeError(f"convolve: needs two non-empty vectors, got {a.shape} and {v.shape}")
    if mode not in CONVOLVE_MODES:
        raise ValueArgumentError(f"convolve: mode {mode!r}", hint=", ".join(CONVOLVE_MODES))
    short, long = sorted((a.shape[0], v.shape[0]))
    return ({"full": long + short - 1, "same": long, "valid": long - short + 1}[mode],)


def _convolve_reference(a: Array, v: Array, *, mode: Any) -> Array:
    return np.convolve(a, v, mode)


def _convolve(emit: Any, a: Any, v: Any, *, mode: str) -> Any:
    if v.size > a.size:
        a, v = v, a
    count = v.size
    (size,) = _convolve_shape(a.aval, v.aval, mode=mode)
    low = {"full": count - 1, "same": count - 1 - (count - 1) // 2, "valid": 0}[mode]
    a = padded(emit, a, 0, (low,), (size + count - 1 - low - a.size,))
    turned = emit.flip(v, axis=(0,))
    if count <= MAX_TAPS:
        return _weighted(emit, a, turned, size)
    windows = emit.windows(a, size=(count,), step=(1,), dilation=(1,))
    if a.dtype.kind in "fc":
        column = emit.reshape(turned, shape=(count, 1))
        return emit.reshape(emit.matmul(windows, column), shape=(size,))
    return sum_products(emit, emit.multiply(windows, turned), (1,))


def _weighted(emit: Any, x: Any, weights: Any, places: int) -> Any:
    """Return Σₜ weights[t]·x[i + t], written out."""
    total = None
    for number, tap in enumerate(taps(emit, x, (places,), weights.shape, (1,), (1,))):
        weight = emit.slice(weights, start=(number,), size=(1,), step=(1,))
        term = emit.multiply(tap, weight)
        total = term if total is None else emit.add(total, term)
    return total


row(
    "convolve", Family.COMPOSITE, _convolve_reference, arity=2, types=same_types("convolve"),
    shape=_convolve_shape, decompose=_convolve, facts=Fact.EXPENSIVE,
    doc="Σⱼ a[j] v[i − j] of two vectors, with the modes of numpy.convolve.",
)  # fmt: skip
