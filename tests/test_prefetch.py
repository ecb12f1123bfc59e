"""Fetching ahead: which passes fetch what, and that it changes no value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.codegen.prefetch import Ahead, rows_ahead, strips_ahead

Array = np.ndarray[Any, Any]


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layer_norm(x: Any) -> Any:
    d = x - x.mean(axis=-1, keepdims=True)
    return d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + 1e-5)


def ahead(function: Callable[..., Any], *arguments: Array) -> list[Ahead]:
    (kernel,) = tj.trace(function, *arguments).schedule.kernels
    return rows_ahead(kernel)


def test_the_second_pass_fetches_the_next_row_and_the_one_before_a_store_its_lines() -> None:
    x = np.ones((20, 100), np.float32)
    (kernel,) = tj.trace(softmax, x).schedule.kernels
    (store,) = (s.access for s in kernel.stores)
    (load,) = (i for i, a in enumerate(kernel.accesses) if kernel.loaded[0] == a)
    assert rows_ahead(kernel) == [
        Ahead(),
        Ahead(frozenset({load}), frozenset({store})),
        Ahead(),
    ]
    # A layer norm loads the row in its last pass as well: that is too late.
    assert [bool(a.next_row) for a in ahead(layer_norm, x)] == [False, True, False]


def test_one_pass_leaves_it_to_the_hardware() -> None:
    x = np.ones((20, 100), np.float32)
    functions: list[Callable[[Any], Any]] = [
        lambda x: x + 1,
        lambda x: x.sum(axis=1),
        lambda x: x[:, 1:] - x[:, :-1],
    ]
    for function in functions:
        assert not any(a.next_row or a.this_row for a in ahead(function, x))
    # Rows that all are the same row have no next one.
    y = np.broadcast_to(x[:1], (20, 100))
    assert not any(a.next_row for a in ahead(softmax, y))


@pytest.mark.parametrize("program", [softmax, layer_norm])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_values_are_the_same(any_level: str, program: Callable[[Any], Any], dtype: str) -> None:
    rng = np.random.default_rng(0)
    f = tj.jit(program, compile="now")
    tolerance = 1e-5 if dtype == "f4" else 1e-12
    for shape in [(1, 1), (3, 7), (2, 3, 33), (5, 129), (2, 70_000)]:
        x = rng.standard_normal(shape).astype(dtype)
        for view in (x, x[::-1], x[:, ::-1], np.asfortranarray(x)):
            want: Array = program(view)
            np.testing.assert_allclose(f(view), want, rtol=tolerance, atol=tolerance)


def test_the_second_pass_over_a_strip_fetches_the_next_strip() -> None:
    x = np.ones((20, 100), np.float32)

    def passes(function: Callable[..., Any], *arguments: Array) -> list[tuple[int, int]]:
        (kernel,) = tj.trace(function, *arguments).schedule.kernels
        assert kernel.down_columns
        return [(len(a.fetched), len(a.next_strip)) for a in strips_ahead(kernel)]

    assert passes(lambda x: x.sum(axis=0), x) == [(0, 0)]
    assert passes(lambda x: x.var(axis=0), x) == [(1, 0), (0, 1)]
    # The third pass finds what the first loaded, and what the second fetched.
    assert passes(lambda x: (x - x.mean(axis=0)) / x.std(axis=0), x) == [(1, 0), (0, 1), (0, 0)]
    # What the second pass loads first nobody has fetched.
    assert passes(lambda x, y: ((y - x.mean(axis=0)) ** 2).sum(axis=0), x, x + 1) == [(0, 0)] * 2


@pytest.mark.parametrize("rows", [1, 63, 64, 65])
def test_strips_fetched_or_not_have_the_same_values(any_level: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    f = tj.jit(lambda x: x.var(axis=0), compile="now")
    for columns in (1, 17, 63, 64, 65, 200):
        x = rng.integers(-50, 50, (rows, columns)).astype(np.float32)
        for view in (x, x[::-1]):
            np.testing.assert_allclose(f(view), view.var(axis=0), rtol=1e-5)


def test_straight_loops_with_much_to_do_fetch_what_they_load(any_level: str) -> None:
    x = np.linspace(0.5, 2, 100, dtype=np.float32)

    def fetches(function: Callable[..., Any], *arguments: Array) -> bool:
        return "prefetch" in tj.trace(function, *arguments).asm()

    assert fetches(np.exp, x)
    assert not fetches(lambda x: x * 2 + 1, x)
    assert not fetches(np.exp, x[::2])  # lanes far apart
    assert not fetches(lambda x: np.exp(x[:, None]) * x[None, :], x)
    np.testing.assert_allclose(tj.jit(np.exp, compile="now")(x), np.exp(x), rtol=1e-6)
