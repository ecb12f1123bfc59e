"""What a function reads from outside: globals, enclosing variables, attributes and items of these.

A trace has their values in it. So they are part of the signature, and a call first looks whether
the names still have the objects that they had (``Outside.holds``; native entries compare the same
words of memory, see ``runtime/watches.py``).

The names are read off the code: of the function, of those defined in it, and of those that it
reaches by such names, but for the ones of installed libraries. ``settings.rate``, ``table["rate"]``
and ``Model.size`` are followed where nothing but a dict decides what they are. Numbers, texts and
the like are compared by value, all else by identity: what happens inside an array, a list, or an
object that is reached in another way, goes unnoticed.
"""

from __future__ import annotations

import dis
import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple, cast

import numpy as np

from tracejit.frontend.signature import is_array
from tracejit.record import record
from tracejit.runtime.entry import NativeEntry
from tracejit.runtime.watches import ABSENT, Place, table_of
from tracejit.tracing import is_internal

# Compared by value.
_VALUES = frozenset({bool, int, str, bytes, type(None)})
_REPEATED = frozenset({float, complex})  # equal as text: −0.0 is not 0.0, and NaN is NaN
_LIBRARIES = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
# Sets of values that signatures are kept for; changes of a value that are worth a hint.
OUTSIDES_KEPT, OFTEN = 8, 8
# What comes between the parts of ``a.b["c"]`` in code, without a meaning for it.
_SKIPPED = frozenset({"EXTENDED_ARG", "NOP", "PUSH_NULL", "CACHE"})
_CELLS = frozenset({"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"})
_GLOBALS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_LOCALS = frozenset({"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW"})
# Two at once, from Python 3.13 on: what follows is of the second.
_PAIRS = frozenset(
    {"LOAD_FAST_LOAD_FAST", "STORE_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"}
)
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})


class Read(NamedTuple):
    """A name that code reads, and the attributes (True) and constant keys that follow it.

    ``kind`` is "global", "cell", or "first" for the first parameter.
    """

    kind: str
    name: str
    steps: tuple[tuple[bool, str], ...]


class Watch(NamedTuple):
    """A place by the name that it has in the function, and what was there."""

    label: str
    place: Place
    value: Any


