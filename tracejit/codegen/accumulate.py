"""Accumulators: the state of a nest's reductions, from the start of its loops to their end.

What an accumulator does with a value is its reducer's (reducers.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracejit.codegen.builder import I32, I64, Type, Value, const
from tracejit.codegen.elementwise import splat_to
from tracejit.codegen.reducers import Compensated, Reducer, State, fold_lanes, reducer
from tracejit.codegen.scope import Scope, Values
from tracejit.schedule.kernel import Nest, Reduce

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter


class Accumulator:
    """One reduction of a nest: its state between loops, and per block for float sums."""

    def __init__(self, emitter: KernelEmitter, position: int, nest: Nest, scope: Scope):
        self.emitter = emitter
        self.b = emitter.b
        self.position = position
        expr = emitter.exprs[position]
        assert isinstance(expr, Reduce)
        self.expr = expr
        self.summands = emitter.summands(position)
        source = emitter.exprs[expr.arg].dtype
        self.compensated = expr.op == "sum" and expr.dtype.kind == "f"
        self.master = Compensated(expr.dtype)
        self.in_lanes = nest.vector is not None
        ordered = not self.in_lanes
        self.reducer: Reducer = reducer(expr.op, source, expr.dtype, ordered=ordered)
        outer = scope.vector
        spread = outer is not None and outer.axis in expr.axes
        self.lanes = emitter.lanes if self.in_lanes or spread else 1
        if self.in_lanes:
            self.copies = emitter.unroll
        else:
            self.copies = outer.unroll if outer is not None and spread else 1
        self.fields = len(self.reducer.start(1))
        self.block_width = self.copies * self.fields
        # A vector nest merges its copies before they enter the compensated sum.
        self.masters = 1 if self.in_lanes else self.copies
        self.width = 2 * self.masters if self.compensated else self.block_width

    def start(self) -> Values:
        if self.compensated:
            return self.master.start(self.lanes) * self.masters
        return self._fresh()

    def _fresh(self) -> Values:
        return self.reducer.start(self.lanes) * self.copies

    def open_block(self, state: Values) -> Values:
        return self._fresh() if self.compensated else state

    def close_block(self, state: Values, block: Values, *, first: bool) -> Values:
        """Take a block into the state; ``first``: nothing is in it yet."""
        if not self.compensated:
            return block
        parts = [self._merged(block)] if self.in_lanes else self._split(block)
        result: Values = []
        for number, part in enumerate(parts):
            pair = state[2 * number : 2 * number + 2]
            result += (
                self.master.begin(part[0]) if first else self.master.absorb(self.b, pair, part[0])
            )
        return result

    def _split(self, state: Values) -> list[State]:
        return [state[i : i + self.fields] for i in range(0, len(state), self.fields)]

    def _merged(self, state: Values) -> State:
        """Merge the unrolled copies pairwise."""
        parts = self._split(state)
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [self.reducer.merge(self.b, parts[i], parts[i + half]) for i in range(half)]
        return parts[0]

    def update(self, scope: Scope, state: Values) -> Values:
        """Take the values of one step. Copies beyond the step's vectors stay as they are."""
        emitter, b, vector = self.emitter, self.b, scope.vector
        taken = [emitter.value(scope, p) for p in self.summands]
        parts = self._split(state)
        active = vector.unroll if vector is not None else 1
        for number in range(min(active, len(parts))):
            values = [v[number if len(v) > 1 else 0] for v in taken]
            values = [splat_to(b, v, self.lanes) for v in values]
            after = self._taken(parts[number], values, self._place(scope, number))
            if vector is not None and vector.mask is not None and self.lanes > 1:
                mask = vector.mask
                after = [
                    b.select(mask, new, old) for new, old in zip(after, parts[number], strict=True)
                ]
            parts[number] = after
        return [v for part in parts for v in part]

    def _taken(self, state: State, values: Values, place: Value) -> State:
        """Return ``state`` with a value, or with the product of two, in it."""
        if len(values) == 2:
            return [self.b.fma(values[0], values[1], state[0])]
        return self.reducer.update(self.b, state, values[0], place)

    def _place(self, scope: Scope, part: int) -> Value:
        """Return the i32 position in the reduced axes; only argmax and argmin look at it."""
        b = self.b
        wide = I32.vector(self.lanes)
        if not self.expr.op.startswith("arg"):
            return const(0, wide)
        linear = const(0, I64)
        for axis in self.expr.over:
            linear = b.mul(linear, self.emitter.extents[axis])
            linear = b.add(linear, scope.position(axis))
        first = b.splat(b.convert(linear, I32), self.lanes)
        if not self.in_lanes:
            return first
        lane = b.add(b.lane_index(wide), const(part * self.lanes, wide))
        return b.add(first, lane)

    def finish(self, state: Values) -> Values:
        b = self.b
        if self.compensated:
            pairs = [state[i : i + 2] for i in range(0, len(state), 2)]
            sums = [[self.master.finish(b, pair)] for pair in pairs]
        elif self.in_lanes:
            sums = [self._merged(state)]
        else:
            sums = self._split(state)
        if self.in_lanes:
            sums = [fold_lanes(b, self.reducer, s) for s in sums]
        results = [self.reducer.finish(b, s) for s in sums]
        return [self._empty_sum(r) for r in results] if self.compensated else results

    def _empty_sum(self, value: Value) -> Value:
        """The sum of nothing is +0, not the neutral −0."""
        b = self.b
        some = const(True, Type("i1"))
        for axis in self.expr.over:
            some = b.and_(some, b.compare("gt", self.emitter.extents[axis], const(0, I64)))
        lanes = value.type.lanes
        return b.select(b.splat(some, lanes), value, const(0.0, value.type))
