"""The types of builtins: one rule a family, over a call whose arguments are already typed."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from tracejit.frontend.neuralscript import matching, units
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript.diagnostics import Fault, Label, fault
from tracejit.frontend.neuralscript.source import Span
from tracejit.record import record

Shape = tuple[t.Size, ...] | None


@record
class BuiltinCall:
    """A call of a builtin: its typed arguments by parameter name.

    ``constant_size`` is the checker's, for axes and sizes that are known before tracing.
    """

    name: str
    span: Span
    nodes: dict[str, s.Expr]
    types: dict[str, t.Type]
    constant_size: Callable[[s.Expr], t.Size | None]

    def fault(
        self, code: str, message: str, parameter: str, text: str = "", help: str = ""
    ) -> Fault:
        node = self.nodes.get(parameter)
        return fault(code, message, self.span if node is None else node.span, text, help=help)

    def array(self, parameter: str = "x") -> t.Array | None:
        """Return the type of an argument that must be numbers; None: known while tracing."""
        kind = self.types[parameter]
        if isinstance(kind, t.Unknown | t.Never):
            return None
        if isinstance(kind, t.Vec) and isinstance(kind.item, t.Array):
            item = kind.item
            shape = None if item.shape is None else (t.ANY, *item.shape)
            return t.Array(item.element, shape, item.unit)
        if not isinstance(kind, t.Array):
            raise self.fault(
                "N033", f"`{self.name}` takes numbers, not `{kind}`", parameter, f"this is `{kind}`"
            )
        return kind

    def floating(self, parameter: str = "x") -> t.Array | None:
        """Like ``array``; literal integers become floats, other integers are refused."""
        kind = self.array(parameter)
        if kind is None:
            return None
        element = kind.element
        if isinstance(t.resolve(element), t.Literal):
            t.unify(element, t.Literal("float"))
        if t.kind_of(element) in ("int", "bool"):
            text = self.nodes[parameter].span.text
            help = f"write `{text} as f64`" if text.isidentifier() else "convert it with `as f64`"
            raise self.fault(
                "N031",
                f"`{self.name}` takes floats, not `{kind}`",
                parameter,
                f"this is `{kind}`",
                help,
            )
        return kind

    def plain(self, kind: t.Array | None, parameter: str = "x") -> None:
        """Refuse a unit."""
        if kind is not None and kind.unit != t.NO_UNIT:
            shown = units.show_unit(kind.unit)
            raise self.fault(
                "N052",
                f"`{self.name}` takes a number without unit",
                parameter,
                f"this has {shown}",
                f"divide by a reference, such as 1_{shown}",
            )

    def integer(self, parameter: str) -> int | None:
        """Return the value of an integer argument where it is known."""
        node = self.nodes.get(parameter)
        size = None if node is None else self.constant_size(node)
        return size.constant if size is not None and size.known else None

    def flag(self, parameter: str) -> bool | None:
        node = self.nodes.get(parameter)
        if node is None:
            return False
        return node.value if isinstance(node, s.BoolExpr) else None

    def axes(self, rank: int) -> tuple[int, ...] | None:
        """Return the axes that ``axis:`` names; () means all; None: not known here."""
        node = self.nodes.get("axis")
        if node is None:
            return tuple(range(rank))
        items = node.items if isinstance(node, s.TupleExpr | s.ArrayExpr) else (node,)
        found: list[int] = []
        for item in items:
            size = self.constant_size(item)
            if size is None or not size.known:
                return None
            axis = size.constant
            if not -rank <= axis < rank:
                some = f"has {rank} ax{'is' if rank == 1 else 'es'}"
                raise fault(
                    "N037",
                    f"axis {axis} is out of range: the argument {some}",
                    item.span,
                    f"axes are 0 to {rank - 1}" if rank else "a number has no axes",
                )
            found.append(axis % rank)
        return tuple(found)


Rule = Callable[[BuiltinCall], t.Type]


def float_map(call: BuiltinCall) -> t.Type:
    """A float function, elementwise, of a number without unit."""
    kind = call.floating()
    call.plain(kind)
    return kind or t.UNKNOWN


def root(degree: int) -> Rule:
    """sqrt, cbrt: the unit's root."""

    def rule(call: BuiltinCall) -> t.Type:
        kind = call.floating()
        if kind is None:
            return t.UNKNOWN
        return t.Array(kind.element, kind.shape, units.power(kind.unit, Fraction(1, degree)))

    return rule


