"""Which sizes of a function's arguments vary: what is known of them, and the plans made for them.

``Variation`` notes along which dimensions a function's arguments have had different sizes, and
strides; ``frontend/dynamic.py``, which is loaded when there are such, makes the plans.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tracejit.frontend.signature import ArrayKey, signature_text
from tracejit.frontend.trees import Tree
from tracejit.ops.table import Shape
from tracejit.record import field, record

if TYPE_CHECKING:
    from tracejit.frontend.compiled import Compiled
    from tracejit.frontend.outside import OutsideKey
    from tracejit.frontend.ranged import Ranged
    from tracejit.runtime.numbers import Values
    from tracejit.runtime.profiler import SignatureProfile
    from tracejit.runtime.service import Ticket
    from tracejit.runtime.slots import Slots

Key = tuple[Any, ...]
# A dimension of an argument: its leaf, whether it is a size (1) or a stride (2), and the axis; so
# that ``keys[leaf][part][axis]`` of a signature's keys is its number.
Dimension = tuple[int, int, int]
# So many sizes of a kind that are called often get a signature of their own, and with it code for
# this very size.
HOT_SIZES = 3
# The parts of an ``ArrayKey``.
SHAPE, LAYOUT = 1, 2


# Sizes up to this one have kernels that suit few rows and short axes; at many they are slow: 12 to
# 23 times for axes of 2 or 3 (measured at 4096), 1.6 for rows of products.
SMALL = 8
# What sizes are taken for where only 1 came before a small one: kernels of 16 lose least elsewhere.
USUAL = 16


class Hint(NamedTuple):
    """The typical value of a symbol, and what its values are never below or above."""

    typical: int
    low: int | None
    high: int | None


class Sizes(tuple[tuple[Shape, Shape], ...]):
    """The sizes of a signature's arrays by leaf, and the strides of those not contiguous."""


@record
class Kind:
    """The signatures that differ in sizes only: those seen first, and where others differed.

    ``typical`` holds the first size above 1, or stride, of a dimension: choices that concern
    speed only are taken for these, so that plans share their kernels (``hint_of``). Where that is
    small, ``large`` holds the first size that is not, and ``merged`` says that all sizes share
    kernels all the same. ``served`` has the sizes that ``plans`` were made at; ``hot`` are sizes
    that are called often, with their own signature once there is one; ``compiled`` says that one of
    the signatures runs compiled; ``awaited`` are kernels in the making, ``recompiles`` says how
    often some were asked for; ``why_static`` says why no more plans are wanted.
    """

    first: Sizes
    varied: set[Dimension] = field(default_factory=set[Dimension])
    typical: dict[Dimension, int] = field(default_factory=dict[Dimension, int])
    large: dict[Dimension, int] = field(default_factory=dict[Dimension, int])
    merged: bool = False
    served: set[Sizes] = field(default_factory=set[Sizes])
    plans: list[Ranged] = field(default_factory=list["Ranged"])
    hot: dict[Sizes, Compiled | None] = field(default_factory=dict[Sizes, "Compiled | None"])
    lock: threading.Lock = field(default_factory=threading.Lock)
    compiled: bool = False
    why_static: str | None = None
    awaited: list[Ticket] = field(default_factory=list["Ticket"])
    recompiles: int = 0

    def note(self, sizes: Sizes, always: bool) -> None:
        """Take down where ``sizes`` differ from the first; ``always`` takes all for varied."""
        for leaf, (old, new) in enumerate(zip(self.first, sizes, strict=True)):
            for axis, (a, b) in enumerate(zip(old[0], new[0], strict=True)):
                if a != b or always:
                    self.varied.add((leaf, SHAPE, axis))
                if b > 1:
                    self.typical.setdefault((leaf, SHAPE, axis), b)
            for axis, (a, b) in enumerate(zip(old[1], new[1], strict=True)):
                if a != b or (always and b not in (0, 1)):
                    self.varied.add((leaf, LAYOUT, axis))
                self.typical.setdefault((leaf, LAYOUT, axis), b)

    def hint_of(self, dimension: Dimension, number: int) -> Hint:
        """Return what a symbol with the value ``number`` is taken for, and in which range.

        Where a function's first size was small, its kernels serve small sizes, and there are
        others above. Where it was large, its kernels serve all; so at most one set is compiled.
        """
        leaf, part, axis = dimension
        typical = self.typical[dimension]
        if part == LAYOUT:
            return Hint(typical, None, None)
        first = self.first[leaf][0][axis]
        if typical > SMALL or first > SMALL:
            return Hint(typical, 0, None)
        if number > SMALL:
            self.large.setdefault(dimension, number)
        if self.merged or first != typical:
            return Hint(self.large.get(dimension, USUAL), 0, None)
        if number <= SMALL:
            return Hint(typical, 0, SMALL)
        return Hint(self.large[dimension], SMALL + 1, None)

    def has_small(self, keys: Sequence[Any], dimensions: Sequence[Dimension]) -> bool:
        """Whether sizes of a signature are taken for small ones, for which no kernel is made."""
        numbers = ((d, keys[d[0]][d[1]][d[2]]) for d in dimensions)
        return any(self.hint_of(*number).high is not None for number in numbers)

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
            found[leaf][part - SHAPE][axis] = number
        return Sizes((tuple(shape), tuple(layout)) for shape, layout in found)


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
        from tracejit.runtime import profiler

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
        varied = tuple((leaf, SHAPE, axis) in kind.varied for axis in range(len(first)))
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
