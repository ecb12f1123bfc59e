"""Matrix products of NeuralScript programs: what runs around them is in their kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_gram import halves

import tracejit.frontend.neuralscript as ns
from tracejit.schedule.schedule import ContractionStep, KernelStep

PROGRAM = """
fn hidden<const M: usize, const K: usize, const N: usize>(
    x: Matrix<f32, M, K>, w: Matrix<f32, K, N>, b: Vector<f32, N>
) -> Matrix<f32, M, N> {
    relu(x @ w + b)
}

fn classes<const M: usize, const K: usize, const N: usize>(
    x: Matrix<f32, M, K>, w: Matrix<f32, K, N>, b: Vector<f32, N>
) -> Matrix<f32, M, N> {
    let scores = x @ w + b
    let e = exp(scores - max(scores, axis: 1, keepdims: true))
    e / sum(e, axis: 1, keepdims: true)
}

fn lengths<const M: usize, const K: usize, const N: usize>(
    x: Matrix<f64, M, K>, w: Matrix<f64, K, N>
) -> Vector<f64, M> {
    let y = x @ w
    sqrt(sum(y * y, axis: 1))
}

fn nearest<const M: usize, const K: usize, const D: usize>(
    points: Matrix<f64, M, D>, centres: Matrix<f64, K, D>
) -> Vector<usize, M> {
    argmin(sum(centres * centres, axis: 1) - 2.0 * (points @ centres.T), axis: 1)
}

fn gram<const M: usize, const N: usize>(x: Matrix<f64, M, N>) -> Matrix<f64, N, N> {
    x.T @ x
}

fn counts<const M: usize, const K: usize, const N: usize>(
    a: Matrix<i8, M, K>, b: Matrix<i8, K, N>
) -> Matrix<i32, M, N> {
    (a as i32) @ (b as i32)
}

fn dequantised<const M: usize, const K: usize, const N: usize>(
    x: Matrix<f32, M, K>, q: Matrix<i8, K, N>, scale: Vector<f32, N>
) -> Matrix<f32, M, N> {
    x @ ((q as f32) * scale)
}
"""


@pytest.fixture(scope="module")
def program() -> Any:
    return ns.loads(PROGRAM)


def steps(function: Any, *values: Any) -> list[type]:
    return [type(step) for step in function.trace(*values).schedule.steps]


def test_layers_are_one_kernel_each(program: Any, level: str) -> None:
    rng = np.random.default_rng(1)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((70, 30), (30, 40), (40,)))
    for function in (program.hidden, program.classes):
        assert steps(function, x, w, b) == [ContractionStep]
    scores = x.astype(float) @ w + b
    np.testing.assert_allclose(program.hidden(x, w, b), np.maximum(scores, 0), atol=1e-4)
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    found = program.classes(x, w, b)
    np.testing.assert_allclose(found, e / e.sum(axis=1, keepdims=True), atol=1e-5)


def test_rows_of_a_product_are_reduced_in_its_kernel(program: Any, level: str) -> None:
    rng = np.random.default_rng(2)
    x, w, centres = (rng.standard_normal(s) for s in ((300, 20), (20, 50), (40, 20)))
    assert steps(program.lengths, x, w) == [ContractionStep]
    np.testing.assert_allclose(program.lengths(x, w), np.linalg.norm(x @ w, axis=1))
    assert steps(program.nearest, x, centres) == [KernelStep, ContractionStep]
    distances = ((x[:, None] - centres) ** 2).sum(axis=2)
    np.testing.assert_array_equal(program.nearest(x, centres), distances.argmin(axis=1))
    assert program.lengths.trace(x, w).schedule.arena.nbytes == 0


def test_a_gram_matrix_is_computed_by_half(program: Any, level: str) -> None:
    x = np.random.default_rng(3).standard_normal((50, 120))
    assert halves(program.gram.trace(x).executable)
    found = np.asarray(program.gram(x))
    np.testing.assert_allclose(found, x.T @ x, atol=1e-12)
    np.testing.assert_array_equal(found, found.T)


def test_narrow_products_are_exact_and_widen_in_their_kernel(program: Any, level: str) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(-128, 128, (40, 70), np.int8), rng.integers(-128, 128, (70, 33), np.int8)
    assert steps(program.counts, a, b) == [ContractionStep]
    np.testing.assert_array_equal(program.counts(a, b), a.astype(np.int32) @ b.astype(np.int32))
    scale = rng.random(33).astype(np.float32)
    for rows, kind in ((40, ContractionStep), (1, KernelStep)):
        x = rng.standard_normal((rows, 70)).astype(np.float32)
        assert steps(program.dequantised, x, b, scale) == [kind]
        want = x.astype(float) @ (b * scale.astype(float))
        np.testing.assert_allclose(program.dequantised(x, b, scale), want, rtol=1e-4, atol=1e-2)
