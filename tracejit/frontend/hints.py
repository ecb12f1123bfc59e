"""Hints: what a user would want to know about a function that works, but not as meant."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from tracejit.frontend.names import parameter
from tracejit.frontend.trees import Tree, statics

# Values of one static number after which a recompile is probably not what the user wants.
STATIC_VALUES = 8


def hint_static(
    name: str, function: Callable[..., Any], tree: Tree, seen: dict[str, set[Any]]
) -> bool:
    """Warn where a number as argument makes one compilation a value; whether it was time to.

    ``seen`` collects the values of each static argument by its path.
    """
    for path, value in statics(tree):
        if type(value) not in (int, float, complex):
            continue
        values = seen.setdefault(path, set())
        values.add(value)
        if len(values) > STATIC_VALUES:
            warnings.warn(
                f"{name} has been compiled for {len(values)} values of the "
                f"{type(value).__name__} argument {parameter(function, path)}, whose "
                "value decides what it does. Where it is only a number in the arithmetic, "
                "pass an array or a NumPy scalar, such as np.int64(n).",
                RuntimeWarning,
                stacklevel=2,
            )
            return True
    return False


def hint_outside(name: str, changed: str | None) -> None:
    """Warn where a function was traced again and again for what it reads from outside."""
    if changed is not None:
        warnings.warn(
            f"{name} reads {changed}, which has changed often; each new value is traced. Pass it "
            "as an argument.",
            RuntimeWarning,
            stacklevel=2,
        )
