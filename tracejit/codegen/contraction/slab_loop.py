"""The loop over slabs: some rows of a product, then the kernel that reads them.

    for slab of [begin, end):
      for column tile:  the product's tile of these rows  → the slab
      for row of the slab, or group of rows:  the reader's iteration

Product and reader are the functions that they are by themselves. They find the slab where they
look for C: the pointers to C are moved so far back that the slab's first row is where the row of
that number would be.
"""

from __future__ import annotations

from tracejit.codegen.builder import I64, PTR, VOID, Module, Value, const
from tracejit.codegen.contraction.frame import ONE, ZERO
from tracejit.codegen.contraction.gemm import emit_gemm
from tracejit.codegen.contraction.slabs import Head, SlabSpec
from tracejit.codegen.contraction.spec import WORK_POINTER, Slot
from tracejit.codegen.loops import define_kernel


def emit_slabs(module: Module, name: str, spec: SlabSpec) -> None:
    """Define kernel ``void name(ptr ptrs, ptr sizes, i64 begin, i64 end)`` for ``spec``.

    It computes slabs [begin, end), or packs as many blocks of the operands.
    """
    product, reader = f"{name}.product", f"{name}.reader"
    emit_gemm(module, product, spec.product, linkage="internal")
    define_kernel(module, spec.reader, reader, linkage="internal")
    b = module.define(name, VOID, [("ptrs", PTR), ("sizes", PTR), ("begin", I64), ("end", I64)])
    ptrs, sizes, begin, end = b.parameters
    own = b.emit(PTR, f"alloca [{spec.pointers} x ptr], align 64")
    product_sizes = b.element(sizes, const(spec.head, I64), I64)

    def size(index: int) -> Value:
        return b.load(b.element(sizes, const(index, I64), I64), I64)

    def of_product(slot: Slot) -> Value:
        return size(spec.head + slot)

    def call(function: str, ptrs: Value, sizes: Value, begin: Value, end: Value) -> None:
        spelled = ", ".join(f"{a.type} {a.text}" for a in (ptrs, sizes, begin, end))
        b.effect(f"call void @{function}({spelled})")

    def pack() -> list[Value]:
        call(product, ptrs, product_sizes, begin, end)
        return []

    def compute() -> list[Value]:
        for index in range(spec.pointers):
            if index not in spec.held:
                place = const(index, I64)
                b.store(b.load(b.element(ptrs, place, PTR), PTR), b.element(own, place, PTR))
        work = b.load(b.element(ptrs, const(WORK_POINTER, I64), PTR), PTR)
        slab, row_bytes = b.offset(work, size(Head.SLAB)), size(Head.ROW_BYTES)
        group = size(Head.GROUP)
        offsets = [size(Head.HELD + i) for i in range(len(spec.held))]
        reader_sizes = b.element(sizes, size(Head.READER), I64)
        reader_ptrs = b.element(own, const(spec.first, I64), PTR)
        rows, height = of_product(Slot.M), of_product(Slot.TILE_M)
        down, across = of_product(Slot.TILES_M), of_product(Slot.TILES_N)
        first_batch = of_product(Slot.FIRST_BATCH)

        def one(index: Value, _: list[Value]) -> list[Value]:
            batch = b.div(index, down, signed=False)
            tile = b.sub(index, b.mul(batch, down))
            above = b.mul(tile, height)
            count = b.intrinsic("smin", I64, b.sub(rows, above), height)
            row = b.add(b.mul(b.add(batch, first_batch), rows), above)
            base = b.offset(slab, b.neg(b.mul(row, row_bytes)))
            for pointer, offset in zip(spec.held, offsets, strict=True):
                b.store(b.offset(base, offset), b.element(own, const(pointer, I64), PTR))

            def columns(j: Value, _: list[Value]) -> list[Value]:
                place = b.add(b.mul(b.add(b.mul(batch, across), j), down), tile)
                call(product, own, product_sizes, place, b.add(place, ONE))
                return []

            b.loop(ZERO, across, 1, [], columns)
            first, end = (b.div(r, group, signed=False) for r in (row, b.add(row, count)))
            call(reader, reader_ptrs, reader_sizes, first, end)
            return []

        b.loop(begin, end, 1, [], one)
        return []

    if spec.product.ahead:
        b.if_(b.compare("ne", of_product(Slot.PACKING), ZERO), pack, compute)
    else:
        compute()
    b.ret()
