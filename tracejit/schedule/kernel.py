"""The kernel: a loop nest over expressions, between buffers.

Grammar (``docs/ir.md`` has it in full)::

    kernel  ::= axis* access* expr* store*
    expr    ::= Load access | Const value | Index coefficients
              | Bound expr expr access | Natural expr access | Gather access (expr expr)*
              | Apply op expr* | Reduce op expr axes | Scan op expr axis | Contract expr expr axes
              | Attend expr expr axes
    store   ::= access (expr expr)* op? ← expr

Expressions are a flat list in dependency order, and refer to each other by position. ``axes`` of
an expression are the loop axes it varies with. Sizes and strides are run-time arguments: the
structural ``key`` of a kernel holds only which strides are zero or one, so one compiled kernel
serves every size.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tracejit.ops.dtypes import is_half
from tracejit.ops.table import DType
from tracejit.record import field, record
from tracejit.schedule.index import Seam
from tracejit.schedule.merged import Walks
from tracejit.sizes import frozen, is_size

# The buffer number of a kernel's private scratch memory.
SCRATCH = -1

# Elements in one block of a scan: what float sums add up by themselves before they join the
# running total, and what threads share a long row in. A multiple of every vector step.
SCAN_BLOCK = 4096


@record(frozen=True, slots=True)
class Access:
    """Memory seen by a kernel: ``buffer[offset + Σ stride·axis]``, in elements of ``dtype``.

    From its position along its axis on, a seam's jump is added.
    """

    buffer: int
    dtype: DType
    offset: int
    strides: tuple[int, ...]  # one per kernel axis
    seams: tuple[Seam, ...] = ()

    def classes(self) -> str:
        """Return the stride class per axis: 0 absent, 1 unit, s run-time."""
        return "".join("0" if s == 0 else "1" if s == 1 else "s" for s in self.strides)


class Record(NamedTuple):
    """Accesses to neighbours in memory, in order, which lanes along ``axis`` step over together.

    The first field is accessed; others may be NO_FIELD.
    """

    axis: int
    fields: tuple[int, ...]


NO_FIELD = -1


@record(frozen=True, slots=True)
class Expr:
    """One value of the kernel's body; ``axes`` are the axes it varies with."""

    dtype: DType
    axes: frozenset[int]


@record(frozen=True, slots=True)
class Load(Expr):
    access: int


@record(frozen=True, slots=True)
class Const(Expr):
    value: Any

    @property
    def literal(self) -> bool:
        """Whether the code holds the value; other constants are run-time arguments.

        A kernel that scales by 0.1 is the same code as one that scales by 0.2: a loop whose
        constants change (a step size, a class number) compiles once.
        """
        if is_size(self.value):
            return False
        if is_half(self.dtype):
            return False
        return self.dtype.kind == "b" or self.value in _LITERALS or self.value != self.value

    def bits(self) -> int:
        """Return the value's bits in the low end of an i64."""
        if is_size(self.value):
            return self.value.bits(self.dtype.str[1:])
        raw = np.asarray(self.value, self.dtype).tobytes().ljust(8, b"\0")
        return int.from_bytes(raw, "little", signed=True)


# Values that simplify the code they stand in.
_LITERALS = frozenset({0, 1, -1, 2, 0.5, float("inf"), float("-inf")})


@record(frozen=True, slots=True)
class Index(Expr):
    """``offset + Σ coefficient·axis`` as a number."""

    offset: int
    coefficients: tuple[int, ...]


@record(frozen=True, slots=True)
class Bound(Expr):
    """``arg`` as a position among ``extent`` elements (both i64), negative ones from the end.

    One out of range becomes 0, and is counted in access ``faults``.
    """

    arg: int
    extent: int
    faults: int


@record(frozen=True, slots=True)
class Natural(Expr):
    """``arg`` where it is not negative; else 0, and counted in access ``faults``."""

    arg: int
    faults: int


@record(frozen=True, slots=True)
class Gather(Expr):
    """The element of ``access`` that lies Σ place·step beyond where the strides lead.

    ``places`` are bounds, ``steps`` constants: both i64.
    """

    access: int
    places: tuple[int, ...]
    steps: tuple[int, ...]


@record(frozen=True, slots=True)
class Apply(Expr):
    op: str
    args: tuple[int, ...]
    attrs: Mapping[str, Hashable]


