"""The syntax tree. Nodes are immutable, compare by identity, and know their span.

The grammar that produces them stands in docs/neuralscript.md (EBNF).
"""

from __future__ import annotations

from collections.abc import Iterator

from tracejit.frontend.neuralscript.source import Span
from tracejit.record import fields, record


@record(frozen=True, eq=False)
class Syntax:
    """Base of all nodes."""

    span: Span

    def children(self) -> Iterator[Syntax]:
        """Yield the nodes directly below this one, in source order."""
        for name in fields(self):
            yield from _nodes(getattr(self, name))


def _nodes(value: object) -> Iterator[Syntax]:
    if isinstance(value, Syntax):
        yield value
    elif isinstance(value, tuple):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _nodes(item)  # pyright: ignore[reportUnknownArgumentType]


# --- types as written -------------------------------------------------------------------------


@record(frozen=True, eq=False)
class TypeSyntax(Syntax):
    """A type as the program writes it."""


@record(frozen=True, eq=False)
class NamedType(TypeSyntax):
    """``f64``, ``Vector<f64, N>``, ``Self``; arguments are types or size expressions."""

    name: str
    arguments: tuple[TypeSyntax | Expr, ...] = ()


@record(frozen=True, eq=False)
class ShapeType(TypeSyntax):
    """The ``[A, B, C]`` of ``Tensor<T, [A, B, C]>``."""

    sizes: tuple[TypeSyntax | Expr, ...]


@record(frozen=True, eq=False)
class ArrayType(TypeSyntax):
    """``[T; N]``, or ``[T]`` with ``size`` None."""

    element: TypeSyntax
    size: Expr | None


@record(frozen=True, eq=False)
class TupleType(TypeSyntax):
    items: tuple[TypeSyntax, ...]


@record(frozen=True, eq=False)
class FunctionType(TypeSyntax):
    parameters: tuple[TypeSyntax, ...]
    result: TypeSyntax | None


@record(frozen=True, eq=False)
class ReferenceType(TypeSyntax):
    target: TypeSyntax
    mutable: bool


@record(frozen=True, eq=False)
class UnitType(TypeSyntax):
    """``Meter/Second``, ``Meter * Second``, ``Second^2``: a quantity by its unit expression."""

    operator: str
    left: TypeSyntax
    right: TypeSyntax | None
    exponent: int = 1


# --- expressions ------------------------------------------------------------------------------


@record(frozen=True, eq=False)
class Expr(Syntax):
    """An expression."""


@record(frozen=True, eq=False)
class NumberExpr(Expr):
    value: int | float
    suffix: str = ""
    imaginary: bool = False
    unit: str = ""


@record(frozen=True, eq=False)
class BoolExpr(Expr):
    value: bool


@record(frozen=True, eq=False)
class StringExpr(Expr):
    value: str


@record(frozen=True, eq=False)
class FormatExpr(Expr):
    """A formatted string: literal pieces and (expression, format spec) holes, in order."""

    pieces: tuple[str | FormatHole, ...]


@record(frozen=True, eq=False)
class FormatHole(Syntax):
    value: Expr
    spec: str


@record(frozen=True, eq=False)
class NameExpr(Expr):
    name: str


@record(frozen=True, eq=False)
class PathExpr(Expr):
    """``Type::function``, ``Enum::Variant``, ``module::function``."""

    parts: tuple[str, ...]


@record(frozen=True, eq=False)
class UnaryExpr(Expr):
    operator: str
    operand: Expr


@record(frozen=True, eq=False)
class BinaryExpr(Expr):
    operator: str
    left: Expr
    right: Expr
    operator_span: Span


@record(frozen=True, eq=False)
class PowerExpr(Expr):
    """``x²``: an integer exponent written as superscript."""

    base: Expr
    exponent: int


@record(frozen=True, eq=False)
class TransposeExpr(Expr):
    operand: Expr


@record(frozen=True, eq=False)
class CastExpr(Expr):
    operand: Expr
    target: TypeSyntax


