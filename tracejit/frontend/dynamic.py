"""Signatures whose sizes vary: traced and planned with symbolic sizes, served natively.

``Variation`` notes along which dimensions a function's arguments have had different sizes.
``generalise`` traces the function once more, with symbols for those, and makes a form of its native
entry that fits every size under the guards that trace and plan have left (``tracejit/sizes.py``).
Whatever cannot be done so stays as it is: each size traced for itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tracejit.frontend.compiled import Compiled, Recorded, trace_function
from tracejit.frontend.native import result_of
from tracejit.frontend.signature import ArrayKey
from tracejit.frontend.trees import Tree, statics
from tracejit.ops.table import Shape
from tracejit.runtime import cpu, engine
from tracejit.runtime.dynamic import DynamicForm, dynamic_form
from tracejit.runtime.slots import Slots
from tracejit.sizes import Family
from tracejit.tracing import user_location

Key = tuple[Any, ...]
# Forms for one class of signatures: sizes that fail the guards of one may get another.
FORMS_PER_CLASS = 8
# Static results that hold no size.
_PLAIN = (int, bool, str, bytes, float, complex, type(None), type, np.dtype)


@dataclass
class Kind:
    """The signatures that differ in sizes only: those seen first, and where others differed.

    ``varied`` holds (leaf, axis). ``forms`` counts the dynamic forms made; ``why_static`` says why
    no more are wanted.
    """

    first: tuple[Shape, ...]
    varied: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    forms: int = 0
    why_static: str | None = None


class Variation:
    """Which dimensions of a function's arguments have varied. ``always`` takes all for varied."""

    def __init__(self, always: bool):
        self.always = always
        self._kinds: dict[Any, Kind] = {}

    def note(self, key: Key) -> Kind:
        """Take down the sizes of a signature; return its kind."""
        tree, leaves, settings = key
        general = tuple(
            (k[0], len(k[1])) if isinstance(k, ArrayKey) and k.layout is None else k for k in leaves
        )
        shapes = tuple(k[1] if isinstance(k, ArrayKey) and k.layout is None else () for k in leaves)
        kind = self._kinds.setdefault((tree, general, settings), Kind(shapes))
        for leaf, (old, new) in enumerate(zip(kind.first, shapes, strict=True)):
            for axis, (a, b) in enumerate(zip(old, new, strict=True)):
                if a != b or self.always:
                    kind.varied.add((leaf, axis))
        return kind

    @property
    def forms(self) -> int:
        """How many dynamic forms there are."""
        return sum(kind.forms for kind in self._kinds.values())

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


class Example(NamedTuple):
    """A call that has been compiled for its very sizes, and stands for others of its kind.

    ``leaves`` are the values among the arguments, whose structure is ``tree``; ``slots`` is where
    a native entry finds them.
    """

    function: Callable[..., Any]
    compiled: Compiled
    tree: Tree
    leaves: Sequence[Any]
    slots: Slots


def generalise(kind: Kind, call: Example) -> DynamicForm | None:
    """Return a form for calls like ``call`` of any size along the varied dimensions.

    None where there is none; ``kind.why_static`` says why, if that will not change.
    """
    varied = {(leaf, axis) for leaf, axis in kind.varied if call.compiled.keys[leaf][1][axis] > 1}
    if not varied or kind.why_static is not None:
        return None
    if kind.forms >= FORMS_PER_CLASS:
        kind.why_static = f"{FORMS_PER_CLASS} plans for ranges of sizes are kept"
        return None
    family = Family(user_location)
    try:
        with family:
            form = _form(family, varied, call)
    except Exception as error:  # the trace with plain sizes went well, and answers
        kind.why_static = f"tracing with symbolic sizes raised {type(error).__name__}: {error}"
        return None
    if not family.planning and family.plain is not None:
        kind.why_static = f"a size is used as a plain number at {family.plain}"
    if form is not None:
        kind.forms += 1
    return form


def _static_results(recorded: Recorded) -> list[Any]:
    return [
        *(value for _, value in statics(recorded.tree)),
        *(source.value for source in recorded.sources if source.kind == "static"),
    ]


def _form(family: Family, varied: set[tuple[int, int]], call: Example) -> DynamicForm | None:
    function, compiled, tree, leaves, slots = call
    keys: list[Any] = []
    shapes: dict[int, Shape] = {}
    for leaf, key in enumerate(compiled.keys):
        if isinstance(key, ArrayKey) and key.layout is None and type(leaves[leaf]) is np.ndarray:
            shape: Shape = tuple(
                family.symbol(n) if (leaf, axis) in varied else n for axis, n in enumerate(key[1])
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
    program = compiled.program
    layouts = [key.layout if isinstance(key, ArrayKey) else None for key in keys]
    schedule = engine.plan_graph(recorded.graph, layouts, fast_math=program.fast_math)
    calls = engine.cached_calls(schedule, cpu.target(), level=program.level)
    if calls is None or family.pinned:
        return None
    form = dynamic_form(family, schedule, calls, slots, shapes, result)
    return None if family.pinned else form
