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
from enum import IntEnum
from math import prod
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from tracejit.codegen.contraction.blocking import (
    PARTS,
    TILE,
    TILES,
    CacheBlock,
    RegisterBlock,
    cache_block,
    register_block,
)
from tracejit.codegen.contraction.gather import Gather, GatherSpec
from tracejit.codegen.contraction.prologue import KernelPrologue
from tracejit.codegen.target import Target
from tracejit.codegen.values import Type, Value
from tracejit.errors import DTypeError
from tracejit.record import record, replace
from tracejit.sizes import hint, is_size

if TYPE_CHECKING:
    from tracejit.codegen.builder import Builder

Stride = Literal["last", "first", "any"]
Kind = Literal["gemm", "dots", "few_dots", "axpys", "few_axpys", "direct", "tiny"]
Side = Literal["a", "b"]
Few = Literal["", "dots", "turned"]
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
    (``with_table``). In a direct product ``TILE_N`` counts outermost places, and its planes begin
    at ``WORK_A``.

    Where B (or A) is packed ahead (``plan``): ``PACKING`` is 1 in a stage that packs. A stage is
    about the batch elements from ``FIRST_BATCH`` and the ``BLOCKS_K`` depth blocks from ``FIRST_K``
    on, of ``ALL_K``. ``PACKED`` are the elements of a packed depth block, which is packed in
    ``STRIPS`` strips of ``STRIP`` columns (or rows). ``ALONE`` batch elements have packed operands
    of their own, and those after them the same ones again.

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
    PACKED = 22
    STRIP = 23
    STRIPS = 24
    ALONE = 25
    BATCH = 26


# Index in ``ptrs`` of each pointer: element [0, …, 0] of A, B and C, this worker's own workspace,
# and the packed operand that all share (both aligned to 64 bytes). An epilogue's pointers follow
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


# Takes finished vectors side by side, from column j of a tile's row on, whose lanes run along the
# columns; the mask of a single one tells the lanes inside C, None where all are.
RowFinish = Callable[[Value, Sequence[Value], Value | None], None]
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


