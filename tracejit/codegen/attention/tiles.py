"""The products of attention in tile registers, of float32s that are split in three.

See ``contraction/split.py``. A panel is 32 queries, 32 keys, or the block's values in 32 columns.
Weights are at most 1, so they need no range; where they meet values that are
not for tiles, or queries meet such keys, the numbers are multiplied and added as elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from tracejit.codegen.attention.frame import ZERO, Frame, Keys, Queries
from tracejit.codegen.attention.products import Products
from tracejit.codegen.attention.spec import TILE_DEPTH, TILE_ELEMENTS, AttentionSpec, Slot
from tracejit.codegen.builder import F32, I1, I32, I64, PTR, Module, Value, const
from tracejit.codegen.contraction.amx import (
    Sums,
    configure,
    exact_sums,
    panel_depths,
    release,
    tile_sums,
)
from tracejit.codegen.contraction.blocking import PARTS, TILE, TILES
from tracejit.codegen.contraction.evaluate import Operand, emit_pack_computed
from tracejit.codegen.contraction.prologue import KernelPrologue
from tracejit.codegen.contraction.spec import GemmSpec
from tracejit.codegen.contraction.split import (
    SCALE,
    Range,
    beyond_tiles,
    emit_exact,
    parts,
    scaled,
)

# Of the product of two scaled numbers.
_UNSCALE = SCALE**-2
# The exponent of the largest weight, scaled; see ``split.Range``.
_WEIGHTS = (127 + 24,)


class Tiles(Products):
    """Panels of numbers split in three, multiplied in tile registers."""

    together = 2

    def __init__(self, frame: Frame):
        super().__init__(frame)
        self.weights_range = frame.b.module.table(f"{frame.name}.weights", _WEIGHTS, I32)

    @staticmethod
    def emit(module: Module, name: str, spec: AttentionSpec) -> None:
        emit_exact(module, f"{name}.exact")
        weighted = _prologue(spec, "result")
        packs = [("pack_v", Operand(weighted, "b", spec.v))]
        if spec.contract is not None:
            scores = _prologue(spec, "scores")
            packs += [
                ("pack_q", Operand(scores, "a", spec.q)),
                ("pack_k", Operand(scores, "b", spec.k)),
            ]
        for function, operand in packs:
            product = GemmSpec(
                spec.dtype, "any", "any", "last", True, True, prologue=operand.prologue
            )
            emit_pack_computed(module, f"{name}.{function}", product, operand)
        _emit_block(module, f"{name}.block", f"{name}.exact")

    def around(self, loops: Callable[[], None]) -> None:
        configure(self.frame.b, self.frame.name)
        loops()
        release(self.frame.b)

    def _elements(self, depths: Value) -> Value:
        """Return how many elements of a panel hold so many depths."""
        b = self.frame.b
        tiles = b.lshr(
            self.frame.round_up(depths, TILE_DEPTH), const(TILE_DEPTH.bit_length() - 1, I64)
        )
        return b.mul(tiles, const(TILE_ELEMENTS, I64))

    def _panel(self, slot: Slot, row: Value, elements: Value) -> Value:
        """Return the panel that begins with a row (or column), of ``elements`` and their range."""
        return self.frame.place(
            slot, self.frame.b.mul(row, self.frame.b.add(elements, const(1, I64)))
        )

    def _pack(
        self, function: str, slot: Slot, first: Value, count: Value, k: Value, elements: Value
    ) -> None:
        f = self.frame
        f.call(
            function, f.place(slot), f.place(Slot.WORK_STAGE), first, count, k, elements,
            self.queries.batch, f.own_ptrs, f.own_sizes, const(False, I1),
        )  # fmt: skip

    def open(self, queries: Queries) -> None:
        self.queries = queries
        if self.frame.spec.contract is not None:
            self.depth = self.frame.b.sub(self.frame.get[Slot.PACKED], const(1, I64))
            self._pack("pack_q", Slot.WORK_Q, queries.first, queries.rows, ZERO, self.depth)

    def pack(self, keys: Keys) -> None:
        f = self.frame
        if f.spec.contract is not None:
            self._pack("pack_k", Slot.WORK_K, keys.first, keys.packed, ZERO, self.depth)
        before = self._elements(keys.first)
        self._pack(
            "pack_v", Slot.WORK_V, ZERO, f.get[Slot.COLUMNS], before, self._elements(keys.packed)
        )

    def multiply(self, i: Value, rows: Value, keys: Keys) -> None:
        f, b = self.frame, self.frame.b
        queries = self._panel(Slot.WORK_Q, i, self.depth)
        end = b.mul(self.depth, const(TILES.rows, I64))
        stride = const(f.spec.keys, I64)

        def product(j: Value, _: list[Value]) -> list[Value]:
            panel = self._panel(Slot.WORK_K, j, self.depth)
            factor = self._block(
                queries, panel, f.score(ZERO, j), stride, rows, self.depth,
                b.element(queries, end, f.type), b.element(panel, end, f.type),
            )  # fmt: skip
            for v in range(TILES.vectors):
                place = f.place(Slot.WORK_FACTOR, j, const(v * TILE, I64))
                b.store(b.splat(factor, TILE), place)
            return []

        b.loop(ZERO, keys.seen, TILES.columns, [], product)

    def _block(self, *arguments: Value) -> Value:
        spelled = ", ".join(f"{a.type} {a.text}" for a in arguments)
        return self.frame.b.emit(F32, f"call float @{self.frame.name}.block({spelled})")

    def score(self, row: Value, key: Value) -> Value:
        f, b = self.frame, self.frame.b
        product = b.load(f.score(row, key), f.vector)
        return b.mul(product, b.load(f.place(Slot.WORK_FACTOR, key), f.vector))

    def keep(self, row: Value, key: Value, weights: list[Value]) -> None:
        """Store a row of the tiles of each part: of 32 weights, which are 16 elements."""
        f, b = self.frame, self.frame.b
        # Tiles of 32 keys follow each other, each of ``TILE_ELEMENTS`` elements of 32 rows.
        tile = b.mul(key, const(TILE_ELEMENTS * TILES.rows // TILE_DEPTH, I64))
        start = b.add(tile, b.mul(row, const(TILE, I64)))
        for part, element in enumerate(parts(b, *(scaled(b, w) for w in weights))):
            offset = const(part * TILE * TILES.rows, I64)
            b.store(element, f.place(Slot.WORK_WEIGHTS, start, offset))

    def add(self, i: Value, rows: Value, keys: Keys) -> None:
        f, b = self.frame, self.frame.b
        packed = self._elements(keys.packed)
        end = b.mul(packed, const(TILES.columns, I64))
        product, stride = f.place(Slot.WORK_PRODUCT), const(TILES.columns, I64)

        def columns(j: Value, _: list[Value]) -> list[Value]:
            panel = self._panel(Slot.WORK_V, j, packed)
            factor = self._block(
                f.place(Slot.WORK_WEIGHTS), panel, product, stride, rows,
                self._elements(keys.seen), self.weights_range, b.element(panel, end, f.type),
            )  # fmt: skip
            factors = b.splat(factor, TILE)

            def row(r: Value, _: list[Value]) -> list[Value]:
                scale = b.splat(b.load(f.place(Slot.WORK_SCALE, r), f.type), TILE)
                for v in range(0, TILES.columns, TILE):
                    column = const(v, I64)
                    source = f.place(Slot.WORK_PRODUCT, b.mul(r, stride), column)
                    target = f.result(b.add(i, r), b.add(j, column))
                    result = b.mul(b.load(target, f.vector), scale)
                    b.store(b.fma(b.load(source, f.vector), factors, result), target)
                return []

            b.loop(ZERO, rows, 1, [], row)
            return []

        b.loop(ZERO, f.get[Slot.WIDTH], TILES.columns, [], columns)


def _prologue(spec: AttentionSpec, product: str) -> KernelPrologue:
    """Return the operands of one of the products: queries and keys, or (weights and) values."""
    attend, contract = spec.attend, spec.contract
    if product == "result":
        axes = attend.rows, attend.columns, attend.over
        return KernelPrologue(spec.kernel, spec.batch, *axes, None, attend.values, "split")
    assert contract is not None
    axes = attend.rows, attend.over, contract.over
    return KernelPrologue(spec.kernel, spec.batch, *axes, contract.left, contract.right, "split")


def _emit_block(module: Module, name: str, exact: str) -> None:
    """Define ``float name(a, b, c, c_row, rows, depth, a_range, b_range)``: C = A @ B of two
    panels, and what C is still to be multiplied with."""
    b = module.define(
        name,
        F32,
        [
            ("a", PTR), ("b", PTR), ("c", PTR), ("cr", I64), ("rows", I64), ("d", I64),
            ("ar", PTR), ("br", PTR),
        ],
        linkage="internal",
        attributes="nounwind noinline",
    )  # fmt: skip
    a, b_, c, c_row, rows, depth, *ranges = b.parameters
    a_range, b_range = (Range.at(b, place) for place in ranges)
    depths = panel_depths(b, a, b_, depth, PARTS)

    def tiles() -> list[Value]:
        def height(rows: int) -> list[Value]:
            tile_sums(b, depths, Sums(c, c_row, rows, TILES.vectors), "tdpbf16ps", PARTS)
            return []

        low = b.compare("le", rows, const(TILE, I64))
        b.if_(low, lambda: height(TILE), lambda: height(2 * TILE))
        return [const(_UNSCALE, F32)]

    def one_by_one() -> list[Value]:
        block = Sums(c, c_row, TILES.rows, TILES.vectors)
        exact_sums(b, depths, (a_range, b_range), block, exact)
        return [const(1, F32)]

    (factor,) = b.if_(beyond_tiles(b, a_range, b_range), one_by_one, tiles)
    b.ret(factor)
