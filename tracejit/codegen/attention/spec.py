"""What an attention kernel is specialised on, and how one is called."""

from __future__ import annotations

from enum import IntEnum
from math import prod
from typing import NamedTuple, cast

from tracejit.codegen.contraction.blocking import (
    TILE,
    TILES,
    RegisterBlock,
    balanced,
    register_block,
    round_up,
)
from tracejit.codegen.contraction.prologue import PARTS
from tracejit.codegen.contraction.spec import Layout, element_kind
from tracejit.codegen.target import Target
from tracejit.codegen.values import Type
from tracejit.record import record
from tracejit.schedule.attention import MOST_IN_PLACE
from tracejit.schedule.kernel import Access, Attend, Contract, Kernel
from tracejit.schedule.product import head_axes, left_access, right_access, values_access
from tracejit.sizes import hint, is_size

# Keys in a block: a panel of their scores fills about a third of the first-level cache, and so does
# one of their weights, split in three.
KEYS, SPLIT_KEYS = 256, 128
# Scores in a block where keys are read in place: with fewer, a single query waits for its maximum
# too often. Keys and values of a block stay in the second-level cache, into which the next ones are
# fetched meanwhile.
FEW_SCORES = 512
# Keys (or depths) in a tile register, and in how many elements of a panel their parts are.
TILE_DEPTH, TILE_ELEMENTS = 2 * TILE, PARTS * TILE
# Panels of queries in a tile share the packing of keys and values: at least so many do (a tenth of
# the time), and more, up to the third number, where there are so many tiles for threads all the
# same.
LEAST_PANELS, SHARED_TILES, MOST_PANELS = 9, 32, 48
# The same for numbers that are split, which takes longer.
LEAST_SPLIT_PANELS, SHARED_SPLIT_TILES = 16, 16


class Slot(IntEnum):
    """Index in ``sizes``; strides and places in the workspace are in elements. From ``BATCH`` on
    stand, for each batch axis, its extent and the strides of queries, keys and values."""

    QUERIES = 0
    KEYS = 1
    DEPTH = 2
    COLUMNS = 3
    Q_ROW = 4
    Q_DEPTH = 5
    K_ROW = 6
    K_DEPTH = 7
    V_ROW = 8
    V_COLUMN = 9
    TILE = 10
    TILES = 11
    WIDTH = 12  # columns, rounded up to whole panels
    PACKED = 13  # elements of a panel of queries or keys for each of its rows
    WORK_Q = 14
    WORK_K = 15
    WORK_V = 16
    WORK_RESULT = 17
    WORK_MAX = 18
    WORK_SUM = 19
    WORK_REFERENCE = 20  # of the rows of a panel, as WORK_SCALE
    WORK_SCALE = 21
    WORK_STAGE = 22  # of the packing of split numbers, and their weights, sums and factors
    WORK_WEIGHTS = 23
    WORK_PRODUCT = 24
    WORK_FACTOR = 25
    BATCH = 26


Q_POINTER, K_POINTER, V_POINTER, WORK_POINTER, POINTERS = range(5)


