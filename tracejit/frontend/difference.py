"""Why a signature is new: what it has that no signature of the function had, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from tracejit.frontend.names import parameter
from tracejit.frontend.outside import changes
from tracejit.frontend.signature import ArrayKey, Key, signature_text
from tracejit.frontend.trees import Tree, paths, statics
from tracejit.runtime.reasons import Reason

# Signatures that are compared, the newest ones, and differences that are named.
COMPARED, NAMED = 32, 2
# Characters of a static value.
_LONGEST = 40
# What makes signatures differ, from the nearest to the furthest.
_ORDER = (
    Reason.SHAPE, Reason.LAYOUT, Reason.DTYPE, Reason.KIND, Reason.RANK, Reason.STATIC,
    Reason.OUTSIDE, Reason.STRUCTURE, Reason.SETTINGS,
)  # fmt: skip


class Why(NamedTuple):
    """A reason, and what was found: ``x is float64[4], was float64[3]``; "" for nothing to say."""

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


def why_new(function: Callable[..., Any], key: Key, known: Iterable[Key]) -> Why:
    """Return how ``key`` (a signature) differs from the nearest of ``known``.

    These are the function's signatures, the newest first; there is one at least.
    """
    compared = list(islice((k for k in known if k != key), COMPARED))
    if not compared:  # it was evicted
        return Why(Reason.STRUCTURE)
    found = [_reasons(key, other) for other in compared]
    nearest = min(range(len(found)), key=lambda i: sum(1 << _ORDER.index(r) for r in found[i]))
    reason = max(found[nearest], key=_ORDER.index)
    return Why(reason, _detail(function, key, compared[nearest], reason))


def _reasons(key: Key, other: Key) -> set[Reason]:
    """Return all that two signatures differ in."""
    (tree, leaves, settings, outside), (old_tree, old_leaves, old_settings, before) = key, other
    if settings != old_settings:
        return {Reason.SETTINGS}
    if tree != old_tree and not _same_structure(tree, old_tree):
        return {Reason.STRUCTURE}
    found = {Reason.STATIC} if tree != old_tree else set[Reason]()
    if outside != before:
        found.add(Reason.OUTSIDE)
    for new, old in zip(leaves, old_leaves, strict=True):
        if new != old:
            found |= _differences(new, old)
    return found


def _differences(new: Any, old: Any) -> set[Reason]:
    """Return how two leaves' parts of signatures differ."""
    if not (isinstance(new, ArrayKey) and isinstance(old, ArrayKey)):
        return {Reason.KIND}
    if len(new[1]) != len(old[1]):
        return {Reason.RANK}
    parts = zip((Reason.DTYPE, Reason.SHAPE, Reason.LAYOUT), new, old, strict=True)
    return {reason for reason, a, b in parts if a != b}


def _detail(function: Callable[..., Any], key: Key, other: Key, reason: Reason) -> str:
    """Return what differs, by the names of the parameters."""
    (tree, leaves, _, outside), (old_tree, old_leaves, _, before) = key, other
    found: list[tuple[str, str, str]] = []
    if reason is Reason.OUTSIDE:
        texts = [text for _, text in changes(before, outside)]
        return "; ".join(texts[:NAMED])
    if reason is Reason.STATIC:
        values = zip(statics(tree), statics(old_tree), strict=True)
        found = [(p, _value(a), _value(b)) for (p, a), (_, b) in values if not _same(a, b)]
    elif reason not in (Reason.SETTINGS, Reason.STRUCTURE):
        places = zip(paths(tree), leaves, old_leaves, strict=True)
        found = [(p, signature_text([a]), signature_text([b])) for p, a, b in places if a != b]
    texts = [f"{parameter(function, p)} is {new}, was {old}" for p, new, old in found[:NAMED]]
    more = len(found) - NAMED
    return "; ".join([*texts, *([f"and {more} more"] if more > 0 else [])])


def _same(a: Any, b: Any) -> bool:
    # 1 and True are equal, and not the same to a signature; neither are 0.0 and -0.0.
    return type(a) is type(b) and repr(a) == repr(b)


def _value(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _same_structure(a: Tree, b: Tree) -> bool:
    """True where two trees differ in static values only."""
    stack: list[tuple[Tree, Tree]] = [(a, b)]
    while stack:
        x, y = stack.pop()
        children: Sequence[Tree] = y.children
        if x.kind is not y.kind or len(x.children) != len(children):
            return False
        stack += zip(x.children, children, strict=True)
    return True
