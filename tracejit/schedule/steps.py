"""What to call the steps of a schedule, sizes and times, in tables, traces and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tracejit.schedule.kernel import Kernel
from tracejit.schedule.schedule import BandStep, ContractionStep, KernelStep, OpaqueStep, Step


def step_name(step: Step) -> str:
    """Return the ops of a step, repeated ones counted: ``multiply×2 sum``."""
    match step:
        case KernelStep() | ContractionStep() | BandStep():
            return kernel_name(step.kernel)
        case OpaqueStep(node=node):
            return node.op.name


def kernel_name(kernel: Kernel) -> str:
    """Return the ops of a kernel, repeated ones counted."""
    return ops_text(kernel.labels) or "copy"


def ops_text(ops: Iterable[str]) -> str:
    """Return the names of ops, repeated ones counted."""
    return " ".join(f"{op}×{n}" if n > 1 else op for op, n in Counter(ops).items())


def kernel_title(kernel: Kernel) -> str:
    """Return the ops of a kernel and the first of its source lines: ``exp sum at model.py:12``."""
    line = f" at {Path(kernel.lines[0]).name}" if kernel.lines else ""
    return kernel_name(kernel) + line


def step_kind(step: Step) -> str:
    """Return how a step runs: loop, rows (a loop that reduces), band, matrix, or NumPy."""
    match step:
        case KernelStep(kernel):
            return "rows" if any(n.reduces for n in kernel.block.nests) else "loop"
        case BandStep():
            return "band"
        case ContractionStep():
            return "matrix"
        case OpaqueStep():
            return "NumPy"


def size_text(nbytes: int) -> str:
    """Return bytes for people: 1.5 MiB."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def time_text(seconds: float) -> str:
    """Return a duration for people: 3.2 ms."""
    if seconds < 1e-6:
        return f"{seconds * 1e9:.0f} ns"
    for limit, scale, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * scale:.1f} {unit}"
    return f"{seconds:.2f} s"
