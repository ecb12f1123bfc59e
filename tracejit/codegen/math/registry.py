"""The table of vector math functions, and how a kernel calls one.

A function is ``emit(b, *arguments) -> Value``; it works on scalars and on vectors of any lane
count, and picks its coefficients by ``type.kind`` (f32, f64). Names are NumPy's ufunc names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tracejit.codegen.builder import Builder, Value
from tracejit.codegen.lowered import MATH

Emitter = Callable[..., Value]


class MathFunction(NamedTuple):
    """One row: the emitter, its number of arguments, and whether calls are always inlined.

    Inlining lets a loop keep the coefficients in registers; long functions stay out of line so
    that a kernel that calls one ten times compiles its body once. (LLVM still inlines a body
    that has a single caller.)
    """

    emit: Emitter
    arity: int
    inline: bool


FUNCTIONS: dict[str, MathFunction] = {}


def register(name: str, *, arity: int = 1, inline: bool = False) -> Callable[[Emitter], Emitter]:
    """Enter the decorated emitter into ``FUNCTIONS`` under ``name``."""

    def enter(emit: Emitter) -> Emitter:
        if name in FUNCTIONS:
            raise AssertionError(f"math function {name} is registered twice")
        if name not in MATH:
            raise AssertionError(f"enter {name} into MATH in codegen/lowered.py")
        FUNCTIONS[name] = MathFunction(emit, arity, inline)
        return emit

    return enter


def call(b: Builder, name: str, *arguments: Value) -> Value:
    """Call math function ``name`` on f32 or f64 values of one type; the result has that type.

    The body becomes an internal function ``tj.<name>.<type>`` of the module, emitted once.
    """
    function = FUNCTIONS[name]
    types = [a.type for a in arguments]
    if len(types) != function.arity or any(t != types[0] for t in types):
        raise AssertionError(f"{name} takes {function.arity} equal types, not {types}")
    if types[0].kind not in ("f32", "f64"):
        raise AssertionError(f"{name} has no version for {types[0]}")
    symbol = b.module.require(
        f"tj.{name}.{types[0].suffix}",
        types[0],
        types,
        lambda inner, parameters: function.emit(inner, *parameters),
        inline=function.inline,
    )
    return b.call(symbol, types[0], *arguments)
