"""The drawn graph: what the page, the exports and the terminal tree show.

``view`` turns an executable into one ``networkx.DiGraph``. Its nodes are the values that a reader
sees, its edges run from operand to user. Schema (also of the JSON export; docs/visualizer.md)::

    graph  title, target, vector_bits, kernels, arena_bytes, intermediate_bytes, compile_seconds,
           calls, seconds, steps, buffers, codes
    node   kind, label, op, dtype, shape, nbytes, step, attrs, file, line, source
    edge   operands, dtype, shape

A value that two kernels both compute (recomputed rather than stored) is one node in each; a
scalar constant is one node beside each user. That is how the kernels see them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.graph.text import name_nodes, value_text
from tracejit.record import record
from tracejit.runtime.code import Code
from tracejit.runtime.executable import Executable
from tracejit.schedule.index import VIEWS
from tracejit.schedule.kernel import SCRATCH, Attend, Contract, Gather, Kernel, Load
from tracejit.schedule.product import batch_axes, head_axes
from tracejit.schedule.schedule import (
    BandStep,
    ContractionStep,
    KernelStep,
    OpaqueStep,
    Schedule,
    Step,
    View,
    kernels_of,
)
from tracejit.schedule.steps import step_kind, step_name
from tracejit.schedule.text import band_text, kernel_text

if TYPE_CHECKING:
    import networkx

    Digraph = networkx.DiGraph[str]
else:
    Digraph = Any

FORMAT = "tracejit-graph"
VERSION = 1

_LEAVES = {"input": "input", "data": "data", "constant": "constant", "iota": "index"}
_SHORT = {"float": "f", "int": "i", "uint": "u", "complex": "c"}


@record(frozen=True)
class Figure:
    """An executable to draw, with its title and what is known of its runs."""

    title: str
    executable: Executable
    calls: int = 0
    seconds: float = 0.0


def type_label(dtype: np.dtype[Any], shape: Sequence[int]) -> str:
    """Return ``f32[8, 16]``."""
    name = dtype.name
    for long, short in _SHORT.items():
        if name.startswith(long) and name[len(long) :].isdigit():
            name = short + name[len(long) :]
            break
    return f"{name}[{', '.join(map(str, shape))}]"


def view(figure: Figure) -> Digraph:
    """Return the drawn graph of ``figure``."""
    return _Drawing(figure).graph


class _Drawing:
    """Builds the drawn graph: leaves and free values, then what each step computes."""

    def __init__(self, figure: Figure):
        import networkx

        schedule = figure.executable.schedule
        self.schedule: Schedule = schedule
        self.source: Graph = schedule.graph
        self.names = {n: name.lstrip("%") for n, name in name_nodes(schedule.graph).items()}
        self.graph: Digraph = networkx.DiGraph()
        self.codes: list[Code] = list({id(c): c for c in figure.executable.codes}.values())
        self.members = [_members(s) for s in schedule.steps]
        self.homes = self._homes()
        # The copies that an assembled value reads, by (that value, its operand).
        self.copies: dict[tuple[Node, Node], list[str]] = {}
        # Values to draw yet, each in its step or outside all.
        self.pending: list[tuple[Node, int | None]] = [(n, None) for n in self.source.inputs]
        self.drawn: set[str] = set()
        for number, step in enumerate(schedule.steps):
            self.pending += [(n, number) for n in self.members[number]]
            if not isinstance(step, OpaqueStep):
                self._copy(number, step)
        self._outputs()
        while self.pending:
            self._value(*self.pending.pop())
        # Operands first, which is also the order to read them in.
        graph = self.graph
        self.graph = networkx.DiGraph()
        rank = {n: i for i, n in enumerate(networkx.topological_sort(graph))}
        self.graph.add_nodes_from((n, graph.nodes[n]) for n in rank)
        self.graph.add_edges_from(
            sorted(graph.edges(data=True), key=lambda e: (rank[e[1]], rank[e[0]]))
        )
        self._describe(figure)

    # -- nodes ---------------------------------------------------------------------------------

    def _ordered(self, nodes: Iterable[Node]) -> list[Node]:
        """Return nodes in the graph's order, operands first."""
        return sorted(nodes, key=lambda n: int(self.names[n]))

    def _written(self, step: Step) -> set[Node]:
        nodes = (self.schedule.buffers[b].node for b in written_buffers(step))
        return {node for node in nodes if node is not None}

    def _homes(self) -> dict[Node, int]:
        """Return the step each computed value is read from: where it is stored, else first."""
        homes: dict[Node, int] = {}
        stored: set[Node] = set()
        for number, step in enumerate(self.schedule.steps):
            written = self._written(step)
            for node in self.members[number]:
                if node not in homes or (node in written and node not in stored):
                    homes[node] = number
                if node in written:
                    stored.add(node)
        return homes

    def _copy(self, number: int, step: KernelStep | BandStep | ContractionStep) -> None:
        """Add what a kernel only copies: a piece of a concat, or a value under another layout."""
        wholes = self._written(step) - self.members[number]
        for part in step.copied:
            if self._inside(part, number):
                identity = self._id(part, number)
                self.pending.append((part, number))
            else:
                identity = f"n{self.names[part]}.copy{number}"
                self._add(identity, part, number)
                self.graph.nodes[identity].update(kind="op", label="copy", op="copy", attrs={})
                self._feed(part, identity, None, 0)
            for whole in wholes:
                if part in whole.inputs:
                    self.copies.setdefault((whole, part), []).append(identity)

    def _inside(self, node: Node, step: int) -> bool:
        """Whether a step computes ``node``, or reads a value of its own through this view."""
        while node not in self.homes and node.op.name in VIEWS:
            node = node.inputs[0]
        return node in self.members[step]

    def _id(self, node: Node, step: int | None) -> str:
        home = self.homes.get(node)
        again = step is not None and step != home
        return f"n{self.names[node]}" + (f".s{step}" if again else "")

    def _beside(self, node: Node) -> bool:
        """Whether a leaf is drawn beside each user: kernels hold it, nothing computes it."""
        return node.op.name in ("constant", "iota") and node not in self.homes

    def _value(self, node: Node, step: int | None) -> None:
        """Add one value, and the edges from its operands."""
        identity = self._id(node, step)
        if identity in self.drawn:
            return
        self.drawn.add(identity)
        self._add(identity, node, step)
        for position, operand in enumerate(node.inputs):
            copies = self.copies.get((node, operand)) if step is None else None
            for copy in copies or ():
                self._edge(copy, identity, operand, position)
            if not copies:
                self._feed(operand, identity, step, position)

    def _feed(self, operand: Node, user: str, step: int | None, position: int) -> None:
        """Add the edge from ``operand``, as the step of its user sees it."""
        if self._beside(operand):
            below = f"c{self.names[operand]}.{user}"
            if below not in self.graph:
                home = self.graph.nodes[user]["step"]
                self._add(below, operand, None if home is None else int(home[1:]))
        elif step is not None and self._inside(operand, step):
            below = self._id(operand, step)
            self.pending.append((operand, step))
        else:
            home = self.homes.get(operand)
            below = self._id(operand, home)
            self.pending.append((operand, home))
        self._edge(below, user, operand, position)

    def _add(self, identity: str, node: Node, step: int | None) -> None:
        name = node.op.name
        kind = _LEAVES.get(name, "op" if step is not None else "view")
        where = node.loc
        self.graph.add_node(
            identity,
            kind=kind,
            label=_label(node),
            op=name,
            dtype=str(node.dtype),
            shape=list(node.shape),
            nbytes=node.nbytes,
            step=None if step is None else f"s{step}",
            number=f"%{self.names[node]}",
            type=type_label(node.dtype, node.shape),
            attrs={} if kind in _LEAVES.values() else _attrs(node),
            file=where.filename if where else None,
            line=where.line if where else None,
            source=where.source() if where else None,
        )

    def _edge(self, below: str, above: str, operand: Node, position: int) -> None:
        if self.graph.has_edge(below, above):
            self.graph.edges[below, above]["operands"].append(position)
            return
        self.graph.add_edge(
            below,
            above,
            operands=[position],
            dtype=str(operand.dtype),
            shape=list(operand.shape),
            type=type_label(operand.dtype, operand.shape),
        )

    def _outputs(self) -> None:
        for number, node in enumerate(self.source.outputs):
            identity = f"out{number}"
            self._add(identity, node, None)
            label = "output" if len(self.source.outputs) == 1 else f"output {number}"
            self.graph.nodes[identity].update(kind="output", label=label, op="output", attrs={})
            self._feed(node, identity, None, 0)

    # -- the whole -----------------------------------------------------------------------------

    def _describe(self, figure: Figure) -> None:
        executable, schedule = figure.executable, self.schedule
        self.graph.graph.update(
            format=FORMAT,
            version=VERSION,
            title=figure.title,
            target=executable.target.name,
            vector_bits=executable.target.vector_bits,
            kernels=len(self.codes),
            arena_bytes=schedule.arena.nbytes,
            largest_live_bytes=schedule.arena.largest_live,
            intermediate_bytes=schedule.intermediates,
            compile_seconds=executable.compile_seconds,
            calls=figure.calls,
            seconds=figure.seconds,
            steps=self._steps(executable),
            buffers=[
                {
                    "number": number,
                    "kind": b.kind,
                    "dtype": str(b.dtype),
                    "shape": list(b.shape),
                    "type": type_label(b.dtype, b.shape),
                    "nbytes": b.nbytes,
                    "offset": b.offset if b.kind == "temp" and b.host is None else None,
                    "host": b.host,
                    "value": None if b.node is None else f"%{self.names[b.node]}",
                }
                for number, b in enumerate(schedule.buffers)
            ],
            codes=[
                {"target": c.target.name, "level": c.level, "seconds": c.seconds}
                for c in self.codes
            ],
        )

    def _steps(self, executable: Executable) -> list[dict[str, Any]]:
        index = {id(c): i for i, c in enumerate(self.codes)}
        native = iter(executable.step_codes)
        steps: list[dict[str, Any]] = []
        kernels = 0
        for number, step in enumerate(self.schedule.steps):
            code = None if isinstance(step, OpaqueStep) else index[id(next(native))]
            steps.append(
                {
                    "id": f"s{number}",
                    "number": number,
                    "kind": step_kind(step),
                    "name": step_name(step),
                    "ops": 1 if isinstance(step, OpaqueStep) else step.kernel.ops,
                    "code": code,
                    "detail": _product(step) if isinstance(step, ContractionStep) else "",
                    "text": step_text(step, kernels),
                    "reads": sorted(read_buffers(step)),
                    "writes": sorted(written_buffers(step)),
                    "lines": self._lines(number),
                }
            )
            kernels += not isinstance(step, OpaqueStep)
        return steps

    def _lines(self, number: int) -> list[dict[str, Any]]:
        """Return the user's lines that a step computes, each with its text."""
        places = dict.fromkeys(n.loc for n in self._ordered(self.members[number]) if n.loc)
        return [{"file": p.filename, "line": p.line, "source": p.source()} for p in places]


