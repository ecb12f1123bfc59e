"""Matrix products: ``classify`` a problem, ``emit_gemm`` its kernel, lay out its arguments."""

from tracejit.codegen.contraction.epilogue import KernelEpilogue
from tracejit.codegen.contraction.gemm import emit_gemm
from tracejit.codegen.contraction.spec import (
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
    gemm_arguments,
    tile_count,
    tile_grain,
    with_table,
    workspace_bytes,
)
from tracejit.codegen.contraction.windows import Gather

__all__ = [
    "WORK_POINTER",
    "Epilogue",
    "Gather",
    "GemmArguments",
    "GemmProblem",
    "GemmSpec",
    "KernelEpilogue",
    "Place",
    "Slot",
    "canonical",
    "classify",
    "emit_gemm",
    "epilogue_slot",
    "gemm_arguments",
    "tile_count",
    "tile_grain",
    "with_table",
    "workspace_bytes",
]
