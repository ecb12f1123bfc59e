"""Argument trees: nested containers of arrays as a flat list of leaves and a hashable shape.

    {"w": W, "b": [b0, b1]}   ⇄   [W, b0, b1],  dict("w": *, "b": list(*, *))

Containers are tuples, lists, dicts, named tuples, dataclass instances, and plain objects (an
instance of a class that defines neither ``__slots__`` nor equality: its attributes are read, so a
method sees ``self.weights`` as an argument and not as a constant of its first call). Leaves are
what tracing replaces: arrays, tensors, NumPy scalars, Python floats and complex numbers.
Everything else — ints, bools, strings, None, functions, dtypes, … — is static: part of the tree,
compared by type and value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from types import FunctionType
from typing import Any, NamedTuple, cast

import numpy as np

from tracejit.errors import ArgumentError, LimitError
from tracejit.frontend.names import name_of, parameter
from tracejit.tensor import Tensor

MAX_DEPTH = 64
MAX_OBJECT_DEPTH = 8  # deeper objects are static: they are somebody's machinery, not data


class Spec(NamedTuple):
    """An example argument for ``trace`` that has no values: a shape and a dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Tree(NamedTuple):
    """The shape of a value: ``kind`` is a container class, LEAF or STATIC.

    ``meta`` holds the keys of a dict, the field names of a dataclass, or a static value with its
    type (1, 1.0 and True are equal, their types are not).
    """

    kind: Any
    meta: Hashable = None
    children: tuple[Tree, ...] = ()


class _Mark:
    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return self.name


class _Number:
    """A static float or complex number, compared by its text."""

    __slots__ = ("text", "value")

    def __init__(self, value: complex):
        self.value = value
        self.text = repr(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Number) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


LEAF_MARK, STATIC_MARK, OBJECT_MARK = _Mark("leaf"), _Mark("static"), _Mark("object")
LEAF = Tree(LEAF_MARK)

_LEAF_TYPES = (np.ndarray, Tensor, np.generic, float, complex, Spec)
_ATOMS = frozenset({int, bool, str, bytes, type(None), type, FunctionType, np.dtype})


def flatten(value: Any, *, static_floats: bool = False) -> tuple[list[Any], Tree]:
    """Return the leaves of ``value`` in order, and its tree. Raises LimitError when too deep.

    ``static_floats`` makes Python floats and complex numbers static instead of leaves.
    """
    leaves: list[Any] = []
    tree = _flatten(value, leaves, 0, (), static_floats)
    return leaves, tree


def _flatten(
    value: Any, leaves: list[Any], depth: int, around: tuple[int, ...], static_floats: bool
) -> Tree:
    kind: Any = value.__class__
    if kind in _ATOMS:
        return Tree(STATIC_MARK, (kind, value))
    if isinstance(value, _LEAF_TYPES):
        if static_floats and kind in (float, complex):
            # 0.0 == -0.0, and nan != nan: the text tells them apart and together.
            return Tree(STATIC_MARK, (kind, _Number(cast(complex, value))))
        leaves.append(value)
        return LEAF
    found = _children(value, kind, depth)
    if found is None or id(value) in around:  # an object that refers to itself is an identity
        return Tree(STATIC_MARK, (kind, value))
    if depth >= MAX_DEPTH:
        raise LimitError(f"arguments nest deeper than {MAX_DEPTH} containers")
    mark, meta, children = found
    around = (*around, id(value))
    inner = [_flatten(c, leaves, depth + 1, around, static_floats) for c in children]
    return Tree(mark, meta, tuple(inner))


def _children(value: Any, kind: Any, depth: int) -> tuple[Any, Hashable, Sequence[Any]] | None:
    """Return ``(mark, meta, children)`` of a container, None for a static value."""
    if kind in (tuple, list):
        return kind, None, value
    if kind is dict:
        return dict, tuple(value), list(value.values())
    if tuple in kind.__mro__ and hasattr(kind, "_fields"):
        return kind, None, value
    if hasattr(kind, "__dataclass_fields__"):
        import dataclasses  # which whoever has such a class has loaded

        names = tuple(f.name for f in dataclasses.fields(value) if hasattr(value, f.name))
        return kind, names, [getattr(value, name) for name in names]
    if depth < MAX_OBJECT_DEPTH and is_plain_object(value, kind):
        state = cast("dict[str, Any]", value.__dict__)
        return OBJECT_MARK, (kind, tuple(state)), list(state.values())
    return None


