"""Matrix products: ``classify`` a problem, lay out its arguments; ``gemm.emit_gemm`` its kernel.

What is here plans calls, and loads none of the emitters.
"""

from tracejit.codegen.contraction.epilogue import KernelEpilogue
from tracejit.codegen.contraction.gather import FEW_ROWS, Gather, gather_of
from tracejit.codegen.contraction.grid import (
    gemm_arguments,
    slab_bytes,
    tile_count,
    tile_grain,
    with_table,
    workspace_bytes,
)
from tracejit.codegen.contraction.plan import Stage, packed_bytes, stages
from tracejit.codegen.contraction.prologue import KernelPrologue, find_prologue
from tracejit.codegen.contraction.slabs import SlabSpec, bind_slabs
from tracejit.codegen.contraction.spec import (
    PACKED_POINTER,
    WORK_POINTER,
    Epilogue,
    GemmArguments,
    GemmProblem,
    GemmSpec,
    Place,
    Slot,
    canonical,
    classify,
    epilogue_slot,
)

__all__ = [
    "FEW_ROWS",
    "PACKED_POINTER",
    "WORK_POINTER",
    "Epilogue",
    "Gather",
    "GemmArguments",
    "GemmProblem",
    "GemmSpec",
    "KernelEpilogue",
    "KernelPrologue",
    "Place",
    "SlabSpec",
    "Slot",
    "Stage",
    "bind_slabs",
    "canonical",
    "classify",
    "epilogue_slot",
    "find_prologue",
    "gather_of",
    "gemm_arguments",
    "packed_bytes",
    "slab_bytes",
    "stages",
    "tile_count",
    "tile_grain",
    "with_table",
    "workspace_bytes",
]