def same(call: BuiltinCall) -> t.Type:
    """The argument's type: floor, ceil, round, cumsum, sort, …"""
    return call.array() or t.UNKNOWN


def dimensionless(call: BuiltinCall) -> t.Type:
    kind = call.array()
    return t.UNKNOWN if kind is None else t.Array(kind.element, kind.shape)


def real_part(call: BuiltinCall) -> t.Type:
    """abs, re, im: the real type of a complex one."""
    kind = call.array()
    if kind is None:
        return t.UNKNOWN
    element = t.resolve(kind.element)
    if isinstance(element, t.Prim) and element.name in t.REAL_OF:
        return t.Array(t.Prim(t.REAL_OF[element.name]), kind.shape, kind.unit)
    if isinstance(element, t.Literal) and element.kind == "complex":
        element.bound = t.Prim("c128")
        return t.Array(t.Prim("f64"), kind.shape, kind.unit)
    return kind


def angle(call: BuiltinCall) -> t.Type:
    kind = real_part(call)
    return t.Array(kind.element, kind.shape) if isinstance(kind, t.Array) else kind


def predicate(call: BuiltinCall) -> t.Type:
    kind = call.array()
    return t.UNKNOWN if kind is None else t.Array(t.BOOL, kind.shape)


def common(call: BuiltinCall, names: tuple[str, ...], floating: bool = False) -> t.Array | None:
    """Return the broadcast type of several arguments with equal elements and units."""
    kinds = [(name, call.floating(name) if floating else call.array(name)) for name in names]
    first: tuple[str, t.Array] | None = None
    for name, kind in kinds:
        if kind is None:
            return None
        if first is None:
            first = name, kind
            continue
        label = Label(call.nodes[first[0]].span, f"this is `{first[1]}`")
        element = t.unify(first[1].element, kind.element)
        span = call.nodes[name].span
        if element is None:
            raise fault(
                "N031", f"`{call.name}` needs equal element types", span, f"this is `{kind}`", label
            )
        if first[1].unit != kind.unit:
            raise fault(
                "N050", f"`{call.name}` needs equal units", span, f"this is `{kind}`", label
            )
        try:
            shape = matching.broadcast(first[1].shape, kind.shape)
        except matching.Mismatch:
            raise fault(
                "N032", f"the shapes of `{call.name}` do not fit", span, f"this is `{kind}`", label
            ) from None
        first = name, t.Array(element, shape, kind.unit)
    return None if first is None else first[1]


def pairwise(call: BuiltinCall) -> t.Type:
    """An elementwise function of two arguments of one type: hypot, pow without units."""
    return common(call, ("x", "y"), floating=True) or t.UNKNOWN


def arctangent(call: BuiltinCall) -> t.Type:
    kind = common(call, ("y", "x"), floating=True)
    return t.UNKNOWN if kind is None else t.Array(kind.element, kind.shape)


def extremum(call: BuiltinCall) -> t.Type:
    """min and max: elementwise with two arguments, a reduction with one."""
    if "y" in call.types:
        return common(call, ("x", "y")) or t.UNKNOWN
    return reduce_same(call)


def clamp(call: BuiltinCall) -> t.Type:
    return common(call, ("x", "low", "high")) or t.UNKNOWN


def select(call: BuiltinCall) -> t.Type:
    """where(condition, x, y)."""
    condition = call.array("condition")
    if condition is not None and t.kind_of(condition.element) not in ("bool", "any"):
        raise call.fault("N034", "a condition is bool", "condition", f"this is `{condition}`")
    kind = common(call, ("x", "y"))
    if kind is None or condition is None:
        return t.UNKNOWN
    try:
        return kind.with_shape(matching.broadcast(condition.shape, kind.shape))
    except matching.Mismatch:
        raise fault(
            "N032",
            "the shapes of `where` do not fit",
            call.nodes["condition"].span,
            f"this is `{condition}`",
            Label(call.nodes["x"].span, f"the values are `{kind}`"),
        ) from None


# --- reductions -------------------------------------------------------------------------------


