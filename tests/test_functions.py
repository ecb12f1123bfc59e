"""tracejit's own functions: creation, PyTorch's spellings, networks, random numbers, errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import config, errors
from tracejit.graph.node import placeholder
from tracejit.tensor import wrap
from tracejit.tracing import Trace


@pytest.fixture(autouse=True)
def interpreted() -> Iterator[None]:
    """Compute with NumPy: what compiled code gives is for other tests, and takes longer."""
    with config.override(disable_jit=True), np.errstate(all="ignore"):
        yield


def same(got: Any, wanted: Any, rtol: float = 1e-12) -> None:
    assert isinstance(got, tj.Tensor)
    array, wanted = got.numpy(), np.asarray(wanted)
    assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_allclose(array, wanted, rtol=rtol, atol=rtol)


A = np.random.default_rng(3).uniform(-2, 2, (3, 4))
X = tj.asarray(A)


# -- creation --------------------------------------------------------------------------------------

CREATION: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("zeros", ((2, 3),), {}), ("zeros", (3, int), {}), ("ones", ((2,),), {"dtype": "float32"}),
    ("full", ((2, 2), 7), {}), ("full", (3, 2.5), {}), ("full", ((), True), {}),
    ("full", (2, 3), {"dtype": "complex64"}), ("empty_like", (np.zeros(3, "int8"),), {}),
    ("arange", (5,), {}), ("arange", (2, 9), {}), ("arange", (9, 2, -3), {}),
    ("arange", (0.5,), {}), ("arange", (0, 1, 0.1), {}), ("arange", (1.0, 3.0, 0.3), {}),
    ("arange", (5.0,), {"dtype": "float32"}), ("arange", (3,), {"dtype": "uint8"}),
    ("arange", (3, 1), {}), ("arange", (0, 2, 1), {"dtype": bool}),
    ("arange", (2.7, 7), {"dtype": int}), ("linspace", (0, 1), {}), ("linspace", (0, 1, 5), {}),
    ("linspace", (1, 0, 4), {"endpoint": False}), ("linspace", (0, 10, 4), {"dtype": int}),
    ("linspace", (2, 2, 3), {}), ("linspace", (0, 1, 1), {}),
    ("linspace", (0, 1, 0), {}), ("linspace", (0, 1j, 3), {}), ("logspace", (0, 2, 3), {}),
    ("geomspace", (1, 8, 4), {}), ("eye", (3,), {}), ("eye", (2, 4), {"k": 1, "dtype": int}),
    ("identity", (2,), {}), ("tri", (3, 4, -1), {}), ("indices", ((2, 3),), {}),
    ("array", ([[1, 2]],), {"ndmin": 3}), ("fromiter", (range(3), float), {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "kwargs"), CREATION, ids=[repr(c) for c in CREATION])
def test_creation(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]):
    got = getattr(tj, name)(*args, **kwargs)
    wanted = getattr(np, name)(*args, **kwargs)
    if name == "empty_like":
        wanted[...] = 0
    assert got.numpy().dtype == wanted.dtype
    np.testing.assert_array_equal(got.numpy(), wanted)


def test_linspace_between_arrays():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4))
    for args, kwargs in [
        ((a, b, 5), {}), ((a, b, 5), {"endpoint": False, "axis": -1}), ((a, 3, 4), {"axis": 1}),
        ((0, a * 9, 4), {"dtype": int}), ((a, a, 3), {}), ((a, b, 1), {}), ((a, b, 0), {}),
        ((a.astype("f4"), 3, 3), {}), ((np.arange(3), [4, 5, 6], 3), {}),
    ]:  # fmt: skip
        got, wanted = tj.linspace(*args, **kwargs), np.linspace(*args, **kwargs)
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-15)
    between = tj.jit(lambda x: np.linspace(x[0, 0], x[1, 1], 7, retstep=True))
    for got, wanted in zip(between(a), np.linspace(a[0, 0], a[1, 1], 7, retstep=True), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-15)


def test_piecewise():
    x = np.linspace(-2, 2, 9)
    jit: Any = tj.jit
    piecewise: Any = np.piecewise
    several: list[Any] = [
        lambda x: piecewise(x, [x < 0, x >= 1], [lambda x: -x, np.exp]),
        lambda x: piecewise(x, [x < 0, x < 1], [-1, np.exp, 7]),
        lambda x: piecewise(x, x < 0, [lambda x, k: x * k, 5], 3.0),
        lambda x: piecewise(x.astype(int), (x > -1, x > 1), (lambda i: i / 2, 3)),
    ]
    wrong: Any = lambda x: piecewise(x, [x < 0], [1, 2, 3])  # noqa: E731
    for function in several:
        got: Any = jit(function)(x)
        assert got.dtype == function(x).dtype
        np.testing.assert_allclose(got, function(x), rtol=1e-15)
    with pytest.raises(errors.ValueArgumentError, match="3 functions for 1"):
        jit(wrong)(x)


def test_creation_by_other_names():
    same(tj.zeros(2, 3), np.zeros((2, 3)))
    same(tj.ones(2, 3, dtype=int), np.ones((2, 3), int))
    same(tj.rand(2, 3, seed=1), tj.random.rand(2, 3, seed=1).numpy())
    values, step = tj.linspace(0, 1, 5, retstep=True)
    same(values, np.linspace(0, 1, 5))
    assert step == 0.25
    for got, wanted in zip(
        tj.meshgrid([1, 2], [3, 4, 5], indexing="ij", sparse=True),
        np.meshgrid([1, 2], [3, 4, 5], indexing="ij", sparse=True),
        strict=True,
    ):
        same(got, wanted)
    same(tj.fromfunction(lambda i, j: i + 10 * j, (2, 2)), [[0.0, 10.0], [1.0, 11.0]])
    trace = Trace("f")
    value = wrap(placeholder(0, "float64", ()), trace)
    with trace:
        assert tj.full((2, 2), value).shape == (2, 2)


def test_filled_tensors_take_no_memory():
    big = tj.zeros((1 << 16, 1 << 16))
    assert big[5:7, 3].tolist() == [0.0, 0.0]


# -- PyTorch's spellings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("torch", "wanted"),
    [
        (lambda x: x.sum(dim=0, keepdim=True), lambda a: a.sum(0, keepdims=True)),
        (lambda x: x.sum(-1, True), lambda a: a.sum(-1, keepdims=True)),
        (lambda x: x.mean(dim=(0, 1)), lambda a: a.mean()),
        (lambda x: x.max(dim=1).values, lambda a: a.max(1)),
        (lambda x: x.max(dim=1)[1], lambda a: a.argmax(1)),
        (lambda x: x.amin(dim=0), lambda a: a.min(0)),
        (lambda x: x.argmax(dim=1, keepdim=True), lambda a: a.argmax(1, keepdims=True)),
        (lambda x: x.var(dim=0, unbiased=True), lambda a: a.var(0, ddof=1)),
        (lambda x: x.cumsum(dim=1), lambda a: a.cumsum(1)),
        (lambda x: x.cummax(dim=1).indices, lambda a: np.array(
            [[int(np.argmax(r[: i + 1])) for i in range(4)] for r in a])),
        (lambda x: x.sort(dim=1, descending=True).values, lambda a: -np.sort(-a, 1)),
        (lambda x: x.topk(2, dim=1).values, lambda a: -np.sort(-a, 1)[:, :2]),
        (lambda x: x.topk(2, largest=False).indices, lambda a: np.argsort(a, 1)[:, :2]),
        (lambda x: x.kthvalue(2)[0], lambda a: np.sort(a, 1)[:, 1]),
        (lambda x: x.unsqueeze(0).squeeze(dim=0), lambda a: a),
        (lambda x: x.squeeze(dim=0), lambda a: a),
        (lambda x: x.view(2, 6), lambda a: a.reshape(2, 6)),
        (lambda x: x.view(-1), lambda a: a.ravel()),
        (lambda x: x.permute(1, 0), lambda a: a.T),
        (lambda x: x[None].transpose(1, 2), lambda a: a[None].swapaxes(1, 2)),
        (lambda x: x.transpose(1, 0), lambda a: a.transpose(1, 0)),
        (lambda x: x.t(), lambda a: a.T),
        (lambda x: x.expand(2, -1, -1), lambda a: np.broadcast_to(a, (2, 3, 4))),
        (lambda x: x.flatten(0, 1), lambda a: a.ravel()),
        (lambda x: x.unflatten(1, (2, -1)), lambda a: a.reshape(3, 2, 2)),
        (lambda x: x.masked_fill(x > 0, -1), lambda a: np.where(a > 0, -1, a)),
        (lambda x: x.masked_select(x > 0), lambda a: a[a > 0]),
        (lambda x: x.gather(1, tj.asarray([[0], [1]])), lambda a: a[[0, 1], [0, 1]][:, None]),
        (lambda x: x.index_select(1, tj.asarray([3, 0])), lambda a: a[:, [3, 0]]),
        (lambda x: x.clamp(min=-1, max=1), lambda a: a.clip(-1, 1)),
        (lambda x: x.float(), lambda a: a.astype("float32")),
        (lambda x: x.long(), lambda a: a.astype("int64")),
        (lambda x: x.to("cpu", tj.float32).double(), lambda a: a.astype("float32").astype(float)),
        (lambda x: x.to(tj.int8).type_as(x), lambda a: np.trunc(a)),
        (lambda x: x.detach().clone().contiguous(), lambda a: a),
        (lambda x: tj.cat([x, x], dim=1), lambda a: np.concatenate([a, a], 1)),
        (lambda x: tj.stack([x, x], dim=2), lambda a: np.stack([a, a], 2)),
        (lambda x: x.chunk(2, dim=1)[1], lambda a: a[:, 2:]),
        (lambda x: x.split(3, dim=1)[1], lambda a: a[:, 3:]),
        (lambda x: x.split([1, 3], dim=1)[1], lambda a: a[:, 1:]),
        (lambda x: x.unbind()[2], lambda a: a[2]),
        (lambda x: x.softmax(dim=-1).sum(dim=-1), lambda a: np.ones(3)),
        (lambda x: x.relu(), lambda a: np.maximum(a, 0)),
        (lambda x: x.sigmoid(), lambda a: 1 / (1 + np.exp(-a))),
        (lambda x: x.rsqrt(), lambda a: 1 / np.sqrt(a)),
        (lambda x: x.norm(dim=1), lambda a: np.linalg.norm(a, axis=1)),
        (lambda x: x.norm(p=1), lambda a: np.abs(a).sum()),
        (lambda x: x.logsumexp(dim=0), lambda a: np.log(np.exp(a).sum(0))),
        (lambda x: tj.div(x, 0.3, rounding_mode="trunc"), lambda a: np.trunc(a / 0.3)),
        (lambda x: tj.max(x, tj.zeros(4)), lambda a: np.maximum(a, 0)),
        (lambda x: x.mm(x.t()), lambda a: a @ a.T),
        (lambda x: x.roll(1, dims=0), lambda a: np.roll(a, 1, 0)),
        (lambda x: x.flip(dims=(0,)), lambda a: np.flip(a, 0)),
        (lambda x: x.mT, lambda a: a.T),
    ],
)  # fmt: skip
def test_torch_spellings(torch: Callable[[Any], Any], wanted: Callable[[Any], Any]):
    same(torch(X), wanted(A))


def test_in_place_methods():
    x = tj.asarray(A)
    view = x[0]
    assert x.add_(1).mul_(2) is x
    view.clamp_(0, 1)
    x[1].masked_fill_(x[1] > 0, 9.0)
    x[2].zero_()
    b = (A + 1) * 2
    b[0] = b[0].clip(0, 1)
    b[1][b[1] > 0] = 9.0
    b[2] = 0
    same(x, b)
    assert x.sort() is None
    same(x, np.sort(b))
    x.fill(3)
    x[0].copy_(tj.arange(4))
    assert x[:2, 1].tolist() == [1.0, 3.0]


def test_both_spellings_at_once():
    with pytest.raises(errors.ArgumentError, match="axis and dim"):
        X.sum(axis=0, dim=1)


def test_numpy_methods():
    same(X.astype("float32", copy=False), A.astype("float32"))
    same(X.astype(int), A.astype(int))
    with pytest.raises(TypeError):
        X.astype(int, casting="safe")
    same(X.T, A.T)
    same(X.real, A)
    same((X + 2j).imag, np.full((3, 4), 2.0))
    same(X.take([1, 2], axis=1), A.take([1, 2], axis=1))
    same(X.repeat(2, axis=0), A.repeat(2, axis=0))
    same(X.std(ddof=1), A.std(ddof=1))
    same(X.trace(), A.trace())
    same(X.dot(X.T), A.dot(A.T))
    same(X.nonzero()[0], A.nonzero()[0])
    assert X.tobytes() == A.tobytes()
    assert (X.size, X.ndim, X.nbytes, X.itemsize, X.device) == (12, 2, 96, 8, "cpu")
    assert (X.numel(), X.dim(), X.is_floating_point(), X.is_complex()) == (12, 2, True, False)


# -- networks --------------------------------------------------------------------------------------


def test_networks():
    weight, bias = tj.asarray(A[0]), tj.asarray(A[1])
    normal = (A - A.mean(-1, keepdims=True)) / np.sqrt(A.var(-1, keepdims=True) + 1e-5)
    same(tj.layer_norm(X), normal)
    same(tj.nn.layer_norm(X, (4,), weight, bias), normal * A[0] + A[1])
    same(tj.layer_norm(X, 4, weight), normal * A[0])
    with pytest.raises(errors.ShapeError, match="last axes"):
        tj.layer_norm(X, (3,))
    same(tj.rms_norm(X, eps=0.0), A / np.sqrt((A * A).mean(-1, keepdims=True)))
    same(tj.leaky_relu(X, 0.1), np.where(A > 0, A, 0.1 * A))
    same(tj.gelu(X), [[v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in r] for r in A])
    same(tj.linear(X, X), A @ A.T)
    same(tj.log_softmax(X, dim=0).exp().sum(0), np.ones(4))
    same(tj.softmax(tj.asarray(3.0), dim=0), 1.0)
    labels = tj.asarray([1, 0, 3])
    loss = -np.log(np.exp(A) / np.exp(A).sum(1, keepdims=True))[[0, 1, 2], [1, 0, 3]]
    same(tj.cross_entropy(X, labels), loss.mean())
    same(tj.cross_entropy(X, tj.one_hot(labels, 4, dtype="float64"), "none"), loss)
    same(tj.nll_loss(tj.log_softmax(X, 1), labels, "sum"), loss.sum())
    same(tj.mse_loss(X, 0.0), (A * A).mean())
    q = tj.asarray(A[None])
    weights = np.exp(A @ A.T / 2)
    wanted = (weights / weights.sum(-1, keepdims=True)) @ A
    same(tj.scaled_dot_product_attention(q, q, q), wanted[None])
    same(tj.cdist(X, X[:2]), np.linalg.norm(A[:, None] - A[None, :2], axis=-1))
    same(tj.embedding(labels, tj.asarray(A.T)), A.T[[1, 0, 3]])
    mean, var = A.mean(0), A.var(0)
    same(tj.batch_norm(X, mean, var), (A - mean) / np.sqrt(var + 1e-5))
    same(tj.batch_norm(X, None, None, training=True), (A - mean) / np.sqrt(var + 1e-5))


# -- dtypes ----------------------------------------------------------------------------------------


def test_dtypes():
    assert tj.float32 == np.float32
    assert X.dtype is tj.float64
    assert tj.finfo(tj.float32).eps == np.finfo("f4").eps
    assert tj.iinfo("int8").max == 127
    assert tj.result_type(tj.int8, 3) == tj.int8
    assert tj.result_type(tj.float32, tj.asarray(1.0)) == tj.float64
    assert tj.promote_types("int8", "uint8") == tj.int16
    assert tj.isdtype(tj.int8, "integral")
    assert tj.isdtype(X.dtype, ("real floating", "bool"))
    assert not tj.isdtype(X.dtype, tj.float32)
    assert tj.can_cast(tj.int8, tj.float16)
    for wrong in (tj.finfo, tj.iinfo):
        with pytest.raises(TypeError):
            wrong("bool")
    assert tj.broadcast_shapes((3, 1), (4,)) == (3, 4)


# -- random numbers --------------------------------------------------------------------------------


def test_random_numbers_repeat_with_their_seed():
    tj.manual_seed(7)
    first = [tj.rand(3), tj.randn(2, 2), tj.randint(0, 10, (5,)), tj.randperm(6)]
    tj.random.manual_seed(7)
    again = [tj.rand(3), tj.randn(2, 2), tj.randint(0, 10, (5,)), tj.randperm(6)]
    for a, b in zip(first, again, strict=True):
        same(a, b.numpy())
    assert not tj.array_equal(tj.rand(8), tj.rand(8))
    assert sorted(first[3].tolist()) == list(range(6))
    assert 2.4 < tj.random.uniform(2, 3, 1000).mean().item() < 2.6
    assert abs(tj.random.normal(5, 0.1, 1000).mean().item() - 5) < 0.05
    assert tj.random.bernoulli(0.5, 10).dtype == np.bool_
    picked = tj.random.choice(5, 5, replace=False)
    assert sorted(picked.tolist()) == list(range(5))
    assert set(tj.random.choice([3, 9], 20, p=[0.0, 1.0]).tolist()) == {9}
    deck = tj.arange(10)
    tj.random.shuffle(deck)
    assert sorted(deck.tolist()) == list(range(10))
    with pytest.raises(ValueError, match="no integer"):
        tj.randint(3, 3)


def test_random_numbers_inside_a_trace():
    with Trace("f"):
        with pytest.raises(errors.TraceError, match="repeat on every call"):
            tj.rand(3)
        assert tj.rand(3, seed=1).shape == (3,)


# -- errors ----------------------------------------------------------------------------------------

WRONG: list[tuple[Callable[[], Any], type, str]] = [
    (lambda: X.sum(axis=2), IndexError, "axis 2"),
    (lambda: X.sum(axis=(0, 0)), ValueError, "twice"),
    (lambda: X.sum(axis=1.5), TypeError, "whole number"),
    (lambda: tj.zeros((0, 3)).max(), ValueError, "zero-size"),
    (lambda: tj.zeros((3, 0)).argmin(axis=1), ValueError, "zero-size"),
    (lambda: X.reshape(5, 2), ValueError, "reshape"),
    (lambda: X.reshape(-1, -1), ValueError, "reshape"),
    (lambda: X @ X, ValueError, "matmul"),
    (lambda: X @ 3.0, ValueError, "0-d"),
    (lambda: tj.einsum("ij,jk->ik", X, X), ValueError, "sizes .* in shapes"),
    (lambda: tj.concat([X, X.T]), ValueError, "concat"),
    (lambda: tj.concat([]), ValueError, "nothing"),
    (lambda: tj.stack([X, X.T]), ValueError, "stack"),
    (lambda: X + tj.zeros(3), ValueError, "broadcast"),
    (lambda: X & X, TypeError, "bitwise_and"),
    (lambda: tj.sqrt("text"), TypeError, "strings"),
    (lambda: tj.exp([[1], [1, 2]]), ValueError, "inhomogeneous"),
    (lambda: X.squeeze(0), ValueError, "size 1"),
    (lambda: tj.broadcast_to(X, (2, 2)), ValueError, "broadcast"),
    (lambda: X.permute(0), ValueError, "axes"),
    (lambda: X.permute(0, 0), ValueError, "twice"),
    (lambda: tj.split(X, 3, axis=1), ValueError, "equal parts"),
    (lambda: tj.take(X, [4], axis=1), IndexError, "index 4 is out of range for axis 1"),
    (lambda: tj.take(X, [0.5]), TypeError, "integers"),
    (lambda: tj.gather(X, 0, tj.asarray([0])), ValueError, "gather"),
    (lambda: tj.topk(X, 9), ValueError, "k = 9"),
    (lambda: tj.astype(X, "no such dtype"), TypeError, "not a dtype"),
    (lambda: tj.astype(X, "S3"), TypeError, "does not take"),
    (lambda: tj.quantile(X, 2.0), ValueError, r"\[0, 1\]"),
    (lambda: tj.tril(tj.zeros(3)), ValueError, "two axes|matrix"),
    (lambda: tj.where(X, 1), TypeError, "two values"),
    (lambda: tj.tensor([1.0], requires_grad=True), ValueError, "gradient"),
    (lambda: tj.linalg.inv(X), ValueError, "inv"),
    (lambda: tj.take(X, 17).item(), IndexError, "17"),
    (lambda: X[tj.asarray([1, 9])], IndexError, "index 9"),
    (lambda: X[tj.asarray([8]) + 1].numpy(), IndexError, "9"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), WRONG)
def test_errors(call: Callable[[], Any], kind: type[Exception], message: str):
    with pytest.raises(kind, match=message) as caught:
        call()
    assert isinstance(caught.value, errors.TracejitError)


def test_namespace():
    with pytest.raises(AttributeError):
        _ = tj.no_such_function  # type: ignore[attr-defined]
    assert {"jit", "trace", "kernels", "load", "exp", "Tensor"} <= set(dir(tj))
    assert not {"gate", "importlib", "sizes", "typing", "graph"} & set(dir(tj))
    with tj.num_threads(1):
        assert tj.num_threads() == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.sum(dim=5),
        lambda x: x.cumsum(axis=-3),
        lambda x: x.squeeze(2),
        lambda x: tj.softmax(x, dim=7),
        lambda x: tj.concatenate([x, x], axis=4),
        lambda x: tj.stack([x, x], axis=4),
        lambda x: x.unsqueeze(-4),
    ],
)
def test_an_axis_out_of_range_is_named_with_the_shape(call: Callable[[Any], Any]) -> None:
    message = r"axis -?\d is out of range .*shape \(4, 6\)"
    with pytest.raises(errors.AxisError, match=message) as caught:
        call(tj.ones(4, 6))
    assert isinstance(caught.value, IndexError)
    assert caught.value.loc is not None
