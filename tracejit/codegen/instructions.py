"""Instructions of LLVM IR as methods: typed values in, typed values out. See builder.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tracejit.codegen.values import Type, Value, const

if TYPE_CHECKING:
    from tracejit.codegen.builder import Module

_INT_PREDICATES = {
    "eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge",
    "ult": "ult", "ule": "ule", "ugt": "ugt", "uge": "uge",
}  # fmt: skip
# Ordered comparisons are false on NaN; "ne" is true, as in C and NumPy.
_FLOAT_PREDICATES = {
    "eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge",
    "uno": "uno", "ord": "ord", "ult": "ult", "ule": "ule", "ugt": "ugt", "uge": "uge",
}  # fmt: skip


class Instructions:
    """Arithmetic on scalars and vectors. Methods append an instruction and return its value."""

    def __init__(self, module: Module, lines: list[str], parameters: list[Value]):
        self.module = module
        self.target = module.target
        self.parameters = parameters
        self._lines = lines
        self._next = 0
        self._block = "entry"
        self._lines.append("entry:")

    # -- plumbing ------------------------------------------------------------------------------

    def emit(self, type: Type, instruction: str) -> Value:
        """Append ``%n = instruction`` and return the value."""
        name = f"%v{self._next}"
        self._next += 1
        self._lines.append(f"  {name} = {instruction}")
        return Value(name, type)

    def effect(self, instruction: str) -> None:
        """Append an instruction without a result."""
        self._lines.append(f"  {instruction}")

    def comment(self, text: str) -> None:
        self._lines.append(f"  ; {text}")

    def label(self, hint: str = "b") -> str:
        """Return a fresh block label."""
        self._next += 1
        return f"{hint}{self._next}"

    def block(self, label: str) -> None:
        """Start the block ``label``; the one before must have been ended."""
        self._lines.append(f"{label}:")
        self._block = label

    @property
    def current_block(self) -> str:
        return self._block

    def jump(self, label: str) -> None:
        self.effect(f"br label %{label}")

    def branch(self, condition: Value, then: str, otherwise: str) -> None:
        self.effect(f"br i1 {condition.text}, label %{then}, label %{otherwise}")

    def ret(self, value: Value | None = None) -> None:
        self.effect("ret void" if value is None else f"ret {value.type} {value.text}")

    def phi(self, type: Type, arms: Sequence[tuple[Value, str]]) -> Value:
        spelled = ", ".join(f"[ {v.text}, %{label} ]" for v, label in arms)
        return self.emit(type, f"phi {type} {spelled}")

    # -- arithmetic ----------------------------------------------------------------------------

    def _binary(self, name: str, a: Value, b: Value) -> Value:
        if a.type != b.type:
            raise AssertionError(f"{name}: {a.type} and {b.type}")
        return self.emit(a.type, f"{name} {a.type} {a.text}, {b.text}")

    def add(self, a: Value, b: Value) -> Value:
        return self._binary("fadd" if a.type.is_float else "add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self._binary("fsub" if a.type.is_float else "sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self._binary("fmul" if a.type.is_float else "mul", a, b)

    def div(self, a: Value, b: Value, *, signed: bool = True) -> Value:
        """Float division, or truncating integer division (the divisor must not be zero)."""
        return self._binary("fdiv" if a.type.is_float else "sdiv" if signed else "udiv", a, b)

    def rem(self, a: Value, b: Value, *, signed: bool = True) -> Value:
        """Remainder with the sign of ``a``; integers only (``frem`` would be a libm call)."""
        return self._binary("srem" if signed else "urem", a, b)

    def neg(self, a: Value) -> Value:
        if a.type.is_float:
            return self.emit(a.type, f"fneg {a.type} {a.text}")
        return self.sub(const(0, a.type), a)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """``a*b + c``: fused where the target has it, two roundings elsewhere."""
        if self.target.fma:
            return self.intrinsic("fma", a.type, a, b, c)
        return self.add(self.mul(a, b), c)

    # -- bits ----------------------------------------------------------------------------------

    def and_(self, a: Value, b: Value) -> Value:
        return self._binary("and", a, b)

    def or_(self, a: Value, b: Value) -> Value:
        return self._binary("or", a, b)

    def xor(self, a: Value, b: Value) -> Value:
        return self._binary("xor", a, b)

    def not_(self, a: Value) -> Value:
        return self.xor(a, const(1 if a.type.kind == "i1" else -1, a.type))

    def shl(self, a: Value, b: Value) -> Value:
        return self._binary("shl", a, b)

    def lshr(self, a: Value, b: Value) -> Value:
        return self._binary("lshr", a, b)

    def ashr(self, a: Value, b: Value) -> Value:
        return self._binary("ashr", a, b)

    # -- comparison, selection -----------------------------------------------------------------

    def compare(self, predicate: str, a: Value, b: Value) -> Value:
        """Compare: eq ne lt le gt ge; ult… unsigned (integers) or unordered (floats); uno, ord."""
        if a.type != b.type:
            raise AssertionError(f"compare: {a.type} and {b.type}")
        table, name = (_FLOAT_PREDICATES, "fcmp") if a.type.is_float else (_INT_PREDICATES, "icmp")
        return self.emit(
            a.type.like("i1"), f"{name} {table[predicate]} {a.type} {a.text}, {b.text}"
        )

    def select(self, mask: Value, a: Value, b: Value) -> Value:
        return self.emit(
            a.type,
            f"select {mask.type} {mask.text}, {a.type} {a.text}, {b.type} {b.text}",
        )

    # -- conversion ----------------------------------------------------------------------------

    def bitcast(self, a: Value, type: Type) -> Value:
        return a if a.type == type else self.emit(type, f"bitcast {a.type} {a.text} to {type}")

    def convert(self, a: Value, type: Type, *, signed: bool = True) -> Value:
        """Convert between number types of equal lanes; ``signed`` tells how integers read.

        Float → integer truncates; out of range it is an arbitrary value, never undefined.
        """
        source = a.type
        if source == type:
            return a
        if source.is_float and type.is_float:
            name = "fpext" if type.bits > source.bits else "fptrunc"
        elif source.is_float:
            raw = self.emit(type, f"fpto{'s' if signed else 'u'}i {source} {a.text} to {type}")
            return self.emit(type, f"freeze {type} {raw.text}")
        elif type.is_float:
            name = "sitofp" if signed and source.kind != "i1" else "uitofp"
        elif type.bits < source.bits:
            name = "trunc"
        else:
            name = "sext" if signed and source.kind != "i1" else "zext"
        return self.emit(type, f"{name} {source} {a.text} to {type}")

    # -- intrinsics ----------------------------------------------------------------------------

    def intrinsic(self, name: str, result: Type, *arguments: Value) -> Value:
        """Call ``llvm.<name>.<type>``, overloaded on the result's type."""
        full = f"llvm.{name}.{result.suffix}"
        return self.call(full, result, *arguments)

    def call(self, name: str, result: Type, *arguments: Value) -> Value:
        """Call ``@name``; declares it where the module does not define it."""
        if name.startswith("llvm."):
            kinds = ", ".join(str(a.type) for a in arguments)
            self.module.declare(name, f"{result} @{name}({kinds})")
        spelled = ", ".join(f"{a.type} {a.text}" for a in arguments)
        return self.emit(result, f"call {result} @{name}({spelled})")

    def sqrt(self, a: Value) -> Value:
        return self.intrinsic("sqrt", a.type, a)

    def abs(self, a: Value) -> Value:
        if a.type.is_float:
            return self.intrinsic("fabs", a.type, a)
        return self.select(self.compare("lt", a, const(0, a.type)), self.neg(a), a)

    def copysign(self, magnitude: Value, sign: Value) -> Value:
        return self.intrinsic("copysign", magnitude.type, magnitude, sign)

    def round_even(self, a: Value) -> Value:
        """Round to the nearest integer, ties to even; keeps the sign of zero."""
        if self.target.rounding:
            return self.intrinsic("rint", a.type, a)
        # Below SSE4.1 there is no instruction. Adding and subtracting 2^p rounds in place: the
        # sum has no fraction bits. Values of 2^p and above are integers already.
        big = const(2.0**23 if a.type.kind == "f32" else 2.0**52, a.type)
        magnitude = self.abs(a)
        rounded = self.sub(self.add(magnitude, big), big)
        small = self.compare("lt", magnitude, big)
        return self.select(small, self.copysign(rounded, a), a)

    def floor(self, a: Value) -> Value:
        if self.target.rounding:
            return self.intrinsic("floor", a.type, a)
        near = self.round_even(a)
        one = self.select(self.compare("gt", near, a), const(1.0, a.type), const(0.0, a.type))
        return self.copysign(self.sub(near, one), a)

    def ceil(self, a: Value) -> Value:
        return (
            self.intrinsic("ceil", a.type, a)
            if self.target.rounding
            else self.neg(self.floor(self.neg(a)))
        )

    def trunc(self, a: Value) -> Value:
        if self.target.rounding:
            return self.intrinsic("trunc", a.type, a)
        return self.copysign(self.floor(self.abs(a)), a)

    # -- vectors -------------------------------------------------------------------------------

    def splat(self, a: Value, lanes: int) -> Value:
        """Broadcast a scalar to ``lanes`` lanes."""
        if lanes == 1:
            return a
        type = a.type.vector(lanes)
        if a.is_literal and a.type.kind != "ptr":
            return Value(f"splat ({a.type} {a.text})", type)
        one = self.emit(type, f"insertelement {type} poison, {a.type} {a.text}, i64 0")
        return self.emit(
            type, f"shufflevector {type} {one.text}, {type} poison, <{lanes} x i32> zeroinitializer"
        )

    def extract(self, a: Value, lane: int) -> Value:
        if a.type.lanes == 1:
            return a
        return self.emit(a.type.element, f"extractelement {a.type} {a.text}, i64 {lane}")

    def insert(self, a: Value, element: Value, lane: int) -> Value:
        return self.emit(
            a.type,
            f"insertelement {a.type} {a.text}, {element.type} {element.text}, i64 {lane}",
        )

    def shuffle(self, a: Value, b: Value | None, lanes: Sequence[int]) -> Value:
        """Pick lanes of ``a`` (0…) and ``b`` (from ``a.type.lanes`` on)."""
        type = a.type.vector(len(lanes))
        mask = ", ".join(f"i32 {i}" for i in lanes)
        other = "poison" if b is None else b.text
        return self.emit(
            type,
            f"shufflevector {a.type} {a.text}, {a.type} {other}, <{len(lanes)} x i32> <{mask}>",
        )

    def join(self, parts: Sequence[Value]) -> Value:
        """Return vectors side by side as one; their number is a power of 2."""
        while len(parts) > 1:
            places = range(2 * parts[0].type.lanes)
            parts = [self.shuffle(parts[i], parts[i + 1], places) for i in range(0, len(parts), 2)]
        return parts[0]

    def parts(self, a: Value, count: int) -> list[Value]:
        """Return the vectors that ``join`` put side by side."""
        lanes = a.type.lanes // count
        return [self.shuffle(a, None, range(i * lanes, (i + 1) * lanes)) for i in range(count)]

    def transpose(self, rows: Sequence[Value]) -> list[Value]:
        """Return the columns of a square of vectors, as vectors.

        Blocks off the diagonal change places: of one element, of two, of four (Eklundh 1972, "A
        Fast Computer Method for Matrix Transposing")::

            a b  →  a c
            c d     b d
        """
        result, lanes, width = list(rows), len(rows), 1
        if rows[0].type.bits * lanes <= 128:
            return self._zipped(result)
        while width < lanes:
            for i in range(lanes):
                if i & width:
                    continue
                upper, lower = result[i], result[i + width]
                low = [j if not j & width else lanes + j - width for j in range(lanes)]
                high = [j + width if not j & width else lanes + j for j in range(lanes)]
                result[i] = self.shuffle(upper, lower, low)
                result[i + width] = self.shuffle(upper, lower, high)
            width *= 2
        return result

    def _zipped(self, rows: list[Value]) -> list[Value]:
        """Transpose by shuffling rows like cards, which is one instruction on 128 bits.

        Each turn interleaves row i with row i + n/2 and doubles the stretches that are in place.
        """
        lanes, half = len(rows), len(rows) // 2
        low = [lane for i in range(half) for lane in (i, lanes + i)]
        high = [lane + half for lane in low]
        for _ in range(lanes.bit_length() - 1):
            pairs = list(zip(rows[:half], rows[half:], strict=True))
            rows = [self.shuffle(a, b, places) for a, b in pairs for places in (low, high)]
        return rows

    def lane_index(self, type: Type) -> Value:
        """Return 0, 1, 2, … as a literal vector of an integer type."""
        if type.lanes == 1:
            return const(0, type)
        body = ", ".join(f"{type.element} {i}" for i in range(type.lanes))
        return Value(f"<{body}>", type)

    def fold(self, a: Value, combine: Callable[[Value, Value], Value]) -> Value:
        """Reduce the lanes with a fixed tree: halves, then halves of halves."""
        lanes = a.type.lanes
        while lanes > 1:
            lanes //= 2
            low = self.shuffle(a, None, range(lanes)) if lanes > 1 else self.extract(a, 0)
            high = (
                self.shuffle(a, None, range(lanes, 2 * lanes)) if lanes > 1 else self.extract(a, 1)
            )
            a = combine(low, high)
        return a

    def mask_bits(self, mask: Value, type: Type) -> Value:
        """Return an i1 vector as an integer, lane 0 lowest; ``type`` has a bit for each lane."""
        word = Type(f"i{mask.type.lanes}")
        bits = self.emit(word, f"bitcast {mask.type} {mask.text} to {word}")
        return bits if word == type else self.convert(bits, type, signed=False)

    def any(self, mask: Value) -> Value:
        """Return i1: whether some lane of an i1 vector is set."""
        if mask.type.lanes == 1:
            return mask
        word = Type(f"i{mask.type.lanes}")
        return self.compare("ne", self.mask_bits(mask, word), const(0, word))

    def all(self, mask: Value) -> Value:
        return self.not_(self.any(self.not_(mask)))
