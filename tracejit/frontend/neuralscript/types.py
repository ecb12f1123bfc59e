"""The checker's types: element types, symbolic sizes, units, and matching.

A type that is only known while tracing is ``UNKNOWN`` and fits everything. Numbers, vectors,
matrices and tensors are one type, ``Array(element, shape, unit)``; a scalar has the shape ``()``.

Sizes are linear forms over const generics (``M``, ``N - 2``, ``2·N + 1``), so that slicing and
concatenation keep known what can be known. Literals have an inference variable as element type:
it adapts once to the type that it first meets, as in Rust.
"""

from __future__ import annotations

from fractions import Fraction

from tracejit.frontend.neuralscript import syntax as s
from tracejit.record import field, record

INTEGERS = frozenset(["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "usize", "isize"])
FLOATS = frozenset(("f32", "f64"))
COMPLEXES = frozenset(("c64", "c128"))
DTYPES = {
    "f32": "float32",
    "f64": "float64",
    "c64": "complex64",
    "c128": "complex128",
    "bool": "bool",
    "usize": "int64",
    "isize": "int64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
}
ELEMENTS = {dtype: name for name, dtype in DTYPES.items() if name not in ("usize", "isize")}
COMPLEX_OF = {"f32": "c64", "f64": "c128"}
REAL_OF = {"c64": "f32", "c128": "f64"}


# --- sizes ------------------------------------------------------------------------------------


@record(frozen=True)
class Size:
    """constant + Σ coefficient · name; ``terms`` is sorted and has no zero coefficients."""

    constant: int
    terms: tuple[tuple[str, int], ...] = ()

    @property
    def known(self) -> bool:
        return not self.terms

    def plus(self, other: Size, factor: int = 1) -> Size:
        terms = dict(self.terms)
        for name, coefficient in other.terms:
            terms[name] = terms.get(name, 0) + factor * coefficient
        kept = tuple(sorted((n, c) for n, c in terms.items() if c))
        return Size(self.constant + factor * other.constant, kept)

    def times(self, factor: int) -> Size:
        if factor == 0:
            return Size(0)
        return Size(self.constant * factor, tuple((n, c * factor) for n, c in self.terms))

    def __str__(self) -> str:
        text = ""
        for name, coefficient in self.terms:
            sign = "-" if coefficient < 0 else "+"
            factor = "" if abs(coefficient) == 1 else f"{abs(coefficient)}*"
            text += f" {sign} {factor}{name}" if text else f"{'-' * (sign == '-')}{factor}{name}"
        if self.constant or not text:
            sign = "-" if self.constant < 0 else "+"
            text = f"{text} {sign} {abs(self.constant)}" if text else str(self.constant)
        return text


# A size that is not known before tracing.
ANY = Size(-1, (("?", 1),))


def is_any(size: Size) -> bool:
    return size is ANY or size == ANY


# --- elements ---------------------------------------------------------------------------------


class Element:
    """The type of one number."""


@record(frozen=True)
class Prim(Element):
    name: str

    def __str__(self) -> str:
        return {"c64": "Complex<f32>", "c128": "Complex<f64>"}.get(self.name, self.name)


@record(frozen=True)
class Param(Element):
    """A generic parameter; inside its function it is opaque, at a call it is bound."""

    name: str
    bound: str = "Numeric"

    def __str__(self) -> str:
        return self.name


class Literal(Element):
    """The element type of a literal until it meets another: ``kind`` limits what it can be.

    ``int`` (a literal integer: any number), ``integer`` (bound by `let`: any integer), ``float``,
    ``complex``.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self.bound: Element | None = None

    def __str__(self) -> str:
        if self.bound is not None:
            return str(self.bound)
        return {"int": "{integer}", "integer": "{integer}", "float": "{float}"}.get(
            self.kind, "{complex}"
        )


class AnyElement(Element):
    """An element type that is not known before tracing."""

    def __str__(self) -> str:
        return "_"


ANY_ELEMENT = AnyElement()
BOOL = Prim("bool")
_KIND_ORDER = {"integer": 0, "int": 1, "float": 2, "complex": 3}


def resolve(element: Element) -> Element:
    """Follow an inference variable to what it is bound to."""
    while isinstance(element, Literal) and element.bound is not None:
        element = element.bound
    return element


def kind_of(element: Element) -> str:
    """Return int, float, complex, bool or any; a generic parameter is its bound's kind."""
    element = resolve(element)
    if isinstance(element, Prim):
        if element.name in INTEGERS:
            return "int"
        if element.name in FLOATS:
            return "float"
        return "bool" if element.name == "bool" else "complex"
    if isinstance(element, Literal):
        return "int" if element.kind == "integer" else element.kind
    if isinstance(element, Param):
        return "float" if element.bound == "Float" else "any"
    return "any"


def default(element: Element) -> Prim | Element:
    """Return the type that an element has where nothing else decides."""
    element = resolve(element)
    if isinstance(element, Literal):
        return Prim({"float": "f64", "complex": "c128"}.get(element.kind, "i64"))
    return element


def _fits(literal: Literal, element: Element) -> bool:
    if isinstance(element, Param):
        return literal.kind in ("int", "float") or element.bound != "Float"
    kind = kind_of(element)
    wanted = {
        "int": ("int", "float", "complex"),
        "integer": ("int",),
        "float": ("float", "complex"),
        "complex": ("complex",),
    }
    return kind in wanted[literal.kind]


def unify(left: Element, right: Element) -> Element | None:
    """Return the common element type of two operands, or None. Binds literals."""
    left, right = resolve(left), resolve(right)
    if left is right or left == right:
        return left
    if isinstance(left, AnyElement) or isinstance(right, AnyElement):
        return ANY_ELEMENT
    if isinstance(left, Literal) and isinstance(right, Literal):
        return _unify_literals(left, right)
    if isinstance(left, Literal):
        if not _fits(left, right):
            return _promote(left, right)
        left.bound = right
        return right
    if isinstance(right, Literal):
        return unify(right, left)
    return _promote(left, right)


def _unify_literals(left: Literal, right: Literal) -> Element | None:
    low, high = sorted((left, right), key=lambda item: _KIND_ORDER[item.kind])
    if low.kind == "integer" and high.kind not in ("integer", "int"):
        return None
    if low.kind == "integer":
        low, high = high, low  # an `int` literal becomes as narrow as the variable it meets
    low.bound = high
    return high


def _promote(left: Element, right: Element) -> Element | None:
    """A real number meets a complex one of its precision: the complex one wins."""
    for real, other in ((left, right), (right, left)):
        if (
            isinstance(other, Literal)
            and other.kind == "complex"
            and isinstance(real, Prim)
            and real.name in COMPLEX_OF
        ):
            other.bound = Prim(COMPLEX_OF[real.name])
            return other.bound
        if (
            isinstance(real, Prim)
            and isinstance(other, Prim)
            and COMPLEX_OF.get(real.name) == other.name
        ):
            return other
    return None


# --- units ------------------------------------------------------------------------------------

# Exponents of m, kg, s, A, K, mol, cd.
Unit = tuple[Fraction, ...]
BASE_UNITS = ("m", "kg", "s", "A", "K", "mol", "cd")
NO_UNIT: Unit = (Fraction(0),) * 7


# --- types ------------------------------------------------------------------------------------


class Type:
    """Base of all types."""


class Unknown(Type):
    def __str__(self) -> str:
        return "_"


class Never(Type):
    """The type of an expression that does not return."""

    def __str__(self) -> str:
        return "!"


UNKNOWN = Unknown()
NEVER = Never()


@record(frozen=True)
class Array(Type):
    """A number (shape ``()``) or an array of them; shape None: any rank."""

    element: Element
    shape: tuple[Size, ...] | None = ()
    unit: Unit = NO_UNIT

    @property
    def is_scalar(self) -> bool:
        return self.shape == ()

    def with_shape(self, shape: tuple[Size, ...] | None) -> Array:
        return Array(self.element, shape, self.unit)

    def __str__(self) -> str:
        from tracejit.frontend.neuralscript.units import show_unit

        element = str(resolve(self.element))
        if self.unit != NO_UNIT:
            element = (
                f"{show_unit(self.unit)}"
                if element in ("f64", "{float}", "{integer}")
                else (f"{element} {show_unit(self.unit)}")
            )
        if self.shape is None:
            return f"Tensor<{element}>"
        sizes = ["_" if is_any(size) else str(size) for size in self.shape]
        match len(sizes):
            case 0:
                return element
            case 1:
                return f"Vector<{element}, {sizes[0]}>"
            case 2:
                return f"Matrix<{element}, {sizes[0]}, {sizes[1]}>"
            case _:
                return f"Tensor<{element}, [{', '.join(sizes)}]>"


@record(frozen=True)
class Text(Type):
    def __str__(self) -> str:
        return "str"


@record(frozen=True)
class Tuple(Type):
    """A tuple; the empty one is the type of statements."""

    items: tuple[Type, ...] = ()

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.items))
        return f"({inner},)" if len(self.items) == 1 else f"({inner})"


