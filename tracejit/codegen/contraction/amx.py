"""The microkernel on tile registers (AMX), and what is different around it.

A tile is 16 rows of 64 bytes. One instruction adds to a tile of 16×16 sums the product of 16 rows
of A with 16 columns of B, over 16 elements of four bytes each (Intel's manual, volume 1, chapter
18). Two tiles of A by two of B give four products for four loads, and the loop is bound by the
products:

    for 16 elements of the depth: for r: for v: sums[r][v] += A[r] @ B[v]

A tile of B is a piece of the panel that all microkernels read: depth by depth, in rows of 32
elements. Panels of A are made of tiles, whose rows are contiguous (``evaluate``).

Of float32s that are split there are three tiles in place of one, and six products
(``split``).

Blocks are computed whole. Where they reach beyond C they go through the tile in the workspace, or
those of split numbers, which are scaled back, through memory of the microkernel's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tracejit.codegen.builder import F32, I1, I8, I64, PTR, VOID, Builder, Module, Value, const
from tracejit.codegen.contraction.ahead import Ahead
from tracejit.codegen.contraction.blocking import PARTS, TILE, TILES
from tracejit.codegen.contraction.frame import ZERO
from tracejit.codegen.contraction.microkernel import PARAMETERS, MicroCall
from tracejit.codegen.contraction.panels import NO, Block, Variant, micro_name
from tracejit.codegen.contraction.prologue import KernelPrologue
from tracejit.codegen.contraction.split import (
    PRODUCTS,
    SCALE,
    Range,
    beyond_tiles,
    clear,
    unscale,
)

# Bytes of a row of a tile.
_ROW = 64
# Registers of A and of B; the sums are in those before.
_A, _B = 4, 6


def emit_tile_kernel(
    module: Module, name: str, exact: str, prologue: KernelPrologue, rows: int, vectors: int
) -> None:
    """Define ``void name(MicroCall…)`` for ``rows`` (16 or 32) × ``vectors`` · 16 elements.

    ``exact`` is the function for split numbers that tiles do not take (``split.emit_exact``).
    """
    parameters = [*PARAMETERS, ("rows", I64)]
    b = module.define(name, VOID, parameters, linkage="internal", attributes="nounwind noinline")
    call, high = MicroCall(*b.parameters[:-1]), b.parameters[-1]
    depths = panel_depths(b, call.a, call.b, call.depth, prologue.pieces)
    c = Sums(call.c, call.c_row, rows, vectors)
    if prologue.dot == "split":  # never asked to add to C (``Tiles._whole``)
        ranges = Range.of(b, call.a, call.depth), Range.of(b, call.b, call.depth)
        lane, columns = b.lane_index(I64.vector(TILE)), b.splat(call.columns, TILE)
        masks = [
            b.compare("lt", b.add(lane, const(v * TILE, lane.type)), columns)
            for v in range(vectors)
        ]
        ranged_sums(b, depths, ranges, c, exact, high, masks)
    else:
        tile_sums(b, depths, c, _instruction(prologue), 1, call.accumulate)
    b.ret()


class Columns(NamedTuple):
    """A tile's depth of B: where it is, and how many elements its rows are apart; its parts, if it
    is split, follow each other."""

    at: Value
    row: Value


# Writes a loop over the depth, and has for every tile of it the code that adds the products of A's
# tiles at an address and B's.
Depths = Callable[[Callable[[Value, Columns], None]], None]


def panel_depths(b: Builder, a: Value, b_: Value, depth: Value, pieces: int) -> Depths:
    """Return the loop over the depth of two panels."""
    elements, b_row = TILE * pieces, const(TILES.columns, I64)

    def depths(add: Callable[[Value, Columns], None]) -> None:
        def step(_: Value, carried: list[Value]) -> list[Value]:
            a, column = carried
            add(a, Columns(column, b_row))
            further = b.offset(a, const(elements * 4 * TILES.rows, I64))
            return [further, b.offset(column, const(elements * 4 * TILES.columns, I64))]

        b.loop(ZERO, depth, elements, [a, b_], step)

    return depths


class Sums(NamedTuple):
    """Where the sums go; their rows are ``row`` elements apart."""

    at: Value
    row: Value
    rows: int
    vectors: int


def ranged_sums(
    b: Builder, depths: Depths, ranges: tuple[Range, Range], c: Sums, exact: str, rows: Value,
    masks: Sequence[Value | None],
) -> None:  # fmt: skip
    """Write the block of split numbers: tiles compute it unless it is beyond their range.

    Only ``rows`` of its rows go to C, and the columns in the ``masks`` of its vectors.
    """
    # Reading C again would wait for its lines (measured: twice the time where K is 32).
    sums = b.emit(PTR, f"alloca [{TILES.rows * TILES.columns} x float], align 64")
    block = c._replace(at=sums, row=const(TILES.columns, I64))

    def tiles() -> list[Value]:
        tile_sums(b, depths, block, "tdpbf16ps", PARTS)
        return [const(SCALE**-2, F32)]

    def one_by_one() -> list[Value]:
        exact_sums(b, depths, ranges, block, exact)
        return [const(1, F32)]

    (factor,) = b.if_(beyond_tiles(b, *ranges), one_by_one, tiles)
    unscale(b, sums, factor, c.at, c.row, rows, masks)


def exact_sums(
    b: Builder, depths: Depths, ranges: tuple[Range, Range], c: Sums, exact: str
) -> None:
    """Write the block of split numbers by multiply-adds; ``exact`` is what ``emit_exact`` makes."""
    clear(b, c.at, c.row, c.rows, c.vectors)
    raw = [r.irregular(b) for r in ranges]
    counts = (const(c.rows, I64), const(c.vectors, I64))

    def step(a: Value, columns: Columns) -> None:
        arguments = (a, *columns, c.at, c.row, *counts, *raw)
        b.effect(f"call void @{exact}({', '.join(f'{v.type} {v.text}' for v in arguments)})")

    depths(step)


def tile_sums(
    b: Builder, depths: Depths, c: Sums, multiply: str, pieces: int, accumulate: Value = NO
) -> None:
    """Write the set-up of the sums, the loop over the depth, and the stores."""
    blocks = [(r, v) for r in range(c.rows // TILE) for v in range(c.vectors)]
    c_row = b.mul(c.row, const(4, I64))

    def place(r: int, v: int) -> Value:
        row = b.offset(c.at, b.mul(const(TILE * r, I64), c_row))
        return b.offset(row, const(_ROW * v, I64))

    def add() -> list[Value]:
        for r, v in blocks:
            _tile(b, "tileloadd64", 2 * r + v, place(r, v), c_row)
        return []

    def clear() -> list[Value]:
        for r, v in blocks:
            _tile(b, "tilezero", 2 * r + v)
        return []

    b.if_(accumulate, add, clear)
    depths(lambda a, columns: _step(b, a, columns, c, multiply, pieces))
    for r, v in blocks:
        _tile(b, "tilestored64", 2 * r + v, place(r, v), c_row)


def _step(b: Builder, a: Value, columns: Columns, c: Sums, multiply: str, pieces: int) -> None:
    """Write the products of a tile's depth; loads come just before what needs them first."""
    b_row = b.mul(columns.row, const(4, I64))
    held: tuple[int | None, int | None] = (None, None)
    for i, j in PRODUCTS if pieces > 1 else [(0, 0)]:
        for r in range(c.rows // TILE):
            if i != held[0]:
                at = b.offset(a, const(_ROW * (TILES.rows * i + TILE * r), I64))
                _tile(b, "tileloadd64", _A + r, at, const(_ROW, I64))
            for v in range(c.vectors):
                if r == 0 and j != held[1]:
                    part = b.offset(columns.at, b.mul(b_row, const(TILE * j, I64)))
                    at = b.offset(part, const(_ROW * v, I64))
                    _tile(b, "tileloadd64", _B + v, at, b_row)
                _tile(b, multiply, 2 * r + v, _A + r, _B + v)
        held = (i, j)


def _instruction(prologue: KernelPrologue) -> str:
    """Return the product of A's with B's bytes, each signed or unsigned, or of bfloat16s."""
    if prologue.dot == "pairs":
        return "tdpbf16ps"
    signs = ("s" if is_signed(prologue, side) else "u" for side in (prologue.a, prologue.b))
    return f"tdpb{''.join(signs)}d"


def is_signed(prologue: KernelPrologue, operand: int | None) -> bool:
    assert operand is not None
    return prologue.kernel.exprs[operand].dtype.kind == "i"


def _tile(b: Builder, name: str, *operands: int | Value) -> None:
    """Write an instruction on tile registers (numbers), an address and a stride (values)."""
    kinds = ["i8 immarg" if isinstance(o, int) else str(o.type) for o in operands]
    b.module.declare(f"llvm.x86.{name}", f"void @llvm.x86.{name}({', '.join(kinds)})")
    spelled = [f"i8 {o}" if isinstance(o, int) else f"{o.type} {o.text}" for o in operands]
    b.effect(f"call void @llvm.x86.{name}({', '.join(spelled)})")


def configure(b: Builder, name: str) -> None:
    """Set the tile registers up, before any is used: eight of 16 rows of 64 bytes."""
    # Palette 1; bytes 16 to 31 are the widths of the rows (16 bits), 48 to 55 their numbers.
    widths = [_ROW, 0] * 8 + [0] * 16
    config = b.module.table(f"{name}.tiles", [1, *[0] * 15, *widths, *[TILE] * 8, *[0] * 8], I8)
    _tile(b, "ldtilecfg", config)


def release(b: Builder) -> None:
    """Give the tile registers up: what is in them would be saved at every change of threads."""
    _tile(b, "tilerelease")


class Tiles(Ahead):
    """Writes the loops around the microkernel on tiles."""

    def multiply(self) -> None:
        """Compute between the set-up of the tile registers and their release."""
        configure(self.b, self.name)
        super().multiply()
        release(self.b)

    def _panel_rows(self, left: Value) -> Value:
        return self.minimum(left, const(self.unit.rows, I64))

    def _whole(self, block: Block, rows: Value, columns: Value, vectors: int) -> Value:
        b = self.b
        if self.spec.c != "last":
            return NO
        whole = const(True, I1)
        if self.spec.pieces == 1:
            whole = b.compare("eq", columns, const(vectors * TILE, I64))
            beyond = b.and_(rows, const(TILE - 1, I64))
            whole = b.and_(whole, b.compare("eq", beyond, ZERO))
        if self.type.is_float:
            # Later depth blocks are summed up by themselves everywhere, as they are where the
            # block goes through the tile: bits depend neither on edges nor on the epilogue.
            whole = b.and_(whole, block.first)
        if self.spec.epilogue is not None:
            whole = b.and_(whole, b.not_(block.last))
        return whole

    def _dispatch(self, call: MicroCall, rows: Value, vectors: int, variant: Variant) -> None:
        b = self.b
        high, low = (f"@{micro_name(self.name, h, vectors)}" for h in (2 * TILE, TILE))
        is_low = b.compare("le", rows, const(TILE, I64))
        chosen = b.select(is_low, Value(low, PTR), Value(high, PTR))
        spelled = ", ".join(f"{a.type} {a.text}" for a in (*call, rows))
        b.effect(f"call void {chosen.text}({spelled})")
