"""The multiply-add of a microkernel: of numbers, or of elements that hold several narrow integers.

Every form is exact modulo 2^32, as NumPy's sums of int32 are: no instruction that saturates.
"""

from __future__ import annotations

from tracejit.codegen.builder import I8, I16, Builder, Value
from tracejit.codegen.contraction.prologue import Dot


def multiply_add(b: Builder, x: Value, y: Value, z: Value, dot: Dot = "none") -> Value:
    """``x*y + z``, fused for floats where the target has it; integers wrap around.

    With ``dot`` the elements of x and y hold two words or four bytes (x unsigned, y signed), whose
    products are summed.
    """
    if dot == "bytes":
        bytes_ = I8.vector(z.type.lanes * 4)
        return _vnni(b, "vpdpbusd", z, b.bitcast(x, bytes_), b.bitcast(y, bytes_))
    if dot == "words":
        words = I16.vector(z.type.lanes * 2)
        return _words(b, b.bitcast(x, words), b.bitcast(y, words), z)
    return b.fma(x, y, z) if x.type.is_float else b.add(b.mul(x, y), z)


def _vnni(b: Builder, name: str, z: Value, x: Value, y: Value) -> Value:
    bits = z.type.lanes * z.type.bits
    return b.call(f"llvm.x86.avx512.{name}.{bits}", z.type, z, x, y)


_PMADDWD = {128: "sse2.pmadd.wd", 256: "avx2.pmadd.wd", 512: "avx512.pmaddw.d.512"}


def _words(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """Σ of two products of words: 2·(-2^15)² wraps to -2^31, as the sum of int32 does."""
    if b.target.dot == "bytes":
        return _vnni(b, "vpdpwssd", z, x, y)
    if b.target.dot == "words":
        name = _PMADDWD[z.type.lanes * z.type.bits]
        return b.add(z, b.call(f"llvm.x86.{name}", z.type, x, y))
    # No instruction has it, or not in this width.
    for first in (0, 1):
        lanes = range(first, x.type.lanes, 2)
        left, right = (b.convert(b.shuffle(v, None, lanes), z.type) for v in (x, y))
        z = b.add(z, b.mul(left, right))
    return z
