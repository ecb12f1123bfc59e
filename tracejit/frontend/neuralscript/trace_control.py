"""Statements, blocks and loops of a running program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

from tracejit.errors import TracejitError, ValueArgumentError
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript.builtins import EFFECTS
from tracejit.frontend.neuralscript.checker import Checker
from tracejit.frontend.neuralscript.diagnostics import Diagnostic, run_error
from tracejit.frontend.neuralscript.scope import Body, FunctionRef, Scope
from tracejit.frontend.neuralscript.source import Span
from tracejit.frontend.neuralscript.values import Frame, FunctionValue, items_of
from tracejit.graph.graph import reachable
from tracejit.graph.node import data
from tracejit.tensor import Tensor, wrap
from tracejit.tracing import state

# A loop inside a traced function is unrolled; more turns than this would take minutes.
UNROLL_LIMIT = 20_000


class Jump(Exception):
    """``return``, ``break`` or ``continue`` on its way to where it leads. Internal."""

    def __init__(self, kind: str, value: Any = None):
        super().__init__(kind)
        self.kind = kind
        self.value = value


def purity(node: s.Syntax) -> str | None:
    """Return why an arm of a traced `if` is not a plain value, or None."""
    stack: list[s.Syntax] = [node]
    while stack:
        item = stack.pop()
        match item:
            case s.AssignExpr():
                return "an arm assigns"
            case s.JumpExpr():
                return f"an arm has a `{item.kind}`"
            case s.MacroExpr() | s.TryExpr():
                return "an arm does more than compute"
            case s.ReferenceExpr() if item.mutable:
                return "an arm changes a variable"
            case s.CallExpr(_, s.NameExpr(_, name)) if name in EFFECTS:
                return f"an arm calls `{name}`"
            case s.BlockExpr(_, _, None):
                return "an arm has no value"
            case _:
                pass
        if not isinstance(item, s.ClosureExpr):
            stack.extend(item.children())
    return None


@lru_cache(maxsize=4096)
def assigned_names(node: s.Syntax) -> frozenset[str]:
    """Return the variables that a loop body assigns."""
    found: set[str] = set()
    stack: list[s.Syntax] = [node]
    while stack:
        item = stack.pop()
        place: s.Syntax | None = None
        if isinstance(item, s.AssignExpr):
            place = item.place
        elif isinstance(item, s.ReferenceExpr) and item.mutable:
            place = item.operand
        while isinstance(place, s.IndexExpr | s.FieldExpr):
            place = place.base
        if isinstance(place, s.NameExpr):
            found.add(place.name)
        stack.extend(item.children())
    return frozenset(found)


class ControlTracer(ABC):
    """The state of a run (body and frame), and everything that moves through it."""

    body: Body
    frame: Frame

    def __init__(
        self,
        checker: Checker,
        folders: list[Path],
        arguments: list[str],
        write: Callable[[str], Any],
    ):
        self.checker = checker
        self.folders = folders
        self.arguments = arguments
        self.write = write
        self.settings: dict[str, Any] = {}

    @abstractmethod
    def eval(self, node: s.Expr) -> Any: ...

    @abstractmethod
    def adapt(self, value: Any, kind: t.Type | None, convert: bool = False) -> Any: ...

    @abstractmethod
    def matches(self, pattern: s.Pattern, value: Any, frame: Frame) -> bool: ...

    @abstractmethod
    def keys(self, base: Any, nodes: tuple[s.Expr, ...]) -> list[Any]: ...

    @abstractmethod
    def shown(self, error: TracejitError) -> TracejitError: ...

    def within(self, body: Body, frame: Frame, run: Callable[[], Any]) -> Any:
        """Run something in another body and frame."""
        saved = self.body, self.frame
        self.body, self.frame = body, frame
        try:
            return run()
        finally:
            self.body, self.frame = saved

    def inside(self, frame: Frame, node: s.Expr) -> Any:
        saved, self.frame = self.frame, frame
        try:
            return self.eval(node)
        finally:
            self.frame = saved

    def traced_fault(self, span: Span, message: str, help: str) -> TracejitError:
        return self.shown(
            run_error(
                Diagnostic(
                    "N061", message, span, "known only when the compiled function runs", help=help
                )
            )
        )

    def known(self, value: Any, span: Span, what: str) -> None:
        """Refuse a traced value where a known one is needed."""
        if isinstance(value, Tensor) and value.traced_in is not None:
            raise self.traced_fault(
                span,
                f"{what} needs a value that is being traced",
                "do it at program level, or return the value",
            )

    # --- statements ---------------------------------------------------------------------------

    def statement(self, node: s.Syntax) -> None:
        match node:
            case s.LetStatement():
                self.let(node)
            case s.ExprStatement(_, value):
                self.eval(value)
            case s.FunctionItem() if self.frame.parent is not None:
                ref = FunctionRef(self.body.module, node)
                self.frame.names[node.name] = FunctionValue(ref)
            case s.ConstItem() if self.frame.parent is not None:
                self.frame.names[node.name] = self.eval(node.value)
            case _:
                pass

    def let(self, node: s.LetStatement) -> None:
        name = node.pattern.name if isinstance(node.pattern, s.NamePattern) else ""
        if node.value is None:
            return
        if name in self.settings and self.frame.parent is None:
            kind = self.body.types.get(node.value)
            self.frame.names[name] = self.adapt(self.settings[name], kind)
            return
        value = self.eval(node.value)
        if node.annotation is not None:
            self.checker.module, self.checker.body = self.body.module, self.body
            kind = self.checker.type(node.annotation)
            self.check_annotation(value, kind, node)
            value = self.adapt(value, kind)
        if isinstance(value, Tensor) and isinstance(node.pattern, s.NamePattern):
            value = copy(value) if node.pattern.mutable else value
        if not self.matches(node.pattern, value, self.frame):
            raise self.shown(
                run_error(
                    Diagnostic("N043", "the pattern does not fit the value", node.pattern.span)
                )
            )

    def check_annotation(self, value: Any, kind: t.Type, node: s.LetStatement) -> None:
        """Check what was unknown before running (a loaded array) against its annotation."""
        assert node.value is not None
        assert node.annotation is not None
        if t.is_exact(self.body.types.get(node.value, t.UNKNOWN)):
            return
        if isinstance(kind, t.Array) and isinstance(value, Tensor):
            bare = t.Array(kind.element, kind.shape)
            self.checker.scope = Scope()
            self.checker.coerce(self.type_of(value), bare, node.value.span, "the value")

    @abstractmethod
    def type_of(self, value: Any) -> t.Type: ...

    def block(self, node: s.BlockExpr) -> Any:
        outer = self.frame
        self.frame = Frame(outer)
        try:
            for statement in node.statements:
                self.statement(statement)
            return None if node.value is None else self.eval(node.value)
        finally:
            self.frame = outer

    def jump(self, node: s.JumpExpr) -> Any:
        raise Jump(node.kind, None if node.value is None else self.eval(node.value))

    # --- loops --------------------------------------------------------------------------------

    def turn(self, body: s.BlockExpr, frame: Frame, count: int, span: Span) -> Jump | None:
        """Run a loop's body once; return the jump that ends the loop, if any."""
        if state.trace is not None and count > UNROLL_LIMIT:
            item = Diagnostic(
                "N071",
                f"a traced loop of more than {UNROLL_LIMIT} turns",
                span,
                help="move the loop to program level, where each turn is run",
            )
            raise self.shown(run_error(item))
        try:
            self.inside(frame, body)
        except Jump as jump:
            if jump.kind == "break" or jump.kind == "return":
                return jump
        if state.trace is None:
            self.settle(body)
        return None

    def settle(self, body: s.BlockExpr) -> None:
        """Compute the loop's state at the end of a turn.

        Each turn then is the same graph, compiled once, and the graph does not grow.
        """
        from tracejit.runtime import demand

        found: dict[str, Tensor] = {}
        for name in sorted(assigned_names(body)):
            frame = self.frame.holder(name)
            value = None if frame is None else frame.names[name]
            if not isinstance(value, Tensor) or value.traced_in is not None:
                continue
            if value.node.op.name != "data":
                found[name] = value
        if len(found) == 1:
            next(iter(found.values())).numpy()
        elif found:
            # All in one run: what two of them share is computed once.
            nodes = [value.node for value in found.values()]
            arrays = demand.evaluate(nodes, reachable(nodes))
            for name, array in zip(found, arrays, strict=True):
                frame = self.frame.holder(name)
                assert frame is not None
                frame.names[name] = wrap(data(array))

    def loop(self, node: s.LoopExpr | s.WhileExpr) -> Any:
        count = 0
        while True:
            frame = Frame(self.frame)
            if isinstance(node, s.WhileExpr) and not self.holds(node.condition, frame):
                return None
            count += 1
            jump = self.turn(node.body, frame, count, node.span)
            if jump is not None:
                if jump.kind == "return":
                    raise jump
                return jump.value

    def holds(self, condition: s.Expr, frame: Frame) -> bool:
        if isinstance(condition, s.LetCondition):
            return self.matches(condition.pattern, self.eval(condition.value), frame)
        value = self.eval(condition)
        if isinstance(value, Tensor) and value.traced_in is not None:
            raise self.traced_fault(
                condition.span,
                "this `while` depends on a traced value",
                "use `for` with a fixed number of turns and `where`, or loop at program level",
            )
        return bool(value)

    def for_loop(self, node: s.ForExpr) -> None:
        iterable = self.eval(node.iterable)
        items = iterable if isinstance(iterable, range) else items_of(iterable)
        for count, item in enumerate(items):
            frame = Frame(self.frame)
            if not self.matches(node.pattern, item, frame):
                raise ValueArgumentError("the loop's pattern does not fit the item")
            jump = self.turn(node.body, frame, count, node.span)
            if jump is not None:
                if jump.kind == "return":
                    raise jump
                return

    # --- places -------------------------------------------------------------------------------

    def store(self, place: s.Expr, value: Any) -> None:
        """Assign to a variable, field or element. Arrays and structs are values: a new one."""
        match place:
            case s.NameExpr(_, name):
                frame = self.frame.holder(name)
                assert frame is not None
                frame.names[name] = self.adapt(value, self.body.types.get(place))
            case s.FieldExpr(_, base, name):
                whole = self.eval(base)
                if isinstance(whole, tuple):
                    items: list[Any] = [*whole]
                    items[int(name)] = value
                    self.store(base, tuple(items))
                    return
                self.store(base, whole.with_field(name, value))
            case s.IndexExpr(_, base, indices):
                self.store_element(base, indices, value)
            case s.ReferenceExpr(_, operand):
                self.store(operand, value)
            case _:
                raise ValueArgumentError("this is not a place that can be assigned")

    def store_element(self, base: s.Expr, indices: tuple[s.Expr, ...], value: Any) -> None:
        whole = self.eval(base)
        keys = self.keys(whole, indices)
        if isinstance(whole, list):
            whole[keys[0] if isinstance(keys[0], slice) else int(keys[0])] = value
            return
        changed = copy(whole)
        changed[tuple(keys)] = value
        self.store(base, changed)
