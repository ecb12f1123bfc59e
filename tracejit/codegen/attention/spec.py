"""What an attention kernel is specialised on, and how one is called."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import NamedTuple, cast

from tracejit.codegen.contraction.blocking import (
    RegisterBlock,
    balanced,
    register_block,
    round_up,
)
from tracejit.codegen.contraction.spec import Layout, element_kind
from tracejit.codegen.target import Target
from tracejit.codegen.values import Type
from tracejit.schedule.kernel import Access, Attend, Contract, Kernel
from tracejit.schedule.product import head_axes, left_access, right_access, values_access

# Keys in a block: a panel of their scores fills about a quarter of the first-level cache.
KEYS = 256
# Panels of queries in a tile share the packing of keys and values: at least so many do (a tenth of
# the time for 14 rows each), and more where there are so many tiles for threads all the same.
LEAST_PANELS, MOST_PANELS, TILES = 9, 48, 32


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
    WORK_Q = 13
    WORK_K = 14
    WORK_V = 15
    WORK_RESULT = 16
    WORK_MAX = 17
    WORK_SUM = 18
    WORK_REFERENCE = 19  # of the rows of a panel, as WORK_SCALE
    WORK_SCALE = 20
    BATCH = 21


Q_POINTER, K_POINTER, V_POINTER, WORK_POINTER, POINTERS = range(5)


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """All that changes the code: the kernel's expressions, and which strides are 1.

    ``visible`` are the scores (a position) where a causal mask hides nothing, None without one.
    """

    dtype: str
    kernel: Kernel
    batch: tuple[int, ...]
    q: Layout
    k: Layout
    v: Layout
    visible: int | None

    @property
    def attend(self) -> Attend:
        assert self.kernel.attend is not None
        return self.kernel.attend

    @property
    def contract(self) -> Contract | None:
        return self.kernel.contract

    @property
    def key(self) -> str:
        return f"{self.dtype} {self.q} {self.k} {self.v} {self.visible}\n{self.kernel.key}"


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
    spec = AttentionSpec(
        dtype, kernel, tuple(batch), _layout(*q_strides), _layout(*k_strides),
        _layout(*reversed(v_strides)), visible,
    )  # fmt: skip
    heads = prod(kernel.extents[a] for a in batch)
    blocks = _blocking(target, dtype, heads, rows, depth, columns)
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


class _Blocking(NamedTuple):
    """The run-time numbers from ``TILE`` to ``WORK_SCALE``, tiles in a head, bytes of workspace."""

    slots: tuple[int, ...]
    tiles: int
    nbytes: int


def _blocking(
    target: Target, dtype: str, heads: int, queries: int, depth: int, columns: int
) -> _Blocking:
    """Return how each head of ``queries`` × ``depth`` with ``columns`` of values is cut."""
    unit = register_block(target, dtype)
    size = Type(dtype).bits // 8
    slack = 64 // size
    width = round_up(columns, unit.columns)
    # Queries and results of a tile stay in the second-level cache.
    near = target.l2_bytes // 2 // (max(1, depth + width) * size * unit.rows)
    shared = -(-heads * -(-queries // unit.rows) // TILES)
    panels = max(LEAST_PANELS, min(MOST_PANELS, near, shared))
    tile = round_up(balanced(queries, panels * unit.rows, unit.rows), unit.rows)
    rows = statistics(unit)
    pieces = [
        unit.rows * KEYS, tile * depth, KEYS * depth, KEYS * width, tile * width,
        *[tile // unit.rows * rows] * 2, rows, rows,
    ]  # fmt: skip
    places = [0]
    for piece in pieces:
        places.append(places[-1] + round_up(piece, slack) + slack)
    tiles = max(1, -(-queries // tile))
    return _Blocking((tile, tiles, width, *places[1:9]), tiles, places[9] * size)


def statistics(unit: RegisterBlock) -> int:
    """Return how many maxima (or sums) are kept of a panel: whole vectors of them."""
    return round_up(unit.rows, unit.lanes)


def _layout(across: int, along: int) -> Layout:
    """Return which of the strides across and along a panel is 1."""
    return "depth" if along == 1 else "width" if across == 1 else "any"
