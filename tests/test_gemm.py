"""Generated matrix products on every level: values, error bounds, bits, strides, batches."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import sys
from typing import Any

import numpy as np
import pytest
from gemm_harness import Call, bind, module_text, problem_of

from tracejit.codegen.contraction import (
    GemmProblem,
    canonical,
    classify,
    gemm_arguments,
    packed_bytes,
    plan,
    tile_count,
    tile_grain,
    workspace_bytes,
)
from tracejit.codegen.contraction.spec import Slot
from tracejit.codegen.llvm import assembly
from tracejit.codegen.target import LEVELS, Target
from tracejit.errors import DTypeError
from tracejit.record import replace
from tracejit.runtime import cpu

Array = np.ndarray[Any, np.dtype[Any]]

# Levels that the machine lacks run as the shape of their code in the machine's instructions.
EMULATED = [f"{name}-on-{cpu.host_level()}" for name in LEVELS if name not in cpu.levels()]
TARGETS = [cpu.target(name) for name in (*cpu.levels(), *EMULATED)]
DTYPES = [np.float32, np.float64, np.int32, np.int64]
targets = pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)

# Caches so small that sizes of a few dozen span several tiles and depth blocks.
TINY_CACHES = (6 * 1024, 8 * 1024, 64 * 1024)

SIZES = [1, 2, 3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 31, 33, 64, 65, 97, 257]


def random(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def laid_out(values: Array, how: str) -> Array:
    """Return an equal array with other strides: rows, columns, every 2nd/3rd, backwards."""
    shape = values.shape
    if how == "columns":
        out = np.empty((*shape[:-2], shape[-1], shape[-2]), values.dtype).swapaxes(-1, -2)
    elif how == "strided":
        out = np.empty((*shape[:-2], 2 * shape[-2], 3 * shape[-1]), values.dtype)[..., ::2, ::3]
    elif how == "backwards":
        out = np.empty_like(values)[..., ::-1, ::-1]
    elif how == "flipped":
        out = np.empty_like(values)[..., ::-1, :]
    else:
        out = np.empty_like(values)
    out[...] = values
    return out


def check(a: Array, b: Array, c: Array) -> None:
    """Compare with the exact product (integers modulo 2^n; floats within the error bound).

    A sum of K products in any fixed order errs by at most γ(K) Σ|a||b| with
    γ(K) = K·u / (1 - K·u), u half an ulp of 1 (N. Higham, Accuracy and Stability of Numerical
    Algorithms, 2nd ed., §3.1); the rounding to the stored result is part of it.
    """
    if c.dtype.kind != "f":
        unsigned = np.dtype(f"u{c.itemsize}")
        wide = np.matmul(a.astype(unsigned), b.astype(unsigned))
        np.testing.assert_array_equal(c.astype(unsigned), wide)
        return
    high = np.float64 if c.dtype == np.float32 else np.longdouble
    exact = np.matmul(a.astype(high), b.astype(high))
    size = np.matmul(abs(a).astype(high), abs(b).astype(high))
    unit = np.finfo(c.dtype).eps / 2 * max(1, a.shape[-1])
    assert (abs(c - exact) <= unit / (1 - unit) * size).all()


def product(target: Target, a: Array, b: Array, c: Array, **options: Any) -> Array:
    c[...] = 77
    bind(target, a, b, c, **options)()
    check(a, b, c)
    return c


@targets
@dtypes
def test_every_size_around_the_blocking(target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    small = target.with_caches(*TINY_CACHES)
    for m, n in itertools.product(SIZES, SIZES):
        k = SIZES[(m * 7 + n * 3) % len(SIZES)]
        if m * n * k > 300_000:
            k = 9
        a, b = random(rng, (m, k), dtype), random(rng, (k, n), dtype)
        product(small, a, b, np.empty((m, n), dtype))


@targets
@dtypes
@pytest.mark.parametrize("packed", [(False, False), (False, True), (True, True)])
def test_packed_and_direct_agree(target: Target, dtype: Any, packed: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(2)
    pack_a, pack_b = packed
    for m, n, k in [(1, 1, 1), (7, 17, 5), (29, 35, 64), (65, 33, 31), (31, 97, 130)]:
        a, b = random(rng, (m, k), dtype), random(rng, (k, n), dtype)
        c = np.empty((m, n), dtype)
        small = target.with_caches(*TINY_CACHES)
        product(small, a, b, c, kind="gemm", pack_a=pack_a, pack_b=pack_b)


@targets
@pytest.mark.parametrize(
    ("dtype", "packed"), [(np.float32, False), (np.float32, True), (np.int64, True)]
)
def test_every_pair_of_layouts(target: Target, dtype: Any, packed: bool) -> None:
    rng = np.random.default_rng(3)
    # Layouts of one class share code. C's follows from theirs so that all pairs of classes occur.
    classes = {"rows": 0, "flipped": 0, "columns": 1, "strided": 2, "backwards": 2}
    small = target.with_caches(*TINY_CACHES)
    for first, second in itertools.product(classes, classes):
        third = ("rows", "columns", "strided")[(classes[first] + classes[second]) % 3]
        for m, n, k in [(19, 21, 37), (33, 5, 18), (21, 34, 66)]:
            a = laid_out(random(rng, (m, k), dtype), first)
            b = laid_out(random(rng, (k, n), dtype), second)
            c = laid_out(np.empty((m, n), dtype), third)
            options = {"pack_a": True, "pack_b": True} if packed else {}
            product(small, a, b, c, **options)


@targets
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32], ids=lambda t: t.__name__)
def test_one_row_one_column_and_dots(target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(4)
    for first, second in itertools.product(["rows", "columns", "strided"], repeat=2):
        for m, n in [(1, 1), (1, 9), (1, 67), (9, 1), (67, 1)]:
            for k in (1, 7, 8, 33, 100):
                a = laid_out(random(rng, (m, k), dtype), first)
                b = laid_out(random(rng, (k, n), dtype), second)
                product(target, a, b, np.empty((m, n), dtype))


@targets
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32], ids=lambda t: t.__name__)
def test_few_rows_are_dotted_with_columns_in_place(target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(14)
    for m, n, k in [(2, 9, 16), (3, 33, 17), (4, 67, 33), (5, 10, 100), (7, 31, 31), (8, 32, 40)]:
        for layout in ("rows", "strided"):
            a, b = random(rng, (m, k), dtype), laid_out(random(rng, (k, n), dtype), "columns")
            c = laid_out(np.empty((m, n), dtype), layout)
            assert classify(target, c.dtype, problem_of(a, b, c)).kind == "few_dots"
            product(target, a, b, c)


@targets
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32], ids=lambda t: t.__name__)
def test_few_rows_of_a_large_matrix_are_summed_in_its_order(target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(16)
    small = target.with_caches(*TINY_CACHES)
    for m, n, k in [
        (2, 128, 16),
        (3, 200, 33),
        (4, 67, 50),
        (5, 1500, 5),
        (6, 65, 64),
        (7, 90, 31),
    ]:
        for first, last in [("rows", "rows"), ("columns", "strided"), ("strided", "rows")]:
            a, b = laid_out(random(rng, (m, k), dtype), first), random(rng, (k, n), dtype)
            c = laid_out(np.empty((m, n), dtype), last)
            assert classify(small, c.dtype, problem_of(a, b, c)).kind == "few_axpys"
            product(small, a, b, c)
    narrow = problem_of(
        random(rng, (2, 3000), dtype), random(rng, (3000, 3), dtype), np.empty((2, 3), dtype)
    )
    assert classify(small, np.dtype(dtype), narrow).kind == "gemm"


@targets
@dtypes
def test_no_terms_gives_zeros(target: Target, dtype: Any) -> None:
    for m, n in [(1, 1), (1, 20), (20, 1), (7, 19), (130, 600)]:
        a, b = np.empty((m, 0), dtype), np.empty((0, n), dtype)
        assert not product(target, a, b, np.empty((m, n), dtype)).any()
    a, b, c = (np.empty(shape, dtype) for shape in ((0, 3), (3, 4), (0, 4)))
    assert [stage.tiles for stage in bind(target, a, b, c).stages] == [0]


@targets
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32], ids=lambda t: t.__name__)
def test_few_columns_behind_the_last_vector(target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(12)
    small = target.with_caches(*TINY_CACHES)
    lanes = target.lanes(8 * np.dtype(dtype).itemsize)
    for (m, k), layout in itertools.product(
        [(4, 200), (8, 64), (9, 130), (30, 65), (60, 33)], ["rows", "columns"]
    ):
        for n in (1, 2, 3, lanes + 1, 2 * lanes + lanes // 2, 4 * lanes + 2):
            a, b = random(rng, (m, k), dtype), random(rng, (k, n), dtype)
            a = laid_out(a, layout)
            c = product(small, a, b, np.empty((m, n), dtype))
            plain = product(small, a, b, np.empty((m, n), dtype), few="")
            same = n - n % lanes if layout == "rows" else n
            np.testing.assert_array_equal(c[:, :same], plain[:, :same])


def test_gram_matrices_have_no_columns_of_their_own() -> None:
    f32, layout = np.dtype(np.float32), ((65, 1), (1, 65), (33, 1))
    gram = classify(LEVELS["avx512"], f32, GemmProblem(33, 33, 65, *layout, gram=True))
    assert not gram.few
    assert classify(LEVELS["avx512"], f32, GemmProblem(33, 33, 65, *layout)).few == "dots"


@targets
def test_outer_product(target: Target) -> None:
    rng = np.random.default_rng(5)
    for m, n in [(2, 2), (17, 300), (300, 17), (31, 33)]:
        a, b = random(rng, (m, 1), np.float64), random(rng, (1, n), np.float64)
        c = product(target, a, b, np.empty((m, n)))
        np.testing.assert_array_equal(c, a * b)


@targets
@pytest.mark.parametrize("dtype", [np.float32, np.int32], ids=lambda t: t.__name__)
def test_batches_and_broadcast_batches(target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(6)
    shapes = [
        ((5,), (5,)), ((5,), ()), ((), (5,)), ((4, 3), (4, 3)), ((4, 1), (1, 3)),
        ((2, 1, 3), (4, 1)), ((1,), (1,)), ((0,), (0,)),
    ]  # fmt: skip
    sizes = [(3, 4, 5), (17, 19, 9), (1, 9, 8)]
    for (first, second), (m, n, k) in itertools.product(shapes, sizes):
        a, b = random(rng, (*first, m, k), dtype), random(rng, (*second, k, n), dtype)
        batch = np.broadcast_shapes(first, second)
        product(target, a, b, np.empty((*batch, m, n), dtype))
        turned = np.empty((*batch, n, m), dtype).swapaxes(-1, -2)
        product(target, a, b, turned)


@targets
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
def test_any_split_of_the_tiles_gives_the_same_bits(target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(7)
    small = target.with_caches(*TINY_CACHES)
    cases = [((), 97, 130, 200), ((3,), 65, 31, 70), ((2,), 1, 3000, 40), ((), 3000, 1, 40)]
    cases.append(((2,), 5, 3000, 40))
    for batch, m, n, k in cases:
        for packs in ("", "b", "ab"):
            a, b = random(rng, (*batch, m, k), dtype), random(rng, (*batch, k, n), dtype)
            whole, parts = np.empty((*batch, m, n), dtype), np.empty((*batch, m, n), dtype)
            options = {"pack_a": "a" in packs, "pack_b": "b" in packs} if min(m, n) > 7 else {}
            bind(small, a, b, whole, **options)()
            call = bind(small, a, b, parts, **options)
            for number, stage in enumerate(call.stages):
                assert stage.tiles > 1
                cuts = [0, *sorted(rng.integers(0, stage.tiles, 3).tolist()), stage.tiles]
                spans = list(itertools.pairwise(cuts))
                rng.shuffle(spans)
                for begin, end in spans:
                    call.range(begin, end, number)
            assert whole.tobytes() == parts.tobytes()


@targets
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
def test_one_row_has_the_same_bits_wherever_its_operands_lie(target: Target, dtype: Any) -> None:
    """Lines of B a cache line apart are read from a line's begin, whatever comes before them."""
    rng = np.random.default_rng(15)
    line = 64 // np.dtype(dtype).itemsize
    for k, n in [(4 * line, 7 * line), (9, 2 * line), (2 * line, 3), (line, line)]:
        for order in ("C", "F"):
            row, whole = random(rng, (1, k), dtype), random(rng, (k, n), dtype)
            found: set[bytes] = set()
            for first in range(line + 1):
                room = np.full(k * n + 2 * line, np.nan, dtype)
                aligned = room[-room.ctypes.data % 64 // room.itemsize :]
                b = aligned[first : first + k * n].reshape((k, n), order=order)
                b[...] = whole
                found.add(product(target, row, b, np.empty((1, n), dtype)).tobytes())
            assert len(found) == 1


@targets
@pytest.mark.parametrize("packed", [False, True])
def test_nan_and_infinity_propagate_as_in_a_dot_product(target: Target, packed: bool) -> None:
    rng = np.random.default_rng(8)
    a, b = random(rng, (21, 40), np.float32), random(rng, (40, 35), np.float32)
    a[3, 5], a[7, 39], b[11, 20], b[12, 34] = np.nan, np.inf, -np.inf, np.nan
    a[9, :], b[2, 7] = 0, np.inf  # 0 · inf is NaN
    c = np.full((21, 35), np.nan, np.float32)
    bind(target, a, b, c, pack_a=packed, pack_b=packed)()
    with np.errstate(invalid="ignore"):
        expected = (a[:, :, None] * b[None]).sum(1)
    np.testing.assert_array_equal(np.isnan(c), np.isnan(expected))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(c[~finite], expected[~finite])
    for m, n in [(1, 35), (21, 1)]:
        row = np.full((m, n), np.nan, np.float32)
        bind(target, a[:m], b[:, :n], row)()
        np.testing.assert_array_equal(np.isnan(row), np.isnan(expected[:m, :n]))


@targets
def test_what_c_held_and_what_lies_around_it_do_not_matter(target: Target) -> None:
    rng = np.random.default_rng(9)
    a, b = random(rng, (23, 300), np.float32), random(rng, (300, 29), np.float32)
    frame = np.full((40, 50), np.nan, np.float32)
    inside = frame[5:28, 7:36]
    small = target.with_caches(*TINY_CACHES)
    for options in ({}, {"pack_a": True, "pack_b": True}):
        frame[...] = np.nan
        bind(small, a, b, inside, **options)()
        check(a, b, inside)
        inside[...] = np.nan
        assert np.isnan(frame).all()


def before_a_forbidden_page(values: Array) -> Array:
    """Return an equal array whose last byte is the last that may be touched."""
    page = mmap.PAGESIZE
    size = -(-values.nbytes // page) * page
    memory = mmap.mmap(-1, size + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + size), page, 0) == 0
    copy = np.frombuffer(memory, values.dtype, values.size, size - values.nbytes)
    copy = copy.reshape(values.shape)
    copy[...] = values
    return copy


@targets
@dtypes
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect as Linux has it")
def test_nothing_beyond_the_operands_is_touched(target: Target, dtype: Any) -> None:
    rng = np.random.default_rng(11)
    for m, n, k in [(3, 5, 7), (15, 17, 9), (29, 47, 33), (21, 34, 70), (1, 19, 21), (19, 1, 21)]:
        for packs in ("", "b", "ab"):
            a = before_a_forbidden_page(random(rng, (m, k), dtype))
            b = before_a_forbidden_page(random(rng, (k, n), dtype))
            c = before_a_forbidden_page(np.zeros((m, n), dtype))
            options = {"pack_a": "a" in packs, "pack_b": "b" in packs} if min(m, n) > 7 else {}
            product(target, a, b, c, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
def test_a_product_worth_sharing_has_a_tile_for_every_thread(dtype: Any) -> None:
    target = LEVELS["avx512"]
    for m, n, k in [
        (256, 256, 256), (1024, 1024, 1024), (64, 1024, 1024), (1024, 64, 1024),
        (10000, 64, 64), (2048, 1, 2048), (1, 4096, 4096),
    ]:  # fmt: skip
        problem = GemmProblem(m, n, k, (k, 1), (n, 1), (n, 1))
        spec = classify(target, np.dtype(dtype), problem)
        tiles = tile_count(spec, target, problem)
        for threads in (2, 3):
            assert -(-tiles // tile_grain(spec, target, problem, threads)) >= threads
        assert tile_grain(spec, target, problem, 1) == tiles


def test_problems_of_one_class_share_a_spec() -> None:
    target, f32 = LEVELS["avx2"], np.dtype(np.float32)

    def spec(m: int, n: int, k: int) -> object:
        return classify(target, f32, GemmProblem(m, n, k, (k, 1), (n, 1), (n, 1)))

    assert spec(64, 64, 64) == spec(100, 37, 53)
    assert spec(1024, 1024, 1024) == spec(700, 2048, 999)
    assert spec(1024, 1024, 1024) != spec(64, 64, 64)


def test_canonical_form() -> None:
    p = GemmProblem(4, 5, 6, (6, 1), (5, 1), (1, 4))
    turned, swapped = canonical(p)
    assert swapped
    assert (turned.m, turned.n) == (5, 4)
    assert (turned.a, turned.b, turned.c) == ((1, 5), (1, 6), (4, 1))
    shared = GemmProblem(4, 5, 6, (6, 1), (5, 1), (5, 1), (3, 2), (48, 24), (0, 0), (40, 20))
    folded, _ = canonical(shared)
    assert (folded.m, folded.batch) == (24, ())
    kept, _ = canonical(shared, fold=False)
    assert (kept.m, kept.batch, kept.a_batch, kept.c_batch) == (4, (6,), (24,), (20,))


def test_sizes_layout_and_workspace() -> None:
    target = LEVELS["avx2"]
    strides = ((1000, 1), (700, 1), (700, 1))
    p = GemmProblem(400, 700, 1000, *strides, (2,), (400000,), (700000,), (280000,))
    spec = classify(target, np.dtype(np.float32), p)
    sizes = gemm_arguments(spec, target, p).sizes
    assert sizes[Slot.M : Slot.C_COLUMN + 1] == (400, 700, 1000, 1000, 1, 700, 1, 700, 1)
    assert sizes[Slot.BATCH :] == (2, 400000, 700000, 280000)
    tiles = tile_count(spec, target, p)
    assert tile_grain(spec, target, p, threads=1) == tiles
    assert 1 <= tile_grain(spec, target, p, threads=2) <= tiles // 2
    assert sizes[Slot.TILES_M] * sizes[Slot.TILES_N] * 2 == tiles
    unit, cache = spec.unit(target), spec.cache(target)
    assert sizes[Slot.TILE_M] <= cache.m
    assert spec.ahead
    # The rest of a tile under its full panels costs no more than it has rows.
    assert sizes[Slot.TILE_M] % unit.rows % 4 == 0
    assert sizes[Slot.TILE_N] >= 700
    assert packed_bytes(spec, target, p) >= 4 * 2 * 1000 * 700
    assert workspace_bytes(spec, target, p) >= 4 * sizes[Slot.TILE_M] * sizes[Slot.BLOCK_K]


def test_what_is_packed_ahead_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(12)
    target = cpu.target().with_caches(*TINY_CACHES)
    for batch in ((), (3,)):
        a, b = (
            random(rng, (*batch, 40, 500), np.float32),
            random(rng, (*batch, 500, 50), np.float32),
        )
        whole, parts = (np.empty((*batch, 40, 50), np.float32) for _ in range(2))
        call = bind(target, a, b, whole, pack_a=True, pack_b=True)
        assert len(call.stages) == 2
        call()
        for limit in (1, 40_000, 100_000):
            monkeypatch.setattr(plan, "PACKED_BYTES", limit)
            parts[...] = np.nan
            call = bind(target, a, b, parts, pack_a=True, pack_b=True)
            assert len(call.stages) > 2
            call()
            assert whole.tobytes() == parts.tobytes()
        monkeypatch.undo()


@pytest.mark.parametrize("level", ["avx2", "avx512"])
def test_fewer_threads_have_fewer_column_tiles_and_the_same_bits(level: str) -> None:
    target = next(t for t in TARGETS if t.name.startswith(level))
    target = target.with_blocking(target.blocking._replace(tile_work=1 << 12, share_panels=1))
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((12, 37)), rng.standard_normal((37, 300))
    results: list[bytes] = []
    counts: list[int] = []
    for threads in (1, 8):
        c = np.full((12, 300), np.nan)
        problem = problem_of(a, b, c)
        spec = replace(classify(target, c.dtype, problem), pack_a=True, pack_b=True, few="")
        own = bind(target, a, b, c, pack_a=True, pack_b=True, few="")
        call = Call(own.entry, own.ptrs, plan.stages(spec, target, problem, threads), own.keep)
        call()
        np.testing.assert_allclose(c, a @ b, rtol=1e-12, atol=1e-12)
        results.append(c.tobytes())
        counts.append(call.stages[-1].tiles)
    assert results[0] == results[1]
    assert counts[0] < counts[1]


def test_a_dtype_without_kernel_is_a_typed_error() -> None:
    problem = GemmProblem(2, 2, 2, (2, 1), (2, 1), (2, 1))
    with pytest.raises(DTypeError, match="complex64"):
        classify(LEVELS["avx2"], np.dtype(np.complex64), problem)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("packs", ["", "b", "ab"])
def test_the_inner_loop_is_multiply_adds_without_spills(dtype: Any, packs: str) -> None:
    for level, rows, variants in (("avx2", 6, {}), ("avx512", 14, {"": ".full", "b": ".copy"})):
        target = LEVELS[level]
        problem = GemmProblem(999, 999, 999, (999, 1), (999, 1), (999, 1))
        spec = classify(target, np.dtype(dtype), problem)
        spec = replace(spec, pack_a="a" in packs, pack_b="b" in packs)
        text = assembly(module_text(target, spec), target, passes=0)
        for name in {f"gemm.{rows}x2", f"gemm.{rows}x2{variants.get(packs, '')}"}:
            function = text.split(f"\n{name}:")[1].split(".Lfunc_end")[0]
            loop = max(function.split("\n.L"), key=lambda part: part.count("vfmadd"))
            steps = 4 if packs and not name.endswith(".copy") else 1
            assert loop.count("vfmadd") == 2 * rows * steps
            assert not [line for line in loop.splitlines() if "mm" in line and "(%rsp" in line]


@pytest.mark.parametrize("level", ["avx2", "avx512"])
@dtypes
def test_no_register_block_unrolls_to_a_long_kernel(level: str, dtype: Any) -> None:
    target = LEVELS[level]
    for n in (64, 1024):
        problem = GemmProblem(n, n, n, (n, 1), (n, 1), (n, 1))
        # What LLVM needs for a kernel grows with its length: 80 ms are about 4,000 lines.
        text = module_text(target, classify(target, np.dtype(dtype), problem))
        assert text.count("\n") < 4000
