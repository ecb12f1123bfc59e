"""Attention: ``bind`` a kernel to its call; ``kernel.emit_attention`` writes its code.

What is here plans calls, and loads none of the emitters.
"""

from tracejit.codegen.attention.spec import WORK_POINTER, AttentionCall, AttentionSpec, bind

__all__ = ["WORK_POINTER", "AttentionCall", "AttentionSpec", "bind"]
