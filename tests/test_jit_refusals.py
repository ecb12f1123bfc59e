"""What a jitted function may not do, and what it is told instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.errors import ArgumentError, DTypeError, TraceError, ValueArgumentError

A = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
B = np.arange(4, dtype=np.float32)

STORE: list[Any] = []
GLOBAL: Any = None


def branches(x: Any) -> Any:
    if x.sum() > 0:
        return x
    return -x


def converts(x: Any) -> Any:
    return x * float(x[0, 0])


def loops(x: Any) -> Any:
    for i in range(x[0, 0]):
        x = x + i
    return x


def appends(x: Any) -> Any:
    STORE.append(x * 2)
    return x


def assigns(x: Any) -> Any:
    global GLOBAL
    GLOBAL = x + 1
    return GLOBAL


def pops(params: Any) -> Any:
    return params.pop("w") + 1


def puts(params: Any) -> Any:
    params["w"] = params["w"] * 2
    return params["w"]


REFUSED: dict[Callable[[Any], Any], tuple[Any, str, str, str]] = {
    branches: (A, "if x.sum() > 0:", "condition", "np.where"),
    converts: (A, "float(x[0, 0])", "float()", "tensor"),
    loops: (A.astype(int), "range(x[0, 0])", "index", "sizes"),
    appends: (A, "STORE.append(x * 2)", "the global 'STORE'", "return the value"),
    assigns: (A, "GLOBAL = x + 1", "the global 'GLOBAL'", "return the value"),
    pops: ({"w": A}, "def pops", "changes params", "return the new value"),
    puts: ({"w": A}, 'params["w"] * 2', "changes params['w']", "in place"),
}


@pytest.mark.parametrize("function", REFUSED)
def test_refusals_quote_the_line(function: Callable[[Any], Any]) -> None:
    argument, line, what, hint = REFUSED[function]
    STORE.clear()
    with pytest.raises(TraceError) as caught:
        tj.jit(function)(argument)
    message = str(caught.value)
    assert line in message
    assert what in message
    assert f"hint: {message.split('hint: ')[1]}" in message
    assert hint in message.split("hint: ")[1]


def test_a_closure_that_keeps_a_tracer_is_refused() -> None:
    kept: Any = None

    @tj.jit
    def f(x: Any) -> Any:
        nonlocal kept
        kept = x * 2
        return x

    with pytest.raises(TraceError, match="the enclosing variable 'kept'") as caught:
        f(A)
    assert "kept = x * 2" in str(caught.value)
    with pytest.raises(TraceError, match="used after that trace ended"):
        kept + 1  # pyright: ignore[reportUnusedExpression]


def test_printing_a_tracer_shows_its_type(capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: Any) -> Any:
        print(x)  # noqa: T201
        return x + 1

    tj.jit(f)(A)
    assert "float32[3, 4]" in capsys.readouterr().out


def test_generators_and_coroutines_are_refused() -> None:
    def generator(x: Any) -> Any:
        yield x

    async def coroutine(x: Any) -> Any:
        return x

    for function, what in ((generator, "generator"), (coroutine, "coroutine")):
        with pytest.raises(TraceError, match=what) as caught:
            tj.jit(function)
        assert "def " in str(caught.value)
    with pytest.raises(TraceError, match="returns a generator"):
        tj.jit(lambda x: (v for v in x))(A)


class Foreign:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return B


def test_captured_arrays_are_constants_of_the_trace() -> None:
    weight = np.ones(4, np.float32)
    f = tj.jit(lambda x: x * weight)
    np.testing.assert_array_equal(f(A), A)
    weight[:] = 5
    np.testing.assert_array_equal(f(A), A)
    f.clear()
    np.testing.assert_array_equal(f(A), A * 5)


def test_arguments_that_are_refused() -> None:
    f = tj.jit(lambda x: x)
    with pytest.raises(ArgumentError, match="neither an array nor hashable"):
        f({1, 2})
    with pytest.raises(ArgumentError, match=r"argument x\['w'\] is a Foreign, another library"):
        f({"w": Foreign()})
    with pytest.raises(DTypeError, match="object"):
        f(np.array([None]))
    with pytest.raises(DTypeError, match="<U1"):
        f(np.array(["a"]))
    with pytest.raises(ArgumentError, match="MaskedArray"):
        f(np.ma.masked_array([1.0], [True]))
    with pytest.raises(ArgumentError, match="takes a function"):
        tj.jit(3)  # type: ignore[call-overload]
    with pytest.raises(ValueArgumentError, match="compile='soon'"):
        tj.jit(f, compile="soon")  # type: ignore[call-overload]


def test_errors_of_the_function_pass_through_and_leave_nothing_behind() -> None:
    @tj.jit
    def f(x: Any, bad: bool) -> Any:
        if bad:
            raise KeyError("mine")
        return x + 1

    with pytest.raises(KeyError, match="mine"):
        f(A, True)
    np.testing.assert_array_equal(f(A, False), A + 1)
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(5,\)") as caught:
        tj.jit(lambda x, y: x + y)(A, np.zeros(5, np.float32))
    assert "lambda x, y: x + y" in str(caught.value)
