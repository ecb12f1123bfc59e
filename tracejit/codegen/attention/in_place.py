"""The products of attention of a few queries, which read keys and values where they are.

As where text is made token by token: all time goes to reading keys and values once, so nothing is
packed. Keys are dotted with the queries, some at a time; the values of a block are added in
registers, a few vectors of columns at a time. While a block's keys are read its values are fetched,
and the next block's keys while its values are: so memory is busy in the exponentials between, too.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from tracejit.codegen.attention.frame import ZERO, Frame, Keys, Queries
from tracejit.codegen.attention.products import Products
from tracejit.codegen.attention.spec import AttentionSpec, Slot
from tracejit.codegen.builder import I64, Module, Value, const
from tracejit.codegen.contraction.dot import multiply_add
from tracejit.codegen.contraction.narrow import lane_sums
from tracejit.codegen.prefetch import LINE

# Into the second-level cache: the first has no room for a block of values beside one of keys.
_SECOND_LEVEL = 2
# Chains of sums that hide the latency of a multiply-add.
_CHAINS = 8


class InPlace(Products):
    """All queries of a head, with keys and queries contiguous along the depth, and values along
    the columns."""

    def __init__(self, frame: Frame):
        super().__init__(frame)
        lanes, registers = frame.unit.lanes, frame.b.target.registers
        # Sums of a query and a key: half of the registers, and a power of 2 of them for each query.
        # Addresses of more than 8 keys would not stay in registers.
        most = max(1, min(8, lanes, registers // 2 // frame.spec.few))
        self.keys_at_once = 1 << (most.bit_length() - 1)
        self.line = max(lanes, LINE * 8 // frame.type.bits)  # elements

    @staticmethod
    def emit(module: Module, name: str, spec: AttentionSpec) -> None:
        """Nothing is called."""

    def open(self, queries: Queries) -> None:
        self.q, self.k, self.v = self.heads(queries.batch)

    def pack(self, keys: Keys) -> None:
        """Nothing is packed."""

    def multiply(self, i: Value, rows: Value, keys: Keys) -> None:
        b, several = self.frame.b, self.keys_at_once
        bulk = b.and_(keys.seen, const(-several, I64))

        def some(j: Value, count: int) -> list[Value]:
            self._dots(keys, j, count)
            return []

        b.loop(ZERO, bulk, several, [], lambda j, _: some(j, several))
        b.loop(bulk, keys.seen, 1, [], lambda j, _: some(j, 1))

    def add(self, i: Value, rows: Value, keys: Keys) -> None:
        f, b = self.frame, self.frame.b
        columns, lanes = f.get[Slot.COLUMNS], f.unit.lanes

        def edge(c: Value, _: list[Value]) -> list[Value]:
            self._weighted(keys, c, 1, self._mask(c, columns))
            return []

        first = ZERO
        for vectors in (f.unit.vectors, f.unit.vectors // 2):

            def whole(c: Value, _: list[Value], vectors: int = vectors) -> list[Value]:
                self._weighted(keys, c, vectors, None)
                return []

            if vectors:
                end = b.and_(columns, const(-vectors * lanes, I64))
                b.loop(first, end, vectors * lanes, [], whole)
                first = end
        b.loop(first, columns, lanes, [], edge)

    def _dots(self, keys: Keys, j: Value, count: int) -> None:
        """Compute the scores of ``count`` keys of the block, from key ``j`` on, for all queries."""
        f, b, few = self.frame, self.frame.b, self.frame.spec.few
        depth, lanes = f.get[Slot.DEPTH], f.unit.lanes
        first = b.add(keys.first, j)
        lines = self._rows(self.k, first, count, Slot.K_ROW)
        values = self._rows(self.v, first, count, Slot.V_ROW)
        queries = self._rows(self.q, ZERO, few, Slot.Q_ROW)

        def terms(k: Value, sums: list[Value], mask: Value | None) -> list[Value]:
            own = [self._load(line, k, mask) for line in lines]
            xs = [x for query in queries for x in [self._load(query, k, mask)] * count]
            return [
                multiply_add(b, x, own[at % count], total)
                for at, (x, total) in enumerate(zip(xs, sums, strict=True))
            ]

        def line(k: Value, sums: list[Value]) -> list[Value]:
            for row in values if f.spec.fetches else ():
                b.prefetch(b.element(row, k, f.type), locality=_SECOND_LEVEL)
            for start in range(0, self.line, lanes):
                sums = terms(b.add(k, const(start, I64)), sums, None)
            return sums

        def edge(k: Value, sums: list[Value]) -> list[Value]:
            return terms(k, sums, self._mask(k, depth))

        sums = [const(0, f.vector)] * (few * count)
        whole = b.and_(depth, const(-self.line, I64))
        sums = b.loop(ZERO, whole, self.line, sums, line)
        sums = b.loop(whole, depth, lanes, sums, edge)
        for r in range(few):
            group = sums[r * count : (r + 1) * count]
            scores = lane_sums(b, group) if count > 1 else b.fold(group[0], b.add)
            b.store(scores, f.score(const(r, I64), j))

    def _weighted(self, keys: Keys, c: Value, vectors: int, mask: Value | None) -> None:
        """Scale the results in some vectors of columns from ``c`` on, and add the values there."""
        f, b, few = self.frame, self.frame.b, self.frame.spec.few
        lanes, size = f.unit.lanes, f.type.bits // 8
        columns = [b.add(c, const(v * lanes, I64)) for v in range(vectors)]
        places = [f.result(const(r, I64), column) for r in range(few) for column in columns]
        following = b.add(keys.first, const(f.spec.keys, I64))

        def key(j: Value, sums: Sequence[Value]) -> list[Value]:
            (row,) = self._rows(self.v, b.add(keys.first, j), 1, Slot.V_ROW)
            values = [self._load(row, column, mask) for column in columns]
            if mask is None and f.spec.fetches:
                (ahead,) = self._rows(self.k, b.add(following, j), 1, Slot.K_ROW)
                ahead = b.element(ahead, c, f.type)
                for offset in range(0, vectors * lanes * size, LINE):
                    b.prefetch(b.offset(ahead, const(offset, I64)), locality=_SECOND_LEVEL)
            weights = [
                b.splat(b.load(f.score(const(r, I64), j), f.type), lanes) for r in range(few)
            ]
            return [
                multiply_add(b, weights[at // vectors], values[at % vectors], total)
                for at, total in enumerate(sums)
            ]

        count = len(places)
        chains = 1 << max(1, _CHAINS // count).bit_length() - 1

        def several(j: Value, sums: list[Value]) -> list[Value]:
            return [
                total
                for chain in range(chains)
                for total in key(
                    b.add(j, const(chain, I64)), sums[chain * count : (chain + 1) * count]
                )
            ]

        sums: list[Value] = []
        for at, place in enumerate(places):
            scale = b.load(f.place(Slot.WORK_SCALE, const(at // vectors, I64)), f.type)
            sums.append(b.mul(b.load(place, f.vector), b.splat(scale, lanes)))
        sums += [const(0, f.vector)] * (count * (chains - 1))
        bulk = b.and_(keys.seen, const(-chains, I64))
        sums = b.loop(ZERO, bulk, chains, sums, several)
        if chains > 1:
            sums = b.loop(bulk, keys.seen, 1, sums, lambda j, s: [*key(j, s[:count]), *s[count:]])
        for at, place in enumerate(places):
            b.store(functools.reduce(b.add, sums[at::count]), place)

    def _rows(self, base: Value, first: Value, count: int, stride: Slot) -> list[Value]:
        """Return the addresses of ``count`` rows from row ``first`` on."""
        f, b = self.frame, self.frame.b
        return [
            b.element(base, b.mul(b.add(first, const(r, I64)), f.get[stride]), f.type)
            for r in range(count)
        ]

    def _load(self, row: Value, at: Value, mask: Value | None) -> Value:
        f, b = self.frame, self.frame.b
        place = b.element(row, at, f.type)
        return b.load(place, f.vector) if mask is None else b.masked_load(place, mask, f.vector)

    def _mask(self, at: Value, stop: Value) -> Value:
        """Return the mask of a vector's lanes before ``stop``, where it begins ``at``."""
        b, lanes = self.frame.b, self.frame.unit.lanes
        return b.compare("lt", b.lane_index(I64.vector(lanes)), b.splat(b.sub(stop, at), lanes))
