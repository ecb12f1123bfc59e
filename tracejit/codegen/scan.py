"""Running values: how a scan starts, takes one vector after another, and goes on.

Along the vector axis, a vector is scanned by itself in log₂(lanes) steps and then joined to what
came before, so the chain between vectors is one operation long. Each step adds the total of the
left half to all of the right half (Sklansky 1960, "Conditional-Sum Addition Logic")::

    a b c d  →  a  a+b  c  c+d  →  a  a+b  (a+b)+c  (a+b)+(c+d)

With this tree the running sum of non-negative floats never decreases, whatever the rounding; with
Hillis and Steele's it may. Float products take the tree only where all factors of the vector are
moderate. Elsewhere they run one by one: in another order a partial product beyond the range meets
a zero and makes a NaN where there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tracejit.codegen.access import load_values, store_values
from tracejit.codegen.builder import I8, I64, Builder, Type, Value, const
from tracejit.codegen.elementwise import splat_to
from tracejit.codegen.reducers import highest, lowest
from tracejit.codegen.scope import Scope, Values
from tracejit.codegen.types import DType, cast, is_signed, memory_type, register_type
from tracejit.schedule.kernel import SCAN_BLOCK, Load, Nest

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter


class Scanner:
    """The arithmetic of one scan op from ``source`` to ``result`` elements.

    ``blockwise``: blocks of ``SCAN_BLOCK`` are scanned from zero and joined to the total of those
    before, which bounds the error, and lets threads share a row without changing a bit.
    """

    def __init__(self, op: str, source: DType, result: DType):
        self.op, self.source, self.result = op, source, result
        self.blockwise = op == "cumsum" and result.kind == "f"
        self.is_float_product = op == "cumprod" and result.kind == "f"
        self.is_float_extremum = op in ("cummax", "cummin") and result.kind == "f"

    def type(self, lanes: int) -> Type:
        """Return the type of running values; booleans take a byte, which shuffles well."""
        return I8.vector(lanes) if self.result.kind == "b" else register_type(self.result, lanes)

    def identity(self, lanes: int) -> Value:
        """Return the running value of nothing: combined with ``x`` it gives ``x``, bit for bit."""
        match self.op:
            case "cumsum":
                neutral = -0.0 if self.result.kind == "f" else 0
            case "cumprod":
                neutral = 1
            case "cummax":
                neutral = lowest(self.result)
            case _:
                neutral = highest(self.result)
        return const(neutral, self.type(lanes))

    def enter(self, b: Builder, value: Value) -> Value:
        """Return an operand as a running value."""
        return self.widen(b, cast(b, value, self.source, self.result))

    def widen(self, b: Builder, value: Value) -> Value:
        """Return an element of the result as a running value."""
        return b.convert(value, self.type(value.type.lanes), signed=False)

    def leave(self, b: Builder, value: Value) -> Value:
        """Return a running value as an element of the result."""
        if self.result.kind != "b":
            return value
        return b.compare("ne", value, const(0, value.type))

    def combine(self, b: Builder, earlier: Value, later: Value, *, ordered: bool = False) -> Value:
        """Return the running value of two stretches; of equal extrema the earlier, like NumPy.

        ``ordered`` says that ``later`` has no NaN.
        """
        if self.op == "cumsum":
            return b.add(earlier, later)
        if self.op == "cumprod":
            return b.mul(earlier, later)
        predicate = "gt" if self.op == "cummax" else "lt"
        if not is_signed(self.result):
            predicate = "u" + predicate
        best = b.select(b.compare(predicate, later, earlier), later, earlier)
        if self.result.kind != "f" or ordered:
            return best
        # No comparison holds for a NaN: one that came earlier has stayed, a later one must enter.
        return b.select(b.compare("uno", later, later), later, best)

    def within(self, b: Builder, value: Value, *, ordered: bool = False) -> Value:
        """Return the running values inside one vector."""
        lanes = value.type.lanes
        width = 1
        while width < lanes:
            # Lanes of right halves read the last lane of their left half; the others, nothing.
            picked = [
                (lane & ~(2 * width - 1)) + width - 1 if lane & width else lanes + lane
                for lane in range(lanes)
            ]
            left = b.shuffle(value, self.identity(lanes), picked)
            value = self.combine(b, left, value, ordered=ordered)
            width *= 2
        return value

    def along(self, b: Builder, carry: Value, values: Values) -> tuple[Values, Value]:
        """Scan vectors that follow each other; return their running values and the next carry.

        The carry is a vector of equal lanes.
        """
        if self.is_float_extremum:
            pairs = zip(values[::2], values[1::2] or values, strict=True)
            found = [b.any(b.compare("uno", x, y)) for x, y in pairs]
            unordered = found[0]
            for more in found[1:]:
                unordered = b.or_(unordered, more)
            *results, carry = b.if_(
                unordered,
                lambda: self._joined(b, carry, values, ordered=False),
                lambda: self._joined(b, carry, values, ordered=True),
            )
            return results, carry
        if self.is_float_product:
            results: Values = []
            for value in values:
                result, carry = b.if_(
                    b.all(self._is_moderate(b, value)),
                    lambda v=value, c=carry: self._joined(b, c, [v], ordered=True),
                    lambda v=value, c=carry: self._one_by_one(b, c, v),
                )
                results.append(result)
            return results, carry
        *results, carry = self._joined(b, carry, values, ordered=False)
        return results, carry

    def _joined(self, b: Builder, carry: Value, values: Values, *, ordered: bool) -> Values:
        """Return the running values of ``values`` by the tree, then the carry."""
        results: Values = []
        for scanned in [self.within(b, v, ordered=ordered) for v in values]:
            lanes = scanned.type.lanes
            total = b.shuffle(scanned, None, [lanes - 1] * lanes)
            results.append(self.combine(b, carry, scanned, ordered=ordered))
            carry = self.combine(b, carry, total, ordered=ordered)
        return [*results, carry]

    def _is_moderate(self, b: Builder, value: Value) -> Value:
        """Return i1: whatever other such factors a lane meets, no partial product leaves the range.

        The lanes' exponents together stay within that of the type; 0 times such a product is 0.
        """
        bits = {"f32": 120, "f64": 1000}[value.type.kind] // value.type.lanes
        size = b.abs(value)
        large = b.compare("ge", size, const(2.0**-bits, size.type))
        nothing = b.compare("eq", size, const(0.0, size.type))
        small = b.compare("le", size, const(2.0**bits, size.type))
        return b.and_(small, b.or_(large, nothing))

    def _one_by_one(self, b: Builder, carry: Value, value: Value) -> Values:
        running = value
        product = b.extract(carry, 0)
        for lane in range(value.type.lanes):
            product = self.combine(b, product, b.extract(value, lane))
            running = b.insert(running, product, lane)
        return [running, b.splat(product, value.type.lanes)]


class _Blocks(NamedTuple):
    """The blocks [begin, end) of one pass; the totals of block k start at element k·rows."""

    totals: bool
    begin: Value
    end: Value
    rows: Value
    access: int


class ScanLoop:
    """Writes the loop of a kernel's scan: what it carries from step to step, block to block."""

    def __init__(self, emitter: KernelEmitter):
        self.emitter, self.b = emitter, emitter.b
        (self.expr,) = emitter.kernel.scans
        self.position = emitter.exprs.index(self.expr)
        self.scanner = Scanner(self.expr.op, emitter.exprs[self.expr.arg].dtype, self.expr.dtype)
        self.active = False
        self.blocks: _Blocks | None = None
        self.is_along = False
        self.lanes = self.copies = 1
        self.state: Values = []
        self.before: Values = []

    # -- states --------------------------------------------------------------------------------

    def _start(self) -> Values:
        return [self.scanner.identity(self.lanes)] * self.copies

    def _combine(self, earlier: Values, later: Values) -> Values:
        return [self.scanner.combine(self.b, x, y) for x, y in zip(earlier, later, strict=True)]

    @property
    def takes_totals(self) -> bool:
        """Whether the pass being written stores the totals of blocks, and nothing else."""
        return self.blocks is not None and self.blocks.totals

    # -- the loop ------------------------------------------------------------------------------

    def belongs(self, nest: Nest) -> bool:
        """Whether ``nest`` is the loop along the scan's axis."""
        return nest.axes == (self.expr.axis,) and not nest.reduces

    def loop(self, nest: Nest, axis: int, scope: Scope) -> None:
        """Write the loop: over all of the axis, or over the blocks of this pass."""
        b, vector = self.b, scope.vector
        across = vector is not None and vector.axis in self.expr.axes
        self.is_along = nest.vector == axis
        self.lanes = self.emitter.lanes if self.is_along or across else 1
        self.copies = vector.unroll if vector is not None and across else 1
        self.active = True
        start, stop, state = const(0, I64), self.emitter.extents[axis], self._start()
        if self.blocks is not None:
            size = const(SCAN_BLOCK, I64)
            start = b.mul(self.blocks.begin, size)
            stop = b.intrinsic("smin", I64, b.mul(self.blocks.end, size), stop)
            if not self.takes_totals:
                state = self._total_before(self.blocks, scope)
        if self.takes_totals or self.scanner.blockwise:
            self._by_blocks(nest, axis, start, stop, scope, state)
        else:
            self.emitter.steps(nest, axis, start, stop, [], scope, state)
        self.active = False

    def _by_blocks(
        self, nest: Nest, axis: int, start: Value, stop: Value, scope: Scope, state: Values
    ) -> None:
        b = self.b

        def block(first: Value, before: Values) -> Values:
            self.before = before
            limit = b.add(first, const(SCAN_BLOCK, I64))
            last = b.intrinsic("smin", I64, limit, stop)
            total = self.emitter.steps(nest, axis, first, last, [], scope, self._start())
            if self.blocks is not None and self.blocks.totals:
                self._store_total(self.blocks, first, total, scope)
                return []
            return self._combine(before, total)

        b.loop(start, stop, SCAN_BLOCK, [] if self.takes_totals else state, block)

    def body(self, nest: Nest, scope: Scope, state: Values) -> Values:
        """Write one step of the loop; return the next state."""
        self.state = state
        if self.takes_totals:
            self.emitter.prepare(scope, [self.position])
        else:
            self.emitter.block(nest.body, scope, ())
        return self.state

    def step(self, values: Values, scope: Scope) -> Values:
        """Take the operand's values of one step; return the running values."""
        b, scanner = self.b, self.scanner
        count = scope.vector.unroll if self.is_along and scope.vector is not None else self.copies
        taken = [splat_to(b, scanner.enter(b, v), self.lanes) for v in values]
        taken = taken if len(taken) == count else taken * count
        if self.is_along:
            taken, carry = scanner.along(b, self.state[0], taken)
            self.state = [carry]
        else:
            taken = self.state = self._combine(self.state, taken)
        if scanner.blockwise and self.before:
            before = self.before * count if self.is_along else self.before
            taken = self._combine(before, taken)
        return [scanner.leave(b, v) for v in taken]

    # -- two passes ----------------------------------------------------------------------------

    def two_passes(self, access: int) -> None:
        """Write the function of a kernel whose chunks are blocks: see ``Kernel``.

        One call that gets all blocks needs no totals: the first pass then only says so. A chunk
        of the second pass that misses them makes them for itself.
        """
        b, emitter = self.b, self.emitter
        zero, one = const(0, I64), const(1, I64)
        length = b.add(emitter.extents[self.expr.axis], const(SCAN_BLOCK - 1, I64))
        count = b.div(length, const(SCAN_BLOCK, I64))
        last = b.sub(count, one)
        rows = one
        for axis in emitter.kernel.parallel:
            rows = b.mul(rows, emitter.extents[axis])
        # Nothing follows the last block, so the place of its total is free for a flag.
        element = memory_type(self.expr.dtype)
        flag = b.element(emitter.roots[access], b.mul(last, rows), element)

        def first() -> Values:
            whole = b.and_(
                b.compare("eq", emitter.begin, zero), b.compare("eq", emitter.end, count)
            )
            known = b.select(whole, const(0, I8), const(1, I8))
            b.effect(f"store atomic i8 {known.text}, ptr {flag.text} monotonic, align 1")
            return [emitter.begin, b.select(whole, emitter.begin, emitter.end)]

        def second() -> Values:
            known = b.emit(I8, f"load atomic i8, ptr {flag.text} monotonic, align 1")
            return [zero, b.select(b.compare("ne", known, const(0, I8)), zero, emitter.begin)]

        begin, end = b.if_(emitter.first_pass, first, second)
        end = b.intrinsic("smin", I64, end, last)

        def write(blocks: _Blocks) -> Values:
            self.blocks = blocks
            emitter.parallel(emitter.outermost(), emitter.kernel.parallel)
            return []

        write(_Blocks(True, begin, end, rows, access))
        rest = _Blocks(False, emitter.begin, emitter.end, rows, access)
        b.if_(emitter.first_pass, list, lambda: write(rest))

    def _total_before(self, blocks: _Blocks, scope: Scope) -> Values:
        """Return the running value of all blocks before the chunk, taken in order."""
        load = Load(self.expr.dtype, self.expr.axes - {self.expr.axis}, blocks.access)

        def body(number: Value, state: Values) -> Values:
            totals = load_values(self.emitter, load, self._at(blocks, number, scope))
            ready = [splat_to(self.b, self.scanner.widen(self.b, v), self.lanes) for v in totals]
            return self._combine(state, ready)

        return self.b.loop(const(0, I64), blocks.begin, 1, self._start(), body)

    def _store_total(self, blocks: _Blocks, first: Value, total: Values, scope: Scope) -> None:
        number = self.b.div(first, const(SCAN_BLOCK, I64))
        values = [self.b.extract(v, 0) for v in total] if self.is_along else total
        values = [self.scanner.leave(self.b, v) for v in values]
        store_values(self.emitter, blocks.access, values, self._at(blocks, number, scope))

    def _at(self, blocks: _Blocks, number: Value, scope: Scope) -> Scope:
        """Return a scope whose pointer to the totals is at those of block ``number``."""
        inner = Scope(scope, {}, scope.vector, pointers=dict(scope.pointers))
        place = self.b.mul(number, blocks.rows)
        inner.pointers[blocks.access] = self.b.element(
            scope.pointers[blocks.access], place, memory_type(self.expr.dtype)
        )
        return inner


__all__ = ["ScanLoop", "Scanner"]
