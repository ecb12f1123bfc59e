"""One self-contained HTML page of dataflow graphs, their kernels and machine code.

Everything is inside the file: data, styles, the layout library and the script. The page's own
content security policy forbids it to load anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tracejit.codegen.llvm import assembly
from tracejit.errors import ValueArgumentError
from tracejit.files import atomic
from tracejit.frontend.names import name_of
from tracejit.runtime.code import Code
from tracejit.viz import export
from tracejit.viz.assets import asset
from tracejit.viz.export import node_link
from tracejit.viz.model import Figure, view

if TYPE_CHECKING:
    from tracejit.frontend.traced import Traced

FORMATS = (".html", ".htm", ".json", ".dot", ".gv", ".svg")


def write(traced: Traced, path: str | Path | None = None) -> Path:
    """Write the page of a traced function; return its path (default: ``NAME.html`` here).

    The suffix chooses the format, as in ``save``. Raises UnsupportedError where the function has no
    compiled form, OSError.
    """
    name = name_of(traced.function)
    target = Path(path) if path is not None else Path(f"{_safe(name)}.html")
    check_suffix(target)
    return save(target, [Figure(name, traced.executable)], name)


def check_suffix(path: Path) -> None:
    """Raise ValueArgumentError for a file that is neither a page nor a picture."""
    if path.suffix.lower() not in FORMATS:
        text = f"{path}: pages and pictures end in {', '.join(FORMATS)}"
        raise ValueArgumentError(text, hint="graph.html")


def save(path: Path, figures: Sequence[Figure], title: str, about: str = "") -> Path:
    """Write figures as the suffix of ``path`` says: HTML, SVG, DOT or JSON; return ``path``."""
    suffix = path.suffix.lower()
    if suffix in (".html", ".htm"):
        return write_text(path, document(figures, title, about))
    writers = {".json": export.to_json, ".svg": export.to_svg}
    return write_text(path, writers.get(suffix, export.to_dot)([view(f) for f in figures]))


def _safe(name: str) -> str:
    """Return a file name for a function: ``<lambda>`` and the like lose what paths dislike."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name).strip("_") or "graph"


def document(figures: Sequence[Figure], title: str, about: str = "") -> str:
    """Return the page of one or more executables, in order."""
    texts: dict[int, int] = {}
    codes: list[Code] = []
    graphs: list[Any] = []
    for figure in figures:
        data = node_link(view(figure))
        distinct = {id(c): c for c in figure.executable.codes}
        described = cast("list[dict[str, Any]]", data["graph"]["codes"])
        for entry, (key, code) in zip(described, distinct.items(), strict=True):
            if key not in texts:
                texts[key] = len(codes)
                codes.append(code)
            entry["text"] = texts[key]
        graphs.append(data)
    content = {
        "title": title,
        "about": about,
        "graphs": graphs,
        "texts": [{"llvm": c.text, "assembly": _assembly(c)} for c in codes],
    }
    parts = {
        "TITLE": escape(f"{title} · tracejit"),
        "STYLE": asset("draw.css") + asset("page.css"),
        "DATA": script_json(content),
        "DAGRE": asset("dagre.min.js"),
        "DRAW": asset("draw.js"),
        "PAGE": asset("page.js"),
    }
    # One pass over the template: what is put in is not searched again.
    pieces = asset("page.html").split("@")
    return "".join(parts[p] if i % 2 else p for i, p in enumerate(pieces))


def script_json(content: Any) -> str:
    """Return JSON that may stand in a script element: no ``<`` can end it or open a comment."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _assembly(code: Code) -> str:
    # The passes that the engine runs, so that this is the code that runs.
    return assembly(code.text, code.target, code.level, passes=0)


def write_text(path: Path, text: str) -> Path:
    """Write a whole file or nothing; return its path. Raises OSError."""
    with atomic(path) as stream:
        stream.write(text)
    return path
