"""LLVM as a service: module text → object code or assembly. The only file that drives LLVM.

The emitter writes explicit vectors and unrolled accumulators, and hoists by itself, so no
auto-vectoriser runs; kernels skip the passes over IR altogether (``passes=0``) and leave the rest
to instruction selection.

LLVM is called through the C functions of llvmlite's library. ``llvmlite.binding``, which wraps the
same functions, takes 25 ms to import where the library takes 5 (measured), in the way of the first
kernel of every process; and it takes one lock for each call, and one context for all modules. Here
a compilation has a context of its own: threads compile side by side, and what types and constants
take is given back.

A compile worker loads this file alone (``codegen/worker.py``): it imports nothing of tracejit when
it is run.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache

TYPE_CHECKING = False  # typing takes a worker 2 ms to import
if TYPE_CHECKING:
    from typing import Any

    from tracejit.codegen.target import Target

# Kernels are emitted in their final form: on a softmax LLVM's passes over the IR took 19 of 34 ms
# and made it 2 % faster (measured), so only the instruction selection optimises.
KERNEL_PASSES = 0
# The level of code whose sizes are constants (``codegen/specialise.py``): all passes over the IR,
# which then also write short loops out.
SPECIALISED = 4

# Loop strength reduction took a third of LLVM's time (over the kernels of all rows of the
# benchmarks), and code whose addresses are written out already ran no slower without it on any
# instruction set (measured: 0.95 to 1.05 times).
_WITHOUT, _WITH = b"-disable-lsr=1", b"-disable-lsr=0"

# The file with LLVM in it, for a process that cannot look for llvmlite.
library_path = ""

_POINTER, _TEXT, _INT, _BOOL = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_bool
# The functions that are called: what they return, and what they take. A test compares these with
# llvmlite's own declarations.
FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "SetCommandLine": (None, _TEXT, _TEXT),
    "InitializeNativeTarget": (None,),
    "InitializeNativeAsmPrinter": (None,),
    "InitializeNativeAsmParser": (None,),
    "DisposeString": (None, _POINTER),
    "ContextCreate": (_POINTER,),
    "ContextDispose": (None, _POINTER),
    "ParseAssembly": (_POINTER, _POINTER, _TEXT, _POINTER),
    "DisposeModule": (None, _POINTER),
    "VerifyModule": (_BOOL, _POINTER, _POINTER),
    "SetTarget": (None, _POINTER, _TEXT),
    "SetDataLayout": (None, _POINTER, _TEXT),
    "GetDefaultTargetTriple": (None, _POINTER),
    "GetTargetFromTriple": (_POINTER, _TEXT, _POINTER),
    "CreateTargetMachine": (
        *(_POINTER, _POINTER, _TEXT, _TEXT, _TEXT),
        *(_INT, _TEXT, _TEXT, _INT, _INT, _TEXT),
    ),
    "CreateTargetMachineData": (_POINTER, _POINTER),
    "CopyStringRepOfTargetData": (None, _POINTER, _POINTER),
    "DisposeTargetData": (None, _POINTER),
    "CreatePipelineTuningOptions": (_POINTER,),
    "PTOSetLoopInterleaving": (None, _POINTER, _BOOL),
    "PTOSetLoopVectorization": (None, _POINTER, _BOOL),
    "PTOSetSLPVectorization": (None, _POINTER, _BOOL),
    "PTOSetLoopUnrolling": (None, _POINTER, _BOOL),
    "DisposePipelineTuningOptions": (None, _POINTER),
    "CreatePassBuilder": (_POINTER, _POINTER, _POINTER),
    "DisposePassBuilder": (None, _POINTER),
    "buildPerModuleDefaultPipeline": (_POINTER, _POINTER, _INT),
    "RunNewModulePassManager": (None, _POINTER, _POINTER, _POINTER),
    "DisposeNewModulePassManger": (None, _POINTER),
    "TargetMachineEmitToMemory": (_POINTER, _POINTER, _POINTER, _INT, _POINTER),
    "GetBufferStart": (_POINTER, _POINTER),
    "GetBufferSize": (ctypes.c_size_t, _POINTER),
    "DisposeMemoryBuffer": (None, _POINTER),
}


class InvalidIR(Exception):
    """LLVM does not accept a module: a bug of the emitter."""


# -- the library -----------------------------------------------------------------------------------


class _Library:
    """The functions of the table as methods, LLVM's native target initialised.

    Raises OSError where llvmlite's library cannot be loaded.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(library_path or find_library())
        for name, (result, *arguments) in FUNCTIONS.items():
            function = library[f"LLVMPY_{name}"]
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.InitializeNativeTarget()
        self.InitializeNativeAsmPrinter()
        self.InitializeNativeAsmParser()
        self.triple = self.text(self.GetDefaultTargetTriple)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def text(self, function: Any, *arguments: Any) -> str:
        """Return the string that ``function`` gives back through its last argument."""
        text = ctypes.c_char_p()
        function(*arguments, ctypes.byref(text))
        return self.taken(text)

    def taken(self, text: ctypes.c_char_p) -> str:
        """Return a string of the library's, which is freed."""
        value = text.value
        if value is None:
            return ""
        self.DisposeString(text)
        return value.decode(errors="replace")


