"""IR written as text with holes and counted loops, which the runtime's own code is.

``{NAME}`` stands for a number or other text. A loop over ``%i`` is written ::

    for 0 <= %i < %count
      …
    next %i

Its body starts in a block of its own and ends with a branch: to ``%i.next`` where it goes on, and
anywhere else to leave early. What stands below ``next %i`` is where it ends. ``for`` stands in a
block that has a label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tracejit.errors import InternalError

_HOLE = re.compile(r"\{([A-Z]\w*)\}")
_LABEL = re.compile(r"([\w.]+):")
_FOR = re.compile(r"\s*for (\S+) <= %([\w.]+) < (\S+)")
_NEXT = re.compile(r"\s*next %([\w.]+)")

_HEAD = """\
  br label %{i}.head
{i}.head:
  %{i} = phi i64 [ {first}, %{before} ], [ %{i}.plus, %{i}.next ]
  %{i}.more = icmp slt i64 %{i}, {end}
  br i1 %{i}.more, label %{i}.body, label %{i}.done
{i}.body:
  %{i}.plus = add i64 %{i}, 1"""
_TAIL = """\
{i}.next:
  br label %{i}.head
{i}.done:"""


def fill(text: str, words: Mapping[str, object]) -> str:
    """Return the IR that a template stands for.

    Raises:
        InternalError: if the template has a hole that ``words`` does not name.
    """

    def word(hole: re.Match[str]) -> str:
        if hole[1] not in words:
            raise InternalError(f"nothing fills {hole[0]} of a template")
        return str(words[hole[1]])

    return _HOLE.sub(word, _with_loops(text))


def _with_loops(text: str) -> str:
    """Write out the loops."""
    lines: list[str] = []
    block = ""
    for line in text.split("\n"):
        if loop := _FOR.fullmatch(line):
            first, i, end = loop.groups()
            line, block = _HEAD.format(i=i, first=first, end=end, before=block), f"{i}.body"
        elif loop := _NEXT.fullmatch(line):
            line, block = _TAIL.format(i=loop[1]), f"{loop[1]}.done"
        elif label := _LABEL.fullmatch(line):
            block = label[1]
        lines.append(line)
    return "\n".join(lines)
