"""What things cost: estimates that start from priors and follow what is measured.

One model for the process. It answers what interpreting a graph takes, what compiling it would
take, and what its kernels would take; the runtime tells it what each of these took. An estimate
decides how to run, never what the result is, so concurrent updates may lose one another.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.ops.table import OPS, Fact, Family, Op
from tracejit.record import record
from tracejit.schedule.index import VIEWS
from tracejit.schedule.native import cost as flops
from tracejit.schedule.titles import kind_of

if TYPE_CHECKING:
    from tracejit.runtime.calls import NativeCall
    from tracejit.schedule.kernel import Kernel

# Weight of a new measurement.
_NEWEST = 0.3
# An op on fewer elements than this tells what a call costs, on more what an element costs.
_SMALL, _LARGE = 1_000, 10_000

# Priors, measured on one core of a server of 2023.
_CALL_NS = 3_000.0
_ELEMENT_NS = 0.6  # of 8 bytes
# A byte of a result that malloc takes from the system each time: glibc recycles up to 32 MiB.
_FRESH_NS, _FRESH_BYTES = 0.25, 32 << 20
# An element of a reduction's result: NumPy begins anew for each along the last axis.
_REDUCED_NS = 15.0
_MULTIPLY_ADD_NS = 0.05
_BYTE_NS = 0.1
_KERNEL_CALL_NS = 1_000.0
_FLOP_NS = 0.05
# Elements of ops whose references NumPy has no ufunc for: special functions by loops in Python
# over series and tables, and the others by half a dozen passes.
_SLOW_NS = {
    **dict.fromkeys(("erf", "erfc", "gelu", "lgamma", "gamma", "digamma"), 150.0),
    **dict.fromkeys(("sigmoid", "silu", "softplus"), 10.0),
}
# Emitting, compiling and loading a kernel, and what each op adds: a reduction has loops of its own,
# an elementary function dozens of instructions, a product microkernels for all edges. Fitted to the
# kernels of the benchmarks' rows, nine in ten of which take 0.5 to 1.7 times as long.
_KERNEL_S, _OPERATION_S = 0.006, 0.0003
_FUNCTION_S, _REDUCTION_S, _PRODUCT_S = 0.003, 0.009, 0.07
# Measured: 1.5 to 5 ns for loops (rows of softmax, stencils, scans), 1 to 6 for tiles of products.
_ENTRY_NS = {"loop": 4.0, "product": 4.0}
# What compiling with constant sizes takes of what it took without: 0.65 to 1.7 (measured).
_SPECIAL = 1.1
# One kernel that gains nothing does not speak for all others.
_LEAST_ENTRY_NS = 1.0
# What composites become, where the table does not say so.
_COMPOSITE_S = {
    **dict.fromkeys(
        ("attention", "conv", "conv_transpose", "einsum", "linear", "tensordot"), _PRODUCT_S
    ),
    **dict.fromkeys(
        ("layer_norm", "log_softmax", "normalize", "rms_norm", "softmax", "standardize"),
        2 * _REDUCTION_S,
    ),
}


def compute_nodes(graph: Graph) -> list[Node]:
    """Return the nodes that cost something: all but leaves."""
    return [node for node in graph.nodes if node.inputs]


def work(node: Node) -> int:
    """Return the elements that an op touches, multiply-adds for a product; 0 for views."""
    if node.op.name in VIEWS:
        return 0
    if node.op.family is Family.CONTRACTION:
        left = node.inputs[0]
        return node.size * (left.shape[-1] if left.shape else 1)
    return max(node.size, *(i.size for i in node.inputs)) if node.inputs else node.size


def _prior(node: Node) -> float:
    """Return a guess of the nanoseconds per unit of work."""
    if node.op.family is Family.CONTRACTION:
        return _MULTIPLY_ADD_NS
    slow = _SLOW_NS.get(node.op.name)
    if slow is not None:
        return slow
    heavy = 4.0 if node.op.family in (Family.COMPOSITE, Family.SORTING, Family.LIBRARY) else 1.0
    # NumPy reads and writes memory at each op, and its vectors hold half as many 8-byte elements.
    widest = max(node.dtype.itemsize, 4, *(i.dtype.itemsize for i in node.inputs))
    return heavy * _ELEMENT_NS * widest / 8 * (1 + flops(node) // 10)


# What recording an op and its part of an evaluation take at the least (measured: loops of 2 to 600
# elementwise ops break even with NumPy between 20,000 and 30,000 elements of float64). NumPy
# computes in this time what it computes at once (``immediate.py``).
_RECORD_NS = 12_000.0


def at_once(node: Node) -> bool:
    """Return whether NumPy computes an op on known operands sooner than it could be recorded.

    By what is known before anything ran: the same programs are recorded in every run.
    """
    if not node.inputs or node.op.has(Fact.IMPURE):
        return False
    units = node.size if node.op.name in VIEWS else work(node)
    return _prior(node) * units + _beside_ns(node) <= _RECORD_NS


def _beside_ns(node: Node) -> float:
    """Return what interpreting a node costs beside what is in proportion to its work."""
    fresh = _FRESH_NS * node.nbytes if node.nbytes > _FRESH_BYTES else 0.0
    return fresh + (_REDUCED_NS * node.size if node.op.family is Family.REDUCTION else 0.0)


@record(slots=True)
class _Line:
    """Nanoseconds of one op: ``fixed + rate · work``."""

    fixed: float
    rate: float

    def at(self, amount: int) -> float:
        return self.fixed + self.rate * amount

    def follow(self, amount: int, ns: float) -> None:
        if amount <= _SMALL:
            self.fixed = _towards(self.fixed, ns)
        elif amount >= _LARGE:
            self.rate = _towards(self.rate, max(ns - self.fixed, 0.0) / amount)


def _towards(old: float, new: float) -> float:
    """Return ``old`` moved towards ``new``, which may be an outlier: first runs page memory in."""
    new = min(max(new, old / 8), old * 8)
    return old + _NEWEST * (new - old)


def _code_s(op: Op) -> float:
    """Return what an op adds to the time of compiling a kernel, in seconds."""
    if op.name in VIEWS:
        return 0.0
    match op.family:
        case Family.CONTRACTION:
            return _PRODUCT_S
        case Family.REDUCTION | Family.SCAN:
            return _REDUCTION_S
        case _:
            other = _FUNCTION_S if op.has(Fact.EXPENSIVE) else _OPERATION_S
            return _COMPOSITE_S.get(op.name, other)


def _node_s(node: Node) -> float:
    """Return ``_code_s`` of a node's op; of a composite that reduces, such as a mean, a sum's."""
    if node.op.family is Family.COMPOSITE and node.size < max(i.size for i in node.inputs):
        return _REDUCTION_S
    return _code_s(node.op)


def _kernel_s(kernel: Kernel) -> float:
    """Return what emitting, compiling and loading a kernel takes before corrections, in seconds."""
    from tracejit.schedule.kernel import Apply, Reduce, Scan

    ops = [OPS[e.op] for e in kernel.exprs if isinstance(e, Apply | Reduce | Scan)]
    product = 0.0 if kernel.contract is None else _PRODUCT_S
    return _KERNEL_S + product + sum(map(_code_s, ops))


def _scale(figures: dict[str, float], kinds: Iterable[str], ratio: float) -> None:
    """Move the figures of ``kinds`` towards ``ratio`` times what they are."""
    for kind in set(kinds):
        figures[kind] = _towards(figures[kind], figures[kind] * ratio)


class CostModel:
    """Estimates of interpreter, compiler and kernel time, corrected by measurements."""

    def __init__(self) -> None:
        self._ops: dict[tuple[str, int], _Line] = {}
        self.plan_node_s = 1.5e-4
        self.compile_scale = {"loop": 1.0, "product": 1.0}
        self.kernels_per_node = 0.03
        # A worker and the native runtime, before the first kernel of a process: 35 ms where nobody
        # else wants the cores (measured).
        self.start_s = 0.035
        self.kernel_scale = 1.0
        # What entering an inner loop costs more if its sizes are run-time values, by kind; and how
        # much longer it takes to compile a kernel with constant ones.
        self.entry_ns = dict(_ENTRY_NS)
        self.special_ratio = _SPECIAL

    # -- the interpreter ---------------------------------------------------------------------------

    def interpreter_ns(self, graph: Graph) -> float:
        """Return what interpreting ``graph`` once would take, in nanoseconds."""
        return sum(
            self._line(node).at(work(node)) + _beside_ns(node) for node in compute_nodes(graph)
        )

    def observe_op(self, node: Node, ns: int) -> None:
        """Take what the interpreter needed for one op."""
        if node.inputs:
            self._line(node).follow(work(node), max(0.0, ns - _beside_ns(node)))

    def _line(self, node: Node) -> _Line:
        key = (node.op.name, node.dtype.itemsize)
        line = self._ops.get(key)
        if line is None:
            line = self._ops.setdefault(key, _Line(_CALL_NS, _prior(node)))
        return line

    # -- the compiler ------------------------------------------------------------------------------

    def plan_s(self, graph: Graph) -> float:
        """Return what everything before code generation would take, in seconds."""
        return self.plan_node_s * len(compute_nodes(graph))

    def compile_s(self, graph: Graph) -> float:
        """Return what planning and compiling would take if no kernel is in the cache."""
        nodes = compute_nodes(graph)
        products = [node for node in nodes if node.op.family is Family.CONTRACTION]
        others = len(nodes) - len(products)
        kernels = max(0.0 if products else 1.0, self.kernels_per_node * others)
        own = _PRODUCT_S * len(products)
        loops = _KERNEL_S * kernels + sum(map(_node_s, nodes)) - own
        code = self.compile_scale["loop"] * loops + self.compile_scale["product"] * own
        return self.start_s + self.plan_node_s * len(nodes) + code

    def observe_plan(self, graph: Graph, seconds: float, kernels: int) -> None:
        """Take what planning ``graph`` needed, and how many kernels it gave."""
        nodes = max(1, len(compute_nodes(graph)))
        self.plan_node_s = _towards(self.plan_node_s, seconds / nodes)
        self.kernels_per_node = _towards(self.kernels_per_node, max(kernels, 1) / nodes)

    def observe_start(self) -> None:
        """Take it that all is there that the first kernel of a process waits for."""
        self.start_s = 0.0

    def observe_kernels(self, kernels: Collection[Kernel], seconds: float) -> None:
        """Take what compiling these needed; the first of a process start the rest."""
        seconds = max(0.0, seconds - self.start_s)
        self.observe_start()
        expected = sum(self.compile_scale[kind_of(k)] * _kernel_s(k) for k in kernels)
        if kernels:
            _scale(self.compile_scale, map(kind_of, kernels), seconds / expected)

    # -- specialised kernels -----------------------------------------------------------------------

    def special_saving_ns(self, calls: Sequence[NativeCall]) -> float:
        """Return what constant sizes would save each time these native calls are made, if nothing
        else took time: a call saves less, the more of it this is (``analysis.expected_saving``)."""
        return sum(self.entry_ns[kind] * count for c in calls for kind, count in c.loops)

    def special_s(self, calls: Sequence[NativeCall]) -> float:
        """Return what compiling them with constant sizes would take: each by itself, since the
        sizes of a product's call that packs differ from those of the other."""
        return self.special_ratio * sum(c.code.seconds for c in calls)

    def observe_special(self, calls: Sequence[NativeCall], seconds: float) -> None:
        """Take what compiling these with constant sizes took."""
        measured = self.special_ratio * seconds / max(self.special_s(calls), 1e-9)
        self.special_ratio = _towards(self.special_ratio, measured)

    def observe_saving(self, calls: Sequence[NativeCall], ns: float) -> None:
        """Take what constant sizes saved; less than nothing where they cost."""
        ratio = max(ns, 0.0) / max(self.special_saving_ns(calls), 1e-9)
        _scale(self.entry_ns, (kind for c in calls for kind, _ in c.loops), ratio)
        for kind, value in self.entry_ns.items():
            self.entry_ns[kind] = max(value, _LEAST_ENTRY_NS)

    # -- kernels -----------------------------------------------------------------------------------

    def kernel_ns(self, graph: Graph) -> float:
        """Return what the kernels of ``graph`` would take: arithmetic, or each leaf's bytes."""
        arithmetic = 0.0
        for node in compute_nodes(graph):
            product = node.op.family is Family.CONTRACTION
            arithmetic += work(node) * (_MULTIPLY_ADD_NS if product else _FLOP_NS * flops(node))
        ends = [n for n in graph.nodes if not n.inputs] + list(graph.outputs)
        traffic = sum(n.nbytes for n in ends) * _BYTE_NS
        return self.kernel_scale * (_KERNEL_CALL_NS + max(arithmetic, traffic))

    def observe_run(self, graph: Graph, ns: float) -> None:
        """Take what one run of the kernels of ``graph`` needed."""
        estimate = self.kernel_ns(graph) / self.kernel_scale
        ratio = min(max(ns / estimate, 1 / 64), 64.0)
        self.kernel_scale = math.exp(
            (1 - _NEWEST) * math.log(self.kernel_scale) + _NEWEST * math.log(ratio)
        )


model = CostModel()
