"""Checking whole programs: items, bodies, statements, patterns, loops.

A function is checked once with its generics opaque, and again for the types of each call, so
that sizes that are left open are checked where they become known. A body checked for given
types is a ``Body``; the tracer runs the program by these.
"""

from __future__ import annotations

from typing import Any

from tracejit.frontend.neuralscript import matching
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript.check_patterns import PatternChecker
from tracejit.frontend.neuralscript.diagnostics import Fault, Label, fault
from tracejit.frontend.neuralscript.methods import item_type
from tracejit.frontend.neuralscript.prelude import prelude
from tracejit.frontend.neuralscript.scope import (
    Binding,
    Body,
    ClosureRef,
    ConstRef,
    FunctionRef,
    Module,
    Scope,
    TypeRef,
)
from tracejit.frontend.neuralscript.source import Source, Span

_MAX_INSTANCES = 24
# A recursive function is checked for this many types inside itself; its types may grow without end.
_MAX_RECURSION = 4


class Checker(PatternChecker):
    """Checks one program and the modules that it imports."""

    def __init__(self, main: Source | None = None) -> None:
        super().__init__(prelude())
        self.main = main
        self.instances: dict[tuple[object, ...], Body] = {}
        self.active: list[object] = []
        # Names that are bound before the top-level statements run: a program's inputs.
        self.given: dict[str, Span] = {}
        # Values that replace constants and top-level bindings of the program itself.
        self.settings: dict[str, Any] = {}
        self.loops: list[list[t.Type]] = []

    # --- modules ------------------------------------------------------------------------------

    def declare(self, module: Module) -> None:
        """Enter a module's items into its tables."""
        for item in module.program.statements:
            match item:
                case s.FunctionItem():
                    self.unique(module.functions, item.name, item.name_span)
                    module.functions[item.name] = FunctionRef(module, item)
                case s.StructItem() | s.EnumItem() | s.AliasItem():
                    self.unique(module.types, item.name, item.span)
                    module.types[item.name] = TypeRef(module, item)
                case s.ConstItem():
                    self.unique(module.constants, item.name, item.span)
                    module.constants[item.name] = ConstRef(module, item)
                case _:
                    pass
        for item in module.program.statements:
            if isinstance(item, s.ImplItem):
                self.declare_impl(module, item)

    def unique(self, table: object, name: str, span: Span) -> None:
        if isinstance(table, dict) and name in table:
            self.report(fault("N021", f"`{name}` is defined twice", span, "defined again here"))

    def declare_impl(self, module: Module, item: s.ImplItem) -> None:
        owner = module.types.get(item.name)
        if owner is None:
            self.report(fault("N022", f"`impl` for the unknown type `{item.name}`", item.span))
            return
        for function in item.functions:
            self.unique(owner.functions, function.name, function.name_span)
            owner.functions[function.name] = FunctionRef(module, function, owner)

    def check(self, module: Module) -> Body:
        """Check a declared module; return the body of its top-level statements."""
        self.module = module
        body = Body(module.name, module, {})
        self.body, self.scope = body, Scope()
        for constant in module.constants.values():
            self.constant(constant)
        refs = [*module.functions.values()]
        for owner in module.types.values():
            self.check_type_item(owner)
            refs += owner.functions.values()
        for ref in refs:
            try:
                self.check_function(ref)
            except Fault as failure:
                self.report(failure)
        self.module, self.body, self.scope = module, body, Scope()
        for name, span in self.given.items():
            self.scope.names[name] = Binding(t.UNKNOWN, span)
        for statement in module.program.statements:
            self.statement(statement)
        body.done = True
        module.body = body
        return body

    def constant(self, ref: ConstRef) -> None:
        try:
            kind = self.expr(ref.item.value)
            if ref.item.annotation is not None:
                wanted = self.type(ref.item.annotation)
                kind = self.coerce(kind, wanted, ref.item.value.span, f"const {ref.item.name}")
            ref.type = kind
            if isinstance(kind, t.Array) and t.kind_of(kind.element) == "int":
                ref.size = self.constant_size(ref.item.value)
            if ref.module.source is self.main and ref.item.name in self.settings:
                ref.size = _setting_size(self.settings[ref.item.name])
        except Fault as failure:
            self.report(failure)

    def check_type_item(self, owner: TypeRef) -> None:
        item = owner.item
        nodes: list[s.TypeSyntax] = []
        if isinstance(item, s.StructItem):
            nodes = [entry.annotation for entry in item.fields]
        elif isinstance(item, s.EnumItem):
            nodes = [node for entry in item.variants for node in entry.items]
        for node in nodes:
            try:
                self.member_types(owner, [node])
            except Fault as failure:
                self.report(failure)

    # --- functions ----------------------------------------------------------------------------

    def generics_of(self, ref: FunctionRef) -> tuple[s.Generic, ...]:
        outer = ref.owner.item.generics if ref.owner is not None else ()
        return (*outer, *ref.item.generics)

    def self_type(self, ref: FunctionRef, found: t.Bindings) -> t.Type | None:
        if ref.owner is None or isinstance(ref.owner.item, s.AliasItem):
            return None
        item = ref.owner.item
        arguments = tuple(found[generic.name] for generic in item.generics)
        return t.Named(item, arguments)

    def signature(self, ref: FunctionRef) -> tuple[tuple[t.Type, ...], t.Type | None]:
        """Return the declared parameter types (generics opaque) and result."""
        saved = self.body, self.module
        self.module = ref.module
        found = self.generic_names(self.generics_of(ref))
        self.body = Body(ref.name, ref.module, found, self_type=self.self_type(ref, found))
        try:
            parameters = tuple(
                t.UNKNOWN if p.annotation is None else self.type(p.annotation)
                for p in ref.item.parameters
            )
            result = ref.item.result
            return parameters, None if result is None else self.type(result)
        finally:
            self.body, self.module = saved

    def check_function(self, ref: FunctionRef) -> None:
        """Check a function for its own declaration."""
        self.module = ref.module
        parameters, _ = self.signature(ref)
        found = self.generic_names(self.generics_of(ref))
        self.instance(ref, parameters, found)

    def instance(
        self, ref: FunctionRef | ClosureRef, parameters: tuple[t.Type, ...], found: t.Bindings
    ) -> Body:
        key = (ref, tuple(map(_key, parameters)), tuple((n, str(v)) for n, v in found.items()))
        known = self.instances.get(key)
        if known is not None:
            return known
        parameters = tuple(map(matching.fresh, parameters))
        saved = self.body, self.module, self.scope, self.loops
        if isinstance(ref, ClosureRef):
            outer = ref.body
            body = Body(
                ref.name, outer.module, outer.generics, parameters, self_type=outer.self_type
            )
            scope = Scope(ref.scope)
        else:
            body = Body(ref.name, ref.module, dict(found), parameters)
            body.self_type = self.self_type(ref, found) if ref.owner is not None else None
            scope = Scope()
        body.ref = ref
        body.exact = all(map(t.is_exact, parameters))
        self.instances[key] = body
        nested = self.active.count(ref)
        if len(self.active) >= _MAX_INSTANCES or nested >= _MAX_RECURSION:
            body.exact = False
            return body
        self.active.append(ref)
        self.body, self.module, self.scope, self.loops = body, body.module, scope, []
        try:
            self.check_body(ref, parameters)
        finally:
            self.active.pop()
            self.body, self.module, self.scope, self.loops = saved
            body.done = True
        return body

    def instance_for_values(self, ref: FunctionRef | ClosureRef, kinds: tuple[t.Type, ...]) -> Body:
        """Return the body of a function for the types of values at hand. Errors: Fault."""
        if isinstance(ref, ClosureRef):
            return self.instance(ref, kinds, {})
        wanted, _ = self.signature(ref)
        generics = self.generics_of(ref)
        found: t.Bindings = {}
        origin: dict[str, tuple[Span, t.Type]] = {}
        for parameter, pattern, kind in zip(ref.item.parameters, wanted, kinds, strict=True):
            free = [generic.name for generic in generics]
            try:
                before = set(found)
                matching.match_type(_without_units(pattern), _without_units(kind), found, free)
            except matching.Mismatch as cause:
                labels = (
                    [
                        Label(s, f"{cause.name} = {found[cause.name]} comes from here")
                        for s, _ in [origin[cause.name]]
                    ]
                    if cause.name in origin
                    else []
                )
                self.body, self.module, self.scope = Body("", ref.module, {}), ref.module, Scope()
                raise self.mismatch(
                    cause,
                    matching.substitute(pattern, found),
                    kind,
                    parameter.span,
                    f"the argument `{parameter.name}` of `{ref.name}`",
                    *labels,
                ) from None
            for name in set(found) - before:
                origin[name] = parameter.span, kind
        for generic in generics:
            found.setdefault(generic.name, t.ANY if generic.const else t.UNKNOWN)
            self.settle(found, generic.name)
        final = tuple(
            _filled(matching.substitute(pattern, found), kind)
            if parameter.annotation is not None
            else kind
            for parameter, pattern, kind in zip(ref.item.parameters, wanted, kinds, strict=True)
        )
        return self.instance(ref, final, found)

    def check_body(self, ref: FunctionRef | ClosureRef, parameters: tuple[t.Type, ...]) -> None:
        """Check parameters, statements and result of ``self.body``."""
        item = ref.item if isinstance(ref, FunctionRef) else ref.expr
        body = self.body
        declared: t.Type | None = None
        try:
            if item.result is not None:
                declared = body.declared = self.type(item.result)
            for parameter, kind in zip(item.parameters, parameters, strict=True):
                self.parameter(parameter, kind)
            value = self.expr(item.body, declared)
        except Fault as failure:
            self.report(failure)
            body.result = declared or t.UNKNOWN
            return
        result = value
        for returned in body.returns:
            joined = matching.join(result, returned)
            result = joined if joined is not None else t.UNKNOWN
        if declared is not None and item.result is not None:
            try:
                span = _last_span(item.body)
                label = Label(item.result.span, f"`{declared}` is promised here")
                result = self.coerce(value, declared, span, f"the value of `{ref.name}`", label)
            except Fault as failure:
                self.report(failure)
                result = declared
        body.result = result

    def parameter(self, parameter: s.Parameter, kind: t.Type) -> None:
        if parameter.annotation is not None:
            wanted = self.type(parameter.annotation)
            kind = self.coerce(kind, wanted, parameter.span, f"the argument `{parameter.name}`")
        if parameter.default is not None:
            given = self.expr(parameter.default, kind)
            self.coerce(given, kind, parameter.default.span, f"the default of `{parameter.name}`")
        self.bind(parameter.pattern, kind, self.scope)
        annotation = parameter.annotation
        if isinstance(annotation, s.ReferenceType) and annotation.mutable:
            self.scope.names[parameter.name].mutable = True

    def enter_closure(self, ref: ClosureRef, expected: t.Type | None, span: Span) -> None:
        """Check a closure where it is written: for the wanted type, or for what it declares."""
        wanted: tuple[t.Type, ...] = (t.UNKNOWN,) * len(ref.expr.parameters)
        if isinstance(expected, t.Function):
            if len(expected.parameters) != len(wanted):
                raise fault(
                    "N036", f"a `{expected}` is needed, this closure takes {len(wanted)}", span
                )
            wanted = expected.parameters
        parameters = tuple(
            kind if p.annotation is None else self.type(p.annotation)
            for p, kind in zip(ref.expr.parameters, wanted, strict=True)
        )
        body = self.instance(ref, parameters, {})
        self.body.callees[ref.expr] = body
        if isinstance(expected, t.Function) and body.result is not None:
            self.coerce(body.result, expected.result, ref.expr.body.span, "the closure's value")

    # --- statements ---------------------------------------------------------------------------

    def statements(self, block: s.BlockExpr, expected: t.Type | None) -> t.Type:
        outer = self.scope
        self.scope = Scope(outer)
        try:
            ends = False
            for statement in block.statements:
                ends |= isinstance(self.statement(statement), t.Never)
            if block.value is None:
                return t.NEVER if ends else t.VOID
            try:
                return self.expr(block.value, expected)
            except Fault as failure:
                self.report(failure)
                return t.UNKNOWN
        finally:
            self.scope = outer

    def statement(self, node: s.Syntax) -> t.Type:
        """Check one statement; its errors are kept, and checking goes on."""
        try:
            match node:
                case s.LetStatement():
                    self.let(node)
                case s.ExprStatement(_, value):
                    return self.expr(value, t.VOID)
                case s.FunctionItem() if self.scope.parent is not None:
                    ref = FunctionRef(self.module, node)
                    self.scope.names[node.name] = Binding(t.Callee(node.name, ref), node.span)
                    self.check_function(ref)
                case s.ConstItem() if self.scope.parent is not None:
                    pattern = s.NamePattern(node.span, node.name)
                    self.let(s.LetStatement(node.span, pattern, node.annotation, node.value))
                case _:
                    pass
        except Fault as failure:
            self.report(failure)
        return t.VOID

    def let(self, node: s.LetStatement) -> None:
        kind: t.Type = t.UNKNOWN
        try:
            wanted = None if node.annotation is None else self.type(node.annotation)
            kind = wanted or t.UNKNOWN
            if node.value is not None:
                found = self.expr(node.value, wanted)
                kind = found
                if wanted is not None and node.annotation is not None:
                    label = Label(node.annotation.span, f"`{wanted}` is declared here")
                    kind = wanted
                    kind = self.coerce(found, wanted, node.value.span, "the value", label)
        except Fault as failure:
            self.report(failure)
        _bound(kind)
        self.bind(node.pattern, kind, self.scope)
        if (
            isinstance(node.pattern, s.NamePattern)
            and not node.pattern.mutable
            and node.value is not None
            and isinstance(kind, t.Array)
            and kind.shape == ()
            and t.kind_of(kind.element) == "int"
        ):
            binding = self.scope.names.get(node.pattern.name)
            if binding is not None:
                binding.size = self.constant_size(node.value)
            if (
                binding is not None
                and self.scope.parent is None
                and (self.body.ref is None and node.pattern.name in self.settings)
            ):
                binding.size = _setting_size(self.settings[node.pattern.name])

    def assign(self, node: s.AssignExpr) -> t.Type:
        target = node.place
        if (
            isinstance(target, s.NameExpr)
            and self.scope.find(target.name) is None
            and self.global_name(target.name, None) is None
        ):
            raise self.unknown_name(target, assigned=True)
        place = self.expr(target)
        self.check_place(node.place, node.span)
        value = self.expr(node.value, place)
        if node.operator != "=":
            value = self.binary_type(node.operator[0], place, value, node)
        if isinstance(place, t.Unknown) and isinstance(node.place, s.NameExpr):
            binding = self.scope.find(node.place.name)
            if binding is not None and binding.type is t.UNKNOWN:
                binding.type = value
        if isinstance(node.place, s.IndexExpr) and isinstance(place, t.Array):
            self.stores(place, value, node)
        else:
            self.coerce(
                value,
                place,
                node.value.span,
                "the assigned value",
                Label(node.place.span, f"this is `{place}`"),
            )
        return t.VOID

    def stores(self, place: t.Array, value: t.Type, node: s.AssignExpr) -> None:
        """A slice takes what broadcasts to it."""
        if isinstance(value, t.Unknown):
            return
        if isinstance(value, t.Array) and value.shape is not None and place.shape is not None:
            try:
                grown = matching.broadcast(place.shape, value.shape)
                fits = (
                    grown is not None
                    and len(grown) == len(place.shape)
                    and all(
                        a == b or t.is_any(a) or t.is_any(b)
                        for a, b in zip(grown, place.shape, strict=True)
                    )
                )
            except matching.Mismatch:
                fits = False
            if fits:
                value = value.with_shape(place.shape)
        self.coerce(
            value,
            place,
            node.value.span,
            "the assigned value",
            Label(node.place.span, f"this is `{place}`"),
        )

    # --- control flow -------------------------------------------------------------------------

    def condition(self, node: s.Expr, scope: Scope) -> None:
        if isinstance(node, s.LetCondition):
            self.bind(node.pattern, self.expr(node.value), scope)
            return
        kind = self.expr(node)
        if isinstance(kind, t.Unknown):
            return
        if not isinstance(kind, t.Array) or t.kind_of(kind.element) not in ("bool", "any"):
            help = f"write `{node.span.text} != 0`" if isinstance(kind, t.Array) else ""
            raise fault(
                "N034",
                f"a condition is bool, not `{kind}`",
                node.span,
                f"this is `{kind}`",
                help=help,
            )
        if kind.shape:
            raise fault(
                "N034",
                f"a condition is one bool, not `{kind}`",
                node.span,
                f"this is `{kind}`",
                help="write `any(…)`, `all(…)`, or `where(condition, x, y)` elementwise",
            )

    def loop(self, node: s.LoopExpr | s.WhileExpr | s.ForExpr) -> t.Type:
        outer = self.scope
        self.scope = Scope(outer)
        self.loops.append([])
        try:
            if isinstance(node, s.WhileExpr):
                self.condition(node.condition, self.scope)
            if isinstance(node, s.ForExpr):
                self.bind(node.pattern, self.iterated(node.iterable), self.scope)
            self.expr(node.body, t.VOID)
        finally:
            self.scope = outer
            breaks = self.loops.pop()
        if not isinstance(node, s.LoopExpr):
            return t.VOID
        if not breaks:
            return t.NEVER
        result = breaks[0]
        for kind in breaks[1:]:
            result = matching.join(result, kind) or t.UNKNOWN
        return result

    def iterated(self, node: s.Expr) -> t.Type:
        kind = self.expr(node)
        if isinstance(kind, t.Range | t.Vec | t.Unknown):
            if isinstance(node, s.RangeExpr) and (node.start is None or node.stop is None):
                raise fault("N030", "a loop needs a range with both ends", node.span)
            return item_type(kind)
        if isinstance(kind, t.Array) and kind.shape != ():
            return item_type(kind)
        help = f"write `0..{node.span.text}`" if isinstance(kind, t.Array) else ""
        raise fault(
            "N030", f"`{kind}` cannot be iterated", node.span, f"this is `{kind}`", help=help
        )

    def jump(self, node: s.JumpExpr) -> t.Type:
        if node.kind == "return":
            if self.body.module.body is None and self.body.name == self.body.module.name:
                raise fault("N042", "`return` outside a function", node.span)
            kind = t.VOID if node.value is None else self.expr(node.value, self.body.declared)
            if self.body.declared is not None:
                span = node.span if node.value is None else node.value.span
                kind = self.coerce(kind, self.body.declared, span, "the returned value")
            self.body.returns.append(kind)
            return t.NEVER
        if not self.loops:
            raise fault("N042", f"`{node.kind}` outside a loop", node.span)
        if node.kind == "break":
            kind = t.VOID if node.value is None else self.expr(node.value)
            self.loops[-1].append(kind)
        return t.NEVER

    def try_expr(self, node: s.TryExpr) -> t.Type:
        kind = self.expr(node.operand)
        if isinstance(kind, t.Unknown):
            return kind
        if not isinstance(kind, t.Named) or kind.name not in ("Option", "Result"):
            raise fault("N042", f"`?` takes an Option or a Result, not `{kind}`", node.span)
        declared = self.body.declared
        if declared is not None and isinstance(declared, t.Named) and declared.item is kind.item:
            inner = kind.arguments[0]
            return inner if isinstance(inner, t.Type) else t.UNKNOWN
        raise fault(
            "N042",
            f"`?` needs a function that returns {kind.name}",
            node.span,
            help=f"declare `-> {kind.name}<…>`, or use `unwrap()`",
        )


