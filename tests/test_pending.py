"""Loops that record and record: what has become long is computed without being asked for."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.graph.graph import reachable
from tracejit.runtime import demand
from tracejit.tensor import _pending

X = np.linspace(-1, 1, 12).reshape(3, 4)


def turn(w: Any, x: Any) -> Any:
    return w - 0.1 * (x.T @ np.tanh(x @ w)) + 0.01


def test_a_loop_that_reads_nothing_stays_short_and_is_one_program() -> None:
    demand.clear()
    _pending.count, _pending.at = 0, None
    x, w, wanted = tj.asarray(X), tj.asarray(np.ones(4)), np.ones(4)
    longest = 0
    for _ in range(2000):
        w, wanted = turn(w, x), turn(wanted, X)
        longest = max(longest, len(reachable((w.node,))))
    assert longest < 3000
    assert len(demand._programs) <= 2
    np.testing.assert_allclose(w.numpy(), wanted, rtol=1e-6)


def test_writes_and_views_go_on_from_there() -> None:
    a, b = tj.asarray(X.copy()), X.copy()
    row, other = a[1], b[1]
    for i in range(3000):
        a += 0.5
        row *= 0.999
        b += 0.5
        other *= 0.999
        a[i % 3] -= 0.1
        b[i % 3] -= 0.1
    np.testing.assert_allclose(a.numpy(), b, rtol=1e-9)
    np.testing.assert_allclose(row.numpy(), other, rtol=1e-9)


def test_nothing_is_computed_within_a_trace() -> None:
    def many(x: Any) -> Any:
        known = tj.ones(3)
        for _ in range(3000):
            known = known * 1.0001
            x = x + 1
        return x + known

    traced = tj.trace(many, np.zeros(3))
    assert len(traced.source.nodes) > 3000


def test_what_does_not_fit_is_left_for_later() -> None:
    huge = tj.ones(1 << 44)
    for _ in range(2500):
        huge = huge * 2.0
    assert huge.node.op.name == "multiply"


def _programs() -> list[Any]:
    return [p for p in demand._programs.values() if not isinstance(p, (int, float))]


def test_a_float_that_varies_is_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "COMPILE_NS", 0.0)
    demand.clear()
    x = tj.asarray(X)
    for i in range(6):
        factor = -0.0 if i == 3 else 1 / (i + 1)
        got = (x * factor + 0.7).numpy()
        wanted = X * factor + 0.7
        np.testing.assert_allclose(got, wanted, rtol=1e-15)
    # The first as it is, the others by one in which the factor is an input and 0.7 is not.
    assert [len(p.graph.inputs) for p in _programs()] == [1, 2]
    assert _programs()[1].calls == 5


def test_constants_that_decide_how_to_compute_stay_constants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demand, "COMPILE_NS", 0.0)
    demand.clear()
    x = tj.asarray(X)
    for exponent in (3.0, 5.0, 7.0):
        np.testing.assert_allclose(((x**exponent) + 1).numpy(), X**exponent + 1, rtol=1e-12)
    assert [len(p.graph.inputs) for p in _programs()] == [1, 1, 1]
