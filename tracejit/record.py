"""Records: the part of ``dataclasses`` that tracejit uses, with nothing generated at import.

``dataclass`` writes and compiles up to six methods for each class, 0.4 ms: of a hundred classes
that is a good part of a start. Here comparison, hash and text are closures over the names of the
fields, and ``__init__``, the one that is worth code of its own, is compiled when the first record
of a class is made. Arguments and meanings are those of ``dataclasses``::

    @record(frozen=True, slots=True)
    class Point:
        x: float
        y: float = 0.0
        tags: list[str] = field(default_factory=list[str])
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NoReturn, TypeVar, dataclass_transform, overload

T = TypeVar("T")

# The attribute of a record class that has its fields by name, those of its bases first.
_FIELDS = "__record_fields__"
_MISSING: Any = object()


class Field:
    """What is said of a field beside its name and type."""

    __slots__ = ("default", "factory", "hash", "repr")

    def __init__(
        self,
        default: Any = _MISSING,
        factory: Callable[[], Any] | None = None,
        hash: bool = True,
        repr: bool = True,
    ) -> None:
        self.default = default
        self.factory = factory
        self.hash = hash
        self.repr = repr


def field(
    *, default_factory: Callable[[], Any] | None = None, hash: bool = True, repr: bool = True
) -> Any:
    """Describe a field: what makes its default, and whether hash and text leave it out."""
    return Field(factory=default_factory, hash=hash, repr=repr)


@overload
def record(cls: type[T], /) -> type[T]: ...
@overload
def record(
    *, frozen: bool = ..., eq: bool = ..., slots: bool = ..., weakref_slot: bool = ...
) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(field_specifiers=(field,))
def record(
    cls: Any = None,
    /,
    *,
    frozen: bool = False,
    eq: bool = True,
    slots: bool = False,
    weakref_slot: bool = False,
) -> Any:
    """Make a class with annotated names a record, as ``dataclasses.dataclass`` does.

    ``frozen`` records refuse assignment and, with ``eq``, have a hash. With ``slots`` the class is
    made anew, so that its methods cannot say ``super()``.
    """

    def decorate(cls: type[Any]) -> type[Any]:
        own = _own_fields(cls)
        if slots:
            cls = _with_slots(cls, own, weakref_slot)
        fields = {k: v for base in cls.__mro__[:0:-1] for k, v in _fields(base).items()} | own
        setattr(cls, _FIELDS, fields)
        cls.__match_args__ = tuple(fields)
        for name, method in _methods(cls, fields, frozen, eq):
            # A class that defines __eq__ has None for __hash__ without having said so.
            if vars(cls).get(name) is None:
                setattr(cls, name, method)
        return cls

    return decorate if cls is None else decorate(cls)


def fields(value: Any) -> tuple[str, ...]:
    """Return the names of the fields of a record or of its class."""
    return tuple(getattr(value, _FIELDS))


def replace(value: T, /, **changes: Any) -> T:
    """Return a record like ``value`` with some fields changed."""
    return type(value)(
        **{n: getattr(value, n) for n in fields(value) if n not in changes}, **changes
    )


def as_dict(value: Any) -> Any:
    """Return a record as a dict of plain values, records in lists, tuples and dicts included."""
    if hasattr(value, _FIELDS):
        return {name: as_dict(getattr(value, name)) for name in fields(value)}
    if isinstance(value, (list, tuple)):
        return type(value)(map(as_dict, value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, dict):
        return {k: as_dict(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value


def _fields(cls: type[Any]) -> dict[str, Field]:
    return vars(cls).get(_FIELDS, {})


def _own_fields(cls: type[Any]) -> dict[str, Field]:
    """Return the fields that a class names itself; what ``field`` has left there is taken away."""
    found: dict[str, Field] = {}
    for name in vars(cls).get("__annotations__", {}):
        said = vars(cls).get(name, _MISSING)
        if isinstance(said, Field):
            delattr(cls, name)
        found[name] = said if isinstance(said, Field) else Field(said)
    return found


def _with_slots(cls: type[Any], own: dict[str, Field], weakref_slot: bool) -> type[Any]:
    namespace = {k: v for k, v in vars(cls).items() if k not in own}
    namespace.pop("__dict__", None)
    namespace.pop("__weakref__", None)
    namespace["__slots__"] = (*own, "__weakref__") if weakref_slot else tuple(own)
    metaclass: Any = type(cls)
    made: type[Any] = metaclass(cls.__name__, cls.__bases__, namespace)
    made.__qualname__ = cls.__qualname__
    return made


def _methods(
    cls: type[Any], fields: dict[str, Field], frozen: bool, eq: bool
) -> list[tuple[str, Any]]:
    """Return the methods that a record gets where its class does not define them."""
    found: list[tuple[str, Any]] = [
        ("__init__", _first_init(cls, fields, frozen)),
        ("__repr__", _text([name for name, said in fields.items() if said.repr])),
    ]
    if frozen:
        found += [("__setattr__", _refuse), ("__delattr__", _refuse)]
    if eq:
        found.append(("__eq__", _equality(_values(list(fields)))))
        hashed = _hash(_values([name for name, said in fields.items() if said.hash]))
        found.append(("__hash__", hashed if frozen else None))
    return found


def _first_init(cls: type[Any], fields: dict[str, Field], frozen: bool) -> Callable[..., None]:
    """Return an ``__init__`` that compiles the real one, puts it in its place, and calls it."""

    def init(self: Any, *values: Any, **named: Any) -> None:
        cls.__init__ = compiled = _compile_init(cls, fields, frozen)
        compiled(self, *values, **named)

    return init


def _compile_init(cls: type[Any], fields: dict[str, Field], frozen: bool) -> Callable[..., None]:
    parameters, lines = ["self"], ["pass"]
    names: dict[str, Any] = {"_missing": _MISSING}
    for name, said in fields.items():
        value = name
        if said.factory is not None:
            parameters.append(f"{name}=_missing")
            names[f"_make_{name}"] = said.factory
            value = f"_make_{name}() if {name} is _missing else {name}"
        elif said.default is not _MISSING:
            parameters.append(f"{name}=_default_{name}")
            names[f"_default_{name}"] = said.default
        else:
            parameters.append(name)
        slot = getattr(cls, name, None)
        if not frozen:
            lines.append(f"self.{name} = {value}")
        elif hasattr(slot, "__set__"):  # past what refuses assignment
            names[f"_set_{name}"] = slot.__set__  # pyright: ignore[reportOptionalMemberAccess]
            lines.append(f"_set_{name}(self, {value})")
        else:
            lines.append(f"self.__dict__[{name!r}] = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    exec(f"def __init__({', '.join(parameters)}):\n  " + "\n  ".join(lines), names)
    init = names["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _values(names: list[str]) -> Callable[[Any], Any]:
    """Return a function from a record to the tuple of these fields."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda self: tuple(getattr(self, name) for name in names)


def _equality(values: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def equal(self: Any, other: Any) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    return equal


def _hash(values: Callable[[Any], Any]) -> Callable[[Any], int]:
    def hashed(self: Any) -> int:
        return hash(values(self))

    return hashed


def _text(names: list[str]) -> Callable[[Any], str]:
    def text(self: Any) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({shown})"

    return text


def _refuse(self: Any, name: str, value: Any = None) -> NoReturn:
    raise AttributeError(f"a {type(self).__name__} does not change: {name} cannot be assigned")
