"""The types of builtins that make, reshape and join arrays, and of machine learning's."""

from __future__ import annotations

from fractions import Fraction

from tracejit.frontend.neuralscript import matching, units
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript.builtin_rules import BuiltinCall, Rule, Shape, common
from tracejit.frontend.neuralscript.diagnostics import fault


def length(call: BuiltinCall) -> t.Type:
    kind = call.types["x"]
    if isinstance(kind, t.Array) and kind.shape == ():
        raise call.fault("N033", "a number has no length", "x", f"this is `{kind}`")
    return t.USIZE


def shape_of(call: BuiltinCall) -> t.Type:
    kind = call.array()
    if kind is None or kind.shape is None:
        return t.UNKNOWN
    return t.Tuple((t.USIZE,) * len(kind.shape))


def sizes(call: BuiltinCall, parameter: str = "shape") -> Shape:
    """Return the sizes that a shape argument names: an integer, a tuple, or an array."""
    node = call.nodes[parameter]
    kind = call.types[parameter]
    if isinstance(node, s.TupleExpr | s.ArrayExpr):
        return tuple(call.constant_size(item) or t.ANY for item in node.items)
    if isinstance(kind, t.Array) and kind.shape == ():
        if t.kind_of(kind.element) not in ("int", "any"):
            raise call.fault("N036", "a size is an integer", parameter, f"this is `{kind}`")
        return (call.constant_size(node) or t.ANY,)
    if isinstance(kind, t.Tuple):
        return (t.ANY,) * len(kind.items)
    return None


def reshape(call: BuiltinCall) -> t.Type:
    kind = call.array()
    if kind is None:
        return t.UNKNOWN
    shape = sizes(call)
    if shape is not None:
        shape = _infer(call, kind, shape)
    return kind.with_shape(shape)


def _infer(call: BuiltinCall, kind: t.Array, shape: tuple[t.Size, ...]) -> tuple[t.Size, ...]:
    """Fill in a -1, and refuse a shape of another number of elements."""
    unknown = [index for index, size in enumerate(shape) if size == t.Size(-1)]
    total = None
    if kind.shape is not None and all(size.known for size in kind.shape):
        total = 1
        for size in kind.shape:
            total *= size.constant
    known = 1
    for index, size in enumerate(shape):
        if index not in unknown:
            if not size.known:
                total = None
            known *= size.constant if size.known else 1
    if len(unknown) > 1:
        raise call.fault("N036", "only one size can be -1", "shape")
    if total is not None and (total % known if unknown and known else total != known):
        raise call.fault(
            "N032", f"`{kind}` has {total} elements", "shape", f"this shape has {known}"
        )
    if unknown:
        guess = t.ANY if total is None or not known else t.Size(total // known)
        if kind.shape is not None and len(kind.shape) == 1 and known == 1 and total is None:
            guess = kind.shape[0] if all(size.known for size in shape) else t.ANY
        return tuple(guess if i in unknown else size for i, size in enumerate(shape))
    return shape


def created(element: str = "float") -> Rule:
    """zeros, ones, random: floats of a shape; the type adapts like a literal's."""

    def rule(call: BuiltinCall) -> t.Type:
        first = t.Literal("float") if element == "float" else t.Prim(element)
        return t.Array(first, sizes(call))

    return rule


def filled(call: BuiltinCall) -> t.Type:
    kind = call.array("value")
    return t.UNKNOWN if kind is None else t.Array(kind.element, sizes(call), kind.unit)


def like(call: BuiltinCall) -> t.Type:
    return call.array() or t.UNKNOWN


def identity(call: BuiltinCall) -> t.Type:
    size = (sizes(call, "n") or (t.ANY,))[0]
    return t.Array(t.Literal("float"), (size, size))


def linspace(call: BuiltinCall) -> t.Type:
    kind = common(call, ("start", "stop"), floating=True)
    count = (sizes(call, "count") or (t.ANY,))[0]
    return t.UNKNOWN if kind is None else t.Array(kind.element, (count,), kind.unit)


def arange(call: BuiltinCall) -> t.Type:
    names = tuple(name for name in ("start", "stop", "step") if name in call.types)
    kind = common(call, names)
    if kind is None:
        return t.UNKNOWN
    count = t.ANY
    if len(names) == 1 and t.kind_of(kind.element) == "int":
        count = call.constant_size(call.nodes["start"]) or t.ANY
    return t.Array(kind.element, (count,), kind.unit)


def joined(call: BuiltinCall) -> list[t.Array] | None:
    """Return the types of the arrays that concat or stack joins."""
    node = call.nodes["arrays"]
    kind = call.types["arrays"]
    if isinstance(kind, t.Tuple):
        items = kind.items
    elif isinstance(kind, t.Array) and isinstance(node, s.ArrayExpr) and kind.shape:
        items = (kind.with_shape(kind.shape[1:]),) * len(node.items)
    else:
        return None
    arrays = [item for item in items if isinstance(item, t.Array)]
    return arrays if arrays and len(arrays) == len(items) else None


def concat(call: BuiltinCall) -> t.Type:
    arrays = joined(call)
    if arrays is None:
        return t.UNKNOWN
    first = arrays[0]
    if first.shape is None or any(item.shape is None for item in arrays):
        return t.Array(first.element, None, first.unit)
    call_axes = call.axes(len(first.shape)) if "axis" in call.nodes else (0,)
    if not first.shape or call_axes is None:
        raise call.fault("N032", "`concat` joins vectors, matrices or tensors", "arrays")
    axis, total, span = call_axes[0], t.Size(0), call.nodes["arrays"].span
    for item in arrays:
        shape = item.shape or ()
        fits = len(shape) == len(first.shape) and all(
            a == b or t.is_any(a) or t.is_any(b)
            for i, (a, b) in enumerate(zip(shape, first.shape, strict=True))
            if i != axis
        )
        if not fits:
            raise fault(
                "N032", f"`concat` along axis {axis} cannot join `{first}` and `{item}`", span
            )
        if t.unify(first.element, item.element) is None:
            raise fault("N031", f"`concat` cannot join `{first}` and `{item}`", span)
        total = t.ANY if t.is_any(total) or t.is_any(shape[axis]) else total.plus(shape[axis])
    return first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :]))


