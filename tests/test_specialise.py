"""Specialised code: the same bits, kept only where it is faster, given back when sizes are rare."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.codegen.forms import Form
from tracejit.codegen.specialise import specialise
from tracejit.errors import InternalError
from tracejit.runtime import analysis, entry
from tracejit.runtime import specialise as tier2
from tracejit.runtime.costs import CostModel
from tracejit.runtime.events import Event
from tracejit.runtime.executable import Executable
from tracejit.runtime.reasons import Reason
from tracejit.runtime.specialise import Specialisation, Stage
from tracejit.runtime.tiers import Program
from tracejit.schedule.grain import loop_entries

pytestmark = [
    pytest.mark.skipif(not entry.supported(), reason="calls are measured natively"),
    pytest.mark.counts_native,
]


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def nearest(x: Any) -> Any:
    return ((x[:, None, :] - x[None, :3, :]) ** 2).sum(axis=2).argmin(axis=1)


def layer(x: Any) -> Any:
    return np.maximum(x @ x.T + x[:, 0], 0)


def attention(x: Any) -> Any:
    return softmax(x @ x.T * 0.125) @ x


def heat(x: Any) -> Any:
    return x[1:-1, 1:-1] + 0.1 * (x[:-2, 1:-1] + x[2:, 1:-1] - 2 * x[1:-1, 1:-1])


def columns(x: Any) -> Any:
    return (x - x.mean(axis=0)) / (x.std(axis=0) + 1)


def gathered(x: Any) -> Any:
    return x[x.argmax(axis=0)] + x[:1]


def several(x: Any) -> Any:
    return x.T * 2, np.cumsum(x, axis=1), x.sum(), x.max(axis=0)


FUNCTIONS = (softmax, nearest, layer, attention, heat, columns, gathered, several)
SHAPES = ((3, 3), (8, 16), (17, 33), (5, 100), (64, 7), (200, 129))


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have every new signature specialised after a few calls, whatever the costs say."""
    analyst = analysis.Analyst()
    monkeypatch.setattr(analysis, "_analyst", analyst)
    monkeypatch.setattr(analysis, "wanted", lambda: True)
    monkeypatch.setattr(CostModel, "special_saving_ns", lambda self, calls: 1e9)
    monkeypatch.setattr(CostModel, "special_s", lambda self, calls: 0.0)
    monkeypatch.setattr(CostModel, "observe_saving", lambda self, calls, ns: None)
    yield
    analyst.stop()


def verdict(monkeypatch: pytest.MonkeyPatch, ratio: float) -> None:
    """Let trials run as they do, and come to this result."""
    measured = tier2._Trial.ratio
    monkeypatch.setattr(
        tier2._Trial, "ratio", lambda trial: None if measured(trial) is None else ratio
    )


def program_of(function: Any, number: int = -1) -> Program:
    return list(function._compiled.values())[number].program


def until_decided(function: Any, *args: Any) -> Specialisation:
    """Call until the specialisation of the newest signature has come to an end of its trial."""
    program, limit = program_of(function), time.monotonic() + 60
    while time.monotonic() < limit:
        for _ in range(20):
            function(*args)
        analysis.analyse()
        special = program.specialisation
        if special is not None and not special.active:
            return special
    raise AssertionError("the trial does not end")


def codes(executable: Executable) -> list[Any]:
    tickets = [tier2.request(call) for call in executable.calls]
    return [ticket.result() for ticket in tickets]


