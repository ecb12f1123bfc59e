"""What to call ops, kernels, sizes and times: text for tables, traces and messages."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracejit.schedule.kernel import Kernel


def kernel_name(kernel: Kernel) -> str:
    """Return the ops of a kernel, repeated ones counted."""
    return ops_text(kernel.labels) or "copy"


def ops_text(ops: Iterable[str]) -> str:
    """Return the names of ops, repeated ones counted."""
    return " ".join(f"{op}×{n}" if n > 1 else op for op, n in Counter(ops).items())


def kernel_title(kernel: Kernel) -> str:
    """Return the ops of a kernel and the first of its source lines: ``exp sum at model.py:12``."""
    line = f" at {os.path.basename(kernel.lines[0])}" if kernel.lines else ""
    return kernel_name(kernel) + line


def kind_of(kernel: Kernel) -> str:
    """Return the kind of kernel that costs are told apart by."""
    return "loop" if kernel.contract is None else "product"


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
