"""The types of expressions. Each class of node has one rule; the table is at the end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from tracejit.frontend.neuralscript import matching, units
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript.builtins import BUILTINS, CONSTANTS
from tracejit.frontend.neuralscript.check_operators import OperatorChecker
from tracejit.frontend.neuralscript.diagnostics import Fault, Label, closest, fault
from tracejit.frontend.neuralscript.scope import ClosureRef, Scope, VariantRef
from tracejit.frontend.neuralscript.source import Span

_MACROS = frozenset(("println", "eprintln", "assert", "assert_eq", "panic"))
# What programs in Python call functions of.
_PACKAGES = frozenset(("np", "numpy", "math", "torch", "jnp", "scipy"))


class ExpressionChecker(OperatorChecker):
    """``expr`` is the entry: it returns the type and records it in the body."""

    @abstractmethod
    def statements(self, block: s.BlockExpr, expected: t.Type | None) -> t.Type: ...

    @abstractmethod
    def call(self, node: s.CallExpr, expected: t.Type | None) -> t.Type: ...

    @abstractmethod
    def method(self, node: s.MethodExpr, expected: t.Type | None) -> t.Type: ...

    @abstractmethod
    def call_builtin(self, name: str, arguments: tuple[s.Argument, ...], span: Span) -> t.Type: ...

    @abstractmethod
    def bind(self, pattern: s.Pattern, kind: t.Type, scope: Scope) -> None: ...

    @abstractmethod
    def match(self, node: s.MatchExpr, expected: t.Type | None) -> t.Type: ...

    @abstractmethod
    def condition(self, node: s.Expr, scope: Scope) -> None: ...

    @abstractmethod
    def variant(self, owner: str | None, name: str) -> VariantRef | None: ...

    @abstractmethod
    def enter_closure(self, ref: ClosureRef, expected: t.Type | None, span: Span) -> None: ...

    @abstractmethod
    def assign(self, node: s.AssignExpr) -> t.Type: ...

    @abstractmethod
    def jump(self, node: s.JumpExpr) -> t.Type: ...

    @abstractmethod
    def loop(self, node: s.LoopExpr | s.WhileExpr | s.ForExpr) -> t.Type: ...

    @abstractmethod
    def macro(self, node: s.MacroExpr) -> t.Type: ...

    @abstractmethod
    def struct(self, node: s.StructExpr, expected: t.Type | None) -> t.Type: ...

    @abstractmethod
    def field(self, node: s.FieldExpr) -> t.Type: ...

    @abstractmethod
    def path(self, node: s.PathExpr, expected: t.Type | None) -> t.Type: ...

    @abstractmethod
    def try_expr(self, node: s.TryExpr) -> t.Type: ...

    def expr(self, node: s.Expr, expected: t.Type | None = None) -> t.Type:
        """Return and record the type of an expression. Errors: Fault."""
        kind = _RULES[type(node)](self, node, expected)
        self.body.types[node] = kind
        return kind

    def expect(self, node: s.Expr, wanted: t.Type, why: str, *labels: Label) -> t.Type:
        """Check an expression against a type that its place demands."""
        return self.coerce(self.expr(node, wanted), wanted, node.span, why, *labels)

    def coerce(
        self, actual: t.Type, wanted: t.Type, span: Span, why: str, *labels: Label
    ) -> t.Type:
        """Return the wanted type with what is known of the actual one. Errors: Fault."""
        try:
            matching.match_type(wanted, actual, {}, ())
        except matching.Mismatch as mismatch:
            raise self.mismatch(mismatch, wanted, actual, span, why, *labels) from None
        if isinstance(actual, t.Callee) or isinstance(wanted, t.Unknown):
            return actual
        return matching.refine(wanted, actual)

    def mismatch(
        self,
        cause: matching.Mismatch,
        wanted: t.Type,
        actual: t.Type,
        span: Span,
        why: str,
        *labels: Label,
    ) -> Fault:
        """Return the error for a value of the wrong type."""
        codes = {"shape": "N032", "rank": "N032", "element": "N031", "unit": "N050"}
        code = codes.get(cause.what, "N030")
        help = ""
        if code == "N031" and isinstance(wanted, t.Array):
            target = t.default(wanted.element)
            if not isinstance(target, t.Param) and t.kind_of(target) in ("int", "float"):
                help = (
                    f"write `{span.text} as {target}`"
                    if span.text.isidentifier()
                    else (f"convert it with `as {target}`")
                )
        if (
            code == "N031"
            and isinstance(wanted, t.Array)
            and isinstance(wanted.element, t.Param)
            and wanted.element.bound == "Float"
        ):
            help = f"{wanted.element} is a float type: pass f32 or f64, or convert with `as f64`"
        if code == "N050" and isinstance(wanted, t.Array) and isinstance(actual, t.Array):
            shown = [units.show_unit(item.unit) or "no unit" for item in (wanted, actual)]
            message = f"{why}: expected a value with {shown[0]}, found {shown[1]}"
            return fault(code, message, span, f"this has {shown[1]}", *labels)
        return fault(
            code,
            f"{why}: expected `{wanted}`, found `{actual}`",
            span,
            f"this is `{actual}`",
            *labels,
            help=help,
        )

    # --- literals and names -------------------------------------------------------------------

    def number(self, node: s.NumberExpr, _: t.Type | None) -> t.Type:
        if node.unit:
            try:
                unit = units.literal_unit(node.unit)[2]
            except units.UnknownUnit as error:
                help = "write a space before `/` to divide" if "/" in node.unit else ""
                raise fault("N051", f"unknown unit `{error.name}`", node.span, help=help) from None
            return t.Array(t.Prim("f64"), (), unit)
        if node.imaginary:
            return t.Array(t.Literal("complex"))
        if node.suffix:
            if node.suffix in t.INTEGERS and isinstance(node.value, float):
                raise fault("N003", f"`{node.span.text}` has a fraction", node.span)
            return t.number(node.suffix)
        return t.Array(t.Literal("float" if isinstance(node.value, float) else "int"))

    def boolean(self, node: s.BoolExpr, _: t.Type | None) -> t.Type:
        return t.BOOLEAN

    def string(self, node: s.StringExpr, _: t.Type | None) -> t.Type:
        return t.TEXT

    def format(self, node: s.FormatExpr, _: t.Type | None) -> t.Type:
        for piece in node.pieces:
            if isinstance(piece, s.FormatHole):
                self.expr(piece.value)
        return t.TEXT

    def name(self, node: s.NameExpr, expected: t.Type | None) -> t.Type:
        binding = self.scope.find(node.name)
        if binding is not None:
            return binding.type
        found = self.global_name(node.name, expected)
        if found is None:
            raise self.unknown_name(node)
        return found

    def global_name(self, name: str, expected: t.Type | None) -> t.Type | None:
        """Return the type of a name that no variable has."""
        generic = self.body.generics.get(name)
        if isinstance(generic, t.Size):
            return t.USIZE
        function = self.module.functions.get(name)
        if function is not None:
            return t.Callee(name, function)
        constant = self.module.constants.get(name)
        if constant is not None:
            return constant.type or t.UNKNOWN
        variant = self.variant(None, name)
        if variant is not None:
            return self.variant_value(variant, expected)
        if name in self.module.imports:
            return t.Imported(name, self.module.imports[name])
        if name in CONSTANTS:
            return t.Array(t.Literal("float"))
        if name in BUILTINS:
            return t.Callee(name, BUILTINS[name])
        return None

    def variant_value(self, variant: VariantRef, expected: t.Type | None) -> t.Type:
        """A variant without data is a value, one with data a function."""
        if variant.item.items:
            return t.Callee(variant.name, variant)
        item = variant.owner.item
        assert isinstance(item, s.EnumItem)
        if isinstance(expected, t.Named) and expected.item is item:
            return expected
        return t.Named(item, tuple(t.ANY if g.const else t.UNKNOWN for g in item.generics))

    def unknown_name(self, node: s.NameExpr, assigned: bool = False) -> Fault:
        known = self.scope.visible() | set(self.module.functions) | set(BUILTINS)
        known |= (
            set(self.module.constants)
            | set(self.module.types)
            | {n for n, v in self.body.generics.items() if isinstance(v, t.Size)}
        )
        near = closest(node.name, known)
        help = f"did you mean `{near}`?" if near else ""
        if assigned:
            help = f"a new variable begins with `let {node.name} = …`" + (help and f"; {help}")
        if node.name in _MACROS:
            help = f"write `{node.name}!(…)`"
        if node.name in _PACKAGES:
            help = f"built-in functions stand alone: `sum(x)`, not `{node.name}.sum(x)`"
        if node.name in self.module.types:
            help = f"`{node.name}` is a type; write `{node.name} {{ … }}` or `{node.name}::new(…)`"
        return fault(
            "N020", f"unknown name `{node.name}`", node.span, "not defined here", help=help
        )

    # --- operators ----------------------------------------------------------------------------

    def unary(self, node: s.UnaryExpr, _: t.Type | None) -> t.Type:
        if node.operator not in ("-", "!"):
            argument = s.Argument(node.operand.span, None, node.operand)
            return self.call_builtin(node.operator, (argument,), node.span)
        kind = self.expr(node.operand)
        if isinstance(kind, t.Unknown | t.Never):
            return kind
        is_bool = isinstance(kind, t.Array) and t.kind_of(kind.element) == "bool"
        if (not isinstance(kind, t.Array) or (is_bool != (node.operator == "!"))) and not (
            isinstance(kind, t.Array) and t.kind_of(kind.element) == "any"
        ):
            raise fault(
                "N033",
                f"`{node.operator}` does not take `{kind}`",
                node.operand.span,
                f"this is `{kind}`",
            )
        return kind

    def binary(self, node: s.BinaryExpr, _: t.Type | None) -> t.Type:
        # A chain of operators leans left; walk down its spine instead of recursing.
        spine: list[s.BinaryExpr] = [node]
        while isinstance(spine[-1].left, s.BinaryExpr):
            spine.append(spine[-1].left)
        left = self.expr(spine[-1].left)
        for item in reversed(spine):
            self.body.types[item.left] = left
            right = self.expr(item.right)
            left = self.binary_type(item.operator, left, right, item)
        return left

    def superscript(self, node: s.PowerExpr, _: t.Type | None) -> t.Type:
        from fractions import Fraction

        kind = self.expr(node.base)
        if isinstance(kind, t.Unknown):
            return kind
        if not isinstance(kind, t.Array) or t.kind_of(kind.element) == "bool":
            raise fault("N033", f"`{kind}` has no powers", node.base.span, f"this is `{kind}`")
        if kind.shape is not None and len(kind.shape) == 2 and node.exponent < 0:
            raise fault(
                "N033",
                "a superscript power of a matrix is elementwise",
                node.span,
                help=f"the inverse is `inv({node.base.span.text})`",
            )
        if node.exponent < 0 and t.kind_of(kind.element) == "int":
            unified = t.unify(kind.element, t.Literal("float"))
            if unified is None:
                raise fault(
                    "N031",
                    "an integer has no negative power",
                    node.span,
                    help=f"write `({node.base.span.text} as f64)`",
                )
        unit = units.power(kind.unit, Fraction(node.exponent))
        return t.Array(kind.element, kind.shape, unit)

    def transpose(self, node: s.TransposeExpr, _: t.Type | None) -> t.Type:
        argument = s.Argument(node.operand.span, None, node.operand)
        return self.call_builtin("transpose", (argument,), node.span)

    def absolute(self, node: s.AbsExpr, _: t.Type | None) -> t.Type:
        argument = s.Argument(node.operand.span, None, node.operand)
        return self.call_builtin("abs", (argument,), node.span)

    def cast(self, node: s.CastExpr, _: t.Type | None) -> t.Type:
        kind, target = self.expr(node.operand), self.type(node.target)
        if not isinstance(target, t.Array) or target.shape != ():
            raise fault("N033", f"`as` converts numbers, not to `{target}`", node.target.span)
        if isinstance(kind, t.Unknown):
            return t.Array(target.element, None, target.unit)
        if not isinstance(kind, t.Array):
            raise fault("N033", f"`as` converts numbers, not `{kind}`", node.operand.span)
        if t.kind_of(kind.element) == "complex" and t.kind_of(target.element) != "complex":
            raise fault(
                "N033",
                "a complex number does not convert to a real one",
                node.span,
                help="take `z.re` or `|z|`",
            )
        unit = target.unit if target.unit != t.NO_UNIT else kind.unit
        if kind.unit not in (t.NO_UNIT, unit):
            raise fault("N050", "`as` does not change a unit", node.span)
        return t.Array(target.element, kind.shape, unit)

    def range(self, node: s.RangeExpr, _: t.Type | None) -> t.Type:
        element: t.Element = t.Literal("integer")
        for end in (node.start, node.stop):
            if end is None:
                continue
            kind = self.expr(end)
            if isinstance(kind, t.Unknown):
                continue
            if not isinstance(kind, t.Array) or kind.shape != ():
                raise fault("N030", f"the end of a range is a number, not `{kind}`", end.span)
            joined = t.unify(element, kind.element)
            if joined is None:
                raise fault(
                    "N031",
                    f"the end of a range is an integer, not `{kind}`",
                    end.span,
                    help="use linspace or arange for steps of other kinds",
                )
            element = joined
        return t.Range(element)

    def index(self, node: s.IndexExpr, _: t.Type | None) -> t.Type:
        base = self.expr(node.base)
        indices: list[tuple[s.Expr, t.Type]] = []
        for item in node.indices:
            indices.append((item, self.expr(item)))
            if isinstance(item, s.RangeExpr) and item.step is not None:
                self.expr(item.step)
        match base:
            case t.Array():
                return self.index_type(base, indices, node.span)
            case t.Vec(inner):
                return base if isinstance(node.indices[0], s.RangeExpr) else inner
            case t.Unknown():
                return t.UNKNOWN
            case t.Text():
                return t.TEXT
            case _:
                raise fault(
                    "N038",
                    f"`{base}` cannot be indexed",
                    node.base.span,
                    help="a tuple's items are `t.0`, `t.1`" if isinstance(base, t.Tuple) else "",
                )

    # --- collections --------------------------------------------------------------------------

    def tuple(self, node: s.TupleExpr, expected: t.Type | None) -> t.Type:
        wanted: tuple[t.Type | None, ...] = (None,) * len(node.items)
        if isinstance(expected, t.Tuple) and len(expected.items) == len(node.items):
            wanted = expected.items
        pairs = zip(node.items, wanted, strict=True)
        return t.Tuple(tuple(self.expr(item, want) for item, want in pairs))

    def array(self, node: s.ArrayExpr, expected: t.Type | None) -> t.Type:
        inner = expected.item if isinstance(expected, t.Vec) else None
        kinds = [self.expr(item, inner) for item in node.items]
        if not kinds:
            if node.kind == "vec" or isinstance(expected, t.Vec):
                return expected if isinstance(expected, t.Vec) else t.Vec(t.UNKNOWN)
            return t.Array(t.Literal("float"), (t.Size(0),))
        joined = kinds[0]
        for item, kind in zip(node.items[1:], kinds[1:], strict=True):
            both = matching.join(joined, kind)
            if both is None:
                code = (
                    "N032"
                    if isinstance(kind, t.Array) and isinstance(joined, t.Array)
                    else ("N030")
                )
                if (
                    isinstance(kind, t.Array)
                    and isinstance(joined, t.Array)
                    and (kind.shape == joined.shape)
                ):
                    code = "N031" if kind.unit == joined.unit else "N050"
                raise fault(
                    code,
                    "the items of an array differ",
                    item.span,
                    f"this is `{kind}`",
                    Label(node.items[0].span, f"this is `{joined}`"),
                )
            joined = both
        return self.stacked(node, joined, t.Size(len(kinds)), expected)

    def stacked(
        self,
        node: s.ArrayExpr | s.RepeatExpr,
        item: t.Type,
        count: t.Size,
        expected: t.Type | None,
    ) -> t.Type:
        """Numbers and arrays stack to an array, other things to a Vec."""
        growable = node.kind == "vec" or isinstance(expected, t.Vec)
        if isinstance(item, t.Array) and not growable:
            shape = None if item.shape is None else (count, *item.shape)
            if node.kind == "matrix" and shape is not None and len(shape) != 2:
                raise fault(
                    "N032",
                    f"`matrix!` needs rows, this has rank {len(shape)}",
                    node.span,
                    help="write `matrix![[1, 2], [3, 4]]`",
                )
            if node.kind == "vector" and shape is not None and len(shape) != 1:
                raise fault(
                    "N032",
                    f"`vector!` needs numbers, this has rank {len(shape)}",
                    node.span,
                    help="use `matrix!` or `tensor!`",
                )
            return t.Array(item.element, shape, item.unit)
        if node.kind in ("vector", "matrix", "tensor") and not isinstance(item, t.Unknown):
            raise fault("N030", f"`{node.kind}!` holds numbers, not `{item}`", node.span)
        return t.UNKNOWN if isinstance(item, t.Unknown) and not growable else t.Vec(item)

    def repeat(self, node: s.RepeatExpr, expected: t.Type | None) -> t.Type:
        item = self.expr(node.value)
        self.expect(node.count, t.Array(t.Literal("integer")), "the count of an array")
        count = self.constant_size(node.count)
        return self.stacked(node, item, t.ANY if count is None else count, expected)

    def reference(self, node: s.ReferenceExpr, expected: t.Type | None) -> t.Type:
        kind = self.expr(node.operand, expected)
        if node.mutable:
            self.check_place(node.operand, node.span)
        return kind

    def check_place(self, node: s.Expr, span: Span) -> None:
        """Refuse a change of something immutable, or of something that is not a place."""
        root = node
        while isinstance(root, s.FieldExpr | s.IndexExpr):
            root = root.base
        if not isinstance(root, s.NameExpr):
            raise fault("N041", "this is not a place that can be assigned", node.span)
        binding = self.scope.find(root.name)
        if binding is None:
            raise fault("N040", f"`{root.name}` cannot be changed", span)
        if not binding.mutable:
            fix = "&mut self" if root.name == "self" else f"let mut {root.name}"
            raise fault(
                "N040",
                f"`{root.name}` is immutable",
                span,
                "changed here",
                Label(binding.span, "bound here without `mut`"),
                help=f"write `{fix}`",
            )

    # --- control flow -------------------------------------------------------------------------

    def block(self, node: s.BlockExpr, expected: t.Type | None) -> t.Type:
        return self.statements(node, expected)

    def if_expr(self, node: s.IfExpr, expected: t.Type | None) -> t.Type:
        outer = self.scope
        self.scope = Scope(outer)
        self.condition(node.condition, self.scope)
        then = self.expr(node.then, expected)
        self.scope = outer
        if node.otherwise is None:
            return t.VOID
        otherwise = self.expr(node.otherwise, expected)
        if expected is t.VOID:
            return t.VOID
        joined = matching.join(then, otherwise)
        if joined is None:
            one, two = _value_span(node.then), _value_span(node.otherwise)
            raise fault(
                "N030",
                f"the arms of `if` differ: `{then}` and `{otherwise}`",
                two,
                f"this is `{otherwise}`",
                Label(one, f"this is `{then}`"),
            )
        return joined

    def let_condition(self, node: s.LetCondition, _: t.Type | None) -> t.Type:
        raise fault("N010", "`let` stands only in the head of `if` and `while`", node.span)

    def closure(self, node: s.ClosureExpr, expected: t.Type | None) -> t.Type:
        ref = ClosureRef(node, self.scope, self.body)
        self.enter_closure(ref, expected, node.span)
        return t.Callee("closure", ref)

    def gradient(self, node: s.GradientExpr, _: t.Type | None) -> t.Type:
        kind = self.expr(node.function)
        if isinstance(kind, t.Array):
            text = node.function.span.text
            raise fault(
                "N060",
                "`∇` takes a function, this is a value",
                node.function.span,
                f"this is `{kind}`",
                help=f"write `∇(|x| {text})` over what it depends on",
            )
        raise fault(
            "N060",
            "differentiation is not available in this version",
            node.span,
            help="write the derivative as a function, or a difference quotient: "
            "(f(x + h) - f(x - h)) / (2 * h)",
        )

    def error(self, node: s.ErrorExpr, _: t.Type | None) -> t.Type:
        return t.UNKNOWN


def _value_span(node: s.Expr) -> Span:
    """Return the span of the value that a block has."""
    while isinstance(node, s.BlockExpr) and node.value is not None:
        node = node.value
    return node.span


_Rule = Callable[[Any, Any, "t.Type | None"], t.Type]
_RULES: dict[type[s.Expr], _Rule] = {
    s.NumberExpr: ExpressionChecker.number,
    s.BoolExpr: ExpressionChecker.boolean,
    s.StringExpr: ExpressionChecker.string,
    s.FormatExpr: ExpressionChecker.format,
    s.NameExpr: ExpressionChecker.name,
    s.PathExpr: lambda c, n, e: c.path(n, e),
    s.UnaryExpr: ExpressionChecker.unary,
    s.BinaryExpr: ExpressionChecker.binary,
    s.PowerExpr: ExpressionChecker.superscript,
    s.TransposeExpr: ExpressionChecker.transpose,
    s.AbsExpr: ExpressionChecker.absolute,
    s.CastExpr: ExpressionChecker.cast,
    s.TryExpr: lambda c, n, e: c.try_expr(n),
    s.RangeExpr: ExpressionChecker.range,
    s.CallExpr: lambda c, n, e: c.call(n, e),
    s.MethodExpr: lambda c, n, e: c.method(n, e),
    s.FieldExpr: lambda c, n, e: c.field(n),
    s.IndexExpr: ExpressionChecker.index,
    s.TupleExpr: ExpressionChecker.tuple,
    s.ArrayExpr: ExpressionChecker.array,
    s.RepeatExpr: ExpressionChecker.repeat,
    s.StructExpr: lambda c, n, e: c.struct(n, e),
    s.ReferenceExpr: ExpressionChecker.reference,
    s.ClosureExpr: ExpressionChecker.closure,
    s.BlockExpr: ExpressionChecker.block,
    s.IfExpr: ExpressionChecker.if_expr,
    s.LetCondition: ExpressionChecker.let_condition,
    s.MatchExpr: lambda c, n, e: c.match(n, e),
    s.LoopExpr: lambda c, n, e: c.loop(n),
    s.WhileExpr: lambda c, n, e: c.loop(n),
    s.ForExpr: lambda c, n, e: c.loop(n),
    s.AssignExpr: lambda c, n, e: c.assign(n),
    s.JumpExpr: lambda c, n, e: c.jump(n),
    s.MacroExpr: lambda c, n, e: c.macro(n),
    s.GradientExpr: ExpressionChecker.gradient,
    s.ErrorExpr: ExpressionChecker.error,
}
