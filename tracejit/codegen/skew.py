"""Skewed rows (``schedule/skew.py``): the last pass over a row, in a pass over the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracejit.codegen.builder import I64, Value, const
from tracejit.codegen.prefetch import Ahead
from tracejit.codegen.scope import Scope, Values, Vector
from tracejit.schedule.kernel import SCRATCH, Block, Nest, Reduce, operands

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter


class SkewedRows:
    """Writes the loop over the rows of a skewed kernel.

    ``now`` is what runs for a row at once, ``late`` the pass that waits. What is kept of a row lies
    in one half of the scratch memory, that of the next row in the other.
    """

    def __init__(self, emitter: KernelEmitter):
        self.emitter = emitter
        block = emitter.kernel.block
        self.late = block.nests[-1]
        self.now = Block(block.nests[:-1], block.stores)
        self.wanted = self._reduces()
        # The row before the one that is being written, where there is one.
        self.before: Scope | None = None

    def _reduces(self) -> list[int]:
        """Return the reductions that the late pass needs of its row."""
        exprs, kept = self.emitter.exprs, {s.value for s in self.late.reuses}
        stack = self._roots()
        seen: set[int] = set()
        while stack:
            position = stack.pop()
            if position not in seen and position not in kept:
                seen.add(position)
                stack += () if isinstance(exprs[position], Reduce) else operands(exprs[position])
        return sorted(p for p in seen if isinstance(exprs[p], Reduce))

    def _roots(self) -> list[int]:
        return [self.emitter.kernel.stores[s].value for s in self.late.stores]

    def write(self, scope: Scope, axis: int, start: Value, stop: Value) -> None:
        """Write the rows from ``start`` up to ``stop``: the first, the others, the last's rest."""
        b, one = self.emitter.b, const(1, I64)

        def following(index: Value, carried: Values) -> Values:
            self.before = self._done(scope, axis, b.sub(index, one), carried)
            return self._row(scope, axis, index)

        def rows() -> Values:
            self.before = None
            carried = self._row(scope, axis, start)
            carried = b.loop(b.add(start, one), stop, 1, carried, following)
            last = self._done(scope, axis, b.sub(stop, one), carried)
            self.before, self.emitter.ahead = None, Ahead()
            self.emitter.nest(self.late, last)
            return []

        b.if_(b.compare("lt", start, stop), rows)

    def _row(self, scope: Scope, axis: int, index: Value) -> Values:
        """Write what runs for a row at once; return the reductions that its late pass needs."""
        row = self._enter(scope, axis, index)
        self.emitter.block(self.now, row, ())
        return [value for r in self.wanted for value in self.emitter.value(row, r)]

    def _done(self, scope: Scope, axis: int, index: Value, carried: Values) -> Scope:
        """Return the scope of a row whose reductions have been computed."""
        row = self._enter(scope, axis, index)
        for position, value in zip(self.wanted, carried, strict=True):
            self.emitter.bind(row, position, [value])
        self.emitter.prepare(row, self._roots())
        return row

    def _enter(self, scope: Scope, axis: int, index: Value) -> Scope:
        emitter, b = self.emitter, self.emitter.b
        row = emitter.enter(scope, {axis: index}, scope.vector)
        half = b.mul(b.and_(index, const(1, I64)), emitter.scratch)
        for number, access in enumerate(emitter.kernel.accesses):
            if access.buffer == SCRATCH:
                row.pointers[number] = b.offset(row.pointers[number], half)
        return row

    def step(self, nest: Nest, vector: Vector | None, axis: int, index: Value) -> None:
        """Write the late pass of the row before, for one step of ``nest``, if that is the place."""
        emitter = self.emitter
        if self.before is None or nest is not self.now.nests[-1]:
            return
        inner = emitter.enter(self.before, {axis: index}, vector)
        reused = emitter.reused
        emitter.reused = {s.value: s.access for s in self.late.reuses}
        emitter.block(self.late.body, inner, ())
        emitter.reused = reused
