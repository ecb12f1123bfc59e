"""Text → tokens.

Newlines end statements, so the lexer emits them where they can: at the top level and inside
``{}``, never inside ``()`` and ``[]``. A bracket that is left open would swallow the rest of the
file; it is closed where a new item or statement begins, reported once, and the parser goes on.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from tracejit.frontend.neuralscript.diagnostics import Diagnostic
from tracejit.frontend.neuralscript.source import Source, Span
from tracejit.record import record

KEYWORDS = frozenset(
    [
        "fn",
        "let",
        "mut",
        "const",
        "if",
        "else",
        "for",
        "in",
        "while",
        "loop",
        "break",
        "continue",
        "return",
        "match",
        "struct",
        "enum",
        "impl",
        "use",
        "import",
        "as",
        "true",
        "false",
        "self",
        "Self",
        "type",
        "pub",
        "trait",
        "async",
        "await",
        "actor",
        "unsafe",
        "mod",
        "extern",
        "static",
        "dyn",
        "gpu",
        "spawn",
    ]
)
PRIMITIVES = frozenset(
    [
        "f32",
        "f64",
        "i8",
        "i16",
        "i32",
        "i64",
        "u8",
        "u16",
        "u32",
        "u64",
        "usize",
        "isize",
        "bool",
        "str",
        "c64",
        "c128",
    ]
)
SUPERSCRIPTS = {character: str(digit) for digit, character in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
SUPERSCRIPTS["⁻"] = "-"
_FRACTIONS = {"½": 0.5, "¼": 0.25, "¾": 0.75, "∞": float("inf")}
# Modifier letters that Unicode counts as letters but the language reads as operators.
_NOT_LETTERS = frozenset("ᵀⁿⁱ")
_SUBSCRIPTS = frozenset("₀₁₂₃₄₅₆₇₈₉")
_OPERATORS = sorted(
    [
        "->",
        "=>",
        "::",
        "..=",
        "..",
        "**",
        "==",
        "!=",
        "<=",
        ">=",
        "&&",
        "||",
        "+=",
        "-=",
        "*=",
        "/=",
        "+",
        "-",
        "*",
        "/",
        "%",
        "^",
        "=",
        "<",
        ">",
        "!",
        ".",
        ",",
        ":",
        "?",
        "|",
        "&",
        "@",
        "#",
        "×",
        "÷",
        "⊙",
        "•",
        "⋅",
        "·",
        "⊗",
        "⊕",
        "⊖",
        "≡",
        "≠",
        "≤",
        "≥",
        "≈",
        "∈",
        "∉",
        "∧",
        "∨",
        "¬",
        "√",
        "∛",
        "∇",
        "∑",
        "∏",
        "∂",
        "ᵀ",
    ],
    key=len,
    reverse=True,
)
_OPERATOR = re.compile("|".join(re.escape(text) for text in _OPERATORS))
_NUMBER = re.compile(
    r"0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+"
    r"|\d+(?:_\d+)*(?:\.\d+(?:_\d+)*|\.(?![.\w]))?(?:[eE][+-]?\d+)?"
)
_UNIT_WORD = r"(?:[^\W\d_]|[°%])+(?:[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?"
_UNIT = re.compile(rf"_({_UNIT_WORD}(?:[/⋅·]{_UNIT_WORD})*)")
_SUFFIX = re.compile(r"_?([fiuc]\d+|usize|isize)\b")
_OPENERS = {"(": ")", "[": "]", "{": "}"}
# A line that starts with one of these cannot continue a bracketed expression.
_RESTARTS = re.compile(r"(?:let|fn|struct|enum|impl|use|import|return|pub|while|for)\b")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", '"': '"', "'": "'"}


class Token(NamedTuple):
    """``kind`` is name, number, string, fstring, char, super, op, open, close, newline or end.

    Operators, brackets and keywords have their text as ``text``; ``value`` holds a literal.
    """

    kind: str
    text: str
    start: int
    end: int
    value: object = None


@record(frozen=True)
class Number:
    """A numeric literal: its value, a type suffix, an imaginary mark, a unit's text."""

    value: int | float
    suffix: str = ""
    imaginary: bool = False
    unit: str = ""


def is_name_start(character: str) -> bool:
    return character == "_" or (character.isalpha() and character not in _NOT_LETTERS)


