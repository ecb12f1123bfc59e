"""Tensor: values on demand, operators and their dtypes, errors, and how tensors are made."""

from __future__ import annotations

import copy
import math
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from agreement import same
from work import calls_of

import tracejit as tj
from tracejit import errors, signatures
from tracejit.graph.node import data, placeholder
from tracejit.ops.table import Array
from tracejit.tensor import wrap
from tracejit.tracing import Trace, is_traced

pytestmark = pytest.mark.usefixtures("interpreted")
DTYPES = ["bool", "int8", "uint8", "int32", "int64", "uint64", "float32", "float64", "complex64"]


def sample(dtype: str, shape: tuple[int, ...] = (2, 3), seed: int = 0) -> Array:
    draw = np.random.default_rng(seed)
    if dtype == "bool":
        return draw.integers(0, 2, shape).astype(bool)
    if np.dtype(dtype).kind in "iu":
        return draw.integers(1, 9, shape).astype(dtype)
    values = draw.uniform(0.5, 4.0, shape)
    return (values * (1 + 0.5j) if np.dtype(dtype).kind == "c" else values).astype(dtype)


# -- operators and dtypes --------------------------------------------------------------------------

BINARY = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
    operator.pow, operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift,
    operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
]  # fmt: skip


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    """Return the result, or the error's class; errors that depend on values come with them."""
    try:
        with np.errstate(all="ignore"):
            result = function(*args)
            return result if not isinstance(result, tj.Tensor) else (result.numpy(), result)[1]
    except (TypeError, ValueError, OverflowError) as error:
        return type(error)


def agree(function: Callable[..., Any], tensors: tuple[Any, ...], arrays: tuple[Any, ...]) -> None:
    wanted = outcome(function, *arrays)
    got = outcome(function, *tensors)
    if isinstance(wanted, type):
        assert isinstance(got, type), f"NumPy raises {wanted.__name__}, got {got}"
        builtin = next(c for c in wanted.__mro__ if c.__module__ == "builtins")
        assert issubclass(got, builtin)
        assert issubclass(got, errors.TracejitError) or got in (TypeError, ValueError)
    else:
        same(got, wanted, exact=np.asarray(wanted).dtype.kind in "biu")


@pytest.mark.parametrize("function", BINARY)
def test_operators_promote_as_numpy(function: Callable[..., Any]):
    for left in DTYPES:
        for right in DTYPES:
            a, b = sample(left), sample(right, seed=1)
            agree(function, (tj.asarray(a), tj.asarray(b)), (a, b))


@pytest.mark.parametrize("function", BINARY)
def test_python_scalars_are_weak(function: Callable[..., Any]):
    for dtype in DTYPES:
        a = sample(dtype)
        for value in (2, 2.5, 1 + 2j, True, 300, -1, 1 << 40, 1 << 65):
            agree(function, (tj.asarray(a), value), (a, value))
            agree(function, (value, tj.asarray(a)), (value, a))


def test_numpy_scalars_are_strong():
    x = tj.ones(3, dtype="float32")
    assert (x * np.float64(2)).dtype == np.float64
    assert (np.float64(2) * x).dtype == np.float64
    assert (x * 2.0).dtype == np.float32


@pytest.mark.parametrize("function", [operator.neg, operator.pos, abs, operator.invert])
def test_unary_operators(function: Callable[..., Any]):
    for dtype in DTYPES:
        a = sample(dtype)
        agree(function, (tj.asarray(a),), (a,))


