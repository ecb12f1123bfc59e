"""The types of operators: arithmetic with units, products, comparisons, indexing."""

from __future__ import annotations

from fractions import Fraction

from tracejit.frontend.neuralscript import matching, units
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript.check_types import TypeChecker
from tracejit.frontend.neuralscript.diagnostics import Fault, Label, fault
from tracejit.frontend.neuralscript.source import Span

_SAME_UNIT = frozenset(("+", "-", "%"))
_ORDER = frozenset(("<", ">", "<=", ">="))
_THREE = (t.Size(3),)
_ASCII = {"@": "⊙", "⋅": "⋅", "⊗": "⊗"}


class OperatorChecker(TypeChecker):
    """Pure rules over operand types; ``binary_type`` and ``index_type`` are the entries."""

    def binary_type(
        self, operator: str, left: t.Type, right: t.Type, node: s.BinaryExpr | s.AssignExpr
    ) -> t.Type:
        """Return the type of ``left operator right``. Errors: Fault with both spans."""
        one, two = (
            (node.left, node.right) if isinstance(node, s.BinaryExpr) else (node.place, node.value)
        )
        if operator in ("∈", "∉"):
            return self.membership(left, right, two)
        if isinstance(left, t.Never) or isinstance(right, t.Never):
            return t.NEVER
        if isinstance(left, t.Unknown) or isinstance(right, t.Unknown):
            return t.UNKNOWN
        if operator == "+" and isinstance(left, t.Text) and isinstance(right, t.Text):
            return t.TEXT
        if operator in ("==", "!=") and not isinstance(left, t.Array):
            if matching.join(left, right) is None:
                raise self.operand_fault(operator, left, right, one.span, two.span)
            return t.BOOLEAN
        if not isinstance(left, t.Array) or not isinstance(right, t.Array):
            raise self.operand_fault(operator, left, right, one.span, two.span)
        if operator in ("&&", "||"):
            return self.logic(operator, left, right, one.span, two.span)
        if operator == "^":
            return self.power(left, right, one, two)
        element = self.common_element(operator, left, right, one.span, two.span)
        if operator in ("/", "%"):
            self.check_division(element, one, two)
        if operator in ("@", "⋅", "⊗") or (operator == "×" and left.shape == right.shape == _THREE):
            shape = self.product_shape(operator, left, right, one.span, two.span)
        else:
            shape = self.broadcast(operator, left, right, one.span, two.span)
        if operator in _ORDER or operator in ("==", "!=", "≈"):
            self.same_unit(operator, left, right, one.span, two.span)
            if operator in _ORDER and t.kind_of(element) == "complex":
                raise fault(
                    "N033",
                    f"`{operator}` does not order complex numbers",
                    one.span,
                    help="compare `|z|` or `z.re`",
                )
            return t.Array(t.BOOL, shape)
        if operator in _SAME_UNIT:
            self.same_unit(operator, left, right, one.span, two.span)
            return t.Array(element, shape, left.unit)
        sign = -1 if operator == "/" else 1
        return t.Array(element, shape, units.multiply(left.unit, right.unit, sign))

    def operand_fault(
        self, operator: str, left: t.Type, right: t.Type, one: Span, two: Span
    ) -> Fault:
        return fault(
            "N033",
            f"`{operator}` does not take `{left}` and `{right}`",
            two,
            f"this is `{right}`",
            Label(one, f"this is `{left}`"),
        )

    def common_element(
        self, operator: str, left: t.Array, right: t.Array, one: Span, two: Span
    ) -> t.Element:
        """Return the element type of both operands; there is no silent conversion."""
        before = t.resolve(left.element), t.resolve(right.element)
        element = t.unify(*before)
        if element is None:
            raise self.element_fault(operator, before, one, two)
        if t.kind_of(element) == "bool" and operator not in ("==", "!="):
            raise fault(
                "N033",
                f"`{operator}` does not take bool",
                one,
                "this is `bool`",
                help="count with `x as i64`, combine with && and ||",
            )
        return element

    def element_fault(
        self, operator: str, found: tuple[t.Element, t.Element], one: Span, two: Span
    ) -> Fault:
        left, right = found
        kinds = t.kind_of(left), t.kind_of(right)
        help = ""
        if kinds == ("int", "float"):
            help = f"write `{_cast(one.text)} as {t.default(right)}`"
        elif kinds == ("float", "int") or "bool" not in kinds:
            help = f"write `{_cast(two.text)} as {t.default(left)}`"
        return fault(
            "N031",
            f"`{operator}` needs equal element types, not `{left}` and `{right}`",
            two,
            f"this is `{right}`",
            Label(one, f"this is `{left}`"),
            help=help,
        )

    def check_division(self, element: t.Element, one: s.Expr, two: s.Expr) -> None:
        """Refuse ``1/3`` of integer literals, which would be 0; forbid a literal zero."""
        if t.kind_of(element) != "int" or not isinstance(two, s.NumberExpr):
            return
        if two.value == 0:
            raise fault("N033", "division by zero", two.span)
        if (
            isinstance(one, s.NumberExpr)
            and one.value % two.value
            and isinstance(t.resolve(element), t.Literal)
        ):
            raise fault(
                "N039",
                f"`{one.span.text}/{two.span.text}` of integers is {int(one.value / two.value)}",
                one.span.to(two.span),
                help=f"write `{one.span.text}.0 / {two.span.text}.0`",
            )

    def same_unit(self, operator: str, left: t.Array, right: t.Array, one: Span, two: Span) -> None:
        if left.unit == right.unit:
            return
        shown = [units.show_unit(item.unit) or "no unit" for item in (left, right)]
        raise fault(
            "N050",
            f"`{operator}` needs equal units, not {shown[0]} and {shown[1]}",
            two,
            f"this has {_unit_text(shown[1])}",
            Label(one, f"this has {_unit_text(shown[0])}"),
        )

    def broadcast(
        self, operator: str, left: t.Array, right: t.Array, one: Span, two: Span
    ) -> tuple[t.Size, ...] | None:
        try:
            return matching.broadcast(left.shape, right.shape)
        except matching.Mismatch:
            raise self.shape_fault(operator, left, right, one, two) from None

    def shape_fault(
        self, operator: str, left: t.Array, right: t.Array, one: Span, two: Span
    ) -> Fault:
        help = ""
        a, b = left.shape, right.shape
        if operator in ("*", "+", "-", "/", "×") and a and b:
            if operator in ("*", "×") and len(a) + len(b) >= 3 and a[-1] == b[-min(2, len(b))]:
                help = f"the matrix product is `{one.text} ⊙ {two.text}`"
            elif len(a) == 2 and len(b) == 1 and a[0] == b[0]:
                help = f"to work on columns write `reshape({two.text}, (-1, 1))`"
            elif len(a) == len(b) == 2 and a == b[::-1]:
                help = f"transpose one of them: `{two.text}ᵀ`"
        if operator == "@" and a and b and len(a) == len(b) == 2 and a[-1] == b[-1]:
            help = f"transpose the right operand: `{one.text} ⊙ {two.text}ᵀ`"
        shown = _ASCII.get(operator, operator)
        return fault(
            "N032",
            f"the shapes of `{shown}` do not fit: `{left}` and `{right}`",
            two,
            f"this is `{right}`",
            Label(one, f"this is `{left}`"),
            help=help,
        )

    def product_shape(
        self, operator: str, left: t.Array, right: t.Array, one: Span, two: Span
    ) -> tuple[t.Size, ...] | None:
        """Matrix product, dot, cross, and outer (Kronecker) product."""
        a, b = left.shape, right.shape
        if a is None or b is None:
            return None
        failure = self.shape_fault(operator, left, right, one, two)
        if operator == "×":
            return _THREE
        if operator == "⊗":
            if len(a) == len(b) == 1:
                return (*a, *b)
            if len(a) == len(b) == 2:
                return tuple(_scaled(x, y) for x, y in zip(a, b, strict=True))
            raise failure
        if operator == "⋅" and (len(a) != 1 or len(b) != 1):
            raise failure
        if not a or not b:
            raise fault(
                "N033",
                f"`{_ASCII[operator]}` takes matrices and vectors, not numbers",
                one if not a else two,
                help="write `*`",
            )
        inner = b[-2:][0]
        last = a[-1:][0]
        if last != inner and not t.is_any(last) and not t.is_any(inner):
            raise failure
        try:
            batch = matching.broadcast(a[:-2], b[:-2]) or ()
        except matching.Mismatch:
            raise failure from None
        rows = a[-2:-1] if len(a) > 1 else ()
        columns = b[-1:] if len(b) > 1 else ()
        return (*batch, *rows, *columns)

    def power(self, left: t.Array, right: t.Array, one: s.Expr, two: s.Expr) -> t.Type:
        """``x^n``: a float base takes any real exponent, an integer base an integer one."""
        shape = self.broadcast("^", left, right, one.span, two.span)
        if right.unit != t.NO_UNIT:
            raise fault(
                "N050",
                "an exponent has no unit",
                two.span,
                f"this has {units.show_unit(right.unit)}",
            )
        base, exponent = t.resolve(left.element), t.resolve(right.element)
        if t.kind_of(base) == "bool" or t.kind_of(exponent) == "bool":
            raise self.operand_fault("^", left, right, one.span, two.span)
        if t.kind_of(exponent) == "int" and t.kind_of(base) != "int":
            element: t.Element | None = base
        else:
            element = t.unify(base, exponent)
        if element is None:
            raise self.element_fault("^", (base, exponent), one.span, two.span)
        unit = left.unit
        if unit != t.NO_UNIT:
            value = _rational(two)
            if value is None:
                raise fault("N050", "the power of a quantity needs a literal exponent", two.span)
            unit = units.power(unit, value)
        return t.Array(element, shape, unit)

    def logic(self, operator: str, left: t.Array, right: t.Array, one: Span, two: Span) -> t.Type:
        for kind, span in ((left, one), (right, two)):
            if t.kind_of(kind.element) not in ("bool", "any"):
                raise fault(
                    "N033", f"`{operator}` takes bool, not `{kind}`", span, f"this is `{kind}`"
                )
        return t.Array(t.BOOL, self.broadcast(operator, left, right, one, two))

    def membership(self, left: t.Type, right: t.Type, two: s.Expr) -> t.Type:
        if not isinstance(right, t.Range | t.Vec | t.Array | t.Unknown):
            raise fault("N033", f"`∈` needs a range, a vector or a Vec, not `{right}`", two.span)
        if (
            isinstance(left, t.Array)
            and isinstance(right, t.Range | t.Array)
            and t.unify(left.element, right.element) is None
        ):
            raise fault("N031", f"a `{left}` cannot be in a `{right}`", two.span)
        return t.BOOLEAN

    # --- indexing -----------------------------------------------------------------------------

    def index_type(self, base: t.Array, indices: list[tuple[s.Expr, t.Type]], span: Span) -> t.Type:
        """Return the type of ``base[indices]``."""
        if base.shape is None:
            return t.Array(base.element, None, base.unit)
        if len(indices) == 1 and self.is_mask(indices[0][1], base.shape):
            return t.Array(base.element, (t.ANY,), base.unit)
        if len(indices) > len(base.shape):
            raise fault(
                "N038",
                f"{len(indices)} indices into `{base}`",
                span,
                f"it has {len(base.shape)} axes",
            )
        shape: list[t.Size] = []
        for axis, (node, kind) in enumerate(indices):
            shape += self.index_axis(base, axis, node, kind)
        shape += base.shape[len(indices) :]
        return t.Array(base.element, tuple(shape), base.unit)

    def is_mask(self, kind: t.Type, shape: tuple[t.Size, ...]) -> bool:
        if not isinstance(kind, t.Array) or t.kind_of(kind.element) != "bool":
            return False
        return kind.shape is None or len(kind.shape) == len(shape) > 0

    def index_axis(
        self, base: t.Array, axis: int, node: s.Expr, kind: t.Type
    ) -> tuple[t.Size, ...]:
        assert base.shape is not None
        size = base.shape[axis]
        if isinstance(node, s.RangeExpr):
            return (self.slice_size(size, node, base),)
        if isinstance(kind, t.Unknown):
            return ()
        if not isinstance(kind, t.Array) or t.kind_of(kind.element) not in ("int", "bool", "any"):
            raise fault(
                "N038", f"an index is an integer, a range or a mask, not `{kind}`", node.span
            )
        if kind.shape is None:
            return (t.ANY,)
        if kind.shape == ():
            value = self.constant_size(node)
            if value is not None and value.known and size.known:
                self.check_index(value.constant, size.constant, node.span, base)
            return ()
        if t.kind_of(kind.element) == "bool":
            return (t.ANY,)
        return kind.shape

    def check_index(self, value: int, size: int, span: Span, base: t.Array) -> None:
        if not -size <= value < size:
            raise fault(
                "N038",
                f"index {value} is out of range for `{base}`",
                span,
                f"the axis has {size} elements, 0 to {size - 1}",
            )

    def slice_size(self, size: t.Size, node: s.RangeExpr, base: t.Array) -> t.Size:
        """Return how many elements ``start..stop; step`` takes from an axis of ``size``."""
        step = t.Size(1) if node.step is None else self.constant_size(node.step)
        ends: list[t.Size | None] = []
        for end in (node.start, node.stop):
            value = None if end is None else self.constant_size(end)
            if end is not None and value is None:
                return t.ANY
            if value is not None and value.known and value.constant < 0:
                value = size.plus(value)
            ends.append(value)
        start, stop = ends
        if step is None or not step.known or t.is_any(size):
            known = step is not None and step.constant == 1 and start and stop
            if not known or not node.stop or self.negative(node.start) or self.negative(node.stop):
                return t.ANY
        assert step is not None
        if node.inclusive and stop is not None:
            stop = stop.plus(t.Size(1))
        self.check_slice(size, start, stop, node, base)
        if step.constant <= 0:
            whole = start is None and stop is None and step.constant == -1
            return size if whole else t.ANY
        span = (stop or size).plus(start or t.Size(0), -1)
        if span.known:
            return t.Size(max(0, -(-span.constant // step.constant)))
        return span if step.constant == 1 else t.ANY

    def negative(self, node: s.Expr | None) -> bool:
        return isinstance(node, s.UnaryExpr)

    def check_slice(
        self,
        size: t.Size,
        start: t.Size | None,
        stop: t.Size | None,
        node: s.RangeExpr,
        base: t.Array,
    ) -> None:
        if not size.known:
            return
        for end in (start, stop):
            if end is not None and end.known and not 0 <= end.constant <= size.constant:
                raise fault(
                    "N038",
                    f"the range {node.span.text} is out of range for `{base}`",
                    node.span,
                    f"the axis has {size.constant} elements",
                )


def _cast(text: str) -> str:
    plain = text.replace("_", "a").replace(".", "a").isalnum()
    return text if plain else f"({text})"


def _unit_text(shown: str) -> str:
    return shown if shown == "no unit" else f"the unit {shown}"


def _scaled(one: t.Size, two: t.Size) -> t.Size:
    if one.known:
        return two.times(one.constant)
    return one.times(two.constant) if two.known else t.ANY


def _rational(node: s.Expr) -> Fraction | None:
    """Return a literal exponent as a fraction: 2, 0.5, 1.0/3.0, -1."""
    match node:
        case s.NumberExpr(_, value, _, False, ""):
            return Fraction(value).limit_denominator(1000)
        case s.UnaryExpr(_, "-", operand):
            inner = _rational(operand)
            return None if inner is None else -inner
        case s.BinaryExpr(_, "/", left, right):
            one, two = _rational(left), _rational(right)
            return one / two if one is not None and two else None
        case _:
            return None
