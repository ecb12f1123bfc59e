"""Compiles and runs generated matrix products on ndarrays, for tests and benchmarks."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from tracejit.codegen.builder import Module
from tracejit.codegen.contraction import (
    GemmProblem,
    GemmSpec,
    classify,
    gemm_arguments,
    tile_count,
    workspace_bytes,
)
from tracejit.codegen.contraction.gemm import emit_gemm
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.target import Target
from tracejit.runtime.loader import LoadedObject

_SIGNATURE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)


@lru_cache(maxsize=1024)
def kernel(target: Target, spec: GemmSpec) -> tuple[LoadedObject, object]:
    """Return the loaded object of a spec and its ctypes entry."""
    loaded = LoadedObject(compile_object(module_text(target, spec), target, passes=0), ("gemm",))
    return loaded, _SIGNATURE(loaded.address("gemm"))


def module_text(target: Target, spec: GemmSpec) -> str:
    module = Module(target)
    emit_gemm(module, "gemm", spec)
    return module.text()


def compile_seconds(target: Target, spec: GemmSpec) -> float:
    """Return the processor time that emission and compilation of a spec take."""
    start = time.process_time()
    compile_object(module_text(target, spec), target, passes=0)
    return time.process_time() - start


def problem_of(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> GemmProblem:
    """Describe ``c = a @ b`` with ``a`` and ``b`` broadcast to the batch axes of ``c``."""
    item = c.itemsize
    batch = c.shape[:-2]
    a = np.broadcast_to(a, (*batch, *a.shape[-2:]))
    b = np.broadcast_to(b, (*batch, *b.shape[-2:]))
    sa, sb, sc = ([s // item for s in x.strides] for x in (a, b, c))
    return GemmProblem(
        c.shape[-2], c.shape[-1], a.shape[-1],
        (sa[-2], sa[-1]), (sb[-2], sb[-1]), (sc[-2], sc[-1]),
        batch, tuple(sa[:-2]), tuple(sb[:-2]), tuple(sc[:-2]),
    )  # fmt: skip


@dataclass
class Call:
    """A product bound to arrays: call it, or run a range of its tiles."""

    entry: object
    ptrs: ctypes.Array[ctypes.c_void_p]
    sizes: ctypes.Array[ctypes.c_int64]
    tiles: int
    keep: Sequence[object]

    def __call__(self) -> None:
        self.range(0, self.tiles)

    def range(self, begin: int, end: int) -> None:
        self.entry(self.ptrs, self.sizes, begin, end)  # type: ignore[operator]


def bind(target: Target, a: np.ndarray, b: np.ndarray, c: np.ndarray, **options: object) -> Call:
    """Prepare ``c = a @ b``; ``options`` replace fields of the spec."""
    problem = problem_of(a, b, c)
    spec = classify(target, c.dtype, problem)
    if options:
        spec = replace(spec, **options)  # type: ignore[arg-type]
    loaded, entry = kernel(target.with_caches(0, 0, 0), spec)  # the code is the same
    size = workspace_bytes(spec, target, problem)
    raw = np.full(size + 64, 0xA5, np.uint8)
    work = raw.ctypes.data + -raw.ctypes.data % 64
    arguments = gemm_arguments(spec, target, problem)
    pointers = arguments.pointers(a.ctypes.data, b.ctypes.data, c.ctypes.data, work)
    ptrs = (ctypes.c_void_p * 4)(*pointers)
    sizes = (ctypes.c_int64 * len(arguments.sizes))(*arguments.sizes)
    return Call(entry, ptrs, sizes, tile_count(spec, target, problem), (loaded, raw, a, b, c))
