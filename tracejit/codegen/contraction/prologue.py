"""Operands of a product that are computed where they are packed: what their code depends on.

Narrow numbers are such operands too: several of them in a row along the depth are packed as one
element, since instructions multiply and add them together (``codegen/contraction/dot.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from tracejit.codegen.contraction.blocking import PARTS, TILE, round_up
from tracejit.codegen.target import Target
from tracejit.ops.dtypes import is_bfloat16
from tracejit.ops.table import DType
from tracejit.record import record, replace
from tracejit.schedule.kernel import Apply, Contract, Kernel
from tracejit.schedule.product import batch_axes, is_computed, reached
from tracejit.sizes import hint

if TYPE_CHECKING:
    from tracejit.codegen.contraction.spec import GemmProblem

# What an element of a panel holds: one number, or narrow ones that follow in the depth.
# "tiles" are bytes too, for tile registers, and "pairs" are bfloat16s for them; "split" are pairs
# of float32s, in three such elements.
Dot = Literal["none", "words", "bytes", "tiles", "pairs", "split"]
GROUP: dict[Dot, int] = {"none": 1, "words": 2, "bytes": 4, "tiles": 4, "pairs": 2, "split": 2}


@record(frozen=True, slots=True)
class KernelPrologue:
    """Operands of the product in ``kernel`` that are computed; ``a`` and ``b`` are of the
    canonical product, whose rows, columns and depth are these axes of the kernel.

    ``batch`` are the kernel's batch axes, outermost first. ``a`` and ``b`` are the positions of
    the values that are packed; None where the operand is read from memory.
    """

    kernel: Kernel
    batch: tuple[int, ...]
    rows: int
    columns: int
    depth: int
    a: int | None
    b: int | None
    dot: Dot

    @property
    def group(self) -> int:
        """How many depths an element of a panel holds."""
        return GROUP[self.dot]

    @property
    def tiled(self) -> bool:
        """Whether tile registers multiply the operands; the depth then counts whole tiles."""
        return self.dot in ("tiles", "pairs", "split")

    @property
    def pieces(self) -> int:
        """How many elements of a panel hold the same depths."""
        return PARTS if self.dot == "split" else 1

    @property
    def biased(self) -> bool:
        """Whether a panel of A holds a + 128: VNNI multiplies unsigned bytes with signed ones.

        A panel of B then ends with a row of -128 · Σ b, which takes it back.
        """
        return self.dot == "bytes" and self.kernel.exprs[cast(int, self.a)].dtype.kind == "i"

    @property
    def key(self) -> str:
        axes = (self.rows, self.columns, self.depth)
        return f"{axes} {self.a} {self.b} {self.dot}\n{self.kernel.key}"

    def grouped(self, problem: GemmProblem) -> GemmProblem:
        """Return ``problem`` with its depth counted in elements of panels."""
        depth = -(-problem.k // self.group)
        return replace(problem, k=round_up(depth, TILE) * self.pieces if self.tiled else depth)


def find_prologue(kernel: Kernel, target: Target, *, swapped: bool) -> KernelPrologue | None:
    """Return the prologue of the product in ``kernel``, None where its operands are in memory.

    ``swapped`` tells that the canonical product is that of the transposes.
    """
    contract = cast(Contract, kernel.contract)
    operands = [contract.left, contract.right]
    rows, columns = contract.rows, contract.columns
    splits = _splits(kernel, target)
    if not splits and not any(is_computed(kernel, p) for p in operands):
        return None
    if swapped:
        operands.reverse()
        rows, columns = columns, rows
    batch = tuple(batch_axes(kernel))
    a, b = (_narrow(kernel, p, contract.dtype) for p in operands)
    dot: Dot = "none"
    if a is not None and b is not None:
        extents = [hint(kernel.extents[axis]) for axis in (rows, columns, contract.over)]
        dot = _dot(kernel, (a, b), target, extents)
    if dot == "none" and splits:
        dot, (a, b) = "split", operands
    elif dot == "none":
        a, b = (p if is_computed(kernel, p) else None for p in operands)
    return KernelPrologue(kernel, batch, rows, columns, contract.over, a, b, dot)


def _narrow(kernel: Kernel, position: int, sums: DType) -> int | None:
    """Return the value that an operand widens to the dtype of the sums, None if it is another:
    of 8 or 16 bits to int32, bfloat16 to float32."""
    expr = kernel.exprs[position]
    if not isinstance(expr, Apply) or expr.op != "cast":
        return None
    dtype = kernel.exprs[expr.args[0]].dtype
    if sums == np.int32:
        fits = (dtype.kind in "iu" and dtype.itemsize == 1) or dtype == np.int16
    else:
        fits = sums == np.float32 and is_bfloat16(dtype)
    return expr.args[0] if fits else None


# Rows (or columns) and depth from which on tiles are worth filling up; fewer rows, where the other
# operand has so many elements. Measured on Sapphire Rapids for 2 to 7 rows of 256×256 to 1024×1024:
# 1.6 to 2.6 times as fast in int8, 3.6 to 5.7 in bfloat16; 1.0 and 0.8 for 64×64 in int8.
_TILED, _TILED_DEPTH, _FEW_TILED, _FEW_ELEMENTS = 8, 32, 2, 1 << 14


def _dot(kernel: Kernel, operands: tuple[int, int], target: Target, extents: Sequence[int]) -> Dot:
    a, b = (kernel.exprs[p].dtype for p in operands)
    few, many, depth = min(extents[:2]), max(extents[:2]), extents[2]
    enough = few >= _TILED or (few >= _FEW_TILED and many * depth >= _FEW_ELEMENTS)
    tiled = target.tiles and depth >= _TILED_DEPTH and enough
    if is_bfloat16(a):
        return "pairs" if tiled else "none"
    if a.itemsize > 1 or b.itemsize > 1:
        return "words"
    if tiled:
        return "tiles"
    return "bytes" if b.kind == "i" and target.dot == "bytes" else "words"


def _splits(kernel: Kernel, target: Target) -> bool:
    """Whether a product of float32 is split for tile registers (``split``)."""
    contract = cast(Contract, kernel.contract)
    if not target.tiles or contract.dtype != np.float32 or contract.gather is not None:
        return False
    m, n, k = (hint(kernel.extents[a]) for a in (contract.rows, contract.columns, contract.over))
    sides = (contract.left, contract.right)
    narrow = all(e.dtype.itemsize <= 4 for p in sides for e in reached(kernel, p))
    return narrow and split_pays(m, n, k)


# With their parts they take ten bytes each.
_NEAR_NUMBERS = 1 << 17


def split_pays(m: int, n: int, k: int) -> bool:
    """Whether tile registers are faster.

    Measured on one core of a Sapphire Rapids, in picoseconds: a multiply-add takes 10.7, in tiles
    4.4; a number takes 190 to be split in the second-level cache, 350 from afar, and a result 40.
    What fills tiles up counts too. A call takes 0.3 µs more.
    """
    rows, columns, depth = round_up(m, TILE), round_up(n, TILE), round_up(k, 2 * TILE)
    numbers = (rows + columns) * depth
    split = (190 if numbers <= _NEAR_NUMBERS else 350) * numbers
    return 10.7 * m * n * k > 4.4 * rows * columns * depth + split + 40 * m * n + 3e5
