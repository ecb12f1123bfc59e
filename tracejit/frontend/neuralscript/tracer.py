"""Running a checked program over Tensors.

Values are lazy Tensors and known numbers; what needs a value (printing, ``if``) asks for it.
Inside ``jit`` the same run records a graph. Every error that rises through an expression is
shown at the innermost one, in the program's own text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tracejit.errors import TracejitError, UserError, ValueArgumentError
from tracejit.frontend.neuralscript import operations as ops
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript import units
from tracejit.frontend.neuralscript.builtins import BUILTINS, CONSTANTS
from tracejit.frontend.neuralscript.checker import Checker
from tracejit.frontend.neuralscript.diagnostics import Diagnostic, Fault, run_error
from tracejit.frontend.neuralscript.runs import array_function, tensor, transpose
from tracejit.frontend.neuralscript.scope import Module, VariantRef
from tracejit.frontend.neuralscript.source import Span
from tracejit.frontend.neuralscript.trace_calls import CallTracer
from tracejit.frontend.neuralscript.trace_control import Jump, purity
from tracejit.frontend.neuralscript.values import (
    Frame,
    FunctionValue,
    Struct,
    Variant,
    format_value,
    items_of,
)
from tracejit.tensor import Tensor
from tracejit.tracing import at, state

# Python errors that known numbers can raise, and what they mean in the program.
_NUMERIC_ERRORS = (ValueError, TypeError, OverflowError, ZeroDivisionError, IndexError)


class Tracer(CallTracer):
    """Runs bodies. One tracer a call or program; it is not shared between threads.

    ``folders`` resolve relative paths of ``load``, ``arguments`` is what ``args()`` gives, and
    ``write`` takes printed text.
    """

    def __init__(
        self,
        checker: Checker,
        folders: list[Path],
        arguments: list[str],
        write: Callable[[str], Any],
    ):
        super().__init__(checker, folders, arguments, write)
        self.constants: dict[int, Any] = {}

    def run_module(self, module: Module, settings: dict[str, Any], given: dict[str, Any]) -> Frame:
        """Run the top-level statements over the variables ``given``.

        ``settings`` replace constants and bindings by name.
        """
        assert module.body is not None
        self.body, self.frame, self.settings = module.body, Frame(), settings
        self.frame.names.update(given)
        with at(state.location):
            for statement in module.program.statements:
                self.statement(statement)
        return self.frame

    # --- evaluation ---------------------------------------------------------------------------

    def eval(self, node: s.Expr) -> Any:
        """Return the value of an expression. Errors: TracejitError shown at the expression."""
        try:
            return _RULES[type(node)](self, node)
        except Jump:
            raise
        except Fault as failure:
            raise self.shown(run_error(failure.diagnostic)) from None
        except UserError as error:
            raise self.located(error, node.span) from error
        except TracejitError:
            raise
        except RecursionError:
            item = Diagnostic(
                "N071", "the recursion is too deep", node.span, help="write it as a loop"
            )
            raise self.shown(run_error(item)) from None
        except _NUMERIC_ERRORS as error:
            wrapped = ValueArgumentError(str(error) or type(error).__name__)
            raise self.located(wrapped, node.span) from error

    def shown(self, error: TracejitError) -> TracejitError:
        """Mark an error as already shown in the program's text."""
        error.shown = True  # pyright: ignore[reportAttributeAccessIssue]
        return error

    def located(self, error: UserError, span: Span) -> TracejitError:
        """Return the error with its place in the program's text, once."""
        if getattr(error, "shown", False):
            return error
        item = Diagnostic("N070", error.message, span, help=error.hint or "")
        return self.shown(run_error(item, type(error)))

    def place(self, span: Span) -> None:
        """Give the nodes that follow the line of a span."""
        state.location = span.location(self.body.name)

    def number(self, node: s.NumberExpr, sign: int = 1) -> Any:
        kind = self.body.types.get(node)
        value: Any = sign * node.value
        if node.unit:
            factor, offset, _ = units.literal_unit(node.unit)
            return value * factor + offset
        if node.imaginary:
            value = complex(0.0, value)
        element = t.resolve(kind.element) if isinstance(kind, t.Array) else t.ANY_ELEMENT
        if isinstance(element, t.Prim):
            return ops.number(value, element.name, t.DTYPES[element.name])
        return float(value) if isinstance(element, t.Literal) and element.kind == "float" else value

    def format(self, node: s.FormatExpr) -> str:
        text = ""
        for piece in node.pieces:
            if isinstance(piece, str):
                text += piece
                continue
            value = self.eval(piece.value)
            kind = self.body.types.get(piece.value)
            unit = units.show_unit(kind.unit) if isinstance(kind, t.Array) else ""
            self.known(value, piece.span, "printing")
            text += format_value(value, piece.spec, unit)
        return text

    def name(self, node: s.NameExpr) -> Any:
        frame = self.frame.holder(node.name)
        if frame is not None:
            return frame.names[node.name]
        return self.global_value(node)

    def global_value(self, node: s.NameExpr) -> Any:
        name = node.name
        generic = self.body.generics.get(name)
        if isinstance(generic, t.Size):
            if not generic.known:
                raise ValueArgumentError(f"the size {name} is not known here")
            return generic.constant
        module = self.body.module
        if name in module.functions:
            return FunctionValue(module.functions[name])
        if name in module.constants:
            return self.constant(module, name)
        variant = self.checker.variant(None, name)
        if variant is not None:
            return self.variant(variant)
        if name in module.imports:
            return module.imports[name]
        if name in CONSTANTS:
            kind = self.body.types.get(node)
            element = t.resolve(kind.element) if isinstance(kind, t.Array) else t.ANY_ELEMENT
            if isinstance(element, t.Prim):
                return ops.number(CONSTANTS[name], element.name, t.DTYPES[element.name])
            return CONSTANTS[name]
        if name not in BUILTINS:
            raise ValueArgumentError(f"`{name}` has no value yet", hint="give it one in its `let`")
        return FunctionValue(BUILTINS[name])

    def variant(self, ref: VariantRef) -> Any:
        if ref.item.items:
            return FunctionValue(ref)
        return Variant(ref.owner.name, ref.item.name, ())

    def constant(self, module: Module, name: str) -> Any:
        ref = module.constants[name]
        if id(ref) not in self.constants:
            if name in self.settings and module.source is self.checker.main:
                self.constants[id(ref)] = self.adapt(self.settings[name], ref.type)
            else:
                body = module.body or self.body
                value = self.within(body, Frame(), lambda: self.eval(ref.item.value))
                self.constants[id(ref)] = self.adapt(value, ref.type)
        return self.constants[id(ref)]

    # --- operators ----------------------------------------------------------------------------

    def unary(self, node: s.UnaryExpr) -> Any:
        match node.operator, node.operand:
            case "-", s.NumberExpr(_, int(), _, False, "") as number:
                return self.number(number, -1)  # i8 has -128, but no 128
            case _:
                value = self.eval(node.operand)
        self.place(node.span)
        if node.operator == "-":
            return -value
        if node.operator == "!":
            return ops.negate(value)
        return self.run_builtin(BUILTINS[node.operator], {"x": value}, node)

    def binary(self, node: s.BinaryExpr) -> Any:
        spine: list[s.BinaryExpr] = [node]
        while isinstance(spine[-1].left, s.BinaryExpr):
            spine.append(spine[-1].left)
        value = self.eval(spine[-1].left)
        for item in reversed(spine):
            value = self.operate(item, value)
        return value

    def operate(self, node: s.BinaryExpr, left: Any) -> Any:
        """Apply one operator; ``&&`` and ``||`` of known values look at the right one last."""
        if node.operator in ("&&", "||") and not isinstance(left, Tensor):
            if bool(left) == (node.operator == "||"):
                return bool(left)
            return self.eval(node.right)
        right = self.eval(node.right)
        self.place(node.span)
        try:
            return ops.calculate(node.operator, left, right, self.integer(node))
        except UserError as error:
            raise self.located(error, node.span) from error

    def power(self, node: s.PowerExpr) -> Any:
        base = self.eval(node.base)
        self.place(node.span)
        if isinstance(base, int | np.integer) and node.exponent >= 0:
            return ops.calculate("^", base, node.exponent, self.integer(node))
        return ops.integer_power(base, node.exponent)

    def integer(self, node: s.Expr) -> str | None:
        """Return the element type of ``node`` if it is an integer's."""
        kind = self.body.types.get(node)
        element = t.default(kind.element) if isinstance(kind, t.Array) else None
        return element.name if isinstance(element, t.Prim) and t.kind_of(element) == "int" else None

    def transpose(self, node: s.TransposeExpr) -> Any:
        value = self.eval(node.operand)
        self.place(node.span)
        return transpose(value)

    def absolute(self, node: s.AbsExpr) -> Any:
        value = self.eval(node.operand)
        self.place(node.span)
        return self.run_builtin(BUILTINS["abs"], {"x": value}, node)

    def cast(self, node: s.CastExpr) -> Any:
        value = self.eval(node.operand)
        kind = self.body.types[node]
        self.place(node.span)
        return self.adapt(value, kind, convert=True)

    def adapt(self, value: Any, kind: t.Type | None, convert: bool = False) -> Any:
        """Give a known number (or, with ``convert``, an array) the element type of ``kind``."""
        if not isinstance(kind, t.Array):
            return value
        element = t.default(kind.element)
        if not isinstance(element, t.Prim) or (isinstance(value, Tensor) and not convert):
            return value
        if not isinstance(value, bool | int | float | complex | np.generic | Tensor | list):
            return value
        if isinstance(value, list) and not convert:
            return value  # pyright: ignore[reportUnknownVariableType]
        return ops.cast(value, element.name, t.DTYPES[element.name])

    def range(self, node: s.RangeExpr) -> range:
        start = 0 if node.start is None else self.eval(node.start)
        if node.stop is None:
            raise ValueArgumentError("this range has no end")
        stop = self.eval(node.stop)
        for value in (start, stop):
            self.known(value, node.span, "a range")
        return range(int(start), int(stop) + int(node.inclusive))

    def keys(self, base: Any, nodes: tuple[s.Expr, ...]) -> list[Any]:
        """Return index values; ranges become slices."""
        found: list[Any] = []
        for axis, node in enumerate(nodes):
            if not isinstance(node, s.RangeExpr):
                value = self.eval(node)
                found.append(tensor(value) if isinstance(value, list | range) else value)
                continue
            ends = [None if e is None else self.eval(e) for e in (node.start, node.stop, node.step)]
            for end in ends:
                self.known(end, node.span, "a slice")
            size = None
            if isinstance(base, Tensor):
                size = base.shape[axis] if axis < base.ndim else None
            elif isinstance(base, list | str):
                size = len(base)  # pyright: ignore[reportUnknownArgumentType]
            try:
                found.append(ops.bounds(ends[0], ends[1], node.inclusive, ends[2], size))
            except UserError as error:
                raise self.located(error, node.span) from error
        return found

    def index(self, node: s.IndexExpr) -> Any:
        base = self.eval(node.base)
        keys = self.keys(base, node.indices)
        self.place(node.span)
        return ops.index(base, keys)

    # --- collections --------------------------------------------------------------------------

    def array(self, node: s.ArrayExpr) -> Any:
        items = [self.eval(item) for item in node.items]
        return self.collected(node, items)

    def collected(self, node: s.ArrayExpr | s.RepeatExpr, items: list[Any]) -> Any:
        """Stack numbers and arrays to a tensor of the element type that checking found."""
        kind = self.body.types.get(node)
        if not isinstance(kind, t.Array):
            return items
        self.place(node.span)
        element = t.default(kind.element)
        dtype = t.DTYPES[element.name] if isinstance(element, t.Prim) else None
        if any(isinstance(item, Tensor) for item in items):
            parts = [
                tensor(item) if isinstance(item, Tensor) else tensor(item, dtype) for item in items
            ]
            return array_function("stack")(parts)
        return tensor(np.array(items, dtype=dtype))

    def repeat(self, node: s.RepeatExpr) -> Any:
        value, count = self.eval(node.value), self.eval(node.count)
        self.known(count, node.count.span, "a size")
        return self.collected(node, [value] * int(count))

    def reference(self, node: s.ReferenceExpr) -> Any:
        return self.eval(node.operand)

    def closure(self, node: s.ClosureExpr) -> Any:
        kind = self.body.types.get(node)
        target = kind.target if isinstance(kind, t.Callee) else None
        return FunctionValue(target, self.frame, self.body.callees.get(node))

    def struct(self, node: s.StructExpr) -> Any:
        kind = self.body.types[node]
        assert isinstance(kind, t.Named)
        assert isinstance(kind.item, s.StructItem)
        given = {item.name: self.eval(item.value) for item in node.fields}
        base: Any = None if node.base is None else self.eval(node.base)
        order = [entry.name for entry in kind.item.fields]
        values = {n: given[n] if n in given else base.fields[n] for n in order}
        for name in order:
            values[name] = self.adapt(values[name], self.checker_field(kind, name))
        return Struct(kind.item.name, values)

    def checker_field(self, kind: t.Named, name: str) -> t.Type | None:
        self.checker.module, self.checker.body = self.body.module, self.body
        return self.checker.field_type(kind, name)

    # --- control flow -------------------------------------------------------------------------

    def if_expr(self, node: s.IfExpr) -> Any:
        if isinstance(node.condition, s.LetCondition):
            value = self.eval(node.condition.value)
            inner = Frame(self.frame)
            if self.matches(node.condition.pattern, value, inner):
                return self.inside(inner, node.then)
            return None if node.otherwise is None else self.eval(node.otherwise)
        condition = self.eval(node.condition)
        if isinstance(condition, Tensor) and condition.traced_in is not None:
            return self.select(node, condition)
        if bool(condition):
            return self.eval(node.then)
        return None if node.otherwise is None else self.eval(node.otherwise)

    def select(self, node: s.IfExpr, condition: Tensor) -> Any:
        """Lower an `if` on a traced condition to a choice between two computed values."""
        why = "it has no `else`" if node.otherwise is None else None
        why = why or purity(node.then) or (node.otherwise and purity(node.otherwise))
        if why or node.otherwise is None:
            raise self.traced_fault(
                node.condition.span,
                f"this `if` depends on a traced value, and {why}",
                "make both arms plain values, `x = if c { a } else { b }`, or write "
                "`where(c, a, b)`",
            )
        one, two = self.eval(node.then), self.eval(node.otherwise)
        self.place(node.span)
        return ops.choose(condition, one, two)

    def match(self, node: s.MatchExpr) -> Any:
        subject = self.eval(node.subject)
        if isinstance(subject, Tensor):
            self.known(subject, node.subject.span, "`match`")
            subject = subject.item() if subject.ndim == 0 else subject
        for arm in node.arms:
            frame = Frame(self.frame)
            if not self.matches(arm.pattern, subject, frame):
                continue
            if arm.guard is not None and not self.inside(frame, arm.guard):
                continue
            return self.inside(frame, arm.body)
        raise ValueArgumentError(f"no arm matches {format_value(subject)}")

    def matches(self, pattern: s.Pattern, value: Any, frame: Frame) -> bool:
        """Bind a pattern; return whether the value fits it."""
        match pattern:
            case s.NamePattern(_, name):
                frame.names[name] = value
                return True
            case s.TuplePattern(_, items):
                values = items_of(value)
                return len(values) == len(items) and all(
                    self.matches(p, v, frame) for p, v in zip(items, values, strict=True)
                )
            case s.LiteralPattern(_, literal):
                return bool(value == self.eval(literal))
            case s.RangePattern(_, limits):
                return self.in_range(limits, value)
            case s.OrPattern(_, options):
                return any(self.matches(option, value, frame) for option in options)
            case s.VariantPattern(_, _, _, fields) if fields is not None:
                return all(self.matches(p, value.fields[n], frame) for n, p in fields)
            case s.VariantPattern(_, path, items):
                return value.variant == path[-1] and all(
                    self.matches(p, v, frame)
                    for p, v in zip(items or (), value.items, strict=False)
                )
            case _:
                return False

    def in_range(self, limits: s.RangeExpr, value: Any) -> bool:
        low = None if limits.start is None else self.eval(limits.start)
        high = None if limits.stop is None else self.eval(limits.stop)
        above = low is None or bool(value >= low)
        below = high is None or bool(value <= high if limits.inclusive else value < high)
        return above and below

    def try_expr(self, node: s.TryExpr) -> Any:
        value = self.eval(node.operand)
        if value.variant in ("Some", "Ok"):
            return value.items[0]
        raise Jump("return", value)

    def assign(self, node: s.AssignExpr) -> None:
        value = self.eval(node.value)
        if node.operator != "=":
            current = self.eval(node.place)
            self.place(node.span)
            value = ops.calculate(node.operator[0], current, value, self.integer(node.place))
        self.place(node.span)
        self.store(node.place, value)