def reduced(call: BuiltinCall, kind: t.Array) -> Shape:
    """Return the shape after reducing the axes that the call names."""
    keep = call.flag("keepdims")
    if kind.shape is None:
        return () if "axis" not in call.nodes and keep is False else None
    axes = call.axes(len(kind.shape))
    if keep is None or axes is None:
        return None
    if keep:
        return tuple(t.Size(1) if i in axes else n for i, n in enumerate(kind.shape))
    return tuple(n for i, n in enumerate(kind.shape) if i not in axes)


def reduce_same(call: BuiltinCall) -> t.Type:
    kind = call.array()
    if kind is None:
        return t.UNKNOWN
    element = kind.element
    if t.kind_of(element) == "bool" and call.name in ("sum", "prod"):
        element = t.Prim("i64")
    return t.Array(element, reduced(call, kind), kind.unit)


def reduce_product(call: BuiltinCall) -> t.Type:
    call.plain(call.array())
    return reduce_same(call)


def reduce_float(call: BuiltinCall) -> t.Type:
    kind = call.floating()
    if kind is None:
        return t.UNKNOWN
    if call.name == "logsumexp":
        call.plain(kind)
    unit = units.power(kind.unit, Fraction(2)) if call.name == "var" else kind.unit
    return t.Array(kind.element, reduced(call, kind), unit)


def reduce_index(call: BuiltinCall) -> t.Type:
    kind = call.array()
    return t.UNKNOWN if kind is None else t.Array(t.Prim("usize"), reduced(call, kind))


def reduce_bool(call: BuiltinCall) -> t.Type:
    kind = call.array()
    return t.UNKNOWN if kind is None else t.Array(t.BOOL, reduced(call, kind))


def along(floating: bool) -> Rule:
    """A function along one axis that keeps the shape: softmax, cumsum, sort."""

    def rule(call: BuiltinCall) -> t.Type:
        kind = call.floating() if floating else call.array()
        if kind is None:
            return t.UNKNOWN
        if floating:
            call.plain(kind)
        if kind.shape is not None:
            call.axes(len(kind.shape))
        return kind

    return rule


def argsort(call: BuiltinCall) -> t.Type:
    kind = along(False)(call)
    return t.Array(t.Prim("usize"), kind.shape) if isinstance(kind, t.Array) else kind


# --- linear algebra ---------------------------------------------------------------------------


def _needs_rank(call: BuiltinCall, kind: t.Array, rank: int, parameter: str = "x") -> None:
    if kind.shape is not None and len(kind.shape) != rank:
        what = {1: "a vector", 2: "a matrix"}[rank]
        raise call.fault("N032", f"`{call.name}` takes {what}", parameter, f"this is `{kind}`")


def transpose(call: BuiltinCall) -> t.Type:
    """Swap the last two axes; ``axes:`` permutes all."""
    kind = call.array()
    if kind is None or kind.shape is None:
        return kind or t.UNKNOWN
    node = call.nodes.get("axes")
    if node is None:
        shape = kind.shape
        return kind.with_shape((*shape[:-2], shape[-1], shape[-2]) if len(shape) > 1 else shape)
    items = node.items if isinstance(node, s.TupleExpr | s.ArrayExpr) else (node,)
    order = [call.constant_size(item) for item in items]
    if len(order) != len(kind.shape):
        raise call.fault("N037", f"`axes` names {len(order)} of {len(kind.shape)} axes", "axes")
    if any(size is None or not size.known for size in order):
        return kind.with_shape((t.ANY,) * len(kind.shape))
    picked = [size.constant for size in order if size is not None]
    if sorted(axis % len(kind.shape) for axis in picked) != list(range(len(kind.shape))):
        raise call.fault("N037", "`axes` must name every axis once", "axes")
    return kind.with_shape(tuple(kind.shape[axis] for axis in picked))


def dot(call: BuiltinCall) -> t.Type:
    kind = common_element(call)
    one, two = call.array("x"), call.array("y")
    if kind is None or one is None or two is None:
        return t.UNKNOWN
    _needs_rank(call, one, 1, "x")
    _needs_rank(call, two, 1, "y")
    common_size(call, one, two)
    return t.Array(kind, (), units.multiply(one.unit, two.unit))


