"""Strips: a parallel axis in lanes, with loops inside that walk down from line to line of memory.

Reductions down columns take the columns in strips, which the passes over a strip (mean, variance,
normalise) find in the second cache. Rows are fetched ahead (prefetch.py).

A strip of lanes that is read often is first copied to where it is contiguous (schedule/pack.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracejit.codegen.builder import I64, Value, const
from tracejit.codegen.scope import Scope, Values
from tracejit.codegen.target import Target
from tracejit.schedule.kernel import Kernel, Load

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter

# Bytes of a row that a strip takes: wide enough for whole lines and pages, narrow enough that
# thousands of rows stay in the second cache.
STRIP_BYTES = 256


def strip_vectors(kernel: Kernel, target: Target, operations: int) -> int:
    """Return how many vectors wide a strip is whose body has so many operations."""
    most = 8 if operations <= 8 else 4
    return min(most, STRIP_BYTES * 8 // target.vector_bits) if kernel.down_columns else most


def pack_strip(emitter: KernelEmitter, scope: Scope) -> None:
    """Copy what a strip of lanes reads often to where it is contiguous."""
    for source, target in emitter.kernel.packs:
        access = emitter.kernel.accesses[source]
        load = Load(access.dtype, frozenset(a for a, s in enumerate(access.strides) if s), source)

        def copy(axes: list[int], inside: Scope, load: Load = load, to: int = target) -> Values:
            if not axes:
                emitter.store(to, emitter.load(load, inside), inside)
                return []

            def step(index: Value, carried: Values) -> Values:
                return copy(axes[1:], emitter.enter(inside, {axes[0]: index}, inside.vector))

            return emitter.b.loop(const(0, I64), emitter.extents[axes[0]], 1, [], step)

        copy(sorted(load.axes - set(emitter.kernel.parallel)), scope)
