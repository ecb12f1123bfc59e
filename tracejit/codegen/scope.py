"""Scopes: the inside of some loops while a kernel is written."""

from __future__ import annotations

from typing import NamedTuple

from tracejit.codegen.builder import Value
from tracejit.codegen.math.quotient import Inverse
from tracejit.record import field, record

Values = list[Value]


class Vector(NamedTuple):
    """The axis in vector lanes, its lanes, how many vectors side by side, and a tail's mask.

    ``aligned``: where the kernel's streamed stores go starts on a whole vector.
    """

    axis: int
    lanes: int
    unroll: int
    mask: Value | None = None
    aligned: bool = False


@record(slots=True)
class Scope:
    """The inside of some loops: fixed axes with their indices, and what is computed there."""

    parent: Scope | None
    index: dict[int, Value]
    vector: Vector | None
    values: dict[int, Values] = field(default_factory=dict[int, Values])
    splats: dict[int, Value] = field(default_factory=dict[int, Value])
    fields: dict[int, Values] = field(default_factory=dict[int, Values])
    pointers: dict[int, Value] = field(default_factory=dict[int, Value])
    # What divisions by a value need, for those that loops inside divide by.
    inverses: dict[int, list[Inverse]] = field(default_factory=dict[int, "list[Inverse]"])

    @property
    def bound(self) -> frozenset[int]:
        outer = self.parent.bound if self.parent else frozenset[int]()
        return outer | self.index.keys()

    def is_vector(self, axes: frozenset[int]) -> bool:
        """Whether what varies with ``axes`` is vectors here."""
        return self.vector is not None and self.vector.axis in axes

    def find(self, position: int) -> Values | None:
        scope: Scope | None = self
        while scope is not None:
            if position in scope.values:
                return scope.values[position]
            scope = scope.parent
        return None

    def splat(self, position: int) -> Value | None:
        """Return a scalar in all lanes, if that was made where it was computed."""
        scope = self
        while position not in scope.values and scope.parent is not None:
            scope = scope.parent
        return scope.splats.get(position)

    def inverse(self, position: int) -> list[Inverse] | None:
        """Return the inverse of a value, where one was made around this scope."""
        scope: Scope | None = self
        while scope is not None and position not in scope.inverses:
            scope = scope.parent
        return None if scope is None else scope.inverses[position]

    def position(self, axis: int) -> Value:
        scope = self
        while axis not in scope.index:
            assert scope.parent is not None
            scope = scope.parent
        return scope.index[axis]
