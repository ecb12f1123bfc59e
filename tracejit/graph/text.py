"""The text form of a graph: ``to_text`` prints it, ``parse`` reads it back exactly.

    graph(%0 "x": float32[4, 3]) {
      %1 = constant {value=2.0} : float32[]
      %2 = multiply(%0, %1) : float32[4, 3]  # model.py:12
      %3 = sum(%2) {axis=(1,), keepdims=false} : float32[4]
      return %3
    }

The grammar is in ``docs/ir.md``. Small arrays of ``data`` leaves are written out; larger ones
are named externals (``data @d0``), which ``externals`` collects and ``parse`` wants back. A
constant keeps its bits: -0.0, infinities, NaN payloads and integers of any width survive.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Hashable, Iterable, Mapping
from typing import cast

from tracejit.errors import UnsupportedError
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.ops.table import Array, Attrs, DType, Shape

# A data leaf of at most this many elements stands in the text.
INLINE_SIZE = 16

# What the type after the colon says already.
_IN_TYPE = {
    "constant": frozenset({"dtype"}),
    "data": frozenset({"dtype", "shape"}),
    "iota": frozenset({"dtype", "shape"}),
}

_DEFAULT_NAN = struct.pack(">d", math.nan)
_NEGATIVE_NAN = struct.pack(">d", -math.nan)


def to_text(graph: Graph, *, locations: bool = True) -> str:
    """Return the text of ``graph``, with source locations as comments."""
    names = name_nodes(graph)
    files = {node: f"@d{i}" for i, node in enumerate(_large(graph))}
    params = ", ".join(_parameter(node, names) for node in graph.inputs)
    lines = [f"graph({params}) {{"]
    for node in graph.nodes:
        if node.op.name == "input":
            continue
        line = f"  {node_text(node, names, files)}"
        if locations and node.loc is not None:
            line += f"  # {node.loc}".replace("\n", " ")
        lines.append(line)
    lines.append("  return" + "".join(f" {names[o]}," for o in graph.outputs).rstrip(","))
    return "\n".join([*lines, "}", ""])


def externals(graph: Graph) -> dict[str, Array]:
    """Return the arrays that the text names instead of spelling them out."""
    return {f"d{i}": cast(Array, node.value) for i, node in enumerate(_large(graph))}


def _large(graph: Graph) -> Iterable[Node]:
    return (n for n in graph.nodes if n.op.name == "data" and n.size > INLINE_SIZE)


def name_nodes(graph: Graph) -> dict[Node, str]:
    """Return ``%0``, ``%1``, … for the inputs and then the other nodes in order."""
    ordered = dict.fromkeys([*graph.inputs, *graph.nodes])
    return {node: f"%{i}" for i, node in enumerate(ordered)}


def _parameter(node: Node, names: Mapping[Node, str]) -> str:
    return f"{names[node]} {quoted(str(node.attrs['name']))}: {type_text(node.dtype, node.shape)}"


def node_text(
    node: Node, names: Mapping[Node, str], files: Mapping[Node, str] | None = None
) -> str:
    """Return one statement. A node without a name shows as ``%?``."""
    operands = ", ".join(names.get(i, "%?") for i in node.inputs)
    parts = [f"{names.get(node, '%?')} = {node.op.name}"]
    if node.inputs:
        parts[0] += f"({operands})"
    if node.op.name == "data":
        parts.append(_data_text(node, files or {}))
    hidden = _IN_TYPE.get(node.op.name, frozenset())
    attrs = {k: v for k, v in node.attrs.items() if k not in hidden}
    if attrs:
        parts.append(attrs_text(attrs))
    return " ".join([*parts, ":", type_text(node.dtype, node.shape)])


def _data_text(node: Node, files: Mapping[Node, str]) -> str:
    if node in files:
        return files[node]
    values = cast(Array, node.value)
    if values.size > INLINE_SIZE:
        return "@…"
    return "[" + ", ".join(value_text(v) for v in values.reshape(-1).tolist()) + "]"


def type_text(dtype: DType, shape: Shape) -> str:
    """Return ``float32[4, 3]``; a dtype in foreign byte order stands in quotes."""
    name = dtype.name if dtype.isnative else quoted(dtype.str)
    return f"{name}[{', '.join(map(str, shape))}]"


def attrs_text(attrs: Attrs) -> str:
    """Return ``{axis=(1,), keepdims=false}``."""
    return "{" + ", ".join(f"{k}={value_text(attrs[k])}" for k in sorted(attrs)) + "}"


def value_text(value: Hashable) -> str:
    """Return an attribute value; types are kept, so 1, 1.0 and true differ."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _float_text(value)
        case complex():
            return f"complex({_float_text(value.real)}, {_float_text(value.imag)})"
        case str():
            return quoted(value)
        case tuple():
            items = cast(tuple[Hashable, ...], value)
            inner = ", ".join(value_text(v) for v in items)
            return f"({inner},)" if len(items) == 1 else f"({inner})"
        case _:
            raise UnsupportedError(
                f"an attribute of type {type(value).__name__} has no text form",
                hint="attributes are None, bools, numbers, strings and tuples of these",
            )


def _float_text(value: float) -> str:
    if value == value:
        return repr(float(value))
    raw = struct.pack(">d", value)
    if raw == _DEFAULT_NAN:
        return "nan"
    return "-nan" if raw == _NEGATIVE_NAN else f"nan(0x{raw.hex()})"


def quoted(text: str) -> str:
    """Return ``text`` in double quotes, with backslash escapes, in ASCII."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if " " <= c <= "~" else f"\\u{{{ord(c):x}}}" for c in plain) + '"'


def neighbourhood(graph: Graph, node: Node) -> str:
    """Return the statements around ``node``: its operands, itself (marked), its users."""
    names = name_nodes(graph)
    names.setdefault(node, "%!")
    try:
        users = [n for n in graph.nodes if node in n.inputs]
        near = [*dict.fromkeys(node.inputs), node, *users[:4]]
        lines = [f"{'→' if n is node else ' '} {node_text(n, names)}" for n in near]
    except Exception as error:  # a broken node may not print; say so rather than hide the finding
        lines = [f"→ {node!r} (does not print: {error})"]
    return "\n".join(lines)


def parse(text: str, arrays: Mapping[str, Array] | None = None) -> Graph:
    """Return the graph that ``text`` describes; ``arrays`` supplies its externals by name.

    Raises ValueArgumentError with line and column where the text is wrong.
    """
    from tracejit.graph.text_parser import Parser

    return Parser(text, arrays or {}).graph()
