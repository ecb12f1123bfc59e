"""tracejit: a tracing tensor JIT for CPUs. ``import tracejit as tj``.

Array functions follow the array API's names, beside NumPy's and PyTorch's. Everything loads on
first use, so that importing this takes 2 ms.
"""

# What stands between the imports must run before NumPy is loaded.
# ruff: noqa: E402, F403
from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import types
import typing

from tracejit import main_interpreter

main_interpreter.check()

from tracejit.errors import TracejitError as TracejitError

if typing.TYPE_CHECKING:
    import builtins

    import numpy as np

    from tracejit.frontend.explanation import explain as explain
    from tracejit.frontend.integrated import FunctionProfile as FunctionProfile
    from tracejit.frontend.integrated import (
        get_integrated_jit_compiler as get_integrated_jit_compiler,
    )
    from tracejit.frontend.neuralscript import kernels as kernels
    from tracejit.frontend.neuralscript import load as load
    from tracejit.frontend.python import jit as jit
    from tracejit.frontend.python import spec as spec
    from tracejit.frontend.python import trace as trace
    from tracejit.functions import fft as fft
    from tracejit.functions import linalg as linalg
    from tracejit.functions import nn as nn
    from tracejit.functions import random as random
    from tracejit.namespace import *
    from tracejit.runtime import profiler as profiler
    from tracejit.runtime.cpu import isa as isa
    from tracejit.runtime.spans import profile as profile
    from tracejit.runtime.stance import set_stance as set_stance
    from tracejit.tensor import Tensor as Tensor

    bfloat16: np.dtype[typing.Any]

__version__ = "0.1.0"
__array_api_version__ = "2024.12"

# What is not an array function, and where it is.
_LAZY = {
    "FunctionProfile": "tracejit.frontend.integrated",
    "Tensor": "tracejit.tensor",
    "explain": "tracejit.frontend.explanation",
    "fft": "tracejit.functions.fft",
    "get_integrated_jit_compiler": "tracejit.frontend.integrated",
    "isa": "tracejit.runtime.cpu",
    "jit": "tracejit.frontend.python",
    "kernels": "tracejit.frontend.neuralscript",
    "linalg": "tracejit.functions.linalg",
    "load": "tracejit.frontend.neuralscript",
    "nn": "tracejit.functions.nn",
    "profile": "tracejit.runtime.spans",
    "profiler": "tracejit.runtime.profiler",
    "random": "tracejit.functions.random",
    "set_stance": "tracejit.runtime.stance",
    "spec": "tracejit.frontend.python",
    "trace": "tracejit.frontend.python",
}
# Modules, which import statements look for here first: no reason to load the array functions.
_MODULES = frozenset(
    ("cli", "codegen", "config", "digest", "errors", "files", "frontend", "functions", "gate",
     "graph", "immediate", "main_interpreter", "namespace", "operators", "ops", "protocols",
     "record", "runtime", "schedule", "signatures", "sizes", "tracing", "viz", "writes")
)  # fmt: skip
# Who asks for these is going to compile.
_COMPILING = frozenset(("get_integrated_jit_compiler", "jit", "kernels", "load"))


def __getattr__(name: str) -> typing.Any:
    if name == "bfloat16":  # of a package that need not be installed
        from tracejit.ops.dtypes import bfloat16

        return bfloat16()
    if name == "__all__":
        return [n for n in __dir__() if n[0] != "_" and n != "bfloat16"]
    if name.startswith("_") or name in _MODULES:
        raise AttributeError(f"module 'tracejit' has no attribute {name!r}")
    with _uncollected():
        found = _load(name) if name in _LAZY else _array_functions()
    globals().update(found)
    if name not in found:
        raise AttributeError(f"module 'tracejit' has no attribute {name!r}")
    return found[name]


@contextlib.contextmanager
def _uncollected() -> typing.Generator[None, None, None]:
    """Keep what is made inside the block from the garbage collector's next looks.

    Modules are objects by the ten thousand, and no garbage: looking at them takes 4 ms, in here or
    at the first allocation after it. So they join the oldest objects, which are looked at seldom.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if hasattr(gc, "freeze") and not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _load(name: str) -> dict[str, typing.Any]:
    if name in _COMPILING:
        from tracejit.runtime import ahead

        ahead.begin()
    module = importlib.import_module(_LAZY[name])
    return {name: module if module.__name__.endswith(f".{name}") else getattr(module, name)}


def _array_functions() -> dict[str, typing.Any]:
    from tracejit import namespace

    return {n: v for n, v in vars(namespace).items() if n[0] != "_" and n not in _LAZY}


class _Package(types.ModuleType):
    """Keeps ``tj.tensor`` the array function: importing the submodule would take its place."""

    def __setattr__(self, name: str, value: typing.Any) -> None:
        if name != "tensor" or not isinstance(value, types.ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

# The modules that are part of the namespace; others are seen in it only because they are loaded.
_SPACES = frozenset(("errors", "fft", "linalg", "nn", "profiler", "random"))


def __dir__() -> list[str]:
    known = globals() | _array_functions()
    found = {n for n, v in known.items() if n in _SPACES or type(v) is not types.ModuleType}
    return sorted({*found, *_LAZY, "bfloat16"})


def num_threads(number: builtins.int | None = None) -> typing.Any:
    """Return a ``with`` block in which kernels use ``number`` threads; how many now, if None."""
    from tracejit.runtime import threads

    return threads.get_num_threads() if number is None else threads.num_threads(number)


def memory_stats() -> dict[str, builtins.int]:
    """Return what the allocator of results and scratch memory has counted, in bytes and blocks.

    ``used`` and ``peak`` (bytes in living results and running calls, now and at most); ``cached``
    and ``cap`` (bytes kept for the next ones), ``cached_small`` and ``cap_small`` (the same for
    blocks of at most 64 KiB); ``hits``, ``misses`` (blocks reused, and newly allocated) and
    ``returned`` (given back to the system).
    """
    from tracejit.runtime import memory

    return memory.stats()


def trim_memory() -> None:
    """Give the memory that is kept for coming results back to the system."""
    from tracejit.runtime import memory

    memory.trim()


del annotations, main_interpreter
