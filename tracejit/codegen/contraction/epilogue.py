"""A scheduled kernel as the epilogue of its product.

The kernel's expressions are written by the emitter of loop kernels: what varies with neither row
nor column is computed once a tile, what varies with the row once a row, the rest on vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracejit.codegen.builder import I64, Builder, Value, const
from tracejit.codegen.contraction.spec import Place, RowFinish, TileFinish
from tracejit.codegen.loops import KernelEmitter
from tracejit.codegen.scope import Scope, Vector
from tracejit.schedule.kernel import Kernel


@dataclass(frozen=True, slots=True)
class KernelEpilogue:
    """Applies and stores ``kernel``'s expressions.

    ``batch`` are its batch axes, outermost first; ``rows`` and ``columns`` its axes along the
    rows and columns of the canonical product.
    """

    kernel: Kernel
    batch: tuple[int, ...]
    rows: int
    columns: int

    @property
    def key(self) -> str:
        return f"{self.rows} {self.columns}\n{self.kernel.key}"

    def tile(self, b: Builder, place: Place, lanes: int) -> TileFinish:
        none = const(0, I64)
        emitter = KernelEmitter(b, self.kernel, (place.ptrs, place.sizes, none, none), lanes)
        emitter.load_arguments()
        outer = self._enter_batch(b, emitter, place.batch)
        roots = [s.value for s in self.kernel.stores]
        emitter.prepare(outer, roots)

        def row(i: Value) -> RowFinish:
            at_row = emitter.enter(outer, {self.rows: b.add(place.row, i)}, None)
            emitter.prepare(at_row, roots)

            def vector(j: Value, value: Value, mask: Value | None) -> None:
                along = Vector(self.columns, lanes, 1, mask)
                here = emitter.enter(at_row, {self.columns: b.add(place.column, j)}, along)
                here.values[self._product()] = [value]
                emitter.block(self.kernel.block, here, ())

            return vector

        return row

    def _enter_batch(self, b: Builder, emitter: KernelEmitter, flat: Value) -> Scope:
        """Open the scope of one batch element, of whose flat index the axes' are the digits."""
        index: dict[int, Value] = {}
        for axis in reversed(self.batch):
            index[axis] = flat
            if axis != self.batch[0]:
                extent = emitter.extents[axis]
                flat, whole = b.div(flat, extent, signed=False), flat
                index[axis] = b.sub(whole, b.mul(flat, extent))
        outermost = emitter.outermost()
        return emitter.enter(outermost, index, None) if index else outermost

    def _product(self) -> int:
        assert self.kernel.contract is not None
        return self.kernel.exprs.index(self.kernel.contract)
