"""Widths: how many lanes a kernel's vectors have, and how many vectors stand side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tracejit.codegen.positions import position_exprs
from tracejit.codegen.strips import strip_vectors
from tracejit.codegen.target import Target
from tracejit.codegen.types import register_type
from tracejit.ops.table import OPS, Fact
from tracejit.schedule.kernel import Apply, Expr, Index, Kernel, Reduce, operands
from tracejit.schedule.pack import STRIP

# Operations of a body that is not written twice: LLVM's time grows faster than the body.
LONG_BODY = 280
# Operations from which on vectors side by side follow from the body, and from which on a body is
# not written for single vectors as well.
CHAINED, LENGTHY = 17, 64
# Cycles from one operation to the next that waits for it, times operations that start in each.
IN_FLIGHT = 4 * 3
# Operations that take less time than one division of a vector.
SHORT_BODY = 10
MAX_LANES = 64


def choose_lanes(kernel: Kernel, target: Target) -> int:
    """Return the lanes of all vectors of ``kernel``: a register of its widest values."""
    # Positions that are taken lane by lane are data.
    positions = set[int]() if kernel.lane_by_lane else position_exprs(kernel)
    values = [e for p, e in enumerate(kernel.exprs) if p not in positions]
    bits = [register_type(e.dtype).bits for e in values if not _is_position(e)]
    wide = max((n for n in bits if n > 1), default=8)
    return min(max(2, target.lanes(wide)), _shuffled_lanes(kernel))


def _shuffled_lanes(kernel: Kernel) -> int:
    """Return the most lanes for elements that change places in registers.

    For bytes and 2-byte elements those of 128 bits: wider shuffles of them take several
    instructions, and squares of more lanes more steps.
    """
    if kernel.tiled:
        outer, inner = kernel.parallel[-2:]
        moved = [
            a for a in kernel.accesses if a.strides[inner] not in (0, 1) and a.strides[outer] == 1
        ]
    else:
        records = (*kernel.records, *kernel.stored_records)
        moved = [kernel.accesses[record.fields[0]] for record in records]
    narrow = min((a.dtype.itemsize for a in moved), default=4)
    return 16 // narrow if narrow < 4 else MAX_LANES


def _is_position(expr: Expr) -> bool:
    """Whether a value counts elements: it is wide in memory, and rare beside the data."""
    return isinstance(expr, Index) or (isinstance(expr, Reduce) and expr.op.startswith("arg"))


def vectors_of(kernel: Kernel, target: Target, lanes: int) -> tuple[int, bool]:
    """Return the vectors side by side of a loop with all operations, and whether it is long."""
    applied = [p for p, e in enumerate(kernel.exprs) if isinstance(e, Apply)]
    vectors = vectors_for(kernel, target, applied)
    strips = kernel.packs or kernel.unpacks
    return min(vectors, STRIP // lanes) if strips else vectors, is_long(kernel, applied)


def vectors_for(kernel: Kernel, target: Target, applied: Sequence[int]) -> int:
    """Return the vectors side by side of a loop whose steps compute ``applied``, positions."""
    if kernel.lane_by_lane:
        return 1
    functions = sum(is_heavy([kernel.exprs[p]]) for p in applied)
    if functions:
        # A function is one long chain, and no processor looks ahead over what follows it. One by
        # itself gains nothing from more than two; log(exp(x) + 1) takes 0.92 of the time with four.
        most = 2 if functions == 1 and len(applied) <= SHORT_BODY else 4
        return most if len(applied) <= LONG_BODY // 2 else 2 if len(applied) <= LONG_BODY else 1
    if len(applied) >= CHAINED:
        return _vectors_in_flight(kernel, applied)
    if kernel.vector_parallel is not None and kernel.block.nests:
        return strip_vectors(kernel, target, len(applied))
    return 2 if len(applied) > 6 else 4


def _vectors_in_flight(kernel: Kernel, applied: Sequence[int]) -> int:
    """Return how many vectors keep the processor busy while the chains of each wait.

    The longest chain, of n operations, takes 4 n cycles, in which 12 n others could start.
    Values that find no register are stored and loaded beside that, which costs less than to wait:
    measured on 20 steps of Mandelbrot's, a chain of 80 of 240 operations, four vectors take 0.62
    of the time of two on AVX-512 and 0.53 of that of one on SSE4.2, with 16 registers.
    """
    depths: dict[int, int] = {}
    for position in sorted(applied):
        below = (depths.get(p, 0) for p in operands(kernel.exprs[position]))
        depths[position] = 1 + max(below, default=0)
    wanted = IN_FLIGHT * max(depths.values()) / len(applied)
    return 4 if wanted > 2 else 2 if wanted > 1 else 1


def is_long(kernel: Kernel, applied: Sequence[int]) -> bool:
    """Whether a body is too long to be written for single vectors as well."""
    return len(applied) >= LENGTHY or is_heavy(kernel.exprs[p] for p in applied)


def is_heavy(exprs: Iterable[Expr]) -> bool:
    """Whether an elementary function is among the operations: dozens of instructions."""
    return any(isinstance(e, Apply) and OPS[e.op].has(Fact.EXPENSIVE) for e in exprs)


def spread(kernel: Kernel) -> set[int]:
    """Return the values that vary less than an operation that reads them in vector lanes."""
    lanes = kernel.lane_axes
    return {
        below
        for expr in kernel.exprs
        if isinstance(expr, Apply)
        for below in expr.args
        if (expr.axes - kernel.exprs[below].axes) & lanes
    }
