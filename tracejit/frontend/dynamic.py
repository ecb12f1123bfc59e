"""Signatures whose sizes vary: traced and planned with symbolic sizes, served natively.

``Variation`` notes along which dimensions a function's arguments have had different sizes, and
strides. ``generalise`` traces the function once more, with symbols for those, and makes a plan that
fits every size under the guards that trace and plan have left (``tracejit/sizes.py``). Whatever
cannot be done so stays as it is: each size traced for itself.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from tracejit.frontend.compiled import Compiled, Recorded, Source, trace_function
from tracejit.frontend.native import result_of
from tracejit.frontend.outside import OutsideKey
from tracejit.frontend.ranged import Dimension, Ranged
from tracejit.frontend.signature import ArrayKey, signature_text
from tracejit.frontend.trees import Tree, statics
from tracejit.ops.table import Shape
from tracejit.record import field, record
from tracejit.runtime import cpu, engine, profiler, service
from tracejit.runtime.calls import NativeCall
from tracejit.runtime.dynamic import DynamicForm, dynamic_form
from tracejit.runtime.numbers import Geometry, Numbers, Values
from tracejit.runtime.plan import native_plan
from tracejit.runtime.profiler import SignatureProfile
from tracejit.runtime.slots import Slots
from tracejit.runtime.stretches import Stretches, Symbols, Unfit
from tracejit.schedule.schedule import OpaqueStep, Schedule
from tracejit.sizes import Family
from tracejit.tracing import user_location

Key = tuple[Any, ...]
Stages = Sequence[Sequence[NativeCall] | OpaqueStep]
# Plans for one class of signatures: sizes that fail the guards of one may get another.
PLANS_PER_KIND = 12
# So many sizes of a kind that are called often get a signature of their own, and with it code for
# this very size.
HOT_SIZES = 3
# Traces for one plan: dimensions that turn out to need their very value are plain in the next.
TRIES = 3
# Static results that hold no size.
_PLAIN = (int, bool, str, bytes, float, complex, type(None), type, np.dtype)
# The parts of an ``ArrayKey``.
_SHAPE, _LAYOUT = 1, 2


class Sizes(tuple[tuple[Shape, Shape], ...]):
    """The sizes of a signature's arrays by leaf, and the strides of those not contiguous."""


@record
class Kind:
    """The signatures that differ in sizes only: those seen first, and where others differed.

    ``typical`` holds the first size above 1, or stride, of a dimension: choices that concern
    speed only are taken for these, so that all plans share their kernels. ``served`` has the sizes
    that ``plans`` were made at; ``hot`` are sizes that are called often, with their own signature
    once there is one; ``compiled`` says that one of the signatures runs compiled; ``awaited`` are
    kernels in the making, ``recompiles`` says how often some were asked for; ``why_static`` says
    why no more plans are wanted.
    """

    first: Sizes
    varied: set[Dimension] = field(default_factory=set[Dimension])
    typical: dict[Dimension, int] = field(default_factory=dict[Dimension, int])
    served: set[Sizes] = field(default_factory=set[Sizes])
    plans: list[Ranged] = field(default_factory=list[Ranged])
    hot: dict[Sizes, Compiled | None] = field(default_factory=dict[Sizes, "Compiled | None"])
    lock: threading.Lock = field(default_factory=threading.Lock)
    compiled: bool = False
    why_static: str | None = None
    awaited: list[service.Ticket] = field(default_factory=list[service.Ticket])
    recompiles: int = 0

    def note(self, sizes: Sizes, always: bool) -> None:
        """Take down where ``sizes`` differ from the first; ``always`` takes all for varied."""
        for leaf, (old, new) in enumerate(zip(self.first, sizes, strict=True)):
            for axis, (a, b) in enumerate(zip(old[0], new[0], strict=True)):
                if a != b or always:
                    self.varied.add((leaf, _SHAPE, axis))
                if b > 1:
                    self.typical.setdefault((leaf, _SHAPE, axis), b)
            for axis, (a, b) in enumerate(zip(old[1], new[1], strict=True)):
                if a != b or (always and b not in (0, 1)):
                    self.varied.add((leaf, _LAYOUT, axis))
                self.typical.setdefault((leaf, _LAYOUT, axis), b)

    def serving(self, keys: Sequence[Any]) -> tuple[Ranged, Values] | None:
        """Return a plan for a signature, and the values of its numbers; None where none fits."""
        for plan in self.plans:
            values = plan.numbers(keys)
            if values is not None:
                return plan, values
        return None

    def look(self) -> tuple[int, bool]:
        """Return the calls since the last look, and whether a hot size has to be set up."""
        calls = sum(plan.look() for plan in self.plans)
        for plan in self.plans:
            if plan.hot is not None and len(self.hot) < HOT_SIZES:
                self.hot.setdefault(self._with(plan.varied, plan.hot), None)
        waiting = (c is None or (c.program.settled and not c.entered) for c in self.hot.values())
        return calls, any(waiting)

    def _with(self, dimensions: Sequence[Dimension], numbers: Sequence[int]) -> Sizes:
        """Return the first sizes with ``numbers`` in the place of ``dimensions``."""
        found = [[list(part) for part in parts] for parts in self.first]
        for (leaf, part, axis), number in zip(dimensions, numbers, strict=True):
            found[leaf][part - _SHAPE][axis] = number
        return Sizes((tuple(shape), tuple(layout)) for shape, layout in found)

    def stages(self, schedule: Schedule, call: Example) -> Stages | None:
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
        self.awaited = [ticket for ticket in tickets if not ticket.done()]
        self.recompiles += bool(self.awaited)
        if not wait:
            return None
        for ticket in self.awaited:
            ticket.result()
        return engine.cached_stages(schedule, target, level=level)


