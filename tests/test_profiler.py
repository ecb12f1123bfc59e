"""The profiler, the cost model and the events: that they agree with what was called."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import config
from tracejit.errors import ValueArgumentError
from tracejit.graph.graph import Graph
from tracejit.graph.node import make, placeholder
from tracejit.runtime import analysis, engine, entry
from tracejit.runtime.costs import CostModel
from tracejit.runtime.events import Event

X = np.linspace(0, 1, 12).reshape(3, 4)


def profile_of(name: str) -> Any:
    (found,) = [f for f in tj.profiler.report().functions if f.name == name]
    return found


def test_a_report_counts_calls_by_signature_and_tier() -> None:
    def profiled_compiled(x: Any) -> Any:
        return np.sqrt(x) * 2 + x

    def profiled_interpreted(x: Any) -> Any:
        return np.sqrt(x) * 2 - x

    fast, slow = (
        tj.jit(profiled_compiled, compile="now"),
        tj.jit(profiled_interpreted, compile="never"),
    )
    for _ in range(7):
        fast(X)
    fast(X[:2])
    for _ in range(5):
        slow(X)
    found = profile_of("profiled_compiled")
    first, second = found.signatures
    assert (found.calls, first.tier, first.arguments) == (8, 1, "float64[3, 4]")
    assert second.arguments == "float64[*, 4]" if entry.supported() else "float64[2, 4]"
    assert found.sizes == {"argument 0, axis 0": [2, 3], "argument 0, axis 1": [4]}
    assert found.guard_failures == {"new shape": 1}
    if entry.supported():
        assert first.native_calls == 6
        assert 0 < first.seconds < 1
    (only,) = profile_of("profiled_interpreted").signatures
    assert (only.tier, only.interpreted_calls, only.native_calls) == (0, 5, 0)
    assert 0 < only.seconds < 1


def test_reports_as_text_json_and_candidates() -> None:
    def profiled_candidate(x: Any) -> Any:
        return np.cos(x) * 3 + x

    f = tj.jit(profiled_candidate, compile="never")
    f(np.ones((400, 400)))
    report = tj.profiler.report()
    assert "profiled_candidate" in str(report)
    assert json.loads(report.as_json())["functions"]
    names = [name for name, _ in report.candidates()]
    assert "profiled_candidate" in names
    (candidate,) = [s for name, s in report.candidates() if name == "profiled_candidate"]
    assert candidate.expected_saving > 0


def test_exclusive_time_is_without_the_functions_that_are_called_inside() -> None:
    inner = tj.jit(lambda x: np.sin(x) * 0.77, compile="now")
    large = np.linspace(0, 1, 300_000)

    def outer(a: Any, b: Any) -> Any:
        a += 1
        for _ in range(5):
            b = inner(b)
        return b

    f = tj.jit(outer, compile="now")
    memory = np.zeros(300_000)
    f(memory[:10].copy(), large)  # traced: the inner function is part of its kernels
    assert f.profile().exclusive_seconds == f.profile().seconds
    before = inner.profile().seconds
    f(memory[:10], memory)  # they overlap, so the Python function itself runs
    found, inside = f.profile(), inner.profile().seconds - before
    assert found.guard_failures == {"overlapping arguments": 1}
    assert inside > 0
    assert 0 < found.exclusive_seconds < found.seconds
    assert found.seconds - found.exclusive_seconds <= inside * 1.01


def test_rates_and_candidates_follow_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    def profiled_rate(x: Any) -> Any:
        return x - x.mean(axis=1, keepdims=True)

    f = tj.jit(profiled_rate, compile="now")
    rows = np.ones((500, 30), np.float32)
    f(rows)
    analysis.analyse()
    for _ in range(100):
        f(rows)
    time.sleep(0.01)
    analysis.analyse()
    found = profile_of("profiled_rate")
    assert found.rate > 0
    if entry.supported():
        # Short rows, entered often: the cost model expects something of constant sizes.
        monkeypatch.setattr(CostModel, "special_saving_ns", lambda self, calls: 1e6)
        names = [name for name, _ in tj.profiler.report().candidates()]
        assert "profiled_rate" in names


def test_kernel_times_reach_the_cost_model(monkeypatch: pytest.MonkeyPatch) -> None:
    if not entry.supported():
        pytest.skip("calls are timed natively")
    heard: list[float] = []
    monkeypatch.setattr(CostModel, "observe_run", lambda self, graph, ns: heard.append(ns))
    f = tj.jit(lambda x: np.tanh(x) * 1.91, compile="now")
    for _ in range(40):
        f(np.ones(1000))
    f(np.ones(1000))
    program = next(iter(f._compiled.values())).program
    with analysis._analyst.lock:
        analysis._look(program)
    assert heard
    assert 100 < heard[-1] < 1e9


def test_a_function_that_died_is_in_no_report() -> None:
    def profiled_dead(x: Any) -> Any:
        return x * 2

    f = tj.jit(profiled_dead, compile="never")
    f(X)
    assert profile_of("profiled_dead").calls == 1
    f.clear()
    assert "profiled_dead" not in [r.name for r in tj.profiler.report().functions]


def test_the_cost_model_follows_what_is_measured() -> None:
    x = placeholder(0, np.float64, (1000, 1000))
    graph = Graph([x], [make("exp", [x])])
    model = CostModel()
    before = model.interpreter_ns(graph)
    for _ in range(30):
        model.observe_op(graph.outputs[0], 50_000_000)
    assert model.interpreter_ns(graph) == pytest.approx(50_000_000, rel=0.05)
    assert before != model.interpreter_ns(graph)
    (kernel,) = engine.plan_graph(graph, [None]).kernels
    model.observe_kernels([kernel], 0.04)
    assert model.compile_s(graph) < CostModel().compile_s(graph)
    for _ in range(30):
        model.observe_run(graph, 2_000_000)
    assert model.kernel_ns(graph) == pytest.approx(2_000_000, rel=0.05)


@pytest.mark.parametrize(("op", "waits"), [("erf", True), ("gelu", True), ("exp", False)])
def test_a_fresh_process_waits_for_special_functions_only(op: str, waits: bool) -> None:
    x = placeholder(0, np.float64, (4_000_000,))
    graph = Graph([x], [make(op, [x])])
    model = CostModel()
    assert (model.compile_s(graph) < 0.5e-9 * model.interpreter_ns(graph)) is waits
    small = placeholder(0, np.float64, (10,))
    assert model.interpreter_ns(Graph([small], [make(op, [small])])) < 1e5


def test_views_cost_a_call_and_no_elements() -> None:
    small, large = placeholder(0, np.float64, (2, 2)), placeholder(0, np.float64, (2000, 2000))
    model = CostModel()
    ends = [Graph([x], [make("permute", [x], {"axes": (1, 0)})]) for x in (small, large)]
    assert model.interpreter_ns(ends[0]) == model.interpreter_ns(ends[1])


def test_events_reach_callbacks_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Event] = []
    stop = tj.profiler.subscribe(seen.append)
    broken = tj.profiler.subscribe(lambda event: 1 / 0)
    try:
        with caplog.at_level(logging.INFO, "tracejit"):
            f = tj.jit(lambda x: np.arctan(x) * 0.77 + x, compile="now")
            f(X)
            f(X.astype(np.float32))
    finally:
        stop()
        broken()
    topics = [event.topic for event in seen]
    assert topics.count("tiers") == 2
    assert topics.count("recompiles") == 1
    (again,) = [event for event in seen if event.topic == "recompiles"]
    assert again.details["reason"] == "new dtype"
    assert "float32[3, 4]" in again.message
    assert any("runs compiled" in record.message for record in caplog.records)
    count = len(seen)
    f(X[:1])
    assert len(seen) == count


def test_logs_are_printed_where_asked_for() -> None:
    program = (
        "import numpy as np, tracejit as tj\n"
        "f = tj.jit(lambda x: x * 2 + 1, compile='now')\n"
        "f(np.ones(3)); f(np.ones(4))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TRACEJIT_LOGS": "recompiles"},
    )
    assert done.returncode == 0
    assert done.stderr == ("tracejit.recompiles: <lambda> is traced again: new shape, float64[4]\n")


def test_an_unknown_topic_is_refused() -> None:
    with pytest.raises(ValueArgumentError, match="TRACEJIT_LOGS"):
        config.from_environment({"TRACEJIT_LOGS": "recompiles,weather"})
