"""Compiles and runs generated matrix products on ndarrays, for tests and benchmarks."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tracejit.codegen.builder import Module
from tracejit.codegen.contraction import (
    GemmProblem,
    GemmSpec,
    Stage,
    classify,
    gemm_arguments,
    packed_bytes,
    stages,
    workspace_bytes,
)
from tracejit.codegen.contraction.gemm import emit_gemm
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.target import Target
from tracejit.record import replace
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
    """A product bound to arrays: call it, or run a range of the tiles of one of its stages."""

    entry: object
    ptrs: ctypes.Array[ctypes.c_void_p]
    stages: Sequence[Stage]
    keep: Sequence[object]

    def __post_init__(self) -> None:
        self.sizes = [(ctypes.c_int64 * len(s.sizes))(*s.sizes) for s in self.stages]

    def __call__(self) -> None:
        for number, stage in enumerate(self.stages):
            self.range(0, stage.tiles, number)

    def range(self, begin: int, end: int, stage: int = 0) -> None:
        self.entry(self.ptrs, self.sizes[stage], begin, end)  # type: ignore[operator]


def bind(target: Target, a: np.ndarray, b: np.ndarray, c: np.ndarray, **options: object) -> Call:
    """Prepare ``c = a @ b``; ``options`` replace fields of the spec."""
    problem = problem_of(a, b, c)
    spec = classify(target, c.dtype, problem)
    if options:
        spec = replace(spec, **options)  # type: ignore[arg-type]
    loaded, entry = kernel(target.with_caches(0, 0, 0), spec)  # the code is the same
    works = [workspace_bytes(spec, target, problem), packed_bytes(spec, target, problem)]
    raws = [np.full(size + 64, 0xA5, np.uint8) for size in works]
    memory = [raw.ctypes.data + -raw.ctypes.data % 64 for raw in raws]
    arguments = gemm_arguments(spec, target, problem)
    pointers = arguments.pointers(a.ctypes.data, b.ctypes.data, c.ctypes.data, *memory)
    ptrs = (ctypes.c_void_p * len(pointers))(*pointers)
    return Call(entry, ptrs, stages(spec, target, problem, 1), (loaded, raws, a, b, c))
