"""Cases of windows, convolution and pooling. Importing this adds them to ``op_cases``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from op_cases import Case, cases_for
from op_samples import DTYPES, Array, layouts
from op_structured import FLOATS, product_tolerance, values, wild

Ints = tuple[int, ...]


@cases_for("windows")
def windows_cases(name: str) -> Iterator[Case]:
    shapes: list[tuple[Ints, Ints, Ints, Ints]] = [
        ((9,), (3,), (1,), (1,)), ((9,), (3,), (2,), (1,)), ((9,), (3,), (1,), (3,)),
        ((2, 7), (7,), (3,), (1,)), ((3, 6, 8), (2, 3), (1, 2), (2, 1)), ((0, 4), (2,), (1,), (1,)),
        ((5, 4, 6), (2, 1, 3), (1, 1, 1), (1, 1, 1)), ((4,), (), (), ()), ((70,), (5,), (1,), (2,)),
    ]  # fmt: skip
    for shape, size, step, dilation in shapes:
        for dtype in DTYPES:
            attrs = {"size": size, "step": step, "dilation": dilation}
            yield Case(name, (wild(dtype, *shape),), attrs)
    for note, view in layouts(values(FLOATS[0], 48)):
        if view.ndim == 2 and min(view.shape) > 2:
            attrs = {"size": (2, 2), "step": (1, 1), "dilation": (1, 1)}
            yield Case(name, (view,), attrs, note=note)


def _pools(
    dtype: Any,
) -> Iterator[tuple[Array, dict[str, Any]]]:
    """Yield inputs with windows: odd sizes, steps, paddings, dilations; few taps and many."""
    plain: list[tuple[Ints, Ints, Ints, Ints, Ints, Ints]] = [
        ((2, 3, 9), (2,), (2,), (0,), (0,), (1,)),
        ((2, 3, 35), (3,), (1,), (1,), (1,), (1,)),
        ((1, 2, 7, 18), (3, 2), (2, 3), (1, 0), (1, 1), (1, 1)),
        ((2, 1, 8, 33), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
        ((1, 2, 14, 14), (7, 7), (7, 7), (0, 0), (0, 0), (1, 1)),
        ((1, 1, 5, 6, 7), (2, 2, 3), (1, 2, 1), (1, 1, 1), (0, 1, 1), (1, 1, 1)),
        ((0, 2, 5, 5), (2, 2), (1, 1), (0, 0), (0, 0), (1, 1)),
        ((1, 2, 9, 20), (2, 3), (1, 1), (1, 1), (1, 1), (3, 2)),
    ]
    for shape, size, step, low, high, dilation in plain:
        attrs = {"size": size, "step": step, "low": low, "high": high, "dilation": dilation}
        yield wild(dtype, *shape), attrs


@cases_for("max_pool")
def max_pool_cases(name: str) -> Iterator[Case]:
    for dtype in DTYPES:
        if dtype.kind in "iuf":
            for x, attrs in _pools(dtype):
                yield Case(name, (x,), attrs)


@cases_for("avg_pool")
def avg_pool_cases(name: str) -> Iterator[Case]:
    for dtype in FLOATS:
        for x, attrs in _pools(dtype):
            size = attrs["size"]
            if set(attrs.pop("dilation")) != {1}:
                continue
            x = values(dtype, *x.shape)
            none = (0,) * len(size)
            for before, after, divisor in (
                (attrs["low"], attrs["high"], None), (none, none, None), (none, none, 5),
            ):  # fmt: skip
                counted = {**attrs, "before": before, "after": after, "divisor": divisor}
                yield Case(name, (x,), counted, product_tolerance(dtype, math.prod(size)))


# -- convolution -----------------------------------------------------------------------------------

# Input [N, C, …], weights, stride, padding before and after, dilation, groups.
CONVOLUTIONS: list[tuple[Ints, Ints, Ints, Ints, Ints, Ints, int]] = [
    ((2, 3, 20), (5, 3, 3), (1,), (1,), (1,), (1,), 1),
    ((1, 2, 40), (3, 2, 4), (3,), (2,), (0,), (2,), 1),
    ((1, 1, 1), (1, 1, 1), (1,), (0,), (0,), (1,), 1),
    ((2, 3, 9, 35), (7, 3, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    ((1, 5, 14, 13), (17, 5, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    ((1, 3, 23, 40), (4, 3, 7, 7), (2, 2), (3, 3), (2, 2), (1, 1), 1),
    ((1, 4, 12, 12), (4, 4, 2, 3), (1, 2), (0, 2), (1, 0), (3, 2), 1),
    ((2, 6, 7, 8), (9, 6, 1, 1), (1, 1), (0, 0), (0, 0), (1, 1), 1),
    ((2, 6, 7, 40), (9, 6, 1, 1), (2, 2), (0, 0), (0, 0), (1, 1), 1),
    ((2, 6, 9, 9), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 2),
    ((2, 5, 6, 33), (5, 1, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 5),
    ((1, 3, 9, 20), (6, 1, 3, 2), (2, 2), (1, 0), (1, 1), (1, 2), 3),
    ((1, 2, 9, 9), (2, 1, 7, 7), (1, 1), (3, 3), (3, 3), (1, 1), 2),
    ((1, 2, 4, 5, 18), (3, 2, 2, 3, 3), (1, 1, 1), (1, 1, 1), (0, 1, 1), (1, 1, 1), 1),
    ((0, 3, 5, 5), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    ((2, 3, 5, 5), (0, 3, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    ((2, 0, 5, 5), (4, 0, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
]


@cases_for("conv")
def conv_cases(name: str) -> Iterator[Case]:
    for dtype in (*FLOATS, np.dtype("int16")):
        for shape, weight, stride, low, high, dilation, groups in CONVOLUTIONS:
            if dtype.kind == "i" and len(shape) != 3:
                continue
            attrs = {
                "stride": stride, "low": low, "high": high, "dilation": dilation, "groups": groups,
            }  # fmt: skip
            operands = (values(dtype, *shape), values(dtype, *weight, seed=1))
            bias = values(dtype, weight[0], seed=2)
            tolerance = product_tolerance(dtype, math.prod(weight[1:]) + 1)
            yield Case(name, operands, attrs, tolerance)
            yield Case(name, (*operands, bias), attrs, tolerance)
    plain = {"stride": (1,), "low": (1,), "high": (1,), "dilation": (1,), "groups": 1}
    for dtype in FLOATS:
        weight = values(dtype, 4, 3, 3)
        x = values(dtype, 2, 20, 3).swapaxes(1, 2)
        yield Case(name, (x, weight), plain, product_tolerance(dtype, 10), "channels last")
        x = values(dtype, 2, 6, 40)[:, ::-2, ::2]
        yield Case(name, (x, weight[::-1]), plain, product_tolerance(dtype, 10), "strided")
        x = np.broadcast_to(values(dtype, 20), (2, 3, 20))
        yield Case(name, (x, weight), plain, product_tolerance(dtype, 10), "broadcast")


# Input, weights [C, O/groups, …], stride, padding before and after, extra, dilation, groups.
TRANSPOSED: list[tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints, int]] = [
    ((2, 3, 9), (3, 4, 3), (1,), (1,), (1,), (0,), (1,), 1),
    ((2, 3, 9), (3, 4, 4), (2,), (1,), (1,), (1,), (1,), 1),
    ((1, 2, 5), (2, 1, 2), (3,), (0,), (1,), (2,), (2,), 1),
    ((1, 1, 1), (1, 1, 2), (2,), (0,), (5,), (0,), (5,), 1),
    ((1, 4, 5, 18), (4, 3, 3, 3), (2, 2), (1, 1), (1, 1), (1, 1), (1, 1), 2),
    ((1, 3, 6, 7), (3, 1, 3, 2), (2, 1), (1, 0), (0, 0), (0, 0), (1, 3), 3),
    ((1, 2, 3, 4, 5), (2, 2, 2, 2, 2), (2, 2, 2), (0, 1, 0), (0, 0, 1), (0, 0, 0), (1, 1, 1), 1),
    ((0, 2, 3, 4), (2, 2, 2, 2), (2, 2), (0, 0), (0, 0), (0, 0), (1, 1), 1),
]


@cases_for("conv_transpose")
def conv_transpose_cases(name: str) -> Iterator[Case]:
    for dtype in FLOATS:
        for shape, weight, stride, low, high, extra, dilation, groups in TRANSPOSED:
            attrs = {
                "stride": stride, "low": low, "high": high, "extra": extra, "dilation": dilation,
                "groups": groups,
            }  # fmt: skip
            operands = (values(dtype, *shape), values(dtype, *weight, seed=1))
            bias = values(dtype, weight[1] * groups, seed=2)
            tolerance = product_tolerance(dtype, weight[0] * math.prod(weight[2:]) + 1)
            yield Case(name, operands, attrs, tolerance)
            yield Case(name, (*operands, bias), attrs, tolerance)


@cases_for("convolve")
def convolve_cases(name: str) -> Iterator[Case]:
    for dtype in DTYPES:
        for mode in ("full", "same", "valid"):
            for n, m in ((9, 3), (3, 9), (1, 1), (33, 8), (90, 40)):
                arrays = (values(dtype, n), values(dtype, m, seed=1))
                tolerance = product_tolerance(dtype, min(n, m))
                yield Case(name, arrays, {"mode": mode}, tolerance)
