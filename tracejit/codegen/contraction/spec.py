"""What a generated matrix product is specialised on, and how one is called.

``GemmProblem`` is one product C[b] = A[b] @ B[b] with its sizes and strides (elements). It is
first brought to canonical form (``canonical``), then ``classify`` reads off it the ``GemmSpec``:
everything that changes the code and nothing else, so that problems of one class share a kernel.
``gemm_arguments`` lays the rest out as the ``sizes`` array that the kernel reads at run time.

A kernel's work is counted in tiles of C; see ``tile_count``. Consecutive tiles of a column panel
share a packed block of B, so one call over all tiles is fastest, and any split of the tiles
gives the same bits: the order in which the terms of one element of C are added depends only on
the spec, on K and on the cache sizes of the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from math import prod
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from tracejit.codegen.contraction.blocking import (
    RegisterBlock,
    balanced,
    cache_block,
    register_block,
    round_down,
    round_up,
)
from tracejit.codegen.contraction.gather import Gather, GatherSpec
from tracejit.codegen.contraction.prologue import KernelPrologue
from tracejit.codegen.target import Target
from tracejit.codegen.values import Type, Value
from tracejit.errors import DTypeError

if TYPE_CHECKING:
    from tracejit.codegen.builder import Builder

Stride = Literal["last", "first", "any"]
Kind = Literal["gemm", "dots", "axpys"]
# Which axis of a packed operand is contiguous: the one across a panel, along it, or neither.
Layout = Literal["width", "depth", "any"]

# Arithmetic wraps around, so signed and unsigned integers share their code.
_KINDS = {"f4": "f32", "f8": "f64", "i4": "i32", "i8": "i64", "u4": "i32", "u8": "i64"}


class Slot(IntEnum):
    """Index in ``sizes`` of each run-time number of a kernel. Strides are in elements.

    ``TILE_M`` × ``TILE_N`` is the size of a tile of C, ``BLOCK_K`` the depth that is packed at a
    time, ``TILES_*`` and ``BLOCKS_K`` how many there are (``BLOCKS_K`` at least 1: K = 0 stores
    zeros). ``WORK_A`` and ``WORK_B`` are the places (elements) of the packed blocks in the
    workspace; ``TABLE`` is the index in ``sizes`` of where the elements of a gathered B are
    (``with_table``).

    Where both operands are packed ahead (``plan``): ``PACKING`` is 1 in a stage that packs. A
    stage is about the batch elements from ``FIRST_BATCH`` and the ``BLOCKS_K`` depth blocks from
    ``FIRST_K`` on, of ``ALL_K``. ``BLOCK_A`` and ``BLOCK_B`` are the elements of a packed block,
    and those of B begin at ``PACKED_B``.

    From ``BATCH`` on stand, for each batch axis, outermost first: its extent and the strides of
    A, B and C. What an epilogue needs follows at ``epilogue_slot(spec)``.
    """

    M = 0
    N = 1
    K = 2
    A_ROW = 3
    A_DEPTH = 4
    B_DEPTH = 5
    B_COLUMN = 6
    C_ROW = 7
    C_COLUMN = 8
    TILE_M = 9
    TILE_N = 10
    BLOCK_K = 11
    TILES_M = 12
    TILES_N = 13
    BLOCKS_K = 14
    WORK_A = 15
    WORK_B = 16
    TABLE = 17
    PACKING = 18
    FIRST_BATCH = 19
    FIRST_K = 20
    ALL_K = 21
    BLOCK_A = 22
    BLOCK_B = 23
    PACKED_B = 24
    BATCH = 25


# Index in ``ptrs`` of each pointer: element [0, …, 0] of A, B and C, this worker's own workspace,
# and the packed operands that all share (both aligned to 64 bytes). An epilogue's pointers follow
# from POINTERS on.
A_POINTER, B_POINTER, C_POINTER, WORK_POINTER, PACKED_POINTER, POINTERS = range(6)


class Place(NamedTuple):
    """Where the tile of C stands that an epilogue is applied to.

    ``row`` and ``column`` (i64) locate its corner, in the canonical problem. ``batch`` (i64) is
    the flat batch index; ``ptrs`` and ``sizes`` are what the epilogue itself was given.
    """

    row: Value
    column: Value
    batch: Value
    ptrs: Value
    sizes: Value


# Takes a finished vector at column j of a tile's row, whose lanes run along the columns; a mask
# tells the lanes inside C, None where all are.
RowFinish = Callable[[Value, Value, Value | None], None]
# Opens row i of a tile.
TileFinish = Callable[[Value], RowFinish]


class Epilogue(Protocol):
    """What becomes of the finished vectors of C: it computes with them, and stores the results.

    C itself then only holds partial sums. ``key`` names the code that ``tile`` writes.
    """

    @property
    def key(self) -> str: ...

    def tile(self, b: Builder, place: Place, lanes: int) -> TileFinish:
        """Write what is common to a tile; the result writes the rows, then the vectors."""
        ...


@dataclass(frozen=True, slots=True)
class GemmSpec:
    """All that changes the code of a product.

    ``dtype``: element kind (f32 f64 i32 i64). ``a``, ``b``, ``c``: which axis of the operand has
    stride 1 ("last": the rows are contiguous, "first": the columns are, "any": neither is known).
    ``c`` is "last" or "any". ``pack_a``, ``pack_b``: whether the operand is copied to panels; B
    can be read in place only where ``b`` is "last", and A is packed only where B is (``ahead``).
    ``kind``: "gemm", or for M = 1 "axpys" (rows of B are summed up) and "dots" (columns of B are
    dotted). ``batch_axes``: how many batch axes there are. ``gather``: how a gathered B is read,
    None where B has strides. ``epilogue`` stores what becomes of a finished vector, instead of C.
    ``prologue`` computes operands where they are packed; ``a`` and ``b`` then tell along which of
    its axes such an operand is computed. With ``slabs`` C only ever holds a row tile, which is
    taken from it before the next one is computed (``slabs``): work is counted in these.
    """

    dtype: str
    a: Stride
    b: Stride
    c: Stride
    pack_a: bool
    pack_b: bool
    kind: Kind = "gemm"
    batch_axes: int = 0
    epilogue: Epilogue | None = None
    gather: GatherSpec | None = None
    prologue: KernelPrologue | None = None
    slabs: bool = False

    @property
    def folds(self) -> bool:
        """Whether batch axes may become rows: nothing else counts by the kernel's axes."""
        return self.epilogue is None and self.prologue is None

    @property
    def corrected(self) -> bool:
        """Whether each panel of B ends with a row that is added to the sums."""
        return self.prologue is not None and self.prologue.biased

    @property
    def type(self) -> Type:
        return Type(self.dtype)

    @property
    def ahead(self) -> bool:
        """Whether both operands are packed for all threads, before the product."""
        return self.pack_a

    @property
    def key(self) -> str:
        """The text that decides the code."""
        around = [p.key for p in (self.epilogue, self.prologue) if p is not None]
        return " ".join([str(replace(self, epilogue=None, prologue=None)), *around])


