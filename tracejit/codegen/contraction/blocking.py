"""Register and cache blocking of a matrix product, from the target's numbers.

After K. Goto and R. van de Geijn, "Anatomy of high-performance matrix multiplication" (ACM TOMS
34(3), 2008) and the BLIS papers: accumulators fill the registers, a panel of B stays in the
first-level cache, a block of A in the second, a block of B in the third.
"""

from __future__ import annotations

from typing import NamedTuple

from tracejit.codegen.target import Target
from tracejit.codegen.values import Type


class RegisterBlock(NamedTuple):
    """The microkernel's piece of C: ``rows`` × ``vectors`` registers of ``lanes`` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes


class CacheBlock(NamedTuple):
    """Upper bounds of what is kept in the caches: ``m`` × ``k`` of A, ``k`` × ``n`` of B."""

    m: int
    n: int
    k: int


# Tile registers: two by two of them, 16×16 sums each, on elements of four bytes.
TILE = 16
TILES = RegisterBlock(2 * TILE, 2, TILE)
# Parts that a split number has (``split``).
PARTS = 3


def register_block(target: Target, dtype: str) -> RegisterBlock:
    """Return the largest piece of C that leaves registers for two of B and one of A.

    Multiply-add latency times throughput wants at least 8 accumulators; a broadcast per row and
    a load per vector want few loads per multiply-add, so both sides matter.
    """
    type = Type(dtype)
    lanes = target.lanes(type.bits)
    if target.registers >= 32:
        return RegisterBlock(14 if type.is_float else 8, 2, lanes)
    if type.is_float and target.fma:
        return RegisterBlock(6, 2, lanes)
    # The product needs a register of its own; 64-bit integer products are built of three.
    return RegisterBlock(4 if type.is_float or type.bits == 32 else 2, 2, lanes)


def cache_block(target: Target, type: Type, unit: RegisterBlock) -> CacheBlock:
    """Return the cache blocking: a panel of B fills three quarters of the first level, or streams
    from the second where that is large, which adds to C less often; the block of A fills three
    eighths of the second, which the streams through it share.

    Measured on Zen 3 (32 KiB, 512 KiB): 384 deep is 2 % faster than 256 or 512, whatever the
    height from 60 to 250 rows. On Sapphire Rapids (48 KiB, 2 MiB): 512 is 5 to 9 % faster than
    288 or 256 at 2048 in f32 and f64."""
    size = type.bits // 8
    panel = max(target.l1_bytes * 3 // 4, target.l2_bytes // 32)
    k = max(64, round_down(panel // (unit.columns * size), 8))
    m = max(unit.rows, round_down(target.l2_bytes * 3 // 8 // (k * size), unit.rows))
    n = max(unit.columns, min(1024, target.l3_bytes // 4 // (k * size)))
    return CacheBlock(m, round_down(n, unit.columns), k)


def round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def round_down(value: int, unit: int) -> int:
    return value // unit * unit


def balanced(extent: int, limit: int, unit: int) -> int:
    """Return the block size that cuts ``extent`` into the fewest blocks of at most ``limit``,
    as equal as multiples of ``unit`` allow (at least 1)."""
    blocks = max(1, -(-extent // limit))
    size = round_up(-(-extent // blocks), unit)
    if limit % unit == 0:  # then it is within the limit
        return max(1, size)
    return max(1, min(limit, size))


def cheap_height(rows: int, unit: RegisterBlock) -> int:
    """Return the least height from ``rows`` on whose last panel costs no more than its rows: what
    is left over full panels is a multiple of 4 (see ``panel_heights``)."""
    if unit == TILES:
        return round_up(rows, unit.rows)
    left = rows % unit.rows
    return rows - left + min(unit.rows, round_up(left, 4))


def offered_heights(unit: RegisterBlock) -> list[int]:
    """Return the heights that have a microkernel, highest first: each takes 5 ms to compile."""
    if unit == TILES:
        return [2 * TILE, TILE]
    small = (8, 4, 2, 1) if unit.rows > 8 else (6, 4, 3, 2, 1)
    return list(dict.fromkeys(h for h in (unit.rows, *small) if h <= unit.rows))


def offered_vectors(unit: RegisterBlock, rows: int) -> tuple[int, ...]:
    """Return the widths (vectors) of the microkernels of a height. At most four rows take as long
    for one vector as for two (see ``panel_heights``), so there is one microkernel for both."""
    return (1, unit.vectors) if rows > 4 or rows == unit.rows else (unit.vectors,)


def most_few(unit: RegisterBlock) -> int:
    """Return how many columns at most are computed by themselves (``few``)."""
    return max(1, unit.lanes // 2)


def panel_heights(unit: RegisterBlock, packed: bool) -> list[int]:
    """Return, for 0 … 2·rows - 1 rows that are left, the height of the next panel down.

    The rest is cut so that it costs least: a step takes half a cycle per multiply-add, but at
    least the four cycles until a sum is there again, so 4 + 4 rows are faster than 6 + 2. Panels
    of a packed A start at multiples of the full height.
    """
    cost, choice = [0.0], [0]
    for left in range(1, 2 * unit.rows):
        options = [
            (cost[left - h] + max(4.0, h * unit.vectors / 2) + 0.1, -h)
            for h in offered_heights(unit)
            if h <= left
        ]
        best, height = min(options)
        cost.append(best)
        choice.append(-height)
    return choice[: unit.rows] + [unit.rows] * unit.rows if packed else choice
