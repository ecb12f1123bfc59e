"""Float32 products in tile registers: error bounds, numbers that tiles do not take, layouts."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.codegen.contraction import prologue
from tracejit.codegen.contraction.prologue import split_pays
from tracejit.ops.table import Array
from tracejit.runtime import cpu, engine
from tracejit.runtime.demand import layout_of
from tracejit.runtime.executable import Executable

pytestmark = [
    pytest.mark.skipif(not cpu.target().tiles, reason="no AMX, or no leave to use it"),
    pytest.mark.usefixtures("highest", "always"),
]

F32 = np.float32
TINY_CACHES = (4096, 32768, 65536)
ROWS, COLUMNS = 128, 160


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split small products too."""
    monkeypatch.setattr(prologue, "split_pays", lambda *_: True)


def product(a: Any, b: Any) -> Any:
    return a @ b


def compiled(function: Any, *values: Array, tiny: bool = False) -> Executable:
    target = cpu.target()
    if tiny:
        target = target.with_caches(*TINY_CACHES)
    graph = tj.trace(function, *values).source
    found = engine.compile_graph(graph, [layout_of(v) for v in values], target=target)
    assert any("split" in c.code.key.structure for c in found.calls)
    return found


def compute(function: Any, *values: Array, tiny: bool = False) -> Array:
    (got,) = compiled(function, *values, tiny=tiny).run(values)
    return got


def check(a: Array, b: Array, *, tiny: bool = False) -> Array:
    """Compare with float64: no sum of K products may be further off than K roundings, or 12."""
    got = compute(product, a, b, tiny=tiny)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    bound = (
        max(a.shape[-1], 12) * 2.0**-24 * (np.abs(wide_a) @ np.abs(wide_b))
        + a.shape[-1] * 2.0**-150
    )
    assert got.dtype == F32
    assert (np.abs(got - wide_a @ wide_b) <= bound).all()
    return got


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape, F32)


def layouts(x: Array) -> list[Array]:
    """Return ``x`` by rows, by columns, with gaps, and backwards."""
    gaps = np.zeros((x.shape[0], 2 * x.shape[1]), F32)[:, ::2]
    gaps[...] = x
    return [x, np.asfortranarray(x), gaps, np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]]


@pytest.mark.parametrize("m", [2, 15, 16, 17, 31, 32, 33, 48, 65])
def test_sizes_around_the_tile(m: int) -> None:
    rng = np.random.default_rng(m)
    for n, k in itertools.product((2, 16, 17, 31, 32, 33, 49), (5, 31, 32, 65)):
        check(normal(rng, m, k), normal(rng, k, n))
    check(normal(rng, m, 2000), normal(rng, 2000, 40))


@pytest.mark.parametrize("tiny", [False, True])
def test_layouts(tiny: bool) -> None:
    rng = np.random.default_rng(1)
    a, b = normal(rng, 130, 205), normal(rng, 205, 197)
    same = check(a, b, tiny=tiny)
    for x, y in itertools.product(layouts(a), layouts(b)):
        assert check(x, y, tiny=tiny).tobytes() == same.tobytes()
    # More rows than columns: the other operand is packed ahead.
    turned = check(np.ascontiguousarray(b.T), np.ascontiguousarray(a.T), tiny=tiny)
    np.testing.assert_allclose(turned, same.T, rtol=1e-5, atol=1e-5)


def test_batches_broadcast_and_any_number_of_threads() -> None:
    rng = np.random.default_rng(2)
    a, b = normal(rng, 3, 1, 130, 200), normal(rng, 2, 200, 300)
    found: set[bytes] = set()
    for threads in (1, 2, 3):
        with tj.num_threads(threads):
            found.add(check(a, b).tobytes())
    assert len(found) == 1


def test_batches_are_packed_in_parts() -> None:
    """As many elements at a time as the second-level cache has room for: two of these."""
    rng = np.random.default_rng(13)
    a, b = normal(rng, 9, 40, 16), normal(rng, 9, 16, 20)
    got = check(a, b, tiny=True)
    for element, x, y in zip(got, a, b, strict=True):
        assert element.tobytes() == compute(product, x, y, tiny=True).tobytes()
    again = normal(rng, 4, 3, 40, 16), normal(rng, 3, 16, 20)
    check(*again, tiny=True)


def test_what_stands_around_the_product_is_computed_with_it() -> None:
    rng = np.random.default_rng(3)
    x, w, bias = normal(rng, 200, 300), normal(rng, 300, 260), normal(rng, 260)

    def layer(x: Any, w: Any, bias: Any) -> Any:
        return np.maximum(np.maximum(x, 0) @ (w * F32(2)) + bias, 0)

    for tiny in (False, True):
        executable = compiled(layer, x, w, bias, tiny=tiny)
        assert len({c.code.key.structure for c in executable.calls}) == 1
        (got,) = executable.run([x, w, bias])
        wanted = layer(x.astype(np.float64), w.astype(np.float64), bias.astype(np.float64))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4)


