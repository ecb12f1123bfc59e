"""A product whose right operand is packed ahead, by a stage of its own (``plan``).

    packing:    for (batch, depth block, strip of columns):  pack it
    computing:  for (batch, column tile), for row tile:
                  for depth block:
                    pack the block of A               → this worker's own memory
                    for column panel: for row panel:  microkernel

All of B is packed once, whoever computes with it. A block of A stays in the second-level cache
of the core that packs it; packed ahead it would go to memory and back (measured: 4 to 5 % of
products from 512 to 2048). Mostly a row tile goes over all columns, so A is packed once too.
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
        packing = b.compare("ne", self.loaded[Slot.PACKING], ZERO)

        def pack() -> list[Value]:
            return b.loop(self.begin, self.end, 1, [], self._pack_strip)

        def compute() -> list[Value]:
            self.multiply()
            return []

        b.if_(packing, pack, compute)

    def multiply(self) -> None:
        self.each_run(self._compute)

    def _packed_at(self, block: Value, column: Value, depth: Value) -> Value:
        """Return where the panel from ``column`` on is, in a depth block of the stage."""
        b = self.b
        start = b.element(self.packed, b.mul(block, self.loaded[Slot.BLOCK_B]), self.type)
        return b.element(start, b.mul(column, self.panel_depth(depth)), self.type)

    def _depths(self, block: Value) -> tuple[Value, Value]:
        """Return the first depth of a depth block, and how deep it is."""
        b, get = self.b, self.loaded
        k = b.mul(b.add(get[Slot.FIRST_K], block), get[Slot.BLOCK_K])
        return k, self.minimum(b.sub(get[Slot.K], k), get[Slot.BLOCK_K])

    def _pack_strip(self, index: Value, _: list[Value]) -> list[Value]:
        """Pack some panels of one depth block of B."""
        b, get = self.b, self.loaded
        block = b.div(index, get[Slot.STRIPS], signed=False)
        column = b.mul(b.sub(index, b.mul(block, get[Slot.STRIPS])), get[Slot.STRIP_N])
        columns = self.minimum(b.sub(get[Slot.N], column), get[Slot.STRIP_N])
        batch = b.div(block, get[Slot.BLOCKS_K], signed=False)
        k, depth = self._depths(b.sub(block, b.mul(batch, get[Slot.BLOCKS_K])))
        element = b.add(batch, get[Slot.FIRST_BATCH])
        target = self._packed_at(block, column, depth)
        self.copy_b(target, self.batch_element(element)[1], column, columns, k, depth, element)
        return []

    def _compute(self, batch: Value, tile: Value, low: Value, high: Value) -> None:
        b, get = self.b, self.loaded
        element = b.add(batch, get[Slot.FIRST_BATCH])
        a_base, _, c_base = self.batch_element(element)
        column = b.mul(tile, get[Slot.TILE_N])
        columns = self.minimum(b.sub(get[Slot.N], column), get[Slot.TILE_N])
        packed_a = b.element(self.work, get[Slot.WORK_A], self.type)
        high = self.down_to_diagonal(high, column, columns)

        def row_tile(part: Value, _: list[Value]) -> list[Value]:
            row = b.mul(part, get[Slot.TILE_M])
            rows = self.minimum(b.sub(get[Slot.M], row), get[Slot.TILE_M])
            c = self.at(c_base, (row, Slot.C_ROW), (column, Slot.C_COLUMN))

            def depth_block(index: Value, _: list[Value]) -> list[Value]:
                k, depth = self._depths(index)
                self.copy_a(packed_a, a_base, row, rows, k, depth, element)
                whole = b.add(get[Slot.FIRST_K], index)
                place = b.add(b.mul(batch, get[Slot.BLOCKS_K]), index)
                self.block(
                    Block(
                        packed_a, ONE, const(self.unit.rows, I64),
                        self._packed_at(place, column, depth), self.work, c,
                        row, column, rows, columns, depth,
                        b.compare("eq", whole, ZERO),
                        b.compare("eq", b.add(whole, ONE), get[Slot.ALL_K]),
                        element,
                    )
                )  # fmt: skip
                return []

            b.loop(ZERO, get[Slot.BLOCKS_K], 1, [], depth_block)
            return []

        b.loop(low, high, 1, [], row_tile)
