"""LLVM's types, and values of them: an SSA name or a literal, with its type."""

from __future__ import annotations

import struct
from functools import lru_cache
from math import copysign
from typing import NamedTuple

_LLVM_NAMES = {"f16": "half", "f32": "float", "f64": "double", "ptr": "ptr", "void": "void"}
_NAN = "0x7FF8000000000000"
_BITS = {"ptr": 64, "void": 0}


class Type(NamedTuple):
    """An LLVM first-class type: ``kind`` is f16 f32 f64 i1 i8 i16 i32 i64 ptr void."""

    kind: str
    lanes: int = 1

    @property
    def is_float(self) -> bool:
        return self.kind[0] == "f"

    @property
    def bits(self) -> int:
        """Bits of one element."""
        return _BITS[self.kind] if self.kind in _BITS else int(self.kind[1:])

    @property
    def element(self) -> Type:
        return Type(self.kind)

    def like(self, kind: str) -> Type:
        """Return a type of this shape with another element."""
        return Type(kind, self.lanes)

    def vector(self, lanes: int) -> Type:
        return Type(self.kind, lanes)

    def __str__(self) -> str:
        return _spell(self.kind, self.lanes)

    @property
    def suffix(self) -> str:
        """The mangled form used in intrinsic names: ``v8f32``, ``i64``."""
        return f"v{self.lanes}{self.kind}" if self.lanes > 1 else self.kind


@lru_cache(maxsize=256)
def _spell(kind: str, lanes: int) -> str:
    name = _LLVM_NAMES.get(kind, kind)
    return f"<{lanes} x {name}>" if lanes > 1 else name


F32, F64, I1, I8, I16, I32, I64 = (Type(k) for k in ("f32", "f64", "i1", "i8", "i16", "i32", "i64"))
PTR, VOID = Type("ptr"), Type("void")


class Value(NamedTuple):
    """An SSA name or a literal, with its type."""

    text: str
    type: Type

    @property
    def is_literal(self) -> bool:
        return self.text[0] != "%"

    @property
    def is_number(self) -> bool:
        """Whether this is the literal of a number: no NaN."""
        return self.is_literal and _NAN not in self.text


def _float_literal(value: float, kind: str) -> str:
    """LLVM spells a float constant as the bits of the double that it extends to."""
    if value == 0:  # 0.0 and -0.0 are equal keys
        return "0x8000000000000000" if copysign(1, value) < 0 else "0x0000000000000000"
    return _nonzero_literal(value, kind)


@lru_cache(maxsize=4096)
def _nonzero_literal(value: float, kind: str) -> str:
    if value != value:
        return _NAN
    if kind == "f32":
        try:
            (value,) = struct.unpack("<f", struct.pack("<f", value))
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def const(value: float | int | bool, type: Type) -> Value:
    """Return a literal (a splat for vector types). A float goes to the nearest of the type."""
    if type.kind == "ptr":
        return Value("null", type)
    if type.is_float:
        text = _float_literal(float(value), type.kind)
    elif type.kind == "i1":
        text = "true" if value else "false"
    else:
        text = str(int(value))
    if type.lanes > 1:
        return Value(f"splat ({type.element} {text})", type)
    return Value(text, type)