@record(frozen=True, eq=False)
class TryExpr(Expr):
    operand: Expr


@record(frozen=True, eq=False)
class RangeExpr(Expr):
    """``a..b``; either end may be left out. ``step`` occurs only inside an index."""

    start: Expr | None
    stop: Expr | None
    inclusive: bool
    step: Expr | None = None


@record(frozen=True, eq=False)
class Argument(Syntax):
    name: str | None
    value: Expr


@record(frozen=True, eq=False)
class CallExpr(Expr):
    function: Expr
    arguments: tuple[Argument, ...]
    generics: tuple[TypeSyntax | Expr, ...] = ()


@record(frozen=True, eq=False)
class MethodExpr(Expr):
    receiver: Expr
    name: str
    arguments: tuple[Argument, ...]
    name_span: Span


@record(frozen=True, eq=False)
class FieldExpr(Expr):
    """``p.x`` or ``t.0``."""

    base: Expr
    name: str
    name_span: Span


@record(frozen=True, eq=False)
class IndexExpr(Expr):
    base: Expr
    indices: tuple[Expr, ...]


@record(frozen=True, eq=False)
class TupleExpr(Expr):
    items: tuple[Expr, ...]


@record(frozen=True, eq=False)
class ArrayExpr(Expr):
    """``[a, b]``; ``kind`` is array, vector, matrix, tensor or vec (by the macro)."""

    items: tuple[Expr, ...]
    kind: str = "array"


@record(frozen=True, eq=False)
class RepeatExpr(Expr):
    """``[value; count]``."""

    value: Expr
    count: Expr
    kind: str = "array"


@record(frozen=True, eq=False)
class StructExpr(Expr):
    """``Point { x: 1.0, ..base }``."""

    name: str
    fields: tuple[Argument, ...]
    base: Expr | None


@record(frozen=True, eq=False)
class AbsExpr(Expr):
    operand: Expr


@record(frozen=True, eq=False)
class ReferenceExpr(Expr):
    operand: Expr
    mutable: bool


@record(frozen=True, eq=False)
class ClosureExpr(Expr):
    parameters: tuple[Parameter, ...]
    result: TypeSyntax | None
    body: Expr


@record(frozen=True, eq=False)
class BlockExpr(Expr):
    """Statements; the last one, where it is an expression without ``;``, is the value."""

    statements: tuple[Syntax, ...]
    value: Expr | None


@record(frozen=True, eq=False)
class IfExpr(Expr):
    """``condition`` is an expression, or a LetCondition."""

    condition: Expr
    then: BlockExpr
    otherwise: Expr | None


@record(frozen=True, eq=False)
class LetCondition(Expr):
    """The ``let pattern = value`` of an ``if let`` or ``while let``."""

    pattern: Pattern
    value: Expr


@record(frozen=True, eq=False)
class MatchArm(Syntax):
    pattern: Pattern
    guard: Expr | None
    body: Expr


@record(frozen=True, eq=False)
class MatchExpr(Expr):
    subject: Expr
    arms: tuple[MatchArm, ...]


@record(frozen=True, eq=False)
class LoopExpr(Expr):
    body: BlockExpr


@record(frozen=True, eq=False)
class WhileExpr(Expr):
    condition: Expr
    body: BlockExpr


@record(frozen=True, eq=False)
class ForExpr(Expr):
    pattern: Pattern
    iterable: Expr
    body: BlockExpr


@record(frozen=True, eq=False)
class AssignExpr(Expr):
    """``operator`` is ``=`` or ``+=`` and its kin."""

    place: Expr
    operator: str
    value: Expr


@record(frozen=True, eq=False)
class JumpExpr(Expr):
    """``return``, ``break`` or ``continue``."""

    kind: str
    value: Expr | None


@record(frozen=True, eq=False)
class MacroExpr(Expr):
    """``println!(…)`` and its kin; a format macro has its text as first argument."""

    name: str
    arguments: tuple[Expr, ...]