def _members(step: Step) -> frozenset[Node]:
    """Return the values that a step computes."""
    match step:
        case KernelStep() | BandStep() | ContractionStep():
            nodes = step.nodes
            return frozenset(n for n in nodes if n.op.name != "constant")
        case OpaqueStep(node=node):
            return frozenset((node,))


def written_buffers(step: Step) -> set[int]:
    """Return the buffers that a step writes."""
    match step:
        case KernelStep() | BandStep() | ContractionStep():
            kernels = kernels_of(step)
            return {k.accesses[s.access].buffer for k in kernels for s in k.stores} - {SCRATCH}
        case OpaqueStep(buffer=buffer):
            return {buffer}


def read_buffers(step: Step) -> set[int]:
    """Return the buffers that a step reads."""
    match step:
        case KernelStep() | BandStep() | ContractionStep():
            loads = [
                k.accesses[e.access]
                for k in kernels_of(step)
                for e in k.exprs
                if isinstance(e, Load | Gather)
            ]
            return {access.buffer for access in loads} - {SCRATCH}
        case OpaqueStep(_, views, _):
            return {v.buffer for v in views}


def step_text(step: Step, number: int) -> str:
    """Return what a step does: a loop nest, a matrix product, or a call of NumPy."""
    match step:
        case KernelStep(kernel) | ContractionStep(kernel):
            # The lines stand beside the text with their source; the title would only repeat them.
            reader = step.reader if isinstance(step, ContractionStep) else None
            _, _, body = kernel_text(kernel, number, reader).partition("\n")
            text = f"kernel {number}: {step_name(step)}\n{body}"
            if isinstance(step, ContractionStep):
                text += f"\n  {_product(step)}: {_flops(kernel):,} flops"
            return text
        case BandStep(band):
            _, _, body = band_text(band).partition("\n")
            return f"kernel {number}: {step_name(step)}\n{body}"
        case OpaqueStep(node, views, buffer):
            operands = ", ".join(map(_place, views))
            attrs = "".join(f", {k}={v}" for k, v in _attrs(node).items())
            call = f"{node.op.name}({operands}{attrs})"
            return f"NumPy reference of {node.op.name}\n  b{buffer} = {call}"


