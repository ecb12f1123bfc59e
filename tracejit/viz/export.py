"""The drawn graph as a file: JSON (networkx's node-link form), DOT, SVG."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, cast

from tracejit.errors import UnsupportedError
from tracejit.viz.assets import asset
from tracejit.viz.model import Digraph, values

Attributes = dict[str, Any]

# Above this many values, steps are drawn closed.
OPEN_LIMIT = 120


def node_link(graph: Digraph) -> Attributes:
    """Return ``graph`` as plain data; ``networkx.node_link_graph(_, edges="edges")`` reads it."""
    import networkx

    return cast(Attributes, networkx.node_link_data(graph, edges="edges"))


def to_json(graphs: Sequence[Digraph]) -> str:
    """Return one graph as a node-link object, several as a list of them."""
    plain: Any = [node_link(g) for g in graphs]
    return json.dumps(plain[0] if len(plain) == 1 else plain, indent=1, ensure_ascii=False) + "\n"


# -- DOT -------------------------------------------------------------------------------------------

_SHAPES = {
    "input": "invhouse", "output": "oval", "constant": "plaintext", "data": "note",
    "index": "hexagon", "view": "box", "op": "box",
}  # fmt: skip
_COLOURS = ("#3f7fd1", "#1f9d7a", "#a45bd6", "#d6586e", "#7a9a1c", "#c77f2a", "#2a9fc0", "#b0559a")


def quoted(text: str) -> str:
    """Return ``text`` as a DOT string: quotes and backslashes escaped, newlines as ``\\n``."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "")
    return '"' + text.replace("\n", "\\n") + '"'


def _attributes(**values: str) -> str:
    return "[" + ", ".join(f"{k}={quoted(v)}" for k, v in values.items()) + "]"


def to_dot(graphs: Sequence[Digraph]) -> str:
    """Return the graphs as DOT digraphs, steps as clusters; Graphviz draws them."""
    return "\n".join("\n".join(_dot(g)) for g in graphs) + "\n"


def _dot(graph: Digraph) -> Iterable[str]:
    nodes = values(graph)
    facts: Attributes = graph.graph
    yield f"digraph {quoted(facts['title'])} {{"
    yield "  graph " + _attributes(label=facts["title"], fontname="Helvetica", compound="true")
    yield "  node " + _attributes(fontname="monospace", fontsize="11", height="0.3")
    yield "  edge " + _attributes(fontname="monospace", fontsize="9", color="#8794a3")
    for name, data in nodes.items():
        if data["step"] is None:
            yield "  " + _dot_node(name, data)
    for step in facts["steps"]:
        code: int | None = step["code"]
        colour = "#d07a10" if code is None else _COLOURS[code % len(_COLOURS)]
        yield f"  subgraph {quoted('cluster_' + step['id'])} {{"
        yield "    graph " + _attributes(
            label=f"{step['number'] + 1} {step['kind']}: {step['name']}",
            style="rounded,dashed" if code is None else "rounded",
            color=colour,
            tooltip=step["text"],
        )
        for name, data in nodes.items():
            if data["step"] == step["id"]:
                yield "    " + _dot_node(name, data)
        yield "  }"
    for source, target in graph.edges:
        edge: Attributes = graph.edges[source, target]
        label = "" if nodes[source]["kind"] == "constant" else edge["type"]
        yield f"  {quoted(source)} -> {quoted(target)} {_attributes(label=label)}"
    yield "}"


def _dot_node(name: str, data: Attributes) -> str:
    where = f"\n{data['file']}:{data['line']}" if data["file"] else ""
    return f"{quoted(name)} " + _attributes(
        label=data["label"],
        shape=_SHAPES[data["kind"]],
        style="dashed" if data["kind"] == "view" else "solid",
        tooltip=f"{data['number']} {data['op']} {data['type']}{where}",
    )


# -- SVG -------------------------------------------------------------------------------------------


def to_svg(graphs: Sequence[Digraph]) -> str:
    """Return the picture of the page as one static SVG; several graphs stand below each other.

    Raises UnsupportedError where the interpreter that runs the layout is not installed.
    """
    drawn = [_draw(g) for g in graphs]
    width = max(d["width"] for d in drawn)
    top = 0
    parts: list[str] = []
    for graph, picture in zip(graphs, drawn, strict=True):
        title = escape(graph.graph["title"])
        parts.append(
            f'<text class="heading" x="24" y="{top + 26}">{title}</text>'
            f'<g transform="translate(0 {top + 30})">{picture["body"]}</g>'
        )
        top += 30 + picture["height"]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tj" width="{width}" height="{top}"'
        f' viewBox="0 0 {width} {top}"><style>{asset("draw.css")}</style>'
        f'<rect class="page" width="{width}" height="{top}"/>{"".join(parts)}</svg>\n'
    )


# A chain of a thousand steps makes the layout recurse as deep. Python's main thread has a stack
# of eight megabytes, of which the script may take this much.
_STACK = 5 << 20

_HOST = """
globalThis.structuredClone = (value) => JSON.parse(JSON.stringify(value));
function tracejitSvg(text) {
  const g = tracejitDraw.index(JSON.parse(text));
  const open = g.graph.nodes.length > LIMIT ? [] : [...g.steps.keys()];
  const parts = Array.from({ length: tracejitDraw.partCount(g) }, (_, part) =>
    tracejitDraw.draw(g, { open, part }));
  return JSON.stringify(parts);
}
"""


def _draw(graph: Digraph) -> Attributes:
    """Lay out and draw one graph with the page's own script."""
    try:
        import quickjs
    except ImportError:
        raise UnsupportedError(
            "SVG export needs the package quickjs-ng, which runs the layout",
            hint="pip install 'tracejit[viz]'; the .html page does without it",
        ) from None
    context = quickjs.Context()
    context.set_max_stack_size(_STACK)
    for script in (
        asset("dagre.min.js"),
        asset("draw.js"),
        _HOST.replace("LIMIT", str(OPEN_LIMIT)),
    ):
        context.eval(script)
    drawn = context.eval("tracejitSvg")(json.dumps(node_link(graph)))
    parts = cast("list[Attributes]", json.loads(drawn))
    top = 0
    body: list[str] = []
    for part in parts:
        body.append(f'<g transform="translate(0 {top})">{part["body"]}</g>')
        top += part["height"]
    width = max(part["width"] for part in parts)
    return {"width": width, "height": top, "body": "".join(body)}
