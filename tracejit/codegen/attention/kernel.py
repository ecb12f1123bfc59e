"""Attention: softmax(scores) @ values in one pass over the keys, a block of queries at a time.

    for (batch, query block):                      a tile
      pack the queries
      for key block:
        pack its keys and values
        for panel of queries:
          scores = queries @ keysᵀ                 ``products``
          for row of the panel:                    maximum, exp and sum in the first cache
          result += scores @ values                ``products``
      result / sums → epilogue

The online softmax (M. Milakov and N. Gimelshein, arXiv:1805.02867; T. Dao et al.,
arXiv:2205.14135): a row keeps its maximum so far, and where a block raises it, what the row has
summed is scaled down. Memory is linear in the sequence: a panel of scores is the largest piece
of them that ever exists. What stands between the product and the softmax (scale, masks, biases)
is any elementwise expression; blocks of keys that a causal mask hides from all of a panel's
queries are left out. Few queries pack nothing (``in_place``). The order of all sums depends on the
sizes alone.
"""

from __future__ import annotations

from collections.abc import Callable

from tracejit.codegen.attention.frame import ZERO, Frame, Keys, Queries
from tracejit.codegen.attention.in_place import InPlace
from tracejit.codegen.attention.products import MultiplyAdds, Products
from tracejit.codegen.attention.spec import AttentionSpec, Slot, statistics
from tracejit.codegen.attention.tiles import Tiles
from tracejit.codegen.builder import I64, PTR, VOID, Module, Value, const
from tracejit.codegen.contraction.spec import Place
from tracejit.codegen.contraction.tile import KernelTile
from tracejit.codegen.elementwise import splat_to
from tracejit.codegen.math.exponential import exp_weight

# Vectors of a row that are worked on side by side.
STRIPS = 4


def emit_attention(module: Module, name: str, spec: AttentionSpec) -> None:
    """Define kernel ``void name(ptr ptrs, ptr sizes, i64 begin, i64 end)`` over tiles."""
    products = Tiles if spec.split else InPlace if spec.few else MultiplyAdds
    products.emit(module, name, spec)
    b = module.define(
        name,
        VOID,
        [("ptrs", PTR), ("sizes", PTR), ("begin", I64), ("end", I64)],
        parameter_attributes=("noalias readonly", "noalias readonly", "", ""),
    )
    frame = Frame(b, name, spec)
    _Attention(frame, products(frame)).emit()
    b.ret()