def common_size(call: BuiltinCall, one: t.Array, two: t.Array) -> None:
    try:
        matching.broadcast(one.shape, two.shape)
    except matching.Mismatch:
        raise fault(
            "N032",
            f"the shapes of `{call.name}` do not fit",
            call.nodes["y"].span,
            f"this is `{two}`",
            Label(call.nodes["x"].span, f"this is `{one}`"),
        ) from None


def common_element(call: BuiltinCall) -> t.Element | None:
    one, two = call.array("x"), call.array("y")
    if one is None or two is None:
        return None
    element = t.unify(one.element, two.element)
    if element is None:
        raise fault(
            "N031",
            f"`{call.name}` needs equal element types",
            call.nodes["y"].span,
            f"this is `{two}`",
            Label(call.nodes["x"].span, f"this is `{one}`"),
        )
    return element


def cross(call: BuiltinCall) -> t.Type:
    element = common_element(call)
    one, two = call.array("x"), call.array("y")
    if element is None or one is None or two is None:
        return t.UNKNOWN
    common_size(call, one, two)
    for name, kind in (("x", one), ("y", two)):
        if kind.shape is not None and (not kind.shape or kind.shape[-1] not in (t.Size(3), t.ANY)):
            raise call.fault("N032", "`cross` takes vectors of 3", name, f"this is `{kind}`")
    return t.Array(element, one.shape, units.multiply(one.unit, two.unit))


def outer(call: BuiltinCall) -> t.Type:
    element = common_element(call)
    one, two = call.array("x"), call.array("y")
    if element is None or one is None or two is None:
        return t.UNKNOWN
    _needs_rank(call, one, 1, "x")
    _needs_rank(call, two, 1, "y")
    shape = None if one.shape is None or two.shape is None else (*one.shape, *two.shape)
    return t.Array(element, shape, units.multiply(one.unit, two.unit))


def square(result: str) -> Rule:
    """A function of a square matrix: ``result`` is matrix, vector, number or complex."""

    def rule(call: BuiltinCall) -> t.Type:
        kind = call.floating() if result != "number" or call.name != "trace" else call.array()
        if kind is None:
            return t.UNKNOWN
        if kind.shape is None:
            return t.Array(kind.element, None, kind.unit)
        if len(kind.shape) < 2:
            raise call.fault("N032", f"`{call.name}` takes a matrix", "x", f"this is `{kind}`")
        rows, columns = kind.shape[-2:]
        if (
            rows != columns
            and not t.is_any(rows)
            and not t.is_any(columns)
            and call.name != "trace"
        ):
            raise call.fault(
                "N032", f"`{call.name}` takes a square matrix", "x", f"this is `{kind}`"
            )
        shapes = {"matrix": kind.shape, "number": kind.shape[:-2], "complex": kind.shape[:-1]}
        if result == "complex":
            name = str(t.default(kind.element))
            return t.Array(t.Prim(t.COMPLEX_OF.get(name, "c128")), shapes[result])
        if call.name != "trace":
            call.plain(kind)
        return t.Array(kind.element, shapes[result], kind.unit)

    return rule


def solve(call: BuiltinCall) -> t.Type:
    element = common_element(call)
    one, two = call.array("x"), call.array("y")
    if element is None or one is None or two is None:
        return t.UNKNOWN
    if (
        one.shape
        and two.shape
        and len(one.shape) == 2
        and (
            one.shape[-1] != two.shape[0]
            and not t.is_any(one.shape[-1])
            and not t.is_any(two.shape[0])
        )
    ):
        raise fault(
            "N032",
            "the shapes of `solve` do not fit",
            call.nodes["y"].span,
            f"this is `{two}`",
            Label(call.nodes["x"].span, f"this is `{one}`"),
        )
    return t.Array(element, two.shape, units.multiply(two.unit, one.unit, -1))


def factors(count: int) -> Rule:
    """svd and qr: a tuple of arrays whose sizes are known while tracing."""

    def rule(call: BuiltinCall) -> t.Type:
        kind = call.floating()
        if kind is None:
            return t.UNKNOWN
        _needs_rank(call, kind, 2)
        call.plain(kind)
        matrix = t.Array(kind.element, (t.ANY, t.ANY))
        vector = t.Array(kind.element, (t.ANY,))
        return t.Tuple((matrix, matrix) if count == 2 else (matrix, vector, matrix))

    return rule
