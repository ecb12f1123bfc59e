"""Defects that users met, one test each, named after what it reproduces."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.errors import TraceError
from tracejit.graph.graph import Graph
from tracejit.graph.node import make, placeholder
from tracejit.graph.passes import dead
from tracejit.schedule.kernel import Reduce


def agree(function: Callable[..., Any], *arguments: Any) -> None:
    """Check that ``function`` jitted gives what it gives on NumPy, dtypes included."""
    with np.errstate(all="ignore"):
        want = function(*arguments)
    got = tj.jit(function)(*arguments)
    if not isinstance(want, tuple):
        got, want = (got,), (want,)
    for g, w in zip(got, want, strict=True):
        assert np.asarray(g).dtype == np.asarray(w).dtype
        np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-12)


def test_negative_zero_after_zero_in_generated_code() -> None:
    """Both zeros in one process: the code of one must not be written for the other."""
    x = np.array([1.0, -1.0])
    agree(lambda x: (x / 0.0, x / -0.0), x)
    agree(lambda x: (x / np.float32(-0.0), x / np.float32(0.0)), x.astype(np.float32))


def test_chain_of_stores_read_beside_is_not_recursive() -> None:
    """A loop that assigns to x[i] and reads x[i - 1] makes stores a thousand deep."""
    x = placeholder(0, "float64", (2000,))
    one = make("slice", [x], {"start": (0,), "size": (1,), "step": (1,)})
    stored = x
    for i in range(1, 2000):
        stored = make("update_slice", [stored, one], {"start": (i,), "size": (1,), "step": (1,)})
    read = make("slice", [stored], {"start": (0,), "size": (1,), "step": (1,)})
    assert dead.run(Graph([x], [read])).outputs == (one,)


def test_chain_of_joins_read_at_its_front_is_not_recursive() -> None:
    x = placeholder(0, "float64", (3,))
    joined = x
    for _ in range(1500):
        joined = make("concat", [joined, x], {"axis": 0})
    read = make("slice", [joined], {"start": (1,), "size": (2,), "step": (1,)})
    (output,) = dead.run(Graph([x], [read])).outputs
    assert output.inputs == (x,)


def test_assignment_of_a_traced_element_to_a_numpy_array() -> None:
    """NumPy reports "setting an array element with a sequence"; the reason is the trace."""
    known = np.zeros((3, 3))

    def table(x: Any) -> Any:
        out = np.zeros((3, 3))
        out[1, 2] = x[0] * x[1]
        return out

    @tj.jit
    def outside(x: Any) -> Any:
        known[1, 2] = x[0] * x[1]
        return known

    x = np.arange(1.0, 4.0)
    run: Any = tj.jit(table)
    np.testing.assert_array_equal(run(x), table(x))
    with pytest.raises(TraceError, match=r"tj\.zeros"):
        outside(x)


def test_errors_are_of_numpys_classes() -> None:
    with pytest.raises(ValueError, match="needs"):
        tj.zeros((10**12, 10**12))
    with pytest.raises(MemoryError):
        tj.zeros(10**15)
    x = tj.asarray(np.zeros((3, 4)))
    with pytest.raises(IndexError, match="broadcast"):
        x[[0, 1], [0, 1, 2]]


def test_reduction_inside_one_over_an_axis_of_the_same_extent() -> None:
    """The inner sum ran over the axis of the loop around it: forces came out wrong."""

    def forces(points: Any, mass: Any) -> Any:
        apart = points[None] - points[:, None]
        square = (apart**2).sum(-1) + 1e-3
        return (apart * (mass[None, :, None] / square[..., None] ** 1.5)).sum(1)

    rng = np.random.default_rng(0)
    for count in (2, 3, 5, 37):
        for axes in (3, 5, 7):
            agree(forces, rng.normal(size=(count, axes)), rng.uniform(1, 2, count))


def test_reduction_in_two_places_of_one_kernel_compiles() -> None:
    """Inside another reduction and beside it: giving it axes of its own went on forever."""

    def both(x: Any, y: Any) -> tuple[Any, Any]:
        angle = np.arctan2(x, y.max(1, keepdims=True))
        return np.clip(angle, -4, 4).max(0), angle

    rng = np.random.default_rng(0)
    agree(both, rng.normal(size=(3, 21)), rng.normal(size=(3, 17)))


def test_weights_of_attention_are_not_summed_again_for_each_column() -> None:
    """Σ_d q·k inside Σ_k weight·v ran once for every column of v: 64 times the work."""

    def attention(q: Any, k: Any, v: Any) -> Any:
        score = (q[:, None] * k[None]).sum(-1)
        return (np.exp(score)[..., None] * v[None]).sum(1)

    rng = np.random.default_rng(0)
    arguments = [rng.normal(size=(40, 64)) / 8 for _ in range(3)]
    agree(attention, *arguments)
    kernels = tj.trace(attention, *arguments).schedule.kernels
    assert max(sum(isinstance(e, Reduce) for e in k.exprs) for k in kernels) == 1


def test_lstsq_and_svd_give_what_numpy_gives() -> None:
    """np.linalg.lstsq(a, b)[0] was the first element; np.linalg.svd was the reduced one."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 4)), rng.normal(size=6)
    agree(lambda a, b: np.linalg.lstsq(a, b)[:2], a, b)
    agree(lambda a, b: np.linalg.lstsq(a, b, rcond=None)[0], a, np.stack([b, b], 1))
    agree(lambda a, b: np.linalg.lstsq(a.T, b[:4])[:2], a, b)
    agree(lambda a: np.linalg.svd(a, compute_uv=False), a)
    agree(lambda a: np.linalg.svd(a[:4])[1], a)
    with pytest.raises(ValueError, match="full_matrices"):
        tj.jit(lambda a: np.linalg.svd(a))(a)


