"""tracejit: a tracing tensor JIT for CPUs. ``import tracejit as tj``.

Array functions follow the array API's names, beside NumPy's and PyTorch's; ``jit``, ``trace`` and
what compiles load on first use, so that importing this costs little more than importing NumPy.
"""

# Star imports: each module's __all__ is its part of the public namespace. What stands between the
# imports must run before NumPy is loaded.
# ruff: noqa: E402, F403
from __future__ import annotations

import gc
import importlib
import types
import typing

from tracejit.gate import check_interpreter

check_interpreter()

from tracejit.errors import TracejitError as TracejitError
from tracejit.functions import fft as fft
from tracejit.functions import linalg as linalg
from tracejit.functions import nn as nn
from tracejit.functions import random as random
from tracejit.functions.counting import *
from tracejit.functions.creation import *
from tracejit.functions.dtypes import *
from tracejit.functions.elementwise import *
from tracejit.functions.gather import *
from tracejit.functions.joining import *
from tracejit.functions.movement import *
from tracejit.functions.nn import *
from tracejit.functions.ordering import *
from tracejit.functions.products import *
from tracejit.functions.random import manual_seed as manual_seed
from tracejit.functions.random import rand as rand
from tracejit.functions.random import randint as randint
from tracejit.functions.random import randn as randn
from tracejit.functions.random import randperm as randperm
from tracejit.functions.reductions import *
from tracejit.functions.sampled import *
from tracejit.tensor import Tensor as Tensor

if typing.TYPE_CHECKING:
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
    from tracejit.runtime import profiler as profiler
    from tracejit.runtime.cpu import isa as isa
    from tracejit.runtime.spans import profile as profile
    from tracejit.runtime.stance import set_stance as set_stance

    bfloat16: np.dtype[typing.Any]

__version__ = "0.1.0"
__array_api_version__ = "2024.12"

_LAZY = {
    "FunctionProfile": "tracejit.frontend.integrated",
    "explain": "tracejit.frontend.explanation",
    "get_integrated_jit_compiler": "tracejit.frontend.integrated",
    "isa": "tracejit.runtime.cpu",
    "jit": "tracejit.frontend.python",
    "kernels": "tracejit.frontend.neuralscript",
    "load": "tracejit.frontend.neuralscript",
    "profile": "tracejit.runtime.spans",
    "profiler": "tracejit.runtime.profiler",
    "set_stance": "tracejit.runtime.stance",
    "spec": "tracejit.frontend.python",
    "trace": "tracejit.frontend.python",
}
# Who asks for these is going to compile.
_COMPILING = frozenset(("get_integrated_jit_compiler", "jit", "kernels", "load"))


def __getattr__(name: str) -> typing.Any:
    if name == "bfloat16":  # of a package that need not be installed
        from tracejit.ops.dtypes import bfloat16

        return bfloat16()
    home = _LAZY.get(name)
    if home is None:
        raise AttributeError(f"module 'tracejit' has no attribute {name!r}")
    collecting = gc.isenabled()
    gc.disable()  # modules are objects by the ten thousand, and no garbage: 4 ms of looking at them
    try:
        if name in _COMPILING:
            from tracejit.runtime import ahead

            ahead.begin()
        module = importlib.import_module(home)
    finally:
        if collecting:
            gc.enable()
    value = module if home.endswith(f".{name}") else getattr(module, name)
    globals()[name] = value
    return value


# The modules that are part of the namespace; others are seen in it only because they are loaded.
_SPACES = frozenset(("errors", "fft", "linalg", "nn", "profiler", "random"))


def __dir__() -> list[str]:
    found = {n for n, v in globals().items() if n in _SPACES or type(v) is not types.ModuleType}
    return sorted({*found, *_LAZY, "bfloat16"})


def num_threads(number: int | None = None) -> typing.Any:
    """Return a ``with`` block in which kernels use ``number`` threads; how many now, if None."""
    from tracejit.runtime import threads

    return threads.get_num_threads() if number is None else threads.num_threads(number)


def memory_stats() -> dict[str, int]:
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


del annotations, check_interpreter
