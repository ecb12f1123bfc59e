"""Calls: binding arguments, unifying shapes, builtins, methods, structs and macros."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from tracejit.frontend.neuralscript import matching
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript.builtin_rules import BuiltinCall
from tracejit.frontend.neuralscript.builtins import BUILTINS, EFFECTS, Builtin
from tracejit.frontend.neuralscript.check_expressions import ExpressionChecker
from tracejit.frontend.neuralscript.diagnostics import Label, closest, fault
from tracejit.frontend.neuralscript.methods import find_method
from tracejit.frontend.neuralscript.scope import (
    Body,
    ClosureRef,
    FunctionRef,
    Module,
    TypeRef,
    VariantRef,
)
from tracejit.frontend.neuralscript.source import Span

Arguments = tuple[s.Argument, ...]
_ARRAY_FIELDS = {"re": "re", "im": "im", "shape": "shape", "T": "transpose"}


def bind_arguments(
    what: str, names: Sequence[str], optional: frozenset[str], arguments: Arguments, span: Span
) -> dict[str, s.Expr]:
    """Return the argument of each parameter. Errors: N036."""
    bound: dict[str, s.Expr] = {}
    shown = f"`{what}({', '.join(n + '?' if n in optional else n for n in names)})`"
    for index, item in enumerate(arguments):
        if item.name is None:
            if index >= len(names):
                raise fault(
                    "N036",
                    f"{shown} takes {len(names)} argument"
                    f"{'' if len(names) == 1 else 's'}, {len(arguments)} are given",
                    item.span,
                )
            name = names[index]
        elif item.name not in names:
            near = closest(item.name, names)
            raise fault(
                "N036",
                f"{shown} has no parameter `{item.name}`",
                item.span,
                help=f"did you mean `{near}`?" if near else "",
            )
        else:
            name = item.name
        if name in bound:
            raise fault("N036", f"`{name}` is given twice", item.span)
        bound[name] = item.value
    missing = [name for name in names if name not in bound and name not in optional]
    if missing:
        text = ", ".join(f"`{name}`" for name in missing)
        raise fault("N036", f"{shown} lacks {text}", span, f"{text} is missing")
    return bound


class CallChecker(ExpressionChecker):
    """Rules for everything that is called."""

    @abstractmethod
    def instance(
        self, ref: FunctionRef | ClosureRef, parameters: tuple[t.Type, ...], found: t.Bindings
    ) -> Body:
        """Return the body of a function, checked for these parameter types."""

    @abstractmethod
    def signature(self, ref: FunctionRef) -> tuple[tuple[t.Type, ...], t.Type | None]: ...

    @abstractmethod
    def generics_of(self, ref: FunctionRef) -> tuple[s.Generic, ...]: ...

    def call(self, node: s.CallExpr, expected: t.Type | None) -> t.Type:
        function = self.expr(node.function)
        match function:
            case t.Callee(_, target):
                return self.call_target(target, node, node.arguments, expected)
            case t.Function(parameters, result):
                return self.call_type(node, parameters, result)
            case t.Unknown():
                for item in node.arguments:
                    self.expr(item.value)
                return t.UNKNOWN
            case _:
                hint = (
                    "an index is written with brackets: `x[i]`"
                    if isinstance(function, t.Array) and function.shape
                    else ""
                )
                raise fault(
                    "N035",
                    f"`{function}` cannot be called",
                    node.function.span,
                    "not a function",
                    help=hint,
                )

    def call_target(
        self, target: object, node: s.Expr, arguments: Arguments, expected: t.Type | None
    ) -> t.Type:
        """Call a function, closure, variant or builtin."""
        if isinstance(target, FunctionRef):
            given = node.generics if isinstance(node, s.CallExpr) else ()
            return self.call_function(target, node, arguments, None, given)
        if isinstance(target, ClosureRef):
            kinds = [self.expr(item.value) for item in arguments]
            return self.call_closure(target, node, kinds)
        if isinstance(target, VariantRef):
            return self.call_variant(target, arguments, node.span, expected)
        assert isinstance(target, Builtin)
        return self.call_builtin(target.name, arguments, node.span)

    def call_type(self, node: s.CallExpr, parameters: tuple[t.Type, ...], result: t.Type) -> t.Type:
        """Call a function that is known by its type alone."""
        if len(parameters) != len(node.arguments):
            raise fault(
                "N036",
                f"this function takes {len(parameters)} arguments, {len(node.arguments)} are given",
                node.span,
            )
        found: t.Bindings = {}
        for item, wanted in zip(node.arguments, parameters, strict=True):
            self.expect(item.value, matching.substitute(wanted, found), "the argument")
        return result

    # --- functions ----------------------------------------------------------------------------

    def call_function(
        self,
        ref: FunctionRef,
        node: s.Expr,
        arguments: Arguments,
        receiver: s.Expr | None,
        given: tuple[s.TypeSyntax | s.Expr, ...] = (),
    ) -> t.Type:
        """Unify the parameters with the arguments, then check the body for these types."""
        item = ref.item
        parameters = item.parameters
        names = [parameter.name for parameter in parameters]
        optional = frozenset(p.name for p in parameters if p.default is not None)
        bound: dict[str, s.Expr] = {}
        if receiver is not None:
            bound = {"self": receiver}
            names = names[1:]
        bound |= bind_arguments(ref.name, names, optional, arguments, node.span)
        wanted, result = self.signature(ref)
        generics = self.generics_of(ref)
        free = [generic.name for generic in generics]
        found: t.Bindings = {}
        for generic, value in zip(item.generics, given, strict=False):
            found[generic.name] = self.size(value) if generic.const else self.generic_type(value)
        origin: dict[str, tuple[Span, t.Type]] = {}
        actual: list[t.Type] = []
        for parameter, pattern in zip(parameters, wanted, strict=True):
            value = bound.get(parameter.name)
            if value is None:
                actual.append(matching.substitute(pattern, found))
                continue
            actual.append(self.argument(value, parameter, pattern, found, free, origin))
            if isinstance(parameter.annotation, s.ReferenceType) and parameter.annotation.mutable:
                self.check_place(_referred(value), value.span)
        for generic in generics:
            found.setdefault(generic.name, t.ANY if generic.const else t.UNKNOWN)
            self.settle(found, generic.name)
        final = tuple(
            matching.substitute(p, found)
            if q.annotation is not None and not isinstance(a, t.Callee)
            else a
            for p, q, a in zip(wanted, parameters, actual, strict=True)
        )
        final = tuple(matching.refine(one, two) for one, two in zip(final, actual, strict=True))
        body = self.instance(ref, final, found)
        self.body.callees[node] = body
        if result is None:
            return matching.fresh(body.result) if body.done and body.result else t.UNKNOWN
        declared = matching.substitute(result, found)
        return matching.refine(declared, body.result) if body.done and body.result else declared

    def generic_type(self, node: s.TypeSyntax | s.Expr) -> t.Type:
        return self.type_argument(node)

    def settle(self, found: t.Bindings, name: str) -> None:
        """Give a generic that only literals have bound its default type."""
        value = found[name]
        if isinstance(value, t.Array):
            element = t.resolve(value.element)
            if isinstance(element, t.Literal):
                element.bound = t.default(element)
            found[name] = t.Array(t.resolve(value.element), value.shape, value.unit)

    def argument(
        self,
        value: s.Expr,
        parameter: s.Parameter,
        pattern: t.Type,
        found: t.Bindings,
        free: list[str],
        origin: dict[str, tuple[Span, t.Type]],
    ) -> t.Type:
        """Match one argument; a clash names both shapes and the argument that came first."""
        wanted = matching.substitute(pattern, found)
        kind = self.expr(value, wanted)
        before = set(found)
        try:
            matching.match_type(pattern, kind, found, free)
        except matching.Mismatch as cause:
            labels = [Label(parameter.span, f"`{parameter.name}` is declared here")]
            if cause.name in origin:
                span, other = origin[cause.name]
                bound = found.get(cause.name)
                shown = (
                    bound.element
                    if isinstance(bound, t.Array) and isinstance(pattern, t.Array)
                    else bound
                )
                labels.insert(0, Label(span, f"`{other}` fixes {cause.name} = {shown}"))
            raise self.mismatch(
                cause,
                matching.substitute(pattern, found),
                kind,
                value.span,
                f"the argument `{parameter.name}`",
                *labels,
            ) from None
        for name in set(found) - before:
            origin[name] = value.span, kind
        return kind

    def call_closure(self, ref: ClosureRef, node: s.Expr, kinds: list[t.Type]) -> t.Type:
        wanted = ref.expr.parameters
        if len(wanted) != len(kinds):
            raise fault(
                "N036",
                f"this closure takes {len(wanted)} argument"
                f"{'' if len(wanted) == 1 else 's'}, {len(kinds)} are given",
                node.span,
                "",
                Label(ref.expr.span, "the closure"),
            )
        body = self.instance(ref, tuple(kinds), {})
        self.body.callees[node] = body
        return matching.fresh(body.result) if body.done and body.result else t.UNKNOWN

    def call_variant(
        self, ref: VariantRef, arguments: Arguments, span: Span, expected: t.Type | None
    ) -> t.Type:
        names = [str(index) for index in range(len(ref.item.items))]
        bound = bind_arguments(ref.name, names, frozenset(), arguments, span)
        item = ref.owner.item
        assert isinstance(item, s.EnumItem)
        found: t.Bindings = {}
        free = [generic.name for generic in item.generics]
        if isinstance(expected, t.Named) and expected.item is item:
            known = zip(free, expected.arguments, strict=True)
            found = {n: v for n, v in known if t.is_fixed(v)}
        for name, pattern in zip(names, self.member_types(ref.owner, ref.item.items), strict=True):
            kind = self.expr(bound[name], matching.substitute(pattern, found))
            self.match_member(pattern, kind, found, free, bound[name].span, ref.name)
        return t.Named(item, self.named_arguments(item, found))

    def named_arguments(
        self, item: s.EnumItem | s.StructItem, found: t.Bindings
    ) -> tuple[t.Type | t.Size, ...]:
        return tuple(
            found.get(generic.name, t.ANY if generic.const else t.UNKNOWN)
            for generic in item.generics
        )

    def match_member(
        self,
        pattern: t.Type,
        kind: t.Type,
        found: t.Bindings,
        free: list[str],
        span: Span,
        what: str,
    ) -> None:
        try:
            matching.match_type(pattern, kind, found, free)
        except matching.Mismatch as cause:
            raise self.mismatch(
                cause, matching.substitute(pattern, found), kind, span, f"in `{what}`"
            ) from None

    def member_types(self, owner: TypeRef, nodes: Sequence[s.TypeSyntax]) -> list[t.Type]:
        """Return the declared types of fields or variant items, with the type's generics."""
        saved = self.body, self.module
        self.module = owner.module
        self.body = Body(owner.name, owner.module, self.generic_names(owner.item.generics))
        try:
            return [self.type(node) for node in nodes]
        finally:
            self.body, self.module = saved

    # --- builtins -----------------------------------------------------------------------------

    def call_builtin(self, name: str, arguments: Arguments, span: Span) -> t.Type:
        row = BUILTINS[name]
        arguments = self.spread(row, arguments)
        optional = frozenset(p.rstrip("?") for p in row.parameters if p.endswith("?"))
        bound = bind_arguments(name, row.names, optional, arguments, span)
        kinds = {key: self.expr(value) for key, value in bound.items()}
        if name == "print" and name in EFFECTS:
            return t.VOID
        for key in ("axis", "keepdims"):
            self.check_option(key, bound, kinds)
        return row.rule(BuiltinCall(name, span, bound, kinds, self.constant_size))

    def spread(self, row: Builtin, arguments: Arguments) -> Arguments:
        """Let ``zeros(2, 3)`` stand for ``zeros((2, 3))``, ``concat(a, b)`` for a tuple of them."""
        at = {
            "zeros": 0,
            "ones": 0,
            "reshape": 1,
            "random_normal": 0,
            "random_uniform": 0,
            "concat": 0,
            "stack": 0,
        }.get(row.name)
        if at is None:
            return arguments
        plain = [item for item in arguments if item.name is None]
        if len(plain) <= at + 1:
            return arguments
        rest = plain[at:]
        span = rest[0].span.to(rest[-1].span)
        gathered = s.Argument(span, None, s.TupleExpr(span, tuple(i.value for i in rest)))
        return (*plain[:at], gathered, *(item for item in arguments if item.name))

    def check_option(self, key: str, bound: dict[str, s.Expr], kinds: dict[str, t.Type]) -> None:
        kind = kinds.get(key)
        if not isinstance(kind, t.Array):
            return
        wanted = ("int", "any") if key == "axis" else ("bool", "any")
        if t.kind_of(kind.element) not in wanted:
            what = "an integer" if key == "axis" else "true or false"
            raise fault("N036", f"`{key}` is {what}", bound[key].span, f"this is `{kind}`")

    # --- methods and fields -------------------------------------------------------------------

    def method(self, node: s.MethodExpr, expected: t.Type | None) -> t.Type:
        kind = self.expr(node.receiver)
        if isinstance(kind, t.Imported):
            return self.module_call(kind, node, expected)
        owner = self.owner_of(kind)
        if owner is not None and node.name in owner.functions:
            ref = owner.functions[node.name]
            return self.call_function(ref, node, node.arguments, node.receiver)
        if isinstance(kind, t.Named) and isinstance(kind.item, s.StructItem):
            inner = self.field_type(kind, node.name)
            if inner is not None:
                return self.call_field(inner, node, expected)
        numeric = isinstance(kind, t.Array | t.Unknown)
        if (
            node.name in BUILTINS
            and numeric
            and not (isinstance(kind, t.Unknown) and find_method(kind, node.name))
        ):
            first = s.Argument(node.receiver.span, None, node.receiver)
            return self.call_builtin(node.name, (first, *node.arguments), node.span)
        return self.builtin_method(kind, node)

    def builtin_method(self, kind: t.Type, node: s.MethodExpr) -> t.Type:
        found = find_method(kind, node.name)
        if found is None:
            if isinstance(kind, t.Unknown):
                for item in node.arguments:
                    self.expr(item.value)
                return t.UNKNOWN
            owner = self.owner_of(kind)
            near = closest(node.name, [*(owner.functions if owner else ()), *BUILTINS])
            raise fault(
                "N023",
                f"`{kind}` has no method `{node.name}`",
                node.name_span,
                "unknown method",
                help=f"did you mean `{near}`?" if near else "",
            )
        if len(node.arguments) != found.arity:
            raise fault(
                "N036",
                f"`{node.name}` takes {found.arity} arguments, {len(node.arguments)} are given",
                node.span,
            )
        if found.changes:
            self.check_place(node.receiver, node.name_span)
        wanted = kind.item if found.changes and isinstance(kind, t.Vec) else None
        kinds = [self.expr(item.value, wanted) for item in node.arguments]
        if found.changes and isinstance(kind, t.Vec) and kinds:
            self.coerce(kinds[-1], kind.item, node.arguments[-1].span, "the item of a Vec")

        def apply(index: int, types: Sequence[t.Type]) -> t.Type:
            target = kinds[index]
            value = node.arguments[index].value
            if isinstance(target, t.Callee) and isinstance(target.target, ClosureRef):
                return self.call_closure(target.target, value, list(types))
            if isinstance(target, t.Function):
                return target.result
            return t.UNKNOWN

        return found.type(kind, kinds, apply)

    def call_field(self, kind: t.Type, node: s.MethodExpr, expected: t.Type | None) -> t.Type:
        """Call a function that a field holds."""
        if isinstance(kind, t.Callee):
            return self.call_target(kind.target, node, node.arguments, expected)
        for item in node.arguments:
            self.expr(item.value)
        return kind.result if isinstance(kind, t.Function) else t.UNKNOWN

    def module_call(self, kind: t.Imported, node: s.MethodExpr, expected: t.Type | None) -> t.Type:
        ref = self.module_member(kind.target, node.name, node.name_span)
        return self.call_target(ref, node, node.arguments, expected)

    def module_member(self, module: object, name: str, span: Span) -> FunctionRef:
        assert isinstance(module, Module)
        ref = module.functions.get(name)
        if ref is None:
            near = closest(name, module.functions)
            raise fault(
                "N023",
                f"the module `{module.name}` has no function `{name}`",
                span,
                help=f"did you mean `{near}`?"
                if near
                else f"it has: {', '.join(module.functions)}",
            )
        return ref

    def owner_of(self, kind: t.Type) -> TypeRef | None:
        if not isinstance(kind, t.Named):
            return None
        for module in (self.module, self.prelude, *self.module.imports.values()):
            if module is not None:
                for ref in module.types.values():
                    if ref.item is kind.item:
                        return ref
        return None

    def field_type(self, kind: t.Named, name: str) -> t.Type | None:
        """Return the type of a struct's field with its generics filled in."""
        item = kind.item
        owner = self.owner_of(kind)
        if not isinstance(item, s.StructItem) or owner is None:
            return None
        for entry in item.fields:
            if entry.name == name:
                declared = self.member_types(owner, [entry.annotation])[0]
                names = [generic.name for generic in item.generics]
                found = dict(zip(names, kind.arguments, strict=True))
                return matching.substitute(declared, found)
        return None

    def field(self, node: s.FieldExpr) -> t.Type:
        kind = self.expr(node.base)
        match kind:
            case t.Unknown():
                return t.UNKNOWN
            case t.Tuple(items) if node.name.isdigit():
                if int(node.name) >= len(items):
                    raise fault("N023", f"`{kind}` has no item {node.name}", node.name_span)
                return items[int(node.name)]
            case t.Named():
                found = self.field_type(kind, node.name)
                if found is not None:
                    return found
            case t.Array() if node.name in _ARRAY_FIELDS:
                argument = s.Argument(node.base.span, None, node.base)
                return self.call_builtin(_ARRAY_FIELDS[node.name], (argument,), node.span)
            case t.Imported(_, target):
                return t.Callee(node.name, self.module_member(target, node.name, node.name_span))
            case _:
                pass
        known = (
            [f.name for f in kind.item.fields]
            if isinstance(kind, t.Named) and isinstance(kind.item, s.StructItem)
            else []
        )
        near = closest(node.name, known)
        owner = self.owner_of(kind)
        help = f"did you mean `{near}`?" if near else ""
        if owner is not None and node.name in owner.functions:
            help = f"`{node.name}` is a method: `{node.span.text}()`"
        raise fault(
            "N023",
            f"`{kind}` has no field `{node.name}`",
            node.name_span,
            "unknown field",
            help=help,
        )

    def struct(self, node: s.StructExpr, expected: t.Type | None) -> t.Type:
        if node.name == "Self" and isinstance(self.body.self_type, t.Named):
            owner = self.owner_of(self.body.self_type)
        else:
            owner = self.find_type(node.name)
        if owner is None or not isinstance(owner.item, s.StructItem):
            raise fault("N022", f"unknown struct `{node.name}`", node.span)
        item = owner.item
        declared = dict(
            zip(
                [f.name for f in item.fields],
                self.member_types(owner, [f.annotation for f in item.fields]),
                strict=True,
            )
        )
        free = [generic.name for generic in item.generics]
        found: t.Bindings = {}
        if isinstance(expected, t.Named) and expected.item is item:
            known = zip(free, expected.arguments, strict=True)
            found = {n: v for n, v in known if t.is_fixed(v)}
        for entry in node.fields:
            name = entry.name or ""
            if name not in declared:
                near = closest(name, declared)
                raise fault(
                    "N023",
                    f"`{item.name}` has no field `{name}`",
                    entry.span,
                    help=f"did you mean `{near}`?" if near else "",
                )
            kind = self.expr(entry.value, matching.substitute(declared[name], found))
            self.match_member(declared[name], kind, found, free, entry.span, f"{item.name}.{name}")
        if node.base is not None:
            self.expr(node.base)
        missing = set(declared) - {entry.name for entry in node.fields}
        if missing and node.base is None:
            names = ", ".join(f"`{name}`" for name in declared if name in missing)
            raise fault("N036", f"`{item.name}` lacks {names}", node.span)
        for name in free:
            if name in found:
                self.settle(found, name)
        return t.Named(item, self.named_arguments(item, found))

    def path(self, node: s.PathExpr, expected: t.Type | None) -> t.Type:
        """``Type::function``, ``Enum::Variant``, ``module::function``."""
        first, last = node.parts[-2], node.parts[-1]
        if first in self.module.imports:
            return t.Callee(last, self.module_member(self.module.imports[first], last, node.span))
        if first == "Vec" and last in ("new", "with_capacity"):
            return t.Function((), expected if isinstance(expected, t.Vec) else (t.Vec(t.UNKNOWN)))
        owner = self.find_type(first)
        if first == "Self":
            owner = self.owner_of(self.body.self_type) if self.body.self_type else None
        if owner is None:
            raise fault("N020", f"unknown type or module `{first}`", node.span)
        if last in owner.functions:
            return t.Callee(owner.functions[last].name, owner.functions[last])
        variant = self.variant(owner.name, last)
        if variant is None:
            known = list(owner.functions)
            if isinstance(owner.item, s.EnumItem):
                known += [entry.name for entry in owner.item.variants]
            near = closest(last, known)
            raise fault(
                "N023",
                f"`{owner.name}` has no `{last}`",
                node.span,
                help=f"did you mean `{near}`?" if near else "",
            )
        return self.variant_value(variant, expected)

    # --- macros -------------------------------------------------------------------------------

    def macro(self, node: s.MacroExpr) -> t.Type:
        kinds = [self.expr(item) for item in node.arguments]
        match node.name:
            case "format":
                return t.TEXT
            case "panic":
                return t.NEVER
            case "assert":
                if not kinds:
                    raise fault("N036", "`assert!` needs a condition", node.span)
                self.coerce(kinds[0], t.BOOLEAN, node.arguments[0].span, "the condition")
                return t.VOID
            case "assert_eq":
                if len(kinds) != 2:
                    raise fault("N036", "`assert_eq!` takes two values", node.span)
                if matching.join(kinds[0], kinds[1]) is None:
                    raise fault("N030", "the values of `assert_eq!` differ in type", node.span)
                return t.VOID
            case _:
                return t.VOID


def _referred(node: s.Expr) -> s.Expr:
    return node.operand if isinstance(node, s.ReferenceExpr) else node
