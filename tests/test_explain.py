"""``explain``: that it says what happens, and that asking changes nothing."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import config
from tracejit.errors import ArgumentError, TraceError
from tracejit.runtime import background, engine
from tracejit.runtime import service as services
from tracejit.runtime.costs import CostModel
from tracejit.runtime.tiers import Program

X = np.linspace(0.5, 2, 48).reshape(6, 8)


def double(x: Any) -> Any:
    return x * 2 + np.sqrt(x)


def test_a_signature_that_was_not_called_is_explained_and_not_kept():
    f = tj.jit(double)
    before = services.compiles()
    found = tj.explain(f, X)
    assert (found.tier, found.state) == (0, "not called yet")
    assert "first signature" in found.traced
    assert [(s.kind, s.fused) for s in found.steps] == [("loop", 3)]
    assert found.steps[0].bytes == 2 * X.nbytes
    assert services.compiles() == before
    assert f.stats()["compiles"] == 0
    assert f.form(X) is None
    f(X)
    assert "new dtype" in tj.explain(f, X.astype(np.float32)).traced
    assert "new shape" in tj.explain(f, X[:2]).traced
    assert f.stats()["guard_failures"] == {}


def test_a_compiled_signature_says_which_kernels_and_why_it_was_traced():
    f = tj.jit(double, compile="now")
    f(X)
    f(X[:3])
    first, second = tj.explain(f, X), tj.explain(f, X[:3])
    assert (first.tier, first.state, second.tier) == (1, "compiled", 1)
    assert first.traced == "the function's first signature"
    assert second.traced in ("new shape", "with symbols for the sizes that vary")
    assert second.retraces == {"new shape": 1}
    assert sum(first.kernels.values()) == 1
    assert second.kernels.get("compiled for it", 0) == 0
    assert first.arguments == "float64[6, 8]"
    assert first.seconds > 0
    assert any(line.startswith(__file__) for line in first.steps[0].lines)


def test_what_the_interpreter_answers_has_a_reason():
    never = tj.jit(double, compile="never")
    never(X)
    assert 'compile="never"' in tj.explain(never, X).why
    now = tj.jit(double, compile="now")
    now(X)
    with tj.set_stance("never"):
        found = tj.explain(now, X)
        assert (found.tier, found.why) == (0, 'set_stance("never") is in force')
    assert tj.explain(now, X).tier == 1
    with config.override(disable_jit=True):
        now(X)
        assert "TRACEJIT_DISABLE_JIT" in tj.explain(now, X).why
    constant = tj.jit(lambda x: x)
    constant(X)
    assert "no computed array" in tj.explain(constant, X).why


def test_why_a_signature_is_new_is_told_by_the_nearest_one():
    def scaled(x: Any, factor: int = 2, mode: str = "plain") -> Any:
        return x * factor if mode == "plain" else x - factor

    f = tj.jit(scaled, compile="never", dynamic=False)
    single = X.astype(np.float32)
    f(X)
    f(single)
    new = {
        "new shape: x is float64[3, 8], was float64[6, 8]": ((X[:3],), {}),
        "new dtype: x is int64[6, 8], was float32[6, 8]": ((X.astype(np.int64),), {}),
        "new memory layout: x is float64[6, 8] strided, was float64[6, 8]": (
            (np.asfortranarray(X),), {},
        ),
        "new rank: x is float32[8], was float32[6, 8]": ((single[0],), {}),
        "new argument structure": ((X, 3), {}),
    }  # fmt: skip
    for traced, (args, kwargs) in new.items():
        assert tj.explain(f, *args, **kwargs).traced == f"not yet; it would be for a {traced}"
    f(X, 3)
    f(X, factor=3, mode="other")
    assert tj.explain(f, X, 4).traced.endswith("new static value: factor is 4, was 3")
    assert tj.explain(f, X, True).traced.endswith("new static value: factor is True, was 3")
    found = tj.explain(f, X, factor=4, mode="p" * 99)
    assert found.traced.endswith(f"factor is 4, was 3; mode is '{'p' * 39}…, was 'other'")
    seen: list[Any] = []
    stop = tj.profiler.subscribe(seen.append)
    f(X[:3], 3)
    stop()
    (event,) = seen
    assert event.details["detail"] == "x is float64[3, 8], was float64[6, 8]"
    assert event.message == f"scaled is traced again: new shape: {event.details['detail']}"
    assert event.details["arguments"] == "float64[3, 8]"


def test_what_calls_take_is_told_once_it_was_measured():
    f = tj.jit(lambda x: double(x) - 0.5)
    with tj.set_stance("never"):
        for _ in range(3):
            f(X)
    f.compile_for(X)
    assert re.fullmatch(r"a call takes [\d.]+ [mµn]s by NumPy", tj.explain(f, X).measured)
    for _ in range(9):
        f(X)
    found = tj.explain(f, X)
    each = r"a call takes [\d.]+ [mµn]s by "
    assert re.fullmatch(f"{each}kernels, {each}NumPy", found.measured)
    assert f"  measured: {found.measured}" in str(found).splitlines()


def test_a_reason_comes_with_a_sentence_and_places_are_short():
    f = tj.jit(lambda x: np.sort(double(x)), compile="now")
    f(X)
    f(X.astype(np.float32))
    found = tj.explain(f, X.astype(np.float32))
    assert found.traced == "new dtype: x is float32[6, 8], was float64[6, 8]"
    (line,) = [line for line in str(found).splitlines() if " loop: " in line]
    assert re.search(r", from test_explain\.py:\d+\)$", line)
    (line,) = [line for line in str(found).splitlines() if "stored: " in line]
    assert re.search(r" at test_explain\.py:\d+ \(192 B\): NumPy reads it$", line)


def test_a_failure_is_quoted(monkeypatch: pytest.MonkeyPatch):
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no code for explain")

    f = tj.jit(lambda x: x * 3 - np.sqrt(x), compile="now")
    with monkeypatch.context() as patch:
        patch.setattr(engine, "cached_schedule", broken)
        with pytest.warns(RuntimeWarning, match="no code for explain"):
            f(X)
    found = tj.explain(f, X)
    assert (found.tier, found.state) == (0, "failed")
    assert "no code for explain" in found.why
    assert [s.kind for s in found.steps] == ["loop"]  # what would run


def test_a_cost_model_that_says_not_yet_is_quoted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Program, "request", lambda self: None)  # nobody asks for kernels
    monkeypatch.setattr(CostModel, "interpreter_ns", lambda self, graph: 1e3)
    f = tj.jit(lambda x: x * 5 - np.sqrt(x) / 3, compile="auto")
    f(X)
    found = tj.explain(f, X)
    assert (found.tier, found.state) == (0, "interpreted")
    assert "mode auto" in found.why
    assert "one run in NumPy 0.001 ms" in found.why


def test_kernels_that_are_on_their_way_are_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(background, "submit", lambda job: None)
    f = tj.jit(lambda x: x * 7 - np.sqrt(x) / 3, compile="background")
    f(X)
    found = tj.explain(f, X)
    assert (found.tier, found.state) == (0, "waiting for the compiler")
    assert "in the background" in found.why


def test_numpy_steps_and_stored_values_have_reasons():
    def f(x: Any) -> Any:
        ordered = np.sort(np.exp(x), axis=1)
        mean = ordered.mean(axis=0)
        return ordered - mean, mean

    found = tj.explain(tj.jit(f), X)
    (opaque,) = [s for s in found.steps if s.kind == "NumPy"]
    assert (opaque.ops, opaque.reason) == ("sort", "no kernel has sort")
    reasons = {v.op: v.reason for v in found.stored}
    assert reasons["exp"] == "NumPy reads it"
    assert reasons["sort"] == "NumPy computes it"
    assert "it is a result" in reasons.values()
    assert found.arena_bytes >= X.nbytes
    assert found.unfused_bytes >= found.arena_bytes


@pytest.mark.parametrize(
    ("function", "dtype", "reason"),
    [
        (lambda x: np.sort(x), np.float32, "no kernel has sort"),
    ],
)
def test_opaque_ops_say_which_dtype_or_op_has_no_kernel(function: Any, dtype: Any, reason: str):
    found = tj.explain(tj.jit(function), np.ones((4, 4), dtype))
    assert reason in [s.reason for s in found.steps]


def test_a_value_that_several_kernels_read_is_stored():
    def f(x: Any) -> Any:
        y = x @ x
        return y.sum(axis=0), y @ x

    found = tj.explain(tj.jit(f), np.ones((8, 8)))
    (value,) = found.stored
    assert value.op == "matmul"
    assert value.bytes == 512
    assert value.reason == "a matrix product reads it, whose operands are in memory"


def test_arguments_that_overlap_go_to_the_python_function():
    def add(x: Any, y: Any) -> None:
        x += y

    f = tj.jit(add, compile="now")
    x = np.ones(10)
    f(x[:5], x[5:])
    assert tj.explain(f, x[:5], x[5:]).tier == 1
    found = tj.explain(f, x[:5], x[2:7])
    assert found.tier == 0
    assert "shares another one's memory" in found.why
    f(x[:5], x[2:7])
    found = tj.explain(f, x[:5], x[2:7])
    assert (found.retraces, found.guard_failures) == ({}, {"overlapping arguments": 1})
    assert "  guards that failed so far: overlapping arguments ×1" in str(found).splitlines()


def test_methods_static_floats_specs_and_wrong_uses():
    class Model:
        def __init__(self) -> None:
            self.weights = np.ones(8)

        @tj.jit
        def run(self, x: Any) -> Any:
            return x * self.weights

    assert "float64[8]" in tj.explain(Model().run, X).arguments

    def branch(x: Any, rate: float) -> Any:
        return x * 2 if rate > 0 else x * 3

    assert len(tj.explain(tj.jit(branch), X, 0.5).steps) == 1
    assert tj.explain(tj.jit(double), tj.spec((3, 4), np.float32)).steps[0].bytes == 2 * 48
    with pytest.raises(ArgumentError, match="not a jitted function"):
        tj.explain(double, X)

    def bad(x: Any) -> Any:
        return x if x[0, 0] > 0 else -x

    with pytest.raises(TraceError):
        tj.explain(tj.jit(bad), X)


def test_it_prints_and_is_plain_data():
    f = tj.jit(double, compile="now")
    f(X)
    found = tj.explain(f, X)
    text = str(found)
    assert text.startswith("double(float64[6, 8])\n")
    assert "tier 1, compiled" in text
    assert "sqrt" in text
    assert "memory between steps" in text
    assert json.loads(json.dumps(found.as_dict()))["tier"] == 1


def test_it_has_the_ranges_of_sizes_that_plans_are_for():
    def branch(x: Any, w: Any) -> Any:
        return x * w if x.shape[0] > 40 else x + w

    f = tj.jit(branch, compile="now")
    w = np.ones(3)
    for n in (15, 16, 17, 50, 60, 17):
        f(np.ones((n, 3)), w)
    plans = tj.explain(f, np.ones((17, 3)), w).sizes
    assert re.fullmatch(
        r"2 plans for ranges of sizes: "
        r"float64\[2\.\.40, 3\], float64\[3\]; float64\[41\.\.\d*, 3\], float64\[3\]",
        plans,
    )