def _error(tracer: Tracer, node: s.ErrorExpr) -> Any:
    raise ValueArgumentError("this expression could not be read")


_RULES: dict[type[s.Expr], Callable[[Any, Any], Any]] = {
    s.NumberExpr: Tracer.number,
    s.BoolExpr: lambda c, n: n.value,
    s.StringExpr: lambda c, n: n.value,
    s.FormatExpr: Tracer.format,
    s.NameExpr: Tracer.name,
    s.PathExpr: Tracer.path,
    s.UnaryExpr: Tracer.unary,
    s.BinaryExpr: Tracer.binary,
    s.PowerExpr: Tracer.power,
    s.TransposeExpr: Tracer.transpose,
    s.AbsExpr: Tracer.absolute,
    s.CastExpr: Tracer.cast,
    s.TryExpr: Tracer.try_expr,
    s.RangeExpr: Tracer.range,
    s.CallExpr: Tracer.call,
    s.MethodExpr: Tracer.method,
    s.FieldExpr: Tracer.field,
    s.IndexExpr: Tracer.index,
    s.TupleExpr: lambda c, n: tuple(c.eval(item) for item in n.items),
    s.ArrayExpr: Tracer.array,
    s.RepeatExpr: Tracer.repeat,
    s.StructExpr: Tracer.struct,
    s.ReferenceExpr: Tracer.reference,
    s.ClosureExpr: Tracer.closure,
    s.BlockExpr: Tracer.block,
    s.IfExpr: Tracer.if_expr,
    s.MatchExpr: Tracer.match,
    s.LoopExpr: Tracer.loop,
    s.WhileExpr: Tracer.loop,
    s.ForExpr: Tracer.for_loop,
    s.AssignExpr: Tracer.assign,
    s.JumpExpr: Tracer.jump,
    s.MacroExpr: Tracer.macro,
    s.ErrorExpr: _error,
}
