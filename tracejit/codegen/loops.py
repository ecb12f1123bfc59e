"""Loop kernels → IR: one function that walks a kernel's loop tree and writes it.

Every kernel has the signature ``void name(ptr ptrs, ptr sizes, i64 begin, i64 end)``: a pointer
per access, the sizes as ``Kernel.sizes`` lists them, and the chunk of the outermost parallel loop.

A *scope* is the inside of some loops: which axes are fixed at which index, and which axis runs in
vector lanes. A value that varies with the vector axis is ``unroll`` vectors, side by side, so that
independent work sits next to each other; any other value is one scalar, splatted where it meets a
vector. Values and pointers are computed in the outermost scope that fixes all their axes.

A vector loop is written up to three times: unrolled, one vector, one masked vector. The masked
tail runs the same instructions, so the result of an element does not depend on its position.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.codegen.access import load_values, store_values
from tracejit.codegen.accumulate import Accumulator
from tracejit.codegen.builder import I1, I64, PTR, VOID, Builder, Module, Value, const
from tracejit.codegen.divide import divided, divided_by_turns, divisors, invert
from tracejit.codegen.elementwise import DIVIDER, Loop, lower, splat_to
from tracejit.codegen.exits import exits, prepare_with_exits
from tracejit.codegen.math.quotient import Inverse
from tracejit.codegen.positions import bound, gather, natural
from tracejit.codegen.prefetch import (
    Ahead,
    distances,
    fetch_rows,
    is_straight,
    plan_ahead,
    strips_are_near,
)
from tracejit.codegen.records import store_records
from tracejit.codegen.scan import ScanLoop
from tracejit.codegen.scatter import scatter_values
from tracejit.codegen.scope import Scope, Values, Vector
from tracejit.codegen.skew import SkewedRows
from tracejit.codegen.steps import streamed_from, vector_loop
from tracejit.codegen.strips import copy_apart, pack_strip, strips, unpack_strip
from tracejit.codegen.target import Target
from tracejit.codegen.tiles import TileLoop
from tracejit.codegen.types import memory_type, register_type
from tracejit.codegen.widths import (
    SHORT_BODY,
    choose_lanes,
    is_heavy,
    is_long,
    spread,
    vectors_for,
    vectors_of,
)
from tracejit.schedule.kernel import (
    SCRATCH,
    Apply,
    Attend,
    Block,
    Bound,
    Const,
    Contract,
    Expr,
    Gather,
    Index,
    Kernel,
    Load,
    Natural,
    Nest,
    Reduce,
    Scan,
    operands,
)

# Elements per accumulator in one block of a compensated sum: see reducers.py. In lanes, merging
# the accumulators adds a few roundings; beside them, blocks end more often for the work in each.
BLOCK_STEPS, ORDERED_BLOCK_STEPS = 16, 32


class KernelEmitter:
    """Writes one kernel. Made once per kernel and target."""

    def __init__(
        self,
        b: Builder,
        kernel: Kernel,
        arguments: Sequence[Value] | None = None,
        lanes: int | None = None,
    ):
        """Write into ``b``, whose parameters are ``arguments``; ``lanes`` fixes the width."""
        self.b = b
        self.kernel = kernel
        self.exprs = kernel.exprs
        self.base, self.sizes, self.begin, self.end = arguments or b.parameters
        self.lanes = lanes or choose_lanes(kernel, b.target)
        # Of the loop being written: its vectors side by side, and whether its body is long.
        self.unroll, self.long = vectors_of(kernel, b.target, self.lanes)
        self.extents: list[Value] = []
        self.strides: list[list[Value]] = []
        # The seams of the kernel (axis, position), and the jumps of each access at its own.
        self.seams: list[tuple[int, Value]] = []
        self.jumps: list[list[Value]] = []
        self.index_terms: dict[int, list[Value]] = {}
        self.constants: dict[int, Value] = {}
        self.roots: list[Value] = []
        self.strips = strips(kernel)
        # Where stores go that leave the strip later.
        self.waiting = {target: source for source, target in kernel.unpacks}
        self.spread = spread(kernel)
        # Values that the nest being written loads from scratch instead of computing.
        self.reused: dict[int, int] = {}
        # What the nest being written fetches ahead of its steps, and what each nest does.
        self.ahead = Ahead()
        self.plan = plan_ahead(kernel)
        self.straight = is_straight(kernel)
        self.distances: dict[int, Value] = {}
        # Whether strips of columns stay near until they are read, and whether this one was not
        # fetched.
        self.strip_is_near = self.strip_is_cold = const(False, I1)
        self.divisors = divisors(kernel, b.target)
        self.exits = exits(kernel)
        self.scan = ScanLoop(self) if kernel.scans else None
        self.scratch = const(0, I64)
        self.skew = SkewedRows(self) if kernel.skewed else None
        # What is written for each iteration of the parallel loops.
        self.inside = kernel.block if self.skew is None else self.skew.now
        self.resets = const(False, I1)

    # -- the function --------------------------------------------------------------------------

    def emit(self) -> None:
        self.load_arguments()
        if self.scan is not None and self.kernel.chain is not None:
            self.scan.write(self.kernel.chain)
        else:
            self.parallel(self.outermost(), self.kernel.parallel, first=True)
        if self.kernel.streamed:
            # Streamed stores are in no order: what follows must not be seen before them.
            self.b.fence_stores()
        self.b.ret()

    def outermost(self) -> Scope:
        return Scope(None, {}, None, pointers=dict(enumerate(self.roots)))

    def load_arguments(self) -> None:
        b, kernel = self.b, self.kernel
        count = len(kernel.extents)
        slot = 0

        def size() -> Value:
            nonlocal slot
            slot += 1
            return b.load(b.element(self.sizes, const(slot - 1, I64), I64), I64)

        self.extents = [size() for _ in range(count)]
        for number, access in enumerate(kernel.accesses):
            self.strides.append([size() for _ in range(count)])
            if access.buffer != SCRATCH:
                address = b.element(self.base, const(number, I64), PTR)
                self.roots.append(b.load(address, PTR))
            for axis, stride in enumerate(access.strides):
                if stride in (0, 1):
                    self.strides[number][axis] = const(stride, I64)
        self.seams = [(axis, size()) for axis, _ in kernel.seams]
        self.jumps = [[size() for _ in access.seams] for access in kernel.accesses]
        for position, expr in enumerate(kernel.exprs):
            if isinstance(expr, Index):
                terms = [size() for _ in range(count + 1)]
                for axis, coefficient in enumerate(expr.coefficients):
                    if coefficient == 0:
                        terms[axis + 1] = const(0, I64)
                self.index_terms[position] = terms
            elif isinstance(expr, Const) and not expr.literal:
                address = b.element(self.sizes, const(slot, I64), I64)
                self.constants[position] = b.load(address, register_type(expr.dtype))
                slot += 1
        starts = [size() for a in kernel.accesses if a.buffer == SCRATCH]
        scratch = size()
        if starts:
            self._allocate_scratch(scratch, starts)
        self.strip_is_near = strips_are_near(self, self.plan)
        self.distances = distances(self, self.plan)
        if kernel.chain is not None:
            self.resets = b.compare("ne", size(), const(0, I64))

    def _allocate_scratch(self, nbytes: Value, starts: Sequence[Value]) -> None:
        """Take the row scratch from the stack: private to the thread, and bounded (spill.py).

        ``starts`` are the bytes at which the values that are kept start; they depend on sizes.
        """
        b = self.b
        self.scratch = nbytes
        if self.skew is not None:
            nbytes = b.add(nbytes, nbytes)
        block = b.emit(PTR, f"alloca i8, i64 {nbytes.text}, align 64")
        self.roots += [b.offset(block, start) for start in starts]

    def parallel(self, scope: Scope, axes: tuple[int, ...], *, first: bool = False) -> None:
        """Write the parallel loops, then the block inside."""
        copy_apart(self, scope)
        # What a scatter stores may be read again by the next step.
        fixed = [] if any(s.places for s in self.kernel.stores) else self._roots(self.kernel.block)
        self.prepare(scope, [*sorted(self.divisors), *fixed])
        if not axes:
            self.block(self.kernel.block, scope, ())
            return
        axis = axes[0]
        start = self.begin if first else const(0, I64)
        stop = self.end if first else self.extents[axis]
        if len(axes) == 2 and self.kernel.tiled:
            TileLoop(self, scope, axis, axes[1]).write(start, stop)
            return
        if len(axes) == 1 and self.skew is not None:
            self.skew.write(scope, axis, start, stop)
            return
        if axis == self.kernel.vector_parallel:

            def strip(vector: Vector, index: Value, carried: Values) -> Values:
                inner = self.enter(scope, {axis: index}, vector)
                far, first = self.b.not_(self.strip_is_near), self.b.compare("eq", index, start)
                self.strip_is_cold = self.b.or_(far, first)
                pack_strip(self, inner)
                self.block(self.kernel.block, inner, ())
                unpack_strip(self, inner)
                return []

            streamed = streamed_from(self, self.kernel.block.stores, scope, start)
            vector_loop(self, axis, start, stop, [], strip, streamed)
            return

        def body(index: Value, carried: Values) -> Values:
            self.parallel(self.enter(scope, {axis: index}, scope.vector), axes[1:])
            return []

        self.b.loop(start, stop, 1, [], body)

    # -- scopes --------------------------------------------------------------------------------

    def enter(self, outer: Scope, index: dict[int, Value], vector: Vector | None) -> Scope:
        """Open the inside of a loop: pointers advance by its index."""
        scope = Scope(outer, index, vector)
        for number, pointer in outer.pointers.items():
            access = self.kernel.accesses[number]
            moved = pointer
            for axis, position in index.items():
                if number in self.strips and axis == self.kernel.vector_parallel:
                    continue  # a packed strip is where the one before it was
                if access.strides[axis]:
                    steps = self._times(position, self.strides[number][axis])
                    moved = self.b.element(moved, steps, memory_type(access.dtype))
            scope.pointers[number] = self._jumped(number, moved, index)
        return scope

    def _jumped(self, number: int, pointer: Value, index: dict[int, Value]) -> Value:
        """Return the pointer of an access beyond the seams that lie before ``index``."""
        b, access = self.b, self.kernel.accesses[number]
        for seam, jump in zip(access.seams, self.jumps[number], strict=True):
            if seam.axis in index:
                _, place = self.seams[self.kernel.seam_number(seam)]
                behind = b.compare("ge", index[seam.axis], place)
                steps = b.select(behind, jump, const(0, I64))
                pointer = b.element(pointer, steps, memory_type(access.dtype))
        return pointer

    def _times(self, a: Value, c: Value) -> Value:
        if c.text == "1":
            return a
        return self.b.mul(a, c)

    # -- blocks and nests ----------------------------------------------------------------------

    def block(self, block: Block, scope: Scope, wanted: Sequence[int]) -> None:
        """Write a block: its nests in order, values as they become computable, its stores."""
        roots = self._roots(block) + list(wanted)
        if self.exits and scope.vector is not None and scope.vector.mask is None:
            prepare_with_exits(self, scope, roots, self.exits)
        else:
            self.prepare(scope, roots)
        ahead = self.plan if block is self.inside else []
        for number, nest in enumerate(block.nests):
            self.ahead = ahead[number] if ahead else Ahead()
            self.nest(nest, scope)
            self.prepare(scope, roots)
        together = store_records(self, scope) if block is self.inside else set[int]()
        for number in block.stores:
            store, streamed = self.kernel.stores[number], number in self.kernel.streamed
            if store.places:
                scatter_values(self, store, scope)
            elif store.access not in together:
                place = self.waiting.get(store.access, store.access)
                store_values(self, place, self.value(scope, store.value), scope, stream=streamed)

    def _roots(self, block: Block) -> list[int]:
        """Return what ``block`` stores and reduces, with its nests."""
        stores = [self.kernel.stores[s] for s in self._stores_of(block)]
        roots = [p for s in stores for p in s.operands]
        return roots + [p for r in self._reduces_of(block) for p in self.summands(r)]

    def summands(self, reduction: int) -> tuple[int, ...]:
        """Return what ``reduction`` takes in each step: its operand, or two factors of that.

        A product that is summed goes into the sum unrounded, as in a matrix product, where the
        target has an instruction for that.
        """
        expr = self.exprs[reduction]
        (position,) = operands(expr)
        summand = self.exprs[position]
        if (
            isinstance(expr, Reduce)
            and (expr.op, expr.dtype.kind, expr.dtype) == ("sum", "f", summand.dtype)
            and isinstance(summand, Apply)
            and (summand.op, summand.dtype.itemsize >= 4) == ("multiply", True)
            and self.b.target.fma
            and position not in self.reused
        ):
            return summand.args
        return (position,)

    def _stores_of(self, block: Block) -> list[int]:
        found = list(block.stores)
        for nest in block.nests:
            found += self._stores_of(nest.body)
        return found

    def _reduces_of(self, block: Block) -> list[int]:
        found: list[int] = []
        for nest in block.nests:
            found += [*nest.reduces, *self._reduces_of(nest.body)]
        return found

    def prepare(self, scope: Scope, roots: Sequence[int]) -> None:
        """Compute in ``scope`` all that ``roots`` need and that varies with its axes only."""
        bound = scope.bound
        blocked: set[int] = set()
        for position in self._needed(scope, roots):
            expr = self.exprs[position]
            below = self._below(position)
            if (
                isinstance(expr, Reduce)
                or not expr.axes <= bound
                or any(p in blocked for p in below)
            ):
                blocked.add(position)
            else:
                self.bind(scope, position, self._compute(position, expr, scope))

    def bind(self, scope: Scope, position: int, values: Values) -> None:
        """Note a value where it was computed, a scalar for vector loops inside in all lanes too.

        Left to those loops, LLVM would do it in each of their steps.
        """
        scope.values[position] = values
        if position in self.spread and values[0].type.lanes == 1 and not values[0].is_literal:
            scope.splats[position] = self.b.splat(values[0], self.lanes)
        if position in self.divisors:
            invert(self, scope, position)

    def _needed(self, scope: Scope, roots: Sequence[int]) -> list[int]:
        """Return the expressions still to compute for ``roots``, operands first."""
        seen: set[int] = set()
        stack = [r for r in roots if scope.find(r) is None]
        while stack:
            position = stack.pop()
            if position in seen:
                continue
            seen.add(position)
            stack += [p for p in self._below(position) if scope.find(p) is None]
        return sorted(seen)

    def _below(self, position: int) -> tuple[int, ...]:
        expr = self.exprs[position]
        # A product comes from outside: its operands are not read here.
        given = position in self.reused or isinstance(expr, Contract | Attend)
        return () if given else operands(expr)

    def nest(self, nest: Nest, scope: Scope) -> None:
        """Write the loops of ``nest`` and bind its reductions in ``scope``."""
        self.reused = {s.value: s.access for s in nest.reuses} or self.reused
        usual, long = self.unroll, self.long
        # A short pass of a long kernel takes more vectors: a sum waits for itself. Not where the
        # rest is written for one: on rows of one vector the loop over more only costs.
        if nest.vector is not None and self.scan is None and usual > 1:
            applied = self._applied_in(nest, scope)
            self.unroll = vectors_for(self.kernel, self.b.target, applied)
            self.long = is_long(self.kernel, applied)
        sums = [Accumulator(self, r, nest, scope) for r in nest.reduces]
        outer, last = nest.axes[:-1], nest.axes[-1]

        def descend(axes: tuple[int, ...], inside: Scope, carried: Values) -> Values:
            if not axes:
                return self._last_loop(nest, last, sums, inside, carried)

            def body(index: Value, state: Values) -> Values:
                return descend(axes[1:], self.enter(inside, {axes[0]: index}, inside.vector), state)

            return self.b.loop(const(0, I64), self.extents[axes[0]], 1, carried, body)

        carried = descend(outer, scope, [v for a in sums for v in a.start()])
        for accumulator in sums:
            mine, carried = carried[: accumulator.width], carried[accumulator.width :]
            self.bind(scope, accumulator.position, accumulator.finish(mine))
        self.unroll, self.long = usual, long
        if nest.reuses:
            self.reused = {}

    def _applied_in(self, nest: Nest, scope: Scope) -> list[int]:
        """Return the operations that the loops of ``nest`` write for each step, as positions."""
        stores = (*(self.kernel.stores[s] for s in nest.stores), *nest.saves)
        roots = [p for s in stores for p in s.operands]
        roots += [p for r in nest.reduces for p in self.summands(r)]
        bound = scope.bound
        needed = [(p, self.exprs[p]) for p in self._needed(scope, roots) if p not in self.reused]
        return [p for p, e in needed if isinstance(e, Apply) and not e.axes <= bound]

    def _last_loop(
        self, nest: Nest, axis: int, sums: list[Accumulator], scope: Scope, carried: Values
    ) -> Values:
        """Write the innermost loop; with a float sum, in blocks."""
        b = self.b
        if self.scan is not None and self.scan.belongs(nest):
            assert not sums, "a scan has a nest of its own"
            self.scan.loop(nest, axis, scope)
            return carried
        stop = self.extents[axis]
        if not any(a.compensated for a in sums):
            return self.steps(nest, axis, const(0, I64), stop, sums, scope, carried)
        in_lanes = nest.vector == axis
        steps = self.lanes * self.unroll * BLOCK_STEPS if in_lanes else ORDERED_BLOCK_STEPS
        block = const(steps, I64)

        def body(start: Value, state: Values) -> Values:
            limit = b.add(start, block)
            end = b.select(b.compare("lt", limit, stop), limit, stop)
            fresh: Values = []
            rest = state
            for a in sums:
                fresh += a.open_block(rest[: a.width])
                rest = rest[a.width :]
            done = self.steps(nest, axis, start, end, sums, scope, fresh)

            def close(*, first: bool) -> Values:
                closed: Values = []
                rest, blocks = state, done
                for a in sums:
                    closed += a.close_block(rest[: a.width], blocks[: a.block_width], first=first)
                    rest, blocks = rest[a.width :], blocks[a.block_width :]
                return closed

            if len(nest.axes) > 1:
                return close(first=False)
            # Short rows end with their first block.
            alone = b.compare("eq", start, const(0, I64))
            return b.if_(alone, lambda: close(first=True), lambda: close(first=False))

        return b.loop(const(0, I64), stop, block, carried, body)

    def steps(
        self,
        nest: Nest,
        axis: int,
        start: Value,
        stop: Value,
        sums: list[Accumulator],
        scope: Scope,
        carried: Values,
    ) -> Values:
        def body(vector: Vector | None, index: Value, state: Values) -> Values:
            inner = self.enter(scope, {axis: index}, vector)
            if self.scan is not None and self.scan.active:
                return self.scan.body(nest, inner, state)
            fetch_rows(self, self.ahead, inner)
            wanted = [p for a in sums for p in a.summands] + [kept.value for kept in nest.saves]
            self.block(nest.body, inner, wanted)
            for kept in nest.saves:
                store_values(self, kept.access, self.value(inner, kept.value), inner)
            if self.skew is not None:
                self.skew.step(nest, vector, axis, index)
            following: Values = []
            for a in sums:
                following += a.update(inner, state[: a.block_width])
                state = state[a.block_width :]
            return following

        if nest.vector == axis:
            streamed = streamed_from(self, nest.body.stores, scope, start)
            return vector_loop(self, axis, start, stop, carried, body, streamed)
        return self.b.loop(start, stop, 1, carried, lambda i, c: body(scope.vector, i, list(c)))

    # -- values --------------------------------------------------------------------------------

    def value(self, scope: Scope, position: int) -> Values:
        found = scope.find(position)
        assert found is not None, f"expression {position} is not computed"
        return found

    def _compute(self, position: int, expr: Expr, scope: Scope) -> Values:
        if position in self.reused:
            expr = Load(expr.dtype, expr.axes, self.reused[position])
        match expr:
            case Const():
                if position in self.constants:
                    return [self.constants[position]]
                return [const(expr.value, register_type(expr.dtype))]
            case Load():
                return load_values(self, expr, scope)
            case Index():
                return self._index(position, expr, scope)
            case Bound():
                return bound(self, expr, scope)
            case Natural():
                return natural(self, expr, scope)
            case Gather():
                return gather(self, expr, scope)
            case Apply():
                return self._apply(expr, scope)
            case Scan() if self.scan is not None:
                return self.scan.step(self.value(scope, expr.arg), scope)
            case _:
                raise AssertionError(f"{expr} is not computed in place")

    def _apply(self, expr: Apply, scope: Scope) -> Values:
        arguments = [self._in_lanes(scope, a, expr) for a in expr.args]
        dtypes = tuple(self.exprs[a].dtype for a in expr.args)
        fixed = not scope.is_vector(self.exprs[expr.args[-1]].axes)
        loop = Loop(dtypes, expr.dtype, expr.attrs, self._waits_for_divider(expr), fixed)
        count = max(len(a) for a in arguments)
        lanes = max(v.type.lanes for a in arguments for v in a)
        by = self._inverse(expr, scope)
        if by is not None:
            return divided(self, expr, by, arguments[0])
        ready = [
            [splat_to(self.b, a[part if len(a) > 1 else 0], lanes) for part in range(count)]
            for a in arguments
        ]
        if expr.op == "divide":
            quotients = divided_by_turns(self, expr, *ready)
            if quotients is not None:
                return quotients
        if count > 1 and (is_heavy([expr]) or expr.op == "sqrt"):
            # Long chains of operations, which LLVM splits into registers step by step.
            wide = [self.b.join(parts) for parts in ready]
            return self.b.parts(lower(self.b, expr.op, wide, loop), count)
        return [lower(self.b, expr.op, parts, loop) for parts in zip(*ready, strict=True)]

    def _inverse(self, expr: Apply, scope: Scope) -> list[Inverse] | None:
        """Return what vectors are multiplied with in place of a division.

        The rest of a row, one masked vector, is divided: short rows are nothing else.
        """
        if expr.op != "divide" or scope.vector is None or scope.vector.mask is not None:
            return None
        numerator = self.exprs[expr.args[0]]
        return scope.inverse(expr.args[1]) if scope.is_vector(numerator.axes) else None

    def _in_lanes(self, scope: Scope, position: int, reader: Apply) -> Values:
        """Return an operand of ``reader``, in all lanes where that is known and wanted."""
        splat = scope.splat(position) if scope.is_vector(reader.axes) else None
        return self.value(scope, position) if splat is None else [splat]

    def _waits_for_divider(self, expr: Apply) -> bool:
        """Whether the divider takes longer than the rest of what runs as often as ``expr``."""
        others = [e for e in self.exprs if isinstance(e, Apply) and e.axes >= expr.axes]
        short = len(others) <= SHORT_BODY and not is_heavy(others)
        return short or sum(e.op in DIVIDER for e in others) > 1

    def _index(self, position: int, expr: Index, scope: Scope) -> Values:
        b, terms = self.b, self.index_terms[position]
        number = terms[0]
        for axis in sorted(expr.axes):
            number = b.add(number, self._times(scope.position(axis), terms[axis + 1]))
        if not scope.is_vector(expr.axes):
            return [self._number(number, expr)]
        vector = scope.vector
        assert vector is not None
        step = b.splat(terms[vector.axis + 1], vector.lanes)
        lane = b.mul(b.lane_index(I64.vector(vector.lanes)), step)
        result: Values = []
        for part in range(vector.unroll):
            offset = self._times(const(part * vector.lanes, I64), terms[vector.axis + 1])
            first = b.splat(b.add(number, offset), vector.lanes)
            result.append(self._number(b.add(first, lane), expr))
        return result

    def _number(self, value: Value, expr: Expr) -> Value:
        return self.b.convert(value, register_type(expr.dtype, value.type.lanes))


def define_kernel(module: Module, kernel: Kernel, name: str, linkage: str = "") -> None:
    """Define the function ``name`` of ``kernel`` in ``module``."""
    parameters = [("ptrs", PTR), ("sizes", PTR), ("begin", I64), ("end", I64)]
    KernelEmitter(module.define(name, VOID, parameters, linkage=linkage), kernel).emit()


def emit_kernel(kernel: Kernel, target: Target, name: str = "kernel") -> str:
    """Return the IR module of ``kernel`` for ``target``; the function is ``name``."""
    module = Module(target)
    define_kernel(module, kernel, name)
    return module.text()