@dataclass(frozen=True, slots=True)
class GemmProblem:
    """C[b, m, n] = Σ_k A[b, m, k] · B[b, k, n]; strides in elements, any sign, 0 broadcasts.

    ``batch`` are the extents of the batch axes, ``*_batch`` the strides of the operands along
    them. C must not overlap A or B, nor itself. With ``gather`` it says where B's elements are,
    and ``b`` means nothing.
    """

    m: int
    n: int
    k: int
    a: tuple[int, int]
    b: tuple[int, int]
    c: tuple[int, int]
    batch: tuple[int, ...] = ()
    a_batch: tuple[int, ...] = ()
    b_batch: tuple[int, ...] = ()
    c_batch: tuple[int, ...] = ()
    gather: Gather | None = None


class GemmArguments(NamedTuple):
    """``sizes`` for the kernel; ``swapped`` tells that A and B changed places in ``ptrs``."""

    sizes: tuple[int, ...]
    swapped: bool

    def pointers(self, a: int, b: int, c: int, *memory: int) -> tuple[int, ...]:
        """Return ``ptrs`` for the addresses of A, B, C (elements [0, …, 0]), the workspace and
        the packed operands."""
        return (b, a, c, *memory) if self.swapped else (a, b, c, *memory)


def element_kind(dtype: np.dtype) -> str:
    """Return the element kind of a product's dtype; DTypeError where there is no kernel."""
    kind = _KINDS.get(dtype.str[1:]) if dtype.isnative else None
    if kind is None:
        raise DTypeError(f"no generated matrix product for dtype {dtype}")
    return kind


