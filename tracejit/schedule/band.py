"""A band: kernels that run one after the other by blocks of rows. ``bands.py`` makes them."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple

from tracejit.ops.table import Shape
from tracejit.record import record, replace
from tracejit.schedule.kernel import Kernel
from tracejit.sizes import is_one


class Grid(NamedTuple):
    """A contiguous buffer as ``rows`` of ``pitch`` elements.

    ``inner`` says that only loop kernels see it.
    """

    rows: int
    pitch: int
    itemsize: int
    inner: bool

    @classmethod
    def of(cls, shape: Shape, itemsize: int, inner: bool) -> Grid:
        """Return the grid of ``shape``: its rows run along the first axis that is no single one."""
        lead = next((a for a, n in enumerate(shape) if not is_one(n)), len(shape))
        rows = shape[lead] if lead < len(shape) else 1
        return cls(rows, prod(shape[lead + 1 :]), itemsize, inner)

    @property
    def nbytes(self) -> int:
        return self.rows * self.pitch * self.itemsize


@record(frozen=True, slots=True)
class Part:
    """A kernel of a band. For rows [a, b) it runs its iterations
    [(a + before)·unit, (b + after)·unit), as far as there are.
    """

    kernel: Kernel
    unit: int
    before: int
    after: int


@record(frozen=True, slots=True)
class Window:
    """Where rows [a + first, …) of a buffer are while a block from row a on is computed.

    ``row_bytes`` lie between them, ``offset`` is from the thread's memory to the first.
    """

    buffer: int
    first: int
    row_bytes: int
    offset: int


@record(frozen=True, slots=True)
class Band:
    """Kernels that run by blocks of ``height`` rows, of ``rows``, in ``nbytes`` of own memory."""

    parts: tuple[Part, ...]
    windows: tuple[Window, ...]
    rows: int
    height: int
    nbytes: int

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.height)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        return tuple(part.kernel for part in self.parts)

    def mapped(self, change: Callable[[Kernel], Kernel]) -> Band:
        """Return the band with ``change(kernel)`` for each of its kernels."""
        parts = tuple(replace(p, kernel=change(p.kernel)) for p in self.parts)
        return replace(self, parts=parts)

    @property
    def kernel(self) -> Kernel:
        """The last kernel, under the ops and lines of all."""
        lines = dict.fromkeys(line for k in self.kernels for line in k.lines)
        labels = tuple(label for k in self.kernels for label in k.labels)
        return replace(self.kernels[-1], labels=labels, lines=tuple(lines))
