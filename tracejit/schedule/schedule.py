"""The schedule: kernels in execution order, and where every buffer lives.

``make_schedule`` is the second half of compilation on one screen: fuse, build the kernels, plan
the arena. Its result holds no code; the engine asks code generation for each distinct kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.ops.table import Shape
from tracejit.record import record, replace
from tracejit.schedule import native, one_row, row_groups, split
from tracejit.schedule.arena import Life, Plan, Room, lodge, plan
from tracejit.schedule.bands import Band, Grid, find_bands
from tracejit.schedule.blocks import by_blocks
from tracejit.schedule.borders import join_borders
from tracejit.schedule.buffers import Buffer as Buffer
from tracejit.schedule.buffers import OpaqueStep as OpaqueStep
from tracejit.schedule.buffers import View as View
from tracejit.schedule.build import Place, build
from tracejit.schedule.cluster import Cluster, Product, Unit
from tracejit.schedule.fusion import Fusion, fuse
from tracejit.schedule.index import (
    Affine,
    contiguous_strides,
    flat,
    identity,
    through,
)
from tracejit.schedule.kernel import SCRATCH, Kernel
from tracejit.schedule.product import with_partial
from tracejit.schedule.scan import CHAIN_BYTES, in_turns, shares_rows
from tracejit.schedule.skew import skew
from tracejit.schedule.slabs import check_slabs
from tracejit.schedule.stream import stream
from tracejit.schedule.twins import join_twins

Layout = tuple[int, ...] | None


class KernelStep(NamedTuple):
    """Run a loop kernel, which computes ``nodes`` and stores ``copied`` in another place."""

    kernel: Kernel
    nodes: tuple[Node, ...] = ()
    copied: tuple[Node, ...] = ()


class ContractionStep(NamedTuple):
    """Run a matrix product or attention, and its epilogue: like ``KernelStep`` otherwise.

    With ``reader``, a loop kernel over its rows runs after each slab of them.
    """

    kernel: Kernel
    nodes: tuple[Node, ...] = ()
    copied: tuple[Node, ...] = ()
    reader: Kernel | None = None


class BandStep(NamedTuple):
    """Run loop kernels one after the other for a block of rows at a time: like ``KernelStep``."""

    band: Band
    nodes: tuple[Node, ...] = ()
    copied: tuple[Node, ...] = ()

    @property
    def kernel(self) -> Kernel:
        """One kernel that stands for all where only ops and lines are looked at."""
        return self.band.kernel


Step = KernelStep | ContractionStep | BandStep | OpaqueStep


@record(frozen=True)
class Schedule:
    """Steps in execution order, buffers, and where each output is found."""

    graph: Graph
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    outputs: tuple[View, ...]
    arena: Plan
    intermediates: int

    @property
    def arena_bytes(self) -> int:
        """The size of the arena."""
        return self.arena.nbytes

    def memory(self, buffer: int) -> int:
        """Return the buffer whose memory ``buffer`` is in: itself, or an output (see ``Buffer``).

        Scratch memory has the number after the last.
        """
        host = self.buffers[buffer].host if buffer < len(self.buffers) else None
        return buffer if host is None else host

    @property
    def kernels(self) -> list[Kernel]:
        """The loop kernels in order."""
        loops = (s for s in self.steps if isinstance(s, KernelStep | BandStep))
        return [kernel for step in loops for kernel in kernels_of(step)]

    def __repr__(self) -> str:
        kinds = [type(s).__name__.removesuffix("Step").lower() for s in self.steps]
        steps = f"{len(self.steps)} steps: {', '.join(kinds)}"
        return f"<schedule of {steps}; arena {self.arena.nbytes} B>"


class _Scheduler:
    """Turns a fusion into a schedule."""

    def __init__(self, graph: Graph, layouts: Sequence[Layout], lowers: native.Lowers):
        self.graph = graph
        self.layouts: dict[Node, tuple[int, ...]] = {}
        for node in graph.nodes:
            if node.op.name == "input":
                layout = layouts[cast(int, node.attrs["index"])]
                if layout is not None:
                    self.layouts[node] = layout
            elif node.op.name == "view_as_real" and node.inputs[0] in self.layouts:
                self.layouts[node] = _parts(self.layouts[node.inputs[0]])
        self.fusion: Fusion = fuse(graph, lowers, frozenset(self.layouts))
        self.units = {u.node for u in self.fusion.units if isinstance(u, Unit)}
        self.buffers: list[Buffer] = []
        self.number: dict[Node, int] = {}
        self.faults: int | None = None
        self.wanted = {self._base(o) for o in graph.outputs}

    def run(self) -> Schedule:
        for node in self.graph.nodes:
            if self.fusion.stored.get(node) is node:
                self._add_buffer(node)
        steps = self._bordered([self._step(unit) for unit in self.fusion.units])
        steps = self._streamed(self._blocked(self._banded(self._slabbed(steps))))
        outputs = tuple(self._view(node) for node in self.graph.outputs)
        arena = self._placed(steps)
        everything = sum(
            n.nbytes
            for n in self.graph.nodes
            if n.op.name not in ("input", "data", "constant") and n not in self.graph.outputs
        )
        return Schedule(self.graph, tuple(self.buffers), tuple(steps), outputs, arena, everything)

    # -- memory --------------------------------------------------------------------------------

    def _base(self, node: Node) -> Node:
        """Return the node whose buffer holds ``node``."""
        while self.fusion.stored[node] is not node:
            node = self.fusion.stored[node]
        return node

    def _add_buffer(self, node: Node) -> None:
        name = node.op.name
        value = None
        number = 0
        if name == "input":
            kind, number = "input", cast(int, node.attrs["index"])
        elif name == "data":
            kind, value = "data", node.value
        elif name == "constant":
            kind, value = "data", np.asarray(node.attrs["value"], node.dtype)
        elif self._is_opaque(node):
            kind = "opaque"
        else:
            kind = "output" if node in self.wanted else "temp"
        self.number[node] = len(self.buffers)
        self.buffers.append(Buffer(kind, node.dtype, node.shape, node, number, 0, value))

    def _is_opaque(self, node: Node) -> bool:
        return node in self.units

    def place(self, node: Node) -> Place | None:
        """Return where ``node`` is stored, or None where it is only computed in kernels."""
        if node not in self.fusion.stored:
            return None
        base = self._base(node)
        strides = self._strides(node if node is not base else base)
        return Place(self.number[base], strides)

    def _strides(self, node: Node) -> tuple[int, ...]:
        if node in self.layouts:
            return self.layouts[node]
        if node.op.name == "data" and node.value is not None:
            itemsize = max(node.dtype.itemsize, 1)
            return tuple(s // itemsize for s in node.value.strides)
        if node.op.name == "view_as_real":
            return _parts(self._strides(node.inputs[0]))
        return contiguous_strides(node.shape)

    def _view(self, node: Node) -> View:
        """Return ``node`` as a strided view of stored memory."""
        shape, dtype = node.shape, node.dtype
        index = identity(len(shape))
        while (place := self.place(node)) is None:
            below = through(node, index, shape)
            assert below is not None
            index, node = below, node.inputs[0]
        offset: Affine = flat(index, place.strides)
        strides = [0] * len(shape)
        for axis, coefficient in offset.terms:
            strides[axis] = coefficient
        return View(place.buffer, offset.offset, tuple(strides), shape, dtype)

    # -- steps ---------------------------------------------------------------------------------

    def _step(self, unit: Cluster | Unit) -> Step:
        if isinstance(unit, Cluster):
            copied = dict.fromkeys(r.node for r in unit.roots if r.node not in unit.members)
            contracts = unit.product is not None or unit.attention is not None
            kind = ContractionStep if contracts else KernelStep
            return kind(self._kernel(unit), tuple(unit.members), tuple(copied))
        node = unit.node
        return OpaqueStep(node, tuple(self._view(i) for i in node.inputs), self.number[node])

    def _kernel(self, cluster: Cluster) -> Kernel:
        kernel = build(cluster, self.place, lambda: self._faults(next(iter(cluster.members))))
        extra = len(self.buffers)
        if kernel.attend is not None:
            return kernel
        if kernel.contract is not None and kernel.contract.partial < 0:
            node = cast(Product, cluster.product).node
            self.buffers.append(Buffer("temp", node.dtype, (node.size,), node))
            return with_partial(kernel, extra)
        if shares_rows(kernel):
            kernel = in_turns(kernel, extra)
            node = next(iter(cluster.scanned))
            size = CHAIN_BYTES // node.dtype.itemsize
            self.buffers.append(Buffer("temp", node.dtype, (size,), node))
        return kernel

    def _faults(self, node: Node) -> int:
        """Return the buffer that counts positions out of range, which ``node`` needs."""
        if self.faults is None:
            self.faults = len(self.buffers)
            counter = np.zeros((), np.int64)
            self.buffers.append(Buffer("faults", counter.dtype, (), node, value=counter))
        return self.faults

    def _bordered(self, steps: Sequence[Step]) -> list[Step]:
        """Let kernels store values once, and the borders beside their regions."""
        kernels, gone = join_borders(join_twins(_loops(steps), self._inner(steps)))
        result: list[Step] = []
        for number, (step, kernel) in enumerate(zip(steps, kernels, strict=True)):
            if isinstance(step, KernelStep) and kernel is not None:
                borders = [steps[piece] for piece, region in gone.items() if region == number]
                nodes = (n for s in borders if isinstance(s, KernelStep) for n in s.copied)
                step = KernelStep(kernel, step.nodes, tuple(dict.fromkeys((*step.copied, *nodes))))
            if number not in gone:
                result.append(step)
        return result

    def _streamed(self, steps: Sequence[Step]) -> list[Step]:
        """Let stores overlap with arithmetic, and large results bypass the caches.

        The latter is for when all readers are known.
        """
        read = set[int]().union(*(reads(step) for step in steps))
        results = {i for i, b in enumerate(self.buffers) if b.kind == "output"} - read
        slabs = {i for i, b in enumerate(self.buffers) if b.kind == "slab"}

        def streamed(kernel: Kernel) -> Kernel:
            return stream(skew(kernel), results, slabs)

        result: list[Step] = []
        for step in steps:
            match step:
                case KernelStep(kernel):
                    result.append(step._replace(kernel=streamed(kernel)))
                case ContractionStep(reader=Kernel() as reader):
                    result.append(step._replace(reader=streamed(reader)))
                case BandStep(band):
                    result.append(step._replace(band=band.mapped(streamed)))
                case _:
                    result.append(step)
        return result

    def _inner(self, steps: Sequence[Step]) -> set[int]:
        """Return the temporaries that only loop kernels see."""
        others = [touched(s) for s in steps if not isinstance(s, KernelStep)]
        temporaries = {i for i, b in enumerate(self.buffers) if b.kind == "temp"}
        return temporaries.difference(*others)

    def _banded(self, steps: Sequence[Step]) -> list[Step]:
        """Let chains of kernels run by blocks of rows, where that is worth it."""
        inner = self._inner(steps)
        grids = [Grid.of(b.shape, b.dtype.itemsize, i in inner) for i, b in enumerate(self.buffers)]
        result: list[Step] = []
        done = 0
        for start, end, band in find_bands(_loops(steps), grids):
            inside = [s for s in steps[start:end] if isinstance(s, KernelStep)]
            nodes = dict.fromkeys(n for s in inside for n in s.nodes)
            copied = dict.fromkeys(n for s in inside for n in s.copied)
            result += [*steps[done:start], BandStep(band, tuple(nodes), tuple(copied))]
            done = end
            for window in band.windows:
                self.buffers[window.buffer] = replace(self.buffers[window.buffer], kind="slab")
        return [*result, *steps[done:]]

    def _blocked(self, steps: Sequence[Step]) -> list[Step]:
        """Let large reductions down columns run by blocks of rows."""
        result: list[Step] = []
        for step in steps:
            parts = self._blocks_of(step) if isinstance(step, KernelStep) else None
            result += parts or [step]
        return result

    def _blocks_of(self, step: KernelStep) -> list[Step] | None:
        """Return the steps that one becomes by blocks; the last stands for what it computes."""

        def new_buffer(dtype: np.dtype[Any], shape: Shape) -> int:
            self.buffers.append(Buffer("temp", dtype, shape, step.nodes[0]))
            return len(self.buffers) - 1

        kernels = by_blocks(step.kernel, new_buffer)
        if kernels is None:
            return None
        *before, last = kernels
        return [*(KernelStep(kernel) for kernel in before), step._replace(kernel=last)]

    def _slabbed(self, steps: Sequence[Step]) -> list[Step]:
        """Let a product and the only kernel that reads it take turns, where they may."""
        users: dict[int, list[int]] = {}
        for number, step in enumerate(steps):
            for buffer in touched(step):
                users.setdefault(buffer, []).append(number)
        result: list[Step | None] = list(steps)
        for buffer, numbers in users.items():
            if self.buffers[buffer].kind != "temp" or len(numbers) != 2:
                continue
            product, reader = (result[number] for number in numbers)
            if not isinstance(product, ContractionStep) or not isinstance(reader, KernelStep):
                continue
            if check_slabs(product.kernel, reader.kernel, buffer):
                result[numbers[0]], result[numbers[1]] = None, _joined(product, reader)
                self.buffers[buffer] = replace(self.buffers[buffer], kind="slab")
        return [step for step in result if step is not None]

    def _placed(self, steps: Sequence[Step]) -> Plan:
        """Give each value between kernels a place: in an output that is not written yet, or in the
        arena, whose plan is returned.

        What NumPy reads is not put into an output: its result may be a view of that.
        """
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        pythons = set[int]()
        for time, step in enumerate(steps):
            for number in touched(step):
                first.setdefault(number, time)
                last[number] = time
            if isinstance(step, OpaqueStep):
                pythons |= touched(step)

        def life(number: int) -> Life:
            nbytes = self.buffers[number].nbytes
            return Life(nbytes, first.get(number, 0), last.get(number, 0))

        buffers = list(enumerate(self.buffers))
        temporaries = [i for i, b in buffers if b.kind == "temp" and i in first]
        results = [i for i, b in buffers if b.kind == "output"]
        movable = [i for i in temporaries if i not in pythons]
        rooms = [Room(life(i).nbytes, life(i).first) for i in results]
        guests = lodge([life(i) for i in movable], rooms)
        hosts = {movable[guest]: results[room] for guest, room in guests.items()}
        others = [i for i in temporaries if i not in hosts]
        arena = plan([life(i) for i in others])
        for number, host in hosts.items():
            self.buffers[number] = replace(self.buffers[number], host=host)
        for number, offset in zip(others, arena.offsets, strict=True):
            self.buffers[number] = replace(self.buffers[number], offset=offset)
        return arena


def _parts(strides: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of the parts of complex values, in parts."""
    return (*(2 * s for s in strides), 1)


