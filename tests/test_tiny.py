"""Batches of products whose sizes are in the code: values, layouts, edges, varying batches."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import pytest
from gemm_harness import bind, problem_of
from test_gemm import (
    TARGETS,
    before_a_forbidden_page,
    laid_out,
    product,
    random,
)

import tracejit as tj
from tracejit.codegen.contraction import classify
from tracejit.codegen.target import Target
from tracejit.runtime import cpu

targets = pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
dtypes = pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.int64], ids=lambda t: np.dtype(t).name
)

SIZES = [
    (1, 1, 1), (2, 2, 2), (3, 1, 3), (1, 3, 3), (3, 3, 3), (4, 4, 4), (6, 6, 6), (5, 7, 9),
    (2, 4, 16), (16, 4, 5),
]  # fmt: skip


def kind(target: Target, a: Any, b: Any, c: Any) -> str:
    return classify(target, c.dtype, problem_of(a, b, c)).kind


@targets
@dtypes
def test_every_size(target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    for m, n, k in SIZES:
        a, b = random(rng, (33, m, k), dtype), random(rng, (33, k, n), dtype)
        c = np.empty((33, m, n), dtype)
        assert kind(target, a, b, c) == "tiny"
        product(target, a, b, c)


@targets
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
def test_larger_ones_take_a_loop_over_the_depth_and_blocks_of_rows(
    target: Target, dtype: Any
) -> None:
    rng = np.random.default_rng(2)
    for m, n, k in [(16, 4, 16), (12, 3, 20), (30, 2, 9)]:
        a, b = random(rng, (17, m, k), dtype), random(rng, (17, k, n), dtype)
        c = np.empty((17, m, n), dtype)
        assert kind(target, a, b, c) == "tiny"
        product(target, a, b, c)


@targets
def test_every_pair_of_layouts(target: Target) -> None:
    rng = np.random.default_rng(3)
    layouts = ("rows", "columns", "strided", "backwards")
    for first, second in itertools.product(layouts, layouts):
        for m, n, k in [(3, 3, 4), (2, 5, 3)]:
            a = laid_out(random(rng, (20, m, k), np.float32), first)
            b = laid_out(random(rng, (20, k, n), np.float32), second)
            c = np.empty((20, m, n), np.float32)
            assert kind(target, a, b, c) == "tiny"
            product(target, a, b, c)
            product(target, a, b, np.empty((20, n, m), np.float32).swapaxes(1, 2))


@targets
def test_batches_of_several_axes_broadcast_and_split_anywhere(target: Target) -> None:
    rng = np.random.default_rng(4)
    for first, second in [((5, 7), (5, 7)), ((5, 1), (1, 7)), ((2, 1, 9), (3, 1)), ((40,), (1,))]:
        a = random(rng, (*first, 3, 4), np.float64)
        b = random(rng, (*second, 4, 6), np.float64)
        batch = np.broadcast_shapes(first, second)
        whole, parts = np.empty((*batch, 3, 6)), np.empty((*batch, 3, 6))
        product(target, a, b, whole)
        call = bind(target, a, b, parts)
        (stage,) = call.stages
        cuts = [0, *sorted(rng.integers(0, stage.tiles, 3).tolist()), stage.tiles]
        for begin, end in reversed(list(itertools.pairwise(cuts))):
            call.range(begin, end)
        assert whole.tobytes() == parts.tobytes()


@targets
def test_special_numbers_propagate(target: Target) -> None:
    rng = np.random.default_rng(5)
    a, b = random(rng, (20, 3, 5), np.float32), random(rng, (20, 5, 3), np.float32)
    a[3, 1, 2], b[7, 0, 1], b[9, 4, 2], a[9] = np.nan, np.inf, -np.inf, 0
    a[11], b[11] = -0.0, 1
    a[12] *= np.float32(1e-40)
    c = np.empty((20, 3, 3), np.float32)
    bind(target, a, b, c)()
    with np.errstate(invalid="ignore"):
        expected = (a[..., None] * b[:, None]).sum(2)
    np.testing.assert_array_equal(np.isnan(c), np.isnan(expected))
    np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-44)
    assert (c[12] != 0).all()


@targets
@dtypes
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect as Linux has it")
def test_nothing_beyond_the_operands_is_touched(target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(6)
    for m, n, k in [(3, 3, 3), (5, 7, 2), (2, 1, 5)]:
        a = before_a_forbidden_page(random(rng, (16, m, k), dtype))
        b = before_a_forbidden_page(random(rng, (16, k, n), dtype))
        c = before_a_forbidden_page(np.zeros((16, m, n), dtype))
        assert kind(target, a, b, c) == "tiny"
        product(target, a, b, c)


def test_single_products_large_ones_and_gaps_in_c_have_no_code_of_their_own() -> None:
    target = cpu.target()
    for batch, n, step in [((), 4, 1), ((4,), 4, 1), ((100,), 200, 1), ((100,), 4, 2)]:
        a, b = np.empty((*batch, 4, 4)), np.empty((*batch, 4, n))
        c = np.empty((*batch, 4, n * step))[..., ::step]
        assert kind(target, a, b, c) != "tiny"


def test_one_kernel_serves_every_length_of_a_batch() -> None:
    rng = np.random.default_rng(7)
    rotate = tj.jit(lambda turns, points: turns @ points, compile="now")
    for count in (40, 17, 64, 1000, 3, 0, 1, 333):
        turns, points = rng.normal(size=(count, 3, 3)), rng.normal(size=(count, 3, 1))
        np.testing.assert_allclose(rotate(turns, points), turns @ points, rtol=1e-12, atol=1e-12)
    assert rotate.stats()["recompiles"] <= 2


def test_sizes_of_the_matrices_may_vary_too() -> None:
    rng = np.random.default_rng(8)
    function = tj.jit(lambda a, b: a @ b, compile="now")
    for n in (3, 4, 6, 5, 2, 9, 20, 7, 8):
        a, b = rng.normal(size=(50, n, n)), rng.normal(size=(50, n, n))
        np.testing.assert_allclose(function(a, b), a @ b, rtol=1e-12, atol=1e-12)
    assert function.stats()["recompiles"] <= 2
