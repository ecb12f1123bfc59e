"""A right operand whose axes are no walks of one stride: where its elements are."""

from __future__ import annotations

from typing import NamedTuple

# A table in ``sizes``: the width of a row, the step, how far on the depths begin, then the rows
# and the depths.
WIDTH, STEP, DEPTHS, ROWS = range(4)


class Gather(NamedTuple):
    """Where the elements of B are, in elements from its pointer: [k, n] is at
    depths[k] + rows[n // width] + n % width · step."""

    depths: tuple[int, ...]
    rows: tuple[int, ...]
    width: int
    step: int

    def table(self) -> tuple[int, ...]:
        """Return the numbers that the kernel reads."""
        return (self.width, self.step, ROWS + len(self.rows), *self.rows, *self.depths)

    @property
    def known_step(self) -> int:
        """The step where there is code for it, 0 where it is a run-time number."""
        return self.step if self.step in (1, 2) else 0