def find_library() -> str:
    """Return the path of llvmlite's library. Raises OSError where llvmlite is not in a folder."""
    import importlib.util

    found = importlib.util.find_spec("llvmlite")
    places = (found.submodule_search_locations if found else None) or []
    if not places:
        raise OSError("llvmlite is not in a folder")
    names = {"win32": "llvmlite.dll", "darwin": "libllvmlite.dylib"}
    return os.path.join(places[0], "binding", names.get(sys.platform, "libllvmlite.so"))


_loading = threading.Lock()


@lru_cache(maxsize=1)
def _loaded() -> _Library:
    return _Library()


def _library() -> _Library:
    with _loading:
        return _loaded()


def load() -> None:
    """Load LLVM and initialise it, in about 6 ms."""
    _library()


def loaded() -> bool:
    """Whether LLVM is initialised in this process."""
    return _loaded.cache_info().currsize > 0


@lru_cache(maxsize=1)
def binding() -> Any:
    """Import ``llvmlite.binding``, for what is not done here; LLVM is initialised."""
    import llvmlite.binding

    load()
    return llvmlite.binding


# -- compiling -------------------------------------------------------------------------------------


def compile_object(
    text: str, target: Target, level: int = 2, *, passes: int | None = None
) -> bytes:
    """Compile module text to a relocatable object file for ``target``.

    ``level`` (0…3, SPECIALISED) is that of the instruction selection and of the passes over the
    IR; ``passes`` sets another one for these: 0 suits code that is emitted in its final form, and
    saves half the time. It does not count for SPECIALISED code, which gets them all.
    Raises InvalidIR. Threads that compile do not hold Python's lock.
    """
    return _translate(text, target, level, passes, assembly=False)


def assembly(text: str, target: Target, level: int = 2, *, passes: int | None = None) -> str:
    """Return the assembly that ``compile_object`` would encode."""
    return _translate(text, target, level, passes, assembly=True).decode()


def _translate(
    text: str, target: Target, level: int, passes: int | None, *, assembly: bool
) -> bytes:
    with _at_work():
        llvm = _library()
        context = llvm.ContextCreate()
        try:
            module = _parse(llvm, context, text)
            try:
                with _machine(llvm, target, level) as machine:
                    _optimise(llvm, module, machine, level, passes)
                    return _emit(llvm, module, machine, assembly)
            finally:
                llvm.DisposeModule(module)
        finally:
            llvm.ContextDispose(context)


def _parse(llvm: _Library, context: int, text: str) -> int:
    error = ctypes.c_char_p()
    module = llvm.ParseAssembly(context, text.encode(), ctypes.byref(error))
    if error.value is None and module and llvm.VerifyModule(module, ctypes.byref(error)):
        llvm.DisposeModule(module)
        module = None
    why = llvm.taken(error)
    if why or not module:
        raise InvalidIR(f"generated IR does not verify: {why}")
    return module


