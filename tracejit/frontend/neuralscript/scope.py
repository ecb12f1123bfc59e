"""Names and what they stand for while checking: modules, scopes, and checked bodies."""

from __future__ import annotations

from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript.source import Source, Span
from tracejit.frontend.neuralscript.types import Bindings, Size, Type
from tracejit.record import field, record


@record(eq=False)
class Binding:
    """A variable: its type, where it was bound, its value as a size where that is known."""

    type: Type
    span: Span
    mutable: bool = False
    size: Size | None = None


class Scope:
    """The variables of one block; ``parent`` is the block around it."""

    def __init__(self, parent: Scope | None = None):
        self.parent = parent
        self.names: dict[str, Binding] = {}

    def find(self, name: str) -> Binding | None:
        scope: Scope | None = self
        while scope is not None:
            found = scope.names.get(name)
            if found is not None:
                return found
            scope = scope.parent
        return None

    def visible(self) -> set[str]:
        """Return all names that can be used here."""
        names: set[str] = set()
        scope: Scope | None = self
        while scope is not None:
            names |= set(scope.names)
            scope = scope.parent
        return names


@record(eq=False)
class Module:
    """One file: its items by name. ``imports`` are modules bound by ``use name``."""

    name: str
    source: Source
    program: s.Program
    functions: dict[str, FunctionRef] = field(default_factory=dict[str, "FunctionRef"])
    types: dict[str, TypeRef] = field(default_factory=dict[str, "TypeRef"])
    constants: dict[str, ConstRef] = field(default_factory=dict[str, "ConstRef"])
    imports: dict[str, Module] = field(default_factory=dict[str, "Module"])
    body: Body | None = None


@record(eq=False)
class FunctionRef:
    """A function of a module; ``self_type`` holds the generics of its impl block."""

    module: Module
    item: s.FunctionItem
    owner: TypeRef | None = None

    @property
    def name(self) -> str:
        return self.item.name if self.owner is None else f"{self.owner.name}::{self.item.name}"


@record(eq=False)
class ClosureRef:
    """A closure with the scope that it captures."""

    expr: s.ClosureExpr
    scope: Scope
    body: Body

    @property
    def name(self) -> str:
        return "closure"


@record(eq=False)
class VariantRef:
    """A constructor of an enum."""

    owner: TypeRef
    item: s.VariantItem

    @property
    def name(self) -> str:
        return f"{self.owner.name}::{self.item.name}"


@record(eq=False)
class ConstRef:
    module: Module
    item: s.ConstItem
    type: Type | None = None
    size: Size | None = None
    checking: bool = False


@record(eq=False)
class TypeRef:
    """A struct, enum or alias with the functions of its impl blocks."""

    module: Module
    item: s.StructItem | s.EnumItem | s.AliasItem
    functions: dict[str, FunctionRef] = field(default_factory=dict[str, FunctionRef])

    @property
    def name(self) -> str:
        return self.item.name


@record(eq=False)
class Body:
    """What checking found out about one function, closure or program for given types.

    ``types`` holds the type of each expression, ``callees`` the body that each call runs,
    ``generics`` what the generic parameters stand for. ``exact`` says that nothing is left to
    tracing. ``done`` is false while the body is being checked (a recursive call finds it so).
    ``ref`` is the function or closure that the body belongs to.
    """

    name: str
    module: Module
    generics: Bindings
    parameters: tuple[Type, ...] = ()
    result: Type | None = None
    declared: Type | None = None
    self_type: Type | None = None
    types: dict[s.Syntax, Type] = field(default_factory=dict[s.Syntax, Type])
    callees: dict[s.Syntax, Body] = field(default_factory=dict[s.Syntax, "Body"])
    exact: bool = True
    done: bool = False
    returns: list[Type] = field(default_factory=list[Type])
    ref: object = None
