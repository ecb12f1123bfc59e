"""``jit`` and ``trace``: what goes in, what comes out, what is refused, and what a call costs."""

from __future__ import annotations

import copy
import math
import multiprocessing
import pickle
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from work import calls_of

import tracejit as tj
from tracejit import config
from tracejit.errors import ArgumentError, TraceError
from tracejit.frontend.hints import STATIC_VALUES
from tracejit.frontend.trees import flatten, paths, unflatten
from tracejit.graph.passes import canonicalise
from tracejit.graph.text import parse

A = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
B = np.arange(4, dtype=np.float32)


def same(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Check that the jitted function returns what NumPy does, twice (traced, then cached)."""
    jitted = tj.jit(function)
    expected = function(*args, **kwargs)
    for _ in range(2):
        result = jitted(*args, **kwargs)
        for got, want in zip(flatten(result)[0], flatten(expected)[0], strict=True):
            assert type(got) is type(want)
            np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)
            assert np.asarray(got).dtype == np.asarray(want).dtype
    assert flatten(result)[1] == flatten(expected)[1]
    assert jitted.stats()["compiles"] == 1
    assert jitted.stats()["fallbacks"] == 0
    return result


# -- in and out ------------------------------------------------------------------------------------


def test_numpy_code_runs_unmodified() -> None:
    def softmax(x: Any) -> Any:
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    same(softmax, A)
    same(lambda x, y: np.where(x > 0, x * y, np.tanh(x) + 1), A, B)


def test_a_full_reduction_gives_a_numpy_scalar() -> None:
    assert type(same(lambda x: x.sum(), A)) is np.float32


def test_tensors_in_tensors_out() -> None:
    f = tj.jit(lambda x, y: (x + y, 1))
    both = f(tj.asarray(A), B)
    assert isinstance(both[0], tj.Tensor)
    assert both[1] == 1
    np.testing.assert_array_equal(both[0].numpy(), A + B)
    assert isinstance(f(A, B)[0], np.ndarray)
    assert f.stats()["compiles"] == 1, "arrays and tensors share the compiled form"


Pair = namedtuple("Pair", "left right")


@dataclass
class Layer:
    weight: Any
    bias: Any
    name: str = "dense"


@dataclass(frozen=True)
class Frozen:
    value: Any


def test_containers_of_arrays() -> None:
    same(lambda d: {"sum": d["x"] + d["y"][0], "rest": [d["y"][1]]}, {"x": A, "y": [B, B * 2]})
    same(lambda p: Pair(p.right, p.left * 2), Pair(A, B))
    layer = tj.jit(lambda m, x: Layer(x @ m.weight + m.bias, m.bias * 2, m.name))(
        Layer(np.eye(4, dtype=np.float32), B), A
    )
    assert isinstance(layer, Layer)
    assert layer.name == "dense"
    np.testing.assert_allclose(layer.weight, A + B)
    np.testing.assert_array_equal(tj.jit(lambda f: Frozen(f.value + 1))(Frozen(B)).value, B + 1)
    same(lambda *xs, scale: (xs[0] * scale, xs[1] * scale), A, B, scale=B)


def test_trees_round_trip() -> None:
    value = ({"b": [1.5, (A, None)], "a": Pair(B, "text")}, Layer(A, 2, "n"))
    leaves, tree = flatten(value)
    assert len(leaves) == 4
    assert flatten(unflatten(tree, leaves))[1] == tree
    assert hash(tree) == hash(flatten(value)[1])
    assert paths(tree) == ["[0]['b'][0]", "[0]['b'][1][0]", "[0]['a'][0]", "[1].weight"]
    assert flatten((1,))[1] != flatten((True,))[1]
    cycle: list[Any] = []
    cycle.append(cycle)
    leaves, tree = flatten(cycle)
    assert not leaves
    deep: Any = 1.0
    for _ in range(200):
        deep = [deep]
    with pytest.raises(tj.TracejitError, match="deeper than"):
        flatten(deep)


def test_what_is_returned_is_the_caller_s_own() -> None:
    x = A.copy()

    def f(x: Any) -> Any:
        y = x + 1
        return x, y, y, x + 1, x.copy(), np.ones(3), "text", 7

    g = tj.jit(f)
    first, second = g(x), g(x)
    assert first[0] is x
    assert first[1] is first[2]
    assert first[3] is not first[1]
    assert first[6:] == ("text", 7)
    for array in first[1:6]:
        assert array.flags.writeable
        assert not np.may_share_memory(array, x)
        array[...] = -1
    np.testing.assert_array_equal(second[5], np.ones(3))
    np.testing.assert_array_equal(g(x)[1], A + 1)
    assert second[1] is not first[1]


def test_functions_without_arrays_or_results() -> None:
    assert tj.jit(lambda: None)() is None
    assert tj.jit(lambda: (1, "a"))() == (1, "a")
    assert tj.jit(lambda n: n * 2)(21) == 42
    half = tj.jit(lambda x: x / 2)(3.0)
    assert (half, type(half)) == (1.5, float)


PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "variance": lambda x: np.var(x, axis=1) + np.std(x),
    "einsum": lambda x: np.einsum("ij,kj->ik", x, x),
    "roll and pad": lambda x: np.pad(np.roll(x, 1, 0), 1),
    "powers": lambda x: x**3 + x**2 - x**0,
    "sort and scan": lambda x: np.cumsum(np.sort(x, 0), 1),
    "rows": lambda x: x[[0, 2]] * x[::-2],
    "triangle": lambda x: np.tril(x) @ np.clip(x, -1, 1).T,
    "stencil": lambda x: (x[1:, 1:] + x[:-1, :-1] - 2 * x[1:, :-1]) / 4,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_stay_valid_through_every_pass(name: str) -> None:
    same(PROGRAMS[name], A)
    canonicalise(tj.trace(PROGRAMS[name], A).source, verify=True)


# -- scalars ---------------------------------------------------------------------------------------


def test_python_floats_are_traced_and_weak() -> None:
    f = tj.jit(lambda x, s, t: x * (s + 2 * t) - s)
    for s, t in ((0.5, 1.0), (2.0, -3.0), (float("nan"), 0.0)):
        result = f(A, s, t)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, A * (s + 2 * t) - s, rtol=1e-6)
    assert f.stats()["compiles"] == 1
    assert tj.jit(lambda x, s: x * s)(np.arange(3), 0.5).dtype == np.float64
    assert tj.jit(lambda x, s: x * s)(A, 1j).dtype == np.complex64


def test_a_float_whose_value_is_asked_for_is_static() -> None:
    @tj.jit
    def dropout(x: Any, rate: float, scale: float = 1.0) -> Any:
        if rate > 0.5:
            return x * scale
        return x * math.cos(rate)

    for rate in (0.7, 0.25, 0.7, -0.0, 0.0):
        expected = A * 2 if rate > 0.5 else A * math.cos(rate)
        result = dropout(A, rate, 2.0)
        np.testing.assert_allclose(result, expected, rtol=1e-6)
        assert result.dtype == np.float32
    assert dropout.stats()["compiles"] == 4  # -0.0 and 0.0 differ
    np.testing.assert_allclose(dropout.trace(A, 0.7)(A, 0.7), A, rtol=1e-6)
    with pytest.raises(TraceError, match="condition"):
        tj.jit(lambda x, rate: x if x.sum() > rate else -x)(A, 0.5)
    with pytest.raises(ArgumentError, match="other arguments"):
        dropout.trace(A, 0.7)(A, 0.8)


def test_numpy_scalars_are_traced_and_strong() -> None:
    f = tj.jit(lambda x, s: x * s)
    assert f(A, np.float64(0.5)).dtype == np.float64
    assert f(A, np.float64(0.7)).dtype == np.float64
    assert f.stats()["compiles"] == 1


def test_scalars_are_rebound_not_changed() -> None:
    def f(x: Any, s: Any) -> Any:
        before = s
        s += 1
        s *= 2
        return x * before + s

    same(f, A, 0.25)
    same(f, A, np.float32(0.25))


def test_ints_bools_strings_and_functions_are_static() -> None:
    def f(x: Any, n: int, flag: bool, name: str, g: Any) -> Any:
        for _ in range(n):
            x = g(x) if flag else -x
        return x.sum(axis=n - 2) if name == "sum" else x

    same(f, A, 2, True, "sum", np.sin)
    jitted = tj.jit(f)
    jitted(A, 1, True, "", np.sin)
    jitted(A, True, 1, "", np.sin)  # 1 == True, and yet they differ
    assert jitted.stats()["guard_failures"] == {"new static value": 1}


def test_many_static_integers_get_a_hint() -> None:
    f = tj.jit(lambda x, n: x * n)
    for n in range(STATIC_VALUES):
        f(B, n)
    with pytest.warns(RuntimeWarning, match=r"values of the int argument n"):
        f(B, STATIC_VALUES)
    f(B, STATIC_VALUES + 1)  # once is enough


# -- signatures ------------------------------------------------------------------------------------


def test_a_new_signature_compiles_and_says_why() -> None:
    f = tj.jit(lambda x: x + 1)
    f(A)
    f(A.astype(np.float64))
    f(A[:2].astype(np.float64))
    f(np.asfortranarray(A[:2].astype(np.float64)))
    f(np.float32(1))
    assert f.stats()["guard_failures"] == {
        "new dtype": 1,
        "new shape": 1,
        "new memory layout": 1,
        "array in place of a scalar, or the reverse": 1,
    }
    assert f.stats()["retraces"] == 4
    f(A)
    assert f.stats()["retraces"] == 4
    f.clear()
    assert f.stats()["calls"] == f.stats()["compiles"] == 0


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[:, ::2],
        lambda a: a[::-1],
        lambda a: a.T,
        lambda a: np.broadcast_to(a[:1], (5, 4)),
        lambda a: a[:0],
        lambda a: a[0, 0, None][..., None],
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(">f4"),
        lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(np.float32).reshape(3, 4),
        lambda a: np.zeros(4, [("a", np.int8), ("b", np.float32)])["b"],
        lambda a: np.array(2.5, np.float32),
    ],
)
def test_layouts(view: Callable[[Any], Any]) -> None:
    x = view(A)
    f = tj.jit(lambda x: np.exp(x) * 2 + x)
    for _ in range(2):
        result = f(x)
        np.testing.assert_allclose(result, np.exp(x) * 2 + x, rtol=1e-6)
        assert np.asarray(result).dtype == np.float32


def test_settings_are_part_of_the_signature() -> None:
    f = tj.jit(lambda x: x * 2 + 1)
    f(A)
    with config.override(disable_jit=True):
        np.testing.assert_array_equal(f(A), A * 2 + 1)
        assert f.stats()["tier"] == 0
    assert f.stats()["guard_failures"] == {"new settings": 1}
    f(A)
    assert f.stats()["compiles"] == 2


def test_compile_never_interprets() -> None:
    f = tj.jit(lambda x: (x.T, x * 2), compile="never")
    x = A.copy()
    transposed, doubled = f(x)
    assert f.stats()["kernels"] == 0
    transposed[...] = 0
    np.testing.assert_array_equal(x, A)
    np.testing.assert_array_equal(doubled, A * 2)


# -- arguments changed in place --------------------------------------------------------------------


# -- methods and objects ---------------------------------------------------------------------------


class Model:
    def __init__(self) -> None:
        self.weight = B.copy()
        self.scale = 2.0
        self.steps = 1
        self.calls = 0

    @tj.jit
    def __call__(self, x: Any) -> Any:
        for _ in range(self.steps):
            x = x * self.weight * self.scale
        return x

    @tj.jit
    def count(self, x: Any) -> Any:
        self.calls += 1
        return x * 2

    @tj.jit
    def update(self, gradient: Any) -> None:
        self.weight -= gradient

    @tj.jit
    def remember(self, x: Any) -> Any:
        self.last = x + 1
        return x

    @staticmethod
    @tj.jit
    def double(x: Any) -> Any:
        return x * 2


def test_methods_see_attributes_as_arguments() -> None:
    model = Model()
    np.testing.assert_array_equal(model(A), A * B * 2)
    model.weight = B + 1
    model.scale = 3.0
    np.testing.assert_allclose(model(A), A * (B + 1) * 3)
    assert Model.__call__.stats()["compiles"] == 1
    model.steps = 2
    np.testing.assert_allclose(model(A), A * (B + 1) ** 2 * 9, rtol=1e-6)
    assert Model.__call__.stats()["compiles"] == 2
    np.testing.assert_array_equal(model.double(B), B * 2)
    model.update(np.ones(4, np.float32))
    np.testing.assert_array_equal(model.weight, B)
    assert "float32[3, 4]" in model.__call__.trace(A).text()


def test_attributes_assigned_while_tracing_are_refused() -> None:
    with pytest.raises(TraceError, match=r"count changes self\.calls"):
        Model().count(A)
    with pytest.raises(TraceError, match=r"remember changes self\.last") as caught:
        Model().remember(A)
    assert "self.last = x + 1" in str(caught.value)


# -- nesting, threads, recursion -------------------------------------------------------------------


def test_nested_calls_are_inlined() -> None:
    inner = tj.jit(lambda x: x * 2)
    outer = tj.jit(lambda x: inner(x) + inner(x + 1))
    np.testing.assert_array_equal(outer(A), A * 2 + (A + 1) * 2)
    assert inner.stats()["calls"] == 0
    assert tj.jit(tj.jit(same)).__wrapped__ is same


def test_a_recursive_function() -> None:
    @tj.jit
    def power(x: Any, n: int) -> Any:
        return x if n == 1 else x * power(x, n - 1)

    np.testing.assert_allclose(power(A, 5), A**5, rtol=1e-5)


def test_concurrent_first_calls_compile_once() -> None:
    traces = []

    @tj.jit
    def f(x: Any) -> Any:
        traces.append(1)
        time.sleep(0.02)
        return np.exp(x) + 1

    results: list[Any] = []
    barrier = threading.Barrier(6)

    def work() -> None:
        barrier.wait()
        for _ in range(20):
            results.append(f(A))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(traces) == f.stats()["compiles"] == 1
    assert len(results) == 120
    for result in results:
        np.testing.assert_allclose(result, np.exp(A) + 1, rtol=1e-6)


# -- trace -----------------------------------------------------------------------------------------


def f_traced(x: Any, y: Any) -> Any:
    return np.tanh(x * 2 + y).sum(axis=1)


def test_trace_shows_every_stage() -> None:
    traced = tj.trace(f_traced, A, tj.spec((4,), "float32"))
    assert '%0 "x": float32[3, 4], %1 "y": float32[4]' in traced.text()
    assert "test_jit.py" in traced.text()
    assert len(parse(traced.text()).nodes) == len(traced.graph.nodes)
    assert len(traced.kernels) >= 1
    assert "define" in traced.llvm()
    assert "ret" in traced.asm()
    assert traced.schedule is not None
    np.testing.assert_allclose(traced(A, B), f_traced(A, B), rtol=1e-5)
    with pytest.raises(ArgumentError, match="other arguments"):
        traced(A, A)


def test_trace_of_a_jitted_function_and_without_a_kernel() -> None:
    traced = tj.jit(f_traced).trace(A, B)
    assert "tanh" in traced.text()
    with pytest.raises(tj.TracejitError, match="no compiled form"):
        tj.trace(lambda x: x, A).llvm()


# -- cost ------------------------------------------------------------------------------------------


@pytest.mark.counts_native
def test_a_warm_call_runs_no_python() -> None:
    f = tj.jit(lambda x, y: x * 2 + y, compile="now")
    x, y = np.ones(16, np.float32), np.ones(16, np.float32)
    for _ in range(3):
        f(x, y)
    assert calls_of(lambda: f(x, y)) <= 3  # the lambda, the native entry, and setprofile


# -- copies and pickles ----------------------------------------------------------------------------


@tj.jit
def doubled(x: Any) -> Any:
    return x * 2


class Shifted:
    def __init__(self, by: float):
        self.by = by

    @tj.jit
    def shift(self, x: Any) -> Any:
        return x + self.by

    @staticmethod
    @tj.jit
    def twice(x: Any) -> Any:
        return x + x


def test_jitted_functions_are_pickled_by_name() -> None:
    for function in (doubled, Shifted.shift, Shifted.twice):
        assert pickle.loads(pickle.dumps(function)) is function
    bound = pickle.loads(pickle.dumps(Shifted(3.0).shift))
    np.testing.assert_array_equal(bound(np.zeros(2)), [3.0, 3.0])
    other = pickle.loads(pickle.dumps(tj.jit(np.square, compile="now")))
    np.testing.assert_array_equal(other(np.full(2, 3.0)), [9.0, 9.0])
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(tj.jit(lambda x: x))


def test_copies_of_a_jitted_function_are_itself() -> None:
    assert copy.copy(doubled) is doubled
    assert copy.deepcopy({"f": doubled})["f"] is doubled


def test_processes_map_a_jitted_function() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (found,) = pool.map(doubled, [np.ones(3)])
    np.testing.assert_array_equal(found, [2.0, 2.0, 2.0])