def canonical(problem: GemmProblem, *, fold: bool = True) -> tuple[GemmProblem, bool]:
    """Return an equal problem with fewer batch axes and rows of C contiguous, and "swapped".

    C = A @ B → Cᵀ = Bᵀ @ Aᵀ where C is stored by columns or has one column only, and where B is
    the strided operand of a dot product (swapped). Batch axes of extent 1 vanish and neighbours
    that step alike become one; with ``fold`` a batch of row blocks that share B becomes more
    rows: [b, m, k] @ [k, n] → [b·m, k] @ [k, n]. A gathered B stays where it is.
    """
    p = _collapse(problem)
    if p.gather is not None:
        return p, False
    if fold:
        p = _fold_rows(p)
    by_columns = p.c[0] == 1 and p.c[1] != 1 and p.n > 1
    strided_dot = p.m == p.n == 1 and p.b[0] != 1 and p.a[1] == 1
    swapped = strided_dot or (p.m > 1 and (by_columns or p.n == 1))
    if not swapped:
        return p, False
    turned = GemmProblem(
        p.n, p.m, p.k, _turned(p.b), _turned(p.a), _turned(p.c),
        p.batch, p.b_batch, p.a_batch, p.c_batch,
    )  # fmt: skip
    return (_fold_rows(turned) if fold else turned), True


def _turned(strides: tuple[int, int]) -> tuple[int, int]:
    return strides[1], strides[0]


def _collapse(p: GemmProblem) -> GemmProblem:
    axes: list[tuple[int, int, int, int]] = []
    for extent, a, b, c in zip(p.batch, p.a_batch, p.b_batch, p.c_batch, strict=True):
        if extent == 1:
            continue
        if axes:
            outer, oa, ob, oc = axes[-1]
            if (oa, ob, oc) == (a * extent, b * extent, c * extent):
                axes[-1] = (outer * extent, a, b, c)
                continue
        axes.append((extent, a, b, c))
    return _with_batch(p, axes)


def _with_batch(p: GemmProblem, axes: list[tuple[int, int, int, int]]) -> GemmProblem:
    batch, a, b, c = (tuple(axis[i] for axis in axes) for i in range(4))
    return replace(p, batch=batch, a_batch=a, b_batch=b, c_batch=c)


def _fold_rows(p: GemmProblem) -> GemmProblem:
    """Make the innermost batch axis rows, where B is the same for all of it and A and C allow."""
    axes = list(zip(p.batch, p.a_batch, p.b_batch, p.c_batch, strict=True))
    while axes:
        extent, a, b, c = axes[-1]
        if p.m == 1:
            p = replace(p, a=(a, p.a[1]), c=(c, p.c[1]))
        if b != 0 or a != p.a[0] * p.m or c != p.c[0] * p.m:
            break
        axes.pop()
        p = replace(p, m=p.m * extent)
    return _with_batch(p, axes)


def _stride(rows: int, columns: int, strides: tuple[int, int]) -> Stride:
    if strides[1] == 1 or columns <= 1:
        return "last"
    return "first" if strides[0] == 1 or rows <= 1 else "any"


def classify(
    target: Target,
    dtype: np.dtype,
    problem: GemmProblem,
    epilogue: Epilogue | None = None,
    prologue: KernelPrologue | None = None,
    *,
    slabs: bool = False,
) -> GemmSpec:
    """Return the spec of the kernel for ``problem``; DTypeError where there is none.

    Products with ``slabs`` have at least two rows and columns.

    With an epilogue batch axes are kept apart, so that its ``Place`` names them. So they are with
    a prologue; of an operand that is computed ``problem`` has the strides of what it is read from,
    and its depth counts elements of panels.
    """
    kind = element_kind(dtype)
    p, _ = canonical(problem, fold=epilogue is None and prologue is None)
    a = _stride(p.m, p.k, p.a)
    b = _stride(p.k, p.n, p.b)
    c: Stride = "last" if p.c[1] == 1 or p.n <= 1 else "any"
    if p.gather is not None:
        # The weights are read in place: packing them for each tile costs 8 % (measured).
        batches, gather = len(p.batch), p.gather.spec
        return GemmSpec(kind, a, "any", c, False, True, "gemm", batches, epilogue, gather)
    if prologue is not None:
        pack_a = prologue.a is not None or _packing(target, kind, p, a, b)[0]
        batches = len(p.batch)
        return GemmSpec(
            kind, a, b, c, pack_a, True, "gemm", batches, epilogue, None, prologue, slabs
        )
    if p.m == 1 and p.b[0] == 1:
        b = "first"
    if p.m == 1 and b != "any":
        one_row: Kind = "axpys" if b == "last" else "dots"
        return GemmSpec(kind, a, b, c, False, False, one_row, len(p.batch), epilogue)
    pack_a, pack_b = _packing(target, kind, p, a, b)
    return GemmSpec(kind, a, b, c, pack_a, pack_b, "gemm", len(p.batch), epilogue, slabs=slabs)


