"""What the fast path of a jitted function remembers of arguments: enough to run at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracejit.frontend.compiled import Compiled, as_array
from tracejit.frontend.signature import is_array

STATIC = frozenset({int, bool, str, type(None)})
"""Types of arguments that are part of the signature by value."""

# Compiled form; positions of the leaves (None: all); where a call is just a run, which leaves
# kernels read as they are (``everything``: all arguments), else None.
Fast = tuple[Compiled, list[int] | None, tuple[bool, ...] | None]
everything: tuple[bool, ...] = (True,)


def fast_entry(compiled: Compiled, args: Sequence[Any], leaves: Sequence[Any]) -> Fast:
    """Return what the fast path needs for arguments like these."""
    positions = [i for i, a in enumerate(args) if a.__class__ not in STATIC]
    all_leaves = len(positions) == len(args)
    direct = [as_array(leaf, key) is leaf for leaf, key in zip(leaves, compiled.keys, strict=True)]
    ready = tuple(is_array(leaf) and own for leaf, own in zip(leaves, direct, strict=True))
    copies = any(is_array(leaf) and not own for leaf, own in zip(leaves, direct, strict=True))
    if copies or not compiled.simple:
        return compiled, None if all_leaves else positions, None
    return (
        compiled,
        None if all_leaves else positions,
        (everything if all_leaves and all(ready) else ready),
    )
