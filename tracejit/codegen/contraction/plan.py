"""The calls that a product is made of: one, or where its operands are packed ahead several.

    for part of the depth (or of the batch):   as much as the packed operands may take
      pack all blocks of A and B in it         shared among threads, each block once
      compute all tiles of C over it           shared among threads, from packed blocks only

A block of A is as high as a tile of C, one of B as wide, both are ``BLOCK_K`` deep. So however
tiles are shared, no thread packs what another has packed, and tiles may be small.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from tracejit.codegen.contraction.blocking import register_block, round_up
from tracejit.codegen.contraction.spec import (
    GemmProblem,
    GemmSpec,
    Grid,
    Slot,
    canonical,
    gemm_arguments,
    grid_of,
    tile_count,
    tile_grain,
)
from tracejit.codegen.target import Target

# Memory for packed operands, where a block of the depth does not take more.
PACKED_BYTES = 64 << 20


class Stage(NamedTuple):
    """One call of a kernel: its ``sizes``, how many tiles there are, and a good chunk of them."""

    sizes: tuple[int, ...]
    tiles: int
    grain: int


class _Blocks(NamedTuple):
    """Elements of a packed block of A and of B, and of all blocks of one depth block."""

    a: int
    b: int
    all: int


def stages(spec: GemmSpec, target: Target, problem: GemmProblem, threads: int) -> list[Stage]:
    """Return the calls that compute ``problem``, in order, for that many threads.

    Only chunks depend on ``threads``. Without tiles there is one call, of none.
    """
    sizes = gemm_arguments(spec, target, problem).sizes
    tiles = tile_count(spec, target, problem)
    grain = tile_grain(spec, target, problem, threads)
    if not spec.ahead or not tiles:
        return [Stage(sizes, tiles, grain)]
    grid, batch, blocks = _layout(spec, target, problem)
    elements, depths = _part(spec, grid, batch, blocks)
    found: list[Stage] = []
    for first in range(0, batch, elements):
        count = min(elements, batch - first)
        for k in range(0, grid.blocks_k, depths):
            deep = min(depths, grid.blocks_k - k)
            for packing in (1, 0):
                own = list(sizes)
                own[Slot.PACKING : Slot.FIRST_K + 1] = packing, first, k
                own[Slot.BLOCKS_K] = deep
                own[Slot.BLOCK_A], own[Slot.BLOCK_B] = blocks.a, blocks.b
                own[Slot.PACKED_B] = count * deep * grid.tiles_m * blocks.a
                each = deep * (grid.tiles_m + grid.tiles_n) if packing else tiles // batch
                total = count * each
                found.append(Stage(tuple(own), total, grain if threads > 1 else total))
    return found


def packed_bytes(spec: GemmSpec, target: Target, problem: GemmProblem) -> int:
    """Return the bytes of the packed operands that all threads share, 64-byte aligned."""
    if not spec.ahead:
        return 0
    grid, batch, blocks = _layout(spec, target, problem)
    elements, depths = _part(spec, grid, batch, blocks)
    return elements * depths * blocks.all * (spec.type.bits // 8)


def _layout(spec: GemmSpec, target: Target, problem: GemmProblem) -> tuple[Grid, int, _Blocks]:
    """Return the tiles, the number of batch elements, and the sizes of packed blocks."""
    p, _ = canonical(problem, fold=spec.folds)
    grid, unit = grid_of(spec, target, p), register_block(target, spec.dtype)
    line = 64 // (spec.type.bits // 8)
    # Packing may write up to a vector beyond a panel.
    a = round_up(round_up(grid.tile_m, unit.rows) * grid.block_k, line) + line
    b = round_up(round_up(grid.tile_n, unit.columns) * (grid.block_k + spec.corrected), line)
    return grid, prod(p.batch), _Blocks(a, b, grid.tiles_m * a + grid.tiles_n * b)


def _part(spec: GemmSpec, grid: Grid, batch: int, blocks: _Blocks) -> tuple[int, int]:
    """Return of how many batch elements and depth blocks the operands are packed at a time."""
    most = max(1, PACKED_BYTES // (blocks.all * (spec.type.bits // 8)))
    if most < grid.blocks_k and not spec.slabs:  # a slab is computed at once
        return 1, most
    return max(1, min(batch, most // grid.blocks_k)), grid.blocks_k
