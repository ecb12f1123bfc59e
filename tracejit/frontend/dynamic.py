"""Signatures whose sizes vary: traced and planned with symbolic sizes, served natively.

``Variation`` notes along which dimensions a function's arguments have had different sizes.
``generalise`` traces the function once more, with symbols for those, and makes a form of its native
entry that fits every size under the guards that trace and plan have left (``tracejit/sizes.py``).
Whatever cannot be done so stays as it is: each size traced for itself.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from tracejit.frontend.compiled import Compiled, Recorded, trace_function
from tracejit.frontend.native import result_of
from tracejit.frontend.signature import ArrayKey, signature_text
from tracejit.frontend.trees import Tree, statics
from tracejit.ops.table import Shape
from tracejit.runtime import cpu, engine, profiler, service
from tracejit.runtime.dynamic import DynamicForm, dynamic_form
from tracejit.runtime.entry import I64Array, NativeForm
from tracejit.runtime.profiler import SignatureProfile
from tracejit.runtime.slots import Slots
from tracejit.schedule.schedule import OpaqueStep, Schedule
from tracejit.sizes import Family
from tracejit.tracing import user_location

if TYPE_CHECKING:
    from tracejit.runtime.executable import NativeCall

Key = tuple[Any, ...]
# Forms for one class of signatures: sizes that fail the guards of one may get another.
FORMS_PER_CLASS = 12
# A size is hot that the newest call had at so many looks running (``runtime/analysis.py``), with so
# many calls between two; so many sizes of a kind get a signature of their own, and with it code for
# this very size.
HOT_LOOKS, HOT_CALLS, HOT_SIZES = 4, 64, 3
# Static results that hold no size.
_PLAIN = (int, bool, str, bytes, float, complex, type(None), type, np.dtype)


class Served:
    """A dynamic form that an entry has taken, and what the last looks at it have seen.

    ``axes`` are the (leaf, axis) of its symbols, in their order.
    """

    def __init__(self, form: DynamicForm, native: NativeForm, axes: Sequence[tuple[int, int]]):
        self.native = native
        self._sizes: I64Array = form.words[form.noted :]
        self._axes = axes
        self._calls = self._judged = 0
        self._seen: tuple[int, ...] = ()
        self._looks = 0

    def look(self) -> int:
        """Return how many calls there were since the last look."""
        calls, sizes = self.native.calls, tuple(self._sizes.tolist())
        new, self._calls = calls - self._calls, calls
        if calls - self._judged >= HOT_CALLS:
            self._looks = self._looks + 1 if sizes == self._seen else 0
            self._seen, self._judged = sizes, calls
        return new

    def hot(self, shapes: tuple[Shape, ...]) -> tuple[Shape, ...] | None:
        """Return the sizes that nearly all calls have, in place of ``shapes``; None for none."""
        if self._looks < HOT_LOOKS:
            return None
        found = [list(shape) for shape in shapes]
        for (leaf, axis), size in zip(self._axes, self._seen, strict=True):
            found[leaf][axis] = size
        return tuple(map(tuple, found))


@dataclass
class Kind:
    """The signatures that differ in sizes only: those seen first, and where others differed.

    ``varied`` holds (leaf, axis), ``typical`` the first size above 1 there: choices that concern
    speed only are taken for these, so that all plans share their kernels. ``forms`` counts the
    dynamic forms made, ``served`` has the sizes they were made at, ``native`` those that an entry
    has taken; ``hot`` are sizes that are called often, with their own signature once there is
    one; ``awaited`` are kernels in the making, ``recompiles`` says how often some were asked for;
    ``why_static`` says why no more forms are wanted.
    """

    first: tuple[Shape, ...]
    varied: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    typical: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    served: set[tuple[Shape, ...]] = field(default_factory=set[tuple[Shape, ...]])
    native: list[Served] = field(default_factory=list[Served])
    hot: dict[tuple[Shape, ...], Compiled | None] = field(
        default_factory=dict[tuple[Shape, ...], "Compiled | None"]
    )
    lock: threading.Lock = field(default_factory=threading.Lock)
    forms: int = 0
    why_static: str | None = None
    awaited: list[service.Ticket] = field(default_factory=list[service.Ticket])
    recompiles: int = 0

    def take(self, form: DynamicForm, native: NativeForm) -> None:
        """Keep an eye on a form that an entry has taken."""
        self.native.append(Served(form, native, form.axes))

    def look(self) -> tuple[int, bool]:
        """Return the calls since the last look, and whether a hot size has to be set up."""
        calls = sum(served.look() for served in self.native)
        for served in self.native:
            shapes = served.hot(self.first)
            if shapes is not None and len(self.hot) < HOT_SIZES:
                self.hot.setdefault(shapes, None)
        waiting = (c is None or (c.program.settled and not c.entered) for c in self.hot.values())
        return calls, any(waiting)

    def calls(self, schedule: Schedule, call: Example) -> Sequence[NativeCall] | None:
        """Return the native calls of a plan; None where kernels are missing.

        Those are asked for where ``call.missing`` says so.
        """
        target, level = cpu.target(), call.level
        calls = engine.cached_calls(schedule, target, level=level)
        if calls is not None or call.missing == "leave":
            return calls
        wait = call.missing == "wait"
        urgency = service.Priority.NOW if wait else service.Priority.SOON
        tickets = engine.request(schedule, target, level=level, priority=urgency).values()
        self.awaited = [ticket for ticket in tickets if not ticket.done()]
        self.recompiles += bool(self.awaited)
        if not wait:
            return None
        for ticket in self.awaited:
            ticket.result()
        return engine.cached_calls(schedule, target, level=level)


class Variation:
    """Which dimensions of a function's arguments have varied. ``always`` takes all for varied."""

    def __init__(self, always: bool):
        self.always = always
        self.divert: Callable[[], object] | None = None  # have the next call come to Python
        self._kinds: dict[Any, Kind] = {}

    def note(self, key: Key) -> Kind:
        """Take down the sizes of a signature; return its kind."""
        shapes = sizes_of(key[1])
        kind = self._kinds.setdefault(_but_sizes(key), Kind(shapes))
        for leaf, (old, new) in enumerate(zip(kind.first, shapes, strict=True)):
            for axis, (a, b) in enumerate(zip(old, new, strict=True)):
                if a != b or self.always:
                    kind.varied.add((leaf, axis))
                if b > 1:
                    kind.typical.setdefault((leaf, axis), b)
        return kind

    @property
    def recompiles(self) -> int:
        """How often kernels for many sizes had to be compiled."""
        return sum(kind.recompiles for kind in self._kinds.values())

    @property
    def forms(self) -> int:
        """How many dynamic forms there are."""
        return sum(kind.forms for kind in self._kinds.values())

    def look(self, specialise: bool) -> int:
        """Find sizes that nearly all calls have: their next call shall come to Python."""
        looks = [kind.look() for kind in list(self._kinds.values()) if kind.native]
        if specialise and self.divert is not None and any(wanted for _, wanted in looks):
            self.divert()
        return sum(calls for calls, _ in looks)

    def profiles(self) -> list[SignatureProfile]:
        """Return what the calls that dynamic forms have answered cost, by kind."""
        return [
            profiler.forms_profile([s.native for s in kind.native], _text(key[1], kind))
            for key, kind in self._kinds.items()
            if kind.native
        ]

    def serves(self, key: Key) -> bool:
        """Whether there is a plan for ranges of sizes that was made at this signature."""
        kind = self._kinds.get(_but_sizes(key))
        return kind is not None and sizes_of(key[1]) in kind.served

    def served(self) -> list[tuple[Shape, ...]]:
        """Return the sizes that dynamic forms were made at."""
        return [shapes for kind in self._kinds.values() for shapes in kind.served]

    def __str__(self) -> str:
        """Say how new sizes are answered."""
        reasons = sorted({k.why_static for k in self._kinds.values() if k.why_static is not None})
        plans = (
            f"{self.forms} plans for ranges of sizes" if self.forms else "each traced for itself"
        )
        return "; ".join([plans, *reasons])

    def clear(self) -> None:
        """Forget everything."""
        self._kinds.clear()


