"""Source texts and places in them."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tracejit.errors import Location


class Source:
    """One program text: ``name`` is shown in messages, ``folder`` resolves its relative paths."""

    def __init__(self, text: str, name: str = "<program>", folder: Path | None = None):
        self.text = text
        self.name = name
        self.folder = folder

    @classmethod
    def read(cls, path: Path, shown: str | None = None) -> Source:
        """Read a UTF-8 file. Errors: OSError, UnicodeDecodeError."""
        return cls(path.read_text(encoding="utf-8"), shown or str(path), path.resolve().parent)

    @cached_property
    def starts(self) -> list[int]:
        """Offsets at which the lines begin."""
        result = [0]
        for offset, character in enumerate(self.text):
            if character == "\n":
                result.append(offset + 1)
        return result

    def position(self, offset: int) -> tuple[int, int]:
        """Return the 1-based line and column of an offset."""
        line = bisect_right(self.starts, offset)
        return line, offset - self.starts[line - 1] + 1

    def line(self, number: int) -> str:
        """Return the text of a 1-based line, without its end."""
        start = self.starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start:] if end < 0 else self.text[start:end].rstrip("\r")


class Span(NamedTuple):
    """A half-open range of offsets in one source."""

    source: Source
    start: int
    end: int

    def to(self, other: Span) -> Span:
        """Return the range from the start of this one to the end of ``other``."""
        return Span(self.source, self.start, max(self.end, other.end))

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def location(self, function: str = "") -> Location:
        """Return the place in the form the rest of tracejit uses."""
        return Location(self.source.name, self.source.position(self.start)[0], function)