def _packing(target: Target, kind: str, p: GemmProblem, a: Stride, b: Stride) -> tuple[bool, bool]:
    """Tell which operands to copy to panels: where the copy is read often enough.

    Measured on Zen 3: B is worth packing from the second row panel on, unless its rows fall on
    different cache sets and there are just two panels; A where it is read by many column panels
    from memory far away. On Sapphire Rapids the edges of B need no copy, and a B about as large as
    the first-level cache is read in place by up to 16 row panels (5 % at 96 and 128); an A with
    gaps is worth packing sooner (15 % at 256 in f64).
    """
    rows, size = register_block(target, kind).rows, Type(kind).bits // 8
    same_sets = p.b[0] * size % 2048 == 0 and p.k > 8
    small = target.masks and p.k * p.n * size * 3 <= target.l1_bytes * 4
    few = 16 if small and not same_sets else 1 if same_sets else 2
    pack_b = b != "last" or p.m > few * rows
    wide = p.n >= (256 if a == "any" else 512)
    return pack_b and p.m >= 128 and p.k >= 128 and wide, pack_b


def gemm_arguments(spec: GemmSpec, target: Target, problem: GemmProblem) -> GemmArguments:
    """Return the ``sizes`` of ``problem`` for the kernel of ``spec``, as ``Slot`` orders them."""
    p, swapped = canonical(problem, fold=spec.folds)
    grid = grid_of(spec, target, p)
    axes = zip(p.batch, p.a_batch, p.b_batch, p.c_batch, strict=True)
    fixed = (p.m, p.n, p.k, *p.a, *p.b, *p.c, *grid, 0, 0, 0, 0, grid.blocks_k, 0, 0, 0)
    return GemmArguments((*fixed, *(number for axis in axes for number in axis)), swapped)


def with_table(sizes: Sequence[int], problem: GemmProblem) -> tuple[int, ...]:
    """Return a kernel's complete ``sizes`` with the table of a gathered B behind them."""
    if problem.gather is None:
        return tuple(sizes)
    return (*sizes[: Slot.TABLE], len(sizes), *sizes[Slot.TABLE + 1 :], *problem.gather.table())


def epilogue_slot(spec: GemmSpec) -> int:
    """Return the index in ``sizes`` of the first number that belongs to the epilogue."""
    return Slot.BATCH + 4 * spec.batch_axes


class Grid(NamedTuple):
    """The slots from ``TILE_M`` to ``WORK_B``."""

    tile_m: int
    tile_n: int
    block_k: int
    tiles_m: int
    tiles_n: int
    blocks_k: int
    work_a: int
    work_b: int


