"""A small writer of textual LLVM IR: typed values in, typed values out.

Text, not llvmlite's ``ir`` objects: a kernel is a few hundred instructions, and appending one
line costs about 1 µs where building and printing an instruction object costs about 20, which
would be most of a quick compile. Every value carries its type, so an instruction's spelling
(``fadd`` or ``add``, scalar or vector) follows from its operands.

A ``Module`` holds functions, declarations and the target; a ``Builder`` writes one function.
Vectors are values whose ``type.lanes`` is above 1; the same calls work on scalars.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracejit.codegen.target import Target
from tracejit.codegen.values import (
    F32,
    F64,
    I1,
    I8,
    I16,
    I32,
    I64,
    PTR,
    VOID,
    Type,
    Value,
    const,
)

__all__ = [
    "F32",
    "F64",
    "I1",
    "I8",
    "I16",
    "I32",
    "I64",
    "PTR",
    "VOID",
    "Builder",
    "Module",
    "Type",
    "Value",
    "const",
]


@dataclass(slots=True)
class _Function:
    header: str
    lines: list[str]


class Module:
    """The functions of one compilation unit, for one target.

    ``define`` opens a function; ``require`` emits a shared internal function once (the vector
    maths); ``text()`` is the module in LLVM's textual form.
    """

    def __init__(self, target: Target):
        self.target = target
        self._functions: dict[str, _Function] = {}
        self._declarations: dict[str, str] = {}
        self._globals: dict[str, str] = {}

    def define(
        self,
        name: str,
        result: Type,
        parameters: Sequence[tuple[str, Type]],
        *,
        attributes: str = "nounwind",
        linkage: str = "",
        parameter_attributes: Sequence[str] = (),
    ) -> Builder:
        """Open function ``name``; its parameters are ``builder.parameters``."""
        extras = list(parameter_attributes) or [""] * len(parameters)
        spelled = ", ".join(
            f"{type}{' ' + extra if extra else ''} %{label}"
            for (label, type), extra in zip(parameters, extras, strict=True)
        )
        width = self.target.vector_bits
        if width == 512:
            attributes += f' "min-legal-vector-width"="{width}" "prefer-vector-width"="{width}"'
        header = (
            f"define {linkage + ' ' if linkage else ''}{result} @{name}({spelled}) {attributes}"
        )
        function = _Function(header, [])
        self._functions[name] = function
        return Builder(self, function.lines, [Value(f"%{n}", t) for n, t in parameters])

    def require(
        self,
        name: str,
        result: Type,
        arguments: Sequence[Type],
        body: Callable[[Builder, Sequence[Value]], Value],
        *,
        inline: bool = False,
        cold: bool = False,
    ) -> str:
        """Emit internal function ``name`` once, whose value is ``body(builder, parameters)``."""
        if name not in self._functions:
            attributes = "nounwind willreturn memory(none)"
            attributes += " alwaysinline" if inline else ""
            attributes += " cold noinline" if cold else ""
            parameters = [(f"a{i}", t) for i, t in enumerate(arguments)]
            builder = self.define(
                name, result, parameters, attributes=attributes, linkage="internal"
            )
            builder.ret(body(builder, builder.parameters))
        return name

    def declare(self, name: str, signature: str) -> None:
        self._declarations.setdefault(name, f"declare {signature}")

    def table(self, name: str, values: Sequence[float | int], element: Type) -> Value:
        """Emit a private constant array once; return its address."""
        if name not in self._globals:
            body = ", ".join(f"{element} {const(v, element).text}" for v in values)
            self._globals[name] = (
                f"@{name} = private unnamed_addr constant [{len(values)} x {element}] "
                f"[{body}], align 64"
            )
        return Value(f"@{name}", PTR)

    def one(self) -> str:
        """Return the metadata node that marks non-temporal stores."""
        self._globals.setdefault("!0", "!0 = !{i32 1}")
        return "!0"

    def text(self) -> str:
        parts = list(self._globals.values())
        for function in self._functions.values():
            parts += [function.header + " {", *function.lines, "}", ""]
        parts += self._declarations.values()
        return "\n".join(parts) + "\n"


_FLOAT_OPS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv", "rem": "frem"}
_INT_PREDICATES = {
    "eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge",
    "ult": "ult", "ule": "ule", "ugt": "ugt", "uge": "uge",
}  # fmt: skip
# Ordered comparisons are false on NaN; "ne" is true, as in C and NumPy.
_FLOAT_PREDICATES = {
    "eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge",
    "uno": "uno", "ord": "ord", "ult": "ult", "ule": "ule", "ugt": "ugt", "uge": "uge",
}  # fmt: skip


class Builder:
    """Writes the body of one function. Methods append an instruction and return its value."""

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

    # -- memory --------------------------------------------------------------------------------

    def element(self, base: Value, index: Value, type: Type) -> Value:
        """Return the address of ``base[index]`` for elements of ``type``."""
        return self.emit(
            PTR, f"getelementptr {type.element}, ptr {base.text}, {index.type} {index.text}"
        )

    def offset(self, base: Value, bytes_: Value) -> Value:
        """Return ``base`` plus a byte offset."""
        return self.emit(PTR, f"getelementptr i8, ptr {base.text}, i64 {bytes_.text}")

    def load(self, address: Value, type: Type, *, align: int | None = None) -> Value:
        """Load; the default alignment is one element's."""
        return self.emit(
            type, f"load {type}, ptr {address.text}, align {align or max(1, type.bits // 8)}"
        )

    def store(
        self, value: Value, address: Value, *, align: int | None = None, stream: bool = False
    ) -> None:
        """Store; ``stream`` asks for a non-temporal store (``align`` must be the vector's)."""
        note = f", !nontemporal {self.module.one()}" if stream else ""
        self.effect(
            f"store {value.type} {value.text}, ptr {address.text}, "
            f"align {align or max(1, value.type.bits // 8)}{note}"
        )

    def fence_stores(self) -> None:
        """Order all stores before this, non-temporal ones too, before all that follow."""
        self.module.declare("llvm.x86.sse.sfence", "void @llvm.x86.sse.sfence()")
        self.effect("call void @llvm.x86.sse.sfence()")

    def address(self, pointer: Value) -> Value:
        """Return the address as an i64."""
        return self.emit(I64, f"ptrtoint ptr {pointer.text} to i64")

    def masked_load(self, address: Value, mask: Value, type: Type) -> Value:
        """Load the lanes of ``mask``; the others are zero and their memory is not touched."""
        name = f"llvm.masked.load.{type.suffix}.p0"
        self.module.declare(name, f"{type} @{name}(ptr, {mask.type}, {type})")
        align = max(1, type.bits // 8)
        return self.emit(
            type,
            f"call {type} @{name}(ptr align {align} {address.text}, {mask.type} {mask.text}, "
            f"{type} zeroinitializer)",
        )

    def masked_store(self, value: Value, address: Value, mask: Value) -> None:
        type = value.type
        name = f"llvm.masked.store.{type.suffix}.p0"
        self.module.declare(name, f"void @{name}({type}, ptr, {mask.type})")
        align = max(1, type.bits // 8)
        self.effect(
            f"call void @{name}({type} {value.text}, ptr align {align} {address.text}, "
            f"{mask.type} {mask.text})"
        )

    def gather(self, base: Value, index: Value, type: Type, mask: Value | None = None) -> Value:
        """Load ``base[index[lane]]`` per lane; ``index`` is an i32 or i64 vector of elements."""
        if type.lanes == 1:
            return self.load(self.element(base, index, type), type)
        pointers = Type("ptr", type.lanes)
        addresses = self.emit(
            pointers,
            f"getelementptr {type.element}, ptr {base.text}, {index.type} {index.text}",
        )
        mask = mask or const(True, type.like("i1"))
        name = f"llvm.masked.gather.{type.suffix}.v{type.lanes}p0"
        self.module.declare(name, f"{type} @{name}({pointers}, {mask.type}, {type})")
        align = max(1, type.bits // 8)
        return self.emit(
            type,
            f"call {type} @{name}({pointers} align {align} {addresses.text}, "
            f"{mask.type} {mask.text}, {type} zeroinitializer)",
        )

    def scatter(self, value: Value, base: Value, index: Value, mask: Value | None = None) -> None:
        type = value.type
        if type.lanes == 1:
            self.store(value, self.element(base, index, type))
            return
        pointers = Type("ptr", type.lanes)
        addresses = self.emit(
            pointers,
            f"getelementptr {type.element}, ptr {base.text}, {index.type} {index.text}",
        )
        mask = mask or const(True, type.like("i1"))
        name = f"llvm.masked.scatter.{type.suffix}.v{type.lanes}p0"
        self.module.declare(name, f"void @{name}({type}, {pointers}, {mask.type})")
        align = max(1, type.bits // 8)
        self.effect(
            f"call void @{name}({type} {value.text}, {pointers} align {align} {addresses.text}, "
            f"{mask.type} {mask.text})"
        )

    def prefetch(self, address: Value, *, locality: int = 3) -> None:
        self.module.declare("llvm.prefetch.p0", "void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.effect(
            f"call void @llvm.prefetch.p0(ptr {address.text}, i32 0, i32 {locality}, i32 1)"
        )

    # -- control -------------------------------------------------------------------------------

    def loop(
        self,
        start: Value,
        stop: Value,
        step: Value | int,
        carried: Sequence[Value],
        body: Callable[[Value, list[Value]], Sequence[Value]],
    ) -> list[Value]:
        """Write ``for i in range(start, stop, step)`` (step > 0), return the carried values.

        ``body(i, carried)`` writes one iteration and returns the next carried values. The loop
        runs zero times where ``start >= stop``.
        """
        step = const(step, start.type) if isinstance(step, int) else step
        head, inside, done = self.label("head"), self.label("body"), self.label("done")
        before = self._block
        self.jump(head)
        self.block(head)
        # The phis are written once the latch is known: reserve their place.
        place = len(self._lines)
        index = self._reserve(start.type)
        values = [self._reserve(v.type) for v in carried]
        running = self.compare("lt", index, stop)
        self.branch(running, inside, done)
        self.block(inside)
        following = list(body(index, values))
        advanced = self.add(index, step)
        latch = self._block
        self.jump(head)
        phis = [
            f"  {name.text} = phi {name.type} "
            f"[ {first.text}, %{before} ], [ {last.text}, %{latch} ]"
            for name, first, last in zip(
                [index, *values], [start, *carried], [advanced, *following], strict=True
            )
        ]
        self._lines[place:place] = phis
        self.block(done)
        return values

    def _reserve(self, type: Type) -> Value:
        name = f"%v{self._next}"
        self._next += 1
        return Value(name, type)

    def if_(
        self,
        condition: Value,
        then: Callable[[], Sequence[Value]],
        otherwise: Callable[[], Sequence[Value]] = lambda: (),
    ) -> list[Value]:
        """Write a two-armed branch on an i1; both arms return values of equal types."""
        yes, no, join = self.label("then"), self.label("else"), self.label("join")
        self.branch(condition, yes, no)
        self.block(yes)
        first = list(then())
        first_end = self._block
        self.jump(join)
        self.block(no)
        second = list(otherwise())
        second_end = self._block
        self.jump(join)
        self.block(join)
        return [
            self.phi(a.type, [(a, first_end), (b, second_end)])
            for a, b in zip(first, second, strict=True)
        ]
