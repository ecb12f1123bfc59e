"""The epilogue of a product that a scheduled kernel is: what its code depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracejit.codegen.contraction.spec import Place, TileFinish
from tracejit.record import record
from tracejit.schedule.kernel import Kernel

if TYPE_CHECKING:
    from tracejit.codegen.builder import Builder


@record(frozen=True, slots=True)
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
        # The emitters are loaded where there is something to emit, not where a key is asked for.
        from tracejit.codegen.contraction.tile import finish_tile

        return finish_tile(b, self, place, lanes)
