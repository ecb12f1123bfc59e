"""A scheduled kernel's expressions around a product: its epilogue, or the scores of attention.

They are written by the emitter of loop kernels: what varies with neither row nor column is
computed once a tile, what varies with the row once a row, the rest on vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.codegen.builder import I64, Builder, Value, const
from tracejit.codegen.contraction.epilogue import KernelEpilogue
from tracejit.codegen.contraction.spec import Place, RowFinish, TileFinish
from tracejit.codegen.loops import KernelEmitter
from tracejit.codegen.scope import Scope, Vector
from tracejit.schedule.kernel import Expr, Kernel


def enter_batch(emitter: KernelEmitter, batch: Sequence[int], flat: Value) -> Scope:
    """Open the scope of one batch element, of whose flat index the axes' are the digits."""
    b = emitter.b
    index: dict[int, Value] = {}
    for axis in reversed(batch):
        index[axis] = flat
        if axis != batch[0]:
            extent = emitter.extents[axis]
            flat, whole = b.div(flat, extent, signed=False), flat
            index[axis] = b.sub(whole, b.mul(flat, extent))
    outermost = emitter.outermost()
    return emitter.enter(outermost, index, None) if index else outermost


class KernelTile:
    """``kernel`` inside one tile of one batch element, for the expressions ``roots``.

    ``batch`` are the kernel's batch axes, outermost first. The value of a product is given: the
    caller puts it into ``values`` of a vector's scope.
    """

    def __init__(
        self,
        b: Builder,
        kernel: Kernel,
        batch: Sequence[int],
        place: Place,
        lanes: int,
        roots: Sequence[int],
    ):
        none = const(0, I64)
        self.b, self.kernel, self.place, self.lanes, self.roots = b, kernel, place, lanes, roots
        self.emitter = KernelEmitter(b, kernel, (place.ptrs, place.sizes, none, none), lanes)
        self.emitter.load_arguments()
        self.scope = enter_batch(self.emitter, batch, place.batch)
        self.emitter.prepare(self.scope, roots)

    def row(self, axis: int, i: Value) -> Scope:
        """Open row ``i`` of the tile, along ``axis``."""
        scope = self.emitter.enter(self.scope, {axis: self.b.add(self.place.row, i)}, None)
        self.emitter.prepare(scope, self.roots)
        return scope

    def vector(self, row: Scope, axis: int, j: Value, mask: Value | None, count: int = 1) -> Scope:
        """Open ``count`` vectors from column ``j`` of the tile on, along ``axis``."""
        along = Vector(axis, self.lanes, count, mask)
        return self.emitter.enter(row, {axis: self.b.add(self.place.column, j)}, along)

    def position(self, expr: Expr) -> int:
        return self.kernel.exprs.index(expr)

    def value(self, scope: Scope, position: int) -> Value:
        """Compute an expression in the scope of a vector."""
        self.emitter.prepare(scope, [position])
        return self.emitter.value(scope, position)[0]

    def store(self, scope: Scope) -> None:
        """Write the kernel's stores in the scope of a vector."""
        self.emitter.block(self.kernel.block, scope, ())


def finish_tile(b: Builder, epilogue: KernelEpilogue, place: Place, lanes: int) -> TileFinish:
    """Write what is common to a tile; see ``Epilogue.tile``."""
    kernel, product = epilogue.kernel, epilogue.kernel.contract
    assert product is not None
    tile = KernelTile(b, kernel, epilogue.batch, place, lanes, [s.value for s in kernel.stores])

    def row(i: Value) -> RowFinish:
        at_row = tile.row(epilogue.rows, i)

        def vectors(j: Value, values: Sequence[Value], mask: Value | None) -> None:
            here = tile.vector(at_row, epilogue.columns, j, mask, len(values))
            here.values[tile.position(product)] = list(values)
            tile.store(here)

        return vectors

    return row
