"""Side effects that a trace would swallow.

A traced function runs once; the compiled form repeats its array computations and nothing else.
What this module finds is refused at the first call, before the first wrong answer: a tracer that
was stored in a global, a closure, an attribute or an outer container, and containers or objects
among the arguments that the function changed.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

from tracejit.errors import Location, TraceError
from tracejit.frontend.names import parameter
from tracejit.frontend.outside import codes
from tracejit.frontend.trees import Tree, flatten, paths, statics
from tracejit.tensor import Tensor
from tracejit.tracing import Trace

# How much of an outer container is looked through for tracers, from its newest end.
_LOOKED_AT = 256


def check_effects(
    function: Callable[..., Any],
    trace: Trace,
    tree: Tree,
    handles: Sequence[Tensor],
    arguments: Any,
    result: Any,
    bindings: Mapping[str, Any],
) -> None:
    """Raise TraceError where the run of ``function`` did something that will not repeat.

    ``bindings`` are the ``outer_bindings`` from before the run.
    """
    if inspect.isgenerator(result) or inspect.iscoroutine(result):
        raise TraceError(
            f"{trace.name} returns a generator, which runs after the trace has ended",
            hint="return a list or a tuple",
            loc=trace.loc,
        )
    _check_arguments(function, trace, tree, handles, arguments)
    for name, holder, value in _outside(function):
        found = next(_tracers(value, trace), None)
        if found is not None:
            raise TraceError(
                f"{trace.name} stores a traced tensor in {holder} {name!r}; "
                "that happens while tracing and never again",
                hint=f"return the value from {trace.name} and store it outside",
                loc=_store_line(function, name) or found.node.loc or trace.loc,
            )
    for name, value in outer_bindings(function).items():
        # From nothing to something is a table made on first use: right to happen once.
        if bindings.get(name) is not None and bindings[name] is not value:
            raise TraceError(
                f"{trace.name} assigns the outer variable {name!r}; "
                "that happens while tracing and never again",
                hint=f"return the new value from {trace.name} and assign it outside",
                loc=_store_line(function, name) or trace.loc,
            )


def outer_bindings(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the values of the globals and closure variables that ``function`` assigns."""
    plain = inspect.unwrap(function)
    if not isinstance(plain, FunctionType):
        return {}
    assigned = _assigned(plain.__code__)
    if not assigned:
        return {}
    return {name: value for name, _, value in _outside(plain) if name in assigned}


@lru_cache(maxsize=1024)
def _assigned(code: CodeType) -> frozenset[str]:
    """Return the globals and closure variables that ``code`` assigns."""
    return frozenset(
        instruction.argval
        for inner in codes(code)
        for instruction in dis.get_instructions(inner)
        if instruction.opname in ("STORE_GLOBAL", "STORE_DEREF")
    )


def _check_arguments(
    function: Callable[..., Any],
    trace: Trace,
    tree: Tree,
    handles: Sequence[Tensor],
    arguments: Any,
) -> None:
    # A traced float is a tensor here: a float that is one was put there, or is static.
    leaves, after = flatten(arguments, static_floats=True)
    same = len(leaves) == len(handles) and all(
        a is b for a, b in zip(leaves, handles, strict=False)
    )
    if same and after == tree:
        return
    path = _difference(tree, after, handles, leaves)
    where = "the structure of its arguments" if path is None else parameter(function, path)
    raise TraceError(
        f"{trace.name} changes {where}; the change would happen while tracing and never again",
        hint="return the new value, or change an array in place (x[...] = value)",
        loc=_change_line(leaves, handles) or trace.loc,
    )


def _difference(
    tree: Tree, after: Tree, handles: Sequence[Any], leaves: Sequence[Any]
) -> str | None:
    """Return the path of the first part of the arguments that is not what it was."""
    before_paths, after_paths = paths(tree), paths(after)
    for path, old, new_path, new in zip(before_paths, handles, after_paths, leaves, strict=False):
        if path != new_path or old is not new:
            return new_path
    before, now = dict(statics(tree)), dict(statics(after))
    for path, value in now.items():
        if path not in before or (before[path] is not value and before[path] != value):
            return path
    extra = (*after_paths[len(before_paths) :], *before_paths[len(after_paths) :])
    return extra[0] if extra else None


def _change_line(leaves: Sequence[Any], handles: Sequence[Tensor]) -> Location | None:
    known = {id(handle) for handle in handles}
    for leaf in leaves:
        if isinstance(leaf, Tensor) and id(leaf) not in known:
            return leaf.node.loc
    return None


def _outside(function: Callable[..., Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield ``(name, kind of holder, value)`` of what the function can reach by name."""
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType):
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, "the enclosing variable", cell.cell_contents
        except ValueError:  # not yet bound
            continue
    names = dict.fromkeys(n for code in codes(function.__code__) for n in code.co_names)
    for name in names:
        if name in function.__globals__:
            yield name, "the global", function.__globals__[name]


def _tracers(value: Any, trace: Trace) -> Iterator[Tensor]:
    """Yield the tensors of ``trace`` in ``value``, in its items, and in its attributes."""
    for item in (value, *_items(value)):
        if isinstance(item, Tensor) and item.traced_in is trace:
            yield item


def _items(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(cast("Sequence[Any]", value)[-_LOOKED_AT:])
    if isinstance(value, dict):
        table = cast("dict[Any, Any]", value)
        return [v for _, v in zip(range(_LOOKED_AT), reversed(table.values()), strict=False)]
    if isinstance(value, (set, frozenset)):
        return [v for _, v in zip(range(_LOOKED_AT), cast("set[Any]", value), strict=False)]
    if isinstance(value, (ModuleType, type, FunctionType, Tensor)):
        return []
    return list(getattr(value, "__dict__", {}).values())[-_LOOKED_AT:]


def _store_line(function: Callable[..., Any], name: str) -> Location | None:
    """Return the line that assigns ``name`` from inside the function."""
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType):
        return None
    for code in codes(function.__code__):
        for instruction in dis.get_instructions(code):
            if instruction.opname in ("STORE_GLOBAL", "STORE_DEREF") and instruction.argval == name:
                line = instruction.positions.lineno if instruction.positions else None
                return Location(code.co_filename, line or code.co_firstlineno, code.co_qualname)
    return None
