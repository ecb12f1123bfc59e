"""Convolution and pooling: PyTorch's results and signatures, NumPy's for vectors, and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.errors import ShapeError, ValueArgumentError

Array = np.ndarray[Any, np.dtype[Any]]

RNG = np.random.default_rng(11)
SPATIAL = (13, 18, 9)


def same(got: Any, wanted: Any, tolerance: float = 1e-11) -> None:
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def random(*shape: int) -> Array:
    return RNG.standard_normal(shape)


# kernel, stride, padding, dilation, groups, channels in and out
CONVOLUTIONS = [
    (3, 1, 1, 1, 1, 4, 6), (1, 1, 0, 1, 1, 4, 6), (1, 2, 0, 1, 1, 4, 6), (3, 2, 1, 1, 1, 3, 8),
    (3, 1, 2, 2, 2, 4, 6), (3, 1, 1, 1, 4, 4, 4), (3, 2, 1, 1, 4, 4, 8), (2, 3, 1, 2, 2, 4, 6),
    (5, 2, 2, 1, 1, 2, 17), (4, 2, 1, 1, 1, 3, 4), (6, 3, 4, 1, 2, 4, 6),
]  # fmt: skip


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_as_in_pytorch(rank: int, case: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    k, stride, padding, dilation, groups, channels, outputs = case
    x = random(2, channels, *SPATIAL[:rank])
    w = random(outputs, channels // groups, *(k,) * rank)
    bias = random(outputs)
    settings = (stride, padding, dilation, groups)
    ours, theirs = (getattr(m, f"conv{rank}d") for m in (tj.nn, torch.nn.functional))
    tensors = [torch.from_numpy(a) for a in (x, w, bias)]
    same(tj.jit(lambda x, w, b: ours(x, w, b, *settings))(x, w, bias), theirs(*tensors, *settings))
    if rank < 3:
        same(ours(x[0], w, None, *settings), theirs(tensors[0][0], tensors[1], None, *settings))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_transposed_convolution_as_in_pytorch(rank: int, case: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    k, stride, padding, dilation, groups, channels, outputs = case
    x = random(2, channels, *SPATIAL[:rank])
    w = random(channels, outputs // groups, *(k,) * rank)
    bias = random(outputs)
    ours, theirs = (getattr(m, f"conv_transpose{rank}d") for m in (tj.nn, torch.nn.functional))
    tensors = [torch.from_numpy(a) for a in (x, w, bias)]
    extra = max(stride, dilation) - 1
    settings = (stride, padding, extra, groups, dilation)
    same(tj.jit(lambda x, w, b: ours(x, w, b, *settings))(x, w, bias), theirs(*tensors, *settings))


def test_phases_of_a_transposed_convolution_share_one_product(level: str) -> None:
    """Where the stride divides the kernel; the weights are put in order before it."""
    x, bias = random(2, 6, 11, 19), random(4)
    for k, stride, padding, extra in [(4, 2, 1, 0), (2, 2, 0, 0), (6, 3, 2, 2), (4, 2, 3, 1)]:
        for groups in (1, 2):
            w = random(6, 4 // groups, k, k)
            settings = (stride, padding, extra, groups)

            def program(x: Any, w: Any, b: Any, s: Any = settings) -> Any:
                return tj.nn.conv_transpose2d(x, w, b, *s)

            traced = tj.trace(program, x, w, bias)
            assert [n.op.name for n in traced.graph.nodes].count("matmul") == 1
            got: Any = tj.jit(program, compile="now")(x, w, bias)
            same(got, traced_by_numpy(program, x, w, bias))


# kernel, stride, padding, dilation, ceil_mode
POOLS = [
    (2, None, 0, 1, False), (3, 2, 1, 1, False), (3, 2, 1, 1, True), (3, 1, 1, 2, False),
    (2, 3, 1, 1, True), (5, 3, 2, 1, True), (3, 2, 0, 1, True), (6, 6, 0, 1, False),
]  # fmt: skip


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("case", POOLS, ids=str)
def test_pooling_as_in_pytorch(rank: int, case: tuple[Any, ...]) -> None:
    torch = pytest.importorskip("torch")
    k, stride, padding, dilation, ceil_mode = case
    x = random(2, 3, *SPATIAL[:rank])
    x[0, 0, 3] = np.nan
    tensor = torch.from_numpy(x)
    ours, theirs = (getattr(m, f"max_pool{rank}d") for m in (tj.nn, torch.nn.functional))
    settings = (k, stride, padding, dilation, ceil_mode)
    same(tj.jit(lambda x: ours(x, *settings))(x), theirs(tensor, *settings))
    ours, theirs = (getattr(m, f"avg_pool{rank}d") for m in (tj.nn, torch.nn.functional))
    for counts in (True, False):
        settings = (k, stride, padding, ceil_mode, counts)
        same(tj.jit(lambda x: ours(x, *settings))(x), theirs(tensor, *settings))  # noqa: B023
    if rank > 1:
        same(ours(x, *settings, 7), theirs(tensor, *settings, 7))


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 6, 9])
def test_adaptive_pooling_as_in_pytorch(rank: int, size: int) -> None:
    torch = pytest.importorskip("torch")
    x = random(2, 3, *SPATIAL[:rank])
    for kind in ("avg", "max"):
        name = f"adaptive_{kind}_pool{rank}d"
        ours, theirs = getattr(tj.nn, name), getattr(torch.nn.functional, name)
        same(tj.jit(lambda x: ours(x, size))(x), theirs(torch.from_numpy(x), size))  # noqa: B023
    if rank == 2:
        wanted = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x), (None, size))
        same(tj.nn.adaptive_avg_pool2d(x, (None, size)), wanted)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("sizes", [(9, 3), (3, 9), (8, 4), (4, 8), (1, 1), (99, 40), (40, 99)])
def test_numpy_convolve_and_correlate_trace(mode: Any, sizes: tuple[int, int]) -> None:
    a, v = random(sizes[0]), random(sizes[1])
    for dtype in (np.float64, np.int32, np.complex128):
        x, y = (5 * a).astype(dtype), (5 * v).astype(dtype)
        if dtype is np.complex128:
            y = y * (1 - 2j)
        for function in (np.convolve, np.correlate):
            got = tj.jit(lambda x, y: function(x, y, mode))(x, y)  # noqa: B023
            same(got, function(x, y, mode))


def test_convolve_is_native() -> None:
    for size in (5, 50):
        traced = tj.trace(lambda a, v: np.convolve(a, v, "same"), random(300), random(size))
        assert "opaque" not in repr(traced.schedule)


def test_same_and_valid_padding() -> None:
    x, w = random(1, 2, 9, 10), random(3, 2, 4, 3)
    settings: dict[str, Any] = {"dilation": (1, 2)}
    padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (2, 2)))
    same(tj.nn.conv2d(x, w, padding="same", **settings), tj.nn.conv2d(padded, w, **settings))
    same(tj.nn.conv2d(x, w, padding="valid"), tj.nn.conv2d(x, w, padding=0))


def test_no_convolution_or_pooling_runs_in_numpy() -> None:
    x, w = random(2, 4, 12, 12).astype(np.float32), random(6, 2, 3, 3).astype(np.float32)

    def program(x: Any, w: Any) -> Any:
        h = tj.nn.conv2d(x, w, stride=2, padding=1, dilation=2, groups=2)
        h = tj.nn.conv_transpose2d(h, tj.reshape(w, (6, 2, 3, 3)), stride=2, groups=2)
        h = tj.nn.max_pool2d(h, 3, 2, 1, ceil_mode=True)
        return tj.nn.avg_pool2d(h, 2, 1, 1, count_include_pad=False)

    traced = tj.trace(program, x, w)
    assert "opaque" not in repr(traced.schedule)
    same(tj.jit(program)(x, w), traced_by_numpy(program, x, w), 2e-5)


def traced_by_numpy(program: Any, *arrays: Array) -> Array:
    from tracejit import config

    with config.override(disable_jit=True):
        return np.asarray(program(*(tj.asarray(a) for a in arrays)))


def test_bad_shapes_name_both_and_say_what_fits() -> None:
    x, w = np.zeros((1, 4, 8, 8)), np.zeros((6, 3, 3, 3))
    with pytest.raises(ShapeError, match=r"conv2d: input of shape \(1, 4, 8, 8\) and weight") as e:
        tj.nn.conv2d(x, w)
    assert "(6, 3, 3, 3)" in str(e.value)
    assert "C/groups" in str(e.value)
    assert "test_convolution.py" in str(e.value)
    with pytest.raises(ShapeError, match=r"bias of shape \(5,\) for 6 output channels"):
        tj.nn.conv2d(x, np.zeros((6, 4, 3, 3)), np.zeros(5))
    with pytest.raises(ShapeError, match=r"a window of \(9, 9\) does not fit"):
        tj.nn.conv2d(x, np.zeros((6, 4, 9, 9)))
    with pytest.raises(ShapeError, match=r"conv1d: the input's shape is \(1, 4, 8, 8\)"):
        tj.nn.conv1d(x, w)
    with pytest.raises(ShapeError, match="conv_transpose2d: input of shape"):
        tj.nn.conv_transpose2d(x, w)
    with pytest.raises(ShapeError, match=r"max_pool2d: the input's shape is \(4,\)"):
        tj.nn.max_pool2d(np.zeros(4), 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 0}, "stride"), ({"dilation": (1, 0)}, "dilation"), ({"padding": -1}, "padding"),
        ({"groups": 0}, "groups"), ({"stride": (1, 2, 3)}, "3 numbers"),
        ({"padding": "full"}, "'valid', 'same'"), ({"padding": "same", "stride": 2}, "'same'"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueArgumentError, match=message):
        tj.nn.conv2d(np.zeros((1, 4, 8, 8)), np.zeros((6, 4, 3, 3)), **settings)


def test_bad_pools_are_named() -> None:
    x = np.zeros((1, 4, 8, 8))
    with pytest.raises(ValueArgumentError, match="at most half a window"):
        tj.nn.max_pool2d(x, 2, padding=2)
    with pytest.raises(ValueArgumentError, match="divisor"):
        tj.nn.avg_pool2d(x, 2, divisor_override=0)
    with pytest.raises(ValueArgumentError, match="output_padding"):
        tj.nn.conv_transpose2d(x, np.zeros((4, 4, 3, 3)), output_padding=1)
