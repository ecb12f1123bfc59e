"""The methods of built-in types: Vec, ranges and iterators, str, Option and Result.

``type`` gives the result's type, ``run`` the result. A method on numbers is the builtin of that
name with the receiver as first argument, so numbers need no rows here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracejit.errors import ValueArgumentError
from tracejit.frontend.neuralscript import matching
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript.values import Variant, format_value, items_of
from tracejit.record import record

# Applies the closure that is argument ``index`` to types (or values).
ApplyType = Callable[[int, Sequence[t.Type]], t.Type]
Apply = Callable[[int, Sequence[Any]], Any]


@record(frozen=True)
class Method:
    """``arity`` arguments; ``changes`` says that the receiver must be mutable."""

    arity: int
    type: Callable[[t.Type, list[t.Type], ApplyType], t.Type]
    run: Callable[[Any, list[Any], Apply], Any]
    changes: bool = False


def item_type(kind: t.Type) -> t.Type:
    """Return the type of what iterating over a type yields."""
    match kind:
        case t.Range(element):
            return t.Array(element)
        case t.Vec(item):
            return item
        case t.Array(element, shape, unit):
            return t.Array(element, shape[1:] if shape else None, unit)
        case _:
            return t.UNKNOWN


def _option(kind: t.Type) -> t.Type:
    from tracejit.frontend.neuralscript.prelude import option_of

    return option_of(kind)


def _some(value: Any) -> Variant:
    return Variant("Option", "Some", (value,))


_NONE = Variant("Option", "None", ())


def _pop(receiver: list[Any], _: list[Any], __: Apply) -> Any:
    return _some(receiver.pop()) if receiver else _NONE


def _remove(receiver: list[Any], arguments: list[Any], _: Apply) -> Any:
    index = int(arguments[0])
    if not 0 <= index < len(receiver):
        raise ValueArgumentError(f"index {index} is out of range of {len(receiver)} items")
    return receiver.pop(index)


def _fold(receiver: Any, arguments: list[Any], apply: Apply) -> Any:
    result = arguments[0]
    for item in items_of(receiver):
        result = apply(1, (result, item))
    return result


def _total(receiver: Any, _: list[Any], __: Apply) -> Any:
    items = items_of(receiver)
    result: Any = 0
    for index, item in enumerate(items):
        result = item if index == 0 else result + item
    return result


def _vec(kind: t.Type) -> t.Type:
    return t.Vec(kind)


VEC: dict[str, Method] = {
    "push": Method(1, lambda r, a, f: t.VOID, lambda r, a, f: r.append(a[0]), True),
    "pop": Method(0, lambda r, a, f: _option(item_type(r)), _pop, True),
    "insert": Method(2, lambda r, a, f: t.VOID, lambda r, a, f: r.insert(int(a[0]), a[1]), True),
    "remove": Method(1, lambda r, a, f: item_type(r), _remove, True),
    "clear": Method(0, lambda r, a, f: t.VOID, lambda r, a, f: r.clear(), True),
}
ITERATOR: dict[str, Method] = {
    "len": Method(0, lambda r, a, f: t.USIZE, lambda r, a, f: len(items_of(r))),
    "count": Method(0, lambda r, a, f: t.USIZE, lambda r, a, f: len(items_of(r))),
    "is_empty": Method(0, lambda r, a, f: t.BOOLEAN, lambda r, a, f: not items_of(r)),
    "iter": Method(0, lambda r, a, f: _vec(item_type(r)), lambda r, a, f: items_of(r)),
    "collect": Method(0, lambda r, a, f: _vec(item_type(r)), lambda r, a, f: list(items_of(r))),
    "rev": Method(
        0, lambda r, a, f: _vec(item_type(r)), lambda r, a, f: list(reversed(items_of(r)))
    ),
    "first": Method(
        0,
        lambda r, a, f: _option(item_type(r)),
        lambda r, a, f: _some(items_of(r)[0]) if items_of(r) else _NONE,
    ),
    "last": Method(
        0,
        lambda r, a, f: _option(item_type(r)),
        lambda r, a, f: _some(items_of(r)[-1]) if items_of(r) else _NONE,
    ),
    "enumerate": Method(
        0,
        lambda r, a, f: _vec(t.Tuple((t.USIZE, item_type(r)))),
        lambda r, a, f: list(enumerate(items_of(r))),
    ),
    "zip": Method(
        1,
        lambda r, a, f: _vec(t.Tuple((item_type(r), item_type(a[0])))),
        lambda r, a, f: list(zip(items_of(r), items_of(a[0]), strict=False)),
    ),
    "map": Method(
        1,
        lambda r, a, f: _vec(f(0, (item_type(r),))),
        lambda r, a, f: [f(0, (item,)) for item in items_of(r)],
    ),
    "filter": Method(
        1,
        lambda r, a, f: (f(0, (item_type(r),)), _vec(item_type(r)))[1],
        lambda r, a, f: [i for i in items_of(r) if bool(f(0, (i,)))],
    ),
    "fold": Method(2, lambda r, a, f: (f(1, (a[0], item_type(r))), a[0])[1], _fold),
    "sum": Method(0, lambda r, a, f: item_type(r), _total),
    "contains": Method(
        1,
        lambda r, a, f: t.BOOLEAN,
        lambda r, a, f: any(bool(item == a[0]) for item in items_of(r)),
    ),
    "join": Method(
        1,
        lambda r, a, f: t.TEXT,
        lambda r, a, f: str(a[0]).join(format_value(i) for i in items_of(r)),
    ),
}
TEXT: dict[str, Method] = {
    "len": Method(0, lambda r, a, f: t.USIZE, lambda r, a, f: len(r)),
    "trim": Method(0, lambda r, a, f: t.TEXT, lambda r, a, f: r.strip()),
    "to_uppercase": Method(0, lambda r, a, f: t.TEXT, lambda r, a, f: r.upper()),
    "to_lowercase": Method(0, lambda r, a, f: t.TEXT, lambda r, a, f: r.lower()),
    "contains": Method(1, lambda r, a, f: t.BOOLEAN, lambda r, a, f: a[0] in r),
    "repeat": Method(1, lambda r, a, f: t.TEXT, lambda r, a, f: r * int(a[0])),
    "split": Method(1, lambda r, a, f: _vec(t.TEXT), lambda r, a, f: r.split(a[0])),
}


def _inner(kind: t.Type) -> t.Type:
    first = kind.arguments[0] if isinstance(kind, t.Named) and kind.arguments else t.UNKNOWN
    return first if isinstance(first, t.Type) else t.UNKNOWN


def _unwrap(value: Variant, _: list[Any], __: Apply) -> Any:
    if value.variant in ("Some", "Ok"):
        return value.items[0]
    shown = f": {format_value(value.items[0])}" if value.items else ""
    raise ValueArgumentError(f"`unwrap` of {value.variant}{shown}")


def _expect(value: Variant, arguments: list[Any], _: Apply) -> Any:
    if value.variant in ("Some", "Ok"):
        return value.items[0]
    raise ValueArgumentError(str(arguments[0]))


def _is(*names: str) -> Method:
    return Method(0, lambda r, a, f: t.BOOLEAN, lambda r, a, f: r.variant in names)


def _map(value: Variant, _: list[Any], apply: Apply) -> Any:
    if value.variant in ("Some", "Ok"):
        return Variant(value.owner, value.variant, (apply(0, value.items),))
    return value


def _mapped_type(kind: t.Type, _: list[t.Type], apply: ApplyType) -> t.Type:
    result = apply(0, (_inner(kind),))
    if not isinstance(kind, t.Named):
        return t.UNKNOWN
    return t.Named(kind.item, (result, *kind.arguments[1:]))


OPTION: dict[str, Method] = {
    "unwrap": Method(0, lambda r, a, f: _inner(r), _unwrap),
    "expect": Method(1, lambda r, a, f: _inner(r), _expect),
    "unwrap_or": Method(
        1,
        lambda r, a, f: matching.join(_inner(r), a[0]) or t.UNKNOWN,
        lambda r, a, f: r.items[0] if r.variant in ("Some", "Ok") else a[0],
    ),
    "map": Method(1, _mapped_type, _map),
    "is_some": _is("Some"),
    "is_none": _is("None"),
    "is_ok": _is("Ok"),
    "is_err": _is("Err"),
}


def _clone(value: Any, _: list[Any], __: Apply) -> Any:
    if not isinstance(value, list):
        return value
    copied: list[Any] = [*value]
    return copied


ANY: dict[str, Method] = {
    "clone": Method(0, lambda r, a, f: r, _clone),
    "to_string": Method(0, lambda r, a, f: t.TEXT, lambda r, a, f: format_value(r)),
}


def find_method(kind: t.Type, name: str) -> Method | None:
    """Return the method that a built-in type has, or None."""
    tables: tuple[dict[str, Method], ...]
    match kind:
        case t.Vec():
            tables = (VEC, ITERATOR, ANY)
        case t.Range() | t.Array():
            tables = (ITERATOR, ANY)
        case t.Text():
            tables = (TEXT, ANY)
        case t.Named(item) if isinstance(item, s.EnumItem) and item.name in ("Option", "Result"):
            tables = (OPTION, ANY)
        case t.Unknown():
            tables = (VEC, ITERATOR, TEXT, OPTION, ANY)
        case _:
            tables = (ANY,)
    for table in tables:
        if name in table:
            return table[name]
    return None
