"""Small ops on known tensors: computed at once, with NumPy's answers and NumPy's views."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import config, errors
from tracejit.runtime import demand
from tracejit.runtime.interpreter import quiet

RNG = np.random.default_rng(5)
A, B = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4)).astype(np.float32)
I8, U64 = (
    np.arange(-6, 6, dtype=np.int8).reshape(3, 4),
    np.arange(12, dtype=np.uint64).reshape(3, 4),
)
BIG = 100_000


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Leave it to the size of an op: the suite's own default is kernels at the first call."""
    with tj.set_stance("background"):
        yield


def known(x: Any) -> bool:
    return x.node.value is not None


OPS: dict[str, Callable[..., Any]] = {
    "sum of two": lambda x, y: x + y,
    "weak float": lambda x, y: x * 2.5,
    "weak float on the left": lambda x, y: 1 - x,
    "weak int": lambda x, y: x + 3,
    "negative zero": lambda x, y: (x * 0) * -0.0,
    "division by zero": lambda x, y: x / (y * 0),
    "comparison": lambda x, y: x > y,
    "comparison with what it cannot hold": lambda x, y: x < 1000,
    "where": lambda x, y: np.where(x > 0, x, y),
    "function": lambda x, y: np.exp(x) + np.tanh(y),
    "clip": lambda x, y: np.clip(x, 0, 2),
    "sum": lambda x, y: x.sum(),
    "sum of rows": lambda x, y: x.sum(axis=1, keepdims=True) + y,
    "extremes": lambda x, y: x.max(axis=0) - y.min(axis=0),
    "mean": lambda x, y: x.mean(axis=-1),
    "all and any": lambda x, y: (x > 0).all(axis=0) | (y > 0).any(axis=0),
    "argmax": lambda x, y: x.argmax(axis=1),
    "matmul": lambda x, y: x @ y.T,
    "views": lambda x, y: x[1:, ::-1] + y[0, None, :],
    "element": lambda x, y: x[2, 1] * y[0, 3],
    "joined": lambda x, y: np.concatenate([x, y], axis=1),
    "reshaped": lambda x, y: x.reshape(2, 6).T.ravel(),
    "with an array": lambda x, y: x + np.arange(4),
    "with a NumPy scalar": lambda x, y: x * np.float64(0.5),
    "gathered": lambda x, y: x[[2, 0]],
    "powers": lambda x, y: x**2 + y**3,
}  # fmt: skip


@pytest.mark.parametrize("x", [A, B, I8, U64, A[:0], A.astype(complex)], ids=lambda x: x.dtype.name)
@pytest.mark.parametrize("name", OPS)
def test_numpys_answers(name: str, x: Any) -> None:
    if (x.dtype.kind == "c" and name in ("clip", "argmax")) or (not x.size and name == "argmax"):
        pytest.skip("NumPy refuses it")
    if not x.size and name in ("extremes", "element", "gathered", "reshaped", "mean", "views"):
        pytest.skip("nothing is there")
    y = x + 1 if x.dtype.kind != "u" else x * 2
    with np.errstate(all="ignore"):
        wanted = np.asarray(OPS[name](x, y))
    for _ in range(2):  # the second time by what the first has learnt
        with warnings.catch_warnings(), np.errstate(all="raise"):
            warnings.simplefilter("error")
            got = OPS[name](tj.asarray(x), tj.asarray(y))
        assert known(got)
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        np.testing.assert_array_equal(got.numpy(), wanted)
        if wanted.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(got.numpy()), np.signbit(wanted))


def test_a_known_op_is_one_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = tj.asarray(A), tj.asarray(B)

    def program() -> Any:
        z = (x + y) * 2.0 - y.sum(axis=0)
        return np.exp(z) > 0.5

    program()
    asked: list[str] = []
    module = sys.modules["tracejit.tensor"]
    for name in ("resolve", "inferred", "computed"):
        monkeypatch.setattr(module, name, lambda *args, name=name: asked.append(name))
    monkeypatch.setattr(demand, "evaluate", lambda *args: asked.append("evaluated"))
    program().numpy()
    assert asked == []


def test_what_is_large_or_unknown_is_recorded() -> None:
    x = tj.asarray(np.ones(BIG))
    assert not known(x * 2)
    assert not known((x * 2).sum() + 1)
    assert known(x[5] + x[:10].sum())
    assert not known(x[:50_000])
    grown = tj.asarray(np.ones((500, 1))) + tj.asarray(np.ones(500))
    assert not known(grown)
    assert float(grown.sum()) == 500_000


def test_what_wants_kernels_is_recorded() -> None:
    x = tj.asarray(A)
    with config.override(compile="now"), tj.set_stance("default"):
        assert not known(x + 1)
    with tj.set_stance("now"):
        assert not known(x + 1)
    assert known(x + 1)
    with tj.set_stance("never"):
        assert known(x + 1)