class Variation:
    """Which dimensions of a function's arguments have varied. ``always`` takes all for varied."""

    def __init__(self, always: bool):
        self.always = always
        self.divert: Callable[[], object] | None = None  # have the next call come to Python
        self._kinds: dict[Any, Kind] = {}
        self._earlier = 0  # recompiles for kinds that are forgotten

    def note(self, key: Key) -> Kind:
        """Take down the sizes of a signature; return its kind."""
        sizes = sizes_of(key[1])
        kind = self._kinds.setdefault(_but_sizes(key), Kind(sizes))
        kind.note(sizes, self.always)
        return kind

    @property
    def recompiles(self) -> int:
        """How often kernels for many sizes had to be compiled."""
        return self._earlier + sum(kind.recompiles for kind in self._kinds.values())

    @property
    def plans(self) -> list[Ranged]:
        """The plans for ranges of sizes."""
        return [plan for kind in self._kinds.values() for plan in kind.plans]

    def look(self, specialise: bool) -> int:
        """Find sizes that nearly all calls have: their next call shall come to Python."""
        looks = [kind.look() for kind in list(self._kinds.values()) if kind.plans]
        if specialise and self.divert is not None and any(wanted for _, wanted in looks):
            self.divert()
        return sum(calls for calls, _ in looks)

    def profiles(self) -> list[SignatureProfile]:
        """Return what the calls that plans for ranges have answered cost, by kind."""
        return [
            profiler.ranged_profile(kind.plans, _text(key[1], kind))
            for key, kind in self._kinds.items()
            if kind.plans
        ]

    def serves(self, key: Key) -> bool:
        """Whether there is a plan for ranges of sizes that has this signature."""
        kind = self._kinds.get(_but_sizes(key))
        return kind is not None and kind.serving(key[1]) is not None

    def served(self) -> list[tuple[Shape, ...]]:
        """Return the sizes that plans for ranges were made at."""
        kinds = self._kinds.values()
        return [tuple(shape for shape, _ in sizes) for kind in kinds for sizes in kind.served]

    def __str__(self) -> str:
        """Say how new sizes are answered."""
        reasons = sorted({k.why_static for k in self._kinds.values() if k.why_static is not None})
        count = len(self.plans)
        if count:
            plans = f"{count} plan{'s' * (count != 1)} for ranges of sizes: "
            plans += "; ".join(map(str, self.plans))
        elif reasons or any(kind.varied for kind in self._kinds.values()):
            plans = "each traced for itself"
        else:
            plans = "none met yet; a second one gets a plan for all of them"
        return "; ".join([plans, *reasons])

    def forget(self, outside: OutsideKey) -> None:
        """Forget the kinds of signatures that have ``outside``."""
        gone = {key: kind for key, kind in self._kinds.items() if key[3] == outside}
        self._earlier += sum(kind.recompiles for kind in gone.values())
        self._kinds = {key: kind for key, kind in self._kinds.items() if key not in gone}

    def clear(self) -> None:
        """Forget everything."""
        self._kinds.clear()
        self._earlier = 0


