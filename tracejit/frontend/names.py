"""Names for messages: of functions, of their places, of their arguments."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from tracejit.errors import Location


def name_of(function: Callable[..., Any]) -> str:
    """Return the function's name; a callable object goes by its class's."""
    return getattr(function, "__name__", type(function).__name__)


def is_found(function: Callable[..., Any]) -> bool:
    """Return whether the function's module has it under its qualified name."""
    found: Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is function


def definition(function: Callable[..., Any]) -> Location | None:
    """Return where a Python function is defined."""
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    return Location(code.co_filename, code.co_firstlineno, code.co_qualname)


def parameter(function: Callable[..., Any], path: str) -> str:
    """Return the reader's name for a path into ``(args, kwargs)``: ``[0][1]['w']`` → b['w']."""
    if path.startswith("[1]["):
        name, _, rest = path[4:].partition("]")
        return name.strip("'") + rest
    number, _, rest = path[4:].partition("]")
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    index = int(number)
    return (names[index] if index < len(names) else f"number {index}") + rest