def is_plain_object(value: Any, kind: Any) -> bool:
    """True for an instance of a user's class: attributes in ``__dict__`` only, identity hash."""
    return (
        kind.__hash__ is object.__hash__
        and kind.__eq__ is object.__eq__
        and kind.__new__ is object.__new__
        and kind.__getattribute__ is object.__getattribute__
        and not is_foreign_array(kind)
        and kind.__module__.partition(".")[0] not in sys.stdlib_module_names
        and hasattr(value, "__dict__")
        and not any("__slots__" in vars(base) for base in kind.__mro__[:-1])
    )


def is_foreign_array(kind: Any) -> bool:
    """True for classes of other libraries' arrays (torch, pandas, …): no leaf, no constant."""
    return hasattr(kind, "__array__") or hasattr(kind, "__dlpack__")


def unflatten(tree: Tree, leaves: Sequence[Any]) -> Any:
    """Return the value of ``tree`` with ``leaves`` in place; the inverse of ``flatten``.

    Containers are new; static values are the very objects. Dataclasses and plain objects are
    made without calling ``__init__``.
    """
    return _unflatten(tree, iter(leaves))


def _unflatten(tree: Tree, leaves: Iterator[Any]) -> Any:
    kind = tree.kind
    if kind is LEAF_MARK:
        return next(leaves)
    if kind is STATIC_MARK:
        return static_value(tree)
    children = [_unflatten(child, leaves) for child in tree.children]
    if kind is list:
        return children
    if kind is tuple:
        return tuple(children)
    if kind is dict:
        return dict(zip(cast("tuple[Any, ...]", tree.meta), children, strict=True))
    if kind is OBJECT_MARK:
        cls, names = cast("tuple[type, tuple[str, ...]]", tree.meta)
        return _object(cls, names, children)
    if issubclass(kind, tuple):
        return cast("Callable[..., Any]", kind)(*children)
    return _object(kind, cast("tuple[str, ...]", tree.meta), children)


def static_value(tree: Tree) -> Any:
    """Return the very object that a STATIC tree stands for."""
    value = cast("tuple[type, Any]", tree.meta)[1]
    return value.value if isinstance(value, _Number) else value


def _object(cls: Any, names: Sequence[str], values: Sequence[Any]) -> Any:
    made: Any = object.__new__(cls)
    for name, value in zip(names, values, strict=True):
        object.__setattr__(made, name, value)  # also into frozen dataclasses
    return made


def statics(tree: Tree) -> Iterator[tuple[str, Any]]:
    """Yield ``(path, value)`` for the static values of a tree, in order."""
    stack: list[tuple[str, Tree]] = [("", tree)]
    while stack:
        path, top = stack.pop()
        if top.kind is STATIC_MARK:
            yield path, static_value(top)
        stack += [(path + step, child) for step, child in reversed(_steps(top))]


def paths(tree: Tree) -> list[str]:
    """Return the path of each leaf, such as ``[0]['w']``."""
    found: list[str] = []
    stack: list[tuple[str, Tree]] = [("", tree)]
    while stack:
        path, top = stack.pop()
        if top.kind is LEAF_MARK:
            found.append(path)
        stack += [(path + step, child) for step, child in reversed(_steps(top))]
    return found


def _steps(tree: Tree) -> list[tuple[str, Tree]]:
    """Return each child with the text that selects it."""
    if tree.kind is dict:
        names = [f"[{k!r}]" for k in cast("tuple[Any, ...]", tree.meta)]
    elif tree.kind is OBJECT_MARK:
        names = [f".{name}" for name in cast("tuple[Any, tuple[str, ...]]", tree.meta)[1]]
    elif tree.meta is not None and tree.kind is not STATIC_MARK:
        names = [f".{name}" for name in cast("tuple[str, ...]", tree.meta)]
    else:
        names = [f"[{i}]" for i in range(len(tree.children))]
    return list(zip(names, tree.children, strict=True))


def check_statics(tree: Tree, function: Callable[..., Any]) -> None:
    """Raise ArgumentError where a static argument is an array, or cannot be compared by value."""
    for path, value in statics(tree):
        what = f"{name_of(function)}: argument {parameter(function, path)}"
        kind: Any = value.__class__
        if is_foreign_array(kind):
            raise ArgumentError(
                f"{what} is a {kind.__name__}, another library's array",
                hint="pass np.asarray(x), or tj.asarray(x)",
            )
        try:
            hash(value)
        except TypeError:
            raise ArgumentError(
                f"{what} is a {kind.__name__}, which is neither an array nor hashable",
                hint="pass an array (np.asarray), a tuple, or a hashable object",
            ) from None
