"""NeuralScript: a statically typed, Rust-like language for matrix and vector programs.

text → ``lexer`` → ``parser`` (``syntax``) → ``checker`` (``types``, ``units``) → ``tracer`` →
Tensors. ``program`` puts files, imports and Python functions around it. Reference:
docs/neuralscript.md.
"""

from tracejit.frontend.neuralscript.diagnostics import Diagnostic, ProgramError
from tracejit.frontend.neuralscript.program import (
    Outputs,
    Program,
    ScriptModule,
    check_program,
    kernels,
    kernels_path,
    load,
    loads,
    run_program,
)

__all__ = [
    "Diagnostic",
    "Outputs",
    "Program",
    "ProgramError",
    "ScriptModule",
    "check_program",
    "kernels",
    "kernels_path",
    "load",
    "loads",
    "run_program",
]