def _product(step: ContractionStep) -> str:
    """Return the sizes of a matrix product, ``8 × [64×64 ⊙ 64×16]``, or of attention."""
    kernel, attend = step.kernel, step.kernel.attend
    if attend is not None:
        queries, keys, columns = (
            kernel.extents[a] for a in (attend.rows, attend.over, attend.columns)
        )
        heads = prod(kernel.extents[a] for a in head_axes(kernel))
        return f"{heads} × [{queries} queries, {keys} keys, {columns} columns]"
    contract = cast(Contract, kernel.contract)
    m, n, k = (kernel.extents[a] for a in (contract.rows, contract.columns, contract.over))
    batch = [kernel.extents[a] for a in batch_axes(kernel)]
    product = f"{m}×{k} ⊙ {k}×{n}"
    return f"{'×'.join(map(str, batch))} × [{product}]" if batch else product


def _flops(kernel: Kernel) -> int:
    """Return the flops of the products of a kernel."""
    total = 0
    for expr in kernel.exprs:
        if isinstance(expr, Contract | Attend):
            axes = expr.axes | {expr.over}
            total += 2 * prod(kernel.extents[a] for a in axes)
    return total


def _place(place: View) -> str:
    """Return a strided view as ``b2[i*16 + j]``."""
    terms = [
        axis if stride == 1 else f"{stride}*{axis}"
        for axis, stride in zip("ijklmnopqrstuvwxyz", place.strides, strict=False)
        if stride
    ]
    if place.offset or not terms:
        terms.append(str(place.offset))
    return f"b{place.buffer}[{' + '.join(terms)}]"


