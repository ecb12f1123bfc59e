"""Signatures whose sizes vary: traced and planned with symbolic sizes, served natively.

``generalise`` traces a function once more, with symbols for the dimensions that vary
(``frontend/variation.py``), and makes a plan that fits every size under the guards that trace and
plan have left (``tracejit/sizes.py``). Whatever cannot be done so stays as it is: each size traced
for itself.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tracejit.frontend.compiled import Recorded, Source, trace_function
from tracejit.frontend.native import result_of
from tracejit.frontend.ranged import Ranged
from tracejit.frontend.signature import ArrayKey
from tracejit.frontend.trees import statics
from tracejit.frontend.variation import LAYOUT, SHAPE, Dimension, Example, Kind, sizes_of
from tracejit.ops.table import Shape
from tracejit.runtime import cpu, engine, service
from tracejit.runtime.calls import NativeCall
from tracejit.runtime.dynamic import DynamicForm, dynamic_form
from tracejit.runtime.executable import map_kernels
from tracejit.runtime.numbers import Geometry, Numbers
from tracejit.runtime.plan import native_plan
from tracejit.runtime.stretches import Stretches, Symbols, Unfit
from tracejit.schedule.schedule import OpaqueStep, Schedule
from tracejit.sizes import Family
from tracejit.tracing import user_location

Stages = Sequence[Sequence[NativeCall] | OpaqueStep]
# Plans for one class of signatures: sizes that fail the guards of one may get another.
PLANS_PER_KIND = 12
# Traces for one plan: dimensions that turn out to need their very value are plain in the next.
TRIES = 3
# Static results that hold no size.
_PLAIN = (int, bool, str, bytes, float, complex, type(None), type, np.dtype)


def generalise(kind: Kind, call: Example) -> Ranged | None:
    """Return a plan for calls like ``call`` of any size along the varied dimensions.

    None where there is none; ``kind.why_static`` says why, if that will not change.
    """
    varied = {d for d in kind.varied if d[1] == LAYOUT or call.keys[d[0]][d[1]][d[2]] > 1}
    if not varied or kind.why_static is not None or not all(t.done() for t in kind.awaited):
        return None
    if len(kind.plans) >= PLANS_PER_KIND:
        kind.why_static = f"{PLANS_PER_KIND} plans for ranges of sizes are kept"
        return None
    plan = None
    for _ in range(TRIES):
        family = Family(user_location)
        dimensions = sorted(varied)
        small = kind.has_small(call.keys, dimensions)
        tried = call._replace(missing="leave") if small else call
        try:
            with family:
                plan = _plan(family, dimensions, kind, tried)
        except Unfit:
            kind.why_static = "native calls cannot hold a plan for ranges of its sizes"
            return None
        except Exception as error:  # the trace with plain sizes went well, and answers
            kind.why_static = f"tracing with symbolic sizes raised {type(error).__name__}: {error}"
            return None
        if not family.planning and family.plain is not None:
            kind.why_static = f"a size is used as a plain number at {family.plain}"
        varied -= {dimensions[symbol] for symbol in family.pinned}
        if plan is None and small and family.planning and call.missing != "leave":
            kind.merged = True
            continue
        if plan is not None or not family.pinned or not varied or kind.why_static is not None:
            break
    if plan is not None:
        kind.plans.append(plan)
        kind.served.add(sizes_of(call.keys))
    return plan


def _plan(
    family: Family, dimensions: Sequence[Dimension], kind: Kind, call: Example
) -> Ranged | None:
    keys = [_symbolic(family, leaf, key, dimensions, kind) for leaf, key in enumerate(call.keys)]
    recorded = trace_function(call.function, call.leaves, keys, call.tree)
    for value in _static_results(recorded):
        if type(value) not in _PLAIN:
            operator.index(value)  # a size, or something that may hold one
    if family.pinned or any(s.kind == "constant" for s in _sources(recorded)):
        return None
    family.planning = True
    layouts = [key.layout if isinstance(key, ArrayKey) else None for key in keys]
    schedule = engine.plan_graph(recorded.graph, layouts, fast_math=call.fast_math)
    stages = _stages(kind, schedule, call)
    if stages is None:
        return None
    arrays = {
        leaf: Geometry(key[1], key[2]) for leaf, key in enumerate(keys) if isinstance(key, ArrayKey)
    }
    numbers = Numbers(family, arrays)
    form = None
    map_kernels(stages)
    if not any(isinstance(stage, OpaqueStep) for stage in stages):
        form = _own_form(family, schedule, stages, recorded, arrays, call)
    run = Stretches(schedule, stages, Symbols(family, numbers, arrays)).run
    numbers.seal()
    return Ranged(recorded, keys, numbers, dimensions, run, form)


def _stages(kind: Kind, schedule: Schedule, call: Example) -> Stages | None:
    """Return what a plan runs; None where kernels are missing.

    Those are asked for where ``call.missing`` says so.
    """
    target, level = cpu.target(), call.level
    stages = engine.cached_stages(schedule, target, level=level)
    if stages is not None or call.missing == "leave":
        return stages
    wait = call.missing == "wait"
    urgency = service.Priority.NOW if wait else service.Priority.SOON
    tickets = engine.request(schedule, target, level=level, priority=urgency).values()
    kind.awaited = [ticket for ticket in tickets if not ticket.done()]
    kind.recompiles += bool(kind.awaited)
    if not wait:
        return None
    for ticket in kind.awaited:
        ticket.result()
    return engine.cached_stages(schedule, target, level=level)


def _symbolic(
    family: Family, leaf: int, key: Any, dimensions: Sequence[Dimension], kind: Kind
) -> Any:
    """Return a leaf's part of the signature with symbols in its varied dimensions."""
    if not isinstance(key, ArrayKey):
        return key

    def part(number: int, plain: Shape) -> Shape:
        return tuple(
            family.symbol(n, *kind.hint_of((leaf, number, axis), n))
            if (leaf, number, axis) in dimensions
            else n
            for axis, n in enumerate(plain)
        )

    dtype, sizes, strides = key
    shape = part(SHAPE, sizes)
    return ArrayKey((dtype, shape, None if strides is None else part(LAYOUT, strides)))


def _sources(recorded: Recorded) -> list[Source]:
    return [*recorded.sources, *(source for _, source in recorded.writes)]


def _static_results(recorded: Recorded) -> list[Any]:
    return [
        *(value for _, value in statics(recorded.tree)),
        *(source.value for source in recorded.sources if source.kind == "static"),
    ]


def _own_form(
    family: Family,
    schedule: Schedule,
    stages: Stages,
    recorded: Recorded,
    arrays: Mapping[int, Geometry],
    call: Example,
) -> DynamicForm | None:
    """Return a form for the function's own native entry; None where that cannot serve it."""
    if call.slots is None:
        return None
    inputs = call.slots.inputs
    result = result_of(recorded.tree, recorded.sources, recorded.writes, inputs)
    if result is None:
        return None
    by_slot = {inputs[leaf]: geometry for leaf, geometry in arrays.items()}
    calls = [native for stage in stages if not isinstance(stage, OpaqueStep) for native in stage]
    plan = partial(native_plan, schedule, calls)
    return dynamic_form(family, calls, plan, call.slots, by_slot, result)
