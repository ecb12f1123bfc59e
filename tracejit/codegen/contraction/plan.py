"""The calls that a product is made of: one, or where B (or A) is packed ahead several.

    for part of the depth (or of the batch):   as much as the packed B may take
      pack all strips of B in it               shared among threads, each once
      compute all tiles of C over it           shared among threads

So however tiles are shared, no thread packs the B that another has packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from tracejit.codegen.contraction.blocking import round_up
from tracejit.codegen.contraction.grid import (
    Grid,
    gemm_arguments,
    grid_of,
    near_blocks,
    packs_itself,
    tile_count,
    tile_grain,
)
from tracejit.codegen.contraction.spec import GemmProblem, GemmSpec, Slot, canonical
from tracejit.codegen.target import Target

# Memory for what is packed ahead, where a block of the depth does not take more.
PACKED_BYTES = 64 << 20
# Panels in a strip: B's rows are read some lines at a time, and threads share strips.
_STRIP = 4


class Stage(NamedTuple):
    """One call of a kernel: its ``sizes``, how many tiles there are, and a good chunk of them."""

    sizes: tuple[int, ...]
    tiles: int
    grain: int


class _Packed(NamedTuple):
    """The elements of a packed depth block, and the strips that it is packed in."""

    block: int
    strip: int
    strips: int


def stages(spec: GemmSpec, target: Target, problem: GemmProblem, threads: int) -> list[Stage]:
    """Return the calls that compute ``problem``, in order, for that many threads.

    Only tiles and chunks depend on ``threads``, no bits. Without tiles there is one call, of none.
    """
    sizes = gemm_arguments(spec, target, problem).sizes
    tiles = tile_count(spec, target, problem)
    grain = tile_grain(spec, target, problem, threads)
    if not spec.ahead or not tiles:
        return [Stage(sizes, tiles, grain)]
    grid, batch, alone, packed = _layout(spec, target, problem)
    if not packed.block:
        return [Stage(sizes, tiles, grain if threads > 1 else tiles)]
    # Each column tile packs A again, for threads to share (measured on one thread, 512 cubed in
    # float64: 5 %).
    if spec.ahead == "b" and (threads == 1 or tiles >= 2 * threads * grid.tiles_n):
        tiles //= grid.tiles_n
        grid = grid._replace(tile_n=grid.tile_n * grid.tiles_n, tiles_n=1)
        sizes = (*sizes[: Slot.TILE_M], *grid, *sizes[Slot.TILE_M + len(grid) :])
    elements, depths = _part(spec, target, grid, (batch, alone), packed)
    if elements == alone:
        elements = batch
    else:
        alone = batch
    found: list[Stage] = []
    for first in range(0, batch, elements):
        count = min(elements, batch - first)
        for k in range(0, grid.blocks_k, depths):
            deep = min(depths, grid.blocks_k - k)
            for packing in (1, 0):
                own = list(sizes)
                own[Slot.PACKING : Slot.FIRST_K + 1] = packing, first, k
                own[Slot.BLOCKS_K] = deep
                own[Slot.PACKED : Slot.ALONE + 1] = *packed, alone
                total = (
                    min(count, alone) * deep * packed.strips if packing else count * tiles // batch
                )
                found.append(Stage(tuple(own), total, grain if threads > 1 else total))
    return found


def packed_bytes(spec: GemmSpec, target: Target, problem: GemmProblem) -> int:
    """Return the bytes of the packed operand that all threads share, 64-byte aligned."""
    if not spec.ahead:
        return 0
    grid, batch, alone, packed = _layout(spec, target, problem)
    if not packed.block:
        return 0
    elements, depths = _part(spec, target, grid, (batch, alone), packed)
    return elements * depths * packed.block * (spec.type.bits // 8)


def _layout(spec: GemmSpec, target: Target, problem: GemmProblem) -> tuple[Grid, int, int, _Packed]:
    """Return the tiles, the number of batch elements, how many of these have packed operands of
    their own, and how a depth block is packed (not at all: nothing)."""
    p, _ = canonical(problem, fold=spec.folds)
    grid, unit = grid_of(spec, target, p), spec.unit(target)
    if packs_itself(spec, grid, p):
        return grid, 1, 1, _Packed(0, 0, 0)
    extent, width = (p.m, unit.rows) if spec.ahead == "a" else (p.n, unit.columns)
    line = 64 // (spec.type.bits // 8)
    block = round_up(
        round_up(extent, width) * (grid.block_k + spec.last_rows(spec.ahead or "b")), line
    )
    strip = _STRIP * width if spec.kind == "gemm" else width
    alone = _alone(p.batch, p.a_batch if spec.ahead == "a" else p.b_batch)
    return grid, prod(p.batch), alone, _Packed(block, strip, max(1, -(-extent // strip)))


def _alone(batch: Sequence[int], strides: Sequence[int]) -> int:
    """Return after how many batch elements an operand repeats itself."""
    outer = next((i for i, stride in enumerate(strides) if stride != 0), len(batch))
    return prod(batch[outer:])


def _part(
    spec: GemmSpec, target: Target, grid: Grid, counts: tuple[int, int], packed: _Packed
) -> tuple[int, int]:
    """Return how many batch elements and depth blocks are packed at a time; ``counts`` are the
    batch elements, and those that have packed operands of their own.

    What is split is read soon, where several elements have room in half of the second-level cache
    (measured for 16 to 64 products of 96 and 128 cubed: 0.8 of the time on one thread, 0.9 on two).
    """
    (batch, alone), size = counts, packed.block * (spec.type.bits // 8)
    most = max(1, PACKED_BYTES // size)
    near = target.l2_bytes // 2 // (size * grid.blocks_k)
    if spec.kind == "gemm" and spec.pieces > 1 and alone == batch and near > 1:
        alone = min(alone, near)
    depths = most
    if spec.wide and spec.kind == "gemm":  # a tile packs all of the other operand's
        depths = min(most, near_blocks(target, spec, grid.block_k))
    if depths < grid.blocks_k and not spec.slabs:  # a slab is computed at once
        return max(1, min(alone, most // depths)), depths
    return max(1, min(alone, most // grid.blocks_k)), grid.blocks_k
