"""Relations between types: substitution, matching at calls, broadcasting, joining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tracejit.frontend.neuralscript.types import (
    ANY,
    ANY_ELEMENT,
    FLOATS,
    UNKNOWN,
    AnyElement,
    Array,
    Bindings,
    Callee,
    Function,
    Literal,
    Named,
    Never,
    Opaque,
    Param,
    Prim,
    Size,
    Tuple,
    Type,
    Unknown,
    Vec,
    default,
    is_any,
    is_exact,
    resolve,
    unify,
)


def substitute_size(size: Size, found: Mapping[str, Type | Size]) -> Size:
    """Replace the names of a size; one that is unbound makes the size unknown."""
    result = Size(size.constant)
    for name, coefficient in size.terms:
        value = found.get(name)
        if value is None:
            value = Size(0, ((name, 1),))
        if not isinstance(value, Size) or is_any(value):
            return ANY
        result = result.plus(value, coefficient)
    return result


def substitute(kind: Type, found: Mapping[str, Type | Size]) -> Type:
    """Replace the generic parameters of a type by what they are bound to."""
    match kind:
        case Array(element, shape, unit):
            if isinstance(element, Param) and element.name in found:
                value = found[element.name]
                element = value.element if isinstance(value, Array) else ANY_ELEMENT
            if shape is not None:
                shape = tuple(
                    size if is_any(size) else substitute_size(size, found) for size in shape
                )
            return Array(element, shape, unit)
        case Tuple(items):
            return Tuple(tuple(substitute(item, found) for item in items))
        case Vec(item):
            return Vec(substitute(item, found))
        case Opaque(name):
            value = found.get(name, kind)
            return value if isinstance(value, Type) else kind
        case Named(item, arguments):
            return Named(
                item,
                tuple(
                    substitute_size(a, found) if isinstance(a, Size) else substitute(a, found)
                    for a in arguments
                ),
            )
        case Function(parameters, result):
            return Function(
                tuple(substitute(p, found) for p in parameters), substitute(result, found)
            )
        case _:
            return kind


class Mismatch(Exception):
    """Two types do not fit: ``what`` is type, element, shape or unit. Internal."""

    def __init__(self, what: str, name: str = ""):
        super().__init__(what)
        self.what = what
        self.name = name


def match_size(pattern: Size, actual: Size, found: Bindings, generics: Sequence[str]) -> None:
    """Bind the generics of a pattern so that it equals a size. Errors: Mismatch("shape")."""
    if is_any(pattern) or is_any(actual):
        return
    rest = Size(pattern.constant)
    free: list[tuple[str, int]] = []
    for name, coefficient in pattern.terms:
        value = found.get(name)
        if isinstance(value, Size):
            if is_any(value):
                return
            rest = rest.plus(value, coefficient)
        elif name in generics:
            free.append((name, coefficient))
        else:
            rest = rest.plus(Size(0, ((name, coefficient),)))
    missing = actual.plus(rest, -1)
    if not free:
        if missing != Size(0):
            raise Mismatch("shape", pattern.terms[0][0] if pattern.terms else "")
        return
    if len(free) > 1:
        return
    name, coefficient = free[0]
    if missing.constant % coefficient or any(c % coefficient for _, c in missing.terms):
        raise Mismatch("shape", name)
    terms = tuple((n, c // coefficient) for n, c in missing.terms)
    found[name] = Size(missing.constant // coefficient, terms)


def match_type(pattern: Type, actual: Type, found: Bindings, generics: Sequence[str]) -> None:
    """Bind the generics of a pattern so that it equals a type. Errors: Mismatch."""
    match pattern, actual:
        case (Unknown() | Never(), _) | (_, Unknown() | Never()):
            return
        case Opaque(name), _ if name in generics:
            bound = found.get(name)
            if isinstance(bound, Type):
                match_type(bound, actual, found, ())
            else:
                found[name] = actual
        case Array(), Array():
            _match_array(pattern, actual, found, generics)
        case Tuple(items), Tuple(others) if len(items) == len(others):
            for item, other in zip(items, others, strict=True):
                match_type(item, other, found, generics)
        case Vec(item), Vec(other):
            match_type(item, other, found, generics)
        case Vec(item), Array(_, shape) if shape is None or len(shape) == 1:
            match_type(item, Array(actual.element, (), actual.unit), found, generics)
        case Named(item, arguments), Named(other, others) if item is other:
            for one, two in zip(arguments, others, strict=False):
                if isinstance(one, Size) and isinstance(two, Size):
                    match_size(one, two, found, generics)
                elif isinstance(one, Type) and isinstance(two, Type):
                    match_type(one, two, found, generics)
        case Function(), Callee():
            return
        case Function(parameters, result), Function(others, other):
            if len(parameters) != len(others):
                raise Mismatch("type")
            for one, two in zip(parameters, others, strict=True):
                match_type(one, two, found, generics)
            match_type(result, other, found, generics)
        case _ if pattern == actual:
            return
        case _:
            raise Mismatch("type")


def _match_array(pattern: Array, actual: Array, found: Bindings, generics: Sequence[str]) -> None:
    if (
        pattern.shape is not None
        and actual.shape is not None
        and len(pattern.shape) != len(actual.shape)
    ):
        raise Mismatch("rank")
    _match_element(pattern, actual, found, generics)
    if pattern.unit != actual.unit:
        raise Mismatch("unit")
    if pattern.shape is not None and actual.shape is not None:
        for one, two in zip(pattern.shape, actual.shape, strict=True):
            match_size(one, two, found, generics)


def _match_element(pattern: Array, actual: Array, found: Bindings, generics: Sequence[str]) -> None:
    element = pattern.element
    if isinstance(element, Param) and element.name in generics:
        bound = found.get(element.name)
        if isinstance(bound, Array):
            common = unify(bound.element, actual.element)
            if common is None:
                raise Mismatch("element", element.name)
            found[element.name] = Array(common)
            return
        given = resolve(actual.element)
        if (
            isinstance(given, Literal)
            and given.kind in ("int", "integer")
            and element.bound == "Float"
        ):
            if given.kind == "integer":
                raise Mismatch("element", element.name)
            given.bound = Literal("float")
        if isinstance(given, Prim) and element.bound == "Float" and given.name not in FLOATS:
            raise Mismatch("element", element.name)
        if isinstance(given, Prim) and given.name == "bool":
            raise Mismatch("element", element.name)
        found[element.name] = Array(actual.element)
        return
    common = unify(element, actual.element)
    if common is None or (
        common != resolve(element)
        and not isinstance(resolve(element), AnyElement | Literal)
        and not isinstance(common, AnyElement)
    ):
        raise Mismatch("element")


def broadcast(
    left: tuple[Size, ...] | None, right: tuple[Size, ...] | None
) -> tuple[Size, ...] | None:
    """NumPy's broadcasting over symbolic sizes. Errors: Mismatch("shape")."""
    if left is None or right is None:
        return None
    rank = max(len(left), len(right))
    one = Size(1)
    padded_left = (one,) * (rank - len(left)) + left
    padded_right = (one,) * (rank - len(right)) + right
    result: list[Size] = []
    for a, b in zip(padded_left, padded_right, strict=True):
        if a == b or b == one:
            result.append(a)
        elif a == one:
            result.append(b)
        elif is_any(a) or is_any(b):
            result.append(b if is_any(a) else a)
        else:
            raise Mismatch("shape")
    return tuple(result)