def _loops(steps: Sequence[Step]) -> list[Kernel | None]:
    """Return the kernel of each step that is a loop kernel alone, else None."""
    return [step.kernel if isinstance(step, KernelStep) else None for step in steps]


def _joined(product: ContractionStep, reader: KernelStep) -> ContractionStep:
    """Return one step for a product and the kernel over its rows, known by the ops of both."""
    first, second = product.kernel, reader.kernel
    kernel = replace(
        first,
        labels=(*first.labels, *second.labels),
        lines=tuple(dict.fromkeys((*first.lines, *second.lines))),
    )
    copied = dict.fromkeys((*product.copied, *reader.copied))
    return ContractionStep(kernel, (*product.nodes, *reader.nodes), tuple(copied), second)


def kernels_of(step: Step) -> tuple[Kernel, ...]:
    """Return the kernels that a step runs; two where a product and its reader take turns."""
    match step:
        case KernelStep(kernel) | ContractionStep(kernel, reader=None):
            return (kernel,)
        case ContractionStep(kernel, reader=reader):
            return (kernel, cast(Kernel, reader))
        case BandStep(band):
            return band.kernels
        case OpaqueStep():
            return ()


def touched(step: Step) -> set[int]:
    """Return the buffers that a step reads or writes."""
    match step:
        case KernelStep() | ContractionStep() | BandStep():
            accesses = (a for kernel in kernels_of(step) for a in kernel.accesses)
            return {a.buffer for a in accesses if a.buffer != SCRATCH}
        case OpaqueStep(_, views, buffer):
            return {v.buffer for v in views} | {buffer}


def reads(step: Step) -> set[int]:
    """Return the buffers that a step reads."""
    match step:
        case KernelStep() | ContractionStep() | BandStep():
            return {a.buffer for kernel in kernels_of(step) for a in kernel.loaded}
        case OpaqueStep(_, views, _):
            return {v.buffer for v in views}


def make_schedule(graph: Graph, layouts: Sequence[Layout], lowers: native.Lowers) -> Schedule:
    """Schedule a canonical graph of primitives.

    ``layouts[i]`` is None where input ``i`` is C-contiguous, else its strides in elements;
    ``lowers`` says which elementwise ops code generation has.
    """
    graph = split.run(row_groups.run(one_row.run(graph, lowers)))
    return _Scheduler(graph, layouts, lowers).run()
