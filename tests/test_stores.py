"""Arrays that are filled part by part: stores become joins, and sequences one kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.graph.graph import Graph
from tracejit.graph.passes import canonicalise
from tracejit.ops.table import Array


def smooth_rows(x: Any) -> Any:
    y = np.empty_like(x)
    y[0] = x[0]
    for t in range(1, x.shape[0]):
        y[t] = 0.1 * x[t] + 0.9 * y[t - 1]
    return y


def smooth_columns(x: Any) -> Any:
    y = np.empty_like(x)
    y[:, 0] = x[:, 0]
    for t in range(1, x.shape[1]):
        y[:, t] = 0.1 * x[:, t] + 0.9 * y[:, t - 1]
    return y


def stacked(x: Any) -> Any:
    states = [x[:, 0]]
    for t in range(1, x.shape[1]):
        states.append(0.1 * x[:, t] + 0.9 * states[-1])
    return np.stack(states, axis=1)


def graph_of(function: Any, *values: Array) -> Graph:
    return canonicalise(tj.trace(function, *values).source, verify=True)


def ops_of(function: Any, *values: Array) -> list[str]:
    return [node.op.name for node in graph_of(function, *values).nodes]


def check(function: Any, *values: Array) -> None:
    wanted = function(*(v.copy() for v in values))
    run: Any = tj.jit(function, compile="now")
    got = run(*values)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("function", [smooth_rows, smooth_columns, stacked])
def test_a_recurrence_is_a_kernel_for_every_32_states(level: str, function: Any) -> None:
    rng = np.random.default_rng(0)
    for shape in [(40, 70), (70, 40), (5, 17), (17, 5)]:
        x = rng.normal(size=shape).astype(np.float32)
        check(function, x)
        states = shape[0] if function is smooth_rows else shape[1]
        assert len(tj.trace(function, x).schedule.steps) == -(-states // 32)
        assert "update_slice" not in ops_of(function, x)


def test_stores_that_overlap_and_leave_some_as_it_was() -> None:
    def overlapping(x: Any) -> Any:
        y = x * 2
        y[1:6] = x[:5] + 1
        y[4:8] = -x[4:8]
        y[2:3] = 0
        y[9:] = 5
        return y

    x = np.arange(44.0).reshape(11, 4)
    assert "update_slice" not in ops_of(overlapping, x)
    check(overlapping, x)


def test_by_elements(level: str) -> None:
    def table(x: Any) -> Any:
        m = np.zeros((5, 7))
        for i in range(5):
            for j in range(7):
                if (i + j) % 3:
                    m[i, j] = x[i] * np.cos(j * 0.1)
        m[2, 1:4] = x[:3]
        return m

    x = np.linspace(-1, 1, 5)
    assert "update_slice" not in ops_of(table, x)
    check(table, x)


def test_what_is_read_between_stores_is_what_it_was() -> None:
    def reads(x: Any) -> Any:
        y = x.copy()
        y[0] = 1
        before = y * 2
        y[1] = y[0] + y[2]
        y[2] = 7
        return y, before, y[1:3].sum()

    x = np.arange(20.0).reshape(4, 5)
    got: Any = tj.jit(reads, compile="now")(x)
    for one, other in zip(got, reads(x), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "places",
    [
        [np.s_[::2], np.s_[1::2]],
        [np.s_[1:3, 1:3], np.s_[0:2, 2:4]],
        [np.s_[0], np.s_[:, 1]],
        [np.s_[3:0:-1], np.s_[0:2]],
    ],
    ids=str,
)
def test_other_stores_stay(places: list[Any]) -> None:
    def writes(x: Any) -> Any:
        y = x + 1
        for number, place in enumerate(places):
            y[place] = number - x[place]
        return y

    check(writes, np.arange(20.0).reshape(4, 5))


def test_rows_may_vary() -> None:
    run = tj.jit(smooth_columns, compile="now")
    for rows in (50, 60, 9, 1000):
        x = np.random.default_rng(rows).normal(size=(rows, 20))
        np.testing.assert_allclose(run(x), smooth_columns(x), rtol=1e-12)
    assert run.stats()["recompiles"] <= 1


def test_a_join_of_joins_is_stored_at_once(level: str) -> None:
    """What nothing else reads goes from its parts to where it belongs."""
    u = np.random.default_rng(1).normal(size=(40, 33))

    def joined(u: Any) -> Any:
        above = np.concatenate([u, 2 * u[:, 1:]], 1)
        return np.concatenate([above, np.concatenate([u[::-1, 1:] - 1, np.abs(u)], 1)])

    def padded(u: Any) -> Any:
        return np.pad(u, 2, mode="edge"), np.pad(u, ((1, 3), (0, 2)), mode="reflect")

    for function in (joined, padded):
        traced = tj.trace(function, u)
        np.testing.assert_equal(traced(u), function(u))
        assert {b.kind for b in traced.schedule.buffers} == {"input", "output"}