def test_integers_and_selections_are_exact() -> None:
    rng = np.random.default_rng(4)
    a, b = (rng.integers(-99, 99, s).astype(F32) for s in ((ROWS, 300), (300, COLUMNS)))
    assert (compute(product, a, b) == a.astype(int) @ b.astype(int)).all()
    chosen = rng.integers(0, 300, ROWS)
    one_hot = (np.arange(300) == chosen[:, None]).astype(F32)
    table = rng.standard_normal((300, COLUMNS)).astype(F32)
    assert compute(product, one_hot, table).tobytes() == table[chosen].tobytes()


SPECIAL = [
    np.inf, -np.inf, np.nan, 3.4028235e38, -1.7e38, 2.0**127, 1e-45, 1.1754944e-38, -2.0**-110,
    2.0**-103, 0.0, -0.0,
]  # fmt: skip
SNAN = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF], np.uint32).view(F32)


@pytest.mark.parametrize("value", [*SPECIAL, *SNAN], ids=str)
def test_special_values_anywhere(value: float) -> None:
    """NaN and infinities where NumPy has them; all else within its bound, beside them too."""
    rng = np.random.default_rng(5)
    for side, place in itertools.product((0, 1), ((0, 0), (17, 33), (95, 95), (40, 7))):
        operands = [normal(rng, ROWS, 100), normal(rng, 100, COLUMNS)]
        operands[side][place] = value
        a, b = operands
        with np.errstate(all="ignore"):
            want = a.astype(np.float64) @ b.astype(np.float64)
            bound = 100 * 2.0**-24 * (np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)))
            narrow = want.astype(F32)
            sure = np.isfinite(narrow) & (np.abs(want) + bound < 3e38)
            got = compute(product, a, b)
            np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
            np.testing.assert_array_equal(got[np.isinf(want)], narrow[np.isinf(want)])
            assert (np.abs(got - want)[sure] <= bound[sure]).all()


def test_nan_do_not_hide_infinities() -> None:
    """Of a panel's range the same lane sees the one after the other, and other rows neither."""
    rng = np.random.default_rng(12)
    for late in (np.nan, *SNAN):
        a, b = normal(rng, ROWS, 100), normal(rng, 100, COLUMNS)
        a[2, 5], a[4, 5], b[1, 7], b[60, 7] = np.inf, late, -np.inf, late
        with np.errstate(all="ignore"):
            want = a @ b
        np.testing.assert_allclose(compute(product, a, b), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("exponents", [(-120, 0), (-75, -60), (-140, 100), (60, 60), (-149, 127)])
def test_ranges_beyond_the_tiles(exponents: tuple[int, int]) -> None:
    """Where products of the parts would be subnormal, or sums of them overflow."""
    rng = np.random.default_rng(6)
    a, b = (
        np.ldexp(normal(rng, *shape), e).astype(F32)
        for shape, e in zip(((ROWS, 150), (150, COLUMNS)), exponents, strict=True)
    )
    with np.errstate(over="ignore"):
        check(np.nan_to_num(a), np.nan_to_num(b))


def test_small_numbers_among_large_ones() -> None:
    """Tiles drop what is subnormal, which shows only where there is nothing larger."""
    rng = np.random.default_rng(7)
    a, b = normal(rng, ROWS, 150), normal(rng, 150, COLUMNS)
    a[::3] *= F32(1e-36)
    b[:, ::5] *= F32(1e-30)
    a[5] = 0
    a[7, 1:] = 0
    a[7, 0] = 1e-44
    check(a, b)


def test_results_that_cancel() -> None:
    rng = np.random.default_rng(8)
    a, b = normal(rng, ROWS, 150), normal(rng, 150, COLUMNS)
    check(np.hstack([a, -a]), np.vstack([b, b]))
    check(np.hstack([a, a]), np.vstack([b, -b]) * F32(1e-30))


def test_a_wide_range_in_every_row() -> None:
    rng = np.random.default_rng(9)
    scales = np.ldexp(1.0, rng.integers(-120, 0, 150)).astype(F32)
    check(normal(rng, ROWS, 150) * scales, normal(rng, 150, COLUMNS))
    check(normal(rng, ROWS, 150), normal(rng, 150, COLUMNS) * scales[:, None])


def test_sums_of_products_with_their_own_transpose_are_symmetric() -> None:
    rng = np.random.default_rng(10)
    for n, k in [(128, 64), (130, 200), (200, 700)]:
        x = normal(rng, n, k)
        got = compute(lambda x: x @ x.T, x)
        assert got.tobytes() == np.ascontiguousarray(got.T).tobytes()


def test_small_products_and_other_levels_have_no_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prologue, "split_pays", split_pays)
    rng = np.random.default_rng(11)
    assert "tdpbf16ps" in tj.trace(product, normal(rng, 128, 128), normal(rng, 128, 128)).asm()
    assert "tdpbf16ps" not in tj.trace(product, normal(rng, 64, 64), normal(rng, 64, 64)).asm()
    assert "tdpbf16ps" not in tj.trace(product, normal(rng, 8, 512), normal(rng, 512, 512)).asm()
    with cpu.isa("avx2"):
        text = tj.trace(product, normal(rng, 128, 128), normal(rng, 128, 128)).asm()
    assert "tdpbf16ps" not in text
