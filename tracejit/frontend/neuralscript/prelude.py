"""Option and Result: ordinary enums, written in the language itself."""

from __future__ import annotations

from functools import cache

from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript.parser import parse
from tracejit.frontend.neuralscript.scope import Module, TypeRef
from tracejit.frontend.neuralscript.source import Source

_TEXT = """
enum Option<T> { Some(T), None }
enum Result<T, E> { Ok(T), Err(E) }
"""


@cache
def prelude() -> Module:
    """Return the module whose names every program sees."""
    source = Source(_TEXT, "<prelude>")
    program, diagnostics = parse(source)
    assert not diagnostics
    module = Module("prelude", source, program)
    for item in program.statements:
        assert isinstance(item, s.EnumItem)
        module.types[item.name] = TypeRef(module, item)
    return module


def option_of(kind: t.Type) -> t.Type:
    """Return ``Option<kind>``."""
    item = prelude().types["Option"].item
    assert isinstance(item, s.EnumItem)
    return t.Named(item, (kind,))