def _but_sizes(key: Key) -> Key:
    """Return a signature without sizes, and without strides other than 0 and 1."""
    tree, leaves, *others = key
    general = tuple(
        (k[0], len(k[1]), k[2] and tuple(s if s in (0, 1) else None for s in k[2] or ()))
        if isinstance(k, ArrayKey)
        else k
        for k in leaves
    )
    return tree, general, *others


def _text(general: Sequence[Any], kind: Kind) -> str:
    """Return a kind as a signature, with ``*`` for a size that varies."""
    parts: list[Any] = []
    for leaf, (key, (first, _)) in enumerate(zip(general, kind.first, strict=True)):
        varied = tuple((leaf, _SHAPE, axis) in kind.varied for axis in range(len(first)))
        shape: Any = tuple("*" if v else n for v, n in zip(varied, first, strict=True))
        parts.append(ArrayKey((key[0], shape, key[2])) if shape else key)
    return signature_text(parts)


def sizes_of(keys: Sequence[Any]) -> Sizes:
    """Return the sizes and strides of arrays by leaf; empty ones for other leaves."""
    return Sizes((k[1], k[2] or ()) if isinstance(k, ArrayKey) else ((), ()) for k in keys)


class Example(NamedTuple):
    """A call that stands for others of its kind.

    ``leaves`` are the values among the arguments, whose structure is ``tree``, with ``keys`` as
    their part of the signature; ``slots`` is where a native entry finds them, None where it cannot
    take them. ``fast_math`` and ``level`` are as ``jit`` has them. ``missing`` says what to do
    about kernels that are nowhere.
    """

    function: Callable[..., Any]
    keys: Sequence[Any]
    tree: Tree
    leaves: Sequence[Any]
    slots: Slots | None
    fast_math: bool
    level: int
    missing: Literal["leave", "ask", "wait"]


def generalise(kind: Kind, call: Example) -> Ranged | None:
    """Return a plan for calls like ``call`` of any size along the varied dimensions.

    None where there is none; ``kind.why_static`` says why, if that will not change.
    """
    varied = {d for d in kind.varied if d[1] == _LAYOUT or call.keys[d[0]][d[1]][d[2]] > 1}
    if not varied or kind.why_static is not None or not all(t.done() for t in kind.awaited):
        return None
    if len(kind.plans) >= PLANS_PER_KIND:
        kind.why_static = f"{PLANS_PER_KIND} plans for ranges of sizes are kept"
        return None
    plan = None
    for _ in range(TRIES):
        family = Family(user_location)
        dimensions = sorted(varied)
        try:
            with family:
                plan = _plan(family, dimensions, kind, call)
        except Unfit:
            kind.why_static = "native calls cannot hold a plan for ranges of its sizes"
            return None
        except Exception as error:  # the trace with plain sizes went well, and answers
            kind.why_static = f"tracing with symbolic sizes raised {type(error).__name__}: {error}"
            return None
        if not family.planning and family.plain is not None:
            kind.why_static = f"a size is used as a plain number at {family.plain}"
        varied -= {dimensions[symbol] for symbol in family.pinned}
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
    stages = kind.stages(schedule, call)
    if stages is None:
        return None
    arrays = {
        leaf: Geometry(key[1], key[2]) for leaf, key in enumerate(keys) if isinstance(key, ArrayKey)
    }
    numbers = Numbers(family, arrays)
    form = None
    if not any(isinstance(stage, OpaqueStep) for stage in stages):
        form = _own_form(family, schedule, stages, recorded, arrays, call)
    run = Stretches(schedule, stages, Symbols(family, numbers, arrays)).run
    numbers.seal()
    return Ranged(recorded, keys, numbers, dimensions, run, form)


def _symbolic(
    family: Family, leaf: int, key: Any, dimensions: Sequence[Dimension], kind: Kind
) -> Any:
    """Return a leaf's part of the signature with symbols in its varied dimensions."""
    if not isinstance(key, ArrayKey):
        return key

    def part(number: int, plain: Shape, low: int | None) -> Shape:
        return tuple(
            family.symbol(n, kind.typical[leaf, number, axis], low)
            if (leaf, number, axis) in dimensions
            else n
            for axis, n in enumerate(plain)
        )

    dtype, sizes, strides = key
    shape = part(_SHAPE, sizes, 0)
    return ArrayKey((dtype, shape, None if strides is None else part(_LAYOUT, strides, None)))


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
