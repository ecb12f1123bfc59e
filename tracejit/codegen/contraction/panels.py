"""The loops of a matrix product around packing and microkernel.

    for (batch, column tile):                  a run: the row tiles of [begin, end) in it
      for k block:                             BLOCK_K deep
        pack B[k block, column tile]           → panels as wide as the microkernel
        for row tile of the run:
          for column panel: for row panel: microkernel

Where there are masks and rows of B are contiguous, the first row panel reads B in place and packs
it. Where B is not packed all of them read it in place; without masks, the columns beyond the last
whole panel are copied. The first k block writes C, later ones add to it: C is never read before it
is written, so what it held does not matter. Blocks that do not lie along the rows of C, that the
epilogue is to see (in the last k block), or that are not whole where there are no masks go through
a small tile in the workspace (``finish``). A few columns behind the last whole vector may be
computed by themselves (``few``).
"""

from __future__ import annotations

from typing import Literal

from tracejit.codegen.builder import I1, I64, PTR, Builder, Value, const
from tracejit.codegen.contraction.blocking import offered_heights, offered_vectors, panel_heights
from tracejit.codegen.contraction.few import few_columns
from tracejit.codegen.contraction.frame import ONE, ZERO, Frame, advance
from tracejit.codegen.contraction.grid import stage_place
from tracejit.codegen.contraction.microkernel import MicroCall
from tracejit.codegen.contraction.spec import POINTERS, GemmSpec, Side, Slot, epilogue_slot
from tracejit.codegen.target import Target
from tracejit.record import record

NO = const(False, I1)

# Microkernels beside the plain one of a size: without masks, and that which packs B.
Variant = Literal["", ".full", ".copy"]


def micro_name(name: str, rows: int, vectors: int, variant: Variant = "") -> str:
    return f"{name}.{rows}x{vectors}{variant}"


def has_full(target: Target, spec: GemmSpec, rows: int, vectors: int) -> bool:
    """Whether blocks as wide as the microkernel have one of their own, without masks.

    They need it where B is read in place: loads with masks take slots of multiply-adds (measured:
    5 % from 64 to 128). Lower panels are rare, and each microkernel takes 5 ms to compile.
    """
    return target.masks and not spec.pack_b and rows >= 8 and vectors > 1


@record(slots=True)
class Block:
    """A row tile by a column tile by a k block: where its operands are read and C is written.

    ``b`` is where B is read, packed or in place. Where microkernels pack it, ``origin`` is where
    it is in memory, ``unpacked`` tells that no row tile has packed it yet, and ``apart`` is 0 where
    all its panels use the same memory, since no other row tile needs them.
    """

    a: Value
    a_row: Value
    a_depth: Value
    b: Value
    edge: Value
    c: Value
    row: Value
    column: Value
    rows: Value
    columns: Value
    depth: Value
    first: Value
    last: Value
    batch: Value
    origin: Value = ZERO
    unpacked: Value = NO
    apart: Value = ONE


