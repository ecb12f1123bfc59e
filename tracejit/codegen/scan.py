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

from typing import TYPE_CHECKING

from tracejit.codegen.builder import I8, I64, Builder, Type, Value, const
from tracejit.codegen.chain import Chain
from tracejit.codegen.elementwise import splat_to
from tracejit.codegen.reducers import highest, lowest
from tracejit.codegen.scope import Scope, Values, Vector
from tracejit.codegen.types import DType, cast, is_signed, register_type
from tracejit.schedule.kernel import SCAN_BLOCK, Nest

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

    def totals(self, b: Builder, values: Values) -> Values:
        """Return the running values at the ends of some vectors, a power of two, lane by lane.

        The tree is that of ``within``; what two vectors leave to be done at a level fills one::

            a b c d, e f g h  →  a e c g, b f d h  →  a+b e+f c+d g+h
        """
        lanes, width = values[0].type.lanes, 1
        while width < lanes and len(values) > 1:
            left = [lane + lanes - width if lane & width else lane for lane in range(lanes)]
            right = [lane + lanes if lane & width else lane + width for lane in range(lanes)]
            pairs = zip(values[::2], values[1::2], strict=True)
            values = [
                self.combine(b, b.shuffle(x, y, left), b.shuffle(x, y, right)) for x, y in pairs
            ]
            width *= 2
        while width < lanes:  # only the first lanes count from here on
            (value,) = values
            right = [(lane + width) % lanes for lane in range(lanes)]
            values = [self.combine(b, value, b.shuffle(value, None, right))]
            width *= 2
        return values

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


class ScanLoop:
    """Writes the loop of a kernel's scan: what it carries from step to step, block to block."""

    def __init__(self, emitter: KernelEmitter):
        self.emitter, self.b = emitter, emitter.b
        (self.expr,) = emitter.kernel.scans
        self.position = emitter.exprs.index(self.expr)
        self.scanner = Scanner(self.expr.op, emitter.exprs[self.expr.arg].dtype, self.expr.dtype)
        self.active = False
        self.chain: Chain | None = None
        # Whether the loop being written keeps the totals of blocks, and stores nothing.
        self.takes_totals = False
        self.is_along = False
        self.lanes = self.copies = 1
        self.state: Values = []
        self.before: Values = []

    # -- states --------------------------------------------------------------------------------

    def start(self) -> Values:
        """Return the running values of nothing."""
        return [self.scanner.identity(self.lanes)] * self.copies

    def combine(self, earlier: Values, later: Values) -> Values:
        """Return the running values of two stretches."""
        return [self.scanner.combine(self.b, x, y) for x, y in zip(earlier, later, strict=True)]

    # -- the loop ------------------------------------------------------------------------------

    def write(self, chain: int) -> None:
        """Write the function of a kernel whose threads take blocks in turn: see ``chain.py``."""
        emitter = self.emitter
        self.chain = Chain(self, chain)
        self.chain.write(lambda: emitter.parallel(emitter.outermost(), emitter.kernel.parallel))

    def belongs(self, nest: Nest) -> bool:
        """Whether ``nest`` is the loop along the scan's axis."""
        return nest.axes == (self.expr.axis,) and not nest.reduces

    def loop(self, nest: Nest, axis: int, scope: Scope) -> None:
        """Write the loop: over all of the axis, or over the blocks of this turn."""
        vector = scope.vector
        across = vector is not None and vector.axis in self.expr.axes
        self.is_along = nest.vector == axis
        self.lanes = self.emitter.lanes if self.is_along or across else 1
        self.copies = vector.unroll if vector is not None and across else 1
        self.active = True

        def over(start: Value, stop: Value, state: Values) -> Values:
            return self._over(nest, axis, start, stop, scope, state)

        if self.chain is None:
            over(const(0, I64), self.emitter.extents[axis], self.start())
        else:
            self.chain.turn(over, scope)
        self.active = False

    def _over(
        self, nest: Nest, axis: int, start: Value, stop: Value, scope: Scope, state: Values
    ) -> Values:
        """Write the loop from ``start`` to ``stop``, ``state`` before it; return what is after."""
        b = self.b
        if not self.takes_totals and not self.scanner.blockwise:
            return self.emitter.steps(nest, axis, start, stop, [], scope, state)

        def block(first: Value, before: Values) -> Values:
            self.before = before
            limit = b.add(first, const(SCAN_BLOCK, I64))
            last = b.intrinsic("smin", I64, limit, stop)
            total = self.emitter.steps(nest, axis, first, last, [], scope, self.start())
            if self.takes_totals and self.chain is not None:
                self.chain.keep(first, total)
                return []
            return self.combine(before, total)

        return b.loop(start, stop, SCAN_BLOCK, [] if self.takes_totals else state, block)

    def totals(self, starts: Values, scope: Scope) -> Values:
        """Write the totals of the blocks along the lanes that begin at ``starts``, side by side.

        No block waits for the running value of its last vector: the others are between.
        """
        b, axis, lanes = self.b, self.expr.axis, self.emitter.lanes
        vector = Vector(axis, lanes, 1)

        def step(index: Value, state: Values) -> Values:
            taken: Values = []
            for start in starts:
                inner = self.emitter.enter(scope, {axis: b.add(start, index)}, vector)
                self.emitter.prepare(inner, [self.expr.arg])
                (value,) = self.emitter.value(inner, self.expr.arg)
                taken.append(splat_to(b, self.scanner.enter(b, value), lanes))
            return self.combine(state, self.scanner.totals(b, taken))

        start = [self.scanner.identity(lanes)] * max(1, len(starts) // lanes)
        return b.loop(const(0, I64), const(SCAN_BLOCK, I64), lanes, start, step)

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
            taken = self.state = self.combine(self.state, taken)
        if scanner.blockwise and self.before:
            before = self.before * count if self.is_along else self.before
            taken = self.combine(before, taken)
        return [scanner.leave(b, v) for v in taken]


__all__ = ["ScanLoop", "Scanner"]
