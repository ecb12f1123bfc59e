"""Types as written → types, and size expressions → sizes."""

from __future__ import annotations

from fractions import Fraction

from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript import units
from tracejit.frontend.neuralscript.diagnostics import Diagnostic, Fault, closest, fault
from tracejit.frontend.neuralscript.lexer import PRIMITIVES
from tracejit.frontend.neuralscript.scope import Body, Module, Scope, TypeRef
from tracejit.frontend.neuralscript.source import Span

NUMERIC_BOUNDS = {
    "Numeric": "Numeric",
    "Float": "Float",
    "Ord": "Numeric",
    "Real": "Float",
    "PartialOrd": "Numeric",
    "Integer": "Numeric",
    "Num": "Numeric",
}
OTHER_BOUNDS = frozenset(("Copy", "Clone", "Debug", "Display", "Default", "PartialEq", "Eq"))
_ARRAYS = {"Vector": 1, "Matrix": 2, "Array": 1, "Tensor": None}
_COMPLEX = {"f32": "c64", "f64": "c128"}


class TypeChecker:
    """Resolves types within ``self.module`` and ``self.body``; findings go to ``report``."""

    def __init__(self, prelude: Module | None):
        self.prelude = prelude
        self.diagnostics: list[Diagnostic] = []
        self.seen: set[tuple[str, Span]] = set()
        self.module: Module
        self.body: Body
        self.scope: Scope

    def report(self, failure: Fault) -> None:
        """Keep a finding once."""
        item = failure.diagnostic
        key = (item.code, item.span)
        if key not in self.seen:
            self.seen.add(key)
            self.diagnostics.append(item)

    # --- names --------------------------------------------------------------------------------

    def find_type(self, name: str) -> TypeRef | None:
        """Return a struct, enum or alias that is visible here."""
        found = self.module.types.get(name)
        if found is None and self.prelude is not None:
            found = self.prelude.types.get(name)
        return found

    def generic_names(self, generics: tuple[s.Generic, ...]) -> dict[str, t.Type | t.Size]:
        """Return generic parameters as they are inside their item: opaque."""
        found: dict[str, t.Type | t.Size] = {}
        for generic in generics:
            found[generic.name] = self.generic(generic)
        return found

    def generic(self, generic: s.Generic) -> t.Type | t.Size:
        if generic.const:
            return t.Size(0, ((generic.name, 1),))
        for bound in generic.bounds:
            if isinstance(bound, s.FunctionType):
                return self.type(bound)
            name = bound.name if isinstance(bound, s.NamedType) else ""
            if name in NUMERIC_BOUNDS:
                return t.Array(t.Param(generic.name, NUMERIC_BOUNDS[name]))
            if name not in OTHER_BOUNDS:
                raise fault(
                    "N022",
                    f"unknown bound `{bound.span.text}`",
                    bound.span,
                    help="the bounds are Numeric, Float, Ord and Fn(A) -> B",
                )
        return t.Opaque(generic.name)

    # --- types --------------------------------------------------------------------------------

    def type(self, node: s.TypeSyntax) -> t.Type:
        """Return the type that a type expression means. Errors: Fault."""
        match node:
            case s.NamedType():
                return self.named_type(node)
            case s.TupleType(_, items):
                return t.Tuple(tuple(self.type(item) for item in items))
            case s.ReferenceType(_, target):
                return self.type(target)
            case s.ArrayType(_, element, size):
                return self.array_type(element, None if size is None else self.size(size))
            case s.FunctionType(_, parameters, result):
                inner = tuple(self.type(item) for item in parameters)
                return t.Function(inner, t.VOID if result is None else self.type(result))
            case s.UnitType():
                return t.Array(t.Prim("f64"), (), self.unit_type(node))
            case _:
                raise fault(
                    "N022",
                    "a shape stands where a type is needed",
                    node.span,
                    help="write `Tensor<f64, [A, B]>`",
                )

    def named_type(self, node: s.NamedType) -> t.Type:
        name = node.name
        generic = self.body.generics.get(name)
        if isinstance(generic, t.Type):
            return generic
        if isinstance(generic, t.Size):
            raise fault("N022", f"`{name}` is a size, not a type", node.span)
        if name == "str" or name == "String":
            return t.TEXT
        if name in PRIMITIVES:
            return t.number(name)
        if name == "Real":
            return t.number("f64")
        if name == "Complex":
            return self.complex_type(node)
        if name in _ARRAYS:
            return self.array_named(node)
        if name == "Vec":
            inner = self.type_argument(node.arguments[0]) if node.arguments else t.UNKNOWN
            return t.Vec(inner)
        if name == "Self":
            if self.body.self_type is None:
                raise fault("N022", "`Self` outside an `impl` block", node.span)
            return self.body.self_type
        found = self.find_type(name)
        if found is not None:
            return self.item_type(found, node)
        unit = units.named_unit(name)
        if unit is not None:
            return t.Array(t.Prim("f64"), (), unit)
        raise self.unknown_type(node)

    def unknown_type(self, node: s.NamedType) -> Fault:
        known = [
            *PRIMITIVES,
            *_ARRAYS,
            "Vec",
            "Complex",
            "Option",
            "Result",
            *self.module.types,
            *self.body.generics,
        ]
        near = closest(node.name, known)
        return fault(
            "N022",
            f"unknown type `{node.name}`",
            node.span,
            "not a type or a unit",
            help=f"did you mean `{near}`?" if near else "",
        )

    def complex_type(self, node: s.NamedType) -> t.Type:
        if not node.arguments:
            return t.number("c128")
        inner = self.type_argument(node.arguments[0])
        if isinstance(inner, t.Array) and isinstance(inner.element, t.Prim):
            name = _COMPLEX.get(inner.element.name)
            if name is not None:
                return t.number(name)
        raise fault("N022", "Complex takes f32 or f64", node.span)

    def type_argument(self, node: s.TypeSyntax | s.Expr) -> t.Type:
        if isinstance(node, s.TypeSyntax):
            return self.type(node)
        raise fault("N022", "a size stands where a type is needed", node.span)

    def array_named(self, node: s.NamedType) -> t.Type:
        """``Vector<T, N>``, ``Matrix<T, M, N>``, ``Tensor<T, [A, B]>``; sizes may be left out."""
        rank = _ARRAYS[node.name]
        arguments = node.arguments
        if not arguments:
            return t.Array(t.ANY_ELEMENT, None if rank is None else (t.ANY,) * rank)
        element = self.type_argument(arguments[0])
        if isinstance(element, t.Opaque):
            element = t.Array(t.Param(element.name))
        if not isinstance(element, t.Array) or element.shape != ():
            raise fault(
                "N022",
                f"`{node.name}` holds numbers, not `{element}`",
                arguments[0].span,
                help="use `Vec<T>` for other things",
            )
        rest = arguments[1:]
        if node.name == "Tensor":
            sizes = rest[0].sizes if rest and isinstance(rest[0], s.ShapeType) else rest
            return element.with_shape(tuple(map(self.size, sizes)) if rest else None)
        assert rank is not None
        if len(rest) > rank:
            raise fault(
                "N022",
                f"`{node.name}` has {rank} size{'s' * (rank > 1)}, {len(rest)} are given",
                node.span,
            )
        found = [self.size(size) for size in rest]
        return element.with_shape((*found, *(t.ANY,) * (rank - len(found))))

    def array_type(self, element: s.TypeSyntax, size: t.Size | None) -> t.Type:
        inner = self.type(element)
        if isinstance(inner, t.Array) and inner.shape is not None:
            return inner.with_shape((t.ANY if size is None else size, *inner.shape))
        return t.Vec(inner)

    def item_type(self, found: TypeRef, node: s.NamedType) -> t.Type:
        """A struct, enum or alias with its arguments."""
        generics = found.item.generics
        given = node.arguments
        if given and len(given) != len(generics):
            raise fault(
                "N022",
                f"`{found.name}` has {len(generics)} generic parameters, {len(given)} are given",
                node.span,
                help="",
            )
        arguments: list[t.Type | t.Size] = []
        for index, generic in enumerate(generics):
            if not given:
                arguments.append(t.ANY if generic.const else t.UNKNOWN)
            elif generic.const:
                arguments.append(self.size(given[index]))
            else:
                arguments.append(self.type_argument(given[index]))
        if isinstance(found.item, s.AliasItem):
            return self.alias(found, found.item, arguments)
        return t.Named(found.item, tuple(arguments))

    def alias(self, found: TypeRef, item: s.AliasItem, arguments: list[t.Type | t.Size]) -> t.Type:
        names = [generic.name for generic in item.generics]
        saved = self.body, self.module
        self.module = found.module
        self.body = Body(item.name, found.module, dict(zip(names, arguments, strict=True)))
        try:
            return self.type(item.target)
        finally:
            self.body, self.module = saved

    def unit_type(self, node: s.TypeSyntax) -> t.Unit:
        """Return the unit of a unit expression such as ``Meter/Second²``."""
        match node:
            case s.UnitType(_, operator, left, right, exponent):
                if right is None:
                    return units.power(self.unit_type(left), Fraction(exponent))
                sign = -1 if operator == "/" else 1
                return units.multiply(self.unit_type(left), self.unit_type(right), sign)
            case s.NamedType(_, name, ()):
                found = self.find_type(name)
                unit = None if found is not None else units.named_unit(name)
                if unit is not None:
                    return unit
                kind = self.type(node)
                if isinstance(kind, t.Array) and kind.shape == ():
                    return kind.unit
            case _:
                pass
        raise fault(
            "N051",
            f"`{node.span.text}` is not a unit",
            node.span,
            help="units are written like Meter/Second or Newton*Meter",
        )

    # --- sizes --------------------------------------------------------------------------------

    def size(self, node: s.TypeSyntax | s.Expr) -> t.Size:
        """Return the size that an expression or a name in a type means. Errors: Fault."""
        found = self.constant_size(node)
        if found is None:
            raise fault(
                "N022",
                f"`{node.span.text}` is not a size",
                node.span,
                help="sizes are integers, const generics, constants, and their sums",
            )
        return found

    def constant_size(self, node: s.TypeSyntax | s.Expr) -> t.Size | None:
        """Return the value of an integer expression where it is known before tracing."""
        match node:
            case s.NumberExpr(_, value, _, False, "") if isinstance(value, int):
                return t.Size(value)
            case s.NamedType(_, name, ()) | s.NameExpr(_, name):
                return t.ANY if name == "_" else self.named_size(name, node.span)
            case s.UnaryExpr(_, "-", operand):
                inner = self.constant_size(operand)
                return None if inner is None else inner.times(-1)
            case s.CastExpr(_, operand):
                return self.constant_size(operand)
            case s.BinaryExpr(_, operator, left, right):
                one, two = self.constant_size(left), self.constant_size(right)
                return None if one is None or two is None else _combine(operator, one, two)
            case s.CallExpr(_, s.NameExpr(_, "len"), (argument,)):
                return self.length(argument.value)
            case s.MethodExpr(_, receiver, "len", ()):
                return self.length(receiver)
            case _:
                return None

    def length(self, node: s.Expr) -> t.Size | None:
        kind = self.body.types.get(node)
        if isinstance(node, s.NameExpr):
            binding = self.scope.find(node.name)
            kind = binding.type if binding else kind
        if isinstance(kind, t.Array) and kind.shape:
            return None if t.is_any(kind.shape[0]) else kind.shape[0]
        return None

    def named_size(self, name: str, span: Span) -> t.Size | None:
        binding = self.scope.find(name)
        if binding is not None:
            return binding.size
        generic = self.body.generics.get(name)
        if isinstance(generic, t.Size):
            return generic
        constant = self.module.constants.get(name)
        return None if constant is None else constant.size


def _combine(operator: str, one: t.Size, two: t.Size) -> t.Size | None:
    if t.is_any(one) or t.is_any(two):
        return None
    match operator:
        case "+":
            return one.plus(two)
        case "-":
            return one.plus(two, -1)
        case "*" | "×" if one.known:
            return two.times(one.constant)
        case "*" | "×" if two.known:
            return one.times(two.constant)
        case "/" if one.known and two.known and two.constant:
            return t.Size(int(one.constant / two.constant))
        case "%" if one.known and two.known and two.constant:
            return t.Size(one.constant % two.constant)
        case "^" if one.known and two.known and 0 <= two.constant < 64:
            return t.Size(one.constant**two.constant)
        case _:
            return None