class TinyShape(NamedTuple):
    """Sizes and strides (of rows and columns) that are in the code of a batch of tiny products."""

    m: int
    n: int
    k: int
    a: tuple[int, int]
    b: tuple[int, int]
    c: tuple[int, int]

    @property
    def scalar(self) -> bool:
        """Whether sums are scalars: few rows are worth no vectors of elements with gaps."""
        return self.b[1] != 1 and self.m < 3

    def widths(self, target: Target, dtype: str) -> list[int]:
        """Return the lanes of the vectors that hold a row of C; the last may reach beyond it
        where there are masks."""
        lanes, left = target.lanes(Type(dtype).bits), self.n
        if self.scalar:
            return [1] * left
        found = [lanes] * (left // lanes)
        left %= lanes
        if target.masks:
            return found + [1 << (left - 1).bit_length()] * (left > 0)
        return found + [1 << bit for bit in reversed(range(left.bit_length())) if left >> bit & 1]


# Elements of a batch from which on its products have code of their own, and how large they may be:
# multiply-adds of vectors, vectors in a row, and elements of B that are put together.
_TINY_BATCH, _TINY_WORK, _TINY_VECTORS, _TINY_GATHERED = 16, 512, 8, 64


def _tiny(target: Target, kind: str, p: GemmProblem) -> TinyShape | None:
    """Return what is in the code of ``p`` where it is a batch of tiny products.

    Sizes that vary are not: each would need code of its own.
    """
    shape = TinyShape(p.m, p.n, p.k, p.a, p.b, p.c)
    numbers = (*shape[:3], *p.a, *p.b, *p.c)
    if not p.batch or any(map(is_size, numbers)) or hint(prod(p.batch)) < _TINY_BATCH:
        return None
    if min(numbers[:3]) < 1 or (p.c[1] != 1 and p.n > 1):
        return None
    vectors = len(shape.widths(target, kind))
    gathered = p.n * p.k if p.b[1] != 1 else 0
    small = p.m * p.k * vectors <= _TINY_WORK and gathered <= _TINY_GATHERED
    return shape if small and (vectors <= _TINY_VECTORS or shape.scalar) else None


@record(frozen=True, slots=True)
class GemmSpec:
    """All that changes the code of a product.

    ``dtype``: element kind (f32 f64 i32 i64). ``a``, ``b``, ``c``: which axis of the operand has
    stride 1 ("last": the rows are contiguous, "first": the columns are, "any": neither is known).
    ``c`` is "last" or "any". ``pack_a``, ``pack_b``: whether the operand is copied to panels; B
    can be read in place only where ``b`` is "last", and A is packed only where B is (``ahead``).
    ``kind``: "gemm", for M = 1 "axpys" (rows of B are summed up) and "dots" (columns of B are
    dotted), for a few rows "few_axpys" and "few_dots", "direct" (a gathered B is read where the
    image of its windows is, split for tile registers too), or "tiny" (a batch of matrices of the
    sizes and strides ``tiny``).
    ``batch_axes``: how many batch axes there are. ``gather``: how a gathered B is read, None where
    B has strides. ``epilogue`` stores what becomes of a finished vector, instead of C.
    ``prologue`` computes operands where they are packed; ``a`` and ``b`` then tell along which of
    its axes such an operand is computed. With ``slabs`` C only ever holds a row tile, which is
    taken from it before the next one is computed (``slabs``): work is counted in these.
    ``symmetric``: C equals its transpose, and only its upper triangle is computed (``mirror``).
    ``wide``: A is the smaller operand, and packed ahead in place of B.
    ``few``: how the last few columns may be computed by themselves (``few``).
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
    symmetric: bool = False
    wide: bool = False
    few: Few = ""
    tiny: TinyShape | None = None

    @property
    def folds(self) -> bool:
        """Whether batch axes may become rows: nothing else counts by the kernel's axes."""
        return self.epilogue is None and self.prologue is None

    @property
    def corrected(self) -> bool:
        """Whether each panel of B ends with a row that is added to the sums."""
        return self.prologue is not None and self.prologue.biased

    @property
    def pieces(self) -> int:
        """How many elements of a panel hold the same depths."""
        if self.gather is not None and self.gather.split:
            return PARTS
        return self.prologue.pieces if self.prologue is not None else 1

    def last_rows(self, side: Side) -> int:
        """Return how many rows a packed panel of A (or B) has behind those of its depth."""
        return int(self.pieces > 1 or (side == "b" and self.corrected))

    @property
    def depth_unit(self) -> int:
        """What blocks of the depth are multiples of, all but the last."""
        return TILE * self.pieces if self.tiled else 1

    @property
    def type(self) -> Type:
        return Type(self.dtype)

    @property
    def tiled(self) -> bool:
        """Whether tile registers multiply the operands."""
        if self.gather is not None:
            return self.gather.split
        return self.prologue is not None and self.prologue.tiled

    def unit(self, target: Target) -> RegisterBlock:
        """Return the largest piece of C that a microkernel computes."""
        return TILES if self.tiled else register_block(target, self.dtype)

    def cache(self, target: Target) -> CacheBlock:
        """Return the cache blocking."""
        return cache_block(target, self.type, self.unit(target))

    def copies(self, target: Target) -> bool:
        """Whether B is packed by the first microkernel that reads a panel of it."""
        plain = self.prologue is None and self.gather is None and self.b == "last"
        return target.masks and plain and self.pack_b and not self.pack_a

    @property
    def ahead(self) -> Literal["", "a", "b"]:
        """The operand that is packed for all threads before the product; the other is by tiles."""
        return "" if not self.pack_a else "a" if self.wide else "b"

    @property
    def key(self) -> str:
        """The text that decides the code."""
        around = [p.key for p in (self.epilogue, self.prologue) if p is not None]
        return " ".join([str(replace(self, epilogue=None, prologue=None)), *around])


@record(frozen=True, slots=True)
class GemmProblem:
    """C[b, m, n] = Σ_k A[b, m, k] · B[b, k, n]; strides in elements, any sign, 0 broadcasts.

    ``batch`` are the extents of the batch axes, ``*_batch`` the strides of the operands along
    them. C must not overlap A or B, nor itself. With ``gather`` it says where B's elements are,
    and ``b`` means nothing. ``gram``: A is the transpose of B. ``group``: how many rows the
    reader of a slab takes at a time; slabs have whole groups.
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
    gram: bool = False
    group: int = 1


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
    strided_dot = p.m == 1 and p.n == 1 and p.b[0] != 1 and p.a[1] == 1
    swapped = strided_dot or (p.m > 1 and (by_columns or p.n == 1))
    if not swapped:
        return p, False
    turned = GemmProblem(
        p.n, p.m, p.k, _turned(p.b), _turned(p.a), _turned(p.c),
        p.batch, p.b_batch, p.a_batch, p.c_batch, gram=p.gram, group=p.group,
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


# Rows up to which columns that are contiguous along the depth are dotted in place, and the depth
# from which on. Measured against packing, one thread, 2048 columns of depth 64: four rows 1.6 times
# as fast, eight 1.2; below a vector's depth slower.
FEW_DOTS, DEEP_DOTS = 8, 16
# Rows up to which those of a B beyond the first-level cache are read once, in order. Measured
# against panels on one thread, 2, 3, 6 and 7 rows of 512×512 and 2048×2048: 1.2 to 2.4 times as
# fast; from 128×128 on not slower; eight rows 0.83 to 0.94.
FEW_AXPYS = 7
# Rows of a symmetric product from which on half of it is computed.
MIN_SYMMETRIC = 96


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
        if p.gather.planes is not None and gather.split:
            return GemmSpec(
                kind, a, "any", c, True, False, "direct", batches, epilogue, gather, wide=True
            )
        if p.gather.planes is not None:
            return GemmSpec(kind, a, "any", c, False, False, "direct", batches, epilogue, gather)
        return GemmSpec(kind, a, "any", c, False, True, "gemm", batches, epilogue, gather)
    symmetric = p.gram and c == "last" and not slabs and p.m == p.n
    if prologue is not None:
        symmetric = symmetric and prologue.pieces > 1
        pack_a = prologue.a is not None or _packing(target, kind, p, a, b)[0]
        batches = len(p.batch)
        wide = prologue.tiled and not (slabs or symmetric) and _is_wide(target, prologue, p)
        return GemmSpec(
            kind, a, b, c, pack_a, True, "gemm", batches, epilogue, None, prologue, slabs,
            symmetric, wide,
        )  # fmt: skip
    tiny = _tiny(target, kind, p) if epilogue is None and not slabs else None
    if tiny is not None:
        return GemmSpec(kind, a, b, c, False, False, "tiny", len(p.batch), tiny=tiny)
    if p.m == 1 and p.b[0] == 1:
        b = "first"
    if p.m == 1 and b != "any":
        one_row: Kind = "axpys" if b == "last" else "dots"
        return GemmSpec(kind, a, b, c, False, False, one_row, len(p.batch), epilogue)
    if _dots_few_rows(p, a) and not slabs:
        return GemmSpec(kind, a, "first", c, False, False, "few_dots", len(p.batch), epilogue)
    if _streams_few_rows(target, kind, p, b) and not slabs:
        return GemmSpec(kind, a, b, c, False, False, "few_axpys", len(p.batch), epilogue)
    pack_a, pack_b = _packing(target, kind, p, a, b)
    symmetric = symmetric and p.m >= MIN_SYMMETRIC
    # Elements [i, j] and [j, i] of a Gram matrix are equal, so all its sums have the same order.
    few: Few = ""
    if a == "last" and not (pack_a or p.gram) and target.lanes(Type(kind).bits) > 2:
        few = "dots"
    elif (a, b, c) == ("first", "last", "last") and target.masks and not (pack_a or symmetric):
        few = "turned" if epilogue is None else ""
    return GemmSpec(
        kind, a, b, c, pack_a, pack_b, "gemm", len(p.batch), epilogue,
        slabs=slabs, symmetric=symmetric, few=few,
    )  # fmt: skip


def _is_wide(target: Target, prologue: KernelPrologue, p: GemmProblem) -> bool:
    """Whether A is so much smaller than B that it is packed ahead: elsewhere B is, which costs as
    much and writes C along its lines (5 % of 64 and 128 cubed, where all is near)."""
    far = prologue.pieces == 1 or not near_panel(target, p.k)
    return hint(p.m) <= hint(p.n) if far else 2 * hint(p.m) <= hint(p.n)


def near_panel(target: Target, depth: int) -> bool:
    """Whether a panel for tile registers takes at most half of the first-level cache."""
    return TILES.rows * 4 * hint(depth) <= target.l1_bytes // 2


def _dots_few_rows(p: GemmProblem, a: Stride) -> bool:
    """Whether the rows are so few that columns are dotted with them where they are."""
    if not 1 < hint(p.m) <= FEW_DOTS or a != "last" or p.b[0] != 1 or p.gram:
        return False
    return hint(p.n) > FEW_DOTS and hint(p.k) >= DEEP_DOTS


def _streams_few_rows(target: Target, kind: str, p: GemmProblem, b: Stride) -> bool:
    """Whether the rows are so few, and B so large, that B is read in the order of its memory.

    One panel of columns is read in that order anyway (4×4096×32 f32: twice as fast so).
    """
    if not 1 < hint(p.m) <= FEW_AXPYS or b != "last" or p.gram:
        return False
    large = hint(p.k) * hint(p.n) * Type(kind).bits // 8 >= target.l1_bytes
    return large and hint(p.n) >= 2 * register_block(target, kind).columns


def _packing(target: Target, kind: str, p: GemmProblem, a: Stride, b: Stride) -> tuple[bool, bool]:
    """Tell which operands to copy to panels: where the copy is read often enough.

    Measured on Sapphire Rapids: B is worth packing where more than five row panels read it (1.2
    to 1.4 times as slow at 32 rows of 1000×1000), or two if its rows fall on the same cache sets.
    Where a B about as large as the first-level cache needs no copy of its edges, up to 16 read it
    in place (5 % at 96 and 128). Packing ahead for all threads pays from some 400 rows on (10 to
    25 % slower at 128 and 256, faster from 512), sooner where A has gaps (15 % at 256 in f64).
    """
    rows, size = register_block(target, kind).rows, Type(kind).bits // 8
    height, width, depth = hint(p.m), hint(p.n), hint(p.k)
    same_sets = hint(p.b[0]) * size % 2048 == 0 and depth > 8
    small = target.masks and depth * width * size * 3 <= target.l1_bytes * 4
    few = 1 if same_sets else target.blocking.direct_panels if small else 5
    pack_b = b != "last" or height > few * rows
    part = 2 if a == "any" else 1
    many = height * part >= target.blocking.ahead_rows
    wide = width * part >= target.blocking.ahead_columns
    return pack_b and many and wide and depth >= 128, pack_b


def epilogue_slot(spec: GemmSpec) -> int:
    """Return the index in ``sizes`` of the first number that belongs to the epilogue."""
    return Slot.BATCH + 4 * spec.batch_axes
