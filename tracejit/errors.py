"""Every error tracejit raises, in one table.

Four kinds: a mistake of the user, something unsupported, a limit, and a bug of ours. A user's
mistake also subclasses the builtin that NumPy would raise in its place, so that ``except
ValueError`` keeps working, and shows the user's own line with what to write instead.
"""

from __future__ import annotations

import linecache
from typing import NamedTuple


class Location(NamedTuple):
    """A place in the user's source: file, 1-based line, and the function it stands in."""

    filename: str
    line: int
    function: str = ""

    def source(self) -> str:
        """Return the text of the line, or "" where the source is not at hand."""
        return linecache.getline(self.filename, self.line).strip()

    def __str__(self) -> str:
        return f"{self.filename}:{self.line}"


class TracejitError(Exception):
    """Base of all tracejit errors.

    ``message`` states what is wrong with shapes and dtypes; ``hint`` says what to write instead;
    ``loc`` is the user's line.
    """

    def __init__(self, message: str, *, hint: str | None = None, loc: Location | None = None):
        self.message = message
        self.hint = hint
        self.loc = loc
        super().__init__(message)

    def __str__(self) -> str:
        lines = [self.message]
        if self.loc is not None:
            lines.append(f"  at {self.loc}")
            source = self.loc.source()
            if source:
                lines.append(f"    {source}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class UserError(TracejitError):
    """The program is wrong; the message says where and what to write."""


class ShapeError(UserError, ValueError):
    """Shapes do not fit together, or a size is not allowed."""


class DTypeError(UserError, TypeError):
    """An operation does not take these dtypes."""


class IndexOutOfRange(UserError, IndexError):
    """An index or axis lies outside its range."""


class IndexShapeError(ShapeError, IndexError):
    """Index arrays do not broadcast together (NumPy raises IndexError)."""


class AxisError(IndexOutOfRange, ValueError):
    """An axis lies outside the rank (NumPy's AxisError is both ValueError and IndexError)."""


class ArgumentError(UserError, TypeError):
    """A function was called with arguments it does not take."""


class ValueArgumentError(UserError, ValueError):
    """An argument has the right type and a value that is not allowed."""


class RangeError(UserError, OverflowError):
    """A Python integer does not fit the dtype it is combined with."""


class DivisionError(ValueArgumentError, ZeroDivisionError):
    """A step or a number of parts is zero (NumPy divides by it)."""


class TraceError(UserError, TypeError):
    """Python asked for the value of a traced tensor, or used a tracer after its trace ended."""


class IntoArrayError(TraceError):
    """A traced value was to go into an ndarray, which can only hold what is known."""


class TargetError(UserError, ValueError):
    """The named instruction set is unknown, or this machine lacks it."""


class ScriptError(UserError, SyntaxError):
    """A NeuralScript program is wrong."""


class UnsupportedError(TracejitError, TypeError):
    """Valid, but outside what tracejit does; the message names the way around."""


class SubinterpreterError(UnsupportedError, ImportError):
    """tracejit was imported in a sub-interpreter."""


class LimitError(TracejitError):
    """A documented limit was reached (rank, nesting, program size)."""


class OutOfMemory(LimitError, MemoryError):
    """The requested shape does not fit in memory."""


class ShapeTooLarge(OutOfMemory, ShapeError):
    """The requested shape fits in no memory: its bytes cannot be counted (NumPy: ValueError)."""


class RecompileError(TracejitError, RuntimeError):
    """A function met arguments it has no kernels for, under ``set_stance("fail_on_recompile")``."""


class InternalError(TracejitError):
    """A bug in tracejit: a pass broke an invariant, or generated code failed to verify."""