class _Attention:
    """Writes the body of the kernel; every method writes one level of the loop nest."""

    def __init__(self, frame: Frame, products: Products):
        self.frame, self.products = frame, products
        self.b, self.spec, self.get = frame.b, frame.spec, frame.get
        self.unit, self.type, self.vector = frame.unit, frame.type, frame.vector

    def emit(self) -> None:
        frame = self.frame
        self.products.around(lambda: self._tiles(frame.begin, frame.end))

    def _tiles(self, begin: Value, end: Value) -> None:
        self.b.loop(begin, end, 1, [], self._tile)

    def _tile(self, index: Value, _: list[Value]) -> list[Value]:
        b, get, frame = self.b, self.get, self.frame
        batch = b.div(index, get[Slot.TILES], signed=False)
        first = b.mul(b.sub(index, b.mul(batch, get[Slot.TILES])), get[Slot.TILE])
        rows = frame.least(b.sub(get[Slot.QUERIES], first), get[Slot.TILE])
        self.products.open(Queries(batch, first, rows))
        self._clear(rows)
        place = Place(first, ZERO, batch, frame.own_ptrs, frame.own_sizes)
        scores = KernelTile(
            b, self.spec.kernel, self.spec.batch, place, self.unit.lanes, [self.spec.attend.scores]
        )
        last = get[Slot.KEYS]
        if self.spec.visible is not None:
            last = frame.least(last, b.add(first, rows))

        def block(key: Value, _: list[Value]) -> list[Value]:
            count = frame.least(b.sub(get[Slot.KEYS], key), const(self.spec.keys, I64))
            keys = Keys(key, count, count)
            self.products.pack(keys)

            def panel(i: Value, _: list[Value]) -> list[Value]:
                if self.spec.visible is None:
                    self._panel(scores, keys, i, rows)
                    return []
                # The keys after the last row of the panel are left out.
                after = b.add(first, b.add(i, const(self.unit.rows, I64)))
                seen = keys._replace(seen=frame.least(count, b.sub(after, key)))

                def some() -> list[Value]:
                    self._panel(scores, seen, i, rows)
                    return []

                b.if_(b.compare("gt", seen.seen, ZERO), some)
                return []

            b.loop(ZERO, rows, self.unit.rows, [], panel)
            return []

        b.loop(ZERO, last, self.spec.keys, [], block)
        self._finish(place, rows)
        return []

    def _clear(self, rows: Value) -> None:
        """Start the maxima at -inf, the sums and the result at 0."""
        b, unit = self.b, self.unit
        height = const(unit.rows, I64)
        whole = b.mul(b.div(b.add(rows, const(unit.rows - 1, I64)), height), height)
        lanes = unit.lanes

        def panel(i: Value, _: list[Value]) -> list[Value]:
            for first in range(0, statistics(unit), lanes):
                b.store(
                    self.frame.lowest, self.frame.statistic(Slot.WORK_MAX, i, const(first, I64))
                )
                zero = const(0, self.vector)
                b.store(zero, self.frame.statistic(Slot.WORK_SUM, i, const(first, I64)))
            return []

        def element(i: Value, _: list[Value]) -> list[Value]:
            b.store(const(0, self.vector), self.frame.place(Slot.WORK_RESULT, i))
            return []

        b.loop(ZERO, whole, unit.rows, [], panel)
        b.loop(ZERO, b.mul(whole, self.get[Slot.WIDTH]), lanes, [], element)

    def _panel(self, scores: KernelTile, keys: Keys, i: Value, rows: Value) -> None:
        """Add a block of keys to the rows of a panel that starts at row ``i`` of the tile."""
        count = self.frame.least(self.b.sub(rows, i), const(self.unit.rows, I64))
        if self.spec.contract is not None:
            self.products.multiply(i, count, keys)
        self._weigh(scores, keys, i, count)
        self.products.add(i, count, keys)

    def _weigh(self, scores: KernelTile, keys: Keys, i: Value, rows: Value) -> None:
        """Turn the panel's scores to weights, as of the largest score of each row so far.

        What follows from the maxima is computed for all rows at once, in vectors.
        """
        b = self.b

        def highest(r: Value, _: list[Value]) -> list[Value]:
            b.store(self._highest(scores, keys, i, r), self.frame.place(Slot.WORK_REFERENCE, r))
            return []

        def weights(r: Value, _: list[Value]) -> list[Value]:
            self._weights(keys, i, r)
            return []

        b.loop(ZERO, rows, 1, [], highest)
        for first in range(0, statistics(self.unit), self.unit.lanes):
            self._raise(i, const(first, I64))
        b.loop(ZERO, rows, 1, [], weights)

    def _seen(self, scores: KernelTile, keys: Keys, row: Value) -> Value:
        """Return how many keys of the block a row of the tile sees."""
        b = self.b
        if self.spec.visible is None:
            return keys.seen
        following = b.add(scores.place.row, b.add(row, const(1, I64)))
        seen = b.intrinsic("smax", I64, b.sub(following, keys.first), ZERO)
        return self.frame.least(keys.seen, seen)

    def _highest(self, scores: KernelTile, keys: Keys, i: Value, r: Value) -> Value:
        """Finish the scores of row ``r`` of the panel, and return the largest."""
        b, lanes = self.b, self.unit.lanes
        attend, contract = self.spec.attend, self.spec.contract
        position = attend.scores if self.spec.visible is None else self.spec.visible
        row = b.add(i, r)
        opened = scores.row(attend.rows, row)

        def score(j: Value, high: Value, mask: Value | None) -> Value:
            here = scores.vector(opened, attend.over, b.add(keys.first, j), mask)
            if contract is not None:
                here.values[scores.position(contract)] = [self.products.score(r, j)]
            value = splat_to(b, scores.value(here, position), lanes)
            if mask is not None:
                value = b.select(mask, value, self.frame.lowest)
            b.store(value, self.frame.score(r, j))
            # A NaN fails the comparison; it reaches the row through its sum.
            return self._larger(value, high)

        seen = self._seen(scores, keys, row)
        high = self._strips(seen, self.frame.lowest, score)
        self._hide(r, seen, keys.seen)
        return b.fold(self._merge(high, self._larger), self._larger)

    def _hide(self, r: Value, seen: Value, count: Value) -> None:
        """Make the scores of a row of the panel -inf from ``seen`` on, in all vectors that are
        made weights of."""
        b, lanes = self.b, self.unit.lanes

        def step(j: Value, _: list[Value]) -> list[Value]:
            b.store(self.frame.lowest, self.frame.score(r, j))
            return []

        first, last = self.frame.round_up(seen, lanes), self._padded(count)
        b.loop(first, last, lanes, [], step)

    def _padded(self, count: Value) -> Value:
        """Return how many keys of a row have weights, where the panel sees ``count``."""
        return self.frame.round_up(count, self.unit.lanes * self.products.together)

    def _raise(self, i: Value, first: Value) -> None:
        """Raise the maxima of a vector of the panel's rows to those of this block; scale the sums.

        Leaves what is subtracted from the scores, and what the results so far are scaled with.
        """
        b, vector = self.b, self.vector
        zero = const(0, vector)
        high, sums = (
            self.frame.statistic(slot, i, first) for slot in (Slot.WORK_MAX, Slot.WORK_SUM)
        )
        old, place = b.load(high, vector), self.frame.place(Slot.WORK_REFERENCE, first)
        new = self._larger(b.load(place, vector), old)
        b.store(new, high)
        # Where all scores are -inf so far, any finite reference gives weights of 0.
        reference = b.select(b.compare("eq", new, self.frame.lowest), zero, new)
        b.store(reference, place)
        # Nothing is summed yet where the old maximum is -inf, and any scale will do. Exponentials
        # that underflow, as that of -inf, take some 200 cycles each.
        began = b.compare("gt", old, self.frame.lowest)
        scale = exp_weight(b, b.select(began, b.sub(old, reference), zero))
        b.store(scale, self.frame.place(Slot.WORK_SCALE, first))
        b.store(b.mul(b.load(sums, vector), scale), sums)

    def _weights(self, keys: Keys, i: Value, r: Value) -> None:
        """Turn the scores of row ``r`` of the panel to weights, and add them to its sum."""
        b, lanes, together = self.b, self.unit.lanes, self.products.together
        reference = b.splat(b.load(self.frame.place(Slot.WORK_REFERENCE, r), self.type), lanes)

        def weight(j: Value, totals: list[Value]) -> list[Value]:
            scores = [
                b.load(self.frame.score(r, b.add(j, const(v * lanes, I64))), self.vector)
                for v in range(together)
            ]
            weights = [exp_weight(b, b.sub(score, reference)) for score in scores]
            self.products.keep(r, j, weights)
            return [b.add(x, y) for x, y in zip(totals, weights, strict=True)]

        def several(j: Value, totals: list[Value]) -> list[Value]:
            done: list[Value] = []
            for v in range(0, STRIPS, together):
                done += weight(b.add(j, const(v * lanes, I64)), totals[v : v + together])
            return done

        def single(j: Value, totals: list[Value]) -> list[Value]:
            return [*weight(j, totals[:together]), *totals[together:]]

        count = self._padded(keys.seen)
        bulk = b.and_(count, const(-lanes * STRIPS, I64))
        totals = b.loop(ZERO, bulk, lanes * STRIPS, [const(0, self.vector)] * STRIPS, several)
        totals = b.loop(bulk, count, lanes * together, totals, single)
        place = self.frame.statistic(Slot.WORK_SUM, i, r)
        total = b.fold(self._merge(totals, b.add), b.add)
        b.store(b.add(b.load(place, self.type), total), place)

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

        state = b.loop(ZERO, bulk, step, [start] * STRIPS, several)
        state = b.loop(bulk, whole, lanes, state, single)
        return b.loop(whole, count, lanes, state, edge)

    def _merge(self, values: list[Value], combine: Callable[[Value, Value], Value]) -> Value:
        while len(values) > 1:
            pairs = zip(values[::2], values[1::2], strict=True)
            values = [combine(x, y) for x, y in pairs]
        return values[0]

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
            sums = self.frame.statistic(Slot.WORK_SUM, b.sub(i, within), within)
            total = b.splat(b.load(sums, self.type), lanes)
            start = b.mul(i, self.get[Slot.WIDTH])

            def vector(j: Value, mask: Value | None) -> list[Value]:
                value = b.load(self.frame.place(Slot.WORK_RESULT, start, j), self.vector)
                here = tile.vector(opened, attend.columns, j, mask)
                here.values[tile.position(attend)] = [b.div(value, total)]
                tile.store(here)
                return []

            def edge(j: Value, _: list[Value]) -> list[Value]:
                left = b.splat(b.sub(columns, j), lanes)
                return vector(j, b.compare("lt", b.lane_index(I64.vector(lanes)), left))

            b.loop(ZERO, whole, lanes, [], lambda j, _: vector(j, None))
            b.loop(whole, columns, lanes, [], edge)
            return []

        b.loop(ZERO, rows, 1, [], row)