@record(frozen=True, slots=True)
class AttentionSpec:
    """All that changes the code: the kernel's expressions, and which strides are 1.

    ``visible`` are the scores (a position) where a causal mask hides nothing, None without one.
    With ``split`` the products are computed in tile registers (``contraction/split.py``). Where
    there are but a ``few`` queries, keys and values are read in place (``in_place.py``), and the
    code is made for their number; it is 0 elsewhere. It ``fetches`` them where no cache has them.
    """

    dtype: str
    kernel: Kernel
    batch: tuple[int, ...]
    q: Layout
    k: Layout
    v: Layout
    visible: int | None
    split: bool
    few: int
    fetches: bool

    @property
    def keys(self) -> int:
        """How many keys are in a block."""
        if self.few:
            return FEW_SCORES // (1 << (self.few - 1).bit_length())
        return SPLIT_KEYS if self.split else KEYS

    def unit(self, target: Target) -> RegisterBlock:
        """Return the largest piece of a product that is computed at a time."""
        if self.split:
            return TILES
        block = register_block(target, self.dtype)
        if not self.few:
            return block
        # Sums of each query and vector stay in registers, beside the values.
        most = max(1, (24 if target.registers >= 32 else 10) // self.few)
        return RegisterBlock(self.few, next(n for n in (8, 4, 2, 1) if n <= most), block.lanes)

    @property
    def attend(self) -> Attend:
        assert self.kernel.attend is not None
        return self.kernel.attend

    @property
    def contract(self) -> Contract | None:
        return self.kernel.contract

    @property
    def key(self) -> str:
        layouts = f"{self.q} {self.k} {self.v}"
        way = f"split={self.split} few={self.few} fetches={self.fetches}"
        return f"{self.dtype} {layouts} {self.visible} {way}\n{self.kernel.key}"


class AttentionCall(NamedTuple):
    """How to call the kernel of ``spec``: queries, keys and values, ``sizes``, how many tiles,
    bytes of workspace for each worker, and the flops of all."""

    spec: AttentionSpec
    operands: tuple[Access, Access, Access]
    sizes: tuple[int, ...]
    tiles: int
    nbytes: int
    flops: int


def bind(kernel: Kernel, target: Target, *, visible: int | None) -> AttentionCall:
    """Return the call of an attention kernel; with ``visible`` scores it leaves hidden keys out."""
    attend, contract = cast(Attend, kernel.attend), kernel.contract
    values = values_access(kernel)
    batch = head_axes(kernel)
    if contract is None:  # the scores are in memory
        q = k = values
        depth, q_strides, k_strides = 0, (0, 0), (0, 0)
    else:
        q, k, over = left_access(kernel), right_access(kernel), contract.over
        depth = kernel.extents[over]
        q_strides = q.strides[attend.rows], q.strides[over]
        k_strides = k.strides[attend.over], k.strides[over]
    v_strides = values.strides[attend.over], values.strides[attend.columns]
    rows, columns, keys = (kernel.extents[a] for a in (attend.rows, attend.columns, attend.over))
    dtype = element_kind(attend.dtype)
    heads = prod(kernel.extents[a] for a in batch)
    layouts = _layout(*q_strides), _layout(*k_strides), _layout(*reversed(v_strides))
    few = 0 if contract is None else _few(rows, layouts)
    splits = not few and target.tiles and dtype == "f32"
    splits = splits and split_pays(rows, keys, depth, columns)
    nbytes = heads * keys * (depth + columns) * attend.dtype.itemsize
    fetches = few > 0 and hint(nbytes) > target.l2_bytes
    spec = AttentionSpec(dtype, kernel, tuple(batch), *layouts, visible, splits, few, fetches)
    blocks = _blocking(target, spec, heads, rows, depth, columns)
    sizes = [rows, keys, depth, columns, *q_strides, *k_strides, *v_strides, *blocks.slots]
    for axis in batch:
        sizes += (kernel.extents[axis], *(x.strides[axis] for x in (q, k, values)))
    return AttentionCall(
        spec,
        (q, k, values),
        (*sizes, *kernel.sizes()),
        heads * blocks.tiles,
        blocks.nbytes,
        2 * heads * rows * keys * (depth + columns),
    )


def _few(rows: int, layouts: tuple[Layout, Layout, Layout]) -> int:
    """Return the number of queries that read keys and values in place, or 0."""
    if layouts != ("depth", "depth", "width") or is_size(rows):
        return 0
    return rows if rows <= MOST_IN_PLACE else 0


def split_pays(queries: int, keys: int, depth: int, columns: int) -> bool:
    """Whether tile registers are faster.

    Measured on one core of a Sapphire Rapids, in ps: a multiply-add takes 10, in tiles 5.3, and
    those that fill them up count too; a weight takes 150 to be split.
    """
    m, n, d, c = (hint(x) for x in (queries, keys, depth, columns))
    rows, block = round_up(m, TILE), round_up(n, TILE_DEPTH)
    filled = rows * block * (round_up(d, TILE_DEPTH) + round_up(c, TILES.columns))
    return 10 * m * n * (d + c) > 5.3 * filled + 150 * rows * block


class _Blocking(NamedTuple):
    """The run-time numbers from ``TILE`` on, tiles in a head, bytes of workspace."""

    slots: tuple[int, ...]
    tiles: int
    nbytes: int


def _blocking(
    target: Target, spec: AttentionSpec, heads: int, queries: int, depth: int, columns: int
) -> _Blocking:
    """Return how each head of ``queries`` × ``depth`` with ``columns`` of values is cut."""
    unit, block = spec.unit(target), spec.keys
    size = Type(spec.dtype).bits // 8
    slack = 64 // size
    width = round_up(columns, unit.columns)
    packed, packed_keys = depth, block
    if spec.split:  # a row of the panel's range follows
        packed, packed_keys = (round_up(n, TILE_DEPTH) * PARTS // 2 + 1 for n in (depth, block))
    # Queries and results of a tile stay in the second-level cache.
    near = target.l2_bytes // 2 // (max(1, packed + width) * size * unit.rows)
    least, enough = LEAST_PANELS, SHARED_TILES
    if spec.split:
        least, enough = LEAST_SPLIT_PANELS, SHARED_SPLIT_TILES
    shared = -(-heads * -(-queries // unit.rows) // enough)
    most = unit.rows * max(least, min(MOST_PANELS, near, shared))
    tile = round_up(balanced(queries, most, unit.rows), unit.rows)
    rows = statistics(unit)
    panels = [tile * packed, block * packed, packed_keys * width]
    pieces = [
        unit.rows * block, *([0] * 3 if spec.few else panels), tile * width,
        *[tile // unit.rows * rows] * 2, rows, rows,
    ]  # fmt: skip
    if spec.split:
        stage = unit.rows * max(packed, packed_keys)
        pieces += [stage, unit.rows * packed_keys, unit.rows * unit.columns, block]
    else:
        pieces += [0] * 4
    places = [0]
    for piece in pieces:
        places.append(places[-1] + round_up(piece, slack) + slack)
    *starts, end = places
    tiles = max(1, -(-queries // tile))
    return _Blocking((tile, tiles, width, packed, *starts[1:]), tiles, end * size)


def statistics(unit: RegisterBlock) -> int:
    """Return how many maxima (or sums) are kept of a panel: whole vectors of them."""
    return round_up(unit.rows, unit.lanes)


def _layout(across: int, along: int) -> Layout:
    """Return which of the strides across and along a panel is 1."""
    return "depth" if along == 1 else "width" if across == 1 else "any"
