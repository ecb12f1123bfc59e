"""From plans of kernels to modules in LLVM's textual form.

This loads all emitters: it is imported where a kernel has to be compiled, and not before.
"""

from __future__ import annotations

from tracejit.codegen.attention import AttentionSpec
from tracejit.codegen.attention.kernel import emit_attention
from tracejit.codegen.band_loop import emit_band
from tracejit.codegen.bands import BandSpec
from tracejit.codegen.builder import Module
from tracejit.codegen.contraction import GemmSpec, SlabSpec
from tracejit.codegen.contraction.gemm import emit_gemm
from tracejit.codegen.contraction.slab_loop import emit_slabs
from tracejit.codegen.loops import emit_kernel
from tracejit.codegen.target import Target
from tracejit.schedule.kernel import Kernel

Plan = Kernel | GemmSpec | SlabSpec | AttentionSpec | BandSpec


def emit(plan: Plan, name: str, target: Target) -> str:
    """Return the module of a loop nest or a band of them, of a product, alone or with a reader,
    or of attention.

    The function is ``name``.
    """
    if isinstance(plan, Kernel):
        return emit_kernel(plan, target, name)
    module = Module(target)
    if isinstance(plan, GemmSpec):
        emit_gemm(module, name, plan)
    elif isinstance(plan, SlabSpec):
        emit_slabs(module, name, plan)
    elif isinstance(plan, BandSpec):
        emit_band(module, name, plan)
    else:
        emit_attention(module, name, plan)
    return module.text()
