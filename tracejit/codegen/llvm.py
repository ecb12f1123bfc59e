"""LLVM as a service: module text → object code or assembly. The only file that drives LLVM.

The emitter writes explicit vectors and unrolled accumulators, and hoists by itself, so no
auto-vectoriser runs; kernels skip the passes over IR altogether (``passes=0``) and leave the rest
to instruction selection.

A compile worker loads this file alone (``codegen/worker.py``): it imports nothing of tracejit when
it is run.
"""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracejit.codegen.target import Target

# llvmlite serialises calls itself; this lock keeps "initialise, then use" one step.
_lock = threading.Lock()


# Kernels are emitted in their final form: on a softmax LLVM's passes over the IR took 19 of 34 ms
# and made it 2 % faster (measured), so only the instruction selection optimises.
KERNEL_PASSES = 0
# The level of code whose sizes are constants (``codegen/specialise.py``): all passes over the IR,
# which then also write short loops out.
SPECIALISED = 4


class InvalidIR(Exception):
    """LLVM does not accept a module: a bug of the emitter."""


@lru_cache(maxsize=1)
def binding() -> Any:
    """Import and initialise ``llvmlite.binding`` on first use (it costs about 70 ms)."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    return llvm


def loaded() -> bool:
    """Whether LLVM is initialised in this process."""
    return binding.cache_info().currsize > 0


@lru_cache(maxsize=16)
def _machine(cpu: str, features: str, level: int) -> Any:
    llvm = binding()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=min(level, 3), reloc="pic", codemodel="small", jit=True
    )


def _parse(text: str) -> Any:
    llvm = binding()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise InvalidIR(f"generated IR does not verify: {error}") from error
    return module


def optimise(text: str, target: Target, level: int = 2, passes: int | None = None) -> Any:
    """Return the parsed module of ``text`` after LLVM's pipeline at ``level`` (0…3, SPECIALISED).

    ``passes`` sets another level for the passes over the IR than for the instruction selection
    (``level``): 0 suits code that is emitted in its final form, and saves half the time. It does
    not count for SPECIALISED code, which gets them all.
    """
    llvm = binding()
    module = _parse(text)
    machine = _machine(target.cpu, target.features, level)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    special = level == SPECIALISED
    speed = 3 if special else level if passes is None else passes
    options = llvm.create_pipeline_tuning_options(speed_level=speed)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = special
    options.loop_interleaving = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module


def compile_object(
    text: str, target: Target, level: int = 2, *, passes: int | None = None
) -> bytes:
    """Compile module text to a relocatable object file for ``target``."""
    with _lock:
        module = optimise(text, target, level, passes)
        return bytes(_machine(target.cpu, target.features, level).emit_object(module))


def assembly(text: str, target: Target, level: int = 2, *, passes: int | None = None) -> str:
    """Return the assembly that ``compile_object`` would encode."""
    with _lock:
        module = optimise(text, target, level, passes)
        return str(_machine(target.cpu, target.features, level).emit_assembly(module))


# LLVM is whole when a process forks: a child may compile at once.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )
