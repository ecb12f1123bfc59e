"""Convolutions with few outputs for each input (depthwise, grouped): they read the image itself."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import config
from tracejit.codegen.contraction import gather_of
from tracejit.schedule.merged import Border, Walk, Walks

RNG = np.random.default_rng(12)


def interpreted(program: Any, *arrays: Any) -> Any:
    with config.override(disable_jit=True):
        return program(*map(tj.asarray, arrays)).numpy()


def check(program: Any, *arrays: Any) -> None:
    wanted = interpreted(program, *arrays)
    compiled: Any = tj.jit(program, compile="now")
    got = compiled(*arrays)
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    tolerance = 2e-5 if got.dtype == np.float32 else 1e-11
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def layer(rank: int, **settings: Any) -> Any:
    """Return a convolution with bias and ReLU."""
    function = getattr(tj.nn, f"conv{rank}d")
    return lambda x, w, bias: tj.nn.relu(function(x, w, bias, **settings))


# Groups, outputs and inputs of each, kernel, stride, dilation, padding.
LAYERS = [
    (6, 1, 1, 3, 1, 1, 1), (5, 2, 1, 3, 2, 1, 1), (3, 4, 2, 3, 1, 1, 0), (2, 7, 3, 2, 2, 1, 1),
    (4, 1, 1, 5, 1, 2, 4), (3, 1, 1, 3, 3, 1, 2), (3, 1, 1, 3, 2, 3, 3), (1, 3, 2, 4, 4, 1, 0),
    (2, 1, 1, 2, 3, 2, 1), (4, 8, 1, 1, 2, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_layers_with_few_outputs(level: str, rank: int, case: tuple[int, ...]) -> None:
    groups, outputs, inputs, k, stride, dilation, padding = case
    x = RNG.standard_normal((2, groups * inputs, *(9, 11, 18)[-rank:]))
    w = RNG.standard_normal((groups * outputs, inputs, *(k,) * rank))
    bias = RNG.standard_normal(groups * outputs)
    program = layer(rank, stride=stride, padding=padding, dilation=dilation, groups=groups)
    schedule = tj.trace(program, x, w, bias).schedule
    assert len(schedule.steps) == 1
    assert schedule.arena.nbytes == 0
    for dtype in (np.float32, np.float64):
        check(program, *(a.astype(dtype) for a in (x, w, bias)))


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 15, 16, 17, 31, 33])
def test_depthwise_at_widths_around_the_vectors(level: str, width: int) -> None:
    for dtype, (step, pad) in itertools.product((np.float32, np.float64), [(1, 1), (2, 1), (3, 2)]):
        x, w = RNG.standard_normal((1, 3, 5, width)), RNG.standard_normal((3, 1, 3, 3))
        if width + 2 * pad < 3:
            continue
        program = layer(2, stride=step, padding=pad, groups=3)
        arrays = [a.astype(dtype) for a in (x, w, RNG.standard_normal(3))]
        check(program, *arrays)
        spread = np.empty((2, 6, 10, 3 * width), dtype)[:1, ::2, ::-2, ::-3]
        spread[...] = arrays[0]
        check(program, spread, *arrays[1:])


def test_depthwise_without_images_and_with_one_row_or_column(level: str) -> None:
    w, bias = RNG.standard_normal((4, 1, 3, 3)), RNG.standard_normal(4)
    for shape in [(0, 4, 6, 7), (3, 4, 1, 20), (3, 4, 20, 1), (3, 4, 1, 1)]:
        check(layer(2, padding=1, groups=4), RNG.standard_normal(shape), w, bias)
    for kernel, padding in [((1, 3), (0, 1)), ((3, 1), (1, 0)), ((1, 1), (2, 1))]:
        w = RNG.standard_normal((4, 1, *kernel))
        check(layer(2, padding=padding, groups=4), RNG.standard_normal((2, 4, 6, 7)), w, bias)


def test_a_number_that_is_none_reaches_its_windows_only(level: str) -> None:
    x, w = np.ones((1, 2, 9, 40), np.float32), np.ones((2, 1, 3, 3), np.float32)
    x[0, 0, 4, 20], x[0, 1, 0, 39] = np.nan, np.inf
    got = tj.jit(lambda x, w: tj.nn.conv2d(x, w, padding=1, groups=2), compile="now")(x, w)
    assert np.isnan(got[0, 0, 3:6, 19:22]).all()
    assert np.isnan(got).sum() == 9
    assert np.isposinf(got[0, 1, :2, 38:]).all()
    assert np.isinf(got).sum() == 4


def test_depthwise_has_the_same_bits_on_any_number_of_threads() -> None:
    x = RNG.standard_normal((4, 64, 40, 40), dtype=np.float32)
    w = RNG.standard_normal((64, 1, 5, 5), dtype=np.float32)
    program = tj.jit(lambda x, w: tj.nn.conv2d(x, w, padding=2, groups=64), compile="now")
    results: set[bytes] = set()
    for threads in (1, 2, 3):
        with tj.num_threads(threads):
            results.add(program(x, w).tobytes())
    assert len(results) == 1


def image_walks(padding: int, width: int = 9, taps: tuple[int, int] = (3, 3)) -> Walks:
    """Return the walks of windows at stride 1 over an image 6 rows high."""
    places = [n + 2 * padding - k + 1 for n, k in zip((6, width), taps, strict=True)]
    borders = [Border(6, -padding, (1, 0), (1, 0)), Border(width, -padding, (0, 1), (0, 1))]
    return Walks(
        (Walk(taps[0], width), Walk(taps[1], 1)),
        (Walk(places[0], width), Walk(places[1], 1)),
        tuple(borders) if padding else (),
        -padding * (width + 1),
    )


def test_planes_of_an_image() -> None:
    found = gather_of(image_walks(1), 1).planes
    assert found is not None
    assert (found.places, found.extents, found.planes, found.step) == ((6, 9), (8, 11), 1, 1)
    assert found.offsets() == tuple(11 * i + j for i in range(3) for j in range(3))
    assert found.rows[0] == found.rows[7] == (0, 0, 0)
    assert found.rows[1:7] == tuple((-1 + 9 * i, 1, 10) for i in range(6))
    assert gather_of(image_walks(1), 9).planes is None  # many rows: packing pays


def test_planes_of_walks_without_borders_pair_alike_strides() -> None:
    found = gather_of(image_walks(0), 1).planes
    assert found is not None
    assert (found.places, found.extents, found.planes) == ((4, 7), (6, 9), 1)
    # One row of taps has no walk down the image.
    walks = image_walks(0, taps=(1, 3))
    single = gather_of(walks._replace(depths=walks.depths[1:]), 1).planes
    assert single is not None
    assert (single.places, single.extents, single.offsets()) == ((6, 7), (6, 9), (0, 1, 2))


def test_walks_across_two_borders_are_no_planes() -> None:
    """A border along a diagonal belongs to no axis: such an operand is packed."""
    walks = image_walks(1)
    diagonal = Border(9, -1, (1, 1), (1, 1))
    assert gather_of(walks._replace(borders=(diagonal,)), 1).planes is None