def _optimise(llvm: _Library, module: int, machine: int, level: int, passes: int | None) -> None:
    special = level == SPECIALISED
    options = llvm.CreatePipelineTuningOptions()
    llvm.PTOSetLoopVectorization(options, False)
    llvm.PTOSetSLPVectorization(options, False)
    llvm.PTOSetLoopUnrolling(options, special)
    llvm.PTOSetLoopInterleaving(options, False)
    builder = llvm.CreatePassBuilder(machine, options)
    speed = 3 if special else level if passes is None else passes
    manager = llvm.buildPerModuleDefaultPipeline(builder, speed)
    try:
        data = llvm.CreateTargetMachineData(machine)
        llvm.SetTarget(module, llvm.triple.encode())
        llvm.SetDataLayout(module, llvm.text(llvm.CopyStringRepOfTargetData, data).encode())
        llvm.DisposeTargetData(data)
        llvm.RunNewModulePassManager(manager, module, builder)
    finally:
        llvm.DisposeNewModulePassManger(manager)
        llvm.DisposePassBuilder(builder)
        llvm.DisposePipelineTuningOptions(options)


def _emit(llvm: _Library, module: int, machine: int, assembly: bool) -> bytes:
    error = ctypes.c_char_p()
    with _fewer_passes(llvm):
        buffer = llvm.TargetMachineEmitToMemory(machine, module, not assembly, ctypes.byref(error))
    if not buffer:
        raise RuntimeError(llvm.taken(error))
    try:
        return ctypes.string_at(llvm.GetBufferStart(buffer), llvm.GetBufferSize(buffer))
    finally:
        llvm.DisposeMemoryBuffer(buffer)


_setting = threading.Lock()
_leaving_out = 0


@contextmanager
def _fewer_passes(llvm: _Library) -> Generator[None, None, None]:
    """Inside, code generation leaves out a pass; it does so for the whole process.

    What else in it uses LLVM, such as Numba, has the pass at all other times.
    """
    global _leaving_out
    with _setting:
        _leaving_out += 1
        if _leaving_out == 1:
            llvm.SetCommandLine(b"", _WITHOUT)
    try:
        yield
    finally:
        with _setting:
            _leaving_out -= 1
            if _leaving_out == 0:
                llvm.SetCommandLine(b"", _WITH)


# Target machines that nobody uses: one serves one thread at a time.
_machines: dict[tuple[str, str, int], list[int]] = {}


@contextmanager
def _machine(llvm: _Library, target: Target, level: int) -> Generator[int, None, None]:
    """Lend the target machine of ``target`` at a level of instruction selection."""
    cpu, features, opt = key = target.cpu, target.features, min(level, 3)
    idle = _machines.setdefault(key, [])
    try:
        machine = idle.pop()
    except IndexError:
        error = ctypes.c_char_p()
        triple = llvm.triple.encode()
        found = llvm.GetTargetFromTriple(triple, ctypes.byref(error))
        if not found:
            raise RuntimeError(llvm.taken(error)) from None
        machine = llvm.CreateTargetMachine(
            found, triple, cpu.encode(), features.encode(), opt, b"pic", b"small", 0, 1, b""
        )
        if not machine:
            raise RuntimeError(f"LLVM does not know the processor {cpu}") from None
    try:
        yield machine
    finally:
        idle.append(machine)


# -- forking ---------------------------------------------------------------------------------------

_idle = threading.Condition()
_working = 0


@contextmanager
def _at_work() -> Generator[None, None, None]:
    """Inside, no other thread forks: LLVM is whole when a process does, and a child may compile."""
    global _working
    with _idle:
        _working += 1
    try:
        yield
    finally:
        with _idle:
            _working -= 1
            _idle.notify_all()


def _before_fork() -> None:
    _idle.acquire()
    _idle.wait_for(lambda: _working == 0)


def _in_child() -> None:
    global _idle
    _idle = threading.Condition()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=lambda: _idle.release(), after_in_child=_in_child
    )
