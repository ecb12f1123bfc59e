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

from tracejit.codegen.instructions import Instructions
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
from tracejit.record import record

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


@record(slots=True)
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
        if not self.defines(name):
            attributes = "nounwind willreturn memory(none)"
            attributes += " alwaysinline" if inline else ""
            attributes += " cold noinline" if cold else ""
            parameters = [(f"a{i}", t) for i, t in enumerate(arguments)]
            builder = self.define(
                name, result, parameters, attributes=attributes, linkage="internal"
            )
            builder.ret(body(builder, builder.parameters))
        return name

    def defines(self, name: str) -> bool:
        """Whether function ``name`` has been opened."""
        return name in self._functions

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


class Builder(Instructions):
    """Writes the body of one function: instructions, loads and stores, loops and branches."""

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

    def atomic_load(self, address: Value) -> Value:
        """Load an i64, and see all that was stored before the store that left it there."""
        return self.emit(I64, f"load atomic i64, ptr {address.text} acquire, align 8")

    def atomic_store(self, value: Value, address: Value) -> None:
        """Store an i64, after all stores before."""
        self.effect(f"store atomic i64 {value.text}, ptr {address.text} release, align 8")

    def pause(self) -> None:
        """Tell the processor that this loop waits for another thread."""
        if self.target.cpu.startswith("x86-64"):
            self.effect('call void asm sideeffect "pause", ""()')

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

    def repeat(
        self, carried: Sequence[Value], body: Callable[[list[Value]], tuple[Value, Sequence[Value]]]
    ) -> list[Value]:
        """Write ``do … while``: ``body`` returns an i1, whether to go on, and what to carry."""
        inside, done = self.label("body"), self.label("done")
        before = self._block
        self.jump(inside)
        self.block(inside)
        place = len(self._lines)
        values = [self._reserve(v.type) for v in carried]
        goes_on, following = body(values)
        self._lines[place:place] = [
            f"  {name.text} = phi {name.type} "
            f"[ {first.text}, %{before} ], [ {last.text}, %{self._block} ]"
            for name, first, last in zip(values, carried, following, strict=True)
        ]
        self.branch(goes_on, inside, done)
        self.block(done)
        return list(following)

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