@record(frozen=True, slots=True)
class Reduce(Expr):
    """``op`` over ``over`` (outer axis first) of ``arg``."""

    op: str
    arg: int
    over: tuple[int, ...]


@record(frozen=True, slots=True)
class Scan(Expr):
    """The running ``op`` of ``arg`` from the first position of ``axis`` up to each one."""

    op: str
    arg: int
    axis: int


@record(frozen=True, slots=True)
class Contract(Expr):
    """The matrix product Σ left·right over axis ``over``, of two loads.

    ``left`` varies with ``rows`` and ``over``, ``right`` with ``over`` and ``columns``; the other
    axes of the kernel are batches. The sums over a part of ``over`` wait in access ``partial``.
    With ``gather``, ``right`` has no strides along ``over`` and ``columns``: these walks in turn
    lead through its memory instead.
    """

    left: int
    right: int
    rows: int
    columns: int
    over: int
    partial: int = -1
    gather: Walks | None = None


@record(frozen=True, slots=True)
class Attend(Expr):
    """softmax(``scores``) over axis ``over``, times ``values``: a load along it and ``columns``."""

    scores: int
    values: int
    rows: int
    columns: int
    over: int


def operands(expr: Expr) -> tuple[int, ...]:
    """Return the positions of the expressions that ``expr`` reads."""
    match expr:
        case Apply(args=args):
            return args
        case Bound(arg=arg, extent=extent):
            return (arg, extent)
        case Natural(arg=arg):
            return (arg,)
        case Gather(places=places, steps=steps):
            return (*places, *steps)
        case Reduce(arg=arg) | Scan(arg=arg):
            return (arg,)
        case Contract(left=left, right=right):
            return (left, right)
        case Attend(scores=scores, values=values):
            return (scores, values)
        case _:
            return ()


@record(frozen=True, slots=True)
class Store:
    """``access`` ← ``value``; with ``places``, to Σ place·step beyond where the strides lead.

    ``places`` are bounds, ``steps`` constants: both i64. ``op`` combines the value with what is
    there.
    """

    access: int
    value: int
    places: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    op: str = ""

    @property
    def operands(self) -> tuple[int, ...]:
        """The positions of the expressions that the store needs."""
        return (self.value, *self.places, *self.steps)


@record(slots=True)
class Nest:
    """Loops over ``axes`` (outer first) around a block; the innermost may be a vector loop.

    ``reduces`` are the accumulators that the nest computes, ``stores`` the stores in its body.
    ``saves`` keeps values of the row in scratch memory; ``reuses`` maps values that an earlier
    nest saved to where they are loaded from.
    """

    axes: tuple[int, ...]
    vector: int | None
    reduces: tuple[int, ...]
    stores: tuple[int, ...]
    body: Block
    saves: tuple[Store, ...] = ()
    reuses: tuple[Store, ...] = ()


@record(slots=True)
class Block:
    """Inner nests in order; scalar values between them are placed by need."""

    nests: list[Nest] = field(default_factory=list["Nest"])
    stores: tuple[int, ...] = ()


