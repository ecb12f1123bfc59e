"""How a product is cut into tiles and depth blocks, and what its kernel is told of that.

``gemm_arguments`` lays out the ``sizes`` array of a kernel, as ``Slot`` orders it. Tiles are
what threads share: their sizes change no bits, and follow from the caches and the work alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import NamedTuple

from tracejit.codegen.contraction.blocking import (
    TILE,
    TILES,
    RegisterBlock,
    balanced,
    cheap_height,
    most_few,
    round_down,
    round_up,
)
from tracejit.codegen.contraction.planes import Planes
from tracejit.codegen.contraction.spec import (
    GemmArguments,
    GemmProblem,
    GemmSpec,
    Slot,
    canonical,
    near_panel,
)
from tracejit.codegen.target import Target
from tracejit.sizes import hint


def gemm_arguments(spec: GemmSpec, target: Target, problem: GemmProblem) -> GemmArguments:
    """Return the ``sizes`` of ``problem`` for the kernel of ``spec``, as ``Slot`` orders them."""
    p, swapped = canonical(problem, fold=spec.folds)
    grid = grid_of(spec, target, p)
    axes = zip(p.batch, p.a_batch, p.b_batch, p.c_batch, strict=True)
    fixed = (p.m, p.n, p.k, *p.a, *p.b, *p.c, *grid, 0, 0, 0, 0, grid.blocks_k, 0, 0, 0, 0)
    return GemmArguments((*fixed, *(number for axis in axes for number in axis)), swapped)


def with_table(sizes: Sequence[int], problem: GemmProblem) -> tuple[int, ...]:
    """Return a kernel's complete ``sizes`` with the table of a gathered B behind them."""
    if problem.gather is None:
        return tuple(sizes)
    return (*sizes[: Slot.TABLE], len(sizes), *sizes[Slot.TABLE + 1 :], *problem.gather.table())


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
    unit = spec.unit(target)
    cache = spec.cache(target)
    if p.gather is not None and p.gather.planes is not None:
        direct = _direct_in_tiles if spec.tiled else _direct
        return direct(spec, target, p, p.gather.planes)
    if spec.kind == "tiny":  # a run is a part of the innermost batch axis
        return Grid(m, n, k, p.batch[-1], 1, 1, 0, 0)
    if spec.kind != "gemm":
        tile_n = balanced(n, _one_row_tile(spec, target, p), unit.columns)
        # Sums of several tiles, where they follow each other, from up to a vector on (gemv.py).
        summed = spec.kind in ("axpys", "few_axpys")
        sums = max(tile_n, min(n, _most_sums(spec, target, p))) if summed else tile_n
        work_a = max(round_up(sums, unit.columns) + unit.lanes, unit.rows * unit.columns)
        work_b = work_a * m if spec.kind == "few_axpys" else work_a
        work_b += k if spec.kind == "dots" and spec.a != "last" else 0
        return Grid(1, tile_n, max(1, k), 1, max(1, -(-n // tile_n)), 1, work_a, work_b)
    if spec.ahead:
        # Sums wait in memory half as often (measured: 2 to 5 % from 768 on).
        depth = spec.pieces * cache.k // 2 if spec.tiled else target.blocking.depth * cache.k
        step = max(unit.lanes, spec.depth_unit)
        block_k = balanced(k, max(step, round_down(depth, step)), step)
        tile = _wide if spec.wide else _ahead
        tile_m, tile_n = tile(target, spec, p, block_k)
    else:
        block_k = balanced(k, _far_rows(spec, target, p) or cache.k, unit.lanes)
        tile_m = balanced(m, cache.m, unit.rows)
        tile_n = balanced(n, cache.n, unit.columns)
        share = _shared if spec.gather is None else _of_windows
        tile_m, tile_n = share(spec, target, p, (tile_m, tile_n))
    if spec.slabs:
        tile_m = min(tile_m, _slab(target, spec, p))
        if p.group > 1:
            tile_m = max(p.group, round_down(tile_m, p.group))
        tile_n = round_up(n, unit.columns) if spec.ahead else tile_n
    work = stage_place(spec, unit)
    line = 64 // (spec.type.bits // 8)
    if spec.prologue is not None:
        work += round_up(max(unit.rows, unit.columns) * block_k + line, line)
    counts = (max(1, -(-m // tile_m)), max(1, -(-n // tile_n)), max(1, -(-k // block_k)))
    after = round_up(most_few(unit) * block_k + line, line) if spec.few == "dots" else 0
    return Grid(tile_m, tile_n, block_k, *counts, work, work + after)


def stage_place(spec: GemmSpec, unit: RegisterBlock) -> int:
    """Return where in the workspace (elements) a panel is computed before it is transposed."""
    return round_up(unit.rows * unit.columns, 64 // (spec.type.bits // 8))


# Rows of B that are read in place before the next columns are.
_FAR_ROWS = 128


def _far_rows(spec: GemmSpec, target: Target, p: GemmProblem) -> int:
    """Return how deep a block is where B is read in place from afar and its rows fall on the same
    cache sets, else 0: what was fetched ahead in them would be gone before it is used.

    Measured for 2 to 14 rows of 1024×1024 and 2048×2048: 1.05 to 1.17 times as fast; of 512×512 in
    float64, which fills the second-level cache: 1.1 to 1.4.
    """
    size = spec.type.bits // 8
    same_sets = p.b[0] * size % 2048 == 0
    far = not spec.pack_b and p.k * p.n * size >= target.l2_bytes
    return _FAR_ROWS if far and same_sets else 0


# Tiles that threads share, where they have enough work (1 << 20 multiply-adds are about 10 µs).
_TILES = 8


def _wanted_tiles(target: Target, p: GemmProblem) -> int:
    """Return how many tiles a product should have for threads to share."""
    work = hint(prod(p.batch)) * hint(p.m) * hint(p.n) * hint(p.k)
    return min(_TILES, work // target.blocking.tile_work)


def _ahead(target: Target, spec: GemmSpec, p: GemmProblem, block_k: int) -> tuple[int, int]:
    """Return the size of a tile where B is packed ahead: all columns, where rows are many.

    The block of A takes at most half of the second-level cache. Panels of B are read from far away
    once for every ``share_panels`` row panels or more. An even number of row tiles leaves less for
    the last thread to do alone. Each column tile packs A again.
    """
    unit, batch = spec.unit(target), prod(p.batch)
    fitting = target.l2_bytes // 2 // (block_k * (spec.type.bits // 8))
    most = min(
        target.blocking.tile_panels * unit.rows, max(unit.rows, round_down(fitting, unit.rows))
    )
    if spec.tiled:
        # Tile registers outpace the caches. Low tiles write C along its lines; higher ones read B
        # less often, which counts where sums wait in memory. Measured: with 18 panels 1024 cubed
        # takes 0.91 ms in place of 0.79; 512×4096×512 1.21 ms in place of 1.07.
        most = unit.rows * (2 if p.k <= block_k else 4)
        if spec.pieces > 1 and near_panel(target, p.k):
            # What is split goes where the panel before has been (5 to 8 % of 64 and 128 cubed).
            most = unit.rows
    wanted, least = _wanted_tiles(target, p), target.blocking.share_panels * unit.rows
    rows = max(-(-p.m // most), min(-(-wanted // max(1, batch)), p.m // least))
    if rows > 1:
        rows = round_up(rows, 2)
    columns = min(wanted // max(1, rows * batch), p.n // (8 * unit.columns))
    tile_n = p.n if columns <= 1 else -(-p.n // columns)
    tile_m = cheap_height(max(1, -(-p.m // max(1, rows))), unit)
    return tile_m, max(unit.columns, round_up(tile_n, unit.columns))


# Columns that a tile has at least where A is packed ahead.
_LEAST_COLUMNS = 4 * TILES.columns


def near_blocks(target: Target, spec: GemmSpec, block_k: int) -> int:
    """Return how many depth blocks of B, where A is packed ahead, take half of the second-level
    cache in tiles of a few columns. Of split numbers it is one: more in narrower tiles would read
    A more often (measured: 8 % of 512×768×3072).
    """
    if spec.pieces > 1:
        return 1
    return max(1, target.l2_bytes // 2 // (_LEAST_COLUMNS * block_k * (spec.type.bits // 8)))


def _wide(target: Target, spec: GemmSpec, p: GemmProblem, block_k: int) -> tuple[int, int]:
    """Return the size of a tile where A is packed ahead: all rows, and columns whose part of B
    takes three eighths of the second-level cache.

    Every tile reads all of A, so there are few where A is far away (measured on one thread:
    1024 cubed in bfloat16 takes 1.9 ms with 2 and 4 tiles, 2.4 with 8).
    """
    unit, batch, size = spec.unit(target), prod(p.batch), spec.type.bits // 8
    if spec.pieces > 1 and near_panel(target, p.k):
        # As in ``_ahead``: 0.82 of the time of 64×512×64.
        return round_up(p.m, unit.rows), unit.columns
    depth = min(p.k, block_k * near_blocks(target, spec, block_k))
    fitting = round_down(target.l2_bytes * 3 // 8 // (depth * size), unit.columns)
    wanted = _wanted_tiles(target, p)
    if hint(p.m) * hint(p.k) * size > target.l2_bytes // 2:
        wanted //= 2
    shared = -(-batch * p.n // max(1, wanted))
    tile_n = balanced(p.n, max(_LEAST_COLUMNS, min(fitting, shared)), unit.columns)
    return round_up(p.m, unit.rows), tile_n


def _shared(
    spec: GemmSpec, target: Target, p: GemmProblem, tile: tuple[int, int]
) -> tuple[int, int]:
    """Return tile sizes that leave enough tiles for threads to share.

    Row tiles of several threads pack the same columns, which costs little beside many rows.
    Column tiles have their own, but read all of A again, which costs little where it is near.
    """
    tile_m, tile_n = tile
    unit, wanted, batch = spec.unit(target), _wanted_tiles(target, p), prod(p.batch)
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
    unit, batch, size = spec.unit(target), prod(p.batch), spec.type.bits // 8
    each, columns = -(-2 * _wanted_tiles(target, p) // max(1, batch)), 1
    if p.m * p.k * size <= target.l2_bytes:
        # Three panels and more wide, and the last not much narrower.
        while 2 * columns <= each and p.n >= 6 * unit.columns * columns + unit.lanes:
            columns *= 2
    depth = min(p.k, spec.cache(target).k)
    near = target.l2_bytes // 4 // (max(1, depth) * size)
    most = round_up(min(tile_n, near, -(-p.n // columns)), unit.columns)
    rows = min(each // columns, p.m // (4 * unit.rows), 4 // columns)
    if rows > 1:
        tile_m = min(tile_m, -(-p.m // rows))
    return tile_m, balanced(p.n, max(most, unit.columns), unit.columns)


# What a slab takes at most, unless a row panel takes more: every thread has one.
_SLAB_BYTES = 8 << 20


def _slab(target: Target, spec: GemmSpec, p: GemmProblem) -> int:
    """Return how many rows a slab has: it takes half of the second-level cache. Each slab reads
    all of B again, so it is nine panels high, but four suffice where threads want to share.

    Measured on 11 products with softmax, norms and the like: two panels and a quarter of the cache
    are 3 to 8 % slower on deep products, more than these are not faster.
    """
    unit, batch, row = spec.unit(target), prod(p.batch), p.n * spec.type.bits // 8
    shared = -(-batch * p.m // max(1, _wanted_tiles(target, p)))
    wanted = max(4 * unit.rows, min(max(9 * unit.rows, target.l2_bytes // 2 // row), shared))
    return balanced(p.m, max(unit.rows, min(wanted, _SLAB_BYTES // row)), unit.rows)


def slab_bytes(spec: GemmSpec, target: Target, problem: GemmProblem) -> int:
    """Return the bytes of a slab of C, whose rows are contiguous."""
    p, _ = canonical(problem, fold=spec.folds)
    return grid_of(spec, target, p).tile_m * p.n * (spec.type.bits // 8)


def _direct_in_tiles(spec: GemmSpec, target: Target, p: GemmProblem, planes: Planes) -> Grid:
    """Return rows of weights by outermost places. Behind the results of a tile stand the range of
    the image and its planes."""
    unit, outer = spec.unit(target), planes.places[0]
    rows = planes.blocks * TILE * spec.pieces * planes.phases
    depth = planes.blocks * TILE * spec.pieces * len(planes.taps)
    fitting = target.l2_bytes // 2 // (4 * rows * planes.outer_pitch) - planes.more
    least = -(-outer // max(1, fitting))
    batch, panels = hint(prod(p.batch)), -(-hint(p.m) // unit.rows)
    wanted = -(-_wanted_tiles(target, p) // max(1, batch))
    far = 4 * hint(p.m) * depth > target.l2_bytes // 2

    def cost(strips: int, parts: int) -> float:
        """Return what two threads take, which may wait for a tile, in units of 2.7 ps: an element
        of the image takes 70, one of weights from afar 40, a multiply-add in tiles 2."""
        height = balanced(outer, -(-outer // strips), 1)
        count, last = divmod(outer, height)
        afar = far and strips * batch > 1
        total = strips * 40 * afar * panels * unit.rows * depth
        for n, high in ((count, height), (1, last)):
            if high:
                places = round_up(planes.flat(high, unit.lanes), unit.columns)
                image = 70 * parts * rows * planes.outer_pitch * (high + planes.more)
                total += n * (image + 4 * places * panels * unit.rows * depth // spec.pieces)
        return total * (1 / 2 + 1 / (strips * parts * batch))

    # More tiles than products by multiply-adds have (measured on two threads: 5 to 12 %).
    tiles = max(1, 2 * wanted, least)
    choices = product(range(least, min(outer, tiles) + 1), range(1, min(panels, tiles) + 1))
    strips, parts = min((c for c in choices if prod(c) <= tiles), key=lambda c: cost(*c))
    height = balanced(outer, max(1, -(-outer // strips)), 1)
    tile_m = balanced(p.m, round_up(-(-p.m // parts), unit.rows), unit.rows)
    work = round_up(tile_m, unit.rows) * planes.flat(height, unit.lanes)
    image = unit.columns + rows * planes.pair_pitch(height)
    counts = (max(1, -(-p.m // tile_m)), max(1, -(-outer // height)), 1)
    return Grid(tile_m, height, depth, *counts, work, work + image)


def packs_itself(spec: GemmSpec, grid: Grid, p: GemmProblem) -> bool:
    """Whether what could be packed ahead is read by one tile only, which packs it then, a panel at
    a time: weights that another thread has packed are far away (where the image is small)."""
    return spec.kind == "direct" and bool(spec.ahead) and grid.tiles_n * prod(p.batch) == 1


def _direct(spec: GemmSpec, target: Target, p: GemmProblem, planes: Planes) -> Grid:
    """Return blocks of outermost places: what a tile reads and sums stays in the second level."""
    lanes, size, outer = target.lanes(spec.type.bits), spec.type.bits // 8, planes.places[0]
    more = planes.extents[0] - outer
    each = planes.outer_pitch * (planes.planes + p.m) * size
    height = max(1, more, target.l2_bytes // 4 // each - more)
    shared = -(-outer * prod(p.batch) // max(1, _wanted_tiles(target, p)))
    height = balanced(outer, min(height, max(shared, 4 * more)), 1)
    results = p.m * planes.flat(height, lanes)
    image = planes.planes * prod(planes.extents) + 2 * lanes
    blocks = max(1, -(-outer // height))
    return Grid(p.m, height, max(1, p.k), 1, blocks, 1, results, results + image)


# What a tile of a product with few rows reads, where threads share it: some 10 µs.
_TILE_BYTES = 512 << 10


def _most_sums(spec: GemmSpec, target: Target, p: GemmProblem) -> int:
    """Return how many sums of a row of a product with few stay in the first-level cache."""
    rows = p.m if spec.kind == "few_axpys" else 1
    return max(
        target.l1_bytes // 2 // (spec.type.bits // 8) // max(1, rows), spec.unit(target).columns
    )


def _one_row_tile(spec: GemmSpec, target: Target, p: GemmProblem) -> int:
    """Return how many columns a tile of a product with few rows has at most: of each row of B there
    are 4 KiB to stream, or half of it. A thread that has several tiles in a row streams more."""
    size = spec.type.bits // 8
    least = 1 if "dots" in spec.kind else min(4096 // size, -(-p.n // 2))
    wanted = min(_TILES, hint(prod(p.batch)) * hint(p.n) * hint(p.k) * size // _TILE_BYTES)
    shared = max(1, -(-p.n // max(1, wanted)))
    return min(_most_sums(spec, target, p), max(least, shared))


def workspace_bytes(spec: GemmSpec, target: Target, problem: GemmProblem) -> int:
    """Return the bytes of workspace that each worker needs for itself, 64-byte aligned."""
    p, _ = canonical(problem, fold=spec.folds)
    grid = grid_of(spec, target, p)
    unit, size = spec.unit(target), spec.type.bits // 8
    if spec.kind != "gemm":
        panel = unit.rows * (grid.block_k + 1) if packs_itself(spec, grid, p) else 0
        return (grid.work_b + panel) * size
    # Packing may write up to a vector beyond a panel.
    slack = 64 // size
    if spec.ahead == "b":
        depth = grid.block_k + spec.last_rows("a")
        return (grid.work_a + round_up(grid.tile_m, unit.rows) * depth + slack) * size
    width = round_up(grid.tile_n, unit.columns) if spec.pack_b else unit.columns
    depth = grid.block_k + spec.last_rows("b")
    if spec.wide:
        depth *= min(grid.blocks_k, near_blocks(target, spec, grid.block_k))
    return (grid.work_b + width * depth + slack) * size


def tile_count(spec: GemmSpec, target: Target, problem: GemmProblem) -> int:
    """Return how many tiles of C (or slabs) there are: a kernel's whole range is
    [0, tile_count)."""
    p, _ = canonical(problem, fold=spec.folds)
    if p.m == 0 or p.n == 0:
        return 0
    if spec.kind == "tiny":
        return prod(p.batch)
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
    if spec.kind == "direct" and not spec.ahead:
        return max(1, tiles // (4 * threads))
    if spec.gather is not None or spec.ahead or spec.slabs:
        return 1
    height = grid_of(spec, target, p).tiles_m
    columns = tiles // height
    if columns >= 2 * threads:
        return height * -(-columns // (3 * threads))
    return max(1, -(-tiles // ((2 if spec.pack_b else 3) * threads)))
