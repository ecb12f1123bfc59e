"""Convolutions of float32 in tile registers, which read the split image itself."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import config
from tracejit.codegen.contraction import gather
from tracejit.codegen.contraction.planes import Planes, planes_of, shapes
from tracejit.ops.table import Array
from tracejit.runtime import cpu, engine
from tracejit.runtime.demand import layout_of
from tracejit.runtime.executable import Executable
from tracejit.schedule.merged import Border, Walk, Walks

F32 = np.float32
TINY_CACHES = (4096, 32768, 65536)
tiles = pytest.mark.skipif(not cpu.target().tiles, reason="no AMX, or no leave to use it")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split small products of windows too."""
    monkeypatch.setattr(gather, "windows_pay", lambda *_: True)


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape, F32)


def wide(program: Any, *arrays: Array) -> Array:
    """Return what the interpreter finds in float64."""
    with config.override(disable_jit=True), np.errstate(all="ignore"):
        return program(*(tj.asarray(a.astype(np.float64)) for a in arrays)).numpy()


def compiled(program: Any, *arrays: Array, tiny: bool = False) -> Executable:
    target = cpu.target()
    if tiny:
        target = target.with_caches(*TINY_CACHES)
    graph = tj.trace(program, *arrays).source
    found = engine.compile_graph(graph, [layout_of(a) for a in arrays], target=target)
    assert any("split=True" in call.code.key.structure for call in found.calls)
    return found


def check(program: Any, x: Array, w: Array, *, tiny: bool = False) -> Array:
    """Compare with float64: no sum of K products may be further off than K roundings, or 12."""
    (got,) = compiled(program, x, w, tiny=tiny).run([x, w])
    want, depth = wide(program, x, w), max(w[0].size, 12)
    bound = depth * 2.0**-24 * wide(program, np.abs(x), np.abs(w)) + depth * 2.0**-150
    assert (got.dtype, got.shape) == (F32, want.shape)
    assert (np.abs(got - want) <= bound).all()
    return got


def conv(rank: int, **settings: Any) -> Any:
    function = getattr(tj.nn, f"conv{rank}d")
    return lambda x, w: function(x, w, None, **settings)


# Groups, outputs and inputs of each, kernel, stride, dilation, padding.
LAYERS = [
    (1, 17, 33, 3, 1, 1, 1), (2, 9, 5, 3, 2, 1, 1), (1, 33, 64, 1, 2, 1, 0), (3, 40, 2, 3, 1, 2, 2),
    (1, 16, 3, 5, 2, 1, 2), (1, 20, 2, 3, 3, 1, 0), (2, 12, 31, 2, 3, 2, 1), (1, 70, 9, 4, 1, 1, 3),
]  # fmt: skip


@tiles
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_layers(rank: int) -> None:
    rng = np.random.default_rng(rank)
    for groups, outputs, inputs, k, stride, dilation, padding in LAYERS:
        if k == rank == 1:  # a product of strided operands
            continue
        x = normal(rng, 2, groups * inputs, *(7, 9, 18)[-rank:])
        w = normal(rng, groups * outputs, inputs, *(k,) * rank)
        settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        program = conv(rank, **settings)
        for tiny in (False, True):
            check(program, x, w, tiny=tiny)


@tiles
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 31, 33])
def test_widths_around_the_tile(width: int) -> None:
    rng = np.random.default_rng(width)
    x, w = normal(rng, 1, 6, 5, width), normal(rng, 18, 6, 3, 3)
    for step in (1, 2):
        program = conv(2, padding=1, stride=step)
        same = check(program, x, w)
        spread = np.empty((2, 12, 10, 3 * width), F32)[:1, ::-2, ::2, ::-3]
        spread[...] = x
        turned = np.asfortranarray(w)
        assert check(program, spread, turned).tobytes() == same.tobytes()


@tiles
@pytest.mark.usefixtures("always")
def test_long_signals_are_cut_into_lines() -> None:
    rng = np.random.default_rng(1)
    for size, padding, stride in itertools.product((600, 601, 1024), (0, 2), (1, 2)):
        check(
            conv(1, padding=padding, stride=stride), normal(rng, 1, 3, size), normal(rng, 20, 3, 5)
        )


@tiles
@pytest.mark.usefixtures("always")
def test_what_stands_around_and_any_number_of_threads() -> None:
    rng = np.random.default_rng(2)
    x, w, bias = normal(rng, 3, 40, 30, 31), normal(rng, 70, 40, 3, 3), normal(rng, 70)

    def layer(x: Any, w: Any, bias: Any) -> Any:
        return tj.nn.relu(tj.nn.conv2d(x, w, bias, padding=1)) * 2

    for tiny in (False, True):
        executable = compiled(layer, x, w, bias, tiny=tiny)
        assert len({call.code.key.structure for call in executable.calls}) == 1
        (got,) = executable.run([x, w, bias])
        np.testing.assert_allclose(got, wide(layer, x, w, bias), rtol=1e-5, atol=1e-4)
    found: set[bytes] = set()
    for threads in (1, 2, 3):
        with tj.num_threads(threads):
            (got,) = compiled(layer, x, w, bias).run([x, w, bias])
            found.add(got.tobytes())
    assert len(found) == 1


