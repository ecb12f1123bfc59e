"""Attention: softmax(scores) @ values in one pass over the keys, a block of queries at a time.

    for (batch, query block):                      a tile
      pack the queries
      for key block:
        pack its keys and values
        for panel of queries:
          scores = queries @ keysᵀ                 a microkernel
          for row of the panel:                    maximum, exp and sum in the first cache
          result += scores @ values                a microkernel
      result / sums → epilogue

The online softmax (M. Milakov and N. Gimelshein, arXiv:1805.02867; T. Dao et al.,
arXiv:2205.14135): a row keeps its maximum so far, and where a block raises it, what the row has
summed is scaled down. Memory is linear in the sequence: a panel of scores is the largest piece
of them that ever exists. What stands between the product and the softmax (scale, masks, biases)
is any elementwise expression; blocks of keys that a causal mask hides from all of a panel's
queries are left out. The order of all sums depends on the sizes alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from tracejit.codegen.attention.spec import (
    K_POINTER,
    KEYS,
    POINTERS,
    Q_POINTER,
    V_POINTER,
    WORK_POINTER,
    AttentionSpec,
    Slot,
    statistics,
)
from tracejit.codegen.builder import I1, I64, PTR, VOID, Builder, Module, Type, Value, const
from tracejit.codegen.contraction.blocking import register_block
from tracejit.codegen.contraction.microkernel import MicroCall, MicroShape, emit_microkernel
from tracejit.codegen.contraction.pack import emit_pack
from tracejit.codegen.contraction.spec import Place
from tracejit.codegen.contraction.tile import KernelTile
from tracejit.codegen.elementwise import splat_to
from tracejit.codegen.math.exponential import exp_weight

# Vectors of a row that are worked on side by side.
STRIPS = 4


def emit_attention(module: Module, name: str, spec: AttentionSpec) -> None:
    """Define kernel ``void name(ptr ptrs, ptr sizes, i64 begin, i64 end)`` over tiles."""
    unit = register_block(module.target, spec.dtype)
    type = Type(spec.dtype)
    block = type, unit.rows, unit.vectors, unit.lanes
    scores = MicroShape(*block, 1, unit.rows, unit.columns)
    result = MicroShape(*block, KEYS, 1, unit.columns)
    if spec.contract is not None:
        emit_microkernel(module, f"{name}.scores", scores)
        emit_pack(module, f"{name}.pack_q", type, unit.rows, spec.q)
        emit_pack(module, f"{name}.pack_k", type, unit.columns, spec.k)
    emit_microkernel(module, f"{name}.result", result)
    emit_pack(module, f"{name}.pack_v", type, unit.columns, spec.v)
    b = module.define(
        name,
        VOID,
        [("ptrs", PTR), ("sizes", PTR), ("begin", I64), ("end", I64)],
        parameter_attributes=("noalias readonly", "noalias readonly", "", ""),
    )
    _Attention(b, name, spec).emit()
    b.ret()


class _Keys(NamedTuple):
    """A block of keys: its first, how many a panel sees, and how many are packed."""

    first: Value
    seen: Value
    packed: Value


class _Attention:
    """Writes the body of the kernel; every method writes one level of the loop nest."""

    def __init__(self, b: Builder, name: str, spec: AttentionSpec):
        self.b, self.name, self.spec = b, name, spec
        self.unit = register_block(b.target, spec.dtype)
        self.type = Type(spec.dtype)
        self.vector = self.type.vector(self.unit.lanes)
        self.ptrs, self.sizes, self.begin, self.end = b.parameters
        self.get = {slot: self._size(slot) for slot in Slot if slot is not Slot.BATCH}
        self.work = self._pointer(WORK_POINTER)
        self.lowest = const(-math.inf, self.vector)

    def _size(self, slot: int) -> Value:
        return self.b.load(self.b.element(self.sizes, const(slot, I64), I64), I64)

    def _pointer(self, index: int) -> Value:
        return self.b.load(self.b.element(self.ptrs, const(index, I64), PTR), PTR)

    def _work(self, slot: Slot, *offsets: Value) -> Value:
        place = self.get[slot]
        for offset in offsets:
            place = self.b.add(place, offset)
        return self.b.element(self.work, place, self.type)

    def _call(self, function: str, *arguments: Value) -> None:
        spelled = ", ".join(f"{a.type} {a.text}" for a in arguments)
        self.b.effect(f"call void @{self.name}.{function}({spelled})")

    def _least(self, x: Value, y: Value) -> Value:
        return self.b.intrinsic("smin", I64, x, y)

    def emit(self) -> None:
        self.b.loop(self.begin, self.end, 1, [], self._tile)

    def _tile(self, index: Value, _: list[Value]) -> list[Value]:
        b, get, unit = self.b, self.get, self.unit
        batch = b.div(index, get[Slot.TILES], signed=False)
        first = b.mul(b.sub(index, b.mul(batch, get[Slot.TILES])), get[Slot.TILE])
        rows = self._least(b.sub(get[Slot.QUERIES], first), get[Slot.TILE])
        q, k, v = self._heads(batch)
        if self.spec.contract is not None:
            source = b.element(q, b.mul(first, get[Slot.Q_ROW]), self.type)
            self._call(
                "pack_q", self._work(Slot.WORK_Q), source, get[Slot.Q_ROW], get[Slot.Q_DEPTH],
                rows, get[Slot.DEPTH],
            )  # fmt: skip
        self._clear(rows)
        ptrs = b.element(self.ptrs, const(POINTERS, I64), PTR)
        own = b.element(self.sizes, const(Slot.BATCH + 4 * len(self.spec.batch), I64), I64)
        place = Place(first, const(0, I64), batch, ptrs, own)
        scores = KernelTile(
            b, self.spec.kernel, self.spec.batch, place, unit.lanes, [self.spec.attend.scores]
        )
        last = get[Slot.KEYS]
        if self.spec.visible is not None:
            last = self._least(last, b.add(first, rows))

        def block(key: Value, _: list[Value]) -> list[Value]:
            keys = self._least(b.sub(get[Slot.KEYS], key), const(KEYS, I64))
            self._pack_block(k, v, key, keys)

            def panel(i: Value, _: list[Value]) -> list[Value]:
                block = _Keys(key, keys, keys)
                if self.spec.visible is None:
                    self._panel(scores, block, i, rows)
                    return []
                # The keys after the last row of the panel are left out.
                after = b.add(first, b.add(i, const(unit.rows, I64)))
                block = block._replace(seen=self._least(keys, b.sub(after, key)))

                def some() -> list[Value]:
                    self._panel(scores, block, i, rows)
                    return []

                b.if_(b.compare("gt", block.seen, const(0, I64)), some)
                return []

            b.loop(const(0, I64), rows, unit.rows, [], panel)
            return []

        b.loop(const(0, I64), last, KEYS, [], block)
        self._finish(place, rows)
        return []

    def _heads(self, batch: Value) -> list[Value]:
        """Return the addresses of queries, keys and values of one batch element."""
        b = self.b
        bases = [self._pointer(i) for i in (Q_POINTER, K_POINTER, V_POINTER)]
        rest = batch
        for axis in reversed(range(len(self.spec.batch))):
            slot = Slot.BATCH + 4 * axis
            index = rest
            if axis:
                extent = self._size(slot)
                rest = b.div(rest, extent, signed=False)
                index = b.sub(index, b.mul(rest, extent))
            for i in range(3):
                step = b.mul(index, self._size(slot + 1 + i))
                bases[i] = b.element(bases[i], step, self.type)
        return bases

    def _clear(self, rows: Value) -> None:
        """Start the maxima at -inf, the sums and the result at 0."""
        b, unit = self.b, self.unit
        height = const(unit.rows, I64)
        whole = b.mul(b.div(b.add(rows, const(unit.rows - 1, I64)), height), height)
        lanes = unit.lanes

        def panel(i: Value, _: list[Value]) -> list[Value]:
            for first in range(0, statistics(unit), lanes):
                b.store(self.lowest, self._statistic(Slot.WORK_MAX, i, const(first, I64)))
                zero = const(0, self.vector)
                b.store(zero, self._statistic(Slot.WORK_SUM, i, const(first, I64)))
            return []

        def element(i: Value, _: list[Value]) -> list[Value]:
            b.store(const(0, self.vector), self._work(Slot.WORK_RESULT, i))
            return []

        b.loop(const(0, I64), whole, unit.rows, [], panel)
        b.loop(const(0, I64), b.mul(whole, self.get[Slot.WIDTH]), lanes, [], element)

    def _statistic(self, slot: Slot, i: Value, r: Value) -> Value:
        """Return the address of a statistic of row ``r`` of the panel from row ``i`` on."""
        b, unit = self.b, self.unit
        panel = b.div(i, const(unit.rows, I64), signed=False)
        return self._work(slot, b.mul(panel, const(statistics(unit), I64)), r)

    def _pack_block(self, k: Value, v: Value, key: Value, keys: Value) -> None:
        b, get = self.b, self.get
        if self.spec.contract is not None:
            source = b.element(k, b.mul(key, get[Slot.K_ROW]), self.type)
            self._call(
                "pack_k", self._work(Slot.WORK_K), source, get[Slot.K_ROW], get[Slot.K_DEPTH],
                keys, get[Slot.DEPTH],
            )  # fmt: skip
        source = b.element(v, b.mul(key, get[Slot.V_ROW]), self.type)
        self._call(
            "pack_v", self._work(Slot.WORK_V), source, get[Slot.V_COLUMN], get[Slot.V_ROW],
            get[Slot.COLUMNS], keys,
        )  # fmt: skip

    def _panel(self, scores: KernelTile, keys: _Keys, i: Value, rows: Value) -> None:
        """Add a block of keys to the rows of a panel that starts at row ``i`` of the tile."""
        b, get, unit = self.b, self.get, self.unit
        columns, one = const(unit.columns, I64), const(1, I64)

        def product(j: Value, _: list[Value]) -> list[Value]:
            self._micro(
                "scores",
                MicroCall(
                    self._work(Slot.WORK_Q, b.mul(i, get[Slot.DEPTH])), one,
                    const(unit.rows, I64), self._work(Slot.WORK_K, b.mul(j, get[Slot.DEPTH])),
                    columns, b.element(self.work, j, self.type), const(KEYS, I64),
                    columns, get[Slot.DEPTH], const(False, I1),
                ),
            )  # fmt: skip
            return []

        if self.spec.contract is not None:
            b.loop(const(0, I64), keys.seen, unit.columns, [], product)

        self._weigh(scores, keys, i, self._least(b.sub(rows, i), const(unit.rows, I64)))

        def weighted(j: Value, _: list[Value]) -> list[Value]:
            self._micro(
                "result",
                MicroCall(
                    self.work, const(KEYS, I64), one,
                    self._work(Slot.WORK_V, b.mul(j, keys.packed)), columns,
                    self._work(Slot.WORK_RESULT, b.mul(i, get[Slot.WIDTH]), j),
                    get[Slot.WIDTH], columns, keys.seen, const(True, I1),
                ),
            )  # fmt: skip
            return []

        b.loop(const(0, I64), get[Slot.WIDTH], unit.columns, [], weighted)

    def _micro(self, name: str, call: MicroCall) -> None:
        self._call(name, *call)

    def _weigh(self, scores: KernelTile, keys: _Keys, i: Value, rows: Value) -> None:
        """Turn the panel's scores to weights, as of the largest score of each row so far.

        What follows from the maxima is computed for all rows at once, in vectors.
        """
        b = self.b

        def highest(r: Value, _: list[Value]) -> list[Value]:
            b.store(self._highest(scores, keys, i, r), self._work(Slot.WORK_REFERENCE, r))
            return []

        def weights(r: Value, _: list[Value]) -> list[Value]:
            self._weights(scores, keys, i, r)
            return []

        b.loop(const(0, I64), rows, 1, [], highest)
        for first in range(0, statistics(self.unit), self.unit.lanes):
            self._raise(i, const(first, I64))
        b.loop(const(0, I64), rows, 1, [], weights)

    def _seen(self, scores: KernelTile, keys: _Keys, row: Value) -> Value:
        """Return how many keys of the block a row of the tile sees."""
        b = self.b
        if self.spec.visible is None:
            return keys.seen
        following = b.add(scores.place.row, b.add(row, const(1, I64)))
        seen = b.intrinsic("smax", I64, b.sub(following, keys.first), const(0, I64))
        return self._least(keys.seen, seen)

    def _at(self, row: Value, key: Value) -> Value:
        """Return the address of the score of a key for a row of the panel."""
        return self.b.element(
            self.work, self.b.add(self.b.mul(row, const(KEYS, I64)), key), self.type
        )

    def _highest(self, scores: KernelTile, keys: _Keys, i: Value, r: Value) -> Value:
        """Finish the scores of row ``r`` of the panel, and return the largest."""
        b, lanes = self.b, self.unit.lanes
        attend, contract = self.spec.attend, self.spec.contract
        position = attend.scores if self.spec.visible is None else self.spec.visible
        row = b.add(i, r)
        opened = scores.row(attend.rows, row)

        def score(j: Value, high: Value, mask: Value | None) -> Value:
            here = scores.vector(opened, attend.over, b.add(keys.first, j), mask)
            if contract is not None:
                product = b.load(self._at(r, j), self.vector)
                here.values[scores.position(contract)] = [product]
            value = splat_to(b, scores.value(here, position), lanes)
            if mask is not None:
                value = b.select(mask, value, self.lowest)
            b.store(value, self._at(r, j))
            # A NaN fails the comparison; it reaches the row through its sum.
            return self._larger(value, high)

        high = self._strips(self._seen(scores, keys, row), self.lowest, score)
        return b.fold(self._merge(high, self._larger), self._larger)

    def _raise(self, i: Value, first: Value) -> None:
        """Raise the maxima of a vector of the panel's rows to those of this block; scale the sums.

        Leaves what is subtracted from the scores, and what the results so far are scaled with.
        """
        b, vector = self.b, self.vector
        zero = const(0, vector)
        high, sums = (self._statistic(slot, i, first) for slot in (Slot.WORK_MAX, Slot.WORK_SUM))
        old, place = b.load(high, vector), self._work(Slot.WORK_REFERENCE, first)
        new = self._larger(b.load(place, vector), old)
        b.store(new, high)
        # Where all scores are -inf so far, any finite reference gives weights of 0.
        reference = b.select(b.compare("eq", new, self.lowest), zero, new)
        b.store(reference, place)
        # Nothing is summed yet where the old maximum is -inf, and any scale will do. Exponentials
        # that underflow, as that of -inf, take some 200 cycles each.
        began = b.compare("gt", old, self.lowest)
        scale = exp_weight(b, b.select(began, b.sub(old, reference), zero))
        b.store(scale, self._work(Slot.WORK_SCALE, first))
        b.store(b.mul(b.load(sums, vector), scale), sums)

    def _weights(self, scores: KernelTile, keys: _Keys, i: Value, r: Value) -> None:
        """Turn the scores of row ``r`` of the panel to weights, and add them to its sum."""
        b, lanes = self.b, self.unit.lanes
        row = b.add(i, r)
        count = self._seen(scores, keys, row)
        reference = b.splat(b.load(self._work(Slot.WORK_REFERENCE, r), self.type), lanes)

        def weight(j: Value, total: Value, _: Value | None) -> Value:
            value = exp_weight(b, b.sub(b.load(self._at(r, j), self.vector), reference))
            b.store(value, self._at(r, j))
            return b.add(total, value)

        total = self._merge(self._strips(count, const(0, self.vector), weight), b.add)
        self._hide(r, count, keys.seen)
        place = self._statistic(Slot.WORK_SUM, i, r)
        b.store(b.add(b.load(place, self.type), b.fold(total, b.add)), place)
        scale = b.load(self._work(Slot.WORK_SCALE, r), self.type)
        raised = b.compare("ne", scale, const(1, self.type))
        b.if_(raised, lambda: self._rescale(row, b.splat(scale, lanes)))

    def _hide(self, row: Value, seen: Value, count: Value) -> None:
        """Give the keys of a row of the panel from ``seen`` on no weight."""
        b, lanes = self.b, self.unit.lanes
        if self.spec.visible is None:
            return
        first = b.and_(b.add(seen, const(lanes - 1, I64)), const(-lanes, I64))

        def step(j: Value, _: list[Value]) -> list[Value]:
            b.store(const(0, self.vector), self._at(row, j))
            return []

        b.loop(first, count, lanes, [], step)

    def _larger(self, x: Value, y: Value) -> Value:
        return self.b.select(self.b.compare("gt", x, y), x, y)

    def _strips(
        self, count: Value, start: Value, body: Callable[[Value, Value, Value | None], Value]
    ) -> list[Value]:
        """Write ``accumulator = body(j, accumulator, mask)`` for the vectors of a row, several
        side by side; return the accumulators."""
        b, lanes = self.b, self.unit.lanes
        step = lanes * STRIPS
        bulk, whole = (b.and_(count, const(-unit, I64)) for unit in (step, lanes))

        def several(j: Value, state: list[Value]) -> list[Value]:
            return [
                body(b.add(j, const(i * lanes, I64)), value, None) for i, value in enumerate(state)
            ]

        def single(j: Value, state: list[Value]) -> list[Value]:
            return [body(j, state[0], None), *state[1:]]

        def edge(j: Value, state: list[Value]) -> list[Value]:
            left = b.splat(b.sub(count, j), lanes)
            mask = b.compare("lt", b.lane_index(I64.vector(lanes)), left)
            return [body(j, state[0], mask), *state[1:]]

        state = b.loop(const(0, I64), bulk, step, [start] * STRIPS, several)
        state = b.loop(bulk, whole, lanes, state, single)
        return b.loop(whole, count, lanes, state, edge)

    def _merge(self, values: list[Value], combine: Callable[[Value, Value], Value]) -> Value:
        while len(values) > 1:
            pairs = zip(values[::2], values[1::2], strict=True)
            values = [combine(x, y) for x, y in pairs]
        return values[0]

    def _rescale(self, i: Value, scale: Value) -> list[Value]:
        b, width = self.b, self.get[Slot.WIDTH]
        start = b.mul(i, width)

        def step(j: Value, _: list[Value]) -> list[Value]:
            place = self._work(Slot.WORK_RESULT, start, j)
            b.store(b.mul(b.load(place, self.vector), scale), place)
            return []

        b.loop(const(0, I64), width, self.unit.lanes, [], step)
        return []

    def _finish(self, place: Place, rows: Value) -> None:
        """Divide the rows by their sums, and store what the kernel makes of them."""
        b, lanes = self.b, self.unit.lanes
        kernel, attend = self.spec.kernel, self.spec.attend
        tile = KernelTile(
            b, kernel, self.spec.batch, place, lanes, [s.value for s in kernel.stores]
        )
        columns = self.get[Slot.COLUMNS]
        whole = b.and_(columns, const(-lanes, I64))

        def row(i: Value, _: list[Value]) -> list[Value]:
            opened = tile.row(attend.rows, i)
            within = b.rem(i, const(self.unit.rows, I64), signed=False)
            sums = self._statistic(Slot.WORK_SUM, b.sub(i, within), within)
            total = b.splat(b.load(sums, self.type), lanes)
            start = b.mul(i, self.get[Slot.WIDTH])

            def vector(j: Value, mask: Value | None) -> list[Value]:
                value = b.load(self._work(Slot.WORK_RESULT, start, j), self.vector)
                here = tile.vector(opened, attend.columns, j, mask)
                here.values[tile.position(attend)] = [b.div(value, total)]
                tile.store(here)
                return []

            def edge(j: Value, _: list[Value]) -> list[Value]:
                left = b.splat(b.sub(columns, j), lanes)
                return vector(j, b.compare("lt", b.lane_index(I64.vector(lanes)), left))

            b.loop(const(0, I64), whole, lanes, [], lambda j, _: vector(j, None))
            b.loop(whole, columns, lanes, [], edge)
            return []

        b.loop(const(0, I64), rows, 1, [], row)