def test_a_trace_records() -> None:
    outside = tj.asarray(A)
    seen: list[bool] = []

    def f(x: Any) -> Any:
        inner = outside * 2
        seen.append(known(inner))
        return x + inner

    np.testing.assert_array_equal(tj.jit(f)(A), A + A * 2)
    assert seen
    assert not any(seen)


def test_errors_are_typed() -> None:
    x = tj.asarray(I8)
    for _ in range(2):
        with pytest.raises(errors.RangeError, match="300"):
            _ = x + 300
        with pytest.raises(errors.ShapeError, match="broadcast"):
            _ = x + tj.asarray(np.ones(3))
        with pytest.raises(errors.IndexOutOfRange, match="7"):
            _ = x[7]
        with pytest.raises(errors.RangeError):
            x[0] = 300
        with pytest.raises(errors.ShapeError, match="assign"):
            x[0] = tj.asarray(np.ones(3, np.int8))
    assert x.tolist() == I8.tolist()


def test_what_a_reference_refuses_is_told_to_whoever_asks() -> None:
    inverse = tj.linalg.inv(tj.asarray(np.zeros((2, 2))))
    with pytest.raises(Exception, match=r"(?i)singular"):
        inverse.numpy()


def test_writes_are_seen_through_views_and_by_nobody_else() -> None:
    array = A.copy()
    x = tj.asarray(array)
    copy, result = x.copy(), x + 0
    handed_out = x.numpy()
    row, column, inner = x[1], x[:, 2], x[1:, 1:]
    nested = inner[0]
    wanted = A.copy()
    for a in (x, wanted):
        a[0] = 5.0
        a[1, 1] = 7
    row += 1
    wanted[1] += 1
    nested *= 2
    wanted[1, 1:] *= 2
    x[2:] -= x[0]
    wanted[2:] -= wanted[0]
    column[...] = row[1]
    wanted[:, 2] = wanted[1, 1]
    x[x > 4] = 0.5
    wanted[wanted > 4] = 0.5
    assert known(x)
    for got, want in (
        (x, wanted), (row, wanted[1]), (column, wanted[:, 2]), (nested, wanted[1, 1:]),
        (copy, A), (result, A), (handed_out, A), (array, A),
    ):  # fmt: skip
        np.testing.assert_array_equal(np.asarray(got), want)


def test_a_view_of_what_becomes_unknown() -> None:
    x = tj.asarray(np.zeros(BIG))
    first = x[:4]
    x += tj.arange(float(BIG))
    first *= 10
    x[1] = -1.0
    np.testing.assert_array_equal(first.numpy(), [0.0, -1.0, 20.0, 30.0])
    np.testing.assert_array_equal(x[:5].numpy(), [0.0, -1.0, 20.0, 30.0, 4.0])


def test_inside_each_other_and_in_threads() -> None:
    """A context cannot be entered twice: what comes meanwhile is recorded, and computed later."""
    x = tj.asarray(A)
    inner = quiet.run(lambda: x * 3.0)
    np.testing.assert_array_equal(inner.numpy(), A * 3.0)
    quiet.run(x.__setitem__, 0, 1.0)
    assert x.numpy()[0, 0] == 1.0
    results: list[Any] = []

    def work() -> None:
        y = tj.asarray(A)
        for _ in range(200):
            y = y * 1.01 + 0.1
        results.append(y.numpy())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all((r == results[0]).all() for r in results)


def test_a_jitted_function_of_tensors_is_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    @tj.jit
    def f(x: Any, y: Any, n: int = 2) -> Any:
        return x * n + y

    x, y = tj.asarray(A), tj.asarray(A * 2)
    with tj.set_stance("now"):
        for _ in range(3):
            f(x, y)
    general: list[Any] = []
    monkeypatch.setattr(type(f), "_call_general", lambda self, *args: general.append(args))
    for args, wanted in (((x, y), A * 4), ((x, x), A * 3), ((y, x), A * 5)):
        got = f(*args)
        assert isinstance(got, tj.Tensor)
        np.testing.assert_array_equal(got.numpy(), wanted)
    assert not general
    monkeypatch.undo()
    x += 1  # the value that the handle has now
    np.testing.assert_array_equal(f(x, y).numpy(), (A + 1) * 2 + A * 2)
    mixed = f(x, A)
    assert isinstance(mixed, tj.Tensor)
    np.testing.assert_array_equal(mixed.numpy(), (A + 1) * 2 + A)
    assert isinstance(f(A, A), np.ndarray)
    pending = tj.asarray(np.ones(BIG)) * 2
    np.testing.assert_array_equal(f(pending, 1.0).numpy(), np.full(BIG, 5.0))
    with pytest.raises(errors.ShapeError):
        f(x, tj.asarray(np.ones(3)))