@record(frozen=True)
class Vec(Type):
    """``Vec<T>``, or an array of things that are not numbers."""

    item: Type

    def __str__(self) -> str:
        return f"Vec<{self.item}>"


@record(frozen=True)
class Range(Type):
    element: Element

    def __str__(self) -> str:
        return f"Range<{resolve(self.element)}>"


@record(frozen=True)
class Opaque(Type):
    """A generic parameter that stands for any type."""

    name: str

    def __str__(self) -> str:
        return self.name


@record(frozen=True)
class Named(Type):
    """A struct or enum with its generic arguments (types or sizes, in declared order)."""

    item: s.StructItem | s.EnumItem
    arguments: tuple[Type | Size, ...] = ()

    @property
    def name(self) -> str:
        return self.item.name

    def __str__(self) -> str:
        if not self.arguments:
            return self.name
        return f"{self.name}<{', '.join(map(str, self.arguments))}>"


@record(frozen=True)
class Function(Type):
    """``Fn(A, B) -> C``: a function known only by its type."""

    parameters: tuple[Type, ...]
    result: Type

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.parameters))
        return f"Fn({inner}) -> {self.result}"


@record(frozen=True)
class Callee(Type):
    """A function, closure or builtin that is known itself; ``target`` is what is called."""

    name: str
    target: object = field(hash=False)

    def __str__(self) -> str:
        return f"fn {self.name}"


@record(frozen=True)
class Imported(Type):
    """A module bound by ``use name``."""

    name: str
    target: object = field(hash=False)

    def __str__(self) -> str:
        return f"module {self.name}"


VOID = Tuple()
TEXT = Text()
BOOLEAN = Array(BOOL)
USIZE = Array(Prim("usize"))
Bindings = dict[str, Type | Size]


def number(name: str) -> Array:
    return Array(Prim(name))


def is_exact(kind: Type) -> bool:
    """Whether nothing about a type is left to tracing."""
    match kind:
        case Array(element, shape):
            known = shape is not None and not any(is_any(size) for size in shape)
            return known and not isinstance(resolve(element), AnyElement)
        case Tuple(items):
            return all(is_exact(item) for item in items)
        case Vec(item):
            return is_exact(item)
        case Named(_, arguments):
            return all(is_exact(a) for a in arguments if isinstance(a, Type))
        case Unknown():
            return False
        case _:
            return True


def is_fixed(argument: Type | Size) -> bool:
    """Whether a generic argument says something."""
    return not is_any(argument) if isinstance(argument, Size) else not isinstance(argument, Unknown)
