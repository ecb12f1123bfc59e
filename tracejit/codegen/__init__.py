"""Kernel → LLVM IR → machine code, for every instruction-set level through one emitter."""
