"""Expressions: a Pratt parser over the precedence table of the language."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript.diagnostics import Diagnostic, Fault, Label, fault
from tracejit.frontend.neuralscript.lexer import Number, unescape
from tracejit.frontend.neuralscript.parse_types import TypeParser
from tracejit.frontend.neuralscript.source import Span
from tracejit.frontend.neuralscript.tokens import LEFT_OUT

ASSIGNMENTS = frozenset(("=", "+=", "-=", "*=", "/="))
# Each level binds tighter than the one before.
ASSIGN, OR, AND, COMPARE, RANGE, SUM, PRODUCT, POWER = 1, 2, 3, 4, 5, 6, 7, 9
BINARY: dict[str, tuple[int, str]] = {
    **dict.fromkeys(("||", "∨"), (OR, "||")),
    **dict.fromkeys(("&&", "∧"), (AND, "&&")),
    **{
        text: (COMPARE, name)
        for text, name in {
            "==": "==",
            "≡": "==",
            "!=": "!=",
            "≠": "!=",
            "<": "<",
            ">": ">",
            "<=": "<=",
            "≤": "<=",
            ">=": ">=",
            "≥": ">=",
            "≈": "≈",
            "∈": "∈",
            "∉": "∉",
        }.items()
    },
    **{text: (SUM, name) for text, name in {"+": "+", "-": "-", "⊕": "+", "⊖": "-"}.items()},
    **{
        text: (PRODUCT, name)
        for text, name in {
            "*": "*",
            "/": "/",
            "%": "%",
            "×": "×",
            "÷": "/",
            "⊙": "@",
            "@": "@",
            "•": "⋅",
            "⋅": "⋅",
            "·": "⋅",
            "⊗": "⊗",
        }.items()
    },
    "^": (POWER, "^"),
    "**": (POWER, "^"),
}
PREFIX = {"-": "-", "!": "!", "¬": "!", "√": "sqrt", "∛": "cbrt", "∑": "sum", "∏": "prod"}
# Constants that may follow a numeral directly: `2π`.
CONSTANT_NAMES = frozenset("πτℯφ")
FORMAT_MACROS = frozenset(("println", "print", "eprintln", "format", "panic", "assert"))
MACROS = FORMAT_MACROS | {"vector", "matrix", "tensor", "vec", "assert_eq"}
_ENDS_RANGE = frozenset((")", "]", "}", ",", "{", ";", "=>", "=", "|"))


class ExpressionParser(TypeParser):
    """Reads expressions; blocks and statements come from the subclass."""

    diagnostics: list[Diagnostic]
    # Inside the head of `if`, `while`, `for` and `match`, `Name {` is not a struct literal.
    allow_struct = True

    @abstractmethod
    def block(self) -> s.BlockExpr:
        """Read ``{ … }``."""

    @abstractmethod
    def macro(self, start: int, name: str) -> s.Expr:
        """Read the rest of ``name!(…)``."""

    @abstractmethod
    def format(self, start: int, end: int, positional: list[s.Expr]) -> s.Expr:
        """Split the text of a format into pieces and holes."""

    def expression(self, level: int = 0) -> s.Expr:
        self.enter()
        try:
            return self.binary(level)
        finally:
            self.leave()

    def head(self) -> s.Expr:
        """Read the expression between ``if`` (or its kin) and ``{``."""
        outer, self.allow_struct = self.allow_struct, False
        try:
            if self.sees("let"):
                start = self.advance().start
                pattern = self.pattern()
                self.expect("=", "in `if let`")
                return s.LetCondition(self.since(start), pattern, self.expression(OR))
            return self.expression(OR)
        finally:
            self.allow_struct = outer

    def free(self, read: Callable[[], s.Expr]) -> s.Expr:
        """Read something inside brackets, where struct literals are allowed again."""
        outer, self.allow_struct = self.allow_struct, True
        try:
            return read()
        finally:
            self.allow_struct = outer

    def binary(self, level: int) -> s.Expr:
        start = self.token.start
        if self.sees("..", "..=") and level <= RANGE:
            left = self.range(None, start)
        else:
            left = self.prefix()
        while True:
            token = self.token
            if token.text in ("..", "..=") and level <= RANGE:
                left = self.range(left, start)
                continue
            if token.text in ASSIGNMENTS and level <= ASSIGN:
                self.advance()
                self.skip_newlines()
                value = self.binary(ASSIGN)
                left = s.AssignExpr(self.since(start), left, token.text, value)
                continue
            row = BINARY.get(token.text) if token.kind == "op" else None
            if row is None or row[0] < level:
                return left
            left = self.operation(left, start, *row)

    def operation(self, left: s.Expr, start: int, level: int, operator: str) -> s.Expr:
        """Read an operator and its right operand."""
        token = self.advance()
        self.skip_newlines()
        # `^` is right associative, every other operator left.
        right = self.binary(level if level == POWER else level + 1)
        where = self.span(token)
        if level == COMPARE and self.token.kind == "op":
            following = BINARY.get(self.token.text)
            if following and following[0] == COMPARE:
                raise self.chained(left, right, token.text)
        if operator == "^" and isinstance(left, s.UnaryExpr) and left.operator == "-":
            self.warn_sign(left, right)
        return s.BinaryExpr(self.since(start), operator, left, right, where)

    def chained(self, left: s.Expr, right: s.Expr, first: str) -> Fault:
        second = self.token.text
        middle = right.span.text
        return fault(
            "N012",
            "comparisons do not chain",
            self.span(),
            "a second comparison",
            help=f"write `{left.span.text} {first} {middle} && {middle} {second} …`",
        )

    def warn_sign(self, left: s.UnaryExpr, right: s.Expr) -> None:
        base, power = left.operand.span.text, right.span.text
        span = left.span.to(right.span)
        self.diagnostics.append(
            Diagnostic(
                "N101",
                f"`{span.text}` means `(-{base})^{right.span.text}`",
                span,
                "a sign binds tighter than `^`",
                help=f"write `-({base}^{power})` or `({left.span.text})^{power}`",
            )
        )

    def range(self, left: s.Expr | None, start: int) -> s.Expr:
        operator = self.advance()
        right = None
        if self.token.kind not in ("newline", "end") and self.token.text not in _ENDS_RANGE:
            right = self.binary(SUM)
        return s.RangeExpr(self.since(start), left, right, operator.text == "..=")

    # --- prefix and postfix -------------------------------------------------------------------

    def prefix(self) -> s.Expr:
        self.enter()
        try:
            return self.casts(self.prefixed())
        finally:
            self.leave()

    def casts(self, operand: s.Expr) -> s.Expr:
        while self.sees("as"):
            self.advance()
            target = self.type_atom()
            operand = s.CastExpr(operand.span.to(target.span), operand, target)
        return operand

    def prefixed(self) -> s.Expr:
        token = self.token
        if token.text in PREFIX and token.kind == "op":
            self.advance()
            operator = PREFIX[token.text]
            if operator in ("sum", "prod") and self.sees("("):
                return self.big_operator(token.start, operator)
            self.enter()
            operand = self.prefixed()
            self.leave()
            return s.UnaryExpr(self.since(token.start), operator, operand)
        if token.text == "&":
            self.advance()
            mutable = self.take("mut") is not None
            operand = self.prefixed()
            return s.ReferenceExpr(self.since(token.start), operand, mutable)
        if token.text in ("∇", "∂"):
            return self.postfix(self.gradient(), token.start)
        if token.text in ("|", "||"):
            return self.bar()
        return self.postfix(self.primary(), token.start)

    def big_operator(self, start: int, operator: str) -> s.Expr:
        """``∑(x, axis: 1)`` is a call; ``∑(x)²`` is the sum of ``(x)²``, by precedence."""
        opening = self.token.start
        arguments = self.arguments()
        function = s.NameExpr(Span(self.source, start, start + 1), operator)
        if len(arguments) == 1 and arguments[0].name is None:
            operand = self.postfix(arguments[0].value, opening)
            return s.UnaryExpr(self.since(start), operator, operand)
        return self.postfix(s.CallExpr(self.since(start), function, arguments), start)

    def gradient(self) -> s.Expr:
        """``∇f``, ``∇²f``, ``∇(f, wrt: 0)``, ``∂f/∂x``."""
        start = self.advance()
        if start.text == "∂":
            function = self.name("a function after `∂`")
            self.expect("/", "in `∂f/∂x`")
            self.expect("∂", "in `∂f/∂x`")
            wrt = self.name("a parameter after `∂`")
            return s.GradientExpr(
                self.since(start.start),
                s.NameExpr(self.span(function), function.text),
                1,
                s.StringExpr(self.span(wrt), wrt.text),
            )
        order = int(str(self.advance().value)) if self.token.kind == "super" else 1
        if self.sees("("):
            arguments = self.arguments()
            if not arguments:
                raise self.expected("a function")
            named = [item.value for item in arguments[1:] if item.name == "wrt"]
            wrt_value = named[0] if named else None
            return s.GradientExpr(self.since(start.start), arguments[0].value, order, wrt_value)
        return s.GradientExpr(self.since(start.start), self.primary(), order, None)

    def postfix(self, operand: s.Expr, start: int) -> s.Expr:
        while True:
            token = self.token
            if token.text == "(" and token.kind == "open":
                arguments = self.arguments()
                operand = s.CallExpr(self.since(start), operand, arguments)
            elif token.text == "[":
                operand = self.index(operand, start)
            elif token.text == ".":
                operand = self.member(operand, start)
            elif token.kind == "super":
                self.advance()
                exponent = int(str(token.value))
                operand = s.PowerExpr(self.since(start), operand, exponent)
            elif token.text == "ᵀ":
                self.advance()
                operand = s.TransposeExpr(self.since(start), operand)
            elif token.text == "?":
                self.advance()
                operand = s.TryExpr(self.since(start), operand)
            elif token.text == "\n" and self.continues():
                self.skip_newlines()
            else:
                return operand

    def continues(self) -> bool:
        """Whether the next line goes on with ``.name``."""
        at = self.at
        while self.tokens[at].text == "\n":
            at += 1
        return self.tokens[at].text == "." and self.tokens[at + 1].kind == "name"

    def arguments(self) -> tuple[s.Argument, ...]:
        """arguments = "(" [ [name ":"] expression { "," … } ] ")" ."""
        opening = self.expect("(")
        found: list[s.Argument] = []
        outer, self.allow_struct = self.allow_struct, True
        while not self.sees(")"):
            start = self.token.start
            name = None
            if self.token.kind == "name" and self.peek().text == ":":
                name = self.advance().text
                self.advance()
            value = self.expression()
            found.append(s.Argument(self.since(start), name, value))
            if not self.take(","):
                break
        self.allow_struct = outer
        if not self.sees(")"):
            raise self.expected(
                "`,` or `)`", "", Label(self.span(opening), "the arguments begin here")
            )
        self.advance()
        return tuple(found)

    def index(self, operand: s.Expr, start: int) -> s.Expr:
        """``m[i, j]``, ``m[a..b; step]``, ``m[.., j]``."""
        self.advance()
        items: list[s.Expr] = []
        outer, self.allow_struct = self.allow_struct, True
        while not self.sees("]"):
            item = self.expression()
            if self.sees(";"):
                self.advance()
                step = self.expression(SUM)
                if not isinstance(item, s.RangeExpr):
                    raise fault(
                        "N010",
                        "a step needs a range before it",
                        item.span,
                        help=f"write `{item.span.text}..; {step.span.text}`",
                    )
                item = s.RangeExpr(
                    item.span.to(step.span), item.start, item.stop, item.inclusive, step
                )
            items.append(item)
            if not self.take(","):
                break
        self.allow_struct = outer
        self.expect("]", "to close the index")
        return s.IndexExpr(self.since(start), operand, tuple(items))

    def member(self, operand: s.Expr, start: int) -> s.Expr:
        """``x.field``, ``x.method(…)``, ``t.0``; ``t.0.1`` arrives as one number."""
        self.advance()
        token = self.token
        if token.kind == "number":
            self.advance()
            for part in token.text.split("."):
                operand = s.FieldExpr(self.since(start), operand, part, self.span(token))
            return operand
        if token.text == "await":
            raise self.left_out(token)
        name = self.name("a field or method")
        where = self.span(name)
        if self.sees("::"):
            self.advance()
            self.expect("<")
            self.type_arguments()
        if self.sees("("):
            arguments = self.arguments()
            return s.MethodExpr(self.since(start), operand, name.text, arguments, where)
        return s.FieldExpr(self.since(start), operand, name.text, where)

    def bar(self) -> s.Expr:
        """Tell ``|x| body`` from ``|x|``: a body begins like an expression, and not with ``-``."""
        start = self.token
        if start.text == "||":
            self.advance()
            return self.closure(start.start, ())
        if self.is_closure():
            self.advance()
            parameters: list[s.Parameter] = []
            while not self.sees("|"):
                at = self.token.start
                pattern = self.pattern(alternatives=False)
                annotation = self.type() if self.take(":") else None
                parameters.append(s.Parameter(self.since(at), pattern, annotation))
                if not self.take(","):
                    break
            self.expect("|", "to close the closure's parameters")
            return self.closure(start.start, tuple(parameters))
        self.advance()
        inner = self.free(self.expression)
        self.expect("|", "to close the absolute value")
        return self.postfix(s.AbsExpr(self.since(start.start), inner), start.start)

    def is_closure(self) -> bool:
        at = self.at + 1
        depth = 0
        while self.tokens[at].kind != "end":
            token = self.tokens[at]
            if token.text == "|" and depth == 0:
                break
            if token.kind in ("newline", "end", "number") and depth == 0:
                return False
            if token.kind == "op" and token.text not in (",", ":", "&", "<", ">", "/", "->"):
                return False
            depth += (token.kind == "open" or token.text == "<") - (
                token.kind == "close" or token.text == ">"
            )
            at += 1
        else:
            return False
        after = self.tokens[at + 1]
        if after.kind in ("name", "number", "string", "fstring") and after.text not in (
            "as",
            "else",
            "in",
        ):
            return True
        if after.text in ("->", "√", "∛", "∑", "∏", "!", "¬", "∇", "|", "||"):
            return True
        return after.kind == "open" and (after.text != "{" or self.allow_struct)

    def closure(self, start: int, parameters: tuple[s.Parameter, ...]) -> s.Expr:
        result = self.type() if self.take("->") else None
        body = self.block() if result or self.sees("{") else self.expression()
        return s.ClosureExpr(self.since(start), parameters, result, body)

    # --- primary ------------------------------------------------------------------------------

    def primary(self) -> s.Expr:
        token = self.token
        match token.kind:
            case "number":
                return self.number()
            case "string":
                self.advance()
                return self.string_value(token.start + 1, token.end - 1)
            case "fstring":
                self.advance()
                return self.format(token.start + 2, token.end - 1, [])
            case "open":
                return self.bracketed()
            case "name":
                return self.word()
            case _:
                raise self.expected("an expression")

    def number(self) -> s.Expr:
        token = self.advance()
        literal = token.value
        assert isinstance(literal, Number)
        result = s.NumberExpr(
            self.span(token), literal.value, literal.suffix, literal.imaginary, literal.unit
        )
        following = self.token
        if following.start == token.end and following.text[:1] in CONSTANT_NAMES:
            # Juxtaposition binds tighter than `*` and `/`, looser than `^`: 1/2π is 1/(2π).
            constant = self.binary(POWER)
            where = Span(self.source, token.end, token.end)
            return s.BinaryExpr(self.since(token.start), "*", result, constant, where)
        return result

    def string_value(self, start: int, end: int) -> s.StringExpr:
        text, found = unescape(self.source, start, end)
        self.diagnostics += found
        return s.StringExpr(Span(self.source, start - 1, end + 1), text)

    def bracketed(self) -> s.Expr:
        token = self.token
        if token.text == "{":
            return self.free(self.block)
        self.advance()
        if token.text == "[":
            return self.free(lambda: self.array_items(token.start, "array", "]"))
        return self.free(lambda: self.parenthesised(token.start))

    def parenthesised(self, start: int) -> s.Expr:
        items: list[s.Expr] = []
        comma = False
        while not self.sees(")"):
            items.append(self.expression())
            comma = self.take(",") is not None
            if not comma:
                break
        if not self.sees(")"):
            opening = Label(Span(self.source, start, start + 1), "opened here")
            raise self.expected("`)`", "", opening)
        self.advance()
        if len(items) == 1 and not comma:
            return items[0]
        return s.TupleExpr(self.since(start), tuple(items))

    def array_items(self, start: int, kind: str, closer: str) -> s.Expr:
        """Read the rest of ``[a, b]`` or ``[value; count]``."""
        items: list[s.Expr] = []
        while not self.sees(closer):
            items.append(self.expression())
            if self.sees(";") and len(items) == 1:
                self.advance()
                count = self.expression()
                self.expect(closer, "to close the array")
                return s.RepeatExpr(self.since(start), items[0], count, kind)
            if not self.take(","):
                break
        self.expect(closer, "to close the array")
        return s.ArrayExpr(self.since(start), tuple(items), kind)

    def word(self) -> s.Expr:
        """Read what begins with a name or keyword."""
        token = self.token
        if token.text in LEFT_OUT:
            raise self.left_out(token)
        reader = self.keyword_readers().get(token.text)
        if reader is not None:
            return reader()
        if token.text != "Self" and token.text != "self" and not self.sees_name():
            raise self.expected("an expression")
        self.advance()
        if self.sees("!") and token.text in MACROS and self.peek().kind == "open":
            return self.macro(token.start, token.text)
        if self.sees("::"):
            return self.path(token.start, token.text)
        if self.sees("{") and self.allow_struct and self.starts_struct(token.text):
            return self.struct(token.start, token.text)
        return s.NameExpr(self.span(token), token.text)

    def keyword_readers(self) -> dict[str, Callable[[], s.Expr]]:
        """Return the readers of expressions that begin with a keyword."""
        return {"true": self.boolean, "false": self.boolean}

    def boolean(self) -> s.Expr:
        token = self.advance()
        return s.BoolExpr(self.span(token), token.text == "true")

    def path(self, start: int, first: str) -> s.Expr:
        parts = [first]
        generics: tuple[s.TypeSyntax | s.Expr, ...] = ()
        while self.take("::"):
            if self.take("<"):
                generics = self.type_arguments()
                continue
            parts.append(self.name("a name after `::`").text)
        where = self.since(start)
        function = s.PathExpr(where, tuple(parts)) if parts[1:] else s.NameExpr(where, first)
        if generics and self.sees("("):
            arguments = self.arguments()
            return s.CallExpr(self.since(start), function, arguments, generics)
        if self.sees("{") and self.allow_struct and self.starts_struct(parts[-1]):
            return self.struct(start, parts[-1])
        return function

    def starts_struct(self, name: str) -> bool:
        """Whether ``Name {`` goes on like a struct literal."""
        if not name[:1].isupper():
            return False
        at = self.at + 1
        while self.tokens[at].kind == "newline":
            at += 1
        first, second = self.tokens[at], self.tokens[min(at + 1, len(self.tokens) - 1)]
        if first.text in ("}", ".."):
            return True
        return first.kind == "name" and second.text in (":", ",", "}", "\n")

    def struct(self, start: int, name: str) -> s.Expr:
        self.advance()
        found: list[s.Argument] = []
        base = None
        self.skip_newlines()
        while not self.sees("}"):
            if self.take(".."):
                base = self.free(self.expression)
                self.skip_newlines()
                break
            at = self.name("a field")
            value: s.Expr = s.NameExpr(self.span(at), at.text)
            if self.take(":"):
                self.skip_newlines()
                value = self.free(self.expression)
            found.append(s.Argument(self.since(at.start), at.text, value))
            self.skip_newlines()
            if not self.take(","):
                break
            self.skip_newlines()
        self.expect("}", "to close the struct")
        return s.StructExpr(self.since(start), name, tuple(found), base)
