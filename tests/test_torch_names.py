"""What only PyTorch names: losses, norms of groups, images, patches, additions at places.

Each function is called by itself and traced. The references are loops; where PyTorch is
installed its own answers are compared too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import errors

F = tj.nn.functional
RNG = np.random.default_rng(3)
X = RNG.standard_normal((2, 4, 5, 6)).astype(np.float32)
M = RNG.standard_normal((5, 7))
N = RNG.standard_normal((5, 7))
Call = Callable[..., Any]


def answers(function: Call, *arrays: Any) -> list[Any]:
    """Return what a function of tensors says by itself and compiled."""
    by_itself = function(*(tj.asarray(a) for a in arrays)).numpy()
    return [by_itself, tj.jit(function, compile="now")(*arrays)]


def check(function: Call, arrays: tuple[Any, ...], wanted: Any) -> None:
    for got in answers(function, *arrays):
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)


def as_torch(ours: Call, theirs: str, *arrays: Any) -> None:
    """Compare with the function of that path in torch, where there is one."""
    torch = pytest.importorskip("torch")
    space = {"torch": torch, "F": torch.nn.functional, "t": [torch.tensor(a) for a in arrays]}
    check(ours, arrays, eval(theirs, space).numpy())


# -- losses and norms ------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_smooth_l1_loss(beta: float) -> None:
    d = np.abs(M - N)
    wanted = np.where(d < beta, d * d / (2 * beta), d - beta / 2) if beta else d
    check(lambda x, y: F.smooth_l1_loss(x, y, beta=beta), (M, N), wanted.mean())
    check(lambda x, y: F.smooth_l1_loss(x, y, "none", beta), (M, N), wanted)


def test_kl_div_of_a_batch() -> None:
    log_p, q = np.log(np.abs(M)), np.abs(N)
    wanted = (q * (np.log(q) - log_p)).sum() / 5
    check(lambda x, y: F.kl_div(x, y, reduction="batchmean"), (log_p, q), wanted)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_and_instance_norm(groups: int) -> None:
    weight, bias = RNG.standard_normal((2, 4)).astype(np.float32)
    parts = X.astype(np.float64).reshape(2, groups, -1)
    centred = parts - parts.mean(-1, keepdims=True)
    normal = (centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)).reshape(X.shape)
    wanted = normal * weight[:, None, None] + bias[:, None, None]
    check(
        lambda x, w, b: F.group_norm(x, groups, w, b), (X, weight, bias), wanted.astype(np.float32)
    )
    check(lambda x: F.group_norm(x, groups), (X,), normal.astype(np.float32))
    if groups == 4:
        check(F.instance_norm, (X,), normal.astype(np.float32))


def test_cosine_similarity_along_any_axis() -> None:
    for axis in (0, 1):
        norms = np.linalg.norm(M, axis=axis) * np.linalg.norm(N, axis=axis)
        wanted = (M * N).sum(axis) / norms
        check(lambda x, y, a=axis: F.cosine_similarity(x, y, dim=a), (M, N), wanted)


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(5, 6), (10, 12), (3, 4), (7, 1)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "corners"])
def test_interpolation(size: tuple[int, int], mode: str) -> None:
    def sample(image: Any, axis: int, extent: int) -> Any:
        old, planes = image.shape[axis], []
        for i in range(extent):
            if mode == "nearest":
                planes.append(image.take(i * old // extent, axis))
                continue
            if mode == "corners":
                at = i * (old - 1) / (extent - 1) if extent > 1 else 0.0
            else:
                at = max((i + 0.5) * old / extent - 0.5, 0)
            low = min(int(at), old - 1)
            high = min(low + 1, old - 1)
            share = at - low
            planes.append(image.take(low, axis) * (1 - share) + image.take(high, axis) * share)
        return np.stack(planes, axis)

    wanted = sample(sample(X.astype(np.float64), 2, size[0]), 3, size[1]).astype(np.float32)
    name = "nearest" if mode == "nearest" else "bilinear"
    check(lambda x: F.interpolate(x, size, None, name, mode == "corners"), (X,), wanted)


@pytest.mark.parametrize(
    "arguments",
    ["scale_factor=2", "scale_factor=(1.5, 0.5), mode='bilinear'", "size=3, mode='area'",
     "size=(9, 11), mode='bicubic'", "scale_factor=2.5, mode='bicubic', align_corners=True",
     "size=(7, 9), mode='nearest-exact'"],
)  # fmt: skip
def test_interpolation_as_in_pytorch(arguments: str) -> None:
    ours = eval(f"lambda x: F.interpolate(x, {arguments})", {"F": F})
    as_torch(ours, f"F.interpolate(t[0], {arguments})", X)


def test_pixels_and_channels() -> None:
    wanted = np.empty((2, 1, 10, 12), np.float32)
    for i, j in itertools.product(range(2), repeat=2):
        wanted[:, 0, i::2, j::2] = X[:, 2 * i + j]
    check(lambda x: F.pixel_shuffle(x, 2), (X,), wanted)
    check(lambda x: F.pixel_unshuffle(x, 2), (wanted,), X)


@pytest.mark.parametrize(
    ("kernel", "dilation", "padding", "stride"),
    [(2, 1, 0, 1), ((3, 2), 1, 1, 2), (2, (2, 3), (1, 0), 1), ((5, 6), 1, 0, 1)],
)
def test_patches(kernel: Any, dilation: Any, padding: Any, stride: Any) -> None:
    k, d, p, s = (np.broadcast_to(v, 2) for v in (kernel, dilation, padding, stride))
    image = np.pad(X, ((0, 0), (0, 0), (p[0], p[0]), (p[1], p[1])))
    spans = [
        range(0, n - (a - 1) * b, c) for n, a, b, c in zip(image.shape[2:], k, d, s, strict=True)
    ]
    columns = [
        image[:, :, i : i + k[0] * d[0] : d[0], j : j + k[1] * d[1] : d[1]].reshape(2, -1)
        for i in spans[0]
        for j in spans[1]
    ]
    wanted = np.stack(columns, -1)
    check(lambda x: F.unfold(x, kernel, dilation, padding, stride), (X,), wanted)


@pytest.mark.parametrize(
    ("widths", "mode", "numpy_mode"),
    [((1, 2), "constant", "constant"), ((1, 0, 2, 3), "reflect", "reflect"),
     ((0, 1, 1, 1), "replicate", "edge"), ((2, 2), "circular", "wrap")],
)  # fmt: skip
def test_borders(widths: Any, mode: str, numpy_mode: Any) -> None:
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    grown: Any = [(0, 0)] * (4 - len(pairs)) + pairs[::-1]
    check(lambda x: F.pad(x, widths, mode), (X,), np.pad(X, grown, numpy_mode))


def test_negative_borders_crop() -> None:
    wanted = np.pad(X[..., :4, 1:], ((0, 0), (0, 0), (2, 0), (0, 1)), constant_values=9)
    check(lambda x: F.pad(x, (-1, 1, 2, -1), value=9), (X,), wanted)


# -- additions and methods -------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
def test_scatter_add(axis: int) -> None:
    index = RNG.integers(0, 5, (4, 6))
    wanted = M.copy()
    for i, j in np.ndindex(4, 6):
        place = (index[i, j], j) if axis == 0 else (i, index[i, j])
        wanted[place] += N[i, j]
    check(lambda x, i, s: tj.scatter_add(x, axis, i, s), (M, index, N), wanted)


METHODS: dict[str, tuple[Call, Any]] = {
    "narrow": (lambda x: x.narrow(1, -4, 3), M[:, 3:6]),
    "add": (lambda x: x.add(1, alpha=2), M + 2),
    "sub": (lambda x: x.sub(x, alpha=0.5), M - 0.5 * M),
    "addcmul": (lambda x: x.addcmul(x, x, value=2), M + 2 * M * M),
    "addcdiv": (lambda x: tj.addcdiv(x, 1.0, x), M + 1 / M),
    "unfold": (lambda x: x.unfold(1, 3, 2), np.stack([M[:, i : i + 3] for i in (0, 2, 4)], 1)),
    "diff": (lambda x: x.diff(dim=0), np.diff(M, axis=0)),
    "type": (lambda x: x.type("float32"), M.astype(np.float32)),
    "aminmax": (lambda x: tj.stack([*x.aminmax(dim=1)]), np.stack([M.min(1), M.max(1)])),
    "tensordot": (lambda x: tj.tensordot(x, x, dims=([1], [1])), M @ M.T),
    "baddbmm": (lambda x: tj.baddbmm(x[:5, :5], x[None], x.T[None], beta=2, alpha=3),
                (2 * M[:5, :5] + 3 * (M @ M.T))[None]),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    function, wanted = METHODS[name]
    check(lambda x: function(tj.asarray(x)), (M,), wanted)


def test_diagonals_are_filled_in_place() -> None:
    for shape in ((3, 3), (2, 4), (4, 2)):
        x, wanted = tj.zeros(shape), np.zeros(shape)
        np.fill_diagonal(wanted, 7)
        assert x.fill_diagonal_(7) is x
        np.testing.assert_array_equal(x.numpy(), wanted)


def test_functional_is_nn() -> None:
    assert F is tj.nn
    assert tj.nn.functional.one_hot(tj.asarray([1]), 3).tolist() == [[0, 1, 0]]


def test_wrong_arguments() -> None:
    x, kinds = tj.asarray(X), errors
    for call, kind in (
        (lambda: F.group_norm(x, 3), kinds.ShapeError),
        (lambda: F.instance_norm(tj.ones(3)), kinds.ShapeError),
        (lambda: F.interpolate(x), kinds.ArgumentError),
        (lambda: F.interpolate(x, (1, 2, 3)), kinds.ShapeError),
        (lambda: F.interpolate(x, 3, mode="linear"), kinds.ValueArgumentError),
        (lambda: F.interpolate(tj.ones(3), 3), kinds.ShapeError),
        (lambda: F.pixel_shuffle(x, 3), kinds.ShapeError),
        (lambda: F.pixel_unshuffle(x, 2), kinds.ShapeError),
        (lambda: F.unfold(x, 9), kinds.ShapeError),
        (lambda: F.pad(x, (1,)), kinds.ShapeError),
        (lambda: F.pad(x, (1, 1), "mirror"), kinds.ValueArgumentError),
        (lambda: F.kl_div(1.0, 1.0, reduction="batchmean"), kinds.ShapeError),
        (lambda: F.smooth_l1_loss(x, x, beta=-1), kinds.ValueArgumentError),
        (lambda: tj.scatter_add(x, 0, [0], x), kinds.ShapeError),
        (lambda: x.narrow(0, 1, 2), kinds.ShapeError),
        (lambda: x.fill_diagonal_(0), kinds.ShapeError),
        (lambda: x.unfold(2, 2, 0), kinds.ValueArgumentError),
        (lambda: tj.baddbmm(M, M, M.T), kinds.ShapeError),
    ):
        with pytest.raises(kind):
            call()


# -- names that scripts written for PyTorch use ----------------------------------------------------


def test_names_of_dtypes_and_conversions() -> None:
    assert (tj.float, tj.int, tj.long, tj.short) == (tj.float32, tj.int32, tj.int64, tj.int16)
    assert tj.zeros((2, 1), dtype=tj.long).dtype == np.int64
    assert tj.is_tensor(tj.from_numpy(M))
    assert not tj.is_tensor(M)
    x = tj.as_tensor(M).half()
    assert (x.nelement(), x.element_size(), x.stride(), x.stride(1)) == (35, 2, (7, 1), 1)
    assert x.requires_grad is False
    for made, shape in ((x.new_zeros(2, 3), (2, 3)), (x.new_full((2,), 7.0), (2,))):
        assert made.dtype == np.float16
        assert made.shape == shape

    @tj.no_grad()
    def evaluate() -> Any:
        with tj.inference_mode():
            return x.sum()

    assert evaluate().shape == ()


def test_names_of_elementwise_functions_and_parts() -> None:
    check(tj.polar, (M, N), M * np.exp(1j * N))
    check(tj.frac, (M * 3,), M * 3 - np.trunc(M * 3))
    check(lambda x: x.clamp_min(-0.1).clamp_max(0.1), (M,), np.clip(M, -0.1, 0.1))
    check(lambda x: x.select(1, -2), (M,), M[:, -2])
    check(lambda x: tj.narrow(x, 1, 2, 3), (M,), M[:, 2:5])
    check(lambda x: x.index_fill(0, tj.tensor([0, 3]), 2.0)[:4:3], (M,), np.full((2, 7), 2.0))
    check(lambda x: tj.tensor_split(x, 3, dim=1)[0], (M,), M[:, :3])
    check(lambda x: tj.block_diag(x, 3.0)[-1], (M,), np.eye(1, 8, 7)[0] * 3)
    with pytest.raises(errors.IndexOutOfRange, match="index 9"):
        tj.asarray(M).select(0, 9)
    pairs = [[a, b] for a in (1, 2) for b in (3, 4, 5)]
    assert tj.cartesian_prod(tj.tensor([1, 2]), tj.tensor([3, 4, 5])).tolist() == pairs


def test_statistics_in_pairs() -> None:
    for axis in (0, 1):
        for function, numpy in ((tj.std_mean, np.std), (tj.var_mean, np.var)):
            check(lambda x, f=function, a=axis: f(x, a).spread, (M,), numpy(M, axis, ddof=1))
            check(lambda x, f=function, a=axis: f(x, a).mean, (M,), M.mean(axis))


def test_windows() -> None:
    np.testing.assert_allclose(tj.hann_window(8), np.hanning(9)[:8], atol=1e-7)
    np.testing.assert_allclose(tj.hamming_window(8, False), np.hamming(8), atol=1e-7)
    assert tj.hann_window(1).tolist() == [1.0]


def test_forms_in_place() -> None:
    def update(m: Any, v: Any, w: Any, g: Any) -> Any:
        m.mul_(0.9).add_(g, alpha=0.1)
        v.mul_(0.9).addcmul_(g, g, value=0.1)
        return w.addcdiv_(m, v.sqrt().add_(1e-3), value=-0.5)

    m, v, w = 0.9 * M + 0.1 * N, 0.9 * M * M + 0.1 * N * N, M - N
    check(update, (M, M * M, M - N, N), w - 0.5 * m / (np.sqrt(v) + 1e-3))
    x = tj.zeros((3, 2))
    x.scatter_(1, tj.tensor([[1], [0], [1]]), 5.0).index_add_(0, tj.tensor([2]), tj.ones((1, 2)))
    x.index_fill_(1, tj.tensor([0]), -1.0).clamp_max_(4.0)
    assert x.tolist() == [[-1, 4], [-1, 0], [-1, 4]]


def test_functions_of_networks() -> None:
    check(F.glu, (M[:, :6],), M[:, :3] / (1 + np.exp(-M[:, 3:6])))
    check(F.pairwise_distance, (M, N), np.linalg.norm(M - N + 1e-6, axis=1))
    bags = np.array([[0, 4], [2, 2]])
    for mode in ("mean", "sum", "max"):
        wanted = getattr(M[bags], mode)(1)
        check(lambda i, w, m=mode: F.embedding_bag(i, w, mode=m), (bags, M), wanted)
    p, t = RNG.random((3, 4)), RNG.random((3, 4))
    p[0] = 0, 1, 0, 1
    with np.errstate(divide="ignore"):
        wanted = -(t * np.maximum(np.log(p), -100) + (1 - t) * np.maximum(np.log1p(-p), -100))
    check(lambda p, t: F.binary_cross_entropy(p, t, "none"), (p, t), wanted)


def test_draws() -> None:
    weights = np.array([[0.0, 1.0, 3.0], [1.0, 0.0, 0.0]])
    drawn = tj.multinomial(weights, 4000, replacement=True, seed=1).numpy()
    assert drawn.shape == (2, 4000)
    assert set(drawn[0]) == {1, 2}
    assert set(drawn[1]) == {0}
    assert abs((drawn[0] == 2).mean() - 0.75) < 0.05
    first = [tj.multinomial(weights[0], 2, seed=s).tolist() for s in range(200)]
    assert all(sorted(f) == [1, 2] for f in first)
    assert abs(np.mean([f[0] == 2 for f in first]) - 0.75) < 0.15
    with pytest.raises(errors.ValueArgumentError, match="5 of 3"):
        tj.multinomial(weights, 5)
    assert tj.randint(5, (4, 2)).shape == (4, 2)
    assert tj.randn_like(X).dtype == np.float32
    assert abs(tj.bernoulli(tj.full((5000,), 0.3), seed=2).mean().item() - 0.3) < 0.05
    assert -1 <= tj.empty(50).uniform_(-1, 0).max().item() < 0
    assert tj.empty(50).normal_(100, 1).min().item() > 90
