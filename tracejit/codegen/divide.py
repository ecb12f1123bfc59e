"""Divisions that need not wait for the divider (math/quotient.py), with the same bits.

Divisors that loops do not change, such as the sum of a softmax's row, are inverted outside the
loop. A vector of quotients takes the divider 5 to 16 cycles; the product with an inverse, two or
three. It pays in loops that have little else to do meanwhile. Measured on AVX-512, one thread, in
cache: 64 rows of 256 float32, divided each by a number of its own, take 1.8 µs in place of 2.9; the
softmax of 16 rows of 1024 takes 5.2 in place of 6.5, in float64 1.5 times less. Numerators that
were integers, as in ``pixels / 255``, need no check: planes of normalised pixels take 0.26 ms in
place of 0.37.

Of other quotients every second vector leaves the divider to its neighbours, again where there is
little else to do. In cache, quotients of float64 take 0.54 of the time, the sum of 1 / (1 + x²)
0.55, (x² + 1) / (x³ + 2) 0.61; quotients of float32 0.71.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracejit.codegen.builder import I64, Value, const
from tracejit.codegen.elementwise import DIVIDER, splat_to
from tracejit.codegen.math import avx512
from tracejit.codegen.math.quotient import Inverse, by_turns, inverse, quotients
from tracejit.codegen.scope import Scope, Values
from tracejit.codegen.target import Target
from tracejit.ops.table import OPS, Fact
from tracejit.schedule.kernel import Apply, Const, Kernel, computed_in

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter

# Operations of a body, for each division in it, that leave the divider idle.
LIGHT = 8
# Quotients by one divisor that are worth its inverse, which takes as long as the division of 100.
MANY = 128
# Operations of a body, for each division in it, beside which multipliers can divide as well, by
# the bytes of an element. The divider takes 10 cycles for a vector of float32 and 16 of float64.
BESIDE = {4: 4, 8: 12}


def divisors(kernel: Kernel, target: Target) -> dict[int, frozenset[int]]:
    """Return what light loops of ``kernel`` divide by and do not change, and along which axes.

    Vectors of 256 bits are divided so fast that only constants are worth it there: they are
    inverted once in all.
    """
    found: dict[int, frozenset[int]] = {}
    if not target.fma:
        return found
    for body in _bodies(kernel):
        applied = [e for e in (kernel.exprs[p] for p in body) if isinstance(e, Apply)]
        divisions = [e for e in applied if _divides_by_constant(kernel, e, body)]
        heavy = any(OPS[e.op].has(Fact.EXPENSIVE) for e in applied)
        if heavy or len(applied) > LIGHT * len(divisions):
            continue
        for division in divisions:
            divisor = division.args[1]
            if target.masks or isinstance(kernel.exprs[divisor], Const):
                along = division.axes - kernel.exprs[divisor].axes
                found[divisor] = along | found.get(divisor, frozenset())
    return found


def _bodies(kernel: Kernel) -> list[set[int]]:
    """Return what each innermost vector loop of ``kernel`` computes."""
    nests = kernel.block.nests
    if not nests and kernel.vector_parallel is not None and not kernel.tiled:
        everything = range(len(kernel.exprs))
        return [{p for p in everything if kernel.vector_parallel in kernel.exprs[p].axes}]
    inner = [n for n in nests if not n.body.nests]
    if kernel.vector_parallel is None:
        inner = [n for n in inner if n.vector is not None]
    return [computed_in(kernel, n) for n in inner]


def _divides_by_constant(kernel: Kernel, expr: Apply, body: set[int]) -> bool:
    if expr.op != "divide" or expr.dtype.kind != "f" or expr.dtype.itemsize < 4:
        return False
    divisor = kernel.exprs[expr.args[1]]
    literal = isinstance(divisor, Const) and divisor.literal
    return expr.args[1] not in body and not literal


def invert(emitter: KernelEmitter, scope: Scope, position: int) -> None:
    """Invert a divisor that was computed in ``scope``, where it divides many, for all lanes."""
    b = emitter.b
    trips = const(1, I64)
    for axis in sorted(emitter.divisors[position]):
        trips = b.mul(trips, emitter.extents[axis])
    many = b.compare("ge", trips, const(MANY, I64))

    def none(z: Value) -> Inverse:
        # Nothing is in a span of 0, so everything is divided.
        zero = const(0, z.type)
        return Inverse(z, zero, const(0, z.type.like(f"i{z.type.bits}")))

    scope.inverses[position] = [
        Inverse(
            *(
                splat_to(b, part, emitter.lanes)
                for part in b.if_(many, lambda z=z: inverse(b, z), lambda z=z: none(z))
            )
        )
        for z in emitter.value(scope, position)
    ]


def divided(emitter: KernelEmitter, expr: Apply, by: list[Inverse], xs: Values) -> Values:
    """Return the vectors ``xs`` over a divisor: one for all of them, or one for each."""
    b, integers = emitter.b, _are_integers(emitter.kernel, expr.args[0])
    if len(by) == 1:
        return quotients(b, xs, by[0], integers=integers)
    return [quotients(b, [x], z, integers=integers)[0] for x, z in zip(xs, by, strict=True)]


def _are_integers(kernel: Kernel, position: int) -> bool:
    """Whether a float was an integer of at most 32 bits, such as the colour of a pixel."""
    expr = kernel.exprs[position]
    if not isinstance(expr, Apply) or expr.op != "cast":
        return False
    source = kernel.exprs[expr.args[0]].dtype
    return source.kind in "biu" and source.itemsize <= 4


def divided_by_turns(emitter: KernelEmitter, expr: Apply, xs: Values, zs: Values) -> Values | None:
    """Return x / z, every second vector by multiplications, where that is faster."""
    b, kernel, type = emitter.b, emitter.kernel, xs[0].type
    if len(xs) % 2 or expr.dtype.itemsize not in BESIDE or not type.is_float:
        return None
    if not avx512.available(b) or type.bits * type.lanes != b.target.vector_bits:
        return None
    others = [e for e in kernel.exprs if isinstance(e, Apply) and e.axes >= expr.axes]
    divisions = sum(e.op == "divide" for e in others)
    busy = sum(e.op in DIVIDER or OPS[e.op].has(Fact.EXPENSIVE) for e in others) > divisions
    room = len(others) - divisions <= BESIDE[expr.dtype.itemsize] * divisions
    return by_turns(b, xs, zs) if room and not busy else None
