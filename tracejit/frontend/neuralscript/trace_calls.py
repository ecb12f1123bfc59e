"""Calls of a running program: functions, closures, builtins, methods, macros."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracejit.errors import ValueArgumentError
from tracejit.frontend.neuralscript import matching
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript.builtins import BUILTINS, EFFECTS, Builtin
from tracejit.frontend.neuralscript.check_calls import Arguments, bind_arguments
from tracejit.frontend.neuralscript.diagnostics import Fault, run_error
from tracejit.frontend.neuralscript.methods import find_method
from tracejit.frontend.neuralscript.prelude import prelude
from tracejit.frontend.neuralscript.runs import RUNS, TYPED, load, save, tensor
from tracejit.frontend.neuralscript.scope import (
    Body,
    ClosureRef,
    FunctionRef,
    Module,
    TypeRef,
    VariantRef,
)
from tracejit.frontend.neuralscript.source import Span
from tracejit.frontend.neuralscript.trace_control import ControlTracer, Jump
from tracejit.frontend.neuralscript.values import (
    NUMPY_SCALARS,
    Arrays,
    Frame,
    FunctionValue,
    Struct,
    Variant,
    format_value,
)
from tracejit.tensor import Tensor
from tracejit.tracing import at, state

_FIELDS = {"re": "re", "im": "im", "shape": "shape", "T": "transpose"}


class CallTracer(ControlTracer):
    """Everything that is called."""

    @abstractmethod
    def place(self, span: Span) -> None: ...

    @abstractmethod
    def variant(self, ref: VariantRef) -> Any: ...

    # --- types of values ----------------------------------------------------------------------

    def type_of(self, value: Any) -> t.Type:
        """Return the type of a value at hand."""
        match value:
            case Tensor():
                shape = tuple(t.Size(int(n)) for n in value.shape)
                if value.weak is not None:
                    kind = "complex" if value.weak is complex else "float"
                    return t.Array(t.Literal(kind), shape)
                return t.Array(t.Prim(t.ELEMENTS[str(value.dtype)]), shape)
            case bool():
                return t.BOOLEAN
            case int():
                return t.Array(t.Literal("int"))
            case _ if isinstance(value, NUMPY_SCALARS):
                return t.Array(t.Prim(t.ELEMENTS[str(value.dtype)]))
            case float():
                return t.Array(t.Literal("float"))
            case complex():
                return t.Array(t.Literal("complex"))
            case str():
                return t.TEXT
            case tuple():
                return t.Tuple(tuple(self.type_of(item) for item in value))  # pyright: ignore[reportUnknownVariableType]
            case list():
                return t.Vec(self.type_of(value[0]) if value else t.UNKNOWN)
            case range():
                return t.Range(t.Literal("integer"))
            case FunctionValue():
                return t.Callee(getattr(value.target, "name", "closure"), value.target)
            case Struct() | Variant():
                return self.named_type(value)
            case _:
                return t.UNKNOWN

    def named_type(self, value: Struct | Variant) -> t.Type:
        name = value.name if isinstance(value, Struct) else value.owner
        modules = (self.body.module, prelude(), *self.body.module.imports.values())
        refs: list[TypeRef] = [m.types[name] for m in modules if name in m.types]
        if not refs or isinstance(refs[0].item, s.AliasItem):
            return t.UNKNOWN
        item = refs[0].item
        found: t.Bindings = {}
        if isinstance(value, Struct) and isinstance(item, s.StructItem):
            self.checker.module, self.checker.body = self.body.module, self.body
            nodes = [entry.annotation for entry in item.fields]
            free = [generic.name for generic in item.generics]
            for entry, kind in zip(
                item.fields, self.checker.member_types(refs[0], nodes), strict=True
            ):
                if free:
                    matching.match_type(kind, self.type_of(value.fields[entry.name]), found, free)
        return t.Named(item, self.checker.named_arguments(item, found))

    # --- calls --------------------------------------------------------------------------------

    def call(self, node: s.CallExpr) -> Any:
        function = self.eval(node.function)
        return self.call_value(function, node, node.arguments)

    def call_value(self, function: Any, node: s.Expr, arguments: Arguments) -> Any:
        """Call a function value with arguments that are still to be evaluated."""
        if not isinstance(function, FunctionValue):
            raise ValueArgumentError(f"{format_value(function)} cannot be called")
        target = function.target
        match target:
            case FunctionRef():
                return self.call_function(target, node, arguments, None)
            case Builtin():
                return self.call_builtin(target, arguments, node)
            case VariantRef():
                items = tuple(self.eval(item.value) for item in arguments)
                return Variant(target.owner.name, target.item.name, items)
            case _:
                values = [self.eval(item.value) for item in arguments]
                return self.call_values(function, values, node)

    def call_values(self, function: FunctionValue, values: Sequence[Any], node: s.Expr) -> Any:
        """Call a function value with values."""
        target = function.target
        if isinstance(target, VariantRef):
            return Variant(target.owner.name, target.item.name, tuple(values))
        if isinstance(target, Builtin):
            return self.run_builtin(target, dict(zip(target.names, values, strict=False)), node)
        assert isinstance(target, FunctionRef | ClosureRef)
        body = self.body.callees.get(node)
        if body is None or body.ref is not target:
            body = function.body
        body = self.refined(target, body, values, node.span)
        item = target.item if isinstance(target, FunctionRef) else target.expr
        frame = Frame(function.scope)
        for parameter, value, kind in zip(item.parameters, values, body.parameters, strict=True):
            self.matches(parameter.pattern, self.adapt(value, kind), frame)
        return self.run_body(item.body, body, frame)

    def call_function(
        self, ref: FunctionRef, node: s.Expr, arguments: Arguments, receiver: s.Expr | None
    ) -> Any:
        """Bind arguments, run the body, and write ``&mut`` parameters back to their places."""
        parameters = ref.item.parameters
        names = [parameter.name for parameter in parameters]
        optional = frozenset(p.name for p in parameters if p.default is not None)
        nodes: dict[str, s.Expr] = {}
        if receiver is not None:
            nodes, names = {"self": receiver}, names[1:]
        nodes |= bind_arguments(ref.name, names, optional, arguments, node.span)
        values = {name: self.eval(value) for name, value in nodes.items()}
        for parameter in parameters:
            if parameter.name not in values:
                assert parameter.default is not None
                values[parameter.name] = self.eval(parameter.default)
        ordered = [values[parameter.name] for parameter in parameters]
        body = self.body.callees.get(node)
        body = self.refined(ref, body, ordered, node.span)
        frame = Frame()
        for parameter, value, kind in zip(parameters, ordered, body.parameters, strict=True):
            self.matches(parameter.pattern, self.adapt(value, kind), frame)
        result = self.run_body(ref.item.body, body, frame)
        for parameter in parameters:
            annotation = parameter.annotation
            if isinstance(annotation, s.ReferenceType) and annotation.mutable:
                self.store(nodes[parameter.name], frame.names[parameter.name])
        return result

    def call_ref(self, ref: FunctionRef, values: Sequence[Any]) -> Any:
        """Call a function with values in the order of its parameters: the entry from outside."""
        with at(state.location):
            span = ref.item.name_span
            body = self.refined(ref, None, values, span)
            frame = Frame()
            pairs = zip(ref.item.parameters, values, body.parameters, strict=True)
            for parameter, value, kind in pairs:
                self.matches(parameter.pattern, self.adapt(value, kind), frame)
            return self.run_body(ref.item.body, body, frame)

    def refined(
        self, ref: FunctionRef | ClosureRef, body: Body | None, values: Sequence[Any], span: Span
    ) -> Body:
        """Return a body that is checked for these values, where types were left open."""
        if body is not None and body.exact and body.ref is ref:
            return body
        before = len(self.checker.diagnostics)
        kinds = tuple(self.type_of(value) for value in values)
        if body is not None and body.ref is ref:
            kinds = tuple(_merged(a, b) for a, b in zip(body.parameters, kinds, strict=True))
        try:
            found = self.checker.instance_for_values(ref, kinds)
        except Fault as failure:
            raise self.shown(run_error(failure.diagnostic)) from None
        errors = [item for item in self.checker.diagnostics[before:] if item.is_error]
        if errors:
            del self.checker.diagnostics[before:]
            self.checker.instances = {
                k: v for k, v in self.checker.instances.items() if v is not found
            }
            self.checker.seen -= {(item.code, item.span) for item in errors}
            raise self.shown(run_error(errors[0]))
        return found

    def run_body(self, node: s.Expr, body: Body, frame: Frame) -> Any:
        def run() -> Any:
            try:
                value = self.eval(node)
            except Jump as jump:
                if jump.kind != "return":
                    raise
                value = jump.value
            return self.adapt(value, body.result)

        return self.within(body, frame, run)

    # --- builtins -----------------------------------------------------------------------------

    def call_builtin(self, row: Builtin, arguments: Arguments, node: s.Expr) -> Any:
        arguments = self.checker.spread(row, arguments)
        optional = frozenset(p.rstrip("?") for p in row.parameters if p.endswith("?"))
        bound = bind_arguments(row.name, row.names, optional, arguments, node.span)
        values = {name: self.eval(value) for name, value in bound.items()}
        self.place(node.span)
        return self.run_builtin(row, values, node)

    def run_builtin(self, row: Builtin, values: dict[str, Any], node: s.Expr) -> Any:
        if row.name in EFFECTS:
            return self.effect(row.name, values, node)
        if row.name in TYPED:
            values = {**values, "dtype": self.element_dtype(node)}
        for name in ("axis", "keepdims", "shape", "classes", "count", "n"):
            if name in values:
                self.known(values[name], node.span, f"`{name}`")
        return RUNS[row.name](**values)

    def element_dtype(self, node: s.Expr) -> str:
        kind = self.body.types.get(node)
        element = t.default(kind.element) if isinstance(kind, t.Array) else None
        return t.DTYPES[element.name] if isinstance(element, t.Prim) else "float64"

    def effect(self, name: str, values: dict[str, Any], node: s.Expr) -> Any:
        """Run a builtin that reads, writes or shows."""
        self.outside(f"`{name}`", node.span)
        match name:
            case "load":
                return load(str(values["path"]), self.folders)
            case "save":
                return save(str(values["path"]), values["value"], self.folders[-1])
            case "print":
                kind = None
                if isinstance(node, s.CallExpr) and node.arguments:
                    kind = self.body.types.get(node.arguments[0].value)
                return self.write(self.text(values["value"], kind) + "\n")
            case "args":
                return list(self.arguments)
            case _:
                return RUNS[name]()

    def text(self, value: Any, kind: t.Type | None) -> str:
        from tracejit.frontend.neuralscript.units import show_unit

        return format_value(value, "", show_unit(kind.unit) if isinstance(kind, t.Array) else "")

    def outside(self, what: str, span: Span) -> None:
        """Refuse an effect inside a traced function: it would happen once, not at each call."""
        if state.trace is not None:
            raise self.traced_fault(
                span,
                f"{what} inside a traced function happens once, not at each call",
                "do it at program level",
            )

    # --- methods, fields, paths ---------------------------------------------------------------

    def method(self, node: s.MethodExpr) -> Any:
        receiver = self.eval(node.receiver)
        if isinstance(receiver, Module):
            return self.call_value(
                FunctionValue(receiver.functions[node.name]), node, node.arguments
            )
        kind = self.type_of(receiver)
        self.checker.module = self.body.module
        owner = self.checker.owner_of(kind)
        if owner is not None and node.name in owner.functions:
            return self.call_function(
                owner.functions[node.name], node, node.arguments, node.receiver
            )
        if isinstance(receiver, Struct) and node.name in receiver.fields:
            return self.call_value(receiver.fields[node.name], node, node.arguments)
        if isinstance(receiver, Arrays) and node.name in receiver:
            raise ValueArgumentError(f"`{node.name}` is an array, not a function")
        found = find_method(kind, node.name)
        numeric = isinstance(kind, t.Array)
        if node.name in BUILTINS and (numeric or found is None):
            first = s.Argument(node.receiver.span, None, node.receiver)
            return self.call_builtin(BUILTINS[node.name], (first, *node.arguments), node)
        if found is None:
            raise ValueArgumentError(f"`{kind}` has no method `{node.name}`")
        values = [self.eval(item.value) for item in node.arguments]

        def apply(index: int, items: Sequence[Any]) -> Any:
            return self.call_values(values[index], items, node.arguments[index].value)

        return found.run(receiver, values, apply)

    def field(self, node: s.FieldExpr) -> Any:
        base = self.eval(node.base)
        match base:
            case Struct():
                return base.fields[node.name]
            case tuple():
                return base[int(node.name)]  # pyright: ignore[reportUnknownVariableType]
            case Arrays():
                return base[node.name]
            case Module():
                return FunctionValue(base.functions[node.name])
            case _ if node.name in _FIELDS:
                return self.run_builtin(BUILTINS[_FIELDS[node.name]], {"x": base}, node)
            case _:
                raise ValueArgumentError(f"this has no field `{node.name}`")

    def path(self, node: s.PathExpr) -> Any:
        kind = self.body.types.get(node)
        if isinstance(kind, t.Callee):
            return FunctionValue(kind.target)
        if isinstance(kind, t.Function):
            return FunctionValue(_NEW_VEC)
        first, last = node.parts[-2], node.parts[-1]
        if first == "Self" and isinstance(self.body.self_type, t.Named):
            first = self.body.self_type.name
        self.checker.module = self.body.module
        ref = self.checker.variant(first, last)
        if ref is None:
            raise ValueArgumentError(f"unknown name `{'::'.join(node.parts)}`")
        return self.variant(ref)

    # --- macros -------------------------------------------------------------------------------

    def macro(self, node: s.MacroExpr) -> Any:
        if node.name in ("println", "print", "eprintln"):
            self.outside(f"`{node.name}!`", node.span)
            text = str(self.eval(node.arguments[0])) if node.arguments else ""
            self.write(text if node.name == "print" else text + "\n")
            return None
        if node.name == "format":
            return self.eval(node.arguments[0])
        if node.name == "panic":
            message = str(self.eval(node.arguments[0])) if node.arguments else "panic"
            raise ValueArgumentError(message)
        if node.name == "assert_eq":
            return self.assert_equal(node)
        value = self.eval(node.arguments[0])
        self.known(value, node.span, "`assert!`")
        if not bool(value):
            text = f"assertion failed: {node.arguments[0].span.text}"
            if len(node.arguments) > 1:
                text += f": {self.eval(node.arguments[1])}"
            raise ValueArgumentError(text)
        return None

    def assert_equal(self, node: s.MacroExpr) -> None:
        one, two = (self.eval(item) for item in node.arguments)
        for value in (one, two):
            self.known(value, node.span, "`assert_eq!`")
        same: Any = one == two
        if isinstance(one, Tensor) or isinstance(two, Tensor):
            first, second = tensor(one).numpy(), tensor(two).numpy()
            same = first.shape == second.shape and bool(np.all(first == second))
        if not same:
            raise ValueArgumentError(
                f"assertion failed: {format_value(one)} is not {format_value(two)}"
            )


def _new_vec_rule(_: Any) -> t.Type:
    return t.Vec(t.UNKNOWN)


_NEW_VEC = Builtin("Vec::new", (), _new_vec_rule, "", "", "an empty Vec")
RUNS["Vec::new"] = lambda: list[Any]()


def _merged(known: t.Type, actual: t.Type) -> t.Type:
    """Fill what a type leaves open from the value; units come from the type."""
    if isinstance(known, t.Array) and isinstance(actual, t.Array):
        return t.Array(actual.element, actual.shape, known.unit)
    return actual if not t.is_exact(known) else known