@record(frozen=True)
class Kernel:
    """A kernel as scheduled. ``parallel`` are the axes of the outer loops, outermost first.

    ``vector_parallel`` is the parallel axis that runs in vector lanes, if one does; otherwise the
    inner nests choose their own. ``extents`` are this schedule's sizes. ``labels`` names the fused
    ops for people; ``lines`` are their source lines.

    With ``chain``, the kernel is one scan of few long rows, and the outermost parallel loop is over
    its blocks. Threads take them in turn and hand on the running values of the rows in that
    access, which a call of its own resets before (see ``schedule/scan.py``).

    The stores ``streamed`` bypass the caches. In a ``skewed`` kernel the last nest runs one
    iteration of the innermost parallel loop later than the others. ``packs`` are pairs of accesses:
    before anything else, each strip of lanes copies what it reads through the first to the second,
    in scratch. ``unpacks`` are the reverse for stores: what goes to the second access waits in the
    first. ``copies`` are such pairs too: all that the loops inside read through the first is copied
    as soon as the parallel axes that the second does not run along are fixed. ``records`` are
    loaded as a whole, and ``stored_records`` stored.
    """

    extents: tuple[int, ...]
    accesses: tuple[Access, ...]
    exprs: tuple[Expr, ...]
    stores: tuple[Store, ...]
    parallel: tuple[int, ...]
    vector_parallel: int | None
    block: Block
    scratch: int = 0
    chain: int | None = None
    streamed: frozenset[int] = frozenset()
    skewed: bool = False
    packs: tuple[tuple[int, int], ...] = ()
    unpacks: tuple[tuple[int, int], ...] = ()
    copies: tuple[tuple[int, int], ...] = ()
    records: tuple[Record, ...] = ()
    stored_records: tuple[Record, ...] = ()
    labels: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """The structure that decides the code: equal keys, equal code."""
        parts = [f"axes {len(self.extents)} parallel {self.parallel} {self.vector_parallel}"]
        if self.chain is not None:
            parts.append(f"chain {self.chain}")
        if self.streamed:
            parts.append(f"streamed {sorted(self.streamed)}")
        if self.skewed:
            parts.append("skewed")
        if self.packs:
            parts.append(f"packs {self.packs}")
        if self.unpacks:
            parts.append(f"unpacks {self.unpacks}")
        if self.copies:
            parts.append(f"copies {self.copies}")
        if self.records or self.stored_records:
            parts.append(f"records {self.records} {self.stored_records}")
        parts += [f"{a.dtype.str}:{a.classes()}{self._seamed(a)}" for a in self.accesses]
        parts += [f"seam {axis}" for axis, _ in self.seams]
        for e in self.exprs:
            match e:
                case Load():
                    parts.append(f"load {e.access}")
                case Const():
                    parts.append(f"const {e.dtype.str} {repr(e.value) if e.literal else '?'}")
                case Bound():
                    parts.append(f"bound {e.arg} {e.extent} {e.faults}")
                case Natural():
                    parts.append(f"natural {e.arg} {e.faults}")
                case Gather():
                    parts.append(f"gather {e.access} {e.places} {e.steps}")
                case Index():
                    varies = "".join("0" if c == 0 else "s" for c in e.coefficients)
                    parts.append(f"index {e.dtype.str} {varies}")
                case Apply():
                    attrs = f" {sorted(e.attrs.items())}" if e.attrs else ""
                    parts.append(f"{e.op} {e.dtype.str} {e.args}{attrs}")
                case Reduce():
                    parts.append(f"reduce {e.op} {e.dtype.str} {e.arg} {e.over}")
                case Scan():
                    parts.append(f"scan {e.op} {e.dtype.str} {e.arg} {e.axis}")
                case Contract():
                    axes = (e.rows, e.columns, e.over)
                    parts.append(f"contract {e.dtype.str} {e.left} {e.right} {axes} {e.partial}")
                case Attend():
                    axes = (e.rows, e.columns, e.over)
                    parts.append(f"attend {e.dtype.str} {e.scores} {e.values} {axes}")
                case _:
                    parts.append(repr(e))
        parts += [f"store {s.access} {s.value}{_scattered(s)}" for s in self.stores]
        parts.append(_describe(self.block))
        return "\n".join(parts)

    def _seamed(self, access: Access) -> str:
        numbers = (self.seam_number(seam) for seam in access.seams)
        return "".join(f"|{number}" for number in numbers)

    @cached_property
    def seams(self) -> tuple[tuple[int, int], ...]:
        """The places (axis, position) at which accesses have seams, each once."""
        found = {(s.axis, frozen(s.position)): s.position for a in self.accesses for s in a.seams}
        return tuple((axis, position) for (axis, _), position in found.items())

    def seam_number(self, seam: Seam) -> int:
        """Return the place of ``seam`` among the kernel's ``seams``."""
        wanted = seam.axis, frozen(seam.position)
        return [(axis, frozen(position)) for axis, position in self.seams].index(wanted)

    @property
    def tiled(self) -> bool:
        """Whether the two innermost parallel loops run in tiles, as transposes want.

        So it is where an access strides along the vector axis and is contiguous along the loop
        around it: row by row it would use one element of each cache line.
        """
        if self.vector_parallel is None or len(self.parallel) < 2 or self.block.nests:
            return False
        if self.seams:
            return False
        outer, inner = self.parallel[-2:]
        return any(a.strides[inner] not in (0, 1) and a.strides[outer] == 1 for a in self.accesses)

    @property
    def down_columns(self) -> bool:
        """Whether strips of a parallel axis in lanes walk down through memory, row by row."""
        inside = self.vector_parallel is not None and bool(self.block.nests)
        return inside and not self.packs and not self.unpacks

    @property
    def lane_axes(self) -> frozenset[int]:
        """The axes that run in vector lanes, in one loop or another."""
        lanes = set[int]() if self.vector_parallel is None else {self.vector_parallel}
        blocks = [self.block]
        while blocks:
            nests = blocks.pop().nests
            blocks += [n.body for n in nests]
            lanes |= {n.vector for n in nests if n.vector is not None}
        return frozenset(lanes)

    @property
    def trip_count(self) -> int:
        """Iterations of the outermost parallel loop: what ``begin`` and ``end`` count."""
        if self.chain is not None:
            return -(-self.extents[self.scans[0].axis] // SCAN_BLOCK)
        return self.extents[self.parallel[0]] if self.parallel else 1

    @property
    def scans(self) -> list[Scan]:
        return [e for e in self.exprs if isinstance(e, Scan)]

    @cached_property
    def contract(self) -> Contract | None:
        """The matrix product that the kernel computes, if it is one."""
        return next((e for e in self.exprs if isinstance(e, Contract)), None)

    @cached_property
    def attend(self) -> Attend | None:
        """The attention that the kernel computes, if it does."""
        return next((e for e in self.exprs if isinstance(e, Attend)), None)

    @cached_property
    def scatter(self) -> Store | None:
        """The store to computed positions, which is then all that the kernel does."""
        return next((s for s in self.stores if s.places), None)

    @property
    def ordered(self) -> tuple[int, ...]:
        """The axes whose iterations run in order: they may scatter to the same place."""
        if self.scatter is None:
            return ()
        strides = self.accesses[self.scatter.access].strides
        return tuple(a for a, s in enumerate(strides) if s == 0)

    @property
    def lane_by_lane(self) -> bool:
        """Whether vectors run along an axis whose lanes may scatter to the same place."""
        return not self.lane_axes.isdisjoint(self.ordered)

    @property
    def loaded(self) -> list[Access]:
        """The accesses that the kernel loads from, or leaves in part as they were."""
        packed = [self.accesses[source] for source, _ in (*self.packs, *self.copies)]
        loads = [e for e in self.exprs if isinstance(e, Load | Gather)]
        kept = [self.accesses[s.access] for s in self.stores if s.places]
        return packed + [self.accesses[e.access] for e in loads] + kept

    @property
    def ops(self) -> int:
        """How many graph ops the kernel computes."""
        return len(self.labels)

    def sizes(self, *, resets: bool = False) -> list[int]:
        """Return the run-time arguments: extents, strides, seams, index terms, constants, scratch.

        ``resets`` asks for the call that comes before those of a ``chain``; it is the last one.
        """
        values = list(self.extents)
        for access in self.accesses:
            values += access.strides
        values += [position for _, position in self.seams]
        values += [seam.jump for access in self.accesses for seam in access.seams]
        for expr in self.exprs:
            if isinstance(expr, Index):
                values += (expr.offset, *expr.coefficients)
            elif isinstance(expr, Const) and not expr.literal:
                values.append(expr.bits())
        kept = [a.offset * a.dtype.itemsize for a in self.accesses if a.buffer == SCRATCH]
        return [*values, *kept, self.scratch, int(resets)]


def computed_in(kernel: Kernel, nest: Nest) -> set[int]:
    """Return what varies with the loops of ``nest`` and is computed in them, not before.

    The body of ``nest`` has no nests of its own.
    """
    stack = [operands(kernel.exprs[r])[0] for r in nest.reduces]
    stores = (*(kernel.stores[i] for i in nest.stores), *nest.saves)
    stack += [p for s in stores for p in s.operands]
    reused = {s.value for s in nest.reuses}
    found: set[int] = set()
    while stack:
        position = stack.pop()
        expr = kernel.exprs[position]
        done = expr.axes.isdisjoint(nest.axes) or isinstance(expr, Reduce)
        if position not in found and position not in reused and not done:
            found.add(position)
            stack += operands(expr)
    return found


def _scattered(store: Store) -> str:
    return f" {store.places} {store.steps} {store.op}" if store.places else ""


def _describe(block: Block) -> str:
    inner = " ".join(
        f"({n.axes} v{n.vector} r{n.reduces} s{n.stores} {_kept(n.saves)}{_kept(n.reuses)}"
        f" {_describe(n.body)})"
        for n in block.nests
    )
    return f"{{{inner} s{block.stores}}}"


def _kept(stores: tuple[Store, ...]) -> str:
    return str([(s.access, s.value) for s in stores])
