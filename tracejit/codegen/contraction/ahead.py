"""A product of which one operand is packed ahead, by a stage of its own (``plan``).

    packing:    for (batch, depth block, strip of columns):  pack it
    computing:  for (batch, column tile), for row tile:
                  for depth block:
                    pack the block of A               → this worker's own memory
                    for column panel: for row panel:  microkernel

All of B is packed once, whoever computes with it. A block of A stays in the second-level cache
of the core that packs it; packed ahead it would go to memory and back (measured: 4 to 5 % of
products from 512 to 2048). Mostly a row tile goes over all columns, so A is packed once too.

Where A is much smaller than B they change places (``amx``):

    packing:    for (batch, depth block, strip of rows):  pack it
    computing:  for (batch, column tile):
                  for depth block:
                    pack the block of B               → this worker's own memory
                  for row panel: for depth block:
                    for column panel:                 microkernel

So a row panel's sums wait for the next depth block in the cache, its part of A in the first one.
"""

from __future__ import annotations

from tracejit.codegen.builder import I64, Value, const
from tracejit.codegen.contraction.frame import ONE, ZERO
from tracejit.codegen.contraction.panels import Block, Panels
from tracejit.codegen.contraction.spec import PACKED_POINTER, Side, Slot


class Ahead(Panels):
    """Writes both stages; a number says which one a call is."""

    def emit(self) -> None:
        b = self.b
        self.packed = self.pointer(PACKED_POINTER)
        self.first: Side = "a" if self.spec.ahead == "a" else "b"
        packing = b.compare("ne", self.loaded[Slot.PACKING], ZERO)

        def pack() -> list[Value]:
            return b.loop(self.begin, self.end, 1, [], self._pack_strip)

        def compute() -> list[Value]:
            self.multiply()
            return []

        b.if_(packing, pack, compute)

    def multiply(self) -> None:
        self.each_run(self._with_packed_a if self.first == "a" else self._with_packed_b)

    def _packed_at(self, block: Value, place: Value, depth: Value) -> Value:
        """Return where the panel from row (or column) ``place`` on is, in a depth block."""
        b = self.b
        start = b.element(self.packed, b.mul(block, self.loaded[Slot.PACKED]), self.type)
        return b.element(start, b.mul(place, self.panel_depth(depth, self.first)), self.type)

    def _depths(self, block: Value) -> tuple[Value, Value]:
        """Return the first depth of a depth block, and how deep it is."""
        b, get = self.b, self.loaded
        k = b.mul(b.add(get[Slot.FIRST_K], block), get[Slot.BLOCK_K])
        return k, self.minimum(b.sub(get[Slot.K], k), get[Slot.BLOCK_K])

    def _pack_strip(self, index: Value, _: list[Value]) -> list[Value]:
        """Pack some panels of one depth block."""
        b, get = self.b, self.loaded
        block = b.div(index, get[Slot.STRIPS], signed=False)
        place = b.mul(b.sub(index, b.mul(block, get[Slot.STRIPS])), get[Slot.STRIP])
        end = get[Slot.M if self.first == "a" else Slot.N]
        count = self.minimum(b.sub(end, place), get[Slot.STRIP])
        batch = b.div(block, get[Slot.BLOCKS_K], signed=False)
        k, depth = self._depths(b.sub(block, b.mul(batch, get[Slot.BLOCKS_K])))
        element = b.add(batch, get[Slot.FIRST_BATCH])
        target = self._packed_at(block, place, depth)
        copy, base = (self.copy_a, 0) if self.first == "a" else (self.copy_b, 1)
        copy(target, self.batch_element(element)[base], place, count, k, depth, element)
        return []

    def _with_packed_b(self, batch: Value, tile: Value, low: Value, high: Value) -> None:
        b, get = self.b, self.loaded
        element = b.add(batch, get[Slot.FIRST_BATCH])
        own = b.rem(batch, get[Slot.ALONE], signed=False)
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
                place = b.add(b.mul(own, get[Slot.BLOCKS_K]), index)
                packed_b = self._packed_at(place, column, depth)
                self._block_of(
                    index, packed_a, packed_b, c, row, column, rows, columns, depth, element
                )
                return []

            b.loop(ZERO, get[Slot.BLOCKS_K], 1, [], depth_block)
            return []

        b.loop(low, high, 1, [], row_tile)

    def _with_packed_a(self, batch: Value, tile: Value, low: Value, high: Value) -> None:
        b, get = self.b, self.loaded
        element = b.add(batch, get[Slot.FIRST_BATCH])
        own = b.rem(batch, get[Slot.ALONE], signed=False)
        _, b_base, c_base = self.batch_element(element)
        column, row = b.mul(tile, get[Slot.TILE_N]), b.mul(low, get[Slot.TILE_M])
        columns = self.minimum(b.sub(get[Slot.N], column), get[Slot.TILE_N])
        end = self.minimum(b.mul(high, get[Slot.TILE_M]), get[Slot.M])
        packed_b = b.element(self.work, get[Slot.WORK_B], self.type)
        size = b.mul(get[Slot.TILE_N], self.panel_depth(get[Slot.BLOCK_K]))

        def packed_block(index: Value) -> Value:
            return b.element(packed_b, b.mul(index, size), self.type)

        def pack(index: Value, _: list[Value]) -> list[Value]:
            k, depth = self._depths(index)
            self.copy_b(packed_block(index), b_base, column, columns, k, depth, element)
            return []

        def panel(row: Value, _: list[Value]) -> list[Value]:
            c = self.at(c_base, (row, Slot.C_ROW), (column, Slot.C_COLUMN))
            rows = self.minimum(b.sub(end, row), const(self.unit.rows, I64))

            def depth_block(index: Value, _: list[Value]) -> list[Value]:
                depth = self._depths(index)[1]
                place = b.add(b.mul(own, get[Slot.BLOCKS_K]), index)
                packed_a = self._packed_at(place, row, depth)
                self._block_of(
                    index, packed_a, packed_block(index), c, row, column, rows, columns, depth,
                    element,
                )  # fmt: skip
                return []

            b.loop(ZERO, get[Slot.BLOCKS_K], 1, [], depth_block)
            return []

        b.loop(ZERO, get[Slot.BLOCKS_K], 1, [], pack)
        b.loop(row, end, self.unit.rows, [], panel)

    def _block_of(
        self, index: Value, packed_a: Value, packed_b: Value, c: Value, row: Value, column: Value,
        rows: Value, columns: Value, depth: Value, batch: Value,
    ) -> None:  # fmt: skip
        """Multiply packed operands, of depth block ``index`` of the stage."""
        b, get = self.b, self.loaded
        whole = b.add(get[Slot.FIRST_K], index)
        first = b.compare("eq", whole, ZERO)
        last = b.compare("eq", b.add(whole, ONE), get[Slot.ALL_K])
        self.block(
            Block(
                packed_a, ONE, const(self.unit.rows, I64), packed_b, self.work, c,
                row, column, rows, columns, depth, first, last, batch,
            )
        )  # fmt: skip