def join(left: Type, right: Type) -> Type | None:
    """Return the type of a value that is one or the other (the arms of an `if`), or None."""
    if isinstance(left, Never):
        return right
    if isinstance(right, Never):
        return left
    if isinstance(left, Unknown) or isinstance(right, Unknown):
        return UNKNOWN
    if isinstance(left, Array) and isinstance(right, Array):
        element = unify(left.element, right.element)
        if element is None or left.unit != right.unit:
            return None
        if left.shape is None or right.shape is None:
            return Array(element, None, left.unit)
        if len(left.shape) != len(right.shape):
            return None
        sizes: list[Size] = []
        for a, b in zip(left.shape, right.shape, strict=True):
            if a != b and not is_any(a) and not is_any(b):
                return None
            sizes.append(b if is_any(a) else a)
        return Array(element, tuple(sizes), left.unit)
    if isinstance(left, Tuple) and isinstance(right, Tuple) and len(left.items) == len(right.items):
        items = [join(a, b) for a, b in zip(left.items, right.items, strict=True)]
        return None if None in items else Tuple(tuple(i for i in items if i is not None))
    if isinstance(left, Callee | Function) and isinstance(right, Callee | Function):
        return left if left == right else UNKNOWN
    try:
        match_type(left, right, {}, ())
    except Mismatch:
        return None
    if isinstance(left, Named | Vec) and not is_exact(left):
        return right
    return left


def refine(declared: Type, actual: Type | None) -> Type:
    """Fill what a declared type leaves open from what is known of the value."""
    if actual is None or isinstance(actual, Unknown | Never):
        return declared
    if isinstance(declared, Unknown):
        return fresh(actual)
    if isinstance(declared, Array) and isinstance(actual, Array):
        element = declared.element
        if isinstance(resolve(element), AnyElement):
            element = default(actual.element)
        shape = declared.shape
        if shape is None:
            shape = actual.shape
        elif actual.shape is not None and len(shape) == len(actual.shape):
            shape = tuple(b if is_any(a) else a for a, b in zip(shape, actual.shape, strict=True))
        return Array(element, shape, declared.unit)
    return declared


def fresh(kind: Type) -> Type:
    """Return a type whose open literals belong to the caller, not to the checked body."""
    match kind:
        case Array(element, shape, unit):
            found = resolve(element)
            return Array(Literal(found.kind) if isinstance(found, Literal) else found, shape, unit)
        case Tuple(items):
            return Tuple(tuple(fresh(item) for item in items))
        case _:
            return kind
