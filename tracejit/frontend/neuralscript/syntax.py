"""The syntax tree. Nodes are immutable, compare by identity, and know their span.

The grammar that produces them stands in docs/neuralscript.md (EBNF).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from tracejit.frontend.neuralscript.source import Span


@dataclass(frozen=True, eq=False)
class Syntax:
    """Base of all nodes."""

    span: Span

    def children(self) -> Iterator[Syntax]:
        """Yield the nodes directly below this one, in source order."""
        for item in fields(self):
            yield from _nodes(getattr(self, item.name))


def _nodes(value: object) -> Iterator[Syntax]:
    if isinstance(value, Syntax):
        yield value
    elif isinstance(value, tuple):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _nodes(item)  # pyright: ignore[reportUnknownArgumentType]


# --- types as written -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TypeSyntax(Syntax):
    """A type as the program writes it."""


@dataclass(frozen=True, eq=False)
class NamedType(TypeSyntax):
    """``f64``, ``Vector<f64, N>``, ``Self``; arguments are types or size expressions."""

    name: str
    arguments: tuple[TypeSyntax | Expr, ...] = ()


@dataclass(frozen=True, eq=False)
class ShapeType(TypeSyntax):
    """The ``[A, B, C]`` of ``Tensor<T, [A, B, C]>``."""

    sizes: tuple[TypeSyntax | Expr, ...]


@dataclass(frozen=True, eq=False)
class ArrayType(TypeSyntax):
    """``[T; N]``, or ``[T]`` with ``size`` None."""

    element: TypeSyntax
    size: Expr | None


@dataclass(frozen=True, eq=False)
class TupleType(TypeSyntax):
    items: tuple[TypeSyntax, ...]


@dataclass(frozen=True, eq=False)
class FunctionType(TypeSyntax):
    parameters: tuple[TypeSyntax, ...]
    result: TypeSyntax | None


@dataclass(frozen=True, eq=False)
class ReferenceType(TypeSyntax):
    target: TypeSyntax
    mutable: bool


@dataclass(frozen=True, eq=False)
class UnitType(TypeSyntax):
    """``Meter/Second``, ``Meter * Second``, ``Second^2``: a quantity by its unit expression."""

    operator: str
    left: TypeSyntax
    right: TypeSyntax | None
    exponent: int = 1


# --- expressions ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Expr(Syntax):
    """An expression."""


@dataclass(frozen=True, eq=False)
class NumberExpr(Expr):
    value: int | float
    suffix: str = ""
    imaginary: bool = False
    unit: str = ""


@dataclass(frozen=True, eq=False)
class BoolExpr(Expr):
    value: bool


@dataclass(frozen=True, eq=False)
class StringExpr(Expr):
    value: str


@dataclass(frozen=True, eq=False)
class FormatExpr(Expr):
    """A formatted string: literal pieces and (expression, format spec) holes, in order."""

    pieces: tuple[str | FormatHole, ...]


@dataclass(frozen=True, eq=False)
class FormatHole(Syntax):
    value: Expr
    spec: str


@dataclass(frozen=True, eq=False)
class NameExpr(Expr):
    name: str


@dataclass(frozen=True, eq=False)
class PathExpr(Expr):
    """``Type::function``, ``Enum::Variant``, ``module::function``."""

    parts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class UnaryExpr(Expr):
    operator: str
    operand: Expr


@dataclass(frozen=True, eq=False)
class BinaryExpr(Expr):
    operator: str
    left: Expr
    right: Expr
    operator_span: Span


@dataclass(frozen=True, eq=False)
class PowerExpr(Expr):
    """``x²``: an integer exponent written as superscript."""

    base: Expr
    exponent: int


@dataclass(frozen=True, eq=False)
class TransposeExpr(Expr):
    operand: Expr


@dataclass(frozen=True, eq=False)
class CastExpr(Expr):
    operand: Expr
    target: TypeSyntax


@dataclass(frozen=True, eq=False)
class TryExpr(Expr):
    operand: Expr


@dataclass(frozen=True, eq=False)
class RangeExpr(Expr):
    """``a..b``; either end may be left out. ``step`` occurs only inside an index."""

    start: Expr | None
    stop: Expr | None
    inclusive: bool
    step: Expr | None = None


@dataclass(frozen=True, eq=False)
class Argument(Syntax):
    name: str | None
    value: Expr


@dataclass(frozen=True, eq=False)
class CallExpr(Expr):
    function: Expr
    arguments: tuple[Argument, ...]
    generics: tuple[TypeSyntax | Expr, ...] = ()


@dataclass(frozen=True, eq=False)
class MethodExpr(Expr):
    receiver: Expr
    name: str
    arguments: tuple[Argument, ...]
    name_span: Span


@dataclass(frozen=True, eq=False)
class FieldExpr(Expr):
    """``p.x`` or ``t.0``."""

    base: Expr
    name: str
    name_span: Span


@dataclass(frozen=True, eq=False)
class IndexExpr(Expr):
    base: Expr
    indices: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class TupleExpr(Expr):
    items: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class ArrayExpr(Expr):
    """``[a, b]``; ``kind`` is array, vector, matrix, tensor or vec (by the macro)."""

    items: tuple[Expr, ...]
    kind: str = "array"


@dataclass(frozen=True, eq=False)
class RepeatExpr(Expr):
    """``[value; count]``."""

    value: Expr
    count: Expr
    kind: str = "array"


@dataclass(frozen=True, eq=False)
class StructExpr(Expr):
    """``Point { x: 1.0, ..base }``."""

    name: str
    fields: tuple[Argument, ...]
    base: Expr | None


@dataclass(frozen=True, eq=False)
class AbsExpr(Expr):
    operand: Expr


@dataclass(frozen=True, eq=False)
class ReferenceExpr(Expr):
    operand: Expr
    mutable: bool


@dataclass(frozen=True, eq=False)
class ClosureExpr(Expr):
    parameters: tuple[Parameter, ...]
    result: TypeSyntax | None
    body: Expr


@dataclass(frozen=True, eq=False)
class BlockExpr(Expr):
    """Statements; the last one, where it is an expression without ``;``, is the value."""

    statements: tuple[Syntax, ...]
    value: Expr | None


@dataclass(frozen=True, eq=False)
class IfExpr(Expr):
    """``condition`` is an expression, or a LetCondition."""

    condition: Expr
    then: BlockExpr
    otherwise: Expr | None


@dataclass(frozen=True, eq=False)
class LetCondition(Expr):
    """The ``let pattern = value`` of an ``if let`` or ``while let``."""

    pattern: Pattern
    value: Expr


@dataclass(frozen=True, eq=False)
class MatchArm(Syntax):
    pattern: Pattern
    guard: Expr | None
    body: Expr


@dataclass(frozen=True, eq=False)
class MatchExpr(Expr):
    subject: Expr
    arms: tuple[MatchArm, ...]


@dataclass(frozen=True, eq=False)
class LoopExpr(Expr):
    body: BlockExpr


@dataclass(frozen=True, eq=False)
class WhileExpr(Expr):
    condition: Expr
    body: BlockExpr


@dataclass(frozen=True, eq=False)
class ForExpr(Expr):
    pattern: Pattern
    iterable: Expr
    body: BlockExpr


@dataclass(frozen=True, eq=False)
class AssignExpr(Expr):
    """``operator`` is ``=`` or ``+=`` and its kin."""

    place: Expr
    operator: str
    value: Expr


@dataclass(frozen=True, eq=False)
class JumpExpr(Expr):
    """``return``, ``break`` or ``continue``."""

    kind: str
    value: Expr | None


@dataclass(frozen=True, eq=False)
class MacroExpr(Expr):
    """``println!(…)`` and its kin; a format macro has its text as first argument."""

    name: str
    arguments: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class GradientExpr(Expr):
    """``∇f``, ``∇²f``, ``∇(f, wrt: 0)``, ``∂f/∂x`` (``wrt`` is then the parameter's name)."""

    function: Expr
    order: int
    wrt: Expr | None


@dataclass(frozen=True, eq=False)
class ErrorExpr(Expr):
    """Stands where an expression could not be read; it has been reported."""


# --- patterns ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pattern(Syntax):
    """A pattern of ``let``, ``for`` or ``match``."""


@dataclass(frozen=True, eq=False)
class NamePattern(Pattern):
    """Binds a name; ``_`` binds nothing."""

    name: str
    mutable: bool = False


@dataclass(frozen=True, eq=False)
class TuplePattern(Pattern):
    items: tuple[Pattern, ...]


@dataclass(frozen=True, eq=False)
class LiteralPattern(Pattern):
    value: Expr


@dataclass(frozen=True, eq=False)
class RangePattern(Pattern):
    range: RangeExpr


@dataclass(frozen=True, eq=False)
class VariantPattern(Pattern):
    """``Some(x)``, ``Shape::Circle(r)``, ``Shape::Unit``, ``Point { x, y }``."""

    path: tuple[str, ...]
    items: tuple[Pattern, ...] | None
    fields: tuple[tuple[str, Pattern], ...] | None = None


@dataclass(frozen=True, eq=False)
class OrPattern(Pattern):
    options: tuple[Pattern, ...]


# --- statements and items ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LetStatement(Syntax):
    pattern: Pattern
    annotation: TypeSyntax | None
    value: Expr | None


@dataclass(frozen=True, eq=False)
class ConstItem(Syntax):
    name: str
    annotation: TypeSyntax | None
    value: Expr


@dataclass(frozen=True, eq=False)
class ExprStatement(Syntax):
    value: Expr


@dataclass(frozen=True, eq=False)
class Generic(Syntax):
    """A generic parameter; ``const`` ones are sizes. ``bound`` may be a function type."""

    name: str
    const: bool
    bounds: tuple[TypeSyntax, ...]


@dataclass(frozen=True, eq=False)
class Parameter(Syntax):
    pattern: Pattern
    annotation: TypeSyntax | None
    default: Expr | None = None

    @property
    def name(self) -> str:
        return self.pattern.name if isinstance(self.pattern, NamePattern) else "_"


@dataclass(frozen=True, eq=False)
class FunctionItem(Syntax):
    """A function or method; ``owner`` is the type that an impl block gives it."""

    name: str
    name_span: Span
    generics: tuple[Generic, ...]
    parameters: tuple[Parameter, ...]
    result: TypeSyntax | None
    body: BlockExpr
    owner: str | None = None
    doc: str = ""

    @property
    def has_self(self) -> bool:
        return bool(self.parameters) and self.parameters[0].name == "self"


@dataclass(frozen=True, eq=False)
class FieldItem(Syntax):
    name: str
    annotation: TypeSyntax


@dataclass(frozen=True, eq=False)
class StructItem(Syntax):
    name: str
    generics: tuple[Generic, ...]
    fields: tuple[FieldItem, ...]


@dataclass(frozen=True, eq=False)
class VariantItem(Syntax):
    name: str
    items: tuple[TypeSyntax, ...]


@dataclass(frozen=True, eq=False)
class EnumItem(Syntax):
    name: str
    generics: tuple[Generic, ...]
    variants: tuple[VariantItem, ...]


@dataclass(frozen=True, eq=False)
class ImplItem(Syntax):
    name: str
    generics: tuple[Generic, ...]
    functions: tuple[FunctionItem, ...]


@dataclass(frozen=True, eq=False)
class AliasItem(Syntax):
    name: str
    generics: tuple[Generic, ...]
    target: TypeSyntax


@dataclass(frozen=True, eq=False)
class UseItem(Syntax):
    """``use a``, ``use a::{b, c}``, ``use a::*``; names None imports the module itself."""

    module: str
    names: tuple[str, ...] | None
    builtin: bool = False


@dataclass(frozen=True, eq=False)
class Program(Syntax):
    """A whole file: items and top-level statements in source order."""

    statements: tuple[Syntax, ...]

    def items(self, kind: type[Syntax]) -> list[Syntax]:
        return [statement for statement in self.statements if isinstance(statement, kind)]


Item = FunctionItem | StructItem | EnumItem | ImplItem | UseItem | ConstItem | AliasItem
