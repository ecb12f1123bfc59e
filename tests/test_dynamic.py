"""Functions whose arguments' sizes vary."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracejit as tj
from tracejit.errors import ValueArgumentError
from tracejit.frontend.ranged import HOT_CALLS, HOT_LOOKS
from tracejit.runtime import analysis, entry, workers

native = pytest.mark.skipif(not entry.supported(), reason="other object layouts")

F32 = np.float32
# 0, 1, primes, around the vector widths, and where plans change.
SIZES = (7, 12, 0, 1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 33, 63, 64, 65, 97, 127, 128, 129, 257, 401)


# -- functions -------------------------------------------------------------------------------------


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def layer_norm(x: Any) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)


def mlp(x: Any, w: Any, b: Any) -> Any:
    hidden = np.maximum(x @ w + b, 0)
    return hidden @ w.T


def mean_by_hand(x: Any) -> Any:
    return x.sum(axis=0) / x.shape[0] if x.shape[0] else x.sum(axis=0)


def flat(x: Any) -> Any:
    return x.reshape(max(x.shape[0], 1), -1) * 2 if x.shape[0] else x


def zeros(x: Any) -> Any:
    return x + np.zeros(x.shape, F32)


def first_half(x: Any) -> Any:
    return x[: x.shape[0] // 2] * 2


def every_other_backwards(x: Any) -> Any:
    n = x.shape[0]
    return x[n : n // 3 : -2] + 1


def branch(x: Any) -> Any:
    return x * 2 if x.shape[0] > 10 else x - 1


def loop(x: Any) -> Any:
    total = x[:1].sum(axis=0)
    for i in range(min(x.shape[0], 9)):
        total = total + i * x[i]
    return total


def by_a_table(x: Any) -> Any:
    return x * {7: 3.0, 64: 5.0}.get(x.shape[0], 1.0)


def counted(x: Any) -> Any:
    return x + tj.arange(x.shape[0], dtype=F32)[:, None]


def times_size(x: Any) -> Any:
    return x * x.shape[0] - len(x.shape)


def several(x: Any) -> Any:
    return {"sum": x.sum(axis=0), "both": (x.T.copy(), [x.shape[1], x > 0])}


def with_size(x: Any) -> Any:
    return x * 2, x.shape[0], [x.shape]


def column_sums(x: Any) -> Any:
    return np.cumsum(x, axis=0).max(axis=0) if x.shape[0] else x.sum(axis=0)


FUNCTIONS = (
    softmax, layer_norm, mean_by_hand, flat, zeros, first_half, every_other_backwards, branch, loop,
    by_a_table, times_size, counted, several, with_size, column_sums,
)  # fmt: skip


def arguments(n: int, width: int = 12) -> Any:
    return np.random.default_rng(n).normal(size=(n, width)).astype(F32)


def check(found: Any, wanted: Any) -> None:
    if isinstance(wanted, dict):
        assert isinstance(found, dict)
        check(list(found.values()), list(wanted.values()))  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(wanted, (list, tuple)):
        assert type(found) is type(wanted)  # pyright: ignore[reportUnknownArgumentType]
        for a, b in zip(found, wanted, strict=True):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            check(a, b)
    else:
        assert np.shape(found) == np.shape(wanted)
        assert np.asarray(found).dtype == np.asarray(wanted).dtype
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("dynamic", [None, True, False])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_any_sizes_give_numpys_answers(function: Any, dynamic: bool | None) -> None:
    jitted = tj.jit(function, compile="now", dynamic=dynamic)
    for n in (*SIZES, *reversed(SIZES)):
        x = arguments(n)
        for _ in range(2):
            check(jitted(x), np.asarray(function(x)) if function is counted else function(x))


@native
@pytest.mark.parametrize("level", ["generic", "sse4.2", "avx2", "avx512"])
def test_sizes_vary_on_every_level(level: str) -> None:
    """The native entry serves the level of the process alone, so each has a process."""
    if level not in tj_levels():
        pytest.skip(f"this machine has no {level}")
    code = (
        "import test_dynamic as t, tracejit as tj\n"
        "for f in (t.softmax, t.layer_norm, t.first_half, t.mean_by_hand, t.several):\n"
        "    g = tj.jit(f, compile='now')\n"
        "    for n in t.SIZES:\n"
        "        for _ in range(2): t.check(g(t.arguments(n)), f(t.arguments(n)))\n"
        "    assert g.stats()['dynamic'] > 0, f\n"
        "    assert g.stats()['compiles'] < len(t.SIZES) - 5, (f, g.stats())\n"
    )
    here = os.path.dirname(__file__)
    environment = os.environ | {"TRACEJIT_ISA": level, "PYTHONPATH": here}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def tj_levels() -> list[str]:
    from conftest import NATIVE

    return [str(level) for level in NATIVE]


@native
@pytest.mark.parametrize("function", [softmax, layer_norm, mlp], ids=lambda f: f.__name__)
def test_fifty_batch_sizes_recompile_at_most_once(
    function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(workers.counts, "in_process", 0)
    rng = np.random.default_rng(0)
    more = (rng.normal(size=(64, 32)).astype(F32), np.ones(32, F32)) if function is mlp else ()
    jitted = tj.jit(function, compile="now")
    batches = [24, 32, 0, 1, 2, 3, 5, 7, *range(11, 100, 3), *range(101, 220, 10)]
    assert len(batches) == 50
    for n in batches:
        x = arguments(n, 64)
        for _ in range(2):
            check(jitted(x, *more), function(x, *more))
    stats = jitted.stats()
    assert stats["recompiles"] <= 1
    assert stats["retraces"] <= 8
    assert stats["dynamic"] >= 1


@native
@pytest.mark.counts_native
def test_a_new_size_does_not_reach_python() -> None:
    jitted = tj.jit(softmax, compile="now")
    for n in (20, 20, 30, 30):
        jitted(arguments(n))
    before = jitted._calls
    for n in range(21, 29):
        x = arguments(n)
        check(jitted(x), softmax(x))
    assert jitted._calls == before
    assert jitted.stats()["calls"] == before + 8 + jitted._entry.calls - 8  # pyright: ignore[reportOptionalMemberAccess]


@native
def test_dynamic_true_is_symbolic_from_the_start_and_false_never() -> None:
    always, never = (tj.jit(softmax, compile="now", dynamic=d) for d in (True, False))
    for f in (always, never):
        for n in (20, 21, 22, 23):
            check(f(arguments(n)), softmax(arguments(n)))
    assert always.stats()["compiles"] == 1
    assert always.stats()["dynamic"] == 1
    assert never.stats()["compiles"] == 4
    assert never.stats()["dynamic"] == 0


@native
def test_two_dimensions_vary() -> None:
    jitted = tj.jit(softmax, compile="now")
    for n, m in (
        (20, 30),
        (21, 31),
        (25, 40),
        (40, 25),
        (33, 33),
        (30, 20),
        (0, 5),
        (5, 1),
        (1, 1),
    ):
        x = arguments(n, m)
        check(jitted(x), softmax(x))
    assert jitted.stats()["dynamic"] >= 1


@native
def test_arguments_that_must_agree_are_guarded() -> None:
    def add(a: Any, b: Any) -> Any:
        return a + b

    jitted = tj.jit(add, compile="now")
    for n in (20, 21, 22):
        jitted(np.ones(n), np.ones(n))
    check(jitted(np.ones(1), np.ones(30)), np.full(30, 2.0))
    check(jitted(np.ones(30), np.ones(1)), np.full(30, 2.0))
    with pytest.raises(tj.errors.ShapeError):
        jitted(np.ones(24), np.ones(23))


@native
def test_arguments_written_in_place_at_any_size() -> None:
    def step(x: Any, v: Any) -> Any:
        x += v * 2
        return x.sum()

    jitted = tj.jit(step, compile="now")
    for n in (20, 21, 22, 25, 31, 400, 22):
        x, v = np.ones(n), np.arange(float(n))
        wanted = x + v * 2
        np.testing.assert_allclose(jitted(x, v), wanted.sum())
        np.testing.assert_array_equal(x, wanted)
    overlapping = np.ones(41)
    left, right = overlapping[:23], overlapping[18:]
    wanted = left + right * 2
    jitted(left, right)
    assert overlapping[0] == wanted[0]


@native
def test_layouts_that_are_not_contiguous_stay_right() -> None:
    jitted = tj.jit(softmax, compile="now")
    for n in (20, 21, 22):
        jitted(arguments(n))
    for view in (arguments(23)[::2], arguments(12, 24).T, arguments(24)[:, 1:], arguments(9)[::-1]):
        for _ in range(2):
            check(jitted(view), softmax(view))


@native
def test_threads_call_with_different_sizes() -> None:
    jitted = tj.jit(softmax, compile="now")
    for n in (20, 21):
        jitted(arguments(n, 200))
    wrong: list[int] = []

    def work(seed: int) -> None:
        for n in range(16 + seed, 600, 37):
            x = arguments(n, 200)
            if not np.allclose(jitted(x), softmax(x), rtol=1e-4):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@native
def test_why_sizes_are_traced_one_by_one_is_told() -> None:
    events: list[Any] = []
    jitted = tj.jit(zeros, compile="now")
    stop = tj.profiler.subscribe(events.append)
    try:
        for n in (20, 21, 22):
            jitted(arguments(n))
    finally:
        stop()
    assert jitted.stats()["dynamic"] == 0
    assert any("plain number at" in e.message and "test_dynamic.py" in e.message for e in events)


@native
def test_a_size_outside_the_guards_is_counted() -> None:
    jitted = tj.jit(branch, compile="now")
    for n in (20, 21, 3):
        check(jitted(arguments(n)), branch(arguments(n)))
    assert jitted.stats()["guard_failures"] == {"new shape": 1, "guard on a size": 1}


@native
@given(st.lists(st.tuples(st.integers(0, 140), st.integers(0, 70)), min_size=3, max_size=12))
@settings(deadline=None, max_examples=25)
def test_random_sizes_in_any_order(shapes: list[tuple[int, int]]) -> None:
    def function(x: Any) -> Any:
        n, m = x.shape
        y = x[: n // 2 + 1, m // 3 :]
        return (y - y.mean()) * n if n > m and m else y.sum(axis=1)

    jitted = tj.jit(function, compile="now")
    with np.errstate(all="ignore"):
        for n, m in shapes:
            x = arguments(n, m)
            check(jitted(x), function(x))


def test_dynamic_is_one_of_three() -> None:
    with pytest.raises(ValueArgumentError, match="dynamic"):
        tj.jit(softmax, dynamic="yes")  # type: ignore[call-overload]


# -- one size varies -------------------------------------------------------------------------------


def attention(q: Any, k: Any, v: Any) -> Any:
    return softmax(q @ np.swapaxes(k, -1, -2) / 4) @ v


def convolution(x: Any, w: Any) -> Any:
    return tj.conv2d(x, w, padding=1)


def nearest(points: Any, centres: Any) -> Any:
    return ((points[:, None, :] - centres[None]) ** 2).sum(-1).argmin(axis=1)


def running(x: Any) -> Any:
    return np.cumsum(x, axis=1) + np.cumsum(x, axis=0)


def normalise_columns(x: Any) -> Any:
    return (x - x.mean(axis=0)) / (x.std(axis=0) + F32(1))


def sweep(u: Any) -> Any:
    u = u.copy()
    u[1:-1, 1:-1] = 0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:])
    return u


def forces(p: Any) -> Any:
    d = p[None] - p[:, None]
    return (d * ((d * d).sum(-1) + F32(0.01))[..., None]).sum(1)


def block(x: Any, wq: Any, wk: Any, wv: Any, w1: Any, w2: Any) -> Any:
    h = x - x.mean(-1, keepdims=True)
    h = h / np.sqrt((h * h).mean(-1, keepdims=True) + F32(1e-5))
    scores = (h @ wq) @ np.swapaxes(h @ wk, -1, -2) / 4
    e = np.exp(scores - scores.max(-1, keepdims=True))
    x = x + (e / e.sum(-1, keepdims=True)) @ (h @ wv)
    return x + np.maximum(x @ w1, 0) @ w2


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(F32)


# The arguments that vary with n, and those that do not.
VARYING: dict[Callable[..., Any], tuple[Callable[[int], tuple[Any, ...]], tuple[Any, ...]]] = {
    softmax: (lambda n: (normal(n, 64),), ()),
    layer_norm: (lambda n: (normal(n, 64),), ()),
    mlp: (lambda n: (normal(n, 64),), (normal(64, 32), normal(32))),
    attention: (lambda n: (normal(n, 16),) * 3, ()),
    convolution: (lambda n: (normal(n, 3, 8, 8),), (normal(4, 3, 3, 3),)),
    nearest: (lambda n: (normal(n, 3),), (normal(7, 3),)),
    running: (lambda n: (normal(n, 40),), ()),
    normalise_columns: (lambda n: (normal(n, 40),), ()),
    sweep: (lambda n: (normal(n + 2, 40),), ()),
    forces: (lambda n: (normal(n, 3),), ()),
    block: (lambda n: (normal(n, 8, 32),), tuple(normal(32, 32) / 6 for _ in range(5))),
}
ORDERS = {
    "rising": [*range(1, 51)],
    "mixed": [14, 300, 7, 40, 1, 2, 3, 128, 129, 31, 16, 5, 64, 100, 63, 33, 12, 4, 200, 97],
}


@native
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("function", VARYING, ids=lambda f: f.__name__)
def test_sizes_that_vary_recompile_at_most_once(
    function: Any,
    order: str,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setitem(workers.counts, "in_process", 0)
    make, rest = VARYING[function]
    jitted = tj.jit(function, compile="now")
    for n in ORDERS[order]:
        given = make(n)
        found: Any = jitted(*given, *rest)
        np.testing.assert_allclose(found, function(*given, *rest), rtol=2e-3, atol=2e-3)
    stats = jitted.stats()
    record_property("sizes", len(ORDERS[order]))
    record_property("recompiles", stats["recompiles"])
    assert stats["recompiles"] <= 1, stats
    assert stats["retraces"] <= 12, stats


@native
def test_a_size_that_is_called_often_gets_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(analysis, "wanted", lambda: True)
    jitted = tj.jit(softmax, compile="now")
    for n in (7, 9, 11):
        jitted(normal(n, 16))
    assert jitted.stats()["dynamic"] >= 1
    hot, rare = normal(33, 16), normal(10, 16)
    for _ in range(50 * HOT_LOOKS):  # the analyst's own thread may look in between
        for number in range(2 * HOT_CALLS):
            check(jitted(hot), softmax(hot))
            if number == HOT_CALLS:
                check(jitted(rare), softmax(rare))
        analysis.analyse()
        if any(p.arguments == "float32[33, 16]" for p in jitted.profile().signatures):
            break
    for _ in range(HOT_CALLS + 2):
        check(jitted(hot), softmax(hot))
    found = {p.arguments: p.native_calls for p in jitted.profile().signatures}
    assert found["float32[33, 16]"] > HOT_CALLS
    assert "float32[10, 16]" not in found
    assert found["float32[*, 16]"] > HOT_CALLS


@native
def test_small_sizes_and_others_have_kernels_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first size decides what sizes above it run only where it is not small."""
    monkeypatch.setitem(workers.counts, "in_process", 0)
    monkeypatch.setattr(analysis, "wanted", lambda: False)
    w = normal(64, 48)

    def product(x: Any) -> Any:
        return x @ w

    lowest = {
        (3, 4, 2, 80, 9, 50, 8): ["2..8", "9.."],
        (3, 80, 4, 50): ["9..", "2..8"],
        (80, 4, 50, 2): ["2.."],
        (1, 3, 80, 9): ["2.."],
    }
    for sizes, ranges in lowest.items():
        f = tj.jit(product, compile="now")
        for n in sizes:
            x = normal(n, 64)
            np.testing.assert_allclose(f(x), product(x), rtol=1e-4, atol=1e-4)
        assert f.stats()["recompiles"] <= 1, sizes
        found = re.findall(r"float32\[([0-9]+\.\.(?:8(?!\d))?)", str(f._variation))
        assert found == ranges, (sizes, str(f._variation))
