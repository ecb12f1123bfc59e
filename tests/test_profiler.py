"""The profiler, the cost model and the events: that they agree with what was called."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import config
from tracejit.errors import ValueArgumentError
from tracejit.graph.graph import Graph
from tracejit.graph.node import make, placeholder
from tracejit.runtime import analysis, demand, engine, entry, inside, stretches
from tracejit.runtime.costs import CostModel
from tracejit.runtime.profiler import Event, FunctionProfile, Report, SignatureProfile

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
    assert first.native_calls == first.calls == 7
    assert 0 < first.seconds < 1
    (only,) = profile_of("profiled_interpreted").signatures
    assert (only.tier, only.interpreted_calls, only.native_calls) == (0, 5, 0)
    assert 0 < only.seconds < 1


def test_calls_that_python_drives_are_counted_and_timed() -> None:
    def profiled_numpy_step(x: Any) -> Any:
        return np.sort(np.sqrt(x) * 2, axis=1) + 1

    def profiled_tensor(x: Any) -> Any:
        return x * 2 + 1

    with_steps, of_tensors = (
        tj.jit(f, compile="now") for f in (profiled_numpy_step, profiled_tensor)
    )
    tensor = tj.tensor(X)
    for _ in range(6):
        with_steps(X)
        of_tensors(tensor)
    for name in ("profiled_numpy_step", "profiled_tensor"):
        found = profile_of(name)
        (only,) = found.signatures
        assert (found.calls, only.native_calls, only.interpreted_calls) == (6, 6, 0)
        assert only.seconds > only.interpreted_seconds == 0
        assert only.rate > 0


def test_reports_as_text_json_and_candidates() -> None:
    def profiled_candidate(x: Any) -> Any:
        return np.cos(x) * 3 + x

    f = tj.jit(profiled_candidate, compile="never")
    f(np.ones((400, 400)))
    report = tj.profiler.report()
    lines = str(report).splitlines()
    (row,) = [line for line in lines if line.startswith("profiled_candidate(")]
    assert row.startswith("profiled_candidate(float64[400, 400])")
    assert row.endswith("interpreted: compile mode")
    # Numbers stand flush right under their heads.
    end = lines[0].index(" by NumPy") + len(" by NumPy")
    assert row[end - 2 : end] == " 1"
    assert any(
        line.startswith("would gain: profiled_candidate(float64[400, 400])") for line in lines
    )
    assert json.loads(report.as_json())["functions"]
    candidates = [c for c in report.candidates() if c.function == "profiled_candidate"]
    (candidate,) = candidates
    assert candidate.signature.expected_saving == candidate.saved > 0
    saved = [c.saved for c in report.candidates()]
    assert saved == sorted(saved, reverse=True)
    assert tj.profiler.report().as_dict()["seconds"] == pytest.approx(report.seconds, rel=0.5)


def test_a_report_in_a_pipe_has_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    f = tj.jit(lambda profiled_long: profiled_long * 2, compile="never")
    f(X)
    report = tj.profiler.report()
    report.table()
    assert capsys.readouterr().out.splitlines() == str(report).splitlines()


def test_tensors_outside_jit_are_in_the_report() -> None:
    demand.clear()
    wanted, rounds = "cosh multiply sum: float64[70, 70]", 0
    while rounds < 20:
        rounds += 1
        for n in range(100):
            x: Any = tj.tensor(np.full((70, 70), float(n)))
            (np.cosh(x) * 2.25).sum(dim=0).numpy()
        found = profile_of(demand.NAME)
        named = [s for s in found.signatures if s.arguments == wanted]
        if named:
            break
    assert named
    rare = [s for s in found.signatures if s.reason == "not worth compiling yet"]
    assert sum(s.calls for s in [*named, *rare]) == 100 * rounds
    assert found.calls == sum(s.calls for s in found.signatures)
    assert all(s.seconds > 0 for s in found.signatures)


def test_what_has_become_slower_is_named(tmp_path: Path) -> None:
    def signature(seconds: float, calls: int, least: float | None) -> SignatureProfile:
        return SignatureProfile(
            "float64[8]", 1, "compiled", calls, 0, seconds, 0.0, least_seconds=least
        )

    def report(**signatures: SignatureProfile) -> Report:
        return Report(
            [
                FunctionProfile(name, s.calls, s.seconds, s.seconds, 0.0, 0.0, {}, {}, [s])
                for name, s in signatures.items()
            ]
        )

    before = report(
        same=signature(1.0, 100, 1e-3),
        worse=signature(1.0, 100, 1e-3),
        worst=signature(1.0, 100, None),
        seldom=signature(1.0, 10, 1e-3),
        gone=signature(1.0, 100, 1e-3),
    )
    now = report(
        same=signature(9.0, 100, 1.1e-3),  # the mean is a neighbour's fault
        worse=signature(1.0, 100, 1.5e-3),
        worst=signature(3.0, 100, None),
        seldom=signature(9.0, 100, 9e-3),
        new=signature(9.0, 100, 9e-3),
    )
    path = tmp_path / "before.json"
    path.write_text(before.as_json())
    for earlier in (before, before.as_dict(), path, str(path)):
        found = now.regressions(earlier)
        assert [r.function for r in found] == ["worst", "worse"]
    assert str(found[1]) == "worse(float64[8]): 1.5 ms a call, 1.0 ms before (1.50 times)"
    assert [r.function for r in now.regressions(before, slower=2.5)] == ["worst"]
    path.write_text('{"functions": [1]}')
    with pytest.raises(ValueArgumentError, match="no report of the profiler"):
        now.regressions(path)
    path.write_text("{")
    with pytest.raises(ValueArgumentError, match="not JSON"):
        now.regressions(path)


def test_a_kernel_that_becomes_slower_is_a_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    def profiled_regression(x: Any) -> Any:
        return np.sort(x, axis=1) + 1  # Python drives it: what NumPy does can be slowed down

    f = tj.jit(profiled_regression, compile="now")
    apply = stretches.apply

    def report_of_30() -> Report:
        f.clear()
        for _ in range(30):
            f(X)
        return Report([profile_of("profiled_regression")])

    before = report_of_30()
    assert not report_of_30().regressions(before, slower=50)

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.01)
        return apply(*args, **kwargs)

    monkeypatch.setattr(stretches, "apply", slow)
    (found,) = report_of_30().regressions(before)
    assert found.function == "profiled_regression"
    assert found.now > 0.005


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


def test_exclusive_time_knows_its_own_thread() -> None:
    inner = tj.jit(lambda x: np.sin(x) * 0.78, compile="now")
    elsewhere = tj.jit(lambda x: np.cos(x) * 0.79, compile="now")
    memory = np.zeros(100_000)

    def outer(a: Any, b: Any) -> Any:
        a += 1
        time.sleep(0.02)  # the other thread calls on
        return inner(b)

    f = tj.jit(outer, compile="now")
    inner(memory)
    elsewhere(memory)  # compiled here, so that the thread does nothing but call it
    f(memory[:10].copy(), memory)
    done = threading.Event()

    def call_on() -> None:
        while not done.is_set():
            elsewhere(memory)

    thread = threading.Thread(target=call_on)
    thread.start()
    try:
        before = inner.profile().seconds
        for _ in range(3):
            f(memory[:10], memory)
    finally:
        done.set()
        thread.join()
    found, spent = f.profile(), inner.profile().seconds - before
    assert found.python_calls == 3
    assert elsewhere.profile().seconds > spent
    assert 0 < found.seconds - found.exclusive_seconds <= spent * 1.05
    assert inside.spent() is None


def test_exclusive_time_of_runs_within_runs() -> None:
    memory = np.zeros(1000)
    leaf = tj.jit(lambda x: np.sort(x) * 0.81, compile="now")

    def middle(a: Any, b: Any) -> Any:
        a += 1
        time.sleep(0.01)
        return leaf(b)

    within = tj.jit(middle, compile="now")

    def outer(a: Any, b: Any) -> Any:
        a += 1
        time.sleep(0.01)
        return within(b[:10], b) + leaf(b)

    f = tj.jit(outer, compile="now")
    f(memory[:10], memory)
    whole, part = f.profile(), within.profile()
    assert (whole.python_calls, part.python_calls) == (1, 1)
    for found in (whole, part):
        assert 0.01 <= found.exclusive_seconds < found.seconds
    # What the outer one does not count for itself is the middle one's, and the leaf's.
    inclusive = part.seconds + leaf.profile().seconds
    assert part.seconds <= whole.seconds - whole.exclusive_seconds <= inclusive
    sums = sum(p.exclusive_seconds for p in (whole, part, leaf.profile()))
    assert sums == pytest.approx(whole.seconds, rel=0.2)


@pytest.mark.counts_native
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
        names = [c.function for c in tj.profiler.report().candidates()]
        assert "profiled_rate" in names


@pytest.mark.counts_native
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


def test_what_compiling_takes_follows_from_what_is_compiled() -> None:
    x = placeholder(0, np.float64, (1000, 1000))

    def seconds(*ops: str) -> float:
        node = x
        for op in ops:
            node = make(op, [node], {"axis": (1,), "keepdims": True} if op == "max" else {})
        return CostModel().compile_s(Graph([x], [node]))

    assert seconds("negative") < seconds("exp") < seconds("max")
    assert seconds("negative", "negative") < seconds("negative", "exp")
    product = Graph([x], [make("matmul", [x, x])])
    assert CostModel().compile_s(product) > 2 * seconds("max") - CostModel().start_s
    model = CostModel()
    (call,) = engine.compile_graph(product, [None]).calls[:1]
    loops = model.compile_s(Graph([x], [make("exp", [x])]))
    for _ in range(20):
        model.observe_kernels([call.kernel], 0.2)
    assert model.compile_s(product) == pytest.approx(0.2, rel=0.2)
    assert model.compile_s(Graph([x], [make("exp", [x])])) < loops  # a product says nothing of it


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
    assert done.stderr == (
        "tracejit.recompiles: <lambda> is traced again: new shape: "
        "x is float64[4], was float64[3]\n"
    )


def test_an_unknown_topic_is_refused() -> None:
    with pytest.raises(ValueArgumentError, match="TRACEJIT_LOGS"):
        config.from_environment({"TRACEJIT_LOGS": "recompiles,weather"})
