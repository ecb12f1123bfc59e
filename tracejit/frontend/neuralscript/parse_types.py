"""Types, generic parameters and patterns."""

from __future__ import annotations

from abc import abstractmethod

from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript.lexer import Token
from tracejit.frontend.neuralscript.tokens import LEFT_OUT, TokenStream

_SIZE_STARTS = ("{", "-")


class TypeParser(TokenStream):
    """Reads what stands after ``:`` and ``->``, and what ``let`` and ``match`` bind."""

    @abstractmethod
    def expression(self, level: int = 0) -> s.Expr:
        """Read an expression whose operators bind at least as tight as ``level``."""

    # --- types --------------------------------------------------------------------------------

    def type(self) -> s.TypeSyntax:
        """type = unit_factor { ("/" | "*" | "⋅") unit_factor } ."""
        start = self.token.start
        left = self.type_power()
        while self.sees("/", "*", "⋅", "·") and self.peek().kind == "name":
            operator = "/" if self.advance().text == "/" else "*"
            right = self.type_power()
            left = s.UnitType(self.since(start), operator, left, right)
        return left

    def type_power(self) -> s.TypeSyntax:
        start = self.token.start
        base = self.type_atom()
        if self.token.kind == "super":
            exponent = int(str(self.advance().value))
            return s.UnitType(self.since(start), "^", base, None, exponent)
        if self.sees("^") and self.peek().kind == "number":
            self.advance()
            number = self.advance()
            return s.UnitType(self.since(start), "^", base, None, int(number.text))
        return base

    def type_atom(self) -> s.TypeSyntax:
        token = self.token
        self.enter()
        try:
            if token.text in LEFT_OUT:
                raise self.left_out(token)
            if token.text == "&":
                return self.reference_type()
            if token.text == "(":
                return self.tuple_type()
            if token.text == "[":
                return self.array_type()
            if token.text in ("Fn", "FnMut", "FnOnce", "fn", "impl"):
                return self.function_type()
            if token.text == "Self" or self.sees_name():
                return self.named_type()
        finally:
            self.leave()
        raise self.expected("a type")

    def reference_type(self) -> s.TypeSyntax:
        start = self.advance().start
        mutable = self.take("mut") is not None
        return s.ReferenceType(self.since(start), self.type_atom(), mutable)

    def tuple_type(self) -> s.TypeSyntax:
        start = self.advance().start
        items: list[s.TypeSyntax] = []
        while not self.sees(")"):
            items.append(self.type())
            if not self.take(","):
                break
        closing = self.expect(")", "to close the tuple type")
        single = len(items) == 1 and self.tokens[self.at - 2].text != ","
        if single and closing:
            return items[0]
        return s.TupleType(self.since(start), tuple(items))

    def array_type(self) -> s.TypeSyntax:
        start = self.advance().start
        element = self.type()
        size = self.expression(6) if self.take(";") else None
        self.expect("]", "to close the array type")
        return s.ArrayType(self.since(start), element, size)

    def function_type(self) -> s.TypeSyntax:
        start = self.token.start
        self.take("impl")
        self.advance()
        self.expect("(", "after `Fn`")
        parameters: list[s.TypeSyntax] = []
        while not self.sees(")"):
            parameters.append(self.type())
            if not self.take(","):
                break
        self.expect(")", "to close the parameter types")
        result = self.type() if self.take("->") else None
        return s.FunctionType(self.since(start), tuple(parameters), result)

    def named_type(self) -> s.TypeSyntax:
        start = self.token.start
        name = self.advance().text
        while self.sees("::") and self.peek().kind == "name":
            self.advance()
            name = self.advance().text
        arguments: tuple[s.TypeSyntax | s.Expr, ...] = ()
        if self.sees("<"):
            self.advance()
            arguments = self.type_arguments()
        return s.NamedType(self.since(start), name, arguments)

    def type_arguments(self) -> tuple[s.TypeSyntax | s.Expr, ...]:
        """Read the rest of ``<A, B, …>``."""
        items: list[s.TypeSyntax | s.Expr] = []
        while not self.sees(">"):
            self.skip_newlines()
            items.append(self.type_argument())
            self.skip_newlines()
            if not self.take(","):
                break
            self.skip_newlines()
        self.close_angle()
        return tuple(items)

    def close_angle(self) -> None:
        """Read ``>``, also where it was read as the start of ``>=``."""
        token = self.token
        if token.text == ">=":
            self.tokens[self.at] = Token("op", "=", token.start + 1, token.end)
            return
        self.expect(">", "to close the type arguments")

    def type_argument(self) -> s.TypeSyntax | s.Expr:
        """A type, a size, or the ``[A, B]`` of a Tensor."""
        token = self.token
        if token.kind == "number" or token.text in _SIZE_STARTS:
            return self.size()
        following = self.peek()
        if token.kind == "name" and following.text in ("+", "-"):
            return self.size()
        if token.kind == "name" and following.text == "*" and self.peek(2).kind == "number":
            return self.size()
        if token.text == "[":
            return self.shape_or_array()
        return self.type()

    def size(self) -> s.Expr:
        if self.take("{"):
            inner = self.expression(6)
            self.expect("}", "to close the size")
            return inner
        return self.expression(6)

    def shape_or_array(self) -> s.TypeSyntax:
        start = self.advance().start
        items: list[s.TypeSyntax | s.Expr] = []
        while not self.sees("]"):
            items.append(self.type_argument())
            if self.sees(";") and isinstance(items[0], s.TypeSyntax):
                self.advance()
                size = self.expression(6)
                self.expect("]", "to close the array type")
                return s.ArrayType(self.since(start), items[0], size)
            if not self.take(","):
                break
        self.expect("]", "to close the shape")
        return s.ShapeType(self.since(start), tuple(items))

    def generics(self) -> tuple[s.Generic, ...]:
        """generics = "<" { ["const"] name [":" bound { "+" bound }] } ">" ."""
        if not self.take("<"):
            return ()
        found: list[s.Generic] = []
        while not self.sees(">"):
            self.skip_newlines()
            start = self.token.start
            const = self.take("const") is not None
            name = self.name("a generic parameter").text
            bounds: list[s.TypeSyntax] = []
            if self.take(":"):
                bounds.append(self.type_atom())
                while self.take("+"):
                    bounds.append(self.type_atom())
            found.append(s.Generic(self.since(start), name, const, tuple(bounds)))
            self.skip_newlines()
            if not self.take(","):
                break
        self.close_angle()
        return tuple(found)

    # --- patterns -----------------------------------------------------------------------------

    def pattern(self, alternatives: bool = True) -> s.Pattern:
        """pattern = simple { "|" simple } ."""
        start = self.token.start
        options = [self.simple_pattern()]
        while alternatives and self.take("|"):
            options.append(self.simple_pattern())
        if len(options) == 1:
            return options[0]
        return s.OrPattern(self.since(start), tuple(options))

    def simple_pattern(self) -> s.Pattern:
        token = self.token
        if token.text == "(":
            return self.tuple_pattern()
        if token.text == "&":
            self.advance()
            self.take("mut")
            return self.simple_pattern()
        if token.text == "mut":
            self.advance()
            name = self.name()
            return s.NamePattern(self.since(token.start), name.text, True)
        if token.kind in ("number", "string") or token.text in ("true", "false", "-"):
            return self.literal_pattern()
        if token.text == "Self" or self.sees_name():
            return self.name_pattern()
        raise self.expected("a pattern")

    def tuple_pattern(self) -> s.Pattern:
        start = self.advance().start
        items: list[s.Pattern] = []
        while not self.sees(")"):
            items.append(self.pattern())
            if not self.take(","):
                break
        self.expect(")", "to close the tuple pattern")
        if len(items) == 1 and self.tokens[self.at - 2].text != ",":
            return items[0]
        return s.TuplePattern(self.since(start), tuple(items))

    def literal_pattern(self) -> s.Pattern:
        value = self.expression(5)
        if isinstance(value, s.RangeExpr):
            return s.RangePattern(value.span, value)
        return s.LiteralPattern(value.span, value)

    def name_pattern(self) -> s.Pattern:
        start = self.token.start
        path = [self.advance().text]
        while self.take("::"):
            path.append(self.name("a variant").text)
        if self.sees("("):
            self.advance()
            items: list[s.Pattern] = []
            while not self.sees(")"):
                items.append(self.pattern())
                if not self.take(","):
                    break
            self.expect(")", "to close the pattern")
            return s.VariantPattern(self.since(start), tuple(path), tuple(items))
        if self.sees("{") and path[-1][:1].isupper() and self.starts_field_pattern():
            return self.struct_pattern(start, path)
        if len(path) > 1 or path[0][:1].isupper():
            return s.VariantPattern(self.since(start), tuple(path), None)
        return s.NamePattern(self.since(start), path[0])

    def starts_field_pattern(self) -> bool:
        return self.peek().kind == "name" and self.peek(2).text in (",", "}", ":")

    def struct_pattern(self, start: int, path: list[str]) -> s.Pattern:
        self.advance()
        found: list[tuple[str, s.Pattern]] = []
        while not self.sees("}"):
            self.skip_newlines()
            if self.take(".."):
                break
            name = self.name("a field")
            inner: s.Pattern = s.NamePattern(self.span(name), name.text)
            if self.take(":"):
                inner = self.pattern()
            found.append((name.text, inner))
            self.skip_newlines()
            if not self.take(","):
                break
        self.skip_newlines()
        self.expect("}", "to close the pattern")
        return s.VariantPattern(self.since(start), tuple(path), None, tuple(found))