def _but_sizes(key: Key) -> Key:
    """Return a signature without the sizes of contiguous arrays."""
    tree, leaves, settings = key
    general = tuple(
        (k[0], len(k[1])) if isinstance(k, ArrayKey) and k.layout is None else k for k in leaves
    )
    return tree, general, settings


def _text(general: Sequence[Any], kind: Kind) -> str:
    """Return a kind as a signature, with ``*`` for a size that varies."""
    parts: list[Any] = []
    for leaf, (key, first) in enumerate(zip(general, kind.first, strict=True)):
        shape: Any = tuple("*" if (leaf, a) in kind.varied else n for a, n in enumerate(first))
        parts.append(ArrayKey((key[0], shape, None)) if shape else key)
    return signature_text(parts)


class Example(NamedTuple):
    """A call that stands for others of its kind.

    ``leaves`` are the values among the arguments, whose structure is ``tree``, with ``keys`` as
    their part of the signature; ``slots`` is where a native entry finds them. ``fast_math`` and
    ``level`` are as ``jit`` has them. ``missing`` says what to do about kernels that are nowhere.
    """

    function: Callable[..., Any]
    keys: Sequence[Any]
    tree: Tree
    leaves: Sequence[Any]
    slots: Slots
    fast_math: bool
    level: int
    missing: Literal["leave", "ask", "wait"]