def bits(results: list[Any]) -> list[tuple[Any, bytes]]:
    """Which NaN comes out of two is left open: without FMA, to which of them a register keeps."""
    arrays = [np.asarray(r) for r in results]
    known = [np.where(np.isnan(a), a.dtype.type(np.nan), a) if a.dtype.kind == "f" else a
             for a in arrays]  # fmt: skip
    return [(a.dtype, a.tobytes()) for a in known]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constant_sizes_give_the_same_bits(function: Any, dtype: str, any_level: str) -> None:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        x = rng.standard_normal(shape).astype(dtype)
        x[0, 0], x[-1, -1], x[1, 1] = np.nan, np.inf, -0.0
        executable = tj.trace(function, x).executable
        if not executable.calls:
            continue
        with np.errstate(all="ignore"):
            generic = bits(executable.run([x]))
            executable.use(codes(executable))
            assert bits(executable.run([x])) == generic
            executable.use(())
            assert bits(executable.run([x])) == generic


def test_chunks_of_a_shared_kernel_have_the_same_bits() -> None:
    x = np.random.default_rng(3).standard_normal((6000, 100)).astype(np.float32)
    executable = tj.trace(softmax, x).executable
    (call,) = executable.calls
    assert call.end > call.grain, "threads share it"
    with tj.num_threads(2):
        want = executable.run([x])[0]
        executable.use(codes(executable))
        for _ in range(3):
            assert executable.run([x])[0].tobytes() == want.tobytes()