class Panels(Frame):
    """Writes the body of the kernel; every method writes one level of the loop nest."""

    def __init__(self, b: Builder, name: str, spec: GemmSpec):
        super().__init__(b, name, spec)
        prologue = spec.prologue
        self.computes_a = prologue is not None and prologue.a is not None
        self.computes_b = prologue is not None and prologue.b is not None
        self.copies = spec.copies(b.target)

    def emit(self) -> None:
        self.each_run(self._run)

    def _run(self, batch: Value, tile: Value, low: Value, high: Value) -> None:
        b, get = self.b, self.loaded
        a_base, b_base, c_base = self.batch_element(batch)
        column = b.mul(tile, get[Slot.TILE_N])
        columns = self.minimum(b.sub(get[Slot.N], column), get[Slot.TILE_N])
        high = self.down_to_diagonal(high, column, columns)
        few = few_columns(self, columns)
        columns = b.sub(columns, few.count)
        top = b.mul(low, get[Slot.TILE_M])
        bottom = self.minimum(b.mul(high, get[Slot.TILE_M]), get[Slot.M])
        work_b = b.element(self.work, get[Slot.WORK_B], self.type)

        def k_block(index: Value, _: list[Value]) -> list[Value]:
            k = b.mul(index, get[Slot.BLOCK_K])
            depth = self.minimum(b.sub(get[Slot.K], k), get[Slot.BLOCK_K])
            b_read = self._block_of_b(b_base, work_b, column, columns, k, depth, batch)
            origin = self.at(b_base, (k, Slot.B_DEPTH), (column, Slot.B_COLUMN))
            several = b.compare("gt", b.sub(bottom, top), get[Slot.TILE_M])
            apart = b.select(several, ONE, ZERO) if self.copies else ONE
            few.begin(origin, columns, depth)

            def row_tile(row: Value, _: list[Value]) -> list[Value]:
                rows = self.minimum(b.sub(bottom, row), get[Slot.TILE_M])
                a_block = self.at(a_base, (row, Slot.A_ROW), (k, Slot.A_DEPTH))
                c_block = self.at(c_base, (row, Slot.C_ROW), (column, Slot.C_COLUMN))
                first = b.compare("eq", index, ZERO)
                last = b.compare("eq", b.add(index, ONE), get[Slot.BLOCKS_K])
                block = Block(
                    a_block, get[Slot.A_ROW], get[Slot.A_DEPTH], b_read, work_b, c_block,
                    row, column, rows, columns, depth, first, last, batch,
                    origin, b.compare("eq", row, top), apart,
                )  # fmt: skip
                self.block(block)
                few.compute(block)
                return []

            b.loop(top, bottom, get[Slot.TILE_M], [], row_tile)
            return []

        b.loop(ZERO, get[Slot.BLOCKS_K], 1, [], k_block)

    def down_to_diagonal(self, high: Value, column: Value, columns: Value) -> Value:
        """Return where the row tiles of a column tile end: at ``high``, or what is needed there."""
        if not self.spec.symmetric:
            return high
        b, height = self.b, self.loaded[Slot.TILE_M]
        below = b.add(b.add(column, columns), b.sub(height, ONE))
        return self.minimum(high, b.div(below, height, signed=False))

    def _block_of_b(
        self, base: Value, work: Value, column: Value, columns: Value, k: Value, depth: Value,
        batch: Value,
    ) -> Value:  # fmt: skip
        """Pack a block of B, or only its last columns where they need it; return where to read.

        Without masks the microkernel reads whole panels only.
        """
        b = self.b
        if self.copies:
            return work
        if self.spec.pack_b:
            self.copy_b(work, base, column, columns, k, depth, batch)
            return work
        if not b.target.masks:
            left = b.rem(columns, const(self.unit.columns, I64), signed=False)
            edge = b.sub(b.add(column, columns), left)
            self.copy_b(work, base, edge, left, k, depth, batch)
        return self.at(base, (k, Slot.B_DEPTH), (column, Slot.B_COLUMN))

    def copy_a(
        self, target: Value, base: Value, row: Value, rows: Value, k: Value, depth: Value,
        batch: Value,
    ) -> None:  # fmt: skip
        """Pack ``rows`` rows of A, ``depth`` deep, from element [row, k] on."""
        if self.computes_a:
            self._compute_operand("pack_a", target, row, rows, k, depth, batch)
            return
        source = self.at(base, (row, Slot.A_ROW), (k, Slot.A_DEPTH))
        strides = (self.loaded[Slot.A_ROW], self.loaded[Slot.A_DEPTH])
        self.call("pack_a", target, source, *strides, rows, depth)

    def copy_b(
        self, target: Value, base: Value, column: Value, columns: Value, k: Value, depth: Value,
        batch: Value,
    ) -> None:  # fmt: skip
        """Pack ``columns`` columns of B, ``depth`` deep, from element [k, column] on."""
        b, get = self.b, self.loaded
        if self.computes_b:
            self._compute_operand("pack_b", target, column, columns, k, depth, batch)
        elif self.spec.gather is not None:
            table = b.element(self.sizes, get[Slot.TABLE], I64)
            self.call("pack_b", target, base, table, column, columns, get[Slot.N], k, depth)
        else:
            source = self.at(base, (k, Slot.B_DEPTH), (column, Slot.B_COLUMN))
            strides = (get[Slot.B_COLUMN], get[Slot.B_DEPTH])
            self.call("pack_b", target, source, *strides, columns, depth)

    def _compute_operand(
        self, pack: str, target: Value, first: Value, extent: Value, k: Value, depth: Value,
        batch: Value,
    ) -> None:  # fmt: skip
        """Compute a block of an operand into panels; see ``evaluate.emit_pack_computed``."""
        b = self.b
        stage = b.element(self.work, const(stage_place(self.spec, self.unit), I64), self.type)
        ptrs = b.element(self.ptrs, const(POINTERS, I64), PTR)
        sizes = b.element(self.sizes, const(epilogue_slot(self.spec), I64), I64)
        raw = [NO] if self.spec.pieces > 1 else []
        self.call(pack, target, stage, first, extent, k, depth, batch, ptrs, sizes, *raw)

    def panel_depth(self, depth: Value, side: Side = "b") -> Value:
        """Return how many rows a packed panel of B (or A) has, ``depth`` deep."""
        more = self.spec.last_rows(side)
        return self.b.add(depth, const(more, I64)) if more else depth

    def block(self, block: Block) -> None:
        """Go through the column panels, as wide as the microkernel; the last may be narrower."""
        b, unit = self.b, self.unit
        width, lanes = const(unit.columns, I64), const(unit.lanes, I64)

        def panel(j: Value, _: list[Value]) -> list[Value]:
            left = self.minimum(b.sub(block.columns, j), width)
            source, stride = self._panel_of_b(block, j, left)
            done = self._copied(block, j, left, source) if self.copies else ZERO

            def down(vectors: int, variant: Variant = "") -> list[Value]:
                self._row_panels(block, done, j, left, source, stride, vectors, variant)
                return []

            def wide() -> list[Value]:
                if not has_full(b.target, self.spec, unit.rows, unit.vectors):
                    return down(unit.vectors)
                full = b.compare("eq", left, width)
                return b.if_(full, lambda: down(unit.vectors, ".full"), lambda: down(unit.vectors))

            b.if_(b.compare("gt", left, lanes), wide, lambda: down(1))
            return []

        b.loop(ZERO, block.columns, unit.columns, [], panel)

    def _panel_of_b(self, block: Block, j: Value, left: Value) -> tuple[Value, Value]:
        """Return where the ``left`` columns from ``j`` on are read, and their depth stride."""
        b, width = self.b, const(self.unit.columns, I64)
        if self.spec.pack_b:
            place = b.mul(b.mul(j, block.apart), self.panel_depth(block.depth))
            return b.element(block.b, place, self.type), width
        source, stride = self.at(block.b, (j, Slot.B_COLUMN)), self.loaded[Slot.B_DEPTH]
        if b.target.masks:
            return source, stride
        full = b.compare("eq", left, width)
        return b.select(full, source, block.edge), b.select(full, stride, width)

    def _row_panels(
        self, block: Block, start: Value, j: Value, columns: Value, source: Value, b_depth: Value,
        vectors: int, variant: Variant,
    ) -> None:  # fmt: skip
        """Go down one column panel of ``columns`` columns that starts at column ``j``, from row
        ``start`` on."""
        b = self.b
        above, stop = self._extent(block, j, columns)

        def panel(i: Value) -> Value:
            rows = self._panel_rows(b.sub(stop, i))
            self.row_panel(block, i, j, rows, columns, source, b_depth, vectors, variant)
            return rows

        advance(b, start, stop, panel)
        if self.spec.symmetric:
            b.if_(block.last, lambda: self._mirror(block, j, columns, above))

    def row_panel(
        self, block: Block, i: Value, j: Value, rows: Value, columns: Value, source: Value,
        b_depth: Value, vectors: int, variant: Variant = "",
    ) -> None:  # fmt: skip
        """Compute ``rows`` rows from row ``i`` on, of a column panel."""
        b = self.b
        if self.spec.pack_a:
            within = b.rem(i, const(self.unit.rows, I64), signed=False)
            deep = self.panel_depth(block.depth, "a")
            place = b.add(b.mul(b.sub(i, within), deep), within)
        else:
            place = b.mul(i, block.a_row)
        a = b.element(block.a, place, self.type)
        c = self.at(block.c, (i, Slot.C_ROW), (j, Slot.C_COLUMN))
        call = MicroCall(
            a, block.a_row, block.a_depth, source, b_depth,
            c, self.loaded[Slot.C_ROW], columns, block.depth, b.not_(block.first),
            *self._following(block, i, source),
        )  # fmt: skip
        self._one_panel(block, call, i, j, rows, columns, vectors, variant)

    def _extent(self, block: Block, j: Value, columns: Value) -> tuple[Value, Value]:
        """Return the rows of the block above the square on the diagonal, and how far down the
        panel from column ``j`` on goes: in a symmetric product to the end of that square."""
        b = self.b
        above = b.sub(b.add(block.column, j), block.row)
        if not self.spec.symmetric:
            return above, block.rows
        return above, self.minimum(block.rows, b.add(above, columns))

    def _copied(self, block: Block, j: Value, columns: Value, target: Value) -> Value:
        """Pack a panel of B where no row tile has, by the microkernel of the first row panel;
        return how many rows that has computed.

        So B comes from far away while there is something to multiply (measured on one thread,
        beside NumPy: 4 to 5 % in the mean of 64×1024×1024 to 300 cubed).
        """
        b, get, height = self.b, self.loaded, const(self.unit.rows, I64)
        origin = self.at(block.origin, (j, Slot.B_COLUMN))

        def compute() -> list[Value]:
            call = MicroCall(
                block.a, block.a_row, block.a_depth, origin, get[Slot.B_DEPTH],
                self.at(block.c, (j, Slot.C_COLUMN)), get[Slot.C_ROW], columns, block.depth,
                b.not_(block.first), target,
            )  # fmt: skip
            self._one_panel(block, call, ZERO, j, height, columns, self.unit.vectors, ".copy")
            return [height]

        def pack() -> list[Value]:
            strides = (get[Slot.B_COLUMN], get[Slot.B_DEPTH])
            self.call("pack_b", target, origin, *strides, columns, block.depth)
            return [ZERO]

        def unpacked() -> list[Value]:
            high = b.compare("ge", self._extent(block, j, columns)[1], height)
            return b.if_(high, compute, pack)

        return b.if_(block.unpacked, unpacked, lambda: [ZERO])[0]

    def _mirror(self, block: Block, j: Value, columns: Value, above: Value) -> list[Value]:
        """Store the rows of a finished column panel that are above its square once more, turned."""
        b, get = self.b, self.loaded
        rows = self.minimum(block.rows, above)

        def turn() -> list[Value]:
            source = b.element(block.c, j, self.type)
            # From [row, column + j] to [column + j, row].
            back = b.mul(above, b.sub(get[Slot.C_ROW], ONE))
            self.call(
                "mirror", source, b.element(source, back, self.type), get[Slot.C_ROW], rows, columns
            )
            return []

        b.if_(b.compare("gt", rows, ZERO), turn)
        if self.spec.pieces > 1:
            inside = b.and_(b.compare("ge", above, ZERO), b.compare("lt", above, block.rows))
            corner = self.at(block.c, (above, Slot.C_ROW), (j, Slot.C_COLUMN))
            b.if_(inside, lambda: self._square(corner, columns))
        return []

    def _square(self, corner: Value, size: Value) -> list[Value]:
        self.call("square", corner, self.loaded[Slot.C_ROW], size)
        return []

    def _following(self, block: Block, i: Value, source: Value) -> tuple[Value, Value]:
        """Return what row panel ``i`` is to fetch, its share of the next panel of B: from where
        on, and how many bytes further at each step."""
        b, unit = self.b, self.unit
        if not self.spec.ahead:
            return source, ZERO
        size = b.mul(block.depth, const(unit.columns, I64))
        share = b.div(b.mul(size, i), block.rows, signed=False)
        step = const(unit.columns * unit.rows * self.type.bits // 8, I64)
        further = b.add(b.div(step, block.rows, signed=False), ONE)
        return b.element(source, b.add(size, share), self.type), further

    def _panel_rows(self, left: Value) -> Value:
        """Return the height of the next panel, of ``left`` rows that remain."""
        b, height = self.b, const(self.unit.rows, I64)
        heights = panel_heights(self.unit, self.spec.pack_a)
        table = b.module.table(f"{self.name}.heights", heights, I64)
        near = b.intrinsic("umin", I64, left, const(len(heights) - 1, I64))
        listed = b.load(b.element(table, near, I64), I64)
        return b.select(b.compare("eq", near, left), listed, height)

    def _one_panel(
        self, block: Block, call: MicroCall, i: Value, j: Value,
        rows: Value, columns: Value, vectors: int, variant: Variant,
    ) -> None:  # fmt: skip
        """Call the microkernel on C itself where the block is whole, else on the tile."""
        b = self.b
        whole = self._whole(block, rows, columns, vectors)
        if whole.text == "true":
            self._dispatch(call, rows, vectors, variant)
            return
        if self.spec.epilogue is not None:
            self._fetch_partial(block, call, rows)
        tile_row = const(self.unit.columns, I64)
        self._dispatch(
            call._replace(
                c=b.select(whole, call.c, self.work),
                c_row=b.select(whole, call.c_row, tile_row),
                accumulate=b.and_(whole, call.accumulate),
            ),
            rows,
            vectors,
            variant,
        )

        b.if_(b.not_(whole), lambda: self.finish(block, call.c, i, j, rows, columns))

    def finish(
        self, block: Block, c: Value, i: Value, j: Value, rows: Value, columns: Value
    ) -> list[Value]:
        """Take the tile in the workspace, of the block's element [i, j] on, to C."""
        b, get = self.b, self.loaded
        self.call(
            "finish", self.work, c, get[Slot.C_ROW], get[Slot.C_COLUMN],
            rows, columns, block.first, block.last,
            b.add(block.row, i), b.add(block.column, j), block.batch, self.ptrs, self.sizes,
        )  # fmt: skip
        return []

    def _fetch_partial(self, block: Block, call: MicroCall, rows: Value) -> None:
        """Fetch the partial sums that the epilogue will add: the microkernel writes elsewhere.

        Measured with a GELU after 512×768×3072 in float32: 1.0 ms for the epilogue, not 2.3.
        """
        b = self.b
        last = const(self.unit.columns - 1, I64)

        def fetch(r: Value, _: list[Value]) -> list[Value]:
            start = b.element(call.c, b.mul(r, call.c_row), self.type)
            b.prefetch(start)
            b.prefetch(b.element(start, last, self.type))
            return []

        def all_rows() -> list[Value]:
            return b.loop(ZERO, rows, 1, [], fetch)

        b.if_(b.and_(block.last, b.not_(block.first)), all_rows)

    def _whole(self, block: Block, rows: Value, columns: Value, vectors: int) -> Value:
        """Return (i1) whether the microkernel may write its block of C itself."""
        b, unit = self.b, self.unit
        whole = self.writes_c(block)
        if self.spec.c == "last" and not b.target.masks:
            whole = b.and_(whole, b.compare("eq", columns, const(vectors * unit.lanes, I64)))
            narrow = [h for h in offered_heights(unit) if 1 in offered_vectors(unit, h)]
            if vectors == 1:  # lower panels are computed by a wider microkernel
                whole = b.and_(whole, b.compare("ge", rows, const(min(narrow), I64)))
        return whole

    def writes_c(self, block: Block) -> Value:
        """Return (i1) whether finished sums go to C as they are."""
        if self.spec.c != "last":
            return NO
        return const(True, I1) if self.spec.epilogue is None else self.b.not_(block.last)

    def _dispatch(self, call: MicroCall, rows: Value, vectors: int, variant: Variant) -> None:
        """Call the microkernel for ``rows`` rows, which is known at run time only."""
        b, unit = self.b, self.unit
        functions: dict[int, str] = {}
        for h in offered_heights(unit) if variant != ".copy" else [unit.rows]:
            wide = max(vectors, min(offered_vectors(unit, h)))
            own = (
                "" if variant == ".full" and not has_full(b.target, self.spec, h, wide) else variant
            )
            functions[h] = f"@{micro_name(self.name, h, wide, own)}"
        chosen = Value(functions.pop(unit.rows), PTR)
        for height, function in sorted(functions.items()):
            same = b.compare("eq", rows, const(height, I64))
            chosen = b.select(same, Value(function, PTR), chosen)
        spelled = ", ".join(f"{a.type} {a.text}" for a in call)
        b.effect(f"call void {chosen.text}({spelled})")