def is_name_part(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character == "_"
    if is_name_start(character) or character in _SUBSCRIPTS:
        return True
    return character.isdecimal() or unicodedata.category(character) in ("Mn", "Mc")


class Lexer:
    """Reads ``source.text[start:end]``; findings go to ``diagnostics``, reading always ends."""

    def __init__(self, source: Source, start: int = 0, end: int | None = None):
        self.source = source
        self.text = source.text
        self.at = start
        self.end = len(source.text) if end is None else end
        self.tokens: list[Token] = []
        self.open: list[Token] = []
        self.diagnostics: list[Diagnostic] = []

    def span(self, start: int, end: int) -> Span:
        return Span(self.source, start, end)

    def report(
        self, code: str, message: str, start: int, end: int, text: str = "", help: str = ""
    ) -> None:
        self.diagnostics.append(Diagnostic(code, message, self.span(start, end), text, help=help))

    def add(self, kind: str, end: int, value: object = None) -> None:
        self.tokens.append(Token(kind, self.text[self.at : end], self.at, end, value))
        self.at = end

    def run(self) -> list[Token]:
        """Return the tokens, closed by an ``end`` token."""
        if self.at == 0 and self.text.startswith("\ufeff"):
            self.at = 1
        while self.at < self.end:
            self.step(self.text[self.at])
        while self.open:
            self.close_unclosed()
        self.tokens.append(Token("end", "", self.end, self.end))
        return self.tokens

    def step(self, character: str) -> None:
        """Read one token or one stretch of blanks."""
        if character == "\n":
            self.newline()
        elif character.isspace():
            self.at += 1
        elif character.isdigit() and character.isascii():
            self.number()
        elif character == "/" and self.text.startswith(("//", "/*"), self.at):
            self.comment()
        elif character == '"' or self.text.startswith('f"', self.at):
            self.string()
        elif is_name_start(character):
            self.name()
        elif character in _OPENERS:
            self.open.append(Token("open", character, self.at, self.at + 1))
            self.add("open", self.at + 1)
        elif character in ")]}":
            self.close(character)
        elif character in SUPERSCRIPTS:
            self.superscript()
        elif character in _FRACTIONS:
            self.add("number", self.at + 1, Number(_FRACTIONS[character]))
        elif character == ";":
            self.add("newline", self.at + 1)
        else:
            self.operator(character)

    def operator(self, character: str) -> None:
        match = _OPERATOR.match(self.text, self.at)
        if match:
            self.add("op", match.end())
        elif character == "'":
            self.quote()
        else:
            self.unknown(character)

    def unknown(self, character: str) -> None:
        lookalikes = {"−": "-", "–": "-", "∗": "*", "∣": "|", "∘": "⋅", "“": '"', "”": '"'}
        hint = lookalikes.get(character)
        name = unicodedata.name(character, "unnamed")
        self.report(
            "N001",
            f"unknown character `{character}` ({name.lower()}, U+{ord(character):04X})",
            self.at,
            self.at + 1,
            help=f"write `{hint}`" if hint else "",
        )
        self.at += 1

    def newline(self) -> None:
        """Emit a statement end where a newline is one."""
        inside = self.open and self.open[-1].text in "(["
        if inside:
            start = self.at + 1
            while start < self.end and self.text[start] in " \t\r":
                start += 1
            if _RESTARTS.match(self.text, start, self.end):
                self.close_unclosed()
                return
            self.at += 1
            return
        self.add("newline", self.at + 1)

    def close_unclosed(self) -> None:
        """Report the innermost open bracket and close it here."""
        opener = self.open.pop()
        closer = _OPENERS[opener.text]
        self.report(
            "N002",
            f"unclosed `{opener.text}`",
            opener.start,
            opener.end,
            f"this `{opener.text}` is never closed",
            help=f"add `{closer}`",
        )
        self.tokens.append(Token("close", closer, self.at, self.at))

    def close(self, character: str) -> None:
        wanted = [_OPENERS[token.text] for token in self.open]
        if character not in wanted:
            self.report(
                "N002",
                f"unexpected `{character}`",
                self.at,
                self.at + 1,
                "nothing is open that this could close",
            )
            self.at += 1
            return
        while _OPENERS[self.open[-1].text] != character:
            self.close_unclosed()
        self.open.pop()
        self.add("close", self.at + 1)

    def comment(self) -> None:
        if self.text.startswith("//", self.at):
            end = self.text.find("\n", self.at, self.end)
            self.at = self.end if end < 0 else end
            return
        start, depth = self.at, 0
        while self.at < self.end:
            if self.text.startswith("/*", self.at):
                depth += 1
                self.at += 2
            elif self.text.startswith("*/", self.at):
                depth -= 1
                self.at += 2
                if depth == 0:
                    return
            else:
                self.at += 1
        self.report("N002", "unclosed comment", start, start + 2, "opened here", help="add `*/`")

    def name(self) -> None:
        end = self.at + 1
        while end < self.end and is_name_part(self.text[end]):
            end += 1
        self.add("name", end)

    def superscript(self) -> None:
        end = self.at
        while end < self.end and self.text[end] in SUPERSCRIPTS:
            end += 1
        digits = "".join(SUPERSCRIPTS[c] for c in self.text[self.at : end])
        try:
            exponent = int(digits)
        except ValueError:
            self.report(
                "N003", f"`{self.text[self.at : end]}` is not an integer exponent", self.at, end
            )
            exponent = 1
        self.add("super", end, exponent)

    def number(self) -> None:
        """Read a number with its suffix: a type, ``i``, or a unit."""
        start = self.at
        match = _NUMBER.match(self.text, start, self.end)
        assert match is not None
        text, end = match.group().replace("_", ""), match.end()
        based = text[:2].lower() in ("0x", "0b", "0o")
        is_float = not based and any(c in text for c in ".eE")
        value: int | float = float(text) if is_float else int(text, 0 if based else 10)
        suffix, imaginary, unit = "", False, ""
        tail = _SUFFIX.match(self.text, end, self.end)
        if tail and tail.group(1) in PRIMITIVES:
            suffix, end = tail.group(1), tail.end()
        elif self.text.startswith("i", end) and not self.is_part(end + 1):
            imaginary, end = True, end + 1
        elif units := _UNIT.match(self.text, end, self.end):
            unit, end = units.group(1), units.end()
        elif end < self.end and is_name_part(self.text[end]) and self.text[end].isascii():
            end = self.bad_suffix(start, end)
        self.add("number", end, Number(value, suffix, imaginary, unit))

    def is_part(self, at: int) -> bool:
        return at < self.end and is_name_part(self.text[at])

    def bad_suffix(self, start: int, end: int) -> int:
        stop = end
        while self.is_part(stop):
            stop += 1
        word = self.text[end:stop]
        number = self.text[start:end]
        self.report(
            "N003",
            f"`{word}` is not a suffix of a number",
            start,
            stop,
            help=f"write `{number} * {word}` to multiply, `{number}_{word}` for a unit",
        )
        return stop

    def quote(self) -> None:
        """Refuse characters, strings in single quotes, and lifetimes."""
        match = re.compile(r"'(\\.|[^'\n])*'").match(self.text, self.at, self.end)
        if match:
            text = match.group()[1:-1]
            one = len(text.lstrip("\\")) == 1
            self.report(
                "N011",
                f"there are no {'character literals' if one else 'strings in single quotes'}",
                self.at,
                match.end(),
                help=f'write a string: "{text}"',
            )
            self.add("string", match.end(), text)
            return
        end = self.at + 1
        while self.is_part(end):
            end += 1
        self.report(
            "N011",
            "there are no lifetimes",
            self.at,
            end,
            help="leave it out: values are copied or shared as needed",
        )
        self.at = end

    def string(self) -> None:
        """Read ``"…"`` or ``f"…"``; the token's value is the text between the quotes."""
        start = self.at
        formatted = self.text[start] == "f"
        at = start + (2 if formatted else 1)
        first = at
        while at < self.end and self.text[at] != '"':
            at += 2 if self.text[at] == "\\" else 1
        if at >= self.end:
            line_end = self.text.find("\n", start, self.end)
            end = self.end if line_end < 0 else line_end
            self.report("N002", "unclosed string", start, end, "opened here", help='add `"`')
            self.add("string", end, "")
            return
        kind = "fstring" if formatted else "string"
        self.add(kind, at + 1, self.text[first:at])


def unescape(source: Source, start: int, end: int) -> tuple[str, list[Diagnostic]]:
    """Resolve the escapes of a string's text; return it with what was wrong."""
    text, found = source.text[start:end], list[Diagnostic]()
    if "\\" not in text:
        return text, found

    def replace(match: re.Match[str]) -> str:
        code = match.group(1)
        if code[0] == "u" and len(code) > 1:
            return chr(int(code[2:-1], 16))
        if code in _ESCAPES:
            return _ESCAPES[code]
        at = start + match.start()
        found.append(
            Diagnostic(
                "N003",
                f"unknown escape `\\{code}`",
                Span(source, at, at + 2),
                help=r"the escapes are \n \t \r \0 \\ \" and \u{…}",
            )
        )
        return code

    return re.sub(r"\\(u\{[0-9a-fA-F]{1,5}\}|.|\n)", replace, text), found


def tokenize(source: Source) -> tuple[list[Token], list[Diagnostic]]:
    """Return the tokens of a source and what was wrong with it."""
    lexer = Lexer(source)
    return lexer.run(), lexer.diagnostics