def test_scan_of_rows_after_a_total_compiles() -> None:
    """The total leaves no parallel axis: the scan's loop must still be a nest of its own."""

    def capped(x: Any) -> Any:
        return np.maximum.accumulate(np.minimum(np.sign(x)[::-2, ::2], x.min(0).sum()), 1)

    x = np.random.default_rng(0).normal(size=(33, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agree(capped, x)
        agree(lambda x: np.cumsum(x - x.min(0).sum(), 0), x)


counter = 0
table: Any = None


def test_assigning_a_global_or_a_closure_variable_is_refused() -> None:
    """``counter += 1`` would run once, while tracing."""

    @tj.jit
    def counts(x: Any) -> Any:
        global counter
        counter += 1
        return x + 1

    calls = 0

    @tj.jit
    def counts_in_closure(x: Any) -> Any:
        nonlocal calls
        calls += 1
        return x + 1

    with pytest.raises(TraceError, match="assigns the outer variable 'counter'"):
        counts(np.ones(3))
    with pytest.raises(TraceError, match="assigns the outer variable 'calls'"):
        counts_in_closure(np.ones(3))


def test_a_table_made_on_first_use_is_allowed() -> None:
    @tj.jit
    def looks_up(x: Any) -> Any:
        global table
        if table is None:
            table = np.arange(3.0)
        return x + table

    np.testing.assert_array_equal(looks_up(np.ones(3)), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(looks_up(np.zeros(3)), [0.0, 1.0, 2.0])


def test_zero_steps_and_parts_raise_as_numpy_does() -> None:
    with pytest.raises(ZeroDivisionError):
        tj.arange(0, 5, 0)
    with pytest.raises(ZeroDivisionError):
        tj.split(tj.arange(6), 0)
    with pytest.raises(IndexError):
        tj.tensordot(tj.ones((2, 2)), tj.ones((2, 2)), axes=5)


def test_rows_of_other_lengths_keep_two_values_apart(level: str) -> None:
    """The second value kept in the row scratch stood where the first compiled row had ended."""

    def program(x: Any) -> Any:
        t = np.tanh(x)
        e = np.exp(t - t.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    rng = np.random.default_rng(0)
    for length in (3, 40, 17, 300, 5):
        x = rng.standard_normal((20, length))
        np.testing.assert_allclose(tj.jit(program)(x), program(x), rtol=1e-12)


def test_a_row_of_products_is_kept_and_summed(any_level: str) -> None:
    """The sum takes the factors, so that they round once; what divides by it takes the product."""
    rng = np.random.default_rng(0)
    for shape in ((7,), (50,), (40, 50), (3, 2000)):
        prior, x = rng.random(shape), rng.standard_normal(shape)
        for function in (
            lambda p, x: p * np.exp(x) / (p * np.exp(x)).sum(axis=-1, keepdims=True),
            lambda p, x: p[..., :1] * np.exp(x) / (p[..., :1] * np.exp(x)).sum(),
        ):
            jitted = tj.jit(function, compile="now")
            np.testing.assert_allclose(jitted(prior, x), function(prior, x), rtol=1e-13)
            assert jitted.stats()["interpreted"] == {}