@tiles
@pytest.mark.usefixtures("always")
def test_images_of_a_batch_share_packed_weights() -> None:
    rng = np.random.default_rng(3)
    w = normal(rng, 40, 8, 3, 3)
    found = {n: compiled(conv(2), normal(rng, n, 8, 9, 9), w).calls for n in (1, 2, 5)}
    assert [len(calls) for calls in found.values()] == [1, 2, 2]
    assert found[1][0].shared == 0  # the only tile that reads them packs them
    assert found[2][0].shared == found[5][0].shared > 0


SPECIAL = [np.inf, -np.inf, np.nan, 3.4028235e38, 1e-45, 1.1754944e-38, 2.0**103, -0.0]


@tiles
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("value", SPECIAL, ids=str)
def test_special_values_anywhere(value: float) -> None:
    """NaN and infinities where NumPy has them, in the windows that read them and no others."""
    rng = np.random.default_rng(4)
    program = conv(2, padding=1)
    for side, place in itertools.product((0, 1), ((0, 0, 0, 0), (0, 6, 2, 2), (0, 3, 1, 0))):
        operands = [normal(rng, 1, 7, 9, 30), normal(rng, 35, 7, 3, 3)]
        operands[side][place] = value
        for tiny in (False, True):
            (got,) = compiled(program, *operands, tiny=tiny).run(operands)
            want = wide(program, *operands)
            bound = 63 * 2.0**-24 * wide(program, *map(np.abs, operands))
            with np.errstate(all="ignore"):
                narrow = want.astype(F32)
                sure = np.isfinite(narrow) & (np.abs(want) + bound < 3e38)
                np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
                np.testing.assert_array_equal(got[np.isinf(want)], narrow[np.isinf(want)])
                assert (np.abs(got - want)[sure] <= bound[sure]).all()


@tiles
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("exponents", [(-120, 0), (-75, -60), (60, 60), (-149, 127)])
def test_ranges_beyond_the_tiles(exponents: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    shapes = (1, 7, 9, 30), (35, 7, 3, 3)
    with np.errstate(over="ignore"):
        x, w = (
            np.nan_to_num(np.ldexp(normal(rng, *shape), e).astype(F32))
            for shape, e in zip(shapes, exponents, strict=True)
        )
        check(conv(2, padding=1), x, w)


@tiles
def test_small_convolutions_and_other_levels_have_no_tiles() -> None:
    rng = np.random.default_rng(6)
    w = normal(rng, 64, 64, 3, 3)
    assert "tdpbf16ps" in tj.trace(conv(2), normal(rng, 1, 64, 30, 30), w).asm()
    assert "tdpbf16ps" not in tj.trace(conv(2), normal(rng, 1, 64, 5, 5), w).asm()
    with cpu.isa("avx2"):
        assert "tdpbf16ps" not in tj.trace(conv(2), normal(rng, 1, 64, 30, 30), w).asm()


def read(planes: Planes, image: Array) -> Array:
    """Return the matrix of windows that a kernel would read off the planes: depths by places."""
    volume = int(np.prod(planes.extents))
    lines = volume // planes.extents[-1]
    memory = np.zeros((planes.planes, lines, planes.extents[-1]))
    for i, channel in enumerate(planes.channels):
        for j, row in enumerate(planes.rows[channel.rows :][: planes.phases * lines]):
            for n in range(row.start, row.stop):
                at = channel.start + row.offset + n * planes.step
                memory[i * planes.phases + j // lines, j % lines, n] = image.flat[at]
    places = np.indices(planes.places).reshape(len(planes.places), -1)
    flat = np.ravel_multi_index(places, planes.extents)
    return memory.reshape(-1)[np.add.outer(planes.offsets(), flat)]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_planes_with_any_axes_folded_have_the_windows(stride: int, padding: int) -> None:
    channels, height, width, taps = 2, 6, 8, (3, 2)
    image = np.arange(1.0, 1 + channels * height * width).reshape(channels, height, width)
    padded = np.pad(image, [(0, 0), (padding, padding), (padding, padding)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps, axis=(1, 2))
    windows = windows[:, ::stride, ::stride].transpose(0, 3, 4, 1, 2)
    rows, columns = windows.shape[3:]
    walks = Walks(
        (Walk(channels, height * width), Walk(taps[0], width), Walk(taps[1], 1)),
        (Walk(rows, stride * width), Walk(columns, stride)),
        (
            Border(height, -padding, (0, 1, 0), (stride, 0)),
            Border(width, -padding, (0, 0, 1), (0, stride)),
        ) if padding else (),
        -padding * (width + 1),
    )  # fmt: skip
    found = shapes(walks)
    assert len(found) == 4
    for shape in found:
        planes = planes_of(walks, shape.folded)
        assert planes is not None
        assert (len(planes.channels), len(planes.taps)) == (shape.channels, shape.taps)
        assert (planes.phases, planes.places, planes.extents) == shape[2:3] + shape[4:]
        wanted = windows.reshape(channels * 6, rows * columns)
        assert (read(planes, image) == wanted).all()


def test_planes_of_a_long_signal_have_its_windows() -> None:
    size, taps = 600, 3
    signal = np.arange(1.0, 1 + size)
    for padding, stride in itertools.product((0, 1), (1, 2)):
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(signal, padding), taps)[::stride]
        borders = (Border(size, -padding, (1,), (stride,)),) if padding else ()
        walks = Walks((Walk(taps, 1),), (Walk(len(windows), stride),), borders, -padding)
        planes = planes_of(walks)
        assert planes is not None
        assert (read(planes, signal) == windows.T).all()
