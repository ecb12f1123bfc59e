"""A product whose operands are packed ahead, by a stage of its own (``plan``).

    packing:    for (batch, depth block, block of A or of B):  pack it
    computing:  for (batch, column tile), for row tile:        a tile of C
                  for depth block, column panel, row panel:    microkernel

A tile of C stays near while its depth blocks are added up.
"""

from __future__ import annotations

from tracejit.codegen.builder import I64, Value, const
from tracejit.codegen.contraction.frame import ONE, ZERO
from tracejit.codegen.contraction.panels import Block, Panels
from tracejit.codegen.contraction.spec import PACKED_POINTER, Slot


class Ahead(Panels):
    """Writes both stages; a number says which one a call is."""

    def emit(self) -> None:
        b = self.b
        self.packed = self.pointer(PACKED_POINTER)
        self.packed_b = b.element(self.packed, self.loaded[Slot.PACKED_B], self.type)
        self.rows_of_blocks, self.columns_of_blocks = (
            self.loaded[slot] for slot in (Slot.TILES_M, Slot.TILES_N)
        )
        packing = b.compare("ne", self.loaded[Slot.PACKING], ZERO)

        def pack() -> list[Value]:
            return b.loop(self.begin, self.end, 1, [], self._pack_one)

        def compute() -> list[Value]:
            self.each_run(self._compute)
            return []

        b.if_(packing, pack, compute)

    def _block_of_a(self, block: Value, tile: Value) -> Value:
        """Return the address of a row tile's block, of depth block ``block`` of the stage."""
        place = self.b.add(self.b.mul(block, self.rows_of_blocks), tile)
        offset = self.b.mul(place, self.loaded[Slot.BLOCK_A])
        return self.b.element(self.packed, offset, self.type)

    def _block_of_b(self, block: Value, tile: Value) -> Value:
        place = self.b.add(self.b.mul(block, self.columns_of_blocks), tile)
        offset = self.b.mul(place, self.loaded[Slot.BLOCK_B])
        return self.b.element(self.packed_b, offset, self.type)

    def _depths(self, block: Value) -> tuple[Value, Value]:
        """Return the first depth of a depth block, and how deep it is."""
        b, get = self.b, self.loaded
        k = b.mul(b.add(get[Slot.FIRST_K], block), get[Slot.BLOCK_K])
        return k, self.minimum(b.sub(get[Slot.K], k), get[Slot.BLOCK_K])

    def _pack_one(self, index: Value, _: list[Value]) -> list[Value]:
        """Pack one block: of each depth block first those of A, then those of B."""
        b, get = self.b, self.loaded
        parts = b.add(self.rows_of_blocks, self.columns_of_blocks)
        block = b.div(index, parts, signed=False)
        part = b.sub(index, b.mul(block, parts))
        batch = b.div(block, get[Slot.BLOCKS_K], signed=False)
        within = b.sub(block, b.mul(batch, get[Slot.BLOCKS_K]))
        k, depth = self._depths(within)
        element = b.add(batch, get[Slot.FIRST_BATCH])
        a_base, b_base, _c = self.batch_element(element)

        def rows() -> list[Value]:
            row = b.mul(part, get[Slot.TILE_M])
            count = self.minimum(b.sub(get[Slot.M], row), get[Slot.TILE_M])
            if self.computes_a:
                target = self._block_of_a(block, part)
                self.compute("pack_a", target, row, count, k, depth, element)
                return []
            source = self.at(a_base, (row, Slot.A_ROW), (k, Slot.A_DEPTH))
            strides = (get[Slot.A_ROW], get[Slot.A_DEPTH])
            self.call("pack_a", self._block_of_a(block, part), source, *strides, count, depth)
            return []

        def columns() -> list[Value]:
            tile = b.sub(part, self.rows_of_blocks)
            column = b.mul(tile, get[Slot.TILE_N])
            count = self.minimum(b.sub(get[Slot.N], column), get[Slot.TILE_N])
            if self.computes_b:
                target = self._block_of_b(block, tile)
                self.compute("pack_b", target, column, count, k, depth, element)
                return []
            source = self.at(b_base, (k, Slot.B_DEPTH), (column, Slot.B_COLUMN))
            strides = (get[Slot.B_COLUMN], get[Slot.B_DEPTH])
            self.call("pack_b", self._block_of_b(block, tile), source, *strides, count, depth)
            return []

        b.if_(b.compare("lt", part, self.rows_of_blocks), rows, columns)
        return []

    def _compute(self, batch: Value, tile: Value, low: Value, high: Value) -> None:
        b, get = self.b, self.loaded
        element = b.add(batch, get[Slot.FIRST_BATCH])
        c_base = self.batch_element(element)[2]
        column = b.mul(tile, get[Slot.TILE_N])
        columns = self.minimum(b.sub(get[Slot.N], column), get[Slot.TILE_N])

        def row_tile(part: Value, _: list[Value]) -> list[Value]:
            row = b.mul(part, get[Slot.TILE_M])
            rows = self.minimum(b.sub(get[Slot.M], row), get[Slot.TILE_M])
            c = self.at(c_base, (row, Slot.C_ROW), (column, Slot.C_COLUMN))

            def depth_block(index: Value, _: list[Value]) -> list[Value]:
                place = b.add(b.mul(batch, get[Slot.BLOCKS_K]), index)
                whole = b.add(get[Slot.FIRST_K], index)
                self.block(
                    Block(
                        self._block_of_a(place, part), ONE, const(self.unit.rows, I64),
                        self._block_of_b(place, tile), self.work, c, row, column, rows, columns,
                        self._depths(index)[1],
                        b.compare("eq", whole, ZERO),
                        b.compare("eq", b.add(whole, ONE), get[Slot.ALL_K]),
                        element,
                    )
                )  # fmt: skip
                return []

            b.loop(ZERO, get[Slot.BLOCKS_K], 1, [], depth_block)
            return []

        b.loop(low, high, 1, [], row_tile)
