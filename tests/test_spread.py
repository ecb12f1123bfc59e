"""Native entries that see into containers and keywords: what they accept, and what they hold."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from entries import native_calls

import tracejit as tj
from tracejit.runtime import entry

pytestmark = [
    pytest.mark.skipif(not entry.supported(), reason="other object layouts"),
    pytest.mark.counts_native,
]


def warm(function: Any, *args: Any, **kwargs: Any) -> None:
    """Call until the native entry takes such calls."""
    for _ in range(3):
        function(*args, **kwargs)
        function.wait()


def check(function: Any, *args: Any, native: bool, **kwargs: Any) -> None:
    """Call once: the result is the Python function's, and the entry answered, or did not."""
    wanted = function.__wrapped__(*args, **kwargs)
    before = native_calls(function)
    np.testing.assert_allclose(function(*args, **kwargs), wanted, rtol=1e-12)
    assert native_calls(function) - before == int(native)


class Layer(NamedTuple):
    weight: Any
    bias: Any


def network() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    layers = [Layer(rng.normal(size=(4, 4)), rng.normal(size=4)) for _ in range(2)]
    return {"layers": layers, "scales": (0.5, rng.normal(size=4)), "steps": 2}


def predict(parameters: dict[str, Any], x: Any) -> Any:
    for weight, bias in parameters["layers"]:
        x = np.tanh(x @ weight + bias)
    factor, scale = parameters["scales"]
    return x * (factor * scale) * parameters["steps"]


X = np.random.default_rng(4).normal(size=(3, 4))


def test_nested_containers_need_no_python() -> None:
    function = tj.jit(predict)
    warm(function, network(), X)
    check(function, network(), X, native=True)
    other = network()
    other["scales"] = (2.5, np.ones(4))
    check(function, other, X, native=True)


def longer(p: dict[str, Any]) -> None:
    p["layers"].append(Layer(np.eye(4), np.ones(4)))


def plain_tuple(p: dict[str, Any]) -> None:
    p["layers"][1] = tuple(p["layers"][1])


def other_static(p: dict[str, Any]) -> None:
    p["steps"] = 3


def other_shape(p: dict[str, Any]) -> None:
    p["scales"] = (0.5, np.ones((3, 1)))


def other_key(p: dict[str, Any]) -> None:
    p["unused"] = 1.0


def other_order(p: dict[str, Any]) -> None:
    p["layers"] = p.pop("layers")


def equal_key(p: dict[str, Any]) -> None:
    steps = p.pop("steps")
    p["".join(["st", "eps"])] = steps  # equal to the key it was compiled for, but not that object


def list_as_dict(p: dict[str, Any]) -> None:
    p["scales"] = list(p["scales"])


@pytest.mark.parametrize(
    "change",
    [
        longer,
        plain_tuple,
        other_static,
        other_shape,
        other_key,
        other_order,
        equal_key,
        list_as_dict,
    ],
)
def test_other_structures_take_the_python_path(change: Callable[[Any], None]) -> None:
    function = tj.jit(predict, dynamic=False)
    warm(function, network(), X)
    changed = network()
    change(changed)
    check(function, changed, X, native=False)
    check(function, network(), X, native=True)


def test_several_structures_have_forms_of_their_own() -> None:
    function = tj.jit(predict, dynamic=False)
    deep = network()
    longer(deep)
    for _ in range(2):
        for parameters in (network(), deep):
            warm(function, parameters, X)
    for parameters in (deep, network(), deep):
        check(function, parameters, X, native=True)


def scaled(x: Any, scale: Any = 2.0, *, bias: Any = None) -> Any:
    return x * scale if bias is None else x * scale + bias


def test_keywords_need_no_python() -> None:
    function = tj.jit(scaled)
    warm(function, X)
    warm(function, X, scale=3.0)
    warm(function, X, bias=X[0], scale=3.0)
    check(function, X, native=True)
    check(function, X, scale=-1.5, native=True)
    check(function, X, bias=X[1], scale=0.25, native=True)
    check(function, X, scale=0.25, bias=X[1], native=False)  # another order is another signature
    with pytest.raises(TypeError, match="colour"):
        function(X, colour=3.0)


class Model:
    def __init__(self) -> None:
        self.weight = np.eye(4) * 0.5
        self.steps = 2
        self.activation = np.tanh

    @tj.jit
    def __call__(self, x: Any) -> Any:
        for _ in range(self.steps):
            x = self.activation(x @ self.weight)
        return x


def test_attributes_of_plain_objects_are_slots() -> None:
    model = Model()
    function = Model.__dict__["__call__"]
    warm(function, model, X)
    check(function, model, X, native=True)
    model.weight = np.ones((4, 4))
    check(function, model, X, native=True)
    model.steps = 3
    check(function, model, X, native=False)
    model.steps = 2
    model.note = "new"  # type: ignore[attr-defined]
    check(function, model, X, native=False)
    check(function, Model(), X, native=True)


def test_sizes_within_containers_may_vary() -> None:
    function = tj.jit(lambda p, x: p["w"] * x + p["b"])
    for n in (13, 15, 17, 18):  # 8 and less have kernels of their own
        warm(function, {"w": np.ones(n), "b": 1.0}, np.arange(float(n)))
    assert function.stats()["dynamic"] >= 1
    check(function, {"w": np.ones(29), "b": 1.0}, np.arange(29.0), native=True)


def test_arrays_in_containers_are_written_in_place() -> None:
    @tj.jit
    def step(state: dict[str, Any], rate: float) -> None:
        state["w"] -= rate * state["g"]

    state = {"w": np.ones(5), "g": np.arange(5.0)}
    warm(step, state, 0.5)
    state["w"][:] = 1
    before = native_calls(step)
    step(state, 0.25)
    assert native_calls(step) == before + 1
    np.testing.assert_array_equal(state["w"], 1 - 0.25 * np.arange(5.0))
    state["g"] = state["w"]  # overlaps what is written: NumPy's order decides
    step(state, 0.5)
    np.testing.assert_array_equal(state["w"], (1 - 0.25 * np.arange(5.0)) * 0.5)


def test_references_are_given_back() -> None:
    function = tj.jit(predict, dynamic=False)
    good, bad = network(), network()
    warm(function, good, X)
    bad["scales"] = (0.5, np.ones((3, 1)))
    warm(function, bad, X)
    watched = [*good["layers"][0], *bad["layers"][0], *good["scales"], bad["scales"][1], good, bad]
    before = [sys.getrefcount(o) for o in watched]
    for _ in range(2000):
        function(good, X)
        function(bad, X)
    assert [sys.getrefcount(o) for o in watched] == before


def test_a_container_may_be_emptied_while_kernels_run() -> None:
    function = tj.jit(lambda items: np.tanh(np.tanh(items[0])) + items[1])
    size = 1_500_000

    def items() -> list[Any]:
        return [np.full(size, 0.5), np.ones(size)]

    warm(function, items())
    for number in range(5):
        held = items()
        threading.Timer(0.0005 * number, held.clear).start()
        try:
            result = function(held)
        except IndexError:  # it was empty before the call began
            continue
        np.testing.assert_allclose(result, np.tanh(np.tanh(0.5)) + 1)


def test_more_slots_than_a_sheet_has_run_through_python() -> None:
    function = tj.jit(lambda items: items[0] + items[-1])
    items = [np.full(3, float(i)) for i in range(400)]
    warm(function, items)
    check(function, items, native=False)
