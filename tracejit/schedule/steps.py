"""What to call the steps of a schedule in tables, traces and pictures."""

from __future__ import annotations

from tracejit.schedule.schedule import BandStep, ContractionStep, KernelStep, OpaqueStep, Step
from tracejit.schedule.titles import kernel_name


def step_name(step: Step) -> str:
    """Return the ops of a step, repeated ones counted: ``multiply×2 sum``."""
    match step:
        case KernelStep() | ContractionStep() | BandStep():
            return kernel_name(step.kernel)
        case OpaqueStep(node=node):
            return node.op.name


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
