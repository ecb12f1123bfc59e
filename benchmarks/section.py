"""What a part of the runtime's figures reports: values against bounds, and a table of details."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .figures import Figure


class Section(NamedTuple):
    """A part: what was measured and how, its figures, and a table that they sum up."""

    title: str
    how: str
    figures: Sequence[Figure]
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    def to_json(self) -> dict[str, Any]:
        return self._asdict() | {"figures": [list(figure) for figure in self.figures]}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Section:
        figures = [Figure(*figure) for figure in kept["figures"]]
        return cls(kept["title"], kept["how"], figures, kept["header"], kept["rows"])