class Same:
    """An object, equal to itself alone."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)

    def __repr__(self) -> str:
        value = self.value
        if is_array(value):
            return f"another {value.dtype}{list(value.shape)}"
        name = getattr(value, "__qualname__", None)
        return f"another {type(value).__name__}" if name is None else f"another {name}"


# What a signature holds of the outside: names with values, these as (type, value) or ``Same``.
OutsideKey = tuple[tuple[str, Any], ...]


@record(slots=True)
class Outside:
    """What a function reads from outside, as it was when this was made by ``look``."""

    watches: Sequence[Watch]
    key: OutsideKey

    def holds(self) -> bool:
        """Whether each name still has the object that it had."""
        return all(place.get() is value for _, place, value in self.watches)


def changes(before: OutsideKey, now: OutsideKey) -> Iterator[tuple[str, str]]:
    """Yield the names whose values differ, with words for it: ``RATE is 0.2, was 0.1``."""
    old = dict(before)
    for label, part in now:
        if label in old and old[label] != part:
            yield label, f"{label} is {_text(part)}, was {_text(old[label])}"


def _text(part: Any) -> str:
    kind, value = (Same, repr(part)) if isinstance(part, Same) else part
    return repr(value) if kind in _VALUES else value


def look(function: Callable[..., Any]) -> Outside:
    """Return what ``function`` reads from outside now."""
    found: dict[tuple[int, str | None], Watch] = {}
    seen: set[tuple[int, int]] = set()
    stack = _functions(function)
    while stack:
        plain, owner = stack.pop()
        key = id(plain), id(owner)
        if key in seen or _is_library(plain.__code__.co_filename):
            continue
        seen.add(key)
        for read in reads(plain.__code__):
            for watch in _resolved(read, plain, owner, stack):
                found.setdefault((id(watch.place.holder), watch.place.name), watch)
                stack += _functions(watch.value)
    watches = [*found.values()]
    return Outside(watches, tuple((w.label, _part(w.value)) for w in watches))


def _part(value: Any) -> Any:
    if value is ABSENT:
        return object, "nothing"
    kind: Any = value.__class__
    if kind in _VALUES:
        return kind, value
    return (kind, repr(value)) if kind in _REPEATED else Same(value)


class Surroundings:
    """What a function reads from outside, from one call to the next; ``now`` is the newest look.

    Values come back (a switch that is turned on and off), and what was traced for them is kept.
    Objects that were replaced are not kept alive for that.
    """

    def __init__(self) -> None:
        self.now = Outside((), ())
        self.told = True  # native code looks too; else it must not answer
        self._looked = False
        self._past: list[OutsideKey] = []
        self._changed: Counter[str] = Counter()

    def hold(self, entry: NativeEntry | None) -> bool:
        """Whether ``now`` is still so, and ``entry`` does not look at other words of memory."""
        now = self.now
        if not now.watches:
            return self._looked
        return now.holds() and not (entry is not None and entry.moved)

    def tell(self, entry: NativeEntry) -> None:
        """Let ``entry``, which has no forms of other values, answer while ``now`` holds."""
        watches = self.now.watches
        table = table_of((w.place, w.value) for w in watches) if watches else None
        self.told = table is not None or not watches
        entry.watch(table)

    def look(self, function: Callable[..., Any]) -> Sequence[OutsideKey]:
        """Look again; ``now.key`` stays the same object where all is equal.

        Returns what signatures need not be kept for any more.
        """
        before, now = self.now, look(function)
        first, self._looked = not self._looked, True
        if first or now.key == before.key:
            self.now = Outside(now.watches, now.key if first else before.key)
            return []
        self.now = now
        if now.key in self._past:
            self._past.remove(now.key)
        self._changed.update(label for label, _ in changes(before.key, now.key))
        objects = {part for _, part in now.key if type(part) is Same}
        if any(type(part) is Same and part not in objects for _, part in before.key):
            return [before.key]
        self._past.append(before.key)
        gone, self._past = self._past[:-OUTSIDES_KEPT], self._past[-OUTSIDES_KEPT:]
        return gone

    def often(self) -> str | None:
        """Return a name that has changed often, once for each name."""
        for label, count in self._changed.items():
            if count == OFTEN:
                self._changed[label] += 1
                return label
        return None


# -- from code to names ----------------------------------------------------------------------------


def codes(code: CodeType) -> Iterator[CodeType]:
    """Yield ``code`` and the code of the functions defined in it."""
    stack = [code]
    while stack:
        top = stack.pop()
        yield top
        stack += [c for c in top.co_consts if isinstance(c, CodeType)]


@lru_cache(maxsize=1024)
def reads(code: CodeType) -> tuple[Read, ...]:
    """Return what ``code``, and the functions defined in it, read from outside."""
    found: dict[Read, None] = {}
    first = code.co_varnames[0] if code.co_argcount else None
    for inner in codes(code):
        found |= dict.fromkeys(_reads(inner, code.co_freevars, first if inner is code else None))
    return tuple(found)


def _reads(code: CodeType, free: Sequence[str], first: str | None) -> Iterator[Read]:
    read: Read | None = None
    key: Any = None  # a constant after a name: the key, where a subscript follows
    for instruction in dis.get_instructions(code):
        op, name = instruction.opname, instruction.argval
        if op in _SKIPPED:
            continue
        if read is not None:
            subscript = op == "BINARY_SUBSCR" or (op == "BINARY_OP" and instruction.argrepr == "[]")
            if op in _ATTRIBUTES and key is None:
                read = read._replace(steps=(*read.steps, (True, name)))
                continue
            if op == "LOAD_CONST" and key is None and type(name) is str:
                key = name
                continue
            if subscript and key is not None:
                read, key = read._replace(steps=(*read.steps, (False, key))), None
                continue
            yield read
        read, key = None, None
        if op in _GLOBALS:
            read = Read("global", name, ())
        elif op in _CELLS and name in free:
            read = Read("cell", name, ())
        elif (op in _LOCALS and name == first) or (op in _PAIRS and name[-1] == first):
            read = Read("first", cast(str, first), ())


# -- from names to places --------------------------------------------------------------------------

_Stack = list[tuple[FunctionType, Any]]


def _resolved(read: Read, function: FunctionType, owner: Any, stack: _Stack) -> Iterator[Watch]:
    """Yield the places that ``read`` goes through; functions found on the way go to ``stack``."""
    place: Place | None = None
    value = owner
    label = read.name
    if read.kind == "global":
        place = Place(function.__globals__, read.name)
    elif read.kind == "cell":
        names = function.__code__.co_freevars
        place = Place((function.__closure__ or ())[names.index(read.name)], None)
    if place is not None:
        value = place.get()
        if value is not ABSENT and not _is_foreign(value):
            yield Watch(label, place, value)
    for attribute, name in read.steps:
        label += f".{name}" if attribute else f"[{name!r}]"
        places = _attribute(value, name, stack) if attribute else _item(value, name)
        value = ABSENT
        for place in places:
            value = place.get()
            if not _is_foreign(value):
                yield Watch(label, place, value)
        if value is ABSENT:
            return


def _item(value: Any, name: str) -> list[Place]:
    found = type(value) is dict and name in value
    return [Place(cast("dict[str, Any]", value), name)] if found else []


def _attribute(value: Any, name: str, stack: _Stack) -> list[Place]:
    """Return the places of an attribute: it is in the last one, and would be found before.

    None where more than dicts decides what it is.
    """
    if isinstance(value, ModuleType):
        names = vars(value)
        library = _is_library(names.get("__file__") or _LIBRARIES)
        return [] if library or name not in names else [Place(names, name)]
    if isinstance(value, type):
        return _of_class(value, name)
    cls = cast("type[Any]", type(value))
    if cls.__getattribute__ is not object.__getattribute__:
        return []
    places = _of_class(cls, name)
    found: Any = places[0].get() if places else ABSENT
    getter: Any = found.fget if isinstance(found, property) else found
    if isinstance(getter, FunctionType):
        stack.append((getter, value))
    table = _own(value)
    if hasattr(cast("type[Any]", type(found)), "__get__") or table is None:
        return []
    if name in table:
        return [Place(table, name)]
    return [Place(table, name), *places] if places else []


def _own(value: object) -> dict[str, Any] | None:
    """Return the attributes that an object itself has, without running code of its class."""
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return cast("dict[str, Any]", own) if type(own) is dict else None


def _of_class(cls: type, name: str) -> list[Place]:
    """Return where ``cls``, or the class that it has the attribute from, keeps it."""
    for kind in cls.__mro__:
        if name in vars(kind):
            # The dict itself is behind a proxy.
            tables: list[Any] = [t for t in gc.get_referents(vars(kind)) if type(t) is dict]
            return [Place(tables[0], name)] if tables else []
    return []


def _functions(value: Any) -> _Stack:
    """Return the Python functions that a call of ``value`` enters, with the object they are of."""
    for _ in range(8):  # partials and wrappers of one another
        if isinstance(value, FunctionType):
            return [(value, ABSENT)]
        if isinstance(value, MethodType):
            function = value.__func__
            return [(function, value.__self__)] if isinstance(function, FunctionType) else []
        if isinstance(value, (type, ModuleType)):
            return []
        own = _own(value) or {}
        if isinstance(value, partial):
            value = cast("partial[Any]", value).func
        elif "__wrapped__" in own:
            value = own["__wrapped__"]
        else:
            call: Any = vars(cast("type[Any]", type(value))).get("__call__")
            return [(call, value)] if isinstance(call, FunctionType) else []
    return []


def _is_foreign(value: Any) -> bool:
    """Whether a name for ``value`` is not watched: modules, and functions of libraries."""
    if isinstance(value, (ModuleType, BuiltinFunctionType, np.ufunc)):
        return True
    if isinstance(value, FunctionType):
        return _is_library(value.__code__.co_filename)
    return type(value).__module__ == "numpy" and callable(value) and not isinstance(value, type)


@lru_cache(maxsize=1024)
def _is_library(file: str) -> bool:
    """Whether code of that file is taken as it is: Python's own, an installed one, ours."""
    return file.startswith(_LIBRARIES) or is_internal(file) or any(p in file for p in _INSTALLED)