def _label(node: Node) -> str:
    name = node.op.name
    if name == "input":
        return str(node.attrs["name"])
    if name == "constant":
        return _scalar(node)
    if name == "data":
        return "data"
    if name == "iota":
        return f"index {node.attrs['axis']}"
    return name


def _scalar(node: Node) -> str:
    """Return a constant as short as its dtype allows: 1e-05, not 9.999999747378752e-06."""
    value = cast(Any, node.attrs["value"])
    if isinstance(value, float) and node.dtype.kind == "f":
        return str(node.dtype.type(value))
    return value_text(value)


# Attributes longer than this say nothing in a picture.
_LONGEST = 120


def _attrs(node: Node) -> dict[str, str]:
    """Return the attributes as text."""
    texts = {k: str(v) for k, v in node.attrs.items()}
    return {k: v if len(v) <= _LONGEST else v[:_LONGEST] + "…" for k, v in texts.items()}


def values(graph: Digraph) -> dict[str, dict[str, Any]]:
    """Return the attributes of each drawn value, operands before users."""
    return {name: graph.nodes[name] for name in graph}


def leading_op(graph: Digraph) -> str:
    """Return the ops that a drawn graph computes, commonest first, for a title."""
    counted = Counter(d["op"] for d in values(graph).values() if d["kind"] == "op")
    return " ".join(op for op, _ in counted.most_common(4)) or "copy"
