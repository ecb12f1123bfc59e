"""A cursor over tokens with the error messages that every part of the parser shares."""

from __future__ import annotations

from tracejit.frontend.neuralscript.diagnostics import Diagnostic, Fault, Label, closest, fault
from tracejit.frontend.neuralscript.lexer import KEYWORDS, Token
from tracejit.frontend.neuralscript.source import Source, Span

MAX_NESTING = 64
_RESTARTS = frozenset(("let", "fn", "struct", "enum", "impl", "use", "import", "const"))

# Words of other languages, and what NeuralScript writes instead.
FOREIGN_WORDS = {
    "def": "fn",
    "func": "fn",
    "function": "fn",
    "var": "let mut",
    "val": "let",
    "elif": "else if",
    "elseif": "else if",
    "and": "&&",
    "or": "||",
    "not": "!",
    "class": "struct",
    "switch": "match",
    "lambda": "|x| …",
    "foreach": "for",
}
LEFT_OUT = {
    "trait": (
        "user traits",
        "write functions over the types, or use the bounds Numeric, Float, Ord",
    ),
    "async": ("async functions", "leave out `async`: calls run where they stand"),
    "await": ("await", "leave it out: calls run where they stand"),
    "actor": ("actors", "use a struct with methods"),
    "spawn": ("tasks", "leave it out: kernels use all cores by themselves"),
    "unsafe": ("unsafe code", "leave it out"),
    "extern": ("foreign functions", "call them from Python"),
    "gpu": ("GPU blocks", "leave it out: programs are compiled for the processor"),
    "mod": ("inline modules", "put the module into its own .ns file and `use` it"),
    "static": ("static variables", "use `const`"),
    "dyn": ("dynamic dispatch", "use an enum, or a closure `Fn(A) -> B`"),
}


def describe(token: Token) -> str:
    """Say what a token is, for "found …"."""
    if token.kind == "end":
        return "the end of the program"
    if token.kind == "newline":
        return "`;`" if token.text == ";" else "the end of the line"
    if token.kind == "name" and token.text in KEYWORDS:
        return f"the keyword `{token.text}`"
    return f"`{token.text}`"


class TokenStream:
    """The tokens of one source, a position, and the findings so far."""

    def __init__(self, source: Source, tokens: list[Token], diagnostics: list[Diagnostic]):
        self.source = source
        self.tokens = tokens
        self.diagnostics = diagnostics
        self.at = 0
        self.nesting = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def peek(self, count: int = 1) -> Token:
        return self.tokens[min(self.at + count, len(self.tokens) - 1)]

    def span(self, token: Token | None = None) -> Span:
        token = token or self.token
        return Span(self.source, token.start, token.end)

    def since(self, start: int) -> Span:
        """Return the range from an offset to the end of the last token read."""
        end = self.tokens[self.at - 1].end if self.at else start
        return Span(self.source, start, max(start, end))

    def advance(self) -> Token:
        token = self.token
        if token.kind != "end":
            self.at += 1
        return token

    def sees(self, *texts: str) -> bool:
        return self.token.text in texts

    def take(self, *texts: str) -> Token | None:
        """Read the token if its text is one of these."""
        return self.advance() if self.token.text in texts else None

    def sees_name(self) -> bool:
        token = self.token
        return token.kind == "name" and token.text not in KEYWORDS

    def skip_newlines(self) -> None:
        while self.token.kind == "newline":
            self.at += 1

    def expected(self, what: str, help: str = "", *labels: Label) -> Fault:
        """Return the error for something that is not what the grammar wants here."""
        token = self.token
        return fault(
            "N010",
            f"expected {what}, found {describe(token)}",
            self.span(),
            f"expected {what}",
            *labels,
            help=help or self.advice(token),
        )

    def advice(self, token: Token) -> str:
        """Return a hint for words and habits of other languages."""
        previous = self.tokens[self.at - 1] if self.at else token
        for word in (token.text, previous.text):
            if word in FOREIGN_WORDS:
                return f"NeuralScript writes `{FOREIGN_WORDS[word]}` for `{word}`"
        if token.text == "+" and previous.text == "+":
            return "there is no `++`; write `+= 1`"
        if token.text == "=" and previous.text == ":":
            return "write `let name = value`"
        near = closest(previous.text, KEYWORDS) if previous.kind == "name" else None
        return f"did you mean `{near}`?" if near else ""

    def left_out(self, token: Token) -> Fault:
        """Return the error for a construct that the language leaves out."""
        what, instead = LEFT_OUT[token.text]
        return fault(
            "N011",
            f"NeuralScript has no {what}",
            self.span(token),
            "not part of the language",
            help=instead,
        )

    def expect(self, text: str, where: str = "") -> Token:
        """Read a token of this text; ``where`` completes the sentence of the error."""
        token = self.take(text)
        if token is None:
            raise self.expected(f"`{text}`{' ' if where else ''}{where}")
        return token

    def name(self, what: str = "a name") -> Token:
        """Read an identifier."""
        if not self.sees_name():
            help = ""
            if self.token.text in KEYWORDS:
                help = f"`{self.token.text}` is a keyword; choose another name"
            raise self.expected(what, help)
        return self.advance()

    def enter(self) -> None:
        """Count one level of nesting; too many are an error rather than a crash."""
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise fault(
                "N013",
                f"nested more than {MAX_NESTING} levels deep",
                self.span(),
                help="name the inner parts with `let`, or move them into functions",
            )

    def leave(self) -> None:
        self.nesting -= 1

    def recover(self, failure: Fault, start: int) -> None:
        """Keep a finding and skip to where the next statement can begin.

        ``start`` is the position of the faulty statement's first token: skipping always passes it.
        """
        spans = {item.span for item in self.diagnostics}
        if failure.diagnostic.span not in spans:
            self.diagnostics.append(failure.diagnostic)
        if (
            self.at > start
            and self.token.text in _RESTARTS
            and self.tokens[self.at - 1].kind == "newline"
        ):
            return
        depth = 0
        while self.token.kind != "end":
            token = self.token
            if token.kind == "newline" and depth == 0:
                return
            if token.kind == "open":
                depth += 1
            elif token.kind == "close":
                if depth == 0 and token.text == "}":
                    return
                depth = max(0, depth - 1)
            self.at += 1