def test_what_is_faster_stays(eager: None, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict(monkeypatch, 1.5)
    x = np.random.default_rng(0).standard_normal((8, 10))
    seen: list[Event] = []
    stop = tj.profiler.subscribe(seen.append)
    try:
        f = tj.jit(softmax, compile="now")
        want = f(x)
        special = until_decided(f, x)
    finally:
        stop()
    assert (special.stage, special.gain) == (Stage.SPECIALISED, 1.5)
    assert special.executable.specialised
    assert f(x).tobytes() == want.tobytes()
    stats = f.stats()
    assert (stats["tier"], stats["specialised"], stats["interpreted"]) == (2, 1, {})
    explanation = tj.explain(f, x)
    assert explanation.tier == 2
    assert "1.50 times as fast" in explanation.why
    (found,) = [e for e in seen if e.topic == "tiers" and e.details.get("tier") == 2]
    assert found.details["gain"] == 1.5
    (signature,) = f.profile().signatures
    assert (signature.tier, signature.specialised, signature.gain) == (2, "specialised", 1.5)
    assert signature.rate


def test_what_is_no_faster_does_not(eager: None, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict(monkeypatch, 1.01)
    x = np.ones((8, 10))
    f = tj.jit(softmax, compile="now")
    want = f(x)
    special = until_decided(f, x)
    assert (special.stage, special.reason) == (Stage.REJECTED, Reason.NOT_FASTER)
    executable = special.executable
    assert not executable.specialised
    segment: Any = executable._stages[0]
    assert segment.code.tolist() == [c.address for c in executable.codes]
    assert f(x).tobytes() == want.tobytes()
    assert f.stats()["tier"] == 1
    assert "1.01 times as fast" in tj.explain(f, x).why
    again = program_of(f).specialisation
    for _ in range(50):
        f(x)
        analysis.analyse()
    assert again is special
    assert special.stage is Stage.REJECTED


def test_other_sizes_are_answered_and_counted(eager: None, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict(monkeypatch, 2.0)
    f = tj.jit(softmax, compile="now", dynamic=False)
    x = np.random.default_rng(1).standard_normal((8, 10))
    f(x)
    until_decided(f, x)
    for rows in (7, 9, 64):
        y = np.random.default_rng(rows).standard_normal((rows, 10))
        np.testing.assert_allclose(f(y), softmax(y), rtol=1e-12)
    f(x.astype(np.float32))  # another dtype is no guard failure of these sizes
    failures = f.stats()["guard_failures"]
    assert failures[Reason.SIZES] == 3
    assert failures[Reason.SHAPE] == 3
    assert failures[Reason.DTYPE] == 1


def test_rare_sizes_are_given_back_and_pay_more_the_next_time(
    eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict(monkeypatch, 2.0)
    f = tj.jit(lambda x: softmax(x) + 0.123, compile="now", dynamic=False)
    x, y = np.ones((8, 10)), np.ones((9, 10))
    f(x)
    special = until_decided(f, x)
    (code,) = [weakref.ref(c) for c in special.executable.specialised]
    f(y)
    # All calls come at the other sizes now, which are not specialised themselves here.
    monkeypatch.setattr(analysis, "wanted", lambda: False)
    for _ in range(tier2.WINDOW + 10):
        f(y)
    analysis.analyse()
    assert (special.stage, special.reason) == (Stage.GENERIC, Reason.SELDOM)
    assert (special.retired, special.backoff) == (1, tier2.BACKOFF)
    gc.collect()
    assert code() is None, "the code is freed, in the cache too"
    assert not special.executable.specialised
    assert f.stats()["tier"] == 1
    np.testing.assert_allclose(f(x), softmax(x) + 0.123)
    assert Reason.SELDOM.sentence in tj.explain(f, x).why
    # It has to pay eight times as much as before.
    monkeypatch.setattr(analysis, "expected_saving", lambda program: 1.0)
    program, calls = program_of(f, 0), special.executable.runs - special.calls_before
    monkeypatch.setattr(CostModel, "special_s", lambda self, c: calls / tier2.BACKOFF + 0.5)
    program.activity.rate = 1.0
    assert analysis.worth(program) == 0.0
    monkeypatch.setattr(CostModel, "special_s", lambda self, c: calls / tier2.BACKOFF / 2)
    assert analysis.worth(program) == 1.0


def test_two_sizes_by_turns_are_both_specialised(
    eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict(monkeypatch, 2.0)
    f = tj.jit(lambda x: softmax(x) - 0.321, compile="now", dynamic=False)
    pair = np.ones((8, 10)), np.ones((9, 10))

    def both() -> None:
        for x in pair:
            f(x)

    both()
    limit = time.monotonic() + 60
    while f.stats()["specialised"] < 2 and time.monotonic() < limit:
        both()
        analysis.analyse()
    for _ in range(tier2.WINDOW):
        both()
    analysis.analyse()
    assert [program_of(f, n).tier for n in (0, 1)] == [2, 2]


def test_a_compiler_that_fails_leaves_tier_1(eager: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> str:
        raise InternalError("no such kernel")

    monkeypatch.setattr(tier2, "specialise", broken)
    f = tj.jit(lambda x: softmax(x) * 1.357, compile="now")
    x = np.ones((8, 10))
    want = f(x)
    special = until_decided(f, x)
    assert (special.stage, special.reason) == (Stage.FAILED, Reason.NOT_SPECIALISED)
    assert f(x).tobytes() == want.tobytes()
    (signature,) = f.profile().signatures
    assert (signature.tier, signature.reason) == (1, str(Reason.NOT_SPECIALISED))


def test_a_trial_that_nobody_calls_for_makes_room(
    eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tier2, "IDLE_SECONDS", 0.05)
    f = tj.jit(lambda x: softmax(x) * 2.468, compile="now")
    x = np.ones((8, 10))
    program, limit = None, time.monotonic() + 60
    while time.monotonic() < limit:
        f(x)
        analysis.analyse()
        program = program_of(f)
        if program.specialisation is not None and program.specialisation.stage is Stage.TRIAL:
            break
    assert program is not None
    special = program.specialisation
    assert special is not None
    while special.active and time.monotonic() < limit:
        analysis.analyse()
    assert (special.stage, special.backoff) == (Stage.GENERIC, 2)
    assert not special.executable.specialised


def test_code_that_a_call_runs_is_kept_until_it_has_ended() -> None:
    f = tj.jit(lambda x: softmax(x) * 7.5, compile="now")
    x = np.ones((8, 10))
    f(x)
    executable = program_of(f).executable
    assert executable is not None
    executable.use(codes(executable))
    f(x)
    (form,) = executable.living_forms()
    form.words[Form.ENDED] -= 1  # as while a call is running
    executable.use(())
    assert not executable.release()
    form.words[Form.ENDED] += 1
    assert executable.release()


def test_only_what_enters_short_loops_is_expected_to_gain() -> None:
    def saving(function: Callable[..., Any], *args: Any) -> float:
        return CostModel().special_saving_ns(tj.trace(function, *args).executable.calls)

    rows = np.ones((512, 50), np.float32)
    assert saving(softmax, rows) > 1000
    assert saving(lambda x: x * 2 + 1, np.ones(100_000)) < 10
    assert saving(lambda a: a @ a, np.ones((300, 300))) < 2000  # of some 600,000
    assert saving(lambda a: a @ a, np.ones((100, 4, 4))) >= 400  # of some 2000
    (kernel,) = tj.trace(softmax, rows).schedule.kernels
    assert loop_entries(kernel) == 3 * 512


def test_what_is_expected_to_gain_most_in_all_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    if not entry.supported():
        pytest.skip("calls are timed natively")
    monkeypatch.setattr(CostModel, "special_s", lambda self, calls: 0.0)
    rows = np.ones((64, 100), np.float32)
    programs: list[Program] = []
    functions: list[Any] = []  # the counters go with a function
    for factor, rate in ((1.5, 100.0), (2.5, 1000.0), (3.5, 10.0)):
        f = tj.jit(lambda x, n=factor: softmax(x) * n, compile="now")
        functions.append(f)
        for _ in range(40):
            f(rows)
        (compiled,) = f._compiled.values()
        programs.append(compiled.program)
        compiled.program.activity.rate = rate
    executable = programs[0].executable
    assert executable is not None
    calls = executable.calls
    for figure in (100.0, 1e9):  # what the model says without looking at the time of a call
        monkeypatch.setattr(CostModel, "special_saving_ns", lambda self, c, n=figure: n)
        saving, spent = analysis.expected_saving(programs[0]) * 1e9, analysis.call_ns(executable)
        assert saving <= spent
        assert saving == pytest.approx(figure * spent / (figure + spent)) or not saving
    assert saving == pytest.approx(spent, rel=0.01)
    assert sorted(programs, key=analysis.worth) == [programs[2], programs[0], programs[1]]
    # Compiling it has to pay: it takes about as long as without constant sizes.
    monkeypatch.undo()
    model = CostModel()
    assert model.special_s(calls) == pytest.approx(model.special_ratio * calls[0].code.seconds)


def test_a_product_of_two_calls_enters_its_loops_once_and_its_reader_too() -> None:
    def calls(function: Callable[..., Any]) -> Any:
        a, b = np.ones((500, 150), np.float32), np.ones((150, 700), np.float32)
        return tj.trace(function, a, b).executable.calls

    model, plain = CostModel(), calls(lambda a, b: a @ b)
    assert len(plain) == 2, "one packs, one computes"
    entry, product = model.entry_ns, loop_entries(plain[0].kernel)
    assert model.special_saving_ns(plain) == entry["product"] * product
    assert model.special_s(plain) == 2 * model.special_s(plain[:1])
    read = calls(lambda a, b: (a @ b).max(axis=1))
    wanted = entry["product"] * product + entry["loop"] * loop_entries(read[0].reader)
    assert model.special_saving_ns(read) == wanted


def test_the_model_learns_from_trials() -> None:
    model = CostModel()
    calls = tj.trace(softmax, np.ones((512, 16))).executable.calls
    before = model.special_saving_ns(calls)
    for _ in range(20):
        model.observe_saving(calls, before * 3)
    assert model.special_saving_ns(calls) == pytest.approx(before * 3, rel=0.05)
    for _ in range(50):
        model.observe_saving(calls, -5.0)
    assert 0 < model.special_saving_ns(calls) <= before / 4 + 1
    seconds = model.special_s(calls)
    for _ in range(20):
        model.observe_special(calls, seconds * 2)
    assert model.special_s(calls) == pytest.approx(seconds * 2, rel=0.05)


def test_a_module_without_the_kernel_is_refused() -> None:
    with pytest.raises(InternalError, match="no kernel"):
        specialise("define i64 @f() { ret i64 1 }", "kernel", [1], None)


def test_every_reason_has_a_name_and_a_sentence() -> None:
    names = [str(reason) for reason in Reason]
    assert len(set(names)) == len(names)
    for reason in Reason:
        assert isinstance(reason, str)
        assert len(reason.sentence) > 20
        assert not reason.sentence.endswith(".")


def test_what_stays_interpreted_says_why() -> None:
    x = np.ones((3, 4))
    never = tj.jit(softmax, compile="never")
    never(x)
    assert never.stats()["interpreted"] == {str(Reason.MODE): 1}
    f = tj.jit(softmax, compile="now")
    f(x)
    assert f.stats()["interpreted"] == {}
    with tj.set_stance("never"):
        f(x)
        assert f.stats()["interpreted"] == {str(Reason.STANCE): 1}
        assert tj.explain(f, x).reason == Reason.STANCE


def test_guards_on_aliasing_alignment_and_writing_are_counted() -> None:
    def change(a: Any, b: Any) -> Any:
        a += b
        return a * 2

    f = tj.jit(change, compile="now")
    whole = np.arange(20.0)
    f(whole[:10], whole[10:])
    f(whole[:10], whole[5:15])
    assert f.stats()["guard_failures"] == {str(Reason.ALIASING): 1}
    locked = np.arange(10.0)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        f(locked, whole[:10].copy())
    assert f.stats()["guard_failures"][Reason.READ_ONLY] == 1
    raw = np.zeros(8 * 10 + 1, np.uint8)
    unaligned = raw[1:].view(np.float64)
    for _ in range(3):
        f(whole[:10].copy(), unaligned)
    assert f.stats()["guard_failures"][Reason.ALIGNMENT] == 3
    plain = tj.jit(lambda x: x + 1, compile="now")
    for _ in range(3):
        plain(unaligned)
    assert plain.stats()["guard_failures"] == {str(Reason.ALIGNMENT): 3}


END_TO_END = """
import os, time
import numpy as np
import tracejit as tj

def rows(x):
    return x.mean(axis=1) * 2

f = tj.jit(rows, compile="now")
x = np.random.default_rng(0).standard_normal((500, 70)).astype(np.float32)
want = f(x)
limit = time.monotonic() + 60
while time.monotonic() < limit:
    # Looking lets go of the interpreter's lock for a moment. If that happened every few
    # milliseconds, a thread that waits for it would begin to wait anew each time.
    look = time.monotonic() + 0.1
    while time.monotonic() < look:
        got = f(x)
    assert got.tobytes() == want.tobytes()
    stage = f.profile().signatures[0].specialised
    if stage in ("specialised", "size-generic: specialised code was no faster"):
        break
print(stage)
{fork}
"""

FORK = """
pid = os.fork()
if pid == 0:
    y = x[:77].copy()
    ok = f(x).tobytes() == want.tobytes() and np.allclose(f(y), rows(y), rtol=1e-5, atol=1e-6)
    os._exit(0 if ok else 1)
print(os.waitpid(pid, 0)[1])
"""


@pytest.mark.parametrize("fork", [False, True])
def test_a_process_specialises_what_it_calls_often(fork: bool) -> None:
    if fork and not hasattr(os, "fork"):
        pytest.skip("no fork")
    done = subprocess.run(
        [sys.executable, "-c", END_TO_END.format(fork=FORK if fork else "")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TRACEJIT_SPECIALISE": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    # Which of the two it is, is a matter of time.
    assert lines[0] in (Stage.SPECIALISED.value, Stage.REJECTED.value)
    assert not fork or lines[1] == "0"