def grid_of(spec: GemmSpec, target: Target, p: GemmProblem) -> Grid:
    m, n, k = p.m, p.n, p.k
    unit = register_block(target, spec.dtype)
    cache = cache_block(target, spec.dtype)
    if spec.kind != "gemm":
        tile_n = balanced(n, _one_row_tile(spec, target, p), unit.columns)
        work_a = round_up(tile_n, unit.columns)
        work_b = work_a + (k if spec.kind == "dots" and spec.a != "last" else 0)
        return Grid(1, tile_n, max(1, k), 1, max(1, -(-n // tile_n)), 1, work_a, work_b)
    if spec.ahead:
        # Sums wait in memory half as often (measured: 2 to 5 % from 768 on).
        block_k = balanced(k, 2 * cache.k, unit.lanes)
        tile_m, tile_n = _small(target, spec, p, block_k)
    else:
        block_k = balanced(k, cache.k, unit.lanes)
        tile_m = balanced(m, cache.m, unit.rows)
        tile_n = balanced(n, cache.n, unit.columns)
        share = _shared if spec.gather is None else _of_windows
        tile_m, tile_n = share(spec, target, p, (tile_m, tile_n))
    if spec.slabs:
        tile_m = min(tile_m, _slab(target, spec, p))
    work = stage_place(spec, unit)
    if spec.prologue is not None:
        line = 64 // (spec.type.bits // 8)
        work += round_up(max(unit.rows, unit.columns) * block_k + line, line)
    counts = (max(1, -(-m // tile_m)), max(1, -(-n // tile_n)), max(1, -(-k // block_k)))
    return Grid(tile_m, tile_n, block_k, *counts, work, work)


def stage_place(spec: GemmSpec, unit: RegisterBlock) -> int:
    """Return where in the workspace (elements) a panel is computed before it is transposed."""
    return round_up(unit.rows * unit.columns, 64 // (spec.type.bits // 8))


# A tile has at least so many multiply-adds (about 10 µs), unless there are so many tiles anyway.
_TILE_WORK, _TILES = 1 << 20, 8


def _wanted_tiles(p: GemmProblem) -> int:
    """Return how many tiles a product should have for threads to share."""
    return min(_TILES, prod(p.batch) * p.m * p.n * p.k // _TILE_WORK)


def _small(target: Target, spec: GemmSpec, p: GemmProblem, block_k: int) -> tuple[int, int]:
    """Return the size of a tile of packed operands: none is packed twice, so tiles may be small.

    The block of A takes at most half of the second-level cache. Its panels are read from far away
    once for every four column panels or more, those of B for every nine row panels.
    """
    unit, cache = register_block(target, spec.dtype), cache_block(target, spec.dtype)
    wanted, batch = 2 * _wanted_tiles(p), prod(p.batch)
    fitting = target.l2_bytes // 2 // (block_k * (spec.type.bits // 8))
    rows = min(18 * unit.rows, max(unit.rows, round_down(fitting, unit.rows)))
    columns = min(32 * unit.columns, cache.n)
    while batch * -(-p.m // rows) * -(-p.n // columns) < wanted:
        if columns > 4 * unit.columns:
            columns //= 2
        elif rows > 9 * unit.rows:
            rows //= 2
        else:
            break
    return balanced(p.m, rows, unit.rows), balanced(p.n, columns, unit.columns)


def _shared(
    spec: GemmSpec, target: Target, p: GemmProblem, tile: tuple[int, int]
) -> tuple[int, int]:
    """Return tile sizes that leave enough tiles for threads to share.

    Row tiles of several threads pack the same columns, which costs little beside many rows.
    Column tiles have their own, but read all of A again, which costs little where it is near.
    """
    tile_m, tile_n = tile
    unit, wanted, batch = register_block(target, spec.dtype), _wanted_tiles(p), prod(p.batch)
    near = p.m * p.k * (spec.type.bits // 8) <= target.l2_bytes
    if near:
        columns = -(-wanted // max(1, batch * -(-p.m // tile_m)))
        if columns > -(-p.n // tile_n):
            tile_n = round_up(-(-p.n // columns), unit.columns)
    rows = -(-wanted // max(1, batch * -(-p.n // tile_n)))
    if rows > -(-p.m // tile_m):
        tile_m = max(min(tile_m, 8 * unit.rows), round_up(-(-p.m // rows), unit.rows))
    return tile_m, tile_n


def _of_windows(
    spec: GemmSpec, target: Target, p: GemmProblem, tile: tuple[int, int]
) -> tuple[int, int]:
    """Return tile sizes of a product that packs windows, each tile its own.

    What a tile packs stays in the second-level cache. Column tiles read all of A each, so where
    that is far away there are row tiles, high enough to pay for packing the same windows again.
    Measured on two threads: 14 column tiles in place of 8 of 64×576×3136 are 10 % faster, and 4
    row tiles in place of 7 column tiles of 256×2304×196.
    """
    tile_m, tile_n = tile
    unit, batch, size = register_block(target, spec.dtype), prod(p.batch), spec.type.bits // 8
    each, columns = -(-2 * _wanted_tiles(p) // max(1, batch)), 1
    if p.m * p.k * size <= target.l2_bytes:
        # Three panels and more wide, and the last not much narrower.
        while 2 * columns <= each and p.n >= 6 * unit.columns * columns + unit.lanes:
            columns *= 2
    depth = min(p.k, cache_block(target, spec.dtype).k)
    near = target.l2_bytes // 4 // (max(1, depth) * size)
    most = round_up(min(tile_n, near, -(-p.n // columns)), unit.columns)
    rows = min(each // columns, p.m // (4 * unit.rows), 4 // columns)
    if rows > 1:
        tile_m = min(tile_m, -(-p.m // rows))
    return tile_m, balanced(p.n, max(most, unit.columns), unit.columns)


def _slab(target: Target, spec: GemmSpec, p: GemmProblem) -> int:
    """Return how many rows a slab has: it takes half of the second-level cache. Each slab reads
    all of B again, so it is nine panels high, but four suffice where threads want to share.

    Measured on 11 products with softmax, norms and the like: two panels and a quarter of the cache
    are 3 to 8 % slower on deep products, more than these are not faster.
    """
    unit, batch = register_block(target, spec.dtype), prod(p.batch)
    fitting = target.l2_bytes // 2 // (p.n * (spec.type.bits // 8))
    shared = -(-batch * p.m // max(1, _wanted_tiles(p)))
    wanted = max(4 * unit.rows, min(max(9 * unit.rows, fitting), shared))
    return balanced(p.m, wanted, unit.rows)


def slab_bytes(spec: GemmSpec, target: Target, problem: GemmProblem) -> int:
    """Return the bytes of a slab of C, whose rows are contiguous."""
    p, _ = canonical(problem, fold=spec.folds)
    return grid_of(spec, target, p).tile_m * p.n * (spec.type.bits // 8)


def _one_row_tile(spec: GemmSpec, target: Target, p: GemmProblem) -> int:
    """Return how many columns a tile of a product with one row has at most: their sums stay in
    the first-level cache, and of each row of B there are 4 KiB to stream."""
    size = spec.type.bits // 8
    least = 4096 // size if spec.kind == "axpys" else 1
    return min(target.l1_bytes // 4 // size, max(least, -(-p.n // max(1, _wanted_tiles(p)))))


def workspace_bytes(spec: GemmSpec, target: Target, problem: GemmProblem) -> int:
    """Return the bytes of workspace that each worker needs for itself, 64-byte aligned."""
    p, _ = canonical(problem, fold=spec.folds)
    grid = grid_of(spec, target, p)
    unit = register_block(target, spec.dtype)
    if spec.kind != "gemm" or spec.ahead:
        return grid.work_b * (spec.type.bits // 8)
    width = round_up(grid.tile_n, unit.columns) if spec.pack_b else unit.columns
    slack = 64 // (spec.type.bits // 8)
    depth = grid.block_k + spec.corrected
    return (grid.work_b + width * depth + slack) * (spec.type.bits // 8)


def tile_count(spec: GemmSpec, target: Target, problem: GemmProblem) -> int:
    """Return how many tiles of C (or slabs) there are: a kernel's whole range is
    [0, tile_count)."""
    p, _ = canonical(problem, fold=spec.folds)
    if p.m == 0 or p.n == 0:
        return 0
    grid = grid_of(spec, target, p)
    return grid.tiles_m * (1 if spec.slabs else grid.tiles_n) * prod(p.batch)


def tile_grain(spec: GemmSpec, target: Target, problem: GemmProblem, threads: int) -> int:
    """Return how many tiles make a good chunk for ``threads`` workers (at least 1).

    All of them for one worker, or where the product is done before a second one is awake. Chunks
    that start inside a column of tiles pack its block of B anew, so they are whole columns where
    there are enough, else few: three for a worker let the faster core take more, but two are
    better where each packs. Of windows there are few column tiles, and mostly one row tile, and
    so each tile is a chunk.
    """
    p, _ = canonical(problem, fold=spec.folds)
    tiles = tile_count(spec, target, problem)
    if threads <= 1 or prod(p.batch) * p.m * p.n * p.k < 1 << 18:
        return max(1, tiles)
    if spec.gather is not None or spec.ahead or spec.slabs:
        return 1
    height = grid_of(spec, target, p).tiles_m
    columns = tiles // height
    if columns >= 2 * threads:
        return height * -(-columns // (3 * threads))
    return max(1, -(-tiles // ((2 if spec.pack_b else 3) * threads)))
