"""Work counted in calls, for tests of cost: the same on every machine and every run.

A loop that Python runs per element shows up; a loop inside one builtin (a search through a list)
does not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def calls_of(function: Callable[[], Any]) -> int:
    """Return how many calls of functions, Python's and builtin, ``function()`` makes."""
    count = 0

    def event(frame: Any, kind: str, argument: Any) -> None:
        nonlocal count
        count += kind in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(event)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count