@record(frozen=True, eq=False)
class GradientExpr(Expr):
    """``∇f``, ``∇²f``, ``∇(f, wrt: 0)``, ``∂f/∂x`` (``wrt`` is then the parameter's name)."""

    function: Expr
    order: int
    wrt: Expr | None


@record(frozen=True, eq=False)
class ErrorExpr(Expr):
    """Stands where an expression could not be read; it has been reported."""


# --- patterns ---------------------------------------------------------------------------------


@record(frozen=True, eq=False)
class Pattern(Syntax):
    """A pattern of ``let``, ``for`` or ``match``."""


@record(frozen=True, eq=False)
class NamePattern(Pattern):
    """Binds a name; ``_`` binds nothing."""

    name: str
    mutable: bool = False


@record(frozen=True, eq=False)
class TuplePattern(Pattern):
    items: tuple[Pattern, ...]


@record(frozen=True, eq=False)
class LiteralPattern(Pattern):
    value: Expr


@record(frozen=True, eq=False)
class RangePattern(Pattern):
    range: RangeExpr


@record(frozen=True, eq=False)
class VariantPattern(Pattern):
    """``Some(x)``, ``Shape::Circle(r)``, ``Shape::Unit``, ``Point { x, y }``."""

    path: tuple[str, ...]
    items: tuple[Pattern, ...] | None
    fields: tuple[tuple[str, Pattern], ...] | None = None


@record(frozen=True, eq=False)
class OrPattern(Pattern):
    options: tuple[Pattern, ...]


# --- statements and items ---------------------------------------------------------------------


@record(frozen=True, eq=False)
class LetStatement(Syntax):
    pattern: Pattern
    annotation: TypeSyntax | None
    value: Expr | None


@record(frozen=True, eq=False)
class ConstItem(Syntax):
    name: str
    annotation: TypeSyntax | None
    value: Expr


@record(frozen=True, eq=False)
class ExprStatement(Syntax):
    value: Expr


@record(frozen=True, eq=False)
class Generic(Syntax):
    """A generic parameter; ``const`` ones are sizes. ``bound`` may be a function type."""

    name: str
    const: bool
    bounds: tuple[TypeSyntax, ...]


@record(frozen=True, eq=False)
class Parameter(Syntax):
    pattern: Pattern
    annotation: TypeSyntax | None
    default: Expr | None = None

    @property
    def name(self) -> str:
        return self.pattern.name if isinstance(self.pattern, NamePattern) else "_"


@record(frozen=True, eq=False)
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


@record(frozen=True, eq=False)
class FieldItem(Syntax):
    name: str
    annotation: TypeSyntax


@record(frozen=True, eq=False)
class StructItem(Syntax):
    name: str
    generics: tuple[Generic, ...]
    fields: tuple[FieldItem, ...]


@record(frozen=True, eq=False)
class VariantItem(Syntax):
    name: str
    items: tuple[TypeSyntax, ...]


@record(frozen=True, eq=False)
class EnumItem(Syntax):
    name: str
    generics: tuple[Generic, ...]
    variants: tuple[VariantItem, ...]


@record(frozen=True, eq=False)
class ImplItem(Syntax):
    name: str
    generics: tuple[Generic, ...]
    functions: tuple[FunctionItem, ...]


@record(frozen=True, eq=False)
class AliasItem(Syntax):
    name: str
    generics: tuple[Generic, ...]
    target: TypeSyntax


@record(frozen=True, eq=False)
class UseItem(Syntax):
    """``use a``, ``use a::{b, c}``, ``use a::*``; names None imports the module itself."""

    module: str
    names: tuple[str, ...] | None
    builtin: bool = False


@record(frozen=True, eq=False)
class Program(Syntax):
    """A whole file: items and top-level statements in source order."""

    statements: tuple[Syntax, ...]

    def items(self, kind: type[Syntax]) -> list[Syntax]:
        return [statement for statement in self.statements if isinstance(statement, kind)]