def _bound(kind: t.Type) -> None:
    """A `let` fixes that a literal integer is an integer."""
    if isinstance(kind, t.Array):
        element = t.resolve(kind.element)
        if isinstance(element, t.Literal) and element.kind == "int":
            element.kind = "integer"
    elif isinstance(kind, t.Vec):
        _bound(kind.item)
    elif isinstance(kind, t.Tuple):
        for item in kind.items:
            _bound(item)


def _setting_size(value: object) -> t.Size | None:
    return t.Size(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _without_units(kind: t.Type) -> t.Type:
    """Values carry no units: the declared one is what they are taken to be in."""
    return t.Array(kind.element, kind.shape) if isinstance(kind, t.Array) else kind


def _filled(declared: t.Type, kind: t.Type) -> t.Type:
    """Return a declared type with what the value at hand decides."""
    if isinstance(declared, t.Unknown):
        return kind
    if isinstance(declared, t.Array) and isinstance(kind, t.Array) and not t.is_exact(declared):
        element = declared.element
        if isinstance(t.resolve(element), t.AnyElement):
            element = kind.element
        return t.Array(element, kind.shape, declared.unit)
    return declared if t.is_exact(declared) or not isinstance(declared, type(kind)) else kind


def _last_span(node: s.Expr) -> Span:
    """Return where a body's value stands; a block without one ends at its brace."""
    while isinstance(node, s.BlockExpr):
        if node.value is None:
            return Span(node.span.source, node.span.end - 1, node.span.end)
        node = node.value
    return node.span


def _key(kind: t.Type) -> object:
    """Return what tells types apart for instances: open literals by kind, callables by identity."""
    match kind:
        case t.Array(element, shape, unit):
            found = t.resolve(element)
            return (found.kind if isinstance(found, t.Literal) else found, shape, unit)
        case t.Tuple(items):
            return ("tuple", *map(_key, items))
        case t.Vec(item):
            return ("vec", _key(item))
        case t.Callee(_, target):
            return ("function", target)
        case _:
            return kind
