"""Macros and the holes of formatted strings."""

from __future__ import annotations

from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript.diagnostics import fault
from tracejit.frontend.neuralscript.lexer import Lexer
from tracejit.frontend.neuralscript.parse_expressions import FORMAT_MACROS, ExpressionParser
from tracejit.frontend.neuralscript.source import Span


class MacroParser(ExpressionParser):
    """Reads ``println!(…)``, ``vector![…]`` and ``f"…"``."""

    def macro(self, start: int, name: str) -> s.Expr:
        self.advance()
        opening = self.advance()
        closer = {"(": ")", "[": "]", "{": "}"}[opening.text]
        if name in ("vector", "matrix", "tensor", "vec"):
            return self.free(lambda: self.array_items(start, name, closer))
        arguments: list[s.Expr] = []
        texts: list[tuple[int, int] | None] = []
        outer, self.allow_struct = self.allow_struct, True
        while not self.sees(closer):
            token = self.token
            plain = token.kind == "string" and self.peek().text in (",", closer)
            texts.append((token.start + 1, token.end - 1) if plain else None)
            arguments.append(self.expression())
            if not self.take(","):
                break
        self.allow_struct = outer
        self.expect(closer, f"to close `{name}!`")
        position = 1 if name == "assert" else 0
        if name in FORMAT_MACROS and len(arguments) > position:
            text = texts[position]
            if text is not None:
                shown = self.format(*text, arguments[position + 1 :])
                arguments = [*arguments[:position], shown]
            elif not isinstance(arguments[position], s.FormatExpr):
                shown_text = arguments[position].span.text
                raise fault(
                    "N003",
                    f"`{name}!` needs a format string first",
                    arguments[position].span,
                    help=f'write `{name}!("{{}}", {shown_text})`',
                )
        return s.MacroExpr(self.since(start), name, tuple(arguments))

    def format(self, start: int, end: int, positional: list[s.Expr]) -> s.Expr:
        """Split ``text {expression:spec} text``; ``{}`` takes the next positional argument."""
        text = self.source.text
        pieces: list[str | s.FormatHole] = []
        rest = list(positional)
        at = literal = start
        while at < end:
            character = text[at]
            if character in "{}" and text[at : at + 2] == character * 2 and at + 1 < end:
                pieces += [self.string_value(literal, at).value, character]
                at = literal = at + 2
            elif character == "{":
                pieces.append(self.string_value(literal, at).value)
                hole, at = self.hole(at, end, rest)
                pieces.append(hole)
                literal = at
            elif character == "}":
                raise fault(
                    "N003",
                    "unmatched `}` in a format",
                    Span(self.source, at, at + 1),
                    help="write `}}` for a brace",
                )
            else:
                at += 2 if character == "\\" else 1
        pieces.append(self.string_value(literal, end).value)
        if rest:
            raise fault("N003", "an argument that no `{}` takes", rest[0].span)
        return s.FormatExpr(Span(self.source, start - 1, end + 1), tuple(pieces))

    def hole(self, at: int, end: int, rest: list[s.Expr]) -> tuple[s.FormatHole, int]:
        """Read ``{…}`` at an offset; return it and the offset behind it."""
        text = self.source.text
        close, depth, colon = at + 1, 0, -1
        while close < end and not (text[close] == "}" and depth == 0):
            depth += (text[close] in "{([") - (text[close] in "})]")
            double = text[close : close + 2] == "::" or text[close - 1 : close + 1] == "::"
            if text[close] == ":" and depth == 0 and colon < 0 and not double:
                colon = close
            close += 1
        whole = Span(self.source, at, min(close + 1, end))
        if close >= end:
            raise fault(
                "N003",
                "unclosed `{` in a format",
                Span(self.source, at, at + 1),
                help="write `{{` for a brace",
            )
        stop = close if colon < 0 else colon
        spec = "" if colon < 0 else text[colon + 1 : close].strip()
        if text[at + 1 : stop].strip():
            value = self.embedded(at + 1, stop)
        elif rest:
            value = rest.pop(0)
        else:
            raise fault("N003", "a `{}` without an argument", whole)
        return s.FormatHole(whole, value, spec), close + 1

    def embedded(self, start: int, end: int) -> s.Expr:
        """Read the expression in a range of this source."""
        lexer = Lexer(self.source, start, end)
        tokens = lexer.run()
        self.diagnostics += lexer.diagnostics
        saved = self.tokens, self.at
        self.tokens, self.at = tokens, 0
        try:
            result = self.free(self.expression)
            if self.token.kind != "end":
                raise self.expected("`}`")
            return result
        finally:
            self.tokens, self.at = saved