def test_mixed_operands():
    a = sample("float64")
    x = tj.asarray(a)
    same(a + x, a + a)
    row = [1, 2, 3]
    same(x + row, a + row)
    same(row - x, row - a)
    same(divmod(x, 2)[0], a // 2)
    same(divmod(7, x)[1], 7 % a)
    same(x @ x.T, a @ a.T, exact=False)
    same(a @ x.T, a @ a.T, exact=False)
    same(x[0] @ x[0], a[0] @ a[0], exact=False)
    same(round(x, 1), np.round(a, 1))
    assert (x == None) is False  # noqa: E711
    with pytest.raises(TypeError):
        _ = x + "text"
    with pytest.raises(TypeError):
        _ = x + None


def test_in_place_keeps_handle_and_dtype():
    x = y = tj.arange(4, dtype="float32")
    x += 1.5
    x *= tj.ones(4, dtype="float64")
    assert x is y
    same(y, np.arange(4, dtype="float32") + np.float32(1.5))
    i = tj.arange(4)
    with pytest.raises(errors.DTypeError, match="float64"):
        i += 0.5
    with pytest.raises(errors.ShapeError, match="in-place"):
        i += tj.zeros((3, 4), dtype=int)


def test_hash_is_identity():
    x, y = tj.ones(2), tj.ones(2)
    assert len({x, y, x}) == 2


# -- values ----------------------------------------------------------------------------------------


def test_scalars():
    x = tj.asarray([[2.5]])
    assert (float(x), int(x), complex(x), bool(x), x.item()) == (2.5, 2, 2.5 + 0j, True, 2.5)
    assert operator.index(tj.asarray(3)) == 3
    assert [10, 20, 30][tj.asarray(1)] == 20
    assert len(tj.zeros((3, 2))) == 3
    assert 2.5 in x
    assert 3 not in x
    assert tj.asarray([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert [v.item() for v in tj.arange(3)] == [0, 1, 2]
    assert f"{tj.asarray(math.pi):.3f}" == "3.142"
    with pytest.raises(ValueError, match=r"any\(\) or x\.all\(\)"):
        bool(tj.ones(2))
    with pytest.raises(ValueError, match="ambiguous"):
        bool(tj.ones(0))
    with pytest.raises(TypeError):
        float(tj.ones(2))
    with pytest.raises(TypeError):
        operator.index(tj.asarray(1.0))
    with pytest.raises(TypeError):
        len(tj.asarray(1))
    with pytest.raises(TypeError):
        iter(tj.asarray(1))
    with pytest.raises(TypeError):
        format(tj.ones(2), ".2f")


def test_repr_shows_values_like_numpy():
    assert repr(tj.asarray([1.0, 2.0])) == "tensor([1., 2.])"
    assert repr(tj.asarray([1], dtype="float32")) == "tensor([1.], dtype=float32)"
    assert repr(tj.zeros((0, 3))) == "tensor([], shape=(0, 3), dtype=float64)"
    assert str(tj.asarray(True)) == "tensor(True)"
    assert repr(tj.asarray([[1, 2], [3, 4]])) == "tensor([[1, 2],\n        [3, 4]])"


def test_nothing_is_aliased():
    a = np.arange(3.0)
    x = tj.asarray(a)
    y = x * 2
    a[0] = 99
    same(x, [0.0, 1.0, 2.0])
    same(y, [0.0, 2.0, 4.0])
    out = x.numpy()
    with pytest.raises(ValueError, match="read-only"):
        out[0] = 1
    mine = x.numpy(copy=True)
    mine[0] = 7
    again = np.array(x)
    again[0] = 7
    same(x, [0.0, 1.0, 2.0])
    shared = tj.asarray(a, copy=False)
    assert np.shares_memory(shared.numpy(), a)
    with pytest.raises(ValueError, match="copy"):
        tj.asarray(a, dtype="float32", copy=False)
    with pytest.raises(ValueError, match="share"):
        tj.asarray([1, 2], copy=False)


def test_copies():
    x = tj.arange(4)
    clones = [copy.copy(x), copy.deepcopy(x), x.clone(), x.copy(), tj.tensor(x), tj.copy(x)]
    restored = pickle.loads(pickle.dumps(x))
    x += 1
    for clone in [*clones, restored]:
        same(clone, np.arange(4))
    view = copy.copy(x[1:])
    x += 1
    same(view, [2, 3, 4])


def test_values_are_kept_along_a_loop(monkeypatch: pytest.MonkeyPatch):
    # A loop that prints a figure of its state must not compute the state from the start each time.
    from tracejit.runtime import demand

    sizes: list[int] = []
    evaluate = demand.evaluate

    def counting(outputs: Any, nodes: Any) -> Any:
        sizes.append(len(nodes))
        return evaluate(outputs, nodes)

    monkeypatch.setattr(demand, "evaluate", counting)
    x = tj.asarray(np.ones(100_000))
    for _ in range(6):
        x = x * 1.5 + 1
        float(x.sum())
    assert max(sizes[1:]) <= sizes[0] + 1


def test_elements_of_a_pending_tensor_compute_it_once(monkeypatch: pytest.MonkeyPatch):
    from tracejit.runtime import demand

    calls: list[int] = []
    evaluate = demand.evaluate
    monkeypatch.setattr(demand, "evaluate", lambda *args: calls.append(1) or evaluate(*args))
    x = tj.asarray(np.arange(100_000.0)) * 2
    assert [x[i].item() for i in range(5)] == [0, 2, 4, 6, 8]
    assert len(calls) == 1


def test_long_chains_do_not_recurse():
    x = y = tj.zeros(2)
    for _ in range(20_000):
        x = x + 1.0
        y = y[:]
    assert x.tolist() == [20_000.0, 20_000.0]
    y += 1
    same(y, [1.0, 1.0])
    del x, y


# -- views -----------------------------------------------------------------------------------------


# -- tracing ---------------------------------------------------------------------------------------


def traced(shape: tuple[int, ...] = (3,), dtype: str = "float64") -> tuple[Trace, tj.Tensor]:
    trace = Trace("f")
    return trace, wrap(placeholder(0, dtype, shape), trace)


def test_a_traced_value_is_an_error_at_the_users_line():
    trace, x = traced(())
    uses: list[Callable[[], Any]] = [
        lambda: bool(x > 0), lambda: float(x), lambda: int(x), lambda: x.item(), lambda: x.numpy(),
        lambda: np.asarray(x), lambda: x.tolist(), lambda: complex(x), lambda: pickle.dumps(x),
        lambda: tj.zeros(3)[: x.astype(int)],
    ]  # fmt: skip
    with trace:
        for use in uses:
            with pytest.raises(errors.TraceError, match="f is tracing") as caught:
                use()
            assert caught.value.loc is not None
            assert caught.value.loc.filename == __file__
        with pytest.raises(errors.TraceError, match=r"np\.where"):
            assert x > 0
        assert "traced in f" in repr(x)
        assert is_traced((x + 1).node)
        assert not is_traced(tj.ones(2).node)


def test_a_leaked_tracer():
    trace, x = traced()
    with trace:
        y = x * 2
    with pytest.raises(errors.TraceError, match="after that trace ended"):
        _ = y + 1
    with pytest.raises(errors.TraceError, match="after that trace ended"):
        y.numpy()


def test_a_change_of_an_outer_tensor():
    outer = tj.zeros(3)
    trace, x = traced()
    with trace:
        with pytest.raises(errors.TraceError, match="made outside"):
            outer += 1
        with pytest.raises(errors.TraceError, match="made outside"):
            outer[0] = x[0]
        inner = tj.zeros(3)
        view = inner[1:]
        inner[0] = x[0]
        assert inner.traced_in is trace
        assert view.traced_in is trace
        mine = outer.copy()
        mine += x
        assert bool((tj.arange(3) < 5).all())
    same(outer, [0.0, 0.0, 0.0])


def test_masks_inside_a_trace():
    trace, x = traced()
    with trace:
        with pytest.raises(errors.TraceError, match=r"tj\.where"):
            len(x[x > 0])
        y = x.copy()
        y[x > 0] = 1.0
        assert y.node.op.name == "where"
        with pytest.raises(errors.TraceError):
            y[x > 0] = tj.arange(2.0)


def test_location_is_the_users_line():
    x = tj.asarray(np.ones(100_000)) + 1
    loc = x.node.loc
    assert loc is not None
    assert "x = tj.asarray(np.ones(100_000)) + 1" in loc.source()
    with pytest.raises(errors.ShapeError) as caught:
        _ = x + tj.ones(3)
    assert "_ = x + tj.ones(3)" in str(caught.value)
    y: Any = np.exp(x)
    assert y.node.loc.filename == __file__


# -- making tensors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([[1, 2], [3]], ValueError),
        ([1, [2, 3]], ValueError),
        ("text", TypeError),
        (["a", "b"], TypeError),
        (b"bytes", TypeError),
        (None, TypeError),
        ([None, 1], TypeError),
        (object(), TypeError),
        ({"a": 1}, TypeError),
        (np.array([1, "x"], object), TypeError),
        (np.array(["2020-01-01"], "datetime64[D]"), TypeError),
        (np.zeros(2, "f4,i4"), TypeError),
        ([1 << 70], TypeError),
    ],
)
def test_what_no_tensor_can_hold(value: Any, kind: type):
    with pytest.raises(kind) as caught:
        tj.asarray(value)
    assert isinstance(caught.value, errors.TracejitError)


def test_wrong_creation():
    with pytest.raises(OverflowError):
        tj.asarray(300, dtype="uint8")
    with pytest.raises(TypeError):
        tj.zeros(3, dtype="no such")
    with pytest.raises(TypeError):
        tj.zeros(3, dtype=object)
    with pytest.raises(ValueError, match="negative"):
        tj.zeros((2, -1))
    with pytest.raises(TypeError):
        tj.zeros(2.5)
    with pytest.raises(ValueError, match="64"):
        tj.zeros((1,) * 65)
    with pytest.raises(ValueError, match="64"):
        tj.ones(3)[(None,) * 65]
    with pytest.raises(MemoryError):
        tj.zeros((1 << 20, 1 << 20, 1 << 20))
    with pytest.raises(MemoryError):
        (tj.zeros((1 << 22, 1 << 20)) + 1).numpy()
    with pytest.raises(ValueError, match="cpu"):
        tj.zeros(3, device="cuda")
    with pytest.raises(ValueError, match="zero"):
        tj.arange(0, 3, 0)


def test_big_endian_and_odd_layouts():
    a = np.arange(6, dtype=">f8").reshape(2, 3)
    x = tj.asarray(a)
    assert x.dtype == np.dtype(float)
    same(x, a.astype(float))
    same(
        tj.asarray(np.arange(12.0).reshape(3, 4).T[::-1, ::2]),
        np.arange(12.0).reshape(3, 4).T[::-1, ::2],
    )
    same(tj.asarray(np.broadcast_to(np.float32(2), (3, 2))), np.full((3, 2), 2, np.float32))


def test_lists_of_tensors_stack():
    x = tj.arange(3)
    same(tj.asarray([x, x + 1]), [[0, 1, 2], [1, 2, 3]])
    trace, y = traced()
    with trace:
        assert tj.asarray([y, y * 2]).shape == (2, 3)
        assert tj.asarray([[y[0], 1.0], [2, y[1]]]).shape == (2, 2)


def test_dlpack():
    x = tj.asarray([[1.0, 2.0]])
    assert x.__dlpack_device__() == (1, 0)
    np.testing.assert_array_equal(np.from_dlpack(x), [[1.0, 2.0]])
    source = np.arange(3.0)
    copied, shared = tj.from_dlpack(source), tj.from_dlpack(source, copy=False)
    source[0] = 9
    same(copied, [0.0, 1.0, 2.0])
    assert shared.numpy()[0] == 9


def test_large_graphs_are_cheap_to_record(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    ask = signatures._asked
    monkeypatch.setattr(
        signatures, "_asked", lambda name, *rest: asked.append(name) or ask(name, *rest)
    )
    x = tj.asarray(np.ones((1, 4, 3)))
    trace, y = traced((1, 4, 3))

    def record(count: int) -> None:
        nonlocal y
        for i in range(count):
            y = y * x + float(i + 1)

    with trace:
        record(2)
        few = calls_of(lambda: record(10))
        many = calls_of(lambda: record(1000))
    assert many <= 150 * few  # an op costs the same at the end of a long graph
    assert len(asked) <= 2  # its row is asked once about these dtypes and shapes


def test_constructor():
    same(tj.Tensor([1, 2]), [1, 2])
    x = tj.ones(2)
    y = tj.Tensor(x)
    y += 1
    same(x, [1.0, 1.0])
    assert wrap(data(np.ones(1))).tolist() == [1.0]
