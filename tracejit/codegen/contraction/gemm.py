"""Emits a matrix product: its microkernels and packing, and the loops around them.

``panels`` packs as it goes, ``ahead`` before; products with one row or a few are in ``gemv``,
those of windows with few rows in ``direct``, batches of tiny ones in ``tiny``.
"""

from __future__ import annotations

from tracejit.codegen.builder import I64, PTR, VOID, Module
from tracejit.codegen.contraction.ahead import Ahead
from tracejit.codegen.contraction.amx import Tiles, emit_tile_kernel
from tracejit.codegen.contraction.blocking import (
    RegisterBlock,
    offered_heights,
    offered_vectors,
)
from tracejit.codegen.contraction.direct import Direct
from tracejit.codegen.contraction.direct_tiles import DirectTiles
from tracejit.codegen.contraction.direct_tiles import emit_parts as emit_direct_parts
from tracejit.codegen.contraction.evaluate import Operand, emit_pack_computed
from tracejit.codegen.contraction.few import emit_few
from tracejit.codegen.contraction.finish import emit_finish
from tracejit.codegen.contraction.gemv import Axpys, Dots
from tracejit.codegen.contraction.microkernel import MicroShape, emit_microkernel
from tracejit.codegen.contraction.mirror import emit_mirror, emit_square
from tracejit.codegen.contraction.pack import emit_pack
from tracejit.codegen.contraction.panels import Panels, has_full, micro_name
from tracejit.codegen.contraction.spec import GemmSpec, Kind, Layout
from tracejit.codegen.contraction.split import emit_exact
from tracejit.codegen.contraction.tiny import Tiny
from tracejit.codegen.contraction.windows import emit_pack_windows

# Steps in an iteration of the largest microkernel over packed panels. Measured on one thread with
# AVX-512, float64: 5 to 9 % of 192 to 384 cubed, two steps half of that, eight no more. Integers
# would spill, and unrolled edges take a third more of the compile time.
_UNROLLED = 4


def emit_gemm(module: Module, name: str, spec: GemmSpec, linkage: str = "") -> None:
    """Define kernel ``void name(ptr ptrs, ptr sizes, i64 begin, i64 end)`` for ``spec``.

    It computes tiles [begin, end) of C, or packs as many blocks of the operands; ``spec.py``
    documents ``ptrs`` and ``sizes``.
    """
    if spec.kind == "gemm":
        _emit_parts(module, name, spec, spec.unit(module.target))
    elif spec.kind == "direct" and spec.tiled:
        emit_direct_parts(module, name, spec)
    elif spec.kind in ("axpys", "few_axpys", "dots", "few_dots"):
        emit_finish(module, f"{name}.finish", spec)
    b = module.define(
        name,
        VOID,
        [("ptrs", PTR), ("sizes", PTR), ("begin", I64), ("end", I64)],
        linkage=linkage,
        parameter_attributes=("noalias readonly", "noalias readonly", "", ""),
    )
    gemm = Tiles if spec.tiled else Ahead if spec.ahead else Panels
    direct = DirectTiles if spec.tiled else Direct
    kernels: dict[Kind, type[Panels | Axpys | Dots | Direct | Tiny]] = {
        "gemm": gemm, "axpys": Axpys, "few_axpys": Axpys, "dots": Dots, "few_dots": Dots,
        "direct": direct, "tiny": Tiny,
    }  # fmt: skip
    kernels[spec.kind](b, name, spec).emit()
    b.ret()


def _emit_microkernels(module: Module, name: str, spec: GemmSpec, unit: RegisterBlock) -> None:
    a_row: int | None = 1 if spec.pack_a or spec.a == "first" else None
    a_depth = unit.rows if spec.pack_a else 1 if spec.a == "last" else None
    b_depth = unit.columns if spec.pack_b else None
    shape = MicroShape(
        spec.type, unit.rows, unit.vectors, unit.lanes, a_row, a_depth, b_depth, bool(spec.ahead)
    )
    if spec.prologue is not None:
        shape = shape._replace(dot=spec.prologue.dot, corrected=spec.corrected)
    # The products of a batch follow each other in memory, and each is read for a short time.
    if spec.batch_axes and spec.a == "last" and not spec.pack_a and spec.gather is None:
        shape = shape._replace(follows=True)
    for rows in offered_heights(unit):
        for vectors in offered_vectors(unit, rows):
            if spec.tiled and spec.prologue is not None:
                micro = micro_name(name, rows, vectors)
                emit_tile_kernel(module, micro, f"{name}.exact", spec.prologue, rows, vectors)
                continue
            own = shape._replace(rows=rows, vectors=vectors)
            if spec.type.is_float and (rows, vectors) == (unit.rows, unit.vectors):
                own = own._replace(unrolled=_UNROLLED)
            emit_microkernel(module, micro_name(name, rows, vectors), own)
            if has_full(module.target, spec, rows, vectors):
                full = own._replace(full=True)
                emit_microkernel(module, micro_name(name, rows, vectors, ".full"), full)
    if spec.copies(module.target):
        copying = shape._replace(b_depth=None, copies=True)
        emit_microkernel(module, micro_name(name, unit.rows, unit.vectors, ".copy"), copying)


def _emit_parts(module: Module, name: str, spec: GemmSpec, unit: RegisterBlock) -> None:
    if spec.prologue is not None and spec.prologue.dot == "split":
        emit_exact(module, f"{name}.exact")
    _emit_microkernels(module, name, spec, unit)
    emit_finish(module, f"{name}.finish", spec)
    emit_few(module, name, spec, unit)
    if spec.symmetric:
        emit_mirror(module, f"{name}.mirror", spec)
        if spec.pieces > 1:
            emit_square(module, f"{name}.square", spec)
    along_a: dict[str, Layout] = {"last": "depth", "first": "width", "any": "any"}
    along_b: dict[str, Layout] = {"last": "width", "first": "depth", "any": "any"}
    prologue = spec.prologue
    if prologue is not None and prologue.a is not None:
        emit_pack_computed(module, f"{name}.pack_a", spec, Operand(prologue, "a", along_a[spec.a]))
    elif spec.pack_a:
        emit_pack(module, f"{name}.pack_a", spec.type, unit.rows, along_a[spec.a])
    if prologue is not None and prologue.b is not None:
        emit_pack_computed(module, f"{name}.pack_b", spec, Operand(prologue, "b", along_b[spec.b]))
    elif spec.gather is not None:
        emit_pack_windows(module, f"{name}.pack_b", spec.type, unit.columns, spec.gather)
    elif spec.pack_b or not module.target.masks:
        emit_pack(module, f"{name}.pack_b", spec.type, unit.columns, along_b[spec.b])