def generalise(kind: Kind, call: Example) -> DynamicForm | None:
    """Return a form for calls like ``call`` of any size along the varied dimensions.

    None where there is none; ``kind.why_static`` says why, if that will not change.
    """
    varied = {(leaf, axis) for leaf, axis in kind.varied if call.keys[leaf][1][axis] > 1}
    if not varied or kind.why_static is not None or not all(t.done() for t in kind.awaited):
        return None
    if kind.forms >= FORMS_PER_CLASS:
        kind.why_static = f"{FORMS_PER_CLASS} plans for ranges of sizes are kept"
        return None
    family = Family(user_location)
    try:
        with family:
            form = _form(family, varied, kind, call)
    except Exception as error:  # the trace with plain sizes went well, and answers
        kind.why_static = f"tracing with symbolic sizes raised {type(error).__name__}: {error}"
        return None
    if not family.planning and family.plain is not None:
        kind.why_static = f"a size is used as a plain number at {family.plain}"
    if form is not None:
        kind.forms += 1
        kind.served.add(sizes_of(call.keys))
    return form


def _static_results(recorded: Recorded) -> list[Any]:
    return [
        *(value for _, value in statics(recorded.tree)),
        *(source.value for source in recorded.sources if source.kind == "static"),
    ]


def sizes_of(keys: Sequence[Any]) -> tuple[Shape, ...]:
    """Return the shapes of contiguous arrays by leaf; empty ones for other leaves."""
    return tuple(k[1] if isinstance(k, ArrayKey) and k.layout is None else () for k in keys)


def _form(
    family: Family, varied: set[tuple[int, int]], kind: Kind, call: Example
) -> DynamicForm | None:
    function, _, tree, leaves, slots, *_ = call
    keys: list[Any] = []
    shapes: dict[int, Shape] = {}
    for leaf, key in enumerate(call.keys):
        if isinstance(key, ArrayKey) and key.layout is None and type(leaves[leaf]) is np.ndarray:
            shape: Shape = tuple(
                family.symbol(n, kind.typical[leaf, axis]) if (leaf, axis) in varied else n
                for axis, n in enumerate(key[1])
            )
            shapes[slots.inputs[leaf]] = shape
            key = ArrayKey((key[0], shape, None))
        keys.append(key)
    recorded = trace_function(function, leaves, keys, tree)
    for value in _static_results(recorded):
        if type(value) not in _PLAIN:
            operator.index(value)  # a size, or something that may hold one
    result = result_of(recorded.tree, recorded.sources, recorded.writes, slots.inputs)
    if result is None or family.pinned:
        return None
    family.planning = True
    layouts = [key.layout if isinstance(key, ArrayKey) else None for key in keys]
    schedule = engine.plan_graph(recorded.graph, layouts, fast_math=call.fast_math)
    if any(isinstance(step, OpaqueStep) for step in schedule.steps):
        return None
    calls = kind.calls(schedule, call)
    if calls is None:
        return None
    form = dynamic_form(family, schedule, calls, slots, shapes, result)
    if form is not None:
        form.axes = sorted(varied)
    return form
