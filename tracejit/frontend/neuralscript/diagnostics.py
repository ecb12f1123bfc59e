"""Diagnostics: what is wrong, where, why, and what to write instead.

Every error has a row in ``CODES``; the table in docs/neuralscript.md is checked against it.
``render`` draws one the way Rust's compiler does: the line, carets under the span, labels on
further spans, notes, and a suggestion.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from tracejit.errors import (
    ArgumentError,
    DTypeError,
    IndexOutOfRange,
    LimitError,
    ScriptError,
    ShapeError,
    TraceError,
    TracejitError,
    UnsupportedError,
    ValueArgumentError,
)
from tracejit.frontend.neuralscript.source import Source, Span
from tracejit.record import field, record

CODES: dict[str, str] = {
    "N001": "a character that no token starts with",
    "N002": "a string, comment or bracket that is not closed",
    "N003": "a malformed number, escape or format",
    "N010": "the grammar expects something else here",
    "N011": "a construct of other languages that NeuralScript leaves out",
    "N012": "comparisons do not chain",
    "N013": "nested too deeply",
    "N020": "an unknown name",
    "N021": "a name that is defined twice",
    "N022": "an unknown type",
    "N023": "an unknown field, method or variant",
    "N024": "a module or file that cannot be found or read",
    "N030": "types that do not fit",
    "N031": "element types that do not fit; there is no silent conversion",
    "N032": "shapes that do not fit",
    "N033": "an operator that does not take these types",
    "N034": "a condition that is not a bool",
    "N035": "something that cannot be called",
    "N036": "wrong arguments",
    "N037": "an axis outside the rank",
    "N038": "an index out of range, or too many indices",
    "N039": "an integer division of literals that loses its fraction",
    "N040": "an assignment to something immutable",
    "N041": "an assignment to something that is not a place",
    "N042": "`break`, `continue`, `return` or `?` where it has no target",
    "N043": "a match that leaves a case open, or a pattern that does not fit",
    "N050": "units that do not fit",
    "N051": "an unknown unit",
    "N052": "a function that needs a number without unit",
    "N060": "differentiation of something that is not a function, or not available",
    "N061": "a decision on a value that is traced",
    "N070": "an error while the program ran",
    "N071": "a limit was reached",
    "N101": "warning: a sign binds tighter than `^`",
}

# The exception that a diagnostic becomes when it ends a call or a run (not a check).
_RUN_CLASSES: dict[str, type[TracejitError]] = {
    "N030": DTypeError,
    "N031": DTypeError,
    "N032": ShapeError,
    "N033": DTypeError,
    "N036": ArgumentError,
    "N037": IndexOutOfRange,
    "N038": IndexOutOfRange,
    "N060": UnsupportedError,
    "N061": TraceError,
    "N070": ValueArgumentError,
    "N071": LimitError,
}


@record(frozen=True)
class Label:
    """A further span of a diagnostic and what to say about it."""

    span: Span
    text: str


@record(frozen=True)
class Diagnostic:
    """One finding. ``code`` is a row of ``CODES``; those from N100 on are warnings."""

    code: str
    message: str
    span: Span
    text: str = ""
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str = ""

    @property
    def is_error(self) -> bool:
        return self.code < "N100"

    def __str__(self) -> str:
        return render(self)


class Fault(Exception):
    """Carries a diagnostic from where it is found to where recovery happens. Internal."""

    def __init__(self, diagnostic: Diagnostic):
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


def fault(
    code: str, message: str, span: Span, text: str = "", *labels: Label, help: str = ""
) -> Fault:
    """Make a Fault."""
    return Fault(Diagnostic(code, message, span, text, labels, (), help))


class ProgramError(ScriptError):
    """A program is wrong. ``diagnostics`` holds every finding, in source order."""

    def __init__(self, diagnostics: Iterable[Diagnostic]):
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        errors = [item for item in self.diagnostics if item.is_error]
        text = "\n\n".join(render(item) for item in self.diagnostics)
        if len(errors) > 1:
            text += f"\n\n{len(errors)} errors"
        super().__init__(text, loc=None)

    def __str__(self) -> str:
        return self.message


def run_error(diagnostic: Diagnostic, like: type[TracejitError] | None = None) -> TracejitError:
    """Return the exception for a diagnostic that arose in a call or a run.

    Its class is ``like`` where the cause has one, so that ``except ValueError`` keeps working.
    """
    chosen = like or _RUN_CLASSES.get(diagnostic.code)
    if chosen is None:
        return ProgramError([diagnostic])
    return chosen(render(diagnostic))


def _width(text: str) -> int:
    """Columns that a text takes on a terminal (wide and combining characters counted right)."""
    total = 0
    for character in text:
        if unicodedata.combining(character):
            continue
        total += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return total


@record
class _Line:
    """The marks of one shown source line."""

    marks: list[tuple[int, int, str, str]] = field(default_factory=list[tuple[int, int, str, str]])


def _snippet(source: Source, marks: list[tuple[Span, str, str]], gutter: int) -> list[str]:
    """Draw the marked lines of one source; a mark is (span, character, label)."""
    lines: dict[int, _Line] = {}
    for span, character, label in marks:
        number, column = source.position(span.start)
        text = source.line(number)
        end = min(column - 1 + max(1, span.end - span.start), max(len(text), column))
        lines.setdefault(number, _Line()).marks.append((column - 1, end, character, label))
    result: list[str] = []
    previous: int | None = None
    for number in sorted(lines):
        if previous is not None and number > previous + 1:
            result.append("...")
        previous = number
        text = source.line(number)
        result.append(f"{number:>{gutter}} | {text.replace(chr(9), ' ')}".rstrip())
        for start, end, character, label in sorted(lines[number].marks, key=lambda m: m[:2]):
            pad = " " * _width(text[:start].replace("\t", " "))
            line = f"{'':{gutter}} | {pad}{character * max(1, _width(text[start:end]))} {label}"
            result.append(line.rstrip())
    return result


def render(item: Diagnostic) -> str:
    """Return the full text of a diagnostic, without colour and without a final newline."""
    kind = "error" if item.is_error else "warning"
    marks = [(item.span, "^", item.text)]
    marks += [(label.span, "-", label.text) for label in item.labels]
    sources: dict[Source, list[tuple[Span, str, str]]] = {}
    for mark in marks:
        sources.setdefault(mark[0].source, []).append(mark)
    gutter = max(len(str(m[0].source.position(m[0].start)[0])) for m in marks)
    lines = [f"{kind}[{item.code}]: {item.message}"]
    for source, found in sources.items():
        line, column = source.position(found[0][0].start)
        arrow = "-->" if source is item.span.source else ":::"
        lines.append(f"{'':{gutter}}{arrow} {source.name}:{line}:{column}")
        lines.append(f"{'':{gutter}} |")
        lines += _snippet(source, found, gutter)
    if item.notes or item.help:
        lines.append(f"{'':{gutter}} |")
    lines += [f"{'':{gutter}} = note: {note}" for note in item.notes]
    if item.help:
        lines.append(f"{'':{gutter}} = help: {item.help}")
    return "\n".join(lines)


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to a mistyped one, or None."""
    from difflib import get_close_matches

    found = get_close_matches(name, list(known), n=1, cutoff=0.7)
    return found[0] if found else None
