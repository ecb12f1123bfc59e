"""What is known while a function is traced: the running trace, and the user's line.

A ``Trace`` is one run of a function whose arguments are placeholders. While it is active, a
tensor that depends on its arguments has no value; once it has ended, such a tensor is a leaked
tracer. Front ends open a trace with ``with Trace("f", loc):``.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import CodeType, TracebackType

import numpy as np

from tracejit import gate
from tracejit.errors import IntoArrayError, Location, TraceError
from tracejit.graph.node import Node

# What NumPy asks for when it puts a value into an array of its own.
AS_ARRAY, AS_OUT = "np.asarray()", "out= with an array that is no argument"
INTO_ARRAY = (AS_ARRAY, AS_OUT, "float()", "int()", "complex()")


class Trace:
    """One run of a traced function: ``name`` and ``loc`` say which, ``active`` whether it runs.

    ``depth`` counts the traces around it. Used as a context manager, once.
    """

    __slots__ = ("active", "depth", "loc", "name", "outer")

    def __init__(self, name: str, loc: Location | None = None):
        self.name = name
        self.loc = loc
        self.active = False
        self.outer: Trace | None = None
        self.depth = 0

    def __enter__(self) -> Trace:
        self.outer = state.trace
        self.depth = 0 if self.outer is None else self.outer.depth + 1
        self.active = True
        state.trace = self
        gate.shut()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.active = False
        state.trace = self.outer
        gate.reopen()

    def __repr__(self) -> str:
        return f"<trace of {self.name}, {'active' if self.active else 'ended'}>"


class _State(threading.local):
    # Class attributes are the defaults of each thread.
    trace: Trace | None = None
    location: Location | None = None


state = _State()


def join(first: Trace | None, second: Trace) -> Trace:
    """Return the trace that a result depends on; raises ``TraceError`` on a leaked tracer."""
    if not second.active:
        raise leaked(second)
    if first is None or second.depth >= first.depth:
        return second
    return first


def leaked(trace: Trace) -> TraceError:
    """Return the error for the use of a tracer whose trace has ended."""
    return TraceError(
        f"a tensor traced in {trace.name} is used after that trace ended",
        hint=f"return it from {trace.name} instead of storing it outside",
        loc=user_location(),
    )


def no_value(trace: Trace, wanted: str, hint: str) -> TraceError:
    """Return the error for Python asking a traced tensor for its value."""
    if not trace.active:
        return leaked(trace)
    kind = IntoArrayError if wanted in INTO_ARRAY else TraceError
    return kind(
        f"{wanted} needs the value of a tensor that {trace.name} is tracing; "
        "it is known only when the compiled function runs",
        hint=hint,
        loc=user_location(),
    )


def is_traced(node: Node) -> bool:
    """Return whether ``node`` depends on a placeholder. Walks the graph: O(nodes)."""
    seen = {node}
    stack = [node]
    while stack:
        current = stack.pop()
        if current.op.name == "input":
            return True
        for operand in current.inputs:
            if operand not in seen:
                seen.add(operand)
                stack.append(operand)
    return False


# -- the user's line -------------------------------------------------------------------------------

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
# NumPy's Python wrappers stand between the user and __array_function__.
_NUMPY = os.path.dirname(os.path.abspath(np.__file__)) + os.sep

_internal: dict[str, bool] = {}
# Locations are shared by all nodes that one call site makes; computing a line number is dear.
_locations: dict[tuple[CodeType, int], Location] = {}
_LOCATIONS_KEPT = 1 << 16


def is_internal(file: str) -> bool:
    """Return whether ``file`` is tracejit's or NumPy's."""
    internal = _internal.get(file)
    if internal is None:
        internal = _internal[file] = file.startswith((_OURS, _NUMPY))
    return internal


def user_location() -> Location | None:
    """Return the innermost line outside tracejit and NumPy, or the one a front end has set."""
    if state.location is not None:
        return state.location
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while True:
        code = frame.f_code
        internal = _internal.get(code.co_filename)  # as `is_internal`, without a call
        if not (is_internal(code.co_filename) if internal is None else internal):
            break
        if frame.f_back is None:
            return None
        frame = frame.f_back
    key = (code, frame.f_lasti)
    location = _locations.get(key)
    if location is None:
        if len(_locations) >= _LOCATIONS_KEPT:
            _locations.clear()
        location = Location(code.co_filename, frame.f_lineno, code.co_qualname)
        _locations[key] = location
    return location


@contextmanager
def at(location: Location | None) -> Generator[None, None, None]:
    """Give the nodes recorded in this block ``location`` (a line of a NeuralScript program)."""
    before = state.location
    state.location = location
    try:
        yield
    finally:
        state.location = before
