"""Where values live while a schedule runs: buffers, strided views of them, and steps of NumPy.

That is all that running takes of a schedule, beside machine code: a process that finds its plans on
disk (``runtime/stored.py``) loads this and no planner.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np

from tracejit.graph.node import Node
from tracejit.ops.table import Array, Shape
from tracejit.record import record


@record(frozen=True, slots=True)
class Buffer:
    """A piece of memory. ``kind``: input, data, output, temp (in the arena), opaque, faults, slab.

    ``node`` is the value in it; None where the schedule came from disk. ``number`` counts within
    the kind for inputs; ``offset`` is the place in the arena. The faults are one counter, of
    positions out of range; it only ever rises, so that runs can share it. Of a slab only some rows
    exist at a time, for each thread its own. A temp with a ``host`` is not in the arena but in the
    memory of that output, before the output is written.
    """

    kind: str
    dtype: np.dtype[Any]
    shape: Shape
    node: Node | None
    number: int = 0
    offset: int = 0
    value: Array | None = None
    host: int | None = None

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


class View(NamedTuple):
    """A strided view of a buffer, in elements."""

    buffer: int
    offset: int
    strides: tuple[int, ...]
    shape: Shape
    dtype: np.dtype[Any]


class OpaqueStep(NamedTuple):
    """Run an op through its NumPy reference."""

    node: Node
    operands: tuple[View, ...]
    buffer: int


class Placement(Protocol):
    """The part of a schedule that a run reads: buffers, outputs, and the arena's size."""

    @property
    def buffers(self) -> tuple[Buffer, ...]: ...
    @property
    def outputs(self) -> tuple[View, ...]: ...
    @property
    def arena_bytes(self) -> int: ...