def stack(call: BuiltinCall) -> t.Type:
    arrays = joined(call)
    if arrays is None:
        return t.UNKNOWN
    first = arrays[0]
    for item in arrays[1:]:
        if matching.join(first, item) is None:
            raise call.fault("N032", f"`stack` cannot join `{first}` and `{item}`", "arrays")
    axis = call.integer("axis") if "axis" in call.nodes else 0
    if first.shape is None or axis is None:
        return t.Array(first.element, None, first.unit)
    at = axis % (len(first.shape) + 1)
    return first.with_shape((*first.shape[:at], t.Size(len(arrays)), *first.shape[at:]))


def take(call: BuiltinCall) -> t.Type:
    kind, index = call.array(), call.array("index")
    if kind is None or index is None or kind.shape is None or index.shape is None:
        return t.UNKNOWN
    axes = call.axes(len(kind.shape)) if "axis" in call.nodes else (0,)
    if axes is None:
        return t.Array(kind.element, None, kind.unit)
    at = axes[0]
    return kind.with_shape((*kind.shape[:at], *index.shape, *kind.shape[at + 1 :]))


def unknown(call: BuiltinCall) -> t.Type:
    return t.UNKNOWN


def layer_norm(call: BuiltinCall) -> t.Type:
    names = tuple(name for name in ("x", "weight", "bias") if name in call.types)
    kind = common(call, names, floating=True)
    call.plain(kind)
    return kind or t.UNKNOWN


def loss(call: BuiltinCall) -> t.Type:
    """mse, cross_entropy: a number."""
    kind = call.floating("x")
    if call.name == "mse":
        kind = common(call, ("x", "y"), floating=True)
    if kind is None:
        return t.UNKNOWN
    unit = units.power(kind.unit, Fraction(2)) if call.name == "mse" else t.NO_UNIT
    return t.Array(kind.element, (), unit)


def one_hot(call: BuiltinCall) -> t.Type:
    kind = call.array()
    if kind is None or kind.shape is None:
        return t.UNKNOWN
    return t.Array(t.Literal("float"), (*kind.shape, (sizes(call, "classes") or (t.ANY,))[0]))


def seconds(call: BuiltinCall) -> t.Type:
    return t.number("f64")


def nothing(call: BuiltinCall) -> t.Type:
    return t.VOID


def texts(call: BuiltinCall) -> t.Type:
    return t.Vec(t.TEXT)
