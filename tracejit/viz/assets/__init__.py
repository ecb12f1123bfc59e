"""The page's scripts and styles, and dagre (MIT, see dagre.LICENSE.txt)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def asset(name: str) -> str:
    """Return the text of a file beside this one, without the comment that names a source map."""
    text = files(__name__).joinpath(name).read_text(encoding="utf-8")
    return text.partition("//# sourceMappingURL")[0]
