"""The two products of attention, of a panel of queries with a block of keys and their values.

    scores = queries @ keysᵀ        result = scale · result + weights @ values

What their operands look like where they are packed is theirs; scores and results are in rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from tracejit.codegen.attention.frame import ONE, ZERO, Frame, Keys, Queries
from tracejit.codegen.attention.spec import (
    K_POINTER,
    Q_POINTER,
    V_POINTER,
    AttentionSpec,
    Slot,
)
from tracejit.codegen.builder import I1, I64, Module, Type, Value, const
from tracejit.codegen.contraction.frame import in_batch
from tracejit.codegen.contraction.microkernel import MicroCall, MicroShape, emit_microkernel
from tracejit.codegen.contraction.pack import emit_pack


class Products(ABC):
    """Writes the products and what goes into them."""

    # Vectors of a row's weights that are kept together.
    together: ClassVar[int] = 1

    def __init__(self, frame: Frame):
        self.frame = frame

    @staticmethod
    @abstractmethod
    def emit(module: Module, name: str, spec: AttentionSpec) -> None:
        """Define the functions that the others call."""

    def around(self, loops: Callable[[], None]) -> None:
        """Write the loops over tiles, between what they need before and after them."""
        loops()

    @abstractmethod
    def open(self, queries: Queries) -> None:
        """Begin a tile: pack its queries."""

    @abstractmethod
    def pack(self, keys: Keys) -> None:
        """Pack a block of keys and their values."""

    @abstractmethod
    def multiply(self, i: Value, rows: Value, keys: Keys) -> None:
        """Compute the scores of the panel from row ``i`` on that has ``rows``."""

    def score(self, row: Value, key: Value) -> Value:
        """Return the products of a row of the panel with the keys of a vector."""
        return self.frame.b.load(self.frame.score(row, key), self.frame.vector)

    def keep(self, row: Value, key: Value, weights: list[Value]) -> None:
        """Store weights of a row of the panel, from ``key`` on, for ``add``: over its scores."""
        (weight,) = weights
        self.frame.b.store(weight, self.frame.score(row, key))

    @abstractmethod
    def add(self, i: Value, rows: Value, keys: Keys) -> None:
        """Scale the results of a panel, and add the values by the weights that were kept."""

    def heads(self, batch: Value) -> list[Value]:
        """Return the addresses of queries, keys and values of one batch element."""
        f = self.frame
        bases = [f.pointer(i) for i in (Q_POINTER, K_POINTER, V_POINTER)]
        slots = [Slot.BATCH + 4 * axis for axis in range(len(f.spec.batch))]
        return in_batch(f.b, bases, batch, slots, f.size, f.type)


class MultiplyAdds(Products):
    """Panels of numbers, multiplied by the microkernel."""

    @staticmethod
    def emit(module: Module, name: str, spec: AttentionSpec) -> None:
        unit, type = spec.unit(module.target), Type(spec.dtype)
        block = type, unit.rows, unit.vectors, unit.lanes
        if spec.contract is not None:
            scores = MicroShape(*block, 1, unit.rows, unit.columns)
            emit_microkernel(module, f"{name}.scores", scores)
            emit_pack(module, f"{name}.pack_q", type, unit.rows, spec.q)
            emit_pack(module, f"{name}.pack_k", type, unit.columns, spec.k)
        result = MicroShape(*block, spec.keys, 1, unit.columns)
        emit_microkernel(module, f"{name}.result", result)
        emit_pack(module, f"{name}.pack_v", type, unit.columns, spec.v)

    def open(self, queries: Queries) -> None:
        f, get = self.frame, self.frame.get
        q, self.k, self.v = self.heads(queries.batch)
        if f.spec.contract is not None:
            source = f.b.element(q, f.b.mul(queries.first, get[Slot.Q_ROW]), f.type)
            f.call(
                "pack_q", f.place(Slot.WORK_Q), source, get[Slot.Q_ROW], get[Slot.Q_DEPTH],
                queries.rows, get[Slot.DEPTH],
            )  # fmt: skip

    def pack(self, keys: Keys) -> None:
        f, get = self.frame, self.frame.get
        if f.spec.contract is not None:
            source = f.b.element(self.k, f.b.mul(keys.first, get[Slot.K_ROW]), f.type)
            f.call(
                "pack_k", f.place(Slot.WORK_K), source, get[Slot.K_ROW], get[Slot.K_DEPTH],
                keys.packed, get[Slot.DEPTH],
            )  # fmt: skip
        source = f.b.element(self.v, f.b.mul(keys.first, get[Slot.V_ROW]), f.type)
        f.call(
            "pack_v", f.place(Slot.WORK_V), source, get[Slot.V_COLUMN], get[Slot.V_ROW],
            get[Slot.COLUMNS], keys.packed,
        )  # fmt: skip

    def multiply(self, i: Value, rows: Value, keys: Keys) -> None:
        f, b = self.frame, self.frame.b
        width, depth = const(f.unit.columns, I64), f.get[Slot.DEPTH]

        def product(j: Value, _: list[Value]) -> list[Value]:
            call = MicroCall(
                f.place(Slot.WORK_Q, b.mul(i, depth)), ONE, const(f.unit.rows, I64),
                f.place(Slot.WORK_K, b.mul(j, depth)), width,
                f.score(ZERO, j), const(f.spec.keys, I64), width, depth, const(False, I1),
            )  # fmt: skip
            f.call("scores", *call)
            return []

        b.loop(ZERO, keys.seen, f.unit.columns, [], product)

    def add(self, i: Value, rows: Value, keys: Keys) -> None:
        f, b = self.frame, self.frame.b
        width = const(f.unit.columns, I64)

        def scaled(r: Value, _: list[Value]) -> list[Value]:
            scale = b.load(f.place(Slot.WORK_SCALE, r), f.type)
            raised = b.compare("ne", scale, const(1, f.type))
            b.if_(raised, lambda: self._rescale(b.add(i, r), b.splat(scale, f.unit.lanes)))
            return []

        def weighted(j: Value, _: list[Value]) -> list[Value]:
            call = MicroCall(
                f.score(ZERO, ZERO), const(f.spec.keys, I64), ONE,
                f.place(Slot.WORK_V, b.mul(j, keys.packed)), width,
                f.result(i, j), f.get[Slot.WIDTH], width, keys.seen, const(True, I1),
            )  # fmt: skip
            f.call("result", *call)
            return []

        b.loop(ZERO, rows, 1, [], scaled)
        b.loop(ZERO, f.get[Slot.WIDTH], f.unit.columns, [], weighted)

    def _rescale(self, row: Value, scale: Value) -> list[Value]:
        f, b = self.frame, self.frame.b

        def step(j: Value, _: list[Value]) -> list[Value]:
            place = f.result(row, j)
            b.store(b.mul(b.load(place, f.vector), scale), place)
            return []

        b.loop(ZERO, f.get[Slot.WIDTH], f.unit.lanes, [], step)
        return []
